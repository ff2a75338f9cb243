// SPDX-License-Identifier: MIT
//
// A client of the gateway: sends its exchanges on one connection, reads what comes back, and judges
// it.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "tests/sim/play.h"

static void step(struct visitor *visitor);

// ---------------------------------------------------------------------------------------- judging

static void wrong(const struct exchange *exchange, const struct message *answer, const char *what)
{
    sim_violation("%s: %s (ask %d, 1.0 %d, early %d; got %u, framing %d, %u bytes of %u; provider: "
                  "framing %d, fate %d at %u of %u, answered %d)",
                  exchange->tag, what, exchange->ask, exchange->http10, exchange->early,
                  answer->status, answer->framing, answer->body_len, exchange->content.len,
                  exchange->framing, exchange->fate, exchange->cut_at, exchange->answer.len,
                  exchange->answered);
}

// How much of the body is the provider's, from its beginning.
static uint32_t own_prefix(const struct exchange *exchange, const struct message *answer)
{
    uint32_t most =
        answer->body_len < exchange->content.len ? answer->body_len : exchange->content.len;
    uint32_t same = 0;
    while (same < most && answer->body[same] == exchange->content.at[same])
        same++;
    return same;
}

static bool error_event_at(const struct message *answer, uint32_t at)
{
    static const char *const begins[] = {"\n\ndata: {", "\n\nevent: error\ndata: {"};
    const char *rest = (const char *)answer->body + at;
    uint32_t len = answer->body_len - at;
    for (int i = 0; i < 2; i++) {
        uint32_t begin = (uint32_t)strlen(begins[i]);
        if (len >= begin && memcmp(rest, begins[i], begin) == 0)
            return true;
        if (len > 0 && len < begin && memcmp(rest, begins[i], len) == 0)
            return true; // the event itself was cut
    }
    return false;
}

// What came is a prefix of the provider's body, and of a stream perhaps an error event behind it.
static void judge_prefix(struct exchange *exchange, const struct message *answer)
{
    uint32_t same = own_prefix(exchange, answer);
    if (same == answer->body_len)
        return;
    // The event begins as the stream's own next event would.
    for (uint32_t back = 0; exchange->sse && back <= 40 && back <= same; back++) {
        if (!error_event_at(answer, same - back))
            continue;
        exchange->error_event = true;
        play_count(PLAY_error_event);
        return;
    }
    wrong(exchange, answer, "bytes that the provider did not send");
}

static void judge_refused(struct exchange *exchange, const struct message *answer)
{
    exchange->result = RESULT_REFUSED;
    play_count(PLAY_refused);
    if (answer->status < 400)
        wrong(exchange, answer, "an error with a status that is none");
    const struct play *play = exchange->play;
    bool to_be = exchange->ask == ASK_BAD && answer->status == exchange->status;
    if (play->temper == TEMPER_FAULTY)
        to_be |= exchange->fate != FATE_WHOLE || exchange->abandons || play->chattered ||
                 (play->idle_closes && strcmp(exchange->error, "upstream_reset") == 0);
    bool calm = play->temper != TEMPER_HARSH && !play->stopped;
    if ((calm && !to_be) || exchange->must_finish)
        wrong(exchange, answer, exchange->error);
}

static void judge_whole(struct exchange *exchange, const struct message *answer)
{
    char tag[64];
    exchange->got_status = answer->status;
    if (message_field(answer, "x-tokenring-error", exchange->error, sizeof exchange->error)) {
        judge_refused(exchange, answer);
        return;
    }
    if (exchange->ask == ASK_BAD)
        wrong(exchange, answer, "was not refused");
    if (answer->status != exchange->status)
        wrong(exchange, answer, "another status");
    exchange->result = RESULT_WHOLE;
    if (exchange->ask == ASK_LOCAL) {
        play_count(PLAY_request_local);
        return;
    }
    if (!message_field(answer, "x-answer-to", tag, sizeof tag) || strcmp(tag, exchange->tag) != 0)
        wrong(exchange, answer, "somebody else's answer");
    judge_prefix(exchange, answer);
    // A stream without a length: what tells its death from its end is the last event, or an
    // error's. GAP: for other bodies only a reset could tell an HTTP/1.0 client, and io.h has none.
    // Once it has, this holds for `exchange->sse` only.
    bool short_of_it = !exchange->answered || answer->body_len != exchange->content.len;
    if (answer->framing == MESSAGE_TO_CLOSE && short_of_it) {
        exchange->result = RESULT_CUT;
        play_count(PLAY_answer_cut);
        return;
    }
    bool bodiless = exchange->ask == ASK_HEAD;
    if (exchange->error_event || (!bodiless && answer->body_len != exchange->content.len))
        wrong(exchange, answer, "ended as if it were whole");
    if (!exchange->answered)
        wrong(exchange, answer, "whole before the provider had sent it all");
    play_count(PLAY_answered_whole);
    if (exchange->sse)
        play_count(PLAY_answer_sse);
    if (exchange->framing == ANSWER_TO_CLOSE)
        play_count(PLAY_answer_to_close);
    if (exchange->framing == ANSWER_BODILESS)
        play_count(PLAY_answer_bodiless);
    if (answer->interims > 0)
        play_count(PLAY_interim_head);
}

static void judge_cut(struct exchange *exchange, const struct message *answer)
{
    exchange->result = RESULT_CUT;
    if (answer->state == MESSAGE_IN_HEAD)
        return;
    char ours[48];
    exchange->got_status = answer->status;
    if (exchange->ask == ASK_BAD || exchange->ask == ASK_LOCAL ||
        message_field(answer, "x-tokenring-error", ours, sizeof ours))
        return;
    play_count(PLAY_answer_cut);
    judge_prefix(exchange, answer);
}

// ---------------------------------------------------------------------------------------- reading

static void answer_start(struct visitor *visitor)
{
    struct exchange *exchange = visitor->exchange[visitor->reading];
    bool head = exchange->ask == ASK_HEAD;
    message_start(&visitor->answer, head ? MESSAGE_RESPONSE_TO_HEAD : MESSAGE_RESPONSE);
    visitor->answer_open = true;
}

static void answer_done(struct visitor *visitor)
{
    struct exchange *exchange = visitor->exchange[visitor->reading++];
    sim_note("client has it", exchange->number, visitor->answer.status, visitor->answer.body_len);
    judge_whole(exchange, &visitor->answer);
    if (visitor->reading > visitor->writing && visitor->write_at == 0 &&
        (exchange->result != RESULT_REFUSED || !visitor->answer.close))
        wrong(exchange, &visitor->answer, "an answer to nothing");
    // Refused before the gateway could know that it is a HEAD: the refusal has a body.
    visitor->deaf = exchange->ask == ASK_HEAD && exchange->result == RESULT_REFUSED;
    bool last = visitor->answer.close || exchange->closes;
    message_free(&visitor->answer);
    visitor->answer_open = false;
    // Behind an answer that says so, or a refusal in mid-request, nothing more comes.
    if (last || visitor->deaf || (visitor->writing < visitor->reading && visitor->write_at > 0))
        visitor->count = visitor->reading;
    if (visitor->writing < visitor->reading) {
        visitor->writing = visitor->reading;
        visitor->write_at = 0;
    }
}

static void feed(struct visitor *visitor, const uint8_t *bytes, size_t len)
{
    while (len > 0 && !visitor->deaf) {
        if (!visitor->answer_open) {
            // Before anything was asked there may only be a refusal of the connection: see below.
            if (visitor->reading == visitor->count)
                sim_violation("a client got %zu bytes it did not ask for: \"%.*s\"", len,
                              (int)(len < 60 ? len : 60), (const char *)bytes);
            answer_start(visitor);
        }
        size_t used = message_feed(&visitor->answer, bytes, len);
        if (visitor->answer.state == MESSAGE_BAD)
            wrong(visitor->exchange[visitor->reading], &visitor->answer, visitor->answer.why);
        if (visitor->answer.state == MESSAGE_DONE)
            answer_done(visitor);
        bytes += used;
        len -= used;
    }
}

// ---------------------------------------------------------------------------------------- pausing

static void write_on(void *owner)
{
    struct visitor *visitor = owner;
    visitor->write_pauses = false;
    step(visitor);
}

static void read_on(void *owner)
{
    struct visitor *visitor = owner;
    visitor->read_pauses = false;
    step(visitor);
}

static void maybe_pause(struct visitor *visitor, bool *paused, sim_wake *wake)
{
    if (!dice_chance(&visitor->dice, visitor->pause_per_mille))
        return;
    *paused = true;
    sim_after(dice_skewed(&visitor->dice, visitor->pause_ms) * 1000000ull, wake, visitor);
}

// ------------------------------------------------------------------------------------------ moves

static bool read_some(struct visitor *visitor)
{
    uint8_t bytes[8192];
    if (visitor->read_pauses)
        return false;
    size_t got = sim_read(visitor->end, bytes, dice_skewed(&visitor->dice, visitor->read_most));
    if (got == 0)
        return false;
    visitor->moved += (uint32_t)got;
    feed(visitor, bytes, got);
    maybe_pause(visitor, &visitor->read_pauses, read_on);
    return true;
}

static void count_request(const struct visitor *visitor, const struct exchange *exchange)
{
    if (exchange->ask == ASK_BAD)
        play_count(PLAY_request_bad);
    if (exchange->chunked)
        play_count(PLAY_request_chunked);
    if (exchange->http10)
        play_count(PLAY_request_http10);
    if (exchange->request.len > 1 << 14)
        play_count(PLAY_request_big);
    if (visitor->writing > visitor->reading)
        play_count(PLAY_request_pipelined);
}

static bool write_some(struct visitor *visitor)
{
    if (visitor->write_pauses || visitor->writing >= visitor->count)
        return false;
    if (!visitor->pipelines && visitor->writing > visitor->reading)
        return false;
    struct exchange *exchange = visitor->exchange[visitor->writing];
    uint32_t left = exchange->request.len - visitor->write_at;
    uint32_t most = dice_skewed(&visitor->dice, visitor->write_most);
    size_t taken = sim_write(visitor->end, exchange->request.at + visitor->write_at,
                             most < left ? most : left);
    if (taken == 0)
        return false;
    visitor->moved += (uint32_t)taken;
    visitor->write_at += (uint32_t)taken;
    if (visitor->write_at == exchange->request.len) {
        count_request(visitor, exchange);
        exchange->sent = true;
        visitor->writing++;
        visitor->write_at = 0;
    }
    maybe_pause(visitor, &visitor->write_pauses, write_on);
    return true;
}

// Nobody is left to read this answer: its provider must learn that soon.
static void cancel_judge(void *owner)
{
    struct visitor *visitor = owner;
    if (visitor->play->stopped || visitor->reading >= visitor->count)
        return;
    struct exchange *exchange = visitor->exchange[visitor->reading];
    struct backend *backend = exchange->backend;
    if (!backend || backend->exchange != exchange || exchange->answered)
        return;
    if (backend->over || sim_hung_up(backend->end)) {
        play_count(PLAY_left_and_upstream_cancelled);
        return;
    }
    uint64_t stalled_ns = sim_stalled_ns() - visitor->left_stalled_ns;
    if (sim_now_ns() - visitor->left_ns < 2000000000u + 2 * stalled_ns) {
        sim_after(1000000000u, cancel_judge, visitor);
        return;
    }
    if (visitor->play->starved && visitor->play->starved())
        return; // nobody could hear it leave
    sim_violation("%s: its client left %.3f s ago, and its provider still works", exchange->tag,
                  (double)(sim_now_ns() - visitor->left_ns) / 1e9);
}

static void leave(struct visitor *visitor)
{
    visitor->left_ns = sim_now_ns();
    visitor->left_stalled_ns = sim_stalled_ns();
    if (visitor->reading < visitor->count) {
        visitor->exchange[visitor->reading]->left = true;
        bool begun = visitor->answer_open && visitor->answer.state == MESSAGE_IN_BODY;
        play_count(begun ? PLAY_left_mid_answer : PLAY_left_before_answer);
        if (visitor->writing > visitor->reading + 1)
            play_count(PLAY_left_while_pipelining);
        sim_note("client leaves", visitor->exchange[visitor->reading]->number, visitor->by_reset,
                 0);
    }
    sim_after(1000000000u, cancel_judge, visitor);
    if (visitor->by_reset)
        sim_reset(visitor->end);
    else
        sim_close(visitor->end);
    visitor->done = true;
}

// The connection ended, and this one has no whole answer. Was that to be?
static void judge_unanswered(const struct visitor *visitor)
{
    const struct exchange *exchange = visitor->exchange[visitor->reading];
    const struct play *play = visitor->play;
    if (exchange->must_finish)
        sim_violation("%s: its provider worked on it, and a drain cut it off", exchange->tag);
    if (play->temper == TEMPER_HARSH || play->stopped || sim_cut(visitor->end))
        return;
    bool faulty = play->temper == TEMPER_FAULTY;
    bool to_be = faulty && (exchange->fate != FATE_WHOLE || exchange->abandons);
    bool idle = faulty && visitor->reading > 0 && exchange->deliveries == 0; // waited too long
    if (!to_be && !idle)
        sim_violation("%s: the connection ended without its answer (sent %d, delivered %d, "
                      "answered %d)",
                      exchange->tag, exchange->sent, exchange->delivered, exchange->answered);
}

static void leave_late(void *owner)
{
    struct visitor *visitor = owner;
    if (!visitor->done)
        leave(visitor);
}

// True: it left.
static bool leave_now(struct visitor *visitor)
{
    if (!visitor->hesitates) {
        leave(visitor);
        return true;
    }
    if (!visitor->leaving)
        sim_after(dice_skewed(&visitor->dice, 3000) * 1000000ull, leave_late, visitor);
    visitor->leaving = true;
    return false;
}

void visitor_finish(struct visitor *visitor)
{
    bool clean = sim_ended(visitor->end);
    visitor->done = true;
    if (visitor->reading == visitor->count && !visitor->deaf && sim_readable(visitor->end) > 0)
        sim_violation("client %u: bytes behind the last answer", sim_end_id(visitor->end));
    if (visitor->answer_open && clean)
        message_end(&visitor->answer);
    if (visitor->answer_open && visitor->answer.state == MESSAGE_DONE)
        answer_done(visitor); // it ends with the connection
    if (visitor->reading < visitor->count)
        judge_unanswered(visitor);
    if (visitor->answer_open) {
        judge_cut(visitor->exchange[visitor->reading], &visitor->answer);
        message_free(&visitor->answer);
        visitor->answer_open = false;
    }
    sim_note("client done", sim_end_id(visitor->end), visitor->reading, clean);
    sim_close(visitor->end);
}

static void step(struct visitor *visitor)
{
    if (visitor->done || sim_status(visitor->end) == SIM_CONNECTING)
        return;
    if (sim_status(visitor->end) == SIM_REFUSED) {
        visitor->done = true;
        return;
    }
    bool moved = true;
    while (moved) {
        moved = write_some(visitor);
        moved |= read_some(visitor);
        if (visitor->leaves && visitor->moved >= visitor->leave_at && leave_now(visitor))
            return;
    }
    bool reset = sim_status(visitor->end) == SIM_RESET && sim_readable(visitor->end) == 0;
    bool all = visitor->reading == visitor->count && !visitor->waits_for_end;
    if (reset || sim_ended(visitor->end) || all)
        visitor_finish(visitor);
}

// ------------------------------------------------------------------------------------------ start

static void changed(struct sim_end *end, void *owner)
{
    step(owner);
}

static void dial(void *owner)
{
    struct visitor *visitor = owner;
    visitor->end = sim_dial((const struct sockaddr *)&visitor->play->gateway_at,
                            visitor->play->gateway_len, changed, visitor);
}

void visitor_start(struct visitor *visitor, struct play *play, uint32_t number)
{
    struct dice *dice = &visitor->dice;
    *visitor = (struct visitor){.play = play};
    dice_seed(dice, dice_next(&play->dice), 100 + number);
    visitor->count = dice_skewed(dice, 6);
    uint32_t bytes = 0, trap_at = 0;
    for (uint32_t i = 0; i < visitor->count; i++) {
        visitor->exchange[i] = exchange_draw(play, i + 1 == visitor->count);
        if (visitor->exchange[i]->trap)
            trap_at = bytes + dice_between(dice, 1, 4096);
        bytes += visitor->exchange[i]->request.len + visitor->exchange[i]->answer.len;
    }
    visitor->pipelines = dice_chance(dice, 200);
    visitor->waits_for_end = dice_chance(dice, 500);
    visitor->write_most = dice_skewed(dice, 8192) + (play->temper == TEMPER_HARSH ? 0 : 1024);
    visitor->read_most = dice_skewed(dice, 8192);
    uint32_t least =
        visitor->write_most < visitor->read_most ? visitor->write_most : visitor->read_most;
    uint32_t pieces = bytes / least + 1;
    if (dice_chance(dice, 500))
        visitor->pause_per_mille = pieces > 30 ? 30000 / pieces + 1 : 500;
    visitor->pause_ms = play->temper == TEMPER_HARSH && dice_chance(dice, 300) ? 20000 : 1000;
    uint32_t restless = visitor->pipelines ? 600 : 250;
    visitor->leaves = play->temper != TEMPER_CALM && dice_chance(dice, restless);
    visitor->hesitates = dice_chance(dice, 500);
    visitor->by_reset = dice_chance(dice, 500);
    visitor->leave_at = dice_below(dice, bytes + 1);
    if (trap_at > 0 && dice_chance(dice, 700)) { // to be seen leaving while nobody reads from it
        visitor->leaves = visitor->hesitates = true;
        visitor->leave_at = trap_at;
    }
    sim_after(dice_below(dice, 3000) * 1000000ull, dial, visitor);
}

void visitor_free(struct visitor *visitor)
{
    if (visitor->answer_open)
        message_free(&visitor->answer);
}
