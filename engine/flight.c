// SPDX-License-Identifier: MIT
//
// Birth, end and failure of an exchange. The way out is in flight_request.c, the way back in
// flight_answer.c.
#include "engine/flight.h"

#include <string.h>

#include "alloc/check.h"
#include "engine/access_log.h"

#define FLIGHT_MAGIC MAGIC('f', 'l', 'i', 't')

// ------------------------------------------------------------------------------------------- open

static bool id_byte(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
}

// The client's own request id if it is short and plain, else a random one.
static void id_choose(struct core *core, struct flight *flight, const struct h1_head *head)
{
    const struct h1_field *field = h1_find(head, H1_FIELD_X_REQUEST_ID);
    if (field && field->value.len > 0 && field->value.len <= FLIGHT_ID_MAX) {
        size_t i = 0;
        while (i < field->value.len && id_byte(field->value.ptr[i]))
            i++;
        if (i == field->value.len) {
            memcpy(flight->id, field->value.ptr, i);
            flight->id_len = (uint8_t)i;
            return;
        }
    }
    static const char hex[] = "0123456789abcdef";
    uint64_t random[2] = {core_random(core), core_random(core)};
    for (size_t i = 0; i < 32; i++)
        flight->id[i] = hex[random[i / 16] >> (i % 16 * 4) & 15];
    flight->id_len = 32;
}

static void path_note(struct flight *flight, struct span target)
{
    size_t len = target.len < FLIGHT_PATH_MAX ? target.len : FLIGHT_PATH_MAX;
    memcpy(flight->path, target.ptr, len);
    flight->path_len = (uint8_t)len;
}

struct flight *flight_open(struct core *core, struct client *client, const struct route *route,
                           const struct framing *framing, struct buf *buf, const uint8_t *head,
                           uint32_t head_len)
{
    struct gateway *g = gateway_of(core);
    struct flight *flight = slab_take(&g->flights);
    if (!flight)
        return NULL;
    memset(flight, 0, offsetof(struct flight, peek));
    flight->magic = FLIGHT_MAGIC;
    flight->state = FLIGHT_PEEK;
    flight->dialect = (uint8_t)route->dialect;
    flight->method = (uint8_t)g->request.method;
    flight->minor = g->request.minor;
    flight->serial = ++g->flight_serial;
    flight->client = client;
    flight->config = g->config;
    gateway_hold(g);
    flight->provider = -1;
    flight->tells_end =
        route->peek && (route->dialect == DIALECT_OPENAI || route->dialect == DIALECT_ANTHROPIC);
    flight->error = REPLY_ERROR_COUNT;
    flight->body_length = framing->kind == FRAMING_CHUNKED ? UINT64_MAX : framing->length;
    flight->began_ns = core->now_ns;
    if (g->config->timeout_total_ms)
        flight->total_deadline_ms = core->now_ms + g->config->timeout_total_ms;
    list_init(&flight->waiting);
    list_init(&flight->replay);
    flight->head_buf = buf;
    buf_ref(buf);
    flight->head = head;
    flight->head_len = head_len;
    id_choose(core, flight, &g->request);
    path_note(flight, g->request.target);
    peek_start(&flight->peek);
    g->request_of = flight;
    return flight;
}

// ------------------------------------------------------------------------------------------ close

// Give back the request's segments: sent, or of no use any more.
void flight_forget_request(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    for (struct segment *next, *segment = flight->request_first; segment; segment = next) {
        next = segment->next;
        if (segment->buf)
            buf_unref(segment->buf);
        slab_give(&core->segments, segment);
    }
    flight->request_first = flight->request_last = NULL;
    flight->request_bytes = 0;
    if (flight->state == FLIGHT_PEEK)
        g->peek_held -= flight->request_buffers;
    flight->request_buffers = 0;
    flight->last_buf = NULL;
    flight->replayable = false;
    list_remove(&flight->replay);
}

static void log_flight(struct core *core, struct flight *flight, uint64_t now_ns)
{
    const struct config *config = flight->config;
    static const char *const names[] = {"-",      "GET",   "HEAD",    "POST",    "PUT",
                                        "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"};
    const char *method = names[flight->method];
    struct access_entry entry = {
        .peer = flight->client ? flight->client->peer : "-",
        .method = span_of(method, strlen(method)),
        .path = span_of(flight->path, flight->path_len),
        .status = flight->status,
        .bytes = flight->bytes_out,
        .total_ns = now_ns - flight->began_ns,
        .overhead_ns = flight->overhead_ns,
        .provider = flight->provider >= 0 ? config->provider[flight->provider].name : NULL,
        .why = flight->why,
        .attempts = flight->attempts,
        .error = flight->error,
        .id = span_of(flight->id, flight->id_len),
    };
    access_log(core, config, &entry);
}

static void measure(struct core *core, struct flight *flight, enum flight_outcome outcome)
{
    struct metrics *m = &gateway_of(core)->metrics;
    uint64_t now_ns = core_clock_ns(core);
    counter *const outcomes[] = {&m->answered, &m->aborted, &m->shed};
    count(outcomes[outcome]);
    if (flight->status >= 100 && flight->status < 600)
        count(&m->status[flight->status / 100]);
    histogram_add(&m->latency, now_ns - flight->began_ns);
    if (flight->head_sent)
        histogram_add(&m->overhead, flight->overhead_ns);
    if (flight->counted_stream) {
        count_set(&m->streams_open, count_get(&m->streams_open) - 1);
        count_add(&m->stream_events, flight->sse.events);
    }
    log_flight(core, flight, now_ns);
}

// The exchange is over: counted, logged, and freed. The upstream must have been released before.
void flight_finish(struct core *core, struct flight *flight, enum flight_outcome outcome)
{
    struct gateway *g = gateway_of(core);
    CHECK_MAGIC(flight, FLIGHT_MAGIC);
    CHECK(!flight->upstream);
    CHECK(list_empty(&flight->waiting));
    measure(core, flight, outcome);
    flight_forget_request(core, flight);
    input_drop(&flight->input);
    if (flight->head_buf)
        buf_unref(flight->head_buf);
    if (flight->trailer)
        buf_unref(flight->trailer);
    if (g->request_of == flight)
        g->request_of = NULL;
    flight->state = FLIGHT_DONE;
    flight->magic = 0;
    gateway_let_go(g, flight->config);
    slab_give(&g->flights, flight);
}

// Cut loose whatever the flight waits for.
static void leave_upstream(struct core *core, struct flight *flight)
{
    if (!list_empty(&flight->waiting))
        upstream_unqueue(gateway_of(core), flight);
    if (flight->upstream)
        upstream_close(core, flight->upstream);
}

// ---------------------------------------------------------------------------------------- failure

static bool providers_doing(enum reply_error error)
{
    switch (error) {
    case REPLY_UPSTREAM_CONNECT:
    case REPLY_UPSTREAM_TLS:
    case REPLY_UPSTREAM_RESET:
    case REPLY_UPSTREAM_PROTOCOL:
    case REPLY_UPSTREAM_HEAD_TOO_LARGE:
    case REPLY_UPSTREAM_TRUNCATED:
    case REPLY_TIMEOUT_CONNECT:
    case REPLY_TIMEOUT_FIRST_BYTE:
    case REPLY_TIMEOUT_IDLE: return true;
    default: return false;
    }
}

// The head is gone out already: a stream ends with an error event, and no answer ends cleanly.
static void cut(struct core *core, struct flight *flight, enum reply_error error,
                const char *message)
{
    struct client *client = flight->client;
    struct buf *buf = flight->is_sse ? gateway_head_buffer(gateway_of(core), 1024) : NULL;
    if (buf) {
        // [size line][event][CRLF], written behind room for the size line.
        uint8_t *event = buf->bytes + CHUNK_SIZE_LINE_MAX;
        size_t len = reply_error_event(event, (enum dialect)flight->dialect, error, message);
        if (flight->answer == ANSWER_CHUNKED) {
            uint8_t line[CHUNK_SIZE_LINE_MAX];
            size_t line_len = chunk_size_line(line, len);
            (void)conn_push_text(core, &client->conn, line, line_len);
            memcpy(event + len, "\r\n", 2);
            (void)conn_push(core, &client->conn, buf, event, len + 2);
        } else if (flight->answer == ANSWER_CLOSE) {
            (void)conn_push(core, &client->conn, buf, event, len);
        }
        buf_unref(buf);
    }
    flight_finish(core, flight, FLIGHT_ABORTED);
    conn_finish_torn(core, &client->conn);
    client_answered(core, client, false);
}

void flight_refuse(struct core *core, struct flight *flight, enum reply_error error,
                   const char *message)
{
    struct gateway *g = gateway_of(core);
    CHECK_MAGIC(flight, FLIGHT_MAGIC);
    struct client *client = flight->client;
    flight->error = error;
    count(&g->metrics.errors[error]);
    if (flight->provider >= 0 && providers_doing(error))
        count(&g->metrics.provider[flight_target(flight)->slot].failures);
    leave_upstream(core, flight);
    if (flight->head_sent) {
        cut(core, flight, error, message);
        return;
    }
    flight->status = reply_error_status(error);
    bool shed = error == REPLY_OVERLOAD_MEMORY || error == REPLY_UPSTREAM_BUSY;
    // The answer carries the flight's id: written before the flight goes.
    enum dialect dialect = (enum dialect)flight->dialect;
    client_write_error(core, client, dialect, error, message, NULL);
    flight_finish(core, flight, shed ? FLIGHT_SHED : FLIGHT_ANSWERED);
    client_answered(core, client, true);
}

void flight_client_gone(struct core *core, struct flight *flight)
{
    CHECK_MAGIC(flight, FLIGHT_MAGIC);
    leave_upstream(core, flight);
    if (!flight->head_sent)
        flight->status = 499; // nginx's number for a client that closed before the answer
    flight_finish(core, flight, FLIGHT_ABORTED);
}

// `ms`, or what is left of the exchange's own time if that is less.
uint64_t flight_left_ms(struct core *core, const struct flight *flight, uint64_t ms)
{
    if (!flight->total_deadline_ms || flight->state == FLIGHT_FLUSH)
        return ms;
    uint64_t left =
        flight->total_deadline_ms > core->now_ms ? flight->total_deadline_ms - core->now_ms : 0;
    return left < ms ? left : ms;
}

void flight_client_expired(struct core *core, struct flight *flight)
{
    struct client *client = flight->client;
    const struct config *config = flight->config;
    uint64_t still_ms = core->now_ms - client->conn.moved_ms;
    bool total = flight->total_deadline_ms && core->now_ms >= flight->total_deadline_ms;
    if (total && flight->state != FLIGHT_FLUSH) {
        flight_refuse(core, flight, REPLY_TIMEOUT_TOTAL, NULL);
    } else if (flight->state == FLIGHT_QUEUED && !flight->upstream) {
        flight_refuse(core, flight, REPLY_UPSTREAM_BUSY, NULL);
    } else if (conn_has_output(&client->conn) && still_ms >= config->timeout_idle_ms) {
        // It does not read: as good as gone.
        client->flight = NULL;
        count(&gateway_of(core)->metrics.clients_gone);
        flight->error = REPLY_CLIENT_TIMEOUT;
        flight_client_gone(core, flight);
        conn_close(core, &client->conn);
    } else {
        uint64_t left = conn_has_output(&client->conn) ? config->timeout_idle_ms - still_ms
                                                       : config->timeout_idle_ms;
        conn_deadline(core, &client->conn, flight_left_ms(core, flight, left));
    }
}

// ---------------------------------------------------------------------------------------- replays

uint32_t flight_drop_replays(struct core *core)
{
    struct gateway *g = gateway_of(core);
    uint32_t dropped = 0;
    for (struct list *node; (node = list_pop_front(&g->replays));) {
        flight_forget_request(core, LIST_OWNER(node, struct flight, replay));
        dropped++;
    }
    return dropped;
}
