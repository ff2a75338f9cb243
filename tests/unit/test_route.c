// SPDX-License-Identifier: MIT
#include <criterion/criterion.h>
#include <stdio.h>

#include "engine/route.h"

extern char **environ;

static char error[512];

static struct config *two_providers(void)
{
    char *argv[] = {"tokenring",
                    "-p",
                    "alpha=openai+http://127.0.0.1:9001/v1",
                    "-p",
                    "beta=anthropic+http://127.0.0.1:9002",
                    "-p",
                    "gem=gemini+http://127.0.0.1:9003"};
    struct config *config =
        config_load(sizeof argv / sizeof *argv, argv, environ, true, error, sizeof error);
    cr_assert_not_null(config, "%s", error);
    return config;
}

// What route_head() says of this request line and these fields.
static struct route routed(const struct config *config, const char *line, const char *fields)
{
    static char raw[2048];
    static struct h1_head head;
    int len = snprintf(raw, sizeof raw, "%s HTTP/1.1\r\nHost: h\r\n%s\r\n", line, fields);
    cr_assert_eq(h1_parse_request(&head, (const uint8_t *)raw, (size_t)len), H1_OK, "%s", line);
    struct route route;
    route_head(&route, config, &head);
    return route;
}

static const char *target(const struct config *config, int provider, const char *line)
{
    static uint8_t out[2048];
    struct route route = routed(config, line, "");
    size_t len = route_target(out, &config->provider[provider], &route);
    out[len] = '\0';
    return (const char *)out;
}

Test(route, paths_and_methods)
{
    // Known paths want their method, unknown ones are refused, /v1/ is passed through.
    struct config *config = two_providers();
    struct route route = routed(config, "POST /v1/chat/completions", "");
    cr_assert_eq(route.kind, ROUTE_FORWARD);
    cr_assert(route.peek);
    route = routed(config, "GET /v1/chat/completions", "");
    cr_assert_eq(route.error, REPLY_METHOD_NOT_ALLOWED);
    cr_assert_str_eq(route.allow, "POST");
    cr_assert_eq(routed(config, "GET /nothing", "").error, REPLY_PATH_NOT_FOUND);
    cr_assert_eq(routed(config, "POST /v1/files", "").kind, ROUTE_FORWARD);
    cr_assert_eq(routed(config, "GET /health", "").kind, ROUTE_HEALTH);
    cr_assert_eq(routed(config, "POST /v1/messages?beta=true", "").dialect, DIALECT_ANTHROPIC);
    cr_assert_eq(routed(config, "TRACE /v1/files", "").error, REPLY_METHOD_NOT_ALLOWED);
    config_free(config);
}

Test(route, prefix_beats_header)
{
    // /NAME/... goes to NAME whatever the header wishes; the header decides elsewhere.
    struct config *config = two_providers();
    int alpha = config_provider_find(config, "alpha", 5),
        beta = config_provider_find(config, "beta", 4);
    const char *wish = "x-tokenring-provider: beta\r\n";
    cr_assert_eq(routed(config, "POST /alpha/v1/x", wish).provider, alpha);
    cr_assert_eq(routed(config, "POST /v1/chat/completions", wish).provider, beta);
    cr_assert_eq(routed(config, "POST /v1/chat/completions", "x-tokenring-provider: no\r\n").kind,
                 ROUTE_REFUSE);
    config_free(config);
}

Test(route, model_by_provider_name)
{
    // "NAME/rest" is provider NAME and model "rest"; without a default others are nobody's.
    struct config *config = two_providers();
    struct route route = {.provider = -1};
    struct route_choice choice;
    cr_assert(route_model(&choice, config, &route, "beta/claude", 11, 0));
    cr_assert_eq(choice.provider, config_provider_find(config, "beta", 4));
    cr_assert_eq(choice.model_len, 6);
    cr_assert_eq(memcmp(choice.model, "claude", 6), 0);
    cr_assert_not(route_model(&choice, config, &route, "gpt", 3, 0));
    config_free(config);
}

Test(route, upstream_path)
{
    // base_path replaces the leading /v1, is not doubled, and a key in the query goes to nobody.
    struct config *config = two_providers();
    int alpha = config_provider_find(config, "alpha", 5),
        beta = config_provider_find(config, "beta", 4);
    int gem = config_provider_find(config, "gem", 3);
    cr_assert_str_eq(target(config, alpha, "POST /v1/chat/completions"), "/v1/chat/completions");
    cr_assert_str_eq(target(config, alpha, "POST /alpha/chat/completions?a=1"),
                     "/v1/chat/completions?a=1");
    cr_assert_str_eq(target(config, beta, "POST /v1/messages?beta=true"), "/v1/messages?beta=true");
    cr_assert_str_eq(target(config, alpha, "GET http://h/v1/files"), "/v1/files");
    cr_assert_str_eq(target(config, gem, "POST /v1beta/models/m:x?key=secret&alt=sse"),
                     "/v1beta/models/m:x?alt=sse");
    cr_assert_str_eq(target(config, gem, "POST /v1beta/models/m:x?key=secret"),
                     "/v1beta/models/m:x");
    config_free(config);
}
