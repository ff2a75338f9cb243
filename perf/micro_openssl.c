// SPDX-License-Identifier: MIT
//
// micro_openssl: OpenSSL as a subject of micro_tls, joined in memory by its memory BIOs, which is
// how it is used where the descriptor belongs to somebody else. Release buffers: idle sessions give
// theirs back, as ours do.
#include "perf/micro_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 65536 };

static SSL_CTX *client_context, *server_context;
static SSL_SESSION *ticket;
static int64_t held; // bytes OpenSSL has on the heap

struct side {
    SSL *ssl;
    BIO *in, *out;
};

static struct side lines[2][2]; // by cipher; client, server
static char room[ROOM];

static void *count_alloc(size_t size, const char *file, int line)
{
    void *memory = malloc(size);
    held += (int64_t)malloc_usable_size(memory);
    return memory;
}

static void *count_resize(void *memory, size_t size, const char *file, int line)
{
    held -= memory ? (int64_t)malloc_usable_size(memory) : 0;
    memory = realloc(memory, size);
    held += (int64_t)malloc_usable_size(memory);
    return memory;
}

static void count_free(void *memory, const char *file, int line)
{
    held -= memory ? (int64_t)malloc_usable_size(memory) : 0;
    free(memory);
}

static void must(int good, const char *what)
{
    if (good == 1)
        return;
    fprintf(stderr, "micro_tls: openssl: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
}

static struct side side_make(SSL_CTX *context, int is_client)
{
    struct side side = {SSL_new(context), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
    SSL_set_bio(side.ssl, side.in, side.out);
    if (is_client) {
        SSL_set_connect_state(side.ssl);
        SSL_set_tlsext_host_name(side.ssl, "api.example.test");
        SSL_set1_host(side.ssl, "api.example.test");
    } else {
        SSL_set_accept_state(side.ssl);
    }
    return side;
}

// Carry what one side wrote to the other.
static size_t carry(struct side *from, struct side *to)
{
    size_t moved = 0;
    for (int len; (len = BIO_read(from->out, room, ROOM)) > 0; moved += (size_t)len)
        BIO_write(to->in, room, len);
    return moved;
}

// Let a side do what it can: shake hands, then read everything.
static uint64_t work(struct side *side)
{
    uint64_t began = micro_cpu_ns();
    if (!SSL_is_init_finished(side->ssl))
        SSL_do_handshake(side->ssl);
    if (SSL_is_init_finished(side->ssl))
        while (SSL_read(side->ssl, room, ROOM) > 0)
            ;
    return micro_cpu_ns() - began;
}

static void run(struct side *pair, struct micro_cost *cost)
{
    cost->side[0] += work(&pair[0]);
    size_t moved;
    do {
        moved = carry(&pair[0], &pair[1]);
        cost->side[1] += work(&pair[1]);
        moved += carry(&pair[1], &pair[0]);
        cost->side[0] += work(&pair[0]);
    } while (moved);
    must(SSL_is_init_finished(pair[0].ssl) && SSL_is_init_finished(pair[1].ssl), "handshake");
}

static struct micro_cost handshake(int resumed)
{
    struct micro_cost cost = {{0}};
    uint64_t began = micro_cpu_ns();
    struct side pair[2];
    pair[0] = side_make(client_context, 1);
    if (resumed)
        must(SSL_set_session(pair[0].ssl, ticket), "set_session");
    uint64_t made = micro_cpu_ns();
    pair[1] = side_make(server_context, 0);
    cost.side[0] += made - began;
    cost.side[1] += micro_cpu_ns() - made;
    run(pair, &cost);
    must(SSL_session_reused(pair[1].ssl) == resumed, "resumption");
    SSL_set_shutdown(pair[0].ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); // spare the ticket
    began = micro_cpu_ns();
    SSL_free(pair[0].ssl);
    uint64_t freed = micro_cpu_ns();
    SSL_free(pair[1].ssl);
    cost.side[0] += freed - began;
    cost.side[1] += micro_cpu_ns() - freed;
    return cost;
}

static void path_in(char *path, size_t cap, const char *folder, const char *name)
{
    snprintf(path, cap, "%s/%s", folder, name);
}

static void contexts_make(const char *folder)
{
    char path[4096];
    client_context = SSL_CTX_new(TLS_client_method());
    server_context = SSL_CTX_new(TLS_server_method());
    path_in(path, sizeof path, folder, "authority.pem");
    must(SSL_CTX_load_verify_locations(client_context, path, NULL), path);
    SSL_CTX_set_verify(client_context, SSL_VERIFY_PEER, NULL);
    path_in(path, sizeof path, folder, "good.pem");
    must(SSL_CTX_use_certificate_chain_file(server_context, path), path);
    path_in(path, sizeof path, folder, "good.key");
    must(SSL_CTX_use_PrivateKey_file(server_context, path, SSL_FILETYPE_PEM), path);
    SSL_CTX_set_session_cache_mode(client_context, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(client_context, keep_ticket);
    SSL_CTX_set_num_tickets(server_context, 1);
    SSL_CTX_set_session_id_context(server_context, (const unsigned char *)"bench", 5);
    SSL_CTX_set_mode(client_context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_mode(server_context, SSL_MODE_RELEASE_BUFFERS);
    must(SSL_CTX_set1_groups_list(client_context, "X25519:P-256:P-384"), "groups");
}

static void openssl_open(const char *folder)
{
    static const char *const suites[] = {"TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"};
    CRYPTO_set_mem_functions(count_alloc, count_resize, count_free);
    contexts_make(folder);
    for (int i = 1; i >= 0; i--) { // AES last: it stays set for the handshakes
        struct micro_cost cost = {{0}};
        must(SSL_CTX_set_ciphersuites(client_context, suites[i]), suites[i]);
        lines[i][0] = side_make(client_context, 1);
        lines[i][1] = side_make(server_context, 0);
        run(lines[i], &cost);
    }
}

static struct micro_cost transfer(enum micro_cipher cipher, size_t size, size_t count)
{
    static const char message[65536];
    struct micro_cost cost = {{0}};
    struct side *pair = lines[cipher];
    size_t batch = ROOM / size;
    for (size_t sent = 0; sent < count; sent += batch) {
        uint64_t began = micro_cpu_ns();
        for (size_t i = 0; i < batch; i++)
            must(SSL_write(pair[0].ssl, message, (int)size) == (int)size, "write");
        cost.side[0] += micro_cpu_ns() - began;
        carry(&pair[0], &pair[1]);
        cost.side[1] += work(&pair[1]);
    }
    return cost;
}

static size_t idle_bytes(void)
{
    int64_t before = held;
    struct micro_cost cost = {{0}};
    struct side pair[2];
    pair[0] = side_make(client_context, 1);
    before = held;
    pair[1] = side_make(server_context, 0);
    int64_t client = held - before;
    run(pair, &cost);
    transfer(MICRO_AES_128_GCM, 16384, 1);
    before = held;
    SSL_free(pair[1].ssl);
    int64_t freed = before - held;
    SSL_free(pair[0].ssl);
    return (size_t)(freed > client ? freed : client);
}

const struct micro_subject micro_openssl = {"openssl", openssl_open, handshake, transfer,
                                            idle_bytes};
