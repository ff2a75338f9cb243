// SPDX-License-Identifier: MIT
//
// input: bytes that were received and not consumed yet, in one buffer.
//
// A head must be contiguous to be parsed. It nearly always arrives in one receive and is parsed where
// it lies. When it does not, later pieces are appended behind the first one in its own buffer, and
// beyond that in one of the few large buffers.
#ifndef ENGINE_INPUT_H
#define ENGINE_INPUT_H

#include "alloc/buf.h"

struct input {
    struct buf *buf; // NULL: nothing
    uint32_t at;     // consumed up to here
    uint32_t len;    // filled up to here
};

static inline const uint8_t *input_bytes(const struct input *input)
{
    return input->buf->bytes + input->at;
}

static inline uint32_t input_left(const struct input *input)
{
    return input->len - input->at;
}

// Takes over the reference on buf. False: no large buffer was free; buf is given back.
bool input_add(struct input *input, struct buf_pool *large, struct buf *buf, uint32_t len);
void input_consume(struct input *input, uint32_t len);
void input_drop(struct input *input);

#endif
