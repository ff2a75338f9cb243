// SPDX-License-Identifier: MIT
//
// tokenring: the gateway's command line.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config.h"
#include "engine/control.h"
#include "engine/gateway.h"
#include "engine/io.h"
#include "engine/route.h"
#include "proto/peek.h"
#include "proto/tls.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, REQUEST_MAX = 64 * 1024 * 1024 };

static void usage(FILE *out)
{
    fputs("Usage: tokenring [serve] [FLAGS]\n"
          "       tokenring check [FLAGS]            validate, print settings and what they cost\n"
          "       tokenring route [FLAGS] < BODY     explain where this request would go\n"
          "       tokenring version                  versions and io_uring features\n"
          "\n"
          "A drop-in LLM gateway. The shortest useful start:\n"
          "  tokenring -p local=openai+http://127.0.0.1:9000/v1\n"
          "and point an OpenAI SDK's base URL at http://127.0.0.1:8080/v1.\n"
          "\n"
          "Every flag is also a key of the config file (-c FILE) and an environment variable\n"
          "TOKENRING_<FLAG>; a flag beats the environment, which beats the file.\n"
          "\n",
          out);
    config_help(out);
    fputs("\nExit status: 0 success, 1 failure, 2 usage or configuration error.\n", out);
}

static int version(void)
{
    printf("tokenring %s\n", TOKENRING_VERSION);
    char error[256];
    struct io_features features;
    if (!io_probe(&features, error, sizeof error)) {
        fprintf(stderr, "tokenring: %s\n", error);
        return EXIT_FAILED;
    }
    printf("io_uring: %s\n", features.text);
    printf("TLS: %s\n", tls_library_name());
    if (!tls_library_is_fast())
        fprintf(stderr,
                "tokenring: this wolfSSL has no assembly: for fast TLS run tools/wolfssl and "
                "build again\n");
    return EXIT_OK;
}

// Sockets are what a gateway is made of: take what the hard limit allows.
static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static struct config *load(int argc, char **argv, bool no_network)
{
    char error[1024];
    struct config *config = config_load(argc, argv, environ, no_network, error, sizeof error);
    if (!config)
        fprintf(stderr, "tokenring: %s\n", error);
    return config;
}

static int serve(int argc, char **argv, char **program_argv)
{
    raise_fd_limit();
    struct config *config = load(argc, argv, false);
    if (!config)
        return EXIT_USAGE;
    struct control_start start = {
        .config = config, .argc = argc, .argv = argv, .program_argv = program_argv};
    int status = control_run(&start);
    config_free(config);
    return status;
}

// ------------------------------------------------------------------------------------------ check

static void print_size(const char *name, uint64_t bytes)
{
    printf("#   %-28s %10.1f MiB\n", name, (double)bytes / (1024 * 1024));
}

static int check(int argc, char **argv)
{
    raise_fd_limit();
    struct config *config = load(argc, argv, true);
    if (!config)
        return EXIT_USAGE;
    config_print(config, stdout);
    struct gateway_budget budget;
    gateway_budget(&budget, config);
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("\n# Budget per worker (address space, used as it is touched)\n");
    print_size("receive buffers", budget.receive_bytes);
    print_size("write buffers", budget.write_bytes);
    print_size("large buffers", budget.large_bytes);
    print_size("connections", budget.connection_bytes);
    print_size("flights", budget.flight_bytes);
    print_size("segments", budget.segment_bytes);
    print_size("ring", budget.ring_bytes);
    print_size("sum", budget.total_bytes);
    print_size("all workers", budget.total_bytes * config->workers);
    printf("#   bytes per idle connection    %10u\n", budget.connection_size);
    printf("#   bytes per open stream        %10u\n",
           budget.connection_size * 2 + budget.flight_size);
    printf("#   ring entries                 %10u submission, %u completion\n", budget.sq_entries,
           budget.cq_entries);
    printf("#   descriptors                  %10u at most; the process may open %llu\n", budget.fds,
           (unsigned long long)limit.rlim_max);
    config_free(config);
    return EXIT_OK;
}

// ------------------------------------------------------------------------------------------ route

static size_t read_all(uint8_t *body)
{
    size_t len = 0, got;
    while (len < REQUEST_MAX && (got = fread(body + len, 1, REQUEST_MAX - len, stdin)) > 0)
        len += got;
    return len;
}

static int explain(const struct config *config, const uint8_t *body, size_t len)
{
    static struct peek peek;
    peek_start(&peek);
    enum peek_result result = peek_feed(&peek, body, len);
    if (result == PEEK_MORE)
        result = peek_end(&peek);
    if (result < 0) {
        char why[REPLY_MESSAGE_MAX];
        fprintf(stderr, "tokenring: %s\n", peek_why(&peek, result, why, sizeof why));
        return EXIT_FAILED;
    }
    struct route route = {.provider = -1};
    struct route_choice choice;
    if (!route_model(&choice, config, &route, (const char *)peek.model, peek.model_len, 0)) {
        fprintf(stderr,
                "tokenring: no provider serves the model \"%s\": list it under models:, or "
                "set --default-provider\n",
                (const char *)peek.model);
        return EXIT_FAILED;
    }
    const struct config_provider *provider = &config->provider[choice.provider];
    printf("model:    %s\n", (const char *)peek.model);
    printf("provider: %s (%s)\n", provider->name, provider->host);
    printf("upstream: %.*s\n", choice.model ? (int)choice.model_len : (int)peek.model_len,
           choice.model ? choice.model : (const char *)peek.model);
    printf("why:      %s\n", choice.why);
    printf("stream:   %s, messages: %u\n", peek.stream ? "yes" : "no", peek.messages);
    return EXIT_OK;
}

static int route(int argc, char **argv)
{
    struct config *config = load(argc, argv, true);
    if (!config)
        return EXIT_USAGE;
    uint8_t *body = heap_alloc(REQUEST_MAX);
    size_t len = read_all(body);
    int status = explain(config, body, len);
    heap_free(body);
    config_free(config);
    return status;
}

// ------------------------------------------------------------------------------------------- main

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0) {
            printf("tokenring %s\n", TOKENRING_VERSION);
            return EXIT_OK;
        }
    }
    char **program_argv = argv;
    const char *command = argc > 1 && argv[1][0] != '-' ? argv[1] : "serve";
    if (argc > 1 && argv[1][0] != '-') {
        argv++;
        argc--;
    }
    if (strcmp(command, "serve") == 0)
        return serve(argc, argv, program_argv);
    if (strcmp(command, "check") == 0)
        return check(argc, argv);
    if (strcmp(command, "route") == 0)
        return route(argc, argv);
    if (strcmp(command, "version") == 0)
        return version();
    fprintf(stderr, "tokenring: unknown command \"%s\": try serve, check, route or version\n",
            command);
    return EXIT_USAGE;
}
