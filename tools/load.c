// SPDX-License-Identifier: MIT
//
// tokenring-load: closed- and open-loop load for whole and streamed requests. See load.h for the
// parts.
#include "tools/load.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "proto/h1.h"
#include "tools/cputime.h"

enum {
    POST_STOP = 1,
    RECEIVE_BYTES = 16 * 1024,
    RECEIVE_BUFFERS = 2048,
    LARGE_BYTES = 96 * 1024,
    LARGE_BUFFERS = 64,
    RING_ENTRIES = 4096,
    FDS_SPARE = 64,
    SEGMENTS_PER_CALL = 4,
    CONNECTIONS_MAX = 1000 * 1000,
    CONNECTIONS_OPEN_LOOP = 1000, // default of -c with --rate
};

struct load {
    struct load_settings *settings;
    struct load_thread *threads;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t ready, over; // threads
    bool go, measured;
    char error[512]; // of the first thread that could not start
};

struct start {
    struct load *load;
    struct load_thread *thread;
    pthread_t id;
};

// For the signal handler only.
static struct load *the_load;

static void stop_all(int signal)
{
    int error = errno;
    for (uint64_t i = 0; i < the_load->settings->threads; i++)
        core_post(&the_load->threads[i].core, POST_STOP);
    errno = error;
}

// ------------------------------------------------------------------------------------------ thread

static void thread_posted(struct core *core, uint32_t bits)
{
    if (bits & POST_STOP)
        load_stop(load_of(core));
}

// Threads share connections and requests evenly; the first ones get what is left over.
static uint64_t share_of(uint64_t total, const struct load_thread *thread)
{
    uint64_t threads = thread->settings->threads;
    return total / threads + (thread->index < total % threads);
}

static bool thread_open(struct load_thread *thread, char *error, size_t error_len)
{
    const struct load_settings *settings = thread->settings;
    thread->share = (uint32_t)share_of(settings->connections, thread);
    thread->requests = settings->requests ? share_of(settings->requests, thread) : UINT64_MAX;
    uint32_t slots = thread->share + thread->share / 2 + 64; // closing ones overlap with new ones
    struct core_config config = {
        .ring_entries = RING_ENTRIES,
        .receive_buffers = RECEIVE_BUFFERS,
        .receive_size = RECEIVE_BYTES,
        .write_buffers = 1,
        .write_size = 4096,
        .large_buffers = LARGE_BUFFERS,
        .large_size = LARGE_BYTES,
        .connections = slots,
        .conn_size = (uint32_t)load_call_size(),
        .segments = slots * SEGMENTS_PER_CALL,
        .congestion = settings->congestion,
    };
    if (!core_open(&thread->core, &config, error, error_len))
        return false;
    thread->core.index = thread->index;
    thread->core.owner = thread;
    thread->core.hooks.posted = thread_posted;
    thread->core.hooks.turn_end = load_fill;
    thread->returned = heap_alloc((thread->share + 1) * sizeof *thread->returned);
    histogram_clear(&thread->results.latency);
    histogram_clear(&thread->results.first);
    histogram_clear(&thread->results.gap);
    histogram_clear(&thread->results.connect);
    return true;
}

static void thread_run(struct load_thread *thread)
{
    struct core *core = &thread->core;
    load_schedule_start(thread);
    core->now_ns = core_clock_ns(core);
    while (thread->phase == LOAD_RUNNING)
        core_turn(core, 100);
}

static void thread_drain(struct load_thread *thread)
{
    load_calls_close(thread);
    while (thread->core.operations > 0)
        core_turn(&thread->core, 100);
}

static void *thread_main(void *argument)
{
    struct start *start = argument;
    struct load *load = start->load;
    struct load_thread *thread = start->thread;
    char error[512];
    bool open = thread_open(thread, error, sizeof error);
    pthread_mutex_lock(&load->lock);
    if (!open && !load->error[0])
        memcpy(load->error, error, sizeof error);
    load->ready++;
    pthread_cond_broadcast(&load->changed);
    while (!load->go)
        pthread_cond_wait(&load->changed, &load->lock);
    bool run = !load->error[0];
    pthread_mutex_unlock(&load->lock);
    if (open && run)
        thread_run(thread);
    pthread_mutex_lock(&load->lock);
    load->over++;
    pthread_cond_broadcast(&load->changed);
    while (!load->measured) // closing thousands of connections is not what is measured
        pthread_cond_wait(&load->changed, &load->lock);
    pthread_mutex_unlock(&load->lock);
    if (open)
        thread_drain(thread);
    return NULL;
}

// ---------------------------------------------------------------------------------------- progress

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct seen {
    uint64_t done, failed, events, open;
};

static struct seen look(const struct load *load)
{
    struct seen seen = {0, 0, 0, 0};
    for (uint64_t i = 0; i < load->settings->threads; i++) {
        const struct load_counters *counters = &load->threads[i].counters;
        seen.done += atomic_load_explicit(&counters->done, memory_order_relaxed);
        seen.failed += atomic_load_explicit(&counters->failed, memory_order_relaxed);
        seen.events += atomic_load_explicit(&counters->events, memory_order_relaxed);
        seen.open += atomic_load_explicit(&counters->open, memory_order_relaxed);
    }
    return seen;
}

static void progress(const struct load *load, struct seen *before)
{
    struct seen now = look(load);
    uint64_t s = (clock_ns() - load->settings->start_ns + 500000000u) / 1000000000u;
    fprintf(stderr, "%s%5llu s: %llu done (%llu/s), %llu failed, %llu connections",
            isatty(STDERR_FILENO) ? "\r\033[K" : "", (unsigned long long)s,
            (unsigned long long)now.done, (unsigned long long)(now.done - before->done),
            (unsigned long long)now.failed, (unsigned long long)now.open);
    if (now.events)
        fprintf(stderr, ", %llu chunks/s", (unsigned long long)(now.events - before->events));
    fprintf(stderr, isatty(STDERR_FILENO) ? "" : "\n");
    *before = now;
}

// Until all threads are over; once a second a line of progress.
static void wait_for_end(struct load *load)
{
    struct timespec at;
    struct seen before = {0, 0, 0, 0};
    clock_gettime(CLOCK_REALTIME, &at);
    bool shown = false;
    pthread_mutex_lock(&load->lock);
    while (load->over < load->settings->threads) {
        at.tv_sec++;
        int result = 0;
        while (load->over < load->settings->threads && result != ETIMEDOUT)
            result = pthread_cond_timedwait(&load->changed, &load->lock, &at);
        if (result == ETIMEDOUT && load->settings->progress) {
            progress(load, &before);
            shown = true;
        }
    }
    pthread_mutex_unlock(&load->lock);
    if (shown && isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

// ----------------------------------------------------------------------------------------------
// run

static void cpu_read(const struct load_settings *settings, struct load_cpu *cpu)
{
    cpu->self_ns = cputime_self();
    for (size_t i = 0; i < settings->pid_count; i++)
        cpu->watched_ok[i] = cputime_read(settings->pids[i], &cpu->watched_ns[i]);
}

// `cpu` holds the reading of the start, and then the difference.
static void cpu_since(const struct load_settings *settings, struct load_cpu *cpu)
{
    struct load_cpu now;
    cpu_read(settings, &now);
    cpu->self_ns = now.self_ns - cpu->self_ns;
    for (size_t i = 0; i < settings->pid_count; i++) {
        cpu->watched_ok[i] = cpu->watched_ok[i] && now.watched_ok[i];
        cpu->watched_ns[i] = now.watched_ns[i] - cpu->watched_ns[i];
    }
}

static void threads_tell(struct load *load, bool *what)
{
    pthread_mutex_lock(&load->lock);
    *what = true;
    pthread_cond_broadcast(&load->changed);
    pthread_mutex_unlock(&load->lock);
}

static void run(struct load *load, struct load_report *report)
{
    struct load_settings *settings = load->settings;
    struct load_pacer pacer = {.settings = settings, .threads = load->threads};
    pthread_t pacer_thread;
    bool paced = settings->mode == LOAD_OPEN && !load->error[0];
    struct sigaction action = {.sa_handler = stop_all};
    if (!load->error[0]) {
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
    }
    cpu_read(settings, &report->cpu);
    settings->start_ns = clock_ns();
    threads_tell(load, &load->go);
    if (paced)
        CHECK(pthread_create(&pacer_thread, NULL, load_pace, &pacer) == 0);
    wait_for_end(load);
    report->elapsed_ns = clock_ns() - settings->start_ns;
    cpu_since(settings, &report->cpu);
    threads_tell(load, &load->measured);
    if (paced) {
        atomic_store(&pacer.stop, true);
        pthread_join(pacer_thread, NULL);
    }
}

static int load_run(struct load_settings *settings)
{
    static struct start starts[LOAD_THREADS_MAX];
    static struct load_results results;
    struct load load = {.settings = settings,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    struct load_report report = {.settings = settings, .results = &results};
    load.threads = heap_alloc(settings->threads * sizeof *load.threads);
    the_load = &load;
    for (uint64_t i = 0; i < settings->threads; i++) {
        load.threads[i].settings = settings;
        load.threads[i].index = (uint32_t)i;
        starts[i] = (struct start){.load = &load, .thread = &load.threads[i]};
        CHECK(pthread_create(&starts[i].id, NULL, thread_main, &starts[i]) == 0);
    }
    pthread_mutex_lock(&load.lock);
    while (load.ready < settings->threads)
        pthread_cond_wait(&load.changed, &load.lock);
    pthread_mutex_unlock(&load.lock);
    run(&load, &report);
    histogram_clear(&results.latency);
    histogram_clear(&results.first);
    histogram_clear(&results.gap);
    histogram_clear(&results.connect);
    signal(SIGINT, SIG_IGN); // from here on nobody may wake the cores
    signal(SIGTERM, SIG_IGN);
    for (uint64_t i = 0; i < settings->threads; i++) {
        pthread_join(starts[i].id, NULL);
        load_results_merge(&results, &load.threads[i].results);
        heap_free(load.threads[i].returned);
        if (load.threads[i].core.magic)
            core_close(&load.threads[i].core);
    }
    heap_free(load.threads);
    if (load.error[0]) {
        fprintf(stderr, "tokenring-load: %s\n", load.error);
        return 1;
    }
    (settings->json ? load_report_json : load_report_table)(&report);
    return results.failed || results.unstarted || results.done == 0;
}

// --------------------------------------------------------------------------------------------
// start

static bool add_field(void *target, const char *value, char *error, size_t error_len)
{
    struct load_settings *settings = target;
    size_t name = strcspn(value, ":");
    const char *what = NULL;
    if (settings->field_count == LOAD_FIELDS_MAX)
        what = "too many fields";
    else if (name == 0 || value[name] != ':' || strpbrk(value, "\r\n"))
        what = "expected 'Name: value'";
    for (size_t i = 0; !what && i < name; i++)
        if (!h1_token_byte((uint8_t)value[i]))
            what = "expected 'Name: value'";
    if (what) {
        snprintf(error, error_len, "%s", what);
        return false;
    }
    settings->fields[settings->field_count++] = value;
    return true;
}

static bool add_pid(void *target, const char *value, char *error, size_t error_len)
{
    struct load_settings *settings = target;
    uint64_t pid, ns;
    const char *what = NULL;
    if (settings->pid_count == LOAD_PIDS_MAX)
        what = "too many processes";
    else if (!args_number(value, &pid) || pid == 0)
        what = "expected a process id";
    else if (!cputime_read(pid, &ns))
        what = "no such process, or no /proc/PID/task/*/schedstat";
    if (what) {
        snprintf(error, error_len, "%s", what);
        return false;
    }
    settings->pids[settings->pid_count++] = pid;
    return true;
}

static uint64_t fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

// What options mean together. NULL, or what is wrong.
static const char *settle(struct load_settings *settings, uint64_t streams)
{
    if (streams && settings->rate > 0)
        return "--streams-open and --rate exclude each other";
    if (settings->hold_ms && !streams)
        return "--hold needs --streams-open";
    settings->mode = streams ? LOAD_HOLD : settings->rate > 0 ? LOAD_OPEN : LOAD_CLOSED;
    if (streams && (settings->connections || settings->requests || settings->duration_ms))
        return "--streams-open takes no --connections, --requests or --duration";
    if (streams) {
        settings->stream = true;
        settings->connections = streams;
    }
    if (!streams && !settings->requests && !settings->duration_ms)
        settings->duration_ms = 10 * 1000;
    if (!settings->connections)
        settings->connections = settings->mode == LOAD_OPEN ? CONNECTIONS_OPEN_LOOP : 1;
    if (settings->unique && settings->body_file)
        return "--unique needs a body made by --model and --body-bytes, not --body";
    if (settings->body_bytes && settings->body_file)
        return "--body and --body-bytes exclude each other";
    if (settings->threads > settings->connections)
        settings->threads = settings->connections;
    if (settings->connections + FDS_SPARE > fd_limit())
        return "more connections than the descriptor limit allows: raise `ulimit -Hn`";
    return NULL;
}

static int refuse(const char *what)
{
    fprintf(stderr, "tokenring-load: %s (see tokenring-load --help)\n", what);
    return 2;
}

// What the flags say, with the defaults.
static struct load_settings set = {
    .timeout_ms = 60 * 1000, .threads = 1, .chunks = UINT64_MAX, .model = "gpt-4o"};
static uint64_t held; // --streams-open

static const struct args_option table[] = {
    {"connections", 'c', "N", ARGS_NUMBER, &set.connections, 1, CONNECTIONS_MAX,
     "connections (1; with --rate at most 1000)"},
    {"requests", 'n', "N", ARGS_NUMBER, &set.requests, 1, 0, "stop after so many requests"},
    {"duration", 'd', "TIME", ARGS_TIME, &set.duration_ms, 1, 0, "stop after this time (10s)"},
    {"rate", 'r', "N", ARGS_DECIMAL, &set.rate, 0, 10000000,
     "open loop: requests a second, evenly spaced; latency counts from the intended time"},
    {"stream", 's', NULL, ARGS_SWITCH, &set.stream, 0, 0, "ask for event streams"},
    {"streams-open", 0, "N", ARGS_NUMBER, &held, 1, CONNECTIONS_MAX,
     "open N streams and keep each to its end"},
    {"hold", 0, "TIME", ARGS_TIME, &set.hold_ms, 0, 0,
     "with --streams-open: replace streams that end within this time (0)"},
    {"ramp", 0, "TIME", ARGS_TIME, &set.ramp_ms, 0, 0,
     "open the connections spread over this time"},
    {"threads", 't', "N", ARGS_NUMBER, &set.threads, 1, LOAD_THREADS_MAX, "threads (1)"},
    {"timeout", 0, "TIME", ARGS_TIME, &set.timeout_ms, 1, 0,
     "give up on a request when no byte comes for this time (60s)"},
    {"model", 'm', "NAME", ARGS_TEXT, &set.model, 0, 0, "the model to ask for (gpt-4o)"},
    {"body", 0, "FILE", ARGS_TEXT, &set.body_file, 0, 0, "send this body"},
    {"body-bytes", 0, "BYTES", ARGS_SIZE, &set.body_bytes, 1, 1 << 30, "pad the body to this size"},
    {"unique", 'u', NULL, ARGS_SWITCH, &set.unique, 0, 0,
     "make each request differ, so that no cache or coalescing can answer it"},
    {"header", 'H', "FIELD", ARGS_EACH, &set, 0, 0, "send 'Name: value'; repeatable", add_field},
    {"chunks", 0, "N", ARGS_NUMBER, &set.chunks, 0, 10000000,
     "order N chunks of tokenring-mock; --verify then counts them"},
    {"verify", 0, NULL, ARGS_SWITCH, &set.verify, 0, 0,
     "check every byte of tokenring-mock's text answers"},
    {"connect", 0, "ADDR:PORT", ARGS_TEXT, &set.connect, 0, 0,
     "connect there, whatever the URL says; also unix:PATH"},
    {"congestion", 0, "NAME", ARGS_TEXT, &set.congestion, 0, 0, "TCP congestion control"},
    {"pid", 0, "PID", ARGS_EACH, &set, 0, 0, "also report this process's CPU; repeatable", add_pid},
    {"json", 'j', NULL, ARGS_SWITCH, &set.json, 0, 0, "results as one JSON object"},
    {"progress", 0, NULL, ARGS_SWITCH, &set.progress, 0, 0,
     "a line each second on stderr (the default on a terminal)"},
};

int main(int argc, char **argv)
{
    const char *url;
    struct args args = {.program = "tokenring-load",
                        .synopsis = "[options] URL",
                        .about = "Sends requests to an LLM endpoint and measures the answers.",
                        .notes = "Exit status: 0 all requests succeeded, 1 some failed, 2 usage.",
                        .options = table,
                        .option_count = sizeof table / sizeof *table,
                        .words = &url,
                        .word_max = 1};
    char error[ARGS_ERROR_MAX];
    int status;
    if (!args_start(&args, argc, argv, &status))
        return status;
    const char *what = args.word_count ? settle(&set, held) : "no URL given";
    if (what)
        return refuse(what);
    if (!load_url(&set, url, error, sizeof error) || !load_request(&set, error, sizeof error))
        return refuse(error);
    set.progress |= isatty(STDERR_FILENO) != 0;
    status = load_run(&set);
    heap_free(set.request);
    return status;
}
