// SPDX-License-Identifier: MIT
//
// Secrets: read from a variable or a file, never shown.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "alloc/heap.h"
#include "engine/config_reader.h"

const char *config_variable(const struct config_reader *reader, const char *name, size_t len)
{
    for (char *const *entry = reader->env; entry && *entry; entry++)
        if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=')
            return *entry + len + 1;
    return NULL;
}

// Read a small file whole. 0, or an errno.
int config_small_file(const char *path, char *text, size_t text_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    size_t len = 0;
    ssize_t got = 1;
    while (got > 0 && len < text_len) {
        got = read(fd, text + len, text_len - len);
        if (got > 0)
            len += (size_t)got;
    }
    int status = got < 0 ? errno : len == text_len ? EFBIG : 0;
    close(fd);
    text[status ? 0 : len] = 0;
    return status;
}

// People write env:$KEY for env:KEY, and the shell puts the key itself there: only what cannot be
// one is shown in an error.
static bool looks_like_variable(const char *name)
{
    return *name && strlen(name) <= 60 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name);
}

static bool keep_secret(struct config_reader *reader, const char *text, char **secret)
{
    if (*text == 0)
        return config_fail(reader, "the key is empty; leave it out if there is none");
    if (!config_text_visible(text))
        return config_fail(reader,
                           "the key holds blanks, control characters or bytes beyond ASCII");
    heap_free(*secret);
    *secret = heap_copy(text);
    return true;
}

bool config_secret(struct config_reader *reader, const char *reference, char **secret)
{
    char text[CONFIG_TEXT_MAX];
    if (strncmp(reference, "env:", 4) == 0) {
        const char *name = reference + 4;
        const char *value = config_variable(reader, name, strlen(name));
        if ((!value || !*value) && !looks_like_variable(name))
            return config_fail(reader,
                               "no environment variable of that name is set; after env: goes "
                               "the name of the variable, not the key");
        if (!value)
            return config_fail(reader, "environment variable %s is not set; export it", name);
        if (!*value)
            return config_fail(reader, "environment variable %s is empty", name);
        return keep_secret(reader, value, secret);
    }
    if (strncmp(reference, "file:", 5) == 0) {
        const char *path = reference + 5;
        int status = config_small_file(path, text, sizeof(text));
        if (status && *path != '/' && *path != '.')
            return config_fail(reader,
                               "cannot read the file: %s; after file: goes a path, not the key",
                               strerror(status));
        if (status)
            return config_fail(reader, "cannot read %.200s: %s", path, strerror(status));
        text[strcspn(text, "\r\n")] = 0; // the first line is the key
        bool kept = keep_secret(reader, text, secret);
        explicit_bzero(text, sizeof(text));
        return kept;
    }
    return config_fail(reader, "expected env:VAR or file:PATH; a key itself is never given here");
}

// Replace ${NAME} by the variable; $${ stands for ${ itself.
bool config_expand(struct config_reader *reader, const char *text, char *out, size_t out_len)
{
    size_t at = 0;
    while (*text) {
        const char *piece = text;
        size_t len = 1;
        if (strncmp(text, "$${", 3) == 0) {
            piece = "${";
            len = 2;
            text += 3;
        } else if (strncmp(text, "${", 2) == 0) {
            const char *name = text + 2;
            size_t name_len =
                strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
            if (name_len == 0 || name[name_len] != '}')
                return config_fail(reader,
                                   "expected a variable as in ${NAME}; $${ stands for ${ itself");
            int shown = (int)(name_len < 60 ? name_len : 60);
            piece = config_variable(reader, name, name_len);
            if (!piece)
                return config_fail(
                    reader, "environment variable %.*s is not set; export it, or drop ${%.*s}",
                    shown, name, shown, name);
            if (*piece == 0)
                return config_fail(reader, "environment variable %.*s is empty", shown, name);
            len = strlen(piece);
            text = name + name_len + 1;
        } else {
            text++;
        }
        if (len >= out_len - at)
            return config_fail(reader, "longer than %zu bytes", out_len - 1);
        memcpy(out + at, piece, len);
        at += len;
    }
    out[at] = 0;
    return true;
}

// api_key of the file: literal with ${VAR}, or env:VAR, or file:PATH.
bool config_provider_key(struct config_reader *reader, struct config_provider *provider,
                         const char *text)
{
    char key[CONFIG_TEXT_MAX];
    if (strncmp(text, "env:", 4) == 0 || strncmp(text, "file:", 5) == 0)
        return config_secret(reader, text, &provider->api_key);
    bool kept = config_expand(reader, text, key, sizeof(key)) &&
                keep_secret(reader, key, &provider->api_key);
    explicit_bzero(key, sizeof(key));
    return kept;
}
