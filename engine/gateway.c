// SPDX-License-Identifier: MIT
#include "engine/gateway.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/access_log.h"
#include "engine/client.h"
#include "engine/flight.h"
#include "engine/trust.h"
#include "engine/upstream.h"
#include "proto/json.h"
#include "proto/writer.h"

#define GATEWAY_MAGIC MAGIC('g', 'a', 't', 'e')

enum {
    SPARE_CONNECTIONS = 64, // slots beyond the limits: for refusals and closings under way
    GAUGES_EVERY_MS = 20,
    STARVED_PATIENCE_MS = 1000, // how long receives wait for buffers before holders are cut
    STARVED_CUT_MAX = 8,        // at a time
};

static_assert(sizeof(struct client) <= 512, "an idle client connection costs at most half a KiB");
static_assert(sizeof(struct client) + sizeof(struct upstream) + sizeof(struct flight) <= 2048,
              "an idle stream costs at most 2 KiB");

// ---------------------------------------------------------------------------------------- budgets

static uint32_t clients_per_worker(const struct config *config)
{
    // The kernel does not spread connections evenly: each worker may hold half as much again.
    uint32_t even = (config->max_connections + config->workers - 1) / config->workers;
    return config->workers == 1 ? even : even + even / 2;
}

static uint32_t connections_per_worker(const struct config *config)
{
    uint64_t upstreams = 0;
    for (uint32_t i = 0; i < config->provider_count; i++)
        upstreams += config->provider[i].connections_max ? config->provider[i].connections_max
                                                         : config->upstream_connections;
    uint64_t all = clients_per_worker(config) + upstreams + SPARE_CONNECTIONS;
    return all < IO_SLOTS_MAX ? (uint32_t)all : IO_SLOTS_MAX - 1;
}

static size_t largest_connection(void)
{
    return sizeof(struct client) > sizeof(struct upstream) ? sizeof(struct client)
                                                           : sizeof(struct upstream);
}

void gateway_core_config(struct core_config *out, const struct config *config)
{
    *out = (struct core_config){
        .ring_entries = config->ring_entries,
        .receive_buffers = config->buffers,
        .receive_size = config->buffer_size,
        .write_buffers = config->buffers < 256 ? 512 : config->buffers * 2,
        .write_size = GATEWAY_WRITE_SIZE,
        .large_buffers = GATEWAY_LARGE_COUNT,
        .large_size = GATEWAY_LARGE_SIZE,
        .connections = connections_per_worker(config),
        .conn_size = (uint32_t)largest_connection(),
        .segments = (config->buffers < 256 ? 256 : config->buffers) * GATEWAY_SEGMENTS_PER_BUFFER +
                    clients_per_worker(config) * 4,
        .congestion = config->congestion,
    };
    if (out->write_buffers > 32768)
        out->write_buffers = 32768;
}

void gateway_budget(struct gateway_budget *budget, const struct config *config)
{
    struct core_config core;
    gateway_core_config(&core, config);
    *budget = (struct gateway_budget){
        .receive_bytes = (uint64_t)core.receive_buffers * core.receive_size,
        .write_bytes = (uint64_t)core.write_buffers * core.write_size,
        .large_bytes = (uint64_t)core.large_buffers * core.large_size,
        .connection_bytes = slab_bytes(core.conn_size, core.connections),
        .flight_bytes = slab_bytes(sizeof(struct flight), clients_per_worker(config)),
        .segment_bytes = slab_bytes(sizeof(struct segment), core.segments),
        .ring_bytes = (uint64_t)core.ring_entries * (64 + 8 * 16),
        .connection_size = core.conn_size,
        .flight_size = sizeof(struct flight),
        .fds = core.connections + config->listener_count + 8,
        .sq_entries = core.ring_entries,
        .cq_entries = core.ring_entries * 8,
    };
    budget->total_bytes = budget->receive_bytes + budget->write_bytes + budget->large_bytes +
                          budget->connection_bytes + budget->flight_bytes + budget->segment_bytes +
                          budget->ring_bytes;
}

// ------------------------------------------------------------------------------- prepared answers

static void prepare_overload(struct gateway *g)
{
    struct reply_error_args args = {.error = REPLY_OVERLOAD_CONNECTIONS, .close = true};
    g->overload_len = reply_error(g->overload, &args);
}

// {"object":"list","data":[...]} of what the models section names.
static void prepare_models(struct edition *edition)
{
    const struct config *config = edition->config;
    size_t cap = 64;
    for (uint32_t i = 0; i < config->model_count; i++)
        cap += strlen(config->model[i].name) * 6 + 96;
    buf_pool_open(&edition->pool, BUF_LARGE, 1, (uint32_t)cap);
    edition->models = buf_take(&edition->pool);
    struct writer w = {edition->models->bytes, 0, cap};
    put_literal(&w, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < config->model_count; i++) {
        const char *name = config->model[i].name;
        put_text(&w, i ? ",{\"id\":\"" : "{\"id\":\"");
        int len = json_escape(w.bytes + w.at, w.cap - w.at, span_of(name, strlen(name)));
        CHECK(len >= 0);
        w.at += (size_t)len;
        put_literal(&w, "\",\"object\":\"model\",\"created\":0,\"owned_by\":\"tokenring\"}");
    }
    put_literal(&w, "]}");
    edition->models_len = (uint32_t)w.at;
}

// --------------------------------------------------------------------------------------- editions

static struct edition *edition_open(const struct gateway_update *update)
{
    struct edition *edition = heap_alloc(sizeof *edition);
    edition->config = update->config;
    edition->trust = update->trust;
    edition->holders = update->holders;
    list_init(&edition->all);
    prepare_models(edition);
    return edition;
}

// After this the config may be gone.
static void edition_close(struct edition *edition)
{
    CHECK(edition->flights == 0);
    CHECK(edition->models->refs == 1);
    list_remove(&edition->all);
    buf_unref(edition->models);
    buf_pool_close(&edition->pool);
    if (edition->holders)
        atomic_fetch_sub_explicit(edition->holders, 1, memory_order_release);
    heap_free(edition);
}

static void editions_close_unused(struct gateway *g)
{
    for (struct list *next, *node = g->editions.next; node != &g->editions; node = next) {
        next = node->next;
        struct edition *edition = LIST_OWNER(node, struct edition, all);
        if (edition != g->edition && edition->flights == 0 && edition->models->refs == 1)
            edition_close(edition);
    }
}

static struct edition *edition_of(const struct gateway *g, const struct config *config)
{
    if (g->config == config)
        return g->edition;
    struct list *node = g->editions.next;
    while (node != &g->editions && LIST_OWNER(node, struct edition, all)->config != config)
        node = node->next;
    CHECK(node != &g->editions); // somebody holds it
    return LIST_OWNER(node, struct edition, all);
}

void gateway_hold(struct gateway *g)
{
    g->edition->flights++;
}

void gateway_let_go(struct gateway *g, const struct config *config)
{
    struct edition *edition = edition_of(g, config);
    CHECK(edition->flights > 0);
    edition->flights--;
}

const struct trust *gateway_trust(const struct gateway *g, const struct config *config)
{
    return edition_of(g, config)->trust;
}

// Everything that depends on the config but lives longer.
static void adopt_config(struct gateway *g, const struct gateway_update *update)
{
    g->edition = edition_open(update);
    list_push_back(&g->editions, &g->edition->all);
    g->config = update->config;
    g->trust = update->trust;
    uint32_t clients = clients_per_worker(g->config);
    g->client_max = clients < g->flights.capacity ? clients : g->flights.capacity;
    upstream_adopt(g->core, g->config);
}

// The same config again: only its listeners are new.
static void adopt(struct gateway *g, const struct gateway_update *update)
{
    struct core *core = g->core;
    if (update->config != g->config)
        adopt_config(g, update);
    for (uint32_t i = 0; i < update->opened_count; i++)
        CHECK(core_listen_fd(core, update->opened[i].fd, update->opened[i].tag, client_accepted,
                             g) == 0);
    for (uint32_t i = 0; i < update->closed_count; i++)
        core_listen_leave(core, update->closed[i], true);
    if (update->adopted)
        CHECK(sem_post(update->adopted) == 0);
}

// ------------------------------------------------------------------------------------------- turn

static void gauges(struct core *core, struct gateway *g)
{
    struct metrics *m = &g->metrics;
    const struct io_stats *io = io_stats(core->io);
    count_set(&m->connections_open, g->client_count);
    count_set(&m->in_progress, g->flights.used);
    count_set(&m->receive_available, buf_available(&core->receive));
    count_set(&m->receive_low, core->receive.low);
    count_set(&m->starved, core->starved_count);
    count_set(&m->starved_total, core->starved_total);
    count_set(&m->log_dropped, core->log.dropped);
    count_set(&m->ring_turns, io->turns);
    count_set(&m->ring_submitted, io->submitted);
    count_set(&m->ring_completed, io->completed);
    count_set(&m->cq_overflow, io->cq_overflow);
    count_set(&m->no_buffers, io->no_buffers);
    count_set(&m->sq_full, io->sq_full);
    for (uint32_t i = 0; i < CONFIG_PROVIDERS_MAX; i++) {
        count_set(&m->provider[i].open, g->endpoint[i].open);
        count_set(&m->provider[i].idle, g->endpoint[i].idle_count);
        count_set(&m->provider[i].waiting, g->endpoint[i].waiting_count);
    }
}

static void stop_if_empty(struct gateway *g)
{
    if (!g->draining || g->client_count > 0)
        return;
    upstream_close_idle(g->core);
    // Listeners too must be closed, or somebody would connect to nobody.
    if (core_quiet(g->core))
        g->core->stopping = true;
}

// Out of receive buffers. Replays are given up at once. If that was not enough for a while, whoever
// holds buffers and moves no byte is cut, the longest idle first: somebody who does not read must
// not stop everybody who does.
static void starving(struct core *core, struct gateway *g)
{
    flight_drop_replays(core);
    if (g->starved_ms)
        return;
    g->starved_ms = core->now_ms;
    timer_set(&core->wheel, &g->relief, core->now_ms + STARVED_PATIENCE_MS);
}

// Answers it does not read, part of a head, or an upload its provider does not read.
static bool client_holds(const struct client *client)
{
    const struct flight *flight = client->flight;
    return client->conn.out_buffers > 0 || client->input.buf ||
           (flight && flight->upstream && flight->upstream->conn.out_buffers > 0);
}

static struct client *longest_idle(struct core *core, struct gateway *g)
{
    struct client *found = NULL;
    for (struct list *node = g->clients.next; node != &g->clients; node = node->next) {
        struct client *client = LIST_OWNER(node, struct client, all);
        if (client->conn.state != CONN_CLOSING && client_holds(client) &&
            core->now_ms - client->conn.moved_ms >= STARVED_PATIENCE_MS &&
            (!found || client->conn.moved_ms < found->conn.moved_ms))
            found = client;
    }
    return found;
}

static void relieve(struct core *core, struct timer *timer)
{
    struct gateway *g = LIST_OWNER(timer, struct gateway, relief);
    if (!g->starved_ms)
        return;
    for (int i = 0; i < STARVED_CUT_MAX; i++) {
        struct client *client = longest_idle(core, g);
        if (!client)
            break;
        client_cut(core, client);
    }
    g->starved_ms = 0; // starving() looks again
}

static void turn_end(struct core *core)
{
    struct gateway *g = gateway_of(core);
    if (core->now_ms >= g->gauges_ms + GAUGES_EVERY_MS || g->draining) {
        g->gauges_ms = core->now_ms;
        gauges(core, g);
        editions_close_unused(g);
    }
    if (core->starved_count > 0 && buf_available(&core->receive) == 0)
        starving(core, g);
    else
        g->starved_ms = 0;
    stop_if_empty(g);
}

static void posted(struct core *core, uint32_t bits)
{
    if (bits & GATEWAY_POST_DRAIN)
        gateway_drain(gateway_of(core));
    if (bits & GATEWAY_POST_ABORT)
        gateway_abort(gateway_of(core));
    if (bits & GATEWAY_POST_CONFIG)
        adopt(gateway_of(core), gateway_of(core)->update);
    if (bits & GATEWAY_POST_RETIRE)
        gateway_retire(gateway_of(core));
    if (bits & GATEWAY_POST_PULSE)
        atomic_store(&gateway_of(core)->pulse, true);
}

// ------------------------------------------------------------------------------------ open, close

static void each_client(struct gateway *g, void (*act)(struct core *, struct client *))
{
    for (struct list *next, *node = g->clients.next; node != &g->clients; node = next) {
        next = node->next;
        act(g->core, LIST_OWNER(node, struct client, all));
    }
}

static void farewell(struct core *core, struct timer *timer)
{
    each_client(LIST_OWNER(timer, struct gateway, farewell), client_drain);
}

void gateway_open(struct gateway *g, struct core *core, const struct gateway_update *update)
{
    memset(g, 0, sizeof *g);
    g->magic = GATEWAY_MAGIC;
    g->core = core;
    core->owner = g;
    core->hooks.turn_end = turn_end;
    core->hooks.posted = posted;
    list_init(&g->editions);
    list_init(&g->clients);
    list_init(&g->replays);
    timer_init(&g->relief, relieve);
    timer_init(&g->farewell, farewell);
    for (int i = 0; i < CONFIG_PROVIDERS_MAX; i++) {
        list_init(&g->endpoint[i].idle);
        list_init(&g->endpoint[i].waiting);
    }
    slab_open(&g->flights, "flights", sizeof(struct flight), clients_per_worker(update->config));
    prepare_overload(g);
    adopt(g, update);
}

void gateway_close(struct gateway *g)
{
    CHECK_MAGIC(g, GATEWAY_MAGIC);
    CHECK(g->client_count == 0);
    CHECK(g->flights.used == 0);
    timer_cancel(&g->relief);
    timer_cancel(&g->farewell);
    for (int i = 0; i < CONFIG_PROVIDERS_MAX; i++)
        tls_saved_free(g->endpoint[i].saved);
    slab_close(&g->flights);
    editions_close_unused(g);
    edition_close(g->edition);
    CHECK(list_empty(&g->editions));
    g->magic = 0;
}

void gateway_drain(struct gateway *g)
{
    CHECK_MAGIC(g, GATEWAY_MAGIC);
    if (g->draining)
        return;
    g->draining = true;
    core_listen_stop(g->core);
    each_client(g, client_drain);
    stop_if_empty(g);
}

void gateway_retire(struct gateway *g)
{
    CHECK_MAGIC(g, GATEWAY_MAGIC);
    if (g->draining)
        return;
    g->draining = g->retiring = true;
    for (uint32_t tag = 0; tag < CORE_LISTENERS_MAX; tag++)
        core_listen_leave(g->core, tag, false);
    each_client(g, client_retire);
    timer_set(&g->core->wheel, &g->farewell, g->core->now_ms + g->config->drain_timeout_ms / 2);
    stop_if_empty(g);
}

void gateway_abort(struct gateway *g)
{
    gateway_drain(g);
    g->aborting = true;
    each_client(g, client_abort);
    stop_if_empty(g);
}

struct buf *gateway_head_buffer(struct gateway *g, size_t len)
{
    struct core *core = g->core;
    if (len > GATEWAY_LARGE_SIZE)
        return NULL;
    struct buf *buf = len <= GATEWAY_WRITE_SIZE ? buf_take(&core->write) : NULL;
    if (buf)
        return buf;
    return buf_take(&core->large);
}
