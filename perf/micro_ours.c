// SPDX-License-Identifier: MIT
//
// micro_ours: proto/tls as a subject of micro_tls.
#include "perf/micro_tls.h"

#include "alloc/check.h"
#include "alloc/heap.h"
#include "proto/tls.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 256 * 1024, FILE_MAX = 64 * 1024 };

// One side: its session, the ciphertext it made, and room for the plaintext it reads.
struct side {
    struct tls *tls;
    uint8_t *wire, *got;
    size_t wire_len;
};

struct line {
    struct side client, server;
};

static struct tls_context *clients[2], *servers[2]; // by enum micro_cipher
static struct tls_saved *ticket;
static struct line lines[2]; // by enum micro_cipher
static uint8_t wire[4][ROOM], got[4][ROOM];

static char *file_read(const char *folder, const char *name)
{
    char *path = heap_format("%s/%s", folder, name), *bytes = heap_alloc(FILE_MAX);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    bytes[fread(bytes, 1, FILE_MAX - 1, file)] = '\0';
    fclose(file);
    heap_free(path);
    return bytes;
}

static struct span text_span(const char *text)
{
    return span_of(text, strlen(text));
}

static struct tls_context *context_make(const char *folder, enum tls_side side,
                                        enum micro_cipher cipher, struct tls_ticket_keys *keys)
{
    char why[TLS_ERROR_MAX], *chain = file_read(folder, "good.pem");
    char *key = file_read(folder, "good.key"), *root = file_read(folder, "authority.pem");
    struct tls_identity identity = {text_span(chain), text_span(key), "good"};
    struct tls_settings settings = {.side = side,
                                    .prefer = cipher == MICRO_CHACHA20 ? TLS_PREFER_CHACHA
                                                                       : TLS_PREFER_AES,
                                    .ticket_keys = keys};
    if (side == TLS_CLIENT)
        settings.authorities = text_span(root);
    else
        settings.identities = &identity;
    settings.identity_count = side == TLS_SERVER;
    struct tls_context *context = tls_context_new(&settings, why, sizeof why);
    if (!context) {
        fprintf(stderr, "micro_tls: %s\n", why);
        exit(1);
    }
    heap_free(chain);
    heap_free(key);
    heap_free(root);
    return context;
}

// Encrypt onto the wire, with whatever else waits.
static void say(struct side *side, const void *bytes, size_t len)
{
    struct span piece = span_of(bytes, len);
    struct tls_moved moved = tls_encrypt(side->tls, &piece, len ? 1 : 0,
                                         side->wire + side->wire_len, ROOM - side->wire_len);
    CHECK(moved.taken == len);
    side->wire_len += moved.made;
}

// A step of one side, and its CPU time.
static bool step(struct side *from, struct side *to, uint64_t *from_ns, uint64_t *to_ns)
{
    uint64_t began = micro_cpu_ns();
    say(from, NULL, 0);
    uint64_t flushed = micro_cpu_ns();
    *from_ns += flushed - began;
    if (from->wire_len == 0)
        return false;
    size_t taken = 0;
    struct tls_moved moved;
    do {
        moved = tls_decrypt(to->tls, from->wire + taken, from->wire_len - taken, to->got, ROOM);
        taken += moved.taken;
    } while (moved.result == TLS_ROOM);
    *to_ns += micro_cpu_ns() - flushed;
    from->wire_len = 0;
    return true;
}

static void run(struct line *pair, struct micro_cost *cost)
{
    while (step(&pair->client, &pair->server, &cost->side[0], &cost->side[1]) |
           step(&pair->server, &pair->client, &cost->side[1], &cost->side[0]))
        ;
    CHECK(tls_state(pair->client.tls) == TLS_OPEN);
    CHECK(tls_state(pair->server.tls) == TLS_OPEN);
}

static struct micro_cost handshake(int resumed)
{
    struct micro_cost cost = {{0}};
    struct line pair = {{.wire = wire[0], .got = got[0]}, {.wire = wire[1], .got = got[1]}};
    uint64_t began = micro_cpu_ns();
    pair.client.tls = tls_client(clients[0], "api.example.test", resumed ? ticket : NULL);
    cost.side[0] += micro_cpu_ns() - began;
    pair.server.tls = tls_server(servers[0]);
    run(&pair, &cost);
    CHECK(tls_facts(pair.server.tls).resumed == !!resumed);
    if (!ticket)
        ticket = tls_save(pair.client.tls);
    began = micro_cpu_ns();
    tls_free(pair.client.tls);
    uint64_t freed = micro_cpu_ns();
    tls_free(pair.server.tls);
    cost.side[0] += freed - began;
    cost.side[1] += micro_cpu_ns() - freed;
    return cost;
}

static void ours_open(const char *folder)
{
    uint8_t random[TLS_TICKET_RANDOM] = {1};
    tls_library_start();
    struct tls_ticket_keys *keys = tls_ticket_keys_new(1, random);
    for (int i = 0; i < 2; i++) {
        struct micro_cost cost = {{0}};
        clients[i] = context_make(folder, TLS_CLIENT, i, NULL);
        servers[i] = context_make(folder, TLS_SERVER, i, keys);
        lines[i].client = (struct side){.wire = wire[2], .got = got[2]};
        lines[i].server = (struct side){.wire = wire[3], .got = got[3]};
        lines[i].client.tls = tls_client(clients[i], "api.example.test", NULL);
        lines[i].server.tls = tls_server(servers[i]);
        run(&lines[i], &cost);
    }
}

static struct micro_cost transfer(enum micro_cipher cipher, size_t size, size_t count)
{
    static const uint8_t message[65536];
    struct micro_cost cost = {{0}};
    struct line *pair = &lines[cipher];
    size_t batch = 65536 / size; // as the engine does: one buffer's worth, then the next
    for (size_t sent = 0; sent < count; sent += batch) {
        uint64_t began = micro_cpu_ns();
        for (size_t i = 0; i < batch; i++)
            say(&pair->client, message, size);
        cost.side[0] += micro_cpu_ns() - began;
        step(&pair->client, &pair->server, &cost.side[0], &cost.side[1]);
    }
    return cost;
}

static size_t idle_bytes(void)
{
    return tls_bytes(lines[0].server.tls);
}

const struct micro_subject micro_ours = {"ours", ours_open, handshake, transfer, idle_bytes};
