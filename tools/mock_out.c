// SPDX-License-Identifier: MIT
#include "tools/mock_out.h"

#include <string.h>

#include "alloc/check.h"

_Static_assert(sizeof MOCK_FILLER - 1 == FILLER_PERIOD, "the period of the pattern");

// -------------------------------------------------------------------------------------------- out

bool out_room(struct core *core, const struct out *out, size_t len)
{
    size_t size = core->write.size;
    size_t left = out->buf ? size - out->used : 0;
    size_t buffers = len > left ? (len - left + size - 1) / size : 0;
    // One segment for what is already pending, one per buffer begun.
    return core->write.free >= buffers &&
           core->segments.capacity - core->segments.used >= buffers + 2;
}

void out_begin(struct out *out, struct conn *conn)
{
    CHECK(out->conn == NULL);
    out->conn = conn;
    // Nobody else holds the buffer: begin at its start again, where the cache is warm.
    if (out->buf && out->buf->refs == 1)
        out->used = 0;
    out->from = out->used;
    out->pending = 0;
}

static void piece_push(struct core *core, struct out *out)
{
    if (out->used == out->from)
        return;
    bool pushed =
        conn_push(core, out->conn, out->buf, out->buf->bytes + out->from, out->used - out->from);
    CHECK(pushed); // out_room said so
    out->from = out->used;
}

static void buffer_next(struct core *core, struct out *out)
{
    if (out->buf) {
        piece_push(core, out);
        buf_unref(out->buf);
    }
    out->buf = buf_take(&core->write);
    CHECK(out->buf != NULL); // out_room said so
    out->used = out->from = 0;
}

void out_bytes(struct core *core, struct out *out, const void *bytes, size_t len)
{
    CHECK(out->conn != NULL);
    const uint8_t *from = bytes;
    out->pending += (uint32_t)len;
    while (len > 0) {
        if (!out->buf || out->used == core->write.size)
            buffer_next(core, out);
        size_t room = core->write.size - out->used;
        size_t part = len < room ? len : room;
        memcpy(out->buf->bytes + out->used, from, part);
        out->used += (uint32_t)part;
        from += part;
        len -= part;
    }
}

void out_end(struct core *core, struct out *out)
{
    if (out->buf)
        piece_push(core, out);
    out->conn = NULL;
}

void out_close(struct out *out)
{
    if (out->buf)
        buf_unref(out->buf);
    out->buf = NULL;
}

// ------------------------------------------------------------------------------------------- sink

struct sink sink_measure(void)
{
    return (struct sink){.inner_to = UINT64_MAX};
}

struct sink sink_window(struct core *core, struct out *out, uint64_t from, uint64_t to)
{
    return (struct sink){.core = core, .out = out, .from = from, .to = to, .inner_to = UINT64_MAX};
}

void sink_inner(struct sink *sink, uint64_t from, uint64_t to)
{
    sink->inner_at = 0;
    sink->inner_from = from;
    sink->inner_to = to;
}

void sink_inner_end(struct sink *sink)
{
    sink_inner(sink, 0, UINT64_MAX);
}

// The part of [at, at + len) that lies in [from, to), as offset and length.
static uint64_t clip(uint64_t at, uint64_t len, uint64_t from, uint64_t to, uint64_t *offset)
{
    uint64_t first = at > from ? at : from;
    uint64_t last = at + len < to ? at + len : to;
    if (first >= last)
        return 0;
    *offset = first - at;
    return last - first;
}

// Advance by `len` bytes; how many of them, from *offset on, are to be written.
static uint64_t pass(struct sink *sink, uint64_t len, uint64_t *offset)
{
    uint64_t inner = 0, outer = 0;
    uint64_t kept = clip(sink->inner_at, len, sink->inner_from, sink->inner_to, &inner);
    sink->inner_at += len;
    if (kept == 0)
        return 0;
    uint64_t wanted = clip(sink->at, kept, sink->from, sink->to, &outer);
    sink->at += kept;
    *offset = inner + outer;
    return wanted;
}

void sink_bytes(struct sink *sink, const void *bytes, size_t len)
{
    uint64_t offset = 0;
    uint64_t wanted = pass(sink, len, &offset);
    if (wanted)
        out_bytes(sink->core, sink->out, (const uint8_t *)bytes + offset, wanted);
}

void sink_text(struct sink *sink, const char *text)
{
    sink_bytes(sink, text, strlen(text));
}

void sink_span(struct sink *sink, struct span span)
{
    sink_bytes(sink, span.ptr, span.len);
}

void sink_number(struct sink *sink, uint64_t number)
{
    char text[20];
    char *from = text + sizeof text;
    do {
        *--from = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    sink_bytes(sink, from, (size_t)(text + sizeof text - from));
}

void sink_hex(struct sink *sink, uint64_t number, int digits)
{
    char text[16];
    CHECK(digits <= 16);
    for (int i = digits; i-- > 0; number >>= 4)
        text[i] = "0123456789abcdef"[number & 15];
    sink_bytes(sink, text, (size_t)digits);
}

void sink_token(struct sink *sink, uint64_t number)
{
    sink_bytes(sink, "tok", 3);
    sink_number(sink, number);
    sink_bytes(sink, " ", 1);
}

void sink_filler(struct sink *sink, uint64_t len)
{
    static const char pattern[] = MOCK_FILLER MOCK_FILLER MOCK_FILLER MOCK_FILLER;
    uint64_t offset = 0;
    uint64_t wanted = pass(sink, len, &offset);
    while (wanted > 0) {
        uint64_t phase = offset % FILLER_PERIOD;
        uint64_t part = sizeof pattern - 1 - phase;
        if (part > wanted)
            part = wanted;
        out_bytes(sink->core, sink->out, pattern + phase, part);
        offset += part;
        wanted -= part;
    }
}
