// SPDX-License-Identifier: MIT
//
// The last step of a config: `auto` becomes numbers, names become addresses, and what must hold
// between two options is checked. After this nothing changes any more.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

enum {
    AUTO_CONNECTIONS_MAX = 100000,
    FDS_RESERVED = 64,            // listeners, logs, signals, the admin port
    FDS_RESERVED_PER_WORKER = 16, // rings, mailboxes, timers
};

// ---- CPUs ----

static bool parse_cpu(const char **text, int *cpu)
{
    size_t len = strspn(*text, "0123456789");
    if (len == 0 || len > 4)
        return false;
    *cpu = 0;
    for (size_t i = 0; i < len; i++)
        *cpu = *cpu * 10 + ((*text)[i] - '0');
    *text += len;
    return *cpu < CPU_SETSIZE;
}

static bool add_cpu(struct config_reader *reader, int cpu)
{
    for (int i = 0; i < reader->cpu_count; i++)
        if (reader->cpu[i] == cpu)
            return config_fail(reader, "CPU %d is given twice", cpu);
    CHECK(reader->cpu_count < CPU_SETSIZE);
    reader->cpu[reader->cpu_count++] = cpu;
    return true;
}

static bool parse_cpus(struct config_reader *reader, const char *value)
{
    const char *at = value;
    int first, last;
    reader->cpu_count = 0;
    do {
        if (!parse_cpu(&at, &first))
            break;
        last = first;
        if (*at == '-') {
            at++;
            if (!parse_cpu(&at, &last) || last < first)
                break;
        }
        for (int cpu = first; cpu <= last; cpu++)
            if (!add_cpu(reader, cpu))
                return false;
        if (*at == 0)
            return true;
    } while (*at++ == ',');
    return config_fail(reader, "expected CPUs as in 0,2-3, or auto, or none; got \"%.60s\"", value);
}

bool config_read_cpus(struct config_reader *reader, const struct config_option *option,
                      const char *value)
{
    reader->cpus_mode = strcmp(value, "auto") == 0   ? CPUS_AUTO
                        : strcmp(value, "none") == 0 ? CPUS_NONE
                                                     : CPUS_LIST;
    return reader->cpus_mode != CPUS_LIST || parse_cpus(reader, value);
}

// The CPUs this process may run on, in order.
static int allowed_cpus(int cpu[CPU_SETSIZE])
{
    cpu_set_t set;
    int count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        CPU_SET(0, &set); // more CPUs than the set holds: start small rather than not at all
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            cpu[count++] = i;
    return count;
}

// "150000 100000" of cpu.max: how many CPUs' worth of time, rounded up. "max": no bound.
static uint32_t quota_of(const char *path)
{
    char text[128];
    unsigned long long quota, period;
    if (config_small_file(path, text, sizeof(text)) != 0)
        return UINT32_MAX;
    char *end;
    quota = strtoull(text, &end, 10);
    if (end == text)
        return UINT32_MAX;
    period = strtoull(end, NULL, 10);
    if (period == 0 || quota / period >= UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)((quota + period - 1) / period);
}

// The tightest cpu.max from our cgroup up to the root (version 2 only).
static uint32_t cgroup_quota(void)
{
    char text[4096], path[4096];
    uint32_t quota = UINT32_MAX;
    if (config_small_file("/proc/self/cgroup", text, sizeof(text)) != 0)
        return quota;
    char *group = strncmp(text, "0::/", 4) == 0 ? text + 3 : strstr(text, "\n0::/");
    if (!group)
        return quota;
    if (*group == '\n')
        group += 4;
    group[strcspn(group, "\n")] = 0;
    for (int depth = 0; depth < 64; depth++) {
        int len = snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
        if (len > 0 && (size_t)len < sizeof(path)) {
            uint32_t here = quota_of(path);
            quota = here < quota ? here : quota;
        }
        char *slash = strrchr(group, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    return quota;
}

static bool check_cpu_list(struct config_reader *reader, const int *allowed, int allowed_count)
{
    for (int i = 0; i < reader->cpu_count; i++) {
        int at = 0;
        while (at < allowed_count && allowed[at] != reader->cpu[i])
            at++;
        if (at == allowed_count) {
            config_blame(reader, "cpus");
            return config_fail(reader, "CPU %d is not there, or not for this process",
                               reader->cpu[i]);
        }
    }
    return true;
}

static bool freeze_workers(struct config_reader *reader)
{
    struct config *config = reader->config;
    int allowed[CPU_SETSIZE];
    int allowed_count = allowed_cpus(allowed);
    bool listed = reader->cpus_mode == CPUS_LIST;
    if (listed && !check_cpu_list(reader, allowed, allowed_count))
        return false;
    const int *cpu = listed ? reader->cpu : allowed;
    uint32_t cpu_count = (uint32_t)(listed ? reader->cpu_count : allowed_count);
    if (config->workers == 0) {
        uint32_t quota = listed ? UINT32_MAX : cgroup_quota();
        config->workers = cpu_count < quota ? cpu_count : quota;
        if (config->workers > CONFIG_WORKERS_MAX)
            config->workers = CONFIG_WORKERS_MAX;
        if (config->workers == 0)
            config->workers = 1;
    }
    bool pinned = listed || (reader->cpus_mode == CPUS_AUTO && config->workers <= cpu_count);
    for (uint32_t i = 0; i < CONFIG_WORKERS_MAX; i++)
        config->cpu[i] = pinned && i < config->workers ? cpu[i % cpu_count] : -1;
    return true;
}

// ---- limits ----

// A client connection is two descriptors: its own, and one towards a provider. Who asks for a
// number may know that most of them idle: then they must fit alone.
static bool freeze_connections(struct config_reader *reader)
{
    struct config *config = reader->config;
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    uint64_t reserved = FDS_RESERVED + (uint64_t)FDS_RESERVED_PER_WORKER * config->workers;
    uint64_t fds = limit.rlim_max > reserved ? limit.rlim_max - reserved : 0;
    config_blame(reader, "max-connections");
    if (config->max_connections == 0) {
        uint64_t half = fds / 2;
        config->max_connections =
            half < AUTO_CONNECTIONS_MAX ? (uint32_t)half : AUTO_CONNECTIONS_MAX;
        fds = half;
    }
    if (config->max_connections == 0 || config->max_connections > fds)
        return config_fail(reader,
                           "the hard limit of open files, %llu, leaves room for %llu connections; "
                           "raise it (ulimit -Hn, LimitNOFILE=)%s",
                           (unsigned long long)limit.rlim_max, (unsigned long long)fds,
                           fds ? " or ask for fewer" : "");
    return true;
}

static bool check_engine(struct config_reader *reader)
{
    struct config *config = reader->config;
    if (config->upstream_idle > config->upstream_connections)
        config->upstream_idle = config->upstream_connections;
    if (config->window_bytes < config->buffer_size) {
        config_blame(reader, "window");
        return config_fail(
            reader, "%u bytes are less than one buffer of %u; raise it or lower --buffer-size",
            config->window_bytes, config->buffer_size);
    }
    return true;
}

static bool check_names(struct config_reader *reader)
{
    const struct config *config = reader->config;
    static const char token[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    if (config->via_name[strspn(config->via_name, token)]) {
        config_blame(reader, "via-name");
        return config_fail(reader, "\"%.60s\" is no token; use letters, digits, - and .",
                           config->via_name);
    }
    if (config->congestion && config->congestion[strspn(config->congestion, token)]) {
        config_blame(reader, "congestion");
        return config_fail(reader, "expected a name such as cubic, reno or bbr, got \"%.60s\"",
                           config->congestion);
    }
    if (!config->tls_cert != !config->tls_key) {
        config_blame(reader, config->tls_cert ? "tls-cert" : "tls-key");
        return config_fail(reader, "needs --%s too", config->tls_cert ? "tls-key" : "tls-cert");
    }
    if (config->tls_client_ca && !config->tls_cert) {
        config_blame(reader, "tls-client-ca");
        return config_fail(reader, "needs --tls-cert too");
    }
    return true;
}

static bool check_admin(struct config_reader *reader)
{
    const struct config *config = reader->config;
    config_blame(reader, "admin");
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (strcmp(config->listener[i].text, config->admin.text) == 0)
            return config_fail(reader, "%s is where clients connect; give another port",
                               config->admin.text);
    if (!config->admin_token && !config_address_loopback(&config->admin))
        return config_fail(reader, "%s is not loopback: add --admin-token env:VAR or file:PATH",
                           config->admin.text);
    return true;
}

// ---- providers and models ----

static bool freeze_providers(struct config_reader *reader)
{
    struct config *config = reader->config;
    reader->place = (struct config_place){0};
    if (config->provider_count == 0)
        return config_fail(reader,
                           "no provider: give one, as in -p local=openai+http://127.0.0.1:9000/v1, "
                           "or list providers in a file (-c FILE)");
    for (uint32_t i = 0; i < config->provider_count; i++) {
        const struct config_provider *provider = &config->provider[i];
        reader->place = reader->provider_origin[i];
        reader->place.key = NULL;
        if (!provider->client_cert != !provider->client_key)
            return config_fail(reader, "provider %s needs both client_cert and client_key",
                               provider->name);
        if (provider->auth == AUTH_PASSTHROUGH && provider->api_key)
            return config_fail(
                reader,
                "provider %s passes the client's credentials on, so it takes no key; "
                "drop one of the two",
                provider->name);
    }
    if (config->provider_count == 1)
        config->default_provider = 0;
    for (uint32_t i = 0; i < config->provider_count; i++)
        config->provider[i].slot = (uint16_t)i;
    return true;
}

static bool resolve_providers(struct config_reader *reader)
{
    for (uint32_t i = 0; i < reader->config->provider_count; i++) {
        reader->place = reader->provider_origin[i];
        reader->place.key = NULL;
        if (!config_resolve(reader, &reader->config->provider[i]))
            return false;
    }
    return true;
}

static int compare_models(const void *a, const void *b)
{
    const struct config_model *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order ? order : (left->line > right->line) - (left->line < right->line);
}

static bool freeze_models(struct config_reader *reader)
{
    struct config *config = reader->config;
    if (config->model_count == 0)
        return true;
    reader->place = (struct config_place){.source = SOURCE_FILE, .file = config->path};
    qsort(config->model, config->model_count, sizeof(config->model[0]), compare_models);
    for (uint32_t i = 1; i < config->model_count; i++) {
        const struct config_model *twin = &config->model[i - 1], *model = &config->model[i];
        reader->place.line = model->line;
        if (strcmp(twin->name, model->name) == 0)
            return config_fail(reader, "model \"%.60s\" is given twice; first on line %d",
                               model->name, twin->line);
    }
    for (uint32_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->model[i];
        reader->place.line = model->line;
        for (uint32_t j = 0; j < model->fallback_count; j++) {
            const char *name = model->fallback[j];
            if (config->default_provider < 0 && !config_model_find(config, name, strlen(name)))
                return config_fail(
                    reader,
                    "model \"%.60s\" falls back to \"%.60s\", which is not listed, and there is "
                    "no default_provider for it",
                    model->name, name);
        }
    }
    return true;
}

bool config_freeze(struct config_reader *reader)
{
    return freeze_providers(reader) && freeze_models(reader) && freeze_workers(reader) &&
           freeze_connections(reader) && check_engine(reader) && check_names(reader) &&
           check_admin(reader) && resolve_providers(reader); // last: it is slow
}
