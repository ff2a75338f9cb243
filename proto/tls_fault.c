// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"
#include "proto/tls_names.h"

#include <arpa/inet.h>

enum { NAMES_TEXT_MAX = 96, NAMES_SHOWN_MAX = 3 };

// ---- what a certificate says, as text -----------------------------------------------------------

// Why wolfSSL says it failed.
static const char *reason(int code)
{
    return wolfSSL_ERR_reason_error_string((unsigned long)code);
}

// Append bytes that a peer chose: printable ASCII stays, the rest becomes '?'.
static size_t text_add(char *text, size_t at, size_t cap, struct span bytes)
{
    for (size_t i = 0; i < bytes.len && at + 1 < cap; i++) {
        uint8_t c = bytes.ptr[i];
        text[at++] = c > ' ' && c < 0x7f && c != '"' ? (char)c : c == ' ' ? ' ' : '?';
    }
    text[at] = '\0';
    return at;
}

static char *text_of(struct span bytes)
{
    char text[NAMES_TEXT_MAX];
    text_add(text, 0, sizeof text, bytes);
    return heap_copy(text);
}

static struct span address_text(struct span address, char *text, socklen_t cap)
{
    int family = address.len == 4 ? AF_INET : AF_INET6;
    if ((address.len != 4 && address.len != 16) || !inet_ntop(family, address.ptr, text, cap))
        return SPAN("?");
    return span_of(text, strlen(text));
}

// "a.example.com, b.example.com, ..."
static char *names_text(const struct certificate *certificate)
{
    char text[NAMES_TEXT_MAX] = "", number[INET6_ADDRSTRLEN];
    struct span names = certificate->names, name;
    enum name_kind kind;
    size_t at = 0;
    int shown = 0;
    while (certificate_next_name(&names, &kind, &name)) {
        if (kind == NAME_OTHER)
            continue;
        if (shown == NAMES_SHOWN_MAX) {
            text_add(text, at, sizeof text, SPAN(", ..."));
            break;
        }
        if (shown++)
            at = text_add(text, at, sizeof text, SPAN(", "));
        if (kind == NAME_ADDRESS)
            name = address_text(name, number, sizeof number);
        at = text_add(text, at, sizeof text, name);
    }
    if (certificate->names.len == 0)
        text_add(text, 0, sizeof text, certificate->common_name);
    return heap_copy(text[0] ? text : "no name at all");
}

// "2024-05-01" out of "240501..." or "20240501...".
static char *date_text(struct span date)
{
    const char *at = (const char *)date.ptr;
    for (size_t i = 0; i + 1 < date.len; i++)
        if (at[i] < '0' || at[i] > '9')
            return heap_copy("?");
    if (date.len == 13)
        return heap_format("%s%.2s-%.2s-%.2s", at[0] < '5' ? "20" : "19", at, at + 2, at + 4);
    if (date.len == 15)
        return heap_format("%.4s-%.2s-%.2s", at, at + 4, at + 6);
    return heap_copy("?");
}

// ---- judging ------------------------------------------------------------------------------------

static void remember(struct tls *tls, const struct certificate *leaf,
                     const struct certificate *refused)
{
    if (tls->peer_names)
        return; // the first refusal is the one that counts
    tls->peer_names = names_text(leaf);
    tls->peer_issuer = text_of(refused->issuer_name);
    char *begin = date_text(refused->not_before), *end = date_text(refused->not_after);
    tls->peer_dates = heap_format("good from %s to %s", begin, end);
    heap_free(begin);
    heap_free(end);
    tls->self_signed = span_equal(refused->issuer, refused->subject);
}

static bool store_certificate(const WOLFSSL_X509_STORE_CTX *store, int at,
                              struct certificate *certificate)
{
    *certificate = (struct certificate){0};
    if (!store->certs || at < 0 || at >= store->totalCerts)
        return false;
    return certificate_open(certificate, span_of(store->certs[at].buffer, store->certs[at].length));
}

// `good` is wolfSSL's verdict on the certificate at error_depth (0 is the peer's own). What is bad
// stays bad: the answer is never better than `good`.
int tls_verify(int good, WOLFSSL_X509_STORE_CTX *store)
{
    struct tls *tls = store->userCtx;
    struct certificate leaf, certificate;
    if (store->totalCerts == 0)
        tls->no_certificate = true;
    bool readable = store_certificate(store, 0, &leaf) &&
                    store_certificate(store, store->error_depth, &certificate);
    if (!good || !readable) {
        if (readable)
            remember(tls, &leaf, &certificate);
        return 0;
    }
    if (store->error_depth != 0 || tls->context->side == TLS_SERVER)
        return 1;
    if (!certificate_is_for(&leaf, tls->server_name)) {
        remember(tls, &leaf, &leaf);
        tls->wrong_host = true;
        return 0;
    }
    tls->name_checked = true;
    return 1;
}

// ---- naming -------------------------------------------------------------------------------------

static const struct {
    int code;
    const char *name;
} alerts[] = {
    {0, "close_notify"},
    {10, "unexpected_message"},
    {20, "bad_record_mac"},
    {22, "record_overflow"},
    {40, "handshake_failure"},
    {42, "bad_certificate"},
    {43, "unsupported_certificate"},
    {44, "certificate_revoked"},
    {45, "certificate_expired"},
    {46, "certificate_unknown"},
    {47, "illegal_parameter"},
    {48, "unknown_ca"},
    {49, "access_denied"},
    {50, "decode_error"},
    {51, "decrypt_error"},
    {70, "protocol_version"},
    {71, "insufficient_security"},
    {80, "internal_error"},
    {86, "inappropriate_fallback"},
    {90, "user_canceled"},
    {109, "missing_extension"},
    {110, "unsupported_extension"},
    {112, "unrecognized_name"},
    {116, "certificate_required"},
    {120, "no_application_protocol"},
};

static const char *alert_name(int code)
{
    for (size_t i = 0; i < sizeof alerts / sizeof *alerts; i++)
        if (alerts[i].code == code)
            return alerts[i].name;
    return "unknown";
}

enum { ALERT_NONE = -1, ALERT_WARNING = 1 };

// The fatal alert the peer sent, or ALERT_NONE.
static int alert_received(const struct tls *tls)
{
    WOLFSSL_ALERT_HISTORY history;
    if (!tls->ssl || wolfSSL_get_alert_history(tls->ssl, &history) != WOLFSSL_SUCCESS)
        return ALERT_NONE;
    return history.last_rx.level > ALERT_WARNING ? history.last_rx.code : ALERT_NONE;
}

static enum tls_fault fault_of(const struct tls *tls, int code)
{
    if (tls->wrong_host)
        return TLS_FAULT_WRONG_HOST;
    if (tls->no_certificate)
        return TLS_FAULT_NO_CERTIFICATE;
    switch (code) {
    case ASN_SELF_SIGNED_E: return TLS_FAULT_SELF_SIGNED;
    case ASN_NO_SIGNER_E: return tls->self_signed ? TLS_FAULT_SELF_SIGNED : TLS_FAULT_UNTRUSTED;
    case ASN_AFTER_DATE_E:
    case ASN_BEFORE_DATE_E: return TLS_FAULT_EXPIRED;
    case DOMAIN_NAME_MISMATCH: return TLS_FAULT_WRONG_HOST;
    case NO_PEER_CERT: return TLS_FAULT_NO_CERTIFICATE;
    case VERSION_ERROR:
    case MATCH_SUITE_ERROR:
    case UNSUPPORTED_SUITE:
    case ECC_CURVETYPE_ERROR:
    case ECC_CURVE_ERROR:
    case UNKNOWN_ALPN_PROTOCOL_NAME_E: return TLS_FAULT_VERSION;
    case MEMORY_E:
    case BAD_FUNC_ARG: return TLS_FAULT_INTERNAL;
    default: break;
    }
    if (tls->peer_names)
        return TLS_FAULT_CERTIFICATE;
    return alert_received(tls) == ALERT_NONE ? TLS_FAULT_PROTOCOL : TLS_FAULT_REFUSED;
}

// Whose bytes we read.
static const char *peer(const struct tls *tls)
{
    return tls->context->side == TLS_CLIENT ? tls->server_name : "the client";
}

static char *certificate_words(const struct tls *tls, int code)
{
    const char *names = tls->peer_names ? tls->peer_names : "?";
    const char *issuer = tls->peer_issuer && tls->peer_issuer[0] ? tls->peer_issuer : "?";
    switch (tls->fault) {
    case TLS_FAULT_WRONG_HOST:
        return heap_format("certificate of %s is for %s: mend the host in base_url, or the "
                           "server's certificate",
                           peer(tls), names);
    case TLS_FAULT_EXPIRED:
        return heap_format("certificate of %s is not valid today (%s): renew it, or set this "
                           "machine's clock",
                           peer(tls), tls->peer_dates ? tls->peer_dates : "?");
    case TLS_FAULT_SELF_SIGNED:
        return heap_format("certificate of %s is self-signed (by \"%s\") and not trusted: give it "
                           "as ca_file if it is meant to be",
                           peer(tls), issuer);
    case TLS_FAULT_UNTRUSTED:
        return heap_format("certificate of %s is issued by \"%s\", which is not trusted: add that "
                           "authority to ca_file, or let the server send the whole chain",
                           peer(tls), issuer);
    default:
        return heap_format("certificate of %s (for %s) is refused: %s", peer(tls), names,
                           reason(code));
    }
}

static char *words(const struct tls *tls, int code)
{
    int alert = alert_received(tls);
    switch (tls->fault) {
    case TLS_FAULT_NO_CERTIFICATE:
        return heap_format("%s showed no certificate, and one is demanded: give it one that the "
                           "authorities of this listener vouch for",
                           peer(tls));
    case TLS_FAULT_REFUSED:
        return heap_format("%s refused with alert %s (%d)%s", peer(tls), alert_name(alert), alert,
                           alert == 48 || alert == 42 || alert == 116
                               ? ": it does not accept our certificate, or demands one"
                               : "");
    case TLS_FAULT_VERSION:
        return heap_format("%s and we have no TLS version, cipher suite or protocol in common "
                           "(ours: TLS 1.2 with ECDHE and AEAD, TLS 1.3)",
                           peer(tls));
    case TLS_FAULT_PROTOCOL:
        if (tls->plain_http)
            return heap_format("%s speaks plain HTTP where TLS is expected: mend the scheme or the "
                               "port (http:// against https://)",
                               peer(tls));
        return heap_format("%s sent what is not good TLS: %s", peer(tls), reason(code));
    default: return heap_format("TLS with %s failed inside: %s", peer(tls), reason(code));
    }
}

// Keep the line within what the header promises.
static void say(struct tls *tls, char *line)
{
    if (strlen(line) >= TLS_ERROR_MAX)
        line[TLS_ERROR_MAX - 1] = '\0';
    tls->error = line;
}

void tls_fail(struct tls *tls, int code)
{
    CHECK(tls->state != TLS_FAILED);
    tls->state = TLS_FAILED;
    tls->fault = fault_of(tls, code);
    bool about_certificate =
        tls->fault >= TLS_FAULT_UNTRUSTED && tls->fault <= TLS_FAULT_CERTIFICATE;
    say(tls, about_certificate ? certificate_words(tls, code) : words(tls, code));
}

void tls_fail_with(struct tls *tls, enum tls_fault fault, const char *why)
{
    CHECK(tls->state != TLS_FAILED);
    bool open = tls->state == TLS_OPEN;
    tls->state = TLS_FAILED;
    tls->fault = fault;
    if (fault == TLS_FAULT_CUT)
        say(tls, heap_format("%s cut the connection %s", peer(tls),
                             open ? "without close_notify: what it sent may be truncated"
                                  : "in the middle of the handshake"));
    else
        say(tls, heap_format("TLS with %s failed: %s", peer(tls), why));
}

enum tls_fault tls_fault(const struct tls *tls)
{
    return tls->fault;
}

const char *tls_error(const struct tls *tls)
{
    return tls->error ? tls->error : "";
}

const char *tls_fault_name(enum tls_fault fault)
{
    static const char *const names[] = {
        [TLS_FAULT_NONE] = "none",
        [TLS_FAULT_UNTRUSTED] = "untrusted",
        [TLS_FAULT_SELF_SIGNED] = "self-signed",
        [TLS_FAULT_EXPIRED] = "expired",
        [TLS_FAULT_WRONG_HOST] = "wrong-host",
        [TLS_FAULT_CERTIFICATE] = "bad-certificate",
        [TLS_FAULT_NO_CERTIFICATE] = "no-certificate",
        [TLS_FAULT_REFUSED] = "refused",
        [TLS_FAULT_VERSION] = "no-common-version",
        [TLS_FAULT_PROTOCOL] = "not-tls",
        [TLS_FAULT_CUT] = "cut",
        [TLS_FAULT_INTERNAL] = "internal",
    };
    return names[fault];
}
