// SPDX-License-Identifier: MIT
//
// fuzz_sse: any bytes through the watcher, whole, by slices and byte by byte: the same answers. The
// same bytes as a whole answer must not upset sse_usage_from_json.
//
// The first input byte chooses the size of the slices.
#include "proto/sse.h"

#include "alloc/check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Slices are copied into allocations of their own size, so that the sanitizer sees one byte too
// many.
static struct sse watch(const uint8_t *bytes, size_t len, size_t step)
{
    struct sse sse;
    memset(&sse, 0xAA, sizeof sse);
    sse_start(&sse);
    for (size_t done = 0; done < len; done += step) {
        size_t slice_len = len - done < step ? len - done : step;
        uint8_t *slice = malloc(slice_len);
        CHECK(slice != NULL);
        memcpy(slice, bytes + done, slice_len);
        sse_feed(&sse, slice, slice_len);
        free(slice);
    }
    return sse;
}

static void compare(const struct sse *a, const struct sse *b)
{
    CHECK(a->events == b->events);
    CHECK(a->has_data == b->has_data);
    CHECK(a->terminal == b->terminal);
    CHECK(a->error == b->error);
    CHECK(sse_at_boundary(a) == sse_at_boundary(b));
    CHECK(a->usage_seen == b->usage_seen);
    CHECK(a->usage.input == b->usage.input);
    CHECK(a->usage.output == b->usage.output);
    CHECK(a->usage.cached == b->usage.cached);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t step = 1 + data[0] % 40;
    const uint8_t *bytes = data + 1;
    size_t len = size - 1;
    struct sse whole = watch(bytes, len, len);
    struct sse cut = watch(bytes, len, step);
    compare(&whole, &cut);
    cut = watch(bytes, len, 1);
    compare(&whole, &cut);
    struct sse_usage usage;
    uint8_t *copy = malloc(len);
    CHECK(copy != NULL);
    memcpy(copy, bytes, len);
    sse_usage_from_json(&usage, copy, len);
    free(copy);
    return 0;
}
