// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"
#include "proto/tls_names.h"

#include <limits.h>

static const uint32_t TLS_MAGIC = MAGIC('T', 'L', 'S', ' ');

enum { UNSENT_BYTES_MIN = 2048, HELLO_BYTES_MIN = 1024 };

static_assert(TLS_OVERHEAD_MAX >= 5 + 8 + 1 + 16, "header, nonce, content type, tag");

// ---- bytes on the heap, counted -----------------------------------------------------------------

// Room for `more` bytes behind `len`. Grows by doubling; *cap is what there is.
static uint8_t *grow(struct tls *tls, uint8_t *bytes, size_t *cap, size_t len, size_t more,
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
    CHECK_MAGIC(tls, TLS_MAGIC);
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
    CHECK_MAGIC(tls, TLS_MAGIC);
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
    tls->unsent = grow(tls, tls->unsent, &tls->unsent_cap, tls->unsent_len, left, UNSENT_BYTES_MIN);
    memcpy(tls->unsent + tls->unsent_len, from, left);
    tls->unsent_len += left;
    return len;
}

static int ticket_came(WOLFSSL *ssl, const unsigned char *ticket, int len, void *user)
{
    struct tls *tls = user;
    tls->has_ticket = true;
    return 0;
}

// ---- making and ending --------------------------------------------------------------------------

static struct tls *session_new(struct tls_context *context)
{
    struct tls *tls = heap_alloc(sizeof *tls);
    tls->magic = TLS_MAGIC;
    tls->bytes = sizeof *tls;
    tls->context = context;
    tls_context_ref(context);
    return tls;
}

// The WOLFSSL for these rules. Runs inside a count.
static void session_begin(struct tls *tls, WOLFSSL_CTX *rules)
{
    struct tls_context *context = tls->context;
    tls->ssl = wolfSSL_new(rules);
    CHECK(tls->ssl != NULL);
    wolfSSL_SetIOReadCtx(tls->ssl, tls);
    wolfSSL_SetIOWriteCtx(tls->ssl, tls);
    wolfSSL_SetCertCbCtx(tls->ssl, tls);
    if (!context->alpn[0])
        return;
    int mismatch = context->side == TLS_SERVER ? WOLFSSL_ALPN_FAILED_ON_MISMATCH
                                               : WOLFSSL_ALPN_CONTINUE_ON_MISMATCH;
    CHECK(wolfSSL_UseALPN(tls->ssl, context->alpn, (unsigned)strlen(context->alpn),
                          (byte)mismatch) == WOLFSSL_SUCCESS);
}

static bool name_is_plausible(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > TLS_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] >= 0x7f || name[i] == '*' || name[i] == '/')
            return false;
    return true;
}

static void session_resume(struct tls *tls, const struct tls_saved *saved);

// One step of the handshake. False: it has failed. Runs inside a count.
static bool shake_hands(struct tls *tls)
{
    bool is_client = tls->context->side == TLS_CLIENT;
    int code = is_client ? wolfSSL_connect(tls->ssl) : wolfSSL_accept(tls->ssl);
    if (code != WOLFSSL_SUCCESS) {
        code = wolfSSL_get_error(tls->ssl, code);
        if (code == WOLFSSL_ERROR_WANT_READ)
            return true;
        tls_fail(tls, code);
        return false;
    }
    // Two must have looked at a server's name: wolfSSL, and we, unless it is vouched for by a
    // handshake that this one resumes.
    if (is_client && !tls->name_checked && !wolfSSL_session_reused(tls->ssl)) {
        tls_fail_with(tls, TLS_FAULT_INTERNAL, "the certificate's name was not checked");
        return false;
    }
    tls->state = TLS_OPEN;
    return true;
}

struct tls *tls_client(struct tls_context *context, const char *server_name,
                       const struct tls_saved *saved)
{
    CHECK(context->side == TLS_CLIENT);
    if (!name_is_plausible(server_name))
        return NULL;
    struct tls *tls = session_new(context);
    uint8_t address[16];
    size_t len = strlen(server_name);
    memcpy(tls->server_name, server_name, len + 1);
    tls_count_start(&tls->bytes);
    session_begin(tls, tls_context_choose(context, (struct span){0}));
    if (name_address(server_name, address) == 0) {
        CHECK(wolfSSL_UseSNI(tls->ssl, WOLFSSL_SNI_HOST_NAME, server_name, (word16)len) ==
              WOLFSSL_SUCCESS);
        CHECK(wolfSSL_check_domain_name(tls->ssl, server_name) == WOLFSSL_SUCCESS);
    }
    CHECK(wolfSSL_set_SessionTicket_cb(tls->ssl, ticket_came, tls) == WOLFSSL_SUCCESS);
    if (saved)
        session_resume(tls, saved);
    shake_hands(tls); // the ClientHello
    tls_count_stop();
    return tls;
}

struct tls *tls_server(struct tls_context *context)
{
    CHECK(context->side == TLS_SERVER);
    return session_new(context);
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    CHECK_MAGIC(tls, TLS_MAGIC);
    tls_count_start(&tls->bytes);
    wolfSSL_free(tls->ssl);
    tls_count_stop();
    heap_free(tls->unsent);
    heap_free(tls->hello);
    heap_free(tls->peer_names);
    heap_free(tls->peer_issuer);
    heap_free(tls->peer_dates);
    heap_free(tls->error);
    tls_context_free(tls->context);
    tls->magic = 0;
    heap_free(tls);
}

// ---- a server's first bytes ---------------------------------------------------------------------

static void look_for_http(struct tls *tls)
{
    static const char *const starts[] = {"GET ", "POST", "PUT ", "HEAD", "OPTI", "HTTP", "DELE"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (tls->loan_len >= 4 && memcmp(tls->loan, starts[i], 4) == 0)
            tls->plain_http = true;
}

// A server must know which name is asked for before it begins: a certificate is chosen by it. The
// ClientHello nearly always comes whole, and is looked at where it lies; one that comes in pieces
// is kept until it is whole. False: not yet. Runs inside a count.
static bool choose_certificate(struct tls *tls)
{
    struct span name = {0};
    if (tls->hello || hello_server_name(span_of(tls->loan, tls->loan_len), &name) == HELLO_MORE) {
        size_t room = TLS_RECORD_MAX - tls->hello_len;
        size_t some = tls->loan_len < room ? tls->loan_len : room;
        tls->hello = grow(tls, tls->hello, &tls->hello_cap, tls->hello_len, some, HELLO_BYTES_MIN);
        memcpy(tls->hello + tls->hello_len, tls->loan, some);
        tls->hello_len += some;
        tls->loan += some;
        tls->loan_len -= some;
        if (hello_server_name(span_of(tls->hello, tls->hello_len), &name) == HELLO_MORE)
            return false;
    }
    if (name.len && name.len <= TLS_NAME_MAX)
        memcpy(tls->server_name, name.ptr, name.len);
    if (name.len && !name_is_plausible(tls->server_name))
        tls->server_name[0] = '\0';
    session_begin(tls, tls_context_choose(tls->context, name));
    return true;
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
            look_for_http(tls);
        if (!choose_certificate(tls))
            return TLS_OK;
    }
    if (!tls->ssl)
        return TLS_OK;
    if (tls->state == TLS_HANDSHAKING) {
        if (tls->context->side == TLS_CLIENT)
            look_for_http(tls);
        if (!shake_hands(tls))
            return TLS_BAD;
    }
    if (tls->state == TLS_HANDSHAKING)
        return TLS_OK;
    return pull(tls, plain, cap, made);
}

struct tls_moved tls_decrypt(struct tls *tls, const void *cipher, size_t len, void *plain,
                             size_t cap)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
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
    CHECK_MAGIC(tls, TLS_MAGIC);
    CHECK(count == 0 || pieces != NULL);
    CHECK(cap == 0 || cipher != NULL);
    struct tls_moved moved = {0};
    struct place place = {pieces, pieces + count, 0};
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
    CHECK_MAGIC(tls, TLS_MAGIC);
    return tls->unsent_len - tls->unsent_at;
}

size_t tls_undelivered(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    if (!tls->ssl || tls->state != TLS_OPEN)
        return 0;
    int pending = wolfSSL_pending(tls->ssl);
    return pending > 0 ? (size_t)pending : 0;
}

// ---- the end ------------------------------------------------------------------------------------

void tls_close(struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    if (tls->closed || (tls->state != TLS_OPEN && tls->state != TLS_ENDED))
        return;
    tls->closed = true;
    tls_count_start(&tls->bytes);
    wolfSSL_shutdown(tls->ssl); // only says close_notify: ours is never an answer to wait for
    tls_count_stop();
}

enum tls_result tls_cut(struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    if (tls->state == TLS_ENDED)
        return TLS_END;
    if (tls->state != TLS_FAILED)
        tls_fail_with(tls, TLS_FAULT_CUT, NULL);
    return TLS_BAD;
}

enum tls_state tls_state(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    return tls->state;
}

size_t tls_bytes(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    return tls->bytes;
}

// ---- what was agreed ----------------------------------------------------------------------------

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

// By the names of the registry: wolfSSL's own differ from build to build.
static const char *cipher_name(int suite)
{
    switch (suite) {
    case 0x1301: return "TLS_AES_128_GCM_SHA256";
    case 0x1302: return "TLS_AES_256_GCM_SHA384";
    case 0x1303: return "TLS_CHACHA20_POLY1305_SHA256";
    case 0xc02b: return "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    case 0xc02c: return "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    case 0xc02f: return "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    case 0xc030: return "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
    case 0xcca8: return "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256";
    case 0xcca9: return "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    default: return "?";
    }
}

struct tls_facts tls_facts(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    struct tls_facts facts = {
        .version = "", .cipher = "", .group = "", .alpn = "", .server_name = tls->server_name};
    if (tls->state != TLS_OPEN && tls->state != TLS_ENDED)
        return facts;
    facts.version = or_empty(wolfSSL_get_version(tls->ssl));
    facts.cipher = cipher_name(wolfSSL_get_current_cipher_suite(tls->ssl));
    facts.group = or_empty(wolfSSL_get_curve_name(tls->ssl));
    facts.resumed = wolfSSL_session_reused(tls->ssl) == 1;
    facts.client_certificate = tls->context->verifies_clients;
    char *protocol = NULL;
    word16 len = 0;
    if (wolfSSL_ALPN_GetProtocol(tls->ssl, &protocol, &len) == WOLFSSL_SUCCESS)
        facts.alpn = or_empty(protocol);
    return facts;
}

// ---- resumption on the client's side ------------------------------------------------------------

static const uint32_t SAVED_MAGIC = MAGIC('T', 'S', 'A', 'V');

struct tls_saved {
    uint32_t magic;
    WOLFSSL_SESSION *session;
    uint8_t scope[TLS_SCOPE_BYTES];
    char server_name[TLS_NAME_MAX + 1];
};

struct tls_saved *tls_save(struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_MAGIC);
    if (!tls->has_ticket || (tls->state != TLS_OPEN && tls->state != TLS_ENDED))
        return NULL;
    // Not in TLS 1.2: a server that no longer knows the ticket goes on with a full handshake, and
    // wolfSSL (since CVE-2026-6092 was mended) takes that for an attack.
    if (wolfSSL_version(tls->ssl) < TLS1_3_VERSION)
        return NULL;
    WOLFSSL_SESSION *session = wolfSSL_get1_session(tls->ssl);
    if (!session)
        return NULL;
    struct tls_saved *saved = heap_alloc(sizeof *saved);
    saved->magic = SAVED_MAGIC;
    saved->session = session;
    memcpy(saved->scope, tls->context->scope, sizeof saved->scope);
    memcpy(saved->server_name, tls->server_name, sizeof saved->server_name);
    return saved;
}

void tls_saved_free(struct tls_saved *saved)
{
    if (!saved)
        return;
    CHECK_MAGIC(saved, SAVED_MAGIC);
    wolfSSL_SESSION_free(saved->session);
    saved->magic = 0;
    heap_free(saved);
}

// Offer what was saved. A resumed handshake shows no certificate, so it must not reach a server
// under another name, or one that was verified by other rules.
static void session_resume(struct tls *tls, const struct tls_saved *saved)
{
    CHECK_MAGIC(saved, SAVED_MAGIC);
    if (strcmp(saved->server_name, tls->server_name) != 0 ||
        memcmp(saved->scope, tls->context->scope, sizeof saved->scope) != 0)
        return;
    wolfSSL_set_session(tls->ssl, saved->session); // too old: a full handshake then
}
