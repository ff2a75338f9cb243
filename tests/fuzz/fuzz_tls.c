// SPDX-License-Identifier: MIT
//
// fuzz_tls: bytes that a hostile peer might send, to a server and to a client of proto/tls.
//
//   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. tests/fuzz/fuzz_tls.c
//         proto/tls_*.c alloc/heap.c alloc/check.c -lwolfssl
//
// The first byte chooses: what is attacked (a server, a client), when (at once, or in an open
// session), how the input is cut, and how it is used:
//   raw     the rest is ciphertext, as it is
//   edit    the rest is a list of edits (flight position, mask) on what an honest peer sends
//   names   the rest is a ClientHello or a certificate for the readers of tls_names.h
// Whatever comes: no crash, nothing past a buffer, no plaintext that was not said, and a failed
// session stays failed and has words for it.
#include "proto/tls_names.h"
#include "tests/tls/pair.h"
#include "tests/unit/edge.h"

#include <sys/random.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char CERTIFICATE[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBYjCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlmdXp6LnRl\n"
    "c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMBQxEjAQBgNVBAMM\n"
    "CWZ1enoudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABC7BpacnyVkXnHDG\n"
    "Au9O+Rgce16j92Ft0z139uQwtS0ZwzDPmZpd76L9SEPgod7mZOIOQGG37UImodty\n"
    "2rhqDMajSDBGMBQGA1UdEQQNMAuCCWZ1enoudGVzdDAPBgNVHRMBAf8EBTADAQH/\n"
    "MB0GA1UdDgQWBBTyDzLFmHrLDpb9AwxOpK40WOKADjAKBggqhkjOPQQDAgNJADBG\n"
    "AiEA4aDxsiWolIhTyM2IjNKl9YVXbu1eP1yre8WhngdjiGACIQDbzgd+gwagqjSJ\n"
    "Q39tveNJUaWBQAzp/n77ETSPuzOoZA==\n"
    "-----END CERTIFICATE-----\n";

static const char KEY[] = "-----BEGIN EC PRIVATE KEY-----\n"
                          "MHcCAQEEIMytndFVswbmVQTRAbNkgH1hH5YXoytZct/VjQOQZTRZoAoGCCqGSM49\n"
                          "AwEHoUQDQgAELsGlpyfJWReccMYC7075GBx7XqP3YW3TPXf25DC1LRnDMM+Zml3v\n"
                          "ov1IQ+Ch3uZk4g5AYbftQiah23LauGoMxg==\n"
                          "-----END EC PRIVATE KEY-----\n";

enum { ATTACK_CLIENT = 1, IN_OPEN_SESSION = 2, EDIT = 4, NAMES = 8, STEP_SHIFT = 4 };

// The same dice for the same input, so that a crash can be replayed. Stands in for the C library's
// (a static wolfSSL asks us; Debian's asks the kernel by itself).
static uint64_t dice = 1;

ssize_t getrandom(void *to, size_t len, unsigned flags)
{
    uint8_t *bytes = to;
    for (size_t i = 0; i < len; i++) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        bytes[i] = (uint8_t)dice;
    }
    return (ssize_t)len;
}

static struct tls_context *client, *server;

static void start(void)
{
    static const uint8_t random[TLS_TICKET_RANDOM] = {1};
    static const struct tls_identity identities[2] = {
        {{(const uint8_t *)CERTIFICATE, sizeof CERTIFICATE - 1},
         {(const uint8_t *)KEY, sizeof KEY - 1},
         "fuzz"},
        {{(const uint8_t *)CERTIFICATE, sizeof CERTIFICATE - 1},
         {(const uint8_t *)KEY, sizeof KEY - 1},
         "fuzz"}};
    char why[TLS_ERROR_MAX];
    tls_library_start();
    struct tls_settings settings = {.side = TLS_SERVER, .alpn = "http/1.1"};
    settings.identities = identities;
    settings.identity_count = 2;
    settings.ticket_keys = tls_ticket_keys_new(1, random);
    server = tls_context_new(&settings, why, sizeof why);
    CHECK(server != NULL);
    settings = (struct tls_settings){.side = TLS_CLIENT, .alpn = "http/1.1"};
    settings.authorities = span_of(CERTIFICATE, sizeof CERTIFICATE - 1);
    client = tls_context_new(&settings, why, sizeof why);
    CHECK(client != NULL);
}

static void read_names(const uint8_t *data, size_t size)
{
    struct certificate certificate;
    struct span name, bytes = span_of(edge_put(data, size), size);
    if (hello_server_name(bytes, &name) == HELLO_OK)
        CHECK(name.len <= size);
    if (certificate_open(&certificate, bytes))
        certificate_is_for(&certificate, "fuzz.test");
}

// Change what waits on the wire of the honest side: pairs of bytes, how far on and with which mask.
static void edit(struct pair_side *from, const uint8_t **data, size_t *size)
{
    size_t at = 0;
    while (*size >= 2 && at + (*data)[0] < from->wire_len) {
        at += (*data)[0];
        from->wire[at] ^= (*data)[1];
        *data += 2;
        *size -= 2;
    }
}

static void attack(uint8_t how, const uint8_t *data, size_t size)
{
    size_t step = (size_t)1 << (how >> STEP_SHIFT);
    struct pair pair;
    pair_open(&pair, client, server, "fuzz.test", NULL);
    if (how & IN_OPEN_SESSION) {
        pair_run(&pair, SIZE_MAX);
        CHECK(tls_state(pair.client.tls) == TLS_OPEN);
    }
    struct pair_side *victim = how & ATTACK_CLIENT ? &pair.client : &pair.server;
    struct pair_side *other = how & ATTACK_CLIENT ? &pair.server : &pair.client;
    if (how & EDIT) {
        for (int turn = 0; turn < 8; turn++) {
            pair_flush(other);
            if (tls_state(other->tls) == TLS_OPEN && turn % 2)
                pair_say(other, "said", 4);
            edit(other, &data, &size);
            pair_move(other, victim, SIZE_MAX);
            pair_move(victim, other, SIZE_MAX);
        }
    } else {
        for (size_t at = 0; at < size; at += step)
            pair_feed(victim, data + at, size - at < step ? size - at : step);
        pair_flush(victim);
    }
    CHECK(victim->got_len % 4 == 0); // only whole words that were said
    for (size_t i = 0; i < victim->got_len; i++)
        CHECK(victim->got[i] == (uint8_t) "said"[i % 4]);
    if (tls_state(victim->tls) == TLS_FAILED) {
        CHECK(tls_error(victim->tls)[0] != '\0');
        CHECK(tls_decrypt(victim->tls, "x", 1, NULL, 0).result == TLS_BAD);
    }
    tls_cut(victim->tls);
    pair_close(&pair);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!server)
        start();
    if (size == 0)
        return 0;
    dice = 88172645463325252u;
    uint8_t how = data[0];
    if (how & NAMES)
        read_names(data + 1, size - 1);
    else
        attack(how, data + 1, size - 1);
    return 0;
}
