// SPDX-License-Identifier: MIT
//
// The simulator's side of engine/io.h: the contract kept by a seeded adversary.
//
// The life of an operation:
//
//   io_recv() ...  io_turn()                                    io_turn()           io_next()
//   queue -------> armed --(ready, due: execute)--> posted ----------------> visible ------> gone
//                   |                               (held back, if late)     (shuffled)
//                   +--(cancel: executed first, if the race is lost; else posted as ECANCELED)
//
// Ready is what the network says (bytes, room, a connection); due is when the adversary lets it
// happen. Bytes of a send are read, and buffers of a receive are filled, when the operation
// executes.
#include "engine/io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "tests/sim/network.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, len)   ((void)(at), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#endif

#define IO_MAGIC MAGIC('i', 'o', 's', 'm')

enum {
    FD_FIRST = 1000,
    POISON = 0xDB,
    BUSY_TURNS_MAX = 5000,        // turns in a row in which nothing moved: a spin
    SYN_GIVEN_UP_MS = 127 * 1000, // when the kernel gives up a connect
    LISTEN_BACKLOG_MIN = 1,
};

// A descriptor. Numbers are never used twice, so that a stale one is always found out.
struct descriptor {
    struct descriptor *next; // open ones of this io
    int fd;
    struct sim_end *end; // a connection; NULL for a fresh socket and for listeners
    struct sim_listener *listener;
    bool receiving, sending; // an operation of the kind that the engine has not seen the end of
    bool closing;            // its close is queued
    uint32_t holds;          // all such operations but cancels
};

struct op {
    struct list node; // in queue or armed
    struct io_token token;
    struct io_token target;        // IO_CANCEL of one operation
    bool target_fd;                // IO_CANCEL of a descriptor
    struct descriptor *descriptor; // NULL: the log, or cancel by token
    int fd;                        // of it; 0: none
    bool multishot;
    bool ready_seen;
    bool over; // its last event is posted
    uint64_t due_ns;
    uint32_t unseen; // events posted that the engine has not seen
    int connect_result;
    struct sim_end *connected;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    int log_fd; // IO_WRITE
    const uint8_t *bytes;
    size_t len;
    unsigned count;
    struct iovec iov[IO_VECTOR_MAX];
};

struct post {
    struct list node;
    struct io_event event;
    struct op *op; // NULL: IO_WOKEN
    uint64_t visible_ns;
};

struct io {
    uint32_t magic;
    uint32_t index;
    struct io_config config;
    struct io_stats stats;
    struct dice dice; // for io_random
    struct list queue, armed, posted, visible;
    uint32_t outstanding, armed_count;
    uint32_t *ring; // ids of buffers, oldest at ring[ring_head % buffers]
    uint32_t ring_head, ring_len, ring_published, filled;
    bool *in_ring;
    struct descriptor *open;
    bool waiting, woken;
    uint64_t wait_until_ns, turn_ns;
    uint32_t busy_turns;
};

static int next_fd;
static uint32_t io_count;

// ---------------------------------------------------------------------------------- open and close

bool io_probe(struct io_features *features, char *error, size_t error_len)
{
    snprintf(features->text, sizeof features->text, "simulated");
    return true;
}

struct io *io_open(const struct io_config *config, char *error, size_t error_len)
{
    struct io *io = heap_alloc(sizeof *io);
    io->magic = IO_MAGIC;
    io->config = *config;
    io->stats.sq_entries = config->entries;
    io->stats.cq_entries = config->entries * 8;
    list_init(&io->queue);
    list_init(&io->armed);
    list_init(&io->posted);
    list_init(&io->visible);
    if (config->buffers > 0) {
        CHECK((config->buffers & (config->buffers - 1)) == 0);
        io->ring = heap_alloc(config->buffers * sizeof *io->ring);
        io->in_ring = heap_alloc(config->buffers * sizeof *io->in_ring);
    }
    dice_seed(&io->dice, config->seed ^ dice_next(sim_dice()), 2);
    io->index = io_count++;
    if (io->index == 0)
        next_fd = FD_FIRST;
    return io;
}

void io_close_all(struct io *io)
{
    CHECK_MAGIC(io, IO_MAGIC);
    if (io->outstanding > 0)
        sim_violation("%u operations are not over when the ring is closed", io->outstanding);
    if (io->open)
        sim_violation("descriptor %d is still open when the ring is closed", io->open->fd);
    if (io->config.buffers > 0)
        ASAN_UNPOISON_MEMORY_REGION(io->config.buffer_memory,
                                    (size_t)io->config.buffers * io->config.buffer_size);
    heap_free(io->ring);
    heap_free(io->in_ring);
    io->magic = 0;
    io_count--;
    heap_free(io);
}

uint64_t io_now_ns(struct io *io)
{
    return sim_now_ns();
}

uint64_t io_wall_ms(struct io *io)
{
    return 1700000000000u + sim_now_ns() / 1000000u;
}

void io_random(struct io *io, void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)dice_next(&io->dice);
}

uint32_t sim_outstanding(const struct io *io)
{
    return io->outstanding;
}

uint32_t sim_ring_buffers(const struct io *io)
{
    return io->ring_len + io->filled;
}

// ------------------------------------------------------------------------------------ descriptors

static struct descriptor *descriptor_make(struct io *io)
{
    struct descriptor *descriptor = heap_alloc(sizeof *descriptor);
    descriptor->fd = next_fd++;
    descriptor->next = io->open;
    io->open = descriptor;
    return descriptor;
}

static struct descriptor *descriptor_find(struct io *io, int fd, const char *what)
{
    CHECK_MAGIC(io, IO_MAGIC);
    for (struct descriptor *d = io->open; d; d = d->next)
        if (d->fd == fd && !d->closing)
            return d;
    sim_violation("%s on descriptor %d, which is not open", what, fd);
}

static void descriptor_close(struct io *io, struct descriptor *descriptor)
{
    struct descriptor **link = &io->open;
    while (*link != descriptor)
        link = &(*link)->next;
    *link = descriptor->next;
    if (descriptor->end)
        network_close(descriptor->end);
    if (descriptor->listener)
        network_unlisten(descriptor->listener);
    heap_free(descriptor);
}

int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, uint32_t backlog)
{
    struct descriptor *descriptor = descriptor_make(io);
    descriptor->listener = network_listen(addr, len, backlog ? backlog : LISTEN_BACKLOG_MIN);
    return descriptor->fd;
}

// What waits is handed over by the armed accept before its cancellation ends.
int io_accept_waiting(struct io *io, int fd)
{
    descriptor_find(io, fd, "io_accept_waiting");
    return -EAGAIN;
}

int io_socket(struct io *io, int family)
{
    if (dice_chance(sim_dice(), sim_knobs()->socket_fails)) {
        sim_count(SIM_socket_without_descriptors);
        sim_note("socket fails", 0, 0, 0);
        return -EMFILE;
    }
    return descriptor_make(io)->fd;
}

void io_peer(struct io *io, int fd, char *text, size_t len)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_peer");
    uint32_t id = descriptor->end ? descriptor->end->wire->id : 0;
    snprintf(text, len, "10.%u.%u.%u", id >> 16 & 255, id >> 8 & 255, id & 255);
}

void io_shutdown_send(struct io *io, int fd)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_shutdown_send");
    if (descriptor->end)
        network_finish(descriptor->end);
}

// -------------------------------------------------------------------------------- queue operations

static void submit(struct io *io);

// In traces: core * 100 + operation, slot and generation, and a descriptor or a result.
static void note(const struct io *io, const char *what, struct io_token token, int64_t value)
{
    sim_note(what, io->index * 100 + token.op, (uint64_t)token.slot << 32 | token.generation,
             (uint64_t)value);
}

static struct op *op_make(struct io *io, struct io_token token, struct descriptor *descriptor)
{
    CHECK_MAGIC(io, IO_MAGIC);
    CHECK(token.slot < IO_SLOTS_MAX);
    struct op *op = heap_alloc(sizeof *op);
    op->token = token;
    op->descriptor = descriptor;
    op->fd = descriptor ? descriptor->fd : 0;
    if (descriptor && token.op != IO_CANCEL)
        descriptor->holds++;
    io->outstanding++;
    list_push_back(&io->queue, &op->node);
    note(io, "queue", token, descriptor ? descriptor->fd : 0);
    return op;
}

// The submission ring may be full at any call: then all that is queued goes to the kernel at once.
static void op_queued(struct io *io)
{
    if (!dice_chance(sim_dice(), sim_knobs()->submit_early))
        return;
    sim_count(SIM_submitted_early);
    submit(io);
}

void io_accept(struct io *io, int fd, struct io_token token)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_accept");
    if (!descriptor->listener)
        sim_violation("io_accept on descriptor %d, which does not listen", fd);
    if (descriptor->receiving)
        sim_violation("two accepts are armed on descriptor %d", fd);
    descriptor->receiving = true;
    op_make(io, token, descriptor)->multishot = true;
    op_queued(io);
}

void io_recv(struct io *io, int fd, struct io_token token, bool multishot)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_recv");
    if (!descriptor->end)
        sim_violation("io_recv on descriptor %d, which is not connected", fd);
    if (descriptor->receiving)
        sim_violation("two receives are armed on descriptor %d (invariant 5)", fd);
    descriptor->receiving = true;
    op_make(io, token, descriptor)->multishot = multishot;
    op_queued(io);
}

void io_send(struct io *io, int fd, struct io_token token, const struct iovec *iov, unsigned count)
{
    CHECK(count > 0);
    CHECK(count <= IO_VECTOR_MAX);
    struct descriptor *descriptor = descriptor_find(io, fd, "io_send");
    if (!descriptor->end)
        sim_violation("io_send on descriptor %d, which is not connected", fd);
    if (descriptor->sending)
        sim_violation("two sends are in flight on descriptor %d (invariant 5)", fd);
    descriptor->sending = true;
    struct op *op = op_make(io, token, descriptor);
    op->count = count;
    memcpy(op->iov, iov, count * sizeof *iov);
    for (unsigned i = 0; i < count; i++)
        op->len += iov[i].iov_len;
    op_queued(io);
}

void io_connect(struct io *io, int fd, struct io_token token, const struct sockaddr *addr,
                socklen_t len)
{
    CHECK(len <= sizeof(struct sockaddr_storage));
    struct descriptor *descriptor = descriptor_find(io, fd, "io_connect");
    if (descriptor->end || descriptor->listener || descriptor->holds > 0)
        sim_violation("io_connect on descriptor %d, which is in use", fd);
    struct op *op = op_make(io, token, descriptor);
    memcpy(&op->addr, addr, len);
    op->addr_len = len;
    op_queued(io);
}

void io_hangup(struct io *io, int fd, struct io_token token)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_hangup");
    if (!descriptor->end)
        sim_violation("io_hangup on descriptor %d, which is not connected", fd);
    op_make(io, token, descriptor);
    op_queued(io);
}

void io_write(struct io *io, int fd, struct io_token token, const void *bytes, size_t len)
{
    CHECK(len > 0);
    if (fd < SIM_LOG_FD)
        sim_violation("io_write on descriptor %d", fd);
    struct op *op = op_make(io, token, NULL);
    op->log_fd = fd;
    op->bytes = bytes;
    op->len = len;
    op_queued(io);
}

void io_cancel(struct io *io, struct io_token target, struct io_token token)
{
    op_make(io, token, NULL)->target = target;
    op_queued(io);
}

void io_cancel_fd(struct io *io, int fd, struct io_token token)
{
    op_make(io, token, descriptor_find(io, fd, "io_cancel_fd"))->target_fd = true;
    op_queued(io);
}

void io_close(struct io *io, int fd, struct io_token token)
{
    struct descriptor *descriptor = descriptor_find(io, fd, "io_close");
    if (descriptor->holds > 0)
        sim_violation("io_close of descriptor %d while %u operations use it (invariant 2)", fd,
                      descriptor->holds);
    descriptor->closing = true;
    op_make(io, token, descriptor);
    op_queued(io);
}

void io_provide(struct io *io, uint32_t id)
{
    CHECK_MAGIC(io, IO_MAGIC);
    if (id >= io->config.buffers)
        sim_violation("buffer %u given to a ring of %u", id, io->config.buffers);
    if (io->in_ring[id])
        sim_violation("buffer %u given to the ring twice", id);
    uint8_t *bytes = io->config.buffer_memory + (size_t)id * io->config.buffer_size;
    memset(bytes, POISON, io->config.buffer_size);
    ASAN_POISON_MEMORY_REGION(bytes, io->config.buffer_size);
    io->in_ring[id] = true;
    io->ring[(io->ring_head + io->ring_len++) % io->config.buffers] = id;
}

void io_wake(struct io *io)
{
    io->woken = true;
}

const struct io_stats *io_stats(struct io *io)
{
    return &io->stats;
}

// ------------------------------------------------------------------------------------------- post

// Events of one operation keep their order, and so do those of one descriptor: what one operation
// learnt, say of a reset, the next one does not, and both tell it in this order.
static bool in_order(const struct op *a, const struct op *b)
{
    return a == b || (a->fd != 0 && a->fd == b->fd);
}

// When the newest event is seen that this operation's next one must not overtake.
static uint64_t newest_ns(const struct io *io, const struct op *op)
{
    uint64_t newest = 0;
    for (struct list *node = io->posted.next; node != &io->posted; node = node->next) {
        const struct post *post = LIST_OWNER(node, struct post, node);
        if (in_order(post->op, op) && post->visible_ns > newest)
            newest = post->visible_ns;
    }
    return newest;
}

static void post(struct io *io, struct op *op, int result, int buffer, bool more)
{
    struct dice *dice = sim_dice();
    struct post *post = heap_alloc(sizeof *post);
    post->op = op;
    post->event = (struct io_event){op->token, result, buffer, more};
    post->visible_ns = sim_now_ns();
    if (dice_chance(dice, sim_knobs()->late)) {
        sim_count(SIM_completion_late);
        post->visible_ns += dice_below(dice, sim_knobs()->late_us + 1) * 1000ull;
    }
    uint64_t before_ns = newest_ns(io, op);
    if (post->visible_ns < before_ns)
        post->visible_ns = before_ns;
    op->unseen++;
    list_push_back(&io->posted, &post->node);
    note(io, "post", op->token, result);
    if (more)
        return;
    op->over = true;
    list_remove(&op->node);
}

// The engine has seen an event of the operation.
static void op_seen(struct io *io, struct op *op)
{
    CHECK(op->unseen > 0);
    if (--op->unseen > 0 || !op->over)
        return;
    struct descriptor *descriptor = op->descriptor;
    if (descriptor && op->token.op != IO_CANCEL && op->token.op != IO_CLOSE) {
        CHECK(descriptor->holds > 0);
        descriptor->holds--;
        if (op->token.op == IO_RECV || op->token.op == IO_ACCEPT)
            descriptor->receiving = false;
        if (op->token.op == IO_SEND)
            descriptor->sending = false;
    }
    io->outstanding--;
    heap_free(op);
}

// ---------------------------------------------------------------------------------------- execute

static bool ring_take(struct io *io, uint32_t *id)
{
    if (io->ring_published == 0)
        return false;
    *id = io->ring[io->ring_head++ % io->config.buffers];
    io->ring_len--;
    io->ring_published--;
    io->filled++;
    io->in_ring[*id] = false;
    ASAN_UNPOISON_MEMORY_REGION(io->config.buffer_memory + (size_t)*id * io->config.buffer_size,
                                io->config.buffer_size);
    return true;
}

static void receive_end(struct io *io, struct op *op, int result)
{
    uint32_t id;
    if (result < 0) {
        sim_count(SIM_receive_reset);
        post(io, op, result, IO_NO_BUFFER, false);
        return;
    }
    sim_count(SIM_end_of_stream);
    if (dice_chance(sim_dice(), sim_knobs()->end_with_buffer) && ring_take(io, &id)) {
        sim_count(SIM_end_of_stream_with_buffer);
        post(io, op, 0, (int)id, false);
        return;
    }
    post(io, op, 0, IO_NO_BUFFER, false);
}

static uint32_t receive_most(struct io *io, struct sim_end *end)
{
    uint32_t there =
        end->inbox.len < io->config.buffer_size ? end->inbox.len : io->config.buffer_size;
    if (there < 2 || !dice_chance(sim_dice(), sim_knobs()->short_receive))
        return there;
    sim_count(SIM_short_receive);
    return dice_skewed(sim_dice(), there - 1);
}

static void execute_receive(struct io *io, struct op *op)
{
    struct sim_end *end = op->descriptor->end;
    uint32_t id;
    if (io->ring_published == 0) { // looked at before the bytes are, also at the end of stream
        sim_count(SIM_ring_empty);
        post(io, op, -ENOBUFS, IO_NO_BUFFER, false);
        return;
    }
    if (end->inbox.len == 0) {
        receive_end(io, op, network_read(end, NULL, 0));
        return;
    }
    uint32_t most = receive_most(io, end);
    CHECK(ring_take(io, &id));
    uint8_t *bytes = io->config.buffer_memory + (size_t)id * io->config.buffer_size;
    int got = network_read(end, bytes, most);
    CHECK(got > 0);
    bool more = op->multishot;
    if (more && dice_chance(sim_dice(), sim_knobs()->multishot_ends)) {
        sim_count(SIM_multishot_ended);
        more = false;
    }
    post(io, op, got, (int)id, more);
}

static void execute_send(struct io *io, struct op *op)
{
    uint32_t most = op->len < 1u << 30 ? (uint32_t)op->len : 1u << 30;
    if (most > 1 && dice_chance(sim_dice(), sim_knobs()->short_send))
        most = dice_skewed(sim_dice(), most - 1);
    int taken = network_write(op->descriptor->end, op->iov, op->count, most);
    CHECK(taken != -EAGAIN);
    if (taken < 0)
        sim_count(SIM_send_failed);
    else if ((uint32_t)taken < op->len)
        sim_count(SIM_short_send);
    post(io, op, taken, IO_NO_BUFFER, false);
}

static void execute_accept(struct io *io, struct op *op)
{
    struct dice *dice = sim_dice();
    struct sim_listener *listener = op->descriptor->listener;
    bool fails = dice_chance(dice, sim_knobs()->accept_fails);
    if (fails && dice_chance(dice, 500)) {
        sim_count(SIM_accept_without_descriptors);
        post(io, op, dice_chance(dice, 500) ? -EMFILE : -ENFILE, IO_NO_BUFFER, false);
        return;
    }
    struct list *node = list_pop_front(&listener->backlog);
    struct sim_end *end = LIST_OWNER(node, struct sim_end, backlog);
    listener->backlog_len--;
    if (fails) {
        sim_count(SIM_accept_aborted);
        network_abort(end);
        post(io, op, -ECONNABORTED, IO_NO_BUFFER, false);
        return;
    }
    struct descriptor *descriptor = descriptor_make(io);
    descriptor->end = end;
    sim_count(SIM_accepted);
    bool more = !dice_chance(dice, sim_knobs()->multishot_ends);
    post(io, op, descriptor->fd, IO_NO_BUFFER, more);
}

static void execute_connect(struct io *io, struct op *op)
{
    int result = op->connect_result;
    if (result == 0) {
        op->descriptor->end = network_connect((struct sockaddr *)&op->addr, op->addr_len);
        if (!op->descriptor->end)
            result = -ECONNREFUSED;
    }
    if (result == -ECONNREFUSED)
        sim_count(SIM_connect_refused);
    post(io, op, result, IO_NO_BUFFER, false);
}

static void execute_write(struct io *io, struct op *op)
{
    size_t len = op->len;
    if (len > 1 && dice_chance(sim_dice(), sim_knobs()->short_send))
        len = dice_skewed(sim_dice(), (uint32_t)len - 1);
    sim_log_bytes(op->log_fd, op->bytes, len);
    post(io, op, (int)len, IO_NO_BUFFER, false);
}

static void execute(struct io *io, struct op *op)
{
    op->ready_seen = false; // a multishot one becomes ready anew
    switch (op->token.op) {
    case IO_RECV: execute_receive(io, op); break;
    case IO_SEND: execute_send(io, op); break;
    case IO_ACCEPT: execute_accept(io, op); break;
    case IO_CONNECT: execute_connect(io, op); break;
    case IO_WRITE: execute_write(io, op); break;
    case IO_HANGUP:
        sim_count(SIM_hangup_seen);
        post(io, op, POLLRDHUP, IO_NO_BUFFER, false);
        break;
    default: CHECK(!"an operation that is never armed");
    }
}

static bool ready(const struct op *op)
{
    switch (op->token.op) {
    case IO_RECV: return network_readable(op->descriptor->end);
    case IO_SEND: return network_writable(op->descriptor->end);
    case IO_ACCEPT: return !list_empty(&op->descriptor->listener->backlog);
    case IO_HANGUP: return network_hung_up(op->descriptor->end);
    default: return true;
    }
}

// When an armed operation will execute, as things stand.
static uint64_t due_ns(struct op *op)
{
    if (!ready(op)) {
        op->ready_seen = false;
        return UINT64_MAX;
    }
    if (!op->ready_seen) {
        op->ready_seen = true;
        op->due_ns = sim_now_ns() + network_latency_ns();
    }
    return op->due_ns;
}

// ----------------------------------------------------------------------------------------- submit

// Whoever listens is asked when the connect gets through, not now.
static void arm_connect(struct op *op)
{
    struct dice *dice = sim_dice();
    op->ready_seen = true;
    op->due_ns = sim_now_ns() + network_latency_ns();
    if (dice_chance(dice, sim_knobs()->connect_refused)) {
        op->connect_result = -ECONNREFUSED;
    } else if (dice_chance(dice, sim_knobs()->connect_silent)) {
        sim_count(SIM_connect_silent);
        op->connect_result = -ETIMEDOUT;
        op->due_ns = sim_now_ns() + SYN_GIVEN_UP_MS * 1000000ull;
    }
}

// The race of a cancel with what it is to stop. True: it was found.
static bool cancel_one(struct io *io, struct op *op)
{
    bool loses = ready(op) && dice_chance(sim_dice(), sim_knobs()->cancel_loses) &&
                 (op->token.op != IO_CONNECT || op->connect_result == 0);
    if (loses) {
        sim_count(SIM_cancel_lost);
        execute(io, op);
        if (op->over)
            return false;
        // A multishot one on its way from one result to the next is not found, and goes on.
        if (dice_chance(sim_dice(), 500)) {
            sim_count(SIM_cancel_missed);
            return false;
        }
    }
    sim_count(SIM_cancel_won);
    if (op->token.op == IO_CONNECT)
        sim_count(SIM_connect_cancelled);
    post(io, op, -ECANCELED, IO_NO_BUFFER, false);
    return true;
}

static bool cancel_matches(const struct op *cancel, const struct op *op)
{
    if (cancel->target_fd)
        return op->descriptor == cancel->descriptor;
    return op->token.op == cancel->target.op && op->token.slot == cancel->target.slot &&
           op->token.generation == cancel->target.generation;
}

// As the kernel: cancel by descriptor says how many it found, cancel of one says 0.
static void submit_cancel(struct io *io, struct op *cancel)
{
    int found = 0;
    for (struct list *next, *node = io->armed.next; node != &io->armed; node = next) {
        next = node->next;
        struct op *op = LIST_OWNER(node, struct op, node);
        if (cancel_matches(cancel, op))
            found += cancel_one(io, op);
    }
    if (found == 0)
        sim_count(SIM_cancel_found_nothing);
    post(io, cancel, found == 0 ? -ENOENT : cancel->target_fd ? found : 0, IO_NO_BUFFER, false);
}

static void submit_one(struct io *io, struct op *op)
{
    io->stats.submitted++;
    switch (op->token.op) {
    case IO_CANCEL: submit_cancel(io, op); return;
    case IO_CLOSE:
        descriptor_close(io, op->descriptor);
        op->descriptor = NULL;
        post(io, op, 0, IO_NO_BUFFER, false);
        return;
    case IO_RECV:
        if (io->ring_published == 0) {
            sim_count(SIM_ring_empty_when_armed);
            post(io, op, -ENOBUFS, IO_NO_BUFFER, false);
            return;
        }
        break;
    case IO_SEND:
        if (!network_writable(op->descriptor->end))
            sim_count(SIM_send_without_room);
        break;
    case IO_CONNECT: arm_connect(op); break;
    default: break;
    }
    list_push_back(&io->armed, &op->node);
}

static void submit(struct io *io)
{
    for (struct list *node; (node = list_pop_front(&io->queue));)
        submit_one(io, LIST_OWNER(node, struct op, node));
}

// ------------------------------------------------------------------------------------------- turn

// Execute what is due, starting anywhere, so that no descriptor is always first.
static void execute_due(struct io *io)
{
    struct op *due[256];
    uint32_t count = 0;
    for (struct list *node = io->armed.next; node != &io->armed; node = node->next) {
        struct op *op = LIST_OWNER(node, struct op, node);
        if (count < 256 && due_ns(op) <= sim_now_ns())
            due[count++] = op;
    }
    for (; count > 0; count--) {
        uint32_t choice = dice_below(sim_dice(), count);
        struct op *op = due[choice];
        due[choice] = due[count - 1];
        execute(io, op);
    }
}

// Is nothing posted before it that must be seen before it?
static bool first_of_its_kind(const struct io *io, const struct post *post)
{
    for (struct list *node = post->node.prev; node != &io->posted; node = node->prev)
        if (in_order(LIST_OWNER(node, struct post, node)->op, post->op))
            return false;
    return true;
}

static void reveal(struct io *io, struct post *post)
{
    list_remove(&post->node);
    list_push_back(&io->visible, &post->node);
}

// Move what is visible by now to where io_next() looks, perhaps in another order.
static void collect(struct io *io)
{
    bool shuffle = dice_chance(sim_dice(), sim_knobs()->reorder);
    for (;;) {
        struct post *chosen = NULL;
        uint32_t seen = 0;
        for (struct list *node = io->posted.next; node != &io->posted; node = node->next) {
            struct post *post = LIST_OWNER(node, struct post, node);
            if (post->visible_ns > sim_now_ns() || (shuffle && !first_of_its_kind(io, post)))
                continue;
            if (dice_below(sim_dice(), ++seen) == 0)
                chosen = post;
            if (!shuffle)
                break;
        }
        if (!chosen)
            return;
        if (seen > 1)
            sim_count(SIM_completions_shuffled);
        reveal(io, chosen);
    }
}

static void wake_up(struct io *io)
{
    struct post *post = heap_alloc(sizeof *post);
    post->event = (struct io_event){{.op = IO_WOKEN}, 8, IO_NO_BUFFER, true};
    list_push_back(&io->visible, &post->node);
    io->woken = false;
}

// Turns follow each other without anything moving and without time passing: somebody spins.
static void check_busy(struct io *io)
{
    bool moved = io->turn_ns != sim_now_ns();
    for (struct list *node = io->visible.next; node != &io->visible; node = node->next)
        moved |= LIST_OWNER(node, struct post, node)->event.result != -ENOBUFS;
    io->busy_turns = moved ? 0 : io->busy_turns + 1;
    if (io->busy_turns > BUSY_TURNS_MAX)
        sim_violation("%u turns in which nothing happened: the core spins", io->busy_turns);
    io->turn_ns = sim_now_ns();
}

void io_turn(struct io *io, uint64_t timeout_ns)
{
    CHECK_MAGIC(io, IO_MAGIC);
    if (!list_empty(&io->visible))
        sim_violation("io_turn() before io_next() said that there is no more");
    io->stats.turns++;
    io->ring_published = io->ring_len;
    submit(io);
    execute_due(io);
    collect(io);
    if (io->woken)
        wake_up(io);
    check_busy(io);
    // A core that has to wait comes back here when it may go on: see sim_step().
    bool wait = list_empty(&io->visible) && timeout_ns > 0 && !io->waiting;
    io->waiting = wait;
    io->wait_until_ns =
        timeout_ns < UINT64_MAX - sim_now_ns() ? sim_now_ns() + timeout_ns : UINT64_MAX;
    // While it waits the clock must stand still for it, or its timers would fire in mid-wait.
    if (!wait && dice_chance(sim_dice(), sim_knobs()->stall))
        sim_stall(dice_skewed(sim_dice(), sim_knobs()->stall_us) * 1000ull);
}

bool io_next(struct io *io, struct io_event *event)
{
    struct list *node = list_pop_front(&io->visible);
    if (!node)
        return false;
    struct post *post = LIST_OWNER(node, struct post, node);
    *event = post->event;
    note(io, "event", event->token, event->result);
    if (event->buffer != IO_NO_BUFFER) {
        CHECK(io->filled > 0);
        io->filled--;
    }
    if (event->result == -ENOBUFS)
        io->stats.no_buffers++;
    io->stats.completed++;
    if (post->op)
        op_seen(io, post->op);
    heap_free(post);
    return true;
}

// ------------------------------------------------------------------------------------ for sim_step

bool io_waiting(const struct io *io)
{
    return io->waiting;
}

uint64_t io_event_due_ns(struct io *io)
{
    uint64_t due = io->woken || !list_empty(&io->queue) ? sim_now_ns() : UINT64_MAX;
    for (struct list *node = io->armed.next; node != &io->armed; node = node->next) {
        uint64_t at = due_ns(LIST_OWNER(node, struct op, node));
        due = at < due ? at : due;
    }
    for (struct list *node = io->posted.next; node != &io->posted; node = node->next) {
        uint64_t at = LIST_OWNER(node, struct post, node)->visible_ns;
        due = at < due ? at : due;
    }
    return due;
}

uint64_t io_turn_due_ns(struct io *io)
{
    uint64_t due = io->waiting ? io->wait_until_ns : sim_now_ns();
    uint64_t event = io_event_due_ns(io);
    return event < due ? event : due;
}
