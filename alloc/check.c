// SPDX-License-Identifier: MIT
#include "alloc/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "tokenring: %s:%d: CHECK(%s) failed. This is a bug: please report it.\n", file,
            line, condition);
    abort();
}
