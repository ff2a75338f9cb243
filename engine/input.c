// SPDX-License-Identifier: MIT
#include "engine/input.h"

#include <string.h>

#include "alloc/check.h"

static bool grow(struct input *input, struct buf_pool *large, uint32_t more)
{
    if (input->len + more <= input->buf->pool->size)
        return true;
    uint32_t left = input_left(input);
    if (left + more > large->size)
        return false;
    struct buf *bigger = buf_take(large);
    if (!bigger)
        return false;
    memcpy(bigger->bytes, input_bytes(input), left);
    buf_unref(input->buf);
    *input = (struct input){.buf = bigger, .len = left};
    return true;
}

bool input_add(struct input *input, struct buf_pool *large, struct buf *buf, uint32_t len)
{
    if (!input->buf) {
        *input = (struct input){.buf = buf, .len = len};
        return true;
    }
    bool ok = grow(input, large, len);
    if (ok) {
        memcpy(input->buf->bytes + input->len, buf->bytes, len);
        input->len += len;
    }
    buf_unref(buf);
    return ok;
}

void input_consume(struct input *input, uint32_t len)
{
    CHECK(len <= input_left(input));
    input->at += len;
    if (input->at == input->len)
        input_drop(input);
}

void input_drop(struct input *input)
{
    if (input->buf)
        buf_unref(input->buf);
    *input = (struct input){0};
}
