// SPDX-License-Identifier: MIT
//
// echo_server: the smallest server that uses every door of engine/conn.h. It gives back what it
// gets, itself or through a relay, and can be told by its client to misbehave.
//
// What a client sends first, and what it gets:
//
//   request:   flags (1 byte)  length (4, little-endian)  limit (4)  payload (length)
//   answer:    greeting  the first `limit` bytes of the payload  trailer  FIN
//   ECHO_ABORT: as above, but cut off by conn_close() somewhere behind the limit's byte
#ifndef TESTS_SIM_ECHO_SERVER_H
#define TESTS_SIM_ECHO_SERVER_H

#include "engine/conn.h"
#include "tests/sim/sim.h"

enum {
    ECHO_MULTISHOT = 1, // receive by multishot
    ECHO_RELAY = 2,     // through a connection to the mirror
    ECHO_RELAY_FAR = 4, // the mirror is an echo server of this world, not a script
    ECHO_ABORT = 8,
    ECHO_TEXT = 16,  // answer in pieces copied into segments, where they are small
    ECHO_WATCH = 32, // the client never ends its stream before it leaves: watch for that
};

enum { ECHO_HEADER = 9 };
#define ECHO_GREETING "welcome, stranger"
#define ECHO_TRAILER  "farewell"

// How a connection ended, as the server knows it.
enum echo_outcome {
    ECHO_NONE, // never accepted
    ECHO_OPEN,
    ECHO_SERVED,
    ECHO_SHED,        // no slot, segment or descriptor for it
    ECHO_ABORTED,     // as told
    ECHO_CLIENT_LEFT, // end of stream or an error before the request was whole, or a send failed
    ECHO_EXPIRED,
    ECHO_UPSTREAM_LEFT,
};

struct echo_counts {
    uint64_t served, shed, aborted, client_left, expired, upstream_left;
    uint64_t no_slot, no_segment, no_write_buffer, paused, watched, lingered, relayed;
};

struct echo_server {
    struct core core;
    struct sockaddr_storage mirror[2]; // a script's, an engine's
    socklen_t mirror_len[2];
    uint32_t window;    // bytes that may wait for the client before we stop receiving
    uint32_t expire_ms; // for a connection on which nothing moves
    uint8_t *outcomes;  // enum echo_outcome by number of the connection
    uint32_t outcome_count;
    struct echo_counts *counts;
};

// An open core, not yet listening.
void echo_server_open(struct echo_server *server, const struct core_config *config);
int echo_server_listen(struct echo_server *server, const struct sockaddr *addr, socklen_t len,
                       uint32_t backlog);
uint32_t echo_session_size(void);

#endif
