// SPDX-License-Identifier: MIT
//
// tokenring-mock: a scripted provider for tests, demos and benchmarks. See mock.h for the parts.
#include "tools/mock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"

enum {
    POST_STOP = 1,
    RECEIVE_BYTES = 16 * 1024,
    WRITE_BYTES = 16 * 1024,
    WRITE_BUFFERS = 4096,
    LARGE_BYTES = 96 * 1024, // a head of H1_HEAD_MAX and what came behind it
    LARGE_BUFFERS = 64,
    RING_ENTRIES = 2048,
    BACKLOG = 4096,
    SEGMENTS_SPARE = 4096,
    FDS_SPARE = 64, // descriptors that are no connections
    CONNECTIONS_MAX = 1000 * 1000,
};

struct options {
    struct args_address listen[MOCK_LISTENERS_MAX];
    size_t listen_count;
    uint64_t buffers;
    const char *congestion;
    bool quiet;
};

// One thread's start and end, told to main.
struct thread {
    pthread_t thread;
    struct worker *worker;
    struct options *options;
    pthread_mutex_t *lock;
    pthread_cond_t *ready;
    bool started;
    char error[512]; // empty: it serves
};

// For the signal handler only.
static struct mock *the_mock;

static void stop_all(int signal)
{
    int error = errno;
    for (uint64_t i = 0; i < the_mock->worker_count; i++)
        core_post(&the_mock->workers[i].core, POST_STOP);
    errno = error;
}

void mock_totals(const struct mock *mock, struct mock_totals *totals)
{
    memset(totals, 0, sizeof *totals);
    for (uint64_t i = 0; i < mock->worker_count; i++) {
#define X(name)                                                                                    \
    totals->name += atomic_load_explicit(&mock->workers[i].counters.name, memory_order_relaxed);
        MOCK_COUNTERS(X)
#undef X
    }
}

// ------------------------------------------------------------------------------------------ worker

static void worker_posted(struct core *core, uint32_t bits)
{
    if (core->stopping)
        return;
    core->stopping = true;
    core_listen_stop(core);
    mock_clients_close(worker_of(core));
}

// A socket file that nobody listens on any more stands in the way.
static void local_unlink(const struct args_address *address)
{
    struct stat file;
    const char *path = address->addr.local.sun_path;
    if (address->addr.any.sa_family == AF_UNIX && lstat(path, &file) == 0 && S_ISSOCK(file.st_mode))
        unlink(path);
}

// The first worker learns which port the kernel chose, if it was to choose.
static int worker_listen(struct worker *worker, struct options *options)
{
    bool first = worker->core.index == 0;
    for (size_t i = 0; i < options->listen_count; i++) {
        struct args_address *address = &options->listen[i];
        bool local = address->addr.any.sa_family == AF_UNIX;
        if (local && !first)
            continue; // one socket file, one listener
        local_unlink(address);
        int result = core_listen(&worker->core, &address->addr.any, address->len, BACKLOG,
                                 mock_accepted, NULL);
        if (result < 0)
            return result;
        if (first && !local) {
            socklen_t len = sizeof address->addr;
            getsockname(worker->core.listener[i].fd, &address->addr.any, &len);
        }
    }
    return 0;
}

static bool worker_open(struct thread *thread)
{
    struct worker *worker = thread->worker;
    uint32_t connections = (uint32_t)worker->mock->connections_max;
    struct core_config config = {
        .ring_entries = RING_ENTRIES,
        .receive_buffers = (uint32_t)thread->options->buffers,
        .receive_size = RECEIVE_BYTES,
        .write_buffers = WRITE_BUFFERS,
        .write_size = WRITE_BYTES,
        .large_buffers = LARGE_BUFFERS,
        .large_size = LARGE_BYTES,
        .connections = connections,
        .conn_size = (uint32_t)mock_client_size(),
        .segments = connections * 4 + SEGMENTS_SPARE,
        .congestion = thread->options->congestion,
    };
    uint32_t index = (uint32_t)(worker - worker->mock->workers);
    if (!core_open(&worker->core, &config, thread->error, sizeof thread->error))
        return false;
    worker->core.index = index;
    worker->core.owner = worker;
    worker->core.hooks.posted = worker_posted;
    list_init(&worker->clients);
    int result = worker_listen(worker, thread->options);
    if (result == 0)
        return true;
    snprintf(thread->error, sizeof thread->error, "--listen: %s", strerror(-result));
    return false;
}

// All that the kernel still does for this core comes to an end.
static void worker_drain(struct worker *worker)
{
    struct core *core = &worker->core;
    if (core->magic == 0)
        return; // never opened
    worker_posted(core, POST_STOP);
    while (core->operations > 0)
        core_turn(core, 100);
    out_close(&worker->out);
}

static void *worker_main(void *argument)
{
    struct thread *thread = argument;
    bool open = worker_open(thread);
    pthread_mutex_lock(thread->lock);
    thread->started = true;
    pthread_cond_signal(thread->ready);
    pthread_mutex_unlock(thread->lock);
    if (open)
        core_run(&thread->worker->core);
    worker_drain(thread->worker);
    return NULL;
}

// ------------------------------------------------------------------------------------------- start

static void signals_set(void)
{
    struct sigaction action = {.sa_handler = stop_all};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void announce(const struct mock *mock, const struct options *options)
{
    char text[128];
    if (options->quiet)
        return;
    fprintf(stderr, "tokenring-mock: listening on");
    for (size_t i = 0; i < options->listen_count; i++) {
        args_address_text(&options->listen[i], text, sizeof text);
        fprintf(stderr, " %s", text);
    }
    fprintf(stderr, " (workers %llu, connections %llu)\n", (unsigned long long)mock->worker_count,
            (unsigned long long)mock->connections_max);
}

// Workers start one after the other: the first one may have to find out a port.
static int serve(struct mock *mock, struct options *options)
{
    static struct thread threads[MOCK_WORKERS_MAX];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t ready = PTHREAD_COND_INITIALIZER;
    uint64_t started = 0;
    int status = 0;
    for (; started < mock->worker_count && status == 0; started++) {
        struct thread *thread = &threads[started];
        *thread = (struct thread){
            .worker = &mock->workers[started], .options = options, .lock = &lock, .ready = &ready};
        CHECK(pthread_create(&thread->thread, NULL, worker_main, thread) == 0);
        pthread_mutex_lock(&lock);
        while (!thread->started)
            pthread_cond_wait(&ready, &lock);
        pthread_mutex_unlock(&lock);
        if (thread->error[0]) {
            fprintf(stderr, "tokenring-mock: %s\n", thread->error);
            status = 1;
        }
    }
    mock->worker_count = started;
    if (status == 0) {
        signals_set();
        announce(mock, options);
    } else {
        for (uint64_t i = 0; i + 1 < started; i++)
            core_post(&mock->workers[i].core, POST_STOP);
    }
    for (uint64_t i = 0; i < started; i++)
        pthread_join(threads[i].thread, NULL);
    signal(SIGTERM, SIG_IGN); // from here on nobody may wake the cores
    signal(SIGINT, SIG_IGN);
    for (uint64_t i = 0; i < started; i++)
        if (mock->workers[i].core.magic)
            core_close(&mock->workers[i].core);
    for (size_t i = 0; i < options->listen_count && status == 0; i++)
        local_unlink(&options->listen[i]);
    return status;
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

static uint64_t connections_default(void)
{
    uint64_t limit = fd_limit();
    if (limit > CONNECTIONS_MAX / 10)
        limit = CONNECTIONS_MAX / 10;
    return limit > 2 * FDS_SPARE ? limit - FDS_SPARE : FDS_SPARE;
}

static bool listen_add(void *target, const char *value, char *error, size_t error_len)
{
    struct options *options = target;
    if (options->listen_count == MOCK_LISTENERS_MAX) {
        snprintf(error, error_len, "more than %d", MOCK_LISTENERS_MAX);
        return false;
    }
    if (args_address(value, &options->listen[options->listen_count++]))
        return true;
    snprintf(error, error_len, "expected ADDR:PORT or unix:PATH, got \"%.60s\"", value);
    return false;
}

static const char notes[] =
    "Fields of a request order one answer: x-mock-status, -retry-after, -first-delay-ms, -gap-ms,\n"
    "-headers-delay-ms (the head leaves alone, earlier), -chunks, -chunk-bytes, -reply-bytes,\n"
    "-tools N (tool calls), -split N|random (events in two pieces); and, counted in events of a\n"
    "stream or bytes of a whole body: -cut-after \"N\" or \"N reset\", -stall-after N; and\n"
    "-malformed \"N\" (event N has JSON that ends too soon) or \"N sse\" (it is no event at all).\n"
    "GET /mock/stats counts what happened.";

int main(int argc, char **argv)
{
    struct options options = {.buffers = 1024};
    struct mock mock = {.settings = {.chunks = 16, .status = 200, .idle_ms = 600 * 1000},
                        .connections_max = connections_default(),
                        .worker_count = 1};
    struct mock_settings *set = &mock.settings;
    const struct args_option table[] = {
        {"listen", 'l', "ADDR:PORT", ARGS_EACH, &options, 0, 0,
         "where to listen, also unix:PATH; repeatable (127.0.0.1:9000)", listen_add},
        {"workers", 'w', "N", ARGS_NUMBER, &mock.worker_count, 1, MOCK_WORKERS_MAX, "threads (1)"},
        {"first-delay", 0, "TIME", ARGS_TIME, &set->first_delay_ms, 0, 86400000,
         "before the first byte of an answer (0)"},
        {"gap", 0, "TIME", ARGS_TIME, &set->gap_ms, 0, 86400000,
         "between the chunks of a stream (0: as fast as the client takes them)"},
        {"chunks", 0, "N", ARGS_NUMBER, &set->chunks, 0, 10000000,
         "content pieces in an answer, whole or streamed (16)"},
        {"chunk-size", 0, "BYTES", ARGS_SIZE, &set->chunk_bytes, 0, 1 << 30,
         "of one content event with its blank line, at least what it needs (0: that)"},
        {"reply-bytes", 0, "BYTES", ARGS_SIZE, &set->reply_bytes, 0, 1 << 30,
         "of the body of a whole chat reply, at least what it needs (0: that)"},
        {"status", 0, "N", ARGS_NUMBER, &set->status, 200, 599, "answer with this status (200)"},
        {"idle-timeout", 0, "TIME", ARGS_TIME, &set->idle_ms, 1, 86400000,
         "close connections on which nothing happens (10m)"},
        {"max-connections", 0, "N", ARGS_NUMBER, &mock.connections_max, 1, CONNECTIONS_MAX,
         "more are closed at once (default: from the descriptor limit)"},
        {"buffers", 0, "N", ARGS_NUMBER, &options.buffers, 16, 32768,
         "receive buffers of 16K per thread, a power of two (1024)"},
        {"congestion", 0, "NAME", ARGS_TEXT, &options.congestion, 0, 0,
         "TCP congestion control (the kernel's default)"},
        {"quiet", 'q', NULL, ARGS_SWITCH, &options.quiet, 0, 0, "do not say where it listens"},
    };
    struct args args = {.program = "tokenring-mock",
                        .synopsis = "[options]",
                        .about = "A scripted provider: answers OpenAI and Anthropic requests as "
                                 "told.",
                        .notes = notes,
                        .options = table,
                        .option_count = sizeof table / sizeof *table};
    int status;
    if (!args_start(&args, argc, argv, &status))
        return status;
    if (options.buffers & (options.buffers - 1)) {
        fprintf(stderr, "tokenring-mock: --buffers: must be a power of two\n");
        return 2;
    }
    if (options.listen_count == 0)
        CHECK(args_address("127.0.0.1:9000", &options.listen[options.listen_count++]));
    mock.workers = heap_alloc(mock.worker_count * sizeof *mock.workers);
    for (uint64_t i = 0; i < mock.worker_count; i++)
        mock.workers[i].mock = &mock;
    the_mock = &mock;
    status = serve(&mock, &options);
    heap_free(mock.workers);
    return status;
}
