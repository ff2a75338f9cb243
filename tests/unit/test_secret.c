// SPDX-License-Identifier: MIT
//
// Proves that secret_equal accepts the secret and nothing else: no prefix, no longer guess, no
// guess with one bit wrong anywhere, nothing at all for an empty secret; and that it reads not one
// byte beyond either. That its time tells nothing is not for a unit test: see the loop.
#include <criterion/criterion.h>
#include <string.h>

#include "proto/secret.h"
#include "tests/unit/edge.h"

static const char secret[] = "sk-0123456789abcdef";
enum { SECRET_LEN = sizeof secret - 1 };

// Both sides end at an unreadable page, one after the other.
static bool equal(const void *a, size_t a_len, const void *b, size_t b_len)
{
    bool one = secret_equal(edge_put(a, a_len), a_len, b, b_len);
    bool other = secret_equal(a, a_len, edge_put(b, b_len), b_len);
    cr_assert_eq(one, other);
    return one;
}

Test(secret, the_secret_is_accepted)
{
    cr_assert(equal(secret, SECRET_LEN, secret, SECRET_LEN));
    cr_assert(equal("x", 1, "x", 1));
    cr_assert(equal("a\0b", 3, "a\0b", 3), "bytes, not strings");
}

Test(secret, no_guess_of_another_length_is)
{
    char longer[2 * SECRET_LEN + 1];
    memcpy(longer, secret, SECRET_LEN);
    memcpy(longer + SECRET_LEN, secret, SECRET_LEN);
    for (size_t len = 0; len <= 2 * SECRET_LEN; len++)
        if (len != SECRET_LEN)
            cr_assert_not(equal(secret, SECRET_LEN, longer, len), "length %zu", len);
    cr_assert_not(equal("aa", 2, "aaa", 3), "the last byte again");
    cr_assert_not(equal("a\0b", 3, "a\0c", 3), "behind a NUL");
}

Test(secret, no_guess_with_one_bit_wrong_is)
{
    char guess[SECRET_LEN];
    for (size_t bit = 0; bit < SECRET_LEN * 8; bit++) {
        memcpy(guess, secret, SECRET_LEN);
        guess[bit / 8] ^= (char)(1 << bit % 8);
        cr_assert_not(equal(secret, SECRET_LEN, guess, SECRET_LEN), "bit %zu", bit);
    }
}

Test(secret, an_empty_secret_equals_nothing)
{
    cr_assert_not(equal("", 0, "", 0));
    cr_assert_not(equal("", 0, "\0", 1));
    cr_assert_not(secret_equal(NULL, 0, NULL, 0));
}
