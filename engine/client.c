// SPDX-License-Identifier: MIT
#include "engine/client.h"

#include <string.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "engine/flight.h"
#include "engine/trust.h"
#include "proto/writer.h"

static void process(struct core *core, struct client *client);

static struct client *client_of(struct conn *conn)
{
    return (struct client *)conn;
}

// ---------------------------------------------------------------------------- answers of our own

// What is known of a request that never became a flight, for the log.
static void log_local(struct core *core, struct client *client, uint16_t status,
                      enum reply_error error)
{
    struct gateway *g = gateway_of(core);
    const struct h1_head *head = g->request_of ? NULL : &g->request;
    struct access_entry entry = {
        .peer = client->peer,
        .method = head ? head->method_text : SPAN("-"),
        .path = head ? head->target : SPAN("-"),
        .status = status,
        .error = error,
        .total_ns = core_clock_ns(core) - core->now_ns,
    };
    access_log(core, g->config, &entry);
    count(&g->metrics.status[status / 100]);
    histogram_add(&g->metrics.latency, entry.total_ns);
}

static void next_request(struct core *core, struct client *client)
{
    const struct config *config = gateway_of(core)->config;
    client->state = CLIENT_IDLE;
    client->head_from = 0;
    client->one_crlf = false;
    conn_deadline(core, &client->conn, config->timeout_keepalive_ms);
    if (!client->processing)
        process(core, client);
}

static void last_answer(struct core *core, struct client *client)
{
    client->state = CLIENT_LAST;
    input_drop(&client->input);
    conn_finish(core, &client->conn);
}

void client_answered(struct core *core, struct client *client, bool reusable)
{
    client->flight = NULL;
    if (client->conn.state != CONN_OPEN)
        return;
    if (reusable && client->keep_alive && client->state == CLIENT_WAIT)
        next_request(core, client);
    else
        last_answer(core, client);
}

void client_write_error(struct core *core, struct client *client, enum dialect dialect,
                        enum reply_error error, const char *message, const char *allow)
{
    struct gateway *g = gateway_of(core);
    bool keep = client->state == CLIENT_WAIT && client->keep_alive && !g->draining;
    struct flight *flight = client->flight;
    struct reply_error_args args = {
        .error = error,
        .dialect = dialect,
        .message = message,
        .request_id = flight ? span_of(flight->id, flight->id_len) : (struct span){0},
        .close = !keep,
        .head_only = client->head_only,
        .allow = allow,
    };
    client->keep_alive = keep;
    struct buf *buf = gateway_head_buffer(g, REPLY_ERROR_MAX);
    bool queued = false;
    if (buf) {
        size_t len = reply_error(buf->bytes, &args);
        queued = conn_push(core, &client->conn, buf, buf->bytes, len);
        buf_unref(buf);
    }
    if (!queued) { // even that memory is gone: bytes that exist since start
        client->keep_alive = false;
        (void)conn_push(core, &client->conn, NULL, g->overload, g->overload_len);
    }
}

// Refuse a request for which no flight exists.
static void refuse(struct core *core, struct client *client, enum dialect dialect,
                   enum reply_error error, const char *message, const char *allow)
{
    struct gateway *g = gateway_of(core);
    count(&g->metrics.errors[error]);
    bool shed = error == REPLY_OVERLOAD_MEMORY || error == REPLY_OVERLOAD_CONNECTIONS;
    count(shed ? &g->metrics.shed : &g->metrics.answered);
    log_local(core, client, reply_error_status(error), error);
    client_write_error(core, client, dialect, error, message, allow);
    client_answered(core, client, true);
}

// A head that cannot be trusted: answer, and never read this connection again.
static void refuse_head(struct core *core, struct client *client, enum reply_error error)
{
    struct gateway *g = gateway_of(core);
    count(&g->metrics.requests);
    memset(&g->request, 0, offsetof(struct h1_head, field));
    g->request.method_text = g->request.target = SPAN("-");
    client->keep_alive = false;
    client->head_only = false;
    refuse(core, client, DIALECT_OPENAI, error, NULL, NULL);
}

static void answer_local(struct core *core, struct client *client, const char *type,
                         const void *body, size_t len, struct buf *holder)
{
    struct gateway *g = gateway_of(core);
    client->keep_alive = client->keep_alive && client->state == CLIENT_WAIT;
    bool copied = !holder; // else it keeps the body alive until it is sent
    struct buf *buf = gateway_head_buffer(g, 512 + (copied ? len : 0));
    if (!buf) {
        refuse(core, client, g->route.dialect, REPLY_OVERLOAD_MEMORY, NULL, NULL);
        return;
    }
    struct writer w = {buf->bytes, 0, buf->pool->size};
    put_literal(&w, "HTTP/1.1 200 OK\r\nContent-Type: ");
    put_text(&w, type);
    put_literal(&w, "\r\nContent-Length: ");
    put_number(&w, len);
    if (!client->keep_alive)
        put_literal(&w, "\r\nConnection: close");
    else if (client->minor == 0)
        put_literal(&w, "\r\nConnection: keep-alive");
    put_literal(&w, "\r\n\r\n");
    if (copied && !client->head_only)
        put_bytes(&w, body, len);
    bool ok = conn_push(core, &client->conn, buf, buf->bytes, w.at);
    if (!copied && !client->head_only)
        ok = ok && conn_push(core, &client->conn, holder, body, len);
    buf_unref(buf);
    count(&g->metrics.answered);
    log_local(core, client, 200, REPLY_ERROR_COUNT);
    client_answered(core, client, ok);
}

static void answer_model(struct core *core, struct client *client, const struct route *route)
{
    const struct config *config = gateway_of(core)->config;
    const struct config_model *model =
        config_model_find(config, (const char *)route->id.ptr, route->id.len);
    if (!model) {
        refuse(core, client, DIALECT_OPENAI, REPLY_MODEL_NOT_FOUND, NULL, NULL);
        return;
    }
    uint8_t body[2048];
    struct writer w = {body, 0, sizeof body};
    put_literal(&w, "{\"id\":\"");
    int len =
        json_escape(body + w.at, sizeof body - 256, span_of(model->name, strlen(model->name)));
    w.at += len > 0 ? (size_t)len : 0;
    put_literal(&w, "\",\"object\":\"model\",\"created\":0,\"owned_by\":\"tokenring\"}");
    answer_local(core, client, "application/json", body, w.at, NULL);
}

static void answer_route(struct core *core, struct client *client, const struct route *route)
{
    struct gateway *g = gateway_of(core);
    switch (route->kind) {
    case ROUTE_HEALTH:
        answer_local(core, client, "application/json", "{\"status\":\"ok\"}\n", 16, NULL);
        return;
    case ROUTE_MODELS:
        answer_local(core, client, "application/json", g->edition->models->bytes,
                     g->edition->models_len, g->edition->models);
        return;
    case ROUTE_MODEL: answer_model(core, client, route); return;
    case ROUTE_REFUSE:
    case ROUTE_FORWARD:
        refuse(core, client, route->dialect, route->error, NULL, route->allow);
        return;
    }
}

// ------------------------------------------------------------------------------------------- head

static enum reply_error framing_error(enum framing_result result)
{
    switch (result) {
    case FRAMING_NOT_IMPLEMENTED: return REPLY_NOT_IMPLEMENTED;
    case FRAMING_BAD_EXPECT: return REPLY_BAD_EXPECT;
    default: return REPLY_BAD_REQUEST;
    }
}

// Upgrade: h2c is an offer that a server may ignore (RFC 9110 section 7.8), and some HTTP libraries
// make it with every request; anything else (websocket) is a wish we cannot fulfil.
static bool upgrade_refused(const struct h1_head *head, const struct framing *framing)
{
    if (!framing->upgrade)
        return false;
    const struct h1_field *field = h1_find(head, H1_FIELD_UPGRADE);
    return !field || !span_equal_nocase(field->value, SPAN("h2c"));
}

static void begin_body(struct core *core, struct client *client, const struct framing *framing)
{
    client->framing = (uint8_t)framing->kind;
    client->body_left = framing->length;
    client->body_bytes = 0;
    chunk_start(&client->chunk);
    bool none =
        framing->kind == FRAMING_NONE || (framing->kind == FRAMING_LENGTH && framing->length == 0);
    client->state = none ? CLIENT_WAIT : CLIENT_BODY;
    conn_deadline(core, &client->conn, gateway_of(core)->config->timeout_body_ms);
}

// The head is good and wants a provider: make it a flight.
static void begin_flight(struct core *core, struct client *client, const struct framing *framing,
                         struct buf *buf, const uint8_t *head, uint32_t head_len)
{
    struct gateway *g = gateway_of(core);
    client->flight = flight_open(core, client, &g->route, framing, buf, head, head_len);
    if (!client->flight) {
        refuse(core, client, g->route.dialect, REPLY_OVERLOAD_MEMORY, NULL, NULL);
        return;
    }
    if (framing->expect_continue && client->minor > 0 && client->state == CLIENT_BODY &&
        !client->input.buf) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        (void)conn_push(core, &client->conn, NULL, go_on, sizeof go_on - 1);
    }
    flight_start(core, client->flight);
    if (client->flight && client->state == CLIENT_WAIT)
        flight_body_end(core, client->flight);
}

static void begin_request(struct core *core, struct client *client, struct buf *buf,
                          const uint8_t *head_bytes, uint32_t head_len)
{
    struct gateway *g = gateway_of(core);
    const struct h1_head *head = &g->request;
    count(&g->metrics.requests);
    client->requests++;
    client->minor = head->minor;
    client->head_only = head->method == H1_METHOD_HEAD;
    struct framing framing;
    enum framing_result result = framing_request(&framing, head);
    client->keep_alive = result == FRAMING_OK && framing.keep_alive && !g->draining;
    if (result != FRAMING_OK) {
        refuse(core, client, DIALECT_OPENAI, framing_error(result),
               result == FRAMING_NO_HOST ? "exactly one valid Host field is required" : NULL, NULL);
        return;
    }
    route_head(&g->route, g->config, head);
    if (upgrade_refused(head, &framing)) {
        client->keep_alive = false;
        refuse(core, client, g->route.dialect, REPLY_UPGRADE, NULL, NULL);
        return;
    }
    if (framing.kind == FRAMING_LENGTH && framing.length > g->config->max_body) {
        refuse(core, client, g->route.dialect, REPLY_BODY_TOO_LARGE, NULL, NULL);
        return;
    }
    begin_body(core, client, &framing);
    if (g->route.kind != ROUTE_FORWARD)
        answer_route(core, client, &g->route);
    else
        begin_flight(core, client, &framing, buf, head_bytes, head_len);
}

// The head goes on in the next buffer: bring it together. True: there was one (or the request is
// refused).
static bool join_head(struct core *core, struct client *client)
{
    struct input *input = &client->input;
    if (!input_more(input))
        return false;
    bool too_large = input_left(input) > H1_HEAD_MAX;
    if (too_large || !input_join(input, &core->large))
        refuse_head(core, client, too_large ? REPLY_HEAD_TOO_LARGE : REPLY_OVERLOAD_MEMORY);
    return true;
}

static bool head_incomplete(struct core *core, struct client *client, uint32_t len)
{
    if (len > H1_HEAD_MAX) {
        refuse_head(core, client, REPLY_HEAD_TOO_LARGE);
        return true;
    }
    if (join_head(core, client))
        return true;
    if (client->state == CLIENT_IDLE) {
        client->state = CLIENT_HEAD;
        conn_deadline(core, &client->conn, gateway_of(core)->config->timeout_head_ms);
    }
    return false;
}

// True: something was consumed or decided, go on. False: more bytes are needed.
static bool read_head(struct core *core, struct client *client)
{
    struct gateway *g = gateway_of(core);
    struct input *input = &client->input;
    const uint8_t *bytes = input_bytes(input);
    uint32_t len = input_left(input);
    g->request_of = NULL;
    if (len >= 2 && bytes[0] == '\r' && bytes[1] == '\n' && !client->one_crlf) {
        client->one_crlf = true;
        input_consume(input, 2);
        return true;
    }
    if (len == 1 && bytes[0] == '\r')
        return head_incomplete(core, client, len);
    size_t head_len;
    enum h1_result result = h1_head_complete(bytes, len, &client->head_from, &head_len);
    if (result == H1_MORE)
        return head_incomplete(core, client, len);
    if (result == H1_OK)
        result = h1_parse_request(&g->request, bytes, head_len);
    if (result != H1_OK) {
        refuse_head(core, client,
                    result == H1_TOO_LARGE ? REPLY_HEAD_TOO_LARGE : REPLY_BAD_REQUEST);
        return true;
    }
    struct buf *buf = input->buf;
    buf_ref(buf); // the head's spans stay valid while the request is set up
    client->head_from = 0;
    input_consume(input, (uint32_t)head_len);
    begin_request(core, client, buf, bytes, (uint32_t)head_len);
    buf_unref(buf);
    g->request_of = NULL;
    return true;
}

// ------------------------------------------------------------------------------------------- body

static void body_complete(struct core *core, struct client *client)
{
    client->state = CLIENT_WAIT;
    if (client->flight)
        flight_body_end(core, client->flight);
}

static void body_broken(struct core *core, struct client *client, enum reply_error error)
{
    client->keep_alive = false;
    flight_refuse(core, client->flight, error, NULL);
}

// Consume `used` bytes of input and hand the view in them to the flight.
static void body_view(struct core *core, struct client *client, uint32_t used, struct span view)
{
    struct buf *buf = client->input.buf;
    buf_ref(buf);
    input_consume(&client->input, used);
    client->body_bytes += view.len;
    count_add(&gateway_of(core)->metrics.bytes_received, view.len);
    if (view.len > 0)
        flight_body(core, client->flight, buf, view.ptr, (uint32_t)view.len);
    buf_unref(buf);
}

static void read_length(struct core *core, struct client *client)
{
    uint32_t len = input_left(&client->input);
    if (len > client->body_left)
        len = (uint32_t)client->body_left;
    client->body_left -= len;
    body_view(core, client, len, span_of(input_bytes(&client->input), len));
    if (client->flight && client->body_left == 0)
        body_complete(core, client);
}

// Decode what is here. The data of several chunks is moved together, over the size lines between
// them: chunked uploads are rare, and one view per receive keeps everything behind it simple.
static void read_chunked(struct core *core, struct client *client)
{
    uint8_t *bytes = client->input.buf->bytes + client->input.at;
    size_t len = input_left(&client->input), at = 0;
    uint8_t *view = NULL;
    size_t view_len = 0;
    enum chunk_result result = CHUNK_MORE;
    while (at < len && result != CHUNK_END && result != CHUNK_BAD) {
        struct span data;
        size_t used = 0;
        result = chunk_next(&client->chunk, bytes + at, len - at, &used, &data);
        at += used;
        if (result != CHUNK_DATA)
            continue;
        if (!view)
            view = bytes + (data.ptr - bytes);
        else
            memmove(view + view_len, data.ptr, data.len);
        view_len += data.len;
    }
    if (result == CHUNK_BAD) {
        body_broken(core, client, REPLY_BAD_REQUEST);
        return;
    }
    if (client->body_bytes + view_len > gateway_of(core)->config->max_body) {
        body_broken(core, client, REPLY_BODY_TOO_LARGE);
        return;
    }
    body_view(core, client, (uint32_t)at, span_of(view, view_len));
    if (client->flight && result == CHUNK_END)
        body_complete(core, client);
}

static bool read_body(struct core *core, struct client *client)
{
    if (!flight_wants_body(core, client->flight))
        return false;
    if (client->framing == FRAMING_LENGTH)
        read_length(core, client);
    else
        read_chunked(core, client);
    return true;
}

// ------------------------------------------------------------------------------------------- loop

static void receive_if_room(struct core *core, struct client *client)
{
    struct conn *conn = &client->conn;
    bool room = !client->input.buf || client->state == CLIENT_HEAD;
    if (client->state == CLIENT_BODY)
        room = room && flight_wants_body(core, client->flight);
    if (client->state == CLIENT_LAST)
        return;
    if (room) {
        conn_receive(core, conn, true);
        return;
    }
    conn_receive_stop(core, conn);
    conn_watch(core, conn);
}

static bool may_read(const struct core *core, const struct client *client)
{
    if (client->conn.state != CONN_OPEN || !client->input.buf)
        return false;
    // A client that pipelines must also read: its answers wait in our memory.
    if (client->state == CLIENT_IDLE)
        return client->conn.out_bytes < gateway_of((struct core *)core)->config->window_bytes &&
               client->conn.out_segments < GATEWAY_OUTPUT_SEGMENTS_MAX;
    return true;
}

static void process(struct core *core, struct client *client)
{
    client->processing = true;
    bool more = true;
    while (more && may_read(core, client)) {
        switch (client->state) {
        case CLIENT_IDLE:
        case CLIENT_HEAD: more = read_head(core, client); break;
        case CLIENT_BODY: more = read_body(core, client); break;
        default: more = false;
        }
    }
    client->processing = false;
    if (client->conn.state == CONN_OPEN)
        receive_if_room(core, client);
}

void client_resume(struct core *core, struct client *client)
{
    if (!client->processing && client->conn.state == CONN_OPEN)
        process(core, client);
}

// ----------------------------------------------------------------------------------------- events

static void on_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct client *client = client_of(conn);
    if (client->state == CLIENT_LAST) {
        buf_unref(buf);
        return;
    }
    input_add(&client->input, buf, len);
    process(core, client);
}

static void gone(struct core *core, struct client *client)
{
    if (client->flight) {
        struct flight *flight = client->flight;
        client->flight = NULL;
        count(&gateway_of(core)->metrics.clients_gone);
        flight_client_gone(core, flight);
    }
    conn_close(core, &client->conn);
}

static void on_ended(struct core *core, struct conn *conn, int error)
{
    struct client *client = client_of(conn);
    // Our last answer may still be on its way to a client that has only closed its sending side.
    bool answer_pending = conn_has_output(&client->conn) && !client->flight && error == 0;
    if (answer_pending)
        last_answer(core, client);
    else
        gone(core, client);
}

static void on_send_failed(struct core *core, struct conn *conn, int error)
{
    gone(core, client_of(conn));
}

static void on_sent(struct core *core, struct conn *conn, uint32_t bytes)
{
    struct client *client = client_of(conn);
    if (client->flight)
        flight_client_sent(core, client->flight);
    else if (client->state == CLIENT_IDLE && client->input.buf)
        client_resume(core, client);
}

static void on_expired(struct core *core, struct conn *conn)
{
    struct client *client = client_of(conn);
    const struct config *config = gateway_of(core)->config;
    uint64_t still_ms = core->now_ms - conn->moved_ms;
    switch (client->state) {
    case CLIENT_IDLE:
        if (conn_has_output(conn) && still_ms < config->timeout_idle_ms)
            conn_deadline(core, conn, config->timeout_idle_ms - still_ms);
        else if (conn_has_output(conn))
            gone(core, client);
        else
            last_answer(core, client);
        return;
    case CLIENT_HEAD:
        gateway_of(core)->request_of = NULL;
        refuse_head(core, client, REPLY_CLIENT_TIMEOUT);
        return;
    case CLIENT_BODY:
        if (!flight_wants_body(core, client->flight))
            conn_deadline(core, conn, config->timeout_body_ms); // it waits for us
        else if (still_ms < config->timeout_body_ms)
            conn_deadline(core, conn, config->timeout_body_ms - still_ms);
        else
            flight_refuse(core, client->flight, REPLY_CLIENT_TIMEOUT, NULL);
        return;
    case CLIENT_WAIT: flight_client_expired(core, client->flight); return;
    default:
        if (still_ms < config->timeout_idle_ms)
            conn_deadline(core, conn, config->timeout_idle_ms - still_ms);
        else
            conn_close(core, conn);
    }
}

static void on_connected(struct core *core, struct conn *conn, int error)
{
    CHECK(!"clients are accepted, not dialed");
}

static void on_closed(struct core *core, struct conn *conn)
{
    struct client *client = client_of(conn);
    CHECK(!client->flight);
    input_drop(&client->input);
    list_remove(&client->all);
    gateway_of(core)->client_count--;
}

static const struct conn_ops client_ops = {
    .received = on_received,
    .ended = on_ended,
    .sent = on_sent,
    .send_failed = on_send_failed,
    .connected = on_connected,
    .expired = on_expired,
    .closed = on_closed,
};

// ----------------------------------------------------------------------------------------- accept

// No room: the ready-made 503, then an orderly close. Never allocates, cannot fail.
static void shed(struct core *core, struct client *client)
{
    struct gateway *g = gateway_of(core);
    count(&g->metrics.connections_shed);
    count(&g->metrics.requests);
    count(&g->metrics.shed);
    count(&g->metrics.errors[REPLY_OVERLOAD_CONNECTIONS]);
    g->request_of = NULL;
    memset(&g->request, 0, offsetof(struct h1_head, field));
    g->request.method_text = g->request.target = SPAN("-");
    log_local(core, client, 503, REPLY_OVERLOAD_CONNECTIONS);
    (void)conn_push(core, &client->conn, NULL, g->overload, g->overload_len);
    last_answer(core, client);
}

void client_accepted(struct core *core, struct listener *listener, int fd)
{
    struct gateway *g = gateway_of(core);
    count(&g->metrics.connections_accepted);
    struct client *client =
        (struct client *)conn_open(core, fd, &client_ops, g->config->timeout_head_ms);
    if (!client) {
        count(&g->metrics.connections_shed);
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
        return;
    }
    io_peer(core->io, fd, client->peer, sizeof client->peer);
    bool secured = !g->trust->clients || conn_tls_server(core, &client->conn, g->trust->clients);
    list_push_back(&g->clients, &client->all);
    if (++g->client_count > g->client_max || !secured)
        shed(core, client);
    else
        conn_receive(core, &client->conn, true);
}

void client_drain(struct core *core, struct client *client)
{
    if (client->state == CLIENT_IDLE || client->state == CLIENT_HEAD)
        last_answer(core, client);
    else
        client->keep_alive = false;
}

void client_retire(struct core *core, struct client *client)
{
    // An answer whose head is gone out has promised that the connection stays: then the next one
    // tells.
    if (client->flight && !client->flight->head_sent)
        client->keep_alive = false;
}

void client_abort(struct core *core, struct client *client)
{
    gone(core, client);
}

void client_cut(struct core *core, struct client *client)
{
    struct gateway *g = gateway_of(core);
    count(&g->metrics.errors[REPLY_OVERLOAD_MEMORY]);
    if (client->flight)
        client->flight->error = REPLY_OVERLOAD_MEMORY;
    event_log(core, g->config, LOG_WARN, "%s cut: it holds receive buffers and does not move",
              client->peer);
    gone(core, client);
}
