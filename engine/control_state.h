// SPDX-License-Identifier: MIT
//
// control_state: what the parts of control share. control.c is the life of the process,
// control_reload.c one config after another, control_replace.c one process after another. Private
// to these three; all of it belongs to the main thread.
#ifndef ENGINE_CONTROL_STATE_H
#define ENGINE_CONTROL_STATE_H

#include "engine/admin.h"
#include "engine/control.h"
#include "engine/listeners.h"
#include "engine/notify.h"
#include "engine/tenure.h"
#include "engine/worker.h"

// What tells one state of a file from another.
struct stamp {
    uint64_t device, inode, size, changed_ns;
};

struct control {
    const struct control_start *start;
    const struct config *config;  // in force
    struct tls_ticket_keys *keys; // outlive every config
    struct timer key_timer;
    struct tenures tenures;
    struct tenure *tenure; // of the config in force
    struct config_slots slots;
    struct listeners listeners;
    struct inherited inherited;
    struct timer tick;
    struct stamp loaded, seen; // of the config file: when it was read, and a tick ago
    struct core core;
    struct admin admin;
    struct worker *worker;
    uint32_t started;
    _Atomic uint32_t stopped;
    bool draining;
    struct timer drain_timer;
    struct notify notify;
    struct timer watchdog;
    // One process after another.
    char *program;          // what a successor is started from
    int predecessor;        // whom to tell when we serve; -1: nobody
    int admin_fd;           // where the admin port listens
    struct conn *successor; // our end of the pair while it starts; NULL: there is none
    pid_t successor_pid;
    bool filtered; // the system-call filter is on
};

// control_reload.c
void reload_open(struct control *control); // before the workers start
struct gateway_update update_of(const struct control *control);
void publish(struct control *control); // the tenure and the listeners, to all workers
unsigned reload(void *owner, char *text, size_t len); // the admin's; status, and the answer
void reload_quietly(struct control *control);         // the log says what came of it
void tick_arm(struct control *control);

// control_replace.c
void replace(struct control *control); // SIGUSR2

// control.c
void post_workers(struct control *control, uint32_t bits);
void drain_begin(struct control *control, uint32_t bits); // GATEWAY_POST_DRAIN or _RETIRE

#endif
