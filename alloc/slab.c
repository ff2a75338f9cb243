// SPDX-License-Identifier: MIT
#include "alloc/slab.h"

#include "alloc/check.h"
#include "alloc/pages.h"

#define SLAB_MAGIC MAGIC('s', 'l', 'a', 'b')

void slab_open(struct slab *slab, const char *name, size_t object_size, uint32_t capacity)
{
    CHECK(object_size >= sizeof(uint32_t));
    CHECK(object_size < 1u << 20);
    CHECK(capacity > 0);
    *slab = (struct slab){
        .magic = SLAB_MAGIC,
        .object_size = (uint32_t)((object_size + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN),
        .capacity = capacity,
        .name = name,
    };
    slab->base = pages_reserve(slab_bytes(object_size, capacity));
}

void slab_close(struct slab *slab)
{
    CHECK_MAGIC(slab, SLAB_MAGIC);
    pages_release(slab->base, slab_bytes(slab->object_size, slab->capacity));
    slab->magic = 0;
}

void *slab_take(struct slab *slab)
{
    CHECK_MAGIC(slab, SLAB_MAGIC);
    uint32_t index;
    if (slab->free) {
        // A free object's first word links to the next free one.
        index = slab->free - 1;
        slab->free = *(uint32_t *)slab_at(slab, index);
    } else if (slab->untouched < slab->capacity) {
        index = slab->untouched++;
    } else {
        return NULL;
    }
    if (++slab->used > slab->peak)
        slab->peak = slab->used;
    return slab_at(slab, index);
}

void slab_give(struct slab *slab, void *object)
{
    CHECK_MAGIC(slab, SLAB_MAGIC);
    CHECK(slab->used > 0);
    uint32_t index = slab_index(slab, object);
    *(uint32_t *)object = slab->free;
    slab->free = index + 1;
    slab->used--;
}

uint32_t slab_index(const struct slab *slab, const void *object)
{
    size_t offset = (size_t)((const uint8_t *)object - slab->base);
    CHECK(offset % slab->object_size == 0);
    CHECK(offset / slab->object_size < slab->untouched);
    return (uint32_t)(offset / slab->object_size);
}
