// SPDX-License-Identifier: MIT
#include "engine/upstream.h"

#include <errno.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "engine/flight.h"
#include "engine/trust.h"

static struct upstream *upstream_of(struct conn *conn)
{
    return (struct upstream *)conn;
}

static struct endpoint *endpoint_of(struct core *core, const struct upstream *upstream)
{
    return &gateway_of(core)->endpoint[upstream->slot];
}

static void leave_pool(struct core *core, struct upstream *upstream)
{
    list_remove(&upstream->idle);
    endpoint_of(core, upstream)->idle_count--;
}

// Out of the pool at once: a closing connection must not be lent.
static void drop_idle(struct core *core, struct upstream *upstream)
{
    if (!list_empty(&upstream->idle))
        leave_pool(core, upstream);
    upstream->state = UPSTREAM_GONE;
    conn_close(core, &upstream->conn);
}

// ----------------------------------------------------------------------------------------- events

static void on_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct upstream *upstream = upstream_of(conn);
    if (upstream->flight) {
        flight_received(core, upstream->flight, buf, len);
        return;
    }
    // Bytes that nobody asked for: the next answer could not be trusted (invariant 10).
    buf_unref(buf);
    drop_idle(core, upstream);
}

static void on_ended(struct core *core, struct conn *conn, int error)
{
    struct upstream *upstream = upstream_of(conn);
    if (upstream->flight)
        flight_upstream_ended(core, upstream->flight, error);
    else
        drop_idle(core, upstream);
}

static void on_sent(struct core *core, struct conn *conn, uint32_t bytes)
{
    struct upstream *upstream = upstream_of(conn);
    if (upstream->flight)
        flight_upstream_sent(core, upstream->flight);
}

static void on_send_failed(struct core *core, struct conn *conn, int error)
{
    struct upstream *upstream = upstream_of(conn);
    if (upstream->flight)
        flight_upstream_send_failed(core, upstream->flight);
    else
        drop_idle(core, upstream);
}

// The provider's URL says https: put TLS between, before a byte is sent.
static bool secure(struct core *core, struct upstream *upstream)
{
    struct gateway *g = gateway_of(core);
    const struct flight *flight = upstream->flight;
    const struct config_provider *provider = flight_target(flight);
    struct endpoint *endpoint = endpoint_of(core, upstream);
    if (!provider->tls || upstream->conn.tls)
        return true;
    struct tls_context *context = gateway_trust(g, flight->config)->provider[flight->provider];
    CHECK(context != NULL);
    bool known = upstream->generation == endpoint->generation;
    if (!conn_tls_client(core, &upstream->conn, context, provider->host,
                         known ? endpoint->saved : NULL))
        return false;
    conn_receive(core, &upstream->conn, true);
    return true;
}

static void log_handshake(struct core *core, struct upstream *upstream)
{
    const struct config *config = upstream->flight->config;
    event_log(core, config, LOG_WARN, "provider %s: %s", flight_target(upstream->flight)->name,
              tls_error(upstream->conn.tls));
}

bool upstream_tls_failed(struct core *core, struct upstream *upstream)
{
    if (!upstream->conn.tls || tls_state(upstream->conn.tls) != TLS_FAILED ||
        tls_fault(upstream->conn.tls) == TLS_FAULT_CUT)
        return false;
    log_handshake(core, upstream);
    return true;
}

// A ticket for the next handshake: in TLS 1.3 it comes behind the first answer.
static void remember_session(struct core *core, struct upstream *upstream)
{
    struct endpoint *endpoint = endpoint_of(core, upstream);
    if (!upstream->conn.tls || upstream->remembered)
        return;
    struct tls_saved *saved = tls_save(upstream->conn.tls);
    if (!saved)
        return;
    upstream->remembered = true;
    tls_saved_free(endpoint->saved);
    endpoint->saved = saved;
}

static void on_connected(struct core *core, struct conn *conn, int error)
{
    struct upstream *upstream = upstream_of(conn);
    CHECK(upstream->state == UPSTREAM_DIALING);
    if (error == 0 && !secure(core, upstream))
        error = -EPROTO;
    if (error == 0 && conn->tls_opening)
        return; // comes again when the handshake is done
    upstream->state = UPSTREAM_BUSY;
    if (error == 0) {
        flight_connected(core, upstream->flight);
        return;
    }
    if (conn->tls)
        log_handshake(core, upstream);
    endpoint_of(core, upstream)->next_address++;
    flight_connect_failed(core, upstream->flight, error);
}

static void on_expired(struct core *core, struct conn *conn)
{
    struct upstream *upstream = upstream_of(conn);
    if (upstream->state == UPSTREAM_DIALING) {
        endpoint_of(core, upstream)->next_address++;
        flight_connect_failed(core, upstream->flight, -ETIMEDOUT);
    } else if (upstream->flight) {
        flight_upstream_expired(core, upstream->flight);
    } else {
        drop_idle(core, upstream);
    }
}

static bool dial(struct core *core, struct flight *flight);

static struct flight *next_waiting(struct endpoint *endpoint)
{
    struct list *node = list_pop_front(&endpoint->waiting);
    if (!node)
        return NULL;
    endpoint->waiting_count--;
    return LIST_OWNER(node, struct flight, waiting);
}

static void on_closed(struct core *core, struct conn *conn)
{
    struct upstream *upstream = upstream_of(conn);
    CHECK(!upstream->flight);
    struct endpoint *endpoint = endpoint_of(core, upstream);
    CHECK(list_empty(&upstream->idle));
    endpoint->open--;
    // A place is free for whoever waits longest.
    struct flight *flight = next_waiting(endpoint);
    if (flight && !dial(core, flight))
        flight_refuse(core, flight, REPLY_UPSTREAM_BUSY, NULL);
}

static const struct conn_ops upstream_ops = {
    .received = on_received,
    .ended = on_ended,
    .sent = on_sent,
    .send_failed = on_send_failed,
    .connected = on_connected,
    .expired = on_expired,
    .closed = on_closed,
};

// ------------------------------------------------------------------------------------------- take

static void lend(struct upstream *upstream, struct flight *flight)
{
    upstream->flight = flight;
    flight->upstream = upstream;
}

static bool dial(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    const struct config_provider *provider = flight_target(flight);
    struct endpoint *endpoint = &g->endpoint[provider->slot];
    if (provider->address_count == 0)
        return false;
    const struct config_address *address =
        &provider->address[endpoint->next_address % provider->address_count];
    int fd = io_socket(core->io, address->addr.any.sa_family);
    if (fd < 0)
        return false;
    struct upstream *upstream =
        (struct upstream *)conn_open(core, fd, &upstream_ops, flight->config->timeout_connect_ms);
    if (!upstream) {
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
        return false;
    }
    upstream->state = UPSTREAM_DIALING;
    upstream->slot = provider->slot;
    upstream->generation = provider->generation;
    list_init(&upstream->idle);
    lend(upstream, flight);
    endpoint->open++;
    count(&g->metrics.provider[provider->slot].dials);
    conn_connect(core, &upstream->conn, &address->addr.any, address->len);
    return true;
}

static uint32_t open_max(const struct flight *flight)
{
    uint32_t own = flight_target(flight)->connections_max;
    return own ? own : flight->config->upstream_connections;
}

enum upstream_take upstream_take(struct core *core, struct flight *flight, bool fresh)
{
    struct gateway *g = gateway_of(core);
    const struct config_provider *provider = flight_target(flight);
    struct endpoint *endpoint = &g->endpoint[provider->slot];
    struct list *node = endpoint->idle.next;
    if (!fresh && node != &endpoint->idle && provider->generation == endpoint->generation) {
        struct upstream *upstream = LIST_OWNER(node, struct upstream, idle);
        leave_pool(core, upstream);
        upstream->state = UPSTREAM_BUSY;
        lend(upstream, flight);
        count(&g->metrics.provider[provider->slot].reused);
        return UPSTREAM_TAKEN;
    }
    if (endpoint->open < open_max(flight))
        return dial(core, flight) ? UPSTREAM_TAKE_DIALING : UPSTREAM_TAKE_FAILED;
    if (endpoint->waiting_count >= flight->config->pending_max)
        return UPSTREAM_TAKE_FAILED;
    list_push_back(&endpoint->waiting, &flight->waiting);
    endpoint->waiting_count++;
    if (node != &endpoint->idle) // idle, but not for this flight: make room
        drop_idle(core, LIST_OWNER(endpoint->idle.prev, struct upstream, idle));
    return UPSTREAM_TAKE_WAITING;
}

void upstream_unqueue(struct gateway *gateway, struct flight *flight)
{
    list_remove(&flight->waiting);
    gateway->endpoint[flight_target(flight)->slot].waiting_count--;
}

// ---------------------------------------------------------------------------------------- release

void upstream_detach(struct upstream *upstream)
{
    upstream->flight->upstream = NULL;
    upstream->flight = NULL;
}

void upstream_close(struct core *core, struct upstream *upstream)
{
    upstream_detach(upstream);
    upstream->state = UPSTREAM_GONE;
    conn_close(core, &upstream->conn);
}

// A replay wants a connection nobody has used; a flight of another generation leads elsewhere.
static bool may_carry(const struct upstream *upstream, const struct flight *flight)
{
    return !flight->replaying && flight_target(flight)->generation == upstream->generation;
}

void upstream_return(struct core *core, struct upstream *upstream, bool reusable)
{
    struct gateway *g = gateway_of(core);
    struct endpoint *endpoint = endpoint_of(core, upstream);
    CHECK(!upstream->flight);
    bool quiet = upstream->conn.state == CONN_OPEN && !upstream->conn.ended &&
                 !conn_has_output(&upstream->conn) && !upstream->conn.send_armed;
    if (!reusable || !quiet || g->draining || upstream->generation != endpoint->generation) {
        upstream->state = UPSTREAM_GONE;
        conn_close(core, &upstream->conn);
        return;
    }
    upstream->reused = true;
    remember_session(core, upstream);
    // Who waits may not use this one: one place becomes free for it by closing this.
    if (!list_empty(&endpoint->waiting) &&
        !may_carry(upstream, LIST_OWNER(endpoint->waiting.next, struct flight, waiting))) {
        upstream->state = UPSTREAM_GONE;
        conn_close(core, &upstream->conn);
        return;
    }
    struct flight *waiting = next_waiting(endpoint);
    if (waiting) {
        upstream->state = UPSTREAM_BUSY;
        lend(upstream, waiting);
        count(&g->metrics.provider[upstream->slot].reused);
        flight_connected(core, waiting);
        return;
    }
    if (endpoint->idle_count >= g->config->upstream_idle) {
        upstream->state = UPSTREAM_GONE;
        conn_close(core, &upstream->conn);
        return;
    }
    upstream->state = UPSTREAM_IDLE;
    list_push_front(&endpoint->idle, &upstream->idle);
    endpoint->idle_count++;
    conn_deadline(core, &upstream->conn, g->config->timeout_upstream_idle_ms);
    conn_receive(core, &upstream->conn, true);
}

static void close_idle(struct core *core, struct endpoint *endpoint)
{
    while (!list_empty(&endpoint->idle))
        drop_idle(core, LIST_OWNER(endpoint->idle.next, struct upstream, idle));
}

void upstream_close_idle(struct core *core)
{
    for (uint32_t i = 0; i < CONFIG_PROVIDERS_MAX; i++)
        close_idle(core, &gateway_of(core)->endpoint[i]);
}

void upstream_adopt(struct core *core, const struct config *config)
{
    uint32_t generation[CONFIG_PROVIDERS_MAX] = {0}; // 0: nobody's
    for (uint32_t i = 0; i < config->provider_count; i++)
        generation[config->provider[i].slot] = config->provider[i].generation;
    for (uint32_t i = 0; i < CONFIG_PROVIDERS_MAX; i++) {
        struct endpoint *endpoint = &gateway_of(core)->endpoint[i];
        if (endpoint->generation == generation[i])
            continue;
        endpoint->generation = generation[i];
        endpoint->next_address = 0;
        tls_saved_free(endpoint->saved);
        endpoint->saved = NULL;
        close_idle(core, endpoint);
    }
}
