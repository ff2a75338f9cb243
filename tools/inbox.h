// SPDX-License-Identifier: MIT
//
// inbox: bytes of a connection that came and are not read yet, in one stretch.
//
// Usually that is the receive buffer itself, and nothing is copied. When a head is cut by the end
// of a receive, the next bytes are put behind the waiting ones: in the same buffer if they fit,
// else in one of the core's large buffers. Owns one reference.
#ifndef TOOLS_INBOX_H
#define TOOLS_INBOX_H

#include "engine/core.h"
#include "proto/span.h"

struct inbox {
    struct buf *buf;  // NULL: empty
    uint32_t at, len; // unread: [at, len)
};

// Takes over the reference on `buf`. False: no room anywhere; `buf` is given back.
bool inbox_add(struct core *core, struct inbox *inbox, struct buf *buf, uint32_t len);
void inbox_take(struct inbox *inbox, size_t len);
void inbox_drop(struct inbox *inbox);

static inline bool inbox_empty(const struct inbox *inbox)
{
    return inbox->buf == NULL;
}

static inline struct span inbox_rest(const struct inbox *inbox)
{
    if (!inbox->buf)
        return (struct span){NULL, 0};
    return span_of(inbox->buf->bytes + inbox->at, inbox->len - inbox->at);
}

#endif
