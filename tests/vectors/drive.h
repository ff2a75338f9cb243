// SPDX-License-Identifier: MIT
//
// drive: reads a byte stream of messages as the gateway does, for tests that judge whole streams.
//
// Between requests at most one CRLF is skipped; then h1_head_complete, a parse, framing, the body,
// and the next message, until something is refused, the connection would close, or the bytes are
// used up. The bytes that are "here" always lie against an unreadable page (edge.h). Everything
// that was read goes into a hash, so that two ways of feeding the same bytes can be compared in one
// word.
//
//   drive_start(&d, false);
//   for each point at which bytes arrive:
//       drive_feed(&d, input, available);   // the whole input, and how much of it is here by now
//
// Stops for good at the first verdict but DRIVE_MORE.
#ifndef TESTS_VECTORS_DRIVE_H
#define TESTS_VECTORS_DRIVE_H

#include "proto/chunk.h"
#include "proto/framing.h"
#include "tests/unit/edge.h"

#include <stdio.h>

enum drive_verdict {
    DRIVE_MORE,    // all used, nothing wrong
    DRIVE_CLOSED,  // a message ended that ends the connection: what follows is not read
    DRIVE_UPGRADE, // CONNECT, Upgrade or 101: not HTTP any more behind this head
    DRIVE_BAD_HEAD,
    DRIVE_TOO_LARGE,
    DRIVE_BAD_FRAMING,
    DRIVE_NOT_IMPLEMENTED,
    DRIVE_BAD_EXPECT,
    DRIVE_NO_HOST,
    DRIVE_BAD_CHUNK,
    DRIVE_VERDICTS
};

static const char *const drive_names[DRIVE_VERDICTS] = {
    "more",        "closed",          "upgrade",    "bad head", "too large",
    "bad framing", "not implemented", "bad expect", "no host",  "bad chunk"};

enum drive_state { DRIVE_BETWEEN, DRIVE_HEAD, DRIVE_BODY };

struct drive {
    enum drive_verdict verdict;
    enum drive_state state;
    bool response;         // a stream of answers, each to `method`
    enum h1_method method; // of the requests that are answered
    bool add_host;         // give HTTP/1.1 requests without any Host one
    bool skip_bodies;      // read heads only, as if every message had no body
    FILE *trace;           // what was read, one line each; may be NULL
    size_t taken;          // bytes of the input that are done with
    size_t from;           // h1_head_complete's place in the head
    uint64_t left;         // of a body with a length
    unsigned messages;     // complete ones
    uint64_t hash;
    struct framing framing;
    struct chunk chunk;
    struct h1_head head;
};

static inline bool drive_refused(const struct drive *d)
{
    return d->verdict >= DRIVE_BAD_HEAD;
}

static inline void drive_start(struct drive *d, bool response)
{
    memset(d, 0, offsetof(struct drive, head));
    d->response = response;
    d->method = H1_METHOD_GET;
    d->hash = 14695981039346656037u; // FNV-1a
}

static inline void drive_hash(struct drive *d, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        d->hash = (d->hash ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
}

static inline void drive_note(struct drive *d, const char *kind, struct span text)
{
    drive_hash(d, kind, strlen(kind) + 1);
    drive_hash(d, text.ptr, text.len);
    if (d->trace && text.len)
        fprintf(d->trace, "%s=%.*s\n", kind, (int)text.len, (const char *)text.ptr);
}

// Body bytes go in without a mark, for their pieces depend on how the bytes arrive.
static inline void drive_note_body(struct drive *d, struct span data)
{
    drive_hash(d, data.ptr, data.len);
    if (d->trace)
        fprintf(d->trace, "body=%.*s\n", (int)data.len, (const char *)data.ptr);
}

static inline void drive_note_head(struct drive *d)
{
    drive_note(d, "method", d->head.method_text);
    drive_note(d, "url", d->head.target);
    drive_note(d, "status", d->head.reason);
    drive_hash(d, &d->head.status, sizeof(d->head.status));
    for (size_t i = 0; i < d->head.field_count; i++) {
        drive_note(d, "field", d->head.field[i].name);
        drive_note(d, "value", d->head.field[i].value);
    }
}

static inline void drive_end_message(struct drive *d)
{
    d->messages++;
    drive_note(d, "end", (struct span){0});
    d->state = DRIVE_BETWEEN;
    if (!d->framing.keep_alive)
        d->verdict = DRIVE_CLOSED;
}

// A Host for a head without one: that of an absolute-form target, or just any.
static inline void drive_add_host(struct h1_head *head)
{
    struct span host = SPAN("added.example");
    const uint8_t *at = head->target.ptr, *end = at + head->target.len;
    if (*at != '/' && *at != '*' && head->method != H1_METHOD_CONNECT) {
        at = (const uint8_t *)memchr(at, ':', head->target.len) + 3;
        host.ptr = at;
        while (at < end && *at != '/' && *at != '?')
            at++;
        host.len = (size_t)(at - host.ptr);
    }
    head->field[head->field_count++] =
        (struct h1_field){.name = SPAN("Host"), .value = host, .id = H1_FIELD_HOST};
}

static inline enum drive_verdict drive_framing(struct drive *d)
{
    struct h1_head *head = &d->head;
    if (d->response) {
        if (framing_response(&d->framing, head, d->method) != FRAMING_OK)
            return DRIVE_BAD_FRAMING;
        return head->status == 101 ? DRIVE_UPGRADE : DRIVE_MORE;
    }
    if (d->add_host && head->minor == 1 && !h1_find(head, H1_FIELD_HOST) &&
        head->field_count < H1_FIELDS_MAX)
        drive_add_host(head);
    switch (framing_request(&d->framing, head)) {
    case FRAMING_OK: break;
    case FRAMING_BAD: return DRIVE_BAD_FRAMING;
    case FRAMING_NOT_IMPLEMENTED: return DRIVE_NOT_IMPLEMENTED;
    case FRAMING_BAD_EXPECT: return DRIVE_BAD_EXPECT;
    case FRAMING_NO_HOST: return DRIVE_NO_HOST;
    }
    return d->framing.upgrade || head->method == H1_METHOD_CONNECT ? DRIVE_UPGRADE : DRIVE_MORE;
}

static inline size_t drive_head(struct drive *d, const uint8_t *at, size_t len)
{
    size_t head_len = 0;
    enum h1_result result = h1_head_complete(at, len, &d->from, &head_len);
    if (result == H1_OK)
        result = d->response ? h1_parse_response(&d->head, at, head_len)
                             : h1_parse_request(&d->head, at, head_len);
    if (result == H1_MORE)
        return 0;
    if (result != H1_OK) {
        d->verdict = result == H1_BAD ? DRIVE_BAD_HEAD : DRIVE_TOO_LARGE;
        return 0;
    }
    drive_note_head(d);
    d->verdict = drive_framing(d);
    if (d->skip_bodies)
        d->framing.kind = FRAMING_NONE;
    d->from = 0;
    d->left = d->framing.kind == FRAMING_LENGTH ? d->framing.length : 0;
    d->state = DRIVE_BODY;
    chunk_start(&d->chunk);
    return head_len;
}

static inline size_t drive_chunked(struct drive *d, const uint8_t *at, size_t len)
{
    size_t used;
    struct span data;
    switch (chunk_next(&d->chunk, at, len, &used, &data)) {
    case CHUNK_MORE: break;
    case CHUNK_DATA: drive_note_body(d, data); break;
    case CHUNK_TRAILER: drive_hash(d, data.ptr, data.len); break;
    case CHUNK_END: drive_end_message(d); break;
    case CHUNK_BAD: d->verdict = DRIVE_BAD_CHUNK; break;
    }
    return used;
}

// What may be taken from at[0..len) in one step; 0 with DRIVE_MORE: nothing until more is here.
static inline size_t drive_step(struct drive *d, const uint8_t *at, size_t len)
{
    size_t take = len;
    switch (d->state) {
    case DRIVE_BETWEEN:
        if (len == 0 || (len == 1 && at[0] == '\r'))
            return 0;
        d->state = DRIVE_HEAD;
        if (!d->response && at[0] == '\r' && at[1] == '\n')
            return 2;
        return drive_head(d, at, len);
    case DRIVE_HEAD: return drive_head(d, at, len);
    case DRIVE_BODY: break;
    }
    if (d->framing.kind == FRAMING_CHUNKED)
        return len ? drive_chunked(d, at, len) : 0;
    if (d->framing.kind != FRAMING_UNTIL_CLOSE && take > d->left)
        take = (size_t)d->left;
    if (take)
        drive_note_body(d, span_of(at, take));
    d->left -= d->framing.kind == FRAMING_UNTIL_CLOSE ? 0 : take;
    if (d->framing.kind != FRAMING_UNTIL_CLOSE && d->left == 0)
        drive_end_message(d);
    return take;
}

static inline void drive_feed(struct drive *d, const uint8_t *input, size_t available)
{
    size_t len = available - d->taken;
    const uint8_t *at = edge_put(input + d->taken, len);
    while (d->verdict == DRIVE_MORE) {
        enum drive_state state = d->state;
        unsigned messages = d->messages;
        size_t used = drive_step(d, at, len);
        at += used;
        len -= used;
        d->taken += used;
        if (used == 0 && d->state == state && d->messages == messages)
            return;
    }
}

// Did two ways of feeding come to the same?
static inline bool drive_same(const struct drive *a, const struct drive *b)
{
    return a->verdict == b->verdict && a->state == b->state && a->messages == b->messages &&
           a->hash == b->hash && (drive_refused(a) || a->taken == b->taken);
}

#endif
