// SPDX-License-Identifier: MIT
//
// slab: a fixed number of objects of one size, for one core.
//
// The whole range is reserved at start and touched only as objects are first used: a slab for
// 10,000 connections costs nothing until they come. Freed objects are reused last in, first out,
// while they are still in the cache. An object has a stable index, which is what travels through
// the kernel as user_data instead of a pointer. Not thread-safe: a slab belongs to one core.
//
//   slab_open -> slab_take / slab_give ... -> slab_close
//
// slab_take() returns NULL when all are taken: an expected answer, with a ready refusal behind it.
// Contents of a taken object are undefined, except that memory never used before is zero.
#ifndef ALLOC_SLAB_H
#define ALLOC_SLAB_H

#include <stddef.h>
#include <stdint.h>

struct slab {
    uint32_t magic;
    uint32_t object_size; // rounded up to SLAB_ALIGN
    uint32_t capacity;
    uint32_t used;
    uint32_t peak;      // most ever used at once
    uint32_t untouched; // objects at and above this index were never used
    uint32_t free;      // index + 1 of the first free object, 0: none
    uint8_t *base;
    const char *name;
};

enum { SLAB_ALIGN = 64 };

void slab_open(struct slab *slab, const char *name, size_t object_size, uint32_t capacity);
void slab_close(struct slab *slab);

void *slab_take(struct slab *slab);
void slab_give(struct slab *slab, void *object);

static inline void *slab_at(const struct slab *slab, uint32_t index)
{
    return slab->base + (size_t)index * slab->object_size;
}

uint32_t slab_index(const struct slab *slab, const void *object);

// Address space a slab of this shape reserves: for `tokenring check`.
static inline uint64_t slab_bytes(size_t object_size, uint32_t capacity)
{
    return (uint64_t)((object_size + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN) * capacity;
}

#endif
