// SPDX-License-Identifier: MIT
//
// breaker: stop asking a provider that fails, and find out gently when it is well again. One per
// endpoint and core. It knows no clock, no dice and no network: times and random numbers are
// arguments, so that a test can stand on every boundary.
//
//               a rule tripped                time over, somebody asks
//   CLOSED -----------------------> OPEN --------------------------> HALF_OPEN
//     ^                              ^------- a probe failed -----------'  |
//     '----------------------- enough probes succeeded ----------------------'
//
//   from       to         by              when
//   CLOSED     OPEN       breaker_report  a rule tripped
//   OPEN       HALF_OPEN  breaker_allow   the time is over; whoever asks becomes the first probe
//   HALF_OPEN  OPEN       breaker_report  a probe failed
//   HALF_OPEN  CLOSED     breaker_report  probe_successes probes succeeded
//
// No other move is legal, and none happens by itself: an open breaker whose time is over is OPEN
// until somebody asks.
//
// Two rules trip it:
//   share  failures are at least failure_percent of at least min_requests attempts, counted over a
//          sliding window of ten buckets, by the time an attempt was judged
//   run    `consecutive` hard failures (no connection, reset, 5xx) without a success between them:
//          what proxies call outlier ejection; it sees a dead provider that gets little traffic.
//          A soft failure (timeout, broken stream) neither lengthens nor ends a run.
//
// It stays open for open_ms, doubled for each trip in a row up to open_max_ms, plus up to a quarter
// of that by the caller's random number, so that cores and gateways do not come back together. A
// trip is the first of its row again when the breaker was closed for open_max_ms before it.
//
// Order of calls, per attempt at the provider:
//
//   struct breaker_pass pass = breaker_allow(breaker, now_ms);
//   BREAKER_NO     do not send; pass.wait_ms says how long at least (0: until a probe is back)
//   BREAKER_YES    send
//   BREAKER_PROBE  send; this attempt decides, and holds one of probes_max places until reported
//   breaker_report(breaker, &pass, result, now_ms, random);
//
// The pass remembers the breaker's round, which every move begins anew: what was sent in an earlier
// round is news of yesterday and changes nothing. A pass may be reported as often as one likes:
//
//   reported first          later                   counts as
//   BREAKER_SUCCESS         nothing, or the others  one success
//   BREAKER_SUCCESS         BREAKER_FAILURE[_HARD]  that success, and one failure more
//   BREAKER_FAILURE[_HARD]  anything                one failure
//   BREAKER_CANCELLED       anything                nothing; a probe gives its place back
//
// So success is told when the answer has begun well (a stream that runs for minutes is not waited
// for), a stream that breaks off later is told then, and whoever frees the exchange reports
// BREAKER_CANCELLED without asking what was reported before. A zeroed pass is one that was never
// given: reporting it does nothing. A probe must be reported in the end, or its place is lost:
// every exchange has a deadline, and its owner reports when it is freed.
#ifndef ENGINE_BREAKER_H
#define ENGINE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum { BREAKER_BUCKETS = 10 };

// ------------------------------------------------------------------------------------- the window

// Two counts over the last BREAKER_BUCKETS buckets: all events, and those of them that are marked
// (here failures; in the retry budget retries). A bucket leaves the sums as a whole. A clock that
// steps back counts into the newest bucket.
struct breaker_window {
    uint64_t tick; // number of the newest bucket: time / bucket_ms
    uint32_t bucket_ms;
    uint32_t total, marked; // sums of the buckets
    struct {
        uint32_t total, marked;
    } bucket[BREAKER_BUCKETS];
};

// window_ms at least BREAKER_BUCKETS; a rest that does not divide by it is dropped.
void breaker_window_init(struct breaker_window *window, uint32_t window_ms);
// Let go of what is too old. The sums are right after this.
void breaker_window_turn(struct breaker_window *window, uint64_t now_ms);
void breaker_window_add(struct breaker_window *window, uint64_t now_ms, uint32_t total,
                        uint32_t marked);

// ------------------------------------------------------------------------------------ the breaker

struct breaker_config {
    uint32_t window_ms;       // 10 s
    uint32_t min_requests;    // 20: fewer in the window say nothing
    uint32_t failure_percent; // 50; 0 turns the share rule off
    uint32_t consecutive;     // 5; 0 turns the run rule off
    uint32_t open_ms;         // 30 s
    uint32_t open_max_ms;     // 5 min; at least open_ms
    uint32_t probes_max;      // 1: how many probes at a time; at least 1
    uint32_t probe_successes; // 2: how many must succeed, in one half-open round; at least 1
};
extern const struct breaker_config breaker_config_default;

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

enum breaker_verdict {
    BREAKER_NO, // zero: also a pass that was never given or is used up
    BREAKER_YES,
    BREAKER_PROBE,
    BREAKER_PRAISED, // only in a pass: success was reported, it may be taken back once
};

enum breaker_result {
    BREAKER_CANCELLED, // it says nothing about the provider: the client left, or is at fault
    BREAKER_SUCCESS,
    BREAKER_FAILURE,      // counts for the share rule
    BREAKER_FAILURE_HARD, // counts for both rules
};

struct breaker_pass {
    uint32_t round;
    uint32_t wait_ms; // BREAKER_NO: until it may be asked again; 0: until a probe is back
    uint8_t verdict;  // enum breaker_verdict
};

struct breaker {
    const struct breaker_config *config; // must outlive the breaker
    uint8_t state;                       // enum breaker_state
    uint32_t round;                      // moves so far
    uint32_t run;                        // CLOSED: hard failures in a row
    uint32_t trips;                      // in a row; how long it is open
    uint32_t probes_out, probes_good;    // HALF_OPEN
    uint64_t until_ms;                   // OPEN: no longer than this
    uint64_t closed_ms;                  // when it was last closed
    struct breaker_window window;        // CLOSED
    // for metrics
    uint64_t opened; // times it opened
    uint64_t denied; // times it said no
};

// Begins closed.
void breaker_init(struct breaker *breaker, const struct breaker_config *config);

// May an attempt be made now? Takes a probe's place if that is the answer.
struct breaker_pass breaker_allow(struct breaker *breaker, uint64_t now_ms);

// What breaker_allow would say; takes nothing, counts nothing. For choosing among targets.
struct breaker_pass breaker_peek(const struct breaker *breaker, uint64_t now_ms);

// What became of an attempt. Uses the pass up, as told above.
void breaker_report(struct breaker *breaker, struct breaker_pass *pass, enum breaker_result result,
                    uint64_t now_ms, uint64_t random);

// "closed", "open", "half_open".
const char *breaker_state_name(enum breaker_state state);

#endif
