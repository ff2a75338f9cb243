// SPDX-License-Identifier: MIT
//
// args: command lines of the small programs (mock, load, top): a table in, values out.
//
// A program describes its options once; parsing, --help and --version follow from the table.
// Manners are GNU's: "--name value", "--name=value", "-n value", "-nvalue", "-ab" for switches,
// "--" ends the options, words may stand between them. An option that is not ARGS_EACH and comes
// twice is an error: two values would contradict each other. The gateway itself has its own
// parser, since there every option is also a key of a file (engine/config).
//
//   static const struct args_option options[] = {
//       {"chunks", 0, "N", ARGS_NUMBER, &settings.chunks, 0, 1000000, "chunks in a stream"},
//       ...
//   };
//   struct args args = {.program = "tokenring-mock", .options = options, .option_count = ...};
//   int status;
//   if (!args_start(&args, argc, argv, &status))
//       return status;          // help or version was printed, or an error (status 2)
//
// Targets hold the defaults before the call and keep them where an option is absent.
#ifndef TOOLS_ARGS_H
#define TOOLS_ARGS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

enum args_type {
    ARGS_SWITCH,  // bool: takes no value, sets true
    ARGS_NUMBER,  // uint64_t: a whole number
    ARGS_DECIMAL, // double: min and max are whole numbers
    ARGS_SIZE,    // uint64_t, bytes: K, M, G
    ARGS_TIME,    // uint64_t, milliseconds: ms, s, m, h; a bare 0 is fine
    ARGS_TEXT,    // const char *: points into argv
    ARGS_EACH,    // repeatable: `each` is called with every value
};

enum { ARGS_ERROR_MAX = 256, ARGS_OPTIONS_MAX = 64 };

// True, or false with a sentence in `error` (what is wrong with the value).
typedef bool args_each(void *target, const char *value, char *error, size_t error_len);

struct args_option {
    const char *name;     // without dashes
    char letter;          // 0: none
    const char *argument; // what --help calls the value; NULL for switches
    enum args_type type;
    void *target;
    uint64_t min, max; // in plain, bytes or milliseconds; max 0: no limit
    const char *help;
    args_each *each;
};

struct args {
    const char *program;
    const char *synopsis; // behind the program's name: "[options] URL"
    const char *about;    // a sentence or two for --help
    const char *notes;    // printed after the options; may be NULL
    const struct args_option *options;
    size_t option_count; // at most ARGS_OPTIONS_MAX
    const char **words;  // room for word_max operands; they point into argv
    size_t word_max;
    size_t word_count; // operands found
};

enum args_result { ARGS_RUN, ARGS_HELP, ARGS_VERSION, ARGS_BAD = -1 };

// ARGS_BAD leaves a sentence in `error` that names the option.
enum args_result args_parse(struct args *args, int argc, char *const *argv, char *error,
                            size_t error_len);
void args_help(const struct args *args, FILE *out);

// args_parse, and what a program does about its result. False: leave with *status.
bool args_start(struct args *args, int argc, char *const *argv, int *status);

// The values by themselves. False: not such a value, or out of 64 bits.
bool args_number(const char *text, uint64_t *number);
bool args_decimal(const char *text, double *number);
bool args_size(const char *text, uint64_t *bytes);
bool args_time(const char *text, uint64_t *ms);

struct args_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } addr;
    socklen_t len;
};

// "127.0.0.1:9000", "[::1]:9000", ":9000" (127.0.0.1), "unix:/run/x.sock". Port 0 is for the
// kernel to choose. Numeric only: no names are looked up.
bool args_address(const char *text, struct args_address *address);
// As one would type it, into `text`.
void args_address_text(const struct args_address *address, char *text, size_t len);

#endif
