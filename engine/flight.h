// SPDX-License-Identifier: MIT
//
// flight: one exchange. A request, the upstream connection it travels on, and the subscriber that
// gets the answer. Every exchange is a flight; a plain one has one subscriber.
//
//   PEEK    body arrives and is looked at; held in its receive buffers
//   QUEUED  routed; waits for a connection to the provider (dialing, or in the endpoint's line)
//   SENT    request is going or gone out; no byte of an answer yet
//   HEAD    part of the answer's head is here
//   BODY    head went to the client, body is being forwarded
//   FLUSH   all of the answer is here, the upstream is free; the client has not taken the last byte
//   yet DONE    freed at the end of the call
//
//            client_*                                         upstream_*
//   flight_open -> flight_body ... flight_body_end     flight_connected -> flight_received ...
//
// Path of the bytes, request: receive buffers -> `request` (segments; head rewritten, model
// spliced)
// -> output of the upstream connection. Answer: receive buffer of the upstream -> views -> output
// of the client. Nothing is copied but heads.
//
// Replay. A request that went out on a reused connection keeps its segments until the first byte of
// the answer: when the connection turns out to be stale, the request is sent once more on a fresh
// one (invariant 11: no byte of an answer came, and the provider closed a connection it had kept).
// The memory is lent, not owned: when receive buffers run out, replays are given up first.
#ifndef ENGINE_FLIGHT_H
#define ENGINE_FLIGHT_H

#include "engine/client.h"
#include "engine/gateway.h"
#include "engine/route.h"
#include "engine/upstream.h"
#include "proto/chunk.h"
#include "proto/framing.h"
#include "proto/peek.h"
#include "proto/sse.h"

enum flight_state {
    FLIGHT_PEEK,
    FLIGHT_QUEUED,
    FLIGHT_SENT,
    FLIGHT_HEAD,
    FLIGHT_BODY,
    FLIGHT_FLUSH,
    FLIGHT_DONE
};

enum { FLIGHT_ID_MAX = 64, FLIGHT_PATH_MAX = 64 };

// How the answer's body is framed toward the client.
enum flight_framing {
    ANSWER_NONE,    // no body
    ANSWER_AS_IS,   // Content-Length: bytes as they come
    ANSWER_CHUNKED, // whole chunks of a chunked upstream as they are, the rest framed anew
    ANSWER_CLOSE,   // HTTP/1.0 client: decoded, ends with the connection
};

struct flight {
    uint32_t magic;
    uint8_t state;   // enum flight_state
    uint8_t dialect; // enum dialect
    uint8_t method;  // enum h1_method
    uint8_t minor;
    uint64_t serial; // tells this flight from a later one in the same slot
    struct client *client;
    struct upstream *upstream;
    const struct config *config;
    int provider; // -1 until routed
    // request
    struct segment *request_first, *request_last; // waiting, or kept for a replay
    uint32_t request_bytes;
    uint32_t request_buffers; // receive buffers held by them
    struct buf *last_buf;     // the one counted last
    bool body_ended;          // the client sent its whole body
    bool body_chunked;        // toward the upstream
    bool send_failed;         // the upstream takes no more; its answer may still come
    bool replayable, replaying;
    uint8_t attempts;
    // the head as it came, while the body is looked at
    struct buf *head_buf;
    const uint8_t *head;
    uint32_t head_len;
    uint64_t body_length; // declared; UINT64_MAX: chunked
    uint64_t body_seen;   // bytes of it that came
    // answer
    struct input input; // a head that is not complete yet
    size_t head_from;
    uint8_t answer;  // enum flight_framing
    uint8_t framing; // enum framing_kind of the upstream's answer
    bool upstream_keep_alive;
    bool is_sse, counted_stream;
    bool tells_end; // a stream in this dialect says by an event of its own that it is over
    bool head_sent;
    bool paused; // the client has no room: the upstream is not read
    uint16_t status;
    uint64_t left; // FRAMING_LENGTH: bytes to come
    struct chunk chunk;
    struct buf *trailer; // of a chunked answer, NULL: none so far
    uint32_t trailer_len;
    uint64_t bytes_out;
    // times, nanoseconds of the core's clock
    uint64_t began_ns, complete_ns, last_chunk_ns;
    uint64_t overhead_ns;
    uint64_t total_deadline_ms; // 0: none
    struct list waiting;        // endpoint's line
    struct list replay;         // gateway->replays
    const char *why;
    enum reply_error error; // REPLY_ERROR_COUNT: none
    uint8_t id_len;
    char id[FLIGHT_ID_MAX];
    uint8_t path_len;
    char path[FLIGHT_PATH_MAX]; // for the log
    union {
        struct peek peek; // PEEK
        struct sse sse;   // BODY
    };
};

// Where it goes, by the config it began with. Only once it is routed.
static inline const struct config_provider *flight_target(const struct flight *flight)
{
    return &flight->config->provider[flight->provider];
}

// A new exchange for the head in gateway->request, which lies at head[0..head_len) inside `buf`.
// NULL: out of flights.
struct flight *flight_open(struct core *core, struct client *client, const struct route *route,
                           const struct framing *framing, struct buf *buf, const uint8_t *head,
                           uint32_t head_len);

// After flight_open: a request whose body need not be looked at leaves at once.
void flight_start(struct core *core, struct flight *flight);

// A piece of decoded body inside `buf`; flight_body_end when it was the last. False: the flight has
// ended (refused, failed), stop.
bool flight_body(struct core *core, struct flight *flight, struct buf *buf, const uint8_t *bytes,
                 uint32_t len);
bool flight_body_end(struct core *core, struct flight *flight);
// May the client be read on? (invariant 6)
bool flight_wants_body(struct core *core, const struct flight *flight);

// The client is gone: cancels the upstream within this turn.
void flight_client_gone(struct core *core, struct flight *flight);
// The client's output moved.
void flight_client_sent(struct core *core, struct flight *flight);
// The client's deadline passed while the answer was awaited.
void flight_client_expired(struct core *core, struct flight *flight);

// End the exchange with an error of ours: before the answer's head an ordinary answer, behind it a
// well-formed error event (streams) or a cut. `message` NULL: the default sentence.
void flight_refuse(struct core *core, struct flight *flight, enum reply_error error,
                   const char *message);

// From the upstream.
void flight_connected(struct core *core, struct flight *flight);
void flight_connect_failed(struct core *core, struct flight *flight, int error);
void flight_received(struct core *core, struct flight *flight, struct buf *buf, uint32_t len);
void flight_upstream_ended(struct core *core, struct flight *flight, int error);
void flight_upstream_sent(struct core *core, struct flight *flight);
void flight_upstream_send_failed(struct core *core, struct flight *flight);
void flight_upstream_expired(struct core *core, struct flight *flight);

// Shared by the two halves (flight_request.c, flight_answer.c).
enum flight_outcome { FLIGHT_ANSWERED, FLIGHT_ABORTED, FLIGHT_SHED };
uint64_t flight_left_ms(struct core *core, const struct flight *flight, uint64_t ms);
// A deadline for the upstream that never reaches beyond the exchange's own.
void flight_deadline(struct core *core, struct flight *flight, uint64_t ms);
bool flight_replay(struct core *core, struct flight *flight);
void flight_forget_request(struct core *core, struct flight *flight);
void flight_finish(struct core *core, struct flight *flight, enum flight_outcome outcome);

// Receive buffers ran out: give back what is only kept for replays. Returns how many were freed.
uint32_t flight_drop_replays(struct core *core);

#endif
