// SPDX-License-Identifier: MIT
//
// worker: a thread, pinned to its cpu, with a core and a gateway of its own.
#ifndef ENGINE_WORKER_H
#define ENGINE_WORKER_H

#include <pthread.h>
#include <semaphore.h>

#include "engine/core.h"
#include "engine/gateway.h"

struct worker {
    struct core core;
    struct gateway gateway;
    struct gateway_update update; // the first; for a reload the next
    uint32_t index;
    pthread_t thread;
    sem_t *opened;           // posted once the worker runs or has failed
    bool running;            // valid after `opened`
    _Atomic bool ended;      // its loop is over
    void (*stopped)(void *); // called by the worker's thread as its last act
    void *owner;
    char error[256];
};

// Start the thread. worker->update, index, opened, stopped and owner are set by the caller.
bool worker_start(struct worker *worker);
void worker_join(struct worker *worker);

#endif
