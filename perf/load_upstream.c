// SPDX-License-Identifier: MIT
#include "perf/load_upstream.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "perf/load_loop.h"
#include "perf/load_window.h"
#include "perf/load_wire.h"

enum { REQUEST_MAX = 4096, HEAD_CHUNK = UINT32_MAX };

enum session_state {
    SESSION_READING,
    SESSION_READY,   // in `ready`: may write its next chunk now
    SESSION_WAITING, // in `timed`: next chunk at due_ns
    SESSION_BLOCKED, // the socket is full: epoll tells
    SESSION_AHEAD,   // in `ahead`: the client must catch up first
    SESSION_HELD,    // silent for good
};

struct session {
    struct source source;
    enum session_state state;
    TAILQ_ENTRY(session) link;
    struct order order;
    uint32_t index;   // next chunk; HEAD_CHUNK: the head comes first
    uint32_t written; // bytes of it the socket took already
    uint64_t due_ns;
    uint32_t in_len;
    char in[REQUEST_MAX];
};

TAILQ_HEAD(session_list, session);
static struct session_list ready = TAILQ_HEAD_INITIALIZER(ready);
static struct session_list timed = TAILQ_HEAD_INITIALIZER(timed); // by due_ns: one gap per run
static struct session_list ahead = TAILQ_HEAD_INITIALIZER(ahead);
static uint32_t ready_count;
static uint64_t faults;

uint64_t upstream_faults(void)
{
    return faults;
}

static struct session_list *list_of(enum session_state state)
{
    switch (state) {
    case SESSION_READY: return &ready;
    case SESSION_WAITING: return &timed;
    case SESSION_AHEAD: return &ahead;
    default: return NULL;
    }
}

static void session_move(struct session *session, enum session_state state)
{
    struct session_list *from = list_of(session->state), *to = list_of(state);
    if (from)
        TAILQ_REMOVE(from, session, link);
    if (to)
        TAILQ_INSERT_TAIL(to, session, link);
    if ((session->state == SESSION_BLOCKED) != (state == SESSION_BLOCKED))
        loop_want_write(&session->source, state == SESSION_BLOCKED);
    ready_count += (state == SESSION_READY) - (session->state == SESSION_READY);
    session->state = state;
}

static void session_end(struct session *session)
{
    if (session->state != SESSION_READING && session->state != SESSION_HELD)
        faults++;
    session_move(session, SESSION_READING);
    loop_close(&session->source);
    free(session);
}

static void stream_next(struct session *session)
{
    const struct order *order = &session->order;
    uint32_t index = session->index;
    if (index == order->chunks)
        session_move(session, SESSION_READING);
    else if (order->hold && index >= order->hold)
        session_move(session, SESSION_HELD);
    else if (order->window && index >= window_get(order->nonce) + order->window)
        session_move(session, SESSION_AHEAD);
    else if (order->gap_ms && index)
        session_move(session, SESSION_WAITING);
    else
        session_move(session, SESSION_READY);
}

static void stream_write(struct session *session)
{
    char bytes[WIRE_CHUNK_MAX + 32];
    size_t len = session->index == HEAD_CHUNK ? wire_stream_head(bytes)
                                              : wire_chunk(bytes, &session->order, session->index);
    ssize_t n = send(session->source.fd, bytes + session->written, len - session->written,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) {
        session_end(session);
        return;
    }
    session->written += n > 0 ? (uint32_t)n : 0;
    if (session->written < len) {
        session_move(session, SESSION_BLOCKED);
        return;
    }
    session->written = 0;
    session->index++; // HEAD_CHUNK + 1 == 0
    if (session->index)
        session->due_ns += (uint64_t)session->order.gap_ms * 1000000;
    stream_next(session);
}

static void stream_start(struct session *session)
{
    session->index = HEAD_CHUNK;
    session->written = 0;
    session->due_ns = now_ns();
    window_set(session->order.nonce, 0);
    session_move(session, SESSION_READY);
}

static void wake_timed(void)
{
    struct session *session;
    uint64_t now = now_ns();
    while ((session = TAILQ_FIRST(&timed)) && session->due_ns <= now)
        session_move(session, SESSION_READY);
}

static void wake_ahead(void)
{
    struct session *session, *next;
    for (session = TAILQ_FIRST(&ahead); session; session = next) {
        next = TAILQ_NEXT(session, link);
        if (session->index < window_get(session->order.nonce) + session->order.window)
            session_move(session, SESSION_READY);
    }
}

int upstream_pump(void)
{
    if (!TAILQ_EMPTY(&timed))
        wake_timed();
    wake_ahead();
    for (uint32_t turns = ready_count; turns && ready_count; turns--)
        stream_write(TAILQ_FIRST(&ready)); // which moves it to the end, or out
    if (ready_count || !TAILQ_EMPTY(&ahead))
        return 0;
    if (TAILQ_EMPTY(&timed))
        return -1;
    uint64_t now = now_ns(), due = TAILQ_FIRST(&timed)->due_ns;
    return due > now ? (int)((due - now) / 1000000) : 0;
}

// --- requests ----------------------------------------------------------------------------------

static bool answer(struct session *session)
{
    if (session->order.chunks) {
        stream_start(session);
        return true;
    }
    char bytes[WIRE_REPLY_MAX];
    size_t len = wire_reply(bytes, &session->order);
    return send(session->source.fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

// False: not a request of ours; the connection ends.
static bool session_parse(struct session *session)
{
    size_t head = wire_head_len(session->in, session->in_len);
    if (!head)
        return session->in_len < REQUEST_MAX;
    int64_t body = wire_content_length(session->in, head);
    if (body < 0 || head + (size_t)body > REQUEST_MAX)
        return false;
    if (session->in_len < head + (size_t)body)
        return true;
    if (session->in_len > head + (size_t)body ||
        !wire_order(session->in + head, (size_t)body, &session->order))
        return false;
    session->in_len = 0;
    return answer(session);
}

static void session_read(struct session *session)
{
    ssize_t n = recv(session->source.fd, session->in + session->in_len,
                     REQUEST_MAX - session->in_len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0) {
        session->in_len += (uint32_t)n;
        if (session->state == SESSION_READING && session_parse(session))
            return;
        faults++;
    }
    session_end(session);
}

static void session_ready(struct source *source, uint32_t events)
{
    struct session *session = (struct session *)source;
    if (events & EPOLLOUT && session->state == SESSION_BLOCKED)
        session_move(session, SESSION_READY);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        session_read(session);
}

static void listener_ready(struct source *source, uint32_t events)
{
    int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        die("memory");
    session->source = (struct source){session_ready, fd};
    nodelay(fd);
    loop_add(&session->source);
}

void upstream_listen(uint16_t port)
{
    static struct source listener = {listener_ready, -1};
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener.fd, (struct sockaddr *)&addr, sizeof addr) || listen(listener.fd, 4096))
        die("upstream listener");
    loop_add(&listener);
}
