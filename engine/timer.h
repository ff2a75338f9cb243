// SPDX-License-Identifier: MIT
//
// timer: a hierarchical timer wheel, one per core. Resolution one millisecond.
//
// Setting and cancelling cost a few stores. Owners that push a deadline forward all the time (a
// connection at every byte) do not move the timer: they store the new deadline and, when the old
// one fires, set the timer again to what is left.
//
// Four levels of 64 slots: 64 ms, 4 s, 4.4 min, 4.7 h. What lies further away is parked in the last
// slot and set again when it comes round. A timer fires never early and at most one turn late.
#ifndef ENGINE_TIMER_H
#define ENGINE_TIMER_H

#include <stdint.h>

#include "alloc/list.h"

struct core;
struct timer;

typedef void timer_fire(struct core *core, struct timer *timer);

struct timer {
    struct list node;
    uint64_t at_ms;
    timer_fire *fire;
};

enum { TIMER_LEVELS = 4, TIMER_SLOTS = 64 };

struct timer_wheel {
    uint64_t now_ms;             // every timer up to here has fired
    uint64_t busy[TIMER_LEVELS]; // one bit per slot that may hold timers
    struct list slot[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms);
void timer_init(struct timer *timer, timer_fire *fire);

// (Re)arm for at_ms; a time that has passed fires in the next timer_run().
void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t at_ms);
void timer_cancel(struct timer *timer);

static inline bool timer_armed(const struct timer *timer)
{
    return !list_empty(&timer->node);
}

// Fire everything due up to now_ms. Callbacks may set and cancel any timer.
void timer_run(struct core *core, struct timer_wheel *wheel, uint64_t now_ms);

// Milliseconds from now_ms until timer_run() may have work; UINT64_MAX if no timer is set.
uint64_t timer_next_ms(const struct timer_wheel *wheel, uint64_t now_ms);

#endif
