// SPDX-License-Identifier: MIT
#include "engine/core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/conn.h"

#define CORE_MAGIC MAGIC('c', 'o', 'r', 'e')

enum {
    ACCEPT_RETRY_MS = 100,
    ACCEPT_LAST_MAX = 65536, // taken from a queue that is given up: no backlog is longer
    LOG_LAST_TURNS = 100,
    LOG_LAST_TURN_MS = 10,
    WAIT_MS_MAX = 60 * 1000, // a core looks round at least this often
};

// ------------------------------------------------------------------------------------ open, close

static void clock_read(struct core *core)
{
    core->now_ns = io_now_ns(core->io);
    core->now_ms = core->now_ns / 1000000u;
}

static void pools_open(struct core *core, const struct core_config *config)
{
    buf_pool_open(&core->receive, BUF_RECEIVE, config->receive_buffers, config->receive_size);
    buf_pool_open(&core->write, BUF_WRITE, config->write_buffers, config->write_size);
    buf_pool_open(&core->large, BUF_LARGE, config->large_buffers, config->large_size);
    slab_open(&core->conns, "connections", config->conn_size, config->connections);
    slab_open(&core->segments, "segments", sizeof(struct segment), config->segments);
    core->log = (struct core_log){.fd = STDERR_FILENO, .bytes = heap_alloc(CORE_LOG_BYTES)};
}

static void pools_close(struct core *core)
{
    buf_pool_close(&core->receive);
    buf_pool_close(&core->write);
    buf_pool_close(&core->large);
    slab_close(&core->conns);
    slab_close(&core->segments);
    heap_free(core->log.bytes);
}

bool core_open(struct core *core, const struct core_config *config, char *error, size_t error_len)
{
    CHECK(config->conn_size >= sizeof(struct conn));
    CHECK(config->connections < IO_SLOTS_MAX);
    *core = (struct core){.magic = CORE_MAGIC};
    pools_open(core, config);
    struct io_config io = {.entries = config->ring_entries,
                           .buffers = config->receive_buffers,
                           .buffer_size = config->receive_size,
                           .buffer_memory = core->receive.memory,
                           .congestion = config->congestion,
                           .seed = config->seed};
    core->io = io_open(&io, error, error_len);
    if (!core->io) {
        pools_close(core);
        return false;
    }
    clock_read(core);
    timer_wheel_init(&core->wheel, core->now_ms);
    list_init(&core->dirty);
    core->ring_fill = CORE_RING_FILL;
    list_init(&core->receivers);
    list_init(&core->starved);
    for (int i = 0; i < CORE_LISTENERS_MAX; i++)
        core->listener[i].fd = -1;
    io_random(core->io, core->random, sizeof core->random);
    return true;
}

void core_close(struct core *core)
{
    CHECK_MAGIC(core, CORE_MAGIC);
    CHECK(core->conn_count == 0);
    core->hooks = (struct core_hooks){0};
    // A line on its way to a slow terminal gets a second; then the kernel is done with its bytes
    // anyway.
    for (int i = 0; i < LOG_LAST_TURNS && core->log.writing; i++)
        core_turn(core, LOG_LAST_TURN_MS);
    core_log_drain(core);
    io_close_all(core->io);
    pools_close(core);
    core->magic = 0;
}

// -------------------------------------------------------------------------------------- listeners

static void listener_arm(struct core *core, struct listener *listener)
{
    listener->armed = true;
    core->operations++;
    io_accept(core->io, listener->fd,
              (struct io_token){IO_ACCEPT, listener->slot, listener->generation});
}

static void listener_retry(struct core *core, struct timer *timer)
{
    struct listener *listener = LIST_OWNER(timer, struct listener, retry);
    if (listener->fd >= 0 && !listener->armed)
        listener_arm(core, listener);
}

int core_listen_fd(struct core *core, int fd, uint32_t tag, listener_accepted *accepted,
                   void *owner)
{
    int slot = 0;
    while (slot < CORE_LISTENERS_MAX && core->listener[slot].fd >= 0)
        slot++;
    if (slot == CORE_LISTENERS_MAX)
        return -EMFILE;
    struct listener *listener = &core->listener[slot];
    listener->fd = fd;
    listener->tag = tag;
    listener->leaving = listener->emptied = false;
    listener->slot = (uint8_t)slot;
    listener->generation++;
    listener->accepted = accepted;
    listener->owner = owner;
    timer_init(&listener->retry, listener_retry);
    listener_arm(core, listener);
    return 0;
}

int core_listen(struct core *core, const struct sockaddr *addr, socklen_t len, uint32_t backlog,
                listener_accepted *accepted, void *owner)
{
    int fd = io_listen(core->io, addr, len, backlog);
    if (fd < 0)
        return fd;
    int result = core_listen_fd(core, fd, 0, accepted, owner);
    if (result < 0) {
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
    }
    return result;
}

static void listener_close(struct core *core, struct listener *listener)
{
    for (int i = 0; listener->emptied && listener->accepted && i < ACCEPT_LAST_MAX; i++) {
        int fd = io_accept_waiting(core->io, listener->fd);
        if (fd < 0)
            break;
        listener->accepted(core, listener, fd);
    }
    core->operations++;
    io_close(core->io, listener->fd, (struct io_token){.op = IO_CLOSE});
    listener->fd = -1;
}

// Generation 0: nobody waits for the cancellation.
static void listener_cancel(struct core *core, struct listener *listener)
{
    core->operations++;
    io_cancel_fd(core->io, listener->fd, (struct io_token){.op = IO_CANCEL});
}

static void listener_leave(struct core *core, struct listener *listener)
{
    if (listener->leaving)
        return;
    listener->leaving = true;
    timer_cancel(&listener->retry);
    if (listener->armed)
        listener_cancel(core, listener);
    else
        listener_close(core, listener);
}

void core_listen_stop(struct core *core)
{
    for (int i = 0; i < CORE_LISTENERS_MAX; i++) {
        struct listener *listener = &core->listener[i];
        if (listener->fd < 0)
            continue;
        listener->accepted = NULL;
        listener_leave(core, listener);
    }
}

void core_listen_leave(struct core *core, uint32_t tag, bool empty)
{
    for (int i = 0; i < CORE_LISTENERS_MAX; i++) {
        struct listener *listener = &core->listener[i];
        if (listener->fd < 0 || listener->tag != tag || listener->leaving)
            continue;
        listener->emptied = empty;
        listener_leave(core, listener);
    }
}

static void accept_event(struct core *core, const struct io_event *event)
{
    struct listener *listener = &core->listener[event->token.slot];
    CHECK(listener->generation == event->token.generation);
    if (!event->more) {
        listener->armed = false;
        core->operations--;
    }
    if (event->result >= 0) {
        if (listener->accepted) {
            listener->accepted(core, listener, event->result);
        } else { // accepted while stopping: the client sees a closed connection and tries again
            core->operations++;
            io_close(core->io, event->result, (struct io_token){.op = IO_CLOSE});
        }
    }
    if (listener->armed) {
        // A multishot accept on its way from one result to the next is not found by a cancellation
        // (compare conn.c): stopping, it is asked for again.
        if (listener->leaving)
            listener_cancel(core, listener);
        return;
    }
    if (listener->leaving) {
        listener_close(core, listener);
    } else if (event->result >= 0 || event->result == -ECONNABORTED) {
        listener_arm(core, listener);
    } else {
        // Out of descriptors or memory: a busy loop would not help.
        timer_set(&core->wheel, &listener->retry, core->now_ms + ACCEPT_RETRY_MS);
    }
}

// -------------------------------------------------------------------------------------------- log

static void log_start_write(struct core *core)
{
    struct core_log *log = &core->log;
    if (log->writing || log->head == log->tail)
        return;
    log->writing = log->tail - log->head;
    core->operations++;
    io_write(core->io, log->fd, (struct io_token){.op = IO_WRITE}, log->bytes + log->head,
             log->writing);
}

static void log_event(struct core *core, const struct io_event *event)
{
    struct core_log *log = &core->log;
    core->operations--;
    // An error (a closed pipe, a full disk) loses this batch and is counted, never retried for
    // ever.
    if (event->result <= 0)
        log->dropped++;
    log->head += event->result > 0 ? (uint32_t)event->result : log->writing;
    log->writing = 0;
    if (log->head == log->tail)
        log->head = log->tail = 0;
}

void core_log_line(struct core *core, const char *line, size_t len)
{
    struct core_log *log = &core->log;
    if (log->tail + len > CORE_LOG_BYTES) {
        if (log->writing || log->tail - log->head + len > CORE_LOG_BYTES) {
            log->dropped++;
            return;
        }
        memmove(log->bytes, log->bytes + log->head, log->tail - log->head);
        log->tail -= log->head;
        log->head = 0;
    }
    memcpy(log->bytes + log->tail, line, len);
    log->tail += (uint32_t)len;
}

void core_log_drain(struct core *core)
{
    struct core_log *log = &core->log;
    if (log->writing)
        return;
    while (log->head < log->tail) {
        ssize_t written = write(log->fd, log->bytes + log->head, log->tail - log->head);
        if (written <= 0)
            break;
        log->head += (uint32_t)written;
    }
    log->head = log->tail = 0;
}

// ------------------------------------------------------------------------------------------- turn

static void dispatch(struct core *core, const struct io_event *event)
{
    switch (event->token.op) {
    case IO_ACCEPT: accept_event(core, event); return;
    case IO_WRITE: log_event(core, event); return;
    case IO_WOKEN: return; // core_turn looks at `posted`
    default: break;
    }
    if (event->token.generation == 0) { // nobody waits for it
        core->operations--;
        return;
    }
    conn_event(core, event);
}

// The ring hands out its buffers in turn, so what lies in it should be few and warm: it gets more
// only when receives find it empty although buffers are free. And one connection can take all that
// lies in it in one turn, before anybody can stop it: so never more than a quarter of what is left
// for all.
static uint32_t ring_target(struct core *core)
{
    uint64_t misses = io_stats(core->io)->no_buffers;
    if (misses != core->ring_misses && core->receive.free > 0 &&
        core->ring_fill < core->receive.count)
        core->ring_fill *= 2;
    core->ring_misses = misses;
    uint32_t share = buf_available(&core->receive) / CORE_RING_SHARE;
    if (share < CORE_RING_MIN)
        share = CORE_RING_MIN;
    return core->ring_fill < share ? core->ring_fill : share;
}

static void ring_refill(struct core *core)
{
    uint32_t target = ring_target(core);
    while (core->receive.in_ring < target) {
        struct buf *buf = buf_to_ring(&core->receive);
        if (!buf)
            return;
        io_provide(core->io, buf->id);
    }
}

static void turn_end(struct core *core)
{
    if (core->hooks.turn_end)
        core->hooks.turn_end(core);
    // Sends first: the kernel works in this order, and for these somebody waits.
    conn_flush_dirty(core);
    ring_refill(core);
    conn_wake_starved(core);
    conn_start_receives(core);
    log_start_write(core);
}

static uint64_t turn_wait_ns(struct core *core, uint64_t wait_ms_max)
{
    if (core->stopping)
        return 0;
    uint64_t wait_ms = timer_next_ms(&core->wheel, core->now_ms);
    if (wait_ms > wait_ms_max)
        wait_ms = wait_ms_max;
    if (wait_ms > WAIT_MS_MAX)
        wait_ms = WAIT_MS_MAX;
    if (wait_ms == 0)
        return 0;
    // Up to the millisecond's edge, so that the timer is due when we wake.
    uint64_t into_ms = core->now_ns % 1000000u;
    return wait_ms * 1000000u - into_ms;
}

void core_turn(struct core *core, uint64_t wait_ms_max)
{
    CHECK_MAGIC(core, CORE_MAGIC);
    turn_end(core);
    io_turn(core->io, turn_wait_ns(core, wait_ms_max));
    clock_read(core);
    struct io_event event;
    while (io_next(core->io, &event))
        dispatch(core, &event);
    timer_run(core, &core->wheel, core->now_ms);
    uint32_t posted = atomic_exchange_explicit(&core->posted, 0, memory_order_acquire);
    if (posted && core->hooks.posted)
        core->hooks.posted(core, posted);
}

void core_run(struct core *core)
{
    while (!core->stopping)
        core_turn(core, UINT64_MAX);
}

void core_post(struct core *core, uint32_t bits)
{
    atomic_fetch_or_explicit(&core->posted, bits, memory_order_release);
    io_wake(core->io);
}

uint64_t core_clock_ns(struct core *core)
{
    return io_now_ns(core->io);
}

// xoshiro256** by Blackman and Vigna (public domain algorithm, prng.di.unimi.it); seeded by
// io_random.
uint64_t core_random(struct core *core)
{
    uint64_t *s = core->random;
    uint64_t x = s[1] * 5;
    uint64_t result = (x << 7 | x >> 57) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}
