// SPDX-License-Identifier: MIT
//
// tls_inside: what the files proto/tls*.c share. Nobody else includes this: it includes wolfSSL.
#ifndef PROTO_TLS_INSIDE_H
#define PROTO_TLS_INSIDE_H

#include "alloc/check.h"
#include "alloc/heap.h"
#include "proto/tls.h"

#include <stdatomic.h>

#include <wolfssl/options.h> // before all others

#include <wolfssl/error-ssl.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/chacha20_poly1305.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/error-crypt.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/hash.h>
#include <wolfssl/wolfcrypt/sha256.h>

enum { TLS_SCOPE_BYTES = 32, TLS_ALPN_MAX = 64 };

// ---- counting (tls_library.c) -------------------------------------------------------------------

// Until tls_count_stop(), what wolfSSL allocates and frees on this thread is added to *bytes and
// taken from it. Not nested.
void tls_count_start(size_t *bytes);
void tls_count_stop(void);

// ---- contexts (tls_context.c) -------------------------------------------------------------------

// One certificate chain with its key, in a WOLFSSL_CTX of its own.
struct tls_chain {
    WOLFSSL_CTX *rules;
    uint8_t *leaf; // DER
    size_t leaf_len;
};

struct tls_context {
    uint32_t magic;
    _Atomic uint32_t refs;
    enum tls_side side;
    bool verifies_clients;
    size_t chain_count; // at least one: a client without a certificate has an empty chain
    struct tls_chain *chains;
    size_t authorities, skipped;
    char alpn[TLS_ALPN_MAX];
    uint8_t scope[TLS_SCOPE_BYTES]; // equal for contexts that vouch for the same peers
    struct tls_ticket_keys *ticket_keys;
};

void tls_context_ref(struct tls_context *context);
// The rules for a client that asks for `name` (empty: none asked for).
WOLFSSL_CTX *tls_context_choose(const struct tls_context *context, struct span name);

// ---- tickets (tls_ticket.c) ---------------------------------------------------------------------

// wolfSSL's callback; `user` is the struct tls_context.
int tls_ticket_crypt(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                     unsigned char iv[WOLFSSL_TICKET_IV_SZ],
                     unsigned char mac[WOLFSSL_TICKET_MAC_SZ], int encrypt, unsigned char *ticket,
                     int len, int *out_len, void *user);

// ---- sessions (tls_session.c) -------------------------------------------------------------------

static const uint32_t TLS_SESSION_MAGIC = MAGIC('T', 'L', 'S', ' ');

struct tls {
    uint32_t magic;
    enum tls_state state;
    enum tls_fault fault;
    struct tls_context *context;
    WOLFSSL *ssl;        // NULL: a server that has not read enough to choose a certificate
    size_t bytes;        // on the heap, this struct included
    const uint8_t *loan; // ciphertext lent by the running tls_decrypt()
    size_t loan_len;
    uint8_t *room; // where ciphertext goes, lent by the running tls_encrypt()
    size_t room_len, room_used;
    uint8_t *hello; // a ClientHello that came in pieces
    size_t hello_len, hello_at, hello_cap;
    uint8_t *unsent;
    size_t unsent_len, unsent_at, unsent_cap;
    bool closed;         // close_notify was said
    bool name_checked;   // a client: the certificate's name was found to be right
    bool has_ticket;     // a client: one came since the handshake began
    bool plain_http;     // the peer's first bytes were HTTP, not TLS
    bool no_certificate; // the peer showed none where one is demanded
    bool self_signed;    // the certificate that was refused vouches for itself
    bool wrong_host;     // its name is wrong, by our own reading
    char *peer_names;    // for messages: whom the refused certificate is for
    char *peer_issuer;   // and who vouches for it
    char *peer_dates;    // and its end or beginning
    char *error;
    char server_name[TLS_NAME_MAX + 1];
};

// Both run inside a count. One step of the handshake; false: it has failed. And a server's start,
// when it has seen which name is asked for; false: not yet.
bool tls_shake_hands(struct tls *tls);
bool tls_choose_certificate(struct tls *tls);
// Do the peer's first bytes, in the loan, look like HTTP?
void tls_look_for_http(struct tls *tls);

// ---- ports (tls_ports.c)
// ---------------------------------------------------------------------------

// wolfSSL's ways to its ciphertext; `user` is the struct tls.
int tls_io_receive(WOLFSSL *ssl, char *to, int len, void *user);
int tls_io_send(WOLFSSL *ssl, char *from, int len, void *user);
// Room for `more` bytes behind `len`, counted; *cap is what there is, doubled as need be.
uint8_t *tls_grow(struct tls *tls, uint8_t *bytes, size_t *cap, size_t len, size_t more,
                  size_t least);

// ---- faults (tls_fault.c) -----------------------------------------------------------------------

// wolfSSL's verify callback: checks the name, and remembers what a message will need.
int tls_verify(int good, WOLFSSL_X509_STORE_CTX *store);
// Enter TLS_FAILED; wolfSSL answered `code`.
void tls_fail(struct tls *tls, int code);
// Enter TLS_FAILED for a reason of our own.
void tls_fail_with(struct tls *tls, enum tls_fault fault, const char *why);

#endif
