// SPDX-License-Identifier: MIT
//
// threads: workers with contexts of their own, workers that share one, and one who rotates the
// ticket keys far too often, all at once. A plain program, to be run under ThreadSanitizer too.
// Prints TAP.
//
//   threads FOLDER      the folder is made by tests/tls/certificates
#include "tests/tls/pair.h"

#include <pthread.h>
#include <unistd.h>

enum { WORKERS = 4, VISITS = 40 };

static const char *folder;
static struct tls_ticket_keys *keys;
static struct tls_context *shared_client, *shared_server;
static _Atomic bool stop;

struct worker {
    pthread_t thread;
    bool shares;
    int good, resumed;
};

static struct tls_context *context_make(enum tls_side side)
{
    char why[TLS_ERROR_MAX], *chain = pair_file(folder, "good.pem");
    char *key = pair_file(folder, "good.key"), *root = pair_file(folder, "authority.pem");
    struct tls_identity identity = {pair_span(chain), pair_span(key), "good"};
    struct tls_settings settings = {.side = side, .ticket_keys = keys, .identities = &identity};
    settings.identity_count = side == TLS_SERVER;
    if (side == TLS_CLIENT)
        settings.authorities = pair_span(root);
    struct tls_context *context = tls_context_new(&settings, why, sizeof why);
    CHECK(context != NULL);
    heap_free(chain);
    heap_free(key);
    heap_free(root);
    return context;
}

static void visit(struct worker *worker, struct tls_context *client, struct tls_context *server,
                  struct tls_saved **saved)
{
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", *saved);
    pair_run(&pair, SIZE_MAX);
    pair_say(&pair.client, "hello", 5);
    pair_run(&pair, 100);
    worker->good += pair.server.got_len == 5;
    worker->resumed += tls_facts(pair.server.tls).resumed;
    tls_saved_free(*saved);
    *saved = tls_save(pair.client.tls);
    pair_close(&pair);
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct tls_context *client = worker->shares ? shared_client : context_make(TLS_CLIENT);
    struct tls_context *server = worker->shares ? shared_server : context_make(TLS_SERVER);
    struct tls_saved *saved = NULL;
    for (int i = 0; i < VISITS; i++)
        visit(worker, client, server, &saved);
    tls_saved_free(saved);
    if (!worker->shares) {
        tls_context_free(client);
        tls_context_free(server);
    }
    tls_library_thread_stop();
    return NULL;
}

static void *rotate(void *user)
{
    for (unsigned turn = 1; !stop; turn++) {
        uint8_t random[TLS_TICKET_RANDOM];
        memset(random, (int)(1 + turn % 255), sizeof random);
        tls_ticket_keys_rotate(keys, turn, random);
        usleep(2000);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: threads FOLDER    (made by tests/tls/certificates)\n");
        return 2;
    }
    folder = argv[1];
    uint64_t live = heap_live();
    tls_library_start();
    static const uint8_t random[TLS_TICKET_RANDOM] = {1};
    keys = tls_ticket_keys_new(0, random);
    shared_client = context_make(TLS_CLIENT);
    shared_server = context_make(TLS_SERVER);
    struct worker workers[WORKERS] = {0};
    pthread_t rotator;
    CHECK(pthread_create(&rotator, NULL, rotate, NULL) == 0);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].shares = i % 2;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    int good = 0, resumed = 0;
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        good += workers[i].good;
        resumed += workers[i].resumed;
    }
    stop = true;
    pthread_join(rotator, NULL);
    tls_context_free(shared_client);
    tls_context_free(shared_server);
    tls_ticket_keys_free(keys);
    tls_library_stop();
    printf("1..3\n");
    bool all = good == WORKERS * VISITS, some = resumed > 0, clean = heap_live() == live;
    printf("%s 1 - every handshake and every word arrived\n", all ? "ok" : "not ok");
    printf("%s 2 - some handshakes were resumed (%d)\n", some ? "ok" : "not ok", resumed);
    printf("%s 3 - nothing leaked\n", clean ? "ok" : "not ok");
    return all && some && clean ? 0 : 1;
}
