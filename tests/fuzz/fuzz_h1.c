// SPDX-License-Identifier: MIT
//
// fuzz_h1: a stream of messages read whole and in pieces must come to the same.
//
//   clang -fsanitize=fuzzer,address -D_GNU_SOURCE -I. tests/fuzz/fuzz_h1.c proto/h1.c
//   proto/framing.c
//         proto/chunk.c alloc/check.c
//
// The first byte of the input chooses requests or answers and the method that is answered, the
// second how the rest is cut. The bytes lie against an unreadable page (edge.h), so an over-read
// ends the run.
#include "alloc/check.h"
#include "tests/vectors/drive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void start(struct drive *d, uint8_t mode)
{
    drive_start(d, mode & 1);
    d->add_host = mode & 2;
    d->method = mode & 4 ? H1_METHOD_HEAD : H1_METHOD_POST;
}

// What every accepted head must fulfil, beyond being accepted.
static void check_head(const struct h1_head *head)
{
    CHECK(head->len <= H1_HEAD_MAX);
    CHECK(head->field_count <= H1_FIELDS_MAX);
    for (size_t i = 0; i < head->field_count; i++) {
        const struct h1_field *field = &head->field[i];
        CHECK(field->name.len > 0);
        CHECK(field->id == h1_field_id(field->name));
        CHECK(!memchr(field->value.ptr, '\n', field->value.len));
        CHECK(!memchr(field->value.ptr, '\r', field->value.len));
        CHECK(!memchr(field->value.ptr, '\0', field->value.len));
        CHECK(h1_find_name(head, field->name) != NULL);
    }
}

// The parser alone, on bytes that need not be a complete head.
static void check_parse(const uint8_t *data, size_t size, bool response)
{
    static struct h1_head head;
    const uint8_t *at = edge_put(data, size);
    enum h1_result result =
        response ? h1_parse_response(&head, at, size) : h1_parse_request(&head, at, size);
    if (result != H1_OK)
        return;
    check_head(&head);
    size_t from = 0, head_len = 0;
    CHECK(h1_head_complete(at, size, &from, &head_len) == H1_OK);
    CHECK(head_len == head.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct drive whole, pieces;
    if (size < 2)
        return 0;
    uint8_t mode = data[0];
    size_t step = data[1] ? data[1] : 1;
    data += 2;
    size -= 2;
    check_parse(data, size, mode & 1);
    start(&whole, mode);
    drive_feed(&whole, data, size);
    start(&pieces, mode);
    for (size_t here = 0; here < size; here += step)
        drive_feed(&pieces, data, here);
    drive_feed(&pieces, data, size);
    CHECK(drive_same(&whole, &pieces));
    return 0;
}
