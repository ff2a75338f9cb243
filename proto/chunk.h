// SPDX-License-Identifier: MIT
//
// chunk: the chunked transfer coding, decoded in place (RFC 9112 section 7.1).
//
// The decoder is fed any slices of the message and returns views into them: nothing is copied.
// State is a few words, so a body may be cut anywhere, also inside a size line or between CR and
// LF. Strict: sizes are 1..15 hex digits, lines end with CRLF. Chunk extensions are ";name",
// ";name=token" or ";name=\"quoted\"" in a bounded length of printable bytes, no blanks around;
// they are dropped. Trailers must have the grammar of header fields and are returned as they are:
// whether such a name may stand in a trailer is for the caller to judge, and dropping them all is
// always right.
//
//   chunk_start(&c);
//   while (len) {
//       struct span data;
//       size_t used;
//       switch (chunk_next(&c, bytes, len, &used, &data)) {
//       case CHUNK_DATA:    ... data ...             break;   // view of body bytes
//       case CHUNK_TRAILER: ... data ...             break;   // view of raw trailer bytes
//       case CHUNK_END:     message over             return;  // bytes + used is the next message
//       case CHUNK_MORE:    all was used             break;
//       case CHUNK_BAD:     close                    return;
//       }
//       bytes += used; len -= used;
//   }
//
// Bounds: CHUNK_EXTENSION_MAX bytes of extension per chunk, CHUNK_TRAILER_MAX bytes of trailers.
#ifndef PROTO_CHUNK_H
#define PROTO_CHUNK_H

#include "proto/span.h"

enum {
    CHUNK_EXTENSION_MAX = 256,
    CHUNK_TRAILER_MAX = 8192,
    CHUNK_SIZE_LINE_MAX = 16 + 2, // what chunk_size_line may write
};

enum chunk_result { CHUNK_MORE, CHUNK_DATA, CHUNK_TRAILER, CHUNK_END, CHUNK_BAD = -1 };

struct chunk {
    uint64_t left;  // bytes of the current chunk still to come
    uint16_t line;  // bytes of extension or trailer seen so far
    uint8_t digits; // hex digits of the size seen so far
    uint8_t state;  // see chunk.c
};

void chunk_start(struct chunk *chunk);

// Takes from bytes[0..len): `*used` bytes were consumed (also on CHUNK_MORE: then all of them). On
// CHUNK_DATA and CHUNK_TRAILER `*data` is a view into `bytes`. Trailer views, in order, are the raw
// bytes of the trailer section without its final empty line; the section may come in any number of
// pieces.
enum chunk_result chunk_next(struct chunk *chunk, const uint8_t *bytes, size_t len, size_t *used,
                             struct span *data);

// Is the decoder between two chunks (where a proxy may end the stream in an orderly way)?
bool chunk_at_boundary(const struct chunk *chunk);

// Write the size line of a chunk ("1a2b\r\n") to out[0..CHUNK_SIZE_LINE_MAX); returns its length.
size_t chunk_size_line(uint8_t *out, uint64_t size);

#endif
