// SPDX-License-Identifier: MIT
//
// Providers: their names, and the flags that make and mend them.
#include <stdio.h>
#include <string.h>

#include "alloc/heap.h"
#include "engine/config_reader.h"

const char config_kinds[] = "openai|anthropic|gemini|ollama";
const char config_auths[] = "key|passthrough";

// Paths begin with these: a provider of that name would shadow them.
static const struct {
    const char *name;
    int kind; // the kind that may wear the name all the same, or -1
} roots[] = {
    {"v1", -1},
    {"v1beta", -1},
    {"api", -1},
    {"openai", PROVIDER_OPENAI},
    {"anthropic", PROVIDER_ANTHROPIC},
    {"health", -1},
    {"admin", -1},
};

static bool check_name(struct config_reader *reader, const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len >= CONFIG_NAME_MAX)
        return config_fail(reader, "a provider name has 1 to %d characters", CONFIG_NAME_MAX - 1);
    if (name[0] == '_' || name[0] == '-' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != len)
        return config_fail(
            reader, "bad provider name \"%.63s\"; use a-z, 0-9, - and _, a letter or digit first",
            name);
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
        if (roots[i].kind < 0 && strcmp(name, roots[i].name) == 0)
            return config_fail(reader, "a provider cannot be called %s: paths begin with that",
                               name);
    return true;
}

bool config_provider_kind(struct config_reader *reader, struct config_provider *provider,
                          const char *text)
{
    int kind;
    if (!config_choice(reader, config_kinds, text, &kind))
        return false;
    provider->kind = (enum provider_kind)kind;
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
        if (roots[i].kind >= 0 && roots[i].kind != kind &&
            strcmp(provider->name, roots[i].name) == 0)
            return config_fail(reader, "a provider called %s must be of kind %s, not %s",
                               provider->name, roots[i].name, text);
    return true;
}

bool config_provider_auth(struct config_reader *reader, struct config_provider *provider,
                          const char *text)
{
    int auth;
    if (!config_choice(reader, config_auths, text, &auth))
        return false;
    provider->auth = (enum provider_auth)auth;
    return true;
}

// Opens a place for `name`. A stronger source takes over the place of a weaker one, whole: a key
// never goes to a URL that it was not written beside.
bool config_provider_add(struct config_reader *reader, const char *name,
                         struct config_provider **added)
{
    struct config *config = reader->config;
    if (!check_name(reader, name))
        return false;
    int at = config_provider_find(config, name, strlen(name));
    if (at >= 0 && reader->provider_source[at] == reader->place.source)
        return config_fail(reader, "provider %s is given twice", name);
    if (at < 0) {
        if (config->provider_count == CONFIG_PROVIDERS_MAX)
            return config_fail(reader, "more than %d providers", CONFIG_PROVIDERS_MAX);
        at = (int)config->provider_count++;
    }
    struct config_provider *provider = &config->provider[at];
    config_provider_free(provider);
    *provider = (struct config_provider){
        .line = reader->place.source == SOURCE_FILE ? reader->place.line : 0};
    memcpy(provider->name, name, strlen(name) + 1);
    reader->provider_source[at] = reader->place.source;
    reader->provider_origin[at] = reader->place;
    *added = provider;
    return true;
}

// ---- flags ----

// Split NAME=REST into a copy of the name and where the rest begins.
static bool split_name(struct config_reader *reader, const struct config_option *option,
                       const char *value, char name[CONFIG_NAME_MAX], const char **rest)
{
    const char *equals = strchr(value, '=');
    size_t len = equals ? (size_t)(equals - value) : 0;
    // What stands here may be a key by mistake: it is not shown.
    if (len == 0 || len >= CONFIG_NAME_MAX)
        return config_fail(
            reader, "expected %s%s", option->argument,
            option->round == ROUND_MAIN ? ", as in local=openai+http://127.0.0.1:9000/v1" : "");
    memcpy(name, value, len);
    name[len] = 0;
    *rest = equals + 1;
    return true;
}

bool config_read_provider(struct config_reader *reader, const struct config_option *option,
                          const char *value)
{
    char name[CONFIG_NAME_MAX], kind[16] = "";
    const char *rest = NULL;
    struct config_provider *provider;
    if (!split_name(reader, option, value, name, &rest))
        return false;
    const char *plus = strchr(rest, '+');
    if (!plus)
        return config_fail(reader, "expected %s, as in %s=openai+http://127.0.0.1:9000/v1",
                           option->argument, name);
    snprintf(kind, sizeof(kind), "%.*s", (int)(plus - rest < 15 ? plus - rest : 15), rest);
    return config_provider_add(reader, name, &provider) &&
           config_provider_kind(reader, provider, kind) &&
           config_provider_url(reader, provider, plus + 1);
}

// The provider that an option names, with the names there are if there is none of that name.
struct config_provider *config_provider_named(struct config_reader *reader, const char *name)
{
    int at = config_provider_find(reader->config, name, strlen(name));
    if (at >= 0)
        return &reader->config->provider[at];
    const char *names[CONFIG_PROVIDERS_MAX];
    for (uint32_t i = 0; i < reader->config->provider_count; i++)
        names[i] = reader->config->provider[i].name;
    const char *near = config_nearest(name, names, reader->config->provider_count);
    if (near)
        config_fail(reader, "no provider is called \"%.63s\"; did you mean \"%s\"?", name, near);
    else
        config_fail(reader, "no provider is called \"%.63s\"", name);
    return NULL;
}

bool config_read_provider_key(struct config_reader *reader, const struct config_option *option,
                              const char *value)
{
    char name[CONFIG_NAME_MAX];
    const char *rest = NULL;
    if (!split_name(reader, option, value, name, &rest))
        return false;
    struct config_provider *provider = config_provider_named(reader, name);
    return provider && config_secret(reader, rest, &provider->api_key);
}

bool config_read_provider_auth(struct config_reader *reader, const struct config_option *option,
                               const char *value)
{
    char name[CONFIG_NAME_MAX];
    const char *rest = NULL;
    if (!split_name(reader, option, value, name, &rest))
        return false;
    struct config_provider *provider = config_provider_named(reader, name);
    return provider && config_provider_auth(reader, provider, rest);
}

bool config_read_default_provider(struct config_reader *reader, const struct config_option *option,
                                  const char *value)
{
    struct config_provider *provider = config_provider_named(reader, value);
    if (!provider)
        return false;
    reader->config->default_provider = (int)(provider - reader->config->provider);
    return true;
}

bool config_read_admin_token(struct config_reader *reader, const struct config_option *option,
                             const char *value)
{
    return config_secret(reader, value, &reader->config->admin_token);
}
