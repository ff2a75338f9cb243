// SPDX-License-Identifier: MIT
//
// cputime: CPU time a process has used so far, to the nanosecond.
#ifndef TOOLS_CPUTIME_H
#define TOOLS_CPUTIME_H

#include <stdbool.h>
#include <stdint.h>

// This process, with threads that have ended.
uint64_t cputime_self(void);

// Another one: the sum over /proc/PID/task/*/schedstat, so without threads that have ended.
// False: there is no such process, or it cannot be looked at.
bool cputime_read(uint64_t pid, uint64_t *ns);

#endif
