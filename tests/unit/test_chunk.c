// SPDX-License-Identifier: MIT
#include "proto/chunk.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>

// ---- feeding ----

enum { TEXT_MAX = 16 * 1024 };

// All that a decode can show, so that two decodes can be compared.
struct outcome {
    enum chunk_result result; // CHUNK_MORE, CHUNK_END or CHUNK_BAD
    size_t used;
    size_t body_len, trailer_len;
    uint8_t body[TEXT_MAX], trailer[TEXT_MAX];
};

static void keep(uint8_t *to, size_t *len, struct span data, const uint8_t *piece, size_t used)
{
    cr_assert_gt(data.len, 0, "an empty view");
    cr_assert(data.ptr >= piece && data.ptr + data.len <= piece + used, "a view outside the piece");
    cr_assert_leq(*len + data.len, (size_t)TEXT_MAX);
    memcpy(to + *len, data.ptr, data.len);
    *len += data.len;
}

// One piece, placed at the edge. False: nothing further is to be fed.
static bool feed(struct chunk *chunk, struct outcome *o, const void *bytes, size_t len)
{
    const uint8_t *at = edge_put(bytes, len);
    do {
        struct span data;
        size_t used;
        o->result = chunk_next(chunk, at, len, &used, &data);
        cr_assert_leq(used, len);
        o->used += used;
        if (o->result == CHUNK_DATA)
            keep(o->body, &o->body_len, data, at, used);
        else if (o->result == CHUNK_TRAILER)
            keep(o->trailer, &o->trailer_len, data, at, used);
        else if (o->result == CHUNK_MORE)
            cr_assert_eq(used, len, "MORE, but not all was used");
        else
            return false;
        at += used;
        len -= used;
    } while (len);
    o->result = CHUNK_MORE;
    return true;
}

static void decode(struct outcome *o, const void *bytes, size_t len, size_t first, size_t step)
{
    struct chunk chunk;
    const uint8_t *at = bytes;
    chunk_start(&chunk);
    o->result = CHUNK_MORE;
    o->used = o->body_len = o->trailer_len = 0;
    if (!feed(&chunk, o, at, first))
        return;
    for (size_t done = first; done < len; done += step) {
        size_t piece = len - done < step ? len - done : step;
        if (!feed(&chunk, o, at + done, piece))
            return;
    }
}

static void same(const struct outcome *a, const struct outcome *b, size_t first)
{
    cr_assert_eq(a->result, b->result, "result, first piece %zu", first);
    cr_assert_eq(a->used, b->used, "used, first piece %zu", first);
    cr_assert_eq(a->body_len, b->body_len, "body, first piece %zu", first);
    cr_assert_eq(a->trailer_len, b->trailer_len, "trailer, first piece %zu", first);
    cr_assert(memcmp(a->body, b->body, a->body_len) == 0, "body, first piece %zu", first);
    cr_assert(memcmp(a->trailer, b->trailer, a->trailer_len) == 0, "trailer, first %zu", first);
}

// Decode, and prove that whole, split at each byte and byte by byte agree in everything.
static struct outcome *decode_all_ways(const void *bytes, size_t len)
{
    static struct outcome whole, other;
    decode(&whole, bytes, len, len, 1);
    for (size_t cut = 0; cut <= len; cut++) {
        decode(&other, bytes, len, cut, len);
        same(&whole, &other, cut);
    }
    decode(&other, bytes, len, 0, 1);
    same(&whole, &other, 0);
    return &whole;
}

static struct outcome *decode_text(const char *text)
{
    return decode_all_ways(text, strlen(text));
}

static void is_bytes(const uint8_t *bytes, size_t len, const char *text)
{
    cr_expect(len == strlen(text) && memcmp(bytes, text, len) == 0, "got \"%.*s\", not \"%s\"",
              (int)len, (const char *)bytes, text);
}

#define EACH(expected, ...)                                                                        \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {                            \
            enum chunk_result result = decode_text(texts[i])->result;                              \
            cr_expect_eq(result, expected, "got %d for:\n%s", result, texts[i]);                   \
        }                                                                                          \
    } while (0)

// ---- what is right ----

Test(chunk, a_simple_body)
{
    // Chunks are joined, the end is found, what follows it is left for the next message; as
    // everywhere in this file, a cut at any byte gives the same (PAINS 7: vllm-project/aibrix PR
    // #2653).
    struct outcome *o = decode_text("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
    cr_assert_eq(o->result, CHUNK_END);
    is_bytes(o->body, o->body_len, "hello world");
    cr_expect_eq(o->trailer_len, 0);
    cr_expect_eq(o->used, strlen("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
}

Test(chunk, sizes)
{
    // Hex digits in any case, with leading zeros within fifteen digits; zero may be long as well.
    EACH(CHUNK_END, "0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n",
         "00000000000000a\r\n0123456789\r\n000000000000000\r\n\r\n",
         "1B\r\nabcdefghijklmnopqrstuvwxyz.\r\n00\r\n\r\n");
}

Test(chunk, data_may_hold_anything)
{
    // Body bytes are not looked at: NUL, CRLF and what looks like a last chunk are data.
    static const char text[] = "c\r\n\0\r\n0\r\n\r\n\xff\x80\n\r\n0\r\n\r\n";
    struct outcome *o = decode_all_ways(text, sizeof(text) - 1);
    cr_assert_eq(o->result, CHUNK_BAD, "the count is one short, and that is noticed");
    static const char right[] = "b\r\n\0\r\n0\r\n\r\n\xff\x80\n\r\n0\r\n\r\n";
    o = decode_all_ways(right, sizeof(right) - 1);
    cr_assert_eq(o->result, CHUNK_END);
    cr_expect_eq(o->body_len, 11);
    cr_expect_eq(memcmp(o->body, right + 3, 11), 0);
}

Test(chunk, unfinished_bodies_want_more)
{
    // Every proper prefix of a good body is MORE, never END, wherever it is cut: a provider that
    // breaks off cannot look finished (PAINS 11: farion1231/cc-switch#4484).
    const char *text = "5;a=b;c=\"d\\\"\"\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n";
    for (size_t len = 0; len < strlen(text); len++) {
        struct outcome *o = decode_all_ways(text, len);
        cr_assert_eq(o->result, CHUNK_MORE, "%zu bytes", len);
        cr_assert_eq(o->used, len);
    }
    cr_assert_eq(decode_text(text)->result, CHUNK_END);
}

Test(chunk, extensions_are_dropped)
{
    // Names, tokens and quoted strings of printable bytes go by and leave nothing.
    struct outcome *o =
        decode_text("5;a\r\nhello\r\n1;a=b;c=\"d; \t\\\"e\\\\\";f\r\n!\r\n0;z=9\r\n\r\n");
    cr_assert_eq(o->result, CHUNK_END);
    is_bytes(o->body, o->body_len, "hello!");
}

Test(chunk, trailers_are_returned)
{
    // The trailer section comes back byte for byte, without the empty line that ends it.
    struct outcome *o =
        decode_text("1\r\nx\r\n0\r\nVary: *\r\nX-Sum:\t\x80 a:b \r\nE:\r\n\r\nnext");
    cr_assert_eq(o->result, CHUNK_END);
    is_bytes(o->trailer, o->trailer_len, "Vary: *\r\nX-Sum:\t\x80 a:b \r\nE:\r\n");
    is_bytes(o->body, o->body_len, "x");
}

Test(chunk, at_boundary)
{
    // True before a size line and nowhere else: not inside one, not in data, not once it is over.
    const char *text = "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    for (size_t len = 0; len <= strlen(text); len++) {
        struct chunk chunk;
        struct outcome o = {0};
        chunk_start(&chunk);
        feed(&chunk, &o, text, len);
        cr_expect_eq(chunk_at_boundary(&chunk), len == 0 || len == 7 || len == 13, "%zu", len);
    }
}

Test(chunk, the_end_is_sticky)
{
    // After END and after BAD the answer stays, and no byte is taken.
    static const struct {
        const char *text;
        enum chunk_result result;
    } cases[] = {{"0\r\n\r\n", CHUNK_END}, {"x", CHUNK_BAD}};
    for (int i = 0; i < 2; i++) {
        struct chunk chunk;
        struct outcome o = {0};
        struct span data;
        size_t used = 7;
        chunk_start(&chunk);
        feed(&chunk, &o, cases[i].text, strlen(cases[i].text));
        cr_expect_eq(chunk_next(&chunk, (const uint8_t *)"5\r\n", 3, &used, &data),
                     cases[i].result);
        cr_expect_eq(used, 0);
    }
}

// ---- what is wrong ----

Test(chunk, size_lines_refused)
{
    // No digits, signs, prefixes, blanks before or behind, and every line end that is not CRLF.
    EACH(CHUNK_BAD, "\r\n", "x", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "\t1\r\n", "1 \r\n",
         "1\t\r\n", "1 ;a\r\n", "g\r\n", "1\n", "1\nx\r\n", "1\rx", "1\r\r\n", "\n", "1,1\r\n",
         "1\x0b\r\n", "1\x80", "5\r\nhello\r\n\r\n", "5\r\nhello\r\n;a\r\n", "1.0\r\n", "G", "/",
         ":", "@", "`", "0\n\n", "0\r\n\n", "0\r\n\r\r", "0\r\n\rx", "0\rx\r\n", "0\r\nA: b\n");
    cr_expect_eq(decode_all_ways("1\0\r\nx", 5)->result, CHUNK_BAD, "NUL in a size line");
    cr_expect_eq(decode_all_ways("\0", 1)->result, CHUNK_BAD, "NUL for a size");
}

Test(chunk, sizes_that_overflow)
{
    // Sixteen digits and more are refused at the sixteenth, before any arithmetic could wrap.
    EACH(CHUNK_BAD, "1000000000000000", "7fffffffffffffff\r\n", "8000000000000000\r\n",
         "ffffffffffffffff\r\n", "10000000000000000\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n",
         "0000000000000000\r\n", "0000000000000005\r\nhello\r\n0\r\n\r\n");
    struct outcome *o = decode_text("fffffffffffffff\r\nall that is here");
    cr_expect_eq(o->result, CHUNK_MORE);
    is_bytes(o->body, o->body_len, "all that is here");
}

Test(chunk, data_must_end_with_crlf)
{
    // A size that is too small or too large is noticed where the CRLF should be.
    EACH(CHUNK_BAD, "5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n",
         "5\r\nhello0\r\n\r\n", "5\r\nhello\rX0\r\n\r\n", "5\r\nhelloX\n0\r\n\r\n",
         "5\r\nhello\r\r0\r\n\r\n", "5\r\nhello\n\n0\r\n\r\n", "6\r\nhello\r\n0\r\n\r\n",
         "5\r\nhello\r\r\n");
}

Test(chunk, extensions_refused)
{
    // Extensions that readers disagree about: empty names or values, blanks, open quotes, controls.
    EACH(CHUNK_BAD, "1;\r\nx", "1;;a\r\n", "1;a=\r\n", "1;=a\r\n", "1; a\r\n", "1;a \r\n",
         "1;a= b\r\n", "1;a=\"b\r\n", "1;a=\"b\"c\r\n", "1;a=\"b\\\r\n", "1;a\n", "1;a=\"\n\"\r\n",
         "1;a\rb", "1;a=b=c\r\n", "1;a\x01\r\n", "1;a=\"\x7f\"\r\n", "1;a=\"\x80\"\r\n",
         "1;a\x80\r\n", "1;a=\"b\"\n", "1;\n");
    cr_expect_eq(decode_all_ways("1;a=\"\0\"\r\n", 9)->result, CHUNK_BAD, "NUL in an extension");
}

Test(chunk, trailers_refused)
{
    // A trailer line obeys the grammar of a field line: this is where bare LF hides requests.
    EACH(CHUNK_BAD, "0\r\nA\r\n", "0\r\n: b\r\n", "0\r\nA : b\r\n", "0\r\n A: b\r\n",
         "0\r\nA: b\r\n c\r\n", "0\r\nA: b\rc", "0\r\nA: b\r\r\n", "0\r\nA: \x01\r\n",
         "0\r\nA: \x7f\r\n", "0\r\nA: b\r\n\n", "0\r\n\rA: b\r\n", "0\r\nGET / HTTP/1.1\r\n",
         "0\r\nA\x80: b\r\n");
    cr_expect_eq(decode_all_ways("0\r\nA: \0\r\n", 9)->result, CHUNK_BAD, "NUL in a trailer");
}

// ---- bounds ----

Test(chunk, extension_length_is_bounded)
{
    // CHUNK_EXTENSION_MAX bytes behind the first ";" of a chunk pass, one more does not; each chunk
    // counts anew, and a quoted string cannot outlive the bound.
    char text[TEXT_MAX];
    for (int extra = 0; extra < 2; extra++)
        for (int quoted = 0; quoted < 2; quoted++) {
            char name[CHUNK_EXTENSION_MAX + 2] = {0};
            memset(name, 'a', (size_t)(CHUNK_EXTENSION_MAX + extra));
            if (quoted) {
                memcpy(name, "a=\"", 3);
                name[CHUNK_EXTENSION_MAX + extra - 1] = '"';
            }
            snprintf(text, sizeof(text), "1;%s\r\nx\r\n1;%s\r\ny\r\n0\r\n\r\n", name, name);
            cr_expect_eq(decode_text(text)->result, extra ? CHUNK_BAD : CHUNK_END);
        }
    snprintf(text, sizeof(text), "1;a=\"%0*d\r\n", CHUNK_EXTENSION_MAX - 3, 0);
    cr_expect_eq(decode_text(text)->result, CHUNK_BAD, "CR in an open quote at the very bound");
}

Test(chunk, trailer_length_is_bounded)
{
    // CHUNK_TRAILER_MAX bytes of trailer lines pass, one more does not.
    static struct outcome o;
    char text[TEXT_MAX];
    for (int extra = 0; extra < 2; extra++) {
        int fill = CHUNK_TRAILER_MAX - (int)strlen("A: \r\n") + extra;
        int len = snprintf(text, sizeof(text), "0\r\nA: %0*d\r\n\r\n", fill, 0);
        decode(&o, text, (size_t)len, (size_t)len, 1);
        cr_expect_eq(o.result, extra ? CHUNK_BAD : CHUNK_END);
        decode(&o, text, (size_t)len, 0, 1);
        cr_expect_eq(o.result, extra ? CHUNK_BAD : CHUNK_END);
    }
}

// ---- writing ----

Test(chunk, size_lines_written)
{
    // What we write is the shortest form, fits its bound, and our own decoder reads it back.
    static const struct {
        uint64_t size;
        const char *line;
    } cases[] = {{0, "0\r\n"},
                 {1, "1\r\n"},
                 {15, "f\r\n"},
                 {16, "10\r\n"},
                 {0x1a2b, "1a2b\r\n"},
                 {0xfffff, "fffff\r\n"},
                 {1ull << 59, "800000000000000\r\n"},
                 {UINT64_MAX, "ffffffffffffffff\r\n"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *out = edge_put((uint8_t[CHUNK_SIZE_LINE_MAX]){0}, CHUNK_SIZE_LINE_MAX);
        size_t len = chunk_size_line(out, cases[i].size);
        cr_assert_leq(len, (size_t)CHUNK_SIZE_LINE_MAX);
        is_bytes(out, len, cases[i].line);
        if (cases[i].size && cases[i].size < UINT64_MAX) {
            struct chunk chunk;
            struct outcome o = {0};
            uint8_t line[CHUNK_SIZE_LINE_MAX];
            memcpy(line, out, len);
            chunk_start(&chunk);
            cr_expect(feed(&chunk, &o, line, len));
            cr_expect_eq(chunk.left, cases[i].size);
        }
    }
}
