// SPDX-License-Identifier: MIT
#include "alloc/pages.h"

#include <sys/mman.h>

#include "alloc/check.h"

void *pages_reserve(size_t bytes)
{
    // NORESERVE: the budget is printed by `tokenring check`; overcommit must not refuse what is
    // mostly never touched.
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(pages != MAP_FAILED);
    // Huge pages would make the first idle connection cost 2 MiB.
    madvise(pages, bytes, MADV_NOHUGEPAGE);
    return pages;
}

void pages_release(void *pages, size_t bytes)
{
    CHECK(munmap(pages, bytes) == 0);
}
