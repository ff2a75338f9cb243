// SPDX-License-Identifier: MIT
//
// TLS inside a connection: ciphertext on the ring's side, plaintext on the owner's. See conn.h.
#include "engine/conn.h"

#include <errno.h>

#include "alloc/check.h"
#include "proto/tls.h"

// ------------------------------------------------------------------------------------ open, close

bool conn_tls_server(struct core *core, struct conn *conn, struct tls_context *context)
{
    CHECK(!conn->tls);
    conn->tls = tls_server(context);
    return conn->tls != NULL;
}

// What the session has to say by itself: handshake, tickets, alerts.
static void note_waiting(struct core *core, struct conn *conn)
{
    conn->tls_waiting = tls_unsent(conn->tls) > 0;
    if (conn->tls_waiting && conn->state == CONN_OPEN)
        conn_dirty(core, conn);
}

bool conn_tls_client(struct core *core, struct conn *conn, struct tls_context *context,
                     const char *name, const struct tls_saved *saved)
{
    CHECK(!conn->tls);
    conn->tls = tls_client(context, name, saved);
    if (!conn->tls)
        return false;
    conn->tls_opening = true;
    conn->tls_waiting = true; // the ClientHello, made when it is sent
    conn_dirty(core, conn);
    return true;
}

bool conn_tls_close(struct core *core, struct conn *conn)
{
    if (conn->tls_closing)
        return false;
    conn->tls_closing = true;
    tls_close(conn->tls);
    note_waiting(core, conn);
    return conn->tls_waiting;
}

void conn_tls_free(struct conn *conn)
{
    if (conn->tls)
        tls_free(conn->tls);
    conn->tls = NULL;
}

// ------------------------------------------------------------------------------------------- send

static struct buf *cipher_room(struct core *core, const struct conn *conn)
{
    size_t want = conn->out_bytes + tls_unsent(conn->tls) + TLS_OVERHEAD_MAX;
    struct buf *buf = want > core->write.size ? buf_take(&core->receive) : NULL;
    return buf ? buf : buf_take(&core->write);
}

static size_t pieces_of(const struct conn *conn, struct span *pieces)
{
    size_t count = 0;
    for (struct segment *s = conn->out_first; s && count < IO_VECTOR_MAX; s = s->next)
        pieces[count++] = span_of(s->ptr, s->len);
    return count;
}

// Encrypt as much as fits one buffer. Plaintext that was taken is done with.
static bool encrypt(struct core *core, struct conn *conn)
{
    struct buf *buf = cipher_room(core, conn);
    if (!buf)
        return false;
    struct span pieces[IO_VECTOR_MAX];
    size_t count = pieces_of(conn, pieces);
    struct tls_moved moved = tls_encrypt(conn->tls, pieces, count, buf->bytes, buf->pool->size);
    conn_output_advance(core, conn, (uint32_t)moved.taken);
    conn->plain_sent += (uint32_t)moved.taken;
    conn->tls_waiting = tls_unsent(conn->tls) > 0;
    conn->cipher_at = 0;
    conn->cipher_len = (uint32_t)moved.made;
    if (moved.made > 0)
        conn->gathered = buf;
    else
        buf_unref(buf);
    return true;
}

void conn_tls_send(struct core *core, struct conn *conn)
{
    if (conn->cipher_len == 0 && !encrypt(core, conn)) {
        conn->ops->send_failed(core, conn, -ENOBUFS);
        return;
    }
    if (conn->cipher_len > 0)
        conn_send_bytes(core, conn, conn->gathered->bytes + conn->cipher_at, conn->cipher_len);
    else if (conn->finishing)
        conn_close(core, conn); // an answer for a peer with whom no key was ever agreed
}

void conn_tls_sent(struct core *core, struct conn *conn, uint32_t bytes)
{
    CHECK(bytes <= conn->cipher_len);
    conn->cipher_at += bytes;
    conn->cipher_len -= bytes;
    if (conn->cipher_len > 0)
        return;
    buf_unref(conn->gathered);
    conn->gathered = NULL;
    uint32_t plain = conn->plain_sent;
    conn->plain_sent = 0;
    if (plain > 0 && conn->ops->sent)
        conn->ops->sent(core, conn, plain);
}

// ---------------------------------------------------------------------------------------- receive

static void failed(struct core *core, struct conn *conn, int error)
{
    // The alert that tells the peer why goes out in front of the closing.
    note_waiting(core, conn);
    if (conn->tls_waiting && !conn->send_armed)
        conn_tls_send(core, conn);
    conn_receive_ended(core, conn, error);
}

// The handshake is over, or it is not: the owner who dialed waits to hear.
static bool opened(struct core *core, struct conn *conn)
{
    if (!conn->tls_opening || tls_state(conn->tls) == TLS_HANDSHAKING)
        return true;
    conn->tls_opening = false;
    bool good = tls_state(conn->tls) == TLS_OPEN;
    note_waiting(core, conn);
    if (!good && conn->tls_waiting && !conn->send_armed)
        conn_tls_send(core, conn);
    conn->ops->connected(core, conn, good ? 0 : -EPROTO);
    return good && conn->state == CONN_OPEN;
}

static struct buf *plain_room(struct core *core)
{
    // When receive buffers are scarce they are for receives.
    bool scarce = buf_available(&core->receive) < core->receive.count / 4;
    struct buf *buf = scarce ? NULL : buf_take(&core->receive);
    return buf ? buf : buf_take(&core->write);
}

// One step: decrypt into fresh room and hand over what came out. True: there is more to do.
static bool step(struct core *core, struct conn *conn, const uint8_t **in, size_t *len,
                 bool *delivered)
{
    bool handshaking = tls_state(conn->tls) == TLS_HANDSHAKING;
    struct buf *room = handshaking ? NULL : plain_room(core);
    if (!room && !handshaking) {
        failed(core, conn, -ENOBUFS);
        return false;
    }
    struct tls_moved moved =
        tls_decrypt(conn->tls, *in, *len, room ? room->bytes : NULL, room ? room->pool->size : 0);
    *in += moved.taken;
    *len -= moved.taken;
    *delivered |= moved.made > 0;
    if (moved.made > 0)
        conn->ops->received(core, conn, room, (uint32_t)moved.made);
    else if (room)
        buf_unref(room);
    if (conn->state != CONN_OPEN || !opened(core, conn))
        return false;
    if (moved.result == TLS_END)
        conn_receive_ended(core, conn, 0);
    else if (moved.result == TLS_BAD)
        failed(core, conn, -EPROTO);
    return moved.result == TLS_ROOM && conn->state == CONN_OPEN;
}

void conn_tls_received(struct core *core, struct conn *conn, struct buf *buf, uint32_t len,
                       bool wanted)
{
    const uint8_t *in = buf->bytes;
    size_t left = len;
    bool delivered = false;
    while (step(core, conn, &in, &left, &delivered))
        ;
    buf_unref(buf);
    if (conn->state != CONN_OPEN)
        return;
    note_waiting(core, conn);
    // Part of a record: the owner heard nothing, so it cannot ask for more.
    if (!delivered && wanted)
        conn_receive(core, conn, conn->receive_next);
}

// The transport ended. Without close_notify that may be an attack on the end of a message: an
// error.
int conn_tls_ended(struct core *core, struct conn *conn, int error)
{
    if (tls_state(conn->tls) == TLS_FAILED)
        error = error ? error : -EPROTO;
    else if (tls_cut(conn->tls) != TLS_END && error == 0)
        error = -ECONNRESET;
    if (conn->tls_opening && conn->state == CONN_OPEN) {
        conn->tls_opening = false;
        conn->ops->connected(core, conn, error ? error : -ECONNRESET);
    }
    return error;
}
