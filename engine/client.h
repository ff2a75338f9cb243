// SPDX-License-Identifier: MIT
//
// client: the client's side of an exchange. Reads one request after the other (RFC 9112), strictly,
// and hands each to a flight; answers by itself what needs no provider.
//
//   IDLE ---bytes---> HEAD ---head complete---> BODY ---body complete---> WAIT ---answered---> IDLE
//     |                |                          |                         |
//     +---- EOF, timeout, drain ------------------+--- any error: answer, FIN, linger ---> gone
//
// While input waits that nobody can take (a pipelining client, a provider that reads slowly) the
// receive is stopped: that bounds a client that does not wait. Otherwise one receive stays armed,
// also while an answer is awaited, so that a client that leaves is noticed at once, before the
// first byte too.
#ifndef ENGINE_CLIENT_H
#define ENGINE_CLIENT_H

#include "engine/conn.h"
#include "engine/gateway.h"
#include "engine/input.h"
#include "proto/chunk.h"
#include "proto/framing.h"
#include "proto/reply.h"

struct flight;

enum client_state {
    CLIENT_IDLE, // between requests
    CLIENT_HEAD, // part of a head is here
    CLIENT_BODY, // head done, body arriving
    CLIENT_WAIT, // request complete, answer under way
    CLIENT_LAST, // last answer queued, the connection finishes
};

struct client {
    struct conn conn; // first
    uint8_t state;    // enum client_state
    uint8_t minor;    // HTTP/1.<minor> of the request under way
    bool keep_alive;  // after the request under way
    bool head_only;   // the request is a HEAD
    bool one_crlf;    // the one empty line allowed before a request was taken
    bool processing;  // in the reading loop: answers return to it instead of starting another
    uint8_t framing;  // enum framing_kind of the request under way
    struct chunk chunk;
    uint64_t body_left;  // FRAMING_LENGTH: bytes to come
    uint64_t body_bytes; // body bytes seen
    uint64_t head_started_ms;
    size_t head_from; // see h1_head_complete
    struct input input;
    struct flight *flight;
    struct list all; // gateway->clients
    uint32_t requests;
    char peer[46]; // address in text
};

// listener_accepted
void client_accepted(struct core *core, struct listener *listener, int fd);

// For the flight.
void client_resume(struct core *core, struct client *client); // the flight has room for body again
// The answer is complete: `reusable` if the client may send its next request on this connection.
void client_answered(struct core *core, struct client *client, bool reusable);
// Queue an error of ours as the answer: before any byte of another one. client_answered() follows.
void client_write_error(struct core *core, struct client *client, enum dialect dialect,
                        enum reply_error error, const char *message, const char *allow);

// Out of receive buffers, and this client holds some without moving: cut it.
void client_cut(struct core *core, struct client *client);
// Another process takes over: say so with the next answer.
void client_retire(struct core *core, struct client *client);
// Drain: close if between requests.
void client_drain(struct core *core, struct client *client);
// Abort: close whatever it does.
void client_abort(struct core *core, struct client *client);

#endif
