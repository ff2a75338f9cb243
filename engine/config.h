// SPDX-License-Identifier: MIT
//
// config: everything a user may set, as one immutable value.
//
// Sources, weakest first: built-in default, YAML file (-c), environment TOKENRING_<FLAG>, flag. One
// table (config_options.c) lists every option with its flag, its config key, its unit, its bounds
// and its help line, so that the four sources, `--help`, `tokenring check` and the docs cannot
// disagree. The file is strict: an unknown key, a wrong type or a value out of bounds is an error
// that names file:line and the mend.
//
// A config is built once, validated, frozen, and shared read-only by all threads. Strings are owned
// by the config. Memory comes from alloc/heap (off the serving path); config_free gives all of it
// back.
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    CONFIG_LISTENERS_MAX = 16,
    CONFIG_PROVIDERS_MAX = 64,
    CONFIG_MODELS_MAX = 1024,
    CONFIG_TARGETS_MAX = 16,
    CONFIG_ADDRESSES_MAX = 8,
    CONFIG_WORKERS_MAX = 128,
    CONFIG_NAME_MAX = 64,
    CONFIG_FALLBACKS_MAX = 8,
};

struct config_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } addr;
    socklen_t len;
    char text[128];  // "127.0.0.1:8080", "[::1]:8080" or "unix:/run/x.sock", as one would type it
    bool dual_stack; // listeners, ":8080": one IPv6 socket for both families (clear IPV6_V6ONLY)
};

enum provider_kind {
    PROVIDER_OPENAI, // and everything that speaks its dialect: vLLM, llama.cpp, OpenRouter, ...
    PROVIDER_ANTHROPIC,
    PROVIDER_GEMINI,
    PROVIDER_OLLAMA,
};

enum provider_auth {
    AUTH_KEY,         // inject our key (none if there is no key); client credentials are dropped
    AUTH_PASSTHROUGH, // forward the client's own Authorization, x-api-key, api-key, x-goog-api-key
};

struct config_provider {
    char name[CONFIG_NAME_MAX];
    enum provider_kind kind;
    enum provider_auth auth;
    bool tls;          // https
    char *ca_file;     // authorities to trust; NULL: the system's bundle
    char *client_cert; // shown when the provider asks; with client_key, or both NULL
    char *client_key;
    char host[256];      // as in the URL; for unix:PATH the path
    char authority[272]; // value of the Host field: host[:port] when the port is not the default
    uint16_t port;       // 0: `host` is the path of a unix socket
    char base_path[256]; // path part of base_url without a trailing slash: "" or "/v1"
    char *api_key;       // NULL if none. Never printed, never logged.
    uint32_t address_count;
    struct config_address address[CONFIG_ADDRESSES_MAX]; // resolved once at start
    uint32_t connections_max; // open connections per worker; 0: the global --upstream-connections
    int line; // where it stands in the file; 0 if it came from a flag or the environment
    // Set when the config is put in force (config_succeed).
    uint16_t slot;       // its place in what is kept per provider; the same name keeps it
    uint32_t generation; // of where it leads and with which key: another one, another number
};

struct config_target {
    uint16_t provider; // index into providers
    char *model;       // what the provider calls it
    uint32_t weight;   // default 1; 0: takes no traffic
    // read and checked, not used for routing yet; millionths, so that no float is ever compared
    bool priced;                  // the two below were given
    uint64_t price_input_micros;  // USD per 1M tokens, in millionths
    uint64_t price_output_micros; // the same
    uint32_t quality_micros;      // 0..1000000, default 1000000
};

enum route_strategy {
    STRATEGY_WEIGHTED, // by weight (default)
    STRATEGY_BALANCED,
    STRATEGY_COST,
    STRATEGY_LATENCY,
    STRATEGY_QUALITY,
    STRATEGY_TASK,
};

struct config_model {
    char *name; // what clients ask for
    uint32_t target_count;
    struct config_target target[CONFIG_TARGETS_MAX];
    int line;
    // read and checked, not used for routing yet
    enum route_strategy strategy;
    uint32_t fallback_count;
    char *fallback[CONFIG_FALLBACKS_MAX]; // names of models, tried in this order, not transitively
};

enum log_format { LOG_TEXT, LOG_JSON };
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG }; // access lines are LOG_INFO

enum forwarded_policy {
    FORWARDED_APPEND, // add the client's address to X-Forwarded-For (default)
    FORWARDED_SET,    // drop what the client sent, set our own
    FORWARDED_OFF,    // drop what the client sent, add nothing: providers see no client address
};

enum config_seccomp {
    SECCOMP_AUTO, // on if there is a user to become (default)
    SECCOMP_ON,
    SECCOMP_LOG, // refuse nothing, and tell what would have been
    SECCOMP_OFF,
};

enum config_mode { CONFIG_OFF, CONFIG_AUTO, CONFIG_ALWAYS };

struct config {
    uint32_t listener_count;
    struct config_address listener[CONFIG_LISTENERS_MAX]; // default 127.0.0.1:8080
    struct config_address admin;                          // default 127.0.0.1:9464
    char *admin_token;                                    // NULL: none
    uint32_t provider_count;
    struct config_provider provider[CONFIG_PROVIDERS_MAX];
    int default_provider; // index, or -1
    uint32_t model_count;
    struct config_model *model; // sorted by name: binary search
    // engine, per worker where it says so
    uint32_t workers;              // `auto` is resolved to a number when frozen
    int cpu[CONFIG_WORKERS_MAX];   // cpu of worker i, -1: not pinned
    uint32_t ring_entries;         // submission entries per worker (default 1024)
    uint32_t buffers;              // receive buffers per worker (default 1024, power of two)
    uint32_t buffer_size;          // bytes (default 16K, 4K..64K)
    uint32_t max_connections;      // client connections, all workers together
    uint32_t upstream_connections; // open per worker and provider
    uint32_t upstream_idle;        // idle ones kept per worker and provider (default 100)
    uint64_t max_body;             // bytes of one request body (default 256M)
    uint32_t peek_bytes;           // bytes of body looked at for routing (default 256K)
    uint32_t window_bytes;         // most bytes held per direction and exchange (default 256K)
    uint32_t pending_max;          // flights waiting for a connection, per worker and provider
    // timeouts, milliseconds
    uint32_t timeout_connect_ms;       // 5 s
    uint32_t timeout_first_byte_ms;    // 300 s: request sent to first response byte
    uint32_t timeout_idle_ms;          // 300 s: no byte on a socket that should move
    uint32_t timeout_total_ms;         // 0: none; else for the whole exchange
    uint32_t timeout_head_ms;          // 30 s: a client's head must be complete
    uint32_t timeout_body_ms;          // 60 s: between two bytes of a client's body
    uint32_t timeout_keepalive_ms;     // 75 s: idle client connection
    uint32_t timeout_upstream_idle_ms; // 60 s: idle pooled connection
    uint32_t drain_timeout_ms;         // 30 s
    // manners
    enum log_format log_format;
    enum log_level log_level;
    enum forwarded_policy forwarded;
    bool via;         // add Via on both sides (default on)
    char *via_name;   // pseudonym in Via (default "tokenring")
    char *congestion; // TCP congestion control for all sockets; NULL: kernel default
    uint32_t fast_path_tokens;
    uint32_t listen_backlog; // default 4096
    // features to come: read and kept
    enum config_mode coalesce; // default auto
    enum config_mode cache;    // only CONFIG_OFF is accepted today
    uint64_t cache_bytes;      // 256M
    uint32_t cache_ttl_ms;     // 1 h
    char *tls_cert;            // both or neither; paths as given
    char *tls_client_ca;       // authorities for clients' certificates; NULL: none is asked for
    char *tls_key;
    char *path; // the file of -c, NULL if there was none
    bool watch; // reload when it changes (default off)
    char *user; // who to be, "name" or "name:group"; NULL: whoever started it
    enum config_seccomp seccomp;
};

// Parse everything. On success returns a frozen config. On failure returns NULL and `error` holds
// one line for stderr, without a newline, that names the flag, the variable or file:line, and the
// mend; a program then exits with 2. No secret is ever in it. 1024 bytes are room enough.
// argv[0] is skipped. `env` is environ. Numbers that say "auto" are resolved here (workers,
// max_connections from the fd limit), and provider host names are resolved unless `no_network`.
struct config *config_load(int argc, char *const *argv, char *const *env, bool no_network,
                           char *error, size_t error_len);
void config_free(struct config *config);

// `next` takes over what cannot change while the process runs from `current` (a reload), or nothing
// from NULL (the start), and its providers get their slots and generations. `kept` gets the flags
// of settings that were to change and could not, as in "workers, buffers"; empty if there are none.
struct config_slots {
    char name[CONFIG_PROVIDERS_MAX][CONFIG_NAME_MAX]; // who has the slot, or had it last; "": free
    uint32_t generation;                              // the last one given out
};
void config_succeed(struct config *next, const struct config *current, struct config_slots *slots,
                    char *kept, size_t kept_len);

// --help text of the options, one per line, wrapped to 100 columns, to `out` (a FILE).
struct _IO_FILE;
void config_help(struct _IO_FILE *out);

// Effective settings as YAML with secrets masked ("***"), to `out`: `tokenring check`,
// /admin/config.
void config_print(const struct config *config, struct _IO_FILE *out);

// The model a client asks for, or NULL.
const struct config_model *config_model_find(const struct config *config, const char *name,
                                             size_t len);
// Provider index by name, or -1.
int config_provider_find(const struct config *config, const char *name, size_t len);

#endif
