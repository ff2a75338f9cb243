// SPDX-License-Identifier: MIT
#include "proto/tls_inside.h"

#include <stdio.h>

// Every block of wolfSSL's remembers its size, so that giving it back can be counted.
struct block {
    size_t size;
    size_t unused; // keeps what follows aligned to 16
};

static_assert(sizeof(struct block) == 16, "what malloc gives is aligned to 16");

static _Thread_local size_t *counted; // NULL: nobody's

void tls_count_start(size_t *bytes)
{
    CHECK(bytes != NULL);
    CHECK(counted == NULL);
    counted = bytes;
}

void tls_count_stop(void)
{
    CHECK(counted != NULL);
    counted = NULL;
}

static void count(size_t more, size_t less)
{
    if (!counted)
        return;
    *counted += more;
    // A block may be older than the count: a session that two connections share.
    *counted -= less < *counted ? less : *counted;
}

static void *take(size_t size)
{
    struct block *block = heap_alloc(sizeof *block + size);
    block->size = size;
    count(sizeof *block + size, 0);
    return block + 1;
}

static void give_back(void *memory)
{
    if (!memory)
        return;
    struct block *block = (struct block *)memory - 1;
    count(0, sizeof *block + block->size);
    heap_free(block);
}

static void *resize(void *memory, size_t size)
{
    if (!memory)
        return take(size);
    struct block *block = (struct block *)memory - 1;
    count(sizeof *block + size, sizeof *block + block->size);
    block = heap_resize(block, sizeof *block + size);
    block->size = size;
    return block + 1;
}

// wolfSSL looks at the CPU when an algorithm is first used, and notes what it found without a lock.
// Let that be here, before there are threads.
static void use_everything_once(void)
{
    const byte zeros[32] = {0};
    byte out[64], tag[16];
    Aes aes;
    CHECK(wc_Sha256Hash(zeros, sizeof zeros, out) == 0);
    CHECK(wc_Sha384Hash(zeros, sizeof zeros, out) == 0);
    CHECK(wc_Sha512Hash(zeros, sizeof zeros, out) == 0);
    CHECK(wc_AesInit(&aes, NULL, INVALID_DEVID) == 0);
    CHECK(wc_AesGcmSetKey(&aes, zeros, 16) == 0);
    CHECK(wc_AesGcmEncrypt(&aes, out, zeros, 32, zeros, 12, tag, 16, zeros, 5) == 0);
    wc_AesFree(&aes);
    CHECK(wc_ChaCha20Poly1305_Encrypt(zeros, zeros, zeros, 5, zeros, 32, out, tag) == 0);
}

void tls_library_start(void)
{
    CHECK(wolfSSL_SetAllocators(take, give_back, resize) == 0);
    CHECK(wolfSSL_Init() == WOLFSSL_SUCCESS);
    use_everything_once();
}

void tls_library_thread_stop(void)
{
#ifdef FP_ECC
    wc_ecc_fp_free();
#endif
}

void tls_library_stop(void)
{
    CHECK(wolfSSL_Cleanup() == WOLFSSL_SUCCESS);
}

bool tls_library_is_fast(void)
{
#if defined(USE_INTEL_SPEEDUP) || defined(WOLFSSL_ARMASM)
    return true;
#else
    return false;
#endif
}

const char *tls_library_name(void)
{
    if (tls_library_is_fast())
        return "wolfSSL " LIBWOLFSSL_VERSION_STRING ", fast (static, with assembly)";
    return "wolfSSL " LIBWOLFSSL_VERSION_STRING
           ", slow (the system's, no assembly; tools/wolfssl builds the fast one)";
}
