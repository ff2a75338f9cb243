// SPDX-License-Identifier: MIT
//
// Proves that every usable target is yielded exactly once, the first by weight, those with a closed
// breaker before the others, and an open one only when there is nothing else. PAINS: 10, 21 and the
// hanging provider among the extras (each ends in "then the next target").
#include <criterion/criterion.h>
#include <string.h>

#include "engine/order.h"

static const struct breaker_pass YES = {.verdict = BREAKER_YES};
static const struct breaker_pass PROBE = {.verdict = BREAKER_PROBE};

static struct breaker_pass no(uint32_t wait_ms)
{
    return (struct breaker_pass){.wait_ms = wait_ms};
}

static struct config_model model;

static void set_model(unsigned count, const uint32_t *weights)
{
    memset(&model, 0, sizeof model);
    model.target_count = count;
    for (unsigned i = 0; i < count; i++)
        model.target[i] = (struct config_target){.provider = (uint16_t)i, .weight = weights[i]};
}

static uint64_t dice_state;

static uint64_t dice(void) // xorshift
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state;
}

// All that is yielded, as text: targets as letters, a last resort in capitals.
static const char *yielded(struct order order, const struct breaker_pass *peek, uint64_t random)
{
    static char text[CONFIG_TARGETS_MAX + 2];
    size_t len = 0;
    while (len <= CONFIG_TARGETS_MAX) {
        bool more = order_more(&order, &model, peek);
        struct order_pick pick = order_next(&order, &model, peek, random);
        cr_assert_eq(more, pick.target != ORDER_END && !pick.last_resort);
        if (pick.target == ORDER_END)
            break;
        text[len++] = (char)((pick.last_resort ? 'A' : 'a') + pick.target);
    }
    text[len] = '\0';
    return text;
}

static const struct order fresh;

Test(order, a_single_target)
{
    set_model(1, (uint32_t[]){1});
    cr_assert_str_eq(yielded(fresh, &YES, 5), "a");
    cr_assert_str_eq(yielded(fresh, &PROBE, 5), "a");
    struct breaker_pass open = no(30000);
    cr_assert_str_eq(yielded(fresh, &open, 5), "A");
    struct breaker_pass never = ORDER_NEVER;
    cr_assert_str_eq(yielded(fresh, &never, 5), "");
}

Test(order, the_first_by_dice_the_others_by_weight)
{
    set_model(4, (uint32_t[]){1, 3, 2, 3});
    struct breaker_pass peek[] = {YES, YES, YES, YES};
    static const char *const expected[] = {"abdc", "bdca", "bdca", "bdca", "cbda",
                                           "cbda", "dbca", "dbca", "dbca"};
    for (uint64_t random = 0; random < 27; random++)
        cr_assert_str_eq(yielded(fresh, peek, random), expected[random % 9], "%lu",
                         (unsigned long)random);
}

Test(order, the_dice_are_thrown_among_the_usable_only)
{
    set_model(3, (uint32_t[]){5, 1, 1});
    struct breaker_pass peek[] = {no(10), YES, YES};
    cr_assert_str_eq(yielded(fresh, peek, 0), "bc");
    cr_assert_str_eq(yielded(fresh, peek, 1), "cb");
    cr_assert_str_eq(yielded(fresh, peek, 2), "bc");
}

// Traffic must reach a target that wants a probe, or it would never be closed again; a second
// attempt goes where it is safest.
Test(order, a_probe_may_come_first_but_follows_the_closed_ones_later)
{
    set_model(3, (uint32_t[]){9, 1, 2});
    struct breaker_pass peek[] = {PROBE, YES, YES};
    cr_assert_str_eq(yielded(fresh, peek, 0), "acb");
    cr_assert_str_eq(yielded(fresh, peek, 9), "bca");
}

Test(order, open_ones_are_not_asked_after_others_failed)
{
    set_model(3, (uint32_t[]){1, 1, 1});
    struct breaker_pass peek[] = {no(5), YES, no(0)};
    cr_assert_str_eq(yielded(fresh, peek, 0), "b");
}

Test(order, if_all_are_open_the_one_that_opens_soonest)
{
    set_model(4, (uint32_t[]){1, 1, 1, 1});
    cr_assert_str_eq(yielded(fresh, (struct breaker_pass[]){no(9), no(8), no(7), no(8)}, 1), "C");
    cr_assert_str_eq(yielded(fresh, (struct breaker_pass[]){no(7), no(8), no(7), no(8)}, 1), "A");
    // The smallest wait of all, but it cannot serve the request, or takes no traffic.
    cr_assert_str_eq(yielded(fresh, (struct breaker_pass[]){no(9), ORDER_NEVER, no(9), no(8)}, 1),
                     "D");
    model.target[3].weight = 0;
    cr_assert_str_eq(yielded(fresh, (struct breaker_pass[]){no(9), no(9), no(9), no(0)}, 1), "A");
}

Test(order, weight_zero_takes_no_traffic)
{
    set_model(3, (uint32_t[]){0, 2, 0});
    struct breaker_pass peek[] = {YES, YES, YES};
    for (uint64_t random = 0; random < 10; random++)
        cr_assert_str_eq(yielded(fresh, peek, random), "b");
}

Test(order, verdicts_are_looked_at_each_time)
{
    struct order order = {0};
    set_model(3, (uint32_t[]){1, 1, 1});
    struct breaker_pass peek[] = {YES, YES, YES};
    cr_assert_eq(order_next(&order, &model, peek, 0).target, 0);
    peek[1] = no(10);
    cr_assert_eq(order_next(&order, &model, peek, 0).target, 2);
    cr_assert_eq(order_next(&order, &model, peek, 0).target, ORDER_END);
    peek[1] = PROBE; // open again meanwhile
    cr_assert_eq(order_next(&order, &model, peek, 0).target, 1);
    cr_assert_eq(order_next(&order, &model, peek, 0).target, ORDER_END);
}

Test(order, a_provider_can_be_dropped_with_all_its_targets)
{
    struct order order = {0};
    set_model(4, (uint32_t[]){1, 1, 1, 1});
    model.target[2].provider = 0;
    struct breaker_pass peek[] = {YES, YES, YES, YES};
    order_drop_provider(&order, &model, 0);
    cr_assert_str_eq(yielded(order, peek, 0), "bd");
    order_drop_provider(&order, &model, 1);
    order_drop_provider(&order, &model, 3);
    cr_assert_str_eq(yielded(order, peek, 0), "");
    // Dropped ones are no last resort either.
    cr_assert_str_eq(yielded(order, (struct breaker_pass[]){no(1), no(1), no(1), no(1)}, 0), "");
}

Test(order, the_first_choice_follows_the_weights)
{
    static const uint32_t weights[] = {1, 3, 0, 6, UINT32_MAX / 1000};
    unsigned hits[5] = {0};
    struct breaker_pass peek[] = {YES, PROBE, YES, YES, no(1)};
    set_model(5, weights);
    dice_state = 31337;
    for (unsigned i = 0; i < 100000; i++) {
        struct order order = {0};
        hits[order_next(&order, &model, peek, dice()).target]++;
    }
    cr_assert_float_eq((double)hits[0], 10000, 500);
    cr_assert_float_eq((double)hits[1], 30000, 700);
    cr_assert_float_eq((double)hits[3], 60000, 700);
    cr_assert_eq(hits[2] + hits[4], 0);
}

Test(order, the_largest_weights_add_up)
{
    uint32_t weights[CONFIG_TARGETS_MAX];
    struct breaker_pass peek[CONFIG_TARGETS_MAX];
    for (unsigned i = 0; i < CONFIG_TARGETS_MAX; i++) {
        weights[i] = UINT32_MAX;
        peek[i] = YES;
    }
    set_model(CONFIG_TARGETS_MAX, weights);
    struct order order = {0};
    uint64_t last = (uint64_t)UINT32_MAX * CONFIG_TARGETS_MAX - 1;
    cr_assert_eq(order_next(&order, &model, peek, last).target, CONFIG_TARGETS_MAX - 1);
    order = fresh;
    cr_assert_eq(order_next(&order, &model, peek, last + 1).target, 0);
}

static void expect_laws(const char *text, const struct breaker_pass *peek)
{
    unsigned seen = 0, usable = 0, last_closed = 0;
    for (unsigned i = 0; i < model.target_count; i++)
        usable += peek[i].verdict != BREAKER_NO && model.target[i].weight > 0;
    for (unsigned n = 0; text[n]; n++) {
        bool last_resort = text[n] < 'a';
        unsigned i = (unsigned)(text[n] - (last_resort ? 'A' : 'a'));
        cr_assert_eq(seen >> i & 1, 0, "%s: twice", text);
        seen |= 1u << i;
        cr_assert_gt(model.target[i].weight, 0, "%s", text);
        cr_assert_eq(last_resort, usable == 0, "%s", text);
        cr_assert_eq(peek[i].verdict == BREAKER_NO, last_resort, "%s", text);
        if (peek[i].verdict == BREAKER_YES)
            last_closed = n;
        else if (n > 0)
            cr_assert_geq(n, last_closed, "%s: a probe before a closed one", text);
    }
    cr_assert_eq((unsigned)__builtin_popcount(seen), usable ? usable : strlen(text), "%s", text);
    cr_assert_leq(strlen(text), usable ? usable : 1);
}

Test(order, keeps_its_laws_for_random_models_and_verdicts)
{
    dice_state = 777;
    for (unsigned round = 0; round < 50000; round++) {
        uint32_t weights[CONFIG_TARGETS_MAX];
        struct breaker_pass peek[CONFIG_TARGETS_MAX];
        unsigned count = 1 + (unsigned)(dice() % CONFIG_TARGETS_MAX);
        unsigned open_percent = dice() % 4 ? 30 : 100;
        for (unsigned i = 0; i < count; i++) {
            weights[i] = (uint32_t)(dice() % 5);
            peek[i] = dice() % 2 ? YES : PROBE;
            if (dice() % 100 < open_percent)
                peek[i] = no((uint32_t)(dice() % 60000));
        }
        set_model(count, weights);
        expect_laws(yielded(fresh, peek, dice()), peek);
    }
}
