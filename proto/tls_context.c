// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"
#include "proto/tls_names.h"

#include <stdarg.h>
#include <stdio.h>

static const uint32_t CONTEXT_MAGIC = MAGIC('T', 'C', 'T', 'X');

// Forward secrecy and AEAD only: those of TLS 1.3, then those of TLS 1.2.
#define AES_13 "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384"
#define AES_12                                                                                     \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                                   \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define CHACHA_13 "TLS13-CHACHA20-POLY1305-SHA256"
#define CHACHA_12 "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

static const char AES_FIRST[] = AES_13 ":" CHACHA_13 ":" AES_12 ":" CHACHA_12;
static const char CHACHA_FIRST[] = CHACHA_13 ":" AES_13 ":" CHACHA_12 ":" AES_12;

enum { RSA_BITS_MIN = 2048, ECC_BITS_MIN = 256, AUTHORITIES_MAX = 4096 };
enum { EC_POINT_MAX = 1 + 2 * 66 }; // of P-521

// Where words about a failure go. complain() is always false, to be returned.
struct complaint {
    char *why;
    size_t cap;
};

__attribute__((format(printf, 2, 3))) static bool complain(const struct complaint *to,
                                                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(to->why, to->cap, format, args);
    va_end(args);
    return false;
}

static const char *or_else(const char *origin, const char *otherwise)
{
    return origin ? origin : otherwise;
}

// ---- PEM ----------------------------------------------------------------------------------------

static const uint8_t *find(struct span in, struct span what)
{
    return memmem(in.ptr, in.len, what.ptr, what.len);
}

// The next certificate of a bundle, from its BEGIN line to its END line.
static bool pem_next(struct span *bundle, struct span *certificate)
{
    const struct span begin = SPAN("-----BEGIN CERTIFICATE-----");
    const struct span end = SPAN("-----END CERTIFICATE-----");
    if (bundle->len == 0)
        return false;
    const uint8_t *stop = bundle->ptr + bundle->len, *from = find(*bundle, begin);
    if (!from)
        return false;
    const uint8_t *to = find(span_of(from, (size_t)(stop - from)), end);
    if (!to)
        return false;
    to += end.len;
    *certificate = span_of(from, (size_t)(to - from));
    *bundle = span_of(to, (size_t)(stop - to));
    return true;
}

// The first certificate of a chain, as DER on the heap.
static bool leaf_open(struct tls_chain *chain, struct span pem)
{
    struct span first;
    if (!pem_next(&pem, &first))
        return false;
    chain->leaf = heap_alloc(first.len); // base64 only shrinks
    int len = wc_CertPemToDer(first.ptr, (int)first.len, chain->leaf, (int)first.len, CERT_TYPE);
    chain->leaf_len = len > 0 ? (size_t)len : 0;
    struct certificate certificate;
    return certificate_open(&certificate, span_of(chain->leaf, chain->leaf_len));
}

// ---- one set of rules ---------------------------------------------------------------------------

static bool chacha_comes_first(const struct tls_settings *settings)
{
    if (settings->prefer != TLS_PREFER_FAST)
        return settings->prefer == TLS_PREFER_CHACHA;
#if defined(__x86_64__)
    return !tls_library_is_fast() || !__builtin_cpu_supports("aes") ||
           !__builtin_cpu_supports("pclmul");
#else
    return !tls_library_is_fast();
#endif
}

static void rules_speak(WOLFSSL_CTX *rules, const struct tls_settings *settings)
{
    int lowest = settings->version_min == TLS_1_3 ? WOLFSSL_TLSV1_3 : WOLFSSL_TLSV1_2;
    int groups[] = {WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_SECP384R1};
    CHECK(wolfSSL_CTX_SetMinVersion(rules, lowest) == WOLFSSL_SUCCESS);
    const char *suites = chacha_comes_first(settings) ? CHACHA_FIRST : AES_FIRST;
    CHECK(wolfSSL_CTX_set_cipher_list(rules, suites) == WOLFSSL_SUCCESS);
    if (settings->version_max == TLS_1_2)
        for (int i = 0; i < 3; i++)
            CHECK(wolfSSL_CTX_UseSupportedCurve(rules, (word16)groups[i]) == WOLFSSL_SUCCESS);
    else
        CHECK(wolfSSL_CTX_set_groups(rules, groups, 3) == WOLFSSL_SUCCESS);
    CHECK(wolfSSL_CTX_SetMinRsaKey_Sz(rules, RSA_BITS_MIN) == WOLFSSL_SUCCESS);
    CHECK(wolfSSL_CTX_SetMinEccKey_Sz(rules, ECC_BITS_MIN) == WOLFSSL_SUCCESS);
    wolfSSL_CTX_SetIORecv(rules, tls_io_receive);
    wolfSSL_CTX_SetIOSend(rules, tls_io_send);
}

// Whom to verify. Said in every case: wolfSSL's defaults differ from build to build, and Debian's
// verifies nobody.
static void rules_verify(WOLFSSL_CTX *rules, const struct tls_settings *settings)
{
    int mode = WOLFSSL_VERIFY_PEER;
    if (settings->side == TLS_SERVER)
        mode = settings->authorities.len ? WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                         : WOLFSSL_VERIFY_NONE;
    wolfSSL_CTX_set_verify(rules, mode, mode == WOLFSSL_VERIFY_NONE ? NULL : tls_verify);
}

// Resumption is by tickets alone: wolfSSL's own cache is one for the whole process, behind a lock.
static void rules_resume(WOLFSSL_CTX *rules, struct tls_context *context)
{
    if (context->side == TLS_CLIENT)
        return;
    CHECK(wolfSSL_CTX_set_session_cache_mode(rules, WOLFSSL_SESS_CACHE_OFF) == WOLFSSL_SUCCESS);
    if (!context->ticket_keys) {
        CHECK(wolfSSL_CTX_set_TicketEncCb(rules, NULL) == WOLFSSL_SUCCESS);
        CHECK(wolfSSL_CTX_NoTicketTLSv12(rules) == WOLFSSL_SUCCESS);
        wolfSSL_CTX_no_ticket_TLSv13(rules); // refuses where TLS 1.3 is not spoken anyway
        return;
    }
    CHECK(wolfSSL_CTX_set_TicketEncCb(rules, tls_ticket_crypt) == WOLFSSL_SUCCESS);
    CHECK(wolfSSL_CTX_set_TicketEncCtx(rules, context) == WOLFSSL_SUCCESS);
    CHECK(wolfSSL_CTX_set_TicketHint(rules, TLS_TICKET_LIFETIME_S) == WOLFSSL_SUCCESS);
    CHECK(wolfSSL_CTX_set_timeout(rules, TLS_TICKET_LIFETIME_S) > 0); // Debian's: the one before
}

static bool rules_trust(WOLFSSL_CTX *rules, struct tls_context *context,
                        const struct tls_settings *settings, const struct complaint *to)
{
    struct span bundle = settings->authorities, one;
    context->authorities = context->skipped = 0;
    for (int i = 0; i < AUTHORITIES_MAX && pem_next(&bundle, &one); i++) {
        int code =
            wolfSSL_CTX_load_verify_buffer(rules, one.ptr, (long)one.len, WOLFSSL_FILETYPE_PEM);
        if (code == WOLFSSL_SUCCESS)
            context->authorities++;
        else
            context->skipped++;
    }
    if (context->authorities || (settings->side == TLS_SERVER && !settings->authorities.len))
        return true;
    return complain(to,
                    "%s holds no certificate of an authority that can be used: give a PEM file "
                    "with at least one that is valid today",
                    or_else(settings->authorities_origin, "the bundle of authorities"));
}

// Is this the key of an elliptic curve, and not that of the leaf? Debian's wolfSSL calls any such
// pair a good one, so we multiply the point ourselves.
static bool key_is_foreign(const struct tls_chain *chain, struct span pem)
{
    struct certificate leaf;
    uint8_t *der = heap_alloc(pem.len), point[EC_POINT_MAX];
    word32 at = 0, point_len = sizeof point;
    ecc_key key;
    CHECK(wc_ecc_init(&key) == 0);
    int len = wc_KeyPemToDer(pem.ptr, (int)pem.len, der, (int)pem.len, NULL);
    bool is_ec = len > 0 && wc_EccPrivateKeyDecode(der, &at, &key, (word32)len) == 0;
    bool foreign = false;
    if (is_ec && certificate_open(&leaf, span_of(chain->leaf, chain->leaf_len)))
        foreign = wc_ecc_make_pub(&key, NULL) != 0 ||
                  wc_ecc_export_x963(&key, point, &point_len) != 0 || leaf.key.len < point_len ||
                  memcmp(leaf.key.ptr + leaf.key.len - point_len, point, point_len) != 0;
    wc_ecc_free(&key);
    explicit_bzero(der, pem.len);
    heap_free(der);
    return foreign;
}

static bool rules_identify(struct tls_chain *chain, const struct tls_identity *identity,
                           const struct complaint *to)
{
    const char *origin = or_else(identity->origin, "the certificate");
    if (!leaf_open(chain, identity->certificates))
        return complain(to,
                        "%s holds no certificate: give a PEM file with the chain, the server's "
                        "own certificate first",
                        origin);
    if (wolfSSL_CTX_use_certificate_chain_buffer(chain->rules, identity->certificates.ptr,
                                                 (long)identity->certificates.len) !=
        WOLFSSL_SUCCESS)
        return complain(to,
                        "%s: a certificate of the chain cannot be used (RSA needs %d bits, "
                        "curves are P-256, P-384 and Ed25519)",
                        origin, RSA_BITS_MIN);
    if (wolfSSL_CTX_use_PrivateKey_buffer(chain->rules, identity->key.ptr, (long)identity->key.len,
                                          WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
        return complain(to,
                        "%s: its key cannot be used: give the private key in PEM, not "
                        "encrypted, RSA with at least %d bits",
                        origin, RSA_BITS_MIN);
    if (wolfSSL_CTX_check_private_key(chain->rules) != WOLFSSL_SUCCESS ||
        key_is_foreign(chain, identity->key))
        return complain(to, "%s: the key does not belong to the certificate", origin);
    return true;
}

static WOLFSSL_METHOD *method_of(const struct tls_settings *settings)
{
    bool is_client = settings->side == TLS_CLIENT;
    if (settings->version_max == TLS_1_2)
        return is_client ? wolfTLSv1_2_client_method() : wolfTLSv1_2_server_method();
    return is_client ? wolfSSLv23_client_method() : wolfSSLv23_server_method();
}

static bool chain_make(struct tls_context *context, size_t at, const struct tls_settings *settings,
                       const struct complaint *to)
{
    struct tls_chain *chain = &context->chains[at];
    chain->rules = wolfSSL_CTX_new(method_of(settings));
    CHECK(chain->rules != NULL);
    rules_speak(chain->rules, settings);
    rules_verify(chain->rules, settings);
    rules_resume(chain->rules, context);
    if (at < settings->identity_count && !rules_identify(chain, &settings->identities[at], to))
        return false;
    return rules_trust(chain->rules, context, settings, to);
}

// ---- contexts -----------------------------------------------------------------------------------

static void scope_add(wc_Sha256 *hash, struct span bytes)
{
    uint64_t len = bytes.len;
    CHECK(wc_Sha256Update(hash, (const byte *)&len, sizeof len) == 0);
    if (len)
        CHECK(wc_Sha256Update(hash, bytes.ptr, (word32)len) == 0);
}

// What a resumption must not cross: who is trusted, and whom a client presents itself as.
static void scope_make(struct tls_context *context, const struct tls_settings *settings)
{
    uint32_t kind[] = {settings->side, settings->version_min, settings->version_max};
    wc_Sha256 hash;
    CHECK(wc_InitSha256(&hash) == 0);
    scope_add(&hash, span_of(kind, sizeof kind));
    scope_add(&hash, settings->authorities);
    if (settings->side == TLS_CLIENT && settings->identity_count)
        scope_add(&hash, settings->identities[0].certificates);
    CHECK(wc_Sha256Final(&hash, context->scope) == 0);
    wc_Sha256Free(&hash);
}

static bool settings_check(const struct tls_settings *settings, const struct complaint *to)
{
    CHECK(settings->side == TLS_CLIENT || settings->side == TLS_SERVER);
    CHECK(settings->identity_count == 0 || settings->identities != NULL);
    CHECK(settings->version_max != TLS_1_2 || settings->version_min != TLS_1_3);
    if (settings->side == TLS_SERVER && settings->identity_count == 0)
        return complain(to, "a TLS listener needs a certificate and a key");
    if (settings->identity_count > (settings->side == TLS_CLIENT ? 1 : TLS_IDENTITIES_MAX))
        return complain(to, "%zu certificates are more than the %d that are possible",
                        settings->identity_count,
                        settings->side == TLS_CLIENT ? 1 : TLS_IDENTITIES_MAX);
    if (settings->alpn && strlen(settings->alpn) >= TLS_ALPN_MAX)
        return complain(to, "the list of ALPN protocols is longer than %d bytes", TLS_ALPN_MAX - 1);
    return true;
}

struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t cap)
{
    CHECK(settings != NULL);
    CHECK(why != NULL);
    CHECK(cap > 0);
    const struct complaint to = {why, cap};
    why[0] = '\0';
    if (!settings_check(settings, &to))
        return NULL;
    struct tls_context *context = heap_alloc(sizeof *context);
    context->magic = CONTEXT_MAGIC;
    atomic_store(&context->refs, 1);
    context->side = settings->side;
    context->verifies_clients = settings->side == TLS_SERVER && settings->authorities.len;
    context->ticket_keys = settings->ticket_keys;
    if (settings->alpn)
        snprintf(context->alpn, sizeof context->alpn, "%s", settings->alpn);
    scope_make(context, settings);
    context->chain_count = settings->identity_count ? settings->identity_count : 1;
    context->chains = heap_alloc(context->chain_count * sizeof *context->chains);
    for (size_t i = 0; i < context->chain_count; i++) {
        if (!chain_make(context, i, settings, &to)) {
            tls_context_free(context);
            return NULL;
        }
    }
    return context;
}

void tls_context_ref(struct tls_context *context)
{
    CHECK_MAGIC(context, CONTEXT_MAGIC);
    CHECK(atomic_fetch_add(&context->refs, 1) > 0);
}

void tls_context_free(struct tls_context *context)
{
    if (!context)
        return;
    CHECK_MAGIC(context, CONTEXT_MAGIC);
    if (atomic_fetch_sub(&context->refs, 1) > 1)
        return;
    for (size_t i = 0; i < context->chain_count; i++) {
        wolfSSL_CTX_free(context->chains[i].rules);
        heap_free(context->chains[i].leaf);
    }
    heap_free(context->chains);
    context->magic = 0;
    heap_free(context);
}

size_t tls_context_authorities(const struct tls_context *context)
{
    CHECK_MAGIC(context, CONTEXT_MAGIC);
    return context->authorities;
}

size_t tls_context_skipped(const struct tls_context *context)
{
    CHECK_MAGIC(context, CONTEXT_MAGIC);
    return context->skipped;
}

// How well a chain's certificate fits a name: 0 not at all, 1 by a wildcard, 2 exactly.
static int chain_fits(const struct tls_chain *chain, struct span wanted)
{
    struct certificate certificate;
    if (!certificate_open(&certificate, span_of(chain->leaf, chain->leaf_len)))
        return 0;
    struct span names = certificate.names, name;
    enum name_kind kind;
    int best = 0;
    while (certificate_next_name(&names, &kind, &name)) {
        if (kind != NAME_HOST || !name_fits(name, wanted))
            continue;
        if (name.ptr[0] != '*')
            return 2;
        best = 1;
    }
    if (certificate.names.len == 0 && name_fits(certificate.common_name, wanted))
        best = certificate.common_name.ptr[0] == '*' ? 1 : 2;
    return best;
}

WOLFSSL_CTX *tls_context_choose(const struct tls_context *context, struct span name)
{
    CHECK_MAGIC(context, CONTEXT_MAGIC);
    size_t chosen = 0;
    int best = 0;
    for (size_t i = 0; i < context->chain_count && name.len && best < 2; i++) {
        int fits = chain_fits(&context->chains[i], name);
        if (fits > best) {
            best = fits;
            chosen = i;
        }
    }
    return context->chains[chosen].rules;
}
