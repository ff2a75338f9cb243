// SPDX-License-Identifier: MIT
//
// access_log: one line a request, as text or JSON. And everything else that is worth a line.
//
// Lines go through the core's log (written by the ring, never blocking). Client bytes in a line are
// escaped, so that no request can forge a line. Credentials and query strings are never logged.
//
// text:  2026-01-31T12:00:00.123Z 127.0.0.1 "POST /v1/chat/completions" 200 1532 1843us +9us openai
// id json:  {"time":..,"client":..,"method":..,"path":..,"status":..,"bytes":..,"total_us":..,
//         "overhead_us":..,"provider":..,"route":..,"attempts":..,"error":..,"request_id":..}
#ifndef ENGINE_ACCESS_LOG_H
#define ENGINE_ACCESS_LOG_H

#include "engine/config.h"
#include "engine/core.h"
#include "proto/reply.h"
#include "proto/span.h"

struct access_entry {
    const char *peer;
    struct span method, path;
    uint16_t status; // 499: the client left before an answer
    uint64_t bytes;
    uint64_t total_ns, overhead_ns;
    const char *provider; // NULL: none
    const char *why;
    unsigned attempts;
    enum reply_error error; // REPLY_ERROR_COUNT: none
    struct span id;
};

void access_log(struct core *core, const struct config *config, const struct access_entry *entry);

// A line about the gateway itself.
void event_log(struct core *core, const struct config *config, enum log_level level,
               const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
