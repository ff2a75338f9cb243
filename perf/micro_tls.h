// SPDX-License-Identifier: MIT
//
// micro_tls.h: one TLS library as micro_tls sees it, so that two can be measured alike.
//
// A subject joins a client and a server in memory. Every function returns CPU nanoseconds of this
// thread; where both sides work, side[0] is the client's share and side[1] the server's.
#ifndef PERF_MICRO_TLS_H
#define PERF_MICRO_TLS_H

#include <stddef.h>
#include <stdint.h>

enum micro_cipher { MICRO_AES_128_GCM, MICRO_CHACHA20 };

struct micro_cost {
    uint64_t side[2];
};

struct micro_subject {
    const char *name;
    // Load certificates (good.pem, good.key, authority.pem) from this folder.
    void (*open)(const char *folder);
    // One handshake, TLS 1.3, X25519, ECDSA P-256: the full one, or one by ticket.
    struct micro_cost (*handshake)(int resumed);
    // `count` messages of `size` bytes from client to server: encrypting, and decrypting.
    struct micro_cost (*transfer)(enum micro_cipher cipher, size_t size, size_t count);
    // Heap bytes of one idle session of the server, after an exchange.
    size_t (*idle_bytes)(void);
};

extern const struct micro_subject micro_ours, micro_openssl;

uint64_t micro_cpu_ns(void);

#endif
