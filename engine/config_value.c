// SPDX-License-Identifier: MIT
//
// One value of one option: from text into its field, and back into text.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config_reader.h"

// Decimal digits only, at most 19 of them, so that 64 bits hold any. Returns what follows, or NULL.
static const char *digits(const char *text, uint64_t *number)
{
    const char *c = text;
    *number = 0;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (c - text >= 19)
            return NULL;
        *number = *number * 10 + (uint64_t)(*c - '0');
    }
    return c == text ? NULL : c;
}

bool config_number(struct config_reader *reader, const char *text, uint64_t min, uint64_t max,
                   uint64_t *number)
{
    const char *rest = digits(text, number);
    if (!rest || *rest)
        return config_fail(reader, "expected a whole number, got \"%.60s\"", text);
    if (*number < min || *number > max)
        return config_fail(reader, "%.60s is out of bounds; %llu to %llu", text,
                           (unsigned long long)min, (unsigned long long)max);
    return true;
}

// A decimal fraction, up to six places, in millionths.
bool config_micros(struct config_reader *reader, const char *text, uint64_t max, uint64_t *micros)
{
    uint64_t whole = 0, fraction = 0;
    const char *rest = digits(text, &whole);
    if (rest && *rest == '.') {
        const char *from = rest + 1;
        rest = digits(from, &fraction);
        size_t places = rest ? (size_t)(rest - from) : 0;
        if (places > 6)
            return config_fail(reader, "\"%.60s\" has more than six places behind the point", text);
        for (; places < 6; places++)
            fraction *= 10;
    }
    if (!rest || *rest)
        return config_fail(reader, "expected a number such as 0.5, got \"%.60s\"", text);
    if (whole > max / 1000000 || whole * 1000000 + fraction > max)
        return config_fail(reader, "%.60s is out of bounds; 0 to %llu", text,
                           (unsigned long long)(max / 1000000));
    *micros = whole * 1000000 + fraction;
    return true;
}

static bool times(uint64_t number, uint64_t unit, uint64_t *product)
{
    return !__builtin_mul_overflow(number, unit, product);
}

static bool read_size(struct config_reader *reader, const char *text, uint64_t *bytes)
{
    uint64_t number;
    const char *rest = digits(text, &number);
    if (!rest)
        return config_fail(reader, "expected a size such as 16K, 256M or 1G, got \"%.60s\"", text);
    uint64_t unit = 1;
    switch (*rest) {
    case 0: break;
    case 'k':
    case 'K': unit = 1ull << 10; break;
    case 'm':
    case 'M': unit = 1ull << 20; break;
    case 'g':
    case 'G': unit = 1ull << 30; break;
    default: unit = 0;
    }
    if (unit == 0 || (*rest && rest[1]))
        return config_fail(reader, "unknown unit in \"%.60s\"; sizes take K, M or G", text);
    if (!times(number, unit, bytes))
        *bytes = UINT64_MAX;
    return true;
}

static bool read_time(struct config_reader *reader, const char *text, uint64_t *ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}};
    uint64_t number;
    const char *rest = digits(text, &number);
    if (!rest)
        return config_fail(reader, "expected a time such as 500ms, 30s or 5m, got \"%.60s\"", text);
    if (*rest == 0 && number == 0) {
        *ms = 0;
        return true;
    }
    if (*rest == 0)
        return config_fail(
            reader, "%.60s has no unit; write %.60ss for seconds or %.60sms for milliseconds", text,
            text, text);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(rest, units[i].name) == 0) {
            if (!times(number, units[i].ms, ms))
                *ms = UINT64_MAX;
            return true;
        }
    }
    if (*rest == '.')
        return config_fail(reader, "\"%.60s\" is not whole; use a smaller unit, as in 1500ms",
                           text);
    return config_fail(reader, "unknown unit in \"%.60s\"; times take ms, s, m or h", text);
}

// Does `text` stand at the front of `names`, up to '|' or the end?
static bool name_is(const char *names, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(names, text, len) == 0;
}

bool config_choice(struct config_reader *reader, const char *names, const char *text, int *choice)
{
    const char *name = names;
    for (int i = 0; i < 16; i++) {
        size_t len = strcspn(name, "|");
        if (name_is(name, len, text)) {
            *choice = i;
            return true;
        }
        if (name[len] == 0)
            break;
        name += len + 1;
    }
    return config_fail(reader, "expected %s, got \"%.60s\"", names, text);
}

bool config_choice_name(const char *names, int choice, char *name, size_t name_len)
{
    for (int i = 0; i < choice; i++) {
        names = strchr(names, '|');
        if (!names)
            return false;
        names++;
    }
    snprintf(name, name_len, "%.*s", (int)strcspn(names, "|"), names);
    return true;
}

static bool read_switch(struct config_reader *reader, const char *text, uint64_t *on)
{
    static const char *const names[] = {"off", "on", "false", "true", "no", "yes"};
    for (size_t i = 0; i < 6; i++) {
        if (strcmp(text, names[i]) == 0) {
            *on = i & 1;
            return true;
        }
    }
    return config_fail(reader, "expected on or off, got \"%.60s\"", text);
}

// Characters that break a line or hide in one, as UTF-8: U+0080 to U+009F, U+2028, U+2029, U+FEFF,
// U+FFFE, U+FFFF. YAML has no way to show most of them.
static bool is_unseen(const char *c)
{
    static const char *const three[] = {"\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf",
                                        "\xef\xbf\xbe", "\xef\xbf\xbf"};
    if ((unsigned char)c[0] == 0xc2)
        return (unsigned char)c[1] >= 0x80 && (unsigned char)c[1] <= 0x9f;
    for (size_t i = 0; i < sizeof(three) / sizeof(three[0]); i++)
        if (strncmp(c, three[i], 3) == 0)
            return true;
    return false;
}

bool config_text_clean(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f || is_unseen(c))
            return false;
    return true;
}

bool config_text_visible(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
            return false;
    return true;
}

void config_format_size(uint64_t bytes, char *text, size_t text_len)
{
    static const char units[] = {0, 'K', 'M', 'G'};
    int unit = 0;
    while (unit < 3 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, text_len, unit ? "%llu%c" : "%llu", (unsigned long long)bytes, units[unit]);
}

void config_format_time(uint64_t ms, char *text, size_t text_len)
{
    const char *unit = "ms";
    if (ms && ms % (60 * 60 * 1000) == 0) {
        ms /= 60 * 60 * 1000;
        unit = "h";
    } else if (ms && ms % (60 * 1000) == 0) {
        ms /= 60 * 1000;
        unit = "m";
    } else if (ms && ms % 1000 == 0) {
        ms /= 1000;
        unit = "s";
    }
    snprintf(text, text_len, "%llu%s", (unsigned long long)ms, ms ? unit : "");
}

static void format_bound(const struct config_option *option, uint64_t bound, char *text, size_t len)
{
    if (option->type == OPTION_SIZE)
        config_format_size(bound, text, len);
    else if (option->type == OPTION_TIME)
        config_format_time(bound, text, len);
    else
        snprintf(text, len, "%llu", (unsigned long long)bound);
}

static bool check_bounds(struct config_reader *reader, const struct config_option *option,
                         const char *text, uint64_t number)
{
    char min[32], max[32], near[32];
    if (number < option->min || number > option->max) {
        format_bound(option, option->min, min, sizeof(min));
        format_bound(option, option->max, max, sizeof(max));
        return config_fail(reader, "%.60s is out of bounds; %s to %s", text, min, max);
    }
    if ((option->traits & OPTION_POWER) && (number & (number - 1))) {
        uint64_t power = option->min;
        while (power < number)
            power *= 2;
        format_bound(option, power, near, sizeof(near));
        return config_fail(reader, "%.60s is not a power of two; try %s", text, near);
    }
    if ((option->traits & OPTION_KILO) && number % 1024) {
        format_bound(option, (number + 1023) / 1024 * 1024, near, sizeof(near));
        return config_fail(reader, "%.60s is not a multiple of 1K; try %s", text, near);
    }
    return true;
}

static void store(struct config *config, const struct config_option *option, uint64_t number)
{
    uint8_t *field = (uint8_t *)config + option->offset;
    uint32_t narrow = (uint32_t)number;
    bool on = number != 0;
    if (option->width == 1) {
        memcpy(field, &on, sizeof(on));
    } else if (option->width == 4) {
        memcpy(field, &narrow, sizeof(narrow));
    } else {
        CHECK(option->width == 8);
        memcpy(field, &number, sizeof(number));
    }
}

static bool set_number(struct config_reader *reader, const struct config_option *option,
                       const char *text)
{
    uint64_t number = 0;
    if (strcmp(text, "auto") == 0 && (option->traits & OPTION_AUTO)) {
        store(reader->config, option, 0);
        return true;
    }
    if (option->type == OPTION_SIZE && !read_size(reader, text, &number))
        return false;
    if (option->type == OPTION_TIME && !read_time(reader, text, &number))
        return false;
    if (option->type == OPTION_NUMBER) {
        const char *rest = digits(text, &number);
        if (!rest || *rest)
            return config_fail(reader, "expected a whole number%s, got \"%.60s\"",
                               option->traits & OPTION_AUTO ? " or auto" : "", text);
    }
    if (!check_bounds(reader, option, text, number))
        return false;
    store(reader->config, option, number);
    return true;
}

static bool set_text(struct config_reader *reader, const struct config_option *option,
                     const char *text)
{
    size_t len = strlen(text);
    if (len < option->min || len > option->max)
        return config_fail(reader, "%zu bytes long; expected %llu to %llu", len,
                           (unsigned long long)option->min, (unsigned long long)option->max);
    if (!config_text_clean(text))
        return config_fail(reader, "control characters in \"%.60s\"", text);
    char **field = (char **)(void *)((uint8_t *)reader->config + option->offset);
    heap_free(*field);
    *field = heap_copy(text);
    return true;
}

bool config_set(struct config_reader *reader, const struct config_option *option, const char *value)
{
    int choice = 0;
    uint64_t on = 0;
    bool good = false;
    reader->place.option = option;
    switch (option->type) {
    case OPTION_NUMBER:
    case OPTION_SIZE:
    case OPTION_TIME: good = set_number(reader, option, value); break;
    case OPTION_SWITCH:
        good = read_switch(reader, value, &on);
        if (good)
            store(reader->config, option, on);
        break;
    case OPTION_CHOICE:
        good = config_choice(reader, option->argument, value, &choice);
        if (good)
            store(reader->config, option, (uint64_t)choice);
        break;
    case OPTION_TEXT: good = set_text(reader, option, value); break;
    case OPTION_OWN: good = option->read(reader, option, value); break;
    }
    if (good && option->only && strcmp(value, option->only) != 0)
        good = config_fail(reader, "%.60s is not in this version yet; only %s is", value,
                           option->only);
    if (good)
        reader->origin[config_option_index(option)] = reader->place;
    return good;
}
