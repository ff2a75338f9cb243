// SPDX-License-Identifier: MIT
//
// Connections of the simulator: wires, their ends, and who listens.
#include "tests/sim/network.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"

static struct sim_wire *wires;
static struct sim_listener *listeners;
static uint32_t wire_count;

void network_begin(void)
{
    CHECK(!wires);
    CHECK(!listeners);
    wire_count = 0;
}

void network_end(void)
{
    for (struct sim_wire *next, *wire = wires; wire; wire = next) {
        next = wire->next;
        heap_free(wire->end[0].inbox.bytes);
        heap_free(wire->end[1].inbox.bytes);
        heap_free(wire);
    }
    for (struct sim_listener *next, *listener = listeners; listener; listener = next) {
        next = listener->next;
        heap_free(listener);
    }
    wires = NULL;
    listeners = NULL;
}

uint64_t network_latency_ns(void)
{
    struct dice *dice = sim_dice();
    if (dice_chance(dice, 500))
        return 0;
    return dice_below(dice, sim_knobs()->latency_us + 1) * 1000ull + dice_below(dice, 1000);
}

// ------------------------------------------------------------------------------------------- ends

static void notify(void *owner)
{
    struct sim_end *end = owner;
    end->notifying = false;
    if (end->changed && end->status != SIM_CLOSED)
        end->changed(end, end->owner);
}

// Something about this end changed: its script is told in a while. The engine's ends are asked
// instead.
static void change(struct sim_end *end)
{
    if (!end->scripted || end->notifying || end->status == SIM_CLOSED)
        return;
    end->notifying = true;
    sim_after(network_latency_ns(), notify, end);
}

static uint64_t end_number(const struct sim_end *end)
{
    return end->wire->id * 2ull + (end == &end->wire->end[1]);
}

// RST arrives. What had not arrived before it never will.
static void reset_arrives(struct sim_end *end)
{
    if (end->status == SIM_CLOSED || end->reset)
        return;
    end->reset = true;
    end->error = end->inbox.fin ? EPIPE : ECONNRESET;
    if (!end->inbox.fin)
        end->inbox.len = dice_below(sim_dice(), end->inbox.len + 1);
    end->status = SIM_RESET;
    sim_note("reset arrives", end_number(end), end->inbox.len, end->inbox.fin);
    change(end);
}

static void wire_cut(void *owner)
{
    struct sim_wire *wire = owner;
    if (wire->end[0].status != SIM_OPEN || wire->end[1].status != SIM_OPEN)
        return;
    wire->cut = true;
    sim_count(SIM_connection_cut);
    reset_arrives(&wire->end[0]);
    reset_arrives(&wire->end[1]);
}

static void wire_moved(struct sim_wire *wire, uint32_t bytes)
{
    wire->moved += bytes;
    if (wire->doomed && wire->moved >= wire->dies_at) {
        wire->doomed = false;
        sim_after(network_latency_ns(), wire_cut, wire);
    }
}

static struct sim_wire *wire_make(void)
{
    const struct sim_knobs *knobs = sim_knobs();
    struct dice *dice = sim_dice();
    struct sim_wire *wire = heap_alloc(sizeof *wire);
    wire->next = wires;
    wires = wire;
    wire->id = ++wire_count;
    for (int i = 0; i < 2; i++) {
        struct sim_end *end = &wire->end[i];
        end->wire = wire;
        end->other = &wire->end[1 - i];
        end->status = SIM_OPEN;
        end->inbox.cap = dice_between(dice, knobs->pipe_min, knobs->pipe_max);
        list_init(&end->backlog);
    }
    if (!dice_chance(dice, knobs->reset))
        return wire;
    if (dice_chance(dice, 800)) {
        wire->doomed = true;
        wire->dies_at = dice_skewed(dice, 1 << 17) - 1;
    } else {
        sim_after(dice_skewed(dice, 1 << 24) * 1000ull, wire_cut, wire);
    }
    return wire;
}

// ------------------------------------------------------------------------------------------ bytes

static void inbox_put(struct sim_inbox *inbox, const uint8_t *bytes, uint32_t len)
{
    CHECK(inbox->len + len <= inbox->cap);
    if (!inbox->bytes)
        inbox->bytes = heap_alloc(inbox->cap);
    for (uint32_t done = 0; done < len;) {
        uint32_t to = (inbox->at + inbox->len) % inbox->cap;
        uint32_t run = inbox->cap - to < len - done ? inbox->cap - to : len - done;
        memcpy(inbox->bytes + to, bytes + done, run);
        inbox->len += run;
        done += run;
    }
}

static void inbox_get(struct sim_inbox *inbox, uint8_t *bytes, uint32_t len)
{
    CHECK(len <= inbox->len);
    for (uint32_t done = 0; done < len;) {
        uint32_t run = inbox->cap - inbox->at < len - done ? inbox->cap - inbox->at : len - done;
        memcpy(bytes + done, inbox->bytes + inbox->at, run);
        inbox->at = (inbox->at + run) % inbox->cap;
        inbox->len -= run;
        done += run;
    }
}

bool network_readable(const struct sim_end *end)
{
    return end->inbox.len > 0 || end->inbox.fin || end->reset;
}

static uint32_t room(const struct sim_end *end)
{
    const struct sim_inbox *inbox = &end->other->inbox;
    return inbox->cap - inbox->len;
}

bool network_writable(const struct sim_end *end)
{
    return end->reset || end->finished || end->other->status == SIM_CLOSED || room(end) > 0;
}

bool network_hung_up(const struct sim_end *end)
{
    return end->inbox.fin || end->reset;
}

int network_read(struct sim_end *end, uint8_t *bytes, uint32_t cap)
{
    struct sim_inbox *inbox = &end->inbox;
    if (inbox->len > 0) {
        uint32_t len = inbox->len < cap ? inbox->len : cap;
        inbox_get(inbox, bytes, len);
        sim_note_bytes("read", end_number(end), bytes, len);
        change(end->other);
        wire_moved(end->wire, len);
        return (int)len;
    }
    if (inbox->fin)
        return 0;
    if (!end->reset)
        return -EAGAIN;
    int error = end->error;
    end->error = 0;
    if (error == 0 && end->told_sender)
        sim_count(SIM_reset_hidden_by_send);
    return -error;
}

static int write_to_nobody(struct sim_end *end, uint32_t most)
{
    // TCP takes the bytes; the answer to them is a reset.
    sim_note("write to nobody", end_number(end), most, 0);
    reset_arrives(end);
    return (int)most;
}

int network_write(struct sim_end *end, const struct iovec *iov, unsigned count, uint32_t most)
{
    if (end->finished)
        return -EPIPE;
    if (end->reset) {
        int error = end->error ? end->error : EPIPE;
        end->told_sender = end->error != 0;
        end->error = 0;
        return -error;
    }
    if (end->other->status == SIM_CLOSED)
        return write_to_nobody(end, most);
    uint32_t left = room(end) < most ? room(end) : most;
    if (left == 0)
        return -EAGAIN;
    uint32_t taken = 0;
    for (unsigned i = 0; i < count && left > 0; i++) {
        uint32_t part = iov[i].iov_len < left ? (uint32_t)iov[i].iov_len : left;
        inbox_put(&end->other->inbox, iov[i].iov_base, part);
        sim_note_bytes("write", end_number(end), iov[i].iov_base, part);
        left -= part;
        taken += part;
    }
    change(end->other);
    wire_moved(end->wire, taken);
    return (int)taken;
}

void network_finish(struct sim_end *end)
{
    if (end->finished || end->reset || end->status == SIM_CLOSED)
        return;
    end->finished = true;
    sim_note("finish", end_number(end), 0, 0);
    if (end->other->status == SIM_CLOSED)
        return;
    end->other->inbox.fin = true;
    change(end->other);
}

void network_close(struct sim_end *end)
{
    if (end->status == SIM_CLOSED)
        return;
    sim_note("close", end_number(end), end->inbox.len, end->reset);
    bool unread = end->inbox.len > 0 && !end->reset;
    if (unread) {
        sim_count(SIM_reset_by_close);
        reset_arrives(end->other);
    } else {
        network_finish(end);
    }
    end->status = SIM_CLOSED;
    change(end->other); // there is room now: for nobody
}

// -------------------------------------------------------------------------------------- listeners

struct sim_listener *network_listen(const struct sockaddr *addr, socklen_t len, uint32_t backlog)
{
    CHECK(len <= sizeof(struct sockaddr_storage));
    struct sim_listener *listener = heap_alloc(sizeof *listener);
    memcpy(&listener->addr, addr, len);
    listener->len = len;
    listener->open = true;
    listener->backlog_max = backlog;
    list_init(&listener->backlog);
    listener->next = listeners;
    listeners = listener;
    return listener;
}

void network_abort(struct sim_end *end)
{
    end->wire->cut = true;
    reset_arrives(end->other);
    end->status = SIM_CLOSED;
}

void network_unlisten(struct sim_listener *listener)
{
    listener->open = false;
    for (struct list *node; (node = list_pop_front(&listener->backlog));)
        network_abort(LIST_OWNER(node, struct sim_end, backlog));
    listener->backlog_len = 0;
}

static bool same_address(const struct sim_listener *listener, const struct sockaddr *addr,
                         socklen_t len)
{
    const struct sockaddr *here = (const struct sockaddr *)&listener->addr;
    if (here->sa_family != addr->sa_family)
        return false;
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)here;
        const struct sockaddr_in *b = (const struct sockaddr_in *)addr;
        return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
    }
    return listener->len == len && memcmp(here, addr, len) == 0;
}

// As SO_REUSEPORT: any of those who listen there.
static struct sim_listener *listener_choose(const struct sockaddr *addr, socklen_t len)
{
    struct sim_listener *chosen = NULL;
    uint32_t seen = 0;
    for (struct sim_listener *l = listeners; l; l = l->next) {
        if (!l->open || !same_address(l, addr, len))
            continue;
        if (!l->accepted && l->backlog_len >= l->backlog_max)
            continue;
        if (dice_below(sim_dice(), ++seen) == 0)
            chosen = l;
    }
    return chosen;
}

static void script_accepts(void *owner)
{
    struct sim_end *end = owner;
    struct sim_listener *listener = end->owner;
    end->owner = NULL;
    end->notifying = false;
    listener->accepted(end, listener->owner);
    change(end);
}

struct sim_end *network_connect(const struct sockaddr *addr, socklen_t len)
{
    struct sim_listener *listener = listener_choose(addr, len);
    if (!listener)
        return NULL;
    struct sim_wire *wire = wire_make();
    struct sim_end *end = &wire->end[1];
    sim_note("connect", wire->id, listener->accepted != NULL, 0);
    if (listener->accepted) {
        end->scripted = true;
        end->owner = listener;
        end->notifying = true; // nothing else is told before
        sim_after(network_latency_ns(), script_accepts, end);
    } else {
        list_push_back(&listener->backlog, &end->backlog);
        listener->backlog_len++;
    }
    return &wire->end[0];
}

// ------------------------------------------------------------------------------ the scripts' side

static void dial_arrives(void *owner)
{
    struct sim_end *end = owner;
    struct sim_wire *wire = end->wire;
    if (end->status == SIM_CLOSED)
        return;
    struct sim_listener *listener = listener_choose((struct sockaddr *)&wire->to, wire->to_len);
    CHECK(!listener || !listener->accepted); // scripts do not talk to scripts
    end->status = listener ? SIM_OPEN : SIM_REFUSED;
    sim_note("dial", wire->id, listener != NULL, 0);
    if (listener) {
        end->other->status = SIM_OPEN;
        list_push_back(&listener->backlog, &end->other->backlog);
        listener->backlog_len++;
    }
    change(end);
}

struct sim_end *sim_dial(const struct sockaddr *addr, socklen_t len, sim_changed *changed,
                         void *owner)
{
    CHECK(len <= sizeof(struct sockaddr_storage));
    struct sim_end *end = &wire_make()->end[0];
    end->scripted = true;
    end->status = SIM_CONNECTING;
    end->other->status = SIM_CONNECTING;
    end->changed = changed;
    end->owner = owner;
    memcpy(&end->wire->to, addr, len);
    end->wire->to_len = len;
    sim_after(network_latency_ns(), dial_arrives, end);
    return end;
}

void sim_listen(const struct sockaddr *addr, socklen_t len, sim_changed *accepted, void *owner)
{
    struct sim_listener *listener = network_listen(addr, len, 0);
    listener->accepted = accepted;
    listener->owner = owner;
}

void sim_own(struct sim_end *end, sim_changed *changed, void *owner)
{
    end->changed = changed;
    end->owner = owner;
}

enum sim_status sim_status(const struct sim_end *end)
{
    return end->status;
}

uint32_t sim_end_id(const struct sim_end *end)
{
    return end->wire->id;
}

size_t sim_write(struct sim_end *end, const void *bytes, size_t len)
{
    if (end->status != SIM_OPEN || len == 0)
        return 0;
    struct iovec iov = {(void *)bytes, len};
    int taken = network_write(end, &iov, 1, len < 1u << 30 ? (uint32_t)len : 1u << 30);
    return taken > 0 ? (size_t)taken : 0;
}

size_t sim_read(struct sim_end *end, void *bytes, size_t cap)
{
    if ((end->status != SIM_OPEN && end->status != SIM_RESET) || end->inbox.len == 0)
        return 0;
    return (size_t)network_read(end, bytes, cap < 1u << 30 ? (uint32_t)cap : 1u << 30);
}

size_t sim_readable(const struct sim_end *end)
{
    return end->status == SIM_OPEN || end->status == SIM_RESET ? end->inbox.len : 0;
}

bool sim_ended(const struct sim_end *end)
{
    return end->inbox.fin && end->inbox.len == 0;
}

bool sim_hung_up(const struct sim_end *end)
{
    return network_hung_up(end);
}

bool sim_cut(const struct sim_end *end)
{
    return end->wire->cut;
}

void sim_finish(struct sim_end *end)
{
    network_finish(end);
}

void sim_reset(struct sim_end *end)
{
    if (end->status == SIM_CLOSED)
        return;
    sim_note("script resets", end_number(end), 0, 0);
    if (end->status != SIM_CONNECTING && end->status != SIM_REFUSED)
        reset_arrives(end->other);
    end->status = SIM_CLOSED;
}

void sim_close(struct sim_end *end)
{
    if (end->status == SIM_CONNECTING || end->status == SIM_REFUSED)
        end->status = SIM_CLOSED;
    else
        network_close(end);
}
