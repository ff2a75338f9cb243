// SPDX-License-Identifier: MIT
//
// metrics: what one core counts. Only its own core writes; the admin port reads all cores and adds
// up.
//
// Counters are relaxed atomics written by one thread: an increment is a plain load, add and store,
// no locked instruction. A reader may see one counter a moment ahead of another, never a torn
// value.
//
// The law the log and the tests hold us to:  requests == answered + aborted + shed + in progress.
#ifndef ENGINE_METRICS_H
#define ENGINE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/config.h"
#include "proto/reply.h"

typedef _Atomic uint64_t counter;

static inline void count_add(counter *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void count(counter *c)
{
    count_add(c, 1);
}

static inline void count_set(counter *c, uint64_t value)
{
    atomic_store_explicit(c, value, memory_order_relaxed);
}

static inline uint64_t count_get(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

// Upper bounds in microseconds; the last bucket is +Inf.
enum { HISTOGRAM_BUCKETS = 26 };
extern const uint32_t histogram_bound_us[HISTOGRAM_BUCKETS - 1];

struct histogram {
    counter bucket[HISTOGRAM_BUCKETS]; // not cumulative
    counter sum_ns;
};

void histogram_add(struct histogram *histogram, uint64_t ns);

struct provider_metrics {
    counter requests;
    counter failures; // connect, reset, timeout, protocol: what was the provider's doing
    counter dials, reused;
    counter open, idle, waiting; // gauges
};

struct metrics {
    counter requests; // heads accepted for an answer
    counter answered, aborted, shed;
    counter status[6]; // by first digit; [0] unused
    counter errors[REPLY_ERROR_COUNT];
    counter bytes_received, bytes_sent; // bodies, client side
    counter connections_accepted, connections_shed;
    counter clients_gone; // left before their answer was complete
    counter retries;      // replays on a fresh connection
    counter streams_total, stream_events, stream_chunks;
    counter log_dropped;
    // gauges, refreshed by the core once a turn
    counter connections_open, streams_open, in_progress;
    counter receive_available, receive_low, starved, starved_total;
    counter ring_turns, ring_submitted, ring_completed, cq_overflow, no_buffers, sq_full;
    struct histogram latency;     // whole exchange
    struct histogram overhead;    // our own share of it
    struct histogram first_chunk; // request complete to first body byte of a stream
    struct histogram gap;         // between two chunks of a stream
    struct provider_metrics provider[CONFIG_PROVIDERS_MAX];
};

// Prometheus text (exposition format 0.0.4) and JSON of the sum over `cores`. The text is from
// alloc/heap; the caller frees it. Off the serving path.
char *metrics_prometheus(const struct config *config, struct metrics *const *cores, uint32_t n,
                         uint64_t uptime_ms);
char *metrics_json(const struct config *config, struct metrics *const *cores, uint32_t n,
                   uint64_t uptime_ms);

#endif
