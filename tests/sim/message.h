// SPDX-License-Identifier: MIT
//
// message: what a script reads off a connection, as HTTP/1.1. Written apart from proto/, so that
// the gateway's own reading is judged by another reader; strict where the gateway must be correct,
// and without any care for speed.
//
//   message_start(&m, ...)
//   used = message_feed(&m, bytes, len)   until m.state is DONE or BAD; behind `used` begins the
//   next message_end(&m)                       the stream ended here: is the message whole?
//   message_free(&m)
#ifndef TESTS_SIM_MESSAGE_H
#define TESTS_SIM_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum message_kind { MESSAGE_REQUEST, MESSAGE_RESPONSE, MESSAGE_RESPONSE_TO_HEAD };

enum message_state {
    MESSAGE_IN_HEAD,
    MESSAGE_IN_BODY,
    MESSAGE_DONE,
    MESSAGE_BAD, // `why` says what
};

enum message_framing {
    MESSAGE_NO_BODY,
    MESSAGE_LENGTH,
    MESSAGE_CHUNKED,
    MESSAGE_TO_CLOSE,
};

enum { MESSAGE_HEAD_MAX = 96 * 1024 };

struct message {
    enum message_kind kind;
    enum message_state state;
    enum message_framing framing;
    const char *why;
    char *head; // the whole head, NUL-terminated once complete
    uint32_t head_len;
    unsigned status;   // responses
    unsigned interims; // 1xx heads that went before
    bool close;        // Connection: close, or HTTP/1.0 without keep-alive
    uint8_t *body;     // decoded
    uint32_t body_len, body_cap;
    uint64_t left;  // LENGTH: bytes to come; CHUNKED: of this chunk
    char line[512]; // CHUNKED: the line under way
    uint32_t line_len;
    uint8_t chunk;     // where in the coding, see message.c
    uint32_t trailers; // bytes
};

void message_start(struct message *message, enum message_kind kind);
void message_free(struct message *message);
size_t message_feed(struct message *message, const uint8_t *bytes, size_t len);

// The stream ended: DONE for a body that ends so, else BAD. No change if it was either already.
void message_end(struct message *message);

// Value of a field, copied to `value` (cut to `cap`); NULL if it is not there or there twice.
const char *message_field(const struct message *message, const char *name, char *value, size_t cap);

#endif
