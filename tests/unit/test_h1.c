// SPDX-License-Identifier: MIT
#include "proto/h1.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>

// ---- feeding ----

enum kind { REQUEST, RESPONSE };

static enum h1_result parse(enum kind kind, struct h1_head *head, const uint8_t *bytes, size_t len)
{
    return kind == REQUEST ? h1_parse_request(head, bytes, len)
                           : h1_parse_response(head, bytes, len);
}

// As the gateway reads: `available` bytes are here, then a parse if the head is complete.
static enum h1_result feed(enum kind kind, struct h1_head *head, const void *bytes,
                           size_t available, size_t *from)
{
    size_t head_len = 0;
    const uint8_t *at = edge_put(bytes, available);
    enum h1_result result = h1_head_complete(at, available, from, &head_len);
    if (result != H1_OK)
        return result;
    // The parser gets the head alone, so that the page behind the head is the guard.
    result = parse(kind, head, edge_put(bytes, head_len), head_len);
    cr_assert_neq(result, H1_MORE, "complete, and yet more is wanted");
    if (result == H1_OK)
        cr_assert_eq(head->len, head_len);
    return result;
}

static enum h1_result feed_whole(enum kind kind, struct h1_head *head, const void *bytes,
                                 size_t len)
{
    size_t from = 0;
    return feed(kind, head, bytes, len, &from);
}

static enum h1_result feed_split(enum kind kind, struct h1_head *head, const void *bytes,
                                 size_t len, size_t cut)
{
    size_t from = 0;
    enum h1_result result = feed(kind, head, bytes, cut, &from);
    return result == H1_MORE ? feed(kind, head, bytes, len, &from) : result;
}

static enum h1_result feed_bytes(enum kind kind, struct h1_head *head, const void *bytes,
                                 size_t len)
{
    size_t from = 0;
    enum h1_result result = H1_MORE;
    for (size_t available = 0; available <= len && result == H1_MORE; available++)
        result = feed(kind, head, bytes, available, &from);
    return result;
}

// The verdict, after proving that it does not depend on how the bytes arrive. `head` is filled from
// the whole input and points to the edge.
static enum h1_result verdict_of(enum kind kind, struct h1_head *head, const void *bytes,
                                 size_t len)
{
    static struct h1_head scratch;
    enum h1_result whole = feed_whole(kind, head, bytes, len);
    for (size_t cut = 0; cut <= len; cut++)
        cr_assert_eq(feed_split(kind, &scratch, bytes, len, cut), whole, "cut at %zu", cut);
    cr_assert_eq(feed_bytes(kind, &scratch, bytes, len), whole, "byte by byte");
    return feed_whole(kind, head, bytes, len);
}

static enum h1_result verdict(enum kind kind, const char *text)
{
    static struct h1_head head;
    return verdict_of(kind, &head, text, strlen(text));
}

static void expect_each(enum kind kind, enum h1_result expected, const char *const *texts,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        enum h1_result result = verdict(kind, texts[i]);
        cr_expect_eq(result, expected, "got %d for:\n%s", result, texts[i]);
    }
}

#define EACH(kind, expected, ...)                                                                  \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        expect_each(kind, expected, texts, sizeof(texts) / sizeof(texts[0]));                      \
    } while (0)

static void is_text(struct span span, const char *text)
{
    cr_expect(span_equal(span, span_of(text, strlen(text))), "got \"%.*s\", not \"%s\"",
              (int)span.len, (const char *)span.ptr, text);
}

// ---- requests ----

Test(h1, a_simple_request)
{
    // Every part of a request is found, as sent, and known names get their ids.
    static struct h1_head head;
    const char *text = "POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
                       "host: api.example:8080\r\n"
                       "Content-LENGTH:  12 \t\r\n"
                       "X-Empty:\r\n"
                       "X-TokenRing-Team: blue\r\n"
                       "accept:a\tb\x80\xff\r\n"
                       "\r\n";
    cr_assert_eq(verdict_of(REQUEST, &head, text, strlen(text)), H1_OK);
    cr_expect_eq(head.method, H1_METHOD_POST);
    is_text(head.method_text, "POST");
    is_text(head.target, "/v1/chat/completions?x=1");
    cr_expect_eq(head.minor, 1);
    cr_assert_eq(head.field_count, 5);
    is_text(head.field[0].name, "host");
    is_text(head.field[0].value, "api.example:8080");
    is_text(head.field[1].name, "Content-LENGTH");
    is_text(head.field[1].value, "12");
    is_text(head.field[2].value, "");
    is_text(head.field[4].value, "a\tb\x80\xff");
    static const enum h1_field_id ids[] = {H1_FIELD_HOST, H1_FIELD_CONTENT_LENGTH, H1_FIELD_OTHER,
                                           H1_FIELD_X_TOKENRING, H1_FIELD_ACCEPT};
    for (size_t i = 0; i < 5; i++)
        cr_expect_eq(head.field[i].id, ids[i], "field %zu", i);
}

Test(h1, accepted_requests)
{
    // What clients rightly send passes: all target forms, both versions, odd but legal bytes.
    EACH(REQUEST, H1_OK, "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
         "OPTIONS * HTTP/1.1\r\n\r\n", "GET http://a HTTP/1.1\r\n\r\n",
         "GET HTTPS://a/b?c HTTP/1.1\r\n\r\n", "CONNECT a:443 HTTP/1.1\r\n\r\n",
         "M-SEARCH / HTTP/1.1\r\n\r\n", "!#$%&'*+.^_`|~x /?q=a|b\"{}<>\\^` HTTP/1.1\r\n\r\n",
         "GET /a%20b/../c//d HTTP/1.1\r\nA:b\r\n\r\n", "GET / HTTP/1.1\r\nA: b:c, \"d\"\r\n\r\n",
         "GET / HTTP/1.1\r\n!#$%&'*+-.^_`|~0aZ: x\r\n\r\n");
}

Test(h1, methods_are_case_sensitive_tokens)
{
    // Known methods map to their names, other tokens to OTHER; "get" is not GET; length is bounded.
    static struct h1_head head;
    static const struct {
        const char *text;
        enum h1_method method;
    } known[] = {
        {"GET", H1_METHOD_GET},         {"HEAD", H1_METHOD_HEAD},     {"POST", H1_METHOD_POST},
        {"PUT", H1_METHOD_PUT},         {"DELETE", H1_METHOD_DELETE}, {"PATCH", H1_METHOD_PATCH},
        {"OPTIONS", H1_METHOD_OPTIONS}, {"TRACE", H1_METHOD_TRACE},   {"get", H1_METHOD_OTHER},
        {"GETS", H1_METHOD_OTHER},      {"PROPFIND", H1_METHOD_OTHER}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char text[64];
        int len = snprintf(text, sizeof(text), "%s / HTTP/1.1\r\n\r\n", known[i].text);
        cr_assert_eq(verdict_of(REQUEST, &head, text, (size_t)len), H1_OK);
        cr_expect_eq(head.method, known[i].method, "%s", known[i].text);
    }
    EACH(REQUEST, H1_OK, "ABCDEFGHIJABCDEFGHIJABCDEFGHIJAB / HTTP/1.1\r\n\r\n");
    EACH(REQUEST, H1_BAD, "ABCDEFGHIJABCDEFGHIJABCDEFGHIJABC / HTTP/1.1\r\n\r\n",
         " GET / HTTP/1.1\r\n\r\n", "G(T / HTTP/1.1\r\n\r\n", "\tGET / HTTP/1.1\r\n\r\n",
         "GET\t/ HTTP/1.1\r\n\r\n", "G\x80T / HTTP/1.1\r\n\r\n", "/ HTTP/1.1\r\n\r\n");
}

Test(h1, targets_refused)
{
    // Blanks, controls, DEL, fragments, raw UTF-8, and forms that do not fit the method.
    EACH(REQUEST, H1_BAD, "GET  / HTTP/1.1\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n",
         "GET /a\tb HTTP/1.1\r\n\r\n", "GET /a\x01 HTTP/1.1\r\n\r\n", "GET /\x7f HTTP/1.1\r\n\r\n",
         "GET /a#b HTTP/1.1\r\n\r\n", "GET /\xce\xb4 HTTP/1.1\r\n\r\n", "GET * HTTP/1.1\r\n\r\n",
         "OPTIONS ** HTTP/1.1\r\n\r\n", "GET a HTTP/1.1\r\n\r\n", "GET a:80 HTTP/1.1\r\n\r\n",
         "GET http:// HTTP/1.1\r\n\r\n", "GET http:/a HTTP/1.1\r\n\r\n",
         "GET ftp://a/ HTTP/1.1\r\n\r\n", "CONNECT / HTTP/1.1\r\n\r\n",
         "CONNECT a HTTP/1.1\r\n\r\n", "CONNECT http://a:80/ HTTP/1.1\r\n\r\n",
         "CONNECT u@a:80 HTTP/1.1\r\n\r\n", "GET ?a HTTP/1.1\r\n\r\n");
}

Test(h1, versions_refused)
{
    // HTTP/1.0 and HTTP/1.1 are spelled one way each; everything else is not ours, HTTP/2 included.
    EACH(REQUEST, H1_BAD, "GET /\r\n\r\n", "GET / \r\n\r\n", "GET / HTTP/1.2\r\n\r\n",
         "GET / HTTP/0.9\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
         "GET / http/1.1\r\n\r\n", "GET / HTTP/1.1 \r\n\r\n", "GET / HTTP/1.10\r\n\r\n",
         "GET / HTTP/01.1\r\n\r\n", "GET / HTTP/1,1\r\n\r\n", "GET /  HTTP/1.1\r\n\r\n",
         "GET / HTTP/1.\r\n\r\n", "GET / XTTP/1.1\r\n\r\n", "GET / HTTP/1.1\x0b\r\n\r\n");
}

Test(h1, lines_end_with_crlf_only)
{
    // Bare LF and bare CR are never line ends, wherever they stand: each is a smuggling vector.
    EACH(REQUEST, H1_BAD, "GET / HTTP/1.1\n\n", "GET / HTTP/1.1\nA: b\r\n\r\n",
         "GET / HTTP/1.1\r\nA: b\n\r\n", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
         "GET / HTTP/1.1\r\nA: b\r\n\n", "GET / HTTP/1.1\r\n\n", "GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
         "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", "GET / HTTP/1.1\rA: b\r\n\r\n",
         "GET / HTTP/1.1\r\n\rA: b\r\n\r\n", "GET / HTTP/1.1\r\r\n\r\n", "\nGET / HTTP/1.1\r\n\r\n",
         "GET /\n HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA\n: b\r\n\r\n",
         "GET / HTTP/1.1\r\nA: \rb\r\n\r\n", "GET / HTTP/1.1\r\nA:\r b\r\n\r\n");
}

Test(h1, an_empty_first_line_is_not_skipped)
{
    // Skipping one CRLF is the caller's act; a second one is refused at once.
    EACH(REQUEST, H1_BAD, "\r\n", "\r\nGET / HTTP/1.1\r\n\r\n", "\r\n\r\n");
    EACH(RESPONSE, H1_BAD, "\r\nHTTP/1.1 200 OK\r\n\r\n");
}

Test(h1, field_lines_refused)
{
    // No obs-fold, no blank before the colon, no empty name, no field without a colon.
    EACH(REQUEST, H1_BAD, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
         "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", "GET / HTTP/1.1\r\n A: b\r\n\r\n",
         "GET / HTTP/1.1\r\n\tA: b\r\n\r\n", "GET / HTTP/1.1\r\nA : b\r\n\r\n",
         "GET / HTTP/1.1\r\nContent-Length\t: 5\r\n\r\n", "GET / HTTP/1.1\r\n: b\r\n\r\n",
         "GET / HTTP/1.1\r\nA\r\n\r\n", "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
         "GET / HTTP/1.1\r\nA\x80: b\r\n\r\n", "GET / HTTP/1.1\r\nA(: b\r\n\r\n",
         "GET / HTTP/1.1\r\nTransfer-Encoding\r: chunked\r\n\r\n",
         "GET / HTTP/1.1\r\n\"A\": b\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n \r\n\r\n");
}

Test(h1, incomplete_heads_want_more)
{
    // Without the blank line the answer is MORE, from both functions, for every proper prefix.
    static struct h1_head head;
    const char *text =
        "GET /abc HTTP/1.1\r\nHost: a\r\nX-Long-Field-Name-Here: with a long value\r\n\r\n";
    for (size_t len = 0; len < strlen(text); len++) {
        cr_assert_eq(verdict_of(REQUEST, &head, text, len), H1_MORE, "%zu bytes", len);
        cr_assert_eq(h1_parse_request(&head, edge_put(text, len), len), H1_MORE, "%zu bytes", len);
    }
    text = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    for (size_t len = 0; len < strlen(text); len++) {
        cr_assert_eq(verdict_of(RESPONSE, &head, text, len), H1_MORE, "%zu bytes", len);
        cr_assert_eq(h1_parse_response(&head, edge_put(text, len), len), H1_MORE, "%zu bytes", len);
    }
}

Test(h1, bytes_behind_the_head_are_left_alone)
{
    // The head ends at the first blank line, whatever follows, even a NUL.
    static struct h1_head head;
    static const char text[] = "POST / HTTP/1.1\r\nA: b\r\n\r\n\0\nGET / HTTP/1.1\r\n\r\n";
    cr_assert_eq(verdict_of(REQUEST, &head, text, sizeof(text) - 1), H1_OK);
    cr_expect_eq(head.len, strlen("POST / HTTP/1.1\r\nA: b\r\n\r\n"));
    cr_assert_eq(h1_parse_request(&head, edge_put(text, sizeof(text) - 1), sizeof(text) - 1),
                 H1_OK);
    cr_expect_eq(head.len, strlen("POST / HTTP/1.1\r\nA: b\r\n\r\n"));
}

static bool value_byte(int c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

Test(h1, each_byte_at_each_place_of_a_value)
{
    // Every byte at every offset of a 40-byte value: no lane of a vector compare is wrong.
    static struct h1_head head;
    for (size_t place = 0; place < 40; place++)
        for (int c = 0; c < 256; c++) {
            char text[] = "GET / HTTP/1.1\r\nA: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n\r\n";
            text[strlen("GET / HTTP/1.1\r\nA: ") + place] = (char)c;
            enum h1_result expected = value_byte(c) ? H1_OK : H1_BAD;
            cr_assert_eq(feed_whole(REQUEST, &head, text, sizeof(text) - 1), expected,
                         "byte %d at %zu", c, place);
        }
}

Test(h1, each_byte_at_each_place_of_a_name)
{
    // The same for field names: tokens only; a colon ends the name and what follows is value.
    static struct h1_head head;
    const char *symbols = "!#$%&'*+-.^_`|~:";
    for (size_t place = 0; place < 40; place++)
        for (int c = 0; c < 256; c++) {
            char text[] = "GET / HTTP/1.1\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: a\r\n\r\n";
            text[strlen("GET / HTTP/1.1\r\n") + place] = (char)c;
            bool alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
            bool good = alnum || (c && strchr(symbols, c));
            if (place == 0 && c == ':')
                good = false;
            cr_assert_eq(feed_whole(REQUEST, &head, text, sizeof(text) - 1), good ? H1_OK : H1_BAD,
                         "byte %d at %zu", c, place);
        }
}

Test(h1, a_nul_is_refused_when_it_arrives)
{
    // A NUL or bare LF is answered at once, without waiting for a blank line that may never come.
    for (size_t place = 0; place < 70; place++)
        for (int c = 0; c <= '\n'; c += '\n') {
            uint8_t bytes[80];
            memset(bytes, 'x', sizeof(bytes));
            bytes[place] = (uint8_t)c;
            for (size_t len = place + 1; len <= sizeof(bytes); len++) {
                size_t from = 0, head_len;
                cr_assert_eq(h1_head_complete(edge_put(bytes, len), len, &from, &head_len), H1_BAD,
                             "byte %d at %zu of %zu", c, place, len);
            }
        }
}

Test(h1, the_blank_line_is_found_at_every_offset)
{
    // The end of the head is seen wherever it lies in a vector, from any point of resumption.
    for (size_t lead = 1; lead < 70; lead++) {
        uint8_t bytes[100];
        memset(bytes, 'x', sizeof(bytes));
        memcpy(bytes + lead, "\r\n\r\n", 4);
        for (size_t resume = 0; resume < lead + 4; resume++) {
            size_t from = resume, head_len = 0;
            enum h1_result result = h1_head_complete(edge_put(bytes, 100), 100, &from, &head_len);
            cr_assert_eq(result, H1_OK);
            cr_assert_eq(head_len, lead + 4, "from %zu", resume);
        }
    }
}

Test(h1, looked_at_once)
{
    // *from moves over all that was seen, so a head that trickles in costs linear time.
    const char *text = "GET / HTTP/1.1\r\nA: b\r\n\r\n";
    size_t from = 0, head_len = 0;
    for (size_t len = 0; len < strlen(text); len++) {
        cr_assert_eq(h1_head_complete(edge_put(text, len), len, &from, &head_len), H1_MORE);
        cr_assert_eq(from, len);
    }
}

// ---- bounds ----

// A request of exactly `len` bytes: one long field pads it.
static char *request_of(size_t len)
{
    const char *start = "GET / HTTP/1.1\r\nA: ";
    char *text = malloc(len);
    cr_assert_not_null(text);
    memset(text, 'x', len);
    memcpy(text, start, strlen(start));
    memcpy(text + len - 4, "\r\n\r\n", 4);
    return text;
}

Test(h1, head_size_is_bounded)
{
    // H1_HEAD_MAX bytes are a head, one more is TOO_LARGE; also when the end never comes.
    static struct h1_head head;
    char *text = request_of(H1_HEAD_MAX);
    cr_expect_eq(feed_whole(REQUEST, &head, text, H1_HEAD_MAX), H1_OK);
    cr_expect_eq(feed_split(REQUEST, &head, text, H1_HEAD_MAX, H1_HEAD_MAX - 1), H1_OK);
    cr_expect_eq(feed_whole(REQUEST, &head, text, H1_HEAD_MAX - 1), H1_MORE);
    free(text);
    text = request_of(H1_HEAD_MAX + 1);
    for (size_t cut = H1_HEAD_MAX - 3; cut <= H1_HEAD_MAX + 1; cut++)
        cr_expect_eq(feed_split(REQUEST, &head, text, H1_HEAD_MAX + 1, cut), H1_TOO_LARGE);
    cr_expect_eq(h1_parse_request(&head, edge_put(text, H1_HEAD_MAX + 1), H1_HEAD_MAX + 1),
                 H1_TOO_LARGE);
    free(text);
}

Test(h1, field_count_is_bounded)
{
    // H1_FIELDS_MAX fields are parsed, one more is TOO_LARGE.
    static struct h1_head head;
    char text[32 + 6 * (H1_FIELDS_MAX + 1)];
    size_t len = (size_t)snprintf(text, sizeof text, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < H1_FIELDS_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "A: b\r\n");
    snprintf(text + len, sizeof text - len, "\r\n");
    cr_expect_eq(feed_whole(REQUEST, &head, text, len + 2), H1_OK);
    cr_expect_eq(head.field_count, H1_FIELDS_MAX);
    len += (size_t)snprintf(text + len, sizeof text - len, "A: b\r\n\r\n");
    cr_expect_eq(verdict_of(REQUEST, &head, text, len), H1_TOO_LARGE);
}

// ---- responses ----

Test(h1, a_simple_response)
{
    // Status and reason are found; an empty reason is one, with or without the space before it.
    static struct h1_head head;
    const char *text = "HTTP/1.1 404 Not  Found \xe9\r\nRetry-After: 3\r\n\r\n";
    cr_assert_eq(verdict_of(RESPONSE, &head, text, strlen(text)), H1_OK);
    cr_expect_eq(head.status, 404);
    is_text(head.reason, "Not  Found \xe9");
    cr_expect_eq(head.field[0].id, H1_FIELD_RETRY_AFTER);
    static const char *const empty[] = {"HTTP/1.0 200 \r\n\r\n", "HTTP/1.0 200\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(verdict_of(RESPONSE, &head, empty[i], strlen(empty[i])), H1_OK);
        cr_expect_eq(head.reason.len, 0);
        cr_expect_eq(head.minor, 0);
    }
}

Test(h1, responses_refused)
{
    // Codes of other than three digits or below 100, other versions, bare line ends, controls.
    EACH(RESPONSE, H1_BAD, "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
         "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
         "HTTP/1.1\t200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 200\tOK\r\n\r\n",
         "HTTP/1.1 200 O\x01K\r\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\rA: b\r\n\r\n",
         "ICY 200 OK\r\n\r\n", "HTTP/1.1200 OK\r\n\r\n", " HTTP/1.1 200 OK\r\n\r\n",
         "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n");
}

// ---- names ----

static const struct {
    const char *name;
    enum h1_field_id id;
} known_fields[] = {
    {"host", H1_FIELD_HOST},
    {"content-length", H1_FIELD_CONTENT_LENGTH},
    {"transfer-encoding", H1_FIELD_TRANSFER_ENCODING},
    {"connection", H1_FIELD_CONNECTION},
    {"keep-alive", H1_FIELD_KEEP_ALIVE},
    {"proxy-connection", H1_FIELD_PROXY_CONNECTION},
    {"proxy-authorization", H1_FIELD_PROXY_AUTHORIZATION},
    {"proxy-authenticate", H1_FIELD_PROXY_AUTHENTICATE},
    {"te", H1_FIELD_TE},
    {"trailer", H1_FIELD_TRAILER},
    {"upgrade", H1_FIELD_UPGRADE},
    {"expect", H1_FIELD_EXPECT},
    {"authorization", H1_FIELD_AUTHORIZATION},
    {"x-api-key", H1_FIELD_X_API_KEY},
    {"api-key", H1_FIELD_API_KEY},
    {"x-goog-api-key", H1_FIELD_X_GOOG_API_KEY},
    {"cookie", H1_FIELD_COOKIE},
    {"via", H1_FIELD_VIA},
    {"x-forwarded-for", H1_FIELD_X_FORWARDED_FOR},
    {"forwarded", H1_FIELD_FORWARDED},
    {"x-forwarded-proto", H1_FIELD_X_FORWARDED_PROTO},
    {"x-request-id", H1_FIELD_X_REQUEST_ID},
    {"content-type", H1_FIELD_CONTENT_TYPE},
    {"content-encoding", H1_FIELD_CONTENT_ENCODING},
    {"accept", H1_FIELD_ACCEPT},
    {"accept-encoding", H1_FIELD_ACCEPT_ENCODING},
    {"date", H1_FIELD_DATE},
    {"server", H1_FIELD_SERVER},
    {"retry-after", H1_FIELD_RETRY_AFTER},
    {"idempotency-key", H1_FIELD_IDEMPOTENCY_KEY},
    {"anthropic-version", H1_FIELD_ANTHROPIC_VERSION},
    {"x-tokenring-", H1_FIELD_X_TOKENRING},
    {"x-tokenring-team", H1_FIELD_X_TOKENRING},
    {"x-tokenring-transfer", H1_FIELD_X_TOKENRING},
};

Test(h1, known_names)
{
    // Every id is reached by its name in any case, and by no name that differs in one bit.
    for (size_t i = 0; i < sizeof(known_fields) / sizeof(known_fields[0]); i++) {
        const char *name = known_fields[i].name;
        size_t len = strlen(name), fixed = len;
        char upper[32];
        for (size_t k = 0; k < len; k++)
            upper[k] = (char)(name[k] >= 'a' && name[k] <= 'z' ? name[k] - 32 : name[k]);
        cr_expect_eq(h1_field_id(span_of(edge_put(name, len), len)), known_fields[i].id, "%s",
                     name);
        cr_expect_eq(h1_field_id(span_of(edge_put(upper, len), len)), known_fields[i].id, "%s",
                     name);
        if (known_fields[i].id == H1_FIELD_X_TOKENRING)
            fixed = strlen("x-tokenring-");
        for (size_t bit = 0; bit < fixed * 8; bit++) {
            char other[32];
            memcpy(other, name, len);
            other[bit / 8] = (char)(other[bit / 8] ^ 1 << bit % 8);
            bool only_case = bit % 8 == 5 && name[bit / 8] >= 'a';
            cr_expect_eq(h1_field_id(span_of(edge_put(other, len), len)) == known_fields[i].id,
                         only_case, "%s, bit %zu", name, bit);
        }
    }
}

Test(h1, unknown_names)
{
    // Near misses are OTHER, also the empty name and those of a length that no known field has.
    static const char *const names[] = {"",
                                        "h",
                                        "hosts",
                                        "content_length",
                                        "content-lengt",
                                        "content-length-x",
                                        "x-tokenring",
                                        "x-tokenrin-g",
                                        "tf",
                                        "a-name-longer-than-every-known-one-by-far"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t len = strlen(names[i]);
        cr_expect_eq(h1_field_id(span_of(edge_put(names[i], len), len)), H1_FIELD_OTHER, "%s",
                     names[i]);
    }
}

// ---- looking things up ----

Test(h1, finding_fields)
{
    // The first of several is found, by id and by name in any case; what is not there is NULL.
    static struct h1_head head;
    const char *text = "GET / HTTP/1.1\r\nX-A: 1\r\nVia: x\r\nx-a: 2\r\nvia: y\r\n\r\n";
    cr_assert_eq(verdict_of(REQUEST, &head, text, strlen(text)), H1_OK);
    cr_expect_eq(h1_find(&head, H1_FIELD_VIA), &head.field[1]);
    cr_expect_eq(h1_find_name(&head, SPAN("x-A")), &head.field[0]);
    cr_expect_null(h1_find(&head, H1_FIELD_HOST));
    cr_expect_null(h1_find_name(&head, SPAN("X-B")));
}

Test(h1, walking_lists)
{
    // Elements come trimmed, empty ones are skipped, quoted commas do not split.
    static const struct {
        const char *list;
        const char *elements[4];
    } lists[] = {
        {"", {NULL}},
        {" , ,\t,", {NULL}},
        {"a", {"a"}},
        {" a ,b,\tc\t", {"a", "b", "c"}},
        {"a b, c", {"a b", "c"}},
        {"a=\"1,2\", b", {"a=\"1,2\"", "b"}},
        {"a=\"\\\",\", b", {"a=\"\\\",\"", "b"}},
        {"a=\"b, c", {"a=\"b, c"}},
        {"\"\\", {"\"\\"}},
        {",a,,b,", {"a", "b"}},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        size_t len = strlen(lists[i].list);
        struct span rest = span_of(edge_put(lists[i].list, len), len);
        for (int k = 0; k < 4 && lists[i].elements[k]; k++)
            is_text(h1_list_next(&rest), lists[i].elements[k]);
        cr_expect_eq(h1_list_next(&rest).len, 0, "%s", lists[i].list);
        cr_expect_eq(h1_list_next(&rest).len, 0, "%s", lists[i].list);
    }
}

Test(h1, list_membership)
{
    // A token is found in any element of any of the fields, whole and in any case; never as a part.
    static struct h1_head head;
    const char *text = "GET / HTTP/1.1\r\nConnection: x, CLOSE\r\nA: keep-alive\r\n"
                       "Connection: upgrade\r\n\r\n";
    cr_assert_eq(verdict_of(REQUEST, &head, text, strlen(text)), H1_OK);
    cr_expect(h1_list_has(&head, H1_FIELD_CONNECTION, SPAN("close")));
    cr_expect(h1_list_has(&head, H1_FIELD_CONNECTION, SPAN("Upgrade")));
    cr_expect_not(h1_list_has(&head, H1_FIELD_CONNECTION, SPAN("keep-alive")));
    cr_expect_not(h1_list_has(&head, H1_FIELD_CONNECTION, SPAN("clos")));
    cr_expect_not(h1_list_has(&head, H1_FIELD_TE, SPAN("close")));
}

Test(h1, hop_by_hop_fields)
{
    // Fields of this hop stay: the known ones and those that Connection names; the rest travels.
    static struct h1_head head;
    const char *text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-mine\r\nX-Mine: 1\r\n"
                       "X-Yours: 2\r\nTE: trailers\r\nAuthorization: b\r\nKeep-Alive: 5\r\n"
                       "Transfer-Encoding: chunked\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n"
                       "Content-Type: a/b\r\n\r\n";
    static const bool hop[] = {false, true, true, false, true, false,
                               true,  true, true, true,  false};
    cr_assert_eq(verdict_of(REQUEST, &head, text, strlen(text)), H1_OK);
    cr_assert_eq(head.field_count, sizeof(hop));
    for (size_t i = 0; i < sizeof(hop); i++)
        cr_expect_eq(h1_hop_by_hop(&head, &head.field[i]), hop[i], "field %zu", i);
}
