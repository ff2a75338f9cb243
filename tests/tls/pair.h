// SPDX-License-Identifier: MIT
//
// pair: a TLS client and a TLS server joined in memory, for tests and benches. Include it; static.
//
//   struct pair pair;
//   pair_open(&pair, client_context, server_context, "api.example.test", NULL);
//   pair_run(&pair, 1);           // move ciphertext both ways, a byte at a time, until all is
//   quiet pair_say(&pair.client, "hello", 5); pair_run(&pair, SIZE_MAX);
//   ... pair.server.got[0 .. pair.server.got_len) is "hello"
//   pair_close(&pair);
//
// A side's wire holds the ciphertext it has made and the other has not read yet.
#ifndef TESTS_TLS_PAIR_H
#define TESTS_TLS_PAIR_H

#include "alloc/check.h"
#include "alloc/heap.h"
#include "proto/tls.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAIR_BYTES = 256 * 1024 };

struct pair_side {
    struct tls *tls;
    uint8_t *wire; // made here, for the other
    size_t wire_len;
    uint8_t *got; // plaintext decrypted here
    size_t got_len;
    size_t room; // plaintext is fetched in pieces of at most so many bytes; 0: 16 KiB
};

struct pair {
    struct pair_side client, server;
};

// The bytes of a file, as a C string; aborts when it cannot be read. Give to heap_free.
static inline char *pair_file(const char *folder, const char *name)
{
    char *path = heap_format("%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        abort();
    }
    char *bytes = heap_alloc(PAIR_BYTES);
    size_t len = fread(bytes, 1, PAIR_BYTES - 1, file);
    bytes[len] = '\0';
    fclose(file);
    heap_free(path);
    return bytes;
}

static inline struct span pair_span(const char *text)
{
    return span_of(text, strlen(text));
}

static inline void pair_side_open(struct pair_side *side, struct tls *tls)
{
    *side = (struct pair_side){.tls = tls};
    side->wire = heap_alloc(PAIR_BYTES);
    side->got = heap_alloc(PAIR_BYTES);
}

static inline void pair_open(struct pair *pair, struct tls_context *client,
                             struct tls_context *server, const char *name,
                             const struct tls_saved *saved)
{
    pair_side_open(&pair->client, tls_client(client, name, saved));
    pair_side_open(&pair->server, tls_server(server));
}

static inline void pair_side_close(struct pair_side *side)
{
    tls_free(side->tls);
    heap_free(side->wire);
    heap_free(side->got);
}

static inline void pair_close(struct pair *pair)
{
    pair_side_close(&pair->client);
    pair_side_close(&pair->server);
}

// Take what waits inside onto the wire.
static inline void pair_flush(struct pair_side *side)
{
    struct tls_moved moved =
        tls_encrypt(side->tls, NULL, 0, side->wire + side->wire_len, PAIR_BYTES - side->wire_len);
    side->wire_len += moved.made;
}

// Encrypt onto the wire; how much was taken.
static inline size_t pair_say(struct pair_side *side, const void *bytes, size_t len)
{
    struct span piece = span_of(bytes, len);
    struct tls_moved moved =
        tls_encrypt(side->tls, &piece, 1, side->wire + side->wire_len, PAIR_BYTES - side->wire_len);
    side->wire_len += moved.made;
    return moved.taken;
}

// Let `side` read bytes, from a block of exactly that size so that a sanitizer sees every step past
// it, and fetch all plaintext. Returns how many it took.
static inline size_t pair_feed(struct pair_side *side, const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    memcpy(exact, bytes, len);
    size_t taken = 0;
    for (;;) {
        size_t room = PAIR_BYTES - side->got_len, most = side->room ? side->room : 16384;
        CHECK(room > 0);
        struct tls_moved moved = tls_decrypt(side->tls, exact + taken, len - taken,
                                             side->got + side->got_len, room < most ? room : most);
        taken += moved.taken;
        side->got_len += moved.made;
        if (moved.result != TLS_ROOM)
            break;
    }
    free(exact);
    return taken;
}

// Move up to `step` bytes from one side's wire into the other. True: something moved.
static inline bool pair_move(struct pair_side *from, struct pair_side *to, size_t step)
{
    pair_flush(from);
    size_t some = from->wire_len < step ? from->wire_len : step;
    if (some == 0)
        return false;
    size_t taken = pair_feed(to, from->wire, some);
    enum tls_state state = tls_state(to->tls);
    CHECK(taken == some || state == TLS_FAILED || state == TLS_ENDED);
    from->wire_len -= some;
    memmove(from->wire, from->wire + some, from->wire_len);
    return true;
}

static inline void pair_run(struct pair *pair, size_t step)
{
    while (pair_move(&pair->client, &pair->server, step) |
           pair_move(&pair->server, &pair->client, step))
        ;
}

#endif
