// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"

#include <limits.h>

enum { UNSENT_BYTES_MIN = 2048 };

static_assert(TLS_OVERHEAD_MAX >= 5 + 8 + 1 + 16, "header, nonce, content type, tag");

// Room for `more` bytes behind `len`. Grows by doubling; *cap is what there is.
uint8_t *tls_grow(struct tls *tls, uint8_t *bytes, size_t *cap, size_t len, size_t more,
                  size_t least)
{
    if (len + more <= *cap)
        return bytes;
    size_t wanted = *cap ? *cap : least;
    while (wanted < len + more)
        wanted *= 2;
    tls->bytes += wanted - *cap;
    *cap = wanted;
    return heap_resize(bytes, wanted);
}

static void unsent_free(struct tls *tls)
{
    heap_free(tls->unsent);
    tls->bytes -= tls->unsent_cap;
    tls->unsent = NULL;
    tls->unsent_len = tls->unsent_at = tls->unsent_cap = 0;
}

static void hello_free(struct tls *tls)
{
    heap_free(tls->hello);
    tls->bytes -= tls->hello_cap;
    tls->hello = NULL;
    tls->hello_len = tls->hello_at = tls->hello_cap = 0;
}

// ---- what wolfSSL calls -------------------------------------------------------------------------

// wolfSSL wants ciphertext: the ClientHello that was kept, then what the caller lends.
int tls_io_receive(WOLFSSL *ssl, char *to, int len, void *user)
{
    struct tls *tls = user;
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    size_t wanted = (size_t)len;
    if (tls->hello) {
        size_t left = tls->hello_len - tls->hello_at;
        size_t some = wanted < left ? wanted : left;
        memcpy(to, tls->hello + tls->hello_at, some);
        tls->hello_at += some;
        if (some == left)
            hello_free(tls);
        return (int)some;
    }
    if (tls->loan_len == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    size_t some = wanted < tls->loan_len ? wanted : tls->loan_len;
    memcpy(to, tls->loan, some);
    tls->loan += some;
    tls->loan_len -= some;
    return (int)some;
}

// wolfSSL has ciphertext: into the caller's room while nothing waits, else behind what waits. It is
// always taken, so wolfSSL never has to be asked twice.
int tls_io_send(WOLFSSL *ssl, char *from, int len, void *user)
{
    struct tls *tls = user;
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    size_t left = (size_t)len, free = tls->room_len - tls->room_used;
    if (tls->unsent_len == 0 && free) {
        size_t some = left < free ? left : free;
        memcpy(tls->room + tls->room_used, from, some);
        tls->room_used += some;
        from += some;
        left -= some;
    }
    if (left == 0)
        return len;
    if (tls->unsent_len + left > TLS_UNSENT_MAX)
        return WOLFSSL_CBIO_ERR_GENERAL;
    tls->unsent =
        tls_grow(tls, tls->unsent, &tls->unsent_cap, tls->unsent_len, left, UNSENT_BYTES_MIN);
    memcpy(tls->unsent + tls->unsent_len, from, left);
    tls->unsent_len += left;
    return len;
}

// ---- cipher in, plain out -----------------------------------------------------------------------

// Decrypt into plain[0..cap) until there is nothing more or no more room. Runs inside a count.
static enum tls_result pull(struct tls *tls, uint8_t *plain, size_t cap, size_t *made)
{
    while (*made < cap) {
        size_t room = cap - *made;
        int code = wolfSSL_read(tls->ssl, plain + *made, room > INT_MAX ? INT_MAX : (int)room);
        if (code > 0) {
            *made += (size_t)code;
            continue;
        }
        code = wolfSSL_get_error(tls->ssl, code);
        if (code == WOLFSSL_ERROR_WANT_READ)
            return TLS_OK;
        if (code == WOLFSSL_ERROR_ZERO_RETURN) {
            tls->state = TLS_ENDED;
            return TLS_END;
        }
        tls_fail(tls, code);
        return TLS_BAD;
    }
    return tls->loan_len || wolfSSL_pending(tls->ssl) > 0 ? TLS_ROOM : TLS_OK;
}

// Runs inside a count.
static enum tls_result decrypt(struct tls *tls, uint8_t *plain, size_t cap, size_t *made)
{
    if (!tls->ssl && tls->loan_len) {
        if (!tls->hello)
            tls_look_for_http(tls);
        if (!tls_choose_certificate(tls))
            return TLS_OK;
    }
    if (!tls->ssl)
        return TLS_OK;
    if (tls->state == TLS_HANDSHAKING) {
        if (tls->context->side == TLS_CLIENT)
            tls_look_for_http(tls);
        if (!tls_shake_hands(tls))
            return TLS_BAD;
    }
    if (tls->state == TLS_HANDSHAKING)
        return TLS_OK;
    return pull(tls, plain, cap, made);
}

struct tls_moved tls_decrypt(struct tls *tls, const void *cipher, size_t len, void *plain,
                             size_t cap)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    CHECK(len == 0 || cipher != NULL);
    CHECK(cap == 0 || plain != NULL);
    if (tls->state == TLS_FAILED)
        return (struct tls_moved){.result = TLS_BAD};
    if (tls->state == TLS_ENDED)
        return (struct tls_moved){.result = TLS_END};
    struct tls_moved moved = {0};
    tls->loan = cipher;
    tls->loan_len = len;
    tls_count_start(&tls->bytes);
    moved.result = decrypt(tls, plain, cap, &moved.made);
    tls_count_stop();
    CHECK(tls->loan_len <= len);
    moved.taken = len - tls->loan_len;
    tls->loan = NULL;
    tls->loan_len = 0;
    return moved;
}

// ---- plain in, cipher out -----------------------------------------------------------------------

// Move what waits into the room. False: the room is full and more waits.
static bool drain(struct tls *tls)
{
    size_t left = tls->unsent_len - tls->unsent_at, free = tls->room_len - tls->room_used;
    size_t some = left < free ? left : free;
    if (some)
        memcpy(tls->room + tls->room_used, tls->unsent + tls->unsent_at, some);
    tls->room_used += some;
    tls->unsent_at += some;
    if (some < left)
        return false;
    if (tls->unsent)
        unsent_free(tls);
    return true;
}

// A place in a list of pieces.
struct place {
    const struct span *piece, *end;
    size_t at;
};

static struct span place_rest(struct place *place)
{
    while (place->piece < place->end && place->at == place->piece->len) {
        place->piece++;
        place->at = 0;
    }
    if (place->piece == place->end)
        return (struct span){0};
    return span_of(place->piece->ptr + place->at, place->piece->len - place->at);
}

// Copy up to `cap` bytes together, and move on.
static size_t place_gather(struct place *place, uint8_t *to, size_t cap)
{
    size_t len = 0;
    for (;;) {
        struct span rest = place_rest(place);
        size_t some = rest.len < cap - len ? rest.len : cap - len;
        if (some == 0)
            return len;
        memcpy(to + len, rest.ptr, some);
        place->at += some;
        len += some;
    }
}

// Plaintext for one record of at most `cap` bytes: the caller's own when one piece is enough, else
// put together in the far end of the room, which its ciphertext will overwrite only after wolfSSL
// has copied it.
static struct span record_plain(struct tls *tls, struct place *place, size_t cap)
{
    struct span first = place_rest(place);
    if (first.len >= cap || place->piece + 1 == place->end) {
        first.len = first.len < cap ? first.len : cap;
        place->at += first.len;
        return first;
    }
    uint8_t *to = tls->room + tls->room_used + TLS_OVERHEAD_MAX;
    return span_of(to, place_gather(place, to, cap));
}

// Encrypt until the pieces or the room are used up. Runs inside a count.
static enum tls_result push(struct tls *tls, struct place *place, size_t *taken)
{
    while (place_rest(place).len) {
        size_t free = tls->room_len - tls->room_used;
        if (tls->unsent_len || free <= TLS_OVERHEAD_MAX)
            return TLS_ROOM;
        size_t cap = free - TLS_OVERHEAD_MAX;
        struct span plain = record_plain(tls, place, cap < TLS_PLAIN_MAX ? cap : TLS_PLAIN_MAX);
        int code = wolfSSL_write(tls->ssl, plain.ptr, (int)plain.len);
        if (code != (int)plain.len) {
            tls_fail(tls, wolfSSL_get_error(tls->ssl, code));
            return TLS_BAD;
        }
        *taken += plain.len;
    }
    return tls->unsent_len ? TLS_ROOM : TLS_OK;
}

struct tls_moved tls_encrypt(struct tls *tls, const struct span *pieces, size_t count, void *cipher,
                             size_t cap)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    CHECK(count == 0 || pieces != NULL);
    CHECK(cap == 0 || cipher != NULL);
    struct tls_moved moved = {0};
    struct place place = {pieces, count ? pieces + count : pieces, 0};
    tls->room = cipher;
    tls->room_len = cap;
    tls->room_used = 0;
    if (!drain(tls)) {
        moved.result = TLS_ROOM;
    } else if (tls->state == TLS_FAILED) {
        moved.result = TLS_BAD;
    } else if (tls->state != TLS_HANDSHAKING && !tls->closed) {
        tls_count_start(&tls->bytes);
        moved.result = push(tls, &place, &moved.taken);
        tls_count_stop();
    }
    moved.made = tls->room_used;
    tls->room = NULL;
    tls->room_len = tls->room_used = 0;
    return moved;
}

size_t tls_unsent(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    return tls->unsent_len - tls->unsent_at;
}

size_t tls_undelivered(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    if (!tls->ssl || tls->state != TLS_OPEN)
        return 0;
    int pending = wolfSSL_pending(tls->ssl);
    return pending > 0 ? (size_t)pending : 0;
}

// ---- the end ------------------------------------------------------------------------------------

void tls_close(struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    if (tls->closed || (tls->state != TLS_OPEN && tls->state != TLS_ENDED))
        return;
    tls->closed = true;
    tls_count_start(&tls->bytes);
    wolfSSL_shutdown(tls->ssl); // only says close_notify: ours is never an answer to wait for
    tls_count_stop();
}

enum tls_result tls_cut(struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    if (tls->state == TLS_ENDED)
        return TLS_END;
    if (tls->state != TLS_FAILED)
        tls_fail_with(tls, TLS_FAULT_CUT, NULL);
    return TLS_BAD;
}
