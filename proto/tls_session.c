// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"
#include "proto/tls_names.h"

enum { HELLO_BYTES_MIN = 1024 };

// ---- making and ending --------------------------------------------------------------------------

static struct tls *session_new(struct tls_context *context)
{
    struct tls *tls = heap_alloc(sizeof *tls);
    tls->magic = TLS_SESSION_MAGIC;
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
bool tls_shake_hands(struct tls *tls)
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

static int ticket_came(WOLFSSL *ssl, const unsigned char *ticket, int len, void *user)
{
    struct tls *tls = user;
    tls->has_ticket = true;
    return 0;
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
    if (len > 1 && server_name[len - 1] == '.')
        len--;
    memcpy(tls->server_name, server_name, len);
    tls_count_start(&tls->bytes);
    session_begin(tls, tls_context_choose(context, (struct span){0}));
    if (name_address(tls->server_name, address) == 0) {
        CHECK(wolfSSL_UseSNI(tls->ssl, WOLFSSL_SNI_HOST_NAME, tls->server_name, (word16)len) ==
              WOLFSSL_SUCCESS);
        CHECK(wolfSSL_check_domain_name(tls->ssl, tls->server_name) == WOLFSSL_SUCCESS);
    }
    CHECK(wolfSSL_set_SessionTicket_cb(tls->ssl, ticket_came, tls) == WOLFSSL_SUCCESS);
    if (saved)
        session_resume(tls, saved);
    tls_shake_hands(tls); // the ClientHello
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
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
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

enum tls_state tls_state(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    return tls->state;
}

size_t tls_bytes(const struct tls *tls)
{
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    return tls->bytes;
}

// ---- a server's first bytes ---------------------------------------------------------------------

void tls_look_for_http(struct tls *tls)
{
    static const char *const starts[] = {"GET ", "POST", "PUT ", "HEAD", "OPTI", "HTTP", "DELE"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (tls->loan_len >= 4 && memcmp(tls->loan, starts[i], 4) == 0)
            tls->plain_http = true;
}

// A server must know which name is asked for before it begins: a certificate is chosen by it. The
// ClientHello nearly always comes whole, and is looked at where it lies; one that comes in pieces
// is kept until it is whole. False: not yet. Runs inside a count.
bool tls_choose_certificate(struct tls *tls)
{
    struct span name = {0};
    if (tls->hello || hello_server_name(span_of(tls->loan, tls->loan_len), &name) == HELLO_MORE) {
        size_t room = TLS_RECORD_MAX - tls->hello_len;
        size_t some = tls->loan_len < room ? tls->loan_len : room;
        tls->hello =
            tls_grow(tls, tls->hello, &tls->hello_cap, tls->hello_len, some, HELLO_BYTES_MIN);
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
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
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
    CHECK_MAGIC(tls, TLS_SESSION_MAGIC);
    if (!tls->has_ticket || (tls->state != TLS_OPEN && tls->state != TLS_ENDED))
        return NULL;
    if (tls->closed) // Debian's wolfSSL forgets all when both sides have said close_notify
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
