// SPDX-License-Identifier: MIT
//
// Proves that a slab hands out each object once, reuses the warmest first, keeps indexes stable,
// and stops at foreign pointers.
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "alloc/slab.h"

enum { COUNT = 100, SIZE = 100 };

static struct slab slab;

static void open_slab(void)
{
    slab_open(&slab, "test", SIZE, COUNT);
}

static void close_slab(void)
{
    slab_close(&slab);
}

TestSuite(slab, .init = open_slab, .fini = close_slab);

Test(slab, gives_as_many_as_promised_and_then_null)
{
    void *taken[COUNT];
    for (int i = 0; i < COUNT; i++) {
        taken[i] = slab_take(&slab);
        cr_assert_not_null(taken[i]);
        memset(taken[i], i, SIZE);
    }
    cr_assert_null(slab_take(&slab));
    cr_assert_eq(slab.used, COUNT);
    for (int i = 0; i < COUNT; i++) {
        uint8_t *bytes = taken[i];
        for (int b = 0; b < SIZE; b++)
            cr_assert_eq(bytes[b], i, "objects do not overlap");
    }
    slab_give(&slab, taken[7]);
    cr_assert_eq(slab_take(&slab), taken[7]);
    cr_assert_null(slab_take(&slab));
}

Test(slab, the_last_one_given_back_is_the_next_one_taken)
{
    void *a = slab_take(&slab), *b = slab_take(&slab), *c = slab_take(&slab);
    slab_give(&slab, b);
    slab_give(&slab, a);
    slab_give(&slab, c);
    cr_assert_eq(slab_take(&slab), c);
    cr_assert_eq(slab_take(&slab), a);
    cr_assert_eq(slab_take(&slab), b);
}

Test(slab, index_and_address_tell_the_same)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        void *object = slab_take(&slab);
        cr_assert_eq(slab_index(&slab, object), i);
        cr_assert_eq(slab_at(&slab, i), object);
        cr_assert_eq((uintptr_t)object % SLAB_ALIGN, 0);
    }
}

Test(slab, an_object_never_used_is_zero)
{
    uint8_t *fresh = slab_take(&slab);
    for (int b = 0; b < SIZE; b++)
        cr_assert_eq(fresh[b], 0);
}

// A connection's generation lives behind the first word and must survive the free list.
Test(slab, only_the_first_word_changes_while_an_object_is_free)
{
    uint8_t *object = slab_take(&slab);
    memset(object, 0xA5, SIZE);
    slab_give(&slab, object);
    cr_assert_eq(slab_take(&slab), object);
    for (int b = sizeof(uint32_t); b < SIZE; b++)
        cr_assert_eq(object[b], 0xA5);
}

Test(slab, counts_what_is_used_and_the_most_that_ever_was)
{
    void *a = slab_take(&slab), *b = slab_take(&slab);
    slab_give(&slab, a);
    cr_assert_eq(slab.used, 1);
    cr_assert_eq(slab.peak, 2);
    cr_assert_eq(slab.untouched, 2, "reused before new ones are touched");
    (void)slab_take(&slab);
    cr_assert_eq(slab.untouched, 2);
    slab_give(&slab, b);
    cr_assert_eq(slab.peak, 2);
}

Test(slab, rounds_the_budget_up_to_whole_objects)
{
    cr_assert_eq(slab_bytes(1, 10), 10 * SLAB_ALIGN);
    cr_assert_eq(slab_bytes(SLAB_ALIGN, 10), 10 * SLAB_ALIGN);
    cr_assert_eq(slab_bytes(SLAB_ALIGN + 1, 10), 20 * SLAB_ALIGN);
}

Test(slab, stops_at_a_pointer_into_the_middle, .signal = SIGABRT)
{
    uint8_t *object = slab_take(&slab);
    slab_give(&slab, object + 8);
}

Test(slab, stops_at_an_object_it_never_gave, .signal = SIGABRT)
{
    (void)slab_take(&slab);
    slab_give(&slab, slab_at(&slab, 5));
}

Test(slab, stops_when_more_comes_back_than_was_taken, .signal = SIGABRT)
{
    void *object = slab_take(&slab);
    slab_give(&slab, object);
    slab_give(&slab, object);
}
