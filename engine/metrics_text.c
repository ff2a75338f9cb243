// SPDX-License-Identifier: MIT
//
// What all cores counted, added up and written out: as Prometheus text and as JSON.
//
// Both begin by copying: every counter is read once into a sum of our own, and everything after
// that reads the sum (but what is told by worker). So a histogram's count is the sum of its buckets
// and the two never disagree, however busy the cores are. Counters of different names may still be
// a moment apart from each other; the law of metrics.h holds to the unit only when the cores are
// quiet.
//
// A plain counter or gauge is one row of a table, and both formats walk the same tables: a number
// has the same name in both, but for the prefix tokenring_.
#include "engine/metrics.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "proto/json.h"

// ---- text that grows ----

enum { TEXT_ROOM = 32 * 1024 }; // holds a small setup without growing

struct text {
    char *bytes; // always ends in a zero
    size_t len, room;
};

static void text_start(struct text *text)
{
    *text = (struct text){.bytes = heap_alloc(TEXT_ROOM), .room = TEXT_ROOM};
}

__attribute__((format(printf, 2, 3))) static void print(struct text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t left = text->room - text->len;
    int len = vsnprintf(text->bytes + text->len, left, format, args);
    va_end(args);
    CHECK(len >= 0);
    if ((size_t)len >= left) {
        text->room = 2 * text->room + (size_t)len;
        text->bytes = heap_resize(text->bytes, text->room);
        len = vsnprintf(text->bytes + text->len, text->room - text->len, format, again);
    }
    va_end(again);
    text->len += (size_t)len;
    CHECK(text->len < text->room);
}

// ---- the numbers ----

struct row {
    const char *name, *help;
    const char *state; // providers: one family, told apart by this label
    bool gauge;
    size_t offset; // in struct metrics or struct provider_metrics
};

#define COUNTER(name, field, help)                                                                 \
    {                                                                                              \
        name, help, NULL, false, offsetof(struct metrics, field)                                   \
    }
#define GAUGE(name, field, help)                                                                   \
    {                                                                                              \
        name, help, NULL, true, offsetof(struct metrics, field)                                    \
    }

static const struct row rows[] = {
    COUNTER("requests_total", requests,
            "Requests taken in: answered, aborted, shed or in progress."),
    COUNTER("answered_total", answered, "Requests answered to the end, refusals included."),
    COUNTER("aborted_total", aborted, "Requests cut short, by the client or by a broken stream."),
    COUNTER("shed_total", shed, "Requests refused for overload."),
    GAUGE("requests_in_progress", in_progress, "Requests being served now."),
    COUNTER("bytes_received_total", bytes_received, "Body bytes received from clients."),
    COUNTER("bytes_sent_total", bytes_sent, "Body bytes sent to clients."),
    COUNTER("connections_accepted_total", connections_accepted, "Client connections accepted."),
    COUNTER("connections_shed_total", connections_shed, "Client connections turned away."),
    GAUGE("connections_open", connections_open, "Client connections open now."),
    COUNTER("clients_gone_total", clients_gone,
            "Clients that left before their answer was complete."),
    COUNTER("retries_total", retries, "Requests replayed on a fresh connection."),
    COUNTER("streams_total", streams_total, "Streamed answers begun."),
    GAUGE("streams_open", streams_open, "Streamed answers under way."),
    COUNTER("stream_events_total", stream_events, "Server-sent events passed on by ended streams."),
    COUNTER("stream_chunks_total", stream_chunks, "Pieces of streams passed on."),
    COUNTER("log_lines_dropped_total", log_dropped, "Log lines dropped because stderr was slow."),
    GAUGE("buffers_available", receive_available, "Receive buffers not in use."),
    GAUGE("buffers_low", receive_low, "Fewest receive buffers any worker ever had left."),
    GAUGE("connections_starved", starved, "Connections waiting for a receive buffer."),
    COUNTER("connections_starved_total", starved_total, "Waits for a receive buffer."),
    COUNTER("ring_turns_total", ring_turns, "Turns of the workers' loops."),
    COUNTER("ring_submitted_total", ring_submitted, "Operations given to the kernel."),
    COUNTER("ring_completed_total", ring_completed, "Completions taken from the kernel."),
    COUNTER("ring_cq_overflow_total", cq_overflow, "Times the completion queue overflowed."),
    COUNTER("ring_no_buffers_total", no_buffers, "Receives ended because the ring had no buffer."),
    COUNTER("ring_sq_full_total", sq_full, "Times the submission queue was full."),
};

#define PROVIDER(name, state, gauge, field, help)                                                  \
    {                                                                                              \
        name, help, state, gauge, offsetof(struct provider_metrics, field)                         \
    }

// Rows of one family stand together.
static const struct row provider_rows[] = {
    PROVIDER("requests_total", NULL, false, requests, "Requests sent to the provider."),
    PROVIDER("failures_total", NULL, false, failures, "Requests the provider failed."),
    PROVIDER("dials_total", NULL, false, dials, "Connections dialled."),
    PROVIDER("reused_total", NULL, false, reused, "Requests sent on a kept connection."),
    PROVIDER("connections", "open", true, open, "Connections; those idle are open, too."),
    PROVIDER("connections", "idle", true, idle, "Connections; those idle are open, too."),
    PROVIDER("waiting", NULL, true, waiting, "Requests waiting for a connection."),
};

struct histogram_row {
    const char *name, *help;
    size_t offset;
};

#define HISTOGRAM(name, field, help)                                                               \
    {                                                                                              \
        name, help, offsetof(struct metrics, field)                                                \
    }

static const struct histogram_row histogram_rows[] = {
    HISTOGRAM("request_duration_us", latency, "Whole exchange, microseconds."),
    HISTOGRAM("overhead_us", overhead, "The gateway's own share of it, microseconds."),
    HISTOGRAM("first_chunk_us", first_chunk, "Request complete to a stream's first byte."),
    HISTOGRAM("chunk_gap_us", gap, "Between two chunks of a stream, microseconds."),
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t row_value(const void *base, size_t offset)
{
    return count_get((const counter *)((const char *)base + offset));
}

static const struct histogram *row_histogram(const struct metrics *sum,
                                             const struct histogram_row *row)
{
    return (const struct histogram *)((const char *)sum + row->offset);
}

// struct metrics is counters and nothing else, so that adding up cannot forget one.
static_assert(sizeof(struct metrics) % sizeof(counter) == 0, "metrics are counters only");

// All are added but receive_low, of which the smallest counts.
static void add_up(struct metrics *sum, struct metrics *const *cores, uint32_t n)
{
    CHECK(n <= CONFIG_WORKERS_MAX);
    memset(sum, 0, sizeof *sum);
    uint64_t low = n ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < n; i++) {
        const counter *from = (const counter *)cores[i];
        counter *to = (counter *)sum;
        for (size_t j = 0; j < sizeof *sum / sizeof *to; j++)
            count_add(&to[j], count_get(&from[j]));
        uint64_t core_low = count_get(&cores[i]->receive_low);
        low = core_low < low ? core_low : low;
    }
    count_set(&sum->receive_low, low);
}

static uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t total = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += count_get(&histogram->bucket[i]);
    return total;
}

// Microseconds below which `share` of the values lie, taking each bucket as evenly filled. What is
// beyond the last bound is told as the last bound.
static double quantile_us(const struct histogram *histogram, double share)
{
    double rank = share * (double)histogram_count(histogram);
    double below = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        double here = (double)count_get(&histogram->bucket[i]);
        if (here > 0 && below + here >= rank) {
            double from = i ? histogram_bound_us[i - 1] : 0;
            return from + (histogram_bound_us[i] - from) * (rank - below) / here;
        }
        below += here;
    }
    return rank > 0 ? histogram_bound_us[HISTOGRAM_BUCKETS - 2] : 0;
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

// ---- Prometheus ----

struct label {
    const char *name, *value; // name NULL: no such label
};

static void family(struct text *text, const char *name, const char *type, const char *help)
{
    print(text, "# HELP tokenring_%s %s\n# TYPE tokenring_%s %s\n", name, help, name, type);
}

static void print_label(struct text *text, const struct label *label)
{
    print(text, "%s=\"", label->name);
    for (const char *at = label->value; *at; at++) {
        if (*at == '\n')
            print(text, "\\n");
        else
            print(text, "%s%c", *at == '"' || *at == '\\' ? "\\" : "", *at);
    }
    print(text, "\"");
}

static void sample(struct text *text, const char *name, struct label a, struct label b,
                   uint64_t value)
{
    print(text, "tokenring_%s", name);
    if (a.name) {
        print(text, "{");
        print_label(text, &a);
        if (b.name) {
            print(text, ",");
            print_label(text, &b);
        }
        print(text, "}");
    }
    print(text, " %" PRIu64 "\n", value);
}

static const struct label NO_LABEL = {NULL, NULL};

static void print_rows(struct text *text, const struct metrics *sum)
{
    for (size_t i = 0; i < LENGTH(rows); i++) {
        const struct row *row = &rows[i];
        family(text, row->name, row->gauge ? "gauge" : "counter", row->help);
        sample(text, row->name, NO_LABEL, NO_LABEL, row_value(sum, row->offset));
    }
}

static void print_outcomes(struct text *text, const struct metrics *sum)
{
    family(text, "responses_total", "counter",
           "Answers by status; a client gone before the head counts as 499.");
    for (int i = 1; i <= 5; i++) {
        char code[] = {(char)('0' + i), 'x', 'x', 0};
        sample(text, "responses_total", (struct label){"code", code}, NO_LABEL,
               count_get(&sum->status[i]));
    }
    family(text, "errors_total", "counter", "Refusals and failures that are ours, by name.");
    for (int i = 0; i < REPLY_ERROR_COUNT; i++)
        sample(text, "errors_total", (struct label){"name", reply_error_name((enum reply_error)i)},
               NO_LABEL, count_get(&sum->errors[i]));
}

static void print_providers(struct text *text, const struct config *config,
                            const struct metrics *sum)
{
    const char *last = "";
    for (size_t i = 0; i < LENGTH(provider_rows); i++) {
        const struct row *row = &provider_rows[i];
        char name[64];
        snprintf(name, sizeof name, "provider_%s", row->name);
        if (strcmp(row->name, last) != 0)
            family(text, name, row->gauge ? "gauge" : "counter", row->help);
        last = row->name;
        struct label state = {row->state ? "state" : NULL, row->state};
        for (uint32_t p = 0; p < config->provider_count; p++)
            sample(text, name, (struct label){"provider", config->provider[p].name}, state,
                   row_value(&sum->provider[config->provider[p].slot], row->offset));
    }
}

static void print_histogram(struct text *text, const struct histogram_row *row,
                            const struct histogram *histogram)
{
    family(text, row->name, "histogram", row->help);
    uint64_t below = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        below += count_get(&histogram->bucket[i]);
        print(text, "tokenring_%s_bucket{le=\"%u\"} %" PRIu64 "\n", row->name,
              histogram_bound_us[i], below);
    }
    below += count_get(&histogram->bucket[HISTOGRAM_BUCKETS - 1]);
    uint64_t sum_ns = count_get(&histogram->sum_ns);
    print(text, "tokenring_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", row->name, below);
    print(text, "tokenring_%s_sum %" PRIu64 ".%03u\n", row->name, sum_ns / 1000,
          (unsigned)(sum_ns % 1000));
    print(text, "tokenring_%s_count %" PRIu64 "\n", row->name, below);
}

static void print_process(struct text *text, struct metrics *const *cores, uint32_t n,
                          uint64_t uptime_ms)
{
    family(text, "worker_connections_open", "gauge", "Client connections open now, by worker.");
    for (uint32_t i = 0; i < n; i++) {
        char number[16];
        snprintf(number, sizeof number, "%u", i);
        sample(text, "worker_connections_open", (struct label){"worker", number}, NO_LABEL,
               count_get(&cores[i]->connections_open));
    }
    family(text, "uptime_seconds", "gauge", "Since the process began.");
    print(text, "tokenring_uptime_seconds %" PRIu64 ".%03u\n", uptime_ms / 1000,
          (unsigned)(uptime_ms % 1000));
    family(text, "build_info", "gauge", "Always 1; what runs is in the labels.");
    sample(text, "build_info", (struct label){"version", TOKENRING_VERSION}, NO_LABEL, 1);
}

char *metrics_prometheus(const struct config *config, struct metrics *const *cores, uint32_t n,
                         uint64_t uptime_ms)
{
    struct metrics sum;
    struct text text;
    add_up(&sum, cores, n);
    text_start(&text);
    print_rows(&text, &sum);
    print_outcomes(&text, &sum);
    print_providers(&text, config, &sum);
    for (size_t i = 0; i < LENGTH(histogram_rows); i++)
        print_histogram(&text, &histogram_rows[i], row_histogram(&sum, &histogram_rows[i]));
    print_process(&text, cores, n, uptime_ms);
    return text.bytes;
}

// ---- JSON ----
//
// `performance`, `memory`, `cache` and `uptime` are the members that the Universal Claude Router's
// page on performance shows for its /debug/metrics, name for name and unit for unit (milliseconds,
// seconds, "42 MB"), so that a dashboard made for it finds them. Everything else is ours.

enum { JSON_NAME_MAX = 128 };

// A comma, unless this is the first of its object or array.
static void json_next_item(struct text *text)
{
    char last = text->len ? text->bytes[text->len - 1] : '{';
    print(text, "%s", last == '{' || last == '[' ? "" : ",");
}

static void json_name(struct text *text, const char *name)
{
    uint8_t escaped[6 * JSON_NAME_MAX];
    int len = json_escape(escaped, sizeof escaped, span_of(name, strlen(name)));
    CHECK(len >= 0);
    json_next_item(text);
    print(text, "\"%.*s\":", len, (const char *)escaped);
}

static void json_number(struct text *text, const char *name, uint64_t number)
{
    json_name(text, name);
    print(text, "%" PRIu64, number);
}

static void json_real(struct text *text, const char *name, double number)
{
    json_name(text, name);
    print(text, "%.4f", number);
}

static void json_open(struct text *text, const char *name)
{
    json_name(text, name);
    print(text, "{");
}

static void json_close(struct text *text)
{
    print(text, "}");
}

static void json_performance(struct text *text, const struct metrics *sum, uint64_t uptime_ms)
{
    uint64_t total = count_get(&sum->requests);
    uint64_t streaming = count_get(&sum->streams_total);
    // By status. A stream cut after its head had status 200: it is under aborted_total.
    uint64_t errors = count_get(&sum->status[4]) + count_get(&sum->status[5]);
    double sum_ms = (double)count_get(&sum->latency.sum_ns) / 1e6;
    json_open(text, "performance");
    json_open(text, "requests");
    json_number(text, "total", total);
    json_number(text, "streaming", streaming);
    json_number(text, "nonStreaming", total > streaming ? total - streaming : 0);
    json_number(text, "errors", errors);
    json_close(text);
    json_open(text, "performance");
    json_real(text, "avgLatency", ratio(sum_ms, (double)histogram_count(&sum->latency)));
    json_real(text, "requestsPerSecond", ratio((double)total, (double)uptime_ms / 1e3));
    json_real(text, "errorRate", ratio((double)errors, (double)total));
    json_close(text);
    json_open(text, "cache");
    json_number(text, "hits", 0);
    json_number(text, "misses", 0);
    json_real(text, "hitRate", 0);
    json_close(text);
    json_close(text);
}

// There is no answer cache yet: nothing is looked up, so nothing hits or misses.
static void json_cache(struct text *text)
{
    static const char *const manager[] = {"hits", "misses", "hitRate", "l1Size", "l2Size"};
    json_open(text, "cache");
    json_open(text, "manager");
    for (size_t i = 0; i < LENGTH(manager); i++)
        json_number(text, manager[i], 0);
    json_close(text);
    json_open(text, "response");
    json_number(text, "size", 0);
    json_number(text, "calculatedSize", 0);
    json_close(text);
    json_close(text);
}

static void json_megabytes(struct text *text, const char *name, uint64_t pages)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    json_name(text, name);
    print(text, "\"%" PRIu64 " MB\"", (pages * page + (1 << 19)) >> 20);
}

// The kernel's count in pages; all zero if it does not say. heapTotal is memory mapped for data,
// heapUsed what is resident and nobody else's.
static void json_memory(struct text *text)
{
    uint64_t resident = 0, shared = 0, data = 0;
    char line[256] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t len = read(fd, line, sizeof line - 1);
        line[len > 0 ? len : 0] = 0;
        close(fd);
    }
    if (sscanf(line, "%*u %" SCNu64 " %" SCNu64 " %*u %*u %" SCNu64, &resident, &shared, &data) !=
        3)
        resident = shared = data = 0;
    json_open(text, "memory");
    json_megabytes(text, "heapUsed", resident > shared ? resident - shared : 0);
    json_megabytes(text, "heapTotal", data);
    json_megabytes(text, "rss", resident);
    json_close(text);
}

static void json_outcomes(struct text *text, const struct metrics *sum)
{
    json_open(text, "responses_total");
    for (int i = 1; i <= 5; i++) {
        char code[] = {(char)('0' + i), 'x', 'x', 0};
        json_number(text, code, count_get(&sum->status[i]));
    }
    json_close(text);
    json_open(text, "errors_total");
    for (int i = 0; i < REPLY_ERROR_COUNT; i++)
        json_number(text, reply_error_name((enum reply_error)i), count_get(&sum->errors[i]));
    json_close(text);
}

static void json_histograms(struct text *text, const struct metrics *sum)
{
    for (size_t i = 0; i < LENGTH(histogram_rows); i++) {
        const struct histogram *histogram = row_histogram(sum, &histogram_rows[i]);
        double sum_us = (double)count_get(&histogram->sum_ns) / 1e3;
        json_open(text, histogram_rows[i].name);
        json_number(text, "count", histogram_count(histogram));
        json_real(text, "avg", ratio(sum_us, (double)histogram_count(histogram)));
        json_real(text, "p50", quantile_us(histogram, 0.50));
        json_real(text, "p90", quantile_us(histogram, 0.90));
        json_real(text, "p99", quantile_us(histogram, 0.99));
        json_close(text);
    }
}

static void json_providers(struct text *text, const struct config *config,
                           const struct metrics *sum)
{
    json_open(text, "providers");
    for (uint32_t p = 0; p < config->provider_count; p++) {
        json_open(text, config->provider[p].name);
        for (size_t i = 0; i < LENGTH(provider_rows); i++) {
            const struct row *row = &provider_rows[i];
            char name[64];
            snprintf(name, sizeof name, "%s%s%s", row->name, row->state ? "_" : "",
                     row->state ? row->state : "");
            json_number(text, name,
                        row_value(&sum->provider[config->provider[p].slot], row->offset));
        }
        json_close(text);
    }
    json_close(text);
}

static void json_workers(struct text *text, struct metrics *const *cores, uint32_t n)
{
    json_name(text, "workers");
    print(text, "[");
    for (uint32_t i = 0; i < n; i++) {
        json_next_item(text);
        print(text, "{\"connections_open\":%" PRIu64 "}", count_get(&cores[i]->connections_open));
    }
    print(text, "]");
}

char *metrics_json(const struct config *config, struct metrics *const *cores, uint32_t n,
                   uint64_t uptime_ms)
{
    struct metrics sum;
    struct text text;
    add_up(&sum, cores, n);
    text_start(&text);
    print(&text, "{");
    json_performance(&text, &sum, uptime_ms);
    json_memory(&text);
    json_cache(&text);
    json_real(&text, "uptime", (double)uptime_ms / 1e3);
    json_name(&text, "version");
    print(&text, "\"%s\"", TOKENRING_VERSION);
    json_real(&text, "uptime_seconds", (double)uptime_ms / 1e3);
    for (size_t i = 0; i < LENGTH(rows); i++)
        json_number(&text, rows[i].name, row_value(&sum, rows[i].offset));
    json_outcomes(&text, &sum);
    json_histograms(&text, &sum);
    json_providers(&text, config, &sum);
    json_workers(&text, cores, n);
    print(&text, "}\n");
    return text.bytes;
}
