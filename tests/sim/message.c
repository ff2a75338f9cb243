// SPDX-License-Identifier: MIT
#include "tests/sim/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "alloc/check.h"
#include "alloc/heap.h"

enum chunk_part { CHUNK_SIZE, CHUNK_BYTES, CHUNK_CRLF, CHUNK_TRAILERS };

void message_start(struct message *message, enum message_kind kind)
{
    *message = (struct message){.kind = kind};
    message->head = heap_alloc(MESSAGE_HEAD_MAX + 1);
}

void message_free(struct message *message)
{
    heap_free(message->head);
    heap_free(message->body);
    *message = (struct message){0};
}

static void bad(struct message *message, const char *why)
{
    message->state = MESSAGE_BAD;
    message->why = why;
}

// ------------------------------------------------------------------------------------------- head

static const char *find(const struct message *message, const char *name, unsigned *count)
{
    size_t len = strlen(name);
    const char *found = NULL;
    *count = 0;
    for (const char *line = strstr(message->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) != 0 || line[2 + len] != ':')
            continue;
        found = line + 3 + len;
        (*count)++;
    }
    return found;
}

const char *message_field(const struct message *message, const char *name, char *value, size_t cap)
{
    unsigned count;
    const char *at = find(message, name, &count);
    if (count != 1)
        return NULL;
    at += strspn(at, " \t");
    size_t len = strcspn(at, "\r");
    snprintf(value, cap, "%.*s", (int)len, at);
    return value;
}

static void frame(struct message *message)
{
    char value[64];
    unsigned lengths, codings;
    find(message, "content-length", &lengths);
    find(message, "transfer-encoding", &codings);
    if (lengths + codings > 1) {
        bad(message, "more than one length");
        return;
    }
    bool none = message->kind == MESSAGE_RESPONSE_TO_HEAD || message->status == 204 ||
                message->status == 304;
    if (none) {
        message->framing = MESSAGE_NO_BODY;
    } else if (codings) {
        message->framing = MESSAGE_CHUNKED;
        if (strcasecmp(message_field(message, "transfer-encoding", value, sizeof value), "chunked"))
            bad(message, "a coding other than chunked");
    } else if (lengths) {
        message->framing = MESSAGE_LENGTH;
        message_field(message, "content-length", value, sizeof value);
        message->left = strtoull(value, NULL, 10);
    } else {
        message->framing = message->kind == MESSAGE_REQUEST ? MESSAGE_NO_BODY : MESSAGE_TO_CLOSE;
    }
}

static void head_complete(struct message *message)
{
    char value[64];
    bool old = message->kind == MESSAGE_REQUEST ? strstr(message->head, " HTTP/1.0\r\n") != NULL
                                                : strncmp(message->head, "HTTP/1.0 ", 9) == 0;
    if (message->kind != MESSAGE_REQUEST) {
        if (sscanf(message->head, "HTTP/1.%*1[01] %3u ", &message->status) != 1) {
            bad(message, "no status line");
            return;
        }
        if (message->status < 200) { // another head follows
            message->interims++;
            message->head_len = 0;
            return;
        }
    }
    const char *connection = message_field(message, "connection", value, sizeof value);
    message->close = connection ? strcasecmp(connection, "close") == 0 : old;
    message->state = MESSAGE_IN_BODY;
    frame(message);
    if (message->state == MESSAGE_BAD)
        return;
    if (message->framing == MESSAGE_NO_BODY ||
        (message->framing == MESSAGE_LENGTH && message->left == 0))
        message->state = MESSAGE_DONE;
}

static void head_byte(struct message *message, uint8_t byte)
{
    if (message->head_len == MESSAGE_HEAD_MAX || byte == 0) {
        bad(message, "a head too long, or with a NUL");
        return;
    }
    message->head[message->head_len++] = (char)byte;
    message->head[message->head_len] = 0;
    if (message->head_len >= 4 && memcmp(message->head + message->head_len - 4, "\r\n\r\n", 4) == 0)
        head_complete(message);
}

// ------------------------------------------------------------------------------------------- body

static void keep(struct message *message, const uint8_t *bytes, size_t len)
{
    if (message->body_len + len > message->body_cap) {
        message->body_cap = (uint32_t)(message->body_len + len) * 2 + 256;
        message->body = heap_resize(message->body, message->body_cap);
    }
    memcpy(message->body + message->body_len, bytes, len);
    message->body_len += (uint32_t)len;
}

static void line_complete(struct message *message)
{
    message->line[message->line_len] = 0;
    uint32_t len = message->line_len;
    message->line_len = 0;
    if (message->chunk == CHUNK_CRLF) {
        message->chunk = CHUNK_SIZE;
        if (len > 0)
            bad(message, "no CRLF behind a chunk");
    } else if (message->chunk == CHUNK_SIZE) {
        char *end;
        message->left = strtoull(message->line, &end, 16);
        if (end == message->line || (*end && *end != ';'))
            bad(message, "a chunk size that is none");
        message->chunk = message->left > 0 ? CHUNK_BYTES : CHUNK_TRAILERS;
    } else if (len == 0) {
        message->state = MESSAGE_DONE;
    } else {
        message->trailers += len;
    }
}

static void line_byte(struct message *message, uint8_t byte)
{
    if (message->line_len == sizeof message->line - 1) {
        bad(message, "a line of the chunked coding is too long");
        return;
    }
    message->line[message->line_len++] = (char)byte;
    if (message->line_len < 2 || memcmp(message->line + message->line_len - 2, "\r\n", 2) != 0)
        return;
    message->line_len -= 2;
    line_complete(message);
}

static size_t body_feed(struct message *message, const uint8_t *bytes, size_t len)
{
    bool counted = message->framing == MESSAGE_LENGTH ||
                   (message->framing == MESSAGE_CHUNKED && message->chunk == CHUNK_BYTES);
    if (message->framing == MESSAGE_CHUNKED && !counted) {
        line_byte(message, *bytes);
        return 1;
    }
    if (counted && len > message->left)
        len = (size_t)message->left;
    keep(message, bytes, len);
    if (!counted)
        return len;
    message->left -= len;
    if (message->left == 0 && message->framing == MESSAGE_LENGTH)
        message->state = MESSAGE_DONE;
    else if (message->left == 0)
        message->chunk = CHUNK_CRLF;
    return len;
}

size_t message_feed(struct message *message, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    while (used < len && message->state < MESSAGE_DONE) {
        if (message->state == MESSAGE_IN_HEAD)
            head_byte(message, bytes[used++]);
        else
            used += body_feed(message, bytes + used, len - used);
    }
    return used;
}

void message_end(struct message *message)
{
    if (message->state >= MESSAGE_DONE)
        return;
    if (message->state == MESSAGE_IN_BODY && message->framing == MESSAGE_TO_CLOSE)
        message->state = MESSAGE_DONE;
    else
        bad(message, "the stream ended inside it");
}
