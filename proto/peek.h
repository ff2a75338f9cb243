// SPDX-License-Identifier: MIT
//
// peek: what routing must know of a request's body, read in one pass while it arrives.
//
// Fed the body in slices as they come (decoded, if chunked), up to the caller's limit. It notes
// where the top-level "model" string stands, so that it can be replaced by splice, and a few facts
// for the routes. The body is only looked at: it stays in the receive buffers. JSON only; other
// bodies (multipart uploads, audio) are not peeked at.
//
// Rules: the body is an object; a second "model" is refused (two readers could disagree about which
// one counts); "model" is a string of 1..PEEK_MODEL_MAX bytes once its escapes are decoded, without
// control characters. Keys are compared decoded: "mod\u0065l" is "model". Of any other key that
// comes twice the last one counts, as with most readers.
#ifndef PROTO_PEEK_H
#define PROTO_PEEK_H

#include "proto/json.h"

enum {
    PEEK_MODEL_MAX = 255,
    PEEK_WORD_MAX = 24 // bytes of a key or number that are kept; the longest key we know has 21
};

enum peek_result {
    PEEK_MORE = 0,        // feed the next slice
    PEEK_DONE = 1,        // the object is complete (trailing whitespace may follow)
    PEEK_NOT_JSON = -1,   // offset says where
    PEEK_TOO_DEEP = -2,   // offset says where
    PEEK_NOT_OBJECT = -3, // JSON, but not an object
    PEEK_MODEL_TWICE = -4,
    PEEK_MODEL_INVALID = -5, // not a string, empty, too long, a control or an unpaired surrogate
};

struct peek {
    struct json json;
    uint64_t model_at, model_end; // absolute offsets of the bytes between the quotes of "model"
    uint64_t fed;                 // bytes of body seen
    uint32_t messages;   // elements of the top-level "messages", "input" or "contents"; a string: 1
    uint32_t max_tokens; // "max_tokens" or "max_completion_tokens"; 0 if absent or no plain number
    uint16_t model_len;  // bytes in model[]
    bool has_model;
    bool stream;                       // "stream": true
    bool tools;                        // a non-empty "tools" array is present
    uint8_t model[PEEK_MODEL_MAX + 1]; // decoded, NUL-terminated; meaningless until has_model
    // private, see peek.c
    int8_t result;               // enum peek_result: errors are sticky
    uint8_t key;                 // which top-level key the scanner is inside of
    uint8_t held;                // bytes in hold[]
    uint16_t word_len;           // decoded bytes of the word under way
    uint64_t word_from;          // how far the word under way was taken; 0 at its start
    uint8_t word[PEEK_WORD_MAX]; // a key or number
    uint8_t hold[12];            // an escape that is not whole yet
};

void peek_start(struct peek *peek);
enum peek_result peek_feed(struct peek *peek, const uint8_t *bytes, size_t len);

// The body has ended. PEEK_DONE or the error.
enum peek_result peek_end(struct peek *peek);

// A sentence for the client that names the offset or the field; a static string or written to
// `out`.
const char *peek_why(const struct peek *peek, enum peek_result result, char *out, size_t cap);

#endif
