// SPDX-License-Identifier: MIT
//
// framing: how long is the body of this message? The only author of that answer (RFC 9112, 6).
//
// Two lengths, a length and a transfer coding, two Transfer-Encoding fields, "chunked" before
// another coding, a length that is not plain digits or does not fit 63 bits, a Transfer-Encoding in
// HTTP/1.0: each is FRAMING_BAD, and the caller answers 400 (or 502 for a response) and closes.
// There is no lenient mode. Equal duplicate Content-Length values are refused too: doubt closes the
// connection. Well-formed codings that we lack ("gzip", "gzip, chunked", "identity") are
// FRAMING_NOT_IMPLEMENTED in a request and FRAMING_BAD in a response.
#ifndef PROTO_FRAMING_H
#define PROTO_FRAMING_H

#include "proto/h1.h"

enum framing_kind {
    FRAMING_NONE,        // no body
    FRAMING_LENGTH,      // exactly `length` bytes
    FRAMING_CHUNKED,     // chunked coding, see chunk.h
    FRAMING_UNTIL_CLOSE, // responses only: the body ends with the connection
};

struct framing {
    enum framing_kind kind;
    uint64_t length;      // FRAMING_LENGTH: bytes of body; 0 otherwise
    bool keep_alive;      // the sender lets the connection live on after this message
    bool expect_continue; // request: waits for 100 before it sends the body
    bool upgrade;         // request: asks to switch protocols (Upgrade + Connection: upgrade)
};

enum framing_result {
    FRAMING_OK = 0,
    FRAMING_BAD = -1,             // ambiguous: 400 / 502 and close
    FRAMING_NOT_IMPLEMENTED = -2, // a transfer coding we do not speak: 501 and close
    FRAMING_BAD_EXPECT = -3,      // an Expect other than 100-continue: 417
    FRAMING_NO_HOST = -4,         // HTTP/1.1 without exactly one valid Host: 400
};

// Requests: also checks Host (RFC 9112 section 3.2) and that an absolute-form target agrees with
// it, byte for byte but for case. Host is a name, an IPv4 or a bracketed IPv6 address, with an
// optional port of 1..5 digits: never empty, no userinfo, no comma.
enum framing_result framing_request(struct framing *framing, const struct h1_head *head);

// Responses: `method` is that of the request it answers (HEAD has no body, CONNECT is refused). A
// 1xx or 204 that announces a body all the same has none, and its connection does not stay alive.
enum framing_result framing_response(struct framing *framing, const struct h1_head *head,
                                     enum h1_method method);

#endif
