// SPDX-License-Identifier: MIT
//
// load_window: how many chunks of each stream the client has checked, in memory that the upstream
// sees too. An order with a window lets the upstream run no further ahead than that. Client and
// upstream may be one process, or two that share a file.
#ifndef PERF_LOAD_WINDOW_H
#define PERF_LOAD_WINDOW_H

#include <stdint.h>

// file: where the two processes meet, created if need be; NULL: one process.
void window_init(const char *file);
void window_set(uint32_t nonce, uint32_t chunks);
uint32_t window_get(uint32_t nonce);

#endif
