// SPDX-License-Identifier: MIT
//
// Proves that a timer fires in its millisecond, never before and never after, from any phase of the
// wheel and over every edge of its levels; and that a core that sleeps as long as it is told misses
// none.
#include <criterion/criterion.h>
#include <string.h>

#include "engine/timer.h"

enum { LEVEL_1 = 64, LEVEL_2 = 64 * 64, LEVEL_3 = 64 * 64 * 64, RANGE = 64 * 64 * 64 * 64 };

static struct timer_wheel wheel;
static uint64_t fired_at; // 0: not yet
static uint64_t fired;

static void note(struct core *core, struct timer *timer)
{
    fired++;
    fired_at = wheel.now_ms;
}

// Set for `distance` ahead of `start`, run one millisecond at a time.
static void expect_exact(uint64_t start, uint64_t distance)
{
    struct timer timer;
    fired_at = 0;
    timer_wheel_init(&wheel, start);
    timer_init(&timer, note);
    timer_set(&wheel, &timer, start + distance);
    cr_assert(timer_armed(&timer));
    timer_run(NULL, &wheel, start + distance - 1);
    cr_assert_eq(fired_at, 0, "from %lu, %lu ms: fired %lu ms early", (unsigned long)start,
                 (unsigned long)distance, (unsigned long)(start + distance - fired_at));
    timer_run(NULL, &wheel, start + distance);
    cr_assert_eq(fired_at, start + distance, "from %lu: not fired after %lu ms",
                 (unsigned long)start, (unsigned long)distance);
    cr_assert(!timer_armed(&timer));
}

Test(timer, fires_in_its_millisecond_near_the_first_edges)
{
    for (uint64_t start = LEVEL_2 - 70; start < LEVEL_2 + 70; start++)
        for (uint64_t distance = 1; distance <= 3 * LEVEL_1; distance++)
            expect_exact(start, distance);
}

Test(timer, fires_in_its_millisecond_at_any_distance_of_the_second_level)
{
    static const uint64_t starts[] = {1, LEVEL_1 - 1, LEVEL_2 - 1, LEVEL_3 - 1, LEVEL_3};
    for (unsigned s = 0; s < sizeof starts / sizeof *starts; s++)
        for (uint64_t distance = 1; distance <= LEVEL_2 + 2 * LEVEL_1; distance += 7)
            expect_exact(starts[s], distance);
}

Test(timer, fires_in_its_millisecond_around_every_edge)
{
    static const uint64_t edges[] = {LEVEL_1, LEVEL_2, LEVEL_3};
    for (unsigned e = 0; e < 3; e++)
        for (int phase = -1; phase <= 1; phase++)
            for (int off = -2; off <= 2; off++)
                for (unsigned beyond = 0; beyond <= LEVEL_1; beyond += 63)
                    expect_exact(2 * LEVEL_3 + phase, edges[e] + off + beyond);
}

Test(timer, what_lies_beyond_the_wheel_is_parked_and_fires_in_time)
{
    expect_exact(5, RANGE - 1);
    expect_exact(77, RANGE);
    expect_exact(RANGE - 3, RANGE + 12345);
}

Test(timer, a_time_that_has_passed_fires_in_the_next_run)
{
    struct timer timer;
    fired = 0;
    timer_wheel_init(&wheel, 1000);
    timer_init(&timer, note);
    timer_set(&wheel, &timer, 3);
    timer_run(NULL, &wheel, 1000);
    cr_assert_eq(fired, 0, "no time has passed");
    timer_run(NULL, &wheel, 1001);
    cr_assert_eq(fired, 1);
}

Test(timer, a_long_sleep_fires_everything_on_the_way)
{
    struct timer timers[200];
    fired = 0;
    timer_wheel_init(&wheel, 4000);
    for (unsigned i = 0; i < 200; i++) {
        timer_init(&timers[i], note);
        timer_set(&wheel, &timers[i], 4000 + i * i);
    }
    timer_run(NULL, &wheel, 4000 + 200 * 200);
    cr_assert_eq(fired, 200);
    cr_assert_eq(timer_next_ms(&wheel, wheel.now_ms), UINT64_MAX);
}

Test(timer, setting_again_moves_and_cancelling_removes)
{
    struct timer moved, cancelled;
    fired = 0;
    timer_wheel_init(&wheel, 0);
    timer_init(&moved, note);
    timer_init(&cancelled, note);
    timer_set(&wheel, &moved, 10);
    timer_set(&wheel, &cancelled, 10);
    timer_set(&wheel, &moved, 500);
    timer_cancel(&cancelled);
    timer_cancel(&cancelled);
    timer_run(NULL, &wheel, 499);
    cr_assert_eq(fired, 0);
    timer_run(NULL, &wheel, 500);
    cr_assert_eq(fired, 1);
}

// ------------------------------------------------------------------------------ timers in
// callbacks

static struct timer first, second;
static unsigned rounds;

static void cancel_second(struct core *core, struct timer *timer)
{
    timer_cancel(&second);
}

static void set_itself(struct core *core, struct timer *timer)
{
    if (++rounds < 100)
        timer_set(&wheel, timer, wheel.now_ms + rounds);
}

static void set_second(struct core *core, struct timer *timer)
{
    timer_set(&wheel, &second, wheel.now_ms);
}

Test(timer, a_callback_may_cancel_one_that_is_due_in_the_same_moment)
{
    fired = 0;
    timer_wheel_init(&wheel, 0);
    timer_init(&first, cancel_second);
    timer_init(&second, note);
    timer_set(&wheel, &first, 64);
    timer_set(&wheel, &second, 64);
    timer_run(NULL, &wheel, 10000);
    cr_assert_eq(fired, 0);
}

Test(timer, a_callback_may_set_its_own_timer_again)
{
    rounds = 0;
    timer_wheel_init(&wheel, LEVEL_3 - 2000);
    timer_init(&first, set_itself);
    timer_set(&wheel, &first, wheel.now_ms + 1);
    timer_run(NULL, &wheel, wheel.now_ms + 99 * 100 / 2);
    cr_assert_eq(rounds, 99);
    timer_run(NULL, &wheel, wheel.now_ms + 1);
    cr_assert_eq(rounds, 100);
}

// Fires one millisecond later: a callback that sets a timer for now cannot hold up the run for
// ever.
Test(timer, a_timer_set_for_now_in_a_callback_waits_for_the_next_millisecond)
{
    fired = 0;
    timer_wheel_init(&wheel, 0);
    timer_init(&first, set_second);
    timer_init(&second, note);
    timer_set(&wheel, &first, 5);
    timer_run(NULL, &wheel, 5);
    cr_assert_eq(fired, 0);
    timer_run(NULL, &wheel, 6);
    cr_assert_eq(fired, 1);
}

// --------------------------------------------------------------------------- sleeping, and the
// model

Test(timer, an_empty_wheel_lets_the_core_sleep_for_ever)
{
    timer_wheel_init(&wheel, 123);
    cr_assert_eq(timer_next_ms(&wheel, 123), UINT64_MAX);
}

// Sleep as told, at most a few times, and arrive in the very millisecond.
static void expect_sleep(uint64_t start, uint64_t distance)
{
    struct timer timer;
    fired_at = 0;
    timer_wheel_init(&wheel, start);
    timer_init(&timer, note);
    timer_set(&wheel, &timer, start + distance);
    uint64_t now = start;
    for (int turns = 0; !fired_at; turns++) {
        cr_assert_lt(turns, 16, "from %lu, %lu ms: woken too often", (unsigned long)start,
                     (unsigned long)distance);
        uint64_t sleep = timer_next_ms(&wheel, now);
        cr_assert_leq(sleep, start + distance - now, "from %lu, %lu ms: slept too long",
                      (unsigned long)start, (unsigned long)distance);
        now += sleep;
        timer_run(NULL, &wheel, now);
    }
    cr_assert_eq(fired_at, start + distance);
}

Test(timer, a_core_that_sleeps_as_told_is_never_late)
{
    for (uint64_t distance = 1; distance < 2 * LEVEL_3; distance += 1 + distance / 3)
        for (uint64_t start = LEVEL_3 - 3; start < LEVEL_3 + 3; start++)
            expect_sleep(start, distance);
    expect_sleep(1, RANGE + 5);
}

enum { MODEL_TIMERS = 40 };

static struct timer model[MODEL_TIMERS];
static uint64_t model_due[MODEL_TIMERS]; // 0: not set

static void model_fires(struct core *core, struct timer *timer)
{
    unsigned i = (unsigned)(timer - model);
    cr_assert_neq(model_due[i], 0, "a cancelled timer fired");
    cr_assert_eq(model_due[i], wheel.now_ms, "due %lu, fired %lu", (unsigned long)model_due[i],
                 (unsigned long)wheel.now_ms);
    model_due[i] = 0;
}

static uint64_t model_random(void)
{
    static uint64_t state = 88172645463325252u; // xorshift
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

Test(timer, agrees_with_a_plain_list_over_many_random_moves)
{
    timer_wheel_init(&wheel, 1);
    for (int i = 0; i < MODEL_TIMERS; i++)
        timer_init(&model[i], model_fires);
    memset(model_due, 0, sizeof model_due);
    for (int move = 0; move < 200000; move++) {
        unsigned i = (unsigned)(model_random() % MODEL_TIMERS);
        switch (model_random() % 4) {
        case 0:
        case 1:
            model_due[i] = wheel.now_ms + 1 + (model_random() >> (44 + model_random() % 20));
            timer_set(&wheel, &model[i], model_due[i]);
            break;
        case 2:
            timer_cancel(&model[i]);
            model_due[i] = 0;
            break;
        default:
            timer_run(NULL, &wheel, wheel.now_ms + (model_random() >> (52 + model_random() % 12)));
        }
        for (int k = 0; k < MODEL_TIMERS; k++)
            cr_assert(model_due[k] == 0 || model_due[k] > wheel.now_ms, "a timer is late");
    }
}
