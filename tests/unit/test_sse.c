// SPDX-License-Identifier: MIT
#include "proto/sse.h"
#include "tests/unit/edge.h"

#include <criterion/criterion.h>
#include <stdlib.h>

// ---- feeding ----

static const uint32_t UNKNOWN = UINT32_MAX;

// All that a watcher shows, so that two can be compared.
struct outcome {
    uint64_t events;
    bool has_data, terminal, error, usage_seen, boundary;
    struct sse_usage usage;
};

static struct outcome outcome_of(const struct sse *sse)
{
    return (struct outcome){sse->events,     sse->has_data,        sse->terminal, sse->error,
                            sse->usage_seen, sse_at_boundary(sse), sse->usage};
}

static void feed(struct sse *sse, const char *bytes, size_t len)
{
    sse_feed(sse, edge_put(bytes, len), len);
}

static void same(const struct outcome *a, const struct outcome *b, const char *bytes, size_t cut)
{
    cr_assert_eq(a->events, b->events, "events of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->has_data, b->has_data, "has_data of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->terminal, b->terminal, "terminal of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->error, b->error, "error of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->boundary, b->boundary, "boundary of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->usage_seen, b->usage_seen, "usage_seen of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->usage.input, b->usage.input, "input of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->usage.output, b->usage.output, "output of %.60s, cut at %zu", bytes, cut);
    cr_assert_eq(a->usage.cached, b->usage.cached, "cached of %.60s, cut at %zu", bytes, cut);
}

static void start(struct sse *sse)
{
    memset(sse, 0xAA, sizeof *sse); // sse_start must not count on zeroes
    sse_start(sse);
}

// Watch, and prove that whole, split at each byte and byte by byte agree in everything.
static struct outcome watch_bytes(const char *bytes, size_t len)
{
    struct sse sse;
    start(&sse);
    feed(&sse, bytes, len);
    struct outcome whole = outcome_of(&sse), other;
    for (size_t cut = 0; cut < len; cut++) {
        start(&sse);
        feed(&sse, bytes, cut);
        feed(&sse, bytes + cut, len - cut);
        other = outcome_of(&sse);
        same(&whole, &other, bytes, cut);
    }
    start(&sse);
    for (size_t at = 0; at < len; at++)
        feed(&sse, bytes + at, 1);
    other = outcome_of(&sse);
    same(&whole, &other, bytes, len);
    return whole;
}

// The same, with the three line ends that the format allows: all must be understood alike.
static struct outcome watch(const char *text)
{
    struct outcome plain = watch_bytes(text, strlen(text));
    static const char *const ends[] = {"\r\n", "\r"};
    for (size_t i = 0; i < 2; i++) {
        char *other = malloc(2 * strlen(text) + 1), *to = other;
        for (const char *from = text; *from; from++) {
            const char *piece = *from == '\n' ? ends[i] : from;
            size_t len = *from == '\n' ? strlen(ends[i]) : 1;
            memcpy(to, piece, len);
            to += len;
        }
        struct outcome outcome = watch_bytes(other, (size_t)(to - other));
        same(&plain, &outcome, text, 9000 + i);
        free(other);
    }
    return plain;
}

static void has_usage(struct outcome o, uint32_t input, uint32_t output, uint32_t cached)
{
    cr_expect(o.usage_seen);
    cr_expect_eq(o.usage.input, input, "input %u", o.usage.input);
    cr_expect_eq(o.usage.output, output, "output %u", o.usage.output);
    cr_expect_eq(o.usage.cached, cached, "cached %u", o.usage.cached);
}

#define EACH(field, expected, ...)                                                                 \
    do {                                                                                           \
        static const char *const texts[] = {__VA_ARGS__};                                          \
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)                              \
            cr_expect_eq(watch(texts[i]).field, expected, "%s", texts[i]);                         \
    } while (0)

// ---- events and boundaries ----

Test(sse, a_size)
{
    // One watcher per stream: it stays small.
    cr_expect_leq(sizeof(struct sse), 640);
}

Test(sse, b_nothing_yet)
{
    // A fresh watcher stands between events and knows nothing.
    struct outcome o = watch("");
    cr_expect_eq(o.events, 0);
    cr_expect(o.boundary);
    cr_expect_not(o.terminal || o.error || o.usage_seen || o.has_data);
    cr_expect(o.usage.input == UNKNOWN && o.usage.output == UNKNOWN && o.usage.cached == UNKNOWN);
}

Test(sse, c_events_are_counted)
{
    // An event is what a blank line ends and what has a data line; comments and the rest are none.
    EACH(events, 1, "data: x\n\n", "data:x\n\n", "data: a\ndata: b\n\n",
         "event: e\nid: 1\ndata: x\nretry: 5\n\n", ": c\ndata: x\n: c\n\n", "data\n\n", "data:\n\n",
         "\n\n\ndata: x\n\n\n\n", "data: x\n\ndata: unfinished\n", "data:  two spaces\n\n");
    EACH(events, 0, "\n", ": ping\n\n", "event: e\n\n", "id: 1\n\n", "data: x\n", "dat: x\n\n",
         "datax: x\n\n", " data: x\n\n", "Data: x\n\n", "DATA: x\n\n", "x\n\n", ":data: x\n\n",
         "dataa\n\n");
    EACH(events, 3, "data: 1\n\ndata: 2\n\n: c\n\nevent: x\ndata: 3\n\n");
}

Test(sse, d_boundaries)
{
    // Between events is where nothing of a next event was seen; a complete comment line is nothing.
    EACH(boundary, true, "data: x\n\n", "data: x\n\n\n", ": ping\n", ": ping\n\n", "\n",
         "data: x\n\n: c\n");
    EACH(boundary, false, "d", "data: x", "data: x\n", "data: x\n\nd", "event: x\n", "id: 1\n", ":",
         ": pi", "unknown\n", "data: x\n\n: c", "data: x\n: c\n");
}

Test(sse, e_line_ends_mixed)
{
    // Line ends may change within a stream, and a CRLF is one line end even when cut in the middle.
    static const char text[] =
        "data: 1\r\n\r\ndata: 2\n\ndata: 3\r\rdata: 4\r\n\ndata: 5\n\r\ndata: 6\r\n";
    struct outcome o = watch_bytes(text, sizeof text - 1);
    cr_expect_eq(o.events, 5);
    cr_expect(o.has_data);
    cr_expect_not(o.boundary);
    cr_expect_eq(watch_bytes("data: x\r\n\r", 10).events, 1);
    cr_expect(watch_bytes("data: x\r\n\r", 10).boundary);
}

Test(sse, f_byte_order_mark)
{
    // A byte order mark before the first line is not part of it; anywhere else it makes a strange
    // field.
    EACH(events, 1,
         "\xEF\xBB\xBF"
         "data: x\n\n",
         "\xEF\xBB\xBF\n\ndata: x\n\n", "\xEF\xBB\xBF: c\ndata: x\n\n");
    EACH(events, 0,
         "\xEF\xBB"
         "data: x\n\n",
         "\xEF"
         "data: x\n\n",
         "\xEF\xBB\xBF\xEF\xBB\xBF"
         "data: x\n\n",
         "\xEF\n\n");
    EACH(boundary, false, "\xEF", "\xEF\xBB", "\xEF\xBB\n", "\xEF\xBBx");
    EACH(boundary, true, "\xEF\xBB\xBF", "\xEF\xBB\n\n");
}

Test(sse, g_any_bytes)
{
    // NUL and bytes that are no UTF-8 pass by without effect; a NUL in a name makes it another
    // name.
    static const char text[] =
        "data: \0\xFF\x80\n\ndata\0: x\n\nevent: message_stop\0\ndata: y\n\n";
    struct outcome o = watch_bytes(text, sizeof text - 1);
    cr_expect_eq(o.events, 2);
    cr_expect_not(o.terminal);
}

// ---- the terminal event (PAINS 11) ----

Test(sse, h_done_mark)
{
    // [DONE] at the start of a data line ends a chat stream, at once: the blank line may never
    // come.
    EACH(terminal, true, "data: [DONE]\n\n", "data:[DONE]\n\n", "data: [DONE]", "data: [DONE]\n",
         "data: {}\n\ndata: [DONE]\n\n", "data: {}\ndata: [DONE]\n\n", "data: [DONE] \n\n");
    EACH(terminal, false, "data: [DON\n\n", "data: DONE\n\n", "data: {\"c\":\"[DONE]\"}\n\n",
         "[DONE]\n\n", ": [DONE]\n\n", "event: [DONE]\n\n", "data: [done]\n\n",
         "data: [\ndata: DONE]\n\n", "id: [DONE]\n\n", "data: [[DONE]\n\n");
}

Test(sse, i_terminal_events_by_name)
{
    // message_stop and the last three of the Responses API count by name once their event is
    // complete.
    EACH(terminal, true, "event: message_stop\ndata: {}\n\n", "event:message_stop\ndata: {}\n\n",
         "event: response.completed\ndata: {}\n\n", "event: response.incomplete\ndata: {}\n\n",
         "event: response.failed\ndata: {}\n\n", "data: {}\nevent: message_stop\n\n");
    EACH(terminal, false, "event: message_stop\ndata: {}\n", "event: message_stop",
         "event: message_sto\ndata: {}\n\n", "event: message_stopp\ndata: {}\n\n",
         "event: message_start\ndata: {}\n\n", "event: response.created\ndata: {}\n\n",
         "event: response.\ndata: {}\n\n", "id: message_stop\ndata: {}\n\n",
         "event:  message_stop\ndata: {}\n\n",
         "event: a-name-that-is-longer-than-any-we-know\ndata: {}\n\n");
}

Test(sse, j_terminal_events_by_type)
{
    // The type in the data says it as well, if it is the first member; whitespace does not matter.
    EACH(terminal, true, "data: {\"type\":\"message_stop\"}\n\n",
         "data:{\"type\":\"message_stop\"}\n\n", "data: { \"type\" : \"message_stop\" }\n\n",
         "data: {\"type\":\"response.completed\",\"x\":1}\n\n",
         "data: {\"type\": \"response.incomplete\"}\n\n",
         "data: {\"type\":\"response.failed\"}\n\n",
         "data: {\ndata: \"type\":\ndata: \"message_stop\"}\n\n",
         "data: {\"type\":\"message_stop\n\ndata: {\"type\":\"message_stop\"}\n\n");
    EACH(terminal, false, "data: {\"type\":\"message_stop\"}\n",
         "data: {\"type\":\"message_stop\n\n", "data: {\"type\":\"message_start\"}\n\n",
         "data: {\"type\":\"message_stop_\"}\n\n", "data: {\"x\":\"message_stop\"}\n\n",
         "data: {\"a\":{\"type\":\"message_stop\"}}\n\n", "data: \"type\":\"message_stop\"\n\n",
         "data: {\"type\":\"response.output_text.done\"}\n\n",
         "data: {\"type\":[\"message_stop\"]}\n\n",
         "data: {\"delta\":\"x\"}\ndata: {\"type\":\"message_stop\"}\n\n");
}

// ---- errors (PAINS 10) ----

Test(sse, k_errors)
{
    // An error is known by its event's name or the first member of its data, before its event is
    // over.
    EACH(error, true, "event: error\ndata: {}\n\n", "event: error\n",
         "data: {\"error\":{\"message\":\"x\"}}\n\n", "data: {\"error\":{",
         "data: { \"error\" : \"x\" }\n\n", "data: {\"error\":\"x\"}\n\n",
         "data: {\"error\":1}\n\n", "data: {\"type\":\"error\",\"error\":{}}\n\n",
         "data: { \"type\": \"error\"", "data: {}\n\ndata: {\"error\":{}}\n\n",
         "data: {\ndata:   \"error\": {}}\n\n");
    EACH(error, false, "data: {\"error\":null,\"choices\":[]}\n\n", "data: {\"error\"\n\n",
         "data: {\"error\n\n", "data: {\"errors\":1}\n\n", "data: {\"id\":1,\"error\":{}}\n\n",
         "data: {\"type\":\"errors\"}\n\n", "data: {\"type\":\"err\"}\n\n", "data: error\n\n",
         "data: \"error\"\n\n", "event: errors\n\n", "event: \n\n", "id: error\n\n", ": error\n\n",
         "data: {\"e\":\"error\"}\n\n", "data: [{\"error\":{}}]\n\n",
         "data: {\"x\":1}\ndata: {\"error\":1}\n\n");
}

// ---- usage ----

Test(sse, l_chat_completions)
{
    // PAINS 7: a chat stream gives the same answers however it is cut: events, usage at the end,
    // the mark.
    struct outcome o = watch(
        "data: "
        "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{"
        "\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n"
        "data: "
        "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{"
        "\"content\":\"Hi\"},\"finish_reason\":null}],\"usage\":null}\n\n"
        "data: "
        "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{}"
        ",\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
        "data: "
        "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_"
        "tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,\"prompt_tokens_details\":{"
        "\"cached_tokens\":7,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_"
        "tokens\":0,\"cached_tokens\":99}}}\n\n"
        "data: [DONE]\n\n");
    cr_expect_eq(o.events, 5);
    cr_expect(o.terminal);
    cr_expect(o.boundary);
    cr_expect_not(o.error);
    has_usage(o, 19, 10, 7);
}

Test(sse, m_usage_beside_choices)
{
    // PAINS 14: usage in a last chunk that still has choices is kept.
    struct outcome o = watch("data: "
                             "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4},\"choices\":"
                             "[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n"
                             "data: [DONE]\n\n");
    has_usage(o, 3, 4, UNKNOWN);
}

Test(sse, n_messages)
{
    // PAINS 15: the counts of message_start, cached ones too, survive to the end beside those of
    // message_delta.
    struct outcome o = watch(
        "event: message_start\ndata: "
        "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":"
        "\"assistant\",\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_creation_input_"
        "tokens\":3,\"cache_read_input_tokens\":1800,\"cache_creation\":{\"ephemeral_5m_input_"
        "tokens\":3},\"output_tokens\":1,\"service_tier\":\"standard\"}}}\n\n"
        "event: content_block_start\ndata: "
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
        "\"text\":\"\"}}\n\n"
        "event: ping\ndata: {\"type\": \"ping\"}\n\n"
        "event: content_block_delta\ndata: "
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":"
        "\"Hello\"}}\n\n"
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
        "event: message_delta\ndata: "
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":"
        "null},\"usage\":{\"output_tokens\":15}}\n\n"
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    cr_expect_eq(o.events, 7);
    cr_expect(o.terminal);
    cr_expect_not(o.error);
    has_usage(o, 25, 15, 1800);
}

Test(sse, o_responses)
{
    // The last event of the Responses API carries usage inside its response, details and all.
    struct outcome o =
        watch("event: response.created\ndata: "
              "{\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"error\":null,\"usage\":"
              "null},\"sequence_number\":0}\n\n"
              "event: response.output_text.delta\ndata: "
              "{\"type\":\"response.output_text.delta\",\"delta\":\"Hi\",\"sequence_number\":1}\n\n"
              "event: response.completed\ndata: "
              "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":"
              "\"completed\",\"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_"
              "tokens\":12},\"output_tokens\":87,\"output_tokens_details\":{\"reasoning_tokens\":5}"
              ",\"total_tokens\":123},\"user\":null},\"sequence_number\":2}\n\n");
    cr_expect_eq(o.events, 3);
    cr_expect(o.terminal);
    cr_expect_not(o.error);
    has_usage(o, 36, 87, 12);
}

Test(sse, p_later_known_values_win)
{
    // Every event may bring counts; the last known one of each stays, null and absent ones change
    // nothing.
    has_usage(watch("data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: "
                    "{\"usage\":{\"completion_tokens\":2}}\n\n"
                    "data: {\"usage\":{\"prompt_tokens\":null,\"completion_tokens\":3}}\n\ndata: "
                    "{\"usage\":null}\n\ndata: {\"usage\":{}}\n\n"),
              1, 3, UNKNOWN);
    has_usage(
        watch("data: "
              "{\"x_groq\":{\"usage\":{\"prompt_tokens\":1}},\"usage\":{\"prompt_tokens\":2}}\n\n"),
        2, UNKNOWN, UNKNOWN);
}

Test(sse, q_what_is_no_usage)
{
    // The word in text, as a value, as part of another word or with something else behind it is no
    // usage.
    EACH(usage_seen, false, "data: {\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":1}\"}\n\n",
         "data: {\"content\":\"usage\"}\n\n",
         "data: {\"type\":\"usage\",\"a\":{\"prompt_tokens\":1}}\n\n",
         "data: {\"usages\":{\"prompt_tokens\":1}}\n\n",
         "data: {\"usage\":[{\"prompt_tokens\":1}]}\n\n", "data: {\"usage\":5}\n\n",
         "data: {\"usage\":{\"properties\":{\"prompt_tokens\":1}}}\n\n",
         "data: {\"usage\":{\"prompt_tokens\":\"1\"}}\n\n",
         "data: {\"usage\":{\"prompt_tokens\":1.5}}\n\n",
         "data: {\"usage\":{\"prompt_tokens\":-1}}\n\n",
         "data: {\"usage\":{\"prompt_tokens\":[1]}}\n\n", "data: {\"usage\":{prompt_tokens:1}}\n\n",
         ": {\"usage\":{\"prompt_tokens\":1}}\n\n", "usage: {\"usage\":{\"prompt_tokens\":1}}\n\n",
         "event: \"usage\":{\"prompt_tokens\":1}\n\n", "data: {\"usage\":{\"prompt_tokens\":1\n\n",
         "data: {\"usa\ndata: ge\":{\"prompt_tokens\":1}}\n\n",
         "data: {\"usage\":{\"prompt_tokens\":99999999999}}\n\n");
}

Test(sse, r_usage_however_written)
{
    // Whitespace, other lines of the same event, braces in strings and nested objects do not hide
    // the counts.
    has_usage(
        watch("data: {\"usage\" : { \"prompt_tokens\" : 5 , \"completion_tokens\" : 6 } }\n\n"), 5,
        6, UNKNOWN);
    has_usage(watch("data: {\"\"usage\":{\"prompt_tokens\":5}}\n\n"), 5, UNKNOWN, UNKNOWN);
    has_usage(watch("data: {\"usage\":\ndata: {\ndata: \"input_tokens\": 5,\n: comment\ndata: "
                    "\"output_tokens\": 6\ndata: }}\n\n"),
              5, 6, UNKNOWN);
    has_usage(watch("data: "
                    "{\"usage\":{\"a\":\"}\\\"}\\\\\",\"b\":{\"prompt_tokens\":1},\"prompt_"
                    "tokens\":7,\"cache_read_input_tokens\":0}}\n\n"),
              7, UNKNOWN, 0);
    has_usage(watch("data: {\"usage\":{\"prompt_tokens\":0}}"), 0, UNKNOWN, UNKNOWN);
    has_usage(
        watch("data: "
              "{\"tools\":[{\"usage\":{\"type\":\"object\"}}],\"usage\":{\"input_tokens\":8}}\n\n"),
        8, UNKNOWN, UNKNOWN);
}

Test(sse, s_usage_too_long)
{
    // Of a usage object larger than the capture, what came within the limit counts, and the rest
    // passes by.
    char text[2048] = "data: {\"usage\":{\"prompt_tokens\":12,\"x\":\"";
    size_t len = strlen(text);
    memset(text + len, 'x', SSE_CAPTURE_MAX);
    len += SSE_CAPTURE_MAX;
    const char *rest = "\",\"completion_tokens\":13}}\n\ndata: [DONE]\n\n";
    memcpy(text + len, rest, strlen(rest));
    struct outcome o = watch_bytes(text, len + strlen(rest));
    has_usage(o, 12, UNKNOWN, UNKNOWN);
    cr_expect_eq(o.events, 2);
    cr_expect(o.terminal);

    // A number that the limit cuts is not known: 512 bytes end in its middle.
    len = (size_t)snprintf(text, sizeof text, "data: {\"usage\":{\"prompt_tokens\":12,\"x\":\"");
    size_t pad =
        SSE_CAPTURE_MAX - strlen("{\"prompt_tokens\":12,\"x\":\"\",\"completion_tokens\":13");
    memset(text + len, 'x', pad);
    len += pad;
    rest = "\",\"completion_tokens\":13456}}\n\n";
    memcpy(text + len, rest, strlen(rest));
    has_usage(watch_bytes(text, len + strlen(rest)), 12, UNKNOWN, UNKNOWN);
}

Test(sse, t_usage_at_any_offset)
{
    // The scan for "usage" misses it at no place relative to the vectors it reads.
    for (size_t place = 0; place < 70; place++) {
        char text[256];
        size_t len = (size_t)snprintf(
            text, sizeof text, "data: {\"%.*s\":1,\"usage\":{\"input_tokens\":%zu}}\n\n",
            (int)place, "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu",
            place);
        has_usage(watch_bytes(text, len), (uint32_t)place, UNKNOWN, UNKNOWN);
    }
}

Test(sse, u_wild_providers)
{
    // What is seen in the wild: a byte order mark, CRLF, no space, comments, all in one stream.
    static const char text[] =
        "\xEF\xBB\xBF: OPENROUTER "
        "PROCESSING\r\n\r\ndata:{\"choices\":[],\"prompt_filter_results\":[]}\r\n\r\n"
        ": OPENROUTER PROCESSING\r\n\r\nid: "
        "3\r\ndata:{\"choices\":[{\"finish_reason\":\"\"}],\"x_groq\":{\"id\":\"r\",\"usage\":{"
        "\"prompt_tokens\":2,\"completion_tokens\":3}}}\r\n\r\n"
        "data:[DONE]\r\n\r\n";
    struct outcome o = watch_bytes(text, sizeof text - 1);
    cr_expect_eq(o.events, 3);
    cr_expect(o.terminal);
    cr_expect(o.boundary);
    has_usage(o, 2, 3, UNKNOWN);
}

// ---- whole answers ----

static bool whole_usage(const char *text, uint32_t input, uint32_t output, uint32_t cached)
{
    struct sse_usage usage = {0, 0, 0};
    size_t len = strlen(text);
    if (!sse_usage_from_json(&usage, edge_put(text, len), len))
        return false;
    cr_expect_eq(usage.input, input, "input %u in %s", usage.input, text);
    cr_expect_eq(usage.output, output, "output %u in %s", usage.output, text);
    cr_expect_eq(usage.cached, cached, "cached %u in %s", usage.cached, text);
    return true;
}

Test(sse, v_whole_answers)
{
    // The usage of a whole answer is read at its top level, the last one if there are several.
    cr_expect(whole_usage("{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":\"\\\"usage\\\":{}"
                          "\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"prompt_"
                          "tokens_details\":{\"cached_tokens\":3}}}",
                          1, 2, 3));
    cr_expect(whole_usage("{\"usage\": {\"input_tokens\": 4, \"cache_read_input_tokens\": 5, "
                          "\"output_tokens\": 6}, \"role\":\"assistant\"}\n",
                          4, 6, 5));
    cr_expect(whole_usage("{\"output\":[{\"usage\":{\"input_tokens\":9}}],\"usage\":{\"input_"
                          "tokens\":1,\"input_tokens_details\":{\"cached_tokens\":2}}}",
                          1, UNKNOWN, 2));
    cr_expect(whole_usage("{\"usage\":{\"input_tokens\":1},\"usage\":{\"output_tokens\":2}}",
                          UNKNOWN, 2, UNKNOWN));
    cr_expect(whole_usage("{\"usage\":{\"input_tokens\":1},\"usage\":null}", 1, UNKNOWN, UNKNOWN));
}

Test(sse, w_whole_answers_without)
{
    // No usage, one of another shape or depth, and a body that is not whole JSON give none.
    static const char *const texts[] = {"",
                                        "{}",
                                        "[]",
                                        "{\"usage\":null}",
                                        "{\"usage\":{}}",
                                        "{\"usage\":[1]}",
                                        "{\"usage\":3}",
                                        "{\"message\":{\"usage\":{\"input_tokens\":1}}}",
                                        "[{\"usage\":{\"input_tokens\":1}}]",
                                        "{\"usage\":{\"input_tokens\":1}",
                                        "{\"usage\":{\"input_tokens\":1}}x",
                                        "{\"usage\":{\"input_tokens\":1",
                                        "{\"usage\":{\"input_tokens\":01}}",
                                        "{\"x\":\"usage\",\"y\":{\"input_tokens\":1}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_expect_not(whole_usage(texts[i], 1, UNKNOWN, UNKNOWN), "%s", texts[i]);
}
