// SPDX-License-Identifier: MIT
//
// input: bytes that were received and not consumed yet, in the buffers they arrived in.
//
// A queue of receive buffers, linked through struct buf itself. It is read one buffer at a time. A
// head must be contiguous to be parsed: it nearly always arrives in one receive and is parsed where
// it lies; when it does not, input_join() brings the first two buffers together, in the first one's
// own free space or in one of the few large buffers.
#ifndef ENGINE_INPUT_H
#define ENGINE_INPUT_H

#include "alloc/buf.h"

struct input {
    struct buf *buf; // the first; NULL: nothing
    struct buf *last;
    uint32_t at; // consumed up to here, in the first
};

// What the first buffer still holds.
static inline const uint8_t *input_bytes(const struct input *input)
{
    return input->buf->bytes + input->at;
}

static inline uint32_t input_left(const struct input *input)
{
    return input->buf->filled - input->at;
}

// Append `len` bytes that arrived in buf; takes over its reference.
void input_add(struct input *input, struct buf *buf, uint32_t len);

// Is there a second buffer behind the first?
static inline bool input_more(const struct input *input)
{
    return input->buf->next != NULL;
}

// Make the first two buffers one. False: no large buffer was free, or it would be too small.
bool input_join(struct input *input, struct buf_pool *large);

// Consume from the first buffer; it is given back with its last byte.
void input_consume(struct input *input, uint32_t len);
void input_drop(struct input *input);

#endif
