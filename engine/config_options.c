// SPDX-License-Identifier: MIT
//
// The one table of options. Flags, environment, file keys, bounds, defaults, --help, the printed
// settings and the test of docs/CONFIG.md all come from here.
#include <assert.h>
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

#define FIELD(name)                                                                                \
    .offset = offsetof(struct config, name), .width = sizeof(((struct config *)NULL)->name)
#define KIB    ((uint64_t)1024)
#define MIB    (KIB * 1024)
#define GIB    (MIB * 1024)
#define TIB    (GIB * 1024)
#define SECOND ((uint64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

// A row is read as a sentence, not one word a line.
// clang-format off
static const struct config_option options[] = {
    {.flag = "config", .letter = 'c', .argument = "FILE", .type = OPTION_TEXT, .round = ROUND_PATH,
     .min = 1, .max = 4095, .group = "Where things are", FIELD(path),
     .help = "YAML file to read"},
    {.flag = "watch", .key = "watch", .argument = "on|off", .type = OPTION_SWITCH,
     .round = ROUND_MAIN, .standard = "off", .group = "Where things are", FIELD(watch),
     .help = "reload when the file has changed, within two seconds"},
    {.flag = "listen", .letter = 'l', .key = "listen", .argument = "ADDR:PORT|unix:PATH",
     .type = OPTION_OWN, .round = ROUND_MAIN, .traits = OPTION_REPEATS,
     .standard = "127.0.0.1:8080", .group = "Where things are", .read = config_read_listen,
     .help = "address clients connect to; [ADDR]:PORT for IPv6, :PORT for all addresses; "
             "repeatable"},
    {.flag = "admin", .key = "admin", .argument = "ADDR:PORT|unix:PATH", .type = OPTION_OWN,
     .round = ROUND_MAIN, .standard = "127.0.0.1:9464", .group = "Where things are",
     .read = config_read_admin,
     .help = "address of health, metrics and admin; other than loopback only with --admin-token"},
    {.flag = "admin-token", .key = "admin_token", .argument = "env:VAR|file:PATH",
     .type = OPTION_OWN, .round = ROUND_MAIN, .traits = OPTION_SECRET, .group = "Where things are",
     .read = config_read_admin_token, FIELD(admin_token),
     .help = "where to find the token that admin requests must carry; never the token itself"},
    {.flag = "tls-cert", .key = "tls_cert", .argument = "FILE", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 4095, .group = "Where things are", FIELD(tls_cert),
     .help = "certificate chains for clients, PEM; several files separated by commas, picked by "
             "the name a client asks for; needs --tls-key"},
    {.flag = "tls-key", .key = "tls_key", .argument = "FILE", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 4095, .group = "Where things are", FIELD(tls_key),
     .help = "their private keys, PEM, in the same order"},
    {.flag = "tls-client-ca", .key = "tls_client_ca", .argument = "FILE", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 4095, .group = "Where things are", FIELD(tls_client_ca),
     .help = "authorities, PEM; every client must show a certificate of theirs"},

    {.flag = "provider", .letter = 'p', .key = "providers", .argument = "NAME=KIND+URL",
     .type = OPTION_OWN, .round = ROUND_MAIN, .traits = OPTION_REPEATS, .group = "Providers",
     .read = config_read_provider,
     .help = "a provider; KIND is openai, anthropic, gemini or ollama; replaces one of that name "
             "in the file; repeatable"},
    {.flag = "provider-key", .key = "providers[].api_key", .argument = "NAME=env:VAR|file:PATH",
     .type = OPTION_OWN, .round = ROUND_LATE,
     .traits = OPTION_REPEATS | OPTION_SECRET | OPTION_NESTED, .group = "Providers",
     .read = config_read_provider_key,
     .help = "where to find a provider's API key; never the key itself; repeatable"},
    {.flag = "provider-auth", .key = "providers[].auth", .argument = "NAME=key|passthrough",
     .type = OPTION_OWN, .round = ROUND_LATE, .traits = OPTION_REPEATS | OPTION_NESTED,
     .standard = "key", .group = "Providers", .read = config_read_provider_auth,
     .help = "send our key, or pass the client's own credentials on; repeatable"},
    {.flag = "default-provider", .key = "default_provider", .argument = "NAME", .type = OPTION_OWN,
     .round = ROUND_LATE, .group = "Providers", .read = config_read_default_provider,
     FIELD(default_provider),
     .help = "who gets models that are not listed (default: the provider, if there is one only)"},
    {.flag = "upstream-connections", .key = "upstream_connections", .argument = "N",
     .type = OPTION_NUMBER, .round = ROUND_MAIN, .min = 1, .max = 65535, .standard = "1024",
     .group = "Providers", FIELD(upstream_connections),
     .help = "open connections per worker and provider"},
    {.flag = "upstream-idle", .key = "upstream_idle", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .min = 0, .max = 65535, .standard = "100", .group = "Providers",
     FIELD(upstream_idle),
     .help = "idle connections kept per worker and provider"},
    {.flag = "pending", .key = "pending", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .min = 0, .max = 65535, .standard = "1024", .group = "Providers",
     FIELD(pending_max),
     .help = "requests that may wait for a connection, per worker and provider"},

    {.flag = "workers", .letter = 'w', .key = "workers", .argument = "N|auto",
     .type = OPTION_NUMBER, .round = ROUND_MAIN, .traits = OPTION_AUTO, .min = 1,
     .max = CONFIG_WORKERS_MAX, .standard = "auto", .group = "Engine", FIELD(workers),
     .help = "worker threads; auto: one per CPU this process may use"},
    {.flag = "cpus", .key = "cpus", .argument = "LIST|auto|none", .type = OPTION_OWN,
     .round = ROUND_MAIN, .standard = "auto", .group = "Engine", .read = config_read_cpus,
     .help = "CPUs for the workers, as in 0,2-3; auto: pinned if there is a CPU for each; none: "
             "not pinned"},
    {.flag = "ring-entries", .key = "ring_entries", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .traits = OPTION_POWER, .min = 64, .max = 32768, .standard = "1024",
     .group = "Engine", FIELD(ring_entries),
     .help = "io_uring submission entries per worker, a power of two"},
    {.flag = "buffers", .key = "buffers", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .traits = OPTION_POWER, .min = 16, .max = 32768, .standard = "1024",
     .group = "Engine", FIELD(buffers),
     .help = "receive buffers per worker, a power of two"},
    {.flag = "buffer-size", .key = "buffer_size", .argument = "SIZE", .type = OPTION_SIZE,
     .round = ROUND_MAIN, .traits = OPTION_KILO, .min = 4 * KIB, .max = 64 * KIB, .standard = "16K",
     .group = "Engine", FIELD(buffer_size),
     .help = "bytes of one receive buffer, a multiple of 1K"},
    {.flag = "listen-backlog", .key = "listen_backlog", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .min = 1, .max = 65535, .standard = "4096", .group = "Engine",
     FIELD(listen_backlog),
     .help = "connections the kernel may hold before they are accepted"},
    {.flag = "congestion", .key = "congestion", .argument = "NAME", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 15, .group = "Engine", FIELD(congestion),
     .help = "TCP congestion control of all sockets (default: the kernel's)"},
    {.flag = "fast-path-tokens", .key = "fast_path_tokens", .argument = "N", .type = OPTION_NUMBER,
     .round = ROUND_MAIN, .min = 0, .max = 1000000, .standard = "1000", .group = "Engine",
     FIELD(fast_path_tokens),
     .help = "requests up to this many tokens take the short way through routing"},

    {.flag = "max-connections", .key = "max_connections", .argument = "N|auto",
     .type = OPTION_NUMBER, .round = ROUND_MAIN, .traits = OPTION_AUTO, .min = 1, .max = 1000000,
     .standard = "auto", .group = "Limits", FIELD(max_connections),
     .help = "client connections of all workers together; auto: what the limit of open files "
             "permits"},
    {.flag = "max-body", .key = "max_body", .argument = "SIZE", .type = OPTION_SIZE,
     .round = ROUND_MAIN, .min = 1, .max = TIB, .standard = "256M", .group = "Limits",
     FIELD(max_body),
     .help = "bytes of one request body; above: 413"},
    {.flag = "peek-bytes", .key = "peek_bytes", .argument = "SIZE", .type = OPTION_SIZE,
     .round = ROUND_MAIN, .min = KIB, .max = 16 * MIB, .standard = "256K", .group = "Limits",
     FIELD(peek_bytes),
     .help = "bytes of a body that are looked at for routing"},
    {.flag = "window", .key = "window", .argument = "SIZE", .type = OPTION_SIZE,
     .round = ROUND_MAIN, .min = 4 * KIB, .max = 64 * MIB, .standard = "256K", .group = "Limits",
     FIELD(window_bytes),
     .help = "bytes held per direction and exchange before the sender is made to wait"},

    {.flag = "timeout-connect", .key = "timeout_connect", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 1, .max = 10 * MINUTE, .standard = "5s", .group = "Timeouts",
     FIELD(timeout_connect_ms),
     .help = "to open a connection to a provider"},
    {.flag = "timeout-first-byte", .key = "timeout_first_byte", .argument = "TIME",
     .type = OPTION_TIME, .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "300s",
     .group = "Timeouts", FIELD(timeout_first_byte_ms),
     .help = "from the request sent to the first byte of the response"},
    {.flag = "timeout-idle", .key = "timeout_idle", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "300s", .group = "Timeouts",
     FIELD(timeout_idle_ms),
     .help = "no byte on a socket that should move"},
    {.flag = "timeout-total", .key = "timeout_total", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 0, .max = 24 * HOUR, .standard = "0", .group = "Timeouts",
     FIELD(timeout_total_ms),
     .help = "for a whole exchange; 0: none"},
    {.flag = "timeout-head", .key = "timeout_head", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "30s", .group = "Timeouts",
     FIELD(timeout_head_ms),
     .help = "for the complete head of a client's request"},
    {.flag = "timeout-body", .key = "timeout_body", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "60s", .group = "Timeouts",
     FIELD(timeout_body_ms),
     .help = "between two bytes of a client's body"},
    {.flag = "timeout-keepalive", .key = "timeout_keepalive", .argument = "TIME",
     .type = OPTION_TIME, .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "75s",
     .group = "Timeouts", FIELD(timeout_keepalive_ms),
     .help = "of an idle client connection"},
    {.flag = "timeout-upstream-idle", .key = "timeout_upstream_idle", .argument = "TIME",
     .type = OPTION_TIME, .round = ROUND_MAIN, .min = 1, .max = 24 * HOUR, .standard = "60s",
     .group = "Timeouts", FIELD(timeout_upstream_idle_ms),
     .help = "of an idle connection to a provider"},
    {.flag = "drain-timeout", .key = "drain_timeout", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 0, .max = 24 * HOUR, .standard = "30s", .group = "Timeouts",
     FIELD(drain_timeout_ms),
     .help = "how long a stop waits for open exchanges; 0: not at all"},

    {.flag = "user", .key = "user", .argument = "NAME[:GROUP]", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 127, .group = "Rights", FIELD(user),
     .help = "started by root: become this user, for good"},
    {.flag = "seccomp", .key = "seccomp", .argument = "auto|on|log|off", .type = OPTION_CHOICE,
     .round = ROUND_MAIN, .standard = "auto", .group = "Rights", FIELD(seccomp),
     .help = "refuse system calls that a gateway does not make; auto: with --user; log: only tell"},

    {.flag = "coalesce", .key = "coalesce", .argument = "off|auto|always", .type = OPTION_CHOICE,
     .round = ROUND_MAIN, .standard = "auto", .group = "Sharing answers", FIELD(coalesce),
     .help = "one upstream request for identical requests at the same time"},
    {.flag = "cache", .key = "cache", .argument = "off|auto|always", .type = OPTION_CHOICE,
     .round = ROUND_MAIN, .standard = "off", .only = "off", .group = "Sharing answers",
     FIELD(cache),
     .help = "answer from earlier answers; this version accepts off only"},
    {.flag = "cache-bytes", .key = "cache_bytes", .argument = "SIZE", .type = OPTION_SIZE,
     .round = ROUND_MAIN, .min = 0, .max = TIB, .standard = "256M", .group = "Sharing answers",
     FIELD(cache_bytes),
     .help = "memory for cached answers, all workers together"},
    {.flag = "cache-ttl", .key = "cache_ttl", .argument = "TIME", .type = OPTION_TIME,
     .round = ROUND_MAIN, .min = 1, .max = 30 * 24 * HOUR, .standard = "1h",
     .group = "Sharing answers", FIELD(cache_ttl_ms),
     .help = "how long a cached answer is good"},

    {.flag = "forwarded", .key = "forwarded", .argument = "append|set|off", .type = OPTION_CHOICE,
     .round = ROUND_MAIN, .standard = "append", .group = "Manners", FIELD(forwarded),
     .help = "the client's address in X-Forwarded-For: add it, replace what came, or send none"},
    {.flag = "via", .key = "via", .argument = "on|off", .type = OPTION_SWITCH, .round = ROUND_MAIN,
     .standard = "on", .group = "Manners", FIELD(via),
     .help = "add Via to requests and responses"},
    {.flag = "via-name", .key = "via_name", .argument = "NAME", .type = OPTION_TEXT,
     .round = ROUND_MAIN, .min = 1, .max = 63, .standard = "tokenring", .group = "Manners",
     FIELD(via_name),
     .help = "the name in Via"},
    {.flag = "log-format", .key = "log_format", .argument = "text|json", .type = OPTION_CHOICE,
     .round = ROUND_MAIN, .standard = "text", .group = "Manners", FIELD(log_format),
     .help = "of the lines on stderr"},
    {.flag = "log-level", .key = "log_level", .argument = "error|warn|info|debug",
     .type = OPTION_CHOICE, .round = ROUND_MAIN, .standard = "info", .group = "Manners",
     FIELD(log_level),
     .help = "access lines are info"},
};
// clang-format on

enum { OPTION_COUNT = sizeof(options) / sizeof(options[0]) };
static_assert((int)OPTION_COUNT <= (int)CONFIG_OPTIONS_MAX,
              "the reader keeps one record per option");
static_assert(sizeof(enum log_level) == 4, "choices are stored as 32 bits");

const struct config_option *config_options(size_t *count)
{
    *count = OPTION_COUNT;
    return options;
}

const struct config_option *config_option_flag(const char *name, size_t len)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(options[i].flag) == len && memcmp(options[i].flag, name, len) == 0)
            return &options[i];
    return NULL;
}

const struct config_option *config_option_letter(char letter)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (letter && options[i].letter == letter)
            return &options[i];
    return NULL;
}

size_t config_option_index(const struct config_option *option)
{
    CHECK(option >= options && option < options + OPTION_COUNT);
    return (size_t)(option - options);
}

// "max-body" -> "TOKENRING_MAX_BODY"
void config_option_env(const struct config_option *option, char *name, size_t name_len)
{
    int len = snprintf(name, name_len, "TOKENRING_%s", option->flag);
    CHECK(len > 0 && (size_t)len < name_len);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}
