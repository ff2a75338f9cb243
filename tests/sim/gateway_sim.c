// SPDX-License-Identifier: MIT
//
// Proves that the gateway keeps its laws under the adversary: every answer is exactly the
// provider's, or a prefix of it that ends as a failure; a request is acted on once; a client that
// leaves takes its upstream with it; requests = answered + aborted + shed, with one log line each;
// and after every step every buffer, segment, connection, flight and operation is where the books
// say.
//
// A world: one to three cores with a gateway each on one address, three scripted providers (one
// with two addresses), and clients. The parties and their bytes are in play.h.
//
// Three tempers: in a calm world nothing may fail at all; in a faulty one peers misbehave, and what
// was not touched by that must succeed; in a harsh one anything goes, and only the laws must hold.
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/client.h"
#include "engine/flight.h"
#include "engine/gateway.h"
#include "engine/upstream.h"
#include "engine/trust.h"
#include "tests/sim/play.h"
#include "tests/sim/sweep.h"

enum {
    CORES_MAX = 3,
    VISITORS_MAX = 20,
    WORLD_MS_MAX = 60 * 60 * 1000,
    DRAIN_MS_MAX = 15 * 60 * 1000,
    PORT = 8080,
};

#define GATEWAY_CENSUS(X)                                                                          \
    X(calm_world)                                                                                  \
    X(faulty_world)                                                                                \
    X(harsh_world)                                                                                 \
    X(starved)                                                                                     \
    X(replayed)                                                                                    \
    X(client_gone)                                                                                 \
    X(connection_shed)                                                                             \
    X(request_shed)                                                                                \
    X(waited_for_connection)                                                                       \
    X(paused_for_slow_client)                                                                      \
    X(paused_for_slow_provider)                                                                    \
    X(watched_while_full)                                                                          \
    X(drained_with_requests)                                                                       \
    X(aborted_with_requests)                                                                       \
    X(upstream_connect_failed)                                                                     \
    X(upstream_reset)                                                                              \
    X(upstream_protocol_error)                                                                     \
    X(upstream_truncated)                                                                          \
    X(upstream_connections_exhausted)                                                              \
    X(timeout_connect)                                                                             \
    X(timeout_first_byte)                                                                          \
    X(timeout_idle)                                                                                \
    X(timeout_total)                                                                               \
    X(request_timeout)                                                                             \
    X(overload_memory)

enum {
    GATEWAY_SITUATIONS = PLAY_SITUATIONS - 1, // the next ones are counted behind those of the play
#define X(name) COUNT_##name,
    GATEWAY_CENSUS(X)
#undef X
        COUNTS
};

static const char *const count_names[] = {
#define X(name) #name,
    PLAY_CENSUS(X) GATEWAY_CENSUS(X)
#undef X
};

uint64_t *play_counts;

void play_count(enum play_situation situation)
{
    play_counts[situation]++;
}

struct world {
    struct play play;
    struct config *config;
    struct core core[CORES_MAX];
    struct gateway gateway[CORES_MAX];
    uint32_t core_count;
    struct visitor visitor[VISITORS_MAX];
    uint32_t visitor_count;
    struct sockaddr_in gateway_at, provider_at[PLAY_PROVIDERS], dead_at;
    uint64_t log_lines;
    bool ended; // drain or abort was asked for
};

static const struct trust plaintext; // no TLS in here: proto/tls has tests of its own

static struct world world;

// ----------------------------------------------------------------------------------------- config

static struct sockaddr_in address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x7f000001)};
}

static void model_add(struct config *config, const char *name, unsigned targets,
                      const uint16_t *providers, const char *const *names)
{
    struct config_model *model = &config->model[config->model_count++];
    model->name = heap_copy(name);
    for (unsigned i = 0; i < targets; i++)
        model->target[model->target_count++] = (struct config_target){
            .provider = providers[i], .model = heap_copy(names[i]), .weight = 1};
}

// As the play knows them (exchange.c), sorted by name.
static void models_add(struct config *config)
{
    config->model = heap_alloc(4 * sizeof *config->model);
    model_add(config, "m-beta", 1, (uint16_t[]){1}, (const char *[]){"claude-x"});
    model_add(config, "m-both", 2, (uint16_t[]){0, 2},
              (const char *[]){"m-both", "a \"quoted\" name"});
    model_add(config, "m-one", 1, (uint16_t[]){0}, (const char *[]){"up-one"});
}

static void limits_draw(struct config *config, struct dice *dice, enum temper temper)
{
    bool harsh = temper == TEMPER_HARSH;
    // In a calm world waiting is no failure.
    bool few = harsh || (temper == TEMPER_CALM && dice_chance(dice, 300));
    config->buffer_size =
        dice_chance(dice, 500) ? 4096 : 8 * dice_between(dice, harsh ? 32 : 64, 256);
    config->buffers = harsh ? 16u << dice_below(dice, 4) : 1024;
    config->window_bytes = config->buffer_size * dice_skewed(dice, 8);
    config->peek_bytes = 1 << 15;
    config->ring_entries = 64;
    config->max_connections = harsh && dice_chance(dice, 300) ? dice_between(dice, 1, 8) : 64;
    config->upstream_connections = few ? dice_skewed(dice, 16) : 64;
    config->upstream_idle = dice_chance(dice, 300) ? dice_below(dice, 3) : 100;
    config->pending_max = harsh && dice_chance(dice, 300) ? dice_below(dice, 3) : 1024;
    config->listen_backlog = 64;
    config->via = dice_chance(dice, 500);
    config->log_format = dice_chance(dice, 500) ? LOG_JSON : LOG_TEXT;
}

static void timeouts_draw(struct config *config, struct dice *dice, enum temper temper)
{
    if (temper == TEMPER_CALM) // nobody is ever out of time, however narrow the pipes
        config->timeout_connect_ms = config->timeout_first_byte_ms = config->timeout_idle_ms =
            config->timeout_head_ms = config->timeout_body_ms = config->timeout_keepalive_ms =
                config->timeout_upstream_idle_ms = 10 * 60 * 1000;
    if (temper == TEMPER_CALM)
        return;
    uint32_t scale = temper == TEMPER_HARSH ? 1 : 20;
    config->timeout_connect_ms = scale * dice_between(dice, 1000, 6000);
    config->timeout_first_byte_ms = scale * dice_between(dice, 2000, 10000);
    config->timeout_idle_ms = scale * dice_between(dice, 2000, 10000);
    config->timeout_head_ms = scale * dice_between(dice, 2000, 10000);
    config->timeout_body_ms = scale * dice_between(dice, 2000, 10000);
    config->timeout_keepalive_ms = scale * dice_between(dice, 500, 5000);
    config->timeout_upstream_idle_ms = dice_between(dice, 200, 5000);
    if (temper == TEMPER_HARSH && dice_chance(dice, 200))
        config->timeout_total_ms = dice_between(dice, 1000, 20000);
}

static void config_make(struct dice *dice, enum temper temper)
{
    // clang-format off
    static char *const arguments[] = {
        "tokenring", "--listen", "127.0.0.1:8080", "--workers", "1", "--cpus", "none",
        "-p", "alpha=openai+http://127.0.0.1:9001/v1",
        "-p", "beta=anthropic+http://127.0.0.1:9002",
        "-p", "gamma=openai+http://127.0.0.1:9003/v1",
        "--default-provider", "alpha", NULL};
    // clang-format on
    static char *const environment[] = {NULL};
    char error[512];
    struct config *config = config_load(sizeof arguments / sizeof *arguments - 1, arguments,
                                        environment, true, error, sizeof error);
    if (!config)
        sim_violation("%s", error);
    models_add(config);
    limits_draw(config, dice, temper);
    timeouts_draw(config, dice, temper);
    // A provider whose first address is dead, so that the second is tried.
    struct config_provider *gamma = &config->provider[2];
    if (temper != TEMPER_CALM && dice_chance(dice, 300)) {
        gamma->address[1] = gamma->address[0];
        memcpy(&gamma->address[0].addr, &world.dead_at, sizeof world.dead_at);
        gamma->address_count = 2;
    }
    world.config = config;
}

// ------------------------------------------------------------------------------------- the books

static uint32_t count_list(const struct list *head)
{
    uint32_t count = 0;
    for (const struct list *node = head->next; node != head; node = node->next)
        count++;
    return count;
}

static void agree(const char *what, uint64_t counted, uint64_t booked)
{
    if (counted != booked)
        sim_violation("%s: counted %llu, booked %llu", what, (unsigned long long)counted,
                      (unsigned long long)booked);
}

static uint64_t pool_references(const struct buf_pool *pool)
{
    uint64_t sum = 0;
    buf_pool_check(pool);
    for (uint32_t i = 0; i < pool->count; i++)
        sum += pool->bufs[i].refs;
    return sum;
}

struct sums {
    uint64_t segments, references;
};

static void sum_segments(struct sums *sums, const struct segment *segment)
{
    for (; segment; segment = segment->next) {
        sums->segments++;
        sums->references += segment->buf != NULL;
    }
}

static uint32_t count_pins(const struct conn *conn)
{
    uint32_t pins = 0;
    for (const struct segment *segment = conn->out_first; segment; segment = segment->next)
        pins += segment->pins;
    return pins;
}

static void sum_input(struct sums *sums, const struct input *input)
{
    for (const struct buf *buf = input->buf; buf; buf = buf->next)
        sums->references++;
}

static void check_conns(const struct core *core, struct sums *sums)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < core->conns.untouched; i++) {
        const struct conn *conn = slab_at(&core->conns, i);
        if (conn->state == CONN_FREE)
            continue;
        used++;
        sum_segments(sums, conn->out_first);
        sums->references += conn->gathered != NULL;
        agree("buffers held by a connection's output", count_pins(conn), conn->out_buffers);
        if (!timer_armed(&conn->timer))
            sim_violation("a connection without a deadline (invariant 16)");
    }
    agree("connections", used, core->conns.used);
    agree("connections of the core", used, core->conn_count);
    agree("operations", sim_outstanding(core->io), core->operations);
    agree("buffers in the ring", sim_ring_buffers(core->io), core->receive.in_ring);
    agree("starved connections", count_list(&core->starved), core->starved_count);
}

static void check_flights(const struct gateway *g, struct sums *sums)
{
    uint32_t used = 0, peeked = 0, waiting = 0;
    for (uint32_t i = 0; i < g->flights.untouched; i++) {
        const struct flight *flight = slab_at(&g->flights, i);
        if (flight->state == FLIGHT_DONE)
            continue;
        used++;
        sum_segments(sums, flight->request_first);
        sum_input(sums, &flight->input);
        sums->references += (flight->head_buf != NULL) + (flight->trailer != NULL);
        peeked += flight->state == FLIGHT_PEEK ? flight->request_buffers : 0;
        waiting += !list_empty(&flight->waiting);
        if (!flight->client || flight->client->flight != flight)
            sim_violation("a flight without a client (invariant 12)");
        if (flight->upstream && flight->upstream->flight != flight)
            sim_violation("an upstream that does not know its flight");
    }
    agree("flights", used, g->flights.used);
    agree("buffers held by requests that are looked at", peeked, g->peek_held);
    uint32_t endpoints = 0;
    for (uint32_t i = 0; i < g->config->provider_count; i++) {
        const struct endpoint *endpoint = &g->endpoint[i];
        agree("idle connections", count_list(&endpoint->idle), endpoint->idle_count);
        agree("waiting flights", count_list(&endpoint->waiting), endpoint->waiting_count);
        endpoints += endpoint->waiting_count;
        if (endpoint->open > g->config->upstream_connections)
            sim_violation("%u connections to a provider, allowed are %u", endpoint->open,
                          g->config->upstream_connections);
    }
    agree("flights in line", waiting, endpoints);
}

static void check_clients(const struct gateway *g, struct sums *sums)
{
    uint32_t count = 0;
    for (const struct list *node = g->clients.next; node != &g->clients; node = node->next) {
        const struct client *client = LIST_OWNER(node, struct client, all);
        sum_input(sums, &client->input);
        count++;
        play_counts[COUNT_watched_while_full] += client->conn.watching;
        if (!client->flight)
            continue;
        const struct flight *flight = client->flight;
        play_counts[COUNT_paused_for_slow_client] += flight->paused;
        play_counts[COUNT_waited_for_connection] += !list_empty(&flight->waiting);
        play_counts[COUNT_paused_for_slow_provider] += client->state == CLIENT_BODY &&
                                                       !client->conn.receive_armed &&
                                                       client->conn.state == CONN_OPEN;
    }
    agree("clients", count, g->client_count);
}

static void check_metrics(const struct gateway *g)
{
    const struct metrics *m = &g->metrics;
    agree("requests",
          count_get(&m->answered) + count_get(&m->aborted) + count_get(&m->shed) + g->flights.used,
          count_get(&m->requests));
}

static void check_core(const struct core *core, const struct gateway *g)
{
    struct sums sums = {0};
    check_conns(core, &sums);
    check_flights(g, &sums);
    check_clients(g, &sums);
    check_metrics(g);
    agree("segments", sums.segments, core->segments.used);
    agree("references on buffers", sums.references,
          pool_references(&core->receive) + pool_references(&core->write) +
              pool_references(&core->large));
}

static void check_world(void)
{
    for (uint32_t i = 0; i < world.core_count; i++)
        check_core(&world.core[i], &world.gateway[i]);
}

// ------------------------------------------------------------------------------------- open, close

static void log_line(const char *line, size_t len)
{
    // An access line quotes the request, or is JSON with a method; others of our lines do neither.
    static const char marks[][12] = {" \"", "\"method\":"};
    world.log_lines += memmem(line, len, marks[0], strlen(marks[0])) != NULL ||
                       memmem(line, len, marks[1], strlen(marks[1])) != NULL;
}

static bool any_starved(void)
{
    for (uint32_t i = 0; i < world.core_count; i++)
        if (world.core[i].starved_total > 0)
            return true;
    return false;
}

// What control does for a worker: open its sockets, and tell it of them.
static void gateway_make(uint32_t number)
{
    struct core *core = &world.core[number];
    struct gateway_update update = {.config = world.config, .trust = &plaintext};
    for (uint32_t i = 0; i < world.config->listener_count; i++) {
        const struct config_address *address = &world.config->listener[i];
        update.opened[update.opened_count].tag = i;
        update.opened[update.opened_count++].fd =
            io_listen(core->io, &address->addr.any, address->len, world.config->listen_backlog);
    }
    gateway_open(&world.gateway[number], core, &update);
}

static void core_make(uint32_t number, struct dice *dice)
{
    struct core *core = &world.core[number];
    struct core_config config;
    char error[256];
    gateway_core_config(&config, world.config);
    config.write_buffers = world.play.temper == TEMPER_HARSH ? dice_between(dice, 8, 64) : 512;
    config.large_buffers = world.play.temper == TEMPER_HARSH ? dice_between(dice, 1, 8) : 32;
    if (world.play.temper == TEMPER_HARSH && dice_chance(dice, 200))
        config.segments = dice_between(dice, 32, 256);
    config.seed = dice_next(dice);
    CHECK(core_open(core, &config, error, sizeof error));
    core->log.fd = SIM_LOG_FD + (int)number;
    gateway_make(number);
    sim_core_add(core);
}

// In a calm world a drain lets finish what providers have begun.
static void drain_promises(struct play *play)
{
    for (uint32_t i = 0; i < play->exchange_count; i++) {
        struct exchange *exchange = &play->exchange[i];
        exchange->must_finish = play->temper == TEMPER_CALM && exchange->delivered &&
                                exchange->result == RESULT_NONE && !exchange->left;
    }
}

static void end_asked(void *owner)
{
    if (world.ended)
        return;
    bool abort = owner != NULL;
    if (!abort)
        drain_promises(&world.play);
    world.ended = world.play.stopped = true;
    for (uint32_t i = 0; i < world.core_count; i++) {
        if (world.gateway[i].flights.used > 0)
            play_counts[abort ? COUNT_aborted_with_requests : COUNT_drained_with_requests]++;
        core_post(&world.core[i], abort ? GATEWAY_POST_ABORT : GATEWAY_POST_DRAIN);
    }
}

static void world_open(uint64_t seed, enum temper temper)
{
    struct dice dice;
    dice_seed(&dice, seed, 3);
    memset(&world, 0, sizeof world);
    struct play *play = &world.play;
    world.gateway_at = address(PORT);
    world.dead_at = address(9999);
    play->temper = temper;
    play->idle_closes = temper != TEMPER_CALM && dice_chance(&dice, 300);
    play->starved = any_starved;
    memcpy(&play->gateway_at, &world.gateway_at, sizeof world.gateway_at);
    play->gateway_len = sizeof world.gateway_at;
    dice_seed(&play->dice, seed, 4);
    sim_log_to(log_line);
    for (int i = 0; i < PLAY_PROVIDERS; i++) {
        world.provider_at[i] = address((uint16_t)(9001 + i));
        backend_listen(play, i, (struct sockaddr *)&world.provider_at[i],
                       sizeof world.provider_at[i]);
    }
    config_make(&dice, temper);
    world.core_count = dice_chance(&dice, 600) ? 1 : dice_between(&dice, 2, CORES_MAX);
    for (uint32_t i = 0; i < world.core_count; i++)
        core_make(i, &dice);
    world.visitor_count = dice_skewed(&dice, VISITORS_MAX);
    for (uint32_t i = 0; i < world.visitor_count; i++)
        visitor_start(&world.visitor[i], play, i);
    if (dice_chance(&dice, 150))
        sim_after(dice_below(&dice, 6000) * 1000000ull, end_asked,
                  dice_chance(&dice, 400) ? &world : NULL);
    play_counts[temper == TEMPER_CALM     ? COUNT_calm_world
                : temper == TEMPER_FAULTY ? COUNT_faulty_world
                                          : COUNT_harsh_world]++;
}

static void world_count(const struct core *core, const struct gateway *g)
{
    static const struct {
        unsigned count;
        enum reply_error error;
    } errors[] = {
        {COUNT_upstream_connect_failed, REPLY_UPSTREAM_CONNECT},
        {COUNT_upstream_reset, REPLY_UPSTREAM_RESET},
        {COUNT_upstream_protocol_error, REPLY_UPSTREAM_PROTOCOL},
        {COUNT_upstream_truncated, REPLY_UPSTREAM_TRUNCATED},
        {COUNT_upstream_connections_exhausted, REPLY_UPSTREAM_BUSY},
        {COUNT_timeout_connect, REPLY_TIMEOUT_CONNECT},
        {COUNT_timeout_first_byte, REPLY_TIMEOUT_FIRST_BYTE},
        {COUNT_timeout_idle, REPLY_TIMEOUT_IDLE},
        {COUNT_timeout_total, REPLY_TIMEOUT_TOTAL},
        {COUNT_request_timeout, REPLY_CLIENT_TIMEOUT},
        {COUNT_overload_memory, REPLY_OVERLOAD_MEMORY},
    };
    const struct metrics *m = &g->metrics;
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        play_counts[errors[i].count] += count_get(&m->errors[errors[i].error]);
    play_counts[COUNT_starved] += core->starved_total;
    play_counts[COUNT_replayed] += count_get(&m->retries);
    play_counts[COUNT_client_gone] += count_get(&m->clients_gone);
    play_counts[COUNT_connection_shed] += count_get(&m->connections_shed);
    play_counts[COUNT_request_shed] += count_get(&m->shed);
}

static void play_close_parties(struct play *play)
{
    for (uint32_t i = 0; i < play->backend_count; i++) {
        message_free(&play->backend[i]->request);
        heap_free(play->backend[i]);
    }
    for (uint32_t i = 0; i < play->exchange_count; i++)
        exchange_free(&play->exchange[i]);
    for (uint32_t i = 0; i < world.visitor_count; i++)
        visitor_free(&world.visitor[i]);
}

static void world_close(void)
{
    uint64_t requests = 0, dropped = 0;
    for (uint32_t i = 0; i < world.core_count; i++) {
        struct core *core = &world.core[i];
        struct gateway *g = &world.gateway[i];
        check_core(core, g);
        world_count(core, g);
        agree("receive buffers at the end", buf_available(&core->receive), core->receive.count);
        agree("small buffers at the end", core->write.free, core->write.count);
        agree("large buffers at the end", core->large.free, core->large.count);
        agree("segments at the end", core->segments.used, 0);
        for (int p = 0; p < PLAY_PROVIDERS; p++)
            agree("connections to providers at the end", g->endpoint[p].open, 0);
        requests += count_get(&g->metrics.requests);
        dropped += core->log.dropped;
        sim_log_rest(core);
        sim_core_remove(core);
        gateway_close(g);
        core_close(core);
    }
    agree("log lines", world.log_lines + dropped, requests);
    for (uint32_t i = 0; i < world.play.backend_count; i++)
        if (!world.play.backend[i]->over && !sim_hung_up(world.play.backend[i]->end))
            sim_violation("a connection to a provider was left open");
    play_close_parties(&world.play);
    config_free(world.config);
}

// -------------------------------------------------------------------------------------------- run

static bool visitors_done(void)
{
    for (uint32_t i = 0; i < world.visitor_count; i++)
        if (!world.visitor[i].done)
            return false;
    return true;
}

static bool gateways_quiet(void)
{
    for (uint32_t i = 0; i < world.core_count; i++)
        if (!world.core[i].stopping || world.core[i].conn_count || world.core[i].operations)
            return false;
    return true;
}

static void run_until(bool (*done)(void), uint64_t most_ms, const char *what)
{
    uint64_t end_ns = sim_now_ns() + most_ms * 1000000u;
    for (unsigned steps = 0; !done(); steps++) {
        if (!sim_step())
            sim_violation("%s: nothing will ever happen again", what);
        if (sim_now_ns() > end_ns)
            sim_violation("%s: not after %llu virtual ms", what, (unsigned long long)most_ms);
        if (steps % 8 == 0)
            check_world();
    }
}

static void knobs_temper(struct sim_knobs *knobs, enum temper temper)
{
    if (temper == TEMPER_HARSH)
        return;
    knobs->reset = knobs->connect_refused = knobs->connect_silent = 0;
    knobs->accept_fails = knobs->socket_fails = 0;
    // Nobody dribbles: each receive takes a whole buffer, and a body in pieces of a byte or two
    // takes them all. That is the overload it looks like, and belongs to harsh worlds.
    knobs->short_receive = knobs->short_receive > 200 ? 200 : knobs->short_receive;
    knobs->pipe_min += 2048;
    knobs->pipe_max += 2048;
}

static uint64_t run(uint64_t seed, bool trace)
{
    struct dice dice;
    struct sim_knobs knobs;
    dice_seed(&dice, seed, 6);
    enum temper temper = dice_chance(&dice, 250)   ? TEMPER_CALM
                         : dice_chance(&dice, 350) ? TEMPER_FAULTY
                                                   : TEMPER_HARSH;
    sim_knobs_draw(&knobs, seed);
    knobs_temper(&knobs, temper);
    sim_begin(seed, &knobs, trace);
    world_open(seed, temper);
    run_until(visitors_done, WORLD_MS_MAX, "clients served");
    end_asked(NULL);
    run_until(gateways_quiet, DRAIN_MS_MAX, "gateway drained");
    world_close();
    uint64_t hash = sim_hash();
    sim_end();
    return hash;
}

int main(int argc, char **argv)
{
    const struct sweep sweep = {
        .name = "sim",
        .proves = "the gateway keeps every law under the adversary",
        .run = run,
        .situation_count = COUNTS,
        .situation_names = count_names,
        .counts = &play_counts,
    };
    return sweep_main(argc, argv, &sweep);
}
