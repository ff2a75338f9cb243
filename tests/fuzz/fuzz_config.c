// SPDX-License-Identifier: MIT
//
// libFuzzer over the YAML reader. Proves that no file, however broken, makes config_load read out
// of bounds, leak, run on, or fail without a word; and that what it accepts can be printed and is
// accepted again. No network; the files that a key may name are kept out, the rest of the machine
// is real.
//
// Build: clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/fuzz_config.c
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config.h"

enum { INPUT_MAX = 64 * 1024 };

static char *const env[] = {"KEY=secret", "EMPTY=", NULL};
static int file = -1;
static char path[32];

static struct config *load_bytes(const uint8_t *bytes, size_t len, char *error, size_t error_len)
{
    if (file < 0) {
        file = memfd_create("config", 0);
        CHECK(file >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    }
    CHECK(ftruncate(file, 0) == 0);
    CHECK(pwrite(file, bytes, len, 0) == (ssize_t)len);
    char *const argv[] = {"tokenring", "-c", path};
    return config_load(3, argv, env, true, error, error_len);
}

// What is printed is accepted again, except that a masked token is no place where one is found.
static void check_printed(const struct config *config)
{
    char *text = NULL, error[1024];
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    CHECK(out != NULL);
    config_print(config, out);
    CHECK(fclose(out) == 0);
    if (!config->admin_token) {
        struct config *again = load_bytes((const uint8_t *)text, len, error, sizeof(error));
        CHECK(again != NULL);
        config_free(again);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char error[1024];
    if (len > INPUT_MAX || memmem(bytes, len, "file", 4) || memmem(bytes, len, "\0", 1))
        return 0;
    uint64_t live = heap_live();
    struct config *config = load_bytes(bytes, len, error, sizeof(error));
    if (config)
        check_printed(config);
    else
        CHECK(error[0] != 0);
    config_free(config);
    CHECK(heap_live() == live);
    return 0;
}
