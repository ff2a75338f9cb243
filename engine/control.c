// SPDX-License-Identifier: MIT
#include "engine/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/access_log.h"
#include "engine/control_state.h"
#include "engine/handover.h"
#include "engine/harden.h"

enum {
    POST_TERMINATE = 1,
    POST_WORKER_STOPPED = 2,
    POST_RELOAD = 4,
    POST_REPLACE = 8,
    ADMIN_BACKLOG = 64,
    PORT_FREE = 1024, // ports below are for root, or a capability
};

// The only global of the engine: a signal handler has no other way to find its process's control.
// Set before the handlers are installed, cleared after they are gone.
static struct core *signal_core;

static void on_signal(int number)
{
    // core_post is an atomic or and a write(2): both allowed here (signal-safety(7)).
    int error = errno;
    core_post(signal_core, number == SIGHUP    ? POST_RELOAD
                           : number == SIGUSR2 ? POST_REPLACE
                                               : POST_TERMINATE);
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
    struct trust *trust = trust_open(control->config, control->keys, error, error_len);
    if (trust)
        control->tenure = tenure_begin(&control->tenures, control->config, NULL, trust, 0);
    return trust != NULL;
}

static void close_trust(struct control *control)
{
    uint32_t left = tenures_sweep(&control->tenures, NULL);
    CHECK(left == 0);
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
    // A terminal that goes away must not end a service, not even in its last moments.
    sigaction(SIGHUP, install ? &action : &ignore, NULL);
    sigaction(SIGUSR2, install ? &action : &ignore, NULL);
}

void post_workers(struct control *control, uint32_t bits)
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

void drain_begin(struct control *control, uint32_t bits)
{
    control->draining = true;
    control->admin.ready = false;
    event_log(&control->core, control->config, LOG_INFO, "draining: what runs may finish");
    post_workers(control, bits);
    timer_set(&control->core.wheel, &control->drain_timer,
              control->core.now_ms + control->config->drain_timeout_ms);
}

static void drain(void *owner)
{
    struct control *control = owner;
    if (control->draining)
        return;
    notify_send(&control->notify, "STOPPING=1");
    drain_begin(control, GATEWAY_POST_DRAIN);
}

// --------------------------------------------------------------------------------------- watchdog

// A sign of life only if every worker has shown one since the last.
static void watchdog(struct core *core, struct timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, watchdog);
    bool alive = true;
    for (uint32_t i = 0; i < control->started; i++) {
        struct worker *worker = &control->worker[i];
        alive = alive && (atomic_load(&worker->gateway.pulse) || atomic_load(&worker->ended));
    }
    if (alive) {
        notify_send(&control->notify, "WATCHDOG=1");
        for (uint32_t i = 0; i < control->started; i++)
            atomic_store(&control->worker[i].gateway.pulse, false);
    }
    post_workers(control, GATEWAY_POST_PULSE);
    timer_set(&core->wheel, timer, core->now_ms + control->notify.watchdog_ms);
}

static void watchdog_start(struct control *control)
{
    if (control->notify.watchdog_ms == 0)
        return;
    post_workers(control, GATEWAY_POST_PULSE);
    timer_set(&control->core.wheel, &control->watchdog,
              control->core.now_ms + control->notify.watchdog_ms);
}

// ------------------------------------------------------------------------------------------ start

static void posted(struct core *core, uint32_t bits)
{
    struct control *control = LIST_OWNER(core, struct control, core);
    if (bits & POST_TERMINATE) {
        if (control->draining)
            abort_now(control);
        else
            drain(control);
    }
    if (bits & POST_RELOAD)
        reload_quietly(control);
    if (bits & POST_REPLACE)
        replace(control);
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
        worker->update = update_of(control);
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
        atomic_fetch_add(&control->tenure->holders, 1);
        control->started++;
    }
    sem_destroy(&opened);
    control->admin.workers = control->started;
    return ok;
}

static bool open_admin(struct control *control)
{
    const struct config_address *address = &control->config->admin;
    int fd;
    if (inherited_take(&control->inherited, address, &fd, 1) == 0)
        fd = io_listen(control->core.io, &address->addr.any, address->len, ADMIN_BACKLOG);
    if (fd < 0) {
        fprintf(stderr, "tokenring: cannot listen on --admin %s: %s%s\n", address->text,
                strerror(-fd),
                fd == -EADDRINUSE ? ": another program uses it; choose another --admin" : "");
        return false;
    }
    control->admin_fd = fd;
    return true;
}

static bool open_listeners(struct control *control)
{
    char error[256];
    if (listeners_change(&control->listeners, control->core.io, control->config,
                         &control->inherited, error, sizeof error))
        return true;
    fprintf(stderr, "tokenring: %s\n", error);
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

// Sanitizers look at their own process as a debugger would.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

static bool low_port(const struct config_address *address)
{
    // The port lies in the same place for both families.
    return address->addr.any.sa_family != AF_UNIX && ntohs(address->addr.v4.sin_port) < PORT_FREE;
}

// Before any ring or thread: both keep the rights they were made with.
static bool give_up_rights(const struct config *config)
{
    char error[512];
    bool ports = low_port(&config->admin);
    for (uint32_t i = 0; i < config->listener_count; i++)
        ports = ports || low_port(&config->listener[i]);
    bool ok = !config->user || harden_user(config->user, ports, error, sizeof error);
    ok = ok && (SANITIZED || harden_process(error, sizeof error));
    if (!ok)
        fprintf(stderr, "tokenring: %s\n", error);
    return ok;
}

// When all is open: from here on only what a gateway does. What came with the handover stays.
static bool filter_calls(struct control *control)
{
    const struct config *config = control->config;
    bool wanted = config->seccomp == SECCOMP_ON || config->seccomp == SECCOMP_LOG ||
                  (config->seccomp == SECCOMP_AUTO && config->user);
    if (!wanted || control->filtered || SANITIZED)
        return true;
    char error[512];
    struct harden_seccomp options = {.allow_exec = true,
                                     .log_only = config->seccomp == SECCOMP_LOG};
    control->filtered = harden_seccomp(&options, error, sizeof error);
    if (!control->filtered)
        fprintf(stderr, "tokenring: %s\n", error);
    return control->filtered;
}

static bool inherit(struct control *control)
{
    notify_sockets(&control->inherited);
    control->predecessor = handover_fd();
    if (control->predecessor < 0 ||
        handover_receive(control->predecessor, &control->inherited, &control->filtered))
        return true;
    fprintf(stderr, "tokenring: the old process did not hand its listeners over\n");
    return false;
}

// All that can fail is done: now accept, and not before, for what is accepted must be served. Then
// the old process may stop doing so, and the manager may tell others.
static bool serving(struct control *control)
{
    publish(control);
    admin_open(&control->core, &control->admin, control->admin_fd);
    uint32_t left = inherited_close(&control->inherited);
    if (left > 0)
        event_log(&control->core, control->config, LOG_WARN,
                  "closed %u inherited sockets that no setting asks for", left);
    if (control->predecessor >= 0 && !handover_ready(control->predecessor)) {
        fprintf(stderr, "tokenring: the old process has given up on this one and serves on\n");
        return false;
    }
    announce(control);
    notify_send(&control->notify, "READY=1\nSTATUS=serving");
    watchdog_start(control);
    tick_arm(control);
    return true;
}

static bool start_all(struct control *control)
{
    return inherit(control) && open_admin(control) && open_listeners(control) &&
           start_workers(control) && filter_calls(control) && serving(control);
}

static int serve(struct control *control)
{
    control->core.hooks.posted = posted;
    timer_init(&control->drain_timer, drain_expired);
    timer_init(&control->watchdog, watchdog);
    reload_open(control);
    control->admin.config = control->config;
    control->admin.drain = drain;
    control->admin.reload = reload;
    control->admin.owner = control;
    signal_core = &control->core;
    signals(true);
    bool ok = start_all(control);
    control->admin.ready = ok;
    if (!ok)
        drain(control);
    if (control->started > 0)
        core_run(&control->core);
    for (uint32_t i = 0; i < control->started; i++)
        worker_join(&control->worker[i]);
    control->started = 0; // a late signal finds nobody to tell
    timer_cancel(&control->tick);
    timer_cancel(&control->watchdog);
    close_admin(control);
    signals(false);
    signal_core = NULL;
    return ok ? 0 : 1;
}

static int run(struct control *control)
{
    char error[256], kept[8];
    const struct config *config = control->config;
    config_succeed(control->start->config, NULL, &control->slots, kept, sizeof kept);
    tenures_open(&control->tenures);
    struct core_config core;
    admin_core_config(&core);
    core.congestion = config->congestion; // of the listeners, which it opens
    if (!core_open(&control->core, &core, error, sizeof error)) {
        fprintf(stderr, "tokenring: %s\n", error);
        return 1;
    }
    tls_library_start();
    int status = 2;
    if (open_trust(control, error, sizeof error))
        status = serve(control);
    else
        fprintf(stderr, "tokenring: %s\n", error);
    close_trust(control);
    core_close(&control->core);
    tls_library_stop();
    return status;
}

int control_run(const struct control_start *start)
{
    char error[256];
    struct io_features features;
    char *program = handover_program(start->program_argv[0]);
    int status = 1;
    if (give_up_rights(start->config)) {
        if (io_probe(&features, error, sizeof error)) {
            struct control *control = heap_alloc(sizeof *control);
            control->start = start;
            control->config = start->config;
            control->program = program;
            control->worker = heap_alloc(start->config->workers * sizeof *control->worker);
            notify_open(&control->notify);
            status = run(control);
            notify_close(&control->notify);
            heap_free(control->worker);
            heap_free(control);
        } else {
            fprintf(stderr, "tokenring: %s\n", error);
        }
    }
    heap_free(program);
    return status;
}
