// SPDX-License-Identifier: MIT
//
// The request: one stretch of bytes, written before the threads start, the same for all of them
// but for the nonce of --unique.
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "alloc/heap.h"
#include "proto/json.h"
#include "tools/load.h"

enum { HEAD_MAX = 64 * 1024, BODY_FILE_MAX = 256 << 20, MODEL_MAX = 256 };

static bool fail(char *error, size_t error_len, const char *what, const char *value)
{
    snprintf(error, error_len, "%s: %.120s", what, value);
    return false;
}

// ---------------------------------------------------------------------------------------- where to

static bool resolve(struct load_settings *settings, char *error, size_t error_len)
{
    if (settings->connect)
        return args_address(settings->connect, &settings->address) ||
               fail(error, error_len, "--connect: expected ADDR:PORT or unix:PATH, got",
                    settings->connect);
    char port[8];
    snprintf(port, sizeof port, "%u", settings->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int result = getaddrinfo(settings->host, port, &hints, &found);
    if (result != 0)
        return fail(error, error_len, settings->host, gai_strerror(result));
    memcpy(&settings->address.addr, found->ai_addr, found->ai_addrlen);
    settings->address.len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

// "[::1]:80", "host:80" or "host": splits settings->authority.
static bool split_authority(struct load_settings *settings)
{
    const char *authority = settings->authority;
    const char *colon = strrchr(authority, ':'), *bracket = strrchr(authority, ']');
    if (colon && bracket && colon < bracket)
        colon = NULL;
    uint64_t port = 80;
    if (colon && (!args_number(colon + 1, &port) || port == 0 || port > 65535))
        return false;
    size_t len = colon ? (size_t)(colon - authority) : strlen(authority);
    if (bracket && authority[0] == '[') {
        authority++;
        len = (size_t)(bracket - authority);
    }
    if (len == 0 || len >= sizeof settings->host)
        return false;
    memcpy(settings->host, authority, len);
    settings->host[len] = 0;
    settings->port = (uint16_t)port;
    return true;
}

bool load_url(struct load_settings *settings, const char *url, char *error, size_t error_len)
{
    static const char scheme[] = "http://";
    settings->url = url;
    if (strncmp(url, scheme, sizeof scheme - 1) != 0)
        return fail(error, error_len, "the URL must begin with http://, not", url);
    const char *authority = url + sizeof scheme - 1;
    size_t len = strcspn(authority, "/");
    if (len >= sizeof settings->authority)
        return fail(error, error_len, "the URL's host is too long", url);
    memcpy(settings->authority, authority, len);
    settings->authority[len] = 0;
    settings->path = authority[len] ? authority + len : "/";
    if (!split_authority(settings) || strpbrk(url, " \r\n\t"))
        return fail(error, error_len, "cannot use this URL", url);
    return resolve(settings, error, error_len);
}

// ------------------------------------------------------------------------------------------- body

static char *read_file(const char *path, size_t *len, char *error, size_t error_len)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(error, error_len, "--body: %.120s: %s", path, strerror(errno));
        return NULL;
    }
    char *bytes = NULL;
    size_t cap = 0;
    *len = 0;
    do {
        cap = cap ? cap * 2 : 64 * 1024;
        bytes = heap_resize(bytes, cap);
        *len += fread(bytes + *len, 1, cap - *len, file);
    } while (*len == cap && cap < BODY_FILE_MAX);
    fclose(file);
    return bytes;
}

// What kind of body the path wants: the text is in "messages", "input" or "prompt".
static const char *body_shape(const char *path)
{
    if (strstr(path, "/chat/completions") || strstr(path, "/messages"))
        return "{\"model\":\"%s\"%s,\"messages\":[{\"role\":\"user\",\"content\":\"";
    if (strstr(path, "/completions"))
        return "{\"model\":\"%s\"%s,\"prompt\":[{\"text\":\"";
    return "{\"model\":\"%s\"%s,\"input\":[{\"role\":\"user\",\"content\":\"";
}

// Text, padded so that the whole body has settings->body_bytes. `*nonce_at`: where 16 bytes may
// change.
static char *make_body(const struct load_settings *settings, size_t *len, size_t *nonce_at)
{
    static const char end[] = "\"}]}", text[] = "Count to twenty, please. ";
    char model[MODEL_MAX] = "", max_tokens[] = ",\"max_tokens\":1024";
    (void)json_escape((uint8_t *)model, sizeof model - 1,
                      span_of(settings->model, strlen(settings->model)));
    char more[64];
    snprintf(more, sizeof more, "%s%s", settings->stream ? ",\"stream\":true" : "",
             strstr(settings->path, "/messages") ? max_tokens : "");
    char *opening = heap_format(body_shape(settings->path), model, more);
    size_t opening_len = strlen(opening);
    size_t least = opening_len + LOAD_NONCE_LEN + 1 + sizeof text - 1 + sizeof end - 1;
    *len = settings->body_bytes > least ? settings->body_bytes : least;
    char *body = heap_alloc(*len + 1);
    memset(body, 'x', *len);
    memcpy(body, opening, opening_len);
    *nonce_at = opening_len;
    memset(body + opening_len, '0', LOAD_NONCE_LEN);
    body[opening_len + LOAD_NONCE_LEN] = ' ';
    memcpy(body + opening_len + LOAD_NONCE_LEN + 1, text, sizeof text - 1);
    memcpy(body + *len - (sizeof end - 1), end, sizeof end - 1);
    heap_free(opening);
    return body;
}

// ------------------------------------------------------------------------------------------- head

// Append to head[0..*used), bounded; too long a head shows in *used > HEAD_MAX.
__attribute__((format(printf, 3, 4))) static void add(char *head, size_t *used, const char *format,
                                                      ...)
{
    va_list args;
    va_start(args, format);
    size_t room = *used < HEAD_MAX ? HEAD_MAX - *used : 0;
    int len = vsnprintf(room ? head + *used : NULL, room, format, args);
    va_end(args);
    *used += len > 0 ? (size_t)len : 0;
}

static bool has_field(const struct load_settings *settings, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < settings->field_count; i++)
        if (strncasecmp(settings->fields[i], name, len) == 0 && settings->fields[i][len] == ':')
            return true;
    return false;
}

static size_t make_head(const struct load_settings *settings, char *head, size_t body_len)
{
    size_t used = 0;
    add(head, &used, "POST %s HTTP/1.1\r\n", settings->path);
    if (!has_field(settings, "host"))
        add(head, &used, "Host: %s\r\n", settings->authority);
    if (!has_field(settings, "content-type"))
        add(head, &used, "Content-Type: application/json\r\n");
    if (!has_field(settings, "accept"))
        add(head, &used, "Accept: %s\r\n",
            settings->stream ? "text/event-stream" : "application/json");
    if (!has_field(settings, "authorization"))
        add(head, &used, "Authorization: Bearer tokenring-load\r\n");
    if (strstr(settings->path, "/messages") && !has_field(settings, "anthropic-version"))
        add(head, &used, "anthropic-version: 2023-06-01\r\n");
    if (settings->chunks != UINT64_MAX)
        add(head, &used, "x-mock-chunks: %llu\r\n", (unsigned long long)settings->chunks);
    for (size_t i = 0; i < settings->field_count; i++)
        add(head, &used, "%s\r\n", settings->fields[i]);
    add(head, &used, "Content-Length: %zu\r\n\r\n", body_len);
    return used;
}

bool load_request(struct load_settings *settings, char *error, size_t error_len)
{
    size_t body_len, nonce_at = 0;
    char *body = settings->body_file ? read_file(settings->body_file, &body_len, error, error_len)
                                     : make_body(settings, &body_len, &nonce_at);
    if (!body)
        return false;
    settings->request = heap_alloc(HEAD_MAX + body_len);
    size_t head_len = make_head(settings, settings->request, body_len);
    if (head_len < HEAD_MAX)
        memcpy(settings->request + head_len, body, body_len);
    heap_free(body);
    if (head_len >= HEAD_MAX)
        return fail(error, error_len, "--header", "the head is longer than 64K");
    settings->before_len = head_len + (settings->unique ? nonce_at : body_len);
    settings->after_len = settings->unique ? body_len - nonce_at - LOAD_NONCE_LEN : 0;
    return true;
}
