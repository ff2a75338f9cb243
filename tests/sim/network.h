// SPDX-License-Identifier: MIT
//
// network: connections of the simulator, as both io_sim.c and the scripts see them. Not for tests.
//
// A wire has two ends. What one end sends lies in the other end's inbox at once: being on the way
// and waiting to be read are one thing here, and latency is when the reader notices.
//
//   end A                                  end B
//   write --------> B.inbox [ bytes | fin ] ----> read
//   read  <-------- A.inbox [ bytes | fin ] <---- write
//
// Ends of TCP as Linux tells them:
//   inbox.fin, no bytes left            read: 0, for ever
//   reset, no fin came before           read: the bytes that arrived, then ECONNRESET once, then 0;
//                                       the error goes to whoever asks first, be it a send
//   reset                               write: ECONNRESET if nobody was told yet, else EPIPE
//   other end closed                    write: taken, and answered by a reset
//   close with unread bytes             the other end is reset
#ifndef TESTS_SIM_NETWORK_H
#define TESTS_SIM_NETWORK_H

#include <sys/uio.h>

#include "alloc/list.h"
#include "tests/sim/sim.h"

struct sim_inbox {
    uint8_t *bytes; // a ring of `cap`, made when first written
    uint32_t cap, at, len;
    bool fin;
};

struct sim_wire;

struct sim_end {
    struct sim_wire *wire;
    struct sim_end *other;
    struct sim_inbox inbox;
    enum sim_status status;
    bool finished; // we sent FIN
    bool reset;
    int error;        // what the next call is told, once: a positive errno
    bool told_sender; // it was told to a write
    bool notifying;   // an alarm for `changed` is set
    bool scripted;
    sim_changed *changed;
    void *owner;
    struct list backlog; // waiting to be accepted by the engine
};

struct sim_wire {
    struct sim_wire *next; // all of the world's
    uint32_t id;
    bool cut; // the adversary's reset has struck
    bool doomed;
    uint64_t moved, dies_at;    // bytes in both directions
    struct sockaddr_storage to; // where a script dials
    socklen_t to_len;
    struct sim_end end[2]; // [0] connected, [1] listened
};

// One who waits for connections: a descriptor of the engine or a script.
struct sim_listener {
    struct sim_listener *next;
    struct sockaddr_storage addr;
    socklen_t len;
    bool open;
    uint32_t backlog_max, backlog_len;
    struct list backlog;   // ends waiting for the engine to accept
    sim_changed *accepted; // a script; NULL: the engine
    void *owner;
};

void network_begin(void);
void network_end(void);

struct sim_listener *network_listen(const struct sockaddr *addr, socklen_t len, uint32_t backlog);
void network_unlisten(struct sim_listener *listener); // waiting connections are reset

// A wire to whoever listens there, its end [0]; NULL: refused.
struct sim_end *network_connect(const struct sockaddr *addr, socklen_t len);

// As the kernel's calls: bytes, 0 or a negative errno; -EAGAIN when it would wait.
int network_read(struct sim_end *end, uint8_t *bytes, uint32_t cap);
int network_write(struct sim_end *end, const struct iovec *iov, unsigned count, uint32_t most);
bool network_readable(const struct sim_end *end);
bool network_writable(const struct sim_end *end);
bool network_hung_up(const struct sim_end *end);
void network_finish(struct sim_end *end);
void network_close(struct sim_end *end);
void network_abort(struct sim_end *end); // a connection that dies before it is accepted

// How long something takes on the way: often nothing.
uint64_t network_latency_ns(void);

// Kept by io_sim.c for sim.c: when the next completion can be seen, when the core's next turn is,
// and whether it waits in io_turn().
uint64_t io_event_due_ns(struct io *io);
uint64_t io_turn_due_ns(struct io *io);
bool io_waiting(const struct io *io);

// Kept by sim.c for io_sim.c: a core took long over its turn.
void sim_stall(uint64_t ns);
void sim_log_bytes(int fd, const uint8_t *bytes, size_t len);
void sim_note_bytes(const char *what, uint64_t a, const uint8_t *bytes, size_t len);

#endif
