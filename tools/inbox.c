// SPDX-License-Identifier: MIT
#include "tools/inbox.h"

#include <string.h>

#include "alloc/check.h"

// Make room for `len` more behind the `held` unread bytes, which move to the front.
static bool make_room(struct core *core, struct inbox *inbox, uint32_t held, uint32_t len)
{
    struct buf *old = inbox->buf;
    if (held + len <= old->pool->size) {
        memmove(old->bytes, old->bytes + inbox->at, held);
        return true;
    }
    struct buf *large = held + len <= core->large.size ? buf_take(&core->large) : NULL;
    if (!large)
        return false;
    memcpy(large->bytes, old->bytes + inbox->at, held);
    buf_unref(old);
    inbox->buf = large;
    return true;
}

bool inbox_add(struct core *core, struct inbox *inbox, struct buf *buf, uint32_t len)
{
    if (!inbox->buf) {
        *inbox = (struct inbox){buf, 0, len};
        return true;
    }
    uint32_t held = inbox->len - inbox->at;
    bool fits = make_room(core, inbox, held, len);
    if (fits) {
        memcpy(inbox->buf->bytes + held, buf->bytes, len);
        inbox->at = 0;
        inbox->len = held + len;
    }
    buf_unref(buf);
    return fits;
}

void inbox_take(struct inbox *inbox, size_t len)
{
    CHECK(len <= inbox->len - inbox->at);
    inbox->at += (uint32_t)len;
    if (inbox->at == inbox->len)
        inbox_drop(inbox);
}

void inbox_drop(struct inbox *inbox)
{
    if (inbox->buf)
        buf_unref(inbox->buf);
    *inbox = (struct inbox){NULL, 0, 0};
}
