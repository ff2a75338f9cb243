// SPDX-License-Identifier: MIT
//
// fuzz_json: any bytes through the validator and through peek, whole and cut; both must agree,
// token by token. What the validator accepts as a string, json_unescape and json_escape must carry
// there and back.
//
// The first input byte chooses the skip depth, the second the size of the slices.
#include "proto/peek.h"

#include "alloc/check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A copy that ends where its allocation ends, so that the sanitizer sees one byte too many.
static uint8_t *copy_of(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    CHECK(copy != NULL);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x9E3779B97F4A7C15u + (hash >> 29);
}

// A digest of all that a scan reports.
static uint64_t scan(const uint8_t *bytes, size_t len, size_t step, uint8_t skip)
{
    struct json json;
    uint64_t hash = 1;
    bool good = true;
    json_start(&json);
    for (size_t done = 0; good && done < len; done += step) {
        size_t slice_len = len - done < step ? len - done : step, used = 0;
        uint8_t *slice = copy_of(bytes + done, slice_len);
        enum json_token token;
        while ((token = json_next(&json, slice, slice_len, &used, skip)) > JSON_MORE &&
               token < JSON_DONE) {
            CHECK(json.depth <= skip);
            CHECK(json.at <= json.end);
            CHECK(json.end <= json.offset);
            hash = mix(mix(mix(hash, (uint64_t)token), json.at), json.end);
        }
        good = token >= JSON_MORE;
        free(slice);
    }
    int last = json_end(&json);
    return mix(mix(hash, (uint64_t)last), json.offset);
}

static struct peek read_body(const uint8_t *bytes, size_t len, size_t step)
{
    struct peek peek;
    peek_start(&peek);
    for (size_t done = 0; done < len; done += step) {
        size_t slice_len = len - done < step ? len - done : step;
        uint8_t *slice = copy_of(bytes + done, slice_len);
        peek_feed(&peek, slice, slice_len);
        free(slice);
    }
    peek_end(&peek);
    return peek;
}

static void compare_peeks(const struct peek *a, const struct peek *b)
{
    CHECK(a->result == b->result);
    CHECK(a->json.offset == b->json.offset);
    CHECK(a->has_model == b->has_model);
    CHECK(a->messages == b->messages);
    CHECK(a->max_tokens == b->max_tokens);
    CHECK(a->stream == b->stream);
    CHECK(a->tools == b->tools);
    if (!a->has_model)
        return;
    CHECK(a->model_at == b->model_at);
    CHECK(a->model_end == b->model_end);
    CHECK(a->model_len == b->model_len);
    CHECK(memcmp(a->model, b->model, a->model_len) == 0);
}

// Any bytes, escaped, are the inside of a JSON string, and come back the same if they were UTF-8 at
// all.
static void round_trip(const uint8_t *bytes, size_t len)
{
    if (len > 512)
        len = 512;
    uint8_t text[6 * 512 + 2], back[3 * 512];
    text[0] = '"';
    int escaped = json_escape(text + 1, sizeof text - 2, span_of(bytes, len));
    CHECK(escaped >= 0);
    text[escaped + 1] = '"';
    struct json json;
    size_t used = 0;
    json_start(&json);
    CHECK(json_next(&json, text, (size_t)escaped + 2, &used, 0) == JSON_STRING);
    int count = json_unescape(back, sizeof back, span_of(text + 1, (size_t)escaped));
    CHECK(count >= (int)len);
    if (count == (int)len) // nothing was replaced by the longer U+FFFD
        CHECK(len == 0 || memcmp(back, bytes, len) == 0);
    json_unescape(back, sizeof back, span_of(bytes, len)); // raw bytes: must only not crash
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint8_t skip = data[0] % (JSON_DEPTH_MAX + 1);
    size_t step = 1 + data[1] % 40;
    const uint8_t *bytes = data + 2;
    size_t len = size - 2;
    uint64_t whole = scan(bytes, len, len ? len : 1, skip);
    CHECK(whole == scan(bytes, len, step, skip));
    CHECK(whole == scan(bytes, len, 1, skip));
    struct peek peek = read_body(bytes, len, len ? len : 1);
    struct peek cut = read_body(bytes, len, step);
    compare_peeks(&peek, &cut);
    cut = read_body(bytes, len, 1);
    compare_peeks(&peek, &cut);
    round_trip(bytes, len);
    return 0;
}
