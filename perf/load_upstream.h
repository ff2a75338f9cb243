// SPDX-License-Identifier: MIT
//
// load_upstream: the provider of the bench. Answers every POST by the order in its body: a whole
// reply in one write, or a stream with one write a chunk. Streams that run back to back take turns:
// each may write one chunk, as fast as the sockets accept them.
#ifndef PERF_LOAD_UPSTREAM_H
#define PERF_LOAD_UPSTREAM_H

#include <stdint.h>

void upstream_listen(uint16_t port);
// Writes what is due: one chunk for each stream that may. Returns the milliseconds until there is
// more to do (0: at once, -1: nothing is planned).
int upstream_pump(void);
// Requests that could not be understood, streams whose reader left before the end.
uint64_t upstream_faults(void);

#endif
