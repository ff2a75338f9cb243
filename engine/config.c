// SPDX-License-Identifier: MIT
//
// From the four sources to one frozen config: see config_reader.h for the order of things.
#include "engine/config.h"

#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config_reader.h"

// ---- flags ----

static bool unknown_flag(struct config_reader *reader, const char *text, size_t len)
{
    const char *names[CONFIG_OPTIONS_MAX];
    char name[64];
    size_t count;
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++)
        names[i] = options[i].flag;
    snprintf(name, sizeof(name), "%.*s", (int)(len < 63 ? len : 63), text);
    reader->place = (struct config_place){0};
    const char *near = config_nearest(name, names, count);
    if (near)
        return config_fail(reader, "--%s: unknown flag; did you mean --%s?", name, near);
    return config_fail(reader, "--%s: unknown flag; --help lists them", name);
}

// Read one flag at argv[*at]; leaves *at on its last word.
static bool read_flag(struct config_reader *reader, int *at, const struct config_option **option,
                      const char **value)
{
    const char *word = reader->argv[*at];
    reader->place = (struct config_place){0};
    if (word[0] != '-' || word[1] == 0)
        return config_fail(reader, "unexpected argument \"%.60s\"", word);
    if (word[1] == '-') {
        size_t len = strcspn(word + 2, "=");
        *option = config_option_flag(word + 2, len);
        *value = word[2 + len] ? word + 3 + len : NULL;
        if (!*option)
            return unknown_flag(reader, word + 2, len);
    } else {
        *option = config_option_letter(word[1]);
        *value = word[2] ? word + 2 : NULL;
        if (!*option)
            return config_fail(reader, "-%c: unknown flag; --help lists them", word[1]);
    }
    if (!*value && *at + 1 < reader->argc && strncmp(reader->argv[*at + 1], "--", 2) != 0)
        *value = reader->argv[++*at];
    reader->place = (struct config_place){.source = SOURCE_FLAG, .option = *option};
    return *value || config_fail(reader, "needs a value: %s", (*option)->argument);
}

static bool apply_flags(struct config_reader *reader, enum config_round round)
{
    const struct config_option *option = NULL;
    const char *value = NULL;
    for (int i = 1; i < reader->argc; i++) {
        if (!read_flag(reader, &i, &option, &value))
            return false;
        if (option->round == round && !config_set(reader, option, value))
            return false;
    }
    return true;
}

// ---- environment ----

// A list: words between blanks.
static bool set_words(struct config_reader *reader, const struct config_option *option,
                      const char *value)
{
    char word[CONFIG_TEXT_MAX];
    for (const char *from = value + strspn(value, " \t\n"); *from; from += strspn(from, " \t\n")) {
        size_t len = strcspn(from, " \t\n");
        if (len >= sizeof(word))
            return config_fail(reader, "a value is longer than %zu bytes", sizeof(word) - 1);
        memcpy(word, from, len);
        word[len] = 0;
        if (!config_set(reader, option, word))
            return false;
        from += len;
    }
    return true;
}

// A variable that is empty counts as not set: that is what container files make of a missing one.
static bool apply_env(struct config_reader *reader, enum config_round round)
{
    char name[64];
    size_t count;
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (options[i].round != round)
            continue;
        config_option_env(&options[i], name, sizeof(name));
        const char *value = config_variable(reader, name, strlen(name));
        if (!value || !*value)
            continue;
        reader->place = (struct config_place){.source = SOURCE_ENV, .option = &options[i]};
        if (!(options[i].traits & OPTION_REPEATS ? set_words(reader, &options[i], value)
                                                 : config_set(reader, &options[i], value)))
            return false;
    }
    return true;
}

static bool apply_defaults(struct config_reader *reader)
{
    size_t count;
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (options[i].round != ROUND_MAIN || !options[i].standard)
            continue;
        reader->place = (struct config_place){.source = SOURCE_DEFAULT, .option = &options[i]};
        if (!config_set(reader, &options[i], options[i].standard))
            return false;
    }
    return true;
}

// ---- the whole ----

static bool load(struct config_reader *reader, struct config_file **file)
{
    static const enum config_round rounds[] = {ROUND_MAIN, ROUND_LATE};
    if (!apply_env(reader, ROUND_PATH) || !apply_flags(reader, ROUND_PATH))
        return false;
    const char *path = reader->config->path;
    if (path) {
        reader->place = reader->origin[config_option_index(config_option_letter('c'))];
        if (!config_file_open(reader, path, file))
            return false;
    }
    if (!apply_defaults(reader))
        return false;
    for (int i = 0; i < 2; i++)
        if ((*file && !config_file_apply(reader, *file, rounds[i])) ||
            !apply_env(reader, rounds[i]) || !apply_flags(reader, rounds[i]))
            return false;
    return config_freeze(reader);
}

struct config *config_load(int argc, char *const *argv, char *const *env, bool no_network,
                           char *error, size_t error_len)
{
    CHECK(error != NULL);
    CHECK(error_len > 0);
    struct config_file *file = NULL;
    struct config_reader *reader = heap_alloc(sizeof(*reader));
    *reader = (struct config_reader){.argc = argc,
                                     .argv = argv,
                                     .env = env,
                                     .no_network = no_network,
                                     .error = error,
                                     .error_len = error_len};
    struct config *config = heap_alloc(sizeof(*config));
    config->default_provider = -1;
    reader->config = config;
    error[0] = 0;
    bool good = load(reader, &file);
    config_file_close(file);
    heap_free(reader);
    if (good)
        return config;
    CHECK(error[0] != 0);
    config_free(config);
    return NULL;
}

static void free_model(struct config_model *model)
{
    heap_free(model->name);
    for (uint32_t i = 0; i < model->target_count; i++)
        heap_free(model->target[i].model);
    for (uint32_t i = 0; i < model->fallback_count; i++)
        heap_free(model->fallback[i]);
}

void config_provider_free(struct config_provider *provider)
{
    heap_free(provider->api_key);
    heap_free(provider->ca_file);
    heap_free(provider->client_cert);
    heap_free(provider->client_key);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (uint32_t i = 0; i < config->provider_count; i++)
        config_provider_free(&config->provider[i]);
    for (uint32_t i = 0; i < config->model_count; i++)
        free_model(&config->model[i]);
    heap_free(config->model);
    heap_free(config->admin_token);
    heap_free(config->via_name);
    heap_free(config->congestion);
    heap_free(config->tls_cert);
    heap_free(config->tls_key);
    heap_free(config->tls_client_ca);
    heap_free(config->path);
    heap_free(config->user);
    heap_free(config);
}

const struct config_model *config_model_find(const struct config *config, const char *name,
                                             size_t len)
{
    uint32_t low = 0, high = config->model_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct config_model *model = &config->model[middle];
        size_t model_len = strlen(model->name);
        int order = memcmp(name, model->name, len < model_len ? len : model_len);
        if (order == 0)
            order = (len > model_len) - (len < model_len);
        if (order == 0)
            return model;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

int config_provider_find(const struct config *config, const char *name, size_t len)
{
    for (uint32_t i = 0; i < config->provider_count; i++)
        if (strlen(config->provider[i].name) == len &&
            memcmp(config->provider[i].name, name, len) == 0)
            return (int)i;
    return -1;
}
