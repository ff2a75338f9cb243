// SPDX-License-Identifier: MIT
//
// admin: the operator's port, on a core of its own in the main thread, so that a look at the
// metrics never waits behind traffic and traffic never behind a look.
//
//   GET  /healthz          200 while the process lives
//   GET  /readyz           200 while it accepts requests, 503 while starting or draining
//   GET  /metrics          Prometheus text
//   GET  /debug/metrics    JSON
//   GET  /admin/config     effective settings, secrets masked (YAML)
//   POST /admin/drain      as SIGTERM
//   POST /admin/reload     as SIGHUP, and says what came of it: 200, or 422 and why nothing changed
//
// One request a connection; answers are built on the heap (off the serving path). With an admin
// token, everything but the two probes wants `Authorization: Bearer TOKEN`.
#ifndef ENGINE_ADMIN_H
#define ENGINE_ADMIN_H

#include "engine/config.h"
#include "engine/core.h"
#include "engine/metrics.h"

struct admin {
    const struct config *config;
    struct metrics *metrics[CONFIG_WORKERS_MAX];
    uint32_t workers;
    bool ready;
    uint64_t started_ms;
    void (*drain)(void *owner);
    unsigned (*reload)(void *owner, char *text, size_t len); // status; `text` is the answer
    void *owner;
};

enum {
    ADMIN_CONNECTIONS_MAX = 64,
    ADMIN_BUFFERS = 64,
    ADMIN_BUFFER_SIZE = 4096,
    ADMIN_ANSWER_MAX = 2048
};

void admin_core_config(struct core_config *out);
// Accept on `fd`, which listens on config->admin. The core's owner becomes the admin.
void admin_open(struct core *core, struct admin *admin, int fd);

#endif
