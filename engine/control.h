// SPDX-License-Identifier: MIT
//
// control: the life of the process. Starts the workers, runs the admin port, listens to signals.
//
//   SIGTERM, SIGINT   drain: stop accepting, let what runs finish, at most --drain-timeout;
//                     the second one stops at once
//   SIGPIPE           ignored
//
// The main thread's core only sleeps, so signals land there; workers block them all.
#ifndef ENGINE_CONTROL_H
#define ENGINE_CONTROL_H

#include "engine/config.h"

// Serve until told to stop. Returns the exit status: 0, or 1 with the reason on stderr.
int control_run(const struct config *config);

#endif
