// SPDX-License-Identifier: MIT
//
// A config as text: --help of the options, and the effective settings as YAML that config_load
// would read again, with every secret masked.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

enum { HELP_COLUMN = 36, HELP_WIDTH = 100 };

// ---- help ----

static void print_wrapped(FILE *out, const char *text, int column)
{
    int at = column;
    for (const char *word = text; *word;) {
        int len = (int)strcspn(word, " ");
        if (at > column && at + 1 + len > HELP_WIDTH) {
            fprintf(out, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(out, "%s%.*s", at > column ? " " : "", len, word);
        word += len + strspn(word + len, " ");
    }
    fputc('\n', out);
}

void config_help(FILE *out)
{
    size_t count;
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        char text[256];
        const struct config_option *option = &options[i];
        if (i == 0 || strcmp(option->group, options[i - 1].group) != 0)
            fprintf(out, "%s%s:\n", i ? "\n" : "", option->group);
        char letter[5] = "    ";
        if (option->letter)
            snprintf(letter, sizeof(letter), "-%c, ", option->letter);
        int len = fprintf(out, "  %s--%s %s", letter, option->flag, option->argument);
        if (len + 2 > HELP_COLUMN)
            fprintf(out, "\n%*s", HELP_COLUMN, "");
        else
            fprintf(out, "%*s", HELP_COLUMN - len, "");
        if (option->standard)
            snprintf(text, sizeof(text), "%s (default %s)", option->help, option->standard);
        else
            snprintf(text, sizeof(text), "%s", option->help);
        print_wrapped(out, text, HELP_COLUMN);
    }
}

// ---- settings ----

// Double-quoted YAML; strings of a config hold no control characters.
static void print_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *c = text; *c; c++)
        fprintf(out, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
    fputc('"', out);
}

// A URL, where the reader takes ${ for a variable: $${ stands for the two bytes.
static void print_url(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (c[0] == '$' && c[1] == '{')
            fputc('$', out);
        fprintf(out, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
    }
    fputc('"', out);
}

static uint64_t load_number(const struct config *config, const struct config_option *option)
{
    const uint8_t *field = (const uint8_t *)config + option->offset;
    uint32_t narrow;
    uint64_t wide;
    if (option->width == 1)
        return *field;
    if (option->width == 4) {
        memcpy(&narrow, field, sizeof(narrow));
        return narrow;
    }
    CHECK(option->width == 8);
    memcpy(&wide, field, sizeof(wide));
    return wide;
}

// The CPUs of the workers, each once; workers beyond the list start it over.
static void print_cpus(FILE *out, const struct config *config)
{
    if (config->cpu[0] < 0) {
        fputs("none", out);
        return;
    }
    fputc('"', out);
    for (uint32_t i = 0; i < config->workers && (i == 0 || config->cpu[i] != config->cpu[0]); i++)
        fprintf(out, "%s%d", i ? "," : "", config->cpu[i]);
    fputc('"', out);
}

static void print_own(FILE *out, const struct config *config, const struct config_option *option)
{
    if (option->read == config_read_listen) {
        for (uint32_t i = 0; i < config->listener_count; i++) {
            fputs(i ? ", " : "[", out);
            print_quoted(out, config->listener[i].text);
        }
        fputc(']', out);
    } else if (option->read == config_read_admin) {
        print_quoted(out, config->admin.text);
    } else if (option->read == config_read_cpus) {
        print_cpus(out, config);
    } else if (option->read == config_read_default_provider) {
        print_quoted(out, config->provider[config->default_provider].name);
    } else {
        CHECK(option->traits & OPTION_SECRET);
        fputs("\"***\"", out);
    }
}

static void print_value(FILE *out, const struct config *config, const struct config_option *option)
{
    char text[64];
    uint64_t number =
        option->type == OPTION_OWN || option->type == OPTION_TEXT ? 0 : load_number(config, option);
    switch (option->type) {
    case OPTION_NUMBER: fprintf(out, "%llu", (unsigned long long)number); return;
    case OPTION_SIZE: config_format_size(number, text, sizeof(text)); break;
    case OPTION_TIME: config_format_time(number, text, sizeof(text)); break;
    case OPTION_SWITCH: fputs(number ? "on" : "off", out); return;
    case OPTION_CHOICE:
        CHECK(config_choice_name(option->argument, (int)number, text, sizeof(text)));
        break;
    case OPTION_TEXT:
        print_quoted(out, *(char *const *)(const void *)((const uint8_t *)config + option->offset));
        return;
    case OPTION_OWN: print_own(out, config, option); return;
    }
    fputs(text, out);
}

// Is there anything to say? Options without a value are left out.
static bool is_set(const struct config *config, const struct config_option *option)
{
    if (!option->key || (option->traits & OPTION_NESTED) || strcmp(option->key, "providers") == 0)
        return false;
    if (option->read == config_read_default_provider)
        return config->default_provider >= 0;
    if (option->type == OPTION_TEXT || (option->traits & OPTION_SECRET))
        return *(char *const *)(const void *)((const uint8_t *)config + option->offset) != NULL;
    return true;
}

static void print_provider(FILE *out, const struct config_provider *provider)
{
    char kind[32], auth[32], url[1024];
    CHECK(config_choice_name(config_kinds, (int)provider->kind, kind, sizeof(kind)));
    CHECK(config_choice_name(config_auths, (int)provider->auth, auth, sizeof(auth)));
    if (provider->port == 0)
        snprintf(url, sizeof(url), "unix:%s%s%s", provider->host, *provider->base_path ? ":" : "",
                 provider->base_path);
    else
        snprintf(url, sizeof(url), "http%s://%s%s", provider->tls ? "s" : "", provider->authority,
                 provider->base_path);
    fprintf(out, "  - name: \"%s\"\n    kind: %s\n    base_url: ", provider->name, kind);
    print_url(out, url);
    fprintf(out, "\n    auth: %s\n", auth);
    if (provider->api_key)
        fputs("    api_key: \"***\"\n", out);
    if (provider->connections_max)
        fprintf(out, "    connections: %u\n", provider->connections_max);
    if (provider->address_count)
        fputs("    #", out);
    for (uint32_t i = 0; i < provider->address_count; i++)
        fprintf(out, " %s", provider->address[i].text);
    if (provider->address_count)
        fputc('\n', out);
}

// 2500000 -> "2.5"
static void print_micros(FILE *out, const char *name, uint64_t micros, const char *end)
{
    char places[8];
    snprintf(places, sizeof(places), "%06u", (unsigned)(micros % 1000000));
    for (int last = 5; last >= 0 && places[last] == '0'; last--)
        places[last] = 0;
    fprintf(out, "%s: %llu%s%s%s", name, (unsigned long long)(micros / 1000000), *places ? "." : "",
            places, end);
}

static void print_target(FILE *out, const struct config *config, const struct config_target *target)
{
    fprintf(out, "      - {provider: \"%s\", model: ", config->provider[target->provider].name);
    print_quoted(out, target->model);
    fprintf(out, ", weight: %u, ", target->weight);
    if (target->priced) {
        print_micros(out, "price: {input", target->price_input_micros, ", ");
        print_micros(out, "output", target->price_output_micros, "}, ");
    }
    print_micros(out, "quality", target->quality_micros, "}\n");
}

static void print_model(FILE *out, const struct config *config, const struct config_model *model)
{
    char strategy[32];
    CHECK(config_choice_name(config_strategies, (int)model->strategy, strategy, sizeof(strategy)));
    fputs("  - name: ", out);
    print_quoted(out, model->name);
    fprintf(out, "\n    strategy: %s\n    targets:\n", strategy);
    for (uint32_t i = 0; i < model->target_count; i++)
        print_target(out, config, &model->target[i]);
    for (uint32_t i = 0; i < model->fallback_count; i++) {
        fputs(i ? ", " : "    fallback: [", out);
        print_quoted(out, model->fallback[i]);
    }
    if (model->fallback_count)
        fputs("]\n", out);
}

void config_print(const struct config *config, FILE *out)
{
    size_t count;
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (!is_set(config, &options[i]))
            continue;
        fprintf(out, "%s: ", options[i].key);
        print_value(out, config, &options[i]);
        fputc('\n', out);
    }
    fputs("providers:\n", out);
    for (uint32_t i = 0; i < config->provider_count; i++)
        print_provider(out, &config->provider[i]);
    if (config->model_count)
        fputs("models:\n", out);
    for (uint32_t i = 0; i < config->model_count; i++)
        print_model(out, config, &config->model[i]);
}
