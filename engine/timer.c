// SPDX-License-Identifier: MIT
#include "engine/timer.h"

#include "alloc/check.h"

enum { SLOT_BITS = 6, SLOT_MASK = TIMER_SLOTS - 1 };

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms)
{
    *wheel = (struct timer_wheel){.now_ms = now_ms};
    for (int level = 0; level < TIMER_LEVELS; level++)
        for (int slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&wheel->slot[level][slot]);
}

void timer_init(struct timer *timer, timer_fire *fire)
{
    list_init(&timer->node);
    timer->at_ms = 0;
    timer->fire = fire;
}

// Into the slot of its time, or of `earliest` if that is later.
static void place(struct timer_wheel *wheel, struct timer *timer, uint64_t earliest)
{
    uint64_t at = timer->at_ms > earliest ? timer->at_ms : earliest;
    uint64_t delta = at - wheel->now_ms;
    int level = 0;
    while (level < TIMER_LEVELS - 1 && delta >= 1ull << (SLOT_BITS * (level + 1)))
        level++;
    uint64_t range = 1ull << (SLOT_BITS * TIMER_LEVELS);
    if (delta >= range) // parked: comes round, is placed again
        at = wheel->now_ms + range - 1;
    unsigned slot = (unsigned)(at >> (SLOT_BITS * level)) & SLOT_MASK;
    list_push_back(&wheel->slot[level][slot], &timer->node);
    wheel->busy[level] |= 1ull << slot;
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t at_ms)
{
    list_remove(&timer->node);
    timer->at_ms = at_ms;
    place(wheel, timer, wheel->now_ms + 1);
}

void timer_cancel(struct timer *timer)
{
    list_remove(&timer->node);
}

// Move the timers of one slot to `out`, so that callbacks can refill the slot meanwhile.
static void slot_drain(struct timer_wheel *wheel, int level, unsigned slot, struct list *out)
{
    list_init(out);
    if (!(wheel->busy[level] & 1ull << slot))
        return;
    wheel->busy[level] &= ~(1ull << slot);
    for (struct list *node; (node = list_pop_front(&wheel->slot[level][slot]));)
        list_push_back(out, node);
}

static void cascade(struct timer_wheel *wheel, int level)
{
    struct list due;
    slot_drain(wheel, level, (unsigned)(wheel->now_ms >> (SLOT_BITS * level)) & SLOT_MASK, &due);
    // A timer due exactly now must fire in this tick: it lands in the slot about to be drained.
    for (struct list *node; (node = list_pop_front(&due));)
        place(wheel, LIST_OWNER(node, struct timer, node), wheel->now_ms);
}

static void tick(struct core *core, struct timer_wheel *wheel)
{
    wheel->now_ms++;
    for (int level = 1; level < TIMER_LEVELS; level++) {
        if (wheel->now_ms & ((1ull << (SLOT_BITS * level)) - 1))
            break;
        cascade(wheel, level);
    }
    struct list due;
    slot_drain(wheel, 0, (unsigned)wheel->now_ms & SLOT_MASK, &due);
    for (struct list *node; (node = list_pop_front(&due));) {
        struct timer *timer = LIST_OWNER(node, struct timer, node);
        if (timer->at_ms > wheel->now_ms)
            place(wheel, timer, wheel->now_ms + 1); // was parked
        else
            timer->fire(core, timer);
    }
}

static bool wheel_empty(const struct timer_wheel *wheel)
{
    return !(wheel->busy[0] | wheel->busy[1] | wheel->busy[2] | wheel->busy[3]);
}

void timer_run(struct core *core, struct timer_wheel *wheel, uint64_t now_ms)
{
    while (wheel->now_ms < now_ms) {
        if (wheel_empty(wheel)) {
            wheel->now_ms = now_ms;
            return;
        }
        tick(core, wheel);
    }
}

uint64_t timer_next_ms(const struct timer_wheel *wheel, uint64_t now_ms)
{
    uint64_t best = UINT64_MAX;
    for (int level = 0; level < TIMER_LEVELS; level++) {
        if (!wheel->busy[level])
            continue;
        // Slots behind the current one, nearest first; the current one itself comes last (next
        // round).
        uint64_t current = wheel->now_ms >> (SLOT_BITS * level);
        unsigned first = (unsigned)(current + 1) & SLOT_MASK;
        uint64_t busy = wheel->busy[level];
        uint64_t turned = first ? busy >> first | busy << (TIMER_SLOTS - first) : busy;
        uint64_t at = (current + 1 + (unsigned)__builtin_ctzll(turned)) << (SLOT_BITS * level);
        if (at < best)
            best = at;
    }
    if (best == UINT64_MAX)
        return best;
    return best > now_ms ? best - now_ms : 0;
}
