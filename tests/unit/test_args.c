// SPDX-License-Identifier: MIT
//
// Proves that the option parser of the small programs reads values by their units and bounds,
// knows GNU's spellings, and says in its error which option is wrong.
#include <criterion/criterion.h>
#include <string.h>

#include "tools/args.h"

static uint64_t number, size, delay;
static double decimal;
static bool on, other;
static const char *text;
static char each_seen[64];
static size_t each_count;

static bool each_value(void *target, const char *value, char *error, size_t error_len)
{
    size_t *count = target;
    if (strcmp(value, "bad") == 0) {
        snprintf(error, error_len, "not that one");
        return false;
    }
    (*count)++;
    snprintf(each_seen + strlen(each_seen), sizeof each_seen - strlen(each_seen), "%s;", value);
    return true;
}

static const struct args_option options[] = {
    {"number", 'n', "N", ARGS_NUMBER, &number, 2, 100, "a number"},
    {"size", 's', "BYTES", ARGS_SIZE, &size, 0, 1 << 20, "a size"},
    {"delay", 0, "TIME", ARGS_TIME, &delay, 0, 60000, "a time"},
    {"rate", 'r', "N", ARGS_DECIMAL, &decimal, 1, 10, "a decimal number"},
    {"on", 'o', NULL, ARGS_SWITCH, &on, 0, 0, "a switch"},
    {"other", 'p', NULL, ARGS_SWITCH, &other, 0, 0, "another switch"},
    {"text", 't', "TEXT", ARGS_TEXT, &text, 0, 0,
     "some text that is long enough to be broken over "
     "two lines of the help, since the room to the right of the options is limited"},
    {"each", 'e', "VALUE", ARGS_EACH, &each_count, 0, 0, "repeatable", each_value},
    {"a-name-that-is-much-longer", 0, "VALUE", ARGS_TEXT, &text, 0, 0, "begins on its own line"},
};

static const char *words[2];
static struct args args = {.program = "test",
                           .synopsis = "[options] WORD",
                           .about = "For tests.",
                           .options = options,
                           .option_count = sizeof options / sizeof *options,
                           .words = words,
                           .word_max = 2};
static char error[ARGS_ERROR_MAX];

static void reset(void)
{
    number = size = delay = 7;
    decimal = 7;
    on = other = false;
    text = NULL;
    each_count = 0;
    each_seen[0] = error[0] = 0;
}

TestSuite(args, .init = reset);

// Parses a NULL-terminated list of words.
#define PARSE(...) parse((const char *[]){"test", __VA_ARGS__, NULL})

static enum args_result parse(const char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    reset();
    return args_parse(&args, argc, (char *const *)argv, error, sizeof error);
}

Test(args, absent_options_keep_their_defaults)
{
    cr_assert_eq(parse((const char *[]){"test", NULL}), ARGS_RUN);
    cr_assert_eq(number, 7);
    cr_assert_eq(args.word_count, 0);
}

Test(args, every_spelling_of_a_value)
{
    cr_assert_eq(PARSE("--number", "5"), ARGS_RUN);
    cr_assert_eq(number, 5);
    cr_assert_eq(PARSE("--number=6"), ARGS_RUN);
    cr_assert_eq(number, 6);
    cr_assert_eq(PARSE("-n", "8"), ARGS_RUN);
    cr_assert_eq(number, 8);
    cr_assert_eq(PARSE("-n9"), ARGS_RUN);
    cr_assert_eq(number, 9);
    cr_assert_eq(PARSE("--text="), ARGS_RUN);
    cr_assert_str_eq(text, "");
    cr_assert_eq(PARSE("-t", "-n9"), ARGS_RUN, "a value may look like an option");
    cr_assert_str_eq(text, "-n9");
}

Test(args, switches_may_stand_together)
{
    cr_assert_eq(PARSE("-op"), ARGS_RUN);
    cr_assert(on && other);
    cr_assert_eq(PARSE("-pn5"), ARGS_RUN);
    cr_assert(other && !on);
    cr_assert_eq(number, 5);
    cr_assert_eq(PARSE("-o", "--on"), ARGS_RUN, "saying yes twice is no contradiction");
}

Test(args, words_stand_anywhere_and_dashes_end_the_options)
{
    cr_assert_eq(PARSE("one", "-n5", "two"), ARGS_RUN);
    cr_assert_eq(args.word_count, 2);
    cr_assert_str_eq(words[0], "one");
    cr_assert_str_eq(words[1], "two");
    cr_assert_eq(PARSE("--", "--help"), ARGS_RUN);
    cr_assert_str_eq(words[0], "--help");
    cr_assert_eq(PARSE("-"), ARGS_RUN, "a lone dash is a word");
    cr_assert_eq(PARSE("a", "b", "c"), ARGS_BAD);
    cr_assert_str_eq(error, "unexpected word \"c\"");
}

Test(args, repeatable_ones_are_all_seen)
{
    cr_assert_eq(PARSE("-e", "a", "--each=b", "-ec"), ARGS_RUN);
    cr_assert_eq(each_count, 3);
    cr_assert_str_eq(each_seen, "a;b;c;");
    cr_assert_eq(PARSE("-e", "bad"), ARGS_BAD);
    cr_assert_str_eq(error, "--each: not that one");
}

Test(args, errors_name_the_option_and_what_is_wrong)
{
    cr_assert_eq(PARSE("--nothing"), ARGS_BAD);
    cr_assert_str_eq(error, "unknown option --nothing");
    cr_assert_eq(PARSE("-z"), ARGS_BAD);
    cr_assert_str_eq(error, "unknown option -z");
    cr_assert_eq(PARSE("--number"), ARGS_BAD);
    cr_assert_str_eq(error, "--number: needs a value");
    cr_assert_eq(PARSE("--on=yes"), ARGS_BAD);
    cr_assert_str_eq(error, "--on: takes no value");
    cr_assert_eq(PARSE("-n5", "-n6"), ARGS_BAD);
    cr_assert_str_eq(error, "--number: given twice");
    cr_assert_eq(PARSE("--number=x"), ARGS_BAD);
    cr_assert_str_eq(error, "--number: expected a whole number, got \"x\"");
    cr_assert_eq(PARSE("--number=101"), ARGS_BAD);
    cr_assert_str_eq(error, "--number: 101 is out of bounds: 2 to 100");
    cr_assert_eq(PARSE("--delay=2m"), ARGS_BAD);
    cr_assert_str_eq(error, "--delay: 2m is out of bounds: 0 to 60000 ms");
}

Test(args, numbers_are_digits_only)
{
    uint64_t value;
    cr_assert(args_number("0", &value) && value == 0);
    cr_assert(args_number("18446744073709551615", &value) && value == UINT64_MAX);
    const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x1", "1.0", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(args_number(bad[i], &value), "\"%s\"", bad[i]);
}

Test(args, sizes_are_binary)
{
    uint64_t value;
    cr_assert(args_size("512", &value) && value == 512);
    cr_assert(args_size("16K", &value) && value == 16384);
    cr_assert(args_size("16k", &value) && value == 16384);
    cr_assert(args_size("3M", &value) && value == 3 << 20);
    cr_assert(args_size("1G", &value) && value == 1 << 30);
    const char *const bad[] = {"", "K", "1T", "1KB", "1 K", "99999999999999999G"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(args_size(bad[i], &value), "\"%s\"", bad[i]);
}

Test(args, times_need_a_unit)
{
    uint64_t value;
    cr_assert(args_time("250ms", &value) && value == 250);
    cr_assert(args_time("2s", &value) && value == 2000);
    cr_assert(args_time("3m", &value) && value == 180000);
    cr_assert(args_time("1h", &value) && value == 3600000);
    cr_assert(args_time("0", &value) && value == 0);
    const char *const bad[] = {"", "5", "00", "s", "5 s", "1.5s", "5d", "99999999999999999999s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(args_time(bad[i], &value), "\"%s\"", bad[i]);
}

Test(args, decimals_are_plain)
{
    double value;
    cr_assert(args_decimal("2.5", &value) && value == 2.5);
    cr_assert(args_decimal("10", &value) && value == 10);
    cr_assert(args_decimal(".5", &value) && value == 0.5);
    const char *const bad[] = {"", ".", "1e3", "-1", "nan", "inf", "1.2.3", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(args_decimal(bad[i], &value), "\"%s\"", bad[i]);
    cr_assert_eq(PARSE("-r", "2.5"), ARGS_RUN);
    cr_assert_eq(decimal, 2.5);
    cr_assert_eq(PARSE("-r", "10.5"), ARGS_BAD);
}

Test(args, addresses_and_back)
{
    const char *const good[] = {"127.0.0.1:9000", "[::1]:80", "0.0.0.0:0", "unix:/tmp/x.sock"};
    struct args_address address;
    char back[128];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert(args_address(good[i], &address), "%s", good[i]);
        args_address_text(&address, back, sizeof back);
        cr_assert_str_eq(back, good[i]);
    }
    cr_assert(args_address(":81", &address));
    args_address_text(&address, back, sizeof back);
    cr_assert_str_eq(back, "127.0.0.1:81");
    const char *const bad[] = {
        "",      "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80",
        "[::1]", "host:80",   "unix:",      "1.2.3:80",        "127.0.0.1:8o"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(args_address(bad[i], &address), "\"%s\"", bad[i]);
}

Test(args, a_socket_path_must_fit)
{
    struct args_address address;
    char path[256] = "unix:";
    size_t fits = sizeof address.addr.local.sun_path - 1;
    memset(path + 5, 'p', fits);
    cr_assert(args_address(path, &address));
    path[5 + fits] = 'p';
    cr_assert_not(args_address(path, &address));
}

Test(args, help_lists_everything_within_the_width)
{
    char *help;
    size_t len;
    FILE *out = open_memstream(&help, &len);
    args_help(&args, out);
    fclose(out);
    for (size_t i = 0; i < args.option_count; i++)
        cr_assert(strstr(help, options[i].name), "--%s is in the help", options[i].name);
    cr_assert(strstr(help, "--help"));
    cr_assert(strstr(help, "--version"));
    for (const char *line = help; *line; line += strcspn(line, "\n") + 1)
        cr_assert_leq(strcspn(line, "\n"), 100);
    free(help);
}

Test(args, help_and_version_win_over_what_follows)
{
    cr_assert_eq(PARSE("--help", "--nothing"), ARGS_HELP);
    cr_assert_eq(PARSE("-h"), ARGS_HELP);
    cr_assert_eq(PARSE("-n5", "--version"), ARGS_VERSION);
    cr_assert_eq(PARSE("--nothing", "--help"), ARGS_BAD);
}
