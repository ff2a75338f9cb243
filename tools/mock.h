// SPDX-License-Identifier: MIT
//
// mock: a provider that does as it is told. The parts, in reading order:
//
//   mock.c            flags, threads, signals
//   mock_client.c     a client's connection: requests in, one after the other
//   mock_ask.[ch]     what a request's JSON body wants, read as it arrives
//   mock_route.c      path and x-mock-* fields -> struct answer
//   mock_answer.[ch]  an answer leaves: pacing, cuts, stalls, splits
//   mock_out.[ch]     the sink that answers are rendered into
//   mock_openai.c mock_responses.c mock_anthropic.c   the bytes of each dialect
//
// Everything below belongs to one thread, but for the counters, which /mock/stats of any thread
// may read.
#ifndef TOOLS_MOCK_H
#define TOOLS_MOCK_H

#include <stdatomic.h>

#include "engine/conn.h"
#include "tools/args.h"
#include "tools/mock_out.h"

enum { MOCK_LISTENERS_MAX = CORE_LISTENERS_MAX, MOCK_WORKERS_MAX = 64, MOCK_DATE_LEN = 29 };

// What flags say and a request's x-mock-* fields may say otherwise.
struct mock_settings {
    uint64_t first_delay_ms, gap_ms;
    uint64_t chunks;      // content pieces in an answer
    uint64_t chunk_bytes; // of one content event, 0: as short as it is
    uint64_t reply_bytes; // of a whole chat reply's body, 0: as short as it is
    uint64_t status;
    uint64_t idle_ms; // an idle connection is closed after this
};

// One thread writes, any thread reads: relaxed atomics, never read-modify-write.
#define MOCK_COUNTERS(X)                                                                           \
    X(requests)                                                                                    \
    X(streams_open)                                                                                \
    X(streams_done)                                                                                \
    X(streams_cancelled)                                                                           \
    X(whole_open)                                                                                  \
    X(whole_done)                                                                                  \
    X(whole_cancelled)                                                                             \
    X(connections)                                                                                 \
    X(connections_accepted)                                                                        \
    X(connections_refused)                                                                         \
    X(bytes_in)                                                                                    \
    X(bytes_out)                                                                                   \
    X(events_late)

struct mock_counters {
#define X(name) _Atomic uint64_t name;
    MOCK_COUNTERS(X)
#undef X
};

static inline void mock_count(_Atomic uint64_t *counter, int64_t change)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + (uint64_t)change, memory_order_relaxed);
}

struct mock;

struct worker {
    struct core core;
    struct mock *mock;
    struct list clients; // open connections, for the end
    struct out out;
    struct mock_counters counters;
    uint64_t serial;      // numbers the answers
    uint64_t date_second; // what `date` shows
    char date[MOCK_DATE_LEN + 1];
};

struct mock {
    struct mock_settings settings;
    uint64_t connections_max;
    _Atomic uint64_t connections; // of all workers
    uint64_t worker_count;
    struct worker *workers;
};

static inline struct worker *worker_of(struct core *core)
{
    return core->owner;
}

// mock_client.c
size_t mock_client_size(void);
listener_accepted mock_accepted;
void mock_clients_close(struct worker *worker);

// The sum over all workers.
struct mock_totals {
#define X(name) uint64_t name;
    MOCK_COUNTERS(X)
#undef X
};
void mock_totals(const struct mock *mock, struct mock_totals *totals);

#endif
