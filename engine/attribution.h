// SPDX-License-Identifier: MIT
//
// attribution: whose fault is it? Breakers, retries and metrics ask here, so that they agree.
//
// A client that sends nonsense must not be able to shut a provider out for everybody, and a wrong
// key of ours must not look like an outage. So every failure gets one fault:
//
//   FAULT_NONE      nobody's: it went well, the client left, or a limit on the whole exchange ended
//   it FAULT_CLIENT    the request is at fault, and would be anywhere: 400, 404, 413, 422, ...
//   FAULT_CONFIG    ours to mend: 401, 402, 403 where *our* key was sent. Another target may do
//   FAULT_OVERLOAD  the provider works but has no room now: 429, 503, 529
//   FAULT_PROVIDER  the provider fails: no connection, reset, timeout, not HTTP, 408, other 5xx
//   FAULT_GATEWAY   this gateway refused: its memory, its connections, draining
//
// and one word for the provider's breaker (breaker.h), which is not the same question: a 400 is the
// client's fault and proves that the provider is up; a 429 or a refused key says neither that it is
// up to serve nor that it is down; a 503 is an overload and counts as a failure all the same.
//
//   what                                                  fault     for the breaker
//   2xx, 3xx                                              NONE      success
//   400 404 405 406 409 .. 417 421 .. 428 431 451, 499    CLIENT    success
//   501 505 (asked for what is not there)                 CLIENT    success
//   401 402 403 407 with the client's own key             CLIENT    success
//   401 402 403 407 with our key                          CONFIG    nothing
//   429                                                   OVERLOAD  nothing
//   503 529                                               OVERLOAD  hard failure
//   500 502 504, other 5xx                                PROVIDER  hard failure
//   408, 1xx as a last answer, 6xx and above              PROVIDER  failure
//   no connection (refused, unreachable, timeout), reset,
//   not HTTP                                              PROVIDER  hard failure
//   timeout of first byte or idle, head too large, cut    PROVIDER  failure
//   timeout of the whole exchange                         NONE      nothing
//
// 501 and 505 are not the provider's health: any client could trip a breaker by asking for a path
// that does not exist there. The total timeout is nobody's, since a client may set a very short
// one; a provider that hangs is seen by the other timeouts.
#ifndef ENGINE_ATTRIBUTION_H
#define ENGINE_ATTRIBUTION_H

#include "engine/breaker.h"
#include "proto/reply.h"

enum fault {
    FAULT_NONE,
    FAULT_CLIENT,
    FAULT_CONFIG,
    FAULT_OVERLOAD,
    FAULT_PROVIDER,
    FAULT_GATEWAY,
    FAULT_COUNT
};

struct attribution {
    uint8_t fault;  // enum fault
    uint8_t result; // enum breaker_result
};

// An exchange that we ended. REPLY_ERROR_COUNT is "no error": the client left.
struct attribution attribution_error(enum reply_error error);

// A status the provider answered with. `our_key`: the credentials it saw were ours, not the
// client's.
struct attribution attribution_status(uint16_t status, bool our_key);

// The status that an error event inside a 200 stands for, by its error type or code, in any case of
// letters: "overloaded_error" is 529, "RESOURCE_EXHAUSTED" 429. What we have no name for is 500:
// the provider announced success and then failed.
uint16_t attribution_event_status(struct span type);

// For labels: "none", "client", "config", "overload", "provider", "gateway".
const char *fault_name(enum fault fault);

#endif
