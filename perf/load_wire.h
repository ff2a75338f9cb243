// SPDX-License-Identifier: MIT
//
// load_wire: the bytes of the bench: what its client asks, what its upstream answers, how answers
// are checked.
//
// A request is an OpenAI chat completion of 1 KiB whose message says what the upstream shall answer
// (the "order") and carries a number (the "nonce") that comes back in every answer, so that an
// answer that belongs to someone else, or a byte that changed, is seen at once:
//
//   {"model":"bench","messages":[{"role":"user","content":"bench n=0000002a c=000000c8 ..."}],...}
//
// Answers: a whole chat.completion of 1 KiB with Content-Length, or a chunked event stream of
// `chunks` pieces of `chunk_bytes`, the last of which is `data: [DONE]`.
#ifndef PERF_LOAD_WIRE_H
#define PERF_LOAD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_REQUEST_BODY = 1024,
    WIRE_REPLY_BODY = 1024,
    WIRE_REQUEST_MAX = 2048,
    WIRE_REPLY_MAX = 2560,
    WIRE_CHUNK_MIN = 160,
    WIRE_CHUNK_MAX = 4096,
    WIRE_HEAD_MAX = 2048,
};

// What the client orders. chunks == 0: a whole reply.
struct order {
    uint32_t nonce;
    uint32_t chunks;
    uint32_t chunk_bytes;
    uint32_t gap_ms; // between chunks; 0: back to back
    uint32_t hold;   // pause for ever after this many chunks; 0: never
    uint32_t window; // chunks the client may be behind; 0: as many as the sockets take
};

// small_heads: six and four fields instead of the seventeen and eighteen of the real thing.
void wire_init(bool small_heads);

// Each writes one complete message and returns its length.
size_t wire_request(char out[WIRE_REQUEST_MAX], const struct order *order);
size_t wire_reply(char out[WIRE_REPLY_MAX], const struct order *order);
size_t wire_stream_head(char out[WIRE_REPLY_MAX]);
// Chunk `index` with its chunked framing; the last one brings the end of the body with it.
size_t wire_chunk(char out[WIRE_CHUNK_MAX + 32], const struct order *order, uint32_t index);

// Reads the order out of a request body. False: it is not one of ours.
bool wire_order(const char *body, size_t len, struct order *order);
// Length of the head including its blank line, 0 if it is not complete.
size_t wire_head_len(const char *data, size_t len);
// Content-Length in a head, -1: none.
int64_t wire_content_length(const char *head, size_t len);

// Follows one answer through any cuts and any chunking a proxy may choose.
enum reader_state {
    READER_HEAD,
    READER_LENGTH, // body with Content-Length
    READER_CHUNK_SIZE,
    READER_CHUNK_DATA,
    READER_CHUNK_END,
    READER_TRAILER,
    READER_DONE,
    READER_BAD,
};

struct reader {
    enum reader_state state;
    struct order order;
    uint64_t offset;     // body bytes checked so far
    uint64_t left;       // of the body or the chunk
    uint32_t line_len;   // of a chunk size or trailer line
    uint32_t chunk_size; // while its line is read
    uint32_t head_len;
    uint32_t chunks_seen; // complete ones
    const char *fault;    // READER_BAD: why
    char head[WIRE_HEAD_MAX];
};

void reader_start(struct reader *reader, const struct order *order);
// Takes all bytes; returns the new state.
enum reader_state reader_take(struct reader *reader, const char *data, size_t len);

#endif
