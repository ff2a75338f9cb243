// SPDX-License-Identifier: MIT
//
// micro_tls: what TLS costs a CPU, through the four ports, and next to OpenSSL in the same run.
//
//   micro_tls FOLDER      the folder is made by tests/tls/certificates
//
//   cc -O2 -D_GNU_SOURCE -I. perf/micro_tls.c perf/micro_ours.c perf/micro_openssl.c proto/tls_*.c
//      alloc/heap.c alloc/check.c -lwolfssl -lssl -lcrypto -ljemalloc
//
// Without -DMICRO_OPENSSL (libssl-dev is not a must) ours stands alone. Subjects take turns in
// short slices and the ratio is taken slice by slice, so that what the neighbours on this machine
// do cancels; shown are the medians. Costs are CPU time of this thread, never the wall clock.
#include "perf/micro_tls.h"
#include "proto/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SLICES = 15, HANDSHAKES = 40, BULK_BYTES = 24 << 20, EVENTS = 20000 };

uint64_t micro_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static const struct micro_subject *subjects[2] = {&micro_ours};
static int subject_count = 1;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, SLICES, sizeof *values, by_value);
    return values[SLICES / 2];
}

// What one row measures: units of work done in a slice, and its cost.
struct row {
    const char *title, *unit;
    int kind; // 0 full handshake, 1 resumed, 2 transfer
    enum micro_cipher cipher;
    size_t size;
    double divisor; // units per second are divided by this when shown
};

static struct micro_cost slice(const struct micro_subject *subject, const struct row *row)
{
    struct micro_cost sum = {{0}};
    if (row->kind == 2) {
        size_t count = row->size < 1024 ? EVENTS : BULK_BYTES / row->size;
        return subject->transfer(row->cipher, row->size, count);
    }
    for (int i = 0; i < HANDSHAKES; i++) {
        struct micro_cost one = subject->handshake(row->kind);
        sum.side[0] += one.side[0];
        sum.side[1] += one.side[1];
    }
    return sum;
}

static double units(const struct row *row)
{
    if (row->kind != 2)
        return HANDSHAKES;
    return row->size < 1024 ? EVENTS : BULK_BYTES;
}

static void measure(const struct row *row)
{
    double rate[2][2][SLICES], ratio[2][SLICES];
    for (int i = 0; i < SLICES; i++) {
        for (int s = 0; s < subject_count; s++) {
            struct micro_cost cost = slice(subjects[s], row);
            for (int side = 0; side < 2; side++)
                rate[s][side][i] = units(row) / ((double)cost.side[side] / 1e9) / row->divisor;
        }
        for (int side = 0; side < 2 && subject_count == 2; side++)
            ratio[side][i] = rate[0][side][i] / rate[1][side][i];
    }
    static const char *const sides[2][2] = {{"client", "server"}, {"encrypt", "decrypt"}};
    for (int side = 0; side < 2; side++) {
        printf("%-28s %-8s %10.2f", row->title, sides[row->kind == 2][side], median(rate[0][side]));
        if (subject_count == 2)
            printf(" %10.2f %8.2f", median(rate[1][side]), median(ratio[side]));
        printf("   %s\n", row->unit);
    }
}

int main(int argc, char **argv)
{
    static const struct row rows[] = {
        {"handshake, full EC", "a CPU second", 0, MICRO_AES_128_GCM, 0, 1},
        {"handshake, resumed", "a CPU second", 1, MICRO_AES_128_GCM, 0, 1},
        {"AES-128-GCM, 16 KiB", "GB a CPU second", 2, MICRO_AES_128_GCM, 16384, 1e9},
        {"AES-128-GCM, 4 KiB", "GB a CPU second", 2, MICRO_AES_128_GCM, 4096, 1e9},
        {"ChaCha20-Poly1305, 16 KiB", "GB a CPU second", 2, MICRO_CHACHA20, 16384, 1e9},
        {"AES-128-GCM, 200 bytes", "million a CPU second", 2, MICRO_AES_128_GCM, 200, 1e6},
    };
    if (argc != 2) {
        fprintf(stderr, "usage: micro_tls FOLDER    (made by tests/tls/certificates)\n");
        return 2;
    }
#ifdef MICRO_OPENSSL
    subjects[subject_count++] = &micro_openssl;
#endif
    printf("%s\n", tls_library_name());
    printf("%-28s %-8s %10s", "", "", subjects[0]->name);
    if (subject_count == 2)
        printf(" %10s %8s", subjects[1]->name, "ratio");
    printf("\n");
    for (int s = 0; s < subject_count; s++) {
        subjects[s]->open(argv[1]);
        slice(subjects[s], &rows[0]); // fills caches
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        measure(&rows[i]);
    printf("%-28s %-8s", "idle session", "server");
    for (int s = 0; s < subject_count; s++)
        printf(" %10.2f", (double)subjects[s]->idle_bytes() / 1024);
    printf("%s   KiB of heap\n", subject_count == 2 ? "         " : "");
    return 0;
}
