// SPDX-License-Identifier: MIT
#include "engine/route.h"

#include <string.h>

#include "alloc/check.h"

// ------------------------------------------------------------------------------------------ paths

// A constant initializer, which SPAN's compound literal is not.
#define PATH(text)                                                                                 \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

// Paths with one meaning. Everything else under /v1/ goes to the default provider untouched.
static const struct known_path {
    struct span path;
    enum dialect dialect;
} known_paths[] = {
    {PATH("/v1/chat/completions"), DIALECT_OPENAI},
    {PATH("/v1/completions"), DIALECT_OPENAI},
    {PATH("/v1/embeddings"), DIALECT_OPENAI},
    {PATH("/v1/responses"), DIALECT_OPENAI},
    {PATH("/v1/messages"), DIALECT_ANTHROPIC},
    {PATH("/v1/messages/count_tokens"), DIALECT_ANTHROPIC},
    {PATH("/api/chat"), DIALECT_OLLAMA},
    {PATH("/api/generate"), DIALECT_OLLAMA},
    {PATH("/api/embed"), DIALECT_OLLAMA},
};

static struct span path_only(struct span target)
{
    const uint8_t *query = target.len ? memchr(target.ptr, '?', target.len) : NULL;
    return query ? span_of(target.ptr, (size_t)(query - target.ptr)) : target;
}

// Origin-form of the target: absolute-form loses its scheme and authority (RFC 9112 section 3.2.2).
static struct span origin_form(struct span target)
{
    if (target.len == 0 || target.ptr[0] == '/' || target.ptr[0] == '*')
        return target;
    for (size_t i = 0; i + 2 < target.len; i++) {
        if (memcmp(target.ptr + i, "://", 3) != 0)
            continue;
        for (i += 3; i < target.len; i++)
            if (target.ptr[i] == '/')
                return span_of(target.ptr + i, target.len - i);
        break;
    }
    return SPAN("/");
}

static void refuse(struct route *route, enum reply_error error, const char *allow)
{
    route->kind = ROUTE_REFUSE;
    route->error = error;
    route->allow = allow;
}

// "/NAME/rest": the provider called NAME, or -1.
static int prefix_provider(const struct config *config, struct span path, struct span *rest)
{
    if (path.len < 2)
        return -1;
    const uint8_t *slash = memchr(path.ptr + 1, '/', path.len - 1);
    if (!slash)
        return -1;
    size_t name_len = (size_t)(slash - path.ptr) - 1;
    int provider = config_provider_find(config, (const char *)path.ptr + 1, name_len);
    if (provider >= 0)
        *rest = span_of(slash, path.len - name_len - 1);
    return provider;
}

static enum dialect provider_dialect(enum provider_kind kind)
{
    switch (kind) {
    case PROVIDER_ANTHROPIC: return DIALECT_ANTHROPIC;
    case PROVIDER_GEMINI: return DIALECT_GEMINI;
    case PROVIDER_OLLAMA: return DIALECT_OLLAMA;
    case PROVIDER_OPENAI: break;
    }
    return DIALECT_OPENAI;
}

static void route_models(struct route *route, const struct config *config,
                         const struct h1_head *head, struct span path)
{
    // Without a models section the provider's own list is the truth.
    if (config->model_count == 0)
        return;
    bool get = head->method == H1_METHOD_GET || head->method == H1_METHOD_HEAD;
    if (!get)
        return;
    const struct span list = SPAN("/v1/models");
    route->kind = path.len == list.len ? ROUTE_MODELS : ROUTE_MODEL;
    if (route->kind == ROUTE_MODEL)
        route->id = span_of(path.ptr + list.len + 1, path.len - list.len - 1);
}

static void route_path(struct route *route, const struct config *config, const struct h1_head *head)
{
    struct span path = path_only(route->path);
    bool post = head->method == H1_METHOD_POST;
    for (size_t i = 0; i < sizeof known_paths / sizeof *known_paths; i++) {
        if (!span_equal(path, known_paths[i].path))
            continue;
        route->dialect = known_paths[i].dialect;
        route->peek = post;
        if (!post)
            refuse(route, REPLY_METHOD_NOT_ALLOWED, "POST");
        return;
    }
    if (span_equal(path, SPAN("/v1/models")) || span_starts(path, SPAN("/v1/models/"))) {
        route_models(route, config, head, path);
    } else if (span_starts(path, SPAN("/v1beta/"))) {
        route->dialect = DIALECT_GEMINI;
    } else if (span_starts(path, SPAN("/api/"))) {
        route->dialect = DIALECT_OLLAMA;
    } else if (!span_starts(path, SPAN("/v1/"))) {
        refuse(route, REPLY_PATH_NOT_FOUND, NULL);
    }
}

void route_head(struct route *route, const struct config *config, const struct h1_head *head)
{
    *route = (struct route){.provider = -1, .path = origin_form(head->target)};
    struct span path = path_only(route->path);
    bool get = head->method == H1_METHOD_GET || head->method == H1_METHOD_HEAD;
    if (head->method == H1_METHOD_CONNECT || head->method == H1_METHOD_TRACE ||
        head->method == H1_METHOD_OTHER) {
        refuse(route, REPLY_METHOD_NOT_ALLOWED, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        return;
    }
    if (span_equal(path, SPAN("/health"))) {
        route->kind = ROUTE_HEALTH;
        if (!get)
            refuse(route, REPLY_METHOD_NOT_ALLOWED, "GET, HEAD");
        return;
    }
    const struct h1_field *wish = NULL;
    if (h1_find(head, H1_FIELD_X_TOKENRING))
        wish = h1_find_name(head, SPAN("x-tokenring-provider"));
    struct span rest;
    int prefixed = prefix_provider(config, route->path, &rest);
    if (prefixed >= 0) {
        route->provider = prefixed;
        route->path = rest;
        route->why = "path";
        route->dialect = provider_dialect(config->provider[prefixed].kind);
        return;
    }
    route_path(route, config, head);
    if (route->kind != ROUTE_FORWARD || !wish)
        return;
    route->provider = config_provider_find(config, (const char *)wish->value.ptr, wish->value.len);
    route->why = "header";
    route->peek = false;
    if (route->provider < 0)
        refuse(route, REPLY_MODEL_NOT_FOUND, NULL);
}

// ----------------------------------------------------------------------------------------- models

static const struct config_target *pick_target(const struct config_model *model, uint64_t random)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < model->target_count; i++)
        sum += model->target[i].weight;
    uint64_t at = sum ? random % sum : 0;
    for (uint32_t i = 0; i < model->target_count; i++) {
        if (at < model->target[i].weight)
            return &model->target[i];
        at -= model->target[i].weight;
    }
    return &model->target[0];
}

bool route_model(struct route_choice *choice, const struct config *config,
                 const struct route *route, const char *model, size_t len, uint64_t random)
{
    *choice = (struct route_choice){.provider = route->provider, .why = route->why};
    if (route->provider >= 0)
        return true;
    const struct config_model *known = config_model_find(config, model, len);
    if (known && known->target_count > 0) {
        const struct config_target *target = pick_target(known, random);
        choice->provider = target->provider;
        choice->model = target->model;
        choice->model_len = strlen(target->model);
        if (choice->model_len == len && memcmp(choice->model, model, len) == 0)
            choice->model = NULL;
        choice->why = "model";
        return true;
    }
    const char *slash = len ? memchr(model, '/', len) : NULL;
    if (slash) {
        size_t name_len = (size_t)(slash - model);
        choice->provider = config_provider_find(config, model, name_len);
        choice->model = slash + 1;
        choice->model_len = len - name_len - 1;
        choice->why = "name";
        if (choice->provider >= 0 && choice->model_len > 0)
            return true;
    }
    choice->model = NULL;
    choice->provider = config->default_provider;
    choice->why = "default";
    return choice->provider >= 0;
}

bool route_speaks(const struct config_provider *provider, enum dialect dialect)
{
    switch (provider->kind) {
    case PROVIDER_OPENAI: return dialect == DIALECT_OPENAI;
    case PROVIDER_ANTHROPIC: return dialect == DIALECT_ANTHROPIC;
    case PROVIDER_GEMINI: return dialect == DIALECT_GEMINI;
    case PROVIDER_OLLAMA: return dialect == DIALECT_OLLAMA || dialect == DIALECT_OPENAI;
    }
    return false;
}

// -------------------------------------------------------------------------------------- upstream

static size_t put(uint8_t *out, size_t at, struct span text)
{
    if (text.len)
        memcpy(out + at, text.ptr, text.len);
    return at + text.len;
}

// Copy "?a=1&key=SECRET&b=2" without the key: Gemini clients put their credential there.
static size_t put_query(uint8_t *out, size_t at, struct span query)
{
    char joiner = '?';
    size_t i = 1;
    while (i < query.len) {
        const uint8_t *end = memchr(query.ptr + i, '&', query.len - i);
        size_t len = end ? (size_t)(end - query.ptr) - i : query.len - i;
        struct span pair = span_of(query.ptr + i, len);
        if (!span_starts(pair, SPAN("key="))) {
            out[at++] = (uint8_t)joiner;
            at = put(out, at, pair);
            joiner = '&';
        }
        i += len + 1;
    }
    return at;
}

size_t route_target(uint8_t *out, const struct config_provider *provider, const struct route *route)
{
    const struct span base = span_of(provider->base_path, strlen(provider->base_path));
    CHECK(base.len < ROUTE_PATH_EXTRA);
    struct span path = path_only(route->path);
    struct span query = span_of(path.ptr + path.len, route->path.len - path.len);
    // A path that already carries the base keeps it: /openai/v1/files and /v1 do not make
    // /v1/v1/files.
    bool has_base = span_starts(path, base) && (path.len == base.len || path.ptr[base.len] == '/');
    size_t at = 0;
    if (base.len > 0 && !has_base) {
        if (span_starts(path, SPAN("/v1/")))
            path = span_of(path.ptr + 3, path.len - 3);
        at = put(out, at, base);
    }
    at = put(out, at, path);
    if (provider->kind == PROVIDER_GEMINI && provider->auth == AUTH_KEY)
        return put_query(out, at, query);
    return put(out, at, query);
}
