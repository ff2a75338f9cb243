// SPDX-License-Identifier: MIT
//
// cputime: CPU time a process has used so far, to the nanosecond: the sum over its tasks in
// /proc/PID/task/*/schedstat. Tasks that have ended are not counted any more.
#ifndef TOOLS_CPUTIME_H
#define TOOLS_CPUTIME_H

#include <stdbool.h>
#include <stdint.h>

// `pid` 0: this process. False: there is no such process.
bool cputime_read(uint64_t pid, uint64_t *ns);

#endif
