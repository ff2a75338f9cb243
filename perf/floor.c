// SPDX-License-Identifier: MIT
//
// floor: the smallest honest HTTP/1.1 relay on io_uring: the limit a gateway is measured against.
//
// It forwards every byte, in order, and nothing else: no routing, no rewriting, no counting, no
// timeouts. Of HTTP it knows where a message ends, because a pooled upstream connection may only be
// given away there: Content-Length, or (answers without one) the bytes CRLF "0" CRLF CRLF that
// close a chunked body. That last test is good enough for the bench's own upstream, whose events
// cannot contain those bytes, and for nothing else: do not run this in front of a real provider.
//
// The life of a buffer:
//   1. the kernel takes one from the provided ring when bytes arrive (multishot receive);
//   2. it waits in the queue of the connection it must go to;
//   3. at the end of the loop turn it is sent from where it lies, one send at a time a connection;
//   4. the send completes, the buffer goes back to the ring. Nothing is ever copied in user space.
//
// A client is paired with one upstream connection from the first byte of its request to the last
// byte of the answer; then the upstream goes to the pool. Receives that found the ring empty wait
// in a FIFO which only a returned buffer wakes. Closing is three acts: shutdown, wait for every
// completion, close.
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    RING_ENTRIES = 1024,
    COMPLETIONS = 32768,
    BUFFERS = 512, // a power of two
    BUFFER_SIZE = 4096,
    BUFFER_GROUP = 1,
    VECTORS_MAX = 16,
    TAIL_LEN = 7, // CRLF 0 CRLF CRLF
};

enum operation { OP_ACCEPT, OP_CONNECT, OP_RECV, OP_SEND, OP_MASK = 7 };
enum framing { FRAMING_HEAD, FRAMING_LENGTH, FRAMING_CHUNKED };
enum verdict { MESSAGE_BAD, MESSAGE_OPEN, MESSAGE_ENDED };

struct buffer {
    STAILQ_ENTRY(buffer) link; // in the queue of the connection that must send it
    uint32_t len;
};

struct conn {
    int fd;
    bool is_client, connecting, closing, starved, dirty;
    uint32_t in_flight;           // operations the kernel holds; the struct outlives them all
    struct conn *peer;            // the other half while an exchange runs
    LIST_ENTRY(conn) idle;        // upstreams without a peer
    STAILQ_ENTRY(conn) starving;  // no buffer for its receive
    STAILQ_ENTRY(conn) flushable; // got something to send this turn
    enum framing framing;         // of the message being received
    uint64_t body_left;
    char tail[TAIL_LEN];
    STAILQ_HEAD(, buffer) queue; // to be sent from here; the first `sending` are with the kernel
    uint32_t sending;
    struct msghdr message; // only with --vectored
    struct iovec vector[VECTORS_MAX];
};

static struct io_uring ring;
static struct buffer buffers[BUFFERS];
static _Alignas(4096) char buffer_bytes[BUFFERS][BUFFER_SIZE];
static _Alignas(4096) struct io_uring_buf buffer_slots[BUFFERS];
static struct io_uring_buf_ring *const buffer_ring = (struct io_uring_buf_ring *)buffer_slots;
static bool vectored;
static int64_t burn_ns; // --burn-ns: known extra work at each receive, to test the bench with
static struct sockaddr_in upstream_addr;
static int listen_fd;
static LIST_HEAD(, conn) pool = LIST_HEAD_INITIALIZER(pool);
static STAILQ_HEAD(, conn) starved = STAILQ_HEAD_INITIALIZER(starved);
static STAILQ_HEAD(, conn) dirty = STAILQ_HEAD_INITIALIZER(dirty);

static void die(const char *what, int error)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
    exit(1);
}

static struct io_uring_sqe *take_sqe(struct conn *conn, enum operation op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
        if (!sqe)
            die("submission queue", EBUSY);
    }
    if (conn)
        conn->in_flight++;
    sqe->user_data = (uintptr_t)conn | op; // io_uring_prep_*() leave it alone
    return sqe;
}

static void arm_accept(void)
{
    io_uring_prep_multishot_accept(take_sqe(NULL, OP_ACCEPT), listen_fd, NULL, NULL, 0);
}

static void arm_recv(struct conn *conn)
{
    struct io_uring_sqe *sqe = take_sqe(conn, OP_RECV);
    io_uring_prep_recv_multishot(sqe, conn->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
}

static struct conn *conn_new(int fd, bool is_client)
{
    struct conn *conn = calloc(1, sizeof *conn);
    int on = 1;
    if (!conn)
        die("memory", ENOMEM);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conn->fd = fd;
    conn->is_client = is_client;
    STAILQ_INIT(&conn->queue);
    return conn;
}

static struct conn *dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket", errno);
    struct conn *conn = conn_new(fd, false);
    conn->connecting = true;
    io_uring_prep_connect(take_sqe(conn, OP_CONNECT), fd, (struct sockaddr *)&upstream_addr,
                          sizeof upstream_addr);
    return conn;
}

// --- buffers -----------------------------------------------------------------------------------

static char *bytes_of(const struct buffer *buffer)
{
    return buffer_bytes[buffer - buffers];
}

static void buffer_return(struct buffer *buffer)
{
    io_uring_buf_ring_add(buffer_ring, bytes_of(buffer), BUFFER_SIZE,
                          (unsigned short)(buffer - buffers), BUFFERS - 1, 0);
    io_uring_buf_ring_advance(buffer_ring, 1);
    struct conn *conn = STAILQ_FIRST(&starved);
    if (conn) { // one buffer wakes one receive
        STAILQ_REMOVE_HEAD(&starved, starving);
        conn->starved = false;
        conn->in_flight--; // its place in the FIFO
        arm_recv(conn);
    }
}

static void starve(struct conn *conn)
{
    conn->starved = true;
    conn->in_flight++;
    STAILQ_INSERT_TAIL(&starved, conn, starving);
}

static void queue_append(struct conn *conn, struct buffer *buffer)
{
    STAILQ_INSERT_TAIL(&conn->queue, buffer, link);
    if (!conn->dirty)
        STAILQ_INSERT_TAIL(&dirty, conn, flushable);
    conn->dirty = true;
}

static void queue_drop(struct conn *conn, uint32_t count)
{
    for (struct buffer *buffer; count && (buffer = STAILQ_FIRST(&conn->queue)); count--) {
        STAILQ_REMOVE_HEAD(&conn->queue, link);
        buffer_return(buffer);
    }
}

// --- sending and closing -----------------------------------------------------------------------

static void send_all(struct conn *conn)
{
    struct buffer *buffer;
    conn->message = (struct msghdr){.msg_iov = conn->vector};
    STAILQ_FOREACH(buffer, &conn->queue, link)
    {
        if (conn->message.msg_iovlen == VECTORS_MAX)
            break;
        conn->vector[conn->message.msg_iovlen++] = (struct iovec){bytes_of(buffer), buffer->len};
    }
    conn->sending = (uint32_t)conn->message.msg_iovlen;
    io_uring_prep_sendmsg(take_sqe(conn, OP_SEND), conn->fd, &conn->message,
                          MSG_NOSIGNAL | MSG_WAITALL);
}

static void flush(struct conn *conn)
{
    struct buffer *first = STAILQ_FIRST(&conn->queue);
    if (conn->connecting || conn->sending || !first)
        return;
    if (vectored && STAILQ_NEXT(first, link)) {
        send_all(conn);
        return;
    }
    conn->sending = 1; // MSG_WAITALL: the kernel finishes a short send itself
    io_uring_prep_send(take_sqe(conn, OP_SEND), conn->fd, bytes_of(first), first->len,
                       MSG_NOSIGNAL | MSG_WAITALL);
}

static void conn_settle(struct conn *conn)
{
    if (!conn->closing || conn->in_flight || conn->dirty)
        return;
    queue_drop(conn, UINT32_MAX);
    close(conn->fd);
    free(conn);
}

static void flush_dirty(void)
{
    for (struct conn *conn; (conn = STAILQ_FIRST(&dirty));) {
        STAILQ_REMOVE_HEAD(&dirty, flushable);
        conn->dirty = false;
        if (!conn->closing)
            flush(conn);
        conn_settle(conn);
    }
}

// Both halves. Shutdown ends the armed receive; the last completion leads to close().
static void conn_close(struct conn *conn)
{
    struct conn *peer = conn->peer;
    if (conn->closing)
        return;
    if (!peer && !conn->is_client)
        LIST_REMOVE(conn, idle);
    conn->closing = true;
    conn->peer = NULL;
    shutdown(conn->fd, SHUT_RDWR);
    if (peer) {
        peer->closing = true;
        peer->peer = NULL;
        shutdown(peer->fd, SHUT_RDWR);
    }
}

// --- messages ----------------------------------------------------------------------------------

// Content-Length in a head, or -1.
static int64_t content_length(const char *head, size_t len)
{
    static const char name[] = "\ncontent-length:";
    const char *at = head, *end = head + len;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        if ((size_t)(end - at) > sizeof name && !strncasecmp(at, name, sizeof name - 1))
            return strtoll(at + sizeof name - 1, NULL, 10); // a head ends in CRLF: strtoll stops
        at++;
    }
    return -1;
}

static enum verdict chunked_take(struct conn *conn, const char *data, size_t len)
{
    size_t fresh = len < TAIL_LEN ? len : TAIL_LEN;
    memmove(conn->tail, conn->tail + fresh, TAIL_LEN - fresh);
    memcpy(conn->tail + TAIL_LEN - fresh, data + len - fresh, fresh);
    return memcmp(conn->tail, "\r\n0\r\n\r\n", TAIL_LEN) ? MESSAGE_OPEN : MESSAGE_ENDED;
}

// Follow one message by the bytes that arrived. A head must lie in one buffer, and a message must
// not be followed by another in the same buffer (no pipelining): true for the bench, else the pair
// is closed.
static enum verdict message_take(struct conn *conn, const char *data, size_t len)
{
    if (conn->framing == FRAMING_HEAD) {
        const char *end = memmem(data, len, "\r\n\r\n", 4);
        size_t head_len = end ? (size_t)(end + 4 - data) : 0;
        int64_t length = content_length(data, head_len);
        if (!end || (length < 0 && conn->is_client))
            return MESSAGE_BAD;
        conn->framing = length < 0 ? FRAMING_CHUNKED : FRAMING_LENGTH;
        conn->body_left = (uint64_t)length;
        memset(conn->tail, 0, TAIL_LEN);
        data += head_len;
        len -= head_len;
    }
    if (conn->framing == FRAMING_CHUNKED)
        return chunked_take(conn, data, len);
    if (len > conn->body_left)
        return MESSAGE_BAD;
    conn->body_left -= len;
    return conn->body_left ? MESSAGE_OPEN : MESSAGE_ENDED;
}

static void pair(struct conn *client)
{
    struct conn *up = LIST_FIRST(&pool);
    if (up)
        LIST_REMOVE(up, idle);
    else
        up = dial();
    client->peer = up;
    up->peer = client;
    client->framing = up->framing = FRAMING_HEAD;
}

static void unpair(struct conn *up)
{
    up->peer->peer = NULL;
    up->peer = NULL;
    LIST_INSERT_HEAD(&pool, up, idle);
}

// --- completions -------------------------------------------------------------------------------

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void burn(void)
{
    for (int64_t end = now_ns() + burn_ns; now_ns() < end;)
        ;
}

static void on_bytes(struct conn *conn, struct buffer *buffer, int len)
{
    buffer->len = (uint32_t)len;
    if (burn_ns)
        burn();
    if (!conn->closing && conn->is_client && !conn->peer)
        pair(conn);
    if (conn->closing || !conn->peer) { // an idle upstream must not speak
        buffer_return(buffer);
        conn_close(conn);
        return;
    }
    enum verdict verdict = message_take(conn, bytes_of(buffer), buffer->len);
    queue_append(conn->peer, buffer);
    if (verdict == MESSAGE_BAD)
        conn_close(conn);
    else if (verdict == MESSAGE_ENDED && !conn->is_client)
        unpair(conn);
}

static void on_recv(struct conn *conn, int res, uint32_t flags)
{
    bool armed = flags & IORING_CQE_F_MORE;
    conn->in_flight -= !armed;
    if (res > 0)
        on_bytes(conn, &buffers[flags >> IORING_CQE_BUFFER_SHIFT], res);
    else if (res == -ENOBUFS && !conn->closing)
        starve(conn);
    else
        conn_close(conn);
    if (!armed && !conn->closing && !conn->starved)
        arm_recv(conn);
}

static void on_send(struct conn *conn, int res)
{
    uint32_t sent = conn->sending;
    conn->in_flight--;
    conn->sending = 0;
    queue_drop(conn, sent);
    if (res < 0)
        conn_close(conn);
    if (!conn->closing)
        flush(conn);
}

static void on_connect(struct conn *conn, int res)
{
    conn->in_flight--;
    conn->connecting = false;
    if (res < 0)
        conn_close(conn);
    if (!conn->closing) {
        arm_recv(conn);
        flush(conn);
    }
}

static void on_accept(int res, uint32_t flags)
{
    if (res >= 0)
        arm_recv(conn_new(res, true));
    if (!(flags & IORING_CQE_F_MORE))
        arm_accept();
}

static void on_completion(uint64_t data, int res, uint32_t flags)
{
    struct conn *conn = (struct conn *)(uintptr_t)(data & ~(uint64_t)OP_MASK);
    switch ((enum operation)(data & OP_MASK)) {
    case OP_ACCEPT: on_accept(res, flags); return;
    case OP_CONNECT: on_connect(conn, res); break;
    case OP_RECV: on_recv(conn, res, flags); break;
    case OP_SEND: on_send(conn, res); break;
    case OP_MASK: break;
    }
    conn_settle(conn);
}

static void run(void)
{
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        int error = io_uring_submit_and_wait(&ring, 1);
        if (error < 0 && error != -EINTR)
            die("io_uring_enter", -error);
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            on_completion(cqe->user_data, cqe->res, cqe->flags);
            count++;
        }
        io_uring_cq_advance(&ring, count);
        flush_dirty();
    }
}

// --- start -------------------------------------------------------------------------------------

static void setup_ring(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                                              IORING_SETUP_CQSIZE,
                                     .cq_entries = COMPLETIONS};
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)buffer_ring, .ring_entries = BUFFERS, .bgid = BUFFER_GROUP};
    int error = io_uring_queue_init_params(RING_ENTRIES, &ring, &params);
    if (!error)
        error = io_uring_register_buf_ring(&ring, &reg, 0);
    if (error)
        die("io_uring", -error);
    io_uring_buf_ring_init(buffer_ring);
    for (int i = 0; i < BUFFERS; i++)
        buffer_return(&buffers[i]);
}

static struct sockaddr_in parse_addr(const char *text)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    char host[64];
    unsigned short port;
    if (sscanf(text, "%63[0-9.]:%hu", host, &port) != 2 ||
        inet_pton(AF_INET, host, &addr.sin_addr) != 1) {
        fprintf(stderr, "floor: \"%s\" is not an IPv4 ADDR:PORT\n", text);
        exit(2);
    }
    addr.sin_port = htons(port);
    return addr;
}

static void start_listener(const char *text)
{
    struct sockaddr_in addr = parse_addr(text);
    int on = 1;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listen_fd, (struct sockaddr *)&addr, sizeof addr) || listen(listen_fd, 4096))
        die(text, errno);
    arm_accept();
}

static void pin(const char *text)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(strtoul(text, NULL, 10), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("--cpu", errno);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"listen", 1, NULL, 'l'},  {"upstream", 1, NULL, 'u'},
                                            {"cpu", 1, NULL, 'c'},     {"vectored", 0, NULL, 'v'},
                                            {"burn-ns", 1, NULL, 'b'}, {NULL, 0, NULL, 0}};
    const char *listen_text = NULL, *upstream_text = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'l': listen_text = optarg; break;
        case 'u': upstream_text = optarg; break;
        case 'c': pin(optarg); break;
        case 'v': vectored = true; break;
        case 'b': burn_ns = strtol(optarg, NULL, 10); break;
        default:
            listen_text = NULL;
            optind = argc;
            break;
        }
    }
    if (!listen_text || !upstream_text) {
        fputs("usage: floor --listen ADDR:PORT --upstream ADDR:PORT [--cpu N] [--vectored]"
              " [--burn-ns N]\n",
              stderr);
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    upstream_addr = parse_addr(upstream_text);
    setup_ring();
    start_listener(listen_text);
    run();
}
