// SPDX-License-Identifier: MIT
#include "perf/load_window.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "perf/load_loop.h"

enum { SLOTS = 65536 }; // streams in flight are far fewer, so that nonces do not meet in one

static _Atomic uint32_t *slots;

void window_init(const char *file)
{
    size_t bytes = SLOTS * sizeof *slots;
    int fd = file ? open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file && (fd < 0 || ftruncate(fd, (off_t)bytes)))
        die(file);
    slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                 file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
    if (slots == MAP_FAILED)
        die("window");
    if (file)
        close(fd);
}

void window_set(uint32_t nonce, uint32_t chunks)
{
    atomic_store_explicit(&slots[nonce % SLOTS], chunks, memory_order_release);
}

uint32_t window_get(uint32_t nonce)
{
    return atomic_load_explicit(&slots[nonce % SLOTS], memory_order_acquire);
}
