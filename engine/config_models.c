// SPDX-License-Identifier: MIT
//
// The models of the file: what clients may ask for, and who serves it.
#include <string.h>

#include "alloc/heap.h"
#include "engine/config_yaml.h"

enum { MODEL_NAME, MODEL_STRATEGY, MODEL_TARGETS, MODEL_FALLBACK, MODEL_FIELDS };
enum { TARGET_PROVIDER, TARGET_MODEL, TARGET_WEIGHT, TARGET_PRICE, TARGET_QUALITY, TARGET_FIELDS };
enum { MODEL_NAME_MAX = 255, WEIGHT_MAX = 10000 };

// USD per 1M tokens, in millionths: nobody charges a million.
static const uint64_t price_max = 1000000ull * 1000000;

const char config_strategies[] = "weighted|balanced|cost|latency|quality|task";

static bool model_name(struct config_reader *reader, const yaml_node_t *node, const char *key,
                       const char **name)
{
    if (!yaml_text(reader, node, key, name))
        return false;
    size_t len = strlen(*name);
    if (len == 0 || len > MODEL_NAME_MAX || !config_text_clean(*name))
        return config_fail(reader, "a model name has 1 to %d bytes and no control characters",
                           MODEL_NAME_MAX);
    return true;
}

static bool read_price(struct config_reader *reader, yaml_document_t *document,
                       const yaml_node_t *map, struct config_target *target)
{
    static const char *const names[] = {"input", "output"};
    uint64_t *const price[] = {&target->price_input_micros, &target->price_output_micros};
    yaml_node_t *value[2];
    const char *text;
    if (!yaml_fields(reader, document, map, " of a price", names, 2, value))
        return false;
    yaml_blame(reader, map, "price");
    for (int i = 0; i < 2; i++)
        if (!value[i])
            return config_fail(reader, "a price needs an %s, in USD per 1M tokens", names[i]);
    for (int i = 0; i < 2; i++) {
        if (!yaml_text(reader, value[i], names[i], &text) ||
            !config_micros(reader, text, price_max, price[i]))
            return false;
    }
    target->priced = true;
    return true;
}

static bool target_provider(struct config_reader *reader, const yaml_node_t *node,
                            struct config_target *target)
{
    const char *name;
    if (!yaml_text(reader, node, "provider", &name))
        return false;
    const struct config_provider *provider = config_provider_named(reader, name);
    if (!provider)
        return false;
    target->provider = (uint16_t)(provider - reader->config->provider);
    return true;
}

static bool target_numbers(struct config_reader *reader, yaml_document_t *document,
                           yaml_node_t **value, struct config_target *target)
{
    const char *text;
    uint64_t number;
    target->weight = 1;
    target->quality_micros = 1000000;
    if (value[TARGET_WEIGHT]) {
        if (!yaml_text(reader, value[TARGET_WEIGHT], "weight", &text) ||
            !config_number(reader, text, 0, WEIGHT_MAX, &number))
            return false;
        target->weight = (uint32_t)number;
    }
    if (value[TARGET_QUALITY]) {
        if (!yaml_text(reader, value[TARGET_QUALITY], "quality", &text) ||
            !config_micros(reader, text, 1000000, &number))
            return false;
        target->quality_micros = (uint32_t)number;
    }
    return !value[TARGET_PRICE] || read_price(reader, document, value[TARGET_PRICE], target);
}

static bool read_target(struct config_reader *reader, yaml_document_t *document,
                        const yaml_node_t *map, struct config_model *model)
{
    static const char *const names[TARGET_FIELDS] = {"provider", "model", "weight", "price",
                                                     "quality"};
    struct config_target *target = &model->target[model->target_count];
    yaml_node_t *value[TARGET_FIELDS];
    const char *name = model->name;
    if (!yaml_fields(reader, document, map, " of a target", names, TARGET_FIELDS, value))
        return false;
    yaml_blame(reader, map, "targets");
    if (!value[TARGET_PROVIDER])
        return config_fail(reader, "a target needs a provider");
    if (!target_provider(reader, value[TARGET_PROVIDER], target))
        return false;
    if (value[TARGET_MODEL] && !model_name(reader, value[TARGET_MODEL], "model", &name))
        return false;
    target->model = heap_copy(name);
    model->target_count++;
    return target_numbers(reader, document, value, target);
}

static bool read_targets(struct config_reader *reader, yaml_document_t *document,
                         const yaml_node_t *list, struct config_model *model)
{
    size_t count;
    uint64_t weight = 0;
    if (!yaml_list(reader, list, "targets", CONFIG_TARGETS_MAX, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!read_target(reader, document, yaml_item(document, list, i), model))
            return false;
        weight += model->target[i].weight;
    }
    yaml_blame(reader, list, "targets");
    return weight > 0 || config_fail(reader, "all weights are 0; one target must take traffic");
}

static bool read_fallback(struct config_reader *reader, yaml_document_t *document,
                          const yaml_node_t *list, struct config_model *model)
{
    size_t count;
    const char *name;
    if (!yaml_list(reader, list, "fallback", CONFIG_FALLBACKS_MAX, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!model_name(reader, yaml_item(document, list, i), "fallback", &name))
            return false;
        if (strcmp(name, model->name) == 0)
            return config_fail(reader, "model \"%.60s\" falls back to itself", name);
        model->fallback[model->fallback_count++] = heap_copy(name);
    }
    return true;
}

static bool read_model(struct config_reader *reader, yaml_document_t *document,
                       const yaml_node_t *map)
{
    static const char *const names[MODEL_FIELDS] = {"name", "strategy", "targets", "fallback"};
    struct config *config = reader->config;
    yaml_node_t *value[MODEL_FIELDS];
    const char *text;
    int choice = STRATEGY_WEIGHTED;
    if (!yaml_fields(reader, document, map, " of a model", names, MODEL_FIELDS, value))
        return false;
    yaml_blame(reader, map, "models");
    if (!value[MODEL_NAME])
        return config_fail(reader, "a model needs a name");
    if (!value[MODEL_TARGETS])
        return config_fail(reader, "a model needs targets");
    if (!model_name(reader, value[MODEL_NAME], "name", &text))
        return false;
    struct config_model *model = &config->model[config->model_count++];
    model->name = heap_copy(text);
    model->line = reader->place.line;
    if (value[MODEL_STRATEGY] && !(yaml_text(reader, value[MODEL_STRATEGY], "strategy", &text) &&
                                   config_choice(reader, config_strategies, text, &choice)))
        return false;
    model->strategy = (enum route_strategy)choice;
    return read_targets(reader, document, value[MODEL_TARGETS], model) &&
           (!value[MODEL_FALLBACK] ||
            read_fallback(reader, document, value[MODEL_FALLBACK], model));
}

bool config_models_read(struct config_reader *reader, yaml_document_t *document,
                        const yaml_node_t *list)
{
    size_t count;
    if (!yaml_list(reader, list, "models", CONFIG_MODELS_MAX, &count))
        return false;
    reader->config->model = heap_alloc(count * sizeof(struct config_model));
    for (size_t i = 0; i < count; i++)
        if (!read_model(reader, document, yaml_item(document, list, i)))
            return false;
    return true;
}
