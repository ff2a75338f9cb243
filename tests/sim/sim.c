// SPDX-License-Identifier: MIT
//
// The world of a seed: dice, clock, alarms, trace, census, and whose turn it is.
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "tests/sim/network.h"

enum { CORES_MAX = 16, STEPS_MAX = 4000000 };

struct alarm {
    uint64_t at_ns, order;
    sim_wake *wake;
    void *owner;
};

struct sim {
    uint64_t seed;
    bool running, trace;
    struct dice dice;
    struct sim_knobs knobs;
    uint64_t now_ns, stalled_ns, hash, steps;
    struct alarm *alarms; // a binary heap, the earliest at [0]
    size_t alarm_count, alarm_room;
    uint64_t alarm_order;
    struct core *core[CORES_MAX];
    unsigned core_count;
    sim_log_line *log_line;
    struct log_part {
        char bytes[4096]; // a line that is not whole yet
        size_t len;
    } log[CORES_MAX];
};

static struct sim sim;
static const char *replay_command = "sim --seed";
static uint64_t census_here[SIM_SITUATIONS];
static uint64_t *census = census_here;

// ------------------------------------------------------------------------------------------- dice

// splitmix64 (public domain algorithm by Sebastiano Vigna) makes the state, xoshiro256** the
// numbers.
static uint64_t split(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void dice_seed(struct dice *dice, uint64_t seed, uint64_t stream)
{
    uint64_t state = seed ^ split(&stream);
    for (int i = 0; i < 4; i++)
        dice->state[i] = split(&state);
}

uint64_t dice_next(struct dice *dice)
{
    uint64_t *s = dice->state;
    uint64_t x = s[1] * 5;
    uint64_t result = (x << 7 | x >> 57) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

uint32_t dice_below(struct dice *dice, uint32_t count)
{
    CHECK(count > 0);
    return (uint32_t)((dice_next(dice) >> 32) * count >> 32);
}

uint32_t dice_between(struct dice *dice, uint32_t low, uint32_t high)
{
    CHECK(low <= high);
    return low + dice_below(dice, high - low + 1);
}

uint32_t dice_skewed(struct dice *dice, uint32_t high)
{
    CHECK(high > 0);
    uint32_t bits = 32 - (uint32_t)__builtin_clz(high);
    uint32_t most = (uint32_t)((1ull << dice_between(dice, 1, bits)) - 1);
    return dice_between(dice, 1, most < high ? most : high);
}

bool dice_chance(struct dice *dice, uint32_t per_mille)
{
    return per_mille > 0 && dice_below(dice, 1000) < per_mille;
}

// ------------------------------------------------------------------------------------------ knobs

// Off in half of the seeds; else a chance of up to `most`.
static uint32_t draw(struct dice *dice, uint32_t most)
{
    uint32_t chance = dice_skewed(dice, most);
    return dice_chance(dice, 500) ? chance : 0;
}

void sim_knobs_draw(struct sim_knobs *knobs, uint64_t seed)
{
    struct dice dice;
    dice_seed(&dice, seed, 1);
    *knobs = (struct sim_knobs){
        .short_receive = draw(&dice, 1000),
        .short_send = draw(&dice, 1000),
        .late = draw(&dice, 500),
        .reorder = draw(&dice, 1000),
        .submit_early = draw(&dice, 200),
        .multishot_ends = draw(&dice, 500),
        .cancel_loses = draw(&dice, 1000),
        .end_with_buffer = draw(&dice, 1000),
        .accept_fails = draw(&dice, 300),
        .socket_fails = draw(&dice, 100),
        .connect_refused = draw(&dice, 200),
        .connect_silent = draw(&dice, 100),
        .reset = draw(&dice, 300),
        .spurious = draw(&dice, 20),
        .stall = draw(&dice, 50),
        .latency_us = dice_skewed(&dice, 1 << 17),
        .late_us = dice_skewed(&dice, 1 << 14),
        .stall_us = dice_skewed(&dice, 1 << 18),
        .pipe_min = dice_skewed(&dice, 1 << 12),
    };
    knobs->pipe_max = knobs->pipe_min + dice_skewed(&dice, 1 << 16);
}

// --------------------------------------------------------------------------------- laws, and
// census

static void say_how_to_replay(void)
{
    if (!sim.running)
        return;
    char text[256];
    int len =
        snprintf(text, sizeof text, "# seed %llu failed at step %llu; replay: %s %llu --trace\n",
                 (unsigned long long)sim.seed, (unsigned long long)sim.steps, replay_command,
                 (unsigned long long)sim.seed);
    ssize_t written = write(STDERR_FILENO, text, (size_t)len);
    (void)written;
}

static void aborted(int signal_number)
{
    say_how_to_replay();
    signal(SIGABRT, SIG_DFL);
}

// A sanitizer's report ends the process without SIGABRT; absent in plain builds.
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

void sim_replay_command(const char *command)
{
    replay_command = command;
    signal(SIGABRT, aborted); // for each CHECK
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_how_to_replay);
}

_Noreturn void sim_violation(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "# violation: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

void sim_count(enum sim_situation situation)
{
    census[situation]++;
}

void sim_census_at(uint64_t *counts)
{
    census = counts;
}

uint64_t sim_counted(enum sim_situation situation)
{
    return census[situation];
}

const char *sim_situation_name(enum sim_situation situation)
{
    static const char *const names[] = {
#define X(name) #name,
        SIM_CENSUS(X)
#undef X
    };
    return names[situation];
}

// ------------------------------------------------------------------------------------------ trace

static void fold(uint64_t word)
{
    sim.hash = (sim.hash ^ word) * 0x9fb21c651e98df25u;
    sim.hash ^= sim.hash >> 32;
}

void sim_note(const char *what, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t name = 0;
    for (const char *at = what; *at; at++)
        name = name * 31 + (uint8_t)*at;
    fold(name);
    fold(a);
    fold(b);
    fold(c);
    fold(sim.now_ns);
    if (sim.trace)
        fprintf(stderr, "%14.6f %-18s %llu %llu:%u %lld\n", (double)sim.now_ns / 1e9, what,
                (unsigned long long)a, (unsigned long long)b >> 32, (unsigned)b, (long long)c);
}

void sim_note_bytes(const char *what, uint64_t a, const uint8_t *bytes, size_t len)
{
    uint64_t sum = len;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u;
    sim_note(what, a, len, sum >> 16);
}

void sim_log_to(sim_log_line *line)
{
    sim.log_line = line;
}

void sim_log_bytes(int fd, const uint8_t *bytes, size_t len)
{
    CHECK(fd >= SIM_LOG_FD);
    CHECK(fd < SIM_LOG_FD + CORES_MAX);
    struct log_part *part = &sim.log[fd - SIM_LOG_FD];
    for (size_t i = 0; i < len; i++) {
        if (part->len == sizeof part->bytes)
            sim_violation("a log line longer than %zu bytes", sizeof part->bytes);
        part->bytes[part->len++] = (char)bytes[i];
        if (bytes[i] != '\n')
            continue;
        if (sim.trace)
            fprintf(stderr, "%14.6f log                %.*s", (double)sim.now_ns / 1e9,
                    (int)part->len, part->bytes);
        if (sim.log_line)
            sim.log_line(part->bytes, part->len);
        part->len = 0;
    }
}

void sim_log_rest(struct core *core)
{
    struct core_log *log = &core->log;
    CHECK(log->writing == 0);
    sim_log_bytes(log->fd, log->bytes + log->head, log->tail - log->head);
    log->head = log->tail = 0;
}

// ----------------------------------------------------------------------------------------- alarms

static bool sooner(const struct alarm *a, const struct alarm *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void swap(size_t a, size_t b)
{
    struct alarm kept = sim.alarms[a];
    sim.alarms[a] = sim.alarms[b];
    sim.alarms[b] = kept;
}

void sim_after(uint64_t delay_ns, sim_wake *wake, void *owner)
{
    if (sim.alarm_count == sim.alarm_room) {
        sim.alarm_room = sim.alarm_room ? sim.alarm_room * 2 : 64;
        sim.alarms = heap_resize(sim.alarms, sim.alarm_room * sizeof *sim.alarms);
    }
    size_t at = sim.alarm_count++;
    // Alarms of one moment go off in any order.
    sim.alarms[at] =
        (struct alarm){sim.now_ns + delay_ns,
                       dice_next(&sim.dice) << 20 | (sim.alarm_order++ & 0xfffff), wake, owner};
    for (; at > 0 && sooner(&sim.alarms[at], &sim.alarms[(at - 1) / 2]); at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
}

static void alarm_go_off(void)
{
    struct alarm alarm = sim.alarms[0];
    sim.alarms[0] = sim.alarms[--sim.alarm_count];
    for (size_t at = 0;;) {
        size_t least = at, left = 2 * at + 1;
        if (left < sim.alarm_count && sooner(&sim.alarms[left], &sim.alarms[least]))
            least = left;
        if (left + 1 < sim.alarm_count && sooner(&sim.alarms[left + 1], &sim.alarms[least]))
            least = left + 1;
        if (least == at)
            break;
        swap(at, least);
        at = least;
    }
    alarm.wake(alarm.owner);
}

// ------------------------------------------------------------------------------------------ world

void sim_begin(uint64_t seed, const struct sim_knobs *knobs, bool trace)
{
    CHECK(!sim.running);
    sim = (struct sim){.seed = seed, .running = true, .trace = trace, .hash = seed};
    dice_seed(&sim.dice, seed, 0);
    if (knobs)
        sim.knobs = *knobs;
    else
        sim_knobs_draw(&sim.knobs, seed);
    // Any phase of the timer wheel, on any edge of its levels.
    sim.now_ns = 1000000000000u + dice_next(&sim.dice) % (1ull << 45);
    if (dice_chance(&sim.dice, 300))
        sim.now_ns = ((sim.now_ns / 1000000u | 0x3ffff) - dice_below(&sim.dice, 50)) * 1000000u;
    network_begin();
}

void sim_end(void)
{
    CHECK(sim.running);
    CHECK(sim.core_count == 0);
    network_end();
    heap_free(sim.alarms);
    sim = (struct sim){.running = false};
}

struct dice *sim_dice(void)
{
    return &sim.dice;
}

const struct sim_knobs *sim_knobs(void)
{
    return &sim.knobs;
}

uint64_t sim_now_ns(void)
{
    return sim.now_ns;
}

uint64_t sim_stalled_ns(void)
{
    return sim.stalled_ns;
}

uint64_t sim_hash(void)
{
    return sim.hash;
}

uint64_t sim_steps(void)
{
    return sim.steps;
}

void sim_stall(uint64_t ns)
{
    sim.now_ns += ns;
    sim.stalled_ns += ns;
    sim_count(SIM_stalled);
    sim_note("stall", ns, 0, 0);
}

void sim_core_add(struct core *core)
{
    CHECK(sim.core_count < CORES_MAX);
    sim.core[sim.core_count++] = core;
}

void sim_core_remove(struct core *core)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < sim.core_count; i++)
        if (sim.core[i] != core)
            sim.core[kept++] = sim.core[i];
    CHECK(kept + 1 == sim.core_count);
    sim.core_count = kept;
}

// A core that stops would leave its loop; it is turned on only for what is still under way.
static uint64_t core_due_ns(const struct core *core)
{
    return core->stopping ? io_event_due_ns(core->io) : io_turn_due_ns(core->io);
}

// Nobody can run now: to the next moment when somebody can.
static bool time_jump(void)
{
    uint64_t next = sim.alarm_count ? sim.alarms[0].at_ns : UINT64_MAX;
    for (unsigned i = 0; i < sim.core_count; i++) {
        uint64_t due = core_due_ns(sim.core[i]);
        if (due < next)
            next = due;
    }
    if (next == UINT64_MAX)
        return false;
    CHECK(next > sim.now_ns);
    sim.now_ns = next;
    return true;
}

bool sim_step(void)
{
    if (++sim.steps > STEPS_MAX)
        sim_violation("no end after %llu steps", (unsigned long long)sim.steps);
    struct core *able[CORES_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < sim.core_count; i++) {
        struct core *core = sim.core[i];
        bool runnable = core_due_ns(core) <= sim.now_ns;
        if (!runnable && io_waiting(core->io) && !core->stopping &&
            dice_chance(&sim.dice, sim.knobs.spurious)) {
            sim_count(SIM_woken_for_nothing);
            runnable = true;
        }
        if (runnable)
            able[count++] = core;
    }
    bool alarm = sim.alarm_count > 0 && sim.alarms[0].at_ns <= sim.now_ns;
    if (count + alarm == 0)
        return time_jump();
    unsigned choice = dice_below(&sim.dice, count + alarm);
    if (choice < count)
        core_turn(able[choice], UINT64_MAX);
    else
        alarm_go_off();
    return true;
}
