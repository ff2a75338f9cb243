// SPDX-License-Identifier: MIT
//
// Three small machines run over the same bytes, each with its own progress, so that a cut at any
// byte changes nothing.
//
// `line`: where in a line we are.
//
//   BOM -> START -> FIELD -> SPACE -> DATA     "data": looked at by the other two machines
//                     |        `---> NAME      "event": compared with the names we know
//                     `-------------> REST     anything else, a comment too: skipped
//   and from each of them at a line end back to START.
//
// `head`: do the first bytes of an event's data show what it is? FIRST -> OVER as soon as they do,
// or cannot any more; a further data line of the event goes OVER -> LATER -> OVER. Bytes that do
// not tell yet are kept.
//
// `find`: the usage object. A quoted "usage" cannot stand inside a JSON string, since its quotes
// would be escaped there, so the scan need not know where strings begin: most bytes pass at SIMD
// speed.
//
//   SCAN -> COLON -> VALUE -> CAPTURE -> SCAN
//
// The capture is read once its braces are balanced, or when it is full: what was cut off is not
// known then.
#include "proto/sse.h"

#include "alloc/check.h"
#include "proto/json.h"

#include <immintrin.h>

enum line { LINE_BOM, LINE_START, LINE_FIELD, LINE_SPACE, LINE_DATA, LINE_NAME, LINE_REST };

enum head {
    HEAD_FIRST,
    HEAD_LATER, // a further data line: only [DONE] still counts
    HEAD_OVER
};

enum find { FIND_SCAN, FIND_COLON, FIND_VALUE, FIND_CAPTURE };

enum capture_string { CAPTURE_OUTSIDE, CAPTURE_INSIDE, CAPTURE_BACKSLASH };

static const char usage_word[] = "\"usage\"";

_Static_assert(sizeof(struct sse) <= 640, "one of these per stream");

static const struct sse_usage usage_unknown = {UINT32_MAX, UINT32_MAX, UINT32_MAX};

void sse_start(struct sse *sse)
{
    // The capture needs no clearing: `captured` says how much of it counts.
    memset(sse, 0, offsetof(struct sse, capture));
    sse->line = LINE_BOM;
    sse->head = HEAD_FIRST;
    sse->find = FIND_SCAN;
    sse->usage = usage_unknown;
}

bool sse_at_boundary(const struct sse *sse)
{
    bool between = sse->line == LINE_START || (sse->line == LINE_BOM && sse->word_len == 0);
    return between && !sse->event_seen;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// ---- usage ----

static uint32_t count_of(struct span number)
{
    uint64_t value = 0;
    for (size_t i = 0; i < number.len; i++) {
        if (number.ptr[i] < '0' || number.ptr[i] > '9')
            return UINT32_MAX; // negative, a fraction, an exponent: no count of tokens
        value = value * 10 + (number.ptr[i] - '0');
        if (value >= UINT32_MAX)
            return UINT32_MAX;
    }
    return (uint32_t)value;
}

// Where the number behind this key of a usage object goes, or NULL. `depth` counts from the object.
static uint32_t *usage_place(struct sse_usage *usage, struct span key, unsigned depth, bool details)
{
    if (depth == 2)
        return details && span_equal(key, SPAN("cached_tokens")) ? &usage->cached : NULL;
    if (span_equal(key, SPAN("prompt_tokens")) || span_equal(key, SPAN("input_tokens")))
        return &usage->input;
    if (span_equal(key, SPAN("completion_tokens")) || span_equal(key, SPAN("output_tokens")))
        return &usage->output;
    return span_equal(key, SPAN("cache_read_input_tokens")) ? &usage->cached : NULL;
}

static bool is_details(struct span key)
{
    return span_equal(key, SPAN("prompt_tokens_details")) ||
           span_equal(key, SPAN("input_tokens_details"));
}

// Read the members of the object that `json` has just entered. Returns the token that ended it:
// JSON_OBJECT_END, or JSON_MORE where the bytes stop, or an error.
static enum json_token usage_read(struct sse_usage *usage, struct json *json, const uint8_t *bytes,
                                  size_t len, size_t *used)
{
    uint8_t base = (uint8_t)(json->depth - 1);
    uint32_t *place = NULL;
    bool details = false; // the last key at depth 1 was that of the details
    for (;;) {            // each turn takes a token
        enum json_token token = json_next(json, bytes, len, used, (uint8_t)(base + 2));
        if (token <= JSON_MORE || (token == JSON_OBJECT_END && json->depth == base))
            return token;
        struct span text = span_of(bytes + json->at, (size_t)(json->end - json->at));
        unsigned depth = (unsigned)(json->depth - base);
        if (token == JSON_KEY) {
            details = depth == 1 ? is_details(text) : details;
            place = usage_place(usage, text, depth, details);
        } else {
            if (token == JSON_NUMBER && place != NULL)
                *place = count_of(text);
            place = NULL;
        }
    }
}

static bool usage_known(const struct sse_usage *usage)
{
    return usage->input != UINT32_MAX || usage->output != UINT32_MAX || usage->cached != UINT32_MAX;
}

static void usage_merge(struct sse_usage *usage, const struct sse_usage *later)
{
    if (later->input != UINT32_MAX)
        usage->input = later->input;
    if (later->output != UINT32_MAX)
        usage->output = later->output;
    if (later->cached != UINT32_MAX)
        usage->cached = later->cached;
}

static void capture_read(struct sse *sse)
{
    struct sse_usage usage = usage_unknown;
    struct json json;
    size_t used = 0;
    json_start(&json);
    enum json_token token = json_next(&json, sse->capture, sse->captured, &used, 1);
    CHECK(token == JSON_OBJECT_BEGIN);
    token = usage_read(&usage, &json, sse->capture, sse->captured, &used);
    if (token < JSON_MORE || !usage_known(&usage))
        return;
    usage_merge(&sse->usage, &usage);
    sse->usage_seen = true;
}

static void find_scan(struct sse *sse)
{
    sse->find = FIND_SCAN;
    sse->find_match = 0;
}

static void capture_end(struct sse *sse)
{
    capture_read(sse);
    find_scan(sse);
}

static void capture_begin(struct sse *sse)
{
    sse->find = FIND_CAPTURE;
    sse->captured = 0;
    sse->capture_depth = 0;
    sse->capture_string = CAPTURE_OUTSIDE;
}

// Count braces outside of strings: the capture ends with its object.
static void capture_byte(struct sse *sse, uint8_t c)
{
    CHECK(sse->captured < SSE_CAPTURE_MAX);
    sse->capture[sse->captured++] = c;
    if (sse->capture_string == CAPTURE_BACKSLASH) {
        sse->capture_string = CAPTURE_INSIDE;
    } else if (sse->capture_string == CAPTURE_INSIDE) {
        sse->capture_string = c == '\\'  ? CAPTURE_BACKSLASH
                              : c == '"' ? CAPTURE_OUTSIDE
                                         : CAPTURE_INSIDE;
    } else if (c == '"') {
        sse->capture_string = CAPTURE_INSIDE;
    } else if (c == '{') {
        sse->capture_depth++; // at most SSE_CAPTURE_MAX
    } else if (c == '}') {
        sse->capture_depth--; // at least 0, where the capture ends
    }
    if (sse->capture_depth == 0 || sse->captured == SSE_CAPTURE_MAX)
        capture_end(sse);
}

// One byte of data for the machine that looks for usage.
static void find_byte(struct sse *sse, uint8_t c)
{
    switch (sse->find) {
    case FIND_SCAN:
        if (c == (uint8_t)usage_word[sse->find_match])
            sse->find_match++;
        else
            sse->find_match = c == '"';
        if (sse->find_match == sizeof usage_word - 1)
            sse->find = FIND_COLON;
        return;
    case FIND_COLON:
        if (c == ':')
            sse->find = FIND_VALUE;
        else if (!is_space(c))
            find_scan(sse);
        return;
    case FIND_VALUE:
        if (is_space(c))
            return;
        find_scan(sse);
        if (c != '{')
            return;
        capture_begin(sse);
        // fallthrough
    default: capture_byte(sse, c);
    }
}

// ---- what an event is ----

enum verdict { VERDICT_MORE, VERDICT_OTHER, VERDICT_ERROR, VERDICT_LAST, VERDICT_DONE };

// The names of events, which are the types in their data as well.
static enum verdict judge_name(struct span name)
{
    if (span_equal(name, SPAN("error")))
        return VERDICT_ERROR;
    if (span_equal(name, SPAN("message_stop")))
        return VERDICT_LAST;
    if (!span_starts(name, SPAN("response.")))
        return VERDICT_OTHER;
    bool last = span_equal(name, SPAN("response.completed")) ||
                span_equal(name, SPAN("response.incomplete")) ||
                span_equal(name, SPAN("response.failed"));
    return last ? VERDICT_LAST : VERDICT_OTHER;
}

static void skip_space(struct span *text)
{
    while (text->len && is_space(*text->ptr)) {
        text->ptr++;
        text->len--;
    }
}

enum take { TAKE_YES, TAKE_NO, TAKE_MORE };

// Take `literal` from the front, behind whitespace: YES, NO, or MORE if the bytes stop inside it.
static inline enum take take(struct span *text, struct span literal)
{
    skip_space(text);
    if (span_starts(*text, literal)) {
        *text = span_of(text->ptr + literal.len, text->len - literal.len);
        return TAKE_YES;
    }
    bool cut = text->len < literal.len && memcmp(text->ptr, literal.ptr, text->len) == 0;
    return cut ? TAKE_MORE : TAKE_NO;
}

static inline enum verdict verdict_unless(enum take taken)
{
    return taken == TAKE_NO ? VERDICT_OTHER : VERDICT_MORE;
}

// Behind {"error" comes an error, unless the value is null.
static enum verdict judge_error(struct span text)
{
    enum take taken = take(&text, SPAN(":"));
    if (taken != TAKE_YES)
        return verdict_unless(taken);
    skip_space(&text);
    if (text.len == 0)
        return VERDICT_MORE;
    return *text.ptr == 'n' ? VERDICT_OTHER : VERDICT_ERROR;
}

// Behind {"type" comes a name: do we know it?
static enum verdict judge_type(struct span text)
{
    enum take taken = take(&text, SPAN(":"));
    if (taken == TAKE_YES)
        taken = take(&text, SPAN("\""));
    if (taken != TAKE_YES)
        return verdict_unless(taken);
    const uint8_t *quote = memchr(text.ptr, '"', text.len);
    return quote ? judge_name(span_of(text.ptr, (size_t)(quote - text.ptr))) : VERDICT_MORE;
}

// The first bytes of the data. More bytes never change a verdict other than MORE.
static enum verdict judge_data(struct span text, bool later)
{
    skip_space(&text);
    if (text.len == 0)
        return VERDICT_MORE;
    if (*text.ptr == '[') {
        enum take taken = take(&text, SPAN("[DONE]"));
        return taken == TAKE_YES ? VERDICT_DONE : verdict_unless(taken);
    }
    if (*text.ptr != '{' || later)
        return VERDICT_OTHER;
    text = span_of(text.ptr + 1, text.len - 1);
    struct span other = text;
    enum take type = take(&text, SPAN("\"type\""));
    if (type == TAKE_YES)
        return judge_type(text);
    enum take error = take(&other, SPAN("\"error\""));
    if (error == TAKE_YES)
        return judge_error(other);
    return type == TAKE_MORE || error == TAKE_MORE ? VERDICT_MORE : VERDICT_OTHER;
}

static void head_to(struct sse *sse, enum head head)
{
    sse->head = (uint8_t)head;
    sse->head_len = 0;
}

// Bytes of a data line while the head is not over.
static void head_take(struct sse *sse, const uint8_t *bytes, size_t len)
{
    size_t room = SSE_HEAD_MAX - sse->head_len;
    size_t count = len < room ? len : room;
    struct span text = span_of(bytes, count);
    if (sse->head_len) { // else the bytes can be judged where they are
        memcpy(sse->head_bytes + sse->head_len, bytes, count);
        text = span_of(sse->head_bytes, sse->head_len + count);
    }
    enum verdict verdict = judge_data(text, sse->head == HEAD_LATER);
    if (verdict == VERDICT_MORE && text.len < SSE_HEAD_MAX) {
        if (sse->head_len == 0)
            memcpy(sse->head_bytes, bytes, count);
        sse->head_len = (uint8_t)text.len;
        return;
    }
    head_to(sse, HEAD_OVER);
    sse->error |= verdict == VERDICT_ERROR;
    sse->last_event |= verdict == VERDICT_LAST;
    // [DONE] at once, not at its blank line: servers are known to close the connection right
    // behind it.
    sse->terminal |= verdict == VERDICT_DONE;
}

static void data_line_begin(struct sse *sse)
{
    if (sse->has_data && sse->head == HEAD_OVER)
        head_to(sse, HEAD_LATER);
    sse->has_data = true;
}

// ---- lines ----

static void event_end(struct sse *sse)
{
    sse->events += sse->has_data;
    sse->terminal |= sse->last_event;
    sse->has_data = sse->event_seen = sse->last_event = false;
    head_to(sse, HEAD_FIRST);
    find_scan(sse);
}

static void line_to(struct sse *sse, enum line line)
{
    sse->line = (uint8_t)line;
    sse->word_len = 0;
}

// Keep a name that slices may cut. One that is longer than any we know is only counted.
static void word_add(struct sse *sse, const uint8_t *bytes, size_t len)
{
    if (len > (size_t)(SSE_WORD_MAX - sse->word_len)) {
        sse->word_len = SSE_WORD_MAX;
        return;
    }
    memcpy(sse->word + sse->word_len, bytes, len);
    sse->word_len = (uint8_t)(sse->word_len + len);
}

static struct span word_of(const struct sse *sse)
{
    return span_of(sse->word, sse->word_len);
}

static void name_known(struct sse *sse, struct span name)
{
    enum verdict verdict = judge_name(name);
    sse->error |= verdict == VERDICT_ERROR;
    sse->last_event |= verdict == VERDICT_LAST;
}

// The lines of an event are joined by a line end, which to JSON is whitespace.
static void data_line_end(struct sse *sse)
{
    if (sse->head != HEAD_OVER)
        head_take(sse, (const uint8_t *)"\n", 1);
    if (sse->find_match || sse->find != FIND_SCAN)
        find_byte(sse, '\n');
}

// The line ends here, whichever of the three ends it has.
static void line_end(struct sse *sse)
{
    switch (sse->line) {
    case LINE_BOM:
        if (sse->word_len == 0)
            event_end(sse);
        else // the start of a byte order mark, alone in its line: a field without a name
            sse->event_seen = true;
        break;
    case LINE_START: event_end(sse); break;
    case LINE_FIELD: // no colon: the whole line is the name
        if (span_equal(word_of(sse), SPAN("data")))
            data_line_begin(sse);
        break;
    case LINE_NAME: name_known(sse, word_of(sse)); break;
    case LINE_DATA: data_line_end(sse); break;
    default: break;
    }
    line_to(sse, LINE_START);
}

static const uint8_t *first_line_end(const uint8_t *at, const uint8_t *end)
{
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n')),
                                    _mm_cmpeq_epi8(v, _mm_set1_epi8('\r')));
        uint32_t mask = (uint32_t)_mm_movemask_epi8(stop);
        if (mask)
            return at + __builtin_ctz(mask);
    }
    while (at < end && *at != '\n' && *at != '\r')
        at++;
    return at;
}

// The first line end, or a quote that may open "usage": one whose next byte is a 'u' or not here
// yet.
static const uint8_t *first_of_interest(const uint8_t *at, const uint8_t *end)
{
    for (; end - at >= 17; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        __m128i next = _mm_loadu_si128((const __m128i *)(at + 1));
        __m128i quote = _mm_and_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                      _mm_cmpeq_epi8(next, _mm_set1_epi8('u')));
        __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n')),
                                    _mm_cmpeq_epi8(v, _mm_set1_epi8('\r')));
        uint32_t mask = (uint32_t)_mm_movemask_epi8(_mm_or_si128(stop, quote));
        if (mask)
            return at + __builtin_ctz(mask);
    }
    for (; at < end; at++)
        if (*at == '\n' || *at == '\r' || (*at == '"' && (at + 1 == end || at[1] == 'u')))
            break;
    return at;
}

// Data up to the line end or the end of the slice: returns where it stopped.
static const uint8_t *data_run(struct sse *sse, const uint8_t *from, const uint8_t *end)
{
    const uint8_t *at = from;
    while (at < end) {
        if (sse->find == FIND_SCAN && sse->find_match == 0) {
            at = first_of_interest(at, end);
            if (end - at >= 8 && memcmp(at, "\"usage\":", 8) == 0) { // the usual way to write it
                sse->find = FIND_VALUE;
                at += 8;
                continue;
            }
        }
        if (at == end || *at == '\n' || *at == '\r')
            break;
        find_byte(sse, *at++);
    }
    if (sse->head != HEAD_OVER)
        head_take(sse, from, (size_t)(at - from));
    return at;
}

// The name of a field up to its colon.
static const uint8_t *field_run(struct sse *sse, const uint8_t *from, const uint8_t *end)
{
    const uint8_t *at = from;
    while (at < end && *at != ':' && *at != '\n' && *at != '\r')
        at++;
    word_add(sse, from, (size_t)(at - from));
    if (at == end || *at != ':')
        return at;
    bool data = span_equal(word_of(sse), SPAN("data"));
    bool event = span_equal(word_of(sse), SPAN("event"));
    sse->field_is_data = data;
    line_to(sse, data || event ? LINE_SPACE : LINE_REST);
    if (data)
        data_line_begin(sse);
    return at + 1;
}

static const uint8_t *name_run(struct sse *sse, const uint8_t *from, const uint8_t *end)
{
    const uint8_t *at = first_line_end(from, end);
    if (at < end && sse->word_len == 0) { // the name lies here whole: no need to keep it
        name_known(sse, span_of(from, (size_t)(at - from)));
        line_to(sse, LINE_REST);
        return at;
    }
    word_add(sse, from, (size_t)(at - from));
    return at;
}

// The first byte of a line that is not empty.
static const uint8_t *line_begin(struct sse *sse, const uint8_t *at, const uint8_t *end)
{
    if (*at == ':') {
        line_to(sse, LINE_REST);
        return at + 1;
    }
    sse->event_seen = true;
    if (end - at >= 6 && memcmp(at, "data: ", 6) == 0) { // nearly always
        data_line_begin(sse);
        line_to(sse, LINE_DATA);
        return data_run(sse, at + 6, end);
    }
    if (end - at >= 7 && memcmp(at, "event: ", 7) == 0) {
        line_to(sse, LINE_NAME);
        return name_run(sse, at + 7, end);
    }
    line_to(sse, LINE_FIELD);
    return at;
}

// A byte order mark may stand before the first line. What turns out to be none was a field's name.
static const uint8_t *bom_byte(struct sse *sse, const uint8_t *at)
{
    static const uint8_t bom[] = {0xEF, 0xBB, 0xBF};
    if (*at == bom[sse->word_len]) {
        if (++sse->word_len == sizeof bom)
            line_to(sse, LINE_START);
        return at + 1;
    }
    sse->event_seen = sse->word_len > 0;
    line_to(sse, sse->word_len > 0 ? LINE_REST : LINE_START);
    return at;
}

static const uint8_t *space_byte(struct sse *sse, const uint8_t *at)
{
    line_to(sse, sse->field_is_data ? LINE_DATA : LINE_NAME);
    return *at == ' ' ? at + 1 : at;
}

// Go on in the line until its end, the end of the slice, or a change of `line`.
static const uint8_t *line_run(struct sse *sse, const uint8_t *at, const uint8_t *end)
{
    switch (sse->line) {
    case LINE_BOM: return bom_byte(sse, at);
    case LINE_START: return line_begin(sse, at, end);
    case LINE_FIELD: return field_run(sse, at, end);
    case LINE_SPACE: return space_byte(sse, at);
    case LINE_DATA: return data_run(sse, at, end);
    case LINE_NAME: return name_run(sse, at, end);
    default: return first_line_end(at, end);
    }
}

void sse_feed(struct sse *sse, const uint8_t *bytes, size_t len)
{
    const uint8_t *at = bytes, *end = bytes + len;
    while (at < end) { // every third turn at least moves `at`
        bool line_feed = *at == '\n';
        if (line_feed && sse->carriage_return) { // the second half of a CRLF
            sse->carriage_return = false;
            at++;
            continue;
        }
        sse->carriage_return = *at == '\r';
        if (!line_feed && *at != '\r') {
            at = line_run(sse, at, end);
            continue;
        }
        line_end(sse);
        at++;
    }
}

// ---- whole answers ----

bool sse_usage_from_json(struct sse_usage *usage, const uint8_t *bytes, size_t len)
{
    struct json json;
    size_t used = 0;
    bool found = false, key = false;
    json_start(&json);
    for (;;) { // each turn takes a token
        enum json_token token = json_next(&json, bytes, len, &used, key ? 2 : 1);
        if (token <= JSON_MORE)
            return false;
        if (token == JSON_DONE)
            return found;
        if (key && token == JSON_OBJECT_BEGIN) {
            struct sse_usage read = usage_unknown;
            if (usage_read(&read, &json, bytes, len, &used) != JSON_OBJECT_END)
                return false;
            if (usage_known(&read)) {
                *usage = read;
                found = true;
            }
        }
        struct span text = span_of(bytes + json.at, (size_t)(json.end - json.at));
        key = token == JSON_KEY && json.depth == 1 && span_equal(text, SPAN("usage"));
    }
}
