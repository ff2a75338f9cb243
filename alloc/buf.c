// SPDX-License-Identifier: MIT
#include "alloc/buf.h"

#include "alloc/check.h"
#include "alloc/heap.h"
#include "alloc/pages.h"

#define BUF_POOL_MAGIC MAGIC('b', 'u', 'f', 'p')

void buf_pool_open(struct buf_pool *pool, enum buf_kind kind, uint32_t count, uint32_t size)
{
    CHECK(count > 0 && count <= 32768);
    *pool = (struct buf_pool){
        .magic = BUF_POOL_MAGIC,
        .kind = kind,
        .count = count,
        .size = size,
        .free = count,
        .low = count,
    };
    pool->memory = pages_reserve((size_t)count * size);
    pool->bufs = heap_alloc(count * sizeof *pool->bufs);
    for (uint32_t i = count; i-- > 0;) {
        struct buf *buf = &pool->bufs[i];
        *buf = (struct buf){.pool = pool,
                            .bytes = pool->memory + (size_t)i * size,
                            .id = (uint16_t)i,
                            .state = BUF_FREE,
                            .next = pool->first_free};
        pool->first_free = buf;
    }
}

void buf_pool_close(struct buf_pool *pool)
{
    CHECK_MAGIC(pool, BUF_POOL_MAGIC);
    pages_release(pool->memory, (size_t)pool->count * pool->size);
    heap_free(pool->bufs);
    pool->magic = 0;
}

static struct buf *pop_free(struct buf_pool *pool)
{
    CHECK_MAGIC(pool, BUF_POOL_MAGIC);
    struct buf *buf = pool->first_free;
    if (!buf)
        return NULL;
    CHECK(buf->state == BUF_FREE);
    CHECK(buf->refs == 0);
    pool->first_free = buf->next;
    buf->next = NULL;
    pool->free--;
    return buf;
}

static void note_low(struct buf_pool *pool)
{
    if (buf_available(pool) < pool->low)
        pool->low = buf_available(pool);
}

struct buf *buf_take(struct buf_pool *pool)
{
    struct buf *buf = pop_free(pool);
    if (!buf)
        return NULL;
    buf->state = BUF_HELD;
    buf->refs = 1;
    buf->filled = 0;
    note_low(pool);
    return buf;
}

struct buf *buf_to_ring(struct buf_pool *pool)
{
    struct buf *buf = pop_free(pool);
    if (!buf)
        return NULL;
    buf->state = BUF_IN_RING;
    pool->in_ring++;
    return buf;
}

struct buf *buf_from_ring(struct buf_pool *pool, uint32_t id)
{
    CHECK_MAGIC(pool, BUF_POOL_MAGIC);
    CHECK(id < pool->count);
    struct buf *buf = &pool->bufs[id];
    CHECK(buf->state == BUF_IN_RING);
    buf->state = BUF_HELD;
    buf->refs = 1;
    buf->filled = 0;
    pool->in_ring--;
    note_low(pool);
    return buf;
}

void buf_unref(struct buf *buf)
{
    CHECK(buf->state == BUF_HELD);
    CHECK(buf->refs > 0);
    if (--buf->refs > 0)
        return;
    struct buf_pool *pool = buf->pool;
    CHECK_MAGIC(pool, BUF_POOL_MAGIC);
    buf->state = BUF_FREE;
    buf->next = pool->first_free;
    pool->first_free = buf;
    pool->free++;
}

void buf_pool_check(const struct buf_pool *pool)
{
    uint32_t free = 0, in_ring = 0;
    for (uint32_t i = 0; i < pool->count; i++) {
        free += pool->bufs[i].state == BUF_FREE;
        in_ring += pool->bufs[i].state == BUF_IN_RING;
    }
    CHECK(free == pool->free);
    CHECK(in_ring == pool->in_ring);
}
