// SPDX-License-Identifier: MIT
//
// Proves that every source of settings means what docs/CONFIG.md says, that every mistake is told
// in one exact line, that no secret is ever printed, and that config_free leaves nothing behind.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "alloc/heap.h"
#include "engine/config_reader.h"

#define LIST(...) ((char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define NOTHING   LIST()
#define LOCAL     "local=openai+http://127.0.0.1:9000/v1"
#define PROVIDERS "providers:\n  - {name: a, kind: openai, base_url: 'http://127.0.0.1:1'}\n"
#define COUNT(a)  (sizeof(a) / sizeof((a)[0]))
#define MIB       (1024ull * 1024)

static char file_path[64];
static char error[1024];

// Write the file, and hand its path to -c before the flags.
static struct config *load(const char *yaml, char *const *flags, char *const *env)
{
    char *argv[32] = {"tokenring"};
    int argc = 1;
    snprintf(file_path, sizeof(file_path), "/tmp/tokenring-config-XXXXXX");
    if (yaml) {
        int fd = mkstemp(file_path);
        cr_assert(fd >= 0);
        cr_assert(write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml));
        close(fd);
        argv[argc++] = "-c";
        argv[argc++] = file_path;
    }
    for (; *flags; flags++)
        argv[argc++] = *flags;
    struct config *config = config_load(argc, argv, env, true, error, sizeof(error));
    if (yaml)
        unlink(file_path);
    return config;
}

static struct config *load_good(const char *yaml, char *const *flags, char *const *env)
{
    struct config *config = load(yaml, flags, env);
    cr_assert(config != NULL, "%s", error);
    cr_assert(error[0] == 0);
    return config;
}

// The exact line; FILE in `expected` stands for the path of the file.
static void expect_error(const char *yaml, char *const *flags, char *const *env,
                         const char *expected)
{
    char line[1024];
    uint64_t live = heap_live();
    struct config *config = load(yaml, flags, env);
    cr_assert(config == NULL, "accepted, but expected: %s", expected);
    if (strncmp(expected, "FILE", 4) == 0)
        snprintf(line, sizeof(line), "%s%s", file_path, expected + 4);
    else
        snprintf(line, sizeof(line), "%s", expected);
    cr_expect_str_eq(error, line);
    cr_expect(heap_live() == live, "left memory behind: %s", expected);
}

// One flag beside a good provider.
static void expect_flag_error(char *flag, char *value, const char *expected)
{
    expect_error(NULL, LIST("-p", LOCAL, flag, value), NOTHING, expected);
}

static void expect_yaml_error(const char *yaml, const char *expected)
{
    expect_error(yaml, LIST("-p", LOCAL), NOTHING, expected);
}

static void print_to(const struct config *config, char **text)
{
    size_t len;
    FILE *out = open_memstream(text, &len);
    config_print(config, out);
    fclose(out);
}

// ---- the door to the heap ----

Test(heap, memory_is_zeroed_counted_and_given_back)
{
    uint64_t live = heap_live();
    heap_lock_down();
    cr_assert(heap_calls() == 0);
    unsigned char *block = heap_alloc(64);
    for (int i = 0; i < 64; i++)
        cr_assert(block[i] == 0);
    block = heap_resize(block, 4096);
    cr_assert(heap_calls() == 2);
    cr_assert(heap_live() == live + 1);
    heap_free(block);
    heap_free(NULL);
    cr_assert(heap_calls() == 3);
    cr_assert(heap_live() == live);
}

Test(heap, strings_are_copied_and_formatted)
{
    uint64_t live = heap_live();
    char *copy = heap_copy("abc"), *text = heap_format("%s-%d", "x", 7), *none = heap_alloc(0);
    cr_expect_str_eq(copy, "abc");
    cr_expect_str_eq(text, "x-7");
    heap_free(copy);
    heap_free(text);
    heap_free(none);
    void *grown = heap_resize(NULL, 8);
    heap_free(grown);
    cr_expect(heap_live() == live);
}

// ---- what is accepted ----

Test(config, one_flag_is_enough)
{
    struct config *config = load_good(NULL, LIST("-p", LOCAL), NOTHING);
    cr_expect(config->listener_count == 1);
    cr_expect_str_eq(config->listener[0].text, "127.0.0.1:8080");
    cr_expect_str_eq(config->admin.text, "127.0.0.1:9464");
    cr_expect(config->admin_token == NULL);
    cr_expect(config->provider_count == 1);
    cr_expect(config->default_provider == 0);
    const struct config_provider *provider = &config->provider[0];
    cr_expect_str_eq(provider->name, "local");
    cr_expect(provider->kind == PROVIDER_OPENAI);
    cr_expect(provider->auth == AUTH_KEY);
    cr_expect(!provider->tls);
    cr_expect_str_eq(provider->host, "127.0.0.1");
    cr_expect_str_eq(provider->authority, "127.0.0.1:9000");
    cr_expect(provider->port == 9000);
    cr_expect_str_eq(provider->base_path, "/v1");
    cr_expect(provider->api_key == NULL);
    cr_expect(provider->address_count == 1);
    cr_expect_str_eq(provider->address[0].text, "127.0.0.1:9000");
    cr_expect(provider->connections_max == 0);
    cr_expect(provider->line == 0);
    config_free(config);
}

Test(config, defaults_are_those_of_the_header)
{
    struct config *config = load_good(NULL, LIST("-p", LOCAL), NOTHING);
    cr_expect(config->workers >= 1 && config->workers <= CONFIG_WORKERS_MAX);
    cr_expect(config->ring_entries == 1024);
    cr_expect(config->buffers == 1024);
    cr_expect(config->buffer_size == 16384);
    cr_expect(config->max_connections >= 1 && config->max_connections <= 100000);
    cr_expect(config->upstream_connections == 1024);
    cr_expect(config->upstream_idle == 100);
    cr_expect(config->max_body == 256 * MIB);
    cr_expect(config->peek_bytes == 262144);
    cr_expect(config->window_bytes == 262144);
    cr_expect(config->pending_max == 1024);
    cr_expect(config->timeout_connect_ms == 5000);
    cr_expect(config->timeout_first_byte_ms == 300000);
    cr_expect(config->timeout_idle_ms == 300000);
    cr_expect(config->timeout_total_ms == 0);
    cr_expect(config->timeout_head_ms == 30000);
    cr_expect(config->timeout_body_ms == 60000);
    cr_expect(config->timeout_keepalive_ms == 75000);
    cr_expect(config->timeout_upstream_idle_ms == 60000);
    cr_expect(config->drain_timeout_ms == 30000);
    cr_expect(config->log_format == LOG_TEXT);
    cr_expect(config->log_level == LOG_INFO);
    cr_expect(config->forwarded == FORWARDED_APPEND);
    cr_expect(config->via);
    cr_expect_str_eq(config->via_name, "tokenring");
    cr_expect(config->congestion == NULL);
    cr_expect(config->fast_path_tokens == 1000);
    cr_expect(config->listen_backlog == 4096);
    cr_expect(config->coalesce == CONFIG_AUTO);
    cr_expect(config->cache == CONFIG_OFF);
    cr_expect(config->cache_bytes == 256 * MIB);
    cr_expect(config->cache_ttl_ms == 3600000);
    cr_expect(config->tls_cert == NULL && config->tls_key == NULL && config->path == NULL);
    config_free(config);
}

Test(config, flags_take_their_value_four_ways)
{
    struct config *config = load_good(
        NULL, LIST("-p", LOCAL, "--pending", "7", "--buffers=64", "-w", "2", "-l127.0.0.1:81"),
        NOTHING);
    cr_expect(config->pending_max == 7);
    cr_expect(config->buffers == 64);
    cr_expect(config->workers == 2);
    cr_expect_str_eq(config->listener[0].text, "127.0.0.1:81");
    config_free(config);
}

Test(config, the_last_of_two_flags_wins)
{
    struct config *config = load_good(NULL, LIST("-p", LOCAL, "-w", "2", "-w", "3"), NOTHING);
    cr_expect(config->workers == 3);
    config_free(config);
}

Test(config, sizes_and_times_have_units)
{
    static const struct {
        char *size;
        uint64_t bytes;
    } sizes[] = {{"1", 1},        {"900", 900},       {"16K", 16384},      {"16k", 16384},
                 {"2M", 2 * MIB}, {"3G", 3072 * MIB}, {"1024G", MIB * MIB}};
    static const struct {
        char *time;
        uint32_t ms;
    } times[] = {{"1ms", 1}, {"500ms", 500}, {"30s", 30000}, {"5m", 300000}, {"2h", 7200000}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct config *config =
            load_good(NULL, LIST("-p", LOCAL, "--max-body", sizes[i].size), NOTHING);
        cr_expect(config->max_body == sizes[i].bytes, "%s", sizes[i].size);
        config_free(config);
    }
    for (size_t i = 0; i < COUNT(times); i++) {
        struct config *config =
            load_good(NULL, LIST("-p", LOCAL, "--timeout-idle", times[i].time), NOTHING);
        cr_expect(config->timeout_idle_ms == times[i].ms, "%s", times[i].time);
        config_free(config);
    }
}

Test(config, zero_needs_no_unit)
{
    struct config *config =
        load_good(NULL, LIST("-p", LOCAL, "--timeout-total", "0", "--drain-timeout=0"), NOTHING);
    cr_expect(config->timeout_total_ms == 0);
    cr_expect(config->drain_timeout_ms == 0);
    config_free(config);
}

Test(config, choices_and_switches)
{
    struct config *config = load_good(
        NULL,
        LIST("-p", LOCAL, "--log-format", "json", "--log-level=debug", "--forwarded", "off",
             "--via", "off", "--coalesce", "always", "--cache", "off", "--via-name", "edge-1",
             "--congestion", "bbr", "--tls-cert", "c.pem", "--tls-key", "k.pem"),
        NOTHING);
    cr_expect(config->log_format == LOG_JSON);
    cr_expect(config->log_level == LOG_DEBUG);
    cr_expect(config->forwarded == FORWARDED_OFF);
    cr_expect(!config->via);
    cr_expect(config->coalesce == CONFIG_ALWAYS);
    cr_expect_str_eq(config->via_name, "edge-1");
    cr_expect_str_eq(config->congestion, "bbr");
    cr_expect_str_eq(config->tls_cert, "c.pem");
    cr_expect_str_eq(config->tls_key, "k.pem");
    config_free(config);
}

Test(config, addresses_of_listeners)
{
    static const struct {
        char *typed;
        const char *text;
        int family;
    } rows[] = {
        {"127.0.0.1:8080", "127.0.0.1:8080", AF_INET},
        {"0.0.0.0:1", "0.0.0.0:1", AF_INET},
        {"[::1]:8080", "[::1]:8080", AF_INET6},
        {"[0:0::0:1]:65535", "[::1]:65535", AF_INET6},
        {"localhost:8080", "127.0.0.1:8080", AF_INET},
        {"unix:/run/x.sock", "unix:/run/x.sock", AF_UNIX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct config *config = load_good(NULL, LIST("-p", LOCAL, "-l", rows[i].typed), NOTHING);
        cr_expect(config->listener_count == 1);
        cr_expect_str_eq(config->listener[0].text, rows[i].text);
        cr_expect(config->listener[0].addr.any.sa_family == rows[i].family);
        cr_expect(!config->listener[0].dual_stack);
        cr_expect(config->listener[0].len > 0);
        config_free(config);
    }
}

Test(config, a_port_alone_is_all_addresses)
{
    struct config *config = load_good(NULL, LIST("-p", LOCAL, "-l", ":8080"), NOTHING);
    const struct config_address *all = &config->listener[0];
    cr_expect_str_eq(all->text, ":8080");
    cr_expect(all->dual_stack ? all->addr.any.sa_family == AF_INET6 && all->addr.v6.sin6_port
                              : all->addr.v4.sin_addr.s_addr == 0);
    config_free(config);
}

Test(config, listeners_may_be_many)
{
    struct config *config =
        load_good(NULL, LIST("-p", LOCAL, "-l", "127.0.0.1:1", "-l", "unix:/x"), NOTHING);
    cr_expect(config->listener_count == 2);
    cr_expect_str_eq(config->listener[1].text, "unix:/x");
    config_free(config);
}

Test(config, urls_of_providers)
{
    static const struct {
        char *flag;
        const char *host, *authority, *path;
        uint16_t port;
        bool tls;
    } rows[] = {
        {"a=openai+http://127.0.0.1", "127.0.0.1", "127.0.0.1", "", 80, false},
        {"a=openai+http://127.0.0.1:80/", "127.0.0.1", "127.0.0.1", "", 80, false},
        {"a=gemini+https://Api.Example.com/v1/", "api.example.com", "api.example.com", "/v1", 443,
         true},
        {"a=anthropic+https://api.example.com:8443/a/b", "api.example.com", "api.example.com:8443",
         "/a/b", 8443, true},
        {"a=openai+https://x:80", "x", "x:80", "", 80, true},
        {"a=ollama+http://[::1]:11434", "::1", "[::1]:11434", "", 11434, false},
        {"a=ollama+http://[::1]", "::1", "[::1]", "", 80, false},
        {"a=openai+unix:/run/vllm.sock", "/run/vllm.sock", "localhost", "", 0, false},
        {"a=openai+unix:/run/vllm.sock:/v1", "/run/vllm.sock", "localhost", "/v1", 0, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct config *config = load_good(NULL, LIST("-p", rows[i].flag), NOTHING);
        const struct config_provider *provider = &config->provider[0];
        cr_expect_str_eq(provider->host, rows[i].host);
        cr_expect_str_eq(provider->authority, rows[i].authority);
        cr_expect_str_eq(provider->base_path, rows[i].path);
        cr_expect(provider->port == rows[i].port, "%s", rows[i].flag);
        cr_expect(provider->tls == rows[i].tls, "%s", rows[i].flag);
        config_free(config);
    }
}

Test(config, names_wait_for_the_network_but_addresses_do_not)
{
    struct config *config = load_good(NULL,
                                      LIST("-p", "a=openai+http://name.invalid", "-p",
                                           "b=openai+http://[::1]:1", "-p", "c=openai+unix:/x"),
                                      NOTHING);
    cr_expect(config->provider[0].address_count == 0);
    cr_expect(config->provider[1].address_count == 1);
    cr_expect_str_eq(config->provider[1].address[0].text, "[::1]:1");
    cr_expect_str_eq(config->provider[2].address[0].text, "unix:/x");
    config_free(config);
}

Test(config, localhost_is_resolved)
{
    char *const argv[] = {"tokenring", "-p", "a=openai+http://localhost:9000"};
    struct config *config = config_load(3, argv, NOTHING, false, error, sizeof(error));
    cr_assert(config != NULL, "%s", error);
    cr_expect(config->provider[0].address_count >= 1);
    cr_expect(config_address_loopback(&config->provider[0].address[0]));
    config_free(config);
}

Test(config, a_name_that_leads_nowhere_is_told)
{
    char *const argv[] = {"tokenring", "-p", "a=openai+http://name.invalid"};
    static const char start[] = "--provider: provider a: cannot resolve name.invalid: ";
    cr_assert(config_load(3, argv, NOTHING, false, error, sizeof(error)) == NULL);
    cr_expect(strncmp(error, start, strlen(start)) == 0, "%s", error);
}

Test(config, a_file_sets_everything)
{
    struct config *config =
        load_good("listen: ['127.0.0.1:1', '[::1]:2']\n"
                  "admin: '127.0.0.1:3'\n"
                  "workers: 2\n"
                  "cpus: none\n"
                  "max_body: 1M\n"
                  "timeout_first_byte: 10s\n"
                  "via: off\n"
                  "log_level: warn\n"
                  "default_provider: b\n"
                  "providers:\n"
                  "  - {name: a, kind: openai, base_url: 'http://127.0.0.1:1'}\n"
                  "  - name: b\n"
                  "    kind: anthropic\n"
                  "    base_url: 'http://127.0.0.1:2/x'\n"
                  "    api_key: secret\n"
                  "    connections: 9\n",
                  NOTHING, NOTHING);
    cr_expect(config->listener_count == 2);
    cr_expect_str_eq(config->admin.text, "127.0.0.1:3");
    cr_expect(config->workers == 2);
    cr_expect(config->cpu[0] == -1);
    cr_expect(config->max_body == MIB);
    cr_expect(config->timeout_first_byte_ms == 10000);
    cr_expect(!config->via);
    cr_expect(config->log_level == LOG_WARN);
    cr_expect(config->provider_count == 2);
    cr_expect(config->default_provider == 1);
    cr_expect(config->provider[0].line == 11);
    cr_expect(config->provider[1].kind == PROVIDER_ANTHROPIC);
    cr_expect_str_eq(config->provider[1].api_key, "secret");
    cr_expect(config->provider[1].connections_max == 9);
    cr_expect_str_eq(config->path, file_path);
    config_free(config);
}

Test(config, an_empty_file_says_nothing)
{
    static const char *const files[] = {"", "# only words\n", "---\n"};
    for (size_t i = 0; i < 2; i++) {
        struct config *config = load_good(files[i], LIST("-p", LOCAL), NOTHING);
        cr_expect(config->buffers == 1024);
        config_free(config);
    }
}

Test(config, flag_beats_environment_beats_file)
{
    char *const env[] = {
        "TOKENRING_BUFFERS=64", "TOKENRING_PENDING=5",  "TOKENRING_LISTEN=127.0.0.1:5 unix:/env",
        "TOKENRING_WORKERS=",   "TOKENRING_NOT_OURS=x", NULL};
    struct config *config = load_good(PROVIDERS "buffers: 32\npending: 4\nring_entries: 64\n"
                                                "listen: ['127.0.0.1:9']\nworkers: 3\n",
                                      LIST("--buffers", "128"), env);
    cr_expect(config->buffers == 128);
    cr_expect(config->pending_max == 5);
    cr_expect(config->ring_entries == 64);
    cr_expect(config->workers == 3, "an empty variable is no variable");
    cr_expect(config->listener_count == 2, "a stronger list replaces a weaker one whole");
    cr_expect_str_eq(config->listener[1].text, "unix:/env");
    config_free(config);
}

Test(config, the_environment_alone_is_enough)
{
    char *const env[] = {
        "TOKENRING_PROVIDER=a=openai+http://127.0.0.1:1 b=gemini+http://127.0.0.1:2",
        "TOKENRING_PROVIDER_KEY=a=env:KEY",
        "KEY=k1",
        "TOKENRING_PROVIDER_AUTH=b=passthrough",
        "TOKENRING_DEFAULT_PROVIDER=b",
        NULL};
    struct config *config = load_good(NULL, NOTHING, env);
    cr_expect(config->provider_count == 2);
    cr_expect_str_eq(config->provider[0].api_key, "k1");
    cr_expect(config->provider[1].auth == AUTH_PASSTHROUGH);
    cr_expect(config->default_provider == 1);
    config_free(config);
}

Test(config, the_environment_may_name_the_file)
{
    char entry[128];
    struct config *config = load_good(PROVIDERS, NOTHING, NOTHING);
    config_free(config);
    snprintf(entry, sizeof(entry), "TOKENRING_CONFIG=%s", file_path); // gone by now
    char *const env[] = {entry, NULL};
    cr_assert(load(NULL, LIST("-p", LOCAL), env) == NULL);
    cr_expect(strncmp(error, "TOKENRING_CONFIG: cannot read /tmp/", 35) == 0, "%s", error);
}

Test(config, a_flag_replaces_a_provider_of_the_file_whole)
{
    struct config *config = load_good(
        "providers:\n  - {name: local, kind: ollama, base_url: 'http://127.0.0.1:1', api_key: k}\n",
        LIST("-p", LOCAL), NOTHING);
    cr_expect(config->provider_count == 1);
    cr_expect(config->provider[0].kind == PROVIDER_OPENAI);
    cr_expect(config->provider[0].api_key == NULL, "a key does not follow to another URL");
    config_free(config);
}

Test(config, keys_come_from_the_environment_and_from_files)
{
    char path[] = "/tmp/tokenring-key-XXXXXX", flag[80];
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, "from-file\n", 10) == 10);
    close(fd);
    snprintf(flag, sizeof(flag), "b=file:%s", path);
    struct config *config =
        load_good(NULL,
                  LIST("--provider-key", "a=env:KEY", "--provider-key", flag, "-p",
                       "a=openai+http://127.0.0.1:1", "-p", "b=openai+http://127.0.0.1:2"),
                  LIST("KEY=from-env"));
    unlink(path);
    cr_expect_str_eq(config->provider[0].api_key, "from-env");
    cr_expect_str_eq(config->provider[1].api_key, "from-file");
    cr_expect(config->default_provider == -1, "two providers, none of them named the default");
    config_free(config);
}

Test(config, variables_are_put_in_keys_and_urls)
{
    struct config *config = load_good("providers:\n"
                                      "  - name: a\n"
                                      "    kind: openai\n"
                                      "    base_url: http://${HOST}:${PORT}/v1\n"
                                      "    api_key: 'x-${KEY}-$${KEY}-$5'\n",
                                      NOTHING, LIST("HOST=127.0.0.1", "PORT=99", "KEY=k"));
    cr_expect_str_eq(config->provider[0].authority, "127.0.0.1:99");
    cr_expect_str_eq(config->provider[0].api_key, "x-k-${KEY}-$5");
    config_free(config);
}

Test(config, the_admin_token_opens_other_addresses)
{
    struct config *config =
        load_good(NULL, LIST("-p", LOCAL, "--admin", "0.0.0.0:9464", "--admin-token", "env:T"),
                  LIST("T=open-sesame"));
    cr_expect_str_eq(config->admin_token, "open-sesame");
    config_free(config);
    config = load_good(NULL, LIST("-p", LOCAL, "--admin", "unix:/run/admin"), NOTHING);
    cr_expect_str_eq(config->admin.text, "unix:/run/admin");
    config_free(config);
}

Test(config, workers_are_pinned_when_there_is_a_cpu_for_each)
{
    cpu_set_t allowed;
    cr_assert(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    struct config *config = load_good(NULL, LIST("-p", LOCAL, "-w", "1"), NOTHING);
    cr_expect(config->cpu[0] >= 0 && CPU_ISSET(config->cpu[0], &allowed));
    cr_expect(config->cpu[1] == -1);
    config_free(config);
    config = load_good(NULL, LIST("-p", LOCAL, "-w", "128"), NOTHING);
    cr_expect((config->cpu[127] >= 0) == (CPU_COUNT(&allowed) >= 128));
    config_free(config);
    config = load_good(NULL, LIST("-p", LOCAL, "-w", "1", "--cpus", "none"), NOTHING);
    cr_expect(config->cpu[0] == -1);
    config_free(config);
}

Test(config, a_list_of_cpus_gives_the_workers)
{
    cpu_set_t allowed;
    char list[32];
    int cpu = 0;
    cr_assert(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    snprintf(list, sizeof(list), "%d-%d", cpu, cpu);
    struct config *config = load_good(NULL, LIST("-p", LOCAL, "--cpus", list), NOTHING);
    cr_expect(config->workers == 1);
    cr_expect(config->cpu[0] == cpu);
    config_free(config);
    config = load_good(NULL, LIST("-p", LOCAL, "--cpus", list, "-w", "3"), NOTHING);
    cr_expect(config->cpu[0] == cpu && config->cpu[2] == cpu, "a short list starts over");
    cr_expect(config->cpu[3] == -1);
    config_free(config);
}

Test(config, connections_follow_the_limit_of_open_files)
{
    struct rlimit limit;
    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max = 1000;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct config *config = load_good(NULL, LIST("-p", LOCAL, "-w", "2"), NOTHING);
    cr_expect(config->max_connections == (1000 - 64 - 32) / 2);
    config_free(config);
    expect_error(
        NULL, LIST("-p", LOCAL, "-w", "2", "--max-connections", "5000"), NOTHING,
        "--max-connections: the hard limit of open files, 1000, leaves room for 904 connections; "
        "raise it (ulimit -Hn, LimitNOFILE=) or ask for fewer");
    expect_error(
        NULL, LIST("-p", LOCAL, "-w", "100"), NOTHING,
        "--max-connections: the hard limit of open files, 1000, leaves room for 0 connections; "
        "raise it (ulimit -Hn, LimitNOFILE=)");
}

Test(config, idle_connections_are_not_more_than_open_ones)
{
    struct config *config =
        load_good(NULL, LIST("-p", LOCAL, "--upstream-connections", "10"), NOTHING);
    cr_expect(config->upstream_connections == 10 && config->upstream_idle == 10);
    config_free(config);
}

static const char models_yaml[] =
    "providers:\n"
    "  - {name: openai, kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
    "  - {name: local, kind: ollama, base_url: 'http://127.0.0.1:2'}\n"
    "default_provider: openai\n"
    "models:\n"
    "  - name: small\n"
    "    targets: [{provider: local}]\n"
    "  - name: gpt-4o\n"
    "    strategy: balanced\n"
    "    targets:\n"
    "      - {provider: openai, model: gpt-4o-2024, weight: 3, price: {input: 2.50, output: 10}}\n"
    "      - {provider: local, model: 'llama3.1:70b', quality: 0.6}\n"
    "    fallback: [small, somebody-elses]\n";

Test(config, models_have_targets)
{
    struct config *config = load_good(models_yaml, NOTHING, NOTHING);
    cr_assert(config->model_count == 2);
    const struct config_model *model = config_model_find(config, "gpt-4o!", 6);
    cr_assert(model != NULL);
    cr_expect(model->line == 8 && model->target_count == 2 && model->strategy == STRATEGY_BALANCED);
    cr_expect(model->target[0].provider == 0 && model->target[0].weight == 3);
    cr_expect_str_eq(model->target[0].model, "gpt-4o-2024");
    cr_expect(model->target[0].priced && model->target[0].price_input_micros == 2500000);
    cr_expect(model->target[0].price_output_micros == 10000000);
    cr_expect(model->target[0].quality_micros == 1000000);
    cr_expect(model->target[1].provider == 1 && model->target[1].weight == 1);
    cr_expect(model->target[1].quality_micros == 600000 && !model->target[1].priced);
    cr_expect(model->fallback_count == 2);
    cr_expect_str_eq(model->fallback[1], "somebody-elses");
    config_free(config);
}

Test(config, models_and_providers_are_found_by_name)
{
    struct config *config = load_good(models_yaml, NOTHING, NOTHING);
    const struct config_model *model = config_model_find(config, "small", 5);
    cr_assert(model != NULL);
    cr_expect_str_eq(model->target[0].model, "small", "a target's model is the model's name");
    cr_expect(model->strategy == STRATEGY_WEIGHTED);
    cr_expect(config_model_find(config, "smal", 4) == NULL);
    cr_expect(config_model_find(config, "smalls", 6) == NULL);
    cr_expect(config_model_find(config, "", 0) == NULL);
    cr_expect(config_model_find(config, "zzz", 3) == NULL);
    cr_expect(config_provider_find(config, "local", 5) == 1);
    cr_expect(config_provider_find(config, "loca", 4) == -1);
    config_free(config);
}

Test(config, every_model_of_a_thousand_is_found)
{
    size_t len, found = 0;
    char *yaml, name[16];
    FILE *out = open_memstream(&yaml, &len);
    fputs(PROVIDERS "models:\n", out);
    for (int i = CONFIG_MODELS_MAX - 1; i >= 0; i--)
        fprintf(out, "  - {name: m%d, targets: [{provider: a}]}\n", i);
    fclose(out);
    struct config *config = load_good(yaml, NOTHING, NOTHING);
    for (int i = 0; i < CONFIG_MODELS_MAX; i++) {
        int name_len = snprintf(name, sizeof(name), "m%d", i);
        const struct config_model *model = config_model_find(config, name, (size_t)name_len);
        found += model && strcmp(model->name, name) == 0;
    }
    cr_expect(found == CONFIG_MODELS_MAX);
    config_free(config);
    free(yaml);
}

Test(config, aliases_are_followed)
{
    struct config *config =
        load_good("providers:\n"
                  "  - {name: &x a, kind: openai, base_url: &u 'http://127.0.0.1:1'}\n"
                  "  - {name: b, kind: openai, base_url: *u}\n"
                  "default_provider: *x\n",
                  NOTHING, NOTHING);
    cr_expect_str_eq(config->provider[1].authority, "127.0.0.1:1");
    cr_expect(config->default_provider == 0);
    config_free(config);
}

// ---- printing ----

Test(config, what_is_printed_is_read_again)
{
    char *first, *second;
    struct config *config = load_good(models_yaml,
                                      LIST("--congestion", "reno", "-l", ":81", "--via-name", "a'b",
                                           "--timeout-total", "90s", "-w", "1"),
                                      NOTHING);
    print_to(config, &first);
    config_free(config);
    config = load_good(first, NOTHING, NOTHING);
    print_to(config, &second);
    config_free(config);
    cr_expect_str_eq(second, first);
    cr_expect(strstr(first, "timeout_total: 90s\n") != NULL);
    cr_expect(strstr(first, "price: {input: 2.5, output: 10}, quality: 1}\n") != NULL);
    free(first);
    free(second);
}

Test(config, secrets_are_masked)
{
    char *text;
    struct config *config = load_good(
        NULL, LIST("-p", LOCAL, "--provider-key", "local=env:K", "--admin-token", "env:T"),
        LIST("K=sk-very-secret", "T=tok-very-secret"));
    print_to(config, &text);
    config_free(config);
    cr_expect(strstr(text, "very-secret") == NULL);
    cr_expect(strstr(text, "    api_key: \"***\"\n") != NULL);
    cr_expect(strstr(text, "admin_token: \"***\"\n") != NULL);
    free(text);
}

Test(config, help_names_every_option_in_100_columns)
{
    size_t len, count;
    char *text, flag[64];
    FILE *out = open_memstream(&text, &len);
    config_help(out);
    fclose(out);
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        snprintf(flag, sizeof(flag), "--%s %s", options[i].flag, options[i].argument);
        cr_expect(strstr(text, flag) != NULL, "%s", flag);
    }
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        cr_expect(strcspn(line, "\n") <= 100, "%.100s", line);
    free(text);
}

// ---- the table ----

Test(config, every_default_lies_within_its_bounds)
{
    size_t count;
    const struct config_option *options = config_options(&count);
    cr_assert(count >= 40);
    for (size_t i = 0; i < count; i++) {
        cr_expect(options[i].help && options[i].group && options[i].argument);
        cr_expect(options[i].min <= options[i].max);
        cr_expect((options[i].type == OPTION_OWN) == (options[i].read != NULL));
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(options[i].flag, options[j].flag);
    }
    // The defaults themselves went through the same reader when the other tests loaded.
}

Test(config, keys_are_flags_in_snake_case)
{
    size_t count;
    char key[64];
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (!options[i].key || (options[i].traits & OPTION_NESTED) || options[i].letter == 'p')
            continue;
        snprintf(key, sizeof(key), "%s", options[i].flag);
        for (char *c = key; *c; c++)
            *c = *c == '-' ? '_' : *c;
        cr_expect_str_eq(options[i].key, key);
    }
}

static const char *line_with(const char *text, const char *start, char *line, size_t len)
{
    const char *at = strstr(text, start);
    if (!at)
        return NULL;
    snprintf(line, len, "%.*s", (int)strcspn(at, "\n"), at);
    return line;
}

static void expect_cell(const char *line, const char *cell)
{
    char quoted[128];
    snprintf(quoted, sizeof(quoted), "`%s`", cell);
    cr_expect(strstr(line, quoted) != NULL, "docs/CONFIG.md lacks %s in: %s", quoted, line);
}

static void expect_bounds(const struct config_option *option, const char *line)
{
    char min[32], max[32], bounds[80];
    if (option->type == OPTION_SIZE) {
        config_format_size(option->min, min, sizeof(min));
        config_format_size(option->max, max, sizeof(max));
    } else if (option->type == OPTION_TIME) {
        config_format_time(option->min, min, sizeof(min));
        config_format_time(option->max, max, sizeof(max));
    } else if (option->type == OPTION_NUMBER) {
        snprintf(min, sizeof(min), "%llu", (unsigned long long)option->min);
        snprintf(max, sizeof(max), "%llu", (unsigned long long)option->max);
    } else {
        return;
    }
    snprintf(bounds, sizeof(bounds), "%s to %s", min, max);
    cr_expect(strstr(line, bounds) != NULL, "docs/CONFIG.md lacks \"%s\" in: %s", bounds, line);
}

// Each option has one row there: flag, key, variable, values, default, bounds.
Test(config, the_manual_has_every_option)
{
    const char *root = getenv("TOKENRING_SOURCE_ROOT");
    if (!root)
        cr_skip_test("TOKENRING_SOURCE_ROOT is not set");
    char path[4096], start[64], env[64], line[1024];
    static char text[256 * 1024];
    size_t count;
    snprintf(path, sizeof(path), "%s/docs/CONFIG.md", root);
    FILE *in = fopen(path, "r");
    cr_assert(in != NULL, "%s", path);
    text[fread(text, 1, sizeof(text) - 1, in)] = 0;
    fclose(in);
    const struct config_option *options = config_options(&count);
    for (size_t i = 0; i < count; i++) {
        snprintf(start, sizeof(start), "\n| `--%s`", options[i].flag);
        if (!line_with(text, start + 1, line, sizeof(line))) {
            cr_expect(false, "docs/CONFIG.md has no row for --%s", options[i].flag);
            continue;
        }
        config_option_env(&options[i], env, sizeof(env));
        expect_cell(line, env);
        if (options[i].key)
            expect_cell(line, options[i].key);
        if (options[i].standard)
            expect_cell(line, options[i].standard);
        expect_bounds(&options[i], line);
    }
}

// ---- mistakes on the command line ----

Test(config, no_provider_shows_how)
{
    expect_error(NULL, NOTHING, NOTHING,
                 "no provider: give one, as in -p local=openai+http://127.0.0.1:9000/v1, or list "
                 "providers in a file (-c FILE)");
}

Test(config, unknown_flags)
{
    expect_error(NULL, LIST("--worker", "3"), NOTHING,
                 "--worker: unknown flag; did you mean --workers?");
    expect_error(NULL, LIST("--wrokers=3"), NOTHING,
                 "--wrokers: unknown flag; did you mean --workers?");
    expect_error(NULL, LIST("--timeout", "3s"), NOTHING,
                 "--timeout: unknown flag; --help lists them");
    expect_error(NULL, LIST("--zzzzzzzz"), NOTHING, "--zzzzzzzz: unknown flag; --help lists them");
    expect_error(NULL, LIST("-x"), NOTHING, "-x: unknown flag; --help lists them");
    expect_error(NULL, LIST("serve"), NOTHING, "unexpected argument \"serve\"");
    expect_error(NULL, LIST("--"), NOTHING, "--: unknown flag; --help lists them");
}

Test(config, flags_without_a_value)
{
    expect_error(NULL, LIST("-w"), NOTHING, "--workers: needs a value: N|auto");
    expect_error(NULL, LIST("--admin", "--via", "on"), NOTHING,
                 "--admin: needs a value: ADDR:PORT|unix:PATH");
}

Test(config, numbers_out_of_bounds)
{
    static const struct {
        char *flag, *value;
        const char *error;
    } rows[] = {
        {"-w", "0", "--workers: 0 is out of bounds; 1 to 128"},
        {"-w", "129", "--workers: 129 is out of bounds; 1 to 128"},
        {"-w", "many", "--workers: expected a whole number or auto, got \"many\""},
        {"-w", "", "--workers: expected a whole number or auto, got \"\""},
        {"-w", "-1", "--workers: expected a whole number or auto, got \"-1\""},
        {"-w", "1.5", "--workers: expected a whole number or auto, got \"1.5\""},
        {"-w", "99999999999999999999",
         "--workers: expected a whole number or auto, got \"99999999999999999999\""},
        {"--buffers", "auto", "--buffers: expected a whole number, got \"auto\""},
        {"--buffers", "1000", "--buffers: 1000 is not a power of two; try 1024"},
        {"--buffers", "8", "--buffers: 8 is out of bounds; 16 to 32768"},
        {"--ring-entries", "100", "--ring-entries: 100 is not a power of two; try 128"},
        {"--ring-entries", "65536", "--ring-entries: 65536 is out of bounds; 64 to 32768"},
        {"--buffer-size", "5000", "--buffer-size: 5000 is not a multiple of 1K; try 5K"},
        {"--buffer-size", "128K", "--buffer-size: 128K is out of bounds; 4K to 64K"},
        {"--upstream-connections", "0", "--upstream-connections: 0 is out of bounds; 1 to 65535"},
        {"--max-connections", "1000001",
         "--max-connections: 1000001 is out of bounds; 1 to 1000000"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_flag_error(rows[i].flag, rows[i].value, rows[i].error);
}

Test(config, sizes_and_times_gone_wrong)
{
    static const struct {
        char *flag, *value;
        const char *error;
    } rows[] = {
        {"--max-body", "10X", "--max-body: unknown unit in \"10X\"; sizes take K, M or G"},
        {"--max-body", "10KB", "--max-body: unknown unit in \"10KB\"; sizes take K, M or G"},
        {"--max-body", "big", "--max-body: expected a size such as 16K, 256M or 1G, got \"big\""},
        {"--max-body", "0", "--max-body: 0 is out of bounds; 1 to 1024G"},
        {"--max-body", "9999999999999999999G",
         "--max-body: 9999999999999999999G is out of bounds; 1 to 1024G"},
        {"--timeout-idle", "30",
         "--timeout-idle: 30 has no unit; write 30s for seconds or 30ms for milliseconds"},
        {"--timeout-idle", "1.5s",
         "--timeout-idle: \"1.5s\" is not whole; use a smaller unit, as in 1500ms"},
        {"--timeout-idle", "30sec",
         "--timeout-idle: unknown unit in \"30sec\"; times take ms, s, m or h"},
        {"--timeout-idle", "soon",
         "--timeout-idle: expected a time such as 500ms, 30s or 5m, got \"soon\""},
        {"--timeout-idle", "0", "--timeout-idle: 0 is out of bounds; 1ms to 24h"},
        {"--timeout-idle", "25h", "--timeout-idle: 25h is out of bounds; 1ms to 24h"},
        {"--timeout-idle", "9999999999999999999h",
         "--timeout-idle: 9999999999999999999h is out of bounds; 1ms to 24h"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_flag_error(rows[i].flag, rows[i].value, rows[i].error);
}

Test(config, choices_gone_wrong)
{
    static const struct {
        char *flag, *value;
        const char *error;
    } rows[] = {
        {"--log-format", "xml", "--log-format: expected text|json, got \"xml\""},
        {"--log-level", "", "--log-level: expected error|warn|info|debug, got \"\""},
        {"--coalesce", "no", "--coalesce: expected off|auto|always, got \"no\""},
        {"--cache", "auto", "--cache: auto is not in this version yet; only off is"},
        {"--via", "maybe", "--via: expected on or off, got \"maybe\""},
        {"--via-name", "", "--via-name: 0 bytes long; expected 1 to 63"},
        {"--via-name", "a b", "--via-name: \"a b\" is no token; use letters, digits, - and ."},
        {"--congestion", "no/such",
         "--congestion: expected a name such as cubic, reno or bbr, got \"no/such\""},
        {"--tls-cert", "c.pem", "--tls-cert: needs --tls-key too"},
        {"--tls-key", "k.pem", "--tls-key: needs --tls-cert too"},
        {"--tls-key", "k\nk", "--tls-key: control characters in \"k?k\""},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_flag_error(rows[i].flag, rows[i].value, rows[i].error);
}

Test(config, listeners_gone_wrong)
{
    static const char form[] =
        "expected ADDR:PORT, [ADDR]:PORT for IPv6, :PORT for all addresses, or unix:PATH";
    static const char address[] = "expected a numeric address, as in 127.0.0.1:8080 or [::1]:8080";
    static const char path[] = "a socket path has 1 to 107 bytes and no control characters";
    static const char port[] = "the port must be 1 to 65535";
    static const char brackets[] =
        "an IPv6 address goes in brackets, with a port, as in [::1]:8080";
    const struct {
        char *value;
        const char *why;
    } rows[] = {
        {"8080", form},
        {"", form},
        {"http://127.0.0.1:8080", form},
        {"127.0.0.1:", port},
        {"127.0.0.1:0", port},
        {"127.0.0.1:65536", port},
        {"127.0.0.1:80x", port},
        {"::1:8080", brackets},
        {"::1", brackets},
        {"[::1]", brackets},
        {"[::g]:1", address},
        {"[127.0.0.1]:1", address},
        {"example.com:1", address},
        {"256.0.0.1:1", address},
        {"unix:", path},
    };
    char line[512];
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(line, sizeof(line), "--listen: \"%s\": %s", rows[i].value, rows[i].why);
        expect_flag_error("-l", rows[i].value, line);
        snprintf(line, sizeof(line), "--admin: \"%s\": %s", rows[i].value, rows[i].why);
        expect_flag_error("--admin", rows[i].value, line);
    }
}

Test(config, listeners_twice_or_too_many)
{
    char *flags[2 * CONFIG_LISTENERS_MAX + 5] = {"-p", LOCAL};
    char values[CONFIG_LISTENERS_MAX + 1][24];
    expect_error(NULL, LIST("-p", LOCAL, "-l", ":80", "-l", "*:80"), NOTHING,
                 "--listen: :80 is given twice");
    for (int i = 0; i <= CONFIG_LISTENERS_MAX; i++) {
        snprintf(values[i], sizeof(values[i]), "--listen=127.0.0.1:%d", i + 1);
        flags[2 + i] = values[i];
    }
    expect_error(NULL, flags, NOTHING, "--listen: more than 16 addresses");
}

Test(config, the_admin_address_is_guarded)
{
    expect_flag_error(
        "--admin", "0.0.0.0:9464",
        "--admin: 0.0.0.0:9464 is not loopback: add --admin-token env:VAR or file:PATH");
    expect_flag_error("--admin", ":9464",
                      "--admin: :9464 is not loopback: add --admin-token env:VAR or file:PATH");
    expect_flag_error(
        "--admin", "[::ffff:10.0.0.1]:1",
        "--admin: [::ffff:10.0.0.1]:1 is not loopback: add --admin-token env:VAR or file:PATH");
    expect_flag_error("--admin", "127.0.0.1:8080",
                      "--admin: 127.0.0.1:8080 is where clients connect; give another port");
    expect_error(
        PROVIDERS "\nadmin: 10.1.2.3:9464\n", NOTHING, NOTHING,
        "FILE:4: admin: 10.1.2.3:9464 is not loopback: add --admin-token env:VAR or file:PATH");
}

Test(config, provider_flags_gone_wrong)
{
    static const struct {
        char *value;
        const char *error;
    } rows[] = {
        {"http://x",
         "--provider: expected NAME=KIND+URL, as in local=openai+http://127.0.0.1:9000/v1"},
        {"a=http://x",
         "--provider: expected NAME=KIND+URL, as in a=openai+http://127.0.0.1:9000/v1"},
        {"a=grok+http://x", "--provider: expected openai|anthropic|gemini|ollama, got \"grok\""},
        {"A=openai+http://x",
         "--provider: bad provider name \"A\"; use a-z, 0-9, - and _, a letter or digit first"},
        {"-a=openai+http://x",
         "--provider: bad provider name \"-a\"; use a-z, 0-9, - and _, a letter or digit first"},
        {"v1=openai+http://x", "--provider: a provider cannot be called v1: paths begin with that"},
        {"v1beta=openai+http://x",
         "--provider: a provider cannot be called v1beta: paths begin with that"},
        {"api=ollama+http://x",
         "--provider: a provider cannot be called api: paths begin with that"},
        {"health=openai+http://x",
         "--provider: a provider cannot be called health: paths begin with that"},
        {"admin=openai+http://x",
         "--provider: a provider cannot be called admin: paths begin with that"},
        {"openai=ollama+http://x",
         "--provider: a provider called openai must be of kind openai, not ollama"},
        {"anthropic=openai+http://x",
         "--provider: a provider called anthropic must be of kind anthropic, not openai"},
        {"a=openai+ftp://x",
         "--provider: expected http://HOST, https://HOST or unix:PATH as the URL"},
        {"a=openai+x:9000",
         "--provider: expected http://HOST, https://HOST or unix:PATH as the URL"},
        {"a=openai+http://", "--provider: expected a host of 1 to 255 characters in the URL"},
        {"a=openai+http:///v1", "--provider: expected a host of 1 to 255 characters in the URL"},
        {"a=openai+http://x:", "--provider: the port in the URL must be 1 to 65535"},
        {"a=openai+http://x:0", "--provider: the port in the URL must be 1 to 65535"},
        {"a=openai+http://x:123456789", "--provider: the port in the URL must be 1 to 65535"},
        {"a=openai+http://me:secret@x",
         "--provider: no user or password in a URL; use api_key or --provider-key"},
        {"a=openai+http://x/v1?k=v",
         "--provider: no ? and no # in the URL; a path is all it may end with"},
        {"a=openai+http://x y",
         "--provider: blanks, control characters or bytes beyond ASCII in the URL"},
        {"a=openai+http://x\r\nHost:y",
         "--provider: blanks, control characters or bytes beyond ASCII in the URL"},
        {"a=openai+http://x%41", "--provider: bad host \"x%41\" in the URL"},
        {"a=openai+http://[::1", "--provider: bad host \"[\" in the URL"},
        {"a=openai+http://[::g]", "--provider: bad host \"::g\" in the URL"},
        {"a=openai+http://[1:2]", "--provider: bad address \"[1:2]\" in the URL"},
        {"a=openai+http://[::1]x", "--provider: bad address \"[::1]x\" in the URL"},
        {"a=openai+unix:", "--provider: a socket path has 1 to 107 bytes"},
        {"local=openai+http://x", "--provider: provider local is given twice"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_flag_error("-p", rows[i].value, rows[i].error);
}

Test(config, path_roots_may_be_worn_by_their_own_kind)
{
    struct config *config = load_good(
        NULL,
        LIST("-p", "openai=openai+http://127.0.0.1", "-p", "anthropic=anthropic+http://127.0.0.1"),
        NOTHING);
    cr_expect(config->provider_count == 2);
    config_free(config);
}

Test(config, default_provider_must_exist)
{
    expect_flag_error(
        "--default-provider", "lokal",
        "--default-provider: no provider is called \"lokal\"; did you mean \"local\"?");
    expect_flag_error("--default-provider", "zzz",
                      "--default-provider: no provider is called \"zzz\"");
    expect_error(PROVIDERS "default_provider: b2\n", NOTHING, NOTHING,
                 "FILE:3: default_provider: no provider is called \"b2\"");
}

Test(config, keys_gone_wrong_are_not_shown)
{
    static const struct {
        char *flag, *value;
        const char *error;
    } rows[] = {
        {"--provider-key", "sk-literal", "--provider-key: expected NAME=env:VAR|file:PATH"},
        {"--provider-key", "local=sk-literal",
         "--provider-key: expected env:VAR or file:PATH; a key itself is never given here"},
        {"--provider-key", "local=env:sk-literal",
         "--provider-key: no environment variable of that name is set; after env: goes the name of "
         "the "
         "variable, not the key"},
        {"--provider-key", "local=file:sk-literal",
         "--provider-key: cannot read the file: No such file or directory; after file: goes a "
         "path, not "
         "the key"},
        {"--provider-key", "local=env:NONE",
         "--provider-key: environment variable NONE is not set; export it"},
        {"--provider-key", "local=env:EMPTY",
         "--provider-key: environment variable EMPTY is empty"},
        {"--provider-key", "local=env:SPACE",
         "--provider-key: the key holds blanks, control characters or bytes beyond ASCII"},
        {"--provider-key", "local=file:/no/such",
         "--provider-key: cannot read /no/such: No such file or directory"},
        {"--provider-key", "local=file:/tmp", "--provider-key: cannot read /tmp: Is a directory"},
        {"--provider-key", "other=env:KEY", "--provider-key: no provider is called \"other\""},
        {"--provider-auth", "local=oauth",
         "--provider-auth: expected key|passthrough, got \"oauth\""},
        {"--admin-token", "literal",
         "--admin-token: expected env:VAR or file:PATH; a key itself is never given here"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_error(NULL, LIST("-p", LOCAL, rows[i].flag, rows[i].value),
                     LIST("EMPTY=", "KEY=k", "SPACE=a b"), rows[i].error);
}

Test(config, a_key_and_passthrough_exclude_each_other)
{
    expect_error(
        NULL,
        LIST("-p", LOCAL, "--provider-key", "local=env:K", "--provider-auth", "local=passthrough"),
        LIST("K=k"),
        "--provider: provider local passes the client's credentials on, so it takes no key; "
        "drop one of the two");
}

Test(config, cpus_gone_wrong)
{
    static const char form[] = "--cpus: expected CPUs as in 0,2-3, or auto, or none; got \"%s\"";
    static char *const bad[] = {"", "x", "0,", "0-", "3-2", "0;1", "99999", "-1"};
    char line[160];
    for (size_t i = 0; i < COUNT(bad); i++) {
        snprintf(line, sizeof(line), form, bad[i]);
        expect_flag_error("--cpus", bad[i], line);
    }
    expect_flag_error("--cpus", "0,0", "--cpus: CPU 0 is given twice");
    expect_flag_error("--cpus", "1023", "--cpus: CPU 1023 is not there, or not for this process");
}

Test(config, mistakes_in_the_environment_name_the_variable)
{
    expect_error(
        NULL, LIST("-p", LOCAL), LIST("TOKENRING_TIMEOUT_IDLE=30"),
        "TOKENRING_TIMEOUT_IDLE: 30 has no unit; write 30s for seconds or 30ms for milliseconds");
    expect_error(
        NULL, LIST("-p", LOCAL), LIST("TOKENRING_LISTEN=:80 :81,:82"),
        "TOKENRING_LISTEN: \":81,:82\": an IPv6 address goes in brackets, with a port, as in "
        "[::1]:8080");
    expect_error(
        NULL, LIST("-p", LOCAL), LIST("TOKENRING_ADMIN_TOKEN=literal"),
        "TOKENRING_ADMIN_TOKEN: expected env:VAR or file:PATH; a key itself is never given here");
}

Test(config, a_window_holds_a_buffer)
{
    expect_error(
        NULL, LIST("-p", LOCAL, "--window", "8K"), NOTHING,
        "--window: 8192 bytes are less than one buffer of 16384; raise it or lower --buffer-size");
}

// ---- mistakes in the file ----

Test(config, files_that_cannot_be_read)
{
    expect_error(NULL, LIST("-c", "/no/such"), NOTHING,
                 "--config: cannot read /no/such: No such file or directory");
    expect_error(NULL, LIST("-c", "/tmp"), NOTHING, "--config: cannot read /tmp: Is a directory");
    expect_error(NULL, LIST("-c", ""), NOTHING, "--config: 0 bytes long; expected 1 to 4095");
}

Test(config, files_larger_than_the_bound)
{
    char *yaml = calloc(1, (4 << 20) + 2);
    memset(yaml, '#', (4 << 20) + 1);
    cr_assert(load(yaml, LIST("-p", LOCAL), NOTHING) == NULL);
    cr_expect(strstr(error, ": larger than 4M") != NULL, "%s", error);
    free(yaml);
}

Test(config, not_yaml)
{
    expect_yaml_error("listen: [\n",
                      "FILE:2: did not find expected node content while parsing a flow node");
    expect_yaml_error("a: 1\n  b: 2\n", "FILE:2: mapping values are not allowed in this context");
    expect_yaml_error(
        "workers: 2\nvia: @x\n",
        "FILE:2: found character that cannot start any token while scanning for the next token");
    expect_yaml_error("via: *x\n", "FILE:1: found undefined alias");
    expect_yaml_error("workers: 2\n---\nvia: on\n", "FILE:3: a second document; a file holds one");
    expect_yaml_error("- a\n", "FILE:1: expected a mapping of keys and values, not a list");
    expect_yaml_error("\n\nword\n", "FILE:3: expected a mapping of keys and values, not one value");
}

Test(config, unknown_keys)
{
    expect_yaml_error("via: on\nworker: 3\n",
                      "FILE:2: unknown key \"worker\"; did you mean \"workers\"?");
    expect_yaml_error("timeout-idle: 3s\n",
                      "FILE:1: unknown key \"timeout-idle\"; did you mean \"timeout_idle\"?");
    expect_yaml_error("config: x\n", "FILE:1: unknown key \"config\"");
    expect_yaml_error("<<: {via: on}\n", "FILE:1: unknown key \"<<\"");
    expect_yaml_error("providers[].api_key: x\n", "FILE:1: unknown key \"providers[].api_key\"");
    expect_yaml_error("? [a]\n: b\n", "FILE:1: expected a key, not a list");
    expect_yaml_error("\"wo\\0rkers\": 2\n", "FILE:1: unknown key \"wo\"");
    expect_yaml_error("\"workers\\0\": 2\n",
                      "FILE:1: unknown key \"workers\"; did you mean \"workers\"?");
}

Test(config, keys_given_twice)
{
    expect_yaml_error("workers: 2\nvia: on\nworkers: 3\n",
                      "FILE:3: \"workers\" is given twice; first on line 1");
    expect_yaml_error("providers:\n  - {name: a,\n     kind: openai, kind: openai}\n",
                      "FILE:3: \"kind\" is given twice of a provider; first on line 3");
}

Test(config, wrong_types)
{
    expect_yaml_error("workers: [1]\n", "FILE:1: workers: expected one value, not a list");
    expect_yaml_error("via: on\nlog_level: {a: b}\n",
                      "FILE:2: log_level: expected one value, not a mapping");
    expect_yaml_error("workers:\n",
                      "FILE:1: workers: has no value; leave the key out for the default");
    expect_yaml_error("workers: ~\n",
                      "FILE:1: workers: has no value; leave the key out for the default");
    expect_yaml_error("workers: null\n",
                      "FILE:1: workers: has no value; leave the key out for the default");
    expect_yaml_error("listen: []\n",
                      "FILE:1: listen: the list is empty; leave the key out for the default");
    expect_yaml_error("listen:\n  - ':80'\n  - [a]\n",
                      "FILE:3: listen: expected one value, not a list");
    expect_yaml_error("via: !env ON\n", "FILE:1: via: the tag !env has no meaning here");
    expect_yaml_error("via_name: \"a\\0b\"\n", "FILE:1: via_name: a NUL byte in the value");
    expect_yaml_error("providers: x\n", "FILE:1: providers: expected a list, not one value");
    expect_yaml_error("models: {a: b}\n", "FILE:1: models: expected a list, not a mapping");
}

Test(config, wrong_values)
{
    expect_yaml_error("workers: many\n",
                      "FILE:1: workers: expected a whole number or auto, got \"many\"");
    expect_yaml_error("\n\nbuffers: 100\n", "FILE:3: buffers: 100 is not a power of two; try 128");
    expect_yaml_error(
        "timeout_head: 5\n",
        "FILE:1: timeout_head: 5 has no unit; write 5s for seconds or 5ms for milliseconds");
    expect_yaml_error("max_body: 1T\n",
                      "FILE:1: max_body: unknown unit in \"1T\"; sizes take K, M or G");
    expect_yaml_error("listen:\n  - ':80'\n  - ':99999'\n",
                      "FILE:3: listen: \":99999\": the port must be 1 to 65535");
    expect_yaml_error("cache: always\n",
                      "FILE:1: cache: always is not in this version yet; only off is");
    expect_yaml_error("via_name: a/b\n",
                      "FILE:1: via_name: \"a/b\" is no token; use letters, digits, - and .");
    expect_yaml_error(
        "admin_token: literal\n",
        "FILE:1: admin_token: expected env:VAR or file:PATH; a key itself is never given here");
}

Test(config, true_and_no_are_switches_too)
{
    struct config *config = load_good(PROVIDERS "via: no\n", NOTHING, NOTHING);
    cr_expect(!config->via);
    config_free(config);
}

static void expect_provider_error(const char *fields, const char *expected)
{
    char yaml[1024];
    snprintf(yaml, sizeof(yaml), "providers:\n  - name: a\n    kind: openai\n%s", fields);
    expect_error(yaml, NOTHING, LIST("EMPTY=", "BAD=a b"), expected);
}

Test(config, providers_of_the_file_gone_wrong)
{
    expect_provider_error("", "FILE:2: providers: a provider needs a base_url");
    expect_provider_error("    url: x\n", "FILE:4: unknown key \"url\" of a provider");
    expect_provider_error(
        "    base-url: x\n",
        "FILE:4: unknown key \"base-url\" of a provider; did you mean \"base_url\"?");
    expect_provider_error(
        "    base_url: x\n",
        "FILE:4: base_url: expected http://HOST, https://HOST or unix:PATH as the URL");
    expect_provider_error("    base_url: http://x\n    auth: none\n",
                          "FILE:5: auth: expected key|passthrough, got \"none\"");
    expect_provider_error("    base_url: http://x\n    connections: 0\n",
                          "FILE:5: connections: 0 is out of bounds; 1 to 65535");
    expect_provider_error("    base_url: http://x\n    connections: all\n",
                          "FILE:5: connections: expected a whole number, got \"all\"");
    expect_provider_error(
        "    base_url: http://x\n  - {name: a, kind: openai, base_url: http://y}\n",
        "FILE:5: name: provider a is given twice");
    expect_provider_error(
        "    base_url: http://x\n    api_key: k\n    auth: passthrough\n",
        "FILE:2: provider a passes the client's credentials on, so it takes no key; drop "
        "one of the two");
    expect_error("providers:\n  - {name: api, kind: ollama, base_url: http://x}\n", NOTHING,
                 NOTHING, "FILE:2: name: a provider cannot be called api: paths begin with that");
    expect_error("providers:\n  - {name: a, kind: x, base_url: http://x}\n", NOTHING, NOTHING,
                 "FILE:2: kind: expected openai|anthropic|gemini|ollama, got \"x\"");
}

Test(config, variables_gone_wrong)
{
    expect_provider_error(
        "    base_url: http://${HOST}/v1\n",
        "FILE:4: base_url: environment variable HOST is not set; export it, or drop ${HOST}");
    expect_provider_error(
        "    base_url: http://x\n    api_key: \"${OPENAI_API_KEY}\"\n",
        "FILE:5: api_key: environment variable OPENAI_API_KEY is not set; export it, or drop "
        "${OPENAI_API_KEY}");
    expect_provider_error("    base_url: http://x\n    api_key: ${EMPTY}\n",
                          "FILE:5: api_key: environment variable EMPTY is empty");
    expect_provider_error(
        "    base_url: http://x\n    api_key: ${BAD}\n",
        "FILE:5: api_key: the key holds blanks, control characters or bytes beyond ASCII");
    expect_provider_error(
        "    base_url: http://x\n    api_key: ${open\n",
        "FILE:5: api_key: expected a variable as in ${NAME}; $${ stands for ${ itself");
    expect_provider_error(
        "    base_url: http://x\n    api_key: ${}\n",
        "FILE:5: api_key: expected a variable as in ${NAME}; $${ stands for ${ itself");
    expect_provider_error("    base_url: http://x\n    api_key: ''\n",
                          "FILE:5: api_key: the key is empty; leave it out if there is none");
}

Test(config, too_many_providers)
{
    size_t len;
    char *yaml;
    FILE *out = open_memstream(&yaml, &len);
    fputs("providers:\n", out);
    for (int i = 0; i < CONFIG_PROVIDERS_MAX; i++)
        fprintf(out, "  - {name: p%d, kind: openai, base_url: http://x}\n", i);
    fclose(out);
    expect_error(yaml, LIST("-p", LOCAL), NOTHING, "--provider: more than 64 providers");
    free(yaml);
}

// Models begin on line 3, behind the provider `a`.
static void expect_models_error(const char *models, const char *expected)
{
    char yaml[2048];
    snprintf(yaml, sizeof(yaml), PROVIDERS "models:\n%s", models);
    expect_error(yaml, NOTHING, NOTHING, expected);
}

Test(config, models_gone_wrong)
{
    expect_models_error("  - {targets: [{provider: a}]}\n", "FILE:4: models: a model needs a name");
    expect_models_error("  - name: m\n", "FILE:4: models: a model needs targets");
    expect_models_error("  - {name: m, targets: []}\n",
                        "FILE:4: targets: the list is empty; leave the key out for the default");
    expect_models_error("  - {name: '', targets: [{provider: a}]}\n",
                        "FILE:4: name: a model name has 1 to 255 bytes and no control characters");
    expect_models_error("  - {name: m, target: [{provider: a}]}\n",
                        "FILE:4: unknown key \"target\" of a model; did you mean \"targets\"?");
    expect_models_error(
        "  - {name: m, strategy: best, targets: [{provider: a}]}\n",
        "FILE:4: strategy: expected weighted|balanced|cost|latency|quality|task, got \"best\"");
    expect_models_error(
        "  - {name: m, targets: [{provider: a}]}\n  - {name: m, targets: [{provider: a}]}\n",
        "FILE:5: model \"m\" is given twice; first on line 4");
    expect_models_error("  - {name: m, targets: [{provider: a}], fallback: [m]}\n",
                        "FILE:4: fallback: model \"m\" falls back to itself");
}

Test(config, names_have_no_hidden_characters)
{
    static const char *const hidden[] = {"\\u0085", "\\u2028", "\\uFEFF", "\\x07", "\\u009f"};
    char yaml[128];
    for (size_t i = 0; i < COUNT(hidden); i++) {
        snprintf(yaml, sizeof(yaml), "  - {name: \"m%s\", targets: [{provider: a}]}\n", hidden[i]);
        expect_models_error(
            yaml, "FILE:4: name: a model name has 1 to 255 bytes and no control characters");
    }
    struct config *config =
        load_good(PROVIDERS "models: [{name: \"\u6a21\u578b\", targets: [{provider: a}]}]\n",
                  NOTHING, NOTHING);
    cr_expect(config_model_find(config, "\u6a21\u578b", 6) != NULL);
    config_free(config);
}

Test(config, targets_gone_wrong)
{
#define TARGET(fields) "  - name: m\n    targets:\n      - {" fields "}\n"
    expect_models_error(TARGET("model: x"), "FILE:6: targets: a target needs a provider");
    expect_models_error(TARGET("provider: aa"), "FILE:6: provider: no provider is called \"aa\"");
    expect_models_error(TARGET("provider: a, weight: -1"),
                        "FILE:6: weight: expected a whole number, got \"-1\"");
    expect_models_error(TARGET("provider: a, weight: 10001"),
                        "FILE:6: weight: 10001 is out of bounds; 0 to 10000");
    expect_models_error(TARGET("provider: a, weight: 0"),
                        "FILE:6: targets: all weights are 0; one target must take traffic");
    expect_models_error(TARGET("provider: a, quality: 1.1"),
                        "FILE:6: quality: 1.1 is out of bounds; 0 to 1");
    expect_models_error(TARGET("provider: a, quality: good"),
                        "FILE:6: quality: expected a number such as 0.5, got \"good\"");
    expect_models_error(TARGET("provider: a, quality: 0.1234567"),
                        "FILE:6: quality: \"0.1234567\" has more than six places behind the point");
    expect_models_error(TARGET("provider: a, price: 3"),
                        "FILE:6: expected a mapping of keys and values of a price, not one value");
    expect_models_error(TARGET("provider: a, price: {input: 3}"),
                        "FILE:6: price: a price needs an output, in USD per 1M tokens");
    expect_models_error(TARGET("provider: a, price: {input: 1., output: 2}"),
                        "FILE:6: input: expected a number such as 0.5, got \"1.\"");
#undef TARGET
}

Test(config, fallback_needs_somebody_to_serve_it)
{
    expect_error(
        "providers:\n"
        "  - {name: a, kind: openai, base_url: http://x}\n"
        "  - {name: b, kind: openai, base_url: http://y}\n"
        "models:\n"
        "  - {name: m, targets: [{provider: a}], fallback: [other]}\n",
        NOTHING, NOTHING,
        "FILE:5: model \"m\" falls back to \"other\", which is not listed, and there is no "
        "default_provider for it");
}

Test(config, too_many_models_and_targets)
{
    size_t len;
    char *yaml;
    FILE *out = open_memstream(&yaml, &len);
    fputs(PROVIDERS "models:\n", out);
    for (int i = 0; i <= CONFIG_MODELS_MAX; i++)
        fprintf(out, "  - {name: m%d, targets: [{provider: a}]}\n", i);
    fclose(out);
    expect_error(yaml, NOTHING, NOTHING, "FILE:4: models: 1025 items; at most 1024 are allowed");
    free(yaml);
    out = open_memstream(&yaml, &len);
    fputs("  - name: m\n    targets:\n", out);
    for (int i = 0; i <= CONFIG_TARGETS_MAX; i++)
        fputs("      - {provider: a}\n", out);
    fclose(out);
    expect_models_error(yaml, "FILE:6: targets: 17 items; at most 16 are allowed");
    free(yaml);
}

Test(config, a_node_that_holds_itself_is_no_danger)
{
    expect_yaml_error("models: &m [*m]\n",
                      "FILE:1: expected a mapping of keys and values of a model, not a list");
    expect_yaml_error("listen: &l [*l]\n", "FILE:1: listen: expected one value, not a list");
}

Test(config, an_error_is_one_line_and_fits)
{
    char *const argv[] = {"tokenring", "-p", LOCAL, "--log-format", "a\nb\033[31m"};
    char small[24];
    cr_assert(config_load(5, argv, NOTHING, true, error, sizeof(error)) == NULL);
    cr_expect_str_eq(error, "--log-format: expected text|json, got \"a?b?[31m\"");
    cr_assert(config_load(5, argv, NOTHING, true, small, sizeof(small)) == NULL);
    cr_expect_str_eq(small, "--log-format: expected ");
}

Test(config, free_leaves_nothing)
{
    uint64_t live = heap_live();
    struct config *config = load_good(models_yaml, LIST("--congestion", "reno"), NOTHING);
    cr_expect(heap_live() > live);
    config_free(config);
    config_free(NULL);
    cr_expect(heap_live() == live);
}
