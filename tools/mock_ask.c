// SPDX-License-Identifier: MIT
#include "tools/mock_ask.h"

enum key {
    KEY_OTHER,
    KEY_MODEL,
    KEY_STREAM,
    KEY_STREAM_OPTIONS,
    KEY_USAGE, // stream_options.include_usage
    KEY_INPUT, // or "messages"
    KEY_TOOLS,
    KEY_TOOL_CHOICE,
    KEY_ENCODING,
    KEY_DIMENSIONS,
};

static const struct {
    const char *name;
    enum key key;
} keys[] = {
    {"model", KEY_MODEL},
    {"stream", KEY_STREAM},
    {"stream_options", KEY_STREAM_OPTIONS},
    {"messages", KEY_INPUT},
    {"input", KEY_INPUT},
    {"tools", KEY_TOOLS},
    {"tool_choice", KEY_TOOL_CHOICE},
    {"encoding_format", KEY_ENCODING},
    {"dimensions", KEY_DIMENSIONS},
};

void ask_start(struct ask *ask)
{
    // Not the arrays at the end: they are meaningless until their lengths say otherwise.
    memset(ask, 0, offsetof(struct ask, model));
    json_start(&ask->json);
    ask->result = JSON_MORE;
}

// How deep the scanner must report: as deep as the member under way is looked into.
static uint8_t depth_wanted(const struct ask *ask)
{
    switch (ask->key) {
    case KEY_STREAM_OPTIONS:
    case KEY_USAGE:
    case KEY_INPUT: return 2;
    case KEY_TOOLS: return ask->tool_len ? 2 : 4; // tools[0].function.name
    default: return 1;
    }
}

static bool is(struct span text, const char *name)
{
    return text.len == strlen(name) && memcmp(text.ptr, name, text.len) == 0;
}

static void key_found(struct ask *ask, struct span text)
{
    if (ask->json.depth == 1) {
        ask->key = KEY_OTHER;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (is(text, keys[i].name))
                ask->key = (uint8_t)keys[i].key;
    } else if (ask->key == KEY_STREAM_OPTIONS || ask->key == KEY_USAGE) {
        ask->key = is(text, "include_usage") ? KEY_USAGE : KEY_STREAM_OPTIONS;
    } else if (ask->key == KEY_TOOLS) {
        if (ask->json.depth == 3)
            ask->in_function = is(text, "function");
        ask->naming = is(text, "name") && (ask->json.depth == 3 || ask->in_function);
    }
}

static uint16_t keep(uint8_t *room, size_t cap, struct span text)
{
    if (text.len > cap)
        return 0;
    memcpy(room, text.ptr, text.len);
    return (uint16_t)text.len;
}

static void string_found(struct ask *ask, struct span text)
{
    switch (ask->key) {
    case KEY_MODEL: ask->model_len = keep(ask->model, sizeof ask->model, text); break;
    case KEY_ENCODING: ask->base64 = is(text, "base64"); break;
    case KEY_TOOL_CHOICE: ask->tool_choice = !is(text, "none"); break;
    case KEY_TOOLS:
        if (ask->naming && !ask->tool_len)
            ask->tool_len = keep(ask->tool, sizeof ask->tool, text);
        ask->naming = false;
        break;
    default: break;
    }
}

static void number_found(struct ask *ask, struct span text)
{
    if (ask->key != KEY_DIMENSIONS)
        return;
    ask->dimensions = 0;
    for (size_t i = 0; i < text.len && i < 9 && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
        ask->dimensions = ask->dimensions * 10 + (uint64_t)(text.ptr[i] - '0');
}

// An element of a list, or the list's own replacement (a string as "input"), is complete.
static void element_found(struct ask *ask, enum json_token token)
{
    bool listed = ask->json.depth == 2 || (ask->json.depth == 1 && token == JSON_STRING);
    if (ask->key == KEY_TOOLS && ask->json.depth == 2)
        ask->tools = true;
    if (ask->key != KEY_INPUT || !listed)
        return;
    if (token == JSON_NUMBER) // a list of token numbers is one input
        ask->inputs = 1;
    else
        ask->inputs++;
}

static void token_found(struct ask *ask, enum json_token token, struct span text)
{
    switch (token) {
    case JSON_KEY: key_found(ask, text); return;
    case JSON_STRING: string_found(ask, text); break;
    case JSON_NUMBER: number_found(ask, text); break;
    case JSON_TRUE:
        ask->stream |= ask->key == KEY_STREAM;
        ask->include_usage |= ask->key == KEY_USAGE;
        break;
    case JSON_OBJECT_BEGIN: ask->is_object |= ask->json.depth == 1; return;
    case JSON_ARRAY_BEGIN: return;
    case JSON_OBJECT_END:
        ask->tool_choice |= ask->key == KEY_TOOL_CHOICE && ask->json.depth == 1;
        break;
    default: break;
    }
    element_found(ask, token);
}

// Add the part of the token [at, ...) that lies in this slice, up to absolute offset `end`.
static void word_add(struct ask *ask, const uint8_t *bytes, uint64_t end)
{
    uint64_t from = ask->json.at > ask->fed ? ask->json.at : ask->fed;
    size_t len = (size_t)(end - from);
    if (ask->json.at >= ask->fed)
        ask->word_len = 0; // it began here
    if (len > sizeof ask->word - ask->word_len)
        len = sizeof ask->word - ask->word_len;
    memcpy(ask->word + ask->word_len, bytes + (from - ask->fed), len);
    ask->word_len += (uint16_t)len;
}

static struct span token_text(struct ask *ask, const uint8_t *bytes)
{
    struct json *json = &ask->json;
    if (json->at >= ask->fed)
        return span_of(bytes + (json->at - ask->fed), (size_t)(json->end - json->at));
    if (json->end > ask->fed)
        word_add(ask, bytes, json->end);
    return span_of(ask->word, ask->word_len);
}

static bool has_text(enum json_token token)
{
    return token == JSON_KEY || token == JSON_STRING || token == JSON_NUMBER;
}

bool ask_feed(struct ask *ask, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    if (ask->result < 0)
        return false;
    while (used < len) {
        enum json_token token = json_next(&ask->json, bytes, len, &used, depth_wanted(ask));
        if (token == JSON_MORE || token == JSON_DONE) {
            if (has_text(json_under_way(&ask->json)))
                word_add(ask, bytes, ask->fed + len);
            break;
        }
        if (token < 0) {
            ask->result = (int8_t)token;
            return false;
        }
        token_found(ask, token, has_text(token) ? token_text(ask, bytes) : span_of(NULL, 0));
    }
    ask->fed += len;
    return true;
}

bool ask_end(struct ask *ask)
{
    return ask->result >= 0 && json_end(&ask->json) == JSON_DONE && ask->is_object;
}
