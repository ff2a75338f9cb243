// SPDX-License-Identifier: MIT
//
// Who may send when. Once a turn load_fill() hands out what is due: to idle connections first,
// then to new ones, as many as the thread may have.
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#include "alloc/check.h"
#include "tools/load.h"

enum {
    TICK_FAST_MS = 2,         // while connections ramp up, or after a refusal
    TICK_SLOW_MS = 100,       // otherwise: only the end of the run is waited for
    PACE_STEP_NS = 50 * 1000, // requests closer together than this are woken for together
};

static uint64_t ms_to_ns(uint64_t ms)
{
    return ms * 1000000u;
}

static uint64_t end_ns(const struct load_settings *settings)
{
    if (settings->mode == LOAD_HOLD)
        return settings->start_ns + ms_to_ns(settings->ramp_ms + settings->hold_ms);
    if (!settings->duration_ms)
        return UINT64_MAX;
    return settings->start_ns + ms_to_ns(settings->duration_ms);
}

// Open loop: when request number `i` of all threads is meant to be sent.
static uint64_t intended_at(const struct load_settings *settings, uint64_t i)
{
    return settings->start_ns + (uint64_t)((double)i * 1e9 / settings->rate);
}

static uint64_t intended_next(const struct load_thread *thread)
{
    const struct load_settings *settings = thread->settings;
    return intended_at(settings, thread->started * settings->threads + thread->index);
}

// --------------------------------------------------------------------------------------- tickets

// Could there be another ticket, now or later?
static bool tickets_left(const struct load_thread *thread, uint64_t now_ns)
{
    const struct load_settings *settings = thread->settings;
    if (thread->stopped)
        return false;
    if (thread->returned_count)
        return true;
    switch (settings->mode) {
    case LOAD_OPEN:
        return thread->started < thread->requests && intended_next(thread) < end_ns(settings);
    case LOAD_HOLD:
        return thread->started < thread->share || (settings->hold_ms && now_ns < end_ns(settings));
    default: return thread->started < thread->requests && now_ns < end_ns(settings);
    }
}

bool load_ticket(struct load_thread *thread, uint64_t *intended_ns)
{
    uint64_t now = thread->core.now_ns;
    if (thread->phase != LOAD_RUNNING || !tickets_left(thread, now))
        return false;
    if (thread->returned_count) {
        *intended_ns = thread->returned[--thread->returned_count];
        return true;
    }
    if (thread->settings->mode == LOAD_OPEN) {
        *intended_ns = intended_next(thread);
        if (*intended_ns > now)
            return false;
    } else {
        *intended_ns = 0; // when it is sent
    }
    thread->started++;
    return true;
}

void load_ticket_return(struct load_thread *thread, uint64_t intended_ns)
{
    CHECK(thread->returned_count < thread->share);
    thread->returned[thread->returned_count++] = intended_ns;
}

// ------------------------------------------------------------------------------------------- fill

// How many connections may there be by now?
static uint32_t connections_now(const struct load_thread *thread)
{
    const struct load_settings *settings = thread->settings;
    uint64_t passed_ns = thread->core.now_ns - settings->start_ns;
    if (passed_ns >= ms_to_ns(settings->ramp_ms))
        return thread->share;
    uint64_t part = thread->share * passed_ns / ms_to_ns(settings->ramp_ms);
    return (uint32_t)part + 1 < thread->share ? (uint32_t)part + 1 : thread->share;
}

static bool may_open(const struct load_thread *thread)
{
    return thread->open < connections_now(thread) && thread->connecting < LOAD_CONNECTING_MAX &&
           thread->core.now_ms >= thread->backoff_ms;
}

static void give_out(struct load_thread *thread)
{
    uint64_t intended;
    while (!list_empty(&thread->idle) && load_ticket(thread, &intended))
        load_call_again(thread, intended);
    while (list_empty(&thread->idle) && may_open(thread) && load_ticket(thread, &intended))
        if (!load_call_open(thread, intended))
            return;
}

// After the end, requests under way get some time; streams that are to be held get all they need.
static bool grace_over(const struct load_thread *thread)
{
    uint64_t end = end_ns(thread->settings);
    return thread->stopped || (thread->settings->mode != LOAD_HOLD && end != UINT64_MAX &&
                               thread->core.now_ns > end + ms_to_ns(LOAD_GRACE_MS));
}

static void count_unstarted(struct load_thread *thread)
{
    struct load_results *results = &thread->results;
    results->abandoned += thread->active;
    if (thread->settings->mode != LOAD_OPEN)
        return;
    results->unstarted += thread->returned_count;
    thread->returned_count = 0;
    for (; tickets_left(thread, 0); thread->started++)
        results->unstarted++;
}

void load_fill(struct core *core)
{
    struct load_thread *thread = load_of(core);
    if (thread->phase == LOAD_RUNNING) {
        give_out(thread);
        bool over = thread->active == 0 && !tickets_left(thread, core->now_ns);
        if (over || grace_over(thread)) {
            count_unstarted(thread);
            thread->phase = LOAD_OVER;
            timer_cancel(&thread->tick);
            core_post(core, 0); // do not wait for anything in this turn
        }
    }
}

static void tick_fire(struct core *core, struct timer *timer)
{
    struct load_thread *thread = load_of(core);
    bool ramping = core->now_ns < thread->settings->start_ns + ms_to_ns(thread->settings->ramp_ms);
    bool fast = ramping || core->now_ms < thread->backoff_ms;
    timer_set(&core->wheel, timer, core->now_ms + (fast ? TICK_FAST_MS : TICK_SLOW_MS));
}

void load_schedule_start(struct load_thread *thread)
{
    list_init(&thread->calls);
    list_init(&thread->idle);
    timer_init(&thread->tick, tick_fire);
    timer_set(&thread->core.wheel, &thread->tick, thread->core.now_ms + 1);
}

void load_stop(struct load_thread *thread)
{
    thread->stopped = true;
}

// ------------------------------------------------------------------------------------- open loop

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t at_ns)
{
    struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000u),
                          .tv_nsec = (long)(at_ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

// The cores' timers count milliseconds, which is too coarse for intended times: this thread
// sleeps to the microsecond and wakes whoever has a request due.
void *load_pace(void *argument)
{
    struct load_pacer *pacer = argument;
    const struct load_settings *settings = pacer->settings;
    uint64_t last = settings->requests ? settings->requests : UINT64_MAX, i = 0;
    prctl(PR_SET_TIMERSLACK, 1);
    while (i < last && !atomic_load(&pacer->stop)) {
        uint64_t at = intended_at(settings, i), now = clock_ns();
        if (at >= end_ns(settings))
            break;
        if (at > now)
            sleep_until(at > now + PACE_STEP_NS ? at : now + PACE_STEP_NS);
        now = clock_ns();
        for (uint64_t woken = 0; i < last && intended_at(settings, i) <= now; i++, woken++)
            if (woken < settings->threads)
                core_post(&pacer->threads[i % settings->threads].core, 0);
    }
    return NULL;
}
