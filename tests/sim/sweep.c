// SPDX-License-Identifier: MIT
#include "tests/sim/sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alloc/check.h"
#include "tests/sim/sim.h"

enum { COUNTS_MAX = 256, LEAK_STATUS = 23 };

// Shared with the child that runs the seeds.
struct board {
    uint64_t seed; // under way
    uint64_t passed, replayed, replays_differ;
    bool finished; // every seed was run; the child is about to exit
    uint64_t situations[SIM_SITUATIONS];
    uint64_t counts[COUNTS_MAX];
};

struct options {
    uint64_t from, seeds;
    bool one, trace;
};

static struct board *board;
static char command[512];

static void usage(const struct sweep *sweep)
{
    printf("%s: %s\n\n"
           "usage: %s [--seeds N] [--from SEED] [--seed SEED] [--trace]\n\n"
           "  --seeds N    run N seeds (default 500)\n"
           "  --from SEED  the first of them (default 1)\n"
           "  --seed SEED  run this seed only, in this process\n"
           "  --trace      print every event to stderr\n"
           "  --help       print this\n\n"
           "Prints TAP. Exit status: 0 passed, 1 failed, 2 wrong usage.\n",
           sweep->name, sweep->proves, sweep->name);
}

static bool number(const char *text, uint64_t *value)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    return *end == '\0';
}

// 0: go on; else leave with that status - 1.
static int options_read(struct options *options, int argc, char **argv, const struct sweep *sweep)
{
    *options = (struct options){.from = 1, .seeds = 500};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--help") == 0) {
            usage(sweep);
            return 1;
        }
        if (strcmp(argv[i], "--trace") == 0) {
            options->trace = true;
            continue;
        }
        uint64_t *to = strcmp(argv[i], "--seeds") == 0 ? &options->seeds
                       : strcmp(argv[i], "--from") == 0 || strcmp(argv[i], "--seed") == 0
                           ? &options->from
                           : NULL;
        if (!to || !number(value, to)) {
            fprintf(stderr, "%s: %s: see --help\n", sweep->name, argv[i]);
            return 3;
        }
        if (strcmp(argv[i], "--seed") == 0) {
            options->one = true;
            options->seeds = 1;
        }
        i++;
    }
    return 0;
}

static void run_one(const struct sweep *sweep, uint64_t seed, bool trace, bool again)
{
    board->seed = seed;
    uint64_t hash = sweep->run(seed, trace);
    if (again) {
        board->replayed++;
        if (sweep->run(seed, false) != hash) {
            board->replays_differ++;
            printf("# seed %llu: two runs differ; %s %llu --trace\n", (unsigned long long)seed,
                   command, (unsigned long long)seed);
        }
    }
    board->passed++;
}

static void child(const struct sweep *sweep, uint64_t from, uint64_t to, bool trace)
{
    for (uint64_t seed = from; seed < to; seed++)
        run_one(sweep, seed, trace, seed % SWEEP_REPLAY_EVERY == 0);
    board->finished = true;
    exit(0); // not _exit: a leak checker has its say
}

// Runs all seeds; returns how many failed.
static uint64_t run_all(const struct sweep *sweep, const struct options *options)
{
    uint64_t failed = 0;
    uint64_t end = options->from + options->seeds;
    for (uint64_t from = options->from; from < end && failed < SWEEP_FAILURES_MAX;) {
        fflush(stdout);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child(sweep, from, end, options->trace);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            break;
        failed++;
        if (board->finished) {
            printf("# the sweep ended with status %d: memory leaked\n", WEXITSTATUS(status));
            break;
        }
        printf("# seed %llu failed; replay: %s %llu\n", (unsigned long long)board->seed, command,
               (unsigned long long)board->seed);
        from = board->seed + 1;
    }
    return failed;
}

// ----------------------------------------------------------------------------------------- census

static bool cannot_meet(const struct sweep *sweep, const char *name)
{
    for (const char *const *never = sweep->never; never && *never; never++)
        if (strcmp(*never, name) == 0)
            return true;
    return false;
}

static unsigned census_line(const char *name, uint64_t count, bool excused)
{
    bool missed = count == 0 && !excused;
    printf("# %-32s %llu%s\n", name, (unsigned long long)count, missed ? "   <- never met" : "");
    return missed;
}

static unsigned census_print(const struct sweep *sweep)
{
    unsigned missed = 0;
    for (unsigned i = 0; i < SIM_SITUATIONS; i++) {
        const char *name = sim_situation_name((enum sim_situation)i);
        missed += census_line(name, board->situations[i], cannot_meet(sweep, name));
    }
    for (unsigned i = 0; i < sweep->situation_count; i++)
        missed += census_line(sweep->situation_names[i], board->counts[i], false);
    return missed;
}

static bool census_judge(const struct sweep *sweep, const struct options *options)
{
    unsigned missed = census_print(sweep);
    if (options->seeds < SWEEP_CENSUS_SEEDS) {
        printf("ok 3 - census # SKIP needs --seeds %d or more\n", SWEEP_CENSUS_SEEDS);
        return true;
    }
    printf("%s 3 - census: every situation was met\n", missed ? "not ok" : "ok");
    return missed == 0;
}

// ------------------------------------------------------------------------------------------- main

static int sweep_seeds(const struct sweep *sweep, const struct options *options)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    printf("1..3\n");
    uint64_t failed = run_all(sweep, options);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%s 1 - %s, seeds %llu to %llu\n", failed ? "not ok" : "ok", sweep->proves,
           (unsigned long long)options->from,
           (unsigned long long)(options->from + options->seeds - 1));
    printf("%s 2 - same seed, same trace (%llu seeds run twice)\n",
           board->replays_differ ? "not ok" : "ok", (unsigned long long)board->replayed);
    bool met = census_judge(sweep, options);
    printf("# %llu seeds passed, %llu failed, %.1f s\n", (unsigned long long)board->passed,
           (unsigned long long)failed, seconds);
    return failed || board->replays_differ || !met;
}

int sweep_main(int argc, char **argv, const struct sweep *sweep)
{
    struct options options;
    int leave = options_read(&options, argc, argv, sweep);
    if (leave)
        return leave - 1;
    CHECK(sweep->situation_count <= COUNTS_MAX);
    snprintf(command, sizeof command, "%s --seed", argv[0]);
    sim_replay_command(command);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(board != MAP_FAILED);
    sim_census_at(board->situations);
    if (sweep->counts)
        *sweep->counts = board->counts;
    if (!options.one)
        return sweep_seeds(sweep, &options);
    printf("1..1\n");
    fflush(stdout);
    run_one(sweep, options.from, options.trace, !options.trace);
    printf("%s 1 - %s, seed %llu\n", board->replays_differ ? "not ok" : "ok", sweep->proves,
           (unsigned long long)options.from);
    return board->replays_differ != 0;
}
