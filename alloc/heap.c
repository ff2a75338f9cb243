// SPDX-License-Identifier: MIT
#include "alloc/heap.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/check.h"

static _Atomic uint64_t calls;
static _Atomic uint64_t live;

static void count_call(void)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
}

void *heap_alloc(size_t size)
{
    count_call();
    void *memory = calloc(1, size ? size : 1);
    CHECK(memory != NULL);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return memory;
}

void *heap_resize(void *memory, size_t size)
{
    if (!memory)
        return heap_alloc(size);
    count_call();
    void *moved = realloc(memory, size ? size : 1);
    CHECK(moved != NULL);
    return moved;
}

void heap_free(void *memory)
{
    if (!memory)
        return;
    count_call();
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(memory);
}

char *heap_copy(const char *text)
{
    CHECK(text != NULL);
    size_t len = strlen(text);
    char *copy = heap_alloc(len + 1);
    memcpy(copy, text, len);
    return copy;
}

char *heap_format(const char *format, ...)
{
    CHECK(format != NULL);
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(len >= 0);
    char *text = heap_alloc((size_t)len + 1);
    int written = vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    CHECK(written == len);
    return text;
}

void heap_lock_down(void)
{
    atomic_store_explicit(&calls, 0, memory_order_relaxed);
}

uint64_t heap_calls(void)
{
    return atomic_load_explicit(&calls, memory_order_relaxed);
}

uint64_t heap_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}
