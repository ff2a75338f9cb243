// SPDX-License-Identifier: MIT
//
// load_client: the client half of the bench: subjects, and the connections kept open to each of
// them.
#ifndef PERF_LOAD_CLIENT_H
#define PERF_LOAD_CLIENT_H

#include "perf/load_loop.h"
#include "perf/load_wire.h"

enum { SUBJECTS_MAX = 16, PIDS_MAX = 16, NAME_LEN = 32 };

struct client {
    struct source source;
    struct subject *subject;
    bool busy;
    uint64_t sent_ns, took_ns; // of the last request
    struct reader reader;
};

// One program under test.
struct subject {
    char name[NAME_LEN];
    uint16_t port;
    int pid[PIDS_MAX];
    uint32_t pid_count;
    struct client **client;
    uint32_t client_count, client_room;
    uint32_t broken; // of them
    // what happened since subject_reset
    uint32_t busy;     // exchanges that run
    uint32_t open;     // streams whose head came and whose end did not
    uint64_t requests; // answered and checked
    uint64_t chunks;   // whole events checked
    uint64_t receives; // reads that brought something
    uint64_t errors;
    char fault[128]; // the first one
    // called when an exchange ended well
    void (*done)(struct client *client);
};

// Connections up to `count`; fewer if the subject refuses (an error, counted).
void subject_connect(struct subject *subject, uint32_t count);
void subject_close(struct subject *subject);
void subject_reset(struct subject *subject);
// CPU time of all threads of all its processes.
uint64_t subject_cpu_ns(const struct subject *subject);

// Sends the order with a fresh nonce. The connection must be idle.
void client_send(struct client *client, struct order order);

#endif
