// SPDX-License-Identifier: MIT
//
// io: the seam between the engine and the world. The engine never touches the kernel, the clock or
// randomness by itself: it speaks to this header. io_uring.c keeps the contract with the kernel,
// tests/sim/io_sim.c keeps it with a seeded adversary; which one is chosen at link time.
//
// One struct io per core, made and used by one thread (only io_wake() may be called from others).
// Operations are queued, not started: io_turn() hands all of them over in one system call and
// waits.
//
//   io_turn(io, timeout);                 submit, wait for the first completion or the timeout
//   while (io_next(io, &event)) ...;      every completion that is there, in order
//
// Every queued operation completes exactly once (a multishot one: any number of events with `more`
// set, then one without). The token given with it comes back in the event. Memory handed over:
//   - the iovec array of io_send() is copied before io_turn() returns; the bytes must live until
//   the
//     completion;
//   - addresses are copied at once.
//
// Results are as from the system call: >= 0, or -errno. Receives take a buffer from the ring given
// by io_provide() when bytes arrive, not when armed: -ENOBUFS says that the ring was empty, and the
// receive is over (arm it again when buffers came back).
#ifndef ENGINE_IO_H
#define ENGINE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct io;

enum io_op {
    IO_ACCEPT,  // result: a connected descriptor. Multishot.
    IO_RECV,    // result: bytes (0: end of stream); buffer: which. Multishot if asked for.
    IO_SEND,    // result: bytes taken, possibly fewer than offered
    IO_CONNECT, // result: 0
    IO_CANCEL,  // result: how many were found (or -ENOENT); each of them completes by itself
    IO_CLOSE,   // result: 0
    IO_WRITE,   // result: bytes
    IO_HANGUP,  // the peer has closed its side; bytes may still wait unread
    IO_WOKEN,   // another thread called io_wake(). Multishot, armed by io_open().
    IO_OP_COUNT
};

// Travels through the kernel as user_data: op (8 bits) : slot (24) : generation (32).
struct io_token {
    enum io_op op;
    uint32_t slot;       // < IO_SLOTS_MAX
    uint32_t generation; // of whatever lives in the slot: a stale completion is found at once
};

enum { IO_SLOTS_MAX = 1 << 24, IO_VECTOR_MAX = 64, IO_NO_BUFFER = -1 };

struct io_event {
    struct io_token token;
    int32_t result;
    int32_t buffer; // id, or IO_NO_BUFFER
    bool more;      // the operation goes on
};

struct io_config {
    uint32_t entries;       // submission entries; completions get 8 times as many
    uint32_t buffers;       // receive buffers, power of two
    uint32_t buffer_size;   // bytes of each
    uint8_t *buffer_memory; // buffers * buffer_size bytes, owned by the caller
    const char *congestion; // TCP congestion control for sockets made here; NULL: kernel default
    uint64_t seed;          // simulator only
};

// Counters of the ring, for metrics.
struct io_stats {
    uint64_t turns;       // io_turn calls = system calls to submit and wait
    uint64_t submitted;   // operations handed over
    uint64_t completed;   // completions seen
    uint64_t cq_overflow; // completions the ring could not hold: must stay 0
    uint64_t no_buffers;  // receives that found the buffer ring empty
    uint64_t sq_full;     // extra submits in mid-turn because the submission ring was full
    uint32_t sq_entries, cq_entries;
};

// What the kernel offers, as found by asking it.
struct io_features {
    char text[512]; // for `tokenring version`
};

// Can this machine run us? On failure `error` says which of kernel, sysctl or seccomp stands in the
// way and how to allow it.
bool io_probe(struct io_features *features, char *error, size_t error_len);

// NULL on failure, with a sentence in `error`.
struct io *io_open(const struct io_config *config, char *error, size_t error_len);
void io_close_all(struct io *io); // every operation must be over

// Clock and randomness.
uint64_t io_now_ns(struct io *io);  // monotonic
uint64_t io_wall_ms(struct io *io); // since 1970, for logs
void io_random(struct io *io, void *bytes, size_t len);

// Sockets. Descriptors, or -errno.
int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, uint32_t backlog);
int io_socket(struct io *io, int family);
// A connection that waits in a listener's queue; -EAGAIN: none. For a listener that is given up.
int io_accept_waiting(struct io *io, int fd);
// Address of the peer of an accepted connection, as text without port; "unix" for local sockets.
void io_peer(struct io *io, int fd, char *text, size_t len);

// Operations.
void io_accept(struct io *io, int fd, struct io_token token);
void io_recv(struct io *io, int fd, struct io_token token, bool multishot);
void io_send(struct io *io, int fd, struct io_token token, const struct iovec *iov, unsigned count);
void io_connect(struct io *io, int fd, struct io_token token, const struct sockaddr *addr,
                socklen_t len);
void io_hangup(struct io *io, int fd, struct io_token token);
void io_write(struct io *io, int fd, struct io_token token, const void *bytes, size_t len);
void io_cancel(struct io *io, struct io_token target, struct io_token token);
void io_cancel_fd(struct io *io, int fd, struct io_token token); // everything on this descriptor
void io_close(struct io *io, int fd, struct io_token token);

// At once, not queued: no more bytes will be sent.
void io_shutdown_send(struct io *io, int fd);

// Give receive buffer `id` to the ring.
void io_provide(struct io *io, uint32_t id);

// Submit what is queued; wait until at least one event is there or `timeout_ns` passed (0: do not
// wait).
void io_turn(struct io *io, uint64_t timeout_ns);
bool io_next(struct io *io, struct io_event *event);

// Make the core's next io_turn() return: the one call that is allowed from other threads.
void io_wake(struct io *io);

const struct io_stats *io_stats(struct io *io);

#endif
