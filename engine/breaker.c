// SPDX-License-Identifier: MIT
#include "engine/breaker.h"

#include <string.h>

#include "alloc/check.h"

const struct breaker_config breaker_config_default = {
    .window_ms = 10 * 1000,
    .min_requests = 20,
    .failure_percent = 50,
    .consecutive = 5,
    .open_ms = 30 * 1000,
    .open_max_ms = 300 * 1000,
    .probes_max = 1,
    .probe_successes = 2,
};

// ------------------------------------------------------------------------------------- the window

void breaker_window_init(struct breaker_window *window, uint32_t window_ms)
{
    CHECK(window_ms >= BREAKER_BUCKETS);
    memset(window, 0, sizeof *window);
    window->bucket_ms = window_ms / BREAKER_BUCKETS;
}

void breaker_window_turn(struct breaker_window *window, uint64_t now_ms)
{
    uint64_t tick = now_ms / window->bucket_ms;
    if (tick <= window->tick)
        return;
    uint64_t steps = tick - window->tick;
    if (steps > BREAKER_BUCKETS)
        steps = BREAKER_BUCKETS;
    // The buckets that become the newest ones held the oldest.
    for (uint64_t i = 0; i < steps; i++) {
        unsigned slot = (unsigned)((tick - i) % BREAKER_BUCKETS);
        window->total -= window->bucket[slot].total;
        window->marked -= window->bucket[slot].marked;
        window->bucket[slot].total = window->bucket[slot].marked = 0;
    }
    window->tick = tick;
}

void breaker_window_add(struct breaker_window *window, uint64_t now_ms, uint32_t total,
                        uint32_t marked)
{
    breaker_window_turn(window, now_ms);
    unsigned slot = (unsigned)(window->tick % BREAKER_BUCKETS);
    window->bucket[slot].total += total;
    window->bucket[slot].marked += marked;
    window->total += total;
    window->marked += marked;
}

// ------------------------------------------------------------------------------------------ moves

// The one place where the state changes: the table of the header.
static void move(struct breaker *breaker, enum breaker_state to)
{
    static const bool legal[3][3] = {
        [BREAKER_CLOSED][BREAKER_OPEN] = true,
        [BREAKER_OPEN][BREAKER_HALF_OPEN] = true,
        [BREAKER_HALF_OPEN][BREAKER_OPEN] = true,
        [BREAKER_HALF_OPEN][BREAKER_CLOSED] = true,
    };
    CHECK(legal[breaker->state][to]);
    breaker->state = (uint8_t)to;
    breaker->round++;
    breaker->run = 0;
    breaker->probes_out = breaker->probes_good = 0;
}

static uint64_t open_for(const struct breaker *breaker, uint64_t random)
{
    const struct breaker_config *config = breaker->config;
    uint64_t ms = config->open_ms;
    for (uint32_t i = 1; i < breaker->trips && ms < config->open_max_ms; i++)
        ms *= 2;
    if (ms > config->open_max_ms)
        ms = config->open_max_ms;
    return ms + random % (ms / 4 + 1);
}

static void trip(struct breaker *breaker, uint64_t now_ms, uint64_t random)
{
    if (breaker->state == BREAKER_CLOSED &&
        now_ms - breaker->closed_ms >= breaker->config->open_max_ms)
        breaker->trips = 0;
    if (breaker->trips < UINT32_MAX)
        breaker->trips++;
    move(breaker, BREAKER_OPEN);
    breaker->until_ms = now_ms + open_for(breaker, random);
    breaker->opened++;
}

static void close_again(struct breaker *breaker, uint64_t now_ms)
{
    move(breaker, BREAKER_CLOSED);
    breaker->closed_ms = now_ms;
    breaker_window_init(&breaker->window, breaker->config->window_ms);
}

// -------------------------------------------------------------------------------------- the caller

void breaker_init(struct breaker *breaker, const struct breaker_config *config)
{
    CHECK(config->failure_percent <= 100);
    CHECK(config->open_ms > 0);
    CHECK(config->open_max_ms >= config->open_ms);
    CHECK(config->probes_max > 0);
    CHECK(config->probe_successes > 0);
    memset(breaker, 0, sizeof *breaker);
    breaker->config = config;
    breaker_window_init(&breaker->window, config->window_ms);
}

struct breaker_pass breaker_peek(const struct breaker *breaker, uint64_t now_ms)
{
    struct breaker_pass pass = {.round = breaker->round};
    switch ((enum breaker_state)breaker->state) {
    case BREAKER_CLOSED: pass.verdict = BREAKER_YES; break;
    case BREAKER_OPEN:
        if (now_ms >= breaker->until_ms)
            pass.verdict = BREAKER_PROBE;
        else if (breaker->until_ms - now_ms < UINT32_MAX)
            pass.wait_ms = (uint32_t)(breaker->until_ms - now_ms);
        else
            pass.wait_ms = UINT32_MAX - 1;
        break;
    case BREAKER_HALF_OPEN:
        if (breaker->probes_out < breaker->config->probes_max)
            pass.verdict = BREAKER_PROBE;
        break;
    }
    return pass;
}

struct breaker_pass breaker_allow(struct breaker *breaker, uint64_t now_ms)
{
    struct breaker_pass pass = breaker_peek(breaker, now_ms);
    if (pass.verdict == BREAKER_NO)
        breaker->denied++;
    if (pass.verdict != BREAKER_PROBE)
        return pass;
    if (breaker->state == BREAKER_OPEN)
        move(breaker, BREAKER_HALF_OPEN);
    breaker->probes_out++;
    pass.round = breaker->round;
    return pass;
}

static void succeeded(struct breaker *breaker, uint64_t now_ms)
{
    if (breaker->state == BREAKER_CLOSED) {
        breaker_window_add(&breaker->window, now_ms, 1, 0);
        breaker->run = 0;
    } else if (++breaker->probes_good >= breaker->config->probe_successes) {
        close_again(breaker, now_ms);
    }
}

static bool tripped(const struct breaker *breaker)
{
    const struct breaker_config *config = breaker->config;
    const struct breaker_window *window = &breaker->window;
    if (config->consecutive && breaker->run >= config->consecutive)
        return true;
    return config->failure_percent && window->total >= config->min_requests &&
           (uint64_t)window->marked * 100 >= (uint64_t)window->total * config->failure_percent;
}

static void failed(struct breaker *breaker, bool hard, uint64_t now_ms, uint64_t random)
{
    if (breaker->state == BREAKER_HALF_OPEN) {
        trip(breaker, now_ms, random);
        return;
    }
    breaker_window_add(&breaker->window, now_ms, 1, 1);
    if (hard)
        breaker->run++;
    if (tripped(breaker))
        trip(breaker, now_ms, random);
}

void breaker_report(struct breaker *breaker, struct breaker_pass *pass, enum breaker_result result,
                    uint64_t now_ms, uint64_t random)
{
    uint8_t was = pass->verdict;
    if (was == BREAKER_NO)
        return;
    pass->verdict = result == BREAKER_SUCCESS ? BREAKER_PRAISED : BREAKER_NO;
    if (pass->round != breaker->round)
        return; // news of an earlier round
    CHECK(breaker->state != BREAKER_OPEN);
    if (was == BREAKER_PROBE) {
        CHECK(breaker->probes_out > 0);
        breaker->probes_out--;
    }
    switch (result) {
    case BREAKER_CANCELLED: break;
    case BREAKER_SUCCESS:
        if (was == BREAKER_PRAISED)
            break;
        succeeded(breaker, now_ms);
        pass->round = breaker->round; // it may have closed: taking back must still count
        break;
    case BREAKER_FAILURE: failed(breaker, false, now_ms, random); break;
    case BREAKER_FAILURE_HARD: failed(breaker, true, now_ms, random); break;
    }
}

const char *breaker_state_name(enum breaker_state state)
{
    switch (state) {
    case BREAKER_CLOSED: return "closed";
    case BREAKER_OPEN: return "open";
    case BREAKER_HALF_OPEN: break;
    }
    return "half_open";
}
