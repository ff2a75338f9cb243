// SPDX-License-Identifier: MIT
//
// control: the life of the process. Starts the workers, runs the admin port, listens to signals.
//
//   SIGTERM, SIGINT   drain: stop accepting, let what runs finish, at most --drain-timeout;
//                     the second one stops at once
//   SIGHUP            reload: as POST /admin/reload; with --watch also when the file changes
//   SIGUSR2           start the binary anew and hand it every listener; when it serves, drain. If
//   it
//                     does not start, serve on
//   SIGPIPE           ignored
//
// A reload reads the same flags, environment and file again, opens what is new, and only then makes
// the result known to the workers; whatever fails before that changes nothing.
//
// The main thread's core only sleeps, so signals land there; workers block them all.
#ifndef ENGINE_CONTROL_H
#define ENGINE_CONTROL_H

#include "engine/config.h"

// How it began, to do it again.
struct control_start {
    struct config *config;     // through config_load; stays the caller's
    int argc;                  // what config_load got
    char *const *argv;         //
    char *const *program_argv; // what main got
};

// Serve until told to stop. Returns the exit status: 0, or 1 or 2 with the reason on stderr.
int control_run(const struct control_start *start);

#endif
