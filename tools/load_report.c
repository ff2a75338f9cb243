// SPDX-License-Identifier: MIT
//
// Results: a table for people, one JSON object for machines. Durations are kept in nanoseconds.
#include <stdio.h>
#include <string.h>

#include "tools/load.h"

static const double percents[] = {50, 90, 99, 99.9};
static const char *const percent_names[] = {"p50", "p90", "p99", "p99.9"};
enum { PERCENTS = sizeof percents / sizeof *percents };

static const char *const error_names[] = {
#define X(id, name) name,
    LOAD_ERRORS(X)
#undef X
};

const char *load_error_name(enum load_error error)
{
    return error_names[error];
}

void load_results_merge(struct load_results *into, const struct load_results *from)
{
    into->done += from->done;
    into->failed += from->failed;
    into->abandoned += from->abandoned;
    into->unstarted += from->unstarted;
    into->reconnects += from->reconnects;
    for (int i = 0; i < LOAD_ERROR_COUNT; i++)
        into->errors[i] += from->errors[i];
    into->bytes += from->bytes;
    into->events += from->events;
    into->arrivals += from->arrivals;
    into->open_peak += from->open_peak;
    if (!into->wrong)
        into->wrong = from->wrong;
    histogram_merge(&into->latency, &from->latency);
    histogram_merge(&into->first, &from->first);
    histogram_merge(&into->gap, &from->gap);
    histogram_merge(&into->connect, &from->connect);
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static double micros(uint64_t ns)
{
    return (double)ns / 1e3;
}

static double per(double amount, double of)
{
    return of > 0 ? amount / of : 0;
}

static uint64_t answered(const struct load_results *results)
{
    return results->done + results->failed;
}

static const char *mode_name(enum load_mode mode)
{
    static const char *const names[] = {"closed", "open", "hold"};
    return names[mode];
}

// ------------------------------------------------------------------------------------------ table

static void print_duration(double us)
{
    if (us < 1000)
        printf(" %7.0f us", us);
    else if (us < 1e6)
        printf(" %7.2f ms", us / 1e3);
    else
        printf(" %7.2f s ", us / 1e6);
}

static void table_row(const char *name, const struct histogram *histogram)
{
    if (histogram->count == 0)
        return;
    printf("  %-12s", name);
    for (int i = 0; i < PERCENTS; i++)
        print_duration(micros(histogram_percentile(histogram, percents[i])));
    print_duration(micros(histogram->max));
    print_duration(histogram_mean(histogram) / 1e3);
    printf("\n");
}

static void table_latencies(const struct load_report *report)
{
    printf("\n  %-12s", "");
    for (int i = 0; i < PERCENTS; i++)
        printf(" %7s   ", percent_names[i]);
    printf(" %7s    %7s\n", "max", "mean");
    table_row("latency", &report->results->latency);
    table_row("first chunk", &report->results->first);
    table_row("chunk gap", &report->results->gap);
    table_row("connect", &report->results->connect);
}

static void table_cpu(const struct load_report *report)
{
    double requests = (double)answered(report->results), events = (double)report->results->events;
    double self = micros(report->cpu.self_ns);
    printf("\n  %-22s %10.3f s   %10.2f us a request", "cpu of tokenring-load",
           seconds(report->cpu.self_ns), per(self, requests));
    printf(events > 0 ? "   %8.2f us a chunk\n" : "\n", per(self, events));
    for (size_t i = 0; i < report->settings->pid_count; i++) {
        double watched = micros(report->cpu.watched_ns[i]);
        char name[32];
        snprintf(name, sizeof name, "cpu of %llu", (unsigned long long)report->settings->pids[i]);
        if (!report->cpu.watched_ok[i]) {
            printf("  %-22s could not be read\n", name);
            continue;
        }
        printf("  %-22s %10.3f s   %10.2f us a request", name, watched / 1e6,
               per(watched, requests));
        printf(events > 0 ? "   %8.2f us a chunk\n" : "\n", per(watched, events));
    }
}

static void table_errors(const struct load_results *results)
{
    if (results->failed == 0 && !results->wrong)
        return;
    printf("\n  errors:");
    for (int i = 0; i < LOAD_ERROR_COUNT; i++)
        if (results->errors[i])
            printf(" %s %llu", error_names[i], (unsigned long long)results->errors[i]);
    printf("\n");
    if (results->wrong)
        printf("  first wrong bytes: %s\n", results->wrong);
}

static void table_mode(const struct load_settings *settings, double took)
{
    printf("%s: ", settings->url);
    if (settings->mode == LOAD_OPEN)
        printf("open loop, %.10g/s, at most %llu connections", settings->rate,
               (unsigned long long)settings->connections);
    else if (settings->mode == LOAD_HOLD)
        printf("%llu streams held open", (unsigned long long)settings->connections);
    else
        printf("closed loop, %llu connections", (unsigned long long)settings->connections);
    printf(", %llu threads, %.2f s%s\n\n", (unsigned long long)settings->threads, took,
           settings->verify ? ", every byte checked" : "");
}

void load_report_table(const struct load_report *report)
{
    const struct load_results *results = report->results;
    double took = seconds(report->elapsed_ns);
    table_mode(report->settings, took);
    printf("  requests     %llu done, %llu failed", (unsigned long long)results->done,
           (unsigned long long)results->failed);
    if (results->abandoned || results->unstarted)
        printf(", %llu abandoned at the end, %llu never sent",
               (unsigned long long)results->abandoned, (unsigned long long)results->unstarted);
    printf("   %.1f/s\n", per((double)results->done, took));
    printf("  connections  %llu open at once", (unsigned long long)results->open_peak);
    if (results->reconnects)
        printf(", %llu found closed by the server", (unsigned long long)results->reconnects);
    printf("\n  received     %.3f MB   %.3f MB/s\n", (double)results->bytes / 1e6,
           per((double)results->bytes / 1e6, took));
    if (results->events)
        printf("  chunks       %llu   %.1f/s   %.2f an arrival\n",
               (unsigned long long)results->events, per((double)results->events, took),
               per((double)results->events, (double)results->arrivals));
    table_latencies(report);
    table_cpu(report);
    table_errors(results);
}

// ------------------------------------------------------------------------------------------- JSON

static void json_row(const char *name, const struct histogram *histogram)
{
    static const char *const keys[] = {"p50", "p90", "p99", "p999"};
    printf(",\"%s_us\":", name);
    if (histogram->count == 0) {
        printf("null");
        return;
    }
    printf("{\"count\":%llu", (unsigned long long)histogram->count);
    for (int i = 0; i < PERCENTS; i++)
        printf(",\"%s\":%.3f", keys[i], micros(histogram_percentile(histogram, percents[i])));
    printf(",\"min\":%.3f,\"max\":%.3f,\"mean\":%.3f}", micros(histogram->min),
           micros(histogram->max), histogram_mean(histogram) / 1e3);
}

static void json_cpu(const struct load_report *report)
{
    double requests = (double)answered(report->results), events = (double)report->results->events;
    printf(",\"cpu\":{\"load_s\":%.6f,\"load_us_per_request\":%.3f,\"watched\":[",
           seconds(report->cpu.self_ns), per(micros(report->cpu.self_ns), requests));
    for (size_t i = 0; i < report->settings->pid_count; i++) {
        double watched = micros(report->cpu.watched_ns[i]);
        printf("%s{\"pid\":%llu", i ? "," : "", (unsigned long long)report->settings->pids[i]);
        if (report->cpu.watched_ok[i])
            printf(",\"s\":%.6f,\"us_per_request\":%.3f,\"us_per_chunk\":%.3f}", watched / 1e6,
                   per(watched, requests), per(watched, events));
        else
            printf(",\"s\":null,\"us_per_request\":null,\"us_per_chunk\":null}");
    }
    printf("]}");
}

static void json_text(const char *text)
{
    printf("\"");
    for (const char *c = text; *c; c++) // control bytes were refused with the URL
        printf(*c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    printf("\"");
}

void load_report_json(const struct load_report *report)
{
    const struct load_results *results = report->results;
    const struct load_settings *settings = report->settings;
    double took = seconds(report->elapsed_ns);
    printf("{\"url\":");
    json_text(settings->url);
    printf(",\"mode\":\"%s\",\"stream\":%s,\"verified\":%s,\"connections\":%llu,\"threads\":%llu",
           mode_name(settings->mode), settings->stream ? "true" : "false",
           settings->verify ? "true" : "false", (unsigned long long)settings->connections,
           (unsigned long long)settings->threads);
    if (settings->mode == LOAD_OPEN)
        printf(",\"rate\":%.10g", settings->rate);
    printf(",\"seconds\":%.6f,\"done\":%llu,\"failed\":%llu,\"abandoned\":%llu,\"unstarted\":%llu",
           took, (unsigned long long)results->done, (unsigned long long)results->failed,
           (unsigned long long)results->abandoned, (unsigned long long)results->unstarted);
    printf(",\"per_second\":%.3f,\"open_peak\":%llu,\"reconnects\":%llu,\"bytes\":%llu",
           per((double)results->done, took), (unsigned long long)results->open_peak,
           (unsigned long long)results->reconnects, (unsigned long long)results->bytes);
    printf(",\"chunks\":%llu,\"arrivals\":%llu,\"errors\":{", (unsigned long long)results->events,
           (unsigned long long)results->arrivals);
    for (int i = 0; i < LOAD_ERROR_COUNT; i++)
        printf("%s\"%s\":%llu", i ? "," : "", error_names[i],
               (unsigned long long)results->errors[i]);
    printf("},\"first_wrong\":");
    if (results->wrong)
        json_text(results->wrong);
    else
        printf("null");
    json_row("latency", &results->latency);
    json_row("first_chunk", &results->first);
    json_row("chunk_gap", &results->gap);
    json_row("connect", &results->connect);
    json_cpu(report);
    printf("}\n");
}
