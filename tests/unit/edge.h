// SPDX-License-Identifier: MIT
//
// edge: puts test input against an unreadable page: a parser that reads one byte too far faults.
//
//     [ ........ room ........ | input ][ guard page: PROT_NONE ]
//                                       ^ edge_put(...) + len
//
//   uint8_t *at = edge_put(bytes, len);   // at[len] cannot be read
//   parse(at, len);
//
// One place per test program: the bytes are good until the next edge_put, which overwrites them. An
// empty input gives a pointer to the guard page itself. Needs no clean-up, no linking: include it.
#ifndef TESTS_UNIT_EDGE_H
#define TESTS_UNIT_EDGE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t *edge_room;
static size_t edge_room_bytes;

// Map room for `len` bytes (whole pages) and a guard page behind it.
static inline void edge_grow(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (len + page - 1) / page * page;
    if (bytes < 64 * page)
        bytes = 64 * page;
    if (edge_room)
        munmap(edge_room, edge_room_bytes + page);
    void *room =
        mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED || mprotect((uint8_t *)room + bytes, page, PROT_NONE) != 0) {
        perror("edge: cannot map a guard page");
        abort();
    }
    edge_room = room;
    edge_room_bytes = bytes;
}

// Copy bytes[0..len) so that its last byte is the last readable one; `bytes` lies elsewhere.
static inline uint8_t *edge_put(const void *bytes, size_t len)
{
    if (!edge_room || len > edge_room_bytes)
        edge_grow(len);
    uint8_t *at = edge_room + edge_room_bytes - len;
    if (len)
        memcpy(at, bytes, len);
    return at;
}

#endif
