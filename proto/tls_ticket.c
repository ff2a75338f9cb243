// SPDX-License-Identifier: MIT
//
// Keys lie in a ring of four slots; generation g uses slot g % 4 for new tickets and g - 1 % 4 for
// those of before:
//
//      generation 5:   [ 4: previous ][ 5: current ][ wiped ][ wiped ]
//                          slot 0         slot 1
//
// A rotation fills the next slot, then says so by the generation, then wipes the slot that fell
// out. Readers take no lock: they copy a slot and look at the generation again. The words are
// atomic, so a copy that a rotation spoilt is garbage but never undefined, and is thrown away.
#include "proto/tls_inside.h"

enum {
    SLOTS = 4,
    NAME_BYTES = 16,
    KEY_BYTES = 32,
    NONCE_BYTES = 12,
    TAG_BYTES = 16,
    TRIES_MAX = 4
};
enum { SLOT_WORDS = TLS_TICKET_RANDOM / 8 };

static_assert(TLS_TICKET_RANDOM == NAME_BYTES + KEY_BYTES, "a name and a key");
static_assert(NAME_BYTES == WOLFSSL_TICKET_NAME_SZ, "wolfSSL's idea of a key's name");
static_assert(KEY_BYTES == CHACHA20_POLY1305_AEAD_KEYSIZE, "ChaCha20-Poly1305");
static_assert(NONCE_BYTES <= WOLFSSL_TICKET_IV_SZ, "the nonce fits");
static_assert(TAG_BYTES <= WOLFSSL_TICKET_MAC_SZ, "the tag fits");

static const uint32_t KEYS_MAGIC = MAGIC('T', 'K', 'E', 'Y');

struct tls_ticket_keys {
    uint32_t magic;
    _Atomic uint64_t generation;
    _Atomic uint64_t made_s;
    _Atomic uint64_t slots[SLOTS][SLOT_WORDS];
};

// One key, copied out.
struct ticket_key {
    uint8_t name[NAME_BYTES];
    uint8_t key[KEY_BYTES];
};

static void slot_fill(struct tls_ticket_keys *keys, uint64_t generation, const uint8_t *random)
{
    for (size_t i = 0; i < SLOT_WORDS; i++) {
        uint64_t word = 0;
        if (random)
            memcpy(&word, random + 8 * i, 8);
        atomic_store(&keys->slots[generation % SLOTS][i], word);
    }
}

static void slot_copy(const struct tls_ticket_keys *keys, uint64_t generation,
                      struct ticket_key *key)
{
    uint64_t words[SLOT_WORDS];
    for (size_t i = 0; i < SLOT_WORDS; i++)
        words[i] = atomic_load(&keys->slots[generation % SLOTS][i]);
    static_assert(sizeof *key == sizeof words, "a slot is a key");
    memcpy(key, words, sizeof words);
}

struct tls_ticket_keys *tls_ticket_keys_new(uint64_t now_s, const uint8_t random[TLS_TICKET_RANDOM])
{
    struct tls_ticket_keys *keys = heap_alloc(sizeof *keys);
    keys->magic = KEYS_MAGIC;
    slot_fill(keys, 1, random); // generation 0 is nobody's: its slot is all zero, its name too
    atomic_store(&keys->made_s, now_s);
    atomic_store(&keys->generation, 1);
    return keys;
}

void tls_ticket_keys_rotate(struct tls_ticket_keys *keys, uint64_t now_s,
                            const uint8_t random[TLS_TICKET_RANDOM])
{
    CHECK_MAGIC(keys, KEYS_MAGIC);
    uint64_t generation = atomic_load(&keys->generation);
    slot_fill(keys, generation + 1, random);
    atomic_store(&keys->made_s, now_s);
    atomic_store(&keys->generation, generation + 1);
    slot_fill(keys, generation - 1, NULL);
}

uint64_t tls_ticket_keys_made_s(const struct tls_ticket_keys *keys)
{
    CHECK_MAGIC(keys, KEYS_MAGIC);
    return atomic_load(&keys->made_s);
}

void tls_ticket_keys_free(struct tls_ticket_keys *keys)
{
    if (!keys)
        return;
    CHECK_MAGIC(keys, KEYS_MAGIC);
    for (uint64_t i = 0; i < SLOTS; i++)
        slot_fill(keys, i, NULL);
    keys->magic = 0;
    heap_free(keys);
}

// The key for new tickets. False: rotated under our hands again and again, which no clock allows.
static bool key_current(const struct tls_ticket_keys *keys, struct ticket_key *key)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t generation = atomic_load(&keys->generation);
        slot_copy(keys, generation, key);
        if (atomic_load(&keys->generation) == generation)
            return true;
    }
    return false;
}

// The key of that name. *is_current: whether new tickets use it.
static bool key_named(const struct tls_ticket_keys *keys, const uint8_t *name,
                      struct ticket_key *key, bool *is_current)
{
    static const uint8_t nobody[NAME_BYTES];
    if (memcmp(name, nobody, NAME_BYTES) == 0)
        return false;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t generation = atomic_load(&keys->generation);
        struct ticket_key previous;
        slot_copy(keys, generation, key);
        slot_copy(keys, generation - 1, &previous);
        if (atomic_load(&keys->generation) != generation)
            continue;
        *is_current = memcmp(key->name, name, NAME_BYTES) == 0;
        if (*is_current)
            return true;
        *key = previous;
        return memcmp(previous.name, name, NAME_BYTES) == 0;
    }
    return false;
}

// What the tag vouches for besides the ticket: the key's name, the nonce, and which context gave
// the ticket, so that one given where no client certificate is asked for is worthless where one is.
struct ticket_bound {
    uint8_t name[NAME_BYTES];
    uint8_t iv[WOLFSSL_TICKET_IV_SZ];
    uint8_t scope[TLS_SCOPE_BYTES];
};

static int ticket_encrypt(WOLFSSL *ssl, const struct tls_context *context, uint8_t *name,
                          uint8_t *iv, uint8_t *mac, uint8_t *ticket, int len)
{
    struct ticket_key key;
    if (!key_current(context->ticket_keys, &key))
        return WOLFSSL_TICKET_RET_FATAL;
    if (wc_RNG_GenerateBlock(wolfSSL_GetRNG(ssl), iv, WOLFSSL_TICKET_IV_SZ) != 0)
        return WOLFSSL_TICKET_RET_FATAL;
    memcpy(name, key.name, NAME_BYTES);
    memset(mac, 0, WOLFSSL_TICKET_MAC_SZ);
    struct ticket_bound bound;
    memcpy(bound.name, name, sizeof bound.name);
    memcpy(bound.iv, iv, sizeof bound.iv);
    memcpy(bound.scope, context->scope, sizeof bound.scope);
    int failed = wc_ChaCha20Poly1305_Encrypt(key.key, iv, (const byte *)&bound, sizeof bound,
                                             ticket, (word32)len, ticket, mac);
    explicit_bzero(&key, sizeof key);
    return failed ? WOLFSSL_TICKET_RET_FATAL : WOLFSSL_TICKET_RET_OK;
}

static int ticket_decrypt(const struct tls_context *context, const uint8_t *name, const uint8_t *iv,
                          const uint8_t *mac, uint8_t *ticket, int len)
{
    struct ticket_key key;
    bool is_current = false;
    if (!key_named(context->ticket_keys, name, &key, &is_current))
        return WOLFSSL_TICKET_RET_REJECT;
    struct ticket_bound bound;
    memcpy(bound.name, name, sizeof bound.name);
    memcpy(bound.iv, iv, sizeof bound.iv);
    memcpy(bound.scope, context->scope, sizeof bound.scope);
    int failed = wc_ChaCha20Poly1305_Decrypt(key.key, iv, (const byte *)&bound, sizeof bound,
                                             ticket, (word32)len, mac, ticket);
    explicit_bzero(&key, sizeof key);
    if (failed)
        return WOLFSSL_TICKET_RET_REJECT;
    return is_current ? WOLFSSL_TICKET_RET_OK : WOLFSSL_TICKET_RET_CREATE;
}

int tls_ticket_crypt(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                     unsigned char iv[WOLFSSL_TICKET_IV_SZ],
                     unsigned char mac[WOLFSSL_TICKET_MAC_SZ], int encrypt, unsigned char *ticket,
                     int len, int *out_len, void *user)
{
    const struct tls_context *context = user;
    if (len <= 0)
        return WOLFSSL_TICKET_RET_REJECT;
    *out_len = len;
    if (encrypt)
        return ticket_encrypt(ssl, context, name, iv, mac, ticket, len);
    return ticket_decrypt(context, name, iv, mac, ticket, len);
}
