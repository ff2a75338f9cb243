// SPDX-License-Identifier: MIT
//
// notify: what a service manager wants to know, and what it hands over; without libsystemd.
//
//   sd_notify(3)          READY=1, RELOADING=1, STOPPING=1, WATCHDOG=1, MAINPID=..., one datagram
//                         each to the socket named in NOTIFY_SOCKET
//   sd_listen_fds(3)      sockets that listen already, from descriptor 3 on: LISTEN_FDS, LISTEN_PID
//   sd_watchdog_enabled   WATCHDOG_USEC, WATCHDOG_PID
//
// Without these variables everything here does nothing.
#ifndef ENGINE_NOTIFY_H
#define ENGINE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct inherited;

struct notify {
    int fd; // -1: nobody wants to know
    struct sockaddr_un manager;
    socklen_t manager_len;
    uint64_t watchdog_ms; // between two signs of life; 0: not asked for
};

// Reads the environment. Before another thread does.
void notify_open(struct notify *notify);
void notify_close(struct notify *notify);
// Never waits; a manager that does not read loses it.
void notify_send(const struct notify *notify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Take the sockets the manager opened, and the variables that tell of them.
void notify_sockets(struct inherited *inherited);

#endif
