// SPDX-License-Identifier: MIT
//
// Proves that what the cores counted is what the admin port says: added up over cores, well-formed
// in both formats, and lawful: requests == answered + aborted + shed + in progress.
#include "engine/metrics.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/heap.h"

enum { UPTIME_MS = 12345, CORES = 2 };

static struct config config;
static struct metrics core[CORES];
static struct metrics *const cores[CORES] = {&core[0], &core[1]};

// ---- two cores that have seen some work
// ----------------------------------------------------------

static void add_provider(const char *name)
{
    struct config_provider *provider = &config.provider[config.provider_count];
    provider->slot = (uint16_t)config.provider_count++;
    snprintf(provider->name, sizeof provider->name, "%s", name);
}

static void work(struct metrics *m, uint64_t n)
{
    count_set(&m->requests, 10 * n);
    count_set(&m->answered, 6 * n);
    count_set(&m->aborted, 2 * n);
    count_set(&m->shed, n);
    count_set(&m->in_progress, n);
    count_set(&m->status[2], 5 * n);
    count_set(&m->status[5], 3 * n);
    count_set(&m->errors[REPLY_TIMEOUT_IDLE], n);
    count_set(&m->bytes_sent, n << 40);
    count_set(&m->connections_open, 100 * n);
    count_set(&m->streams_total, 4 * n);
    count_set(&m->receive_available, 50 * n);
    count_set(&m->receive_low, 7 * n);
    count_set(&m->provider[0].requests, 8 * n);
    count_set(&m->provider[0].open, 3 * n);
    count_set(&m->provider[0].idle, n);
    count_set(&m->provider[1].failures, n);
    for (uint64_t i = 0; i < n; i++) {
        histogram_add(&m->latency, 3000);            // 3 us: the first bucket
        histogram_add(&m->latency, 1500 * 1000);     // 1.5 ms: (1000, 2000]
        histogram_add(&m->latency, 400000000000ull); // 400 s: beyond the last bound
    }
}

static void start(void)
{
    memset(&config, 0, sizeof config);
    memset(core, 0, sizeof core);
    add_provider("openai");
    add_provider("odd\"name\\\n");
    work(&core[0], 1);
    work(&core[1], 2);
}

TestSuite(metrics, .init = start);

// The number of the one line that begins with `series`.
static double value_of(const char *text, const char *series)
{
    size_t len = strlen(series);
    const char *found = NULL;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, series, len) != 0 || line[len] != ' ')
            continue;
        cr_assert_null(found, "%s stands there twice", series);
        found = line + len + 1;
    }
    cr_assert_not_null(found, "no %s", series);
    return strtod(found, NULL);
}

// ---- the text format, line by line
// ---------------------------------------------------------------

static const char *skip_name(const char *at)
{
    cr_assert(isalpha((unsigned char)*at) || *at == '_', "no name: %.40s", at);
    while (isalnum((unsigned char)*at) || *at == '_')
        at++;
    return at;
}

// {name="value",...}: the place behind it. A value holds no raw quote and no raw newline.
static const char *skip_labels(const char *at)
{
    do {
        at = skip_name(at + 1);
        cr_assert_eq(strncmp(at, "=\"", 2), 0);
        for (at += 2; *at != '"'; at++) {
            cr_assert(*at && *at != '\n', "a label's value does not end");
            if (*at != '\\')
                continue;
            at++;
            cr_assert(*at == '\\' || *at == '"' || *at == 'n', "bad escape");
        }
        at++;
    } while (*at == ',');
    cr_assert_eq(*at, '}');
    return at + 1;
}

// Does `name` belong to the family, as itself or as a part of a histogram?
static bool belongs(const char *name, size_t len, const char *family_name, const char *type)
{
    static const char *const parts[] = {"_bucket", "_sum", "_count"};
    size_t family_len = strlen(family_name);
    if (len < family_len || strncmp(name, family_name, family_len) != 0)
        return false;
    if (strcmp(type, "histogram") != 0)
        return len == family_len;
    for (int i = 0; i < 3; i++)
        if (len == family_len + strlen(parts[i]) &&
            strncmp(name + family_len, parts[i], len - family_len) == 0)
            return true;
    return false;
}

struct reader {
    char family[128], type[32];
    char seen[64][128]; // families that were announced
    int families, samples;
};

static void read_comment(struct reader *r, const char *line)
{
    char name[128], help[256];
    if (strncmp(line, "# HELP ", 7) == 0) {
        cr_assert_eq(sscanf(line, "# HELP %127s %255[^\n]", name, help), 2, "%.80s", line);
        for (int i = 0; i < r->families; i++)
            cr_assert_str_neq(name, r->seen[i], "family announced twice");
        cr_assert_lt(r->families, 64);
        memcpy(r->seen[r->families++], name, sizeof name);
        memcpy(r->family, name, sizeof name);
        r->type[0] = 0;
        return;
    }
    cr_assert_eq(sscanf(line, "# TYPE %127s %31s", name, r->type), 2, "%.80s", line);
    cr_assert_str_eq(name, r->family);
    cr_assert(!strcmp(r->type, "counter") || !strcmp(r->type, "gauge") ||
              !strcmp(r->type, "histogram"));
}

static void read_sample(struct reader *r, const char *line)
{
    const char *at = skip_name(line);
    cr_assert(belongs(line, (size_t)(at - line), r->family, r->type), "%.80s", line);
    cr_assert_neq(r->type[0], 0, "sample before its TYPE");
    if (*at == '{')
        at = skip_labels(at);
    cr_assert_eq(*at, ' ', "%.80s", line);
    char *end;
    double value = strtod(at + 1, &end);
    cr_assert_eq(*end, '\n', "%.80s", line);
    cr_assert_geq(value, 0.0);
    r->samples++;
}

Test(metrics, every_line_of_the_text_is_well_formed)
{
    static struct reader reader;
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    size_t len = strlen(text);
    cr_assert_gt(len, 0u);
    cr_assert_eq(text[len - 1], '\n');
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        cr_assert_neq(*line, '\n', "empty line");
        if (*line == '#')
            read_comment(&reader, line);
        else
            read_sample(&reader, line);
    }
    cr_assert_gt(reader.families, 40);
    cr_assert_gt(reader.samples, reader.families);
    heap_free(text);
}

Test(metrics, every_name_of_ours_is_there)
{
    static const char *const names[] = {
        "requests_total",
        "answered_total",
        "aborted_total",
        "shed_total",
        "bytes_received_total",
        "bytes_sent_total",
        "connections_accepted_total",
        "connections_shed_total",
        "connections_open",
        "clients_gone_total",
        "retries_total",
        "streams_total",
        "streams_open",
        "stream_events_total",
        "stream_chunks_total",
        "requests_in_progress",
        "log_lines_dropped_total",
        "buffers_available",
        "buffers_low",
        "connections_starved",
        "connections_starved_total",
        "ring_turns_total",
        "ring_submitted_total",
        "ring_completed_total",
        "ring_cq_overflow_total",
        "ring_no_buffers_total",
        "ring_sq_full_total",
        "provider_requests_total{provider=\"openai\"}",
        "provider_failures_total{provider=\"openai\"}",
        "provider_dials_total{provider=\"openai\"}",
        "provider_reused_total{provider=\"openai\"}",
        "provider_waiting{provider=\"openai\"}",
        "request_duration_us_count",
        "overhead_us_count",
        "first_chunk_us_count",
        "chunk_gap_us_count",
        "uptime_seconds",
        "build_info{version=\"" TOKENRING_VERSION "\"}",
    };
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    char series[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(series, sizeof series, "tokenring_%s", names[i]);
        (void)value_of(text, series);
    }
    for (int i = 0; i < REPLY_ERROR_COUNT; i++) {
        snprintf(series, sizeof series, "tokenring_errors_total{name=\"%s\"}",
                 reply_error_name((enum reply_error)i));
        cr_assert_float_eq(value_of(text, series), i == REPLY_TIMEOUT_IDLE ? 3 : 0, 0);
    }
    heap_free(text);
}

Test(metrics, cores_are_added_up)
{
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    cr_assert_eq(value_of(text, "tokenring_requests_total"), 30);
    cr_assert_eq(value_of(text, "tokenring_bytes_sent_total"), (double)(3ull << 40));
    cr_assert_eq(value_of(text, "tokenring_responses_total{code=\"2xx\"}"), 15);
    cr_assert_eq(value_of(text, "tokenring_responses_total{code=\"3xx\"}"), 0);
    cr_assert_eq(value_of(text, "tokenring_connections_open"), 300);
    cr_assert_eq(value_of(text, "tokenring_worker_connections_open{worker=\"0\"}"), 100);
    cr_assert_eq(value_of(text, "tokenring_worker_connections_open{worker=\"1\"}"), 200);
    cr_assert_eq(value_of(text, "tokenring_buffers_available"), 150);
    cr_assert_eq(value_of(text, "tokenring_buffers_low"), 7, "the smallest, not the sum");
    cr_assert_eq(value_of(text, "tokenring_provider_requests_total{provider=\"openai\"}"), 24);
    cr_assert_eq(
        value_of(text, "tokenring_provider_connections{provider=\"openai\",state=\"open\"}"), 9);
    cr_assert_eq(
        value_of(text, "tokenring_provider_connections{provider=\"openai\",state=\"idle\"}"), 3);
    cr_assert_float_eq(value_of(text, "tokenring_uptime_seconds"), 12.345, 1e-9);
    heap_free(text);
}

Test(metrics, label_values_are_escaped)
{
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    const char *series = "tokenring_provider_failures_total{provider=\"odd\\\"name\\\\\\n\"}";
    cr_assert_eq(value_of(text, series), 3);
    heap_free(text);
}

Test(metrics, buckets_are_cumulative_and_end_with_the_count)
{
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    char series[128];
    double last = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        snprintf(series, sizeof series, "tokenring_request_duration_us_bucket{le=\"%u\"}",
                 histogram_bound_us[i]);
        double value = value_of(text, series);
        cr_assert_geq(value, last);
        cr_assert_eq(value, histogram_bound_us[i] < 2000 ? 3 : 6);
        last = value;
    }
    double all = value_of(text, "tokenring_request_duration_us_bucket{le=\"+Inf\"}");
    cr_assert_eq(all, 9);
    cr_assert_eq(all, value_of(text, "tokenring_request_duration_us_count"));
    cr_assert_float_eq(value_of(text, "tokenring_request_duration_us_sum"), 3 * (3 + 1500 + 400e6),
                       1e-3);
    heap_free(text);
}

// ---- JSON
// ----------------------------------------------------------------------------------------

static cJSON *parse(struct metrics *const *of, uint32_t n, uint64_t uptime_ms)
{
    char *text = metrics_json(&config, of, n, uptime_ms);
    const char *end;
    cJSON *json = cJSON_ParseWithOpts(text, &end, true);
    cr_assert_not_null(json, "not JSON: %s", text);
    heap_free(text);
    return json;
}

// A member by its path, "performance/requests/total".
static const cJSON *member(const cJSON *json, const char *path)
{
    char name[128];
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        snprintf(name, sizeof name, "%.*s", (int)len, at);
        json = cJSON_GetObjectItemCaseSensitive(json, name);
        cr_assert_not_null(json, "no %s", path);
        at += len + (at[len] == '/');
    }
    return json;
}

static double number(const cJSON *json, const char *path)
{
    const cJSON *found = member(json, path);
    cr_assert(cJSON_IsNumber(found), "%s", path);
    return found->valuedouble;
}

Test(metrics, json_keeps_the_law)
{
    cJSON *json = parse(cores, CORES, UPTIME_MS);
    cr_assert_eq(number(json, "requests_total"), 30);
    cr_assert_eq(number(json, "requests_total"),
                 number(json, "answered_total") + number(json, "aborted_total") +
                     number(json, "shed_total") + number(json, "requests_in_progress"));
    cJSON_Delete(json);
}

Test(metrics, json_says_the_same_as_the_text)
{
    char *text = metrics_prometheus(&config, cores, CORES, UPTIME_MS);
    cJSON *json = parse(cores, CORES, UPTIME_MS);
    int compared = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        char series[128];
        snprintf(series, sizeof series, "tokenring_%s", item->string);
        if (!cJSON_IsNumber(item) || strcmp(item->string, "uptime") == 0)
            continue;
        cr_assert_float_eq(item->valuedouble, value_of(text, series), 1e-3, "%s", item->string);
        compared++;
    }
    cr_assert_gt(compared, 25);
    cr_assert_str_eq(member(json, "version")->valuestring, TOKENRING_VERSION);
    cr_assert_eq(number(json, "errors_total/timeout_idle"), 3);
    cr_assert_eq(number(json, "responses_total/5xx"), 9);
    cr_assert_eq(number(json, "providers/openai/requests_total"), 24);
    cr_assert_eq(number(json, "providers/openai/connections_idle"), 3);
    cr_assert_eq(number(json, "providers/odd\"name\\\n/failures_total"), 3);
    cr_assert_eq(cJSON_GetArraySize(member(json, "workers")), CORES);
    cJSON_Delete(json);
    heap_free(text);
}

Test(metrics, json_has_the_members_dashboards_know)
{
    cJSON *json = parse(cores, CORES, UPTIME_MS);
    cr_assert_eq(number(json, "performance/requests/total"), 30);
    cr_assert_eq(number(json, "performance/requests/streaming"), 12);
    cr_assert_eq(number(json, "performance/requests/nonStreaming"), 18);
    cr_assert_eq(number(json, "performance/requests/errors"), 9);
    cr_assert_float_eq(number(json, "performance/performance/avgLatency"),
                       (0.003 + 1.5 + 400e3) / 3, 1e-3);
    cr_assert_float_eq(number(json, "performance/performance/requestsPerSecond"), 30 / 12.345,
                       1e-3);
    cr_assert_float_eq(number(json, "performance/performance/errorRate"), 0.3, 1e-3);
    cr_assert_eq(number(json, "performance/cache/hitRate"), 0);
    cr_assert_eq(number(json, "cache/manager/l1Size"), 0);
    cr_assert_eq(number(json, "cache/response/calculatedSize"), 0);
    cr_assert_float_eq(number(json, "uptime"), 12.345, 1e-3);
    static const char *const memory[] = {"memory/heapUsed", "memory/heapTotal", "memory/rss"};
    for (int i = 0; i < 3; i++) {
        unsigned megabytes;
        char unit[4];
        const char *text = cJSON_GetStringValue(member(json, memory[i]));
        cr_assert_eq(sscanf(text, "%u %3s", &megabytes, unit), 2, "%s", text);
        cr_assert_str_eq(unit, "MB");
    }
    cJSON_Delete(json);
}

Test(metrics, quantiles_lie_in_their_bucket)
{
    memset(core, 0, sizeof core);
    for (int i = 0; i < 90; i++)
        histogram_add(&core[i % CORES].overhead, 150 * 1000); // (100, 200]
    for (int i = 0; i < 10; i++)
        histogram_add(&core[i % CORES].overhead, 700 * 1000); // (500, 1000]
    cJSON *json = parse(cores, CORES, UPTIME_MS);
    cr_assert_eq(number(json, "overhead_us/count"), 100);
    cr_assert_float_eq(number(json, "overhead_us/avg"), 205, 1e-3);
    cr_assert_float_eq(number(json, "overhead_us/p50"), 100 + 100 * 50.0 / 90, 1e-3);
    cr_assert_float_eq(number(json, "overhead_us/p90"), 200, 1e-3);
    cr_assert_float_eq(number(json, "overhead_us/p99"), 500 + 500 * 0.9, 1e-3);
    cr_assert_eq(number(json, "chunk_gap_us/p99"), 0, "nothing measured");
    cJSON_Delete(json);
}

Test(metrics, beyond_the_last_bound_is_the_last_bound)
{
    memset(core, 0, sizeof core);
    histogram_add(&core[0].latency, 400000000000ull);
    cJSON *json = parse(cores, CORES, UPTIME_MS);
    cr_assert_eq(number(json, "request_duration_us/p50"), 300e6);
    cJSON_Delete(json);
}

// ---- edges
// ---------------------------------------------------------------------------------------

Test(metrics, nothing_counted_is_no_division_by_zero)
{
    memset(core, 0, sizeof core);
    cJSON *json = parse(cores, 0, 0);
    cr_assert_eq(number(json, "performance/performance/avgLatency"), 0);
    cr_assert_eq(number(json, "performance/performance/requestsPerSecond"), 0);
    cr_assert_eq(number(json, "performance/performance/errorRate"), 0);
    cr_assert_eq(number(json, "buffers_low"), 0);
    cr_assert_eq(cJSON_GetArraySize(member(json, "workers")), 0);
    cJSON_Delete(json);
}

// As many providers and workers as there may be: the text outgrows its first room.
Test(metrics, the_largest_setup_fits)
{
    static struct metrics *many[CONFIG_WORKERS_MAX];
    for (int i = 0; i < CONFIG_WORKERS_MAX; i++)
        many[i] = &core[1];
    config.provider_count = 0;
    for (int i = 0; i < CONFIG_PROVIDERS_MAX; i++) {
        char name[CONFIG_NAME_MAX];
        snprintf(name, sizeof name, "provider-with-quite-a-long-name-that-fills-room-%d", i);
        add_provider(name);
    }
    char *text = metrics_prometheus(&config, many, CONFIG_WORKERS_MAX, UINT64_MAX);
    cr_assert_gt(strlen(text), 32u * 1024);
    cr_assert_eq(value_of(text, "tokenring_requests_total"), 20 * CONFIG_WORKERS_MAX);
    cr_assert_eq(value_of(text, "tokenring_worker_connections_open{worker=\"127\"}"), 200);
    heap_free(text);
    cJSON *json = parse(many, CONFIG_WORKERS_MAX, UINT64_MAX);
    cr_assert_eq(cJSON_GetArraySize(member(json, "providers")), CONFIG_PROVIDERS_MAX);
    cJSON_Delete(json);
}

Test(metrics, all_memory_comes_back)
{
    uint64_t before = heap_live();
    heap_free(metrics_prometheus(&config, cores, CORES, UPTIME_MS));
    heap_free(metrics_json(&config, cores, CORES, UPTIME_MS));
    cr_assert_eq(heap_live(), before);
}
