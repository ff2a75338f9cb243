// SPDX-License-Identifier: MIT
#include "proto/framing.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>

// ---- feeding ----

enum { HEAD_REFUSED = -100, HEAD_MORE = -101 };

// The answer to the bytes that are here, read as the gateway does.
static int answer(struct framing *framing, const char *text, size_t available, size_t *from,
                  int method)
{
    static struct h1_head head;
    size_t head_len = 0;
    enum h1_result result = h1_head_complete(edge_put(text, available), available, from, &head_len);
    if (result == H1_MORE)
        return HEAD_MORE;
    if (result != H1_OK)
        return HEAD_REFUSED;
    const uint8_t *at = edge_put(text, head_len);
    result =
        method < 0 ? h1_parse_request(&head, at, head_len) : h1_parse_response(&head, at, head_len);
    if (result != H1_OK)
        return HEAD_REFUSED;
    return method < 0 ? framing_request(framing, &head)
                      : framing_response(framing, &head, (enum h1_method)method);
}

static bool same(const struct framing *a, const struct framing *b)
{
    return a->kind == b->kind && a->length == b->length && a->keep_alive == b->keep_alive &&
           a->expect_continue == b->expect_continue && a->upgrade == b->upgrade;
}

// `method` < 0: a request; else the response to that method. Proves on the way that the answer is
// the same whole, split at each byte and byte by byte.
static int verdict(struct framing *framing, const char *text, int method)
{
    size_t len = strlen(text), from = 0;
    struct framing other = {0};
    *framing = (struct framing){0};
    int whole = answer(framing, text, len, &from, method);
    for (size_t cut = 0; cut <= len; cut++) {
        from = 0;
        int split = answer(&other, text, cut, &from, method);
        if (split == HEAD_MORE)
            split = answer(&other, text, len, &from, method);
        cr_assert_eq(split, whole, "cut at %zu of:\n%s", cut, text);
        cr_assert(whole != FRAMING_OK || same(framing, &other), "cut at %zu of:\n%s", cut, text);
    }
    int bytes = HEAD_MORE;
    from = 0;
    for (size_t here = 1; here <= len && bytes == HEAD_MORE; here++)
        bytes = answer(&other, text, here, &from, method);
    cr_assert_eq(bytes, whole, "byte by byte:\n%s", text);
    return whole;
}

enum { IS_REQUEST = -1 };

// The verdict on a request to which a Host is added.
static int request(struct framing *framing, const char *line, const char *fields)
{
    char text[1024];
    snprintf(text, sizeof(text), "%s\r\nHost: a\r\n%s\r\n", line, fields);
    return verdict(framing, text, IS_REQUEST);
}

static int fields_verdict(const char *fields)
{
    struct framing framing;
    return request(&framing, "POST / HTTP/1.1", fields);
}

static int response(struct framing *framing, const char *line, const char *fields,
                    enum h1_method method)
{
    char text[1024];
    snprintf(text, sizeof(text), "%s\r\n%s\r\n", line, fields);
    return verdict(framing, text, (int)method);
}

#define EACH(expected, function, ...)                                                              \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)                              \
            cr_expect_eq(function(texts[i]), expected, "got %d for:\n%s", function(texts[i]),      \
                         texts[i]);                                                                \
    } while (0)

// ---- requests: length ----

Test(framing, request_without_length_has_no_body)
{
    // Neither field: no body, whatever the method, and the connection lives on in HTTP/1.1.
    struct framing framing;
    cr_assert_eq(request(&framing, "POST / HTTP/1.1", ""), FRAMING_OK);
    cr_expect_eq(framing.kind, FRAMING_NONE);
    cr_expect_eq(framing.length, 0);
    cr_expect(framing.keep_alive);
    cr_expect_not(framing.expect_continue);
    cr_expect_not(framing.upgrade);
}

Test(framing, content_length)
{
    // Digits are a length, leading zeros or blanks around it do no harm, up to 2^63 - 1: no size
    // that a body may have is cut off here (PAINS 25: agentgateway#880, #2350).
    static const struct {
        const char *field;
        uint64_t length;
    } good[] = {{"Content-Length: 0\r\n", 0},
                {"content-length:12\r\n", 12},
                {"Content-Length: \t 7 \t\r\n", 7},
                {"Content-Length: 0000000000000000000000000000042\r\n", 42},
                {"Content-Length: 9223372036854775807\r\n", INT64_MAX}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct framing framing;
        cr_assert_eq(request(&framing, "POST / HTTP/1.1", good[i].field), FRAMING_OK);
        cr_expect_eq(framing.kind, FRAMING_LENGTH);
        cr_expect_eq(framing.length, good[i].length);
    }
}

Test(framing, content_length_refused)
{
    // Signs, hex, lists, blanks inside, nothing at all, and what does not fit 63 bits or wraps 64.
    EACH(FRAMING_BAD, fields_verdict, "Content-Length:\r\n", "Content-Length: +5\r\n",
         "Content-Length: -5\r\n", "Content-Length: 0x5\r\n", "Content-Length: 5a\r\n",
         "Content-Length: 5 5\r\n", "Content-Length: 5,5\r\n", "Content-Length: 5, 5\r\n",
         "Content-Length: 5.0\r\n", "Content-Length: \"5\"\r\n", "Content-Length: 5;\r\n",
         "Content-Length: \xb2\r\n", "Content-Length: 9223372036854775808\r\n",
         "Content-Length: 18446744073709551615\r\n", "Content-Length: 18446744073709551616\r\n",
         "Content-Length: 18446744073709551621\r\n", "Content-Length: 99999999999999999999999\r\n");
}

Test(framing, chunked)
{
    // Exactly "chunked", in any case, is the chunked coding.
    struct framing framing;
    cr_assert_eq(request(&framing, "POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
                 FRAMING_OK);
    cr_expect_eq(framing.kind, FRAMING_CHUNKED);
    cr_assert_eq(request(&framing, "POST / HTTP/1.1", "TRANSFER-ENCODING:\tChunKed \r\n"),
                 FRAMING_OK);
    cr_expect_eq(framing.kind, FRAMING_CHUNKED);
}

Test(framing, smuggling)
{
    // Each could make two readers disagree where the body ends: CL.TE, TE.CL, TE.TE, CL.CL.
    EACH(FRAMING_BAD, fields_verdict, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
         "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
         "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
         "Transfer-Encoding:\r\nContent-Length: 5\r\n",
         "Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: 5\r\ncontent-length: 5\r\n",
         "Content-Length: 5\r\nContent-Length:\r\n",
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
         "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
         "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding:\r\n",
         "Transfer-Encoding: ,\r\n", "Transfer-Encoding: chunked, chunked\r\n",
         "Transfer-Encoding: chunked, gzip\r\n", "Transfer-Encoding: chunked, identity\r\n",
         "Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding: chunked;q=1\r\n",
         "Transfer-Encoding: 'chunked' x\r\n", "Transfer-Encoding: chun ked\r\n",
         "Transfer-Encoding: chunked\x80\r\n");
}

Test(framing, smuggling_that_the_head_parser_stops)
{
    // Disguised length fields never reach framing: the head is refused.
    EACH(HEAD_REFUSED, fields_verdict, "Transfer-Encoding : chunked\r\n",
         "Transfer-Encoding\t: chunked\r\n", " Transfer-Encoding: chunked\r\n",
         "X: y\r\n Transfer-Encoding: chunked\r\n",
         "Transfer-Encoding:\x0b"
         "chunked\r\n",
         "Transfer-Encoding: chun\x01ked\r\n", "X: y\nTransfer-Encoding: chunked\r\n",
         "X: y\rTransfer-Encoding: chunked\r\n", "Transfer-Encoding:\r\n chunked\r\n",
         "Content-Length: 5\r\n ,6\r\n", "Content-Length : 5\r\n");
}

Test(framing, codings_we_lack)
{
    // Well-formed codings other than chunked are answered 501, and are never taken for no body.
    EACH(FRAMING_NOT_IMPLEMENTED, fields_verdict, "Transfer-Encoding: gzip\r\n",
         "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: identity\r\n",
         "Transfer-Encoding: chunkedchunked\r\n", "Transfer-Encoding: xchunked\r\n",
         "Transfer-Encoding: chunke\r\n", "Transfer-Encoding: chunked,\r\n",
         "Transfer-Encoding: , chunked\r\n");
}

Test(framing, transfer_encoding_in_http_1_0)
{
    // HTTP/1.0 has no transfer codings: a reader of it would see no body.
    struct framing framing;
    cr_expect_eq(request(&framing, "POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"),
                 FRAMING_BAD);
    cr_expect_eq(
        response(&framing, "HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", H1_METHOD_GET),
        FRAMING_BAD);
}

// ---- requests: connection ----

Test(framing, keep_alive)
{
    // HTTP/1.1 stays unless told to close, HTTP/1.0 goes unless told to stay; close always wins.
    static const struct {
        const char *line, *fields;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1", "", true},
        {"GET / HTTP/1.1", "Connection: close\r\n", false},
        {"GET / HTTP/1.1", "Connection: x, CLOSE\r\n", false},
        {"GET / HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false},
        {"GET / HTTP/1.1", "Connection: closed\r\n", true},
        {"GET / HTTP/1.1", "Proxy-Connection: close\r\n", true},
        {"GET / HTTP/1.0", "", false},
        {"GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true},
        {"GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false},
        {"GET / HTTP/1.0", "Proxy-Connection: keep-alive\r\n", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct framing framing;
        cr_assert_eq(request(&framing, cases[i].line, cases[i].fields), FRAMING_OK);
        cr_expect_eq(framing.keep_alive, cases[i].keep_alive, "case %zu", i);
    }
}

Test(framing, expect_continue)
{
    // 100-continue counts in HTTP/1.1 with a body to come; any other expectation is refused.
    struct framing framing;
    const char *with_body = "Content-Length: 5\r\nExpect: 100-Continue\r\n";
    cr_assert_eq(request(&framing, "POST / HTTP/1.1", with_body), FRAMING_OK);
    cr_expect(framing.expect_continue);
    cr_assert_eq(request(&framing, "POST / HTTP/1.0", with_body), FRAMING_OK);
    cr_expect_not(framing.expect_continue);
    cr_assert_eq(request(&framing, "POST / HTTP/1.1", "Expect: 100-continue\r\n"), FRAMING_OK);
    cr_expect_not(framing.expect_continue);
    cr_assert_eq(request(&framing, "POST / HTTP/1.1",
                         "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
                 FRAMING_OK);
    cr_expect(framing.expect_continue);
    EACH(FRAMING_BAD_EXPECT, fields_verdict, "Expect: 100\r\n", "Expect:\r\n", "Expect: gold\r\n",
         "Expect: 100-continue, gold\r\n", "Expect: 100-continue\r\nExpect: gold\r\n",
         "Expect: gold\r\nExpect: 100-continue\r\n");
}

Test(framing, upgrade)
{
    // An upgrade is asked for only by both fields together.
    struct framing framing;
    cr_assert_eq(request(&framing, "GET / HTTP/1.1", "Connection: x, Upgrade\r\nUpgrade: h2c\r\n"),
                 FRAMING_OK);
    cr_expect(framing.upgrade);
    cr_assert_eq(request(&framing, "GET / HTTP/1.1", "Upgrade: h2c\r\n"), FRAMING_OK);
    cr_expect_not(framing.upgrade);
    cr_assert_eq(request(&framing, "GET / HTTP/1.1", "Connection: upgrade\r\n"), FRAMING_OK);
    cr_expect_not(framing.upgrade);
}

// ---- requests: host ----

static int host_verdict(const char *host)
{
    struct framing framing;
    char text[512];
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    return verdict(&framing, text, IS_REQUEST);
}

static int text_verdict(const char *text)
{
    struct framing framing;
    return verdict(&framing, text, IS_REQUEST);
}

Test(framing, hosts_accepted)
{
    // Names, IPv4 and bracketed IPv6 addresses, with or without a port.
    EACH(FRAMING_OK, host_verdict, "a", "api.openai.com", "API.example.:443", "127.0.0.1:8080",
         "localhost:0", "a:65535", "a_b-c~d!$&'()*+;=", "a%20b:1", "[::]", "[::1]:80",
         "[1:2:3:4:5:6:7:8]", "[1::8]", "[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]",
         "[::ffff:1.2.3.4]:9", "[1:2:3:4:5:6:255.0.10.1]", "[fe80::ABCD:ef01]", "999.1.1.1");
}

Test(framing, hosts_refused)
{
    // What could be read as another host, or as two: userinfo, lists, blanks, broken ports.
    EACH(FRAMING_NO_HOST, host_verdict, "", "a,b", "a, b", "a b", "u@a", "u:p@a", "a/b", "a?b",
         "a#b", "http://a", "a:", "a:x", "a:80x", "a:+80", "a:-1", "a:65536", "a:000080", "a:80:80",
         ":80", "a%", "a%2", "a%zz", "a\\b", "a\xc3\xa9", "a\"b", "<a>", "[::1", "::1", "[]", "[:]",
         "[:::]", "[::1]80", "[::1]x", "[::1]]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]",
         "[1::2::3]", "[12345::]", "[g::]", "[1:]", "[:1]", "[1:2:3:4:5:6:7:8::]", "[::1.2.3]",
         "[::1.2.3.256]", "[::1.2.3.04]", "[::1.2.3.4:5]", "[1.2.3.4]", "[::1%25eth0]", "[v1.a]",
         "[::.1.2.3]", "[::1.2.3.4.]", "[1:2:3:4:5:6:7:1.2.3.4]");
}

Test(framing, host_count)
{
    // HTTP/1.1 needs exactly one Host, HTTP/1.0 at most one; equal duplicates are refused as well.
    EACH(FRAMING_NO_HOST, text_verdict, "GET / HTTP/1.1\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nhost:\r\n\r\n",
         "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
         "OPTIONS * HTTP/1.1\r\n\r\n", "GET http://a/ HTTP/1.1\r\n\r\n");
    EACH(FRAMING_OK, text_verdict, "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
         "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
}

Test(framing, absolute_form_agrees_with_host)
{
    // An absolute-form target names the same host as Host does, and is itself a valid authority.
    EACH(FRAMING_OK, text_verdict, "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET http://A.b:80/x HTTP/1.1\r\nHost: a.B:80\r\n\r\n",
         "GET https://[::1]?x HTTP/1.1\r\nHost: [::1]\r\n\r\n",
         "GET http://a/@b HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/ HTTP/1.0\r\n\r\n");
    EACH(FRAMING_NO_HOST, text_verdict, "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
         "GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
         "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
         "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET http://a,b/ HTTP/1.0\r\n\r\n", "GET http://a.evil/ HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET http://a\\.evil/ HTTP/1.0\r\n\r\n");
}

Test(framing, authority_form)
{
    // CONNECT parses if its target is a valid authority (the caller refuses the method).
    EACH(FRAMING_OK, text_verdict, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
         "CONNECT [::1]:443 HTTP/1.0\r\n\r\n");
    EACH(FRAMING_NO_HOST, text_verdict, "CONNECT a:b HTTP/1.1\r\nHost: a\r\n\r\n",
         "CONNECT a,b:443 HTTP/1.0\r\n\r\n");
}

// ---- responses ----

struct response_case {
    const char *line, *fields;
    enum h1_method method;
    enum framing_kind kind;
    uint64_t length;
    bool keep_alive;
};

Test(framing, response_lengths)
{
    // Every row of RFC 9112 section 6.3 that applies to an answer.
    static const struct response_case cases[] = {
        {"HTTP/1.1 200 OK", "Content-Length: 5\r\n", H1_METHOD_POST, FRAMING_LENGTH, 5, true},
        {"HTTP/1.1 200 OK", "Content-Length: 0\r\n", H1_METHOD_POST, FRAMING_LENGTH, 0, true},
        {"HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", H1_METHOD_POST, FRAMING_CHUNKED, 0,
         true},
        {"HTTP/1.1 200 OK", "", H1_METHOD_POST, FRAMING_UNTIL_CLOSE, 0, false},
        {"HTTP/1.0 200 OK", "Connection: keep-alive\r\n", H1_METHOD_GET, FRAMING_UNTIL_CLOSE, 0,
         false},
        {"HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\n", H1_METHOD_GET,
         FRAMING_LENGTH, 5, true},
        {"HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: close\r\n", H1_METHOD_GET,
         FRAMING_LENGTH, 5, false},
        {"HTTP/1.1 200 OK", "Content-Length: 5\r\n", H1_METHOD_HEAD, FRAMING_NONE, 0, true},
        {"HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", H1_METHOD_HEAD, FRAMING_NONE, 0,
         true},
        {"HTTP/1.1 200 OK", "", H1_METHOD_HEAD, FRAMING_NONE, 0, true},
        {"HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", H1_METHOD_GET, FRAMING_NONE, 0,
         true},
        {"HTTP/1.1 204 No Content", "", H1_METHOD_DELETE, FRAMING_NONE, 0, true},
        {"HTTP/1.1 204 No Content", "Content-Length: 0\r\n", H1_METHOD_DELETE, FRAMING_NONE, 0,
         true},
        {"HTTP/1.1 204 No Content", "Content-Length: 5\r\n", H1_METHOD_DELETE, FRAMING_NONE, 0,
         false},
        {"HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\r\n", H1_METHOD_GET, FRAMING_NONE,
         0, false},
        {"HTTP/1.1 100 Continue", "", H1_METHOD_POST, FRAMING_NONE, 0, true},
        {"HTTP/1.1 103 Early Hints", "Link: x\r\n", H1_METHOD_POST, FRAMING_NONE, 0, true},
        {"HTTP/1.1 999 Odd", "", H1_METHOD_POST, FRAMING_UNTIL_CLOSE, 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct response_case *c = &cases[i];
        struct framing framing;
        cr_assert_eq(response(&framing, c->line, c->fields, c->method), FRAMING_OK, "case %zu", i);
        cr_expect_eq(framing.kind, c->kind, "case %zu", i);
        cr_expect_eq(framing.length, c->length, "case %zu", i);
        cr_expect_eq(framing.keep_alive, c->keep_alive, "case %zu", i);
    }
}

static int response_verdict(const char *fields)
{
    struct framing framing;
    return response(&framing, "HTTP/1.1 200 OK", fields, H1_METHOD_GET);
}

static int bodiless_verdict(const char *fields)
{
    struct framing framing;
    int head = response(&framing, "HTTP/1.1 200 OK", fields, H1_METHOD_HEAD);
    cr_expect_eq(response(&framing, "HTTP/1.1 304 Not Modified", fields, H1_METHOD_GET), head);
    cr_expect_eq(response(&framing, "HTTP/1.1 204 No Content", fields, H1_METHOD_GET), head);
    cr_expect_eq(response(&framing, "HTTP/1.1 100 Continue", fields, H1_METHOD_GET), head);
    return head;
}

#define AMBIGUOUS                                                                                  \
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",                                         \
        "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n",                  \
        "Content-Length: x\r\n", "Content-Length: 9223372036854775808\r\n",                        \
        "Transfer-Encoding: gzip\r\n", "Transfer-Encoding: gzip, chunked\r\n",                     \
        "Transfer-Encoding: identity\r\n", "Transfer-Encoding: chunked, chunked\r\n",              \
        "Transfer-Encoding:\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"

Test(framing, responses_refused)
{
    // A provider that is ambiguous about length is refused: no guess, no "until close".
    EACH(FRAMING_BAD, response_verdict, AMBIGUOUS);
    cr_expect_eq(response_verdict("Host: not checked here\r\nContent-Length: 1\r\n"), FRAMING_OK);
}

Test(framing, bodiless_responses_with_bad_lengths)
{
    // Where there is no body the fields must be sound all the same.
    EACH(FRAMING_BAD, bodiless_verdict, AMBIGUOUS);
}

Test(framing, answers_to_connect_are_refused)
{
    // We never send CONNECT, so no answer to one can be right.
    struct framing framing;
    cr_expect_eq(response(&framing, "HTTP/1.1 200 OK", "", H1_METHOD_CONNECT), FRAMING_BAD);
}
