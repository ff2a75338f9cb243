// SPDX-License-Identifier: MIT
//
// perf-load: load generator and upstream of the bench, in one thread on one core.
//
//   perf-load [--listen PORT] [--cpu N] [--small-heads] [--spin] [--window-file FILE]
//
// With --listen it is the upstream at 127.0.0.1:PORT. Commands come on stdin, one a line, options
// as key=value; answers go to stdout as JSON, one object a line, the last of a command carrying
// "end".
//
//   subject NAME PORT PID[,PID...]
//     A program under test; its CPU is read from these processes.
//   whole rounds=N slice_ms=N connections=N [spin=0]
//     Slices of a closed loop, subject after subject.
//   sse rounds=N connections=N chunks=N bytes=N window=N [spin=0]
//     A slice is one stream on each connection.
//   latency blocks=N requests=N turn=N
//     One connection; each subject gets `turn` requests, then the next, until it had `requests`.
//     A subject may be the upstream itself.
//   hold subject=NAME connections=N chunks=N
//     Open connections that did one request (chunks=0) or hold a stream that went silent after its
//     first event.
//   paced subject=NAME connections=N chunks=N bytes=N gap_ms=N
//     Streams that are all open at the same time.
//   loop subject=NAME seconds=N connections=N chunks=N bytes=N window=N [spin=0]
//     Steady load, for profilers.
//   close
//     All client connections.
//   forget
//     All subjects.
//
// A slice begins and ends with the subject at rest, so that its CPU clock stands still when it is
// read. Inside a slice this process spins: waking it is not part of the subject's bill. With spin=0
// it sleeps when it has nothing to do: for a client that shares its core with the subject. The
// upstream is another process then (--spin: one that never sleeps), and the two share a window
// file.
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "perf/load_client.h"
#include "perf/load_upstream.h"
#include "perf/load_window.h"

enum {
    COMMAND_MAX = 512,
    STALL_MS = 5000,    // no answer for so long: the slice is given up
    SETTLE_NS = 300000, // after the last answer the subject still has to see its sends complete
    OPENING_MAX = 64,   // requests at a time while connections are opened
    WARM_ROUNDS = 2,    // not reported
};

static struct subject subjects[SUBJECTS_MAX];
static uint32_t subject_count;
static uint16_t upstream_port;
static uint64_t slice_end_ns;  // whole: no new request after this
static struct order the_order; // what every client of the running command asks for

// --- commands and answers ----------------------------------------------------------------------

static const char *option_text(const char *command, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = command; (at = strchr(at, ' ')); at++)
        if (!strncmp(at + 1, name, len) && at[1 + len] == '=')
            return at + 2 + len;
    return NULL;
}

static uint32_t option(const char *command, const char *name, uint32_t otherwise)
{
    const char *text = option_text(command, name);
    return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static struct subject *subject_option(const char *command)
{
    const char *text = option_text(command, "subject");
    size_t len = text ? strcspn(text, " \n") : 0;
    for (uint32_t i = 0; text && i < subject_count; i++)
        if (strlen(subjects[i].name) == len && !memcmp(subjects[i].name, text, len))
            return &subjects[i];
    printf("{\"error\":\"no such subject\",\"end\":true}\n");
    return NULL;
}

static void answer_end(const char *command)
{
    printf("{\"end\":\"%.*s\",\"upstream_faults\":%llu}\n", (int)strcspn(command, " \n"), command,
           (unsigned long long)upstream_faults());
}

static void pause_ns(long ns)
{
    struct timespec time = {0, ns};
    nanosleep(&time, NULL);
}

static uint64_t own_cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t random_next(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15; // same order in every run
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Subjects in another order each round, so that none always follows the same neighbour.
static void shuffle(uint32_t *order)
{
    for (uint32_t i = 0; i < subject_count; i++)
        order[i] = i;
    for (uint32_t i = subject_count; i > 1; i--) {
        uint32_t other = (uint32_t)(random_next() % i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

// --- driving -----------------------------------------------------------------------------------

// Turns the loop until `subject` has at most `busy` exchanges running. False: it stalled.
static bool drive(struct subject *subject, uint32_t busy, bool spin)
{
    uint64_t moved_ns = now_ns(), receives = subject->receives;
    while (subject->busy > busy) {
        int due = upstream_pump();
        loop_turn(spin || !due ? 0 : due > 0 && due < 100 ? due : 100);
        if (subject->receives != receives) {
            receives = subject->receives;
            moved_ns = now_ns();
        } else if (now_ns() - moved_ns > (uint64_t)STALL_MS * 1000000) {
            if (!subject->errors++)
                snprintf(subject->fault, sizeof subject->fault, "stalled with %u exchanges open",
                         subject->busy);
            subject_close(subject);
            return false;
        }
    }
    return true;
}

// Accepts, reads and writes that are still under way on the upstream side.
static void drain_turns(void)
{
    for (int i = 0; i < 4; i++) {
        upstream_pump();
        loop_turn(1);
    }
}

static void slice_report(const char *phase, uint32_t round, const struct subject *subject,
                         uint64_t wall_ns, uint64_t cpu_ns, uint64_t load_ns)
{
    printf(
        "{\"phase\":\"%s\",\"round\":%u,\"subject\":\"%s\",\"requests\":%llu,\"chunks\":%llu,"
        "\"receives\":%llu,\"wall_ns\":%llu,\"cpu_ns\":%llu,\"load_cpu_ns\":%llu,\"errors\":%llu,"
        "\"fault\":\"%s\"}\n",
        phase, round, subject->name, (unsigned long long)subject->requests,
        (unsigned long long)subject->chunks, (unsigned long long)subject->receives,
        (unsigned long long)wall_ns, (unsigned long long)cpu_ns, (unsigned long long)load_ns,
        (unsigned long long)subject->errors, subject->fault);
}

// Every connection sends, then `done` decides who sends again, then the subject comes to rest.
static void slice(const char *phase, uint32_t round, struct subject *subject, uint32_t connections,
                  bool spin, uint64_t length_ns)
{
    subject_reset(subject);
    subject_connect(subject, connections);
    drain_turns();
    pause_ns(SETTLE_NS);
    uint64_t load_ns = own_cpu_ns(), cpu_ns = subject_cpu_ns(subject), wall_ns = now_ns();
    slice_end_ns = wall_ns + length_ns;
    for (uint32_t i = 0; i < subject->client_count; i++)
        if (subject->client[i]->source.fd >= 0)
            client_send(subject->client[i], the_order);
    drive(subject, 0, spin);
    wall_ns = now_ns() - wall_ns;
    load_ns = own_cpu_ns() - load_ns;
    pause_ns(SETTLE_NS);
    cpu_ns = subject_cpu_ns(subject) - cpu_ns;
    if (round >= WARM_ROUNDS)
        slice_report(phase, round - WARM_ROUNDS, subject, wall_ns, cpu_ns, load_ns);
}

static void rounds(const char *phase, const char *command, uint64_t length_ns)
{
    uint32_t order[SUBJECTS_MAX];
    uint32_t count = option(command, "rounds", 20) + WARM_ROUNDS;
    uint32_t connections = option(command, "connections", 64);
    bool spin = option(command, "spin", 1);
    for (uint32_t round = 0; round < count; round++) {
        shuffle(order);
        for (uint32_t i = 0; i < subject_count; i++)
            slice(phase, round, &subjects[order[i]], connections, spin, length_ns);
        fflush(stdout);
    }
    answer_end(command);
}

static void set_done(void (*done)(struct client *client))
{
    for (uint32_t i = 0; i < subject_count; i++)
        subjects[i].done = done;
}

static void again_until_slice_end(struct client *client)
{
    if (now_ns() < slice_end_ns)
        client_send(client, the_order);
}

static struct order order_option(const char *command)
{
    return (struct order){.chunks = option(command, "chunks", 0),
                          .chunk_bytes = option(command, "bytes", 200),
                          .gap_ms = option(command, "gap_ms", 0),
                          .window = option(command, "window", 0)};
}

static void run_whole(const char *command)
{
    the_order = (struct order){0};
    set_done(again_until_slice_end);
    rounds("whole", command, (uint64_t)option(command, "slice_ms", 100) * 1000000);
}

static void run_sse(const char *command)
{
    the_order = order_option(command);
    set_done(NULL);
    rounds("sse", command, 0);
}

// --- latency -----------------------------------------------------------------------------------

static int compare_u64(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void latency_report(const char *what, uint32_t block, const struct subject *subject,
                           uint64_t *took_ns, uint32_t count)
{
    qsort(took_ns, count, sizeof *took_ns, compare_u64);
    printf("{\"phase\":\"%s\",\"round\":%u,\"subject\":\"%s\",\"requests\":%u,\"p50_ns\":%llu,"
           "\"p99_ns\":%llu,\"min_ns\":%llu,\"errors\":%llu,\"fault\":\"%s\"}\n",
           what, block, subject->name, count, (unsigned long long)took_ns[count / 2],
           (unsigned long long)took_ns[count - 1 - count / 100], (unsigned long long)took_ns[0],
           (unsigned long long)subject->errors, subject->fault);
}

static uint64_t one_request(struct subject *subject)
{
    subject_connect(subject, 1);
    if (!subject->client_count)
        return 0;
    struct client *client = subject->client[0];
    client_send(client, the_order);
    return drive(subject, 0, true) && !subject->errors ? client->took_ns : 0;
}

// One request at a time, `turn` of them to each subject in a row; took[subject][i] of this block.
static void latency_block(uint64_t *took[], uint32_t requests, uint32_t turn)
{
    uint32_t order[SUBJECTS_MAX];
    for (uint32_t at = 0; at < requests; at += turn) {
        shuffle(order);
        for (uint32_t k = 0; k < subject_count; k++)
            for (uint32_t i = at; i < at + turn && i < requests; i++)
                took[order[k]][i] = one_request(&subjects[order[k]]);
    }
}

static void run_latency(const char *command)
{
    uint32_t blocks = option(command, "blocks", 20), requests = option(command, "requests", 100);
    uint32_t turn = option(command, "turn", 1);
    uint64_t *took[SUBJECTS_MAX], *all[SUBJECTS_MAX];
    the_order = (struct order){0};
    set_done(NULL);
    for (uint32_t k = 0; k < subject_count; k++) {
        subject_close(&subjects[k]);
        subject_reset(&subjects[k]);
        took[k] = calloc(requests, sizeof *took[k]);
        all[k] = calloc((size_t)requests * blocks, sizeof *all[k]);
        if (!took[k] || !all[k])
            die("memory");
    }
    latency_block(took, requests, turn); // warm
    for (uint32_t block = 0; block < blocks; block++) {
        latency_block(took, requests, turn);
        for (uint32_t k = 0; k < subject_count; k++) {
            memcpy(all[k] + (size_t)block * requests, took[k], requests * sizeof **took);
            latency_report("latency", block, &subjects[k], took[k], requests);
        }
        fflush(stdout);
    }
    for (uint32_t k = 0; k < subject_count; k++) {
        latency_report("latency_all", 0, &subjects[k], all[k], requests * blocks);
        free(took[k]);
        free(all[k]);
    }
    answer_end(command);
}

// --- many connections --------------------------------------------------------------------------

// Streams that wait for their head are bounded; streams that have it are not.
static void drive_opening(struct subject *subject)
{
    uint64_t began_ns = now_ns();
    while (subject->busy - subject->open > OPENING_MAX) {
        int due = upstream_pump();
        loop_turn(due ? 1 : 0);
        if (now_ns() - began_ns > (uint64_t)STALL_MS * 1000000) {
            subject->errors++;
            return;
        }
    }
}

// Opens connections one by one; each sends the order.
static void open_many(struct subject *subject, uint32_t connections)
{
    subject_reset(subject);
    for (uint32_t count = 1; count <= connections && !subject->errors; count++) {
        subject_connect(subject, count);
        if (subject->client_count == count)
            client_send(subject->client[count - 1], the_order);
        drive_opening(subject);
    }
}

static void many_report(const char *phase, const struct subject *subject, uint32_t peak,
                        uint64_t cpu_ns)
{
    printf("{\"phase\":\"%s\",\"subject\":\"%s\",\"connections\":%u,\"busy\":%u,\"open\":%u,"
           "\"peak_open\":%u,\"requests\":%llu,\"chunks\":%llu,\"cpu_ns\":%llu,\"errors\":%llu,"
           "\"fault\":\"%s\"}\n",
           phase, subject->name, subject->client_count, subject->busy, subject->open, peak,
           (unsigned long long)subject->requests, (unsigned long long)subject->chunks,
           (unsigned long long)cpu_ns, (unsigned long long)subject->errors, subject->fault);
    fflush(stdout);
}

static void run_hold(const char *command)
{
    struct subject *subject = subject_option(command);
    if (!subject)
        return;
    uint32_t connections = option(command, "connections", 1000);
    the_order = order_option(command);
    the_order.hold = the_order.chunks ? 1 : 0;
    set_done(NULL);
    open_many(subject, connections);
    if (!the_order.chunks)
        drive(subject, 0, false);
    else // head and first event of the last ones
        for (int i = 0; i < 1000 && subject->chunks < connections && !subject->errors; i++) {
            upstream_pump();
            loop_turn(1);
        }
    drain_turns();
    many_report("hold", subject, subject->open, 0);
    answer_end(command);
}

static void run_paced(const char *command)
{
    struct subject *subject = subject_option(command);
    if (!subject)
        return;
    uint32_t connections = option(command, "connections", 1000), peak = 0;
    the_order = order_option(command);
    set_done(NULL);
    subject_close(subject);
    uint64_t cpu_ns = subject_cpu_ns(subject), tick_ns = now_ns();
    open_many(subject, connections);
    peak = subject->open;
    uint64_t stall_ns = now_ns(), receives = 0;
    while (subject->busy) {
        int due = upstream_pump();
        loop_turn(due >= 0 && due < 100 ? due : 100);
        peak = subject->open > peak ? subject->open : peak;
        if (receives != subject->receives)
            stall_ns = now_ns(), receives = subject->receives;
        if (now_ns() - stall_ns > ((uint64_t)STALL_MS + the_order.gap_ms) * 1000000) {
            subject->errors += subject->busy;
            break;
        }
        if (now_ns() - tick_ns > 1000000000) {
            tick_ns = now_ns();
            many_report("paced_tick", subject, peak, 0);
        }
    }
    many_report("paced", subject, peak, subject_cpu_ns(subject) - cpu_ns);
    answer_end(command);
}

static void run_loop(const char *command)
{
    struct subject *subject = subject_option(command);
    if (!subject)
        return;
    the_order = order_option(command);
    set_done(again_until_slice_end);
    slice("loop", WARM_ROUNDS, subject, option(command, "connections", 64),
          option(command, "spin", 1), (uint64_t)option(command, "seconds", 5) * 1000000000);
    answer_end(command);
}

// --- start -------------------------------------------------------------------------------------

static void add_subject(const char *command)
{
    struct subject *subject = &subjects[subject_count];
    char pids[256];
    unsigned port;
    if (subject_count == SUBJECTS_MAX ||
        sscanf(command, "subject %31s %u %255s", subject->name, &port, pids) != 3) {
        printf("{\"error\":\"subject NAME PORT PIDS\",\"end\":true}\n");
        return;
    }
    subject->port = (uint16_t)port;
    char *rest = pids;
    for (char *pid; (pid = strsep(&rest, ",")) && subject->pid_count < PIDS_MAX;)
        subject->pid[subject->pid_count++] = (int)strtol(pid, NULL, 10);
    subject_count++;
    answer_end(command);
}

static void close_all(const char *command)
{
    for (uint32_t i = 0; i < subject_count; i++)
        subject_close(&subjects[i]);
    drain_turns();
    answer_end(command);
}

static void forget(const char *command)
{
    for (uint32_t i = 0; i < subject_count; i++) {
        subject_close(&subjects[i]);
        free(subjects[i].client);
    }
    memset(subjects, 0, sizeof subjects);
    subject_count = 0;
    answer_end(command);
}

static void run_command(const char *command)
{
    static const struct {
        const char *name;
        void (*run)(const char *command);
    } verbs[] = {{"subject", add_subject}, {"whole", run_whole}, {"sse", run_sse},
                 {"latency", run_latency}, {"hold", run_hold},   {"paced", run_paced},
                 {"loop", run_loop},       {"close", close_all}, {"forget", forget}};
    size_t len = strcspn(command, " \n");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strlen(verbs[i].name) == len && !memcmp(verbs[i].name, command, len)) {
            verbs[i].run(command);
            fflush(stdout);
            return;
        }
    }
    printf("{\"error\":\"unknown command\",\"end\":true}\n");
    fflush(stdout);
}

// stdin is one more source: the upstream keeps serving between commands. One command at a time: who
// drives us waits for "end" before the next.
static char line[COMMAND_MAX];
static size_t line_len;
static bool line_complete;

static void stdin_ready(struct source *source, uint32_t events)
{
    char c;
    if (line_complete)
        die("a command before the last one ended");
    if (read(source->fd, &c, 1) != 1)
        exit(0);
    if (c == '\n')
        line_complete = true;
    else if (line_len + 1 < sizeof line)
        line[line_len++] = c;
}

static void serve(bool spin)
{
    for (;;) {
        int due = upstream_pump();
        loop_turn(spin ? 0 : due);
        if (!line_complete)
            continue;
        char command[COMMAND_MAX];
        memcpy(command, line, sizeof command);
        command[line_len] = 0;
        line_complete = false;
        line_len = 0;
        run_command(command);
    }
}

static void pin(const char *text)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(strtoul(text, NULL, 10), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("--cpu");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"listen", 1, NULL, 'l'},      {"cpu", 1, NULL, 'c'},
                                            {"small-heads", 0, NULL, 's'}, {"spin", 0, NULL, 'S'},
                                            {"window-file", 1, NULL, 'w'}, {NULL, 0, NULL, 0}};
    bool small_heads = false, spin = false;
    const char *window_file = NULL;
    for (int flag; (flag = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (flag) {
        case 'l': upstream_port = (uint16_t)strtoul(optarg, NULL, 10); break;
        case 'c': pin(optarg); break;
        case 's': small_heads = true; break;
        case 'S': spin = true; break;
        case 'w': window_file = optarg; break;
        default:
            fprintf(stderr, "usage: perf-load [--listen PORT] [--cpu N] [--small-heads] [--spin] "
                            "[--window-file FILE]\n");
            return 2;
        }
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    wire_init(small_heads);
    window_init(window_file);
    loop_init();
    if (upstream_port)
        upstream_listen(upstream_port);
    struct source input = {stdin_ready, STDIN_FILENO};
    loop_add(&input);
    serve(spin);
}
