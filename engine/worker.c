// SPDX-License-Identifier: MIT
#include "engine/worker.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>

#include "alloc/check.h"
#include "proto/tls.h"

static void pin(const struct worker *worker)
{
    int cpu = worker->update.config->cpu[worker->index];
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    // A cpuset may forbid it: then the scheduler decides.
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static bool worker_open(struct worker *worker)
{
    struct core_config core;
    gateway_core_config(&core, worker->update.config);
    if (!core_open(&worker->core, &core, worker->error, sizeof worker->error))
        return false;
    worker->core.index = worker->index;
    gateway_open(&worker->gateway, &worker->core, &worker->update);
    return true;
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    char name[16];
    snprintf(name, sizeof name, "worker-%u", worker->index);
    pthread_setname_np(pthread_self(), name);
    pin(worker);
    worker->running = worker_open(worker);
    bool running = worker->running;
    CHECK(sem_post(worker->opened) == 0);
    if (!running)
        return NULL;
    core_run(&worker->core);
    tls_library_thread_stop();
    atomic_store(&worker->ended, true);
    worker->stopped(worker->owner);
    return NULL;
}

bool worker_start(struct worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result == 0;
}

void worker_join(struct worker *worker)
{
    CHECK(pthread_join(worker->thread, NULL) == 0);
    if (!worker->running)
        return;
    gateway_close(&worker->gateway);
    core_close(&worker->core);
}
