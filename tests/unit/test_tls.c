// SPDX-License-Identifier: MIT
#include "proto/tls_names.h"
#include "tests/tls/pair.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <pthread.h>

// ---- certificates -------------------------------------------------------------------------------

// Tests run in processes of their own: what the first one learns reaches them by the environment.
static const char FOLDER[] = "TOKENRING_TEST_CERTIFICATES", SKIP[] = "TOKENRING_TEST_TLS_SKIP";

static int shell(const char *format, const char *a, const char *b)
{
    char *command = heap_format(format, a, b);
    int status = system(command);
    heap_free(command);
    return status;
}

ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
    const char *source = getenv("TOKENRING_SOURCE_ROOT");
    char folder[] = "/tmp/tokenring-tls-XXXXXX";
    if (!mkdtemp(folder))
        abort();
    setenv(FOLDER, folder, 1);
    if (shell("command -v openssl >%s%s", "/dev/null", "") != 0)
        setenv(SKIP, "openssl is not installed", 1);
    else if (shell("%s/tests/tls/certificates %s", source ? source : ".", folder) != 0)
        setenv(SKIP, "tests/tls/certificates failed", 1);
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
    if (getenv(FOLDER))
        shell("rm -rf '%s'%s", getenv(FOLDER), "");
}

static uint64_t live_before;

static void begin(void)
{
    if (getenv(SKIP))
        cr_skip_test("%s", getenv(SKIP));
    live_before = heap_live();
    tls_library_start();
}

static void end(void)
{
    tls_library_stop(); // gives back what wolfSSL keeps for itself
    cr_assert_eq(heap_live(), live_before, "%ld blocks leaked", (long)(heap_live() - live_before));
}

TestSuite(tls, .init = begin, .fini = end, .timeout = 60);

// ---- contexts -----------------------------------------------------------------------------------

struct recipe {
    enum tls_side side;
    const char *identities[4]; // names of certificates
    const char *authority;     // name of one
    const char *alpn;
    enum tls_version version_min, version_max;
    struct tls_ticket_keys *keys;
};

static char why[TLS_ERROR_MAX];

static char *pem(const char *name, const char *ending)
{
    char *file = heap_format("%s.%s", name, ending), *bytes = pair_file(getenv(FOLDER), file);
    heap_free(file);
    return bytes;
}

static struct tls_context *context_try(struct recipe recipe)
{
    struct tls_identity identities[4] = {0};
    struct tls_settings settings = {.side = recipe.side,
                                    .identities = identities,
                                    .alpn = recipe.alpn,
                                    .version_min = recipe.version_min,
                                    .version_max = recipe.version_max,
                                    .ticket_keys = recipe.keys};
    char *files[9] = {0};
    for (size_t i = 0; i < 4 && recipe.identities[i]; i++) {
        files[2 * i] = pem(recipe.identities[i], "pem");
        files[2 * i + 1] = pem(recipe.identities[i], "key");
        identities[i] = (struct tls_identity){pair_span(files[2 * i]), pair_span(files[2 * i + 1]),
                                              recipe.identities[i]};
        settings.identity_count++;
    }
    if (recipe.authority) {
        files[8] = pem(recipe.authority, "pem");
        settings.authorities = pair_span(files[8]);
        settings.authorities_origin = recipe.authority;
    }
    struct tls_context *context = tls_context_new(&settings, why, sizeof why);
    for (size_t i = 0; i < 9; i++)
        heap_free(files[i]);
    return context;
}

static struct tls_context *context_make(struct recipe recipe)
{
    struct tls_context *context = context_try(recipe);
    cr_assert_not_null(context, "%s", why);
    return context;
}

#define CLIENT(...) context_make((struct recipe){TLS_CLIENT, __VA_ARGS__})
#define SERVER(...) context_make((struct recipe){TLS_SERVER, __VA_ARGS__})

static struct tls_context *plain_client(void)
{
    return CLIENT(.authority = "authority", .alpn = "http/1.1");
}

static struct tls_context *plain_server(const char *name)
{
    return SERVER(.identities = {name}, .alpn = "http/1.1");
}

static struct tls_ticket_keys *keys_make(uint8_t seed)
{
    uint8_t random[TLS_TICKET_RANDOM];
    memset(random, seed, sizeof random);
    return tls_ticket_keys_new(1000, random);
}

static void keys_rotate(struct tls_ticket_keys *keys, uint8_t seed)
{
    uint8_t random[TLS_TICKET_RANDOM];
    memset(random, seed, sizeof random);
    tls_ticket_keys_rotate(keys, 2000, random);
}

// ---- judging ------------------------------------------------------------------------------------

static void both_open(const struct pair *pair)
{
    cr_assert_eq(tls_state(pair->client.tls), TLS_OPEN, "client: %s", tls_error(pair->client.tls));
    cr_assert_eq(tls_state(pair->server.tls), TLS_OPEN, "server: %s", tls_error(pair->server.tls));
}

// Talk both ways, and see that it arrives.
static void exchange(struct pair *pair, size_t step)
{
    pair->client.got_len = pair->server.got_len = 0;
    both_open(pair);
    cr_assert_eq(pair_say(&pair->client, "question", 8), 8);
    cr_assert_eq(pair_say(&pair->server, "answer", 6), 6);
    pair_run(pair, step);
    both_open(pair);
    cr_assert(pair->server.got_len == 8 && memcmp(pair->server.got, "question", 8) == 0);
    cr_assert(pair->client.got_len == 6 && memcmp(pair->client.got, "answer", 6) == 0);
}

static void open_and_exchange(struct tls_context *client, struct tls_context *server,
                              const char *name, size_t step)
{
    struct pair pair;
    pair_open(&pair, client, server, name, NULL);
    pair_run(&pair, step);
    both_open(&pair);
    exchange(&pair, step);
    pair_close(&pair);
}

// The client must refuse this server, for that reason, with words that hold all of these.
static void refuses(struct tls_context *client, const char *certificate, const char *name,
                    enum tls_fault fault, const char *word, const char *other_word)
{
    struct tls_context *server = plain_server(certificate);
    struct pair pair;
    pair_open(&pair, client, server, name, NULL);
    pair_run(&pair, SIZE_MAX);
    const char *error = tls_error(pair.client.tls);
    cr_expect_eq(tls_state(pair.client.tls), TLS_FAILED, "%s as %s", certificate, name);
    cr_expect_eq(tls_fault(pair.client.tls), fault, "%s as %s: %s", certificate, name,
                 tls_fault_name(tls_fault(pair.client.tls)));
    cr_expect(strstr(error, word) && strstr(error, other_word), "%s", error);
    cr_expect(strlen(error) < TLS_ERROR_MAX && !strchr(error, '\n'));
    cr_expect_eq(tls_state(pair.server.tls), TLS_FAILED, "the server is told by an alert");
    cr_expect_eq(tls_fault(pair.server.tls), TLS_FAULT_REFUSED);
    cr_expect_eq(pair.server.got_len, 0);
    pair_close(&pair);
    tls_context_free(server);
}

// ---- handshakes ---------------------------------------------------------------------------------

// Whole, a byte at a time, and in pieces of every small size: all open, in both versions.
Test(tls, basic_any_split)
{
    for (int version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_context *client =
            CLIENT(.authority = "authority", .version_min = version, .version_max = version);
        struct tls_context *server = SERVER(.identities = {"good"}, .version_max = version);
        open_and_exchange(client, server, "api.example.test", SIZE_MAX);
        for (size_t step = 1; step <= 40; step++)
            open_and_exchange(client, server, "api.example.test", step);
        tls_context_free(client);
        tls_context_free(server);
    }
}

// What was agreed: the newest version, X25519, the fastest suite, the protocol.
Test(tls, basic_facts)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    cr_assert_str_empty(tls_facts(pair.client.tls).version);
    pair_run(&pair, SIZE_MAX);
    both_open(&pair);
    for (int i = 0; i < 2; i++) {
        struct tls_facts facts = tls_facts(i ? pair.client.tls : pair.server.tls);
        cr_expect_str_eq(facts.version, "TLSv1.3");
        cr_expect_str_eq(facts.cipher, tls_library_is_fast() && __builtin_cpu_supports("aes")
                                           ? "TLS_AES_128_GCM_SHA256"
                                           : "TLS_CHACHA20_POLY1305_SHA256");
        cr_expect_str_eq(facts.group, "X25519");
        cr_expect_str_eq(facts.alpn, "http/1.1");
        cr_expect_str_eq(facts.server_name, "api.example.test");
        cr_expect_not(facts.resumed);
        cr_expect_not(facts.client_certificate);
    }
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// RSA, Ed25519, and a certificate by common name alone; addresses of both families.
Test(tls, basic_kinds_of_certificate)
{
    static const char *const cases[][2] = {
        {"rsa", "rsa.example.test"},
        {"ed", "ed.example.test"},
        {"plain", "plain.example.test"},
        {"good", "127.0.0.1"},
        {"good", "::1"},
        {"good", "0:0:0:0:0:0:0:1"},
        {"good", "API.example.test"},
        {"good", "api.example.test."},
        {"wild", "a.wild.test"},
    };
    struct tls_context *client = plain_client();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_context *server = plain_server(cases[i][0]);
        open_and_exchange(client, server, cases[i][1], SIZE_MAX);
        tls_context_free(server);
    }
    tls_context_free(client);
}

// A name that no certificate can be for is no name to connect to.
Test(tls, basic_server_names)
{
    struct tls_context *client = plain_client();
    char long_name[TLS_NAME_MAX + 2];
    memset(long_name, 'a', sizeof long_name);
    long_name[TLS_NAME_MAX + 1] = '\0';
    const char *bad[] = {"", "a b", "*.example.test", "a/b", "caf\xc3\xa9.test", long_name};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_null(tls_client(client, bad[i], NULL), "%s", bad[i]);
    long_name[TLS_NAME_MAX] = '\0';
    struct tls *tls = tls_client(client, long_name, NULL);
    cr_assert_not_null(tls);
    tls_free(tls);
    tls_context_free(client);
}

// ---- moving bytes -------------------------------------------------------------------------------

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 7 + at / 251);
}

// Megabytes both ways at once, by odd steps and odd rooms, arrive as they were sent.
Test(tls, data_big_transfers)
{
    enum { TOTAL = 3 << 20, PIECE = 9973 };
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    pair.client.room = 3001;
    pair.server.room = 70000;
    struct pair_side *sides[2] = {&pair.client, &pair.server};
    size_t sent[2] = {0}, got[2] = {0};
    while (got[0] < TOTAL || got[1] < TOTAL) {
        for (int i = 0; i < 2; i++) {
            uint8_t bytes[PIECE];
            size_t len = TOTAL - sent[i] < PIECE ? TOTAL - sent[i] : PIECE;
            for (size_t j = 0; j < len; j++)
                bytes[j] = pattern(sent[i] + j);
            sent[i] += pair_say(sides[i], bytes, len);
        }
        pair_run(&pair, 4096 + got[0] % 777);
        for (int i = 0; i < 2; i++) {
            for (size_t j = 0; j < sides[i]->got_len; j++)
                cr_assert_eq(sides[i]->got[j], pattern(got[i] + j));
            got[i] += sides[i]->got_len;
            sides[i]->got_len = 0;
        }
    }
    both_open(&pair);
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// Neighbouring pieces share a record, empty ones cost nothing, and a record is never too long.
Test(tls, data_pieces_share_records)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    struct span pieces[1000];
    for (size_t i = 0; i < 1000; i++)
        pieces[i] = i % 3 ? pair_span("0123456789") : (struct span){0};
    uint8_t out[65536];
    struct tls_moved moved = tls_encrypt(pair.client.tls, pieces, 1000, out, sizeof out);
    cr_assert_eq(moved.result, TLS_OK);
    cr_assert_eq(moved.taken, 6660);
    cr_assert(moved.made > 6660 && moved.made <= 6660 + TLS_OVERHEAD_MAX, "%zu", moved.made);
    pair_feed(&pair.server, out, moved.made);
    cr_assert_eq(pair.server.got_len, 6660);
    for (size_t i = 0; i < 6660; i++)
        cr_assert_eq(pair.server.got[i], '0' + i % 10);
    uint8_t big[40000] = {0};
    struct span one = span_of(big, sizeof big);
    moved = tls_encrypt(pair.client.tls, &one, 1, out, sizeof out);
    cr_assert_eq(moved.taken, sizeof big);
    size_t at = 0, records = 0;
    for (; at < moved.made; records++) {
        size_t len = (size_t)out[at + 3] << 8 | out[at + 4];
        cr_assert_leq(len + 5, TLS_RECORD_MAX);
        at += 5 + len;
    }
    cr_assert(at == moved.made && records == 3, "%zu records", records);
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// Whatever the room, no byte beyond it is touched, and everything arrives.
Test(tls, data_every_room)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    uint8_t text[300], out[512];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = pattern(i);
    for (size_t room = 0; room <= 400; room++) {
        struct span pieces[2] = {span_of(text, 100), span_of(text + 100, 200)};
        memset(out, 0xEE, sizeof out);
        struct tls_moved moved = tls_encrypt(pair.client.tls, pieces, 2, out, room);
        cr_assert_leq(moved.made, room);
        cr_assert(room > TLS_OVERHEAD_MAX || moved.taken == 0);
        cr_assert(moved.taken == 300 ? moved.result == TLS_OK : moved.result == TLS_ROOM);
        for (size_t i = room; i < sizeof out; i++)
            cr_assert_eq(out[i], 0xEE);
        cr_assert_eq(tls_unsent(pair.client.tls), 0);
        pair.server.got_len = 0;
        pair_feed(&pair.server, out, moved.made);
        cr_assert_eq(pair.server.got_len, moved.taken);
        cr_assert(memcmp(pair.server.got, text, moved.taken) == 0);
    }
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// Plaintext waits for room, and a handshake needs none.
Test(tls, data_waits_for_room)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    pair_say(&pair.client, "0123456789", 10);
    uint8_t out[4];
    struct tls_moved moved =
        tls_decrypt(pair.server.tls, pair.client.wire, pair.client.wire_len, NULL, 0);
    cr_assert_eq(moved.result, TLS_ROOM);
    cr_assert_eq(moved.taken, 0);
    moved = tls_decrypt(pair.server.tls, pair.client.wire, pair.client.wire_len, out, 4);
    cr_assert_eq(moved.result, TLS_ROOM);
    cr_assert_eq(moved.taken, pair.client.wire_len);
    cr_assert(moved.made == 4 && memcmp(out, "0123", 4) == 0);
    cr_assert_eq(tls_undelivered(pair.server.tls), 6);
    moved = tls_decrypt(pair.server.tls, NULL, 0, out, 4);
    cr_assert(moved.result == TLS_ROOM && moved.made == 4);
    moved = tls_decrypt(pair.server.tls, NULL, 0, out, 4);
    cr_assert(moved.result == TLS_OK && moved.made == 2 && memcmp(out, "89", 2) == 0);
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// During the handshake no plaintext is taken, so none can leave unencrypted.
Test(tls, data_not_before_open)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    cr_expect_eq(pair_say(&pair.client, "secret", 6), 0);
    cr_expect_eq(pair_say(&pair.server, "secret", 6), 0);
    cr_expect_null(memmem(pair.client.wire, pair.client.wire_len, "secret", 6));
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// ---- memory -------------------------------------------------------------------------------------

// Little before the first byte, little when idle, and what a transfer took is given back.
Test(tls, memory_idle)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    open_and_exchange(client, server, "api.example.test", SIZE_MAX); // fills wolfSSL's own caches
    pair_open(&pair, client, server, "api.example.test", NULL);
    cr_expect_lt(tls_bytes(pair.server.tls), 1024);
    pair_run(&pair, SIZE_MAX);
    exchange(&pair, SIZE_MAX);
    size_t idle = tls_bytes(pair.server.tls), client_idle = tls_bytes(pair.client.tls);
    if (tls_library_is_fast()) {
        cr_expect_leq(idle, 16384);
        cr_expect_leq(client_idle, 16384);
    }
    static uint8_t big[100000];
    pair_say(&pair.client, big, sizeof big);
    pair_say(&pair.server, big, sizeof big);
    pair_run(&pair, 1000);
    exchange(&pair, SIZE_MAX);
    cr_expect_eq(tls_bytes(pair.server.tls), idle);
    cr_expect_eq(tls_bytes(pair.client.tls), client_idle);
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// A reload frees the context; its sessions go on.
Test(tls, memory_context_outlived)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    tls_context_free(client);
    tls_context_free(server);
    pair_run(&pair, 7);
    exchange(&pair, 7);
    pair_close(&pair);
}

// ---- refusals -----------------------------------------------------------------------------------

// Every certificate that must be refused is, and the words name the cause.
Test(tls, refuse_bad_certificates)
{
    struct tls_context *client = plain_client();
    refuses(client, "other", "api.example.test", TLS_FAULT_WRONG_HOST,
            "certificate of api.example.test is for other.example.test", "mend");
    refuses(client, "good", "127.0.0.2", TLS_FAULT_WRONG_HOST, "127.0.0.2", "127.0.0.1");
    refuses(client, "good", "::2", TLS_FAULT_WRONG_HOST, "of ::2", "::1");
    refuses(client, "good", "example.test", TLS_FAULT_WRONG_HOST, "of example.test is for", "api.");
    refuses(client, "good", "api.example.test.evil.test", TLS_FAULT_WRONG_HOST, "evil", "is for");
    refuses(client, "wild", "a.b.wild.test", TLS_FAULT_WRONG_HOST, "a.b.wild.test", "*.wild.test");
    refuses(client, "wild", "wild.test", TLS_FAULT_WRONG_HOST, "of wild.test", "*.wild.test");
    refuses(client, "expired", "api.example.test", TLS_FAULT_EXPIRED, "2020-12-31", "clock");
    refuses(client, "future", "api.example.test", TLS_FAULT_EXPIRED, "2048-01-01", "clock");
    refuses(client, "self", "self.example.test", TLS_FAULT_SELF_SIGNED, "self-signed", "ca_file");
    refuses(client, "imposter", "api.example.test", TLS_FAULT_UNTRUSTED, "Rogue Root", "ca_file");
    refuses(client, "usage", "api.example.test", TLS_FAULT_CERTIFICATE, "api.example.test",
            "refused");
    tls_context_free(client);
}

// Trust is what the bundle says: a self-signed certificate in it is trusted, the usual root is not.
Test(tls, refuse_by_bundle_alone)
{
    struct tls_context *server = plain_server("self"), *client = CLIENT(.authority = "self");
    open_and_exchange(client, server, "self.example.test", SIZE_MAX);
    refuses(client, "good", "api.example.test", TLS_FAULT_UNTRUSTED, "Test", "ca_file");
    tls_context_free(client);
    tls_context_free(server);
}

// A server that sends no intermediate certificate is refused with the mend.
Test(tls, refuse_incomplete_chain)
{
    char *chain = pem("good", "pem"), *key = pem("good", "key");
    char *second = strstr(chain + 10, "-----BEGIN");
    struct tls_identity identity = {span_of(chain, (size_t)(second - chain)), pair_span(key), NULL};
    struct tls_settings settings = {
        .side = TLS_SERVER, .identities = &identity, .identity_count = 1};
    struct tls_context *server = tls_context_new(&settings, why, sizeof why);
    struct tls_context *client = plain_client();
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_UNTRUSTED);
    cr_expect(strstr(tls_error(pair.client.tls), "Test Middle"));
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
    heap_free(chain);
    heap_free(key);
}

// Versions and protocols that have nothing in common fail on both sides, with words.
Test(tls, refuse_nothing_in_common)
{
    struct tls_context *old = CLIENT(.authority = "authority", .version_max = TLS_1_2);
    struct tls_context *young = SERVER(.identities = {"good"}, .version_min = TLS_1_3);
    struct pair pair;
    pair_open(&pair, old, young, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(tls_fault(pair.server.tls), TLS_FAULT_VERSION, "%s", tls_error(pair.server.tls));
    cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_REFUSED, "%s", tls_error(pair.client.tls));
    pair_close(&pair);
    struct tls_context *h2 = CLIENT(.authority = "authority", .alpn = "h2");
    struct tls_context *h1 = plain_server("good");
    pair_open(&pair, h2, h1, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(tls_fault(pair.server.tls), TLS_FAULT_VERSION, "%s", tls_error(pair.server.tls));
    cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_REFUSED, "%s", tls_error(pair.client.tls));
    pair_close(&pair);
    tls_context_free(old);
    tls_context_free(young);
    tls_context_free(h2);
    tls_context_free(h1);
}

// ---- contexts that cannot be made ---------------------------------------------------------------

static void no_context(struct tls_settings settings, const char *words)
{
    struct tls_context *context = tls_context_new(&settings, why, sizeof why);
    cr_expect_null(context, "%s", words);
    cr_expect(strstr(why, words), "%s", why);
    tls_context_free(context);
}

Test(tls, settings_are_checked)
{
    char *good = pem("good", "pem"), *key = pem("good", "key"), *other = pem("other", "key");
    char *expired = pem("expired", "pem"), *weak = pem("weak", "pem"),
         *weak_key = pem("weak", "key");
    struct tls_identity identity = {pair_span(good), pair_span(other), "front.pem"};
    struct tls_settings server = {TLS_SERVER, .identities = &identity, .identity_count = 1};
    no_context(server, "front.pem: the key does not belong to the certificate");
    identity.key = pair_span("hello");
    no_context(server, "front.pem: its key cannot be used");
    identity = (struct tls_identity){pair_span("hello"), pair_span(key), "front.pem"};
    no_context(server, "front.pem holds no certificate");
    identity = (struct tls_identity){pair_span(weak), pair_span(weak_key), "front.pem"};
    no_context(server, "2048 bits");
    no_context((struct tls_settings){TLS_SERVER}, "needs a certificate");
    struct tls_settings client = {TLS_CLIENT, .authorities_origin = "bundle.pem"};
    no_context(client, "bundle.pem holds no certificate of an authority");
    client.authorities = pair_span(key);
    no_context(client, "bundle.pem");
    client.authorities = pair_span(expired);
    no_context(client, "bundle.pem");
    heap_free(good);
    heap_free(key);
    heap_free(other);
    heap_free(expired);
    heap_free(weak);
    heap_free(weak_key);
}

// A bundle with bad certificates in it still serves for the good ones.
Test(tls, settings_bundle_with_rubbish)
{
    char *good = pem("authority", "pem"), *expired = pem("expired", "pem");
    char *bundle = heap_format("# comment\n-----BEGIN CERTIFICATE-----\nAAAA\n"
                               "-----END CERTIFICATE-----\n%s\nwords\n%s",
                               expired, good);
    struct tls_settings settings = {TLS_CLIENT, .authorities = pair_span(bundle)};
    struct tls_context *client = tls_context_new(&settings, why, sizeof why);
    cr_assert_not_null(client, "%s", why);
    cr_expect_eq(tls_context_authorities(client), 1);
    cr_expect_eq(tls_context_skipped(client), 2);
    struct tls_context *server = plain_server("good");
    open_and_exchange(client, server, "api.example.test", SIZE_MAX);
    tls_context_free(client);
    tls_context_free(server);
    heap_free(good);
    heap_free(expired);
    heap_free(bundle);
}

// ---- several certificates -----------------------------------------------------------------------

// Which certificate a server shows for a name, asked in pieces of that size.
static void shows(struct tls_context *server, const char *asked, const char *authority,
                  const char *expected, size_t step)
{
    // The client refuses for the wrong name, and says whose certificate it was shown.
    struct tls_context *client = CLIENT(.authority = authority);
    struct pair pair;
    pair_open(&pair, client, server, asked, NULL);
    pair_run(&pair, step);
    if (!expected) {
        both_open(&pair);
        cr_expect_str_eq(tls_facts(pair.server.tls).server_name, asked);
    } else {
        cr_expect(strstr(tls_error(pair.client.tls), expected), "%s", tls_error(pair.client.tls));
    }
    pair_close(&pair);
    tls_context_free(client);
}

Test(tls, names_choose_the_certificate)
{
    struct tls_context *server = SERVER(.identities = {"other", "wild", "good", "rsa"});
    for (size_t step = 1; step < 1000; step += 37) {
        shows(server, "other.example.test", "authority", NULL, step);
        shows(server, "api.example.test", "authority", NULL, step);
        shows(server, "a.wild.test", "authority", NULL, step);
        shows(server, "EXACT.wild.test", "authority", NULL, step);
        shows(server, "rsa.example.test", "authority", NULL, step);
        shows(server, "unknown.test", "authority", "other.example.test", step);
        shows(server, "127.0.0.1", "authority", "other.example.test", step); // no name asked for
    }
    tls_context_free(server);
}

// A ClientHello cut into two records, as no usual client does it, at every place.
Test(tls, names_hello_in_two_records)
{
    struct tls_context *server = SERVER(.identities = {"other", "good"});
    struct tls_context *client = plain_client();
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_flush(&pair.client);
    size_t len = pair.client.wire_len - 5;
    uint8_t hello[4096], cut[4096];
    memcpy(hello, pair.client.wire, pair.client.wire_len);
    pair_close(&pair);
    for (size_t at = 1; at < len; at++) { // wolfSSL waits for good when cut in the message's header
        uint8_t first[5] = {hello[0], hello[1], hello[2], (uint8_t)(at >> 8), (uint8_t)at};
        uint8_t second[5] = {hello[0], hello[1], hello[2], (uint8_t)((len - at) >> 8),
                             (uint8_t)(len - at)};
        memcpy(cut, first, 5);
        memcpy(cut + 5, hello + 5, at);
        memcpy(cut + 5 + at, second, 5);
        memcpy(cut + 10 + at, hello + 5 + at, len - at);
        struct pair_side side;
        pair_side_open(&side, tls_server(server));
        pair_feed(&side, cut, len + 10);
        pair_flush(&side);
        cr_expect(side.wire_len > 0 || at < 4, "an answer, cut at %zu", at);
        pair_side_close(&side);
    }
    tls_context_free(client);
    tls_context_free(server);
}

// ---- clients with certificates ------------------------------------------------------------------

Test(tls, mutual)
{
    for (int version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_context *server =
            SERVER(.identities = {"good"}, .authority = "authority", .version_max = version);
        struct tls_context *client = CLIENT(.identities = {"client"}, .authority = "authority");
        struct pair pair;
        pair_open(&pair, client, server, "api.example.test", NULL);
        pair_run(&pair, 5);
        exchange(&pair, 5);
        cr_expect(tls_facts(pair.server.tls).client_certificate);
        pair_close(&pair);
        tls_context_free(client);

        static const char *const bad[] = {NULL, "stranger", "other"};
        static const enum tls_fault faults[] = {TLS_FAULT_NO_CERTIFICATE, TLS_FAULT_UNTRUSTED,
                                                TLS_FAULT_CERTIFICATE};
        for (int i = 0; i < 3; i++) {
            client = CLIENT(.identities = {bad[i]}, .authority = "authority");
            pair_open(&pair, client, server, "api.example.test", NULL);
            pair_run(&pair, SIZE_MAX);
            cr_expect_eq(tls_state(pair.server.tls), TLS_FAILED);
            cr_expect_eq(tls_fault(pair.server.tls), faults[i], "%d: %s", version,
                         tls_error(pair.server.tls));
            cr_expect_eq(tls_state(pair.client.tls), TLS_FAILED, "%d %d", version, i);
            cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_REFUSED, "%d: %s", version,
                         tls_error(pair.client.tls));
            pair_close(&pair);
            tls_context_free(client);
        }
        tls_context_free(server);
    }
}

// ---- resumption ---------------------------------------------------------------------------------

// Open, talk, and keep what resumes.
static struct tls_saved *first_visit(struct tls_context *client, struct tls_context *server,
                                     const char *name)
{
    struct pair pair;
    pair_open(&pair, client, server, name, NULL);
    pair_run(&pair, SIZE_MAX);
    exchange(&pair, SIZE_MAX);
    cr_assert_not(tls_facts(pair.client.tls).resumed);
    struct tls_saved *saved = tls_save(pair.client.tls);
    tls_close(pair.client.tls);
    pair_run(&pair, SIZE_MAX);
    pair_close(&pair);
    return saved;
}

// Come again: did both sides resume? It must work in any case.
static bool second_visit(struct tls_context *client, struct tls_context *server, const char *name,
                         const struct tls_saved *saved)
{
    struct pair pair;
    pair_open(&pair, client, server, name, saved);
    pair_run(&pair, 11);
    exchange(&pair, SIZE_MAX);
    bool resumed = tls_facts(pair.client.tls).resumed;
    cr_expect_eq(resumed, tls_facts(pair.server.tls).resumed);
    pair_close(&pair);
    return resumed;
}

// Tickets are good at every worker that shares the keys, for two lives of a key, and not longer.
Test(tls, resume_across_workers)
{
    struct tls_ticket_keys *keys = keys_make(1), *foreign = keys_make(9);
    struct tls_context *client = plain_client();
    struct tls_context *one = SERVER(.identities = {"good"}, .keys = keys);
    struct tls_context *two = SERVER(.identities = {"good"}, .keys = keys);
    struct tls_context *three = SERVER(.identities = {"good"}, .keys = foreign);
    struct tls_saved *saved = first_visit(client, one, "api.example.test");
    cr_assert_not_null(saved);
    cr_expect(second_visit(client, one, "api.example.test", saved));
    cr_expect(second_visit(client, two, "api.example.test", saved), "another worker");
    cr_expect(second_visit(client, two, "api.example.test", saved), "once more");
    cr_expect_not(second_visit(client, three, "api.example.test", saved), "other keys");
    keys_rotate(keys, 2);
    cr_expect(second_visit(client, two, "api.example.test", saved), "the key before");
    cr_expect_eq(tls_ticket_keys_made_s(keys), 2000);
    keys_rotate(keys, 3);
    cr_expect_not(second_visit(client, two, "api.example.test", saved), "two keys ago");
    cr_expect_not(second_visit(client, two, "api.example.test", NULL), "nothing saved");
    tls_saved_free(saved);
    tls_context_free(client);
    tls_context_free(one);
    tls_context_free(two);
    tls_context_free(three);
    tls_ticket_keys_free(keys);
    tls_ticket_keys_free(foreign);
}

// A client resumes TLS 1.3 only: in 1.2 wolfSSL does not survive a server that declines.
Test(tls, resume_not_in_old_version)
{
    struct tls_ticket_keys *keys = keys_make(1);
    struct tls_context *client = CLIENT(.authority = "authority", .version_max = TLS_1_2);
    struct tls_context *server = SERVER(.identities = {"good"}, .keys = keys);
    cr_expect_null(first_visit(client, server, "api.example.test"));
    tls_context_free(client);
    tls_context_free(server);
    tls_ticket_keys_free(keys);
}

// A server without keys gives no tickets.
Test(tls, resume_not_without_keys)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    cr_expect_null(first_visit(client, server, "api.example.test"));
    tls_context_free(client);
    tls_context_free(server);
}

// What was saved is offered only under the same name and the same trust: a resumed handshake shows
// no certificate.
Test(tls, resume_not_elsewhere)
{
    struct tls_ticket_keys *keys = keys_make(1);
    struct tls_context *server = SERVER(.identities = {"good", "other"}, .keys = keys);
    struct tls_context *client = plain_client(), *same = plain_client();
    struct tls_saved *saved = first_visit(client, server, "api.example.test");
    cr_expect(second_visit(same, server, "api.example.test", saved), "an equal context");
    cr_expect_not(second_visit(client, server, "other.example.test", saved), "another name");
    struct tls_context *distrusting = CLIENT(.authority = "rogue");
    struct pair pair;
    pair_open(&pair, distrusting, server, "api.example.test", saved);
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_UNTRUSTED, "another bundle");
    pair_close(&pair);
    tls_saved_free(saved);
    tls_context_free(client);
    tls_context_free(same);
    tls_context_free(distrusting);
    tls_context_free(server);
    tls_ticket_keys_free(keys);
}

// A ticket given where no client certificate is asked for opens no door where one is.
Test(tls, resume_not_around_client_certificates)
{
    struct tls_ticket_keys *keys = keys_make(1);
    struct tls_context *open = SERVER(.identities = {"good"}, .keys = keys);
    struct tls_context *closed =
        SERVER(.identities = {"good"}, .authority = "authority", .keys = keys);
    struct tls_context *nobody = CLIENT(.authority = "authority");
    struct tls_saved *saved = first_visit(nobody, open, "api.example.test");
    cr_assert_not_null(saved);
    struct pair pair;
    pair_open(&pair, nobody, closed, "api.example.test", saved);
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(tls_state(pair.server.tls), TLS_FAILED);
    cr_expect_eq(tls_fault(pair.server.tls), TLS_FAULT_NO_CERTIFICATE, "%s",
                 tls_error(pair.server.tls));
    pair_close(&pair);
    tls_saved_free(saved);
    struct tls_context *known = CLIENT(.identities = {"client"}, .authority = "authority");
    saved = first_visit(known, closed, "api.example.test");
    cr_expect(second_visit(known, closed, "api.example.test", saved), "who showed one may");
    tls_saved_free(saved);
    tls_context_free(open);
    tls_context_free(closed);
    tls_context_free(nobody);
    tls_context_free(known);
    tls_ticket_keys_free(keys);
}

struct rotation {
    struct tls_ticket_keys *keys;
    _Atomic bool stop;
};

static void *rotate_often(void *user)
{
    struct rotation *rotation = user;
    for (unsigned turn = 1; !rotation->stop; turn++) {
        keys_rotate(rotation->keys, (uint8_t)(1 + turn % 255));
        usleep(100);
    }
    return NULL;
}

// Handshakes go on while the keys are rotated much too often: resumed or not, all work.
Test(tls, resume_while_keys_rotate)
{
    struct rotation rotation = {.keys = keys_make(1)};
    struct tls_context *client = plain_client();
    struct tls_context *server = SERVER(.identities = {"good"}, .keys = rotation.keys);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, rotate_often, &rotation), 0);
    for (int i = 0; i < 50; i++) {
        struct tls_saved *saved = first_visit(client, server, "api.example.test");
        second_visit(client, server, "api.example.test", saved);
        tls_saved_free(saved);
    }
    rotation.stop = true;
    pthread_join(thread, NULL);
    tls_context_free(client);
    tls_context_free(server);
    tls_ticket_keys_free(rotation.keys);
}

// ---- the end ------------------------------------------------------------------------------------

// close_notify ends a direction; without it the end is a truncation.
Test(tls, end_close_and_cut)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    pair_run(&pair, SIZE_MAX);
    exchange(&pair, SIZE_MAX);
    pair_say(&pair.client, "last", 4);
    tls_close(pair.client.tls);
    tls_close(pair.client.tls);
    cr_expect_eq(pair_say(&pair.client, "late", 4), 0, "nothing after close_notify");
    pair.server.got_len = 0;
    pair_run(&pair, 3);
    cr_expect_eq(pair.server.got_len, 4);
    cr_expect_eq(tls_state(pair.server.tls), TLS_ENDED);
    cr_expect_eq(tls_cut(pair.server.tls), TLS_END);
    cr_expect_eq(pair_say(&pair.server, "answer", 6), 6, "half-closed: we may still speak");
    pair.client.got_len = 0;
    pair_run(&pair, SIZE_MAX);
    cr_expect_eq(pair.client.got_len, 6);
    cr_expect_eq(tls_cut(pair.client.tls), TLS_BAD);
    cr_expect_eq(tls_fault(pair.client.tls), TLS_FAULT_CUT);
    cr_expect(strstr(tls_error(pair.client.tls), "without close_notify"));
    pair_close(&pair);
    pair_open(&pair, client, server, "api.example.test", NULL);
    cr_expect_eq(tls_cut(pair.server.tls), TLS_BAD);
    cr_expect(strstr(tls_error(pair.server.tls), "handshake"));
    tls_close(pair.server.tls); // a no-op
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// ---- damage -------------------------------------------------------------------------------------

// Run a handshake and an exchange in which byte `at` of what one side sends is turned by `mask`.
// True when nobody noticed.
static bool survives(struct tls_context *client, struct tls_context *server, bool from_client,
                     size_t at, uint8_t mask, size_t *total)
{
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    struct pair_side *from = from_client ? &pair.client : &pair.server;
    struct pair_side *to = from_client ? &pair.server : &pair.client;
    size_t passed = 0;
    bool said = false;
    for (int turn = 0; turn < 12; turn++) {
        pair_flush(from);
        if (at >= passed && at - passed < from->wire_len)
            from->wire[at - passed] ^= mask;
        passed += from->wire_len;
        pair_move(from, to, SIZE_MAX);
        pair_move(to, from, SIZE_MAX);
        if (!said && tls_state(from->tls) == TLS_OPEN)
            said = pair_say(from, "question", 8) == 8;
    }
    *total = passed;
    bool heard = to->got_len == 8 && memcmp(to->got, "question", 8) == 0;
    cr_assert(heard || to->got_len == 0, "never something else than what was said");
    pair_close(&pair);
    return heard;
}

// Each byte of each flight damaged, one after the other: never a crash, never a wrong plaintext,
// and only what carries no meaning (the version in a record's header) goes unnoticed.
Test(tls, damage_every_byte)
{
    for (int version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_context *client = CLIENT(.authority = "authority", .version_max = version);
        struct tls_context *server = SERVER(.identities = {"good"});
        for (int side = 0; side < 2; side++) {
            size_t total = 1, survived = 0, records = 0;
            cr_assert(survives(client, server, side, SIZE_MAX, 0, &total));
            size_t whole = total;
            for (size_t at = 0; at < whole; at++)
                survived += survives(client, server, side, at, (uint8_t)(1 << at % 8), &total);
            records = whole / 20;
            cr_expect_lt(survived, records, "%zu of %zu bytes", survived, whole);
        }
        tls_context_free(client);
        tls_context_free(server);
    }
}

// Flights cut short at every byte and then ended: harmless, and told.
Test(tls, damage_truncation)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    for (size_t at = 0; at < 2000; at += 3) {
        struct pair pair;
        pair_open(&pair, client, server, "api.example.test", NULL);
        size_t left = at;
        while (left) {
            pair_flush(&pair.server);
            size_t some = pair.server.wire_len < left ? pair.server.wire_len : left;
            left -= some;
            bool moved = some && pair_move(&pair.server, &pair.client, some);
            if (!(pair_move(&pair.client, &pair.server, SIZE_MAX) | moved))
                break;
        }
        cr_expect_eq(tls_cut(pair.client.tls), TLS_BAD);
        cr_expect_eq(tls_cut(pair.server.tls), TLS_BAD);
        pair_close(&pair);
    }
    tls_context_free(client);
    tls_context_free(server);
}

static uint64_t dice(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

// Noise instead of TLS, at the start and in an open session, to both sides.
Test(tls, damage_noise)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 400; i++) {
        struct pair pair;
        pair_open(&pair, client, server, "api.example.test", NULL);
        if (i % 2)
            pair_run(&pair, SIZE_MAX);
        uint8_t noise[600];
        for (size_t j = 0; j < sizeof noise; j++)
            noise[j] = (uint8_t)dice(&seed);
        if (i % 4 > 1) { // in the shape of a record
            noise[0] = (uint8_t)(20 + i / 4 % 5);
            noise[1] = noise[2] = 3;
            noise[3] = (uint8_t)(i % 3);
        }
        struct pair_side *side = i / 8 % 2 ? &pair.client : &pair.server;
        pair_feed(side, noise, sizeof noise);
        if (tls_state(side->tls) != TLS_FAILED)
            tls_cut(side->tls);
        cr_assert_eq(tls_state(side->tls), TLS_FAILED);
        cr_assert_eq(side->got_len, 0);
        cr_assert(tls_error(side->tls)[0]);
        pair_flush(side);
        pair_close(&pair);
    }
    tls_context_free(client);
    tls_context_free(server);
}

// HTTP where TLS belongs is called by its name.
Test(tls, damage_plain_http)
{
    struct tls_context *client = plain_client(), *server = plain_server("good");
    struct pair pair;
    pair_open(&pair, client, server, "api.example.test", NULL);
    const char *request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", *answer = "HTTP/1.1 400 Bad\r\n\r\n";
    pair_feed(&pair.server, (const uint8_t *)request, strlen(request));
    pair_feed(&pair.client, (const uint8_t *)answer, strlen(answer));
    cr_expect_eq(tls_fault(pair.server.tls), TLS_FAULT_PROTOCOL);
    cr_expect(strstr(tls_error(pair.server.tls), "the client speaks plain HTTP"));
    cr_expect(strstr(tls_error(pair.client.tls), "api.example.test speaks plain HTTP"));
    pair_close(&pair);
    tls_context_free(client);
    tls_context_free(server);
}

// ---- names --------------------------------------------------------------------------------------

static bool fits(const char *pattern, const char *host)
{
    return name_fits(pair_span(pattern), span_of(edge_put(host, strlen(host)), strlen(host)));
}

Test(tls_names, fit)
{
    cr_expect(fits("a.test", "a.test"));
    cr_expect(fits("A.test", "a.TEST"));
    cr_expect(fits("a.test", "a.test."));
    cr_expect(fits("*.a.test", "b.a.test"));
    cr_expect_not(fits("*.a.test", "a.test"));
    cr_expect_not(fits("*.a.test", "c.b.a.test"));
    cr_expect_not(fits("*.a.test", ".a.test"));
    cr_expect_not(fits("*.test", "a.test"), "a whole top level");
    cr_expect_not(fits("*", "test"));
    cr_expect_not(fits("*.", "test."));
    cr_expect_not(fits("b*.a.test", "bc.a.test"));
    cr_expect_not(fits("*b.a.test", "cb.a.test"));
    cr_expect_not(fits("b.*.test", "b.a.test"));
    cr_expect_not(fits("*.*.test", "b.a.test"));
    cr_expect_not(fits("", ""));
    cr_expect_not(fits("a.test", ""));
    cr_expect_not(fits("*.a.test", ""));
    cr_expect_not(name_fits(span_of("a.test\0.evil", 12), pair_span("a.test")));
}

// A ClientHello that asks for a.b.c: the record's header, the message's header and version, 32
// random bytes, no session, one suite, no compression, supported_versions, server_name.
// clang-format off
static const uint8_t hello[] = {
    22, 3, 1, 0, 67, 1, 0, 0, 63, 3, 3,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 0, 2, 0x13, 1, 1, 0, 0, 20, 0, 43, 0, 2, 3, 4,
    0, 0, 0, 10, 0, 8, 0, 0, 5, 'a', '.', 'b', '.', 'c'};
// clang-format on

// A ClientHello with a name, whole and cut at each byte, against an unreadable page.
Test(tls_names, hello)
{
    struct span name;
    size_t len = sizeof hello;
    cr_assert_eq(len, 72);
    cr_assert_eq(hello_server_name(span_of(edge_put(hello, len), len), &name), HELLO_OK);
    cr_assert(span_equal(name, SPAN("a.b.c")));
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *at = edge_put(hello, cut);
        cr_assert_eq(hello_server_name(span_of(at, cut), &name), HELLO_MORE, "cut at %zu", cut);
        if (cut < 5)
            continue;
        at[3] = 0;
        at[4] = (uint8_t)(cut - 5); // a shorter record: whatever it answers, it reads no further
        hello_server_name(span_of(at, cut), &name);
    }
    for (size_t at = 0; at < len; at++) {
        for (int value = 0; value < 256; value++) {
            uint8_t *bytes = edge_put(hello, len);
            bytes[at] = (uint8_t)value;
            hello_server_name(span_of(bytes, len), &name);
        }
    }
    cr_assert_eq(hello_server_name(SPAN("GET / HTTP/1.1\r\n"), &name), HELLO_BAD);
}

// A certificate with every byte changed to every other: never read past its end.
Test(tls_names, certificate_damaged, .init = begin)
{
    char *text = pem("good", "pem");
    uint8_t der[2048];
    size_t len = 0;
    uint32_t bits = 0;
    int have = 0;
    for (char *at = strchr(text, '\n'); *at && *at != '-'; at++) {
        static const char digits[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *digit = strchr(digits, *at);
        if (!digit)
            continue;
        bits = bits << 6 | (uint32_t)(digit - digits);
        have += 6;
        if (have >= 8)
            der[len++] = (uint8_t)(bits >> (have -= 8));
    }
    struct certificate certificate;
    cr_assert(certificate_open(&certificate, span_of(edge_put(der, len), len)));
    cr_assert(certificate_is_for(&certificate, "api.example.test"));
    cr_assert(certificate_is_for(&certificate, "::1"));
    cr_assert_not(certificate_is_for(&certificate, "example.test"));
    for (size_t at = 0; at < len; at++) {
        for (int value = 0; value < 256; value += 5) {
            uint8_t *bytes = edge_put(der, len);
            bytes[at] = (uint8_t)value;
            if (certificate_open(&certificate, span_of(bytes, len)))
                certificate_is_for(&certificate, "api.example.test");
        }
        if (certificate_open(&certificate, span_of(edge_put(der, at), at)))
            certificate_is_for(&certificate, "api.example.test");
    }
    heap_free(text);
}
