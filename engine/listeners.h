// SPDX-License-Identifier: MIT
//
// listeners: every address the process listens on, and every descriptor that does.
//
// Control opens them all and tells the workers; a worker accepts on its share and closes it. Each
// worker has a socket of its own (SO_REUSEPORT). Sockets that were there before this process
// (systemd's, or those of the process it replaces) are taken over by their address, all of them:
// what waits in the queue of one that nobody accepts on is lost.
//
//   listeners_change(...)   what a config wants that is not open is opened; what it does not want
//                           is marked; nothing is in force yet, and on failure nothing has changed
//   listeners_share(...)    what one worker has to do about it
//   listeners_settle(...)   every worker was told
#ifndef ENGINE_LISTENERS_H
#define ENGINE_LISTENERS_H

#include "engine/config.h"
#include "engine/gateway.h"

enum {
    LISTENERS_MAX = 2 * CONFIG_LISTENERS_MAX, // those of a config, and those of the one before
    LISTENER_FDS_MAX = 2 * CONFIG_WORKERS_MAX,
    INHERITED_MAX = 1024,
};

// Descriptors that listen already; those nobody took are closed by inherited_close.
struct inherited {
    uint32_t count;
    int fd[INHERITED_MAX];
};

void inherited_add(struct inherited *inherited, int fd);
// Up to `max` of those bound to `address`, taken out. Returns how many.
uint32_t inherited_take(struct inherited *inherited, const struct config_address *address, int *fd,
                        uint32_t max);
uint32_t inherited_close(struct inherited *inherited); // how many were left

struct listening {
    enum { LISTENING_NOT, LISTENING_NEW, LISTENING, LISTENING_LEAVES } state;
    struct config_address address;
    uint32_t fd_count;
    int fd[LISTENER_FDS_MAX]; // number i is worker i % workers' to close
};

struct listeners {
    struct listening entry[LISTENERS_MAX]; // the index is the tag
};

bool listeners_change(struct listeners *listeners, struct io *io, const struct config *config,
                      struct inherited *inherited, char *error, size_t error_len);
void listeners_share(const struct listeners *listeners, struct gateway_update *update,
                     uint32_t worker, uint32_t workers);
void listeners_settle(struct listeners *listeners);
// Every descriptor that is in force, for a successor. Returns how many.
uint32_t listeners_all(const struct listeners *listeners, int *fd, uint32_t max);
// Close what no worker was told of.
void listeners_undo(struct listeners *listeners);

#endif
