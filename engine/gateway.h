// SPDX-License-Identifier: MIT
//
// gateway: tokenring on one core. Everything a request can reach from here is the core's own.
//
//   gateway_open(gateway, core, config)   core is open; listeners start
//   core_run(core) ...
//   gateway_drain(gateway)                stop accepting, finish what runs, then core->stopping
//   gateway_abort(gateway)                close everything now, then core->stopping
//   gateway_close(gateway)                after the core stopped
//
// Parts and who owns what:
//
//   client  (client.h)    a client's connection: reads requests, owns its parse state
//   flight  (flight.h)    one exchange: a request, the upstream it went to, the subscriber it
//   answers upstream (upstream.h) a connection to a provider: in the pool, or lent to one flight
//
//   client 1 --- 0..1 flight 1 --- 0..1 upstream
//
// A client lets go of its flight (client_flight_done) before either is freed; a flight lets go of
// its upstream the same way. No pointer outlives that.
#ifndef ENGINE_GATEWAY_H
#define ENGINE_GATEWAY_H

#include "engine/config.h"
#include "engine/conn.h"
#include "engine/core.h"
#include "engine/metrics.h"
#include "engine/route.h"
#include "proto/h1.h"

enum {
    GATEWAY_WRITE_SIZE = 4096,
    GATEWAY_LARGE_SIZE = H1_HEAD_MAX + 16 * 1024,
    GATEWAY_LARGE_COUNT = 64,
    GATEWAY_SEGMENTS_PER_BUFFER = 8,
    GATEWAY_OUTPUT_SEGMENTS_MAX =
        64,                 // pieces one connection may have waiting before its source stops
    GATEWAY_POST_DRAIN = 1, // bits for core_post
    GATEWAY_POST_ABORT = 2,
};

struct flight;
struct tls_saved;
struct trust;

// Connections to one provider from one core.
struct endpoint {
    struct list idle;    // struct upstream, most recently used first
    struct list waiting; // struct flight, longest waiting first
    uint32_t open, idle_count, waiting_count;
    uint32_t next_address;
    struct tls_saved *saved; // resumes the next TLS session; NULL: none yet
};

struct gateway {
    uint32_t magic;
    struct core *core;
    const struct config *config;
    const struct trust *trust;
    struct slab flights;
    struct list clients; // every client connection
    struct list replays; // flights that keep their request for a replay, oldest first
    uint32_t client_count, client_max;
    uint64_t flight_serial; // of the last flight
    uint32_t peek_held; // receive buffers held by requests that are not routed yet
    bool draining, aborting;
    uint64_t starved_ms; // since when receives wait and no buffer is left; 0: they do not
    struct timer relief; // ends the patience with that
    uint64_t gauges_ms;  // when the gauges were last refreshed
    struct endpoint endpoint[CONFIG_PROVIDERS_MAX];
    // The heads being parsed right now, and whose they are; valid only within one call.
    struct h1_head request, response;
    struct route route;
    const struct flight *request_of;
    // Ready-made answers.
    uint8_t overload[REPLY_ERROR_MAX];
    size_t overload_len;
    char *models; // body of GET /v1/models
    size_t models_len;
    struct metrics metrics;
};

void gateway_core_config(struct core_config *out, const struct config *config);
// 0, or -errno with a sentence in `error`. The core's owner becomes the gateway.
int gateway_open(struct gateway *gateway, struct core *core, const struct config *config,
                 const struct trust *trust, char *error, size_t error_len);
void gateway_drain(struct gateway *gateway);
void gateway_abort(struct gateway *gateway);
void gateway_close(struct gateway *gateway);

static inline struct gateway *gateway_of(struct core *core)
{
    return (struct gateway *)core->owner;
}

// A buffer to write a head of up to `len` bytes into: from the small pool or the large one. NULL:
// overload.
struct buf *gateway_head_buffer(struct gateway *gateway, size_t len);

// What the configured limits cost, for `tokenring check`.
struct gateway_budget {
    uint64_t receive_bytes, write_bytes, large_bytes, connection_bytes, flight_bytes, segment_bytes,
        ring_bytes, total_bytes; // per worker, address space; memory is used as it is touched
    uint32_t connection_size, flight_size; // bytes of user space per connection / per flight
    uint32_t fds;                          // per worker
    uint32_t sq_entries, cq_entries;       // per worker
};
void gateway_budget(struct gateway_budget *budget, const struct config *config);

#endif
