// SPDX-License-Identifier: MIT
//
// check: programmer errors stop the process at once, in release builds too.
//
// CHECK(condition) prints file, line and the condition to stderr and aborts. One condition each, so
// that the message says which. Expected failures (a peer that lies, a full table) are values, never
// checks.
//
// Long-lived objects carry a magic word: set when the object is made, checked where it is entered,
// cleared when it is given back, so that a stale pointer stops at the door.
#ifndef ALLOC_CHECK_H
#define ALLOC_CHECK_H

#include <assert.h>
#include <stdint.h>

_Noreturn void check_failed(const char *file, int line, const char *condition);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            check_failed(__FILE__, __LINE__, #condition);                                          \
    } while (0)

#define MAGIC(a, b, c, d)         ((uint32_t)((a) << 24 | (b) << 16 | (c) << 8 | (d)))
#define CHECK_MAGIC(object, word) CHECK((object)->magic == (word))

#endif
