// SPDX-License-Identifier: MIT
#include "proto/json.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>

// ---- feeding ----

enum { TOKENS_MAX = 4096 };

struct seen {
    enum json_token token;
    uint64_t at, end;
    uint8_t depth;
    bool escaped;
};

// All that a scan can show, so that two scans can be compared.
struct outcome {
    enum json_token last; // JSON_DONE, JSON_BAD or JSON_TOO_DEEP
    uint64_t offset;
    size_t count;
    struct seen seen[TOKENS_MAX];
};

static bool is_string(enum json_token token)
{
    return token == JSON_KEY || token == JSON_STRING;
}

// One slice, placed at the edge. False: the document is refused.
static bool feed(struct json *json, struct outcome *o, const char *bytes, size_t len, uint8_t skip)
{
    const uint8_t *at = edge_put(bytes, len);
    size_t used = 0;
    for (;;) {
        enum json_token token = json_next(json, at, len, &used, skip);
        cr_assert_leq(used, len);
        if (token < JSON_MORE)
            return false;
        if (token == JSON_MORE || token == JSON_DONE) {
            cr_assert_eq(used, len, "more was asked for, but not all was used");
            return true;
        }
        cr_assert_lt(o->count, (size_t)TOKENS_MAX);
        bool escaped = is_string(token) && json->escaped;
        o->seen[o->count++] = (struct seen){token, json->at, json->end, json->depth, escaped};
    }
}

static void scan(struct outcome *o, const char *bytes, size_t len, size_t first, size_t step,
                 uint8_t skip)
{
    struct json json;
    json_start(&json);
    o->count = 0;
    bool good = feed(&json, o, bytes, first, skip);
    for (size_t done = first; good && done < len; done += step)
        good = feed(&json, o, bytes + done, len - done < step ? len - done : step, skip);
    o->last = json_end(&json);
    o->offset = json.offset;
}

static void same(const struct outcome *a, const struct outcome *b, const char *bytes, size_t first)
{
    cr_assert_eq(a->last, b->last, "end of %.60s, first slice %zu", bytes, first);
    cr_assert_eq(a->offset, b->offset, "offset in %.60s, first slice %zu", bytes, first);
    cr_assert_eq(a->count, b->count, "tokens of %.60s, first slice %zu", bytes, first);
    for (size_t i = 0; i < a->count; i++) {
        const struct seen *x = &a->seen[i], *y = &b->seen[i];
        cr_assert(x->token == y->token && x->at == y->at && x->end == y->end &&
                      x->depth == y->depth && x->escaped == y->escaped,
                  "token %zu of %.60s, first slice %zu", i, bytes, first);
    }
}

// Scan, and prove that whole, split at each byte and byte by byte agree in everything.
static struct outcome *scan_skip(const char *bytes, size_t len, uint8_t skip)
{
    static struct outcome whole, other;
    scan(&whole, bytes, len, len, 1, skip);
    for (size_t cut = 0; cut < len; cut++) {
        scan(&other, bytes, len, cut, len, skip);
        same(&whole, &other, bytes, cut);
    }
    scan(&other, bytes, len, 0, 1, skip);
    same(&whole, &other, bytes, 0);
    return &whole;
}

static struct outcome *scan_all_ways(const char *bytes, size_t len)
{
    return scan_skip(bytes, len, JSON_DEPTH_MAX);
}

static struct outcome *scan_text(const char *text)
{
    return scan_all_ways(text, strlen(text));
}

#define EACH(expected, ...)                                                                        \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)                              \
            cr_expect_eq(scan_text(texts[i])->last, expected, "got %d for %s",                     \
                         scan_text(texts[i])->last, texts[i]);                                     \
    } while (0)

// The tokens of a scan as one letter each.
static void letters(const struct outcome *o, char out[static TOKENS_MAX + 1])
{
    static const char letter[] = {
        [JSON_KEY] = 'k',          [JSON_STRING] = 's',     [JSON_NUMBER] = 'n',
        [JSON_TRUE] = 't',         [JSON_FALSE] = 'f',      [JSON_NULL] = '0',
        [JSON_OBJECT_BEGIN] = '{', [JSON_OBJECT_END] = '}', [JSON_ARRAY_BEGIN] = '[',
        [JSON_ARRAY_END] = ']',
    };
    for (size_t i = 0; i < o->count; i++)
        out[i] = letter[o->seen[i].token];
    out[o->count] = 0;
}

static void has_tokens(const char *text, uint8_t skip, const char *expected)
{
    static char got[TOKENS_MAX + 1];
    letters(scan_skip(text, strlen(text), skip), got);
    cr_expect_str_eq(got, expected, "of %s with skip depth %u", text, skip);
}

static void refused_at(const char *bytes, size_t len, uint64_t offset)
{
    struct outcome *o = scan_all_ways(bytes, len);
    cr_expect_eq(o->last, JSON_BAD, "%.*s was accepted", (int)len, bytes);
    cr_expect_eq(o->offset, offset, "%.*s: offset %llu, not %llu", (int)len, bytes,
                 (unsigned long long)o->offset, (unsigned long long)offset);
}

#define REFUSED_AT(literal, offset) refused_at(literal, sizeof(literal) - 1, offset)

// ---- tokens ----

Test(json, a_scalars)
{
    // A document may be any value, alone; a number at the top ends where the document ends.
    EACH(JSON_DONE, "true", "false", "null", "0", "-0", "12", " 12 ", "1.5e+30", "\"\"", "\"a\"",
         "\t\r\n {}\n", "[]");
    EACH(JSON_BAD, "", " ", "tru", "truE", "nul", "falsy", "-", "1.", "1e", "1e+", "\"", "\"a", "{",
         "[", "True", "nulll", "1 2", "{}{}", "[],");
}

Test(json, b_tokens_come_in_order)
{
    // Keys and values are told apart, and brackets come with what is between them.
    has_tokens("{\"a\":1,\"b\":[true,false,null,\"x\",{}],\"c\":{\"d\":[]}}", JSON_DEPTH_MAX,
               "{knk[tf0s{}]k{k[]}}");
    has_tokens("[1,[2,[3,\"a\"]],-4.5e6]", JSON_DEPTH_MAX, "[n[n[ns]]n]");
    has_tokens(" [ 1 , 2 ] ", JSON_DEPTH_MAX, "[nn]");
}

Test(json, c_tokens_stand_where_they_say)
{
    // Offsets are absolute and frame the bytes: without the quotes for strings, all of a number.
    struct outcome *o = scan_text("{\"key\": \"v\\n\", \"n\":-1.5e3 ,\"t\":true}");
    static const struct seen expected[] = {
        {JSON_OBJECT_BEGIN, 0, 1, 1, false}, {JSON_KEY, 2, 5, 1, false},
        {JSON_STRING, 9, 12, 1, true},       {JSON_KEY, 16, 17, 1, false},
        {JSON_NUMBER, 19, 25, 1, false},     {JSON_KEY, 28, 29, 1, false},
        {JSON_TRUE, 31, 35, 1, false},       {JSON_OBJECT_END, 35, 36, 0, false},
    };
    cr_assert_eq(o->count, sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < o->count; i++) {
        cr_expect_eq(o->seen[i].token, expected[i].token, "token %zu", i);
        cr_expect_eq(o->seen[i].at, expected[i].at, "begin of token %zu", i);
        cr_expect_eq(o->seen[i].end, expected[i].end, "end of token %zu", i);
        cr_expect_eq(o->seen[i].depth, expected[i].depth, "depth of token %zu", i);
        cr_expect_eq(o->seen[i].escaped, expected[i].escaped, "escapes of token %zu", i);
    }
}

Test(json, d_skip_depth)
{
    // What lies deeper than the caller looks is validated, but not reported; each value above shows
    // its end.
    const char *text = "{\"a\":[1,{\"b\":2},[3]],\"c\":{\"d\":{}},\"e\":4}";
    has_tokens(text, 64, "{k[n{kn}[n]]k{k{}}kn}");
    has_tokens(text, 2, "{k[n}]]k{k}}kn}");
    has_tokens(text, 1, "{k]k}kn}");
    has_tokens(text, 0, "}");
    const char *broken = "{\"a\":[1,{\"b\":2},[3}],\"c\":1}";
    cr_expect_eq(scan_skip(broken, strlen(broken), 1)->last, JSON_BAD);
    cr_expect_eq(scan_skip(broken, strlen(broken), 1)->offset, 18);
}

// ---- grammar ----

Test(json, e_numbers)
{
    // Numbers follow the grammar of RFC 8259 section 6 to the letter.
    EACH(JSON_DONE, "[0]", "[-0]", "[10]", "[-10]", "[0.0]", "[1.25]", "[0e1]", "[1E+2]", "[1e-2]",
         "[1.5E07]", "[123456789012345678901234567890]");
    EACH(JSON_BAD, "[01]", "[-01]", "[+1]", "[.5]", "[1.]", "[1.e1]", "[1e]", "[1e+]", "[--1]",
         "[1-]", "[0x1]", "[1.2.3]", "[1e1.5]", "[Infinity]", "[NaN]", "[-Infinity]", "[1_000]",
         "[-]", "[1 000]");
}

Test(json, f_structure)
{
    // Commas and colons stand where the grammar has them, and brackets match.
    EACH(JSON_BAD, "[1,]", "[,1]", "[1,,2]", "[1 2]", "{\"a\":1,}", "{,}", "{\"a\"}", "{\"a\":}",
         "{\"a\" 1}", "{\"a\"::1}", "{1:2}", "{a:1}", "{\"a\":1 \"b\":2}", "[}", "{]", "[1}",
         "{\"a\":1]", "]", "}", ":", ",", "[\"a\":1]", "{\"a\",1}", "{'a':1}", "[//c\n1]",
         "{\"a\":1}}");
}

Test(json, g_offsets_of_faults)
{
    // The offset names the first byte that cannot be part of JSON, or the end if that came too
    // early.
    REFUSED_AT("", 0);
    REFUSED_AT("{\"a\":1", 6);
    REFUSED_AT("{\"a\":tru}", 8);
    REFUSED_AT("[1,2,]", 5);
    REFUSED_AT("[01]", 2);
    REFUSED_AT("[1.]", 3);
    REFUSED_AT("{} x", 3);
    REFUSED_AT("[\"ab\ncd\"]", 4);
    REFUSED_AT("[\"a\\x\"]", 4);
    REFUSED_AT("[\"a\\u12G4\"]", 7);
    REFUSED_AT("[\"a\xC3(\"]", 4);
    REFUSED_AT("[\0]", 1);
}

Test(json, h_byte_order_mark)
{
    // A UTF-8 byte order mark is refused at its first byte, even before a good document.
    REFUSED_AT("\xEF\xBB\xBF{}", 0);
}

Test(json, i_depth)
{
    // JSON_DEPTH_MAX levels pass, one more is refused at its bracket, for arrays and objects alike.
    char text[5 * (JSON_DEPTH_MAX + 1)];
    for (int levels = JSON_DEPTH_MAX; levels <= JSON_DEPTH_MAX + 1; levels++) {
        bool fits = levels == JSON_DEPTH_MAX;
        memset(text, '[', (size_t)levels);
        memset(text + levels, ']', (size_t)levels);
        struct outcome *o = scan_all_ways(text, 2 * (size_t)levels);
        cr_expect_eq(o->last, fits ? JSON_DONE : JSON_TOO_DEEP);
        cr_expect_eq(o->offset, fits ? 2 * JSON_DEPTH_MAX : JSON_DEPTH_MAX);

        size_t len = 0;
        for (int i = 0; i < levels - 1; i++, len += 4)
            memcpy(text + len, "{\"\":", 4);
        text[len++] = '{';
        memset(text + len, '}', (size_t)levels);
        o = scan_all_ways(text, len + (size_t)levels);
        cr_expect_eq(o->last, fits ? JSON_DONE : JSON_TOO_DEEP);
        if (!fits)
            cr_expect_eq(o->offset, 4 * JSON_DEPTH_MAX);
    }
}

Test(json, j_errors_stick)
{
    // After a fault nothing that follows can mend the document.
    struct json json;
    json_start(&json);
    size_t used = 0;
    cr_assert_eq(json_next(&json, (const uint8_t *)"[}", 2, &used, 64), JSON_ARRAY_BEGIN);
    cr_assert_eq(json_next(&json, (const uint8_t *)"[}", 2, &used, 64), JSON_BAD);
    used = 0;
    cr_expect_eq(json_next(&json, (const uint8_t *)"]", 1, &used, 64), JSON_BAD);
    cr_expect_eq(json.offset, 1);
    cr_expect_eq(json_end(&json), JSON_BAD);
}

Test(json, k_done_sticks)
{
    // A complete document stays complete over whitespace and empty slices, and nothing else.
    struct json json;
    json_start(&json);
    size_t used = 0;
    cr_assert_eq(json_next(&json, (const uint8_t *)"[]", 2, &used, 0), JSON_ARRAY_END);
    cr_expect(json_complete(&json));
    cr_expect_eq(json_next(&json, (const uint8_t *)"[]", 2, &used, 0), JSON_DONE);
    used = 0;
    cr_expect_eq(json_next(&json, NULL, 0, &used, 0), JSON_DONE);
    cr_expect_eq(json_next(&json, (const uint8_t *)" \n", 2, &used, 0), JSON_DONE);
    used = 0;
    cr_expect_eq(json_next(&json, (const uint8_t *)",", 1, &used, 0), JSON_BAD);
}

// ---- strings ----

Test(json, l_escapes)
{
    // The eight short escapes and \uXXXX in either case pass, lone surrogates too; nothing else
    // does.
    EACH(JSON_DONE, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0000\\uABCD\\uabcd\\u12Ef\"",
         "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "\"\\ude00\"", "{\"\\u0061\":1}");
    EACH(JSON_BAD, "\"\\", "\"\\\"", "\"\\a\"", "\"\\'\"", "\"\\U0041\"", "\"\\u\"", "\"\\u1\"",
         "\"\\u12\"", "\"\\u123\"", "\"\\u123g\"", "\"\\u 123\"", "\"\\\n\"", "\"\\0\"",
         "\"\\x41\"", "\"\\\xC3\xA9\"");
}

Test(json, m_utf8)
{
    // Well-formed UTF-8 passes up to U+10FFFF; overlong forms, surrogates, stray and cut bytes do
    // not.
    EACH(JSON_DONE, "\"\xC2\x80\"", "\"\xDF\xBF\"", "\"\xE0\xA0\x80\"", "\"\xEC\xBF\xBF\"",
         "\"\xED\x9F\xBF\"", "\"\xEE\x80\x80\"", "\"\xEF\xBF\xBF\"", "\"\xF0\x90\x80\x80\"",
         "\"\xF3\xBF\xBF\xBF\"", "\"\xF4\x8F\xBF\xBF\"", "{\"\xC3\xA9\":1}");
    EACH(JSON_BAD, "\"\x80\"", "\"\xBF\"", "\"\xC0\x80\"", "\"\xC1\xBF\"", "\"\xC2\"",
         "\"\xC2\x7F\"", "\"\xC2\xC0\"", "\"\xE0\x9F\xBF\"", "\"\xE1\x80\"", "\"\xE1\x80\x7F\"",
         "\"\xED\xA0\x80\"", "\"\xED\xBF\xBF\"", "\"\xF0\x8F\xBF\xBF\"", "\"\xF0\x90\x80\"",
         "\"\xF1\x80\x80\xC0\"", "\"\xF4\x90\x80\x80\"", "\"\xF5\x80\x80\x80\"", "\"\xFF\"",
         "\"\xFE\"", "\xC3\xA9");
}

Test(json, n_every_lead_and_tail)
{
    // Every pair of bytes in a string is judged as the UTF-8 table does, wherever vectors begin and
    // end.
    char text[80];
    for (int lead = 1; lead < 256; lead++) {
        for (int tail = 1; tail < 256; tail += 7) {
            memset(text, 'a', sizeof text);
            text[0] = text[sizeof text - 1] = '"';
            text[40] = (char)lead;
            text[41] = (char)tail;
            bool plain = lead >= 0x20 && lead < 0x80 && lead != '"' && lead != '\\' &&
                         tail >= 0x20 && tail < 0x80 && tail != '"' && tail != '\\';
            bool two = lead >= 0xC2 && lead < 0xE0 && tail >= 0x80 && tail < 0xC0;
            bool escape = lead == '\\' && strchr("\"\\/bfnrt", tail) != NULL;
            struct outcome o;
            scan(&o, text, sizeof text, sizeof text, 1, 64);
            cr_expect_eq(o.last == JSON_DONE, plain || two || escape, "%02x %02x", lead, tail);
        }
    }
}

Test(json, o_long_strings)
{
    // The byte that ends a run of plain bytes is found at every place in a vector, and none is
    // missed.
    static const char *const specials[] = {
        "\\n",      "\\\"", "\\\\", "\\u00e9", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80",
        "\\\\\\\"", "\x7F"};
    char text[256];
    for (size_t s = 0; s < sizeof specials / sizeof specials[0]; s++) {
        for (size_t place = 0; place < 100; place++) {
            size_t len = strlen(specials[s]);
            memset(text, 'a', sizeof text);
            text[0] = '"';
            memcpy(text + 1 + place, specials[s], len);
            text[1 + place + len + 60] = '"';
            size_t total = place + len + 62;
            static struct outcome whole, cut;
            scan(&whole, text, total, total, 1, 64);
            cr_assert_eq(whole.last, JSON_DONE, "%s at %zu", specials[s], place);
            cr_assert_eq(whole.count, 1);
            cr_assert_eq(whole.seen[0].end, total - 1);
            cr_assert_eq(whole.seen[0].escaped, specials[s][0] == '\\');
            for (size_t first = place; first < place + len + 2; first++) {
                scan(&cut, text, total, first, total, 64);
                same(&whole, &cut, text, first);
            }
        }
    }
}

Test(json, p_long_strings_refused)
{
    // A byte that may not stand in a string is refused at its own offset, at every place in a
    // vector.
    static const char bad[] = {0, 1, '\n', '\x1F', '\x80', '\xFF'};
    char text[200];
    for (size_t b = 0; b < sizeof bad; b++) {
        for (size_t place = 1; place < sizeof text - 1; place++) {
            memset(text, 'a', sizeof text);
            text[0] = text[sizeof text - 1] = '"';
            text[place] = bad[b];
            struct outcome o;
            scan(&o, text, sizeof text, sizeof text, 1, 64);
            cr_assert_eq(o.last, JSON_BAD);
            cr_assert_eq(o.offset, place);
        }
    }
}

Test(json, q_whitespace)
{
    // Runs of the four blanks of any length are skipped between tokens; other blanks are refused.
    char text[128];
    for (size_t run = 0; run < 80; run++) {
        size_t len = 0;
        text[len++] = '[';
        for (size_t i = 0; i < run; i++)
            text[len++] = " \n\r\t"[i % 4];
        memcpy(text + len, "1]", 2);
        cr_assert_eq(scan_all_ways(text, len + 2)->last, JSON_DONE);
    }
    EACH(JSON_BAD, "[\f1]", "[\v1]",
         "[\xC2\xA0"
         "1]",
         "[\xE2\x80\xA8"
         "1]");
}

// ---- decoding and encoding ----

static void decodes_to(const char *text, const char *bytes, size_t len)
{
    uint8_t out[64];
    const uint8_t *at = edge_put(text, strlen(text));
    int got = json_unescape(out, sizeof out, span_of(at, strlen(text)));
    cr_assert_eq(got, (int)len, "%s gave %d bytes", text, got);
    cr_assert(memcmp(out, bytes, len) == 0, "%s", text);
    if (len)
        cr_assert_eq(json_unescape(out, len - 1, span_of(at, strlen(text))), -1, "no room");
    cr_assert_eq(json_unescape(out, len, span_of(at, strlen(text))), (int)len, "just enough room");
}

Test(json, r_unescape)
{
    // Escapes become their bytes, pairs of surrogates one character; what does not fit is refused.
    decodes_to("", "", 0);
    decodes_to("plain", "plain", 5);
    decodes_to("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8);
    decodes_to("\\u0041\\u00e9\\u4F60", "A\xC3\xA9\xE4\xBD\xA0", 6);
    decodes_to("\\uD83D\\uDE00!", "\xF0\x9F\x98\x80!", 5);
    decodes_to("\\udbff\\udfff", "\xF4\x8F\xBF\xBF", 4);
    decodes_to("\\u0000", "\0", 1);
}

Test(json, s_unescape_refuses)
{
    // Half a pair, the halves in the wrong order, and what is no escape at all have no bytes.
    static const char *const texts[] = {"\\ud83d",
                                        "\\ude00",
                                        "\\ud83dx",
                                        "\\ud83d\\n",
                                        "\\ud83d\\u0041",
                                        "\\ude00\\ud83d",
                                        "\\ude00\\ude00",
                                        "\\",
                                        "\\u",
                                        "\\u12",
                                        "\\x",
                                        "\\u12g4",
                                        "\\ud83d\\",
                                        "\\ud83d\\ude0"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint8_t out[64];
        const uint8_t *at = edge_put(texts[i], strlen(texts[i]));
        cr_expect_eq(json_unescape(out, sizeof out, span_of(at, strlen(texts[i]))), -1, "%s",
                     texts[i]);
    }
}

static void encodes_to(const char *bytes, size_t len, const char *text)
{
    uint8_t out[128];
    const uint8_t *at = edge_put(bytes, len);
    int got = json_escape(out, sizeof out, span_of(at, len));
    cr_assert_eq(got, (int)strlen(text), "for %s", text);
    cr_assert(memcmp(out, text, strlen(text)) == 0, "%.*s is not %s", got, (char *)out, text);
    cr_assert_eq(json_escape(out, (size_t)got, span_of(at, len)), got, "just enough room");
    if (got)
        cr_assert_eq(json_escape(out, (size_t)got - 1, span_of(at, len)), -1, "no room");
}

Test(json, t_escape)
{
    // Quotes, backslashes and controls are escaped, UTF-8 stays, broken UTF-8 becomes U+FFFD.
    encodes_to("", 0, "");
    encodes_to("plain \x7F", 7, "plain \x7F");
    encodes_to("\"\\/", 3, "\\\"\\\\/");
    encodes_to("\b\f\n\r\t\0\x1F", 7, "\\b\\f\\n\\r\\t\\u0000\\u001f");
    encodes_to("\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80", 9, "\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80");
    encodes_to("a\x80z", 3, "a\xEF\xBF\xBDz");
    encodes_to("\xC3", 1, "\xEF\xBF\xBD");
    encodes_to("\xE4\xBD", 2, "\xEF\xBF\xBD\xEF\xBF\xBD");
}

Test(json, u_escape_and_back)
{
    // What json_escape writes, the scanner accepts and json_unescape reads back, for every byte
    // pair.
    for (int a = 0; a < 128; a++) {
        for (int b = 0; b < 128; b++) {
            char raw[2] = {(char)a, (char)b}, text[16] = "\"";
            uint8_t back[8];
            int len = json_escape((uint8_t *)text + 1, sizeof text - 2, span_of(raw, 2));
            cr_assert_gt(len, 0);
            cr_assert_eq(json_unescape(back, sizeof back, span_of(text + 1, (size_t)len)), 2);
            cr_assert(memcmp(raw, back, 2) == 0);
            text[len + 1] = '"';
            struct outcome o;
            scan(&o, text, (size_t)len + 2, (size_t)len + 2, 1, 64);
            cr_assert_eq(o.last, JSON_DONE, "%02x %02x", a, b);
        }
    }
}
