// SPDX-License-Identifier: MIT
//
// sweep: runs a simulation for many seeds and reports in TAP.
//
// The seeds run in a child process, so that a violation, a failed CHECK or a sanitizer's finding
// ends one seed and not the report: the seed is named with the command that replays it, and the
// sweep goes on behind it until too many failed. A single seed (--seed) runs in this process, where
// a debugger sees it.
//
// Three tests: every seed passes; a seed run again leaves the same trace hash (checked on every
// SWEEP_REPLAY_EVERYth seed); and the census: over SWEEP_CENSUS_SEEDS seeds or more, each situation
// that is counted was met.
#ifndef TESTS_SIM_SWEEP_H
#define TESTS_SIM_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

enum { SWEEP_CENSUS_SEEDS = 2000, SWEEP_REPLAY_EVERY = 16, SWEEP_FAILURES_MAX = 5 };

struct sweep {
    const char *name;                           // of the program
    const char *proves;                         // first line of --help
    uint64_t (*run)(uint64_t seed, bool trace); // returns the trace hash; aborts on failure
    // Situations of this program, besides those of sim.h.
    unsigned situation_count;
    const char *const *situation_names;
    uint64_t **counts; // set by sweep_main before the first run
    // Situations of sim.h that this program cannot meet, NULL-terminated; NULL: it can meet all.
    const char *const *never;
};

int sweep_main(int argc, char **argv, const struct sweep *sweep);

#endif
