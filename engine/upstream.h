// SPDX-License-Identifier: MIT
//
// upstream: a connection to a provider. Lent to one flight at a time; between flights it waits in
// its endpoint's pool with a receive armed, so that a provider that closes is noticed before the
// next use.
//
//   DIALING -> BUSY -> IDLE -> BUSY ... -> closed
//
// It returns to the pool only at a message end, with no unread byte, when both sides keep alive and
// the request was sent whole (invariant 10). Anything else closes it.
//
// Generations. A reload may change where a provider lives, or its key. Then its generation changes,
// and a connection carries only flights of the generation it was dialed for: flights that began
// before the reload go where they would have gone.
#ifndef ENGINE_UPSTREAM_H
#define ENGINE_UPSTREAM_H

#include "engine/conn.h"
#include "engine/gateway.h"

struct flight;

enum upstream_state { UPSTREAM_DIALING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_GONE };

struct upstream {
    struct conn conn;      // first
    uint8_t state;         // enum upstream_state
    bool remembered;       // its TLS session was saved for the next one
    bool reused;           // carried an exchange before this one
    uint16_t slot;         // the provider's, as in gateway->endpoint
    uint32_t generation;   // the provider's when it was dialed
    struct flight *flight; // DIALING and BUSY
    struct list idle;
};

// Get the flight a connection: from the pool, by dialing, or by queueing it.
// UPSTREAM_TAKEN: flight->upstream is open (from the pool); DIALING: it will be; WAITING: queued.
enum upstream_take {
    UPSTREAM_TAKEN,
    UPSTREAM_TAKE_DIALING,
    UPSTREAM_TAKE_WAITING,
    UPSTREAM_TAKE_FAILED
};
enum upstream_take upstream_take(struct core *core, struct flight *flight, bool fresh);

// The flight is done with it. Two steps, because the flight must be gone before the connection
// serves the next one: detach, then return it to the pool (if `reusable`; else it is closed).
void upstream_detach(struct upstream *upstream);
void upstream_return(struct core *core, struct upstream *upstream, bool reusable);
// Or: detach and close at once.
void upstream_close(struct core *core, struct upstream *upstream);

// Did TLS end it (and not the transport alone)? Logged if so.
bool upstream_tls_failed(struct core *core, struct upstream *upstream);

// Forget a flight that is still queued for a connection.
void upstream_unqueue(struct gateway *gateway, struct flight *flight);

// Close every idle connection (drain, abort).
void upstream_close_idle(struct core *core);
// A new config is in force: idle connections to where nobody goes any more are closed, and lent
// ones will be when they come back.
void upstream_adopt(struct core *core, const struct config *config);

#endif
