// SPDX-License-Identifier: MIT
//
// The scanner reports the top level only, and one level more inside the arrays whose elements
// count. `key` says which member the scanner is in:
//
//   KEY_OTHER -- a key we know was reported --> KEY_MODEL, KEY_MESSAGES, ...
//       ^                                              |
//       +------------- its value ended ----------------+
//
// A word (a key, the model, a number we want) that a slice cuts is decoded piece by piece: what is
// whole goes to `word` or `model`, an escape that is not whole waits in `hold`. A word that lies in
// one slice takes the same road.
#include "proto/peek.h"

#include "alloc/check.h"

#include <stdio.h>

enum key {
    KEY_OTHER,
    KEY_MODEL,
    KEY_MESSAGES, // or "input", "contents"
    KEY_TOOLS,
    KEY_STREAM,
    KEY_MAX_TOKENS,
};

static const struct {
    struct span name;
    enum key key;
} keys[] = {
    {{(const uint8_t *)"model", 5}, KEY_MODEL},
    {{(const uint8_t *)"messages", 8}, KEY_MESSAGES},
    {{(const uint8_t *)"input", 5}, KEY_MESSAGES},
    {{(const uint8_t *)"contents", 8}, KEY_MESSAGES},
    {{(const uint8_t *)"tools", 5}, KEY_TOOLS},
    {{(const uint8_t *)"stream", 6}, KEY_STREAM},
    {{(const uint8_t *)"max_tokens", 10}, KEY_MAX_TOKENS},
    {{(const uint8_t *)"max_completion_tokens", 21}, KEY_MAX_TOKENS},
};

// A cut word whose bytes did not fit or did not decode.
enum { WORD_LOST = UINT16_MAX };

_Static_assert(PEEK_WORD_MAX > 21, "the longest key must fit");
_Static_assert(sizeof(struct peek) <= 512, "one of these per connection");
_Static_assert(JSON_DEPTH_MAX == 64 && PEEK_MODEL_MAX == 255, "peek_why names these limits");

void peek_start(struct peek *peek)
{
    *peek = (struct peek){.result = PEEK_MORE};
    json_start(&peek->json);
}

// ---- words ----

static void word_reset(struct peek *peek)
{
    peek->word_len = 0;
    peek->held = 0;
    peek->word_from = 0;
}

static void word_append(struct peek *peek, uint8_t *out, size_t cap, const uint8_t *bytes,
                        size_t len)
{
    if (peek->word_len == WORD_LOST)
        return;
    if (cap - peek->word_len < len) {
        peek->word_len = WORD_LOST;
        return;
    }
    memcpy(out + peek->word_len, bytes, len);
    peek->word_len = (uint16_t)(peek->word_len + len);
}

static bool is_high_surrogate(const uint8_t *escape)
{
    return ascii_lower(escape[2]) == 'd' && strchr("89abAB", escape[3]) != NULL;
}

// How many bytes will the escape in hold[] have, as far as can be said now?
static uint8_t hold_want(const struct peek *peek)
{
    const uint8_t *hold = peek->hold;
    if (peek->held < 2)
        return 2;
    if (hold[1] != 'u')
        return 2;
    if (peek->held < 6 || !is_high_surrogate(hold))
        return 6;
    // The lower half must follow at once; if anything else does, the pair is broken.
    if ((peek->held > 6 && hold[6] != '\\') || (peek->held > 7 && hold[7] != 'u'))
        return peek->held;
    return 12;
}

// One byte of a string that has escapes. The scanner has vouched for its grammar, not for
// surrogates.
static void word_byte(struct peek *peek, uint8_t *out, size_t cap, uint8_t c)
{
    if (peek->held == 0 && c != '\\') {
        word_append(peek, out, cap, &c, 1);
        return;
    }
    CHECK(peek->held < sizeof peek->hold);
    peek->hold[peek->held++] = c;
    if (peek->held < hold_want(peek))
        return;
    uint8_t decoded[4];
    int len = json_unescape(decoded, sizeof decoded, span_of(peek->hold, peek->held));
    peek->held = 0;
    if (len < 0)
        peek->word_len = WORD_LOST;
    else
        word_append(peek, out, cap, decoded, (size_t)len);
}

// The bytes [from, to) of the word under way, where `from` is how far it was taken before.
static void word_take(struct peek *peek, uint8_t *out, size_t cap, const uint8_t *bytes,
                      uint64_t origin, uint64_t to)
{
    uint64_t from = peek->word_from > peek->json.at ? peek->word_from : peek->json.at;
    CHECK(from >= origin);
    CHECK(to >= from);
    const uint8_t *at = bytes + (from - origin);
    size_t len = (size_t)(to - from);
    peek->word_from = to;
    if (!peek->json.escaped) {
        word_append(peek, out, cap, at, len);
        return;
    }
    // Past the limit there is nothing to learn: the loop stays short whatever the string's length.
    for (size_t i = 0; i < len && peek->word_len != WORD_LOST; i++)
        word_byte(peek, out, cap, at[i]);
}

// The last piece is in: did the word come through whole?
static bool word_whole(const struct peek *peek)
{
    return peek->word_len != WORD_LOST && peek->held == 0;
}

// ---- meaning ----

static enum key key_of(struct span word)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (span_equal(keys[i].name, word))
            return keys[i].key;
    return KEY_OTHER;
}

// A model's name ends up in header fields and logs: no control characters in it.
static bool is_printable(struct span word)
{
    for (size_t i = 0; i < word.len; i++)
        if (word.ptr[i] < 0x20 || word.ptr[i] == 0x7F)
            return false;
    return true;
}

static enum peek_result model_end(struct peek *peek)
{
    struct span model = span_of(peek->model, peek->word_len);
    if (!word_whole(peek) || model.len == 0 || !is_printable(model))
        return PEEK_MODEL_INVALID;
    peek->has_model = true;
    peek->model_len = peek->word_len;
    peek->model[peek->model_len] = 0;
    peek->model_at = peek->json.at;
    peek->model_end = peek->json.end;
    return PEEK_MORE;
}

// The whole part of a number: what does not fit is as good as infinite, what is negative or has an
// exponent says nothing.
static uint32_t tokens_of(struct span number)
{
    uint64_t value = 0;
    for (size_t i = 0; i < number.len && number.ptr[i] != '.'; i++) {
        if (number.ptr[i] < '0' || number.ptr[i] > '9')
            return 0;
        value = value * 10 + (number.ptr[i] - '0');
        if (value > UINT32_MAX)
            return UINT32_MAX;
    }
    return memchr(number.ptr, 'e', number.len) || memchr(number.ptr, 'E', number.len)
               ? 0
               : (uint32_t)value;
}

static enum peek_result key_end(struct peek *peek)
{
    enum key key = word_whole(peek) ? key_of(span_of(peek->word, peek->word_len)) : KEY_OTHER;
    peek->key = (uint8_t)key;
    if (key == KEY_MODEL && peek->has_model)
        return PEEK_MODEL_TWICE;
    if (key == KEY_MESSAGES)
        peek->messages = 0;
    if (key == KEY_TOOLS)
        peek->tools = false;
    if (key == KEY_STREAM)
        peek->stream = false;
    if (key == KEY_MAX_TOKENS)
        peek->max_tokens = 0;
    return PEEK_MORE;
}

// A value at the top level has ended.
static enum peek_result value_end(struct peek *peek, enum json_token token)
{
    enum key key = (enum key)peek->key;
    peek->key = KEY_OTHER;
    if (key == KEY_MODEL)
        return token == JSON_STRING ? model_end(peek) : PEEK_MODEL_INVALID;
    if (key == KEY_MESSAGES && token == JSON_STRING)
        peek->messages = 1;
    if (key == KEY_STREAM)
        peek->stream = token == JSON_TRUE;
    if (key == KEY_MAX_TOKENS && token == JSON_NUMBER)
        peek->max_tokens =
            word_whole(peek) ? tokens_of(span_of(peek->word, peek->word_len)) : UINT32_MAX;
    return PEEK_MORE;
}

// A token inside the value of a key we know: an element, or the value's own opening bracket.
static enum peek_result inner_token(struct peek *peek, enum json_token token)
{
    if (peek->key == KEY_MODEL)
        return PEEK_MODEL_INVALID;
    if (token == JSON_ARRAY_BEGIN)
        return PEEK_MORE;
    if (token == JSON_OBJECT_BEGIN) {
        peek->key = KEY_OTHER; // an object where an array is usual: nothing to count
        return PEEK_MORE;
    }
    if (peek->key == KEY_TOOLS)
        peek->tools = true;
    if (peek->key == KEY_MESSAGES && peek->messages < UINT32_MAX)
        peek->messages++;
    return PEEK_MORE;
}

// ---- the walk ----

static uint8_t skip_depth(const struct peek *peek)
{
    bool inside = peek->key == KEY_MODEL || peek->key == KEY_MESSAGES || peek->key == KEY_TOOLS;
    return inside ? 2 : 1;
}

// Where does the word under way go, or NULL: nobody wants it?
static uint8_t *word_place(struct peek *peek, enum json_token token, size_t *cap)
{
    if (token == JSON_STRING && peek->key == KEY_MODEL) {
        *cap = PEEK_MODEL_MAX;
        return peek->model;
    }
    *cap = sizeof peek->word;
    if (token == JSON_KEY || (token == JSON_NUMBER && peek->key == KEY_MAX_TOKENS))
        return peek->word;
    return NULL;
}

static enum peek_result take_token(struct peek *peek, enum json_token token, const uint8_t *bytes,
                                   uint64_t origin)
{
    const struct json *json = &peek->json;
    if (token == JSON_BAD)
        return PEEK_NOT_JSON;
    if (token == JSON_TOO_DEEP)
        return PEEK_TOO_DEEP;
    if (json->depth == 0)
        return token == JSON_OBJECT_END ? PEEK_MORE : PEEK_NOT_OBJECT;
    if (json->depth == 2)
        return inner_token(peek, token);
    if (token == JSON_OBJECT_BEGIN) // only the outermost is reported at depth 1
        return PEEK_MORE;
    if (token == JSON_ARRAY_BEGIN)
        return PEEK_NOT_OBJECT;
    size_t cap;
    uint8_t *out = word_place(peek, token, &cap);
    if (out != NULL)
        word_take(peek, out, cap, bytes, origin, json->end);
    enum peek_result result = token == JSON_KEY ? key_end(peek) : value_end(peek, token);
    word_reset(peek);
    return result;
}

// The slice ends inside a token: keep what the next slice will not show again.
static void take_cut(struct peek *peek, const uint8_t *bytes, uint64_t origin)
{
    enum json_token token = json_under_way(&peek->json);
    size_t cap;
    uint8_t *out = peek->json.depth == 1 ? word_place(peek, token, &cap) : NULL;
    if (out != NULL)
        word_take(peek, out, cap, bytes, origin, peek->json.offset);
}

enum peek_result peek_feed(struct peek *peek, const uint8_t *bytes, size_t len)
{
    uint64_t origin = peek->json.offset;
    size_t used = 0;
    if (peek->result < 0 || len == 0)
        return (enum peek_result)peek->result;
    enum peek_result result;
    do { // every turn takes a token, so a byte at least, but the last
        enum json_token token = json_next(&peek->json, bytes, len, &used, skip_depth(peek));
        if (token == JSON_MORE) {
            take_cut(peek, bytes, origin);
            break;
        }
        if (token == JSON_DONE)
            break;
        result = take_token(peek, token, bytes, origin);
        peek->result = (int8_t)result;
    } while (result == PEEK_MORE);
    peek->fed = peek->json.offset;
    if (peek->result == PEEK_MORE && json_complete(&peek->json))
        peek->result = PEEK_DONE;
    return (enum peek_result)peek->result;
}

enum peek_result peek_end(struct peek *peek)
{
    if (peek->result != PEEK_MORE)
        return (enum peek_result)peek->result;
    enum json_token token = json_end(&peek->json);
    // Only a bare number can still come to an end here, and that is no object.
    peek->result = token == JSON_DONE ? PEEK_NOT_OBJECT : PEEK_NOT_JSON;
    return (enum peek_result)peek->result;
}

static const char *why_at(const struct peek *peek, const char *what, char *out, size_t cap)
{
    int len = snprintf(out, cap, "%s at byte %llu.", what, (unsigned long long)peek->json.offset);
    return len > 0 && (size_t)len < cap ? out : what;
}

const char *peek_why(const struct peek *peek, enum peek_result result, char *out, size_t cap)
{
    switch (result) {
    case PEEK_NOT_JSON: return why_at(peek, "The body is not valid JSON: error", out, cap);
    case PEEK_TOO_DEEP:
        return why_at(peek, "The JSON body is nested more than 64 levels deep", out, cap);
    case PEEK_NOT_OBJECT: return "The body must be a JSON object.";
    case PEEK_MODEL_TWICE: return "The body has more than one 'model'.";
    case PEEK_MODEL_INVALID:
        return "'model' must be a string of 1 to 255 bytes, without control characters.";
    case PEEK_MORE: return why_at(peek, "The body ends too early", out, cap);
    case PEEK_DONE: break;
    }
    return "The body is complete.";
}
