// SPDX-License-Identifier: MIT
//
// secret: comparing what a stranger offers with what only we know.
//
// memcmp stops at the first byte that differs, so the time it takes tells how much of a guess was
// right. This one looks at every byte of the guess whatever it finds: its time depends on the
// length of the guess alone, which the stranger knows anyway, not on the secret or its length.
#ifndef PROTO_SECRET_H
#define PROTO_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Is guess[0..guess_len) the secret? Nothing equals an empty secret, not even an empty guess: a key
// that was never set opens no door.
static inline bool secret_equal(const void *secret, size_t secret_len, const void *guess,
                                size_t guess_len)
{
    static const uint8_t nothing[1];
    const uint8_t *want = secret_len ? secret : nothing;
    const uint8_t *got = guess;
    size_t last = secret_len ? secret_len - 1 : 0;
    size_t difference = (secret_len ^ guess_len) | (secret_len == 0);
    for (size_t i = 0, at = 0; i < guess_len; i++) {
        difference |= (size_t)(want[at] ^ got[i]);
        at += at < last; // stays on the last byte of a shorter secret; no branch
        // The compiler must not see that the outcome is settled and leave the loop.
        __asm__ volatile("" : "+r"(difference), "+r"(at));
    }
    return difference == 0;
}

#endif
