// SPDX-License-Identifier: MIT
//
// A connection and the requests it makes, one at a time.
//
//   CONNECTING -- connected --> HEAD -- head complete --> BODY -- body complete --> IDLE
//       |                        ^                          |                        |
//       |                        '------ next ticket -------|------------------------'
//       '---- refused -----> OVER <--- broken, timed out, or not kept alive ---------'
//
// A connection that was used before and breaks before the first byte of the next answer has most
// likely been closed by the server meanwhile: that request goes out again on another one and
// counts as reconnect.
#include <errno.h>
#include <unistd.h>

#include "alloc/check.h"
#include "proto/chunk.h"
#include "proto/framing.h"
#include "tools/inbox.h"
#include "tools/load.h"
#include "tools/load_check.h"

enum { IDLE_MS = 24 * 3600 * 1000, BACKOFF_MS = 20 };

enum call_state { CALL_CONNECTING, CALL_IDLE, CALL_HEAD, CALL_BODY, CALL_OVER };

struct call {
    struct conn conn; // first
    struct list node; // in thread->calls
    struct list idle; // in thread->idle, in state IDLE only
    enum call_state state;
    bool used;      // had an answer before
    bool answering; // a byte of this answer came
    bool stream;    // this answer is an event stream
    uint16_t status;
    struct inbox in;
    size_t head_from;
    struct framing framing;
    struct chunk chunk;
    uint64_t body_left;
    uint64_t intended_ns; // latency counts from here
    uint64_t opened_ns;
    uint64_t arrival_ns; // of the last events; 0: none yet
    struct check check;
};

size_t load_call_size(void)
{
    return sizeof(struct call);
}

static struct call *call_of(struct conn *conn)
{
    return (struct call *)conn;
}

static bool under_way(const struct call *call)
{
    return call->state == CALL_CONNECTING || call->state == CALL_HEAD || call->state == CALL_BODY;
}

void load_failed(struct load_thread *thread, enum load_error error)
{
    thread->results.errors[error]++;
    thread->results.failed++;
    load_count(&thread->counters.failed, 1);
}

// ------------------------------------------------------------------------------------------- ends

// The connection is of no more use.
static void call_close(struct load_thread *thread, struct call *call)
{
    if (call->state == CALL_CONNECTING)
        thread->connecting--;
    if (under_way(call))
        thread->active--;
    list_remove(&call->idle);
    call->state = CALL_OVER;
    inbox_drop(&call->in);
    conn_close(&thread->core, &call->conn);
}

static void call_failed(struct load_thread *thread, struct call *call, enum load_error error)
{
    load_failed(thread, error);
    call_close(thread, call);
}

// The connection broke with `error` (0: an orderly end).
static void call_broken(struct load_thread *thread, struct call *call)
{
    bool stale = call->state == CALL_HEAD && call->used && !call->answering;
    if (stale) {
        thread->results.reconnects++;
        load_ticket_return(thread, call->intended_ns);
        call_close(thread, call);
    } else if (call->state == CALL_HEAD) {
        call_failed(thread, call, LOAD_RESET);
    } else if (call->state == CALL_BODY) {
        call_failed(thread, call, LOAD_TRUNCATED);
    } else {
        call_close(thread, call);
    }
}

static enum load_error call_verdict(struct load_thread *thread, struct call *call)
{
    if (call->status >= 500)
        return LOAD_STATUS_5XX;
    if (call->status >= 400)
        return LOAD_STATUS_4XX;
    if (call->status != 200)
        return LOAD_STATUS_OTHER;
    if (check_end(&call->check))
        return LOAD_OK;
    if (!thread->results.wrong)
        thread->results.wrong = call->check.wrong;
    return LOAD_BYTES;
}

static void call_done(struct load_thread *thread, struct call *call)
{
    enum load_error error = call_verdict(thread, call);
    thread->results.events += call->check.events;
    if (error == LOAD_OK) {
        histogram_record(&thread->results.latency, thread->core.now_ns - call->intended_ns);
        thread->results.done++;
        load_count(&thread->counters.done, 1);
    } else {
        load_failed(thread, error);
    }
    call->used = true;
    if (!call->framing.keep_alive || call->framing.kind == FRAMING_UNTIL_CLOSE) {
        call_close(thread, call);
        return;
    }
    thread->active--;
    call->state = CALL_IDLE;
    conn_deadline(&thread->core, &call->conn, IDLE_MS);
    list_push_front(&thread->idle, &call->idle);
}

// ------------------------------------------------------------------------------------------
// sending

static bool push_request(struct load_thread *thread, struct conn *conn)
{
    const struct load_settings *settings = thread->settings;
    struct core *core = &thread->core;
    if (!conn_push(core, conn, NULL, settings->request, settings->before_len))
        return false;
    if (!settings->unique)
        return true;
    char nonce[LOAD_NONCE_LEN];
    uint64_t number = ++thread->counter << 8 | thread->index;
    for (int i = LOAD_NONCE_LEN; i-- > 0; number >>= 4)
        nonce[i] = "0123456789abcdef"[number & 15];
    const char *after = settings->request + settings->before_len + LOAD_NONCE_LEN;
    return conn_push_text(core, conn, nonce, sizeof nonce) &&
           conn_push(core, conn, NULL, after, settings->after_len);
}

// The connection stands and has a ticket.
static void call_send(struct load_thread *thread, struct call *call)
{
    const struct load_settings *settings = thread->settings;
    call->state = CALL_HEAD;
    call->answering = false;
    call->arrival_ns = 0;
    call->head_from = 0;
    if (!call->intended_ns)
        call->intended_ns = core_clock_ns(&thread->core);
    conn_deadline(&thread->core, &call->conn, settings->timeout_ms);
    CHECK(push_request(thread, &call->conn)); // segments are counted for every connection
    conn_receive(&thread->core, &call->conn, true);
}

void load_call_again(struct load_thread *thread, uint64_t intended_ns)
{
    struct call *call = LIST_OWNER(thread->idle.next, struct call, idle);
    CHECK(call->state == CALL_IDLE);
    list_remove(&call->idle);
    thread->active++;
    call->intended_ns = intended_ns;
    call_send(thread, call);
}

// ----------------------------------------------------------------------------------------
// receiving

static bool read_head(struct load_thread *thread, struct call *call)
{
    struct span rest = inbox_rest(&call->in);
    size_t len;
    enum h1_result result = h1_head_complete(rest.ptr, rest.len, &call->head_from, &len);
    if (result == H1_MORE)
        return false;
    struct h1_head head;
    if (result != H1_OK || h1_parse_response(&head, rest.ptr, len) != H1_OK ||
        framing_response(&call->framing, &head, H1_METHOD_POST) != FRAMING_OK) {
        call_failed(thread, call, LOAD_PROTOCOL);
        return false;
    }
    call->head_from = 0;
    call->status = head.status;
    const struct h1_field *type = h1_find(&head, H1_FIELD_CONTENT_TYPE);
    call->stream = type && span_starts(type->value, SPAN("text/event-stream"));
    inbox_take(&call->in, len);
    if (call->status < 200)
        return true; // 100 Continue: the real one follows
    call->state = CALL_BODY;
    call->body_left = call->framing.length;
    chunk_start(&call->chunk);
    bool verify = thread->settings->verify && call->status == 200;
    check_start(&call->check, call->stream, verify, thread->settings->chunks);
    if (verify && call->stream != thread->settings->stream)
        call->check.wrong = "an event stream was expected and a whole reply came, or the reverse";
    return true;
}

// Body bytes, and what their time of arrival says.
static void body_bytes(struct load_thread *thread, struct call *call, struct span data)
{
    struct load_results *results = &thread->results;
    uint64_t now = thread->core.now_ns, events = call->check.events;
    check_feed(&call->check, data.ptr, data.len);
    if (!call->stream || call->check.events == events)
        return;
    load_count(&thread->counters.events, (int64_t)(call->check.events - events));
    if (call->arrival_ns == now)
        return; // another chunk of the same receive
    if (call->arrival_ns)
        histogram_record(&results->gap, now - call->arrival_ns);
    else
        histogram_record(&results->first, now - call->intended_ns);
    call->arrival_ns = now;
    results->arrivals++;
}

// True when the body is complete.
static bool read_chunk(struct load_thread *thread, struct call *call)
{
    struct span rest = inbox_rest(&call->in), data;
    size_t used;
    enum chunk_result result = chunk_next(&call->chunk, rest.ptr, rest.len, &used, &data);
    if (result == CHUNK_BAD) {
        call_failed(thread, call, LOAD_PROTOCOL);
        return false;
    }
    if (result == CHUNK_DATA)
        body_bytes(thread, call, data);
    inbox_take(&call->in, used);
    return result == CHUNK_END;
}

static bool read_body(struct load_thread *thread, struct call *call)
{
    if (call->framing.kind == FRAMING_NONE ||
        (call->framing.kind == FRAMING_LENGTH && call->body_left == 0))
        return true;
    if (inbox_empty(&call->in))
        return false;
    if (call->framing.kind == FRAMING_CHUNKED)
        return read_chunk(thread, call);
    struct span data = inbox_rest(&call->in);
    if (call->framing.kind == FRAMING_LENGTH && data.len > call->body_left)
        data.len = (size_t)call->body_left;
    body_bytes(thread, call, data);
    call->body_left -= call->framing.kind == FRAMING_LENGTH ? data.len : 0;
    inbox_take(&call->in, data.len);
    return call->framing.kind == FRAMING_LENGTH && call->body_left == 0;
}

// Each turn of the loop takes bytes or changes the state.
static void call_read(struct load_thread *thread, struct call *call)
{
    for (bool on = true; on;) {
        switch (call->state) {
        case CALL_HEAD: on = !inbox_empty(&call->in) && read_head(thread, call); break;
        case CALL_BODY:
            if (read_body(thread, call))
                call_done(thread, call);
            else
                on = call->state == CALL_BODY && !inbox_empty(&call->in);
            break;
        case CALL_IDLE:
            on = false;
            if (!inbox_empty(&call->in)) // nobody asked
                call_failed(thread, call, LOAD_PROTOCOL);
            break;
        default: on = false; break;
        }
    }
}

// -------------------------------------------------------------------------------------- connection

static void call_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct load_thread *thread = load_of(core);
    struct call *call = call_of(conn);
    thread->results.bytes += len;
    load_count(&thread->counters.bytes, len);
    if (call->state == CALL_OVER) {
        buf_unref(buf);
        return;
    }
    if (!inbox_add(core, &call->in, buf, len)) {
        call_failed(thread, call, LOAD_PROTOCOL);
        return;
    }
    call->answering = true;
    conn_deadline(core, conn, thread->settings->timeout_ms);
    call_read(thread, call);
    conn_receive(core, conn, true);
}

static void call_ended(struct core *core, struct conn *conn, int error)
{
    struct load_thread *thread = load_of(core);
    struct call *call = call_of(conn);
    if (call->state == CALL_OVER)
        return;
    if (call->state == CALL_BODY && call->framing.kind == FRAMING_UNTIL_CLOSE && error == 0)
        call_done(thread, call);
    else
        call_broken(thread, call);
}

static void call_send_failed(struct core *core, struct conn *conn, int error)
{
    // An answer may have come before the reset: the receive tells.
    if (call_of(conn)->state != CALL_OVER && conn->ended)
        call_broken(load_of(core), call_of(conn));
}

static void call_connected(struct core *core, struct conn *conn, int error)
{
    struct load_thread *thread = load_of(core);
    struct call *call = call_of(conn);
    if (call->state == CALL_OVER)
        return;
    if (error) {
        thread->backoff_ms = core->now_ms + BACKOFF_MS;
        call_failed(thread, call, LOAD_CONNECT);
        return;
    }
    thread->connecting--;
    histogram_record(&thread->results.connect, core->now_ns - call->opened_ns);
    call_send(thread, call);
}

static void call_expired(struct core *core, struct conn *conn)
{
    struct load_thread *thread = load_of(core);
    struct call *call = call_of(conn);
    if (call->state == CALL_CONNECTING)
        call_failed(thread, call, LOAD_CONNECT);
    else if (under_way(call))
        call_failed(thread, call, LOAD_TIMEOUT);
    else if (call->state == CALL_IDLE)
        call_close(thread, call);
}

static void call_closed(struct core *core, struct conn *conn)
{
    struct load_thread *thread = load_of(core);
    list_remove(&call_of(conn)->node);
    thread->open--;
    load_count(&thread->counters.open, -1);
}

static const struct conn_ops call_ops = {
    .received = call_received,
    .ended = call_ended,
    .send_failed = call_send_failed,
    .connected = call_connected,
    .expired = call_expired,
    .closed = call_closed,
};

// False: the thread cannot open more, and the request has failed.
bool load_call_open(struct load_thread *thread, uint64_t intended_ns)
{
    struct core *core = &thread->core;
    const struct args_address *address = &thread->settings->address;
    int fd = io_socket(core->io, address->addr.any.sa_family);
    struct conn *conn = NULL;
    if (fd >= 0)
        conn = conn_open(core, fd, &call_ops, thread->settings->timeout_ms);
    if (!conn) {
        if (fd >= 0)
            close(fd);
        thread->backoff_ms = core->now_ms + BACKOFF_MS;
        load_failed(thread, LOAD_CONNECT);
        return false;
    }
    struct call *call = call_of(conn);
    call->state = CALL_CONNECTING;
    call->intended_ns = intended_ns;
    call->opened_ns = core_clock_ns(core);
    list_init(&call->idle);
    list_push_back(&thread->calls, &call->node);
    thread->connecting++;
    thread->active++;
    thread->open++;
    load_count(&thread->counters.open, 1);
    if (thread->open > thread->results.open_peak)
        thread->results.open_peak = thread->open;
    conn_connect(core, conn, &address->addr.any, address->len);
    return true;
}

void load_calls_close(struct load_thread *thread)
{
    struct list *next;
    for (struct list *node = thread->calls.next; node != &thread->calls; node = next) {
        next = node->next;
        struct call *call = LIST_OWNER(node, struct call, node);
        if (call->state != CALL_OVER)
            call_close(thread, call);
    }
}
