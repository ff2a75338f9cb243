// SPDX-License-Identifier: MIT
//
// Proves that the generic layer of the engine (core, conn, timer, buf, slab) keeps its laws under
// the adversary: exact bytes both ways, every buffer, slot, segment and operation accounted for
// after every step, timers neither early nor late, and progress with rings of one buffer.
//
// A world: one to three cores that echo and relay (echo_server.c), a scripted mirror, and clients
// that send, dawdle, end their streams early, leave and reset as the seed says. At the end each
// client's bytes are judged by how the server says the connection ended.
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "tests/sim/echo_server.h"
#include "tests/sim/sweep.h"

enum {
    CORES_MAX = 3,
    CLIENTS_MAX = 24,
    PROBES = 6,
    PAYLOAD_MAX = 1 << 15,
    OUTCOMES_MAX = 4096,
    EXPIRE_MS = 20000,
    PAUSE_MS_MAX = 2000,
    WORLD_MS_MAX = 20 * 60 * 1000,
    DRAIN_MS_MAX = 5 * 60 * 1000,
    ANSWER_EXTRA = sizeof ECHO_GREETING - 1 + sizeof ECHO_TRAILER - 1,
};

#define ECHO_CENSUS(X)                                                                             \
    X(served)                                                                                      \
    X(shed)                                                                                        \
    X(aborted)                                                                                     \
    X(client_left)                                                                                 \
    X(expired)                                                                                     \
    X(upstream_left)                                                                               \
    X(no_slot)                                                                                     \
    X(no_segment)                                                                                  \
    X(no_write_buffer)                                                                             \
    X(paused)                                                                                      \
    X(watched)                                                                                     \
    X(lingered)                                                                                    \
    X(relayed)                                                                                     \
    X(starved)                                                                                     \
    X(timer_fired)                                                                                 \
    X(left_seen_at_once)                                                                           \
    X(client_cut)                                                                                  \
    X(client_refused)                                                                              \
    X(half_closed)

enum {
#define X(name) COUNT_##name,
    ECHO_CENSUS(X)
#undef X
        COUNTS
};

static const char *const count_names[] = {
#define X(name) #name,
    ECHO_CENSUS(X)
#undef X
};

static uint64_t *counts;

enum leaving { STAYS, LEAVES_BY_CLOSE, LEAVES_BY_RESET };

struct client {
    struct sim_end *end;
    struct dice dice;
    uint8_t salt, flags;
    uint32_t length, limit;
    uint32_t sent, got; // sent: header included
    uint32_t write_most, read_most, pause_per_mille;
    bool half_closes, reading_pauses, writing_pauses, done, left, judged, ended;
    enum leaving leaving;
    uint32_t leave_at; // sent + got
    uint64_t left_ns;
};

// One connection of the mirror: gives back what comes.
struct mirror {
    struct sim_end *end;
    bool silent;
    uint8_t bytes[PAYLOAD_MAX]; // all of it: a mirror that stopped reading could lock up the ring
    uint32_t len;
};

// A timer that knows when it must go off.
struct probe {
    struct timer timer;
    uint64_t stalled_ns; // of the world, when it was set
    bool past;           // its time had passed when it was set: the next millisecond counts
    uint32_t left;       // times to go
};

struct world {
    struct echo_server server[CORES_MAX];
    uint32_t server_count;
    struct client client[CLIENTS_MAX];
    uint32_t client_count;
    struct mirror *mirrors[OUTCOMES_MAX];
    uint32_t mirror_count;
    struct probe probe[CORES_MAX][PROBES];
    uint8_t outcomes[OUTCOMES_MAX];
    struct echo_counts counts;
    bool silent, far; // buffers may be pinned until connections expire
    struct sockaddr_in echo_at, mirror_at;
};

static struct world world;

// ---------------------------------------------------------------------------------------- clients

static uint8_t payload_byte(const struct client *client, uint32_t at)
{
    return (uint8_t)(client->salt + at * 167 + (at >> 8) * 13);
}

static uint8_t request_byte(const struct client *client, uint32_t at)
{
    if (at == 0)
        return client->flags;
    if (at < 5)
        return (uint8_t)(client->length >> 8 * (at - 1));
    if (at < ECHO_HEADER)
        return (uint8_t)(client->limit >> 8 * (at - 5));
    return payload_byte(client, at - ECHO_HEADER);
}

static uint8_t answer_byte(const struct client *client, uint32_t at)
{
    const uint32_t greeting = sizeof ECHO_GREETING - 1;
    if (at < greeting)
        return (uint8_t)ECHO_GREETING[at];
    if (at < greeting + client->limit)
        return payload_byte(client, at - greeting);
    return (uint8_t)ECHO_TRAILER[at - greeting - client->limit];
}

static void client_step(struct client *client);

static void client_writes_on(void *owner)
{
    struct client *client = owner;
    client->writing_pauses = false;
    client_step(client);
}

static void client_reads_on(void *owner)
{
    struct client *client = owner;
    client->reading_pauses = false;
    client_step(client);
}

static bool client_pauses(struct client *client, bool *pauses, sim_wake *wake)
{
    if (!dice_chance(&client->dice, client->pause_per_mille))
        return false;
    *pauses = true;
    sim_after(dice_skewed(&client->dice, PAUSE_MS_MAX) * 1000000ull, wake, client);
    return true;
}

static void client_write(struct client *client)
{
    uint8_t bytes[4096];
    uint32_t all = ECHO_HEADER + client->length;
    while (!client->writing_pauses && client->sent < all) {
        uint32_t most = dice_skewed(&client->dice, client->write_most);
        if (most > all - client->sent)
            most = all - client->sent;
        for (uint32_t i = 0; i < most; i++)
            bytes[i] = request_byte(client, client->sent + i);
        size_t taken = sim_write(client->end, bytes, most);
        if (taken == 0)
            return;
        client->sent += (uint32_t)taken;
        client_pauses(client, &client->writing_pauses, client_writes_on);
    }
    if (client->half_closes && client->sent == all && sim_status(client->end) == SIM_OPEN) {
        client->half_closes = false;
        counts[COUNT_half_closed]++;
        sim_finish(client->end);
    }
}

static void client_read(struct client *client)
{
    uint8_t bytes[4096];
    uint32_t all = ANSWER_EXTRA + client->limit;
    while (!client->reading_pauses) {
        size_t got = sim_read(client->end, bytes, dice_skewed(&client->dice, client->read_most));
        if (got == 0)
            return;
        for (size_t i = 0; i < got; i++, client->got++) {
            if (client->got >= all)
                sim_violation("client %u got more than %u bytes", sim_end_id(client->end), all);
            uint8_t wanted = answer_byte(client, client->got);
            if (bytes[i] != wanted)
                sim_violation("client %u got 0x%02x at %u, wanted 0x%02x", sim_end_id(client->end),
                              bytes[i], client->got, wanted);
        }
        client_pauses(client, &client->reading_pauses, client_reads_on);
    }
}

static void client_leave(struct client *client)
{
    client->left = client->done = true;
    client->left_ns = sim_now_ns();
    sim_note("client leaves", sim_end_id(client->end), client->sent, client->got);
    if (client->leaving == LEAVES_BY_RESET)
        sim_reset(client->end);
    else
        sim_close(client->end);
}

static void client_step(struct client *client)
{
    if (client->done || sim_status(client->end) == SIM_CONNECTING)
        return;
    if (sim_status(client->end) == SIM_REFUSED) {
        counts[COUNT_client_refused]++;
        client->done = true;
        return;
    }
    client_write(client);
    client_read(client);
    if (client->leaving && client->sent + client->got >= client->leave_at) {
        client_leave(client);
        return;
    }
    client->ended = sim_ended(client->end);
    bool reset = sim_status(client->end) == SIM_RESET && sim_readable(client->end) == 0;
    if (!client->ended && !reset)
        return;
    client->done = true;
    sim_note("client done", sim_end_id(client->end), client->got, client->ended);
    sim_close(client->end);
}

static void client_changed(struct sim_end *end, void *owner)
{
    client_step(owner);
}

static void client_dials(void *owner)
{
    struct client *client = owner;
    client->end =
        sim_dial((struct sockaddr *)&world.echo_at, sizeof world.echo_at, client_changed, client);
}

static void client_draw(struct client *client, uint64_t seed, uint32_t number)
{
    struct dice *dice = &client->dice;
    dice_seed(dice, seed, 100 + number);
    client->salt = (uint8_t)dice_next(dice);
    client->flags = (uint8_t)(dice_next(dice) & (ECHO_MULTISHOT | ECHO_TEXT | ECHO_RELAY));
    if (client->flags & ECHO_RELAY && world.far && dice_chance(dice, 500))
        client->flags |= ECHO_RELAY_FAR;
    if (dice_chance(dice, 100))
        client->flags |= ECHO_ABORT;
    // Through the narrowest pipes little goes in a lifetime.
    uint32_t most =
        sim_knobs()->pipe_max < PAYLOAD_MAX / 256 ? sim_knobs()->pipe_max * 256 : PAYLOAD_MAX;
    client->length = dice_chance(dice, 50) ? 0 : dice_skewed(dice, most);
    client->limit = dice_chance(dice, 200) ? dice_below(dice, client->length + 1) : client->length;
    client->write_most = dice_skewed(dice, 4096);
    client->read_most = dice_skewed(dice, 4096);
    uint32_t pieces = client->length / (client->write_most < client->read_most ? client->write_most
                                                                               : client->read_most);
    client->pause_per_mille = dice_chance(dice, 500) ? 0 : pieces > 30 ? 30000 / pieces : 1000;
    if (dice_chance(dice, world.silent ? 600 : 250)) {
        client->leaving = dice_chance(dice, 500) ? LEAVES_BY_CLOSE : LEAVES_BY_RESET;
        client->leave_at = dice_below(dice, ECHO_HEADER + 2 * client->length + ANSWER_EXTRA);
    }
    if (dice_chance(dice, world.silent ? 100 : 500))
        client->half_closes = dice_chance(dice, 500);
    else
        client->flags |= ECHO_WATCH;
    if (world.silent && dice_chance(dice, 500))
        client->flags |= ECHO_RELAY | ECHO_MULTISHOT;
    sim_after(dice_below(dice, 3000) * 1000000ull, client_dials, client);
}

// ------------------------------------------------------------------------------------- the mirror

static void mirror_changed(struct sim_end *end, void *owner)
{
    struct mirror *mirror = owner;
    if (sim_ended(end) || (sim_status(end) == SIM_RESET && sim_readable(end) == 0)) {
        sim_close(end);
        return;
    }
    if (mirror->silent)
        return;
    for (;;) {
        size_t got = sim_read(end, mirror->bytes + mirror->len, sizeof mirror->bytes - mirror->len);
        mirror->len += (uint32_t)got;
        size_t taken = sim_write(end, mirror->bytes, mirror->len);
        mirror->len -= (uint32_t)taken;
        memmove(mirror->bytes, mirror->bytes + taken, mirror->len);
        if (got == 0 && taken == 0)
            return;
    }
}

static void mirror_accepts(struct sim_end *end, void *owner)
{
    CHECK(world.mirror_count < OUTCOMES_MAX);
    struct mirror *mirror = heap_alloc(sizeof *mirror);
    world.mirrors[world.mirror_count++] = mirror;
    mirror->end = end;
    mirror->silent = world.silent && dice_chance(sim_dice(), 600);
    sim_own(end, mirror_changed, mirror);
}

// ----------------------------------------------------------------------------------------- probes

static void probe_set(struct core *core, struct probe *probe)
{
    static const uint32_t reach[] = {2, 70, 5000, 300000, 20000000};
    uint32_t most = reach[core_random(core) % 5];
    probe->stalled_ns = sim_stalled_ns();
    uint64_t ahead_ms = core_random(core) % most;
    probe->past = ahead_ms == 0;
    timer_set(&core->wheel, &probe->timer, core->now_ms + ahead_ms);
}

static void probe_check(const struct probe *probe, uint64_t now_ns)
{
    uint64_t due_ns = probe->timer.at_ms * 1000000u;
    uint64_t allowed_ns = (probe->past ? 1000000u : 0) + sim_stalled_ns() - probe->stalled_ns;
    if (now_ns > due_ns && now_ns - due_ns > allowed_ns)
        sim_violation("a timer is %.3f ms late, allowed are %.3f", (double)(now_ns - due_ns) / 1e6,
                      (double)allowed_ns / 1e6);
}

static void probe_fires(struct core *core, struct timer *timer)
{
    struct probe *probe = LIST_OWNER(timer, struct probe, timer);
    counts[COUNT_timer_fired]++;
    if (core->now_ms < timer->at_ms)
        sim_violation("a timer is %llu ms early",
                      (unsigned long long)(timer->at_ms - core->now_ms));
    probe_check(probe, core->now_ns);
    if (probe->left-- > 0)
        probe_set(core, probe);
}

// ----------------------------------------------------------------------------------------- judging

static void check_pool(const struct buf_pool *pool, uint32_t references)
{
    buf_pool_check(pool);
    uint32_t held = 0;
    for (uint32_t i = 0; i < pool->count; i++)
        held += pool->bufs[i].refs;
    if (held != references)
        sim_violation("%u references on buffers of kind %d, %u in output queues", held, pool->kind,
                      references);
}

static void check_conn(const struct core *core, const struct conn *conn)
{
    if (!timer_armed(&conn->timer) || conn->timer.at_ms > conn->deadline_ms)
        sim_violation("a connection without a deadline (invariant 16)");
    if (conn->starved && (conn->receive_armed || conn->state == CONN_CLOSING))
        sim_violation("a connection starves and receives");
    if (conn->receive_armed + conn->send_armed + conn->watching > conn->in_flight)
        sim_violation("more is armed on a connection than is in flight");
}

// After each step: everything is somewhere, once.
static void check_core(const struct core *core)
{
    uint32_t used = 0, segments = 0, receive = 0, write = 0;
    for (uint32_t i = 0; i < core->conns.untouched; i++) {
        const struct conn *conn = slab_at(&core->conns, i);
        if (conn->state == CONN_FREE)
            continue;
        used++;
        check_conn(core, conn);
        uint32_t bytes = 0, count = 0;
        write += conn->gathered != NULL;
        for (const struct segment *s = conn->out_first; s; s = s->next, count++) {
            bytes += s->len;
            receive += s->buf && s->buf->pool == &core->receive;
            write += s->buf && s->buf->pool == &core->write;
        }
        if (bytes != conn->out_bytes || count != conn->out_segments)
            sim_violation("output queue: %u bytes in %u segments, counted %u in %u", bytes, count,
                          conn->out_bytes, conn->out_segments);
        segments += count;
    }
    if (used != core->conns.used || used != core->conn_count)
        sim_violation("%u connections, slab says %u, core %u", used, core->conns.used,
                      core->conn_count);
    if (segments != core->segments.used)
        sim_violation("%u segments queued, %u taken", segments, core->segments.used);
    check_pool(&core->receive, receive);
    check_pool(&core->write, write);
    if (sim_ring_buffers(core->io) != core->receive.in_ring)
        sim_violation("%u buffers in the ring, the pool says %u", sim_ring_buffers(core->io),
                      core->receive.in_ring);
    if (sim_outstanding(core->io) != core->operations)
        sim_violation("%u operations outstanding, the core says %u", sim_outstanding(core->io),
                      core->operations);
}

static void check_world(void)
{
    for (uint32_t i = 0; i < world.server_count; i++)
        check_core(&world.server[i].core);
}

// Where some connection may hang, it pins buffers that others starve for.
static bool may_expire(void)
{
    return world.silent || world.far || sim_knobs()->connect_silent;
}

static void judge_client(const struct client *client)
{
    if (!client->end || sim_status(client->end) == SIM_REFUSED || client->left)
        return;
    if (sim_cut(client->end)) {
        counts[COUNT_client_cut]++;
        return;
    }
    uint32_t id = sim_end_id(client->end), all = ANSWER_EXTRA + client->limit;
    bool allowed = false;
    switch ((enum echo_outcome)world.outcomes[id]) {
    case ECHO_SERVED: allowed = client->got == all && client->ended; break;
    case ECHO_ABORTED: allowed = client->flags & ECHO_ABORT; break;
    case ECHO_SHED:
        allowed = world.counts.no_slot + world.counts.no_segment > 0 || sim_knobs()->socket_fails;
        break;
    case ECHO_UPSTREAM_LEFT: allowed = client->flags & ECHO_RELAY; break;
    case ECHO_EXPIRED: allowed = may_expire(); break;
    default: break;
    }
    if (!allowed)
        sim_violation("client %u (flags %u) got %u of %u bytes, end %d; the server says %d", id,
                      client->flags, client->got, all, client->ended, world.outcomes[id]);
}

// A client that left must be noticed at once, also while nothing is read from it.
static void judge_leaver(struct client *client)
{
    bool all_sent = client->sent == ECHO_HEADER + client->length;
    if (!client->left || client->judged || !(client->flags & ECHO_WATCH) || all_sent)
        return; // to the server a watch looks the same when all was said and a stream only ends
    uint64_t since_ns = sim_now_ns() - client->left_ns;
    if (since_ns < 2000000000u + sim_stalled_ns())
        return;
    client->judged = true;
    for (uint32_t i = 0; i < world.server_count; i++)
        if (world.server[i].core.starved_total > 0)
            return;
    uint32_t id = sim_end_id(client->end);
    counts[COUNT_left_seen_at_once]++;
    if (world.outcomes[id] == ECHO_OPEN)
        sim_violation("client %u left %.3f s ago, nobody noticed", id, (double)since_ns / 1e9);
}

// ----------------------------------------------------------------------------------------- a world

static struct sockaddr_in address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x7f000001)};
}

static void server_draw(struct echo_server *server, struct dice *dice)
{
    struct core_config config = {
        .ring_entries = 64,
        // Silent mirrors pin buffers: to see anything else there must be more.
        .receive_buffers = 1u << (world.silent ? 8 : dice_below(dice, 7)),
        .receive_size = 8 * dice_between(dice, 2, 256),
        .write_buffers = dice_between(dice, 1, 8),
        .write_size = 64,
        .large_buffers = 1,
        .large_size = 64,
        .connections = dice_chance(dice, 300) ? dice_between(dice, 2, 8) : 64,
        .conn_size = echo_session_size(),
        .segments = dice_chance(dice, 300) ? dice_between(dice, 8, 64) : 2048,
        .seed = dice_next(dice),
    };
    echo_server_open(server, &config);
    server->window = dice_skewed(dice, world.silent ? 1 << 9 : 1 << 14);
    server->expire_ms = EXPIRE_MS;
    server->outcomes = world.outcomes;
    server->outcome_count = OUTCOMES_MAX;
    server->counts = &world.counts;
    memcpy(&server->mirror[0], &world.mirror_at, sizeof world.mirror_at);
    memcpy(&server->mirror[1], &world.echo_at, sizeof world.echo_at);
    server->mirror_len[0] = server->mirror_len[1] = sizeof world.echo_at;
    sim_core_add(&server->core);
}

static void server_stops_listening(void *owner)
{
    struct echo_server *server = owner;
    core_listen_stop(&server->core);
}

static void world_open(uint64_t seed)
{
    struct dice dice;
    dice_seed(&dice, seed, 3);
    memset(&world, 0, sizeof world);
    world.echo_at = address(7);
    world.mirror_at = address(8);
    world.silent = dice_chance(&dice, 300);
    world.far = dice_chance(&dice, 200);
    world.server_count = dice_between(&dice, 1, CORES_MAX);
    for (uint32_t i = 0; i < world.server_count; i++) {
        struct echo_server *server = &world.server[i];
        server_draw(server, &dice);
        CHECK(echo_server_listen(server, (struct sockaddr *)&world.echo_at, sizeof world.echo_at,
                                 dice_between(&dice, 1, 16)) == 0);
        if (dice_chance(&dice, 50))
            sim_after(dice_below(&dice, 4000) * 1000000ull, server_stops_listening, server);
        for (uint32_t p = 0; p < PROBES; p++) {
            world.probe[i][p].left = dice_below(&dice, 50);
            timer_init(&world.probe[i][p].timer, probe_fires);
            probe_set(&server->core, &world.probe[i][p]);
        }
    }
    sim_listen((struct sockaddr *)&world.mirror_at, sizeof world.mirror_at, mirror_accepts, NULL);
    world.client_count = dice_skewed(&dice, CLIENTS_MAX);
    for (uint32_t i = 0; i < world.client_count; i++)
        client_draw(&world.client[i], seed, i);
}

static bool clients_done(void)
{
    bool done = true;
    for (uint32_t i = 0; i < world.client_count; i++) {
        judge_leaver(&world.client[i]);
        done &= world.client[i].done;
    }
    return done;
}

static bool servers_quiet(void)
{
    for (uint32_t i = 0; i < world.server_count; i++)
        if (world.server[i].core.conn_count > 0 || world.server[i].core.operations > 0)
            return false;
    return true;
}

static void run_until(bool (*done)(void), uint64_t most_ms, const char *what)
{
    uint64_t end_ns = sim_now_ns() + most_ms * 1000000u;
    while (!done()) {
        if (!sim_step())
            sim_violation("%s: nothing will ever happen again", what);
        if (sim_now_ns() > end_ns)
            sim_violation("%s: not after %llu virtual ms", what, (unsigned long long)most_ms);
        check_world();
    }
}

static void world_close(void)
{
    for (uint32_t i = 0; i < world.server_count; i++) {
        struct core *core = &world.server[i].core;
        counts[COUNT_starved] += core->starved_total;
        for (uint32_t p = 0; p < PROBES; p++) {
            if (timer_armed(&world.probe[i][p].timer))
                probe_check(&world.probe[i][p], sim_now_ns());
            timer_cancel(&world.probe[i][p].timer);
        }
        if (core->starved_count != 0 || core->conns.used != 0 || core->segments.used != 0)
            sim_violation("core %u is not empty at the end", i);
        if (buf_available(&core->receive) != core->receive.count)
            sim_violation("core %u lost receive buffers", i);
        sim_core_remove(core);
        core_close(core);
    }
    for (uint32_t i = 0; i < world.mirror_count; i++)
        heap_free(world.mirrors[i]);
}

static void count_world(void)
{
    counts[COUNT_served] += world.counts.served;
    counts[COUNT_no_slot] += world.counts.no_slot;
    counts[COUNT_no_segment] += world.counts.no_segment;
    counts[COUNT_no_write_buffer] += world.counts.no_write_buffer;
    counts[COUNT_paused] += world.counts.paused;
    counts[COUNT_watched] += world.counts.watched;
    counts[COUNT_lingered] += world.counts.lingered;
    counts[COUNT_relayed] += world.counts.relayed;
    static const unsigned by_outcome[] = {
        [ECHO_SERVED] = COUNT_served,   [ECHO_SHED] = COUNT_shed,
        [ECHO_ABORTED] = COUNT_aborted, [ECHO_CLIENT_LEFT] = COUNT_client_left,
        [ECHO_EXPIRED] = COUNT_expired, [ECHO_UPSTREAM_LEFT] = COUNT_upstream_left,
    };
    for (uint32_t i = 0; i < OUTCOMES_MAX; i++) {
        if (world.outcomes[i] == ECHO_OPEN)
            sim_violation("the server never said how connection %u ended", i);
        if (world.outcomes[i] != ECHO_NONE)
            counts[by_outcome[world.outcomes[i]]]++;
    }
}

static uint64_t run(uint64_t seed, bool trace)
{
    sim_begin(seed, NULL, trace);
    world_open(seed);
    run_until(clients_done, WORLD_MS_MAX, "clients served");
    for (uint32_t i = 0; i < world.server_count; i++)
        core_listen_stop(&world.server[i].core);
    run_until(servers_quiet, DRAIN_MS_MAX, "connections closed");
    for (uint32_t i = 0; i < world.client_count; i++)
        judge_client(&world.client[i]);
    count_world();
    world_close();
    uint64_t hash = sim_hash();
    sim_end();
    return hash;
}

int main(int argc, char **argv)
{
    const struct sweep sweep = {
        .name = "echo",
        .proves = "an echo server on the generic layer keeps every law under the adversary",
        .run = run,
        .situation_count = COUNTS,
        .situation_names = count_names,
        .counts = &counts,
    };
    return sweep_main(argc, argv, &sweep);
}
