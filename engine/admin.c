// SPDX-License-Identifier: MIT
#include "engine/admin.h"

#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/conn.h"
#include "engine/input.h"
#include "proto/framing.h"
#include "proto/h1.h"
#include "proto/reply.h"
#include "proto/secret.h"

enum {
    ADMIN_TIMEOUT_MS = 10 * 1000,
    CONFIG_TEXT_MAX = 4 * 1024 * 1024, // a page of a thousand models is far below
};

struct admin_conn {
    struct conn conn; // first
    struct input input;
    size_t head_from;
    char *head, *body; // from the heap, freed when the connection is gone
};

static struct admin_conn *admin_conn_of(struct conn *conn)
{
    return (struct admin_conn *)conn;
}

// ---------------------------------------------------------------------------------------- answers

// Takes over `body` (heap).
static void answer(struct core *core, struct admin_conn *ac, unsigned status, const char *type,
                   char *body, bool head_only)
{
    size_t len = strlen(body);
    ac->body = body;
    ac->head = heap_format("HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                           "Cache-Control: no-store\r\nConnection: close\r\n%s\r\n",
                           status, reply_reason((uint16_t)status), type, len,
                           status == 401 ? "WWW-Authenticate: Bearer\r\n" : "");
    (void)conn_push(core, &ac->conn, NULL, ac->head, strlen(ac->head));
    if (len > 0 && !head_only)
        (void)conn_push(core, &ac->conn, NULL, body, len);
    conn_finish(core, &ac->conn);
}

static void answer_text(struct core *core, struct admin_conn *ac, unsigned status, const char *text)
{
    answer(core, ac, status, "text/plain; charset=utf-8", heap_copy(text), false);
}

static char *config_text(const struct config *config)
{
    char *text = heap_alloc(CONFIG_TEXT_MAX);
    FILE *file = fmemopen(text, CONFIG_TEXT_MAX, "w");
    CHECK(file != NULL);
    config_print(config, file);
    fclose(file);
    return text;
}

static bool allowed(const struct admin *admin, const struct h1_head *head)
{
    if (!admin->config->admin_token)
        return true;
    const struct h1_field *field = h1_find(head, H1_FIELD_AUTHORIZATION);
    const struct span bearer = SPAN("Bearer ");
    if (!field || field->value.len < bearer.len ||
        !span_equal_nocase(span_of(field->value.ptr, bearer.len), bearer))
        return false;
    const char *token = admin->config->admin_token;
    return secret_equal(token, strlen(token), field->value.ptr + bearer.len,
                        field->value.len - bearer.len);
}

static void get(struct core *core, struct admin_conn *ac, struct admin *admin, struct span path,
                bool head_only)
{
    uint64_t uptime_ms = core->now_ms - admin->started_ms;
    if (span_equal(path, SPAN("/metrics")))
        answer(core, ac, 200, "text/plain; version=0.0.4; charset=utf-8",
               metrics_prometheus(admin->config, admin->metrics, admin->workers, uptime_ms),
               head_only);
    else if (span_equal(path, SPAN("/debug/metrics")))
        answer(core, ac, 200, "application/json",
               metrics_json(admin->config, admin->metrics, admin->workers, uptime_ms), head_only);
    else if (span_equal(path, SPAN("/admin/config")))
        answer(core, ac, 200, "application/yaml", config_text(admin->config), head_only);
    else
        answer_text(core, ac, 404, "not found\n");
}

static void act(struct core *core, struct admin_conn *ac, struct admin *admin, struct span path)
{
    if (span_equal(path, SPAN("/admin/drain"))) {
        answer_text(core, ac, 202, "draining\n");
        admin->drain(admin->owner);
        return;
    }
    char text[ADMIN_ANSWER_MAX];
    unsigned status = admin->reload(admin->owner, text, sizeof text);
    answer_text(core, ac, status, text);
}

static void serve(struct core *core, struct admin_conn *ac, const struct h1_head *head)
{
    struct admin *admin = core->owner;
    struct span path = head->target;
    const uint8_t *query = memchr(path.ptr, '?', path.len);
    if (query)
        path.len = (size_t)(query - path.ptr);
    bool is_get = head->method == H1_METHOD_GET || head->method == H1_METHOD_HEAD;
    struct framing framing;
    if (framing_request(&framing, head) != FRAMING_OK) {
        answer_text(core, ac, 400, "bad request\n");
    } else if (span_equal(path, SPAN("/healthz")) && is_get) {
        answer_text(core, ac, 200, "ok\n");
    } else if (span_equal(path, SPAN("/readyz")) && is_get) {
        answer_text(core, ac, admin->ready ? 200 : 503, admin->ready ? "ready\n" : "not ready\n");
    } else if (!allowed(admin, head)) {
        answer_text(core, ac, 401, "an admin token is required: Authorization: Bearer TOKEN\n");
    } else if (span_equal(path, SPAN("/admin/drain")) || span_equal(path, SPAN("/admin/reload"))) {
        if (head->method == H1_METHOD_POST)
            act(core, ac, admin, path);
        else
            answer_text(core, ac, 405, "use POST\n");
    } else if (is_get) {
        get(core, ac, admin, path, head->method == H1_METHOD_HEAD);
    } else {
        answer_text(core, ac, 405, "use GET\n");
    }
}

// ----------------------------------------------------------------------------------------- events

static void on_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct admin_conn *ac = admin_conn_of(conn);
    if (conn->finishing || ac->head) {
        buf_unref(buf);
        return;
    }
    input_add(&ac->input, buf, len);
    if (input_more(&ac->input) && !input_join(&ac->input, &core->large)) {
        answer_text(core, ac, 431, "head too large\n");
        return;
    }
    size_t head_len;
    const uint8_t *bytes = input_bytes(&ac->input);
    enum h1_result result =
        h1_head_complete(bytes, input_left(&ac->input), &ac->head_from, &head_len);
    struct h1_head head;
    if (result == H1_OK)
        result = h1_parse_request(&head, bytes, head_len);
    if (result == H1_MORE)
        conn_receive(core, conn, false);
    else if (result != H1_OK)
        answer_text(core, ac, 400, "bad request\n");
    else
        serve(core, ac, &head);
}

static void on_ended(struct core *core, struct conn *conn, int error)
{
    if (!conn_has_output(conn))
        conn_close(core, conn);
}

static void on_send_failed(struct core *core, struct conn *conn, int error)
{
    conn_close(core, conn);
}

static void on_connected(struct core *core, struct conn *conn, int error)
{
    CHECK(!"the admin port dials nobody");
}

static void on_expired(struct core *core, struct conn *conn)
{
    conn_close(core, conn);
}

static void on_closed(struct core *core, struct conn *conn)
{
    struct admin_conn *ac = admin_conn_of(conn);
    input_drop(&ac->input);
    heap_free(ac->head);
    heap_free(ac->body);
}

static const struct conn_ops admin_ops = {
    .received = on_received,
    .ended = on_ended,
    .send_failed = on_send_failed,
    .connected = on_connected,
    .expired = on_expired,
    .closed = on_closed,
};

static void on_accepted(struct core *core, struct listener *listener, int fd)
{
    struct conn *conn = conn_open(core, fd, &admin_ops, ADMIN_TIMEOUT_MS);
    if (conn) {
        conn_receive(core, conn, false);
        return;
    }
    core->operations++;
    io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
}

void admin_core_config(struct core_config *out)
{
    *out = (struct core_config){
        .ring_entries = 64,
        .receive_buffers = ADMIN_BUFFERS,
        .receive_size = ADMIN_BUFFER_SIZE,
        .write_buffers = 1,
        .write_size = ADMIN_BUFFER_SIZE,
        .large_buffers = 8,
        .large_size = 2 * H1_HEAD_MAX,
        .connections = ADMIN_CONNECTIONS_MAX,
        .conn_size = sizeof(struct admin_conn),
        .segments = ADMIN_CONNECTIONS_MAX * 4,
    };
}

void admin_open(struct core *core, struct admin *admin, int fd)
{
    core->owner = admin;
    admin->started_ms = core->now_ms;
    CHECK(core_listen_fd(core, fd, 0, on_accepted, admin) == 0);
}
