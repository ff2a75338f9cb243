// SPDX-License-Identifier: MIT
#include "tests/sim/echo_server.h"

#include <stdio.h>
#include <string.h>

#include "alloc/check.h"

// A client's connection, or the relay's to a mirror; `pair` links the two.
struct session {
    struct conn conn;
    struct session *pair;
    bool upstream;
    bool ending; // conn_finish was called, or the request was given up
    bool paused;
    bool by_multishot; // it receives so by now
    uint32_t number;   // of the connection, for `outcomes`
    uint8_t flags;
    uint8_t header[ECHO_HEADER];
    uint32_t header_len;
    uint32_t length, limit; // of the payload
    uint32_t came;          // bytes of payload received from the client
    uint32_t answered;      // bytes of payload queued for the client
    uint32_t greeting_left; // upstream: bytes of the far server's greeting still to skip
};

static const struct conn_ops client_ops, upstream_ops;

uint32_t echo_session_size(void)
{
    return sizeof(struct session);
}

static struct session *session_of(struct conn *conn)
{
    return (struct session *)conn;
}

static void judge(struct echo_server *server, struct session *client, enum echo_outcome outcome)
{
    CHECK(client->number < server->outcome_count);
    uint8_t *now = &server->outcomes[client->number];
    if (*now == ECHO_OPEN)
        *now = (uint8_t)outcome;
}

// Give up both connections of a request.
static void give_up(struct core *core, struct session *client, enum echo_outcome outcome)
{
    struct echo_server *server = core->owner;
    CHECK(!client->upstream);
    judge(server, client, outcome);
    if (client->pair)
        conn_close(core, &client->pair->conn);
    conn_close(core, &client->conn);
}

// ----------------------------------------------------------------------------------------- output

// Small pieces can be copied into the segment itself.
static bool push(struct core *core, struct session *to, struct buf *buf, const uint8_t *bytes,
                 uint32_t len, bool text)
{
    if (text && len <= SEGMENT_TEXT_MAX)
        return conn_push_text(core, &to->conn, bytes, len);
    return conn_push(core, &to->conn, buf, bytes, len);
}

static bool push_trailer(struct core *core, struct session *client)
{
    struct echo_server *server = core->owner;
    struct buf *buf = buf_take(&core->write);
    if (!buf) {
        server->counts->no_write_buffer++;
        return conn_push(core, &client->conn, NULL, ECHO_TRAILER, sizeof ECHO_TRAILER - 1);
    }
    memcpy(buf->bytes, ECHO_TRAILER, sizeof ECHO_TRAILER - 1);
    bool pushed = conn_push(core, &client->conn, buf, buf->bytes, sizeof ECHO_TRAILER - 1);
    buf_unref(buf);
    return pushed;
}

static void answer_whole(struct core *core, struct session *client)
{
    struct echo_server *server = core->owner;
    if (client->flags & ECHO_ABORT) {
        give_up(core, client, ECHO_ABORTED);
        return;
    }
    if (!push_trailer(core, client)) {
        server->counts->no_segment++;
        give_up(core, client, ECHO_SHED);
        return;
    }
    client->ending = true;
    judge(server, client, ECHO_SERVED);
    conn_finish(core, &client->conn);
    if (client->pair)
        conn_close(core, &client->pair->conn);
    if (client->came < client->length)
        server->counts->lingered++;
}

// Payload for the client, from wherever it came back.
static void answer(struct core *core, struct session *client, struct buf *buf, const uint8_t *bytes,
                   uint32_t len)
{
    struct echo_server *server = core->owner;
    uint32_t left = client->limit - client->answered;
    if (len > left)
        len = left;
    if (len > 0 && !push(core, client, buf, bytes, len, client->flags & ECHO_TEXT)) {
        server->counts->no_segment++;
        give_up(core, client, ECHO_SHED);
        return;
    }
    client->answered += len;
    if (client->answered == client->limit && !client->ending)
        answer_whole(core, client);
}

// ------------------------------------------------------------------------------------ backpressure

// Receive from `from` while what it brings has room at `to`.
static void receive_or_pause(struct core *core, struct session *from, const struct session *to)
{
    struct echo_server *server = core->owner;
    if (to && to->conn.out_bytes >= server->window) {
        if (!from->paused)
            server->counts->paused++;
        from->paused = true;
        if (from->conn.receive_multishot)
            conn_receive_stop(core, &from->conn);
        if (!from->upstream && !from->ending && from->flags & ECHO_WATCH) {
            server->counts->watched++;
            conn_watch(core, &from->conn);
        }
        return;
    }
    bool multishot = from->flags & ECHO_MULTISHOT;
    bool stays = from->by_multishot && !from->paused; // armed once, until it is stopped
    from->paused = false;
    if (stays)
        return;
    from->by_multishot = multishot;
    conn_receive(core, &from->conn, multishot);
}

static struct session *reader_for(struct session *to)
{
    return to->pair ? to->pair : to;
}

static void sent(struct core *core, struct conn *conn, uint32_t bytes)
{
    struct echo_server *server = core->owner;
    struct session *to = session_of(conn);
    conn_deadline(core, conn, server->expire_ms);
    struct session *from = reader_for(to);
    conn_deadline(core, &from->conn, server->expire_ms);
    if (from->paused && conn->out_bytes <= server->window / 2)
        receive_or_pause(core, from, to);
}

// -------------------------------------------------------------------------------------- the relay

static bool relay_start(struct core *core, struct session *client)
{
    struct echo_server *server = core->owner;
    int far = client->flags & ECHO_RELAY_FAR ? 1 : 0;
    int fd = io_socket(core->io, server->mirror[far].ss_family);
    if (fd < 0)
        return false;
    struct conn *conn = conn_open(core, fd, &upstream_ops, server->expire_ms);
    if (!conn) {
        server->counts->no_slot++;
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
        return false;
    }
    struct session *upstream = session_of(conn);
    upstream->upstream = true;
    upstream->flags = client->flags;
    upstream->pair = client;
    client->pair = upstream;
    server->counts->relayed++;
    conn_connect(core, conn, (struct sockaddr *)&server->mirror[far], server->mirror_len[far]);
    if (!far)
        return true;
    // The far server wants a header of its own, and greets before it echoes.
    uint8_t header[ECHO_HEADER] = {client->flags & ECHO_MULTISHOT};
    memcpy(header + 1, &client->length, 4);
    memcpy(header + 5, &client->length, 4);
    upstream->greeting_left = sizeof ECHO_GREETING - 1;
    return conn_push_text(core, conn, header, sizeof header);
}

static void upstream_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct echo_server *server = core->owner;
    struct session *upstream = session_of(conn);
    struct session *client = upstream->pair;
    conn_deadline(core, conn, server->expire_ms);
    conn_deadline(core, &client->conn, server->expire_ms);
    uint32_t skip = upstream->greeting_left < len ? upstream->greeting_left : len;
    upstream->greeting_left -= skip;
    if (len > skip)
        answer(core, client, buf, buf->bytes + skip, len - skip);
    buf_unref(buf);
    if (conn->state == CONN_OPEN)
        receive_or_pause(core, upstream, client);
}

static void upstream_ended(struct core *core, struct conn *conn, int error)
{
    give_up(core, session_of(conn)->pair, ECHO_UPSTREAM_LEFT);
}

static void upstream_send_failed(struct core *core, struct conn *conn, int error)
{
    give_up(core, session_of(conn)->pair, ECHO_UPSTREAM_LEFT);
}

static void upstream_connected(struct core *core, struct conn *conn, int error)
{
    struct session *upstream = session_of(conn);
    if (error) {
        give_up(core, upstream->pair, ECHO_UPSTREAM_LEFT);
        return;
    }
    receive_or_pause(core, upstream, upstream->pair);
}

static void upstream_expired(struct core *core, struct conn *conn)
{
    give_up(core, session_of(conn)->pair, ECHO_EXPIRED);
}

static void session_closed(struct core *core, struct conn *conn)
{
    struct session *session = session_of(conn);
    if (session->pair)
        session->pair->pair = NULL;
    session->pair = NULL;
}

// ----------------------------------------------------------------------------------- client's side

static bool header_whole(struct core *core, struct session *client)
{
    client->flags = client->header[0];
    memcpy(&client->length, client->header + 1, 4);
    memcpy(&client->limit, client->header + 5, 4);
    if (client->limit > client->length)
        client->limit = client->length;
    if (!conn_push(core, &client->conn, NULL, ECHO_GREETING, sizeof ECHO_GREETING - 1)) {
        ((struct echo_server *)core->owner)->counts->no_segment++;
        return false;
    }
    return !(client->flags & ECHO_RELAY) || relay_start(core, client);
}

static void payload(struct core *core, struct session *client, struct buf *buf,
                    const uint8_t *bytes, uint32_t len)
{
    struct echo_server *server = core->owner;
    uint32_t left = client->length - client->came;
    if (len > left)
        len = left;
    client->came += len;
    if (client->ending || (len == 0 && client->length > 0))
        return;
    if (!client->pair || client->length == 0) {
        answer(core, client, buf, bytes, len);
        return;
    }
    if (!push(core, client->pair, buf, bytes, len, client->flags & ECHO_TEXT)) {
        server->counts->no_segment++;
        give_up(core, client, ECHO_SHED);
    }
}

static void client_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len)
{
    struct echo_server *server = core->owner;
    struct session *client = session_of(conn);
    conn_deadline(core, conn, server->expire_ms);
    uint32_t used = 0;
    while (used < len && client->header_len < ECHO_HEADER)
        client->header[client->header_len++] = buf->bytes[used++];
    bool begun = used > 0 && client->header_len == ECHO_HEADER;
    if (begun && !header_whole(core, client)) {
        give_up(core, client, ECHO_SHED);
    } else if (client->header_len == ECHO_HEADER && (used < len || client->length == 0)) {
        payload(core, client, buf, buf->bytes + used, len - used);
    }
    buf_unref(buf);
    if (conn->state == CONN_OPEN)
        receive_or_pause(core, client, client->pair ? client->pair : client);
}

static void client_ended(struct core *core, struct conn *conn, int error)
{
    struct session *client = session_of(conn);
    // A client may end its stream once all is said, and still wants its answer.
    bool all_said = client->header_len == ECHO_HEADER && client->came == client->length;
    if (error == 0 && (all_said || client->ending))
        return;
    give_up(core, client, ECHO_CLIENT_LEFT);
}

static void client_send_failed(struct core *core, struct conn *conn, int error)
{
    give_up(core, session_of(conn), ECHO_CLIENT_LEFT);
}

static void client_expired(struct core *core, struct conn *conn)
{
    struct session *client = session_of(conn);
    if (client->ending) // its answer never got through
        ((struct echo_server *)core->owner)->counts->expired++;
    give_up(core, client, ECHO_EXPIRED);
}

static void accepted(struct core *core, struct listener *listener, int fd)
{
    struct echo_server *server = core->owner;
    char peer[64];
    unsigned a, b, c;
    io_peer(core->io, fd, peer, sizeof peer);
    CHECK(sscanf(peer, "10.%u.%u.%u", &a, &b, &c) == 3);
    uint32_t number = a << 16 | b << 8 | c;
    CHECK(number < server->outcome_count);
    CHECK(server->outcomes[number] == ECHO_NONE);
    server->outcomes[number] = ECHO_OPEN;
    struct conn *conn = conn_open(core, fd, &client_ops, server->expire_ms);
    if (!conn) {
        server->counts->no_slot++;
        server->outcomes[number] = ECHO_SHED;
        core->operations++;
        io_close(core->io, fd, (struct io_token){.op = IO_CLOSE});
        return;
    }
    session_of(conn)->number = number;
    conn_receive(core, conn, false);
}

static const struct conn_ops client_ops = {
    .received = client_received,
    .ended = client_ended,
    .sent = sent,
    .send_failed = client_send_failed,
    .expired = client_expired,
    .closed = session_closed,
};

static const struct conn_ops upstream_ops = {
    .received = upstream_received,
    .ended = upstream_ended,
    .sent = sent,
    .send_failed = upstream_send_failed,
    .connected = upstream_connected,
    .expired = upstream_expired,
    .closed = session_closed,
};

// ------------------------------------------------------------------------------------------- open

void echo_server_open(struct echo_server *server, const struct core_config *config)
{
    char error[256];
    CHECK(core_open(&server->core, config, error, sizeof error));
    server->core.owner = server;
    server->core.log.fd = SIM_LOG_FD;
}

int echo_server_listen(struct echo_server *server, const struct sockaddr *addr, socklen_t len,
                       uint32_t backlog)
{
    return core_listen(&server->core, addr, len, backlog, accepted, server);
}
