// SPDX-License-Identifier: MIT
#include "engine/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/access_log.h"
#include "engine/admin.h"
#include "engine/trust.h"
#include "engine/worker.h"

enum { POST_TERMINATE = 1, POST_WORKER_STOPPED = 2 };

struct control {
    const struct config *config;
    struct tls_ticket_keys *keys; // outlive every config
    struct trust *trust;
    struct timer key_timer;
    struct core core;
    struct admin admin;
    struct worker *worker;
    uint32_t started;
    _Atomic uint32_t stopped;
    bool draining;
    struct timer drain_timer;
};

// The only global of the engine: a signal handler has no other way to find its process's control.
// Set before the handlers are installed, cleared after they are gone.
static struct core *signal_core;

static void on_signal(int number)
{
    // core_post is an atomic or and a write(2): both allowed here (signal-safety(7)).
    int error = errno;
    core_post(signal_core, POST_TERMINATE);
    errno = error;
}

static void rotate_keys(struct core *core, struct timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, key_timer);
    uint8_t random[TLS_TICKET_RANDOM];
    io_random(core->io, random, sizeof random);
    tls_ticket_keys_rotate(control->keys, io_wall_ms(core->io) / 1000, random);
    timer_set(&core->wheel, timer, core->now_ms + TLS_TICKET_LIFETIME_S * 1000u);
}

static bool open_trust(struct control *control, char *error, size_t error_len)
{
    struct core *core = &control->core;
    uint8_t random[TLS_TICKET_RANDOM];
    io_random(core->io, random, sizeof random);
    control->keys = tls_ticket_keys_new(io_wall_ms(core->io) / 1000, random);
    timer_init(&control->key_timer, rotate_keys);
    timer_set(&core->wheel, &control->key_timer, core->now_ms + TLS_TICKET_LIFETIME_S * 1000u);
    control->trust = trust_open(control->config, control->keys, error, error_len);
    return control->trust != NULL;
}

static void close_trust(struct control *control)
{
    trust_close(control->trust);
    tls_ticket_keys_free(control->keys);
    timer_cancel(&control->key_timer);
}

static void signals(bool install)
{
    // Afterwards ignored, not restored: a late second signal must not change how we leave.
    struct sigaction action = {.sa_handler = install ? on_signal : SIG_IGN, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL); // a terminal that goes away must not end a service
}

static void post_workers(struct control *control, uint32_t bits)
{
    for (uint32_t i = 0; i < control->started; i++)
        core_post(&control->worker[i].core, bits);
}

static void abort_now(struct control *control)
{
    event_log(&control->core, control->config, LOG_WARN, "stopping at once");
    post_workers(control, GATEWAY_POST_ABORT);
}

static void drain_expired(struct core *core, struct timer *timer)
{
    abort_now(LIST_OWNER(timer, struct control, drain_timer));
}

static void drain(void *owner)
{
    struct control *control = owner;
    if (control->draining)
        return;
    control->draining = true;
    control->admin.ready = false;
    event_log(&control->core, control->config, LOG_INFO, "draining: what runs may finish");
    post_workers(control, GATEWAY_POST_DRAIN);
    timer_set(&control->core.wheel, &control->drain_timer,
              control->core.now_ms + control->config->drain_timeout_ms);
}

static void posted(struct core *core, uint32_t bits)
{
    struct control *control = LIST_OWNER(core, struct control, core);
    if (bits & POST_TERMINATE) {
        if (control->draining)
            abort_now(control);
        else
            drain(control);
    }
    if (atomic_load(&control->stopped) == control->started)
        core->stopping = true;
}

static void worker_stopped(void *owner)
{
    struct control *control = owner;
    atomic_fetch_add(&control->stopped, 1);
    core_post(&control->core, POST_WORKER_STOPPED);
}

static bool start_workers(struct control *control)
{
    sem_t opened;
    CHECK(sem_init(&opened, 0, 0) == 0);
    bool ok = true;
    for (uint32_t i = 0; ok && i < control->config->workers; i++) {
        struct worker *worker = &control->worker[i];
        worker->config = control->config;
        worker->trust = control->trust;
        worker->index = i;
        worker->opened = &opened;
        worker->stopped = worker_stopped;
        worker->owner = control;
        ok = worker_start(worker);
        if (!ok)
            break;
        while (sem_wait(&opened) < 0)
            CHECK(errno == EINTR);
        ok = worker->running;
        if (!ok) {
            fprintf(stderr, "tokenring: %s\n", worker->error);
            worker_join(worker);
            break;
        }
        control->admin.metrics[i] = &worker->gateway.metrics;
        control->started++;
    }
    sem_destroy(&opened);
    control->admin.workers = control->started;
    return ok;
}

static bool open_admin(struct control *control)
{
    int result = admin_open(&control->core, &control->admin);
    if (result == 0)
        return true;
    fprintf(stderr, "tokenring: cannot listen on --admin %s: %s%s\n", control->config->admin.text,
            strerror(-result),
            result == -EADDRINUSE ? ": another program uses it; choose another --admin" : "");
    return false;
}

static void announce(struct control *control)
{
    const struct config *config = control->config;
    for (uint32_t i = 0; i < config->listener_count; i++)
        event_log(&control->core, config, LOG_INFO, "listening on %s, %u worker%s",
                  config->listener[i].text, config->workers, config->workers == 1 ? "" : "s");
    event_log(&control->core, config, LOG_INFO, "admin on %s", config->admin.text);
}

// Admin connections still open when everything else is over.
static void close_admin(struct control *control)
{
    struct core *core = &control->core;
    core_listen_stop(core);
    for (uint32_t i = 0; i < core->conns.untouched; i++) {
        struct conn *conn = slab_at(&core->conns, i);
        if (conn->state != CONN_FREE && !conn->finishing)
            conn_close(core, conn);
    }
    // An answer under way may finish: bounded by the linger time.
    while (!core_quiet(core))
        core_turn(core, 100);
}

static int serve(struct control *control)
{
    control->core.hooks.posted = posted;
    timer_init(&control->drain_timer, drain_expired);
    control->admin.config = control->config;
    control->admin.drain = drain;
    control->admin.owner = control;
    signal_core = &control->core;
    signals(true);
    bool ok = open_admin(control) && start_workers(control);
    control->admin.ready = ok;
    if (ok)
        announce(control);
    else
        drain(control);
    if (control->started > 0)
        core_run(&control->core);
    for (uint32_t i = 0; i < control->started; i++)
        worker_join(&control->worker[i]);
    control->started = 0; // a late signal finds nobody to tell
    close_admin(control);
    signals(false);
    signal_core = NULL;
    return ok ? 0 : 1;
}

int control_run(const struct config *config)
{
    char error[256];
    struct io_features features;
    if (!io_probe(&features, error, sizeof error)) {
        fprintf(stderr, "tokenring: %s\n", error);
        return 1;
    }
    struct control *control = heap_alloc(sizeof *control);
    control->config = config;
    control->worker = heap_alloc(config->workers * sizeof *control->worker);
    struct core_config core;
    admin_core_config(&core);
    int status = 1;
    if (core_open(&control->core, &core, error, sizeof error)) {
        tls_library_start();
        if (open_trust(control, error, sizeof error)) {
            status = serve(control);
        } else {
            fprintf(stderr, "tokenring: %s\n", error);
            status = 2;
        }
        close_trust(control);
        core_close(&control->core);
        tls_library_stop();
    } else {
        fprintf(stderr, "tokenring: %s\n", error);
    }
    heap_free(control->worker);
    heap_free(control);
    return status;
}
