// SPDX-License-Identifier: MIT
//
// The one line that says what is wrong, where, and what was probably meant.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

// "gw.yaml:3: workers: ", "--workers: " or "TOKENRING_WORKERS: "
static int format_place(const struct config_place *place, char *text, size_t len)
{
    char env[64];
    switch (place->source) {
    case SOURCE_NONE: break;
    case SOURCE_FILE:
        if (place->line == 0)
            return snprintf(text, len, "%s: ", place->file);
        return snprintf(text, len, "%s:%d: %s%s", place->file, place->line,
                        place->key ? place->key : "", place->key ? ": " : "");
    case SOURCE_ENV:
        config_option_env(place->option, env, sizeof(env));
        return snprintf(text, len, "%s: ", env);
    case SOURCE_DEFAULT:
    case SOURCE_FLAG: return snprintf(text, len, "--%s: ", place->option->flag);
    }
    return 0;
}

bool config_fail(struct config_reader *reader, const char *format, ...)
{
    size_t len = reader->error_len;
    if (len == 0)
        return false;
    reader->error[0] = 0;
    size_t at = (size_t)format_place(&reader->place, reader->error, len);
    if (at < len) {
        va_list args;
        va_start(args, format);
        vsnprintf(reader->error + at, len - at, format, args);
        va_end(args);
    }
    // One line, whatever bytes the values held that it quotes.
    for (char *c = reader->error; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return false;
}

void config_blame(struct config_reader *reader, const char *flag)
{
    const struct config_option *option = config_option_flag(flag, strlen(flag));
    CHECK(option != NULL);
    reader->place = reader->origin[config_option_index(option)];
    if (reader->place.source == SOURCE_NONE)
        reader->place.source = SOURCE_DEFAULT;
    reader->place.option = option;
}

// How many bytes must be put, taken or changed to make `a` of `b` (Levenshtein); names are short.
static size_t distance(const char *a, const char *b)
{
    size_t row[64];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len >= 64 || b_len >= 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t changed = diagonal + (a[i - 1] != b[j - 1]);
            size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < shorter ? changed : shorter;
        }
    }
    return row[b_len];
}

// The name that was probably meant, or NULL if none is near.
const char *config_nearest(const char *name, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 3 + 2; // first distance that is too far
    for (size_t i = 0; i < count; i++) {
        size_t far = names[i] ? distance(name, names[i]) : SIZE_MAX;
        if (far < best && far < strlen(names[i])) {
            best = far;
            nearest = names[i];
        }
    }
    return nearest;
}
