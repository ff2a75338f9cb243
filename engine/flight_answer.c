// SPDX-License-Identifier: MIT
//
// The way back: the answer's head is read and written anew, its body is walked in the receive
// buffers and forwarded from there. Nothing is forwarded that was not parsed (invariant 9).
#include "engine/flight.h"

#include <string.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "proto/writer.h"

// ---------------------------------------------------------------------------------------- the head

// Room for everything we add to an answer's head.
enum { HEAD_EXTRA = 1024 + FLIGHT_ID_MAX + 2 * CONFIG_NAME_MAX };

static void choose_framing(struct flight *flight, const struct framing *framing)
{
    flight->framing = (uint8_t)framing->kind;
    flight->left = framing->length;
    flight->upstream_keep_alive = framing->keep_alive;
    switch (framing->kind) {
    case FRAMING_NONE: flight->answer = ANSWER_NONE; break;
    case FRAMING_LENGTH: flight->answer = ANSWER_AS_IS; break;
    case FRAMING_CHUNKED:
    case FRAMING_UNTIL_CLOSE:
        flight->answer = flight->minor > 0 ? ANSWER_CHUNKED : ANSWER_CLOSE;
        break;
    }
    chunk_start(&flight->chunk);
}

static void put_connection(struct core *core, struct writer *w, struct flight *flight)
{
    struct client *client = flight->client;
    // A body that is still arriving will not be read to its end: the connection ends with the
    // answer.
    if (flight->answer == ANSWER_CLOSE || client->state != CLIENT_WAIT ||
        gateway_of(core)->draining)
        client->keep_alive = false;
    if (!client->keep_alive)
        put_literal(w, "Connection: close\r\n");
    else if (flight->minor == 0)
        put_literal(w, "Connection: keep-alive\r\n");
    if (flight->answer == ANSWER_CHUNKED)
        put_literal(w, "Transfer-Encoding: chunked\r\n");
}

static void put_ours(struct core *core, struct writer *w, struct flight *flight,
                     const struct h1_head *head)
{
    const struct config *config = flight->config;
    const struct h1_field *theirs = h1_find(head, H1_FIELD_X_REQUEST_ID);
    if (theirs) {
        put_literal(w, "x-tokenring-provider-request-id: ");
        put_span(w, theirs->value);
        put_literal(w, "\r\n");
    }
    put_literal(w, "x-request-id: ");
    put_bytes(w, flight->id, flight->id_len);
    put_literal(w, "\r\nx-tokenring-provider: ");
    put_text(w, config->provider[flight->provider].name);
    put_literal(w, "\r\nx-tokenring-route: ");
    put_text(w, flight->why);
    put_literal(w, "\r\nx-tokenring-attempts: ");
    put_number(w, flight->attempts);
    if (config->via) {
        put_literal(w, "\r\nVia: 1.");
        put_number(w, head->minor);
        put_literal(w, " ");
        put_text(w, config->via_name);
    }
    flight->overhead_ns += core_clock_ns(core) - core->now_ns;
    put_literal(w, "\r\nx-tokenring-overhead-us: ");
    put_number(w, (flight->overhead_ns + 999) / 1000);
    put_literal(w, "\r\n\r\n");
}

static void put_status(struct writer *w, const struct h1_head *head)
{
    put_literal(w, "HTTP/1.1 ");
    put_number(w, head->status);
    put_literal(w, " ");
    put_span(w, head->reason);
    put_literal(w, "\r\n");
}

static bool send_head(struct core *core, struct flight *flight, const struct h1_head *head)
{
    struct buf *buf = gateway_head_buffer(gateway_of(core), head->len + HEAD_EXTRA);
    if (!buf)
        return false;
    struct writer w = {buf->bytes, 0, buf->pool->size};
    put_status(&w, head);
    uint64_t drop = field_bit(H1_FIELD_X_REQUEST_ID) | field_bit(H1_FIELD_X_TOKENRING);
    if (head->status == 204) // RFC 9110 section 8.6
        drop |= field_bit(H1_FIELD_CONTENT_LENGTH);
    put_fields(&w, head, drop);
    put_connection(core, &w, flight);
    put_ours(core, &w, flight, head);
    buf->filled = (uint32_t)w.at;
    bool ok = conn_push(core, &flight->client->conn, buf, buf->bytes, w.at);
    buf_unref(buf);
    flight->head_sent = ok;
    return ok;
}

// 100 was answered by us and 101 never asked for; the others are the client's (RFC 9110
// section 15.2).
static bool forward_interim(struct core *core, struct flight *flight, const struct h1_head *head)
{
    if (head->status == 100 || flight->minor == 0)
        return true;
    struct buf *buf = gateway_head_buffer(gateway_of(core), head->len + HEAD_EXTRA);
    if (!buf)
        return false;
    struct writer w = {buf->bytes, 0, buf->pool->size};
    put_status(&w, head);
    put_fields(&w, head, field_bit(H1_FIELD_CONTENT_LENGTH) | field_bit(H1_FIELD_X_TOKENRING));
    put_literal(&w, "\r\n");
    bool ok = conn_push(core, &flight->client->conn, buf, buf->bytes, w.at);
    buf_unref(buf);
    return ok;
}

static bool is_event_stream(const struct h1_head *head)
{
    const struct h1_field *type = h1_find(head, H1_FIELD_CONTENT_TYPE);
    const struct h1_field *coding = h1_find(head, H1_FIELD_CONTENT_ENCODING);
    const struct span sse = SPAN("text/event-stream");
    if (coding && !span_equal_nocase(coding->value, SPAN("identity")))
        return false; // compressed: bytes that we cannot read
    return type && type->value.len >= sse.len &&
           span_equal_nocase(span_of(type->value.ptr, sse.len), sse);
}

static void begin_answer(struct core *core, struct flight *flight, const struct h1_head *head)
{
    struct metrics *m = &gateway_of(core)->metrics;
    flight->status = head->status;
    flight->is_sse = is_event_stream(head);
    sse_start(&flight->sse);
    if (flight->is_sse) {
        flight->counted_stream = true;
        count(&m->streams_total);
        count(&m->streams_open);
    }
    flight->state = FLIGHT_BODY;
    flight_deadline(core, flight, flight->config->timeout_idle_ms);
}

enum step { STEP_ON, STEP_MORE, STEP_OVER };

static enum step fail(struct core *core, struct flight *flight, enum reply_error error)
{
    flight_refuse(core, flight, error, NULL);
    return STEP_OVER;
}

static enum step head_ready(struct core *core, struct flight *flight, const struct h1_head *head)
{
    struct framing framing;
    if (head->status == 101)
        return fail(core, flight, REPLY_UPSTREAM_PROTOCOL);
    if (head->status < 200)
        return forward_interim(core, flight, head) ? STEP_ON
                                                   : fail(core, flight, REPLY_OVERLOAD_MEMORY);
    if (framing_response(&framing, head, (enum h1_method)flight->method) != FRAMING_OK)
        return fail(core, flight, REPLY_UPSTREAM_PROTOCOL);
    choose_framing(flight, &framing);
    if (!send_head(core, flight, head))
        return fail(core, flight, REPLY_OVERLOAD_MEMORY);
    begin_answer(core, flight, head);
    return STEP_ON;
}

static enum step read_head(struct core *core, struct flight *flight)
{
    struct gateway *g = gateway_of(core);
    const uint8_t *bytes = input_bytes(&flight->input);
    uint32_t len = input_left(&flight->input);
    size_t head_len;
    enum h1_result result = h1_head_complete(bytes, len, &flight->head_from, &head_len);
    if (result == H1_MORE && len <= H1_HEAD_MAX) {
        flight->state = FLIGHT_HEAD;
        return STEP_MORE;
    }
    if (result == H1_OK)
        result = h1_parse_response(&g->response, bytes, head_len);
    if (result == H1_MORE || result == H1_TOO_LARGE)
        return fail(core, flight, REPLY_UPSTREAM_HEAD_TOO_LARGE);
    if (result != H1_OK)
        return fail(core, flight, REPLY_UPSTREAM_PROTOCOL);
    flight->head_from = 0;
    struct buf *buf = flight->input.buf;
    buf_ref(buf); // the spans outlive the flight if it ends in here
    input_consume(&flight->input, (uint32_t)head_len);
    enum step step = head_ready(core, flight, &g->response);
    buf_unref(buf);
    return step;
}

// ---------------------------------------------------------------------------------------- the body

static bool give(struct core *core, struct flight *flight, struct buf *buf, const uint8_t *bytes,
                 size_t len)
{
    return conn_push(core, &flight->client->conn, buf, bytes, len);
}

// A piece of body that needs a frame of its own toward the client.
static bool give_framed(struct core *core, struct flight *flight, struct buf *buf,
                        const uint8_t *bytes, size_t len)
{
    if (flight->answer != ANSWER_CHUNKED)
        return give(core, flight, buf, bytes, len);
    // All of the frame or none of it: an error event that follows must not land inside a chunk.
    if (core->segments.capacity - core->segments.used < 3)
        return false;
    uint8_t line[CHUNK_SIZE_LINE_MAX];
    size_t line_len = chunk_size_line(line, len);
    return conn_push_text(core, &flight->client->conn, line, line_len) &&
           give(core, flight, buf, bytes, len) &&
           conn_push(core, &flight->client->conn, NULL, "\r\n", 2);
}

static void note_chunk(struct core *core, struct flight *flight, size_t len)
{
    struct metrics *m = &gateway_of(core)->metrics;
    flight->bytes_out += len;
    count_add(&m->bytes_sent, len);
    if (!flight->is_sse)
        return;
    count(&m->stream_chunks);
    if (flight->last_chunk_ns)
        histogram_add(&m->gap, core->now_ns - flight->last_chunk_ns);
    else
        histogram_add(&m->first_chunk, core->now_ns - flight->complete_ns);
    flight->last_chunk_ns = core->now_ns;
}

static void flight_flushed(struct core *core, struct flight *flight);

// What happened to one receive's worth of body.
struct walk {
    struct buf *buf;
    const uint8_t *bytes;
    size_t len, at;
    const uint8_t *run, *run_end; // whole chunks, frames included, that can leave as they are
    size_t body;                  // bytes of body seen
    bool failed;                  // out of segments
};

static void run_flush(struct core *core, struct flight *flight, struct walk *walk)
{
    if (walk->run && walk->run_end > walk->run &&
        !give(core, flight, walk->buf, walk->run, (size_t)(walk->run_end - walk->run)))
        walk->failed = true;
    walk->run = NULL;
}

// One view of chunk data. A chunk that lies in this receive from its size line to its last CRLF
// extends the run, which leaves with the frames it came in; a torn one is framed anew, so that the
// client is always between two chunks and an error event can follow at any time.
static void walk_data(struct core *core, struct flight *flight, struct walk *walk,
                      const uint8_t **boundary, struct span data)
{
    const uint8_t *end = data.ptr + data.len;
    bool whole = flight->chunk.left == 0 && end + 2 <= walk->bytes + walk->len;
    walk->body += data.len;
    if (flight->is_sse)
        sse_feed(&flight->sse, data.ptr, data.len);
    if (*boundary && whole && flight->answer == ANSWER_CHUNKED) {
        if (!walk->run)
            walk->run = *boundary;
        walk->run_end = end + 2;
    } else {
        run_flush(core, flight, walk);
        if (!give_framed(core, flight, walk->buf, data.ptr, data.len))
            walk->failed = true;
    }
    *boundary = whole ? end + 2 : NULL;
}

// The end of a chunked answer: trailers are not forwarded piecemeal but kept in one small buffer.
static bool trailer_note(struct core *core, struct flight *flight, struct span raw)
{
    if (!flight->trailer) {
        flight->trailer = gateway_head_buffer(gateway_of(core), CHUNK_TRAILER_MAX + 64);
        flight->trailer_len = 0;
    }
    if (!flight->trailer || flight->trailer_len + raw.len > CHUNK_TRAILER_MAX)
        return false;
    memcpy(flight->trailer->bytes + flight->trailer_len, raw.ptr, raw.len);
    flight->trailer_len += (uint32_t)raw.len;
    return true;
}

static enum chunk_result walk_chunks(struct core *core, struct flight *flight, struct walk *walk)
{
    const uint8_t *boundary = chunk_at_boundary(&flight->chunk) ? walk->bytes : NULL;
    enum chunk_result result = CHUNK_MORE;
    while (walk->at < walk->len && result != CHUNK_END && result != CHUNK_BAD && !walk->failed) {
        struct span data;
        size_t used = 0;
        result =
            chunk_next(&flight->chunk, walk->bytes + walk->at, walk->len - walk->at, &used, &data);
        walk->at += used;
        if (result == CHUNK_DATA)
            walk_data(core, flight, walk, &boundary, data);
        else if (result == CHUNK_TRAILER && !trailer_note(core, flight, data))
            result = CHUNK_BAD;
    }
    // The CRLF that ends the run was read, if decoding got that far: what came before a broken
    // chunk is good.
    if (result != CHUNK_BAD || (walk->run && walk->bytes + walk->at >= walk->run_end))
        run_flush(core, flight, walk);
    return result;
}

// Trailers that a recipient may merge: only fields we have no business with (RFC 9110 section 6.5.1
// forbids framing, routing, credentials and the like, which are exactly the fields we know by
// name).
static bool push_trailers(struct core *core, struct flight *flight)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n";
    struct gateway *g = gateway_of(core);
    size_t room = sizeof head - 1 + flight->trailer_len + 2;
    struct buf *raw = gateway_head_buffer(g, room);
    struct buf *out = raw ? gateway_head_buffer(g, room + 5) : NULL;
    bool ok = out != NULL;
    if (ok) {
        struct writer w = {raw->bytes, 0, raw->pool->size};
        put_literal(&w, head);
        put_bytes(&w, flight->trailer->bytes, flight->trailer_len);
        put_literal(&w, "\r\n");
        struct writer end = {out->bytes, 0, out->pool->size};
        put_literal(&end, "0\r\n");
        if (h1_parse_response(&g->response, raw->bytes, w.at) == H1_OK)
            put_fields(&end, &g->response, ~field_bit(H1_FIELD_OTHER));
        put_literal(&end, "\r\n");
        ok = conn_push(core, &flight->client->conn, out, out->bytes, end.at);
        buf_unref(out);
    }
    if (raw)
        buf_unref(raw);
    return ok;
}

static bool end_chunks(struct core *core, struct flight *flight)
{
    if (flight->answer != ANSWER_CHUNKED)
        return true;
    if (flight->trailer_len)
        return push_trailers(core, flight);
    return conn_push(core, &flight->client->conn, NULL, "0\r\n\r\n", 5);
}

// The answer is complete. `clean`: the upstream connection has nothing more to say. The upstream is
// free at once; the flight ends when the kernel has taken the answer's last byte, which is also
// when the client has been answered. (What is done then is not done before the send, while somebody
// waits.)
static void complete(struct core *core, struct flight *flight, bool clean)
{
    struct upstream *upstream = flight->upstream;
    bool reusable =
        clean && flight->upstream_keep_alive && flight->body_ended && !flight->send_failed;
    flight->state = FLIGHT_FLUSH;
    upstream_detach(upstream);
    upstream_return(core, upstream, reusable);
    if (!conn_has_output(&flight->client->conn))
        flight_flushed(core, flight);
}

// Only the dialect's last event tells the end of a stream from the death of its source: a gateway
// in front of the provider may well have ended the message in good order.
static bool stream_torn(const struct flight *flight)
{
    return flight->is_sse && flight->tells_end && flight->status == 200 && !flight->sse.terminal &&
           !flight->sse.error;
}

static void body_chunked(struct core *core, struct flight *flight, struct walk *walk)
{
    enum chunk_result result = walk_chunks(core, flight, walk);
    if (walk->body > 0)
        note_chunk(core, flight, walk->body);
    if (result == CHUNK_BAD)
        flight_refuse(core, flight, REPLY_UPSTREAM_PROTOCOL, NULL);
    else if (result == CHUNK_END && stream_torn(flight))
        flight_refuse(core, flight, REPLY_UPSTREAM_TRUNCATED, NULL);
    else if (walk->failed || (result == CHUNK_END && !end_chunks(core, flight)))
        flight_refuse(core, flight, REPLY_OVERLOAD_MEMORY, NULL);
    else if (result == CHUNK_END)
        complete(core, flight, walk->at == walk->len);
}

static void body_length(struct core *core, struct flight *flight, struct walk *walk)
{
    size_t len = walk->len < flight->left ? walk->len : (size_t)flight->left;
    flight->left -= len;
    if (flight->is_sse)
        sse_feed(&flight->sse, walk->bytes, len);
    if (len > 0)
        note_chunk(core, flight, len);
    if (len > 0 && !give(core, flight, walk->buf, walk->bytes, len))
        flight_refuse(core, flight, REPLY_OVERLOAD_MEMORY, NULL);
    else if (flight->left == 0)
        complete(core, flight, len == walk->len);
}

static void body_until_close(struct core *core, struct flight *flight, struct walk *walk)
{
    if (flight->is_sse)
        sse_feed(&flight->sse, walk->bytes, walk->len);
    note_chunk(core, flight, walk->len);
    if (!give_framed(core, flight, walk->buf, walk->bytes, walk->len))
        flight_refuse(core, flight, REPLY_OVERLOAD_MEMORY, NULL);
}

static void body(struct core *core, struct flight *flight, struct walk *walk)
{
    switch ((enum framing_kind)flight->framing) {
    case FRAMING_NONE: complete(core, flight, walk->len == 0); return;
    case FRAMING_LENGTH: body_length(core, flight, walk); return;
    case FRAMING_CHUNKED: body_chunked(core, flight, walk); return;
    case FRAMING_UNTIL_CLOSE: body_until_close(core, flight, walk); return;
    }
}

static bool no_body_to_come(const struct flight *flight)
{
    return flight->framing == FRAMING_NONE ||
           (flight->framing == FRAMING_LENGTH && flight->left == 0);
}

// ------------------------------------------------------------------------------------ backpressure

// A flight may pin an eighth of what is free, and always one buffer: many slow clients share what
// there is, and something is left for the fast ones (docs/decisions/0010).
static bool client_full(struct core *core, const struct flight *flight)
{
    const struct conn *conn = &flight->client->conn;
    return conn->out_bytes >= flight->config->window_bytes ||
           conn->out_buffers > buf_available(&core->receive) / 8 ||
           conn->out_segments > GATEWAY_OUTPUT_SEGMENTS_MAX;
}

// A multishot receive takes all that has come before anybody can stop it. That is right for tokens,
// and wrong for a body of many buffers: that one is received a buffer at a time.
static bool receive_multishot(struct core *core, const struct flight *flight)
{
    return flight->state != FLIGHT_BODY || flight->is_sse ||
           (flight->framing == FRAMING_LENGTH && flight->left < core->receive.size);
}

static void receive_on(struct core *core, struct flight *flight)
{
    struct conn *conn = &flight->upstream->conn;
    bool multishot = receive_multishot(core, flight);
    if (conn->receive_armed && conn->receive_multishot && !multishot)
        conn_receive_stop(core, conn);
    conn_receive(core, conn, multishot);
}

static void pause_if_full(struct core *core, struct flight *flight)
{
    if (flight->paused || !client_full(core, flight))
        return;
    flight->paused = true;
    conn_receive_stop(core, &flight->upstream->conn);
}

static void flight_flushed(struct core *core, struct flight *flight)
{
    struct client *client = flight->client;
    bool keep = flight->answer != ANSWER_CLOSE;
    flight_finish(core, flight, FLIGHT_ANSWERED);
    client_answered(core, client, keep);
}

void flight_client_sent(struct core *core, struct flight *flight)
{
    if (flight->state == FLIGHT_FLUSH) {
        if (!conn_has_output(&flight->client->conn))
            flight_flushed(core, flight);
        return;
    }
    if (!flight->paused)
        return;
    const struct conn *conn = &flight->client->conn;
    if (conn->out_bytes > flight->config->window_bytes / 2 || client_full(core, flight))
        return;
    flight->paused = false;
    // Silence up to here was ours.
    flight->upstream->conn.moved_ms = core->now_ms;
    receive_on(core, flight);
}

// ------------------------------------------------------------------------------------------ events

static void head_and_rest(struct core *core, struct flight *flight)
{
    struct client *client = flight->client;
    enum step step = STEP_ON;
    while (step == STEP_ON && flight->state != FLIGHT_BODY && flight->input.buf)
        step = read_head(core, flight);
    if (step == STEP_OVER || client->flight != flight || flight->state != FLIGHT_BODY)
        return;
    // The rest of the buffer is body.
    struct input rest = flight->input;
    flight->input = (struct input){0};
    struct walk walk = {0};
    if (rest.buf)
        walk =
            (struct walk){.buf = rest.buf, .bytes = input_bytes(&rest), .len = input_left(&rest)};
    if (walk.len > 0 || no_body_to_come(flight))
        body(core, flight, &walk);
    input_drop(&rest);
}

void flight_received(struct core *core, struct flight *flight, struct buf *buf, uint32_t len)
{
    struct client *client = flight->client;
    uint64_t serial = flight->serial;
    if (flight->state == FLIGHT_BODY) {
        struct walk walk = {.buf = buf, .bytes = buf->bytes, .len = len};
        body(core, flight, &walk);
        buf_unref(buf);
    } else {
        // An answer has begun: the request was acted on and will not be sent again.
        flight_forget_request(core, flight);
        input_add(&flight->input, buf, len);
        if (input_more(&flight->input) && !input_join(&flight->input, &core->large)) {
            flight_refuse(core, flight, REPLY_UPSTREAM_HEAD_TOO_LARGE, NULL);
            return;
        }
        head_and_rest(core, flight);
    }
    // Over, perhaps; and the client's next request, already here, may have got the same slot.
    if (client->flight != flight || flight->serial != serial || flight->state == FLIGHT_FLUSH)
        return;
    pause_if_full(core, flight);
    if (!flight->paused)
        receive_on(core, flight);
}

void flight_upstream_ended(struct core *core, struct flight *flight, int error)
{
    switch ((enum flight_state)flight->state) {
    case FLIGHT_SENT:
        if (!flight_replay(core, flight))
            flight_refuse(core, flight, REPLY_UPSTREAM_RESET, NULL);
        return;
    case FLIGHT_BODY:
        // A reset is told once: when a send has heard of it, the receive sees a plain end.
        if (flight->framing != FRAMING_UNTIL_CLOSE || error != 0 || flight->send_failed ||
            stream_torn(flight))
            flight_refuse(core, flight, REPLY_UPSTREAM_TRUNCATED, NULL);
        else if (end_chunks(core, flight))
            complete(core, flight, false);
        else
            flight_refuse(core, flight, REPLY_OVERLOAD_MEMORY, NULL);
        return;
    default: flight_refuse(core, flight, REPLY_UPSTREAM_TRUNCATED, NULL); return;
    }
}

void flight_upstream_sent(struct core *core, struct flight *flight)
{
    if (!flight->body_ended)
        client_resume(core, flight->client);
}

void flight_upstream_send_failed(struct core *core, struct flight *flight)
{
    // The provider may have answered before it stopped reading: the receive tells.
    flight->send_failed = true;
    client_resume(core, flight->client);
}

void flight_deadline(struct core *core, struct flight *flight, uint64_t ms)
{
    conn_deadline(core, &flight->upstream->conn, flight_left_ms(core, flight, ms));
}

void flight_upstream_expired(struct core *core, struct flight *flight)
{
    const struct config *config = flight->config;
    struct conn *conn = &flight->upstream->conn;
    uint64_t still_ms = core->now_ms - conn->moved_ms;
    bool answering = flight->state == FLIGHT_BODY;
    uint64_t limit = config->timeout_idle_ms;
    if (!answering && !conn_has_output(conn))
        limit = config->timeout_first_byte_ms;
    if (flight->total_deadline_ms && core->now_ms >= flight->total_deadline_ms)
        flight_refuse(core, flight, REPLY_TIMEOUT_TOTAL, NULL);
    else if (flight->paused || (!answering && !flight->body_ended && !conn_has_output(conn)))
        flight_deadline(core, flight,
                        limit); // the client is the slow one, and has its own deadline
    else if (still_ms < limit)
        flight_deadline(core, flight, limit - still_ms);
    else
        flight_refuse(core, flight,
                      answering || conn_has_output(conn) ? REPLY_TIMEOUT_IDLE
                                                         : REPLY_TIMEOUT_FIRST_BYTE,
                      NULL);
}
