// SPDX-License-Identifier: MIT
//
// Proves that a breaker opens when and only when its rules say so, lets nothing but counted probes
// through until they succeeded, and loses no place whatever becomes of an attempt. PAINS: the
// hanging or failing provider among the extras; 5 (a client that leaves is nobody's failure).
#include <criterion/criterion.h>
#include <string.h>

#include "engine/breaker.h"

enum { OPEN_MS = 30000, OPEN_MAX_MS = 300000 };

static struct breaker breaker;

static void begin(void)
{
    breaker_init(&breaker, &breaker_config_default);
}

// One attempt that must be allowed, judged at once.
static void attempt(uint64_t now_ms, enum breaker_result result)
{
    struct breaker_pass pass = breaker_allow(&breaker, now_ms);
    cr_assert_neq(pass.verdict, BREAKER_NO, "at %lu", (unsigned long)now_ms);
    breaker_report(&breaker, &pass, result, now_ms, 0);
}

static void attempts(unsigned n, uint64_t now_ms, enum breaker_result result)
{
    for (unsigned i = 0; i < n; i++)
        attempt(now_ms, result);
}

static void trip_at(uint64_t now_ms, uint64_t random)
{
    for (unsigned i = 0; i < 5; i++) {
        struct breaker_pass pass = breaker_allow(&breaker, now_ms);
        breaker_report(&breaker, &pass, BREAKER_FAILURE_HARD, now_ms, random);
    }
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

static void close_by_probes(uint64_t now_ms)
{
    attempts(2, now_ms, BREAKER_SUCCESS);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
}

static uint64_t dice_state;

static uint64_t dice(void) // xorshift
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state;
}

// ------------------------------------------------------------------------------------- the window

Test(window, a_count_is_seen_for_ten_buckets_and_not_one_millisecond_more)
{
    for (uint64_t phase = 0; phase < 1000; phase += 37) {
        struct breaker_window window;
        uint64_t at = 5000000 + phase, bucket_begin = 5000000;
        breaker_window_init(&window, 10000);
        breaker_window_add(&window, at, 3, 2);
        breaker_window_turn(&window, bucket_begin + 9999);
        cr_assert_eq(window.total, 3);
        cr_assert_eq(window.marked, 2);
        breaker_window_turn(&window, bucket_begin + 10000);
        cr_assert_eq(window.total, 0);
        cr_assert_eq(window.marked, 0);
    }
}

Test(window, a_clock_that_steps_back_counts_into_the_newest_bucket)
{
    struct breaker_window window;
    breaker_window_init(&window, 10000);
    breaker_window_add(&window, 50000, 1, 0);
    breaker_window_add(&window, 20000, 1, 1);
    cr_assert_eq(window.total, 2);
    breaker_window_turn(&window, 59999);
    cr_assert_eq(window.total, 2);
    breaker_window_turn(&window, 60000);
    cr_assert_eq(window.total, 0);
}

Test(window, agrees_with_a_list_of_events_over_random_times)
{
    enum { EVENTS = 4000 };
    static uint64_t tick[EVENTS];
    static uint8_t marked[EVENTS];
    static const uint32_t widths[] = {10, 1000, 10000, 60000};
    dice_state = 88172645463325252u;
    for (unsigned w = 0; w < 4; w++) {
        struct breaker_window window;
        uint64_t now_ms = 1 + dice() % 100000;
        breaker_window_init(&window, widths[w]);
        for (unsigned i = 0; i < EVENTS; i++) {
            now_ms += dice() % 8 ? dice() % (widths[w] / 20 + 1) : dice() % (2 * widths[w]);
            tick[i] = now_ms / (widths[w] / BREAKER_BUCKETS);
            marked[i] = dice() % 2;
            breaker_window_add(&window, now_ms, 1, marked[i]);
            uint32_t total = 0, marks = 0;
            for (unsigned k = i + 1; k-- > 0 && tick[k] + BREAKER_BUCKETS > tick[i];) {
                total++;
                marks += marked[k];
            }
            cr_assert_eq(window.total, total, "event %u", i);
            cr_assert_eq(window.marked, marks, "event %u", i);
        }
    }
}

// ---------------------------------------------------------------------------------------- tripping

Test(breaker, begins_closed_and_lets_everything_through)
{
    begin();
    for (unsigned i = 0; i < 1000; i++)
        attempt(i, BREAKER_SUCCESS);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    cr_assert_eq(breaker.denied, 0);
}

// Every mix of up to 40 soft failures and successes, failures last: open exactly when at least 20
// were judged and half of them failed.
Test(breaker, the_share_rule_trips_at_its_very_boundary)
{
    for (unsigned good = 0; good <= 40; good++) {
        begin();
        attempts(good, 1000, BREAKER_SUCCESS);
        for (unsigned bad = 1; bad <= 45; bad++) {
            attempt(1000, BREAKER_FAILURE);
            bool expected = good + bad >= 20 && 2 * bad >= good + bad;
            cr_assert_eq(breaker.state == BREAKER_OPEN, expected, "%u good, %u bad", good, bad);
            if (expected)
                break;
        }
    }
}

Test(breaker, failures_that_slid_out_of_the_window_do_not_count)
{
    begin();
    attempts(19, 1000, BREAKER_FAILURE);
    attempt(10999, BREAKER_FAILURE); // the last millisecond in which the nineteen are seen
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    begin();
    attempts(19, 1000, BREAKER_FAILURE);
    attempt(11000, BREAKER_FAILURE);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
}

Test(breaker, the_run_rule_trips_at_the_fifth_hard_failure_in_a_row)
{
    begin();
    attempts(4, 1000, BREAKER_FAILURE_HARD);
    attempt(1000, BREAKER_SUCCESS);
    attempts(4, 100000, BREAKER_FAILURE_HARD);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    attempt(900000, BREAKER_FAILURE_HARD); // however long that took
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

Test(breaker, soft_failures_neither_lengthen_nor_end_a_run)
{
    begin();
    attempts(4, 1000, BREAKER_FAILURE_HARD);
    attempts(10, 1000, BREAKER_FAILURE);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    attempt(1000, BREAKER_FAILURE_HARD);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

Test(breaker, what_was_cancelled_counts_for_nothing)
{
    begin();
    attempts(19, 1000, BREAKER_FAILURE);
    attempts(1000, 1000, BREAKER_CANCELLED);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    cr_assert_eq(breaker.window.total, 19);
    begin();
    attempts(4, 1000, BREAKER_FAILURE_HARD);
    attempts(10, 1000, BREAKER_CANCELLED);
    attempt(1000, BREAKER_FAILURE_HARD); // the run was not ended either
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

Test(breaker, each_rule_can_be_turned_off)
{
    struct breaker_config config = breaker_config_default;
    config.failure_percent = 0;
    breaker_init(&breaker, &config);
    attempts(1000, 1000, BREAKER_FAILURE);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    attempts(5, 1000, BREAKER_FAILURE_HARD);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    config = breaker_config_default;
    config.consecutive = 0;
    breaker_init(&breaker, &config);
    attempts(19, 1000, BREAKER_FAILURE_HARD);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    attempt(1000, BREAKER_FAILURE_HARD);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

// -------------------------------------------------------------------------------------------- open

Test(breaker, says_no_and_for_how_long_until_the_very_millisecond)
{
    begin();
    trip_at(1000, 0);
    for (uint64_t now = 1000; now < 1000 + OPEN_MS; now += now < 30900 ? 99 : 1) {
        struct breaker_pass pass = breaker_allow(&breaker, now);
        cr_assert_eq(pass.verdict, BREAKER_NO);
        cr_assert_eq(pass.wait_ms, 1000 + OPEN_MS - now);
    }
    cr_assert_gt(breaker.denied, 0);
    cr_assert_eq(breaker_allow(&breaker, 1000 + OPEN_MS).verdict, BREAKER_PROBE);
    cr_assert_eq(breaker.state, BREAKER_HALF_OPEN);
}

Test(breaker, is_open_twice_as_long_at_every_trip_in_a_row_up_to_the_cap)
{
    static const uint64_t expected[] = {30000, 60000, 120000, 240000, 300000, 300000, 300000};
    begin();
    uint64_t now = 1000;
    trip_at(now, 0);
    for (unsigned i = 0; i < 7; i++) {
        cr_assert_eq(breaker.until_ms - now, expected[i], "trip %u", i + 1);
        now = breaker.until_ms;
        if (i % 2 == 0) {
            attempt(now, BREAKER_FAILURE); // the probe, by a soft failure too
        } else {
            close_by_probes(now);
            trip_at(now + 1000, 0);
            now += 1000;
        }
    }
    cr_assert_eq(breaker.opened, 8);
}

Test(breaker, a_trip_is_the_first_again_after_a_long_good_time)
{
    for (int early = 0; early <= 1; early++) {
        begin();
        trip_at(1000, 0);
        close_by_probes(31000);
        trip_at(31000 + OPEN_MAX_MS - early, 0);
        cr_assert_eq(breaker.until_ms - (31000 + OPEN_MAX_MS - early), early ? 60000 : 30000);
    }
}

Test(breaker, jitter_lengthens_by_a_quarter_at_most_and_never_shortens)
{
    uint64_t shortest = UINT64_MAX, longest = 0;
    dice_state = 1234567;
    for (unsigned i = 0; i < 20000; i++) {
        begin();
        trip_at(1000, dice());
        uint64_t ms = breaker.until_ms - 1000;
        shortest = ms < shortest ? ms : shortest;
        longest = ms > longest ? ms : longest;
    }
    cr_assert_geq(shortest, OPEN_MS);
    cr_assert_leq(longest, OPEN_MS + OPEN_MS / 4);
    cr_assert_lt(shortest, OPEN_MS + 100);
    cr_assert_gt(longest, OPEN_MS + OPEN_MS / 4 - 100);
}

// -------------------------------------------------------------------------------------------
// probes

Test(breaker, lets_one_probe_at_a_time_through)
{
    begin();
    trip_at(1000, 0);
    struct breaker_pass probe = breaker_allow(&breaker, 40000);
    cr_assert_eq(probe.verdict, BREAKER_PROBE);
    for (unsigned i = 0; i < 100; i++) {
        struct breaker_pass pass = breaker_allow(&breaker, 40000 + 1000 * i);
        cr_assert_eq(pass.verdict, BREAKER_NO);
        cr_assert_eq(pass.wait_ms, 0);
    }
    breaker_report(&breaker, &probe, BREAKER_SUCCESS, 50000, 0);
    cr_assert_eq(breaker.state, BREAKER_HALF_OPEN, "one of two");
    probe = breaker_allow(&breaker, 50000);
    cr_assert_eq(probe.verdict, BREAKER_PROBE);
    breaker_report(&breaker, &probe, BREAKER_SUCCESS, 50000, 0);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    cr_assert_eq(breaker_allow(&breaker, 50000).verdict, BREAKER_YES);
}

Test(breaker, a_probe_whose_client_left_gives_its_place_back)
{
    begin();
    trip_at(1000, 0);
    for (unsigned i = 0; i < 1000; i++)
        attempt(40000 + i, BREAKER_CANCELLED);
    cr_assert_eq(breaker.state, BREAKER_HALF_OPEN);
    close_by_probes(50000);
}

Test(breaker, closing_begins_with_an_empty_window)
{
    begin();
    attempts(15, 30900, BREAKER_FAILURE);
    trip_at(30900, 0);
    close_by_probes(breaker.until_ms);
    attempts(19, breaker.until_ms, BREAKER_FAILURE);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
}

Test(breaker, as_many_probes_as_configured_and_one_bad_one_opens_again)
{
    struct breaker_config config = breaker_config_default;
    config.probes_max = 3;
    config.probe_successes = 3;
    breaker_init(&breaker, &config);
    trip_at(1000, 0);
    struct breaker_pass probe[3];
    for (unsigned i = 0; i < 3; i++) {
        probe[i] = breaker_allow(&breaker, 31000);
        cr_assert_eq(probe[i].verdict, BREAKER_PROBE);
    }
    cr_assert_eq(breaker_allow(&breaker, 31000).verdict, BREAKER_NO);
    breaker_report(&breaker, &probe[0], BREAKER_SUCCESS, 31000, 0);
    breaker_report(&breaker, &probe[1], BREAKER_FAILURE, 31000, 0);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    // A new round: the third, still out, is no news for it and holds no place in it.
    cr_assert_eq(breaker_allow(&breaker, 91000).verdict, BREAKER_PROBE);
    breaker_report(&breaker, &probe[2], BREAKER_FAILURE_HARD, 91000, 0);
    cr_assert_eq(breaker.state, BREAKER_HALF_OPEN);
    cr_assert_eq(breaker.probes_out, 1);
}

// --------------------------------------------------------------------------------------- reporting

Test(breaker, what_was_sent_before_the_last_move_changes_nothing)
{
    begin();
    struct breaker_pass old[40];
    for (unsigned i = 0; i < 40; i++)
        old[i] = breaker_allow(&breaker, 1000);
    trip_at(1000, 0);
    for (unsigned i = 0; i < 10; i++)
        breaker_report(&breaker, &old[i], BREAKER_SUCCESS, 2000, 0);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    close_by_probes(31000);
    for (unsigned i = 10; i < 40; i++)
        breaker_report(&breaker, &old[i], BREAKER_FAILURE_HARD, 32000, 0);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    cr_assert_eq(breaker.window.total, 0);
}

Test(breaker, a_pass_is_used_up_and_may_be_reported_again)
{
    static const enum breaker_result all[] = {BREAKER_CANCELLED, BREAKER_SUCCESS, BREAKER_FAILURE,
                                              BREAKER_FAILURE_HARD};
    for (unsigned first = 0; first < 4; first++)
        for (unsigned then = 0; then < 4; then++) {
            begin();
            struct breaker_pass pass = breaker_allow(&breaker, 1000);
            breaker_report(&breaker, &pass, all[first], 1000, 0);
            breaker_report(&breaker, &pass, all[then], 1000, 0);
            breaker_report(&breaker, &pass, BREAKER_CANCELLED, 1000, 0);
            breaker_report(&breaker, &pass, BREAKER_FAILURE, 1000, 0);
            bool success = first == 1, failure = first >= 2;
            bool regret = success && then >= 2;
            // After SUCCESS, CANCELLED ends it.
            cr_assert_eq(breaker.window.total, success + failure + regret, "%u %u", first, then);
            cr_assert_eq(breaker.window.marked, failure + regret, "%u %u", first, then);
        }
}

Test(breaker, reporting_a_pass_that_was_never_given_does_nothing)
{
    begin();
    struct breaker_pass none = {0};
    breaker_report(&breaker, &none, BREAKER_FAILURE_HARD, 1000, 0);
    cr_assert_eq(breaker.window.total, 0);
    trip_at(1000, 0);
    struct breaker_pass denied = breaker_allow(&breaker, 2000);
    breaker_report(&breaker, &denied, BREAKER_SUCCESS, 2000, 0);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

// Streams that all begin well and all break off.
Test(breaker, success_can_be_taken_back_and_twenty_broken_streams_trip)
{
    begin();
    struct breaker_pass pass[20];
    for (unsigned i = 0; i < 20; i++) {
        pass[i] = breaker_allow(&breaker, 1000);
        breaker_report(&breaker, &pass[i], BREAKER_SUCCESS, 1000, 0);
    }
    for (unsigned i = 0; i < 19; i++)
        breaker_report(&breaker, &pass[i], BREAKER_FAILURE, 1500, 0);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    breaker_report(&breaker, &pass[19], BREAKER_FAILURE, 1500, 0);
    cr_assert_eq(breaker.state, BREAKER_OPEN);
}

Test(breaker, the_probe_that_closed_it_can_be_taken_back_too)
{
    begin();
    trip_at(1000, 0);
    attempt(31000, BREAKER_SUCCESS);
    struct breaker_pass pass = breaker_allow(&breaker, 31000);
    breaker_report(&breaker, &pass, BREAKER_SUCCESS, 31000, 0);
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    breaker_report(&breaker, &pass, BREAKER_FAILURE, 32000, 0);
    cr_assert_eq(breaker.window.marked, 1);
}

Test(breaker, peeking_tells_the_same_and_takes_nothing)
{
    begin();
    cr_assert_eq(breaker_peek(&breaker, 0).verdict, BREAKER_YES);
    trip_at(1000, 0);
    struct breaker before = breaker;
    cr_assert_eq(breaker_peek(&breaker, 30999).verdict, BREAKER_NO);
    cr_assert_eq(breaker_peek(&breaker, 30999).wait_ms, 1);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(breaker_peek(&breaker, 31000).verdict, BREAKER_PROBE);
    cr_assert_eq(memcmp(&before, &breaker, sizeof before), 0);
    (void)breaker_allow(&breaker, 31000);
    cr_assert_eq(breaker_peek(&breaker, 31000).verdict, BREAKER_NO);
}

// -----------------------------------------------------------------------------------------
// property

enum { OUT_MAX = 64 };

static struct breaker_pass out[OUT_MAX];

static bool legal_move(unsigned from, unsigned to)
{
    return from == to || (from == BREAKER_CLOSED && to == BREAKER_OPEN) ||
           (from == BREAKER_OPEN && to == BREAKER_HALF_OPEN) ||
           (from == BREAKER_HALF_OPEN && to != BREAKER_HALF_OPEN);
}

static unsigned probes_held(void)
{
    unsigned held = 0;
    for (unsigned i = 0; i < OUT_MAX; i++)
        held += out[i].verdict == BREAKER_PROBE && out[i].round == breaker.round;
    return held;
}

static void one_random_step(uint64_t now_ms, unsigned health_percent)
{
    struct breaker_pass *pass = &out[dice() % OUT_MAX];
    if (pass->verdict == BREAKER_NO) {
        uint64_t until = breaker.until_ms;
        bool open = breaker.state == BREAKER_OPEN;
        *pass = breaker_allow(&breaker, now_ms);
        if (open)
            cr_assert_eq(pass->verdict, now_ms < until ? BREAKER_NO : BREAKER_PROBE);
        return;
    }
    unsigned roll = (unsigned)(dice() % 100);
    enum breaker_result result = BREAKER_FAILURE + dice() % 2;
    if (roll < 5)
        result = BREAKER_CANCELLED;
    else if (roll < health_percent)
        result = BREAKER_SUCCESS;
    breaker_report(&breaker, pass, result, now_ms, dice());
}

// Whatever happens in whatever order: only legal moves, never a lost or an invented place, and a
// provider that is well again is always asked again.
Test(breaker, keeps_its_laws_over_many_random_lives)
{
    for (unsigned life = 1; life <= 300; life++) {
        struct breaker_config config = breaker_config_default;
        dice_state = life * 0x9e3779b97f4a7c15u;
        config.probes_max = 1 + dice() % 4;
        config.probe_successes = 1 + dice() % 4;
        breaker_init(&breaker, &config);
        memset(out, 0, sizeof out);
        uint64_t now_ms = dice() % 1000000;
        unsigned health = 90;
        for (unsigned step = 0; step < 3000; step++) {
            unsigned before = breaker.state;
            if (dice() % 100 == 0)
                health = (unsigned)(dice() % 100);
            now_ms += dice() % 200 ? dice() % 100 : dice() % 100000;
            one_random_step(now_ms, health);
            cr_assert(legal_move(before, breaker.state), "life %u step %u", life, step);
            cr_assert_eq(probes_held(), breaker.probes_out, "life %u step %u", life, step);
            cr_assert_leq(breaker.probes_out, config.probes_max);
            cr_assert_leq(breaker.window.marked, breaker.window.total);
        }
        for (unsigned i = 0; i < OUT_MAX; i++)
            breaker_report(&breaker, &out[i], BREAKER_CANCELLED, now_ms, 0);
        now_ms += 2 * OPEN_MAX_MS;
        attempts(config.probe_successes, now_ms, BREAKER_SUCCESS);
        cr_assert_eq(breaker.state, BREAKER_CLOSED, "life %u", life);
    }
}

Test(breaker, states_have_names)
{
    cr_assert_str_eq(breaker_state_name(BREAKER_CLOSED), "closed");
    cr_assert_str_eq(breaker_state_name(BREAKER_OPEN), "open");
    cr_assert_str_eq(breaker_state_name(BREAKER_HALF_OPEN), "half_open");
}
