// SPDX-License-Identifier: MIT
//
// load: a load generator for whole and streamed requests. The parts, in reading order:
//
//   load.c           flags, threads, signals, progress
//   load_request.c   the bytes that are sent, written once
//   load_schedule.c  who may send when: closed loop, open loop, streams held open
//   load_call.c      one connection and the requests it makes
//   load_check.[ch]  an answer verified byte by byte
//   load_report.c    the results, as a table or as JSON
//
// Closed loop: each connection sends its next request when the last is answered; the rate follows
// from the latency. Open loop: requests have an intended time, start + i / rate, whether or not a
// connection is free then; latency counts from that time, so that a stall of the server is seen
// by every request that should have been sent meanwhile and not only by those few that were
// (coordinated omission).
#ifndef TOOLS_LOAD_H
#define TOOLS_LOAD_H

#include <stdatomic.h>

#include "engine/conn.h"
#include "tools/args.h"
#include "tools/histogram.h"

enum {
    LOAD_THREADS_MAX = 64,
    LOAD_PIDS_MAX = 16,
    LOAD_FIELDS_MAX = 64,
    LOAD_CONNECTING_MAX = 256, // connects under way in one thread
    LOAD_NONCE_LEN = 16,
    LOAD_GRACE_MS = 5000, // after the end, for requests under way
};

// X(id, name)
#define LOAD_ERRORS(X)                                                                             \
    X(CONNECT, "connect") /* the connection was refused or timed out */                            \
    X(STATUS_4XX, "status_4xx")                                                                    \
    X(STATUS_5XX, "status_5xx")                                                                    \
    X(STATUS_OTHER, "status_other")                                                                \
    X(RESET, "reset")         /* the connection broke before the head was complete */              \
    X(TRUNCATED, "truncated") /* the connection ended inside the body */                           \
    X(TIMEOUT, "timeout")     /* no byte came for --timeout */                                     \
    X(PROTOCOL, "protocol")   /* not HTTP */                                                       \
    X(BYTES, "bytes_wrong")   /* --verify */

enum load_error {
#define X(id, name) LOAD_##id,
    LOAD_ERRORS(X)
#undef X
        LOAD_ERROR_COUNT,
    LOAD_OK = -1
};

enum load_mode { LOAD_CLOSED, LOAD_OPEN, LOAD_HOLD };

// Read-only once the threads run.
struct load_settings {
    enum load_mode mode;
    uint64_t connections, requests, duration_ms, ramp_ms, hold_ms, timeout_ms, threads;
    double rate;
    bool stream, verify, unique, json, progress;
    uint64_t chunks; // ordered of the mock, UINT64_MAX: as it likes
    const char *congestion;
    // where to
    const char *url;
    char host[256], authority[272];
    const char *path;
    uint16_t port;
    const char *connect; // --connect: go there instead
    struct args_address address;
    // what: `before`, then a nonce if `unique`, then `after`
    const char *model, *body_file;
    uint64_t body_bytes;
    const char *fields[LOAD_FIELDS_MAX];
    size_t field_count;
    char *request;
    size_t before_len, after_len;
    // whose CPU
    uint64_t pids[LOAD_PIDS_MAX];
    size_t pid_count;
    // set when all threads are ready
    uint64_t start_ns;
};

// Read by the progress line while the thread writes: relaxed, one writer.
struct load_counters {
    _Atomic uint64_t done, failed, events, bytes, open;
};

static inline void load_count(_Atomic uint64_t *counter, int64_t change)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + (uint64_t)change, memory_order_relaxed);
}

struct load_results {
    uint64_t done, failed, abandoned, unstarted, reconnects;
    uint64_t errors[LOAD_ERROR_COUNT];
    uint64_t bytes, events, arrivals, open_peak;
    const char *wrong; // the first thing --verify found
    struct histogram latency, first, gap, connect;
};

enum load_phase { LOAD_RUNNING, LOAD_OVER };

struct load_thread {
    struct core core;
    const struct load_settings *settings;
    uint32_t index;
    enum load_phase phase;
    bool stopped;       // no new requests, none waited for (SIGINT)
    uint32_t share;     // connections of this thread
    uint64_t requests;  // of this thread; UINT64_MAX: no limit
    uint64_t started;   // tickets given out
    uint64_t *returned; // intended times of requests that a stale connection did not take
    uint32_t returned_count;
    uint32_t connecting, open, active;
    uint64_t backoff_ms; // no new connection before this: the last one was refused
    struct list calls;   // all connections
    struct list idle;    // those that wait for a request
    struct timer tick;
    uint64_t counter; // makes nonces
    struct load_counters counters;
    struct load_results results;
};

static inline struct load_thread *load_of(struct core *core)
{
    return core->owner;
}

// load_request.c. False: `error` says what is wrong with which option.
bool load_url(struct load_settings *settings, const char *url, char *error, size_t error_len);
bool load_request(struct load_settings *settings, char *error, size_t error_len);

// load_schedule.c
// The right to send one request, and when it was meant to be sent. False: not now.
bool load_ticket(struct load_thread *thread, uint64_t *intended_ns);
void load_ticket_return(struct load_thread *thread, uint64_t intended_ns);
void load_schedule_start(struct load_thread *thread);
void load_fill(struct core *core); // the turn_end hook
void load_stop(struct load_thread *thread);
// Thread body of the open loop's clock: wakes the threads when a request is due.
struct load_pacer {
    const struct load_settings *settings;
    struct load_thread *threads;
    _Atomic bool stop;
};
void *load_pace(void *pacer);

// load_call.c
size_t load_call_size(void);
bool load_call_open(struct load_thread *thread, uint64_t intended_ns);
void load_call_again(struct load_thread *thread, uint64_t intended_ns); // on an idle connection
void load_calls_close(struct load_thread *thread);
void load_failed(struct load_thread *thread, enum load_error error);

// load_report.c
const char *load_error_name(enum load_error error);
void load_results_merge(struct load_results *into, const struct load_results *from);
struct load_cpu {
    uint64_t self_ns, watched_ns[LOAD_PIDS_MAX];
    bool watched_ok[LOAD_PIDS_MAX];
};
struct load_report {
    const struct load_settings *settings;
    const struct load_results *results;
    uint64_t elapsed_ns;
    struct load_cpu cpu;
};
void load_report_table(const struct load_report *report);
void load_report_json(const struct load_report *report);

#endif
