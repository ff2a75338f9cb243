// SPDX-License-Identifier: MIT
//
// gateway: tokenring on one core. Everything a request can reach from here is the core's own.
//
//   gateway_open(gateway, core, update)   core is open; listeners start
//   core_run(core) ...
//   GATEWAY_POST_CONFIG                   another update: a reload
//   GATEWAY_POST_RETIRE                   another process has the listeners: see gateway_retire
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
//
// A config is in force from one update to the next; a flight keeps the one it began with to its
// end. An edition is what a core keeps for a config: it goes when nothing here needs it any more.
#ifndef ENGINE_GATEWAY_H
#define ENGINE_GATEWAY_H

#include <semaphore.h>

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
    GATEWAY_POST_CONFIG = 4, // gateway->update was set
    GATEWAY_POST_RETIRE = 8,
    GATEWAY_POST_PULSE = 16, // answered by gateway->pulse
};

struct flight;
struct tls_saved;
struct trust;

// Connections to one provider from one core; found by the provider's slot, which a reload leaves
// where it is.
struct endpoint {
    uint32_t generation; // of the provider in force: idle connections are all of this one
    struct list idle;    // struct upstream, most recently used first
    struct list waiting; // struct flight, longest waiting first
    uint32_t open, idle_count, waiting_count;
    uint32_t next_address;
    struct tls_saved *saved; // resumes the next TLS session; NULL: none yet
};

// From control to a core: what is in force from now on.
struct gateway_update {
    const struct config *config;
    const struct trust *trust;
    _Atomic uint32_t *holders; // cores that hold the two above; one less when this one lets go
    // Listeners: descriptors to accept on, and tags of those to give up.
    uint32_t opened_count;
    struct {
        uint32_t tag;
        int fd;
    } opened[CORE_LISTENERS_MAX];
    uint32_t closed_count;
    uint32_t closed[CORE_LISTENERS_MAX];
    sem_t *adopted; // posted when it is in force; may be NULL
};

// A config on this core.
struct edition {
    const struct config *config;
    const struct trust *trust;
    _Atomic uint32_t *holders;
    uint32_t flights; // that began with it
    struct buf_pool pool;
    struct buf *models; // body of GET /v1/models; answers under way hold it
    uint32_t models_len;
    struct list all; // gateway->editions
};

struct gateway {
    uint32_t magic;
    struct core *core;
    const struct config *config; // in force
    const struct trust *trust;   // its
    struct edition *edition;     // its
    struct list editions;        // and those before it that are still needed
    const struct gateway_update *update;
    _Atomic bool pulse;
    struct slab flights;
    struct list clients; // every client connection
    struct list replays; // flights that keep their request for a replay, oldest first
    uint32_t client_count, client_max;
    uint64_t flight_serial; // of the last flight
    uint32_t peek_held;     // receive buffers held by requests that are not routed yet
    bool draining, aborting, retiring;
    struct timer farewell; // retiring: idle clients have had their time
    uint64_t starved_ms;   // since when receives wait and no buffer is left; 0: they do not
    struct timer relief;   // ends the patience with that
    uint64_t gauges_ms;    // when the gauges were last refreshed
    struct endpoint endpoint[CONFIG_PROVIDERS_MAX];
    // The heads being parsed right now, and whose they are; valid only within one call.
    struct h1_head request, response;
    struct route route;
    const struct flight *request_of;
    // Ready-made answers.
    uint8_t overload[REPLY_ERROR_MAX];
    size_t overload_len;
    struct metrics metrics;
};

void gateway_core_config(struct core_config *out, const struct config *config);
// The core's owner becomes the gateway.
void gateway_open(struct gateway *gateway, struct core *core, const struct gateway_update *update);
void gateway_drain(struct gateway *gateway);
// Drain for a process that accepts on the same sockets already: nobody may notice. Whoever was
// accepted here is served; idle clients are told to go with their next answer, and only closed if
// they ask for none in half the drain time.
void gateway_retire(struct gateway *gateway);
void gateway_abort(struct gateway *gateway);
void gateway_close(struct gateway *gateway);

static inline struct gateway *gateway_of(struct core *core)
{
    return (struct gateway *)core->owner;
}

// For flights: a config is held from their birth to their end.
void gateway_hold(struct gateway *gateway);
void gateway_let_go(struct gateway *gateway, const struct config *config);
// The contexts of a config that is in force or held.
const struct trust *gateway_trust(const struct gateway *gateway, const struct config *config);

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
