// SPDX-License-Identifier: MIT
//
// sim: a world in one thread, made from one seed: a clock, a network, dice, and the cores under
// test.
//
// The real engine runs here unchanged. io_sim.c keeps the contract of engine/io.h, as the kernel
// does, but lets an adversary decide everything the contract leaves open: how many bytes a receive
// gets, when and in which order operations complete, who wins a race with a cancel, when the buffer
// ring is empty, which connection dies and at which byte. Whatever happens follows from the seed,
// so a failure is replayed by its number alone.
//
//   sim_begin -> core_open, sim_core_add ... -> sim_listen, sim_dial, sim_after ... -> sim_step in
//   a loop -> core_listen_stop ... sim_step -> core_close -> sim_end
//
// Clients and providers are state machines in the test. They own one end of a connection each and
// are told by a callback that something about it changed; they look and decide. The other end is a
// descriptor of the engine.
//
// Time is virtual: it stands still while anybody has something to do and jumps to the next due
// thing when nobody has. A core that waits in io_turn() is not stepped until an event is there, its
// timeout passed, or the adversary wakes it for nothing.
//
// Breaking one of the engine's laws (a closed descriptor used, a buffer given twice, two receives
// on one connection, ...) is a violation: the seed and the command to replay it are printed, and
// the process aborts.
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "engine/core.h"

// ------------------------------------------------------------------------------------------- dice

// Random numbers that follow from a seed and the number of a stream: the world throws one set of
// dice and each script may have its own, so that they do not disturb each other.
struct dice {
    uint64_t state[4];
};

void dice_seed(struct dice *dice, uint64_t seed, uint64_t stream);
uint64_t dice_next(struct dice *dice);
uint32_t dice_below(struct dice *dice, uint32_t count);                // 0 .. count - 1
uint32_t dice_between(struct dice *dice, uint32_t low, uint32_t high); // both included
uint32_t dice_skewed(struct dice *dice, uint32_t high); // 1 .. high, each power of two alike
bool dice_chance(struct dice *dice, uint32_t per_mille);

// ------------------------------------------------------------------------------------------ knobs

// What the adversary may do. Chances are per thousand occasions. A seed switches each of them off
// or on, so that a fault hides no other one in every run.
struct sim_knobs {
    uint32_t short_receive;   // a receive gets fewer bytes than wait
    uint32_t short_send;      // a send takes fewer bytes than there is room for
    uint32_t late;            // a completion is held back
    uint32_t reorder;         // completions of one turn come shuffled
    uint32_t submit_early;    // operations are handed over in mid-turn
    uint32_t multishot_ends;  // a multishot operation ends behind some result
    uint32_t cancel_loses;    // what is to be cancelled completes first, if it can
    uint32_t end_with_buffer; // end of stream takes a buffer from the ring all the same
    uint32_t accept_fails;    // EMFILE or ECONNABORTED
    uint32_t socket_fails;    // EMFILE
    uint32_t connect_refused;
    uint32_t connect_silent;     // nobody answers, ever
    uint32_t reset;              // a connection is fated to die by a reset, at some byte or time
    uint32_t spurious;           // a waiting core wakes up for nothing
    uint32_t stall;              // a core takes long over a turn
    uint32_t latency_us;         // of the network, at most
    uint32_t late_us;            // how long a completion is held back, at most
    uint32_t stall_us;           // at most
    uint32_t pipe_min, pipe_max; // bytes a connection holds in one direction
};

void sim_knobs_draw(struct sim_knobs *knobs, uint64_t seed);

// ------------------------------------------------------------------------------------------ world

// `knobs` NULL: drawn from the seed. `trace`: print every event to stderr.
void sim_begin(uint64_t seed, const struct sim_knobs *knobs, bool trace);
void sim_end(void);

struct dice *sim_dice(void);
const struct sim_knobs *sim_knobs(void);
uint64_t sim_now_ns(void);
uint64_t sim_stalled_ns(void); // how much of the time so far cores spent in stalls
uint64_t sim_hash(void);       // of everything that happened so far
uint64_t sim_steps(void);

// A core whose turns sim_step() runs. Forgotten by sim_core_remove(), before core_close().
void sim_core_add(struct core *core);
void sim_core_remove(struct core *core);

// One thing happens: a script is called, a core turns, or time jumps. False when there is nothing
// left that could ever happen.
bool sim_step(void);

// Call `wake` in `delay_ns` of virtual time.
typedef void sim_wake(void *owner);
void sim_after(uint64_t delay_ns, sim_wake *wake, void *owner);

// Fold something into the hash, and print it if the run is traced. `what` is a short literal.
void sim_note(const char *what, uint64_t a, uint64_t b, uint64_t c);

// An engine law was broken, or a script saw something it must never see: print, and abort.
_Noreturn __attribute__((format(printf, 1, 2))) void sim_violation(const char *format, ...);

// The command that replays a seed, printed with each violation: "build/tests/sim/echo --seed".
void sim_replay_command(const char *command);

// Operations that the engine queued and whose last completion it has not seen: core->operations.
uint32_t sim_outstanding(const struct io *io);
// Buffers in the ring, or filled and not yet seen by the engine: core->receive.in_ring.
uint32_t sim_ring_buffers(const struct io *io);

// What core number i logs goes to descriptor SIM_LOG_FD + i (set core->log.fd): whole lines are
// handed to `line`, NULL: nobody. sim_log_rest() takes what a core that has stopped did not write
// any more.
enum { SIM_LOG_FD = 1 << 30 };
typedef void sim_log_line(const char *line, size_t len);
void sim_log_to(sim_log_line *line);
void sim_log_rest(struct core *core);

// ---------------------------------------------------------------------------------------- network

struct sim_end; // a script's end of a connection; lives until sim_end()

enum sim_status {
    SIM_CONNECTING,
    SIM_OPEN,
    SIM_REFUSED,
    SIM_RESET,  // the connection died; bytes that had arrived can still be read
    SIM_CLOSED, // by us
};

typedef void sim_changed(struct sim_end *end, void *owner);

// Connect to an address where the engine listens. `changed` is called, some time after anything
// about the end changed: connected or refused, bytes or room there, end of stream, reset.
struct sim_end *sim_dial(const struct sockaddr *addr, socklen_t len, sim_changed *changed,
                         void *owner);

// Answer connects to this address: `accepted` gets the new end, and says with sim_own() who is
// called for its changes.
void sim_listen(const struct sockaddr *addr, socklen_t len, sim_changed *accepted, void *owner);
void sim_own(struct sim_end *end, sim_changed *changed, void *owner);

enum sim_status sim_status(const struct sim_end *end);
uint32_t sim_end_id(const struct sim_end *end); // number of the connection, from 1

// Bytes taken or got, 0 if there is no room or nothing there.
size_t sim_write(struct sim_end *end, const void *bytes, size_t len);
size_t sim_read(struct sim_end *end, void *bytes, size_t cap);
size_t sim_readable(const struct sim_end *end);

// The other side has ended its stream and every byte was read.
bool sim_ended(const struct sim_end *end);
// The other side has ended its stream, or the connection died; bytes may still wait to be read.
bool sim_hung_up(const struct sim_end *end);
// The connection was fated by the adversary to die, and did: no fault of either side.
bool sim_cut(const struct sim_end *end);

void sim_finish(struct sim_end *end); // no more bytes from us; reading goes on
void sim_reset(struct sim_end *end);  // RST
void sim_close(struct sim_end *end);  // as close(2): FIN, or RST if bytes wait unread or still come

// ----------------------------------------------------------------------------------------- census

// Situations of the world that a sweep counts; a sweep that never met one proves less than it says.
#define SIM_CENSUS(X)                                                                              \
    X(short_receive)                                                                               \
    X(short_send)                                                                                  \
    X(send_without_room)                                                                           \
    X(send_failed)                                                                                 \
    X(ring_empty)                                                                                  \
    X(ring_empty_when_armed)                                                                       \
    X(multishot_ended)                                                                             \
    X(end_of_stream)                                                                               \
    X(end_of_stream_with_buffer)                                                                   \
    X(receive_reset)                                                                               \
    X(reset_hidden_by_send) /* the send got the error: the receive sees a clean end */             \
    X(hangup_seen)                                                                                 \
    X(cancel_won)                                                                                  \
    X(cancel_lost)                                                                                 \
    X(cancel_missed) /* it found nothing, and what it was to stop goes on */                       \
    X(cancel_found_nothing)                                                                        \
    X(completion_late)                                                                             \
    X(completions_shuffled)                                                                        \
    X(submitted_early)                                                                             \
    X(accepted)                                                                                    \
    X(accept_without_descriptors)                                                                  \
    X(accept_aborted)                                                                              \
    X(socket_without_descriptors)                                                                  \
    X(connect_refused)                                                                             \
    X(connect_silent)                                                                              \
    X(connect_cancelled)                                                                           \
    X(connection_cut)                                                                              \
    X(reset_by_close)                                                                              \
    X(woken_for_nothing)                                                                           \
    X(stalled)

enum sim_situation {
#define X(name) SIM_##name,
    SIM_CENSUS(X)
#undef X
        SIM_SITUATIONS
};

void sim_count(enum sim_situation situation);
void sim_census_at(uint64_t *counts); // where to count from now on: SIM_SITUATIONS numbers
uint64_t sim_counted(enum sim_situation situation);
const char *sim_situation_name(enum sim_situation situation);

#endif
