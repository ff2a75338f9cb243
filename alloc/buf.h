// SPDX-License-Identifier: MIT
//
// buf: I/O buffers of one core, counted by reference.
//
// A pool holds `count` buffers of one size in one stretch of memory. Three pools per core:
//   BUF_RECEIVE  given to the kernel through the provided-buffer ring; filled by receives
//   BUF_WRITE    small; taken by us to write heads and short replies into
//   BUF_LARGE    few; a head that outgrew one receive buffer is put together here
//
// The life of a receive buffer:
//   ring ----------> kernel fills it ----> held (refs = 1: its receiver) ----> views are queued for
//    ^               and reports its id         |  buf_ref for each               sending
//    |                                          v
//    +--- end of turn: buf_to_ring <---- buf_unref: refs = 0, free
//
// A buffer has one state at a time, and in_ring + held == count at the end of every turn.
// Not thread-safe: a pool belongs to one core.
#ifndef ALLOC_BUF_H
#define ALLOC_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum buf_kind { BUF_RECEIVE, BUF_WRITE, BUF_LARGE };
enum buf_state { BUF_FREE, BUF_IN_RING, BUF_HELD };

struct buf_pool;

struct buf {
    struct buf_pool *pool;
    struct buf *next; // in the pool's free list, or in its holder's queue
    uint8_t *bytes;   // pool->size of them
    uint32_t refs;
    uint32_t filled; // bytes of it in use, if its holder keeps count; 0 when taken
    uint16_t id;     // its number in the pool
    uint8_t state;   // enum buf_state
};

struct buf_pool {
    uint32_t magic;
    enum buf_kind kind;
    uint32_t count, size;
    uint32_t free;    // BUF_FREE ones
    uint32_t in_ring; // BUF_IN_RING ones
    uint32_t low;     // fewest ever available (free + in_ring)
    uint8_t *memory;
    struct buf *bufs;
    struct buf *first_free;
};

void buf_pool_open(struct buf_pool *pool, enum buf_kind kind, uint32_t count, uint32_t size);
void buf_pool_close(struct buf_pool *pool);

// A free buffer with one reference, or NULL.
struct buf *buf_take(struct buf_pool *pool);

// Ring traffic (BUF_RECEIVE only). buf_to_ring() takes any free buffer for the ring, NULL if none.
struct buf *buf_to_ring(struct buf_pool *pool);
// The kernel filled buffer `id`: it is held now, with one reference.
struct buf *buf_from_ring(struct buf_pool *pool, uint32_t id);

static inline void buf_ref(struct buf *buf)
{
    buf->refs++;
}

// Drop a reference; the last one frees the buffer.
void buf_unref(struct buf *buf);

// Buffers a receive could still be given.
static inline uint32_t buf_available(const struct buf_pool *pool)
{
    return pool->free + pool->in_ring;
}

// Every buffer is counted once: a check for the end of a turn and for tests.
void buf_pool_check(const struct buf_pool *pool);

#endif
