// SPDX-License-Identifier: MIT
//
// Requests and answers, made from the dice: every byte, and the fate of each.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "tests/sim/play.h"

// ------------------------------------------------------------------------------------------ bytes

static void add(struct bytes *bytes, const void *more, size_t len)
{
    if (len == 0)
        return;
    if (bytes->len + len > bytes->cap) {
        bytes->cap = (uint32_t)(bytes->len + len) * 2 + 256;
        bytes->at = heap_resize(bytes->at, bytes->cap);
    }
    memcpy(bytes->at + bytes->len, more, len);
    bytes->len += (uint32_t)len;
}

static void __attribute__((format(printf, 2, 3))) say(struct bytes *bytes, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK(len >= 0);
    CHECK((size_t)len < sizeof text);
    add(bytes, text, (size_t)len);
}

// Letters that differ from place to place, so that no shift goes unseen.
static void pad(struct bytes *bytes, struct dice *dice, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        char c = (char)('a' + (dice_next(dice) >> 59) % 26);
        add(bytes, &c, 1);
    }
}

static void chop(struct bytes *to, struct play *play, const struct bytes *from)
{
    struct dice *dice = &play->dice;
    // A buffer for a byte or two, many times: that is overload, and belongs to harsh worlds.
    uint32_t most = dice_skewed(dice, 4096) + (play->temper == TEMPER_HARSH ? 0 : 256);
    for (uint32_t at = 0; at < from->len;) {
        uint32_t len = dice_between(dice, 1, most);
        if (len > from->len - at)
            len = from->len - at;
        if (dice_chance(dice, 100))
            say(to, "%X;part=%u\r\n", len, at);
        else
            say(to, dice_chance(dice, 500) ? "%x\r\n" : "0%X\r\n", len);
        add(to, from->at + at, len);
        say(to, "\r\n");
        at += len;
    }
    say(to, dice_chance(dice, 100) ? "0\r\nx-sum: 5\r\n\r\n" : "0\r\n\r\n");
}

// ----------------------------------------------------------------------------------------- models

// What the world's config says: see gateway_sim.c.
static const struct {
    const char *asked;
    bool anthropic;
    const char *at[PLAY_PROVIDERS];
} models[] = {
    {"m-one", false, {"up-one", NULL, NULL}},
    {"m-both", false, {"m-both", NULL, "a \\\"quoted\\\" name"}},
    {"m-beta", true, {NULL, "claude-x", NULL}},
    {"gamma/zeta", false, {NULL, NULL, "zeta"}},
    {"unheard-of", false, {"unheard-of", NULL, NULL}}, // the default provider
};

enum { MODELS = sizeof models / sizeof *models };

const char *exchange_model(const struct exchange *exchange, int provider)
{
    for (unsigned i = 0; i < MODELS; i++)
        if (exchange->model && strcmp(exchange->model, models[i].asked) == 0)
            return models[i].at[provider];
    return NULL;
}

bool exchange_body_right(const struct exchange *exchange, int provider, const uint8_t *body,
                         uint32_t len)
{
    const struct bytes *own = &exchange->body;
    if (!exchange->model)
        return provider == 0 && len == own->len && (len == 0 || memcmp(body, own->at, len) == 0);
    const char *model = exchange_model(exchange, provider);
    if (!model)
        return false;
    uint32_t model_len = (uint32_t)strlen(model), front = exchange->model_at;
    return len == own->len + model_len && memcmp(body, own->at, front) == 0 &&
           memcmp(body + front, model, model_len) == 0 &&
           memcmp(body + front + model_len, own->at + front, own->len - front) == 0;
}

// ---------------------------------------------------------------------------------------- request

static uint32_t size_draw(struct play *play)
{
    struct dice *dice = &play->dice;
    uint32_t most = sim_knobs()->pipe_max < 2048 ? 2048 : 1 << 18;
    return dice_chance(dice, 150) ? dice_skewed(dice, most) : dice_skewed(dice, 2048);
}

static void body_draw(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    struct bytes *body = &exchange->body;
    uint32_t size = exchange->trap ? 1 << 18 : size_draw(play);
    if (exchange->ask != ASK_CHAT) {
        pad(body, dice, size);
        return;
    }
    unsigned choice = dice_below(dice, MODELS);
    exchange->model = models[choice].asked;
    exchange->anthropic = models[choice].anthropic;
    bool front = dice_chance(dice, 700) || size > 1 << 14; // peek_bytes
    say(body, "{ ");
    if (!front) {
        say(body, "\"pad\": \"");
        pad(body, dice, size);
        say(body, "\", ");
    }
    say(body, "\"model\" : \"");
    exchange->model_at = body->len;
    say(body, "\",\"stream\":%s", exchange->stream ? "true" : "false");
    if (front) {
        say(body, ",\"messages\":[{\"role\":\"user\",\"content\":\"");
        pad(body, dice, size);
        say(body, "\"}]");
    }
    say(body, dice_chance(dice, 500) ? "}" : "}\n ");
}

static const char *path_of(const struct exchange *exchange)
{
    switch (exchange->ask) {
    case ASK_CHAT: return exchange->anthropic ? "/v1/messages" : "/v1/chat/completions";
    case ASK_RAW: return "/v1/files";
    case ASK_LOCAL: return "/health";
    default: return "/v1/files/abc?x=1";
    }
}

static void request_draw(struct play *play, struct exchange *exchange, bool last)
{
    struct dice *dice = &play->dice;
    struct bytes *out = &exchange->request;
    bool with_body = exchange->ask == ASK_CHAT || exchange->ask == ASK_RAW;
    if (with_body)
        body_draw(play, exchange);
    exchange->http10 = dice_chance(dice, 80);
    exchange->chunked = with_body && !exchange->http10 && dice_chance(dice, 250);
    exchange->closes = last && dice_chance(dice, 300);
    static const char *const methods[] = {"POST", "POST", "GET", "HEAD", "GET"};
    say(out, "%s %s HTTP/1.%c\r\nHost: gateway.test\r\n", methods[exchange->ask], path_of(exchange),
        exchange->http10 ? '0' : '1');
    if (exchange->http10 && !exchange->closes && dice_chance(dice, 500))
        say(out, "Connection: keep-alive\r\n");
    else if (exchange->closes)
        say(out, "Connection: close\r\n");
    if (with_body && dice_chance(dice, 50) && !exchange->http10)
        say(out, "Expect: 100-continue\r\n");
    say(out, "x-request-id: %s\r\nContent-Type: application/json\r\n", exchange->tag);
    if (dice_chance(dice, 100)) {
        say(out, "x-long: ");
        pad(out, dice, dice_skewed(dice, 6000));
        say(out, "\r\n");
    }
    // The wire carries the body with the model in its place.
    struct bytes wire = {0};
    add(&wire, exchange->body.at, exchange->body.len);
    if (exchange->model) {
        wire.len = exchange->model_at;
        say(&wire, "%s", exchange->model);
        add(&wire, exchange->body.at + exchange->model_at, exchange->body.len - exchange->model_at);
    }
    if (exchange->chunked)
        say(out, "Transfer-Encoding: chunked\r\n\r\n");
    else if (with_body)
        say(out, "Content-Length: %u\r\n\r\n", wire.len);
    else
        say(out, "\r\n");
    exchange->head_len = out->len;
    if (exchange->chunked)
        chop(out, play, &wire);
    else
        add(out, wire.at, wire.len);
    heap_free(wire.at);
}

static void bad_draw(struct play *play, struct exchange *exchange)
{
    static const struct {
        unsigned status;
        const char *text;
    } requests[] = {
        {400, "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\n\r\n"},
        {400, "GET /health HTTP/1.1\nHost: a\n\n"},
        {400, "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
              "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {400, "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
              "Content-Length: 5\r\n\r\nabcde"},
        {400, "\x16\x03\x01\x02 no http at all\r\n\r\n"},
        {404, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"},
        {405, "GET /v1/chat/completions HTTP/1.1\r\nHost: a\r\n\r\n"},
        {400,
         "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"a\": 1 }"},
        {400,
         "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nnot json!"},
        {413, "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\nabc"},
        {501, "POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc"},
        {417,
         "POST /v1/files HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\nx"},
    };
    unsigned choice = dice_below(&play->dice, sizeof requests / sizeof *requests + 1);
    if (choice < sizeof requests / sizeof *requests) {
        exchange->status = requests[choice].status;
        say(&exchange->request, "%s", requests[choice].text);
        return;
    }
    exchange->status = 431;
    say(&exchange->request, "GET /health HTTP/1.1\r\nHost: a\r\nx-long: ");
    pad(&exchange->request, &play->dice, 70000);
}

// ----------------------------------------------------------------------------------------- answer

static void content_draw(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    struct bytes *content = &exchange->content;
    if (exchange->framing == ANSWER_BODILESS)
        return;
    if (!exchange->sse) {
        pad(content, dice, dice_chance(dice, 50) ? 0 : size_draw(play));
        return;
    }
    uint32_t events = dice_skewed(dice, 60);
    for (uint32_t i = 0; i < events; i++) {
        say(content, "data: {\"n\":%u,\"text\":\"", i);
        pad(content, dice, dice_skewed(dice, 200));
        say(content, "\"}\n\n");
    }
    say(content, exchange->anthropic ? "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
                                     : "data: [DONE]\n\n");
}

static void answer_head(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    struct bytes *out = &exchange->answer;
    if (exchange->interim)
        say(out, dice_chance(dice, 500) ? "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                                        : "HTTP/1.1 100 Continue\r\n\r\n");
    say(out, "HTTP/1.1 %u %s\r\nx-answer-to: %s\r\n", exchange->status,
        dice_chance(dice, 500) ? "So be it" : "", exchange->tag);
    if (exchange->sse)
        say(out, "Content-Type: text/event-stream; charset=utf-8\r\n");
    if (exchange->framing == ANSWER_LENGTH)
        say(out, "Content-Length: %u\r\n", exchange->content.len);
    else if (exchange->framing == ANSWER_CHUNKS)
        say(out, "Transfer-Encoding: chunked\r\n");
    if (!exchange->keep_alive &&
        (exchange->framing != ANSWER_TO_CLOSE || exchange->ask == ASK_HEAD))
        say(out, "Connection: close\r\n");
    if (dice_chance(dice, 100)) {
        say(out, "x-long: ");
        pad(out, dice, dice_skewed(dice, 6000));
        say(out, "\r\n");
    }
    say(out, "\r\n");
}

static void answer_draw(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    static const unsigned statuses[] = {200, 200, 200, 200, 201, 400, 429, 500, 503};
    exchange->status = statuses[dice_below(dice, 9)];
    exchange->sse = exchange->stream && exchange->status == 200;
    static const enum answer_framing framings[] = {ANSWER_LENGTH, ANSWER_LENGTH, ANSWER_CHUNKS,
                                                   ANSWER_CHUNKS, ANSWER_TO_CLOSE};
    exchange->framing = framings[dice_below(dice, 5)];
    if (!exchange->sse && dice_chance(dice, 50)) {
        exchange->framing = ANSWER_BODILESS;
        exchange->status = dice_chance(dice, 500) ? 204 : 304;
    }
    exchange->keep_alive = exchange->framing != ANSWER_TO_CLOSE && dice_chance(dice, 800);
    exchange->interim = dice_chance(dice, 50);
    exchange->delay_ms = dice_chance(dice, 300) ? dice_skewed(dice, 1000) : 0;
    content_draw(play, exchange);
    answer_head(play, exchange);
    exchange->answer_head_len = exchange->answer.len;
    if (exchange->ask == ASK_HEAD)
        return;
    if (exchange->framing == ANSWER_CHUNKS)
        chop(&exchange->answer, play, &exchange->content);
    else
        add(&exchange->answer, exchange->content.at, exchange->content.len);
}

// ------------------------------------------------------------------------------------------- fate

static void malform(struct dice *dice, struct exchange *exchange)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
    };
    struct bytes *answer = &exchange->answer;
    if (exchange->framing != ANSWER_CHUNKS || exchange->ask == ASK_HEAD || dice_chance(dice, 300)) {
        answer->len = 0;
        exchange->content.len = 0;
        exchange->cut_at = 0;
        say(answer, "%s", heads[dice_below(dice, 7)]);
        return;
    }
    // Up to the end of some chunk, and then what is no size line.
    uint32_t at = exchange->answer_head_len;
    answer->at[answer->len - 1] = 0; // for strtol below: behind the last chunk
    for (uint32_t n = dice_below(dice, 5); n > 0; n--) {
        char *line;
        long size = strtol((char *)answer->at + at, &line, 16);
        if (size == 0)
            break;
        at = (uint32_t)(strchr(line, '\n') + 1 - (char *)answer->at) + (uint32_t)size + 2;
    }
    exchange->cut_at = answer->len = at;
    say(answer, "not a size\r\n\r\n");
}

static void fate_draw(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    if (play->temper == TEMPER_CALM || dice_chance(dice, 650))
        return;
    exchange->fate = (enum fate)dice_between(dice, FATE_FINISH, FATE_GONE);
    // An answer that ends with its connection is whole wherever that ends, but for a stream.
    if (exchange->fate == FATE_FINISH && exchange->framing == ANSWER_TO_CLOSE && !exchange->sse)
        exchange->fate = FATE_RESET;
    uint32_t end = exchange->answer.len;
    if (exchange->sse && exchange->framing == ANSWER_TO_CLOSE) // before the last event
        end -= 60;
    if (exchange->fate == FATE_MALFORMED)
        malform(dice, exchange);
    else if (dice_chance(dice, 300))
        exchange->cut_at = 0;
    else if (dice_chance(dice, 300))
        exchange->cut_at = dice_below(dice, exchange->answer_head_len);
    else
        exchange->cut_at = dice_below(dice, end);
}

static void manners_draw(struct play *play, struct exchange *exchange)
{
    struct dice *dice = &play->dice;
    if (exchange->trap) {
        exchange->fate = FATE_SILENT;
        exchange->cut_at = 0;
        exchange->early = exchange->deaf = true;
        return;
    }
    bool silent = exchange->fate == FATE_SILENT;
    exchange->early = exchange->fate != FATE_GONE && dice_chance(dice, silent ? 500 : 100);
    exchange->deaf = silent && dice_chance(dice, 700);
    if (play->temper == TEMPER_CALM || exchange->fate != FATE_WHOLE)
        return;
    exchange->abandons = exchange->early && !exchange->keep_alive && dice_chance(dice, 700);
    exchange->chatter = exchange->keep_alive && dice_chance(dice, 50);
}

struct exchange *exchange_draw(struct play *play, bool last)
{
    CHECK(play->exchange_count < PLAY_EXCHANGES_MAX);
    struct dice *dice = &play->dice;
    struct exchange *exchange = &play->exchange[play->exchange_count];
    exchange->play = play;
    exchange->number = play->exchange_count++;
    snprintf(exchange->tag, sizeof exchange->tag, "ex-%u-%04x", exchange->number,
             (unsigned)(dice_next(dice) & 0xffff));
    static const enum ask asks[] = {ASK_CHAT, ASK_CHAT, ASK_CHAT, ASK_CHAT, ASK_CHAT,
                                    ASK_RAW,  ASK_RAW,  ASK_GET,  ASK_HEAD, ASK_LOCAL};
    exchange->ask = dice_chance(dice, 60) ? ASK_BAD : asks[dice_below(dice, 10)];
    exchange->trap = play->temper != TEMPER_CALM && dice_chance(dice, 10);
    if (exchange->trap)
        exchange->ask = ASK_RAW;
    exchange->stream = exchange->ask == ASK_CHAT && dice_chance(dice, 600);
    if (exchange->ask == ASK_BAD) {
        bad_draw(play, exchange);
        return exchange;
    }
    request_draw(play, exchange, last);
    if (exchange->ask == ASK_LOCAL) {
        exchange->status = 200;
        return exchange;
    }
    answer_draw(play, exchange);
    fate_draw(play, exchange);
    manners_draw(play, exchange);
    return exchange;
}

void exchange_free(struct exchange *exchange)
{
    heap_free(exchange->request.at);
    heap_free(exchange->body.at);
    heap_free(exchange->answer.at);
    heap_free(exchange->content.at);
}

struct exchange *exchange_find(struct play *play, const char *tag)
{
    for (uint32_t i = 0; i < play->exchange_count; i++)
        if (strcmp(play->exchange[i].tag, tag) == 0)
            return &play->exchange[i];
    return NULL;
}
