// SPDX-License-Identifier: MIT
//
// micro_h1: what one message head costs, on requests that real clients sent.
//
//   micro_h1 FOLDER     reads every *.http below FOLDER (one captured request each)
//
// One row per sub-folder: how many requests, their mean head size and field count, and nanoseconds
// per head for each of the three steps (find the end, parse, framing) and for all three. A step is
// timed in rounds over all heads of the row, and the fastest round counts: noise on a shared
// machine only ever adds.
#include "proto/framing.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FILES_MAX = 1024, GROUPS_MAX = 64, FILE_BYTES_MAX = 1 << 20, ROUNDS = 200, REPEATS = 20 };

struct sample {
    char *group; // the folder it lies in
    uint8_t *bytes;
    size_t len;      // of the file
    size_t head_len; // of its head
    size_t fields;
};

static struct sample samples[FILES_MAX];
static size_t sample_count;
static volatile uint64_t sink; // keeps the work from being optimised away

static _Noreturn void die(const char *what, const char *path)
{
    fprintf(stderr, "micro_h1: %s: %s\n", what, path);
    exit(1);
}

static void *room(size_t bytes)
{
    void *ptr = malloc(bytes);
    if (!ptr)
        die("out of memory", "");
    return ptr;
}

static char *group_of(const char *path, int base)
{
    const char *stop = base ? path + base - 1 : path, *start = stop;
    while (start > path && start[-1] != '/')
        start--;
    char *group = room((size_t)(stop - start) + 1);
    memcpy(group, start, (size_t)(stop - start));
    group[stop - start] = '\0';
    return group;
}

static void sample_load(const char *path, int base)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die("cannot open", path);
    struct sample *s = &samples[sample_count++];
    s->bytes = room(FILE_BYTES_MAX);
    s->len = fread(s->bytes, 1, FILE_BYTES_MAX, file);
    fclose(file);
    s->group = group_of(path, base);

    static struct h1_head head;
    struct framing framing;
    size_t from = 0;
    if (h1_head_complete(s->bytes, s->len, &from, &s->head_len) != H1_OK)
        die("no complete head", path);
    if (h1_parse_request(&head, s->bytes, s->head_len) != H1_OK)
        die("head refused", path);
    if (framing_request(&framing, &head) != FRAMING_OK)
        die("framing refused", path);
    s->fields = head.field_count;
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    size_t len = strlen(path);
    if (kind == FTW_F && len > 5 && strcmp(path + len - 5, ".http") == 0 &&
        sample_count < FILES_MAX)
        sample_load(path, at->base);
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

enum step { STEP_END = 1, STEP_PARSE = 2, STEP_FRAMING = 4, STEP_ALL = 7 };

static struct h1_head heads[FILES_MAX]; // filled by the parse step, read by the framing step

static inline void run(struct sample *s, struct h1_head *head, enum step step)
{
    size_t head_len = s->head_len, from = 0;
    struct framing framing;
    if (step & STEP_END)
        sink += h1_head_complete(s->bytes, s->len, &from, &head_len) + head_len;
    if (step & STEP_PARSE)
        sink += h1_parse_request(head, s->bytes, head_len) + head->field_count;
    if (step & STEP_FRAMING)
        sink += framing_request(&framing, head) + framing.length;
}

// Mean nanoseconds per head of samples[first..first + count), in the fastest of the rounds.
static double time_step(size_t first, size_t count, enum step step)
{
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = now_ns();
        for (int repeat = 0; repeat < REPEATS; repeat++)
            for (size_t i = first; i < first + count; i++)
                run(&samples[i], &heads[i], step);
        uint64_t took = now_ns() - start;
        if (took < best)
            best = took;
    }
    return (double)best / (double)(REPEATS * count);
}

// Report samples[first..], as many as lie in one folder; returns how many.
static size_t report(size_t first)
{
    size_t count = 0, bytes = 0, fields = 0;
    const char *group = samples[first].group;
    for (size_t i = first; i < sample_count && strcmp(samples[i].group, group) == 0; i++) {
        count++;
        bytes += samples[i].head_len;
        fields += samples[i].fields;
    }
    double parse = time_step(first, count, STEP_PARSE);
    double end = time_step(first, count, STEP_END);
    double framing = time_step(first, count, STEP_FRAMING);
    double all = time_step(first, count, STEP_ALL);
    double mean = (double)bytes / (double)count;
    printf("%-16s %5zu %8.0f %7.1f %8.1f %8.1f %8.1f %8.1f %8.2f\n", group, count, mean,
           (double)fields / (double)count, end, parse, framing, all, mean / all);
    return count;
}

static int by_group(const void *a, const void *b)
{
    return strcmp(((const struct sample *)a)->group, ((const struct sample *)b)->group);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: micro_h1 FOLDER\n");
        return 2;
    }
    if (nftw(argv[1], visit, 16, FTW_PHYS) != 0 || sample_count == 0)
        die("no *.http files below", argv[1]);
    printf("%-16s %5s %8s %7s %8s %8s %8s %8s %8s\n", "ns per head", "heads", "bytes", "fields",
           "end", "parse", "framing", "all", "GB/s");
    qsort(samples, sample_count, sizeof(samples[0]), by_group);
    for (size_t first = 0; first < sample_count;)
        first += report(first);
    return 0;
}
