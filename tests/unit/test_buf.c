// SPDX-License-Identifier: MIT
//
// Proves that a buffer is in one state at a time, that its last reference frees it, and that every
// wrong move stops the process.
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "alloc/buf.h"

enum { COUNT = 8, SIZE = 256 };

static struct buf_pool pool;

static void open_pool(void)
{
    buf_pool_open(&pool, BUF_RECEIVE, COUNT, SIZE);
}

static void close_pool(void)
{
    buf_pool_close(&pool);
}

TestSuite(buf, .init = open_pool, .fini = close_pool);

static void expect(uint32_t free, uint32_t in_ring)
{
    buf_pool_check(&pool);
    cr_assert_eq(pool.free, free);
    cr_assert_eq(pool.in_ring, in_ring);
    cr_assert_eq(buf_available(&pool), free + in_ring);
}

Test(buf, a_new_pool_is_all_free)
{
    expect(COUNT, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        cr_assert_eq(pool.bufs[i].id, i);
        cr_assert_eq(pool.bufs[i].bytes, pool.memory + i * SIZE);
    }
}

Test(buf, takes_all_and_then_none)
{
    struct buf *taken[COUNT];
    for (int i = 0; i < COUNT; i++) {
        taken[i] = buf_take(&pool);
        cr_assert_not_null(taken[i]);
        memset(taken[i]->bytes, i, SIZE);
    }
    cr_assert_null(buf_take(&pool));
    cr_assert_null(buf_to_ring(&pool));
    expect(0, 0);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(taken[i]->bytes[0], i);
        cr_assert_eq(taken[i]->bytes[SIZE - 1], i, "buffers do not overlap");
        buf_unref(taken[i]);
    }
    expect(COUNT, 0);
}

Test(buf, the_round_trip_of_a_receive_buffer)
{
    struct buf *buf = buf_to_ring(&pool);
    cr_assert_eq(buf->state, BUF_IN_RING);
    expect(COUNT - 1, 1);
    cr_assert_eq(buf_from_ring(&pool, buf->id), buf);
    cr_assert_eq(buf->state, BUF_HELD);
    cr_assert_eq(buf->refs, 1);
    expect(COUNT - 1, 0);
    buf_unref(buf);
    cr_assert_eq(buf->state, BUF_FREE);
    expect(COUNT, 0);
}

Test(buf, the_last_reference_frees)
{
    struct buf *buf = buf_take(&pool);
    buf_ref(buf);
    buf_ref(buf);
    buf_unref(buf);
    buf_unref(buf);
    expect(COUNT - 1, 0);
    cr_assert_eq(buf->state, BUF_HELD);
    buf_unref(buf);
    expect(COUNT, 0);
}

Test(buf, the_warmest_is_taken_first)
{
    struct buf *a = buf_take(&pool), *b = buf_take(&pool);
    buf_unref(a);
    buf_unref(b);
    cr_assert_eq(buf_take(&pool), b);
    cr_assert_eq(buf_take(&pool), a);
}

Test(buf, remembers_the_fewest_ever_available)
{
    struct buf *a = buf_to_ring(&pool), *b = buf_take(&pool);
    cr_assert_eq(pool.low, COUNT - 1, "in the ring is available");
    (void)buf_from_ring(&pool, a->id);
    cr_assert_eq(pool.low, COUNT - 2);
    buf_unref(a);
    buf_unref(b);
    cr_assert_eq(pool.low, COUNT - 2);
}

Test(buf, stops_at_a_reference_dropped_twice, .signal = SIGABRT)
{
    struct buf *buf = buf_take(&pool);
    buf_unref(buf);
    buf_unref(buf);
}

Test(buf, stops_when_the_kernel_names_a_buffer_it_was_not_given, .signal = SIGABRT)
{
    (void)buf_from_ring(&pool, 3);
}

Test(buf, stops_when_the_kernel_fills_a_buffer_twice, .signal = SIGABRT)
{
    struct buf *buf = buf_to_ring(&pool);
    (void)buf_from_ring(&pool, buf->id);
    (void)buf_from_ring(&pool, buf->id);
}

Test(buf, stops_at_an_id_out_of_range, .signal = SIGABRT)
{
    (void)buf_from_ring(&pool, COUNT);
}

Test(buf, stops_when_a_buffer_in_the_ring_is_dropped, .signal = SIGABRT)
{
    buf_unref(buf_to_ring(&pool));
}

Test(buf, the_check_finds_a_buffer_that_is_not_counted, .signal = SIGABRT)
{
    pool.bufs[2].state = BUF_HELD;
    buf_pool_check(&pool);
}
