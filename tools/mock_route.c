// SPDX-License-Identifier: MIT
//
// From a request's head to what will be answered: the path, the method, the x-mock-* fields.
#include <stdio.h>

#include "tools/mock_answer.h"

enum { CHUNKS_MAX = 10 * 1000 * 1000, BYTES_MAX = 1 << 30, DELAY_MAX_MS = 24 * 3600 * 1000 };

struct route {
    const char *path; // without "/v1"
    enum api api;
    const char *allow;
};

static const struct route routes[] = {
    {"/chat/completions", API_CHAT, "POST"}, {"/completions", API_COMPLETIONS, "POST"},
    {"/embeddings", API_EMBEDDINGS, "POST"}, {"/responses", API_RESPONSES, "POST"},
    {"/messages", API_MESSAGES, "POST"},     {"/messages/count_tokens", API_COUNT_TOKENS, "POST"},
    {"/files", API_FILES, "POST"},           {"/models", API_MODELS, "GET, HEAD"},
    {"/mock/stats", API_STATS, "GET, HEAD"},
};
static const struct route model_route = {"/models/", API_MODEL, "GET, HEAD"};

static struct span span_text(const char *text)
{
    return span_of(text, strlen(text));
}

void answer_refuse(struct answer *answer, uint16_t status, const char *code, const char *message)
{
    if (answer->status >= 400)
        return;
    answer->status = status;
    answer->error_code = code;
    snprintf(answer->error, sizeof answer->error, "%s", message);
}

// ------------------------------------------------------------------------------------------- path

static struct span path_of(struct span target)
{
    const uint8_t *query = memchr(target.ptr, '?', target.len);
    if (query)
        target.len = (size_t)(query - target.ptr);
    // Absolute form: the path begins at the third slash.
    if (span_starts(target, SPAN("http://"))) {
        const uint8_t *slash = memchr(target.ptr + 7, '/', target.len - 7);
        target = slash ? span_of(slash, (size_t)(target.ptr + target.len - slash)) : SPAN("/");
    }
    if (span_starts(target, SPAN("/v1/")))
        target = span_of(target.ptr + 3, target.len - 3);
    return target;
}

static const struct route *route_find(struct answer *answer, struct span path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (span_equal(path, span_text(routes[i].path)))
            return &routes[i];
    struct span prefix = span_text(model_route.path);
    if (!span_starts(path, prefix) || path.len == prefix.len)
        return NULL;
    struct span model = span_of(path.ptr + prefix.len, path.len - prefix.len);
    int len = json_escape(answer->path_model, sizeof answer->path_model, model);
    answer->path_model_len = (uint16_t)(len < 0 ? 0 : len);
    return len < 0 ? NULL : &model_route;
}

static bool method_fits(const struct route *route, enum h1_method method)
{
    if (route->allow[0] == 'P')
        return method == H1_METHOD_POST;
    return method == H1_METHOD_GET || method == H1_METHOD_HEAD;
}

static void route_path(struct answer *answer, const struct h1_head *head)
{
    const struct route *route = route_find(answer, path_of(head->target));
    if (!route) {
        answer_refuse(answer, 404, "unknown_url",
                      "Unknown request URL. This mock does not know it.");
        return;
    }
    answer->api = route->api;
    answer->json_body = route->allow[0] == 'P' && route->api != API_FILES;
    if (method_fits(route, head->method))
        return;
    answer->allow = route->allow;
    answer_refuse(answer, 405, "method_not_allowed", "Not allowed to use this method on this URL.");
}

// ---------------------------------------------------------------------------------------- x-mock-*

static bool number_of(struct span text, uint64_t max, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' || i > 18)
            return false;
        *number = *number * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    return text.len > 0 && *number <= max;
}

// "5" or "5 word": the number, and whether the word is there.
static bool number_and_word(struct span text, uint64_t *number, const char *word, bool *has_word)
{
    const uint8_t *space = memchr(text.ptr, ' ', text.len);
    *has_word = false;
    if (space) {
        struct span rest = span_of(space + 1, (size_t)(text.ptr + text.len - space - 1));
        if (!span_equal(rest, span_text(word)))
            return false;
        *has_word = true;
        text.len = (size_t)(space - text.ptr);
    }
    return number_of(text, CHUNKS_MAX, number);
}

static bool script_cut(struct script *script, struct span value)
{
    script->has_cut = true;
    return number_and_word(value, &script->cut_after, "reset", &script->cut_reset);
}

static bool script_stall(struct script *script, struct span value)
{
    script->has_stall = true;
    return number_of(value, BYTES_MAX, &script->stall_after);
}

static bool script_malformed(struct script *script, struct span value)
{
    bool sse;
    bool ok = number_and_word(value, &script->malformed_at, "sse", &sse);
    script->malformed = sse ? MALFORMED_SSE : MALFORMED_JSON;
    return ok && script->malformed_at > 0;
}

static bool script_split(struct script *script, struct span value)
{
    script->split = true;
    script->split_random = span_equal(value, SPAN("random"));
    return script->split_random || number_of(value, BYTES_MAX, &script->split_at);
}

static bool script_status(struct script *script, struct span value)
{
    return number_of(value, 599, &script->status) && script->status >= 200;
}

static bool script_retry_after(struct script *script, struct span value)
{
    script->has_retry_after = true;
    return number_of(value, UINT32_MAX, &script->retry_after);
}

static bool script_headers_delay(struct script *script, struct span value)
{
    script->has_headers_delay = true;
    return number_of(value, DELAY_MAX_MS, &script->headers_delay_ms);
}

static bool script_first_delay(struct script *script, struct span value)
{
    return number_of(value, DELAY_MAX_MS, &script->first_delay_ms);
}

static bool script_gap(struct script *script, struct span value)
{
    return number_of(value, DELAY_MAX_MS, &script->gap_ms);
}

static bool script_chunks(struct script *script, struct span value)
{
    return number_of(value, CHUNKS_MAX, &script->chunks);
}

static bool script_chunk_bytes(struct script *script, struct span value)
{
    return number_of(value, BYTES_MAX, &script->chunk_bytes);
}

static bool script_reply_bytes(struct script *script, struct span value)
{
    return number_of(value, BYTES_MAX, &script->reply_bytes);
}

static bool script_tools(struct script *script, struct span value)
{
    return number_of(value, ANSWER_CALLS_MAX, &script->tools);
}

static const struct {
    const char *name; // behind "x-mock-"
    bool (*read)(struct script *script, struct span value);
} fields[] = {
    {"status", script_status},
    {"retry-after", script_retry_after},
    {"headers-delay-ms", script_headers_delay},
    {"first-delay-ms", script_first_delay},
    {"gap-ms", script_gap},
    {"chunks", script_chunks},
    {"chunk-bytes", script_chunk_bytes},
    {"reply-bytes", script_reply_bytes},
    {"cut-after", script_cut},
    {"stall-after", script_stall},
    {"malformed", script_malformed},
    {"split", script_split},
    {"tools", script_tools},
};

static void script_field(struct answer *answer, const struct h1_field *field)
{
    static const size_t prefix = sizeof "x-mock-" - 1;
    struct span name = span_of(field->name.ptr + prefix, field->name.len - prefix);
    char message[ANSWER_ERROR_MAX];
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (!span_equal_nocase(name, span_text(fields[i].name)))
            continue;
        if (fields[i].read(&answer->script, field->value))
            return;
        snprintf(message, sizeof message, "x-mock-%s: the mock cannot use this value",
                 fields[i].name);
        answer_refuse(answer, 400, "mock_field", message);
        return;
    }
    // A misspelt order would make a test prove nothing. (A name has no bytes that JSON would
    // escape.)
    snprintf(message, sizeof message, "the mock knows no field %.*s",
             (int)(field->name.len > 60 ? 60 : field->name.len), field->name.ptr);
    answer_refuse(answer, 400, "mock_field", message);
}

static void script_start(struct answer *answer, const struct mock_settings *settings)
{
    answer->script = (struct script){
        .status = settings->status,
        .first_delay_ms = settings->first_delay_ms,
        .gap_ms = settings->gap_ms,
        .chunks = settings->chunks,
        .chunk_bytes = settings->chunk_bytes,
        .reply_bytes = settings->reply_bytes,
    };
}

// ------------------------------------------------------------------------------------------ settle

// The paths that both dialects have are told apart by the version field, as the gateway does.
static bool speaks_anthropic(enum api api, const struct h1_head *head)
{
    switch (api) {
    case API_MESSAGES:
    case API_COUNT_TOKENS: return true;
    case API_NONE:
    case API_MODELS:
    case API_MODEL: return h1_find(head, H1_FIELD_ANTHROPIC_VERSION) != NULL;
    default: return false;
    }
}

void answer_route(struct worker *worker, struct answer *answer, const struct h1_head *head)
{
    memset(answer, 0, offsetof(struct answer, path_model));
    memset(&answer->body_bytes, 0, sizeof *answer - offsetof(struct answer, body_bytes));
    answer->mock = worker->mock;
    answer->method = head->method;
    answer->chunked = head->minor > 0;
    answer->status = 200;
    ask_start(&answer->ask);
    script_start(answer, &worker->mock->settings);
    route_path(answer, head);
    for (uint16_t i = 0; i < head->field_count; i++) {
        struct span name = head->field[i].name;
        if (name.len > 7 && span_equal_nocase(span_of(name.ptr, 7), SPAN("x-mock-")))
            script_field(answer, &head->field[i]);
    }
    answer->anthropic = speaks_anthropic(answer->api, head);
}

static bool wants_tools(const struct answer *answer)
{
    return answer->script.tools || (answer->ask.tools && answer->ask.tool_choice);
}

static void check_body(struct answer *answer)
{
    struct ask *ask = &answer->ask;
    char message[ANSWER_ERROR_MAX];
    if (!answer->json_body)
        return;
    if (!ask_end(ask)) {
        snprintf(message, sizeof message,
                 "We could not parse the JSON body of your request (at byte %llu).",
                 (unsigned long long)ask->json.offset);
        answer_refuse(answer, 400, NULL, message);
    } else if (ask->model_len == 0) {
        answer_refuse(answer, 400, NULL, "you must provide a model parameter");
    }
}

void answer_settle(struct worker *worker, struct answer *answer)
{
    uint64_t worker_index = worker->core.index;
    answer->serial = worker_index << 48 | ++worker->serial;
    answer->created = io_wall_ms(worker->core.io) / 1000;
    check_body(answer);
    if (answer->status == 200 && answer->script.status != 200 && answer->api != API_STATS) {
        answer->status = (uint16_t)answer->script.status;
        if (answer->status >= 300)
            snprintf(answer->error, sizeof answer->error,
                     "The mock was told to answer with status %u.", answer->status);
    }
    if (answer->status >= 300) {
        answer_whole(answer, answer->anthropic ? anthropic_error : openai_error);
        return;
    }
    if (wants_tools(answer)) {
        answer->calls = answer->script.tools ? answer->script.tools : 1;
        if (!answer->script.chunks)
            answer->script.chunks = 1; // arguments have at least one piece
    }
    if (answer->api == API_STATS)
        mock_totals(worker->mock, &answer->totals);
    if (answer->api == API_RESPONSES)
        responses_settle(answer);
    else if (answer->anthropic)
        anthropic_settle(answer);
    else
        openai_settle(answer);
}
