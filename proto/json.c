// SPDX-License-Identifier: MIT
//
// A pushdown automaton whose stack is one bit per level: object or array. Between tokens `state`
// says what may come next; inside a string, number or literal it says which of the three, and `sub`
// how far.
//
//                  +-------- ',' in an array -----------+
//                  v                                    |
//   start ----> VALUE --- scalar, or a bracket --> AFTER_VALUE ---> (depth 0) DONE
//                  ^                                    |
//                 ':'                            ',' in an object
//                  |                                    v
//                COLON <----------- string ------------ KEY
//
// FIRST_VALUE and FIRST_KEY are VALUE and KEY just behind the opening bracket, where the closing
// one is allowed too. BAD and TOO_DEEP are final. A byte order mark is refused: RFC 8259
// section 8.1 forbids senders to add one, and what we accept here the provider would have to accept
// as well.
//
// Escaped surrogates are not paired here: the grammar of RFC 8259 allows a lone one. Whoever
// decodes a string (json_unescape) meets the fault there.
#include "proto/json.h"

#include "alloc/check.h"

#include <immintrin.h>

enum state {
    STATE_VALUE, // where a document starts
    STATE_FIRST_VALUE,
    STATE_FIRST_KEY,
    STATE_KEY,
    STATE_COLON,
    STATE_AFTER_VALUE,
    STATE_STRING,
    STATE_NUMBER,
    STATE_LITERAL,
    STATE_DONE,
    STATE_BAD,
    STATE_TOO_DEEP,
};

// `sub` in STATE_STRING. TAIL1 to TAIL3 and HEX1 to HEX4 count what is still to come, in sequence.
enum string_sub {
    STRING_PLAIN,
    STRING_TAIL1, // continuation bytes 80..BF
    STRING_TAIL2,
    STRING_TAIL3,
    STRING_TAIL2_E0, // the next one is bounded closer: A0..BF, no overlong forms
    STRING_TAIL2_ED, // 80..9F, no surrogates
    STRING_TAIL3_F0, // 90..BF, no overlong forms
    STRING_TAIL3_F4, // 80..8F, nothing above U+10FFFF
    STRING_ESCAPE,   // behind the backslash
    STRING_HEX1,
    STRING_HEX2,
    STRING_HEX3,
    STRING_HEX4,
    STRING_REFUSED,
};

// `sub` in STATE_NUMBER.
enum number_sub {
    NUMBER_MINUS,
    NUMBER_ZERO,
    NUMBER_WHOLE,
    NUMBER_POINT,
    NUMBER_FRACTION,
    NUMBER_E,
    NUMBER_E_SIGN,
    NUMBER_EXPONENT,
    NUMBER_OVER, // this byte is no longer part of the number
};

// The slice being read. `origin` is the absolute offset of bytes[0].
struct input {
    const uint8_t *bytes, *at, *end;
    uint64_t origin;
};

static uint64_t input_offset(const struct input *in)
{
    return in->origin + (uint64_t)(in->at - in->bytes);
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

// Letters that may follow a backslash, but for 'u'; and what they stand for.
static const uint8_t short_escapes[256] = {
    ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
    ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t',
};

static bool is_short_escape(uint8_t c)
{
    return short_escapes[c] != 0;
}

// May this byte stand in a string without a second look?
static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

// ---- strings ----

// One bit for each of 32 bytes that is not plain. A signed comparison with 0x20 finds control
// characters and bytes over 0x7F at once.
static inline uint32_t special_mask(const uint8_t *at)
{
#ifdef __AVX2__
    __m256i v = _mm256_loadu_si256((const __m256i *)at);
    __m256i low = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), v);
    __m256i quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('"'));
    __m256i slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\'));
    return (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(low, _mm256_or_si256(quote, slash)));
#else
    uint32_t mask[2];
    for (int i = 0; i < 2; i++) {
        __m128i v = _mm_loadu_si128((const __m128i *)at + i);
        __m128i low = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20));
        __m128i quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
        __m128i slash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
        mask[i] = (uint32_t)_mm_movemask_epi8(_mm_or_si128(low, _mm_or_si128(quote, slash)));
    }
    return mask[1] << 16 | mask[0];
#endif
}

// Skip plain bytes and short escapes: source code in a chat is full of them. Stops at the closing
// quote, at whatever needs a closer look, or at the end; a backslash whose letter is not here yet
// is a stop.
static const uint8_t *easy_run(const uint8_t *at, const uint8_t *end, bool *escaped)
{
    for (; end - at > 32; at += 32) { // 33 bytes: the letter behind the last one is here as well
        uint32_t mask = special_mask(at);
        while (mask) { // each turn clears a bit
            unsigned i = (unsigned)__builtin_ctz(mask);
            if (at[i] != '\\' || !is_short_escape(at[i + 1]))
                return at + i;
            *escaped = true;
            mask &= ~(UINT32_C(3) << i);
            at += i == 31; // the letter is the next block's first byte
        }
    }
    while (at < end) {
        if (is_plain(*at)) {
            at++;
        } else if (*at == '\\' && end - at > 1 && is_short_escape(at[1])) {
            *escaped = true;
            at += 2;
        } else {
            break;
        }
    }
    return at;
}

// What a byte over 0x7F that starts a sequence asks for (Unicode 15, table 3-7).
static uint8_t utf8_lead(uint8_t c)
{
    if (c < 0xC2 || c > 0xF4)
        return STRING_REFUSED;
    if (c < 0xE0)
        return STRING_TAIL1;
    if (c < 0xF0)
        return c == 0xE0 ? STRING_TAIL2_E0 : c == 0xED ? STRING_TAIL2_ED : STRING_TAIL2;
    return c == 0xF0 ? STRING_TAIL3_F0 : c == 0xF4 ? STRING_TAIL3_F4 : STRING_TAIL3;
}

static uint8_t utf8_tail(uint8_t sub, uint8_t c)
{
    uint8_t least = sub == STRING_TAIL2_E0 ? 0xA0 : sub == STRING_TAIL3_F0 ? 0x90 : 0x80;
    uint8_t most = sub == STRING_TAIL2_ED ? 0x9F : sub == STRING_TAIL3_F4 ? 0x8F : 0xBF;
    if (c < least || c > most)
        return STRING_REFUSED;
    if (sub <= STRING_TAIL3)
        return (uint8_t)(sub - 1);
    return sub <= STRING_TAIL2_ED ? STRING_TAIL1 : STRING_TAIL2;
}

// One byte of a string that is not plain, or inside a sequence: the new `sub`.
static uint8_t string_step(uint8_t sub, uint8_t c)
{
    switch (sub) {
    case STRING_PLAIN: return c == '\\' ? STRING_ESCAPE : c >= 0x80 ? utf8_lead(c) : STRING_REFUSED;
    case STRING_ESCAPE:
        return c == 'u' ? STRING_HEX4 : is_short_escape(c) ? STRING_PLAIN : STRING_REFUSED;
    case STRING_HEX1: return hex_value(c) >= 0 ? STRING_PLAIN : STRING_REFUSED;
    case STRING_HEX2:
    case STRING_HEX3:
    case STRING_HEX4: return hex_value(c) >= 0 ? (uint8_t)(sub - 1) : STRING_REFUSED;
    default: return utf8_tail(sub, c);
    }
}

static bool is_tail(uint8_t c)
{
    return (c & 0xC0) == 0x80;
}

// The length of the well-formed UTF-8 sequence of two to four bytes at `at`, or 0.
static size_t utf8_length(const uint8_t *at, size_t len)
{
    uint8_t sub = utf8_lead(at[0]);
    if (sub == STRING_REFUSED || len < 2)
        return 0;
    sub = utf8_tail(sub, at[1]);
    if (sub == STRING_PLAIN)
        return 2;
    if (sub == STRING_REFUSED || len < 3 || !is_tail(at[2]))
        return 0;
    if (sub == STRING_TAIL1)
        return 3;
    return len >= 4 && is_tail(at[3]) ? 4 : 0;
}

// Sequences that lie wholly in the slice, the common case: skip what is surely right. Whatever is
// doubtful (cut, or wrong) is left to string_step, which finds the exact byte.
static const uint8_t *utf8_run(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 4 && *at >= 0x80) {
        bool common = *at > 0xE0 && *at < 0xED && is_tail(at[1]) && is_tail(at[2]);
        size_t len = common ? 3 : utf8_length(at, 4);
        if (len == 0)
            break;
        at += len;
    }
    return at;
}

static enum json_token string_end(struct json *json, struct input *in)
{
    json->end = input_offset(in);
    in->at++;
    if (json->kind == JSON_KEY)
        json->state = STATE_COLON;
    else
        json->state = json->depth ? STATE_AFTER_VALUE : STATE_DONE;
    return (enum json_token)json->kind;
}

static enum json_token refuse(struct json *json)
{
    json->state = STATE_BAD;
    return JSON_BAD;
}

static enum json_token string_more(struct json *json, struct input *in)
{
    uint8_t sub = json->sub;
    while (in->at < in->end) {
        if (sub == STRING_PLAIN) {
            in->at = utf8_run(easy_run(in->at, in->end, &json->escaped), in->end);
            if (in->at == in->end)
                break;
            if (*in->at == '"')
                return string_end(json, in);
            if (is_plain(*in->at)) // behind a UTF-8 sequence
                continue;
            json->escaped |= *in->at == '\\';
        }
        sub = string_step(sub, *in->at);
        if (sub == STRING_REFUSED)
            return refuse(json);
        in->at++;
    }
    json->sub = sub;
    return JSON_MORE;
}

static enum json_token string_begin(struct json *json, struct input *in, enum json_token kind)
{
    in->at++;
    json->at = input_offset(in);
    json->kind = (uint8_t)kind;
    json->state = STATE_STRING;
    json->sub = STRING_PLAIN;
    json->escaped = false;
    return string_more(json, in);
}

// ---- numbers and literals ----

static uint8_t number_step(uint8_t sub, uint8_t c)
{
    switch (sub) {
    case NUMBER_MINUS: return c == '0' ? NUMBER_ZERO : is_digit(c) ? NUMBER_WHOLE : NUMBER_OVER;
    case NUMBER_WHOLE:
        if (is_digit(c))
            return NUMBER_WHOLE;
        // fallthrough
    case NUMBER_ZERO: return c == '.' ? NUMBER_POINT : (c | 0x20) == 'e' ? NUMBER_E : NUMBER_OVER;
    case NUMBER_FRACTION:
        if ((c | 0x20) == 'e')
            return NUMBER_E;
        // fallthrough
    case NUMBER_POINT: return is_digit(c) ? NUMBER_FRACTION : NUMBER_OVER;
    case NUMBER_E:
        if (c == '+' || c == '-')
            return NUMBER_E_SIGN;
        // fallthrough
    default: return is_digit(c) ? NUMBER_EXPONENT : NUMBER_OVER;
    }
}

static bool number_may_end(uint8_t sub)
{
    return sub == NUMBER_ZERO || sub == NUMBER_WHOLE || sub == NUMBER_FRACTION ||
           sub == NUMBER_EXPONENT;
}

static enum json_token value_end(struct json *json, struct input *in, enum json_token token)
{
    json->end = input_offset(in);
    json->state = json->depth ? STATE_AFTER_VALUE : STATE_DONE;
    return token;
}

static enum json_token number_more(struct json *json, struct input *in)
{
    for (; in->at < in->end; in->at++) {
        uint8_t sub = number_step(json->sub, *in->at);
        if (sub == NUMBER_OVER)
            return number_may_end(json->sub) ? value_end(json, in, JSON_NUMBER) : refuse(json);
        json->sub = sub;
    }
    return JSON_MORE;
}

static enum json_token number_begin(struct json *json, struct input *in)
{
    uint8_t c = *in->at;
    json->at = input_offset(in);
    json->kind = JSON_NUMBER;
    json->state = STATE_NUMBER;
    json->sub = c == '-' ? NUMBER_MINUS : c == '0' ? NUMBER_ZERO : NUMBER_WHOLE;
    in->at++;
    return number_more(json, in);
}

static enum json_token literal_more(struct json *json, struct input *in)
{
    const char *text = json->kind == JSON_TRUE    ? "true"
                       : json->kind == JSON_FALSE ? "false"
                                                  : "null";
    for (; in->at < in->end && text[json->sub]; in->at++, json->sub++)
        if (*in->at != (uint8_t)text[json->sub])
            return refuse(json);
    return text[json->sub] ? JSON_MORE : value_end(json, in, (enum json_token)json->kind);
}

static enum json_token literal_begin(struct json *json, struct input *in, enum json_token kind)
{
    json->at = input_offset(in);
    json->kind = (uint8_t)kind;
    json->state = STATE_LITERAL;
    json->sub = 0;
    return literal_more(json, in);
}

// ---- structure ----

// Skip whitespace: none at all in compact JSON, long runs in pretty-printed JSON.
static inline const uint8_t *space_run(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at > ' ')
        return at;
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        __m128i space = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')),
                                     _mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
        space = _mm_or_si128(space, _mm_cmpeq_epi8(v, _mm_set1_epi8('\r')));
        space = _mm_or_si128(space, _mm_cmpeq_epi8(v, _mm_set1_epi8('\t')));
        uint32_t mask = (uint32_t)_mm_movemask_epi8(space);
        if (mask != 0xFFFF)
            return at + __builtin_ctz(~mask);
    }
    while (at < end && is_space(*at))
        at++;
    return at;
}

static bool in_object(const struct json *json)
{
    return json->is_object >> (json->depth - 1) & 1;
}

static enum json_token open_bracket(struct json *json, struct input *in, bool object)
{
    if (json->depth == JSON_DEPTH_MAX) {
        json->state = STATE_TOO_DEEP;
        return JSON_TOO_DEEP;
    }
    uint64_t bit = (uint64_t)1 << json->depth;
    json->is_object = object ? json->is_object | bit : json->is_object & ~bit;
    json->depth++;
    json->at = input_offset(in);
    json->end = json->at + 1;
    json->state = object ? STATE_FIRST_KEY : STATE_FIRST_VALUE;
    in->at++;
    return object ? JSON_OBJECT_BEGIN : JSON_ARRAY_BEGIN;
}

static enum json_token close_bracket(struct json *json, struct input *in)
{
    CHECK(json->depth > 0);
    bool object = in_object(json);
    if (*in->at != (object ? '}' : ']'))
        return refuse(json);
    json->at = input_offset(in);
    in->at++;
    json->depth--;
    return value_end(json, in, object ? JSON_OBJECT_END : JSON_ARRAY_END);
}

static enum json_token value_begin(struct json *json, struct input *in)
{
    switch (*in->at) {
    case '"': return string_begin(json, in, JSON_STRING);
    case '{': return open_bracket(json, in, true);
    case '[': return open_bracket(json, in, false);
    case 't': return literal_begin(json, in, JSON_TRUE);
    case 'f': return literal_begin(json, in, JSON_FALSE);
    case 'n': return literal_begin(json, in, JSON_NULL);
    default: return *in->at == '-' || is_digit(*in->at) ? number_begin(json, in) : refuse(json);
    }
}

// The next token at any depth. Every turn of the loop that does not return consumes a byte.
static enum json_token next_token(struct json *json, struct input *in)
{
    if (json->state == STATE_STRING)
        return string_more(json, in);
    if (json->state == STATE_NUMBER)
        return number_more(json, in);
    if (json->state == STATE_LITERAL)
        return literal_more(json, in);
    for (;;) {
        in->at = space_run(in->at, in->end);
        if (in->at == in->end)
            return json->state == STATE_DONE ? JSON_DONE : JSON_MORE;
        uint8_t c = *in->at;
        switch (json->state) {
        case STATE_FIRST_VALUE:
            if (c == ']')
                return close_bracket(json, in);
            // fallthrough
        case STATE_VALUE: return value_begin(json, in);
        case STATE_FIRST_KEY:
            if (c == '}')
                return close_bracket(json, in);
            // fallthrough
        case STATE_KEY: return c == '"' ? string_begin(json, in, JSON_KEY) : refuse(json);
        case STATE_COLON:
            if (c != ':')
                return refuse(json);
            json->state = STATE_VALUE;
            break;
        case STATE_AFTER_VALUE:
            if (c != ',')
                return close_bracket(json, in);
            json->state = in_object(json) ? STATE_KEY : STATE_VALUE;
            break;
        default: // STATE_DONE: something behind the document
            return refuse(json);
        }
        in->at++;
    }
}

void json_start(struct json *json)
{
    *json = (struct json){.state = STATE_VALUE};
}

enum json_token json_next(struct json *json, const uint8_t *bytes, size_t len, size_t *used,
                          uint8_t skip_depth)
{
    CHECK(*used <= len);
    CHECK(json->depth <= JSON_DEPTH_MAX);
    if (json->state == STATE_BAD)
        return JSON_BAD;
    if (json->state == STATE_TOO_DEEP)
        return JSON_TOO_DEEP;
    if (len == 0)
        return json->state == STATE_DONE ? JSON_DONE : JSON_MORE;
    struct input in = {bytes, bytes + *used, bytes + len, json->offset - *used};
    enum json_token token;
    do
        token = next_token(json, &in);
    while (json->depth > skip_depth && token > JSON_MORE && token < JSON_DONE);
    json->offset = input_offset(&in);
    *used = (size_t)(in.at - bytes);
    return token;
}

enum json_token json_end(struct json *json)
{
    if (json->state == STATE_TOO_DEEP)
        return JSON_TOO_DEEP;
    if (json->state == STATE_NUMBER && json->depth == 0 && number_may_end(json->sub)) {
        json->end = json->offset;
        json->state = STATE_DONE;
    }
    return json->state == STATE_DONE ? JSON_DONE : refuse(json);
}

bool json_complete(const struct json *json)
{
    return json->state == STATE_DONE;
}

enum json_token json_under_way(const struct json *json)
{
    bool inside =
        json->state == STATE_STRING || json->state == STATE_NUMBER || json->state == STATE_LITERAL;
    return inside ? (enum json_token)json->kind : JSON_MORE;
}

// ---- decoding and encoding strings ----

// The four hex digits behind "\u" at text[at], or -1.
static int32_t escape_unit(struct span text, size_t at)
{
    if (text.len - at < 6 || text.ptr[at] != '\\' || text.ptr[at + 1] != 'u')
        return -1;
    int32_t unit = 0;
    for (size_t i = at + 2; i < at + 6; i++) {
        int digit = hex_value(text.ptr[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

static size_t utf8_put(uint8_t out[static 4], uint32_t point)
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    size_t tails = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (uint8_t)(lead[tails] | point >> (6 * tails));
    for (size_t i = 1; i <= tails; i++)
        out[i] = (uint8_t)(0x80 | (point >> (6 * (tails - i)) & 0x3F));
    return tails + 1;
}

// One \uXXXX, or a pair of them, at text[*at]: the code point, or -1.
static int32_t escape_point(struct span text, size_t *at)
{
    int32_t high = escape_unit(text, *at);
    if (high < 0)
        return -1;
    *at += 6;
    if (high < 0xD800 || high > 0xDFFF)
        return high;
    if (high > 0xDBFF)
        return -1;
    int32_t low = escape_unit(text, *at);
    if (low < 0xDC00 || low > 0xDFFF)
        return -1;
    *at += 6;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

int json_unescape(uint8_t *out, size_t cap, struct span text)
{
    size_t len = 0;
    for (size_t at = 0; at < text.len;) {
        uint8_t point_bytes[4] = {text.ptr[at]};
        size_t count = 1;
        if (text.ptr[at] != '\\') {
            at++;
        } else {
            if (text.len - at < 2)
                return -1;
            int32_t point;
            if (text.ptr[at + 1] == 'u') {
                point = escape_point(text, &at);
            } else {
                uint8_t letter = text.ptr[at + 1];
                point = is_short_escape(letter) ? short_escapes[letter] : -1;
                at += 2;
            }
            if (point < 0)
                return -1;
            count = utf8_put(point_bytes, (uint32_t)point);
        }
        if (cap - len < count)
            return -1;
        memcpy(out + len, point_bytes, count);
        len += count;
    }
    return (int)len;
}

// The escaped form of one ASCII byte that needs one: its length.
static size_t escape_put(uint8_t out[static 6], uint8_t c)
{
    static const char digits[] = "0123456789abcdef";
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; // the byte, then its letter
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if (c == (uint8_t)shorts[i]) {
            out[0] = '\\';
            out[1] = (uint8_t)shorts[i + 1];
            return 2;
        }
    }
    memcpy(out, "\\u00", 4);
    out[4] = (uint8_t)digits[c >> 4];
    out[5] = (uint8_t)digits[c & 15];
    return 6;
}

int json_escape(uint8_t *out, size_t cap, struct span text)
{
    size_t len = 0;
    for (size_t at = 0; at < text.len;) {
        const uint8_t *from = text.ptr + at;
        uint8_t written[6];
        size_t count, taken = 1;
        if (is_plain(*from)) {
            taken = count = 1;
        } else if (*from < 0x80) {
            count = escape_put(written, *from);
            from = written;
        } else if (utf8_length(from, text.len - at)) {
            taken = count = utf8_length(from, text.len - at);
        } else {
            count = utf8_put(written, 0xFFFD);
            from = written;
        }
        if (cap - len < count)
            return -1;
        memcpy(out + len, from, count);
        len += count;
        at += taken;
    }
    return (int)len;
}
