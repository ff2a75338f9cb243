// SPDX-License-Identifier: MIT
//
// A client's connection: one request after the other.
//
//   HEAD ---- head complete ----> BODY ---- last byte ----> ANSWER ---- all queued ----> HEAD
//     |  bad bytes: 400/431         |  bad chunk: 400          |  the client is gone: its stream is
//     v                             v                          v  freed in this turn
//   conn_finish                   conn_finish               conn_close
//
// While an answer is under way one receive stays armed, so that a client that leaves is noticed. If
// bytes of a next request come instead they wait in `in`, and a hang-up watch takes over.
#include <stdio.h>

#include "alloc/check.h"
#include "proto/chunk.h"
#include "proto/framing.h"
#include "tools/inbox.h"
#include "tools/mock_answer.h"

enum {
    REQUEST_MS = 60 * 1000,    // between two bytes of a request
    STUCK_MS = 10 * 60 * 1000, // an answer of which nothing is taken
};

enum client_state { CLIENT_HEAD, CLIENT_BODY, CLIENT_ANSWER, CLIENT_LEAVING };

struct client {
    struct conn conn; // first
    struct list node; // in worker->clients
    enum client_state state;
    bool close;         // after this answer
    bool blank_skipped; // one empty line before the request line
    struct timer pace;
    struct inbox in;
    size_t head_from; // h1_head_complete looked this far
    struct framing framing;
    uint64_t body_left; // FRAMING_LENGTH
    struct chunk chunk; // FRAMING_CHUNKED
    struct answer answer;
};

size_t mock_client_size(void)
{
    return sizeof(struct client);
}

static struct client *client_of(struct conn *conn)
{
    return (struct client *)conn;
}

// Gone, or about to be: forget what the connection was doing.
static void client_leave(struct core *core, struct client *client, bool cancelled)
{
    if (client->state == CLIENT_ANSWER)
        answer_count_end(worker_of(core), &client->answer, cancelled);
    client->state = CLIENT_LEAVING;
    timer_cancel(&client->pace);
    inbox_drop(&client->in);
}

static void client_close(struct core *core, struct client *client, bool cancelled)
{
    client_leave(core, client, cancelled);
    conn_close(core, &client->conn);
}

static void client_finish(struct core *core, struct client *client)
{
    client_leave(core, client, false);
    conn_finish(core, &client->conn);
}

// ------------------------------------------------------------------------------------ bad requests

// Fixed bytes: the request could not be read, so nothing of it can be echoed.
static void client_refuse(struct core *core, struct client *client, uint16_t status)
{
    static const struct {
        uint16_t status;
        const char *bytes;
    } answers[] = {
#define REFUSAL(status, reason)                                                                    \
    {status, "HTTP/1.1 " #status " " reason "\r\ncontent-type: application/json\r\n"               \
             "content-length: 90\r\nconnection: close\r\n\r\n"                                     \
             "{\"error\":{\"message\":\"bad request\",\"type\":\"invalid_request_error\","         \
             "\"param\":null,\"code\":" #status "}}"}
        REFUSAL(400, "Bad Request"),
        REFUSAL(417, "Expectation Failed"),
        REFUSAL(431, "Request Header Fields Too Large"),
        REFUSAL(501, "Not Implemented"),
        REFUSAL(503, "Service Unavailable"),
#undef REFUSAL
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i].status == status)
            (void)conn_push(core, &client->conn, NULL, answers[i].bytes, strlen(answers[i].bytes));
    client_finish(core, client);
}

// -------------------------------------------------------------------------------------------- head

static uint16_t framing_status(enum framing_result result)
{
    switch (result) {
    case FRAMING_OK: return 0;
    case FRAMING_NOT_IMPLEMENTED: return 501;
    case FRAMING_BAD_EXPECT: return 417;
    default: return 400;
    }
}

static void head_done(struct core *core, struct client *client, const struct h1_head *head)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    answer_route(worker_of(core), &client->answer, head);
    client->close = !client->framing.keep_alive;
    client->state = CLIENT_BODY;
    client->body_left = client->framing.length;
    chunk_start(&client->chunk);
    if (client->framing.expect_continue)
        (void)conn_push(core, &client->conn, NULL, go_on, sizeof go_on - 1);
}

// False: more bytes are needed, or the connection is finished.
static bool read_head(struct core *core, struct client *client)
{
    struct span rest = inbox_rest(&client->in);
    if (!client->blank_skipped && span_starts(rest, SPAN("\r\n"))) {
        client->blank_skipped = true;
        inbox_take(&client->in, 2);
        return !inbox_empty(&client->in);
    }
    size_t len;
    enum h1_result result = h1_head_complete(rest.ptr, rest.len, &client->head_from, &len);
    if (result == H1_MORE)
        return false;
    struct h1_head head;
    if (result == H1_OK)
        result = h1_parse_request(&head, rest.ptr, len);
    uint16_t status = result == H1_OK ? 0 : result == H1_TOO_LARGE ? 431 : 400;
    if (!status)
        status = framing_status(framing_request(&client->framing, &head));
    if (status) {
        client_refuse(core, client, status);
        return false;
    }
    head_done(core, client, &head);
    inbox_take(&client->in, len);
    return true;
}

// -------------------------------------------------------------------------------------------- body

// CRC-32 as in zlib, four bits at a time.
static uint32_t crc32_add(uint32_t crc, const uint8_t *bytes, size_t len)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static void body_bytes(struct answer *answer, struct span data)
{
    answer->body_bytes += data.len;
    if (answer->json_body)
        ask_feed(&answer->ask, data.ptr, data.len);
    if (answer->api == API_FILES)
        answer->body_crc = crc32_add(answer->body_crc, data.ptr, data.len);
}

// One slice of a chunked body. True when the body is complete.
static bool body_chunk(struct core *core, struct client *client)
{
    struct span rest = inbox_rest(&client->in), data;
    size_t used;
    enum chunk_result result = chunk_next(&client->chunk, rest.ptr, rest.len, &used, &data);
    if (result == CHUNK_BAD) {
        client_refuse(core, client, 400);
        return false;
    }
    if (result == CHUNK_DATA)
        body_bytes(&client->answer, data);
    inbox_take(&client->in, used);
    return result == CHUNK_END;
}

// True when the body is complete.
static bool read_body(struct core *core, struct client *client)
{
    if (client->framing.kind == FRAMING_NONE ||
        (client->framing.kind == FRAMING_LENGTH && client->body_left == 0))
        return true;
    if (inbox_empty(&client->in))
        return false;
    if (client->framing.kind == FRAMING_CHUNKED)
        return body_chunk(core, client);
    struct span data = inbox_rest(&client->in);
    if (data.len > client->body_left)
        data.len = (size_t)client->body_left;
    body_bytes(&client->answer, data);
    client->body_left -= data.len;
    inbox_take(&client->in, data.len);
    return client->body_left == 0;
}

// ------------------------------------------------------------------------------------------ answer

// True when the connection is ready for its next request.
static bool answer_on(struct core *core, struct client *client)
{
    switch (answer_pump(worker_of(core), &client->answer, &client->conn, &client->pace,
                        client->close)) {
    case ANSWER_WAITS: return false;
    case ANSWER_LAST: client_finish(core, client); return false;
    case ANSWER_CUT:
        if (client->answer.script.cut_reset) {
            struct linger linger = {.l_onoff = 1, .l_linger = 0};
            setsockopt(client->conn.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        }
        client_close(core, client, false);
        return false;
    case ANSWER_DONE: break;
    }
    answer_count_end(worker_of(core), &client->answer, false);
    timer_cancel(&client->pace);
    client->state = CLIENT_HEAD;
    client->head_from = 0;
    client->blank_skipped = false;
    conn_deadline(core, &client->conn, worker_of(core)->mock->settings.idle_ms);
    return true;
}

static void answer_begin(struct core *core, struct client *client)
{
    client->state = CLIENT_ANSWER;
    conn_deadline(core, &client->conn, STUCK_MS);
    answer_start(worker_of(core), &client->answer);
}

// Take in what is there, request by request. Each turn of the loop takes bytes or ends a request.
static void client_read(struct core *core, struct client *client)
{
    bool on = true;
    while (on) {
        switch (client->state) {
        case CLIENT_HEAD: on = !inbox_empty(&client->in) && read_head(core, client); break;
        case CLIENT_BODY:
            if (read_body(core, client))
                answer_begin(core, client);
            else
                on = !inbox_empty(&client->in);
            break;
        case CLIENT_ANSWER: on = answer_on(core, client); break;
        case CLIENT_LEAVING: return;
        }
    }
    if (client->state == CLIENT_ANSWER && !inbox_empty(&client->in))
        conn_watch(core, &client->conn);
    else if (client->state != CLIENT_LEAVING)
        conn_receive(core, &client->conn, false);
}

// ------------------------------------------------------------------------------------- connection

static void client_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct client *client = client_of(conn);
    mock_count(&worker_of(core)->counters.bytes_in, len);
    if (client->state == CLIENT_LEAVING) {
        buf_unref(buf);
        return;
    }
    uint32_t held = (uint32_t)inbox_rest(&client->in).len;
    if (!inbox_add(core, &client->in, buf, len)) {
        client_refuse(core, client, held + len > H1_HEAD_MAX ? 431 : 503);
        return;
    }
    if (client->state == CLIENT_ANSWER) { // the next request has to wait
        conn_watch(core, conn);
        return;
    }
    conn_deadline(core, conn, REQUEST_MS);
    client_read(core, client);
}

static void client_ended(struct core *core, struct conn *conn, int error)
{
    struct client *client = client_of(conn);
    if (client->state == CLIENT_LEAVING)
        return; // finishing: the connection goes on by itself
    if (client->state == CLIENT_HEAD && conn->out_bytes && error == 0)
        client_finish(core, client); // the last answer is still on its way
    else
        client_close(core, client, true);
}

static void client_sent(struct core *core, struct conn *conn, uint32_t bytes)
{
    struct client *client = client_of(conn);
    if (client->state == CLIENT_ANSWER && client->answer.waits_output)
        client_read(core, client);
}

static void client_send_failed(struct core *core, struct conn *conn, int error)
{
    client_close(core, client_of(conn), true);
}

static void client_expired(struct core *core, struct conn *conn)
{
    struct client *client = client_of(conn);
    bool stuck = conn->out_bytes && core->now_ms - conn->moved_ms >= STUCK_MS;
    if (client->state == CLIENT_ANSWER && !stuck)
        conn_deadline(core, conn, STUCK_MS); // a long script
    else
        client_close(core, client, true);
}

static void client_closed(struct core *core, struct conn *conn)
{
    struct worker *worker = worker_of(core);
    CHECK(client_of(conn)->state == CLIENT_LEAVING);
    list_remove(&client_of(conn)->node);
    mock_count(&worker->counters.connections, -1);
    atomic_fetch_sub(&worker->mock->connections, 1);
}

static const struct conn_ops client_ops = {
    .received = client_received,
    .ended = client_ended,
    .sent = client_sent,
    .send_failed = client_send_failed,
    .expired = client_expired,
    .closed = client_closed,
};

static void pace_fire(struct core *core, struct timer *timer)
{
    struct client *client = LIST_OWNER(timer, struct client, pace);
    if (client->state == CLIENT_ANSWER)
        client_read(core, client);
}

void mock_accepted(struct core *core, struct listener *listener, int fd)
{
    struct worker *worker = worker_of(core);
    struct mock *mock = worker->mock;
    struct conn *conn = NULL;
    if (atomic_fetch_add(&mock->connections, 1) < mock->connections_max)
        conn = conn_open(core, fd, &client_ops, mock->settings.idle_ms);
    if (!conn) {
        atomic_fetch_sub(&mock->connections, 1);
        mock_count(&worker->counters.connections_refused, 1);
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
        return;
    }
    struct client *client = client_of(conn);
    timer_init(&client->pace, pace_fire);
    list_push_back(&worker->clients, &client->node);
    mock_count(&worker->counters.connections, 1);
    mock_count(&worker->counters.connections_accepted, 1);
    conn_receive(core, conn, false);
}

void mock_clients_close(struct worker *worker)
{
    struct list *next;
    for (struct list *node = worker->clients.next; node != &worker->clients; node = next) {
        next = node->next;
        struct client *client = LIST_OWNER(node, struct client, node);
        if (client->state != CLIENT_LEAVING)
            client_leave(&worker->core, client, true);
        conn_close(&worker->core, &client->conn);
    }
}
