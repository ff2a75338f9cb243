// SPDX-License-Identifier: MIT
//
// One process after another: see handover.h. The successor's end of the pair is watched like any
// other connection of the main thread's core, so that it serves on while the new process starts.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/access_log.h"
#include "engine/conn.h"
#include "engine/control_state.h"
#include "engine/handover.h"

enum { START_TIMEOUT_MS = 60 * 1000, FDS_MAX = 1024 };

static struct control *control_of(struct core *core)
{
    return LIST_OWNER(core, struct control, core);
}

// It accepts on every socket now.
static void succeeded(struct control *control)
{
    event_log(&control->core, control->config, LOG_INFO, "process %d serves from now on",
              (int)control->successor_pid);
    // The new one's own word counts for nothing before the manager knows who it is.
    notify_send(&control->notify, "MAINPID=%d\nREADY=1", (int)control->successor_pid);
    core_listen_leave(&control->core, 0, false);
    drain_begin(control, GATEWAY_POST_RETIRE);
}

static void on_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct control *control = control_of(core);
    bool ready = len == 1 && buf->bytes[0] == HANDOVER_READY;
    buf_unref(buf);
    control->successor = NULL;
    conn_close(core, conn);
    if (control->draining)
        return; // told to stop meanwhile: both go their way
    if (ready)
        succeeded(control);
    else
        event_log(core, control->config, LOG_ERROR, "the new process does not make sense");
}

static void on_ended(struct core *core, struct conn *conn, int error)
{
    struct control *control = control_of(core);
    char how[64];
    control->successor = NULL;
    conn_close(core, conn);
    handover_ended(control->successor_pid, how, sizeof how);
    event_log(core, control->config, LOG_ERROR,
              "not replaced: the new process ended with %s (see above why); this one serves on",
              how);
}

static void on_send_failed(struct core *core, struct conn *conn, int error)
{
    CHECK(!"nothing is sent here");
}

static void on_connected(struct core *core, struct conn *conn, int error)
{
    CHECK(!"a pair is connected from the start");
}

// Closing our end tells it that nobody waits any more: then it ends by itself.
static void on_expired(struct core *core, struct conn *conn)
{
    struct control *control = control_of(core);
    control->successor = NULL;
    conn_close(core, conn);
    event_log(core, control->config, LOG_ERROR,
              "not replaced: process %d did not serve within %d s; this one serves on",
              (int)control->successor_pid, START_TIMEOUT_MS / 1000);
}

static void on_closed(struct core *core, struct conn *conn)
{
}

static const struct conn_ops successor_ops = {
    .received = on_received,
    .ended = on_ended,
    .send_failed = on_send_failed,
    .connected = on_connected,
    .expired = on_expired,
    .closed = on_closed,
};

void replace(struct control *control)
{
    struct core *core = &control->core;
    if (control->draining || control->successor || control->started == 0) {
        event_log(core, control->config, LOG_WARN,
                  "not replaced: the process is starting, draining or being replaced already");
        return;
    }
    char error[512];
    int fd[FDS_MAX];
    uint32_t count = listeners_all(&control->listeners, fd, FDS_MAX - 1);
    fd[count++] = control->admin_fd;
    int pair = handover_start(control->program, control->start->program_argv, fd, count,
                              control->filtered, &control->successor_pid, error, sizeof error);
    struct conn *conn = pair < 0 ? NULL : conn_open(core, pair, &successor_ops, START_TIMEOUT_MS);
    if (!conn) {
        event_log(core, control->config, LOG_ERROR, "not replaced, this process serves on: %s",
                  pair < 0 ? error : "too many admin connections");
        if (pair >= 0) {
            core->operations++;
            io_close(core->io, pair, (struct io_token){.op = IO_CLOSE});
        }
        return;
    }
    control->successor = conn;
    event_log(core, control->config, LOG_INFO, "started %s as process %d: it takes over",
              control->program, (int)control->successor_pid);
    conn_receive(core, conn, false);
}
