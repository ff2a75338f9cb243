// SPDX-License-Identifier: MIT
//
// retry: an attempt failed; may another follow, where, and when? A decision and nothing else: no
// clock, no dice, no network.
//
// The law (invariant 11): a request is sent again only if it provably was not acted on, or its
// route says it may be. Never once the client has a byte of an answer, never without the request's
// bytes.
//
// What counts as "not acted on":
//
//   no connection (refused, unreachable, timeout), none to be had
//   the caller knows it (attempt.not_acted_on): no byte of the request left
//   a connection from the pool that ended before a byte of the answer: stale, the provider had
//   given
//     it up. Sent once more at once on a fresh one; costs neither an attempt nor budget
//   a refusal: 429, 503, 529; 408 (the request never arrived whole); 401, 402, 403 to our key
//   a 200 whose first event is an error (by the status that it stands for, see attribution.h): the
//     provider gave up before the first token, and the client has seen nothing
//
// Everything else that is the provider's fault (reset on a fresh connection, no first byte in time,
// 500, 502, 504, an answer that is not HTTP or ends early) may have been acted on, and billed:
//
//   route `retry:`   such a request is sent again
//   safe (default)   if its method is GET or HEAD
//   idempotent       also if it carries an Idempotency-Key, and then only to the same target:
//   another
//                    provider has never heard of the key, and another model makes another body of
//                    it
//   always           always
//
// What is the client's fault (400, 404, 413, ...) is its answer: nobody is asked again.
//
// Where and when. The next target, if there is one, at once: it does not share the trouble. Else
// the same one after a pause: exponential, full jitter (anything from 0 to the step, so that a
// crowd spreads), and after a Retry-After on top of what that asks. A Retry-After above the cap is
// not waited for: the next target, or the provider's own answer goes to the client. A refused key
// is never tried on the same target again.
//
// Order of calls, per failed attempt:
//
//   decision = retry_decide(&policy, &attempt, random);
//   if (decision.act != RETRY_NO && !decision.free && !retry_budget_take(&budget, now_ms))
//       RETRY_NO after all, because of RETRY_WHY_BUDGET;
//   RETRY_NEXT: order_next();  RETRY_SAME: after decision.delay_ms, if its breaker then allows it
//
// The budget keeps retries from multiplying an outage: over the last ten seconds at most a share of
// the requests, and a floor so that little traffic can be retried at all. One per core and
// provider, that of the provider that is to be asked again or instead.
#ifndef ENGINE_RETRY_H
#define ENGINE_RETRY_H

#include "engine/breaker.h"
#include "proto/span.h"

// ------------------------------------------------------------------------------------ the decision

enum retry_permission { RETRY_SAFE, RETRY_IDEMPOTENT, RETRY_ALWAYS }; // the route's `retry:`

struct retry_policy {
    uint32_t attempts_max;       // 3, the first one included; 1: no retries (stale ones excepted)
    uint32_t backoff_ms;         // 250: the first step
    uint32_t backoff_max_ms;     // 8 s: no step is longer
    uint32_t retry_after_max_ms; // 30 s: longer is not waited for
};
extern const struct retry_policy retry_policy_default;

// How an attempt ended without an answer for the client.
enum retry_event {
    RETRY_CONNECT_FAILED,
    RETRY_TIMEOUT_CONNECT,
    RETRY_NO_CONNECTION, // all of the provider's connections are taken, and the line is full
    RETRY_RESET_REUSED,  // ended before any byte of an answer, on a connection used before
    RETRY_RESET_FRESH,   // the same on a new one
    RETRY_TIMEOUT_FIRST_BYTE,
    RETRY_TIMEOUT_IDLE,
    RETRY_PROTOCOL,    // an answer, but not HTTP, or with too large a head
    RETRY_TRUNCATED,   // an answer began and broke off
    RETRY_STATUS,      // an answer with `status`
    RETRY_FIRST_EVENT, // a 200 whose first event is an error that stands for `status`
    RETRY_EVENT_COUNT
};

struct retry_attempt {
    uint8_t event;      // enum retry_event
    uint8_t permission; // enum retry_permission
    uint16_t status;
    uint32_t number;      // of this attempt, from 1; those that were free do not count
    bool our_key;         // credentials were ours
    bool not_acted_on;    // the caller can prove it
    bool method_is_safe;  // GET or HEAD
    bool has_key;         // Idempotency-Key, which every attempt carries unchanged
    bool client_has_byte; // of an answer; interim ones (1xx) included
    bool body_kept;       // the whole request can be sent again
    bool other_target;    // order_more()
    uint64_t retry_after; // retry_after_ms(), RETRY_AFTER_NONE without one
    uint64_t left_ms;     // until the whole exchange's deadline; UINT64_MAX without one
};

enum retry_act { RETRY_NO, RETRY_SAME, RETRY_NEXT };

enum retry_why {
    RETRY_WHY_YES,
    RETRY_WHY_ANSWERED,    // the client has a byte
    RETRY_WHY_BODY,        // the request's bytes are gone
    RETRY_WHY_FINAL,       // not the provider's fault: it is the answer
    RETRY_WHY_ATTEMPTS,    // no attempts left
    RETRY_WHY_ACTED_ON,    // it may have been acted on, and the route does not permit
    RETRY_WHY_NO_TARGET,   // only another target could help, and there is none
    RETRY_WHY_RETRY_AFTER, // the provider asks for more patience than the cap
    RETRY_WHY_DEADLINE,    // the pause would outlast the exchange
    RETRY_WHY_BUDGET,      // for the caller: retry_budget_take said no
    RETRY_WHY_COUNT
};

struct retry_decision {
    uint8_t act;       // enum retry_act
    uint8_t why;       // enum retry_why
    bool free;         // stale connection: on a fresh one, not counted, no budget
    uint32_t delay_ms; // RETRY_SAME
};

struct retry_decision retry_decide(const struct retry_policy *policy,
                                   const struct retry_attempt *attempt, uint64_t random);

// For logs and labels: "yes", "answered", "body", ...
const char *retry_why_name(enum retry_why why);

// --------------------------------------------------------------------------------------
// Retry-After

#define RETRY_AFTER_NONE UINT64_MAX

// The value of a Retry-After field (RFC 9110 section 10.2.3) in milliseconds from now: seconds,
// which we also take with a fraction, as some providers send it, or a date in any of the three
// forms of HTTP. A date that has passed is 0. RETRY_AFTER_NONE if it is neither.
uint64_t retry_after_ms(struct span value, uint64_t now_wall_ms);

// ---------------------------------------------------------------------------------------- the
// budget

struct retry_budget {
    struct breaker_window window; // total: requests, marked: retries
    uint32_t percent;             // of the window's requests
    uint32_t floor;               // retries in a window that are always allowed
    uint64_t denied;              // for metrics
};

enum {
    RETRY_BUDGET_WINDOW_MS = 10 * 1000,
    RETRY_BUDGET_PERCENT = 20,   // default
    RETRY_BUDGET_PER_SECOND = 10 // default; over the window, so that a burst may use it at once
};

void retry_budget_init(struct retry_budget *budget, uint32_t percent, uint32_t per_second);
// A request (not a retry) goes to the provider.
void retry_budget_request(struct retry_budget *budget, uint64_t now_ms);
// May a retry go to the provider? True takes one from the budget.
bool retry_budget_take(struct retry_budget *budget, uint64_t now_ms);

#endif
