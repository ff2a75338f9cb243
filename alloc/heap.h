// SPDX-License-Identifier: MIT
//
// heap: the one door to the general allocator.
//
// Everything of the program that lives on the heap comes through here, and nothing on the serving
// path does: pools, slabs and rings take their memory when they are made, and config when it is
// loaded. The door counts, so that a test can compare heap_calls() before and after a stretch of
// pure serving; none does yet (docs/INVARIANTS.md, law 14). TLS sessions and cold work (a reload,
// an admin page) come through here too.
//
// The allocator behind the door is jemalloc wherever it is linked: Debian's libjemalloc takes the
// place of malloc and its kin at link time, so plain calloc, realloc and free below are jemalloc's,
// and so are those of the libraries. Under a sanitizer they are the sanitizer's.
//
// Memory is zeroed when it is handed out, and running out of it stops the process: budgets are
// computed at start so that it never happens while serving.
#ifndef ALLOC_HEAP_H
#define ALLOC_HEAP_H

#include <stddef.h>
#include <stdint.h>

// `size` zeroed bytes (at least one); never NULL.
__attribute__((malloc, warn_unused_result, returns_nonnull)) void *heap_alloc(size_t size);

// Grow or shrink; `memory` may be NULL. Bytes beyond the old size are NOT zeroed. Never NULL.
__attribute__((warn_unused_result, returns_nonnull)) void *heap_resize(void *memory, size_t size);

// Give back; NULL is fine.
void heap_free(void *memory);

// A copy of a string, and a formatted string, both to be given to heap_free.
__attribute__((malloc, warn_unused_result, returns_nonnull)) char *heap_copy(const char *text);
__attribute__((malloc, warn_unused_result, returns_nonnull, format(printf, 1, 2))) char *
heap_format(const char *format, ...);

// Count from zero.
void heap_lock_down(void);

// How often memory was taken, resized or given back since the last heap_lock_down(), or since the
// process began. Any thread may ask; the counter is a relaxed atomic.
uint64_t heap_calls(void);

// Blocks handed out and not given back yet: the same before and after says that nothing leaked.
uint64_t heap_live(void);

#endif
