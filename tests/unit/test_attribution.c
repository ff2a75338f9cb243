// SPDX-License-Identifier: MIT
//
// Proves that every error and every status has exactly one culprit, and that no client can make a
// provider look ill. A new error in proto/reply.h fails here until somebody decides whose it is.
// PAINS: 5, 10, 21.
#include <criterion/criterion.h>

#include "engine/attribution.h"

static const struct judged {
    bool known;
    enum fault fault;
    enum breaker_result result;
} judged[REPLY_ERROR_COUNT + 1] = {
    [REPLY_BAD_REQUEST] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_HEAD_TOO_LARGE] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_BAD_EXPECT] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_NOT_IMPLEMENTED] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_VERSION] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_UPGRADE] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_BODY_TOO_LARGE] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_LENGTH_REQUIRED] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_NOT_JSON] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_TOO_DEEP] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_NO_MODEL] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_MODEL_INVALID] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_MODEL_BEYOND_PEEK] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_MODEL_NOT_FOUND] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_PATH_NOT_FOUND] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_METHOD_NOT_ALLOWED] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_CLIENT_TIMEOUT] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_DIALECT_UNSUPPORTED] = {true, FAULT_CLIENT, BREAKER_CANCELLED},
    [REPLY_UPSTREAM_CONNECT] = {true, FAULT_PROVIDER, BREAKER_FAILURE_HARD},
    [REPLY_UPSTREAM_TLS] = {true, FAULT_PROVIDER, BREAKER_FAILURE_HARD},
    [REPLY_UPSTREAM_RESET] = {true, FAULT_PROVIDER, BREAKER_FAILURE_HARD},
    [REPLY_UPSTREAM_PROTOCOL] = {true, FAULT_PROVIDER, BREAKER_FAILURE_HARD},
    [REPLY_UPSTREAM_HEAD_TOO_LARGE] = {true, FAULT_PROVIDER, BREAKER_FAILURE},
    [REPLY_UPSTREAM_TRUNCATED] = {true, FAULT_PROVIDER, BREAKER_FAILURE},
    [REPLY_UPSTREAM_BUSY] = {true, FAULT_GATEWAY, BREAKER_CANCELLED},
    [REPLY_TIMEOUT_CONNECT] = {true, FAULT_PROVIDER, BREAKER_FAILURE_HARD},
    [REPLY_TIMEOUT_FIRST_BYTE] = {true, FAULT_PROVIDER, BREAKER_FAILURE},
    [REPLY_TIMEOUT_IDLE] = {true, FAULT_PROVIDER, BREAKER_FAILURE},
    [REPLY_TIMEOUT_TOTAL] = {true, FAULT_NONE, BREAKER_CANCELLED},
    [REPLY_OVERLOAD_CONNECTIONS] = {true, FAULT_GATEWAY, BREAKER_CANCELLED},
    [REPLY_OVERLOAD_MEMORY] = {true, FAULT_GATEWAY, BREAKER_CANCELLED},
    [REPLY_DRAINING] = {true, FAULT_GATEWAY, BREAKER_CANCELLED},
    [REPLY_INTERNAL] = {true, FAULT_GATEWAY, BREAKER_CANCELLED},
    [REPLY_ERROR_COUNT] = {true, FAULT_NONE, BREAKER_CANCELLED},
};

Test(attribution, every_error_of_ours_has_its_culprit)
{
    for (unsigned e = 0; e <= REPLY_ERROR_COUNT; e++) {
        const char *name = e < REPLY_ERROR_COUNT ? reply_error_name((enum reply_error)e) : "none";
        struct attribution got = attribution_error((enum reply_error)e);
        cr_assert(judged[e].known, "%s: nobody has decided whose fault it is", name);
        cr_assert_eq(got.fault, judged[e].fault, "%s", name);
        cr_assert_eq(got.result, judged[e].result, "%s", name);
    }
}

// The table of the header, said a second time.
static struct judged expected(unsigned status, bool our_key)
{
    if (status < 200 || status > 599)
        return (struct judged){true, FAULT_PROVIDER, BREAKER_FAILURE};
    if (status < 400)
        return (struct judged){true, FAULT_NONE, BREAKER_SUCCESS};
    if (status == 503 || status == 529)
        return (struct judged){true, FAULT_OVERLOAD, BREAKER_FAILURE_HARD};
    if (status == 501 || status == 505)
        return (struct judged){true, FAULT_CLIENT, BREAKER_SUCCESS};
    if (status >= 500)
        return (struct judged){true, FAULT_PROVIDER, BREAKER_FAILURE_HARD};
    if (status == 408)
        return (struct judged){true, FAULT_PROVIDER, BREAKER_FAILURE};
    if (status == 429)
        return (struct judged){true, FAULT_OVERLOAD, BREAKER_CANCELLED};
    bool key = status == 401 || status == 402 || status == 403 || status == 407;
    if (key && our_key)
        return (struct judged){true, FAULT_CONFIG, BREAKER_CANCELLED};
    return (struct judged){true, FAULT_CLIENT, BREAKER_SUCCESS};
}

Test(attribution, every_status_has_its_culprit)
{
    for (unsigned status = 0; status <= 1000; status++)
        for (int our_key = 0; our_key <= 1; our_key++) {
            struct attribution got = attribution_status((uint16_t)status, our_key);
            cr_assert_eq(got.fault, expected(status, our_key).fault, "%u", status);
            cr_assert_eq(got.result, expected(status, our_key).result, "%u", status);
        }
}

// Thousands of bad requests with keys of their own: no failure for the breaker among them.
Test(attribution, no_status_that_a_client_can_provoke_alone_is_a_failure)
{
    static const uint16_t provoked[] = {400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 412, 413,
                                        414, 415, 416, 417, 422, 424, 426, 431, 451, 499, 501, 505};
    for (unsigned i = 0; i < sizeof provoked / sizeof *provoked; i++) {
        struct attribution got = attribution_status(provoked[i], false);
        cr_assert_eq(got.fault, FAULT_CLIENT, "%u", provoked[i]);
        cr_assert_eq(got.result, BREAKER_SUCCESS, "%u", provoked[i]);
    }
}

Test(attribution, an_error_event_stands_for_a_status)
{
    static const struct {
        const char *type;
        unsigned status;
    } events[] = {{"invalid_request_error", 400},
                  {"authentication_error", 401},
                  {"billing_error", 402},
                  {"permission_error", 403},
                  {"not_found_error", 404},
                  {"request_too_large", 413},
                  {"rate_limit_error", 429},
                  {"api_error", 500},
                  {"timeout_error", 504},
                  {"overloaded_error", 529},
                  {"OVERLOADED_ERROR", 529},
                  {"invalid_api_key", 401},
                  {"model_not_found", 404},
                  {"context_length_exceeded", 400},
                  {"invalid_prompt", 400},
                  {"content_filter", 400},
                  {"rate_limit_exceeded", 429},
                  {"insufficient_quota", 429},
                  {"server_error", 500},
                  {"overloaded", 529},
                  {"INVALID_ARGUMENT", 400},
                  {"FAILED_PRECONDITION", 400},
                  {"OUT_OF_RANGE", 400},
                  {"UNAUTHENTICATED", 401},
                  {"PERMISSION_DENIED", 403},
                  {"NOT_FOUND", 404},
                  {"RESOURCE_EXHAUSTED", 429},
                  {"INTERNAL", 500},
                  {"UNAVAILABLE", 503},
                  {"DEADLINE_EXCEEDED", 504},
                  {"", 500},
                  {"overloaded_erro", 500},
                  {"overloaded_errors", 500},
                  {"something new", 500}};
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        struct span type = span_of(events[i].type, strlen(events[i].type));
        cr_assert_eq(attribution_event_status(type), events[i].status, "%s", events[i].type);
    }
    cr_assert_eq(attribution_event_status((struct span){0}), 500);
}

Test(attribution, faults_have_names)
{
    static const char *const names[] = {"none",     "client",   "config",
                                        "overload", "provider", "gateway"};
    for (unsigned f = 0; f < FAULT_COUNT; f++)
        cr_assert_str_eq(fault_name((enum fault)f), names[f]);
}
