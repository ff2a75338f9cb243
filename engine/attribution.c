// SPDX-License-Identifier: MIT
#include "engine/attribution.h"

#include "alloc/check.h"

static struct attribution blame(enum fault fault, enum breaker_result result)
{
    return (struct attribution){(uint8_t)fault, (uint8_t)result};
}

struct attribution attribution_error(enum reply_error error)
{
    switch (error) {
    case REPLY_BAD_REQUEST:
    case REPLY_HEAD_TOO_LARGE:
    case REPLY_BAD_EXPECT:
    case REPLY_NOT_IMPLEMENTED:
    case REPLY_VERSION:
    case REPLY_UPGRADE:
    case REPLY_BODY_TOO_LARGE:
    case REPLY_LENGTH_REQUIRED:
    case REPLY_NOT_JSON:
    case REPLY_TOO_DEEP:
    case REPLY_NO_MODEL:
    case REPLY_MODEL_INVALID:
    case REPLY_MODEL_BEYOND_PEEK:
    case REPLY_MODEL_NOT_FOUND:
    case REPLY_PATH_NOT_FOUND:
    case REPLY_METHOD_NOT_ALLOWED:
    case REPLY_CLIENT_TIMEOUT:
    case REPLY_DIALECT_UNSUPPORTED: return blame(FAULT_CLIENT, BREAKER_CANCELLED);
    case REPLY_UPSTREAM_CONNECT:
    case REPLY_UPSTREAM_TLS:
    case REPLY_TIMEOUT_CONNECT:
    case REPLY_UPSTREAM_RESET:
    case REPLY_UPSTREAM_PROTOCOL: return blame(FAULT_PROVIDER, BREAKER_FAILURE_HARD);
    case REPLY_UPSTREAM_HEAD_TOO_LARGE:
    case REPLY_UPSTREAM_TRUNCATED:
    case REPLY_TIMEOUT_FIRST_BYTE:
    case REPLY_TIMEOUT_IDLE: return blame(FAULT_PROVIDER, BREAKER_FAILURE);
    case REPLY_TIMEOUT_TOTAL:
    case REPLY_ERROR_COUNT: return blame(FAULT_NONE, BREAKER_CANCELLED);
    // Ours, and whatever is new in reply.h: its test fails until somebody decides.
    default: return blame(FAULT_GATEWAY, BREAKER_CANCELLED);
    }
}

static struct attribution server_status(uint16_t status)
{
    switch (status) {
    case 501:
    case 505: return blame(FAULT_CLIENT, BREAKER_SUCCESS);
    case 503:
    case 529: return blame(FAULT_OVERLOAD, BREAKER_FAILURE_HARD);
    default: return blame(FAULT_PROVIDER, BREAKER_FAILURE_HARD);
    }
}

struct attribution attribution_status(uint16_t status, bool our_key)
{
    if (status < 200 || status >= 600)
        return blame(FAULT_PROVIDER, BREAKER_FAILURE);
    if (status < 400)
        return blame(FAULT_NONE, BREAKER_SUCCESS);
    if (status >= 500)
        return server_status(status);
    switch (status) {
    case 401:
    case 402:
    case 403:
    case 407:
        return our_key ? blame(FAULT_CONFIG, BREAKER_CANCELLED)
                       : blame(FAULT_CLIENT, BREAKER_SUCCESS);
    case 408: return blame(FAULT_PROVIDER, BREAKER_FAILURE);
    case 429: return blame(FAULT_OVERLOAD, BREAKER_CANCELLED);
    default: return blame(FAULT_CLIENT, BREAKER_SUCCESS);
    }
}

// A constant initializer, which SPAN's compound literal is not.
#define TYPE(text)                                                                                 \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

uint16_t attribution_event_status(struct span type)
{
    static const struct {
        struct span type;
        uint16_t status;
    } known[] = {
        // Anthropic, and what OpenAI's types share with it
        {TYPE("invalid_request_error"), 400},
        {TYPE("authentication_error"), 401},
        {TYPE("billing_error"), 402},
        {TYPE("permission_error"), 403},
        {TYPE("not_found_error"), 404},
        {TYPE("request_too_large"), 413},
        {TYPE("rate_limit_error"), 429},
        {TYPE("api_error"), 500},
        {TYPE("timeout_error"), 504},
        {TYPE("overloaded_error"), 529},
        // OpenAI: types and codes
        {TYPE("invalid_api_key"), 401},
        {TYPE("model_not_found"), 404},
        {TYPE("context_length_exceeded"), 400},
        {TYPE("invalid_prompt"), 400},
        {TYPE("content_filter"), 400},
        {TYPE("rate_limit_exceeded"), 429},
        {TYPE("insufficient_quota"), 429},
        {TYPE("server_error"), 500},
        {TYPE("overloaded"), 529},
        // Gemini: google.rpc.Code
        {TYPE("INVALID_ARGUMENT"), 400},
        {TYPE("FAILED_PRECONDITION"), 400},
        {TYPE("OUT_OF_RANGE"), 400},
        {TYPE("UNAUTHENTICATED"), 401},
        {TYPE("PERMISSION_DENIED"), 403},
        {TYPE("NOT_FOUND"), 404},
        {TYPE("RESOURCE_EXHAUSTED"), 429},
        {TYPE("INTERNAL"), 500},
        {TYPE("UNAVAILABLE"), 503},
        {TYPE("DEADLINE_EXCEEDED"), 504},
    };
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (span_equal_nocase(type, known[i].type))
            return known[i].status;
    return 500;
}

const char *fault_name(enum fault fault)
{
    static const char *const names[FAULT_COUNT] = {
        [FAULT_NONE] = "none",         [FAULT_CLIENT] = "client",     [FAULT_CONFIG] = "config",
        [FAULT_OVERLOAD] = "overload", [FAULT_PROVIDER] = "provider", [FAULT_GATEWAY] = "gateway",
    };
    CHECK(fault < FAULT_COUNT);
    return names[fault];
}
