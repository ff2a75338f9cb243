// SPDX-License-Identifier: MIT
//
// tls: TLS 1.2 and 1.3 as four ports, with no descriptor, no clock of ours and no waiting inside.
//
//                        +---------------------+
//      cipher in  ---->  |                     |  ---->  plain out      tls_decrypt()
//    (from a receive)    |     struct tls      |      (to be parsed)
//                        |                     |
//      cipher out <----  |  handshake, records |  <----  plain in       tls_encrypt()
//       (to a send)      +---------------------+      (what was queued)
//
// The caller moves bytes; both calls say how many they took and how many they made, and keep no
// pointer to either side when they return. The handshake runs inside: it is driven by tls_decrypt()
// alone, and what it wants to say waits in the session until tls_encrypt() takes it away. The rule
// for the caller is therefore one line: whenever tls_unsent() is not 0, send.
//
// A connection, client side (a server calls tls_server and skips step 2):
//   1. tls = tls_client(context, "api.example.com", saved or NULL);
//   2. tls_encrypt(tls, NULL, 0, out, cap): the ClientHello. Send it.
//   3. Bytes arrived: call tls_decrypt() until it has taken all of them and does not answer
//      TLS_ROOM, with fresh room for plaintext each time. Then send what tls_unsent() reports.
//   4. tls_state() is TLS_OPEN: tls_encrypt() takes plaintext from now on.
//   5. The transport ended: tls_cut(). Without the peer's close_notify this is a failure; whether
//      it matters is for the owner of the message length to say (framing.h).
//   6. tls_close(), send what waits, tls_free().
//
//   who may move where          by
//   HANDSHAKING -> OPEN         the handshake is complete: certificates checked, keys agreed
//   OPEN        -> ENDED        the peer's close_notify was read: no plaintext comes after it, but
//                               ours may still go (half-closed)
//   any         -> FAILED       tls_error() says why. Nothing is decrypted or encrypted any more,
//                               but an alert that tells the peer may wait: send it, then close
//
// What is checked, always: the provider's certificate chain against the trusted bundle, its dates,
// and its name against the server name given (a host name or an IP address); there is no switch to
// turn that off. Only TLS 1.3 and TLS 1.2 with ECDHE and AEAD are spoken; groups are X25519, then
// P-256, then P-384. No renegotiation, no compression, no early data.
//
// Dates are read from the system's clock by wolfSSL, and its seeds from the kernel's random source.
//
// Copies: a record's ciphertext is copied from the caller into wolfSSL, decrypted there in place,
// and its plaintext copied once into the caller's room; from there it is forwarded as it is.
//
// Bounds. Memory of a session, all on the heap, counted by tls_bytes():
//   idle                 about 5 KiB with the fast build; 60 to 80 KiB with Debian's, whose own
//                        cache of curve points (2 MB once) is counted to those that fill it
//   a record half read   + TLS_RECORD_MAX while its rest is awaited
//   ciphertext waiting   + what the handshake says at once, at most TLS_UNSENT_MAX. Application
//                        data never waits: tls_encrypt() takes no more of it than fits in `cap`
//   before a client's first byte a server's session is a few hundred bytes
// Server names: TLS_NAME_MAX bytes. Identities of a context: TLS_IDENTITIES_MAX.
//
// Threads: a context is immutable once made and may be used by several threads (its reference count
// is atomic). A session, and what tls_save() gave, belong to one thread at a time.
//
// The one hidden state: while a call into wolfSSL runs, a thread-local names the session whose
// bytes are counted, because wolfSSL's allocator hooks are told nothing but the size.
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include "proto/span.h"

enum {
    TLS_RECORD_MAX = 16384 + 256 + 5, // bytes of one record on the wire
    TLS_PLAIN_MAX = 16384,            // plaintext in one record
    TLS_OVERHEAD_MAX = 32,            // what a record adds to its plaintext, at most
    TLS_UNSENT_MAX = 256 * 1024,      // a handshake that says more has failed
    TLS_NAME_MAX = 253,
    TLS_IDENTITIES_MAX = 64,
    TLS_ERROR_MAX = 256,
    TLS_TICKET_RANDOM = 48,          // random bytes that make one ticket key
    TLS_TICKET_LIFETIME_S = 2 * 3600 // of a ticket; rotate the keys this often
};

// ---- the library, once per process --------------------------------------------------------------

// Before the first thread that uses TLS starts; and after the last one is over.
void tls_library_start(void);
void tls_library_stop(void);

// The last thing a thread that used TLS does (Debian's wolfSSL keeps a cache for each).
void tls_library_thread_stop(void);

// Which wolfSSL this is, for `tokenring version`: "wolfSSL 5.5.4, fast (static, with assembly)" or
// "wolfSSL 5.5.4, slow (the system's, no assembly; tools/wolfssl builds the fast one)".
const char *tls_library_name(void);
bool tls_library_is_fast(void);

// ---- ticket keys: what makes resumption work on every worker ------------------------------------

// The key that encrypts new session tickets and the one before it. One set per process, lent to
// every server context; all workers read it without locks while one thread rotates it. A ticket is
// good for as long as its key is one of the two. `random` must come from the kernel.
struct tls_ticket_keys;

struct tls_ticket_keys *tls_ticket_keys_new(uint64_t now_s,
                                            const uint8_t random[TLS_TICKET_RANDOM]);
// One thread at a time. The key of two rotations ago is wiped.
void tls_ticket_keys_rotate(struct tls_ticket_keys *keys, uint64_t now_s,
                            const uint8_t random[TLS_TICKET_RANDOM]);
// When the current key was made.
uint64_t tls_ticket_keys_made_s(const struct tls_ticket_keys *keys);
void tls_ticket_keys_free(struct tls_ticket_keys *keys);

// ---- contexts: certificates and rules -----------------------------------------------------------

enum tls_side { TLS_CLIENT, TLS_SERVER };
enum tls_version { TLS_VERSION_ANY, TLS_1_2, TLS_1_3 };

// Which suites come first; all are spoken. TLS_PREFER_FAST: AES where assembly and the CPU's own
// instructions make it the fast one, else ChaCha20 (twice as fast, and it leaks nothing by timing).
enum tls_preference { TLS_PREFER_FAST, TLS_PREFER_AES, TLS_PREFER_CHACHA };

// A certificate chain in PEM, leaf first, and its private key in PEM (not encrypted). A server
// picks one by the name the client asks for, exact names before wildcards, and the first of the
// list when none fits or none is asked for. The names are those in the certificate.
struct tls_identity {
    struct span certificates, key;
    const char *origin; // for messages: the file it came from; may be NULL
};

struct tls_settings {
    enum tls_side side;
    enum tls_version version_min; // TLS_VERSION_ANY: 1.2
    enum tls_version version_max; // TLS_VERSION_ANY: 1.3
    // PEM certificates of the authorities to trust. A client: who may vouch for the server; must
    // hold at least one. A server: who may vouch for clients; every client must then show a
    // certificate (mTLS). Empty: no client is asked.
    struct span authorities;
    const char *authorities_origin; // for messages; may be NULL
    // A server: one or more. A client: none, or one to show when the server asks.
    const struct tls_identity *identities;
    size_t identity_count;
    enum tls_preference prefer;
    const char *alpn;                    // comma-separated, "http/1.1"; NULL: not spoken
    struct tls_ticket_keys *ticket_keys; // a server: NULL means no resumption. Outlives the context
};

struct tls_context;

// The bytes that settings point to are not needed after the call. NULL: `why` holds one line that
// names what is wrong and with which file (at most `cap` bytes, NUL included; cap > 0).
struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t cap);

// Give up the caller's reference. Sessions hold their own, so a reload may free at once.
void tls_context_free(struct tls_context *context);

// Authorities that were understood, and those of the bundle that were skipped (an expired or exotic
// one is no reason to stop).
size_t tls_context_authorities(const struct tls_context *context);
size_t tls_context_skipped(const struct tls_context *context);

// ---- sessions -----------------------------------------------------------------------------------

struct tls;
struct tls_saved; // what a client needs to resume: see tls_save

enum tls_state { TLS_HANDSHAKING, TLS_OPEN, TLS_ENDED, TLS_FAILED };

// `server_name` is a host name or an IP address without brackets, at most TLS_NAME_MAX bytes (a
// final dot is dropped). With `saved` (may be NULL) resumption is offered; it is copied, and
// ignored when it was not saved with an equal name and equal rules. NULL: the name is empty, too
// long or has a byte no name has.
struct tls *tls_client(struct tls_context *context, const char *server_name,
                       const struct tls_saved *saved);
struct tls *tls_server(struct tls_context *context);
void tls_free(struct tls *tls);

enum tls_result {
    TLS_OK = 0,   // all input was taken
    TLS_ROOM = 1, // output is full: call again with fresh room (and the rest of the input)
    TLS_END = 2,  // the peer's close_notify was read; what follows it was not taken
    TLS_BAD = -1  // the session has failed: tls_error()
};

struct tls_moved {
    enum tls_result result;
    size_t taken; // of the input
    size_t made;  // in the output
};

// Cipher in, plain out. `plain` may be NULL with cap 0: a handshake then runs to its end, and the
// answer is TLS_ROOM when plaintext waits. `len` may be 0, to fetch plaintext that waits. Plaintext
// that was made is good whatever the result is: it came before the end or the failure.
struct tls_moved tls_decrypt(struct tls *tls, const void *cipher, size_t len, void *plain,
                             size_t cap);

// Plain in, cipher out. First what the session itself wants to say, then plaintext, as few records
// as possible: neighbouring pieces share one. During a handshake, after tls_close() and after a
// failure no plaintext is taken. `cipher` must not overlap the pieces. TLS_OK: all was taken and
// nothing waits. TLS_ROOM: more waits than fitted (a useful cap is at least TLS_OVERHEAD_MAX + 1).
struct tls_moved tls_encrypt(struct tls *tls, const struct span *pieces, size_t count, void *cipher,
                             size_t cap);

// Ciphertext that waits for tls_encrypt(): handshake, tickets, alerts, close_notify. A server's
// TLS 1.3 ticket is here as soon as the client's Finished was decrypted: send it at once, or the
// first answer may wait 40 ms for the client's delayed acknowledgement.
size_t tls_unsent(const struct tls *tls);

// Plaintext that waits for tls_decrypt().
size_t tls_undelivered(const struct tls *tls);

// Say close_notify (once; a no-op before the handshake is done and after a failure).
void tls_close(struct tls *tls);

// The transport ended. TLS_END after close_notify; otherwise the session fails: truncated.
enum tls_result tls_cut(struct tls *tls);

enum tls_state tls_state(const struct tls *tls);

// ---- why it failed, and what was agreed ---------------------------------------------------------

enum tls_fault {
    TLS_FAULT_NONE,
    TLS_FAULT_UNTRUSTED,      // no chain to a trusted authority
    TLS_FAULT_SELF_SIGNED,    // the certificate vouches for itself
    TLS_FAULT_EXPIRED,        // expired, or not valid yet
    TLS_FAULT_WRONG_HOST,     // the certificate is for another name
    TLS_FAULT_CERTIFICATE,    // bad in another way: signature, usage, key size, unreadable
    TLS_FAULT_NO_CERTIFICATE, // the client had to show one and did not
    TLS_FAULT_REFUSED,        // the peer sent an alert
    TLS_FAULT_VERSION,        // no protocol version or cipher suite in common
    TLS_FAULT_PROTOCOL,       // not TLS, or damaged
    TLS_FAULT_CUT,            // the transport ended without close_notify
    TLS_FAULT_INTERNAL
};

enum tls_fault tls_fault(const struct tls *tls);
const char *tls_fault_name(enum tls_fault fault); // "wrong-host": stable, for metrics and headers

// One line for the log, cause and mend, never NULL ("" unless failed); lives as long as the
// session.
const char *tls_error(const struct tls *tls);

struct tls_facts {
    const char *version;     // "TLSv1.3"
    const char *cipher;      // "TLS_AES_128_GCM_SHA256"
    const char *group;       // "X25519"; "" when resumed without a key exchange
    const char *alpn;        // "http/1.1"; "" when none was agreed
    const char *server_name; // asked for by the client; "" when none was
    bool resumed;
    bool client_certificate; // a server: the client showed one that is good, now or in the
                             // handshake that this one resumes
};

// What was agreed; empty strings before TLS_OPEN. Strings live as long as the session.
struct tls_facts tls_facts(const struct tls *tls);

// Heap bytes the session holds now.
size_t tls_bytes(const struct tls *tls);

// ---- resumption on the client's side ------------------------------------------------------------

// The newest ticket of this session, for a later tls_client(); NULL when there is none (yet: a
// ticket comes behind the handshake, so ask after the first answer, or when done), and after
// tls_close(). The caller's to keep and to free; it does not need the session or the context to
// live. When a handshake that offered one fails, forget it: a server may have been changed since.
// TLS 1.3 only: in 1.2 a client of ours always makes the full handshake (tls_session.c says why).
// Servers resume both.
struct tls_saved *tls_save(struct tls *tls);
void tls_saved_free(struct tls_saved *saved);

#endif
