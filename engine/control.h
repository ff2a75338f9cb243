// SPDX-License-Identifier: MIT
//
// control: the life of the process. Starts the workers, runs the admin port, listens to signals.
//
//   SIGTERM, SIGINT   drain: stop accepting, let what runs finish, at most --drain-timeout;
//                     the second one stops at once
//   SIGHUP            reload: as POST /admin/reload; with --watch also when the file changes
//   SIGPIPE           ignored
//
// A reload reads the same flags, environment and file again, opens what is new, and only then makes
// the result known to the workers; whatever fails before that changes nothing.
//
// The main thread's core only sleeps, so signals land there; workers block them all.
#ifndef ENGINE_CONTROL_H
#define ENGINE_CONTROL_H

#include "engine/config.h"

// How the config was made, to make it again.
struct control_start {
    int argc;
    char *const *argv; // as for config_load
};

// Serve until told to stop. Returns the exit status: 0, or 1 with the reason on stderr. `config`
// must have been through config_load, and stays the caller's.
int control_run(struct config *config, const struct control_start *start);

#endif
