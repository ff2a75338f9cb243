// SPDX-License-Identifier: MIT
#include "engine/input.h"

#include <string.h>

#include "alloc/check.h"

void input_add(struct input *input, struct buf *buf, uint32_t len)
{
    CHECK(len <= buf->pool->size);
    buf->filled = len;
    buf->next = NULL;
    if (input->buf) {
        input->last->next = buf;
    } else {
        input->buf = buf;
        input->at = 0;
    }
    input->last = buf;
}

static void pop(struct input *input)
{
    struct buf *first = input->buf;
    input->buf = first->next;
    input->at = 0;
    if (!input->buf)
        input->last = NULL;
    first->next = NULL;
    buf_unref(first);
}

// Room for `more` bytes behind what is left: in place, or in a large buffer that takes the first's
// place.
static bool make_room(struct input *input, struct buf_pool *large, uint32_t more)
{
    struct buf *first = input->buf;
    if (first->filled + more <= first->pool->size)
        return true;
    uint32_t left = input_left(input);
    if (left + more > large->size)
        return false;
    struct buf *bigger = buf_take(large);
    if (!bigger)
        return false;
    memcpy(bigger->bytes, input_bytes(input), left);
    bigger->filled = left;
    bigger->next = first->next;
    if (input->last == first)
        input->last = bigger;
    input->buf = bigger;
    input->at = 0;
    first->next = NULL;
    buf_unref(first);
    return true;
}

bool input_join(struct input *input, struct buf_pool *large)
{
    CHECK(input_more(input));
    struct buf *second = input->buf->next;
    if (!make_room(input, large, second->filled))
        return false;
    struct buf *first = input->buf;
    memcpy(first->bytes + first->filled, second->bytes, second->filled);
    first->filled += second->filled;
    first->next = second->next;
    if (input->last == second)
        input->last = first;
    second->next = NULL;
    buf_unref(second);
    return true;
}

void input_consume(struct input *input, uint32_t len)
{
    CHECK(len <= input_left(input));
    input->at += len;
    if (input->at == input->buf->filled)
        pop(input);
}

void input_drop(struct input *input)
{
    while (input->buf)
        pop(input);
}
