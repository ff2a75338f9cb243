// SPDX-License-Identifier: MIT
//
// sse: server-sent events, watched as they pass (WHATWG HTML, section 9.2 "Server-sent events").
//
// A watcher, not a parser that rebuilds: it is fed slices of the body in order, keeps a few words
// and one small capture, and answers what a gateway must know: how many events went by, whether the
// stream is between two events now, whether the dialect's terminal event was seen, whether an event
// reported an error, and the last `usage` object. Nothing is copied but at most SSE_CAPTURE_MAX
// bytes of the event that holds "usage", and the first bytes of a line or of data that a slice
// cuts. Lines may end in CRLF, LF or CR; a leading UTF-8 byte order mark, comments, "data:" without
// a space and unknown fields are tolerated. An event may be cut at any byte: the answers do not
// depend on where.
//
// An error is known as soon as its mark goes by; the terminal event when its blank line does, but
// [DONE] at once. {"error":null is no error. Usage is found by the bytes "usage" wherever they
// stand in the data (top level, message, response, x_groq); of several the last known value of each
// count wins.
#ifndef PROTO_SSE_H
#define PROTO_SSE_H

#include "proto/span.h"

enum {
    SSE_CAPTURE_MAX = 512,
    SSE_HEAD_MAX = 48, // bytes of data that must be enough to tell an error or the terminal event
    SSE_WORD_MAX = 24  // bytes of a field's or event's name; the longest we know has 19
};

// Token counts of one answer; UINT32_MAX where the provider has not said.
struct sse_usage {
    uint32_t input;  // prompt_tokens / input_tokens
    uint32_t output; // completion_tokens / output_tokens
    uint32_t cached; // prompt_tokens_details.cached_tokens / cache_read_input_tokens
};

struct sse {
    uint64_t events; // data events completed (comments do not count)
    bool has_data;   // the event under way has a data line
    bool terminal;   // "[DONE]", message_stop, response.completed|incomplete|failed went by
    bool error; // an event named "error", or whose data begins with {"error" or {"type":"error"
    bool usage_seen; // `usage` below is filled
    struct sse_usage usage;

    // private: three machines, see sse.c
    uint8_t line;           // where in a line
    bool carriage_return;   // the last byte was CR: an LF belongs to it
    bool event_seen;        // a line of the event under way went by
    bool last_event;        // the event under way is the terminal one
    bool field_is_data;     // the field under way is "data", not "event"
    uint8_t word_len;       // bytes in word, or of a byte order mark
    uint8_t head;           // do the first bytes of the data tell what it is
    uint8_t head_len;       // bytes in head_bytes
    uint8_t find;           // on the way to a usage object
    uint8_t find_match;     // bytes matched of "usage"
    uint8_t capture_string; // is the capture inside a string
    uint16_t capture_depth; // braces open in the capture
    uint16_t captured;      // bytes in capture
    uint8_t word[SSE_WORD_MAX];
    uint8_t head_bytes[SSE_HEAD_MAX];
    uint8_t capture[SSE_CAPTURE_MAX];
};

void sse_start(struct sse *sse);

// Feed the next slice of the body. Cannot fail.
void sse_feed(struct sse *sse, const uint8_t *bytes, size_t len);

// Is the stream between two events (nothing of a next event has been seen)?
bool sse_at_boundary(const struct sse *sse);

// Token counts from a whole, non-streamed JSON answer: finds the last top-level "usage" object in
// the bytes. Returns false if there is none.
bool sse_usage_from_json(struct sse_usage *usage, const uint8_t *bytes, size_t len);

#endif
