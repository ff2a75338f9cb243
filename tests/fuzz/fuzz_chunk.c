// SPDX-License-Identifier: MIT
//
// fuzz_chunk: a chunked body decoded whole and in pieces must come to the same, and what was
// decoded, encoded again, must decode to itself.
//
//   clang -fsanitize=fuzzer,address -D_GNU_SOURCE -I. tests/fuzz/fuzz_chunk.c proto/chunk.c
//   proto/h1.c
//         alloc/check.c
//
// The first byte of the input says how the rest is cut. The bytes lie against an unreadable page
// (edge.h).
#include "alloc/check.h"
#include "proto/chunk.h"
#include "tests/unit/edge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 64 * 1024 };

struct decoded {
    enum chunk_result result; // MORE, END or BAD
    size_t used, body_len, trailer_len;
    bool at_boundary;
    uint8_t body[INPUT_MAX], trailer[INPUT_MAX];
};

static bool feed(struct chunk *chunk, struct decoded *d, const uint8_t *bytes, size_t len)
{
    const uint8_t *at = edge_put(bytes, len);
    while (len) {
        struct span data;
        size_t used;
        d->result = chunk_next(chunk, at, len, &used, &data);
        CHECK(used <= len);
        if (d->result == CHUNK_DATA || d->result == CHUNK_TRAILER) {
            CHECK(data.len > 0);
            CHECK(data.ptr >= at);
            CHECK(data.ptr + data.len <= at + used);
        }
        if (d->result == CHUNK_DATA) {
            memcpy(d->body + d->body_len, data.ptr, data.len);
            d->body_len += data.len;
        } else if (d->result == CHUNK_TRAILER) {
            memcpy(d->trailer + d->trailer_len, data.ptr, data.len);
            d->trailer_len += data.len;
        }
        d->used += used;
        if (d->result == CHUNK_END || d->result == CHUNK_BAD)
            return false;
        CHECK(used > 0);
        at += used;
        len -= used;
    }
    d->result = CHUNK_MORE;
    return true;
}

static void decode(struct decoded *d, const uint8_t *bytes, size_t len, size_t step)
{
    struct chunk chunk;
    chunk_start(&chunk);
    d->result = CHUNK_MORE;
    d->used = d->body_len = d->trailer_len = 0;
    for (size_t done = 0; done < len; done += step)
        if (!feed(&chunk, d, bytes + done, len - done < step ? len - done : step))
            break;
    d->at_boundary = chunk_at_boundary(&chunk);
}

static void check_same(const struct decoded *a, const struct decoded *b)
{
    CHECK(a->result == b->result);
    CHECK(a->used == b->used);
    CHECK(a->at_boundary == b->at_boundary);
    CHECK(a->body_len == b->body_len);
    CHECK(a->trailer_len == b->trailer_len);
    CHECK(memcmp(a->body, b->body, a->body_len) == 0);
    CHECK(memcmp(a->trailer, b->trailer, a->trailer_len) == 0);
}

// Encode the body in pieces of `step` bytes, with the trailers it came with, and read that back.
static void check_round_trip(const struct decoded *d, size_t step)
{
    static uint8_t text[INPUT_MAX * (CHUNK_SIZE_LINE_MAX + 3)];
    static struct decoded again;
    size_t len = 0;
    for (size_t done = 0; done < d->body_len; done += step) {
        size_t take = d->body_len - done < step ? d->body_len - done : step;
        len += chunk_size_line(text + len, take);
        memcpy(text + len, d->body + done, take);
        memcpy(text + len + take, "\r\n", 2);
        len += take + 2;
    }
    len += chunk_size_line(text + len, 0);
    memcpy(text + len, d->trailer, d->trailer_len);
    memcpy(text + len + d->trailer_len, "\r\n", 2);
    len += d->trailer_len + 2;
    decode(&again, text, len, len);
    CHECK(again.result == CHUNK_END);
    CHECK(again.used == len);
    CHECK(again.body_len == d->body_len);
    CHECK(memcmp(again.body, d->body, d->body_len) == 0);
    CHECK(again.trailer_len == d->trailer_len);
    CHECK(memcmp(again.trailer, d->trailer, d->trailer_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoded whole, pieces;
    if (size < 2 || size > INPUT_MAX)
        return 0;
    size_t step = data[0] ? data[0] : 1;
    decode(&whole, data + 1, size - 1, size - 1);
    decode(&pieces, data + 1, size - 1, step);
    check_same(&whole, &pieces);
    if (whole.result == CHUNK_END)
        check_round_trip(&whole, step);
    return 0;
}
