// SPDX-License-Identifier: MIT
#include "engine/access_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/writer.h"

enum { LINE_MAX_BYTES = 1024, TIME_LEN = 24 };

static void put_time(struct writer *w, uint64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char text[TIME_LEN + 8];
    size_t len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    len += (size_t)snprintf(text + len, sizeof text - len, ".%03uZ", (unsigned)(wall_ms % 1000));
    put_bytes(w, text, len);
}

// Bytes from outside: no control characters, no quotes, no backslash, so that a line stays a line
// in both formats.
static void put_safe(struct writer *w, struct span text, size_t max)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < text.len && i < max; i++) {
        uint8_t c = text.ptr[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            put_bytes(w, &c, 1);
        } else {
            char escape[4] = {'%', hex[c >> 4], hex[c & 15]};
            put_bytes(w, escape, 3);
        }
    }
}

// A sentence of ours that quotes bytes from outside: quotes may stay where no quotes end it.
static void put_printable(struct writer *w, struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i] >= 0x20 && text.ptr[i] < 0x7f ? text.ptr[i] : (uint8_t)'?';
        put_bytes(w, &c, 1);
    }
}

static struct span without_query(struct span path)
{
    const uint8_t *query = path.len ? memchr(path.ptr, '?', path.len) : NULL;
    return query ? span_of(path.ptr, (size_t)(query - path.ptr)) : path;
}

static void put_text_line(struct writer *w, const struct access_entry *e)
{
    put_literal(w, " ");
    put_text(w, e->peer && e->peer[0] ? e->peer : "-");
    put_literal(w, " \"");
    put_safe(w, e->method, 32);
    put_literal(w, " ");
    put_safe(w, without_query(e->path), 128);
    put_literal(w, "\" ");
    put_number(w, e->status);
    put_literal(w, " ");
    put_number(w, e->bytes);
    put_literal(w, " ");
    put_number(w, e->total_ns / 1000);
    put_literal(w, "us +");
    put_number(w, e->overhead_ns / 1000);
    put_literal(w, "us ");
    put_text(w, e->provider ? e->provider : "-");
    put_literal(w, " ");
    put_text(w, e->error < REPLY_ERROR_COUNT ? reply_error_name(e->error) : "-");
    put_literal(w, " ");
    put_safe(w, e->id.len ? e->id : SPAN("-"), 64);
}

static void put_json_number(struct writer *w, const char *name, uint64_t value)
{
    put_literal(w, ",\"");
    put_text(w, name);
    put_literal(w, "\":");
    put_number(w, value);
}

static void put_json_text(struct writer *w, const char *name, struct span value, size_t max)
{
    put_literal(w, ",\"");
    put_text(w, name);
    put_literal(w, "\":\"");
    put_safe(w, value, max);
    put_literal(w, "\"");
}

static struct span span_text(const char *text)
{
    return text ? span_of(text, strlen(text)) : (struct span){0};
}

static void put_json_line(struct writer *w, const struct access_entry *e)
{
    put_json_text(w, "client", span_text(e->peer), 46);
    put_json_text(w, "method", e->method, 32);
    put_json_text(w, "path", without_query(e->path), 128);
    put_json_number(w, "status", e->status);
    put_json_number(w, "bytes", e->bytes);
    put_json_number(w, "total_us", e->total_ns / 1000);
    put_json_number(w, "overhead_us", e->overhead_ns / 1000);
    if (e->provider)
        put_json_text(w, "provider", span_text(e->provider), 64);
    if (e->why)
        put_json_text(w, "route", span_text(e->why), 32);
    put_json_number(w, "attempts", e->attempts);
    if (e->error < REPLY_ERROR_COUNT)
        put_json_text(w, "error", span_text(reply_error_name(e->error)), 64);
    put_json_text(w, "request_id", e->id, 64);
    put_literal(w, "}");
}

void access_log(struct core *core, const struct config *config, const struct access_entry *entry)
{
    if (config->log_level < LOG_INFO)
        return;
    uint8_t line[LINE_MAX_BYTES];
    struct writer w = {line, 0, sizeof line};
    if (config->log_format == LOG_JSON) {
        put_literal(&w, "{\"time\":\"");
        put_time(&w, io_wall_ms(core->io));
        put_literal(&w, "\"");
        put_json_line(&w, entry);
    } else {
        put_time(&w, io_wall_ms(core->io));
        put_text_line(&w, entry);
    }
    put_literal(&w, "\n");
    core_log_line(core, (const char *)line, w.at);
}

void event_log(struct core *core, const struct config *config, enum log_level level,
               const char *format, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    if (config->log_level < level)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        return;
    size_t text_len = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    uint8_t line[LINE_MAX_BYTES * 2];
    struct writer w = {line, 0, sizeof line};
    bool json = config->log_format == LOG_JSON;
    if (json)
        put_literal(&w, "{\"time\":\"");
    put_time(&w, io_wall_ms(core->io));
    put_text(&w, json ? "\",\"level\":\"" : " ");
    put_text(&w, names[level]);
    put_text(&w, json ? "\",\"message\":\"" : ": ");
    if (json)
        put_safe(&w, span_of(text, text_len), sizeof text);
    else
        put_printable(&w, span_of(text, text_len));
    put_text(&w, json ? "\"}\n" : "\n");
    core_log_line(core, (const char *)line, w.at);
}
