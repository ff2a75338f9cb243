// SPDX-License-Identifier: MIT
//
// micro_json: what looking at bodies and events costs, without any I/O.
//
//   ns per short chat request (1 KB, about 20 tokens) through peek;
//   GB/s of a long conversation (4 KB to 100 KB) through peek, in plain English, with escapes, in
//   Chinese, and of a pretty-printed tool schema; ns per SSE event of 200 bytes, in the manner of
//   three providers, by slices of one event and of 4 KB.
//
// Each line is the best of several rounds: the machine is shared, and noise only ever adds.
#include "proto/peek.h"
#include "proto/sse.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 9, ROOM = 256 * 1024 };

static const uint64_t ROUND_BYTES = 16 << 20;

struct text {
    char *bytes;
    size_t len;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void text_add(struct text *text, const char *bytes)
{
    size_t len = strlen(bytes);
    if (text->len + len > ROOM)
        abort();
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

static struct text text_new(void)
{
    struct text text = {malloc(ROOM), 0};
    if (text.bytes == NULL)
        abort();
    return text;
}

// A conversation of about `size` bytes: turns that repeat `sentence` up to `turn` bytes each.
static struct text chat_new(size_t size, size_t turn, const char *sentence)
{
    struct text chat = text_new();
    text_add(&chat, "{\"model\":\"gpt-4o-mini\",\"stream\":true,\"max_tokens\":256,\"messages\":[");
    const char *comma = "";
    while (chat.len + turn / 2 < size) {
        text_add(&chat, comma);
        text_add(&chat, "{\"role\":\"user\",\"content\":\"");
        size_t end = chat.len + turn < size ? chat.len + turn : size;
        while (chat.len + strlen(sentence) < end)
            text_add(&chat, sentence);
        text_add(&chat, "\"}");
        comma = ",";
    }
    text_add(&chat, "],\"temperature\":0.2}");
    return chat;
}

static struct text schema_new(size_t size)
{
    struct text body = text_new();
    text_add(&body, "{\n  \"model\": \"gpt-4o-mini\",\n  \"tools\": [\n");
    const char *comma = "";
    while (body.len < size) {
        text_add(&body, comma);
        text_add(&body, "    {\n      \"type\": \"function\",\n      \"function\": {\n"
                        "        \"name\": \"get_weather\",\n        \"strict\": true,\n"
                        "        \"parameters\": {\n          \"type\": \"object\",\n"
                        "          \"properties\": { \"city\": { \"type\": \"string\" } },\n"
                        "          \"required\": [ \"city\" ]\n        }\n      }\n    }");
        comma = ",\n";
    }
    text_add(&body, "\n  ]\n}\n");
    return body;
}

static double peek_once_ns(const struct text *body, uint64_t times)
{
    uint64_t start = now_ns(), messages = 0;
    for (uint64_t i = 0; i < times; i++) {
        struct peek peek;
        peek_start(&peek);
        if (peek_feed(&peek, (const uint8_t *)body->bytes, body->len) != PEEK_DONE)
            abort();
        messages += peek.messages;
    }
    double ns = (double)(now_ns() - start) / (double)times;
    if (messages == UINT64_MAX) // keeps the loop
        puts("");
    return ns;
}

static void measure_peek(const char *name, struct text body)
{
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        double ns = peek_once_ns(&body, ROUND_BYTES / body.len);
        best = ns < best ? ns : best;
    }
    printf("peek  %-34s %7zu bytes %9.0f ns  %6.2f GB/s\n", name, body.len, best,
           (double)body.len / best);
    free(body.bytes);
}

// An event of about 200 bytes: `begin`, text, `end`.
static size_t events_fill(struct text *stream, const char *begin, const char *end)
{
    size_t count = 0;
    while (stream->len + 256 < ROOM) {
        size_t from = stream->len;
        text_add(stream, begin);
        while (stream->len - from + strlen(end) < 200)
            text_add(stream, "x");
        text_add(stream, end);
        count++;
    }
    return count;
}

static double sse_once_ns(const struct text *stream, size_t count, size_t slice)
{
    uint64_t start = now_ns();
    struct sse sse;
    sse_start(&sse);
    for (size_t at = 0; at < stream->len; at += slice)
        sse_feed(&sse, (const uint8_t *)stream->bytes + at,
                 stream->len - at < slice ? stream->len - at : slice);
    double ns = (double)(now_ns() - start) / (double)count;
    if (sse.events != count)
        abort();
    return ns;
}

static void measure_sse(const char *name, const char *begin, const char *end, size_t slice)
{
    struct text stream = text_new();
    size_t count = events_fill(&stream, begin, end);
    double best = 1e18;
    for (int round = 0; round < ROUNDS * 10; round++) {
        double ns = sse_once_ns(&stream, count, slice);
        best = ns < best ? ns : best;
    }
    printf("sse   %-34s %7zu a slice %7.1f ns an event\n", name, slice, best);
    free(stream.bytes);
}

int main(void)
{
    const char *plain = "The quick brown fox jumps over the lazy dog and runs on. ";
    const char *escapes = "int main(void)\\n{\\n\\treturn puts(\\\"hi\\\");\\n}\\n";
    const char *chinese = "敏捷的棕色狐狸跳过了懒狗。";
    measure_peek("short chat, 4 messages", chat_new(1000, 250, plain));
    measure_peek("chat, turns of 300 bytes", chat_new(4 << 10, 300, plain));
    measure_peek("chat, turns of 300 bytes", chat_new(100 << 10, 300, plain));
    measure_peek("chat, turns of 4 KB", chat_new(100 << 10, 4096, plain));
    measure_peek("source code, an escape in 8 bytes", chat_new(100 << 10, 2000, escapes));
    measure_peek("Chinese", chat_new(100 << 10, 2000, chinese));
    measure_peek("pretty-printed tool schemas", schema_new(50 << 10));

    const char *openai =
        "data: {\"id\":\"chatcmpl-9xYz\",\"object\":\"chat.completion.chunk\",\"created\":"
        "1,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    const char *nulls = "\"},\"finish_reason\":null}],\"usage\":null}\n\n";
    const char *anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\","
                            "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"";
    const char *responses = "event: response.output_text.delta\ndata: {\"type\":"
                            "\"response.output_text.delta\",\"sequence_number\":9,\"delta\":\"";
    measure_sse("chat completions", openai, "\"},\"finish_reason\":null}]}\n\n", 200);
    measure_sse("chat completions", openai, "\"},\"finish_reason\":null}]}\n\n", 4096);
    measure_sse("chat completions, usage:null", openai, nulls, 200);
    measure_sse("messages", anthropic, "\"}}\n\n", 200);
    measure_sse("responses", responses, "\"}\n\n", 200);
    return 0;
}
