// SPDX-License-Identifier: MIT
#include "proto/reply.h"
#include "proto/h1.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <stdlib.h>

// ---- reading what was written ----

struct answer {
    uint8_t bytes[REPLY_ERROR_MAX + 16];
    size_t len;
    struct h1_head head;
    struct span body;
};

static const uint8_t GUARD = 0xA5;

// Write a response and read its head the strict way. Bytes behind the promised size must stay
// untouched.
static struct answer *answer_to(const struct reply_error_args *args)
{
    static struct answer a;
    memset(&a, GUARD, sizeof a);
    a.len = reply_error(a.bytes, args);
    cr_assert_leq(a.len, (size_t)REPLY_ERROR_MAX);
    for (size_t i = a.len; i < sizeof a.bytes; i++)
        cr_assert_eq(a.bytes[i], GUARD, "wrote behind its end");
    size_t from = 0, head_len;
    cr_assert_eq(h1_head_complete(a.bytes, a.len, &from, &head_len), H1_OK);
    cr_assert_eq(h1_parse_response(&a.head, a.bytes, head_len), H1_OK);
    a.body = span_of(a.bytes + head_len, a.len - head_len);
    return &a;
}

static bool field_is(const struct answer *a, const char *name, const char *value)
{
    const struct h1_field *field = h1_find_name(&a->head, span_of(name, strlen(name)));
    return field && span_equal(field->value, span_of(value, strlen(value)));
}

static bool has_field(const struct answer *a, const char *name)
{
    return h1_find_name(&a->head, span_of(name, strlen(name))) != NULL;
}

static size_t content_length(const struct answer *a)
{
    const struct h1_field *field = h1_find(&a->head, H1_FIELD_CONTENT_LENGTH);
    cr_assert_not_null(field);
    return strtoul((const char *)field->value.ptr, NULL, 10);
}

// Parse JSON, nothing behind it allowed. To be given back with cJSON_Delete.
static cJSON *parse(struct span text)
{
    const char *end;
    cJSON *json = cJSON_ParseWithLengthOpts((const char *)text.ptr, text.len, &end, false);
    cr_assert_not_null(json, "not JSON: %.*s", (int)text.len, (const char *)text.ptr);
    cr_assert_eq(end, (const char *)text.ptr + text.len);
    return json;
}

static const cJSON *member(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    cr_assert_not_null(item, "no member %s", name);
    return item;
}

static const char *text_of(const cJSON *json, const char *name)
{
    const cJSON *item = member(json, name);
    cr_assert(cJSON_IsString(item) && *item->valuestring, "%s is no text", name);
    return item->valuestring;
}

// The error object of a body has the shape of its dialect. Returns the message.
static const char *shape(const cJSON *json, enum dialect dialect, enum reply_error error)
{
    if (dialect == DIALECT_OLLAMA)
        return text_of(json, "error");
    const cJSON *inner = member(json, "error");
    if (dialect == DIALECT_OPENAI) {
        text_of(inner, "type");
        cr_expect(cJSON_IsNull(member(inner, "param")));
        cr_expect_str_eq(text_of(inner, "code"), reply_error_name(error));
    } else if (dialect == DIALECT_ANTHROPIC) {
        cr_expect_str_eq(text_of(json, "type"), "error");
        text_of(inner, "type");
    } else {
        cr_expect_eq(member(inner, "code")->valueint, reply_error_status(error));
        text_of(inner, "status");
    }
    return text_of(inner, "message");
}

static struct reply_error_args args_of(enum reply_error error, enum dialect dialect)
{
    return (struct reply_error_args){.error = error, .dialect = dialect};
}

// ---- the table ----

Test(reply, a_table_is_full)
{
    // Every error has a name of its own, a status with a reason, and a sentence.
    for (enum reply_error e = 0; e < REPLY_ERROR_COUNT; e++) {
        cr_expect_gt(strlen(reply_error_name(e)), 0);
        cr_expect(reply_error_status(e) >= 400 && reply_error_status(e) < 600);
        cr_expect_gt(strlen(reply_reason(reply_error_status(e))), 0, "%u", reply_error_status(e));
        const char *message = reply_error_message(e);
        cr_expect(strlen(message) > 10 && message[strlen(message) - 1] == '.', "%s", message);
        for (enum reply_error other = 0; other < e; other++)
            cr_expect_str_neq(reply_error_name(e), reply_error_name(other));
    }
}

Test(reply, b_reasons)
{
    // Known codes have their reason, others an empty one.
    cr_expect_str_eq(reply_reason(200), "OK");
    cr_expect_str_eq(reply_reason(413), "Content Too Large");
    cr_expect_str_eq(reply_reason(429), "Too Many Requests");
    cr_expect_str_eq(reply_reason(299), "");
    cr_expect_str_eq(reply_reason(0), "");
}

// ---- responses ----

Test(reply, c_every_error_in_every_dialect)
{
    // Each is a complete response: a head that the strict parser takes, and a body in the dialect's
    // shape.
    for (enum reply_error e = 0; e < REPLY_ERROR_COUNT; e++) {
        for (enum dialect d = 0; d < DIALECT_COUNT; d++) {
            struct reply_error_args args = args_of(e, d);
            struct answer *a = answer_to(&args);
            cr_expect_eq(a->head.status, reply_error_status(e));
            cr_expect_eq(a->head.minor, 1);
            cr_expect_eq(content_length(a), a->body.len);
            cr_expect(field_is(a, "Content-Type", "application/json"));
            cr_expect(field_is(a, "x-tokenring-error", reply_error_name(e)));
            cr_expect_eq(has_field(a, "Retry-After"),
                         a->head.status == 503 || a->head.status == 429);
            cr_expect_eq(has_field(a, "Allow"), a->head.status == 405);
            cr_expect_not(has_field(a, "x-request-id"));
            cJSON *json = parse(a->body);
            cr_expect_str_eq(shape(json, d, e), reply_error_message(e));
            cJSON_Delete(json);
        }
    }
}

static void has_types(enum reply_error error, const char *openai, const char *anthropic,
                      const char *gemini)
{
    static const enum dialect dialects[] = {DIALECT_OPENAI, DIALECT_ANTHROPIC, DIALECT_GEMINI};
    const char *const expected[] = {openai, anthropic, gemini};
    for (int i = 0; i < 3; i++) {
        struct reply_error_args args = args_of(error, dialects[i]);
        cJSON *json = parse(answer_to(&args)->body);
        const char *type =
            text_of(member(json, "error"), dialects[i] == DIALECT_GEMINI ? "status" : "type");
        cr_expect_str_eq(type, expected[i], "%s", reply_error_name(error));
        cJSON_Delete(json);
    }
}

Test(reply, d_types)
{
    // Each kind of error is called what the provider itself would call it.
    has_types(REPLY_NOT_JSON, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT");
    has_types(REPLY_MODEL_NOT_FOUND, "invalid_request_error", "not_found_error", "NOT_FOUND");
    has_types(REPLY_BODY_TOO_LARGE, "request_too_large", "request_too_large", "INVALID_ARGUMENT");
    has_types(REPLY_VERSION, "invalid_request_error", "invalid_request_error", "UNIMPLEMENTED");
    has_types(REPLY_TIMEOUT_IDLE, "timeout", "timeout_error", "DEADLINE_EXCEEDED");
    has_types(REPLY_OVERLOAD_MEMORY, "overloaded", "overloaded_error", "UNAVAILABLE");
    has_types(REPLY_UPSTREAM_RESET, "server_error", "api_error", "UNAVAILABLE");
    has_types(REPLY_INTERNAL, "server_error", "api_error", "INTERNAL");
}

Test(reply, e_request_id)
{
    // The request's id is in the head, and in the body where the dialect has a place for it.
    struct reply_error_args args = args_of(REPLY_NO_MODEL, DIALECT_ANTHROPIC);
    cJSON *json = parse(answer_to(&args)->body);
    cr_expect(cJSON_IsNull(member(json, "request_id")));
    cJSON_Delete(json);

    args.request_id = SPAN("req_\"1\\2");
    struct answer *a = answer_to(&args);
    cr_expect(field_is(a, "x-request-id", "req_\"1\\2"));
    json = parse(a->body);
    cr_expect_str_eq(text_of(json, "request_id"), "req_\"1\\2");
    cJSON_Delete(json);
}

Test(reply, f_hostile_request_id)
{
    // An id that could be taken for something else, or is endless, is not repeated at all.
    char endless[300];
    memset(endless, 'a', sizeof endless);
    const struct span ids[] = {SPAN("a\r\nx-evil: 1"), SPAN("a b"),
                               SPAN("\x80"),           SPAN("a\0b"),
                               SPAN("\x7F"),           span_of(endless, sizeof endless)};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        struct reply_error_args args = args_of(REPLY_NO_MODEL, DIALECT_ANTHROPIC);
        args.request_id = ids[i];
        struct answer *a = answer_to(&args);
        cr_expect_not(has_field(a, "x-request-id"), "id %zu", i);
        cr_expect_not(has_field(a, "x-evil"));
        cJSON *json = parse(a->body);
        cr_expect(cJSON_IsNull(member(json, "request_id")));
        cJSON_Delete(json);
    }
}

Test(reply, g_close_and_head)
{
    // Connection: close only when asked; the answer to HEAD has the length of the body, but no
    // body.
    struct reply_error_args args = args_of(REPLY_BAD_REQUEST, DIALECT_OPENAI);
    size_t length = content_length(answer_to(&args));
    cr_expect_not(has_field(answer_to(&args), "Connection"));
    args.close = args.head_only = true;
    struct answer *a = answer_to(&args);
    cr_expect(field_is(a, "Connection", "close"));
    cr_expect_eq(a->body.len, 0);
    cr_expect_eq(content_length(a), length);
}

Test(reply, h_fields_that_a_status_demands)
{
    // 405 lists what is allowed; 426 names a protocol, and names Upgrade in Connection, closing or
    // not.
    struct reply_error_args args = args_of(REPLY_METHOD_NOT_ALLOWED, DIALECT_OPENAI);
    cr_expect(field_is(answer_to(&args), "Allow", ""));
    args.allow = "GET, HEAD";
    cr_expect(field_is(answer_to(&args), "Allow", "GET, HEAD"));
    args = args_of(REPLY_UPGRADE, DIALECT_OPENAI);
    cr_expect(field_is(answer_to(&args), "Upgrade", "HTTP/1.1"));
    cr_expect(h1_list_has(&answer_to(&args)->head, H1_FIELD_CONNECTION, SPAN("upgrade")));
    args.close = true;
    cr_expect(h1_list_has(&answer_to(&args)->head, H1_FIELD_CONNECTION, SPAN("upgrade")));
    cr_expect(h1_list_has(&answer_to(&args)->head, H1_FIELD_CONNECTION, SPAN("close")));
    args = args_of(REPLY_DRAINING, DIALECT_OPENAI);
    cr_expect(field_is(answer_to(&args), "Retry-After", "1"));
}

Test(reply, i_messages_are_escaped)
{
    // A sentence that quotes the client's bytes cannot break out of its string.
    for (enum dialect d = 0; d < DIALECT_COUNT; d++) {
        struct reply_error_args args = args_of(REPLY_MODEL_NOT_FOUND, d);
        args.message = "No model '\"},\\\r\n\x01\xC3\xA9'.";
        cJSON *json = parse(answer_to(&args)->body);
        cr_expect_str_eq(shape(json, d, REPLY_MODEL_NOT_FOUND), args.message);
        cJSON_Delete(json);
        args.message = "broken \x80\xC3 bytes";
        json = parse(answer_to(&args)->body);
        cr_expect_str_eq(shape(json, d, REPLY_MODEL_NOT_FOUND),
                         "broken \xEF\xBF\xBD\xEF\xBF\xBD bytes");
        cJSON_Delete(json);
    }
}

Test(reply, j_long_messages_are_cut)
{
    // A sentence of any length and kind is cut at a character, and the promised sizes hold at their
    // worst.
    static const char *const units[] = {"x", "\"", "\x01", "\xC3\xA9", "\xF0\x9F\x98\x80", "\x80"};
    static char message[4096], allow[128], id[128];
    memset(allow, 'A', sizeof allow - 1);
    memset(id, '"', sizeof id);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        size_t unit = strlen(units[u]);
        for (size_t i = 0; i < sizeof message / unit - 1; i++)
            memcpy(message + i * unit, units[u], unit);
        for (enum reply_error e = 0; e < REPLY_ERROR_COUNT; e++) {
            for (enum dialect d = 0; d < DIALECT_COUNT; d++) {
                struct reply_error_args args = {.error = e,
                                                .dialect = d,
                                                .message = message,
                                                .close = true,
                                                .request_id = span_of(id, sizeof id),
                                                .allow = allow};
                cJSON *json = parse(answer_to(&args)->body);
                const char *got = shape(json, d, e);
                cr_expect_leq(strlen(got), (size_t)REPLY_MESSAGE_MAX);
                if (units[u][0] != '\x80') {
                    cr_expect_eq(strlen(got) % unit, 0, "cut inside a character");
                    cr_expect(strncmp(got, message, strlen(got)) == 0);
                }
                cJSON_Delete(json);
            }
        }
    }
}

// ---- events ----

// Write an event; returns the text between `prefix` and `suffix`.
static struct span event_data(enum dialect dialect, enum reply_error error, const char *message,
                              const char *prefix, const char *suffix)
{
    static uint8_t out[REPLY_EVENT_MAX + 16];
    memset(out, GUARD, sizeof out);
    size_t len = reply_error_event(out, dialect, error, message);
    cr_assert_leq(len, (size_t)REPLY_EVENT_MAX);
    for (size_t i = len; i < sizeof out; i++)
        cr_assert_eq(out[i], GUARD, "wrote behind its end");
    size_t before = strlen(prefix), after = strlen(suffix);
    cr_assert(len > before + after && memcmp(out, prefix, before) == 0, "%.*s", (int)len,
              (char *)out);
    cr_assert(memcmp(out + len - after, suffix, after) == 0);
    return span_of(out + before, len - before - after);
}

Test(reply, k_events)
{
    // The last event of a broken stream ends a torn line and a torn event, and has the dialect's
    // shape on one line.
    static const struct {
        const char *prefix, *suffix;
    } frames[DIALECT_COUNT] = {
        [DIALECT_OPENAI] = {"\n\ndata: ", "\n\n"},
        [DIALECT_ANTHROPIC] = {"\n\nevent: error\ndata: ", "\n\n"},
        [DIALECT_GEMINI] = {"\n\ndata: ", "\n\n"},
        [DIALECT_OLLAMA] = {"\n", "\n"},
    };
    static char message[2000];
    memset(message, '"', sizeof message - 1);
    for (enum reply_error e = 0; e < REPLY_ERROR_COUNT; e++) {
        for (enum dialect d = 0; d < DIALECT_COUNT; d++) {
            const char *const messages[] = {NULL, "line\nbreak", message};
            for (size_t m = 0; m < 3; m++) {
                struct span data =
                    event_data(d, e, messages[m], frames[d].prefix, frames[d].suffix);
                cr_expect_null(memchr(data.ptr, '\n', data.len));
                cJSON *json = parse(data);
                const char *got = shape(json, d, e);
                if (m < 2)
                    cr_expect_str_eq(got, messages[m] ? messages[m] : reply_error_message(e));
                cJSON_Delete(json);
            }
        }
    }
}
