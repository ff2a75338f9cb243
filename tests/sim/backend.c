// SPDX-License-Identifier: MIT
//
// A provider's end of a connection: reads requests, checks every byte of them, and answers as the
// exchange says it is to.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "tests/sim/play.h"

struct place {
    struct play *play;
    int provider;
};

static struct place places[PLAY_PROVIDERS];

static void step(struct backend *backend);

// ------------------------------------------------------------------------------------------- ends

static bool lossy(const struct backend *backend)
{
    return sim_status(backend->end) == SIM_RESET || sim_readable(backend->end) > 0;
}

static void over(struct backend *backend)
{
    if (backend->over)
        return;
    backend->over = true;
    backend->lost |= lossy(backend);
    sim_close(backend->end);
    message_free(&backend->request);
}

static void over_by_reset(struct backend *backend)
{
    backend->over = backend->lost = true;
    sim_reset(backend->end);
    message_free(&backend->request);
}

// ---------------------------------------------------------------------------------------- pausing

static void pause_over(void *owner)
{
    struct backend *backend = owner;
    backend->pausing = false;
    step(backend);
}

static bool pauses(struct backend *backend)
{
    struct dice *dice = &backend->dice;
    if (!dice_chance(dice, 50))
        return false;
    backend->pausing = true;
    sim_after(dice_skewed(dice, 400) * 1000000ull, pause_over, backend);
    return true;
}

static void delay_over(void *owner)
{
    struct backend *backend = owner;
    backend->delaying = false;
    step(backend);
}

static void answer_begin(struct backend *backend)
{
    backend->answering = true;
    backend->answer_at = 0;
    uint32_t delay_ms = backend->exchange->delay_ms;
    if (delay_ms == 0)
        return;
    backend->delaying = true;
    sim_after(delay_ms * 1000000ull, delay_over, backend);
}

static void rest_over(void *owner)
{
    struct backend *backend = owner;
    if (backend->over || backend->exchange || sim_now_ns() < backend->rests_until_ns ||
        backend->ahead_len > 0)
        return; // it carried another request since
    play_count(PLAY_provider_closed_idle);
    if (sim_readable(backend->end) > 0)
        play_count(PLAY_connection_stale);
    over(backend);
}

// ---------------------------------------------------------------------------------------- reading

// A second delivery is lawful only where the first can have left no trace at the gateway.
static void delivery_judge(struct backend *backend, struct exchange *exchange)
{
    const struct backend *before = exchange->backend;
    if (++exchange->deliveries == 1)
        return;
    play_count(PLAY_delivered_twice);
    if (exchange->deliveries > 2)
        sim_violation("%s was delivered %u times", exchange->tag, exchange->deliveries);
    if (exchange->wrote > 0 && !before->lost)
        sim_violation("%s was delivered again after its answer had begun", exchange->tag);
    if (exchange->fresh)
        sim_violation("%s was sent again though its connection was fresh", exchange->tag);
    if (backend->requests > 1)
        sim_violation("%s was sent again on a connection that may be stale too", exchange->tag);
}

static void head_read(struct backend *backend)
{
    char tag[64], value[128];
    struct message *request = &backend->request;
    if (!message_field(request, "x-request-id", tag, sizeof tag))
        sim_violation("a provider got a request without an id");
    struct exchange *exchange = exchange_find(backend->play, tag);
    if (!exchange)
        sim_violation("a provider got the request \"%s\", which nobody made", tag);
    if (exchange->ask == ASK_BAD || exchange->ask == ASK_LOCAL)
        sim_violation("%s was forwarded", tag);
    if (!message_field(request, "host", value, sizeof value))
        sim_violation("%s: not one Host", tag);
    if (++backend->requests > 1)
        play_count(PLAY_connection_reused);
    delivery_judge(backend, exchange);
    exchange->backend = backend;
    exchange->delivered = exchange->answered = false;
    exchange->fresh = backend->requests == 1;
    exchange->wrote = 0;
    backend->exchange = exchange;
    backend->answer_at = 0;
    if (exchange->early) {
        play_count(PLAY_answer_early);
        answer_begin(backend);
    }
}

static void request_read(struct backend *backend)
{
    struct exchange *exchange = backend->exchange;
    const struct message *request = &backend->request;
    if (!exchange_body_right(exchange, backend->provider, request->body, request->body_len))
        sim_violation("%s: provider %d got a wrong body of %u bytes", exchange->tag,
                      backend->provider, request->body_len);
    if (exchange->model &&
        strcmp(exchange->model, exchange_model(exchange, backend->provider)) != 0)
        play_count(PLAY_model_renamed);
    exchange->delivered = true;
    sim_note("provider has it", exchange->number, backend->requests, 0);
    if (!backend->answering)
        answer_begin(backend);
}

static bool dies_reading(struct backend *backend)
{
    struct exchange *exchange = backend->exchange;
    if (!exchange || exchange->fate != FATE_GONE || !dice_chance(&backend->dice, 400))
        return false;
    play_count(PLAY_provider_reset_mid_request);
    over_by_reset(backend);
    return true;
}

// True: something was read.
static bool read_some(struct backend *backend)
{
    struct message *request = &backend->request;
    bool deaf = backend->silent && backend->exchange->deaf;
    if (request->state == MESSAGE_DONE || deaf)
        return false;
    uint32_t room = sizeof backend->ahead - backend->ahead_len;
    size_t got = 0;
    if (room > 0)
        got = sim_read(backend->end, backend->ahead + backend->ahead_len,
                       dice_skewed(&backend->dice, room));
    backend->ahead_len += (uint32_t)got;
    if (backend->ahead_len == 0)
        return false;
    size_t used = message_feed(request, backend->ahead, backend->ahead_len);
    if (request->state == MESSAGE_BAD)
        sim_violation("a provider got what is no request: %s", request->why);
    backend->ahead_len -= (uint32_t)used;
    memmove(backend->ahead, backend->ahead + used, backend->ahead_len);
    if (backend->ahead_len > 0 && !(backend->exchange && backend->exchange->answered))
        sim_violation("a request was sent before the last one was answered");
    if (request->state != MESSAGE_IN_HEAD && !backend->exchange)
        head_read(backend);
    if (dies_reading(backend))
        return false;
    if (request->state == MESSAGE_DONE)
        request_read(backend);
    return true;
}

// -------------------------------------------------------------------------------------- answering

static void next_request(struct backend *backend)
{
    struct play *play = backend->play;
    message_free(&backend->request);
    message_start(&backend->request, MESSAGE_REQUEST);
    backend->exchange = NULL;
    backend->answering = false;
    if (!play->idle_closes || !dice_chance(&backend->dice, 500))
        return;
    uint64_t rest_ns = dice_skewed(&backend->dice, 2000) * 1000000ull;
    backend->rests_until_ns = sim_now_ns() + rest_ns;
    sim_after(rest_ns, rest_over, backend);
}

static void chatter(struct backend *backend)
{
    play_count(PLAY_provider_chatter);
    backend->play->chattered = true;
    (void)sim_write(backend->end, "and another thing\r\n", 19);
}

static void answer_whole(struct backend *backend)
{
    struct exchange *exchange = backend->exchange;
    exchange->answered = true;
    sim_note("provider answered", exchange->number, 0, 0);
    if (exchange->chatter)
        chatter(backend);
    if (exchange->abandons) {
        play_count(PLAY_answer_early_abandoned);
        over(backend);
    } else if (!exchange->keep_alive && backend->request.state != MESSAGE_DONE) {
        sim_finish(backend->end); // the rest of the request is still read
    }
}

// Request read and answer written: on to the next, or the end.
static bool settle(struct backend *backend)
{
    const struct exchange *exchange = backend->exchange;
    if (!exchange || !exchange->answered || backend->request.state != MESSAGE_DONE)
        return false;
    if (exchange->keep_alive)
        next_request(backend);
    else
        over(backend);
    return true;
}

static void count_reset(const struct exchange *exchange)
{
    play_count(exchange->cut_at == 0                          ? PLAY_provider_reset_before_head
               : exchange->cut_at < exchange->answer_head_len ? PLAY_provider_reset_mid_head
                                                              : PLAY_provider_reset_mid_body);
}

// The answer has come to where its fate strikes. False: the connection is over.
static bool fate_strikes(struct backend *backend)
{
    struct exchange *exchange = backend->exchange;
    sim_note("fate", exchange->number, exchange->fate, exchange->cut_at);
    switch (exchange->fate) {
    case FATE_FINISH:
        play_count(PLAY_provider_finished_early);
        over(backend);
        return false;
    case FATE_RESET:
        count_reset(exchange);
        over_by_reset(backend);
        return false;
    case FATE_SILENT:
        play_count(PLAY_provider_silent);
        if (exchange->deaf && backend->request.state != MESSAGE_DONE)
            play_count(PLAY_provider_deaf);
        backend->silent = true;
        return true;
    default: CHECK(!"a fate that does not strike here");
    }
}

static bool struck(const struct exchange *exchange)
{
    return exchange->fate == FATE_FINISH || exchange->fate == FATE_RESET ||
           exchange->fate == FATE_SILENT;
}

// True: something was written, or the state changed.
static bool write_some(struct backend *backend)
{
    struct exchange *exchange = backend->exchange;
    if (!backend->answering || backend->delaying || backend->silent || exchange->answered)
        return false;
    uint32_t end = struck(exchange) ? exchange->cut_at : exchange->answer.len;
    if (backend->answer_at < end) {
        uint32_t len = dice_skewed(&backend->dice, end - backend->answer_at);
        size_t taken = sim_write(backend->end, exchange->answer.at + backend->answer_at, len);
        backend->answer_at += (uint32_t)taken;
        exchange->wrote = backend->answer_at;
        if (taken == 0)
            return false;
    }
    if (backend->answer_at < end)
        return true;
    if (struck(exchange))
        return fate_strikes(backend);
    if (exchange->fate == FATE_MALFORMED) { // and it waits for what the gateway will do
        play_count(PLAY_provider_malformed);
        backend->silent = true;
        return true;
    }
    answer_whole(backend);
    return true;
}

static void step(struct backend *backend)
{
    bool moved = true;
    while (moved && !backend->over && !backend->pausing) {
        moved = read_some(backend);
        if (!backend->over)
            moved |= write_some(backend);
        if (!backend->over)
            moved |= settle(backend);
        if (moved && !backend->over)
            pauses(backend);
    }
    if (backend->over || backend->pausing)
        return;
    bool reset = sim_status(backend->end) == SIM_RESET && sim_readable(backend->end) == 0;
    bool deaf = backend->silent && backend->exchange->deaf && sim_hung_up(backend->end);
    if (sim_ended(backend->end) || reset || deaf)
        over(backend);
}

static void changed(struct sim_end *end, void *owner)
{
    struct backend *backend = owner;
    if (!backend->over)
        step(backend);
}

static void accepted(struct sim_end *end, void *owner)
{
    struct place *place = owner;
    struct play *play = place->play;
    CHECK(play->backend_count < PLAY_BACKENDS_MAX);
    struct backend *backend = heap_alloc(sizeof *backend);
    play->backend[play->backend_count++] = backend;
    backend->play = play;
    backend->provider = place->provider;
    backend->end = end;
    dice_seed(&backend->dice, dice_next(&play->dice), 5);
    message_start(&backend->request, MESSAGE_REQUEST);
    sim_own(end, changed, backend);
}

void backend_listen(struct play *play, int provider, const struct sockaddr *addr, socklen_t len)
{
    places[provider] = (struct place){play, provider};
    sim_listen(addr, len, accepted, &places[provider]);
}
