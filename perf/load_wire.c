// SPDX-License-Identifier: MIT
#include "perf/load_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char done_event[] = "data: [DONE]\n\n";
enum { DONE_LEN = sizeof done_event - 1, NONCE_LEN = 8 };

static const char event_open[] =
    "data: {\"id\":\"chatcmpl-00000000\",\"object\":\"chat.completion.chunk\","
    "\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"content\":\"00000000";
static const char event_close[] = "\"}}]}\n\n";
enum { EVENT_NONCE_AT = 22, EVENT_INDEX_AT = sizeof event_open - 1 - NONCE_LEN };

static const char reply_open[] =
    "{\"id\":\"chatcmpl-00000000\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\","
    "\"message\":{\"role\":\"assistant\",\"content\":\"";
static const char reply_close[] =
    "\"}}],\"usage\":{\"prompt_tokens\":230,\"completion_tokens\":190,"
    "\"total_tokens\":420}}";
enum { REPLY_NONCE_AT = 16 };

static char reply_body[WIRE_REPLY_BODY];
static char event[WIRE_CHUNK_MAX]; // of event_bytes, rebuilt when another size is asked for
static uint32_t event_bytes;
static char reply_head[1024], request_head[1024], stream_head[1024];
static size_t reply_head_len, request_head_len, stream_head_len;

static void hex8(char *out, uint32_t value)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 7; i >= 0; i--, value >>= 4)
        out[i] = digits[value & 15];
}

// open, then words, then close, `len` bytes in all.
static void fill(char *out, size_t len, const char *open, const char *close)
{
    static const char words[] = "the quick brown fox jumps over the lazy dog and ";
    size_t open_len = strlen(open), close_len = strlen(close);
    memcpy(out, open, open_len);
    for (size_t i = open_len; i < len - close_len; i++)
        out[i] = words[(i - open_len) % (sizeof words - 1)];
    memcpy(out + len - close_len, close, close_len);
}

// Heads as the official OpenAI client for Node sends them and as its API answers them.
#define SDK_REQUEST                                                                                \
    "host: gateway.bench\r\nconnection: keep-alive\r\naccept: application/json\r\n"                \
    "user-agent: OpenAI/JS 6.49.0\r\nx-stainless-retry-count: 0\r\nx-stainless-lang: js\r\n"       \
    "x-stainless-package-version: 6.49.0\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\n"    \
    "x-stainless-runtime: node\r\nx-stainless-runtime-version: v20.20.2\r\n"                       \
    "authorization: Bearer sk-bench-0123456789abcdef0123456789abcdef\r\n"                          \
    "content-type: application/json\r\naccept-language: *\r\nsec-fetch-mode: cors\r\n"             \
    "accept-encoding: gzip, deflate\r\n"
#define SDK_ANSWER                                                                                 \
    "date: Tue, 14 Nov 2023 22:13:20 GMT\r\nconnection: keep-alive\r\n"                            \
    "access-control-expose-headers: X-Request-ID\r\nopenai-organization: org-bench\r\n"            \
    "openai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\n"                                   \
    "x-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 2000000\r\n"                   \
    "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 1999744\r\n"            \
    "x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 7ms\r\n"                         \
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"                                       \
    "strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n"                  \
    "x-content-type-options: nosniff\r\nserver: bench\r\n"
#define SMALL_REQUEST                                                                              \
    "host: gateway.bench\r\naccept: application/json\r\ncontent-type: application/json\r\n"        \
    "authorization: Bearer sk-bench-0123456789abcdef\r\nuser-agent: perf-load\r\n"
#define SMALL_ANSWER "x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n"

void wire_init(bool small_heads)
{
    fill(reply_body, sizeof reply_body, reply_open, reply_close);
    reply_head_len = (size_t)snprintf(
        reply_head, sizeof reply_head,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n",
        WIRE_REPLY_BODY, small_heads ? SMALL_ANSWER : SDK_ANSWER);
    stream_head_len =
        (size_t)snprintf(stream_head, sizeof stream_head,
                         "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                         "transfer-encoding: chunked\r\n%s\r\n",
                         small_heads ? SMALL_ANSWER : SDK_ANSWER);
    request_head_len =
        (size_t)snprintf(request_head, sizeof request_head,
                         "POST /v1/chat/completions HTTP/1.1\r\n%scontent-length: %d\r\n\r\n",
                         small_heads ? SMALL_REQUEST : SDK_REQUEST, WIRE_REQUEST_BODY);
}

static bool same_but_nonce(struct order a, struct order b)
{
    a.nonce = b.nonce;
    return !memcmp(&a, &b, sizeof a); // six words, no padding
}

// The request is rebuilt only when the order changes in more than its nonce.
static char request[WIRE_REQUEST_MAX];
static struct order request_order;
static size_t request_nonce_at;

static void request_build(const struct order *order)
{
    char open[256];
    snprintf(open, sizeof open,
             "{\"model\":\"bench\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":"
             "\"bench n=%08x c=%08x b=%08x g=%08x h=%08x w=%08x ",
             order->chunks ? "true" : "false", order->nonce, order->chunks, order->chunk_bytes,
             order->gap_ms, order->hold, order->window);
    memcpy(request, request_head, request_head_len);
    fill(request + request_head_len, WIRE_REQUEST_BODY, open, "\"}]}");
    request_order = *order;
    request_nonce_at = request_head_len + (size_t)(strstr(open, "bench n=") + 8 - open);
}

size_t wire_request(char out[WIRE_REQUEST_MAX], const struct order *order)
{
    if (!request_nonce_at || !same_but_nonce(*order, request_order))
        request_build(order);
    hex8(request + request_nonce_at, order->nonce);
    memcpy(out, request, request_head_len + WIRE_REQUEST_BODY);
    return request_head_len + WIRE_REQUEST_BODY;
}

size_t wire_reply(char out[WIRE_REPLY_MAX], const struct order *order)
{
    memcpy(out, reply_head, reply_head_len);
    char *body = out + reply_head_len;
    memcpy(body, reply_body, WIRE_REPLY_BODY);
    hex8(body + REPLY_NONCE_AT, order->nonce);
    return reply_head_len + WIRE_REPLY_BODY;
}

size_t wire_stream_head(char out[WIRE_REPLY_MAX])
{
    memcpy(out, stream_head, stream_head_len);
    return stream_head_len;
}

// The payload of chunk `index`, valid until the next call.
static const char *chunk_payload(const struct order *order, uint32_t index, size_t *len)
{
    if (index + 1 == order->chunks) {
        *len = DONE_LEN;
        return done_event;
    }
    if (event_bytes != order->chunk_bytes) {
        event_bytes = order->chunk_bytes;
        fill(event, event_bytes, event_open, event_close);
    }
    hex8(event + EVENT_NONCE_AT, order->nonce);
    hex8(event + EVENT_INDEX_AT, index);
    *len = event_bytes;
    return event;
}

size_t wire_chunk(char out[WIRE_CHUNK_MAX + 32], const struct order *order, uint32_t index)
{
    size_t len;
    const char *payload = chunk_payload(order, index, &len);
    size_t at = (size_t)snprintf(out, 32, "%zx\r\n", len);
    memcpy(out + at, payload, len);
    at += len;
    bool last = index + 1 == order->chunks;
    const char *end = last ? "\r\n0\r\n\r\n" : "\r\n";
    memcpy(out + at, end, last ? 7 : 2);
    return at + (last ? 7 : 2);
}

static bool field(const char *text, char name, uint32_t *value)
{
    char digits[9] = {0};
    if (text[0] != name || text[1] != '=')
        return false;
    memcpy(digits, text + 2, 8);
    *value = (uint32_t)strtoul(digits, NULL, 16);
    return true;
}

bool wire_order(const char *body, size_t len, struct order *order)
{
    enum { FIELD_LEN = 11, FIELDS = 6 };
    const char *at = memmem(body, len, "\"bench n=", 9);
    if (!at || (size_t)(body + len - at) < 7 + FIELD_LEN * FIELDS)
        return false;
    at += 7;
    return field(at, 'n', &order->nonce) && field(at + FIELD_LEN, 'c', &order->chunks) &&
           field(at + 2 * FIELD_LEN, 'b', &order->chunk_bytes) &&
           field(at + 3 * FIELD_LEN, 'g', &order->gap_ms) &&
           field(at + 4 * FIELD_LEN, 'h', &order->hold) &&
           field(at + 5 * FIELD_LEN, 'w', &order->window) && order->chunk_bytes <= WIRE_CHUNK_MAX;
}

size_t wire_head_len(const char *data, size_t len)
{
    const char *end = memmem(data, len, "\r\n\r\n", 4);
    return end ? (size_t)(end + 4 - data) : 0;
}

// The value of a header field, NULL if it is not there. `name` is given as "\nname:".
static const char *header(const char *head, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    const char *at = head, *end = head + len;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        if ((size_t)(end - at) > name_len && !strncasecmp(at, name, name_len)) {
            at += name_len;
            return at + strspn(at, " ");
        }
        at++;
    }
    return NULL;
}

int64_t wire_content_length(const char *head, size_t len)
{
    const char *value = header(head, len, "\ncontent-length:");
    return value ? strtoll(value, NULL, 10) : -1;
}

// --- reader ------------------------------------------------------------------------------------

void reader_start(struct reader *reader, const struct order *order)
{
    reader->state = READER_HEAD;
    reader->order = *order;
    reader->offset = reader->left = 0;
    reader->line_len = reader->chunk_size = reader->head_len = reader->chunks_seen = 0;
    reader->fault = NULL;
}

static enum reader_state bad(struct reader *reader, const char *fault)
{
    reader->fault = fault;
    return reader->state = READER_BAD;
}

static bool check_stream(struct reader *reader, const char *data, size_t len)
{
    const struct order *order = &reader->order;
    while (len) {
        uint32_t index = (uint32_t)(reader->offset / order->chunk_bytes);
        size_t inside = reader->offset % order->chunk_bytes, piece_len;
        if (index >= order->chunks)
            return false;
        const char *piece = chunk_payload(order, index, &piece_len);
        if (inside >= piece_len)
            return false;
        size_t take = piece_len - inside < len ? piece_len - inside : len;
        if (memcmp(piece + inside, data, take))
            return false;
        reader->offset += take;
        reader->chunks_seen += inside + take == piece_len;
        data += take;
        len -= take;
    }
    return true;
}

static bool check_whole(struct reader *reader, const char *data, size_t len)
{
    if (reader->offset + len > WIRE_REPLY_BODY)
        return false;
    hex8(reply_body + REPLY_NONCE_AT, reader->order.nonce);
    bool same = !memcmp(reply_body + reader->offset, data, len);
    reader->offset += len;
    return same;
}

static bool check_body(struct reader *reader, const char *data, size_t len)
{
    return reader->order.chunks ? check_stream(reader, data, len) : check_whole(reader, data, len);
}

static enum reader_state body_ended(struct reader *reader)
{
    const struct order *order = &reader->order;
    uint64_t want = order->chunks ? (uint64_t)(order->chunks - 1) * order->chunk_bytes + DONE_LEN
                                  : WIRE_REPLY_BODY;
    if (reader->offset != want)
        return bad(reader, "body ended early");
    return reader->state = READER_DONE;
}

static void head_ended(struct reader *reader)
{
    const char *head = reader->head;
    size_t len = reader->head_len;
    if (len < 12 || memcmp(head, "HTTP/1.1 200", 12)) {
        bad(reader, "status is not 200");
        return;
    }
    const char *coding = header(head, len, "\ntransfer-encoding:");
    int64_t length = wire_content_length(head, len);
    if (coding && !strncasecmp(coding, "chunked", 7))
        reader->state = READER_CHUNK_SIZE;
    else if (length > 0)
        reader->state = READER_LENGTH, reader->left = (uint64_t)length;
    else
        bad(reader, "no body length");
}

static size_t take_head(struct reader *reader, const char *data, size_t len)
{
    size_t before = reader->head_len;
    size_t room = sizeof reader->head - before;
    size_t copy = len < room ? len : room;
    memcpy(reader->head + before, data, copy);
    size_t end = wire_head_len(reader->head, before + copy);
    if (!end) {
        reader->head_len = (uint32_t)(before + copy);
        if (copy < len || before + copy == sizeof reader->head)
            bad(reader, "head too long");
        return len;
    }
    reader->head_len = (uint32_t)end;
    head_ended(reader);
    return end - before;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void take_size_byte(struct reader *reader, char c)
{
    if (c == '\n') {
        reader->left = reader->chunk_size;
        reader->state = reader->chunk_size ? READER_CHUNK_DATA : READER_TRAILER;
        reader->line_len = reader->chunk_size = 0;
        return;
    }
    int digit = hex_digit(c);
    if (digit >= 0 && reader->line_len++ < 7)
        reader->chunk_size = reader->chunk_size << 4 | (uint32_t)digit;
    else if (c != '\r')
        bad(reader, "bad chunk size");
}

static void take_trailer_byte(struct reader *reader, char c)
{
    if (c == '\n') {
        if (!reader->line_len)
            body_ended(reader);
        reader->line_len = 0;
    } else if (c != '\r') {
        reader->line_len++;
    }
}

static size_t take_data(struct reader *reader, const char *data, size_t len)
{
    size_t take = len < reader->left ? len : (size_t)reader->left;
    if (!check_body(reader, data, take))
        bad(reader, "body differs");
    reader->left -= take;
    return take;
}

enum reader_state reader_take(struct reader *reader, const char *data, size_t len)
{
    while (len && reader->state != READER_BAD) {
        size_t took = 1;
        switch (reader->state) {
        case READER_HEAD: took = take_head(reader, data, len); break;
        case READER_LENGTH:
            took = take_data(reader, data, len);
            if (!reader->left && reader->state == READER_LENGTH)
                body_ended(reader);
            break;
        case READER_CHUNK_DATA:
            took = take_data(reader, data, len);
            if (!reader->left && reader->state == READER_CHUNK_DATA)
                reader->state = READER_CHUNK_END;
            break;
        case READER_CHUNK_END:
            if (*data == '\n')
                reader->state = READER_CHUNK_SIZE;
            break;
        case READER_CHUNK_SIZE: take_size_byte(reader, *data); break;
        case READER_TRAILER: take_trailer_byte(reader, *data); break;
        case READER_DONE: bad(reader, "bytes after the end"); break;
        case READER_BAD: break;
        }
        data += took;
        len -= took;
    }
    return reader->state;
}
