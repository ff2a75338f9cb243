// SPDX-License-Identifier: MIT
#include "tools/args.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/check.h"

enum {
    HELP_COLUMN = 30, // where the help texts begin
    HELP_WIDTH = 100,
};

// ----------------------------------------------------------------------------------------- values

// Decimal digits; returns what follows them, NULL if there is none or 64 bits are too few.
static const char *digits(const char *text, uint64_t *number)
{
    const char *c = text;
    *number = 0;
    for (; *c >= '0' && *c <= '9'; c++)
        if (__builtin_mul_overflow(*number, 10, number) ||
            __builtin_add_overflow(*number, (uint64_t)(*c - '0'), number))
            return NULL;
    return c == text ? NULL : c;
}

bool args_number(const char *text, uint64_t *number)
{
    const char *rest = digits(text, number);
    return rest && !*rest;
}

bool args_decimal(const char *text, double *number)
{
    size_t len = strspn(text, "0123456789.");
    if (len == 0 || text[len] || strcmp(text, ".") == 0)
        return false;
    char *end;
    *number = strtod(text, &end);
    return !*end;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static bool with_unit(const char *text, const struct unit *units, size_t count, uint64_t *value)
{
    const char *rest = digits(text, value);
    for (size_t i = 0; rest && i < count; i++)
        if (strcmp(rest, units[i].name) == 0)
            return !__builtin_mul_overflow(*value, units[i].factor, value);
    return false;
}

bool args_size(const char *text, uint64_t *bytes)
{
    static const struct unit units[] = {{"", 1},        {"k", 1 << 10}, {"K", 1 << 10},
                                        {"m", 1 << 20}, {"M", 1 << 20}, {"g", 1 << 30},
                                        {"G", 1 << 30}};
    return with_unit(text, units, sizeof units / sizeof *units, bytes);
}

bool args_time(const char *text, uint64_t *ms)
{
    static const struct unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    if (strcmp(text, "0") == 0) {
        *ms = 0;
        return true;
    }
    return with_unit(text, units, sizeof units / sizeof *units, ms);
}

// -------------------------------------------------------------------------------------- addresses

static bool address_local(const char *path, struct args_address *address)
{
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof address->addr.local.sun_path)
        return false;
    address->addr.local.sun_family = AF_UNIX;
    memcpy(address->addr.local.sun_path, path, len + 1);
    address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return true;
}

static bool address_inet(const char *host, uint16_t port, struct args_address *address)
{
    if (inet_pton(AF_INET, host, &address->addr.v4.sin_addr) == 1) {
        address->addr.v4.sin_family = AF_INET;
        address->addr.v4.sin_port = htons(port);
        address->len = sizeof address->addr.v4;
        return true;
    }
    size_t len = strlen(host);
    char inside[INET6_ADDRSTRLEN];
    if (len < 3 || host[0] != '[' || host[len - 1] != ']' || len - 2 >= sizeof inside)
        return false;
    memcpy(inside, host + 1, len - 2);
    inside[len - 2] = 0;
    if (inet_pton(AF_INET6, inside, &address->addr.v6.sin6_addr) != 1)
        return false;
    address->addr.v6.sin6_family = AF_INET6;
    address->addr.v6.sin6_port = htons(port);
    address->len = sizeof address->addr.v6;
    return true;
}

bool args_address(const char *text, struct args_address *address)
{
    memset(address, 0, sizeof *address);
    if (strncmp(text, "unix:", 5) == 0)
        return address_local(text + 5, address);
    const char *colon = strrchr(text, ':');
    char host[64];
    uint64_t port;
    if (!colon || (size_t)(colon - text) >= sizeof host || !args_number(colon + 1, &port) ||
        port > 65535)
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    return address_inet(host[0] ? host : "127.0.0.1", (uint16_t)port, address);
}

void args_address_text(const struct args_address *address, char *text, size_t len)
{
    char host[INET6_ADDRSTRLEN] = "";
    switch (address->addr.any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->addr.v4.sin_addr, host, sizeof host);
        snprintf(text, len, "%s:%u", host, ntohs(address->addr.v4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->addr.v6.sin6_addr, host, sizeof host);
        snprintf(text, len, "[%s]:%u", host, ntohs(address->addr.v6.sin6_port));
        break;
    default: snprintf(text, len, "unix:%s", address->addr.local.sun_path);
    }
}

// ------------------------------------------------------------------------------------ the command

// What one parse carries from word to word.
struct parse {
    struct args *args;
    int argc, at; // argv[at] is under way
    char *const *argv;
    char *error;
    size_t error_len;
    uint64_t seen; // bit per option
};

static bool fail(struct parse *parse, const char *option, const char *what)
{
    snprintf(parse->error, parse->error_len, "--%s: %s", option, what);
    return false;
}

static const char *expected(enum args_type type)
{
    switch (type) {
    case ARGS_DECIMAL: return "a number such as 2.5";
    case ARGS_SIZE: return "a size such as 512, 16K, 256M or 1G";
    case ARGS_TIME: return "a time with its unit, such as 500ms, 30s or 5m";
    default: return "a whole number";
    }
}

static bool read_whole(enum args_type type, const char *value, uint64_t *number)
{
    switch (type) {
    case ARGS_SIZE: return args_size(value, number);
    case ARGS_TIME: return args_time(value, number);
    default: return args_number(value, number);
    }
}

static bool out_of_bounds(struct parse *parse, const struct args_option *option, const char *value)
{
    const char *unit = "";
    if (option->type == ARGS_TIME)
        unit = " ms";
    else if (option->type == ARGS_SIZE)
        unit = " bytes";
    snprintf(parse->error, parse->error_len, "--%s: %.60s is out of bounds: %llu to %llu%s",
             option->name, value, (unsigned long long)option->min, (unsigned long long)option->max,
             unit);
    return false;
}

static bool not_such(struct parse *parse, const struct args_option *option, const char *value)
{
    snprintf(parse->error, parse->error_len, "--%s: expected %s, got \"%.60s\"", option->name,
             expected(option->type), value);
    return false;
}

static bool store(struct parse *parse, const struct args_option *option, const char *value)
{
    char why[ARGS_ERROR_MAX] = "cannot be used";
    double decimal;
    uint64_t number;
    switch (option->type) {
    case ARGS_SWITCH: *(bool *)option->target = true; return true;
    case ARGS_TEXT: *(const char **)option->target = value; return true;
    case ARGS_EACH:
        return option->each(option->target, value, why, sizeof why) ||
               fail(parse, option->name, why);
    case ARGS_DECIMAL:
        if (!args_decimal(value, &decimal))
            return not_such(parse, option, value);
        if (decimal < (double)option->min || (option->max && decimal > (double)option->max))
            return out_of_bounds(parse, option, value);
        *(double *)option->target = decimal;
        return true;
    default:
        if (!read_whole(option->type, value, &number))
            return not_such(parse, option, value);
        if (number < option->min || (option->max && number > option->max))
            return out_of_bounds(parse, option, value);
        *(uint64_t *)option->target = number;
        return true;
    }
}

// `value`: what is attached to the option ("=5", "-n5"); NULL: the next word, if one is wanted.
static bool take(struct parse *parse, const struct args_option *option, const char *value)
{
    uint64_t bit = 1ull << (option - parse->args->options);
    if (parse->seen & bit && option->type != ARGS_EACH && option->type != ARGS_SWITCH)
        return fail(parse, option->name, "given twice");
    parse->seen |= bit;
    if (option->type == ARGS_SWITCH)
        return value ? fail(parse, option->name, "takes no value") : store(parse, option, NULL);
    if (!value) {
        if (parse->at + 1 >= parse->argc)
            return fail(parse, option->name, "needs a value");
        value = parse->argv[++parse->at];
    }
    return store(parse, option, value);
}

static const struct args_option *find(const struct args *args, const char *name, size_t len)
{
    for (size_t i = 0; i < args->option_count; i++)
        if (strlen(args->options[i].name) == len && memcmp(args->options[i].name, name, len) == 0)
            return &args->options[i];
    return NULL;
}

static const struct args_option *find_letter(const struct args *args, char letter)
{
    for (size_t i = 0; i < args->option_count; i++)
        if (args->options[i].letter == letter)
            return &args->options[i];
    return NULL;
}

static bool take_long(struct parse *parse, const char *word)
{
    size_t len = strcspn(word, "=");
    const struct args_option *option = find(parse->args, word, len);
    if (!option) {
        snprintf(parse->error, parse->error_len, "unknown option --%.*s",
                 (int)(len > 60 ? 60 : len), word);
        return false;
    }
    return take(parse, option, word[len] ? word + len + 1 : NULL);
}

static bool take_short(struct parse *parse, const char *letters)
{
    for (const char *c = letters; *c; c++) {
        const struct args_option *option = find_letter(parse->args, *c);
        if (!option) {
            snprintf(parse->error, parse->error_len, "unknown option -%c", *c);
            return false;
        }
        if (option->type != ARGS_SWITCH)
            return take(parse, option, c[1] ? c + 1 : NULL);
        if (!take(parse, option, NULL))
            return false;
    }
    return true;
}

static bool take_word(struct parse *parse, const char *word)
{
    struct args *args = parse->args;
    if (args->word_count == args->word_max) {
        snprintf(parse->error, parse->error_len, "unexpected word \"%.60s\"", word);
        return false;
    }
    args->words[args->word_count++] = word;
    return true;
}

enum args_result args_parse(struct args *args, int argc, char *const *argv, char *error,
                            size_t error_len)
{
    CHECK(args->option_count <= ARGS_OPTIONS_MAX);
    struct parse parse = {args, argc, 1, argv, error, error_len, 0};
    args->word_count = 0;
    bool options = true;
    for (; parse.at < argc; parse.at++) {
        const char *word = argv[parse.at];
        bool ok;
        if (options && strcmp(word, "--") == 0) {
            options = false;
            continue;
        }
        if (options && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0))
            return ARGS_HELP;
        if (options && strcmp(word, "--version") == 0)
            return ARGS_VERSION;
        if (!options || word[0] != '-' || !word[1])
            ok = take_word(&parse, word);
        else if (word[1] == '-')
            ok = take_long(&parse, word + 2);
        else
            ok = take_short(&parse, word + 1);
        if (!ok)
            return ARGS_BAD;
    }
    return ARGS_RUN;
}

// ------------------------------------------------------------------------------------------- help

// `text` from column HELP_COLUMN on, broken between words.
static void help_text(FILE *out, const char *text, int column)
{
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column + (int)word + 1 > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += fprintf(out, " %.*s", (int)word, text);
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

void args_help(const struct args *args, FILE *out)
{
    fprintf(out, "usage: %s %s\n\n%s\n\n", args->program, args->synopsis, args->about);
    for (size_t i = 0; i < args->option_count; i++) {
        const struct args_option *option = &args->options[i];
        int column = option->letter ? fprintf(out, "  -%c, --%s", option->letter, option->name)
                                    : fprintf(out, "      --%s", option->name);
        if (option->argument)
            column += fprintf(out, " %s", option->argument);
        if (column >= HELP_COLUMN) {
            fputc('\n', out);
            column = 0;
        }
        column += fprintf(out, "%*s", HELP_COLUMN - column, "");
        help_text(out, option->help, column);
    }
    fprintf(out, "%-*s this text\n%-*s %s\n", HELP_COLUMN, "  -h, --help", HELP_COLUMN,
            "      --version", "the version");
    if (args->notes)
        fprintf(out, "\n%s\n", args->notes);
}

bool args_start(struct args *args, int argc, char *const *argv, int *status)
{
    char error[ARGS_ERROR_MAX];
    *status = 0;
    switch (args_parse(args, argc, argv, error, sizeof error)) {
    case ARGS_RUN: return true;
    case ARGS_HELP: args_help(args, stdout); return false;
    case ARGS_VERSION: printf("%s %s\n", args->program, TOKENRING_VERSION); return false;
    case ARGS_BAD:
        fprintf(stderr, "%s: %s (see %s --help)\n", args->program, error, args->program);
        *status = 2;
    }
    return false;
}
