// SPDX-License-Identifier: MIT
//
// The way out: look at the body, decide where it goes, write the head anew, splice the model, send.
#include "engine/flight.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "proto/writer.h"

// ----------------------------------------------------------------------------- the request's
// pieces

static struct segment *segment_new(struct core *core, struct buf *buf, const void *ptr, size_t len)
{
    struct segment *segment = slab_take(&core->segments);
    if (!segment)
        return NULL;
    segment->next = NULL;
    segment->ptr = ptr;
    segment->len = (uint32_t)len;
    segment->buf = buf;
    if (buf)
        buf_ref(buf);
    return segment;
}

static bool append(struct core *core, struct flight *flight, struct buf *buf, const void *ptr,
                   size_t len)
{
    struct segment *segment = segment_new(core, buf, ptr, len);
    if (!segment)
        return false;
    if (flight->request_last)
        flight->request_last->next = segment;
    else
        flight->request_first = segment;
    flight->request_last = segment;
    flight->request_bytes += segment->len;
    return true;
}

static bool append_text(struct core *core, struct flight *flight, const void *text, size_t len)
{
    CHECK(len <= SEGMENT_TEXT_MAX);
    if (!append(core, flight, NULL, NULL, len))
        return false;
    memcpy(flight->request_last->text, text, len);
    flight->request_last->ptr = flight->request_last->text;
    return true;
}

// Receive buffers held by requests that are still being looked at are bounded to half of all: what
// is under way must be able to finish.
enum { CRUMB_BYTES = 1024 }; // pieces of a body up to here do not keep their receive buffer

// A body that arrives in crumbs would hold a whole buffer for each: they are put together behind
// the last one, in its own free room.
static bool hold_crumb(struct flight *flight, const uint8_t *bytes, uint32_t len)
{
    struct buf *last = flight->last_buf;
    struct segment *segment = flight->request_last;
    if (!last || len > CRUMB_BYTES || segment->buf != last ||
        segment->ptr + segment->len != last->bytes + last->filled ||
        last->filled + len > last->pool->size)
        return false;
    memcpy(last->bytes + last->filled, bytes, len);
    last->filled += len;
    segment->len += len;
    flight->request_bytes += len;
    return true;
}

// When receive buffers are scarce, a request that will wait for its connection must not hold the
// last of them: over TLS that connection needs to receive before it can take the request.
static bool hold_copy(struct core *core, struct flight *flight, const uint8_t *bytes, uint32_t len)
{
    if (buf_available(&core->receive) >= core->receive.count / 4 || len > core->write.size)
        return false;
    struct buf *copy = buf_take(&core->write);
    if (!copy)
        return false;
    memcpy(copy->bytes, bytes, len);
    copy->filled = len;
    bool ok = append(core, flight, copy, copy->bytes, len);
    buf_unref(copy);
    return ok;
}

static bool hold(struct core *core, struct flight *flight, struct buf *buf, const uint8_t *bytes,
                 uint32_t len)
{
    struct gateway *g = gateway_of(core);
    if (buf != flight->last_buf && hold_crumb(flight, bytes, len))
        return true;
    if (hold_copy(core, flight, bytes, len))
        return true;
    if (buf != flight->last_buf) {
        if (flight->request_buffers > 0 && g->peek_held >= core->receive.count / 2)
            return false;
        flight->last_buf = buf;
        flight->request_buffers++;
        g->peek_held++;
    }
    return append(core, flight, buf, bytes, len);
}

// ---------------------------------------------------------------------------------------- the head

static void put_credentials(struct writer *w, const struct config_provider *provider)
{
    if (provider->auth == AUTH_PASSTHROUGH || !provider->api_key)
        return;
    switch (provider->kind) {
    case PROVIDER_ANTHROPIC: put_literal(w, "x-api-key: "); break;
    case PROVIDER_GEMINI: put_literal(w, "x-goog-api-key: "); break;
    default: put_literal(w, "Authorization: Bearer "); break;
    }
    put_text(w, provider->api_key);
    put_literal(w, "\r\n");
}

static uint64_t fields_to_drop(const struct config *config, const struct config_provider *provider,
                               const struct flight *flight)
{
    uint64_t drop = field_bit(H1_FIELD_HOST) | field_bit(H1_FIELD_CONTENT_LENGTH) |
                    field_bit(H1_FIELD_EXPECT) | field_bit(H1_FIELD_X_REQUEST_ID) |
                    field_bit(H1_FIELD_X_TOKENRING);
    if (provider->auth != AUTH_PASSTHROUGH)
        drop |= field_bit(H1_FIELD_AUTHORIZATION) | field_bit(H1_FIELD_X_API_KEY) |
                field_bit(H1_FIELD_API_KEY) | field_bit(H1_FIELD_X_GOOG_API_KEY) |
                field_bit(H1_FIELD_COOKIE);
    if (config->forwarded != FORWARDED_APPEND)
        drop |= field_bit(H1_FIELD_X_FORWARDED_FOR) | field_bit(H1_FIELD_FORWARDED) |
                field_bit(H1_FIELD_X_FORWARDED_PROTO);
    // A compressed stream would arrive in blocks, not in tokens.
    if (flight->peek.stream)
        drop |= field_bit(H1_FIELD_ACCEPT_ENCODING);
    return drop;
}

static void put_forwarded(struct writer *w, const struct config *config,
                          const struct flight *flight)
{
    if (config->forwarded == FORWARDED_OFF || !flight->client->peer[0])
        return;
    put_literal(w, "X-Forwarded-For: ");
    put_text(w, flight->client->peer);
    put_literal(w, "\r\n");
}

static void put_body_framing(struct writer *w, const struct flight *flight, uint64_t length)
{
    if (flight->body_chunked) {
        put_literal(w, "Transfer-Encoding: chunked\r\n");
    } else if (length > 0 || flight->method == H1_METHOD_POST || flight->method == H1_METHOD_PUT ||
               flight->method == H1_METHOD_PATCH) {
        put_literal(w, "Content-Length: ");
        put_number(w, length);
        put_literal(w, "\r\n");
    }
}

static void write_head(struct writer *w, struct gateway *g, const struct flight *flight,
                       uint64_t length)
{
    const struct config *config = flight->config;
    const struct config_provider *provider = &config->provider[flight->provider];
    put_span(w, g->request.method_text);
    put_literal(w, " ");
    CHECK(w->cap - w->at > g->route.path.len + ROUTE_PATH_EXTRA);
    w->at += route_target(w->bytes + w->at, provider, &g->route);
    put_literal(w, " HTTP/1.1\r\nHost: ");
    put_text(w, provider->authority);
    put_literal(w, "\r\n");
    put_fields(w, &g->request, fields_to_drop(config, provider, flight));
    put_body_framing(w, flight, length);
    put_credentials(w, provider);
    put_literal(w, "x-request-id: ");
    put_bytes(w, flight->id, flight->id_len);
    put_literal(w, "\r\n");
    put_forwarded(w, config, flight);
    if (config->via) {
        put_literal(w, "Via: 1.");
        put_number(w, g->request.minor);
        put_literal(w, " ");
        put_text(w, config->via_name);
        put_literal(w, "\r\n");
    }
    put_literal(w, "\r\n");
}

// The new head, in front of everything else.
static bool prepend_head(struct core *core, struct flight *flight, uint64_t length)
{
    struct gateway *g = gateway_of(core);
    const struct config_provider *provider = &flight->config->provider[flight->provider];
    size_t room = flight->head_len + ROUTE_PATH_EXTRA + 1024 + strlen(provider->authority) +
                  (provider->api_key ? strlen(provider->api_key) : 0) +
                  strlen(flight->config->via_name);
    struct buf *buf = gateway_head_buffer(g, room);
    if (!buf)
        return false;
    struct writer w = {buf->bytes, 0, buf->pool->size};
    write_head(&w, g, flight, length);
    buf->filled = (uint32_t)w.at;
    struct segment *segment = segment_new(core, buf, buf->bytes, w.at);
    buf_unref(buf);
    if (!segment)
        return false;
    segment->next = flight->request_first;
    flight->request_first = segment;
    if (!flight->request_last)
        flight->request_last = segment;
    flight->request_bytes += segment->len;
    return true;
}

// ---------------------------------------------------------------------------------------- splicing

// Cut the segment that holds body offset `at` in two, so that a segment begins exactly there.
// Returns the link that points to it.
static struct segment **split_at(struct core *core, struct flight *flight, uint64_t at)
{
    struct segment **link = &flight->request_first;
    while (*link && at >= (*link)->len) {
        at -= (*link)->len;
        link = &(*link)->next;
    }
    if (at == 0)
        return link;
    struct segment *head = *link;
    CHECK(head != NULL);
    struct segment *tail = segment_new(core, head->buf, head->ptr + at, head->len - at);
    if (!tail)
        return NULL;
    head->len = (uint32_t)at;
    tail->next = head->next;
    head->next = tail;
    if (flight->request_last == head)
        flight->request_last = tail;
    return &head->next;
}

static void drop_segments(struct core *core, struct segment *from, const struct segment *to)
{
    while (from != to) {
        struct segment *next = from->next;
        if (from->buf)
            buf_unref(from->buf);
        slab_give(&core->segments, from);
        from = next;
    }
}

// Replace the bytes between the quotes of "model" by `name`. Everything else stays where it lies.
static bool splice_model(struct core *core, struct flight *flight, const char *name, size_t len,
                         int64_t *grown)
{
    uint64_t from = flight->peek.model_at, to = flight->peek.model_end;
    struct buf *buf = gateway_head_buffer(gateway_of(core), len * 6);
    if (!buf)
        return false;
    int written = json_escape(buf->bytes, buf->pool->size, span_of(name, len));
    CHECK(written > 0);
    // The later cut first: the earlier one does not move it.
    struct segment **end = split_at(core, flight, to);
    struct segment *behind = end ? *end : NULL;
    struct segment **begin = end ? split_at(core, flight, from) : NULL;
    struct segment *middle = begin ? segment_new(core, buf, buf->bytes, (size_t)written) : NULL;
    buf_unref(buf);
    if (!middle)
        return false;
    drop_segments(core, *begin, behind);
    middle->next = behind;
    *begin = middle;
    if (!behind)
        flight->request_last = middle;
    *grown = written - (int64_t)(to - from);
    flight->request_bytes = (uint32_t)((int64_t)flight->request_bytes + *grown);
    return true;
}

// A chunked body that is not complete yet goes on as chunks: frame what is here.
static bool frame_held(struct core *core, struct flight *flight)
{
    if (flight->request_bytes == 0)
        return true;
    uint8_t line[CHUNK_SIZE_LINE_MAX];
    size_t len = chunk_size_line(line, flight->request_bytes);
    struct segment *size = segment_new(core, NULL, NULL, len);
    if (!size)
        return false;
    memcpy(size->text, line, len);
    size->ptr = size->text;
    size->next = flight->request_first;
    flight->request_first = size;
    flight->request_bytes += size->len;
    return append(core, flight, NULL, "\r\n", 2);
}

// ----------------------------------------------------------------------------------------- routing

// The head's spans live in gateway scratch: still those of this flight, or parsed again.
static void head_again(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    if (g->request_of == flight)
        return;
    enum h1_result result = h1_parse_request(&g->request, flight->head, flight->head_len);
    CHECK(result == H1_OK);
    route_head(&g->route, flight->config, &g->request);
    g->request_of = flight;
}

static bool choose(struct core *core, struct flight *flight, struct route_choice *choice)
{
    struct gateway *g = gateway_of(core);
    const struct peek *peek = &flight->peek;
    if (!route_model(choice, flight->config, &g->route, (const char *)peek->model, peek->model_len,
                     core_random(core))) {
        char why[REPLY_MESSAGE_MAX];
        int len = snprintf(why, sizeof why, "no provider serves the model \"%.*s\"",
                           (int)peek->model_len, (const char *)peek->model);
        CHECK(len > 0);
        flight_refuse(core, flight, peek->model_len ? REPLY_MODEL_NOT_FOUND : REPLY_PATH_NOT_FOUND,
                      peek->model_len ? why : NULL);
        return false;
    }
    flight->provider = choice->provider;
    flight->why = choice->why;
    // A path straight to a provider is the client's own business.
    bool straight = g->route.provider >= 0;
    if (!straight &&
        !route_speaks(&flight->config->provider[flight->provider], (enum dialect)flight->dialect)) {
        flight_refuse(core, flight, REPLY_DIALECT_UNSUPPORTED, NULL);
        return false;
    }
    return true;
}

static void overloaded(struct core *core, struct flight *flight)
{
    flight_refuse(core, flight, REPLY_OVERLOAD_MEMORY, NULL);
}

static bool assemble(struct core *core, struct flight *flight, const struct route_choice *choice)
{
    int64_t grown = 0;
    if (choice->model && flight->peek.has_model &&
        !splice_model(core, flight, choice->model, choice->model_len, &grown))
        return false;
    uint64_t length = flight->body_length;
    if (length == UINT64_MAX && flight->body_ended)
        length = flight->request_bytes;
    else if (length == UINT64_MAX)
        flight->body_chunked = true;
    else
        length = (uint64_t)((int64_t)length + grown);
    if (flight->body_chunked && !frame_held(core, flight))
        return false;
    return prepend_head(core, flight, length);
}

static void take_upstream(struct core *core, struct flight *flight, bool fresh)
{
    flight->attempts++;
    conn_deadline(core, &flight->client->conn,
                  flight_left_ms(core, flight, flight->config->timeout_connect_ms * 2u));
    switch (upstream_take(core, flight, fresh)) {
    case UPSTREAM_TAKEN: flight_connected(core, flight); return;
    case UPSTREAM_TAKE_DIALING:
    case UPSTREAM_TAKE_WAITING: return;
    case UPSTREAM_TAKE_FAILED: flight_refuse(core, flight, REPLY_UPSTREAM_BUSY, NULL); return;
    }
}

// Everything routing needs is known.
static void depart(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    head_again(core, flight);
    struct route_choice choice;
    if (!choose(core, flight, &choice))
        return;
    if (!assemble(core, flight, &choice)) {
        overloaded(core, flight);
        return;
    }
    g->peek_held -= flight->request_buffers;
    flight->request_buffers = 0;
    flight->state = FLIGHT_QUEUED;
    buf_unref(flight->head_buf);
    flight->head_buf = NULL;
    flight->complete_ns = core->now_ns;
    count(&g->metrics.provider[flight_target(flight)->slot].requests);
    take_upstream(core, flight, false);
}

// -------------------------------------------------------------------------------------- the client

void flight_start(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    CHECK(g->request_of == flight);
    const struct h1_field *coding = h1_find(&g->request, H1_FIELD_CONTENT_ENCODING);
    if (!g->route.peek) {
        depart(core, flight);
    } else if (coding && !span_equal_nocase(coding->value, SPAN("identity"))) {
        flight_refuse(core, flight, REPLY_NOT_JSON,
                      "a compressed body cannot be routed: send it without Content-Encoding");
    }
}

static enum reply_error peek_error(enum peek_result result)
{
    switch (result) {
    case PEEK_TOO_DEEP: return REPLY_TOO_DEEP;
    case PEEK_MODEL_TWICE:
    case PEEK_MODEL_INVALID: return REPLY_MODEL_INVALID;
    default: return REPLY_NOT_JSON;
    }
}

static void peek_refuse(struct core *core, struct flight *flight, enum peek_result result)
{
    char why[REPLY_MESSAGE_MAX];
    flight_refuse(core, flight, peek_error(result),
                  peek_why(&flight->peek, result, why, sizeof why));
}

static void beyond_peek(struct core *core, struct flight *flight)
{
    char why[REPLY_MESSAGE_MAX];
    int len = snprintf(why, sizeof why,
                       "\"model\" is not in the first %u bytes of the body: put it first, or raise "
                       "--peek-bytes",
                       flight->config->peek_bytes);
    CHECK(len > 0);
    flight_refuse(core, flight, REPLY_MODEL_BEYOND_PEEK, why);
}

static void peek_step(struct core *core, struct flight *flight, const uint8_t *bytes, uint32_t len)
{
    uint32_t max = flight->config->peek_bytes;
    uint32_t left = flight->peek.fed < max ? max - (uint32_t)flight->peek.fed : 0;
    enum peek_result result = peek_feed(&flight->peek, bytes, len < left ? len : left);
    if (result < 0)
        peek_refuse(core, flight, result);
    else if (result == PEEK_DONE && !flight->peek.has_model)
        flight_refuse(core, flight, REPLY_NO_MODEL, NULL);
    else if (result == PEEK_DONE)
        depart(core, flight);
    else if (flight->peek.fed >= max && !flight->peek.has_model)
        beyond_peek(core, flight);
    else if (flight->peek.fed >= max)
        depart(core, flight);
}

// Straight to the upstream's output, or to the request that waits for a connection.
static bool forward(struct core *core, struct flight *flight, struct buf *buf, const uint8_t *bytes,
                    uint32_t len)
{
    uint8_t line[CHUNK_SIZE_LINE_MAX];
    size_t line_len = flight->body_chunked ? chunk_size_line(line, len) : 0;
    bool ok = true;
    if (flight->state == FLIGHT_QUEUED) {
        if (flight->body_chunked)
            ok = append_text(core, flight, line, line_len);
        ok = ok && append(core, flight, buf, bytes, len);
        if (flight->body_chunked)
            ok = ok && append(core, flight, NULL, "\r\n", 2);
        return ok;
    }
    if (flight->send_failed || !flight->upstream)
        return true; // nobody reads it; the answer decides
    // What is not kept cannot be sent again.
    flight->replayable = false;
    struct conn *conn = &flight->upstream->conn;
    if (flight->body_chunked)
        ok = conn_push_text(core, conn, line, line_len);
    ok = ok && conn_push(core, conn, buf, bytes, len);
    if (flight->body_chunked)
        ok = ok && conn_push(core, conn, NULL, "\r\n", 2);
    return ok;
}

bool flight_body(struct core *core, struct flight *flight, struct buf *buf, const uint8_t *bytes,
                 uint32_t len)
{
    struct client *client = flight->client;
    flight->body_seen += len;
    if (flight->state != FLIGHT_PEEK) {
        if (!forward(core, flight, buf, bytes, len))
            overloaded(core, flight);
    } else if (!hold(core, flight, buf, bytes, len)) {
        overloaded(core, flight);
    } else {
        peek_step(core, flight, bytes, len);
    }
    return client->flight == flight;
}

static void end_forwarding(struct core *core, struct flight *flight)
{
    static const char last[] = "0\r\n\r\n";
    if (!flight->body_chunked)
        return;
    bool ok = true;
    if (flight->state == FLIGHT_QUEUED)
        ok = append(core, flight, NULL, last, sizeof last - 1);
    else if (flight->upstream && !flight->send_failed)
        ok = conn_push(core, &flight->upstream->conn, NULL, last, sizeof last - 1);
    if (!ok)
        overloaded(core, flight);
}

bool flight_body_end(struct core *core, struct flight *flight)
{
    struct client *client = flight->client;
    flight->body_ended = true;
    if (flight->state == FLIGHT_PEEK) {
        enum peek_result result = peek_end(&flight->peek);
        if (result < 0)
            peek_refuse(core, flight, result);
        else
            depart(core, flight);
    } else {
        end_forwarding(core, flight);
    }
    return client->flight == flight;
}

bool flight_wants_body(struct core *core, const struct flight *flight)
{
    const struct config *config = flight->config;
    switch (flight->state) {
    case FLIGHT_PEEK: return true; // bounded by peek_bytes: it departs
    case FLIGHT_QUEUED: return flight->request_bytes < config->window_bytes;
    default: break;
    }
    if (!flight->upstream || flight->send_failed)
        return true; // discarded
    const struct conn *conn = &flight->upstream->conn;
    return conn->out_bytes < config->window_bytes &&
           conn->out_segments < GATEWAY_OUTPUT_SEGMENTS_MAX;
}

// ------------------------------------------------------------------------------------ the upstream

static bool push_request(struct core *core, struct flight *flight)
{
    struct conn *conn = &flight->upstream->conn;
    for (struct segment *s = flight->request_first; s; s = s->next) {
        bool inside = s->ptr >= s->text && s->ptr < s->text + SEGMENT_TEXT_MAX;
        bool ok = inside ? conn_push_text(core, conn, s->ptr, s->len)
                         : conn_push(core, conn, s->buf, s->ptr, s->len);
        if (!ok)
            return false;
    }
    return true;
}

// The connection stands: send what there is.
void flight_connected(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    const struct config *config = flight->config;
    struct upstream *upstream = flight->upstream;
    flight->state = FLIGHT_SENT;
    if (!push_request(core, flight)) {
        overloaded(core, flight);
        return;
    }
    // Only a connection that was used before can be stale, and only a whole request can be
    // repeated.
    bool whole = flight->body_ended || flight->body_seen == flight->body_length;
    bool keep =
        upstream->reused && whole && buf_available(&core->receive) > core->receive.count / 2;
    if (keep) {
        flight->replayable = true;
        list_push_back(&g->replays, &flight->replay);
    } else {
        flight_forget_request(core, flight);
    }
    flight_deadline(core, flight, config->timeout_first_byte_ms);
    conn_deadline(core, &flight->client->conn,
                  flight_left_ms(core, flight, config->timeout_idle_ms));
    conn_receive(core, &upstream->conn, true);
    flight->overhead_ns += core_clock_ns(core) - core->now_ns;
    client_resume(core, flight->client);
}

static enum reply_error connect_error(int error)
{
    switch (error) {
    case -ETIMEDOUT: return REPLY_TIMEOUT_CONNECT;
    case -EPROTO: return REPLY_UPSTREAM_TLS;
    default: return REPLY_UPSTREAM_CONNECT;
    }
}

void flight_connect_failed(struct core *core, struct flight *flight, int error)
{
    const struct config_provider *provider = &flight->config->provider[flight->provider];
    upstream_close(core, flight->upstream);
    bool timeout = error == -ETIMEDOUT;
    if (!timeout && flight->attempts < provider->address_count) {
        take_upstream(core, flight, true); // the name has more addresses
        return;
    }
    flight_refuse(core, flight, connect_error(error), NULL);
}

// The provider closed before a byte of its answer came. On a connection from the pool that is a
// stale connection, not an answer: once more, on a fresh one.
bool flight_replay(struct core *core, struct flight *flight)
{
    if (!flight->replayable || flight->replaying || !flight->upstream->reused)
        return false;
    flight->replaying = true;
    flight->replayable = false;
    list_remove(&flight->replay);
    flight->state = FLIGHT_QUEUED;
    flight->send_failed = false;
    count(&gateway_of(core)->metrics.retries);
    upstream_close(core, flight->upstream);
    take_upstream(core, flight, true);
    return true;
}
