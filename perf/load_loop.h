// SPDX-License-Identifier: MIT
//
// load_loop: the one thread of perf-load: sockets that become ready, level triggered, by epoll.
#ifndef PERF_LOAD_LOOP_H
#define PERF_LOAD_LOOP_H

#include <stdbool.h>
#include <stdint.h>

// Embedded as the first member of whatever owns the socket.
struct source {
    void (*ready)(struct source *source, uint32_t events);
    int fd;
};

void loop_init(void);
void loop_add(struct source *source);
void loop_want_write(struct source *source, bool want);
// Forgets and closes the socket. The owner may be freed: events of this turn that still name it are
// dropped.
void loop_close(struct source *source);
// Waits up to timeout_ms (0: not at all) and hands out what is ready.
void loop_turn(int timeout_ms);

uint64_t now_ns(void);
_Noreturn void die(const char *what);
void nodelay(int fd);

#endif
