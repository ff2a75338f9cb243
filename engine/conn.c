// SPDX-License-Identifier: MIT
#include "engine/conn.h"

#include <errno.h>
#include <string.h>

#include "alloc/check.h"

#define CONN_MAGIC MAGIC('c', 'o', 'n', 'n')

static struct io_token token(struct core *core, struct conn *conn, enum io_op op)
{
    return (struct io_token){op, slab_index(&core->conns, conn), conn->generation};
}

static struct io_token started(struct core *core, struct conn *conn, enum io_op op)
{
    conn->in_flight++;
    core->operations++;
    return token(core, conn, op);
}

// ------------------------------------------------------------------------------------ open, close

static void deadline_fire(struct core *core, struct timer *timer)
{
    struct conn *conn = LIST_OWNER(timer, struct conn, timer);
    CHECK_MAGIC(conn, CONN_MAGIC);
    if (core->now_ms < conn->deadline_ms) { // it was moved forward since
        timer_set(&core->wheel, &conn->timer, conn->deadline_ms);
        return;
    }
    if (conn->state == CONN_CLOSING) {
        // A completion that never came? A process that was stopped for long gets one more look
        // first.
        CHECK(!conn->closing_late);
        conn->closing_late = true;
        conn_deadline(core, conn, CONN_CLOSING_MS);
        return;
    }
    if (conn->state == CONN_LINGERING) {
        conn_close(core, conn);
        return;
    }
    conn->ops->expired(core, conn);
    if (conn->state != CONN_FREE && !timer_armed(&conn->timer))
        timer_set(&core->wheel, &conn->timer, conn->deadline_ms);
}

struct conn *conn_open(struct core *core, int fd, const struct conn_ops *ops, uint64_t deadline_ms)
{
    struct conn *conn = slab_take(&core->conns);
    if (!conn)
        return NULL;
    uint32_t generation = conn->generation + 1;
    memset(conn, 0, core->conns.object_size);
    conn->magic = CONN_MAGIC;
    conn->generation = generation ? generation : 1;
    conn->fd = fd;
    conn->ops = ops;
    conn->state = CONN_OPEN;
    conn->moved_ms = core->now_ms;
    list_init(&conn->dirty);
    list_init(&conn->line);
    timer_init(&conn->timer, deadline_fire);
    conn_deadline(core, conn, deadline_ms);
    core->conn_count++;
    return conn;
}

void conn_connect(struct core *core, struct conn *conn, const struct sockaddr *addr, socklen_t len)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    CHECK(conn->state == CONN_OPEN);
    CHECK(conn->in_flight == 0);
    conn->state = CONN_CONNECTING;
    conn->connecting = true;
    io_connect(core->io, conn->fd, started(core, conn, IO_CONNECT), addr, len);
}

void conn_deadline(struct core *core, struct conn *conn, uint64_t ms_from_now)
{
    conn->deadline_ms = core->now_ms + ms_from_now;
    // Later than the armed timer: the timer will find out by itself. Earlier: it must move.
    if (!timer_armed(&conn->timer) || conn->deadline_ms < conn->timer.at_ms)
        timer_set(&core->wheel, &conn->timer, conn->deadline_ms);
}

// Leave the line for receives, whichever it is: the starved one or this turn's.
static void line_leave(struct core *core, struct conn *conn)
{
    if (list_empty(&conn->line))
        return;
    list_remove(&conn->line);
    if (conn->starved)
        core->starved_count--;
    conn->starved = false;
}

static void segment_free(struct core *core, struct segment *segment)
{
    if (segment->buf)
        buf_unref(segment->buf);
    slab_give(&core->segments, segment);
}

static void output_free(struct core *core, struct conn *conn)
{
    CHECK(!conn->send_armed);
    for (struct segment *next, *segment = conn->out_first; segment; segment = next) {
        next = segment->next;
        segment_free(core, segment);
    }
    conn->out_first = conn->out_last = NULL;
    conn->out_bytes = conn->out_segments = conn->out_buffers = 0;
    conn->out_last_buf = NULL;
}

static void gathered_free(struct conn *conn)
{
    if (conn->gathered)
        buf_unref(conn->gathered);
    conn->gathered = NULL;
}

// The last act of closing, once the kernel holds nothing of ours.
static void close_if_quiet(struct core *core, struct conn *conn)
{
    if (conn->in_flight > 0)
        return;
    if (conn->fd >= 0) {
        output_free(core, conn);
        gathered_free(conn);
        conn->cipher_len = 0;
        conn_deadline(core, conn, CONN_CLOSING_MS);
        io_close(core->io, conn->fd, started(core, conn, IO_CLOSE));
        conn->fd = -1;
        return;
    }
    timer_cancel(&conn->timer);
    conn->ops->closed(core, conn);
    conn_tls_free(conn);
    conn->state = CONN_FREE;
    conn->magic = 0;
    core->conn_count--;
    // The free list's link overwrites the first word only: `generation` survives for the next
    // owner.
    slab_give(&core->conns, conn);
}

static void cancel(struct core *core, struct conn *conn, enum io_op op)
{
    conn->cancelling++;
    io_cancel(core->io, token(core, conn, op), started(core, conn, IO_CANCEL));
}

// By operation, not by descriptor: the kernel finds one by its hash, the other by looking at
// everything that is armed on the whole ring (docs/decisions/0009).
static void cancel_armed(struct core *core, struct conn *conn)
{
    const struct {
        bool armed;
        enum io_op op;
    } all[] = {
        {conn->receive_armed, IO_RECV},
        {conn->send_armed, IO_SEND},
        {conn->watching, IO_HANGUP},
        {conn->connecting, IO_CONNECT},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].armed)
            cancel(core, conn, all[i].op);
}

void conn_close(struct core *core, struct conn *conn)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    CHECK(conn->state != CONN_FREE);
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    line_leave(core, conn);
    list_remove(&conn->dirty);
    conn_deadline(core, conn, CONN_CLOSING_MS);
    if (conn->in_flight > 0)
        cancel_armed(core, conn);
    else
        close_if_quiet(core, conn);
}

static void linger(struct core *core, struct conn *conn)
{
    if (conn->tls && conn_tls_close(core, conn))
        return; // comes back when close_notify is out
    conn->state = CONN_LINGERING;
    io_shutdown_send(core->io, conn->fd);
    conn_deadline(core, conn, CONN_LINGER_MS);
    if (conn->ended)
        conn_close(core, conn);
    else
        conn_receive(core, conn, conn->receive_multishot);
}

void conn_finish(struct core *core, struct conn *conn)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    if (conn->state != CONN_OPEN || conn->finishing)
        return;
    conn->finishing = true;
    if (!conn_has_output(conn))
        linger(core, conn);
}

void conn_finish_torn(struct core *core, struct conn *conn)
{
    conn->tls_closing = true; // as if it had been said
    conn_finish(core, conn);
}

// ---------------------------------------------------------------------------------------- receive

void conn_receive(struct core *core, struct conn *conn, bool multishot)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    if (conn->state != CONN_OPEN && conn->state != CONN_LINGERING)
        return;
    conn->receive_wanted = true; // also while a stop is under way
    conn->receive_next = multishot;
    if (conn->ended || !list_empty(&conn->line))
        return;
    if (conn->receive_armed)
        return;
    conn->receive_multishot = multishot;
    list_push_back(&core->receivers, &conn->line);
}

static void receive_start(struct core *core, struct conn *conn)
{
    CHECK(!conn->receive_armed);
    conn->receive_armed = true;
    conn->receive_stopping = false;
    io_recv(core->io, conn->fd, started(core, conn, IO_RECV), conn->receive_multishot);
}

void conn_start_receives(struct core *core)
{
    for (struct list *node; (node = list_pop_front(&core->receivers));)
        receive_start(core, LIST_OWNER(node, struct conn, line));
}

void conn_receive_stop(struct core *core, struct conn *conn)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    line_leave(core, conn);
    conn->receive_wanted = false;
    if (!conn->receive_armed || conn->receive_stopping || conn->state == CONN_CLOSING)
        return;
    conn->receive_stopping = true;
    cancel(core, conn, IO_RECV);
}

// A multishot receive with more bytes to take is between two states for a moment, where the kernel
// does not find it. A cancellation that found nothing, of something that is still armed, is asked
// for again.
static void cancel_event(struct core *core, struct conn *conn, int result)
{
    conn->cancelling--;
    conn->cancel_missed |= result < 0; // the last one to answer need not be the one that missed
    if (conn->cancelling > 0 || !conn->cancel_missed)
        return;
    conn->cancel_missed = false;
    if (conn->state == CONN_CLOSING) {
        cancel_armed(core, conn);
        return;
    }
    if (!conn->receive_armed || !conn->receive_stopping)
        return;
    conn->receive_stopping = false;
    if (!conn->receive_wanted)
        conn_receive_stop(core, conn);
}

static void starve(struct core *core, struct conn *conn)
{
    conn->starved = true;
    // One that was woken and came too late again keeps its place in front.
    if (conn->woken)
        list_push_front(&core->starved, &conn->line);
    else
        list_push_back(&core->starved, &conn->line);
    core->starved_count++;
    core->starved_total++;
}

// Each available buffer wakes one connection, longest waiting first.
void conn_wake_starved(struct core *core)
{
    for (uint32_t left = core->receive.in_ring; left > 0; left--) {
        struct list *node = list_pop_front(&core->starved);
        if (!node)
            return;
        core->starved_count--;
        struct conn *conn = LIST_OWNER(node, struct conn, line);
        conn->starved = false;
        conn->woken = true;
        conn->receive_multishot = conn->receive_next;
        receive_start(core, conn);
    }
}

void conn_receive_ended(struct core *core, struct conn *conn, int error)
{
    conn->ended = true;
    if (conn->tls)
        error = conn_tls_ended(core, conn, error);
    if (conn->state == CONN_CLOSING)
        return;
    if (conn->state == CONN_LINGERING)
        conn_close(core, conn);
    else
        conn->ops->ended(core, conn, error);
}

// The receive is over without bytes.
static void receive_stopped(struct core *core, struct conn *conn, int result)
{
    conn->receive_stopping = false;
    if (result != -ECANCELED && result != -ENOBUFS) {
        conn_receive_ended(core, conn, result);
    } else if (!conn->receive_wanted) {
        // As asked; somebody arms it again when there is room.
        if (conn->hung_up)
            conn_receive_ended(core, conn, 0);
    } else if (result == -ENOBUFS) {
        starve(core, conn);
    } else {
        conn_receive(core, conn, conn->receive_next); // wanted again since it was stopped
    }
}

static void receive_event(struct core *core, struct conn *conn, const struct io_event *event)
{
    if (!event->more)
        conn->receive_armed = false;
    struct buf *buf = NULL;
    if (event->buffer != IO_NO_BUFFER)
        buf = buf_from_ring(&core->receive, (uint32_t)event->buffer);
    if (buf && (event->result <= 0 || conn->state == CONN_CLOSING)) {
        buf_unref(buf);
        buf = NULL;
    }
    if (conn->state == CONN_CLOSING)
        return;
    if (!buf) {
        CHECK(!event->more);
        receive_stopped(core, conn, event->result);
        return;
    }
    // A multishot receive may end with bytes; its cancellation then finds nothing.
    conn->receive_stopping = conn->receive_stopping && conn->receive_armed;
    bool wanted = conn->receive_wanted;
    conn->receive_wanted = conn->receive_multishot && wanted;
    conn->woken = false;
    conn->moved_ms = core->now_ms;
    if (conn->state == CONN_LINGERING) {
        buf_unref(buf);
        conn_receive(core, conn, conn->receive_multishot);
        return;
    }
    if (conn->tls)
        conn_tls_received(core, conn, buf, (uint32_t)event->result, wanted);
    else
        conn->ops->received(core, conn, buf, (uint32_t)event->result);
    // The kernel may end a multishot receive behind any of its results.
    if (!event->more && conn->receive_wanted)
        conn_receive(core, conn, true);
}

void conn_watch(struct core *core, struct conn *conn)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    if (conn->state != CONN_OPEN || conn->watching || conn->ended)
        return;
    conn->watching = true;
    io_hangup(core->io, conn->fd, started(core, conn, IO_HANGUP));
}

static void hangup_event(struct core *core, struct conn *conn, int result)
{
    conn->watching = false;
    if (conn->state == CONN_CLOSING || conn->ended || result < 0)
        return;
    // A receive that is armed tells the same in a moment, with the bytes before it.
    if (conn->receive_armed)
        conn->hung_up = true;
    else
        conn_receive_ended(core, conn, 0);
}

// ------------------------------------------------------------------------------------------- send

void conn_dirty(struct core *core, struct conn *conn)
{
    if (!conn->send_armed && list_empty(&conn->dirty))
        list_push_back(&core->dirty, &conn->dirty);
}

static bool push(struct core *core, struct conn *conn, struct segment *segment)
{
    segment->next = NULL;
    if (conn->out_last)
        conn->out_last->next = segment;
    else
        conn->out_first = segment;
    conn->out_last = segment;
    conn->out_bytes += segment->len;
    conn->out_segments++;
    segment->pins = segment->buf && segment->buf != conn->out_last_buf;
    if (segment->pins) {
        conn->out_buffers++;
        conn->out_last_buf = segment->buf;
    }
    conn_dirty(core, conn);
    return true;
}

static bool may_push(const struct conn *conn)
{
    CHECK_MAGIC(conn, CONN_MAGIC);
    return (conn->state == CONN_OPEN || conn->state == CONN_CONNECTING) && !conn->finishing;
}

bool conn_push(struct core *core, struct conn *conn, struct buf *buf, const void *ptr, size_t len)
{
    CHECK(len > 0);
    CHECK(len <= UINT32_MAX);
    if (!may_push(conn))
        return true; // on its way out: output is of no use to anybody
    struct segment *segment = slab_take(&core->segments);
    if (!segment)
        return false;
    segment->ptr = ptr;
    segment->len = (uint32_t)len;
    segment->buf = buf;
    if (buf)
        buf_ref(buf);
    return push(core, conn, segment);
}

bool conn_push_text(struct core *core, struct conn *conn, const void *text, size_t len)
{
    CHECK(len > 0);
    CHECK(len <= SEGMENT_TEXT_MAX);
    if (!may_push(conn))
        return true;
    struct segment *segment = slab_take(&core->segments);
    if (!segment)
        return false;
    memcpy(segment->text, text, len);
    segment->ptr = segment->text;
    segment->len = (uint32_t)len;
    segment->buf = NULL;
    return push(core, conn, segment);
}

// Where the pieces can be put together: behind the first one, if that is a head with room left in
// its own buffer, else in a buffer of their own.
static uint8_t *gather_place(struct core *core, struct conn *conn)
{
    struct segment *first = conn->out_first;
    struct buf *buf = first->buf;
    if (buf && buf->filled > 0 && first->ptr + first->len == buf->bytes + buf->filled &&
        conn->out_bytes - first->len <= buf->pool->size - buf->filled)
        return (uint8_t *)first->ptr;
    conn->gathered = conn->out_bytes <= core->write.size ? buf_take(&core->write) : NULL;
    return conn->gathered ? conn->gathered->bytes : NULL;
}

// A few small pieces (a head and its short body) cost less to copy together than the kernel charges
// for a vector of them: docs/decisions/0003. Returns how many vectors are left to send.
static unsigned gather(struct core *core, struct conn *conn, struct iovec *iov, unsigned count)
{
    if (count == 1 || conn->out_bytes > CONN_GATHER_BYTES || count < conn->out_segments)
        return count;
    uint8_t *place = gather_place(core, conn);
    if (!place)
        return count;
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        if (place + at != iov[i].iov_base)
            memcpy(place + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    iov[0] = (struct iovec){place, at};
    return 1;
}

void conn_send_bytes(struct core *core, struct conn *conn, const void *bytes, size_t len)
{
    struct iovec iov = {(void *)bytes, len};
    conn->send_armed = true;
    io_send(core->io, conn->fd, started(core, conn, IO_SEND), &iov, 1);
}

static void send_start(struct core *core, struct conn *conn)
{
    struct iovec iov[IO_VECTOR_MAX];
    unsigned count = 0;
    for (struct segment *s = conn->out_first; s && count < IO_VECTOR_MAX; s = s->next)
        iov[count++] = (struct iovec){(void *)s->ptr, s->len};
    count = gather(core, conn, iov, count);
    conn->send_armed = true;
    io_send(core->io, conn->fd, started(core, conn, IO_SEND), iov, count);
}

void conn_flush_dirty(struct core *core)
{
    for (struct list *node; (node = list_pop_front(&core->dirty));) {
        struct conn *conn = LIST_OWNER(node, struct conn, dirty);
        CHECK_MAGIC(conn, CONN_MAGIC);
        if (conn->state != CONN_OPEN || conn->send_armed || !conn_has_output(conn))
            continue;
        if (conn->tls)
            conn_tls_send(core, conn);
        else
            send_start(core, conn);
        // CONNECTING: made dirty again when the connection stands.
    }
}

// The kernel took `bytes`: give back what they pinned.
void conn_output_advance(struct core *core, struct conn *conn, uint32_t bytes)
{
    CHECK(bytes <= conn->out_bytes);
    conn->out_bytes -= bytes;
    while (bytes > 0) {
        struct segment *segment = conn->out_first;
        if (bytes < segment->len) {
            segment->ptr += bytes;
            segment->len -= bytes;
            return;
        }
        bytes -= segment->len;
        conn->out_first = segment->next;
        if (!conn->out_first)
            conn->out_last = NULL;
        conn->out_segments--;
        conn->out_buffers -= segment->pins;
        if (!conn->out_first)
            conn->out_last_buf = NULL;
        segment_free(core, segment);
    }
}

static void send_failed(struct core *core, struct conn *conn, int error)
{
    output_free(core, conn);
    gathered_free(conn);
    conn->cipher_len = 0;
    conn->tls_waiting = false;
    if (conn->finishing || conn->state == CONN_LINGERING)
        conn_close(core, conn);
    else
        conn->ops->send_failed(core, conn, error);
}

static void send_event(struct core *core, struct conn *conn, const struct io_event *event)
{
    conn->send_armed = false;
    if (!conn->tls)
        gathered_free(conn);
    if (conn->state == CONN_CLOSING)
        return;
    if (event->result < 0) {
        send_failed(core, conn, event->result);
        return;
    }
    uint32_t bytes = (uint32_t)event->result;
    conn->moved_ms = core->now_ms;
    if (conn->tls) {
        conn_tls_sent(core, conn, bytes);
    } else {
        conn_output_advance(core, conn, bytes);
        if (conn->ops->sent)
            conn->ops->sent(core, conn, bytes);
    }
    if (conn->state != CONN_OPEN)
        return;
    if (conn_has_output(conn))
        conn_dirty(core, conn);
    else if (conn->finishing)
        linger(core, conn);
}

// ----------------------------------------------------------------------------------------- events

static void connect_event(struct core *core, struct conn *conn, int result)
{
    conn->connecting = false;
    if (conn->state == CONN_CLOSING)
        return;
    CHECK(conn->state == CONN_CONNECTING);
    conn->state = CONN_OPEN;
    conn->moved_ms = core->now_ms;
    if (result == 0 && conn->out_first && list_empty(&conn->dirty))
        list_push_back(&core->dirty, &conn->dirty);
    conn->ops->connected(core, conn, result);
}

void conn_event(struct core *core, const struct io_event *event)
{
    struct conn *conn = slab_at(&core->conns, event->token.slot);
    CHECK_MAGIC(conn, CONN_MAGIC);
    CHECK(conn->generation == event->token.generation);
    if (!event->more) {
        CHECK(conn->in_flight > 0);
        conn->in_flight--;
        core->operations--;
    }
    switch (event->token.op) {
    case IO_RECV: receive_event(core, conn, event); break;
    case IO_SEND: send_event(core, conn, event); break;
    case IO_CONNECT: connect_event(core, conn, event->result); break;
    case IO_HANGUP: hangup_event(core, conn, event->result); break;
    case IO_CANCEL: cancel_event(core, conn, event->result); break;
    case IO_CLOSE: break;
    default: CHECK(!"an operation that connections do not start");
    }
    // Closed above or earlier, and this was the last completion. A conn_close() inside the handler
    // that found nothing in flight has queued the close itself (fd is -1 and in_flight is 1).
    if (conn->state == CONN_CLOSING && conn->in_flight == 0)
        close_if_quiet(core, conn);
}
