// SPDX-License-Identifier: MIT
//
// The kernel side of engine/io.h, by io_uring(7). The only file that includes liburing.
#include "engine/io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "alloc/pages.h"

enum {
    BUFFER_GROUP = 1,
    CQ_FACTOR = 8, // completions per submission entry: multishot receives outnumber what we queue
    TIMEOUTS_MAX = 4, // armed between two submits: one a turn, and a few for luck
    SENDS_MAX = 4096, // vectored sends queued between two submits
    SINGLE_ISSUER_FLAGS = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                          IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
};

// user_data of our own timeouts: the top bit, which no io_op reaches, and when it is due.
#define TIMEOUT_DATA    (1ull << 63)
#define TIMEOUT_AT_MASK (TIMEOUT_DATA - 1)

#define IO_MAGIC MAGIC('i', 'o', 'u', 'r')

struct io {
    uint32_t magic;
    struct io_uring ring;
    struct io_uring_buf_ring *buffer_ring;
    struct io_config config;
    struct io_stats stats;
    uint32_t provided; // buffers added to the ring but not yet published
    int wake_fd;
    uint64_t wake_value; // where the eventfd read lands
    // Headers of vectored sends, alive until the submit that copies them.
    struct msghdr *headers;
    struct iovec *vectors;
    uint32_t header_count, vector_count;
    // Addresses of connects queued in this turn.
    struct sockaddr_storage addresses[64];
    uint32_t address_count;
    uint64_t now_ns; // the last clock reading
    // The earliest timeout in the kernel, UINT64_MAX: none; and where their times lie until
    // submitted.
    uint64_t timeout_at;
    struct __kernel_timespec timeouts[TIMEOUTS_MAX];
    uint32_t timeout_next;
    // The completion being walked.
    unsigned head, ready;
};

static uint64_t token_pack(struct io_token token)
{
    CHECK(token.slot < IO_SLOTS_MAX);
    return (uint64_t)token.op << 56 | (uint64_t)token.slot << 32 | token.generation;
}

static struct io_token token_unpack(uint64_t data)
{
    return (struct io_token){.op = (enum io_op)(data >> 56),
                             .slot = (uint32_t)(data >> 32) & (IO_SLOTS_MAX - 1),
                             .generation = (uint32_t)data};
}

// ---------------------------------------------------------------------------------------- start

static int ring_init(struct io_uring *ring, uint32_t entries)
{
    struct io_uring_params params = {.flags = SINGLE_ISSUER_FLAGS,
                                     .cq_entries = entries * CQ_FACTOR};
    return io_uring_queue_init_params(entries, ring, &params);
}

// First line of a small file, for the diagnosis below.
static bool read_line(const char *path, char *line, size_t len)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool ok = fgets(line, (int)len, file) != NULL;
    fclose(file);
    return ok;
}

static bool seccomp_active(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    if (!file)
        return false;
    char line[256];
    int mode = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Seccomp: %d", &mode) == 1)
            break;
    fclose(file);
    return mode != 0;
}

static void explain_setup(int error, char *text, size_t len)
{
    char line[64] = "0";
    if (read_line("/proc/sys/kernel/io_uring_disabled", line, sizeof line) && line[0] != '0') {
        snprintf(text, len,
                 "io_uring is switched off by sysctl kernel.io_uring_disabled=%c: allow it with "
                 "`sysctl -w kernel.io_uring_disabled=0`",
                 line[0]);
    } else if (error == -EPERM || (error == -ENOSYS && seccomp_active())) {
        snprintf(
            text, len,
            "io_uring is refused by a seccomp filter: allow io_uring_setup, io_uring_enter and "
            "io_uring_register in the container's seccomp profile");
    } else if (error == -ENOSYS || error == -EINVAL) {
        struct utsname name;
        uname(&name);
        snprintf(
            text, len,
            "this kernel (%s) lacks the io_uring features tokenring needs: use Linux 6.1 or newer "
            "(single issuer, deferred task run, multishot receive)",
            name.release);
    } else if (error == -ENOMEM) {
        snprintf(text, len, "no memory for an io_uring: raise `ulimit -l` or lower --ring-entries");
    } else {
        snprintf(text, len, "io_uring_setup failed: %s", strerror(-error));
    }
}

bool io_probe(struct io_features *features, char *error, size_t error_len)
{
    struct io_uring ring;
    int result = ring_init(&ring, 8);
    if (result < 0) {
        explain_setup(result, error, error_len);
        return false;
    }
    static const struct {
        const char *name;
        int op;
    } wanted[] = {
        {"accept", IORING_OP_ACCEPT},
        {"connect", IORING_OP_CONNECT},
        {"recv", IORING_OP_RECV},
        {"send", IORING_OP_SEND},
        {"sendmsg", IORING_OP_SENDMSG},
        {"close", IORING_OP_CLOSE},
        {"async_cancel", IORING_OP_ASYNC_CANCEL},
        {"poll_add", IORING_OP_POLL_ADD},
        {"write", IORING_OP_WRITE},
        {"send_zc", IORING_OP_SEND_ZC},
    };
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    bool ok = probe != NULL;
    size_t used = (size_t)snprintf(features->text, sizeof features->text,
                                   "single_issuer defer_taskrun submit_all cqsize");
    for (size_t i = 0; ok && i < sizeof wanted / sizeof *wanted; i++) {
        bool found = io_uring_opcode_supported(probe, wanted[i].op);
        if (found && used < sizeof features->text)
            used += (size_t)snprintf(features->text + used, sizeof features->text - used, " %s",
                                     wanted[i].name);
        ok = found || wanted[i].op == IORING_OP_SEND_ZC; // only reported, not needed
    }
    if (probe)
        io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    if (!ok)
        explain_setup(-ENOSYS, error, error_len);
    return ok;
}

static int buffers_register(struct io *io)
{
    size_t bytes = io->config.buffers * sizeof(struct io_uring_buf);
    io->buffer_ring = pages_reserve(bytes);
    io_uring_buf_ring_init(io->buffer_ring);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)io->buffer_ring,
                                   .ring_entries = io->config.buffers,
                                   .bgid = BUFFER_GROUP};
    return io_uring_register_buf_ring(&io->ring, &reg, 0);
}

static struct io_uring_sqe *sqe_take(struct io *io);

static void wake_arm(struct io *io)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_read(sqe, io->wake_fd, &io->wake_value, sizeof io->wake_value, 0);
    io_uring_sqe_set_data64(sqe, token_pack((struct io_token){.op = IO_WOKEN}));
}

struct io *io_open(const struct io_config *config, char *error, size_t error_len)
{
    struct io *io = heap_alloc(sizeof *io);
    io->magic = IO_MAGIC;
    io->config = *config;
    int result = ring_init(&io->ring, config->entries);
    if (result == 0 && config->buffers > 0) {
        result = buffers_register(io);
        if (result < 0)
            io_uring_queue_exit(&io->ring);
    }
    if (result < 0) {
        explain_setup(result, error, error_len);
        heap_free(io);
        return NULL;
    }
    io->headers = pages_reserve(SENDS_MAX * sizeof *io->headers);
    io->vectors = pages_reserve((size_t)SENDS_MAX * 8 * sizeof *io->vectors);
    io->wake_fd = eventfd(0, EFD_CLOEXEC);
    CHECK(io->wake_fd >= 0);
    io->timeout_at = UINT64_MAX;
    io->stats.sq_entries = io->ring.sq.ring_entries;
    io->stats.cq_entries = io->ring.cq.ring_entries;
    wake_arm(io);
    return io;
}

void io_close_all(struct io *io)
{
    CHECK_MAGIC(io, IO_MAGIC);
    io_uring_queue_exit(&io->ring);
    close(io->wake_fd);
    if (io->buffer_ring)
        pages_release(io->buffer_ring, io->config.buffers * sizeof(struct io_uring_buf));
    pages_release(io->headers, SENDS_MAX * sizeof *io->headers);
    pages_release(io->vectors, (size_t)SENDS_MAX * 8 * sizeof *io->vectors);
    io->magic = 0;
    heap_free(io);
}

// ------------------------------------------------------------------------------- clock, randomness

uint64_t io_now_ns(struct io *io)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    io->now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return io->now_ns;
}

uint64_t io_wall_ms(struct io *io)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void io_random(struct io *io, void *bytes, size_t len)
{
    CHECK(len <= 256); // getrandom(2) never gives less up to here
    CHECK(getrandom(bytes, len, 0) == (ssize_t)len);
}

// ---------------------------------------------------------------------------------------- sockets

static void tcp_options(struct io *io, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (io->config.congestion)
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, io->config.congestion,
                   (socklen_t)strlen(io->config.congestion));
}

// A socket file that nobody answers on is what an earlier process left: make way. One that somebody
// answers on stays, and bind(2) says so.
static void unix_path_free(const struct sockaddr *addr, socklen_t len)
{
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return;
    if (connect(probe, addr, len) < 0 && errno == ECONNREFUSED)
        (void)unlink(((const struct sockaddr_un *)addr)->sun_path);
    close(probe);
}

int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, uint32_t backlog)
{
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    if (addr->sa_family != AF_UNIX) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
        // Accepted sockets inherit both from the listener.
        tcp_options(io, fd);
    }
    if (addr->sa_family == AF_INET6) {
        // The unspecified address takes IPv4 clients too, whatever the sysctl says.
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
        int v6_only = !IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    }
    if (addr->sa_family == AF_UNIX)
        unix_path_free(addr, len);
    if (bind(fd, addr, len) < 0 || listen(fd, (int)backlog) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int io_accept_waiting(struct io *io, int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    if (poll(&waiting, 1, 0) <= 0 || !(waiting.revents & POLLIN))
        return -EAGAIN;
    // The descriptor may be shared with another process and stays as it is: somebody else may take
    // the connection between the two calls, so only the call may not wait.
    struct timeval soon = {.tv_usec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    int taken = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    return taken < 0 ? -errno : taken;
}

int io_socket(struct io *io, int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (family != AF_UNIX)
        tcp_options(io, fd);
    return fd;
}

void io_peer(struct io *io, int fd, char *text, size_t len)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    text[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0)
        return;
    if (peer.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&peer)->sin_addr, text, (socklen_t)len);
    else if (peer.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&peer)->sin6_addr, text, (socklen_t)len);
    else
        snprintf(text, len, "unix");
}

// ------------------------------------------------------------------------------------- operations

static void submitted(struct io *io, int count)
{
    if (count > 0)
        io->stats.submitted += (unsigned)count;
    io->header_count = io->vector_count = io->address_count = 0;
}

static void submit_now(struct io *io)
{
    io->stats.sq_full++;
    int count = io_uring_submit(&io->ring);
    // What could not be submitted still points into the arrays that would be reused now.
    CHECK(io_uring_sq_ready(&io->ring) == 0);
    submitted(io, count);
}

static struct io_uring_sqe *sqe_take(struct io *io)
{
    CHECK_MAGIC(io, IO_MAGIC);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    if (!sqe) {
        submit_now(io);
        sqe = io_uring_get_sqe(&io->ring);
        CHECK(sqe != NULL);
    }
    return sqe;
}

static void token_set(struct io_uring_sqe *sqe, struct io_token token)
{
    io_uring_sqe_set_data64(sqe, token_pack(token));
}

void io_accept(struct io *io, int fd, struct io_token token)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    token_set(sqe, token);
}

void io_recv(struct io *io, int fd, struct io_token token, bool multishot)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    if (multishot)
        io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, fd, NULL, io->config.buffer_size, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    token_set(sqe, token);
}

static void send_vector(struct io *io, struct io_uring_sqe *sqe, int fd, const struct iovec *iov,
                        unsigned count)
{
    struct iovec *copy = &io->vectors[io->vector_count];
    memcpy(copy, iov, count * sizeof *iov);
    io->vector_count += count;
    struct msghdr *header = &io->headers[io->header_count++];
    *header = (struct msghdr){.msg_iov = copy, .msg_iovlen = count};
    io_uring_prep_sendmsg(sqe, fd, header, MSG_NOSIGNAL);
}

void io_send(struct io *io, int fd, struct io_token token, const struct iovec *iov, unsigned count)
{
    CHECK(count > 0);
    CHECK(count <= IO_VECTOR_MAX);
    if (io->header_count == SENDS_MAX || io->vector_count + count > SENDS_MAX * 8)
        submit_now(io);
    struct io_uring_sqe *sqe = sqe_take(io);
    if (count == 1)
        io_uring_prep_send(sqe, fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    else
        send_vector(io, sqe, fd, iov, count);
    token_set(sqe, token);
}

void io_connect(struct io *io, int fd, struct io_token token, const struct sockaddr *addr,
                socklen_t len)
{
    CHECK(len <= sizeof *io->addresses);
    if (io->address_count == sizeof io->addresses / sizeof *io->addresses)
        submit_now(io);
    struct io_uring_sqe *sqe = sqe_take(io);
    struct sockaddr_storage *copy = &io->addresses[io->address_count++];
    memcpy(copy, addr, len);
    io_uring_prep_connect(sqe, fd, (struct sockaddr *)copy, len);
    token_set(sqe, token);
}

void io_hangup(struct io *io, int fd, struct io_token token)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_poll_add(sqe, fd, POLLRDHUP);
    token_set(sqe, token);
}

void io_write(struct io *io, int fd, struct io_token token, const void *bytes, size_t len)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_write(sqe, fd, bytes, (unsigned)len, (uint64_t)-1);
    token_set(sqe, token);
}

void io_cancel(struct io *io, struct io_token target, struct io_token token)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_cancel64(sqe, token_pack(target), 0);
    token_set(sqe, token);
}

void io_cancel_fd(struct io *io, int fd, struct io_token token)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
    token_set(sqe, token);
}

void io_close(struct io *io, int fd, struct io_token token)
{
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_close(sqe, fd);
    token_set(sqe, token);
}

void io_shutdown_send(struct io *io, int fd)
{
    // ENOTCONN only says that the peer was faster.
    (void)shutdown(fd, SHUT_WR);
}

void io_provide(struct io *io, uint32_t id)
{
    CHECK(id < io->config.buffers);
    io_uring_buf_ring_add(io->buffer_ring,
                          io->config.buffer_memory + (size_t)id * io->config.buffer_size,
                          io->config.buffer_size, (unsigned short)id,
                          io_uring_buf_ring_mask(io->config.buffers), (int)io->provided);
    io->provided++;
}

// ------------------------------------------------------------------------------------------- turn

static void provided_publish(struct io *io)
{
    if (io->provided == 0)
        return;
    io_uring_buf_ring_advance(io->buffer_ring, (int)io->provided);
    io->provided = 0;
}

// Waiting with a timeout sets up and tears down a timer in every system call. Ours rarely changes,
// so it is an operation of its own that stays in the kernel until it fires: armed anew only when
// something is due earlier. One that fires too early for anything is only a turn with nothing in
// it.
static void timeout_arm(struct io *io, uint64_t timeout_ns)
{
    uint64_t at = io->now_ns + timeout_ns;
    if (at >= io->timeout_at)
        return;
    io->timeout_at = at;
    struct __kernel_timespec *time = &io->timeouts[io->timeout_next++ % TIMEOUTS_MAX];
    *time = (struct __kernel_timespec){.tv_sec = (long long)(at / 1000000000u),
                                       .tv_nsec = (long long)(at % 1000000000u)};
    struct io_uring_sqe *sqe = sqe_take(io);
    io_uring_prep_timeout(sqe, time, 0, IORING_TIMEOUT_ABS);
    io_uring_sqe_set_data64(sqe, TIMEOUT_DATA | (at & TIMEOUT_AT_MASK));
}

static void timeout_fired(struct io *io, uint64_t data)
{
    if ((io->timeout_at & TIMEOUT_AT_MASK) == (data & TIMEOUT_AT_MASK))
        io->timeout_at = UINT64_MAX;
}

void io_turn(struct io *io, uint64_t timeout_ns)
{
    CHECK_MAGIC(io, IO_MAGIC);
    CHECK(io->ready == 0); // io_next() was called until it said false
    provided_publish(io);
    io->stats.turns++;
    if (timeout_ns > 0)
        timeout_arm(io, timeout_ns);
    int result = timeout_ns == 0 ? io_uring_submit_and_get_events(&io->ring)
                                 : io_uring_submit_and_wait(&io->ring, 1);
    // EBUSY: completions must be taken before more can be submitted; EAGAIN: the kernel is short of
    // memory for requests. What is queued stays queued for the next turn.
    CHECK(result >= 0 || result == -EBUSY || result == -EAGAIN || result == -EINTR);
    if (io_uring_sq_ready(&io->ring) == 0)
        submitted(io, result);
    io->stats.cq_overflow = *io->ring.cq.koverflow;
    io->head = *io->ring.cq.khead;
    io->ready = io_uring_cq_ready(&io->ring);
}

static void event_from(struct io *io, struct io_event *event, const struct io_uring_cqe *cqe)
{
    *event = (struct io_event){.token = token_unpack(cqe->user_data),
                               .result = cqe->res,
                               .buffer = IO_NO_BUFFER,
                               .more = cqe->flags & IORING_CQE_F_MORE};
    if (cqe->flags & IORING_CQE_F_BUFFER)
        event->buffer = (int32_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    if (cqe->res == -ENOBUFS)
        io->stats.no_buffers++;
}

// The next completion that is not a timeout of our own.
static bool completion_take(struct io *io, struct io_uring_cqe *cqe)
{
    while (io->ready > 0) {
        io->ready--;
        *cqe = io->ring.cq.cqes[io->head++ & *io->ring.cq.kring_mask];
        io_uring_cq_advance(&io->ring, 1);
        if (!(cqe->user_data & TIMEOUT_DATA))
            return true;
        timeout_fired(io, cqe->user_data);
    }
    return false;
}

bool io_next(struct io *io, struct io_event *event)
{
    struct io_uring_cqe cqe;
    if (!completion_take(io, &cqe))
        return false;
    event_from(io, event, &cqe);
    io->stats.completed++;
    if (event->token.op == IO_WOKEN)
        wake_arm(io);
    return true;
}

void io_wake(struct io *io)
{
    uint64_t one = 1;
    ssize_t written = write(io->wake_fd, &one, sizeof one);
    (void)written; // the counter cannot overflow: it is read at every wake
}

const struct io_stats *io_stats(struct io *io)
{
    return &io->stats;
}
