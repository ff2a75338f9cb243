// SPDX-License-Identifier: MIT
//
// core: one thread's world: a ring, its buffers, its connections, its timers. And the loop.
//
// A core is a small, complete server. Cores share nothing they write; whoever runs on a core gets
// `struct core *` as first argument and finds everything there: no globals, no thread-locals. The
// same core runs the gateway, the admin port, the scripted provider, the load generator, and the
// simulator's sixteen cores in one thread.
//
//   core_open -> core_listen / conn_open ... -> core_run (or core_turn in a loop) -> core_close
//
// One turn:
//   1. submit everything queued, wait for a completion or the next timer     (one system call)
//   2. hand every completion to its owner
//   3. fire timers
//   4. owner's turn_end hook
//   5. one vectored send for each connection that has something to say
//   6. give freed buffers back to the ring, arm receives, starved connections first
//
// Other threads may only core_post(): set bits that the core's `posted` hook sees in its next turn.
#ifndef ENGINE_CORE_H
#define ENGINE_CORE_H

#include <stdatomic.h>

#include "alloc/buf.h"
#include "alloc/list.h"
#include "alloc/slab.h"
#include "engine/io.h"
#include "engine/timer.h"

enum {
    CORE_LISTENERS_MAX = 64,
    CORE_LOG_BYTES =
        256 * 1024,      // lines waiting to be written; when full, lines are dropped and counted
    CORE_RING_FILL = 32, // receive buffers lent to the kernel at first; doubled when too few
    CORE_RING_MIN = 8,   // lent in any case, if there are so many
    CORE_RING_SHARE = 4, // and never more than this part of those left
};

struct conn;
struct core;
struct listener;

typedef void listener_accepted(struct core *core, struct listener *listener, int fd);

struct listener {
    int fd; // -1: unused
    bool armed;
    bool leaving; // being closed: by core_listen_stop, or core_listen_leave
    bool emptied; // with what already waits in the kernel's queue taken first
    uint8_t slot;
    uint32_t tag; // the owner's
    uint32_t generation;
    listener_accepted *accepted;
    void *owner;
    struct timer retry; // accept failed for lack of descriptors: try again soon
};

struct core_config {
    uint32_t ring_entries;
    uint32_t receive_buffers, receive_size;
    uint32_t write_buffers, write_size;
    uint32_t large_buffers, large_size;
    uint32_t connections; // slots for connections of all kinds
    uint32_t conn_size;   // bytes of the largest struct that begins with a struct conn
    uint32_t segments;    // pieces of output that can wait, all connections together
    const char *congestion;
    uint64_t seed; // simulator only
};

struct core_hooks {
    void (*turn_end)(struct core *core);
    void (*posted)(struct core *core, uint32_t bits);
};

// Lines for stderr, written by the ring so that a slow terminal never stops the loop.
struct core_log {
    int fd;
    uint32_t head, tail; // bytes [head, tail) wait; a write in flight covers [head, head + writing)
    uint32_t writing;
    uint64_t dropped;
    uint8_t *bytes;
};

struct core {
    uint32_t magic;
    uint32_t index;
    struct io *io;
    uint64_t now_ns, now_ms; // read once a turn, after the wait
    struct timer_wheel wheel;
    struct slab conns, segments;
    struct buf_pool receive, write, large;
    uint32_t ring_fill;    // receive buffers lent to the kernel at a time
    uint64_t ring_misses;  // io_stats.no_buffers at the last look
    struct list dirty;     // connections with output to send
    struct list receivers; // connections that want a receive armed
    struct list starved;   // connections whose receive found no buffer, longest waiting first
    uint32_t starved_count;
    uint64_t starved_total;
    uint32_t conn_count; // connections of all kinds in use
    uint32_t operations; // queued and not completed, of connections, listeners and the log
    struct listener listener[CORE_LISTENERS_MAX];
    struct core_log log;
    struct core_hooks hooks;
    uint64_t random[4];
    bool stopping; // core_run returns at the end of this turn
    void *owner;   // whoever runs on this core
    _Atomic uint32_t posted;
};

// NULL-terminated sentence in `error` on failure. To be called by the thread that runs the core.
bool core_open(struct core *core, const struct core_config *config, char *error, size_t error_len);
void core_close(struct core *core); // frees everything; connections must be gone

// Start accepting. 0 or -errno.
int core_listen(struct core *core, const struct sockaddr *addr, socklen_t len, uint32_t backlog,
                listener_accepted *accepted, void *owner);
// The same on a descriptor that listens already; it is taken over if 0 is returned. `tag` is for
// core_listen_leave.
int core_listen_fd(struct core *core, int fd, uint32_t tag, listener_accepted *accepted,
                   void *owner);
void core_listen_stop(struct core *core); // stop accepting on all listeners, close them
// Stop accepting on the listeners of this tag, so that no client notices: whoever was accepted is
// still handed over. With `empty` also whoever waits in the kernel's queue, before the descriptor
// is closed; without, the queue must live on in another process.
void core_listen_leave(struct core *core, uint32_t tag, bool empty);

void core_turn(struct core *core, uint64_t wait_ms_max);
void core_run(struct core *core); // until `stopping`

// From any thread: set `bits` and wake the core.
void core_post(struct core *core, uint32_t bits);

// Does the kernel hold nothing of ours any more, but perhaps a log line?
static inline bool core_quiet(const struct core *core)
{
    return core->conn_count == 0 && core->operations == (core->log.writing > 0);
}

// A fresh clock reading, for measurements within a turn.
uint64_t core_clock_ns(struct core *core);
uint64_t core_random(struct core *core);

// Append one line (with its newline) to the log; dropped and counted when there is no room.
void core_log_line(struct core *core, const char *line, size_t len);
// Write what waits by plain writes: for the last words before exit.
void core_log_drain(struct core *core);

#endif
