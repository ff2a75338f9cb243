// SPDX-License-Identifier: MIT
#include "proto/h1.h"

#include "alloc/check.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

// Where the parser stands. `end` is never passed: a step that needs one more byte says H1_MORE.
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

// What a byte may be. One table, so that each rule of the grammar is one load and one test.
enum byte_class {
    BYTE_TOKEN = 1,  // RFC 9110 section 5.6.2: names, methods
    BYTE_TARGET = 2, // a request target: ASCII that is visible, but no '#', which starts a fragment
    BYTE_VALUE = 4,  // field values and reason phrases: HTAB, SP, VCHAR, obs-text
};

#define T (BYTE_TOKEN | BYTE_TARGET | BYTE_VALUE)
#define V (BYTE_TARGET | BYTE_VALUE)
#define O (BYTE_VALUE)
#define H (BYTE_TOKEN | BYTE_VALUE) // '#'
// clang-format off
static const uint8_t byte_is[256] = {
    /* 00 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, O, 0, 0, 0, 0, 0, 0,
    /* 10 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /*  ! */ O, T, V, H, T, T, T, T, V, V, T, T, V, T, T, V,
    /*  0 */ T, T, T, T, T, T, T, T, T, T, V, V, V, V, V, V,
    /*  @ */ V, T, T, T, T, T, T, T, T, T, T, T, T, T, T, T,
    /*  P */ T, T, T, T, T, T, T, T, T, T, T, V, V, V, T, T,
    /*  ` */ T, T, T, T, T, T, T, T, T, T, T, T, T, T, T, T,
    /*  p */ T, T, T, T, T, T, T, T, T, T, T, V, T, V, T, 0,
    /* 80 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* 90 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* a0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* b0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* c0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* d0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* e0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    /* f0 */ O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
};
// clang-format on
#undef T
#undef V
#undef O
#undef H

bool h1_token_byte(uint8_t c)
{
    return byte_is[c] & BYTE_TOKEN;
}

static inline bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

// ---- is the head complete? ----

// What h1_head_complete must remember of the bytes before the ones it looks at: as bits, the
// youngest byte lowest, so that "the byte before" is a shift.
struct line_scan {
    uint32_t cr; // bit 0: the last byte was CR
    uint32_t lf; // bit 1: the last byte was LF; bit 0: the one before it was
};

// Where the head ends or breaks within `count` bytes that start at `at`, given which of them are
// CR, LF and NUL: the index of the byte, or -1. The line law is "an LF follows a CR" and the end of
// the head is "CR LF, two bytes after an LF": both are shifts of the masks.
static inline int scan_masks(struct line_scan *scan, uint32_t cr, uint32_t lf, uint32_t nul,
                             int count, bool *bad)
{
    uint32_t after_cr = cr << 1 | scan->cr;
    uint32_t broken = (lf & ~after_cr) | nul;
    uint32_t over = lf & (lf << 2 | scan->lf);
    scan->cr = cr >> (count - 1) & 1;
    scan->lf = count > 1 ? lf >> (count - 2) & 3 : (scan->lf >> 1 | lf << 1) & 3;
    if (!(broken | over))
        return -1;
    int index = __builtin_ctz(broken | over);
    *bad = broken >> index & 1;
    return index;
}

#ifdef __SSE2__
static inline uint32_t mask_of(__m128i v, char byte)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(byte)));
}
#endif

// Scan [at, end) for the byte that ends or breaks the head; `end` if there is none.
static const uint8_t *scan_lines(struct line_scan *scan, const uint8_t *at, const uint8_t *end,
                                 bool *bad)
{
    int index;
#ifdef __SSE2__
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        index = scan_masks(scan, mask_of(v, '\r'), mask_of(v, '\n'), mask_of(v, '\0'), 16, bad);
        if (index >= 0)
            return at + index;
    }
#endif
    for (; at < end; at++) {
        if (*at > '\r') { // none of the three
            *scan = (struct line_scan){.cr = 0, .lf = scan->lf >> 1};
            continue;
        }
        index = scan_masks(scan, *at == '\r', *at == '\n', *at == '\0', 1, bad);
        if (index >= 0)
            return at;
    }
    return end;
}

// Before the first byte stands an LF of our own making: then a CRLF at the very start looks like
// the end of a head of two bytes, which is never a message.
static struct line_scan scan_resume(const uint8_t *bytes, size_t from)
{
    bool last_lf = from >= 1 ? bytes[from - 1] == '\n' : true;
    bool before_lf = from >= 2 ? bytes[from - 2] == '\n' : from == 1;
    bool last_cr = from >= 1 && bytes[from - 1] == '\r';
    return (struct line_scan){.cr = last_cr, .lf = (uint32_t)last_lf << 1 | (uint32_t)before_lf};
}

enum h1_result h1_head_complete(const uint8_t *bytes, size_t len, size_t *from, size_t *head_len)
{
    size_t limit = len < H1_HEAD_MAX ? len : H1_HEAD_MAX;
    CHECK(*from <= limit);
    struct line_scan scan = scan_resume(bytes, *from);
    bool bad = false;
    const uint8_t *end = bytes + limit, *at = scan_lines(&scan, bytes + *from, end, &bad);
    if (at == end) {
        *from = limit;
        return limit == H1_HEAD_MAX ? H1_TOO_LARGE : H1_MORE;
    }
    if (bad || at - bytes < 2)
        return H1_BAD;
    *from = *head_len = (size_t)(at - bytes) + 1;
    return H1_OK;
}

// ---- the pieces of a line ----

static enum h1_result take_crlf(struct cursor *c)
{
    if (c->at == c->end)
        return H1_MORE;
    if (c->at[0] != '\r')
        return H1_BAD;
    if (c->end - c->at < 2)
        return H1_MORE;
    if (c->at[1] != '\n')
        return H1_BAD;
    c->at += 2;
    return H1_OK;
}

static enum h1_result take_byte(struct cursor *c, uint8_t byte)
{
    if (c->at == c->end)
        return H1_MORE;
    return *c->at++ == byte ? H1_OK : H1_BAD;
}

// A run of one or more bytes of a class. It must end before the bytes do: what ends it is the
// caller's to judge.
static inline enum h1_result take_run(struct cursor *c, enum byte_class class, struct span *run)
{
    const uint8_t *start = c->at, *at = start, *end = c->end;
    while (at < end && (byte_is[*at] & class))
        at++;
    *run = span_of(start, (size_t)(at - start));
    c->at = at;
    if (at == end)
        return H1_MORE;
    return at == start ? H1_BAD : H1_OK;
}

#ifdef __SSE2__
// 16 bytes at once: 0xff where the byte lies in first..last (ASCII).
static inline __m128i in_range(__m128i v, char first, char last)
{
    // Signed compares only: move `first` to the least value there is.
    __m128i moved = _mm_sub_epi8(v, _mm_set1_epi8((char)(first - 128)));
    return _mm_cmplt_epi8(moved, _mm_set1_epi8((char)(-128 + (last - first) + 1)));
}
#endif

// The end of a run of token bytes. Names are letters, digits and '-' in practice; those go by
// sixteens, and the table has the last word on the byte that stops them.
static inline const uint8_t *find_name_end(const uint8_t *at, const uint8_t *end)
{
#ifdef __SSE2__
    while (end - at >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i alpha = in_range(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 'z');
        __m128i rest = _mm_or_si128(in_range(v, '0', '9'), _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        unsigned other = ~(unsigned)_mm_movemask_epi8(_mm_or_si128(alpha, rest)) & 0xffff;
        if (other) {
            at += __builtin_ctz(other);
            break;
        }
        at += 16;
    }
#endif
    while (at < end && (byte_is[*at] & BYTE_TOKEN))
        at++;
    return at;
}

// The first byte in [at, end) that no field value may hold (a control but HTAB, or DEL), or end.
static inline const uint8_t *find_value_end(const uint8_t *at, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i control = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'),
                  del = _mm_set1_epi8(0x7f);
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, control), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), low), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);
        if (mask)
            return at + __builtin_ctz(mask);
    }
#endif
    while (at < end && (byte_is[*at] & BYTE_VALUE))
        at++;
    return at;
}

// A field value or reason phrase with its CRLF; blanks around it are not part of it.
static inline enum h1_result take_value(struct cursor *c, struct span *value)
{
    const uint8_t *start = c->at, *end = c->end;
    while (start < end && is_blank(*start))
        start++;
    const uint8_t *stop = find_value_end(start, end);
    c->at = stop;
    enum h1_result result = take_crlf(c);
    if (result != H1_OK)
        return result;
    while (stop > start && is_blank(stop[-1]))
        stop--;
    *value = span_of(start, (size_t)(stop - start));
    return H1_OK;
}

// ---- known field names ----

// Eight (four) bytes compared at once, any case. Letters of the known name have bit 6 set and the
// others of it (digits and '-') have not: so bit 5 is forgiven for letters only, exactly.
static inline bool same_8(const uint8_t *at, const char *known)
{
    uint64_t a, b;
    memcpy(&a, at, 8);
    memcpy(&b, known, 8);
    return (a | (b & 0x4040404040404040u) >> 1) == b;
}

static inline bool same_4(const uint8_t *at, const char *known)
{
    uint32_t a, b;
    memcpy(&a, at, 4);
    memcpy(&b, known, 4);
    return (a | (b & 0x40404040u) >> 1) == b;
}

// `known` is lower-case letters, digits and '-', `len` a constant: this folds into a few compares.
// Words overlap rather than run past the name.
static inline __attribute__((always_inline)) bool same_name(const uint8_t *at, const char *known,
                                                            size_t len)
{
    if (len >= 16)
        return same_8(at, known) && same_8(at + 8, known + 8) &&
               same_8(at + len - 8, known + len - 8);
    if (len >= 8)
        return same_8(at, known) && same_8(at + len - 8, known + len - 8);
    if (len >= 4)
        return same_4(at, known) && same_4(at + len - 4, known + len - 4);
    for (size_t i = 0; i < len; i++)
        if (ascii_lower(at[i]) != (uint8_t)known[i])
            return false;
    return true;
}

_Static_assert(sizeof("proxy-authorization") - 1 <= 24, "same_name covers 24 bytes");

// The first candidate of the right length that matches names the field.
#define IS(known, field_id)                                                                        \
    if (same_name(at, known, sizeof(known) - 1))                                                   \
    return field_id

static enum h1_field_id field_id_by_name(const uint8_t *at, size_t len)
{
    switch (len) {
    case 2: IS("te", H1_FIELD_TE); break;
    case 3: IS("via", H1_FIELD_VIA); break;
    case 4:
        IS("host", H1_FIELD_HOST);
        IS("date", H1_FIELD_DATE);
        break;
    case 6:
        IS("accept", H1_FIELD_ACCEPT);
        IS("cookie", H1_FIELD_COOKIE);
        IS("server", H1_FIELD_SERVER);
        IS("expect", H1_FIELD_EXPECT);
        break;
    case 7:
        IS("api-key", H1_FIELD_API_KEY);
        IS("upgrade", H1_FIELD_UPGRADE);
        IS("trailer", H1_FIELD_TRAILER);
        break;
    case 9:
        IS("x-api-key", H1_FIELD_X_API_KEY);
        IS("forwarded", H1_FIELD_FORWARDED);
        break;
    case 10:
        IS("connection", H1_FIELD_CONNECTION);
        IS("keep-alive", H1_FIELD_KEEP_ALIVE);
        break;
    case 11: IS("retry-after", H1_FIELD_RETRY_AFTER); break;
    case 12:
        IS("content-type", H1_FIELD_CONTENT_TYPE);
        IS("x-request-id", H1_FIELD_X_REQUEST_ID);
        break;
    case 13: IS("authorization", H1_FIELD_AUTHORIZATION); break;
    case 14:
        IS("content-length", H1_FIELD_CONTENT_LENGTH);
        IS("x-goog-api-key", H1_FIELD_X_GOOG_API_KEY);
        break;
    case 15:
        IS("accept-encoding", H1_FIELD_ACCEPT_ENCODING);
        IS("x-forwarded-for", H1_FIELD_X_FORWARDED_FOR);
        IS("idempotency-key", H1_FIELD_IDEMPOTENCY_KEY);
        break;
    case 16:
        IS("content-encoding", H1_FIELD_CONTENT_ENCODING);
        IS("proxy-connection", H1_FIELD_PROXY_CONNECTION);
        break;
    case 17:
        IS("transfer-encoding", H1_FIELD_TRANSFER_ENCODING);
        IS("anthropic-version", H1_FIELD_ANTHROPIC_VERSION);
        IS("x-forwarded-proto", H1_FIELD_X_FORWARDED_PROTO);
        break;
    case 18: IS("proxy-authenticate", H1_FIELD_PROXY_AUTHENTICATE); break;
    case 19: IS("proxy-authorization", H1_FIELD_PROXY_AUTHORIZATION); break;
    }
    return H1_FIELD_OTHER;
}
#undef IS

enum h1_field_id h1_field_id(struct span name)
{
    enum h1_field_id id = field_id_by_name(name.ptr, name.len);
    if (id == H1_FIELD_OTHER && name.len >= 12 && same_name(name.ptr, "x-tokenring-", 12))
        return H1_FIELD_X_TOKENRING;
    return id;
}

// ---- fields ----

static inline enum h1_result take_field(struct cursor *c, struct h1_field *field)
{
    const uint8_t *colon = find_name_end(c->at, c->end);
    if (colon == c->end)
        return H1_MORE;
    if (colon == c->at || *colon != ':')
        return H1_BAD;
    field->name = span_of(c->at, (size_t)(colon - c->at));
    c->at = colon + 1;
    enum h1_result result = take_value(c, &field->value);
    if (result != H1_OK)
        return result;
    field->id = h1_field_id(field->name);
    return H1_OK;
}

// Field lines up to a CR where a name should begin, or up to the end of the bytes (H1_MORE).
static enum h1_result take_fields(struct cursor *c, struct h1_head *head)
{
    head->field_count = 0;
    while (c->at < c->end) {
        if (*c->at == '\r')
            return H1_OK;
        if (head->field_count == H1_FIELDS_MAX)
            return H1_TOO_LARGE;
        enum h1_result result = take_field(c, &head->field[head->field_count]);
        if (result != H1_OK)
            return result;
        head->field_count++;
    }
    return H1_MORE;
}

// ---- start lines ----

static enum h1_result take_version(struct cursor *c, struct h1_head *head)
{
    size_t here = (size_t)(c->end - c->at);
    if (memcmp(c->at, "HTTP/1.", here < 7 ? here : 7) != 0)
        return H1_BAD;
    if (here < 8)
        return H1_MORE;
    if (c->at[7] != '0' && c->at[7] != '1')
        return H1_BAD;
    head->minor = (uint8_t)(c->at[7] - '0');
    c->at += 8;
    return H1_OK;
}

static enum h1_method method_of(struct span text)
{
    static const struct {
        struct span text;
        enum h1_method method;
    } known[] = {
        {{(const uint8_t *)"POST", 4}, H1_METHOD_POST},
        {{(const uint8_t *)"GET", 3}, H1_METHOD_GET},
        {{(const uint8_t *)"HEAD", 4}, H1_METHOD_HEAD},
        {{(const uint8_t *)"PUT", 3}, H1_METHOD_PUT},
        {{(const uint8_t *)"DELETE", 6}, H1_METHOD_DELETE},
        {{(const uint8_t *)"PATCH", 5}, H1_METHOD_PATCH},
        {{(const uint8_t *)"OPTIONS", 7}, H1_METHOD_OPTIONS},
        {{(const uint8_t *)"CONNECT", 7}, H1_METHOD_CONNECT},
        {{(const uint8_t *)"TRACE", 5}, H1_METHOD_TRACE},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (span_equal(text, known[i].text))
            return known[i].method;
    return H1_METHOD_OTHER;
}

// "http://" or "https://" and at least one byte of authority behind it.
static bool is_absolute_form(struct span target)
{
    struct span http = SPAN("http://"), https = SPAN("https://");
    return (target.len > http.len && span_equal_nocase(span_of(target.ptr, http.len), http)) ||
           (target.len > https.len && span_equal_nocase(span_of(target.ptr, https.len), https));
}

// CONNECT names a host and a port, nothing else: no path, no query, no userinfo.
static bool is_authority_form(struct span target)
{
    for (size_t i = 0; i < target.len; i++)
        if (target.ptr[i] == '/' || target.ptr[i] == '?' || target.ptr[i] == '@')
            return false;
    return memchr(target.ptr, ':', target.len) != NULL;
}

// The four forms of RFC 9112 section 3.2, each only with the methods it belongs to.
static bool target_is_valid(enum h1_method method, struct span target)
{
    if (method == H1_METHOD_CONNECT)
        return is_authority_form(target);
    if (target.ptr[0] == '/')
        return true;
    if (target.ptr[0] == '*')
        return target.len == 1 && method == H1_METHOD_OPTIONS;
    return is_absolute_form(target);
}

static enum h1_result take_request_line(struct cursor *c, struct h1_head *head)
{
    enum h1_result result = take_run(c, BYTE_TOKEN, &head->method_text);
    if (head->method_text.len > H1_METHOD_MAX)
        return H1_BAD;
    if (result != H1_OK)
        return result;
    if (*c->at++ != ' ')
        return H1_BAD;
    result = take_run(c, BYTE_TARGET, &head->target);
    if (result != H1_OK)
        return result;
    if (*c->at++ != ' ')
        return H1_BAD;
    head->method = method_of(head->method_text);
    if (!target_is_valid(head->method, head->target))
        return H1_BAD;
    result = take_version(c, head);
    return result == H1_OK ? take_crlf(c) : result;
}

static enum h1_result take_status(struct cursor *c, struct h1_head *head)
{
    head->status = 0;
    for (int i = 0; i < 3; i++, c->at++) {
        if (c->at == c->end)
            return H1_MORE;
        if (*c->at < '0' || *c->at > '9')
            return H1_BAD;
        head->status = (uint16_t)(head->status * 10 + (*c->at - '0'));
    }
    return head->status >= 100 ? H1_OK : H1_BAD;
}

// "HTTP/1.1 200 OK". The space before an empty reason phrase is often left out; that is
// unambiguous, and answers are worth more than grammar there, so it is let through.
static enum h1_result take_status_line(struct cursor *c, struct h1_head *head)
{
    enum h1_result result = take_version(c, head);
    if (result == H1_OK)
        result = take_byte(c, ' ');
    if (result == H1_OK)
        result = take_status(c, head);
    if (result != H1_OK)
        return result;
    if (c->at == c->end)
        return H1_MORE;
    if (*c->at != ' ' && *c->at != '\r')
        return H1_BAD;
    return take_value(c, &head->reason);
}

// ---- whole heads ----

typedef enum h1_result start_line(struct cursor *c, struct h1_head *head);

static inline enum h1_result take_head(struct cursor *c, struct h1_head *head,
                                       start_line *take_start)
{
    enum h1_result result = take_start(c, head);
    if (result == H1_OK)
        result = take_fields(c, head);
    return result == H1_OK ? take_crlf(c) : result;
}

// Bytes beyond H1_HEAD_MAX are not looked at: who needs them has too large a head.
static inline enum h1_result parse(struct h1_head *head, const uint8_t *bytes, size_t len,
                                   start_line *take_start)
{
    struct cursor c = {bytes, bytes + (len < H1_HEAD_MAX ? len : H1_HEAD_MAX)};
    head->method = H1_METHOD_OTHER;
    head->method_text = head->target = head->reason = (struct span){0};
    head->status = 0;
    head->minor = 0;
    head->field_count = 0;
    head->len = 0;
    enum h1_result result = take_head(&c, head, take_start);
    if (result == H1_MORE && len >= H1_HEAD_MAX)
        return H1_TOO_LARGE;
    if (result == H1_OK)
        head->len = (size_t)(c.at - bytes);
    return result;
}

enum h1_result h1_parse_request(struct h1_head *head, const uint8_t *bytes, size_t len)
{
    return parse(head, bytes, len, take_request_line);
}

enum h1_result h1_parse_response(struct h1_head *head, const uint8_t *bytes, size_t len)
{
    return parse(head, bytes, len, take_status_line);
}

// ---- looking things up ----

const struct h1_field *h1_find(const struct h1_head *head, enum h1_field_id id)
{
    CHECK(id != H1_FIELD_OTHER);
    for (size_t i = 0; i < head->field_count; i++)
        if (head->field[i].id == id)
            return &head->field[i];
    return NULL;
}

const struct h1_field *h1_find_name(const struct h1_head *head, struct span name)
{
    for (size_t i = 0; i < head->field_count; i++)
        if (span_equal_nocase(head->field[i].name, name))
            return &head->field[i];
    return NULL;
}

// Where the element that starts at `at` ends: at a comma outside quotes, or at `end`.
static const uint8_t *element_end(const uint8_t *at, const uint8_t *end)
{
    bool quoted = false;
    for (; at < end; at++) {
        if (quoted && *at == '\\' && end - at > 1)
            at++;
        else if (*at == '"')
            quoted = !quoted;
        else if (*at == ',' && !quoted)
            break;
    }
    return at;
}

struct span h1_list_next(struct span *rest)
{
    const uint8_t *at = rest->ptr, *end = at + rest->len;
    while (at < end && (is_blank(*at) || *at == ','))
        at++;
    const uint8_t *stop = element_end(at, end);
    *rest = span_of(stop, (size_t)(end - stop));
    while (stop > at && is_blank(stop[-1]))
        stop--;
    return span_of(at, (size_t)(stop - at));
}

bool h1_list_has(const struct h1_head *head, enum h1_field_id id, struct span token)
{
    CHECK(id != H1_FIELD_OTHER);
    CHECK(token.len > 0);
    for (size_t i = 0; i < head->field_count; i++) {
        if (head->field[i].id != id)
            continue;
        struct span rest = head->field[i].value, element;
        while ((element = h1_list_next(&rest)).len)
            if (span_equal_nocase(element, token))
                return true;
    }
    return false;
}

bool h1_hop_by_hop(const struct h1_head *head, const struct h1_field *field)
{
    switch (field->id) {
    case H1_FIELD_CONNECTION:
    case H1_FIELD_CONTENT_LENGTH:
    case H1_FIELD_KEEP_ALIVE:
    case H1_FIELD_PROXY_AUTHENTICATE:
    case H1_FIELD_PROXY_AUTHORIZATION:
    case H1_FIELD_PROXY_CONNECTION:
    case H1_FIELD_TE:
    case H1_FIELD_TRAILER:
    case H1_FIELD_TRANSFER_ENCODING:
    case H1_FIELD_UPGRADE: return true;
    default: return h1_list_has(head, H1_FIELD_CONNECTION, field->name);
    }
}
