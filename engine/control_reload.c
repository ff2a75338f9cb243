// SPDX-License-Identifier: MIT
//
// One config after another: see control.h.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "engine/control_state.h"

enum { TICK_MS = 1000 };

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

struct gateway_update update_of(const struct control *control)
{
    return (struct gateway_update){
        .config = control->tenure->config,
        .trust = control->tenure->trust,
        .holders = &control->tenure->holders,
    };
}

// Every worker takes it on before this returns: within a turn each.
void publish(struct control *control)
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
    tenures_sweep(&control->tenures, control->tenure);
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

void tick_arm(struct control *control)
{
    if (control->config->watch || control->tenures.count > 1)
        timer_set(&control->core.wheel, &control->tick, control->core.now_ms + TICK_MS);
}

static unsigned reload_now(struct control *control, char *text, size_t len)
{
    char error[1024], kept[256];
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

unsigned reload(void *owner, char *text, size_t len)
{
    struct control *control = owner;
    if (control->draining || control->started == 0 || control->successor) {
        snprintf(text, len, "not reloaded: the process is starting, draining or being replaced\n");
        event_log(&control->core, control->config, LOG_WARN,
                  "not reloaded: the process is starting, draining or being replaced");
        return 503;
    }
    notify_send(&control->notify, "RELOADING=1\nMONOTONIC_USEC=%llu",
                (unsigned long long)(core_clock_ns(&control->core) / 1000));
    unsigned status = reload_now(control, text, len);
    notify_send(&control->notify, "READY=1");
    return status;
}

void reload_quietly(struct control *control)
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

void reload_open(struct control *control)
{
    timer_init(&control->tick, tick);
    (void)stamp_take(control->config, &control->loaded);
    control->seen = control->loaded;
}
