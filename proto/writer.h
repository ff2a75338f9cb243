// SPDX-License-Identifier: MIT
//
// writer: put a head together in bytes the caller owns.
//
// The caller gives room for the worst case, which it can compute (the head that came, plus bounded
// additions): running over is a programmer error, not an answer.
#ifndef PROTO_WRITER_H
#define PROTO_WRITER_H

#include "alloc/check.h"
#include "proto/h1.h"

struct writer {
    uint8_t *bytes;
    size_t at, cap;
};

static inline void put_bytes(struct writer *w, const void *bytes, size_t len)
{
    CHECK(len <= w->cap - w->at);
    memcpy(w->bytes + w->at, bytes, len);
    w->at += len;
}

static inline void put_span(struct writer *w, struct span span)
{
    if (span.len)
        put_bytes(w, span.ptr, span.len);
}

#define put_literal(w, literal) put_bytes((w), (literal), sizeof(literal) - 1)

static inline void put_text(struct writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

void put_number(struct writer *w, uint64_t number);

// A set of field ids, to be left out.
static inline uint64_t field_bit(enum h1_field_id id)
{
    return 1ull << id;
}

// Every field of the connection itself (RFC 9110 section 7.6.1). Never forwarded.
#define FIELDS_HOP_BY_HOP                                                                          \
    (field_bit(H1_FIELD_CONNECTION) | field_bit(H1_FIELD_KEEP_ALIVE) |                             \
     field_bit(H1_FIELD_PROXY_CONNECTION) | field_bit(H1_FIELD_PROXY_AUTHORIZATION) |              \
     field_bit(H1_FIELD_PROXY_AUTHENTICATE) | field_bit(H1_FIELD_TE) |                             \
     field_bit(H1_FIELD_TRAILER) | field_bit(H1_FIELD_UPGRADE) |                                   \
     field_bit(H1_FIELD_TRANSFER_ENCODING))

// Copy the fields of `head` as they came, but those in `drop`, the hop-by-hop ones, and whatever
// its Connection field names.
void put_fields(struct writer *w, const struct h1_head *head, uint64_t drop);

#endif
