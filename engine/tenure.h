// SPDX-License-Identifier: MIT
//
// tenure: a config's time in force, and after it, until no exchange that began under it runs.
//
// A config and its TLS contexts are immutable and shared by all cores. Each core counts for itself
// and gives up its one hold (gateway.h, struct edition); when the last one has, control frees them.
#ifndef ENGINE_TENURE_H
#define ENGINE_TENURE_H

#include "alloc/list.h"
#include "engine/config.h"
#include "engine/trust.h"

enum { TENURES_MAX = 64 }; // configs that are still needed; a reload beyond that is refused

struct tenure {
    struct list all;
    const struct config *config;
    struct config *owned; // the same, if it is ours to free
    struct trust *trust;
    _Atomic uint32_t holders;
};

struct tenures {
    struct list all; // oldest first
    uint32_t count;
};

void tenures_open(struct tenures *tenures);
struct tenure *tenure_begin(struct tenures *tenures, const struct config *config,
                            struct config *owned, struct trust *trust, uint32_t holders);
// Free those nobody holds, but for `current`. Returns how many are left.
uint32_t tenures_sweep(struct tenures *tenures, const struct tenure *current);

#endif
