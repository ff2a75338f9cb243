// SPDX-License-Identifier: MIT
//
// handover: a process starts its successor and gives it every listening socket.
//
//   old                                        new
//   handover_start: exec, send descriptors --> handover_receive: take them
//   serves on                                  starts: config, rings, workers, all accepting
//   successor says "ready"                <--  handover_ready
//   stops accepting, drains, leaves            serves
//
// Both accept on the same sockets for a moment, so no connection is refused; the queues live on
// when the old process closes its copies. A successor that fails to start closes its end: nothing
// has changed then. The two speak over a socket pair whose number is in TOKENRING_HANDOVER_FD.
#ifndef ENGINE_HANDOVER_H
#define ENGINE_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct inherited;

enum { HANDOVER_READY = 'r' };

// Where the program lies that a successor is started from: the path it was called by, for a newer
// file may lie there by then. From the heap. Before harden_process().
char *handover_program(const char *argv0);

// Start `program` and send it `count` descriptors, which stay ours too. Returns our end, or -1 with
// a sentence in `error`. `filtered`: the system-call filter is on, and goes with it.
int handover_start(const char *program, char *const *argv, const int *fd, uint32_t count,
                   bool filtered, pid_t *pid, char *error, size_t error_len);
// How a successor ended, as text. Waits for it: only when its end of the pair is closed.
void handover_ended(pid_t pid, char *text, size_t len);

// In the successor. The number of the pair, or -1: this is no successor. The variable is gone then.
int handover_fd(void);
bool handover_receive(int fd, struct inherited *inherited, bool *filtered);
// False: the old process is not interested any more and serves on.
bool handover_ready(int fd);

#endif
