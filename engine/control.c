// SPDX-License-Identifier: MIT
#include "engine/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/access_log.h"
#include "engine/admin.h"
#include "engine/listeners.h"
#include "engine/tenure.h"
#include "engine/worker.h"

enum {
    POST_TERMINATE = 1,
    POST_WORKER_STOPPED = 2,
    POST_RELOAD = 4,
    TICK_MS = 1000,
    ADMIN_BACKLOG = 64,
};

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
};

// The only global of the engine: a signal handler has no other way to find its process's control.
// Set before the handlers are installed, cleared after they are gone.
static struct core *signal_core;

static void on_signal(int number)
{
    // core_post is an atomic or and a write(2): both allowed here (signal-safety(7)).
    int error = errno;
    core_post(signal_core, number == SIGHUP ? POST_RELOAD : POST_TERMINATE);
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
    struct sigaction action = {.sa_handler = install ? on_signal : SIG_DFL, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    // A terminal that goes away must not end a service, not even in its last moments.
    sigaction(SIGHUP, install ? &action : &ignore, NULL);
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

// ----------------------------------------------------------------------------------------- reload

static bool stamp_take(const struct config *config, struct stamp *stamp)
{
    struct stat file;
    if (!config->path || stat(config->path, &file) != 0)
        return false;
    *stamp = (struct stamp){
        .device = file.st_dev,
        .inode = file.st_ino,
        .size = (uint64_t)file.st_size,
        .changed_ns = (uint64_t)file.st_mtim.tv_sec * 1000000000u + (uint64_t)file.st_mtim.tv_nsec,
    };
    return true;
}

static struct gateway_update update_of(const struct control *control)
{
    return (struct gateway_update){
        .config = control->tenure->config,
        .trust = control->tenure->trust,
        .holders = &control->tenure->holders,
    };
}

// Every worker takes it on before this returns: within a turn each.
static void publish(struct control *control)
{
    sem_t adopted;
    CHECK(sem_init(&adopted, 0, 0) == 0);
    for (uint32_t i = 0; i < control->started; i++) {
        struct worker *worker = &control->worker[i];
        worker->update = update_of(control);
        worker->update.adopted = &adopted;
        listeners_share(&control->listeners, &worker->update, i, control->started);
        worker->gateway.update = &worker->update;
        core_post(&worker->core, GATEWAY_POST_CONFIG);
    }
    for (uint32_t i = 0; i < control->started; i++)
        while (sem_wait(&adopted) < 0)
            CHECK(errno == EINTR);
    sem_destroy(&adopted);
    listeners_settle(&control->listeners);
}

// All that can fail, before anything changes. NULL: `error` says why.
static struct tenure *prepare(struct control *control, char *kept, size_t kept_len, char *error,
                              size_t error_len)
{
    const struct control_start *start = control->start;
    if (control->tenures.count == TENURES_MAX) {
        snprintf(error, error_len, "%d older configurations are still needed by running requests",
                 TENURES_MAX);
        return NULL;
    }
    struct config *next = config_load(start->argc, start->argv, environ, false, error, error_len);
    if (!next)
        return NULL;
    struct config_slots slots = control->slots;
    config_succeed(next, control->config, &slots, kept, kept_len);
    struct trust *trust = trust_open(next, control->keys, error, error_len);
    if (trust && listeners_change(&control->listeners, control->core.io, next, &control->inherited,
                                  error, error_len)) {
        control->slots = slots;
        return tenure_begin(&control->tenures, next, next, trust, control->started);
    }
    trust_close(trust);
    config_free(next);
    return NULL;
}

static void tick_arm(struct control *control)
{
    if (control->config->watch || control->tenures.count > 1)
        timer_set(&control->core.wheel, &control->tick, control->core.now_ms + TICK_MS);
}

static unsigned reload(void *owner, char *text, size_t len)
{
    struct control *control = owner;
    char error[1024], kept[256];
    if (control->draining || control->started == 0) {
        snprintf(text, len, "not reloaded: the process is starting or draining\n");
        return 503;
    }
    (void)stamp_take(control->config, &control->loaded);
    control->seen = control->loaded;
    struct tenure *tenure = prepare(control, kept, sizeof kept, error, sizeof error);
    if (!tenure) {
        event_log(&control->core, control->config, LOG_ERROR,
                  "not reloaded, the old configuration stays in force: %s", error);
        snprintf(text, len, "not reloaded, the old configuration stays in force: %s\n", error);
        return 422;
    }
    control->tenure = tenure;
    control->config = control->admin.config = tenure->config;
    publish(control);
    tick_arm(control);
    event_log(&control->core, control->config, LOG_INFO,
              "configuration reloaded: %u listeners, %u providers, %u models",
              control->config->listener_count, control->config->provider_count,
              control->config->model_count);
    if (kept[0])
        event_log(&control->core, control->config, LOG_WARN,
                  "only a new process can change %s: the old value stays", kept);
    snprintf(text, len, "reloaded%s%s\n", kept[0] ? "; only a new process can change " : "", kept);
    return 200;
}

static void reload_quietly(struct control *control)
{
    char text[ADMIN_ANSWER_MAX];
    (void)reload(control, text, sizeof text); // the log has said it
}

// A file is read when it has not changed for a tick: not while somebody still writes it.
static void watch(struct control *control)
{
    struct stamp now;
    if (!control->config->watch || !stamp_take(control->config, &now))
        return;
    bool stable = memcmp(&now, &control->seen, sizeof now) == 0;
    bool news = memcmp(&now, &control->loaded, sizeof now) != 0;
    control->seen = now;
    if (news && stable)
        reload_quietly(control);
}

static void tick(struct core *core, struct timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, tick);
    tenures_sweep(&control->tenures, control->tenure);
    watch(control);
    tick_arm(control);
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
        listeners_share(&control->listeners, &worker->update, i, control->config->workers);
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
    listeners_settle(&control->listeners);
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
    admin_open(&control->core, &control->admin, fd);
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

static int serve(struct control *control)
{
    control->core.hooks.posted = posted;
    timer_init(&control->drain_timer, drain_expired);
    timer_init(&control->tick, tick);
    control->admin.config = control->config;
    control->admin.drain = drain;
    control->admin.reload = reload;
    control->admin.owner = control;
    signal_core = &control->core;
    signals(true);
    bool ok = open_admin(control) && open_listeners(control) && start_workers(control);
    control->admin.ready = ok;
    if (ok) {
        announce(control);
        tick_arm(control);
    } else {
        drain(control);
    }
    if (control->started > 0)
        core_run(&control->core);
    for (uint32_t i = 0; i < control->started; i++)
        worker_join(&control->worker[i]);
    control->started = 0; // a late signal finds nobody to tell
    timer_cancel(&control->tick);
    close_admin(control);
    signals(false);
    signal_core = NULL;
    return ok ? 0 : 1;
}

int control_run(struct config *config, const struct control_start *start)
{
    char error[256], kept[8];
    struct io_features features;
    if (!io_probe(&features, error, sizeof error)) {
        fprintf(stderr, "tokenring: %s\n", error);
        return 1;
    }
    struct control *control = heap_alloc(sizeof *control);
    control->start = start;
    control->config = config;
    config_succeed(config, NULL, &control->slots, kept, sizeof kept);
    tenures_open(&control->tenures);
    (void)stamp_take(config, &control->loaded);
    control->seen = control->loaded;
    control->worker = heap_alloc(config->workers * sizeof *control->worker);
    struct core_config core;
    admin_core_config(&core);
    core.congestion = config->congestion; // of the listeners, which it opens
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
