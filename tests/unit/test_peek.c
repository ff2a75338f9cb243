// SPDX-License-Identifier: MIT
#include "proto/peek.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>

// ---- feeding ----

static enum peek_result feed(struct peek *peek, const char *bytes, size_t len)
{
    const uint8_t *at = edge_put(bytes, len);
    enum peek_result result = peek_feed(peek, at, len);
    cr_assert(result < 0 || peek->fed == peek->json.offset);
    return result;
}

static enum peek_result read_body(struct peek *peek, const char *bytes, size_t len, size_t first,
                                  size_t step)
{
    memset(peek, 0xAA, sizeof *peek); // peek_start must not count on zeroes
    peek_start(peek);
    enum peek_result result = feed(peek, bytes, first);
    for (size_t done = first; result >= 0 && done < len; done += step)
        result = feed(peek, bytes + done, len - done < step ? len - done : step);
    return peek_end(peek);
}

// Both readers must have seen the same: the public fields, that is.
static void same(const struct peek *a, const struct peek *b, const char *bytes, size_t first)
{
    cr_assert_eq(a->json.offset, b->json.offset, "offset in %.80s, cut at %zu", bytes, first);
    cr_assert_eq(a->has_model, b->has_model, "%.80s, cut at %zu", bytes, first);
    if (a->has_model) {
        cr_assert_eq(a->model_at, b->model_at, "%.80s, cut at %zu", bytes, first);
        cr_assert_eq(a->model_end, b->model_end, "%.80s, cut at %zu", bytes, first);
        cr_assert_eq(a->model_len, b->model_len, "%.80s, cut at %zu", bytes, first);
        cr_assert(memcmp(a->model, b->model, (size_t)a->model_len + 1) == 0, "cut at %zu", first);
    }
    cr_assert_eq(a->messages, b->messages, "messages in %.80s, cut at %zu", bytes, first);
    cr_assert_eq(a->max_tokens, b->max_tokens, "max_tokens in %.80s, cut at %zu", bytes, first);
    cr_assert_eq(a->stream, b->stream, "stream in %.80s, cut at %zu", bytes, first);
    cr_assert_eq(a->tools, b->tools, "tools in %.80s, cut at %zu", bytes, first);
}

// Read, and prove that whole, split at each byte and byte by byte agree in everything.
static struct peek peek_bytes(const char *bytes, size_t len, enum peek_result expected)
{
    struct peek whole, other;
    enum peek_result result = read_body(&whole, bytes, len, len, 1);
    cr_assert_eq(result, expected, "got %d for %.200s", result, bytes);
    for (size_t cut = 0; cut < len; cut++) {
        cr_assert_eq(read_body(&other, bytes, len, cut, len), expected, "%.80s cut at %zu", bytes,
                     cut);
        same(&whole, &other, bytes, cut);
    }
    cr_assert_eq(read_body(&other, bytes, len, 0, 1), expected, "%.80s byte by byte", bytes);
    same(&whole, &other, bytes, 0);
    return whole;
}

static struct peek peek_text(const char *text, enum peek_result expected)
{
    return peek_bytes(text, strlen(text), expected);
}

static void has_model(const char *text, const char *model)
{
    struct peek peek = peek_text(text, PEEK_DONE);
    cr_assert(peek.has_model, "no model in %s", text);
    cr_expect_str_eq((const char *)peek.model, model, "in %s", text);
    cr_expect_eq(peek.model_len, strlen(model));
    cr_expect_eq(text[peek.model_at - 1], '"', "the offsets frame the string in %s", text);
    cr_expect_eq(text[peek.model_end], '"', "the offsets frame the string in %s", text);
}

static void has_messages(const char *text, uint32_t messages)
{
    cr_expect_eq(peek_text(text, PEEK_DONE).messages, messages, "in %s", text);
}

#define EACH(expected, ...)                                                                        \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)                              \
            peek_text(texts[i], expected);                                                         \
    } while (0)

// ---- what is found ----

Test(peek, a_chat_request)
{
    // One pass over an ordinary request finds all that routing asks for.
    const char *text =
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":\"Say hi\"}],\"stream\":true,\"max_tokens\":64,"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}";
    struct peek peek = peek_text(text, PEEK_DONE);
    cr_expect_str_eq((const char *)peek.model, "gpt-4o-mini");
    cr_expect(memcmp(text + peek.model_at, "gpt-4o-mini", 11) == 0);
    cr_expect_eq(peek.model_end - peek.model_at, 11);
    cr_expect_eq(peek.messages, 2);
    cr_expect_eq(peek.max_tokens, 64);
    cr_expect(peek.stream);
    cr_expect(peek.tools);
    cr_expect_eq(peek.fed, strlen(text));
}

Test(peek, b_nothing_of_it)
{
    // An object without any of the keys is complete and leaves every answer at its zero.
    struct peek peek =
        peek_text(" {\"prompt\":\"hi\",\"x\":[1,2,{\"model\":\"no\"}]} \r\n", PEEK_DONE);
    cr_expect_not(peek.has_model);
    cr_expect_eq(peek.messages, 0);
    cr_expect_eq(peek.max_tokens, 0);
    cr_expect_not(peek.stream);
    cr_expect_not(peek.tools);
    peek_text("{}", PEEK_DONE);
}

Test(peek, c_model_in_any_place)
{
    // The model is found first, last and between, and only at the top level.
    has_model("{\"model\":\"a\"}", "a");
    has_model("{ \"model\" : \"claude-sonnet-4-5\" , \"max_tokens\" : 1 }", "claude-sonnet-4-5");
    has_model("{\"messages\":[{\"model\":\"inner\"}],\"model\":\"outer\"}", "outer");
    has_model("{\"metadata\":{\"model\":\"inner\"},\"model\":\"outer\",\"x\":{\"model\":1}}",
              "outer");
    has_model("{\"x\":\"model\",\"model\":\"llama3.1:70b\"}", "llama3.1:70b");
    has_model(
        "{\"Model\":\"no\",\"model \":\"no\",\"models\":\"no\",\"mode\":\"no\",\"model\":\"yes\"}",
        "yes");
}

Test(peek, d_escapes_in_key_and_model)
{
    // A key with escapes is still the key, and the model is decoded, while its offsets stay those
    // of the bytes.
    has_model("{\"mod\\u0065l\":\"gpt-4o\"}", "gpt-4o");
    has_model("{\"\\u006d\\u006F\\u0064\\u0065\\u006C\":\"a\"}", "a");
    has_model("{\"model\":\"meta\\/llama-3\"}", "meta/llama-3");
    has_model("{\"model\":\"\\u0067\\u0070t-4\"}", "gpt-4");
    has_model("{\"model\":\"mod\\u00e8le-\\ud83d\\ude00\\\"\"}",
              "mod\xC3\xA8le-\xF0\x9F\x98\x80\"");
    has_model("{\"model\":\"\xE6\xA8\xA1\xE5\x9E\x8B\"}", "\xE6\xA8\xA1\xE5\x9E\x8B");
    has_model("{\"\\ud83d\":1,\"model\":\"a\"}", "a");
}

Test(peek, e_messages_are_counted)
{
    // Elements of messages, input or contents count, whatever they hold; a string is one message.
    has_messages("{\"messages\":[]}", 0);
    has_messages("{\"messages\":[{}]}", 1);
    has_messages("{\"messages\":[{\"content\":[{\"a\":[1,2]},{}]},{\"messages\":[1,2,3]}]}", 2);
    has_messages("{\"input\":[\"a\",\"b\",\"c\"]}", 3);
    has_messages("{\"input\":\"hi\"}", 1);
    has_messages("{\"input\":[[1,2],[3]]}", 2);
    has_messages("{\"contents\":[{\"parts\":[{\"text\":\"hi\"}],\"role\":\"user\"},{}]}", 2);
    has_messages("{\"m\\u0065ssages\":[1,2]}", 2);
    has_messages("{\"messages\":[1,true,null,\"x\",[],{}]}", 6);
    has_messages("{\"messages\":{\"a\":1,\"b\":[1,2]},\"x\":[1,2]}", 0);
    has_messages("{\"messages\":null}", 0);
    has_messages("{\"x\":{\"messages\":[1,2]}}", 0);
}

Test(peek, f_stream)
{
    // Only true at the top level asks for a stream.
    cr_expect(peek_text("{\"stream\":true}", PEEK_DONE).stream);
    cr_expect(peek_text("{\"str\\u0065am\": true }", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream\":false}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream\":null}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream\":\"true\"}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream\":1}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream\":[true]}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"a\":{\"stream\":true},\"b\":[true]}", PEEK_DONE).stream);
    cr_expect_not(peek_text("{\"stream_options\":{},\"x\":true}", PEEK_DONE).stream);
}

Test(peek, g_tools)
{
    // Tools count if there is at least one; an empty array, null or an object is none.
    cr_expect(peek_text("{\"tools\":[{}]}", PEEK_DONE).tools);
    cr_expect(peek_text("{\"tools\":[ 1 ]}", PEEK_DONE).tools);
    cr_expect_not(peek_text("{\"tools\":[]}", PEEK_DONE).tools);
    cr_expect_not(peek_text("{\"tools\":[ ],\"x\":[1]}", PEEK_DONE).tools);
    cr_expect_not(peek_text("{\"tools\":null}", PEEK_DONE).tools);
    cr_expect_not(peek_text("{\"tools\":{\"a\":1}}", PEEK_DONE).tools);
    cr_expect_not(peek_text("{\"messages\":[{\"tools\":[1]}]}", PEEK_DONE).tools);
}

static void has_max_tokens(const char *text, uint32_t expected)
{
    uint32_t got = peek_text(text, PEEK_DONE).max_tokens;
    cr_expect_eq(got, expected, "got %u for %s", got, text);
}

Test(peek, h_max_tokens)
{
    // Either name gives the number; what is no plain count is 0, and what does not fit is as good
    // as infinite.
    has_max_tokens("{\"max_tokens\":4096}", 4096);
    has_max_tokens("{\"max_completion_tokens\": 7}", 7);
    has_max_tokens("{\"max_completion\\u005ftokens\":7}", 7);
    has_max_tokens("{\"max_tokens\":0}", 0);
    has_max_tokens("{\"max_tokens\":12.75}", 12);
    has_max_tokens("{\"max_tokens\":-5}", 0);
    has_max_tokens("{\"max_tokens\":1e3}", 0);
    has_max_tokens("{\"max_tokens\":1.5E3}", 0);
    has_max_tokens("{\"max_tokens\":null}", 0);
    has_max_tokens("{\"max_tokens\":\"12\"}", 0);
    has_max_tokens("{\"max_tokens\":4294967295}", UINT32_MAX);
    has_max_tokens("{\"max_tokens\":4294967296}", UINT32_MAX);
    has_max_tokens("{\"max_tokens\":123456789012345678901234567890}", UINT32_MAX);
    has_max_tokens("{\"max_output_tokens\":9}", 0);
}

Test(peek, i_the_last_one_counts)
{
    // Of a repeated key other than model the last value counts, as with most readers.
    struct peek peek =
        peek_text("{\"stream\":true,\"messages\":[1,2,3],\"tools\":[1],\"max_tokens\":9,"
                  "\"stream\":false,\"messages\":[1],\"tools\":[],\"max_completion_tokens\":4}",
                  PEEK_DONE);
    cr_expect_not(peek.stream);
    cr_expect_not(peek.tools);
    cr_expect_eq(peek.messages, 1);
    cr_expect_eq(peek.max_tokens, 4);
}

// ---- what is refused ----

Test(peek, j_not_json)
{
    // A body that is not JSON is refused at the offending byte, wherever it stands.
    EACH(PEEK_NOT_JSON, "", " ", "{", "{\"model\":\"a\"", "{\"model\":\"a\",}", "model=a",
         "{\"a\":tru}", "{} {}", "{\"a\":\"\n\"}", "{\"messages\":[{]}", "\xEF\xBB\xBF{}",
         "{\"model\":\"a\xFF\"}", "{\"max_tokens\":01}");
    cr_expect_eq(peek_text("{\"model\":\"a\",}", PEEK_NOT_JSON).json.offset, 13);
}

Test(peek, k_not_an_object)
{
    // JSON that is no object is refused as that.
    EACH(PEEK_NOT_OBJECT, "[]", "[1", "1", "-1.5 ", "\"model\"", "true", "null",
         " [{\"model\":\"a\"}]");
}

Test(peek, l_too_deep)
{
    // The nesting limit holds inside the parts that are only skipped.
    char text[256] = "{\"messages\":";
    size_t len = strlen(text);
    memset(text + len, '[', JSON_DEPTH_MAX);
    struct peek peek = peek_bytes(text, len + JSON_DEPTH_MAX, PEEK_TOO_DEEP);
    cr_expect_eq(peek.json.offset, len + JSON_DEPTH_MAX - 1);
}

Test(peek, m_model_twice)
{
    // A second model is refused even if it says the same, and however its key is written.
    EACH(PEEK_MODEL_TWICE, "{\"model\":\"a\",\"model\":\"b\"}", "{\"model\":\"a\",\"model\":\"a\"}",
         "{\"model\":\"a\",\"mod\\u0065l\":\"b\"}", "{\"model\":\"a\",\"x\":{},\"model\":1}");
}

Test(peek, n_model_invalid)
{
    // A model that is no string, is empty, or does not decode is refused.
    EACH(PEEK_MODEL_INVALID, "{\"model\":1}", "{\"model\":null}", "{\"model\":true}",
         "{\"model\":{\"a\":1}}", "{\"model\":[\"a\"]}", "{\"model\":\"\"}",
         "{\"model\":\"\\ud83d\"}", "{\"model\":\"\\ude00\"}", "{\"model\":\"\\ud83dabc\"}",
         "{\"model\":\"\\ud83d\\u0041\"}", "{\"model\":\"a\\ud83d\\n\"}");
}

Test(peek, n_model_refused_early)
{
    // A model that is an object or array is refused at its bracket, before what it holds was read.
    struct peek peek;
    peek_start(&peek);
    cr_expect_eq(feed(&peek, "{\"model\":[", 10), PEEK_MODEL_INVALID);
    peek_start(&peek);
    cr_expect_eq(feed(&peek, "{\"model\":{", 10), PEEK_MODEL_INVALID);
}

Test(peek, o_model_with_controls)
{
    // Control characters cannot reach header fields and logs through the model's name.
    EACH(PEEK_MODEL_INVALID, "{\"model\":\"a\\r\\nx-evil: 1\"}", "{\"model\":\"a\\u0000b\"}",
         "{\"model\":\"\\u007f\"}", "{\"model\":\"\x7F\"}", "{\"model\":\"\\t\"}");
}

static void model_of_length(size_t count, const char *unit, size_t unit_len, bool fits)
{
    static char text[4096];
    size_t len = (size_t)snprintf(text, sizeof text, "{\"model\":\"");
    for (size_t i = 0; i < count; i++, len += unit_len)
        memcpy(text + len, unit, unit_len);
    memcpy(text + len, "\"}", 2);
    struct peek peek = peek_bytes(text, len + 2, fits ? PEEK_DONE : PEEK_MODEL_INVALID);
    if (fits) {
        cr_expect_eq(peek.model_len, PEEK_MODEL_MAX);
        cr_expect_eq(strlen((const char *)peek.model), PEEK_MODEL_MAX);
    }
}

Test(peek, p_model_length)
{
    // The limit of 255 bytes counts decoded bytes: 255 pass however they are written, 256 do not.
    model_of_length(255, "m", 1, true);
    model_of_length(256, "m", 1, false);
    model_of_length(255, "\\u006d", 6, true);
    model_of_length(256, "\\u006d", 6, false);
    model_of_length(300, "\\u006d", 6, false);
}

Test(peek, q_errors_stick)
{
    // After a refusal further slices change nothing.
    struct peek peek;
    peek_start(&peek);
    cr_assert_eq(feed(&peek, "{\"model\":1", 10), PEEK_MORE);
    cr_assert_eq(feed(&peek, "}", 1), PEEK_MODEL_INVALID);
    cr_expect_eq(feed(&peek, "{}", 2), PEEK_MODEL_INVALID);
    cr_expect_eq(peek_end(&peek), PEEK_MODEL_INVALID);
}

Test(peek, r_behind_the_object)
{
    // Whitespace may follow a complete object in later slices, anything else is refused.
    struct peek peek;
    peek_start(&peek);
    cr_assert_eq(feed(&peek, "{}", 2), PEEK_DONE);
    cr_assert_eq(feed(&peek, "\r\n ", 3), PEEK_DONE);
    cr_expect_eq(feed(&peek, "x", 1), PEEK_NOT_JSON);
    cr_expect_eq(peek.json.offset, 5);
}

Test(peek, s_long_words)
{
    // Keys and strings longer than anything kept are passed over, and what follows is still found.
    static char text[4096];
    static char keys[901], values[901];
    memset(keys, 'x', 900);
    memset(values, 'y', 900);
    int len = snprintf(text, sizeof text, "{\"max_completion_tokens%s\":\"%s\",\"model\":\"m\"}",
                       keys, values);
    struct peek peek = peek_bytes(text, (size_t)len, PEEK_DONE);
    cr_expect_str_eq((const char *)peek.model, "m");
    cr_expect_eq(peek.max_tokens, 0);
}

Test(peek, t_why)
{
    // Every refusal has a sentence that names the byte or the field, and never overruns its room.
    char out[96];
    struct peek peek = peek_text("{\"a\":}", PEEK_NOT_JSON);
    cr_expect_str_eq(peek_why(&peek, PEEK_NOT_JSON, out, sizeof out),
                     "The body is not valid JSON: error at byte 5.");
    cr_expect(strstr(peek_why(&peek, PEEK_TOO_DEEP, out, sizeof out), "64"));
    cr_expect(strstr(peek_why(&peek, PEEK_NOT_OBJECT, out, sizeof out), "object"));
    cr_expect(strstr(peek_why(&peek, PEEK_MODEL_TWICE, out, sizeof out), "'model'"));
    cr_expect(strstr(peek_why(&peek, PEEK_MODEL_INVALID, out, sizeof out), "'model'"));
    char small[8];
    cr_expect(strstr(peek_why(&peek, PEEK_NOT_JSON, small, sizeof small), "not valid JSON"));
}
