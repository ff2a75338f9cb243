// SPDX-License-Identifier: MIT
//
// config_reader: what the parts of config share while a config is being built. Private to
// engine/config*.c; everybody else sees only config.h.
//
// The order of things, so that a stronger source simply overwrites a weaker one:
//
//   ROUND_PATH   environment, flags: where is the file?      (flags are checked for spelling here)
//   ROUND_MAIN   defaults, file, environment, flags          (providers are known after this)
//   ROUND_LATE   file, environment, flags: what names a provider; then the models of the file
//   freeze       `auto` becomes numbers, relations between options are checked
//
// An option that may be repeated is a list: the first value from a stronger source starts it anew.
//
// Errors: config_fail() writes one line that names the place (file:line and key, flag or variable)
// and the mend, and returns false, so that every reader ends in `return config_fail(...)`. It never
// gets a secret to print.
#ifndef ENGINE_CONFIG_READER_H
#define ENGINE_CONFIG_READER_H

#include <sched.h>

#include "engine/config.h"

enum config_source { SOURCE_NONE, SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENV, SOURCE_FLAG };

enum config_round { ROUND_PATH, ROUND_MAIN, ROUND_LATE };

enum option_type {
    OPTION_NUMBER,
    OPTION_SIZE,   // bytes; K, M, G
    OPTION_TIME,   // milliseconds; ms, s, m, h
    OPTION_SWITCH, // on, off
    OPTION_CHOICE, // `argument` holds the names, "text|json"; the position is the enum value
    OPTION_TEXT,   // a string the config owns
    OPTION_OWN,    // `read` knows
};

enum option_trait {
    OPTION_AUTO = 1,    // "auto" is a value; 0 until frozen
    OPTION_REPEATS = 2, // a list: flag repeatable, sequence in the file, spaces in the environment
    OPTION_POWER = 4,   // must be a power of two
    OPTION_KILO = 8,    // must be a multiple of 1K
    OPTION_SECRET = 16, // masked when printed, never in an error
    OPTION_NESTED = 32, // `key` is a path inside a list of the file, not a key at its top
};

enum { CONFIG_OPTIONS_MAX = 64, CONFIG_TEXT_MAX = 4096 };

struct config_reader;
struct config_option;
typedef bool config_read(struct config_reader *reader, const struct config_option *option,
                         const char *value);

struct config_option {
    const char *flag;     // "max-body"
    char letter;          // 'w'; 0: none
    const char *key;      // in the file: "max_body"; NULL: not there
    const char *argument; // "N|auto"
    enum option_type type;
    enum config_round round;
    unsigned traits;
    uint64_t min, max;    // in bytes, milliseconds or plain; of text: its length
    const char *standard; // the default, as one would type it; NULL: none
    const char *only;     // the one value that is accepted today; NULL: all
    const char *group;    // heading in --help
    const char *help;
    uint32_t offset; // of the field in struct config
    uint8_t width;   // of the field
    config_read *read;
};

// Where a value came from: whom an error blames.
struct config_place {
    enum config_source source;
    const struct config_option *option;
    const char *file;
    int line;
    const char *key;
};

enum cpus_mode { CPUS_AUTO, CPUS_NONE, CPUS_LIST };

struct config_reader {
    struct config *config;
    int argc;
    char *const *argv;
    char *const *env;
    bool no_network;
    char *error;
    size_t error_len;
    struct config_place place;
    struct config_place origin[CONFIG_OPTIONS_MAX]; // who set option i last
    enum config_source provider_source[CONFIG_PROVIDERS_MAX];
    struct config_place provider_origin[CONFIG_PROVIDERS_MAX];
    enum cpus_mode cpus_mode;
    int cpu[CPU_SETSIZE];
    int cpu_count;
};

// config_options.c: the table.
const struct config_option *config_options(size_t *count);
const struct config_option *config_option_flag(const char *name, size_t len);
const struct config_option *config_option_letter(char letter);
size_t config_option_index(const struct config_option *option);
void config_option_env(const struct config_option *option, char *name, size_t name_len);

// config_error.c: the one line of an error, and suggestions.
bool config_fail(struct config_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void config_blame(struct config_reader *reader, const char *flag); // whoever set it last
void config_provider_free(struct config_provider *provider);       // what it owns

const char *config_nearest(const char *name, const char *const *names, size_t count);

// config_value.c: one value.
bool config_set(struct config_reader *reader, const struct config_option *option,
                const char *value);
bool config_number(struct config_reader *reader, const char *text, uint64_t min, uint64_t max,
                   uint64_t *number);
bool config_micros(struct config_reader *reader, const char *text, uint64_t max, uint64_t *micros);
bool config_choice(struct config_reader *reader, const char *names, const char *text, int *choice);
bool config_choice_name(const char *names, int choice, char *name, size_t name_len);
bool config_text_clean(const char *text);   // no control characters
bool config_text_visible(const char *text); // no control characters, no blanks, ASCII
void config_format_size(uint64_t bytes, char *text, size_t text_len);
void config_format_time(uint64_t ms, char *text, size_t text_len);

// config_address.c: addresses, without the network but for config_resolve.
bool config_address_parse(const char *text, struct config_address *address, const char **why);
bool config_address_loopback(const struct config_address *address);
bool config_port(const char *text, uint16_t *port);
bool config_resolve(struct config_reader *reader, struct config_provider *provider);
config_read config_read_listen, config_read_admin;

// config_url.c: where a provider lives.
bool config_provider_url(struct config_reader *reader, struct config_provider *provider,
                         const char *url);

// config_secret.c: the environment, small files, and the secrets they hold.
const char *config_variable(const struct config_reader *reader, const char *name, size_t len);
int config_small_file(const char *path, char *text, size_t text_len); // 0 or an errno
bool config_expand(struct config_reader *reader, const char *text, char *out, size_t out_len);
bool config_secret(struct config_reader *reader, const char *reference, char **secret);
bool config_provider_key(struct config_reader *reader, struct config_provider *provider,
                         const char *text);

// config_provider.c: providers.
bool config_provider_add(struct config_reader *reader, const char *name,
                         struct config_provider **provider);
bool config_provider_kind(struct config_reader *reader, struct config_provider *provider,
                          const char *kind);
bool config_provider_auth(struct config_reader *reader, struct config_provider *provider,
                          const char *auth);
struct config_provider *config_provider_named(struct config_reader *reader, const char *name);
config_read config_read_provider, config_read_provider_key, config_read_provider_auth,
    config_read_default_provider, config_read_admin_token;
extern const char config_kinds[];
extern const char config_auths[];
extern const char config_strategies[]; // config_models.c

// config_freeze.c: `auto` and relations.
bool config_freeze(struct config_reader *reader);
config_read config_read_cpus;

// config_yaml.c: the file (its models: config_models.c). config_file_open() reads and checks the
// outline; apply per round.
struct config_file;
bool config_file_open(struct config_reader *reader, const char *path, struct config_file **file);
bool config_file_apply(struct config_reader *reader, struct config_file *file,
                       enum config_round round);
void config_file_close(struct config_file *file);

#endif
