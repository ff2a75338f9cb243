// SPDX-License-Identifier: MIT
//
// mock_out: answers are rendered, not stored. Two things live here.
//
// struct sink is what a renderer writes into. It keeps only the bytes that fall into a window of
// the whole rendering and counts the rest, so that one function serves four purposes:
//
//   window [0, 0)       how long is it?
//   window [0, all)     write it
//   window [n, n + 16K) the next piece of something large
//   window [0, n)       the part before a cut, a split, a malformed end
//
//   rendering  . . . . . . . . . . . . . . . .
//   inner        [- - - - - - - - - -)             a part of an event (split, malformed)
//   outer            [= = = = =)                   what is wanted now: these bytes are kept
//
// struct out packs kept bytes densely into the core's write buffers: many streams share one
// buffer, each piece pushed holds a reference. Room is asked for before rendering starts, so
// rendering cannot fail.
#ifndef TOOLS_MOCK_OUT_H
#define TOOLS_MOCK_OUT_H

#include "engine/conn.h"
#include "proto/span.h"

struct out {
    struct buf *buf;  // being filled; NULL: none yet
    uint32_t used;    // bytes of it that are written
    uint32_t from;    // where the piece under way begins
    uint32_t pending; // bytes written since out_begin
    struct conn *conn;
};

// Can `len` bytes be written in one go? False when buffers or segments are short: try again later.
bool out_room(struct core *core, const struct out *out, size_t len);

// Between the two, bytes go to `conn`; out_end pushes what is there.
void out_begin(struct out *out, struct conn *conn);
void out_bytes(struct core *core, struct out *out, const void *bytes, size_t len);
void out_end(struct core *core, struct out *out);
// Forget the buffer: at the end of the core.
void out_close(struct out *out);

struct sink {
    struct core *core;
    struct out *out;               // NULL: count only
    uint64_t at;                   // bytes that passed the inner window
    uint64_t from, to;             // outer window
    uint64_t inner_at;             // bytes since sink_inner
    uint64_t inner_from, inner_to; // inner window
};

// Counts; sink.at is the length afterwards.
struct sink sink_measure(void);
struct sink sink_window(struct core *core, struct out *out, uint64_t from, uint64_t to);

void sink_inner(struct sink *sink, uint64_t from, uint64_t to);
void sink_inner_end(struct sink *sink);

void sink_bytes(struct sink *sink, const void *bytes, size_t len);
void sink_text(struct sink *sink, const char *text);
void sink_span(struct sink *sink, struct span span);
void sink_number(struct sink *sink, uint64_t number);
void sink_hex(struct sink *sink, uint64_t number, int digits);

// Content. A token is "tok17 "; filler is the fixed pattern of FILLER_PERIOD letters from its
// beginning. None of their bytes needs an escape in JSON.
#define MOCK_FILLER "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz-+"
enum { FILLER_PERIOD = 64 };
void sink_token(struct sink *sink, uint64_t number);
void sink_filler(struct sink *sink, uint64_t len);

#endif
