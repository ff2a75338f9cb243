// SPDX-License-Identifier: MIT
//
// Proves that the load generator's verifier accepts what tokenring-mock sends, cut anywhere, and
// that it notices each byte that is changed, missing or twice.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tools/load_check.h"
#include "tools/mock_out.h"

static char body[4096];
static size_t body_len;

static void add(const char *text)
{
    size_t len = strlen(text);
    cr_assert_leq(body_len + len, sizeof body);
    memcpy(body + body_len, text, len);
    body_len += len;
}

static void add_chat_event(int number, const char *filler)
{
    char event[512];
    snprintf(event, sizeof event,
             "data: {\"id\":\"c-1\",\"model\":\"tokenring\",\"choices\":[{\"delta\":{\"content\":"
             "\"tok%d %s\"},\"finish_reason\":null}]}\n\n",
             number, filler);
    add(event);
}

static void make_chat(int tokens)
{
    body_len = 0;
    add("data: {\"id\":\"c-1\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n");
    for (int i = 0; i < tokens; i++)
        add_chat_event(i, i % 2 ? "" : "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123");
    add("data: {\"id\":\"c-1\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    add("data: [DONE]\n\n");
}

static void make_whole(void)
{
    body_len = 0;
    add("{\"id\":\"c-1\",\"choices\":[{\"message\":{\"content\":\"tok0 tok1 tok2 tok3 tok4 tok5 "
        "tok6 tok7 tok8 tok9 tok10 tok11 " MOCK_FILLER MOCK_FILLER
        "ABC\"}}],\"usage\":{\"total_tokens\":12}}");
}

// The whole body in pieces of `step` bytes.
static void feed_cut(struct check *check, size_t step)
{
    for (size_t at = 0; at < body_len; at += step)
        check_feed(check, (const uint8_t *)body + at, at + step < body_len ? step : body_len - at);
}

static bool check_cut(struct check *check, bool stream, uint64_t expected, size_t step)
{
    check_start(check, stream, true, expected);
    feed_cut(check, step);
    return check_end(check);
}

static bool accepts(bool stream, uint64_t expected)
{
    struct check check;
    return check_cut(&check, stream, expected, body_len);
}

Test(load_check, a_stream_is_accepted_however_it_is_cut)
{
    struct check check;
    make_chat(12);
    for (size_t step = 1; step <= body_len; step++) {
        cr_assert(check_cut(&check, true, 12, step), "pieces of %zu: %s", step, check.wrong);
        cr_assert_eq(check.events, 15);
        cr_assert_eq(check.tokens, 12);
    }
}

Test(load_check, events_are_counted_without_verifying)
{
    make_chat(12);
    for (size_t step = 1; step <= body_len; step++) {
        struct check check;
        check_start(&check, true, false, UINT64_MAX);
        feed_cut(&check, step);
        cr_assert(check_end(&check));
        cr_assert_eq(check.events, 15);
    }
}

// Only in content events: the others have no second one to be compared with.
Test(load_check, a_changed_byte_of_a_content_event_is_noticed)
{
    make_chat(3);
    size_t from = (size_t)(strstr(body, "tok1") - body);
    while (body[from - 1] != '\n')
        from--;
    size_t to = (size_t)(strstr(body + from, "\n\n") - body);
    for (size_t at = from; at < to; at++) {
        char was = body[at];
        body[at] = was == '7' ? '8' : '7';
        cr_assert_not(accepts(true, 3), "byte %zu, '%c'", at - from, was);
        body[at] = was;
    }
    cr_assert(accepts(true, 3));
}

Test(load_check, a_missing_byte_of_a_content_event_is_noticed)
{
    make_chat(3);
    size_t from = (size_t)(strstr(body, "tok1") - body);
    while (body[from - 1] != '\n')
        from--;
    size_t to = (size_t)(strstr(body + from, "\n\n") - body) + 2;
    for (size_t at = from; at < to; at++) {
        make_chat(3);
        memmove(body + at, body + at + 1, body_len - at - 1);
        body_len--;
        cr_assert_not(accepts(true, 3), "byte %zu", at - from);
    }
}

Test(load_check, missing_repeated_and_swapped_events_are_noticed)
{
    body_len = 0;
    add_chat_event(0, "");
    add_chat_event(2, "");
    add("data: [DONE]\n\n");
    cr_assert_not(accepts(true, UINT64_MAX));
    body_len = 0;
    add_chat_event(0, "");
    add_chat_event(0, "");
    add("data: [DONE]\n\n");
    cr_assert_not(accepts(true, UINT64_MAX));
    body_len = 0;
    add_chat_event(1, "");
    add_chat_event(0, "");
    add("data: [DONE]\n\n");
    cr_assert_not(accepts(true, UINT64_MAX));
}

Test(load_check, the_end_must_be_there_and_be_the_end)
{
    body_len = 0;
    add_chat_event(0, "");
    cr_assert_not(accepts(true, UINT64_MAX), "no [DONE]");
    add("data: [DONE]\n");
    cr_assert_not(accepts(true, UINT64_MAX), "no blank line behind [DONE]");
    add("\n");
    cr_assert(accepts(true, UINT64_MAX));
    cr_assert(accepts(true, 1));
    cr_assert_not(accepts(true, 2), "fewer than ordered");
    add_chat_event(1, "");
    cr_assert_not(accepts(true, UINT64_MAX), "an event behind [DONE]");
}

Test(load_check, errors_in_a_stream_are_noticed)
{
    body_len = 0;
    add_chat_event(0, "");
    add("data: {\"error\":{\"message\":\"gone\"}}\n\ndata: [DONE]\n\n");
    cr_assert_not(accepts(true, UINT64_MAX));
    body_len = 0;
    add("event: error\ndata: {}\n\nevent: message_stop\ndata: {}\n\n");
    cr_assert_not(accepts(true, UINT64_MAX));
}

Test(load_check, numbered_events_of_the_responses_api)
{
    body_len = 0;
    for (int i = 0; i < 3; i++) {
        char event[256];
        snprintf(event, sizeof event,
                 "event: response.output_text.delta\n"
                 "data: {\"sequence_number\":%d,\"delta\":\"tok%d \"}\n\n",
                 i + 4, i);
        add(event);
    }
    add("event: response.output_text.done\ndata: {\"text\":\"tok0 tok1 tok2 \"}\n\n");
    add("event: response.completed\ndata: {\"text\":\"tok0 tok1 tok2 \"}\n\n");
    cr_assert(accepts(true, 3));
}

Test(load_check, a_whole_reply_is_accepted_however_it_is_cut)
{
    struct check check;
    make_whole();
    for (size_t step = 1; step <= body_len; step++)
        cr_assert(check_cut(&check, false, 12, step), "pieces of %zu: %s", step, check.wrong);
    cr_assert_not(accepts(false, 11));
    cr_assert_not(accepts(false, 13));
}

Test(load_check, a_changed_byte_of_the_text_is_noticed)
{
    make_whole();
    size_t from = (size_t)(strstr(body, "tok0") - body);
    size_t to = (size_t)(strstr(body, "ABC\"") - body) + 3;
    for (size_t at = from; at < to; at++) {
        char was = body[at];
        body[at] = was == '#' ? '$' : '#';
        cr_assert_not(accepts(false, 12), "byte %zu, '%c'", at - from, was);
        body[at] = was;
    }
}

Test(load_check, a_whole_reply_that_is_cut_short_is_noticed)
{
    make_whole();
    size_t whole = body_len;
    for (body_len = 1; body_len < whole; body_len++)
        cr_assert_not(accepts(false, UINT64_MAX), "%zu bytes", body_len);
}
