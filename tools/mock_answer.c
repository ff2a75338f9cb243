// SPDX-License-Identifier: MIT
#include "tools/mock_answer.h"

#include <stdio.h>
#include <time.h>

#include "alloc/check.h"
#include "proto/chunk.h"
#include "proto/reply.h"

enum {
    HEAD_MAX = 1024,
    ROOM_RETRY_MS = 1, // no buffer was free: the whole core is behind
};

static const uint8_t broken_event[] = "dat\x00\xff\x1b {\"broken\": \n\n";
enum { BROKEN_EVENT_LEN = sizeof broken_event - 1 };

// ----------------------------------------------------------------------------- the order of steps

struct place answer_place(const struct answer *answer, uint64_t step)
{
    const struct plan *plan = &answer->plan;
    uint64_t per_block = plan->open + plan->pieces + plan->close;
    if (step < plan->head)
        return (struct place){PART_HEAD, 0, step, 0};
    step -= plan->head;
    if (step >= per_block * plan->blocks)
        return (struct place){PART_TAIL, 0, step - per_block * plan->blocks,
                              plan->blocks * plan->pieces};
    uint64_t block = step / per_block, before = block * plan->pieces;
    step %= per_block;
    if (step < plan->open)
        return (struct place){PART_OPEN, block, step, before};
    step -= plan->open;
    if (step < plan->pieces)
        return (struct place){PART_PIECE, block, step, before + step};
    return (struct place){PART_CLOSE, block, step - plan->pieces, before + plan->pieces};
}

uint64_t answer_step_of(const struct answer *answer, uint64_t block, uint64_t piece)
{
    const struct plan *plan = &answer->plan;
    return plan->head + block * (plan->open + plan->pieces + plan->close) + plan->open + piece;
}

void answer_plan(struct answer *answer, struct plan plan)
{
    answer->plan = plan;
    answer->steps = plan.head + plan.blocks * (plan.open + plan.pieces + plan.close) + plan.tail;
}

// Opening events leave with the first piece, closing ones with the last.
static uint64_t step_due_ms(const struct answer *answer)
{
    if (!answer->is_stream)
        return answer->first_due_ms;
    uint64_t total = answer->plan.blocks * answer->plan.pieces;
    uint64_t pieces = answer_place(answer, answer->step).pieces;
    if (pieces >= total)
        pieces = total ? total - 1 : 0;
    return answer->first_due_ms + pieces * answer->script.gap_ms;
}

// -------------------------------------------------------------------------------------- rendering

static uint64_t measure(answer_render *render, struct answer *answer, uint64_t step)
{
    struct sink sink = sink_measure();
    render(&sink, answer, step);
    return sink.at;
}

static uint64_t fill_to(uint64_t wanted, uint64_t length)
{
    return wanted > length ? wanted - length : 0;
}

static uint64_t piece_fill(struct answer *answer, uint64_t step)
{
    if (!answer->script.chunk_bytes)
        return 0;
    answer->fill = 0;
    return fill_to(answer->script.chunk_bytes, measure(answer->render_piece, answer, step));
}

void answer_whole(struct answer *answer, answer_render *render)
{
    answer->render = render;
    answer->is_stream = answer->chunked = false;
    answer->steps = 1;
    answer->fill = 0;
    answer->length = measure(render, answer, 0);
    answer->fill = fill_to(answer->script.reply_bytes, answer->length);
    answer->length += answer->fill;
    if (answer->script.malformed && answer->script.malformed_at)
        answer->length -= answer->length / 4 + 1;
}

void render_piece_text(struct sink *sink, const struct answer *answer, uint64_t number)
{
    sink_token(sink, number);
    sink_filler(sink, answer->fill);
}

void render_text(struct sink *sink, struct answer *answer, uint64_t block)
{
    uint64_t fill = answer->fill;
    for (uint64_t i = 0; i < answer->plan.pieces; i++) {
        answer->fill = answer->is_stream ? piece_fill(answer, answer_step_of(answer, block, i)) : 0;
        render_piece_text(sink, answer, i);
    }
    answer->fill = fill;
    if (!answer->is_stream && block + 1 == answer->plan.blocks)
        sink_filler(sink, fill);
}

void render_model(struct sink *sink, const struct answer *answer)
{
    sink_bytes(sink, answer->ask.model, answer->ask.model_len);
}

void render_tool(struct sink *sink, const struct answer *answer)
{
    if (answer->ask.tool_len)
        sink_bytes(sink, answer->ask.tool, answer->ask.tool_len);
    else
        sink_text(sink, "mock_tool");
}

void render_id(struct sink *sink, const struct answer *answer, const char *prefix)
{
    sink_text(sink, prefix);
    sink_hex(sink, answer->serial, 16);
}

uint64_t answer_prompt_tokens(const struct answer *answer)
{
    return answer->body_bytes / 4 + 1; // as good a guess as any
}

uint64_t answer_completion_tokens(const struct answer *answer)
{
    return answer->plan.blocks * answer->plan.pieces;
}

static bool is_broken(const struct answer *answer, uint64_t step)
{
    return answer->script.malformed && step + 1 == answer->script.malformed_at;
}

// An event as it leaves: as rendered, or broken as ordered.
static void render_event(struct sink *sink, struct answer *answer, uint64_t step, uint64_t from,
                         uint64_t to)
{
    bool broken = is_broken(answer, step);
    if (broken && answer->script.malformed == MALFORMED_SSE) {
        sink_bytes(sink, broken_event, BROKEN_EVENT_LEN);
        return;
    }
    sink_inner(sink, from, broken ? to - 2 : to);
    answer->render(sink, answer, step);
    sink_inner_end(sink);
    if (broken)
        sink_bytes(sink, "\n\n", 2);
}

static uint64_t event_length(struct answer *answer, uint64_t step)
{
    bool piece = answer_place(answer, step).part == PART_PIECE;
    answer->fill = piece ? piece_fill(answer, step) : 0;
    uint64_t length = measure(answer->render, answer, step);
    if (!is_broken(answer, step))
        return length;
    // The last quarter of the JSON is missing; the blank line is there.
    return answer->script.malformed == MALFORMED_SSE ? BROKEN_EVENT_LEN : length - length / 4;
}

static void render_chunk(struct sink *sink, struct answer *answer, uint64_t step, uint64_t from,
                         uint64_t to)
{
    uint8_t line[CHUNK_SIZE_LINE_MAX];
    sink_bytes(sink, line, chunk_size_line(line, to - from));
    render_event(sink, answer, step, from, to);
    sink_bytes(sink, "\r\n", 2);
}

static uint64_t chunk_length(uint64_t size)
{
    uint8_t line[CHUNK_SIZE_LINE_MAX];
    return chunk_size_line(line, size) + size + 2;
}

// One step with its framing. `length` is the event's.
static void render_step(struct sink *sink, struct answer *answer, uint64_t step, uint64_t length)
{
    if (!answer->is_stream) { // malformed: not to its end
        sink_inner(sink, 0, length);
        answer->render(sink, answer, step);
        return;
    }
    if (!answer->chunked) {
        render_event(sink, answer, step, 0, length);
        return;
    }
    uint64_t first = answer->split_event;
    if (first)
        render_chunk(sink, answer, step, 0, first);
    render_chunk(sink, answer, step, first, length);
    if (step + 1 == answer->steps)
        sink_text(sink, "0\r\n\r\n");
}

// ----------------------------------------------------------------------------------------- splits

// Where does the step pause? By number: the event goes into two chunks cut there. By chance: the
// bytes are cut anywhere, also within a size line.
static void step_split(struct core *core, struct answer *answer, uint64_t length)
{
    const struct script *script = &answer->script;
    answer->split_event = answer->split_at = 0;
    bool broken = answer->is_stream && is_broken(answer, answer->step);
    if (!script->split || broken || length < 2)
        return;
    if (script->split_random) {
        answer->split_at = 1 + core_random(core) % (answer->step_length - 1);
        return;
    }
    if (script->split_at == 0 || script->split_at >= length)
        return;
    answer->split_at = script->split_at;
    if (!answer->chunked)
        return;
    answer->split_event = script->split_at;
    answer->split_at = chunk_length(answer->split_event);
    answer->step_length = answer->split_at + chunk_length(length - answer->split_event);
}

static void step_begin(struct core *core, struct answer *answer)
{
    uint64_t length;
    if (answer->is_stream)
        length = event_length(answer, answer->step);
    else
        length = answer->length;
    answer->event_length = length;
    answer->step_length = answer->chunked ? chunk_length(length) : length;
    step_split(core, answer, length);
    if (answer->chunked && answer->step + 1 == answer->steps)
        answer->step_length += 5; // the last chunk
}

// ------------------------------------------------------------------------------------------- head

static void render_date(struct sink *sink, struct worker *worker)
{
    uint64_t second = io_wall_ms(worker->core.io) / 1000;
    if (second != worker->date_second) {
        worker->date_second = second;
        time_t now = (time_t)second;
        struct tm tm;
        gmtime_r(&now, &tm);
        size_t len = strftime(worker->date, sizeof worker->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        CHECK(len == MOCK_DATE_LEN);
    }
    sink_bytes(sink, worker->date, MOCK_DATE_LEN);
}

static void render_limits(struct sink *sink, const struct answer *answer)
{
    if (answer->anthropic) {
        render_id(sink, answer, "\r\nrequest-id: req_");
        sink_text(sink, "\r\nanthropic-ratelimit-requests-limit: 10000"
                        "\r\nanthropic-ratelimit-requests-remaining: 9999");
    } else {
        render_id(sink, answer, "\r\nx-request-id: req_");
        sink_text(sink, "\r\nopenai-processing-ms: ");
        sink_number(sink, answer->script.first_delay_ms);
        sink_text(sink, "\r\nx-ratelimit-limit-requests: 10000"
                        "\r\nx-ratelimit-remaining-requests: 9999");
    }
}

static void render_framing(struct sink *sink, const struct answer *answer)
{
    if (answer->is_stream) {
        sink_text(sink, "\r\ncontent-type: text/event-stream; charset=utf-8"
                        "\r\ncache-control: no-cache");
        if (answer->chunked)
            sink_text(sink, "\r\ntransfer-encoding: chunked");
    } else if (answer->status != 204 && answer->status != 304) {
        sink_text(sink, "\r\ncontent-type: application/json\r\ncontent-length: ");
        sink_number(sink, answer->length);
    }
}

static void render_head(struct sink *sink, struct worker *worker, const struct answer *answer,
                        bool close)
{
    sink_text(sink, "HTTP/1.1 ");
    sink_number(sink, answer->status);
    sink_text(sink, " ");
    sink_text(sink, reply_reason(answer->status));
    sink_text(sink, "\r\ndate: ");
    render_date(sink, worker);
    sink_text(sink, "\r\nserver: tokenring-mock");
    render_limits(sink, answer);
    render_framing(sink, answer);
    if (answer->script.has_retry_after) {
        sink_text(sink, "\r\nretry-after: ");
        sink_number(sink, answer->script.retry_after);
    }
    if (answer->allow) {
        sink_text(sink, "\r\nallow: ");
        sink_text(sink, answer->allow);
    }
    sink_text(sink, close ? "\r\nconnection: close\r\n\r\n" : "\r\n\r\n");
}

// ------------------------------------------------------------------------------------------- pump

void answer_start(struct worker *worker, struct answer *answer)
{
    answer_settle(worker, answer);
    uint64_t now = worker->core.now_ms;
    answer->first_due_ms = now + answer->script.first_delay_ms;
    answer->head_due_ms = answer->script.has_headers_delay ? now + answer->script.headers_delay_ms
                                                           : answer->first_due_ms;
    if (answer->api == API_STATS)
        return;
    struct mock_counters *counters = &worker->counters;
    mock_count(&counters->requests, 1);
    mock_count(answer->is_stream ? &counters->streams_open : &counters->whole_open, 1);
}

void answer_count_end(struct worker *worker, const struct answer *answer, bool cancelled)
{
    struct mock_counters *counters = &worker->counters;
    if (answer->api == API_STATS)
        return;
    if (answer->is_stream) {
        mock_count(&counters->streams_open, -1);
        mock_count(cancelled ? &counters->streams_cancelled : &counters->streams_done, 1);
    } else {
        mock_count(&counters->whole_open, -1);
        mock_count(cancelled ? &counters->whole_cancelled : &counters->whole_done, 1);
    }
}

// One pump: what it needs to know, and how it ends.
struct pump {
    struct worker *worker;
    struct answer *answer;
    struct conn *conn;
    struct timer *timer;
    bool close;
    enum answer_state state; // meaningful when a step below said false
};

static bool pump_ends(struct pump *pump, enum answer_state state)
{
    pump->state = state;
    return false;
}

static bool pump_waits_until(struct pump *pump, uint64_t at_ms)
{
    timer_set(&pump->worker->core.wheel, pump->timer, at_ms);
    return pump_ends(pump, ANSWER_WAITS);
}

static bool pump_waits_output(struct pump *pump)
{
    pump->answer->waits_output = true;
    return pump_ends(pump, ANSWER_WAITS);
}

static uint32_t pump_waiting_bytes(const struct pump *pump)
{
    return pump->conn->out_bytes + pump->worker->out.pending;
}

// Is the answer at the event (of a stream) or byte (of a whole body) where the script says stop?
static bool at_mark(const struct answer *answer, uint64_t mark)
{
    if (!answer->is_stream)
        return answer->body_at == mark;
    return answer->step == mark && answer->offset == 0;
}

// A scripted stop: false if the pump ends here.
static bool pump_stop(struct pump *pump)
{
    struct answer *answer = pump->answer;
    const struct script *script = &answer->script;
    bool cut = script->has_cut && at_mark(answer, script->cut_after);
    bool stall = script->has_stall && at_mark(answer, script->stall_after);
    if (!cut && !stall)
        return true;
    if (!answer->head_sent && script->has_headers_delay)
        return true; // the head goes out in its own time
    if (pump->worker->core.now_ms < answer->first_due_ms)
        return pump_waits_until(pump, answer->first_due_ms);
    if (stall)
        return pump_ends(pump, ANSWER_WAITS);
    return pump_waiting_bytes(pump) ? pump_waits_output(pump) : pump_ends(pump, ANSWER_CUT);
}

static bool pump_no_room(struct pump *pump)
{
    mock_count(&pump->worker->counters.events_late, 1);
    return pump_waits_until(pump, pump->worker->core.now_ms + ROOM_RETRY_MS);
}

static bool pump_head(struct pump *pump)
{
    struct core *core = &pump->worker->core;
    struct answer *answer = pump->answer;
    if (core->now_ms < answer->head_due_ms)
        return pump_waits_until(pump, answer->head_due_ms);
    if (!out_room(core, &pump->worker->out, HEAD_MAX))
        return pump_no_room(pump);
    struct sink sink = sink_window(core, &pump->worker->out, 0, HEAD_MAX);
    render_head(&sink, pump->worker, answer, pump->close);
    CHECK(sink.at <= HEAD_MAX);
    answer->head_sent = true;
    if (answer->method == H1_METHOD_HEAD || answer->status == 204 || answer->status == 304)
        answer->step = answer->steps;
    return true;
}

// How far may the step go now?
static uint64_t step_end(const struct pump *pump)
{
    const struct answer *answer = pump->answer;
    const struct script *script = &answer->script;
    uint64_t end = answer->offset + OUT_BYTES_MAX - pump_waiting_bytes(pump);
    if (end > answer->step_length)
        end = answer->step_length;
    if (answer->split_at > answer->offset && end > answer->split_at)
        end = answer->split_at;
    if (answer->is_stream)
        return end;
    if (script->has_cut && script->cut_after > answer->offset && end > script->cut_after)
        end = script->cut_after;
    if (script->has_stall && script->stall_after > answer->offset && end > script->stall_after)
        end = script->stall_after;
    return end;
}

static bool pump_step(struct pump *pump)
{
    struct core *core = &pump->worker->core;
    struct answer *answer = pump->answer;
    uint64_t due = answer->offset ? answer->piece_due_ms : step_due_ms(answer);
    if (core->now_ms < due)
        return pump_waits_until(pump, due);
    if (pump_waiting_bytes(pump) >= OUT_BYTES_MAX)
        return pump_waits_output(pump);
    if (answer->offset == 0)
        step_begin(core, answer);
    uint64_t end = step_end(pump);
    if (!out_room(core, &pump->worker->out, end - answer->offset))
        return pump_no_room(pump);
    struct sink sink = sink_window(core, &pump->worker->out, answer->offset, end);
    render_step(&sink, answer, answer->step, answer->event_length);
    CHECK(sink.at == answer->step_length);
    answer->body_at += end - answer->offset;
    answer->piece_due_ms = end == answer->split_at ? core->now_ms + SPLIT_MS : 0;
    answer->offset = end;
    if (end == answer->step_length) {
        answer->step++;
        answer->offset = 0;
    }
    return true;
}

// One move; false when nothing more can be done now.
static bool pump_on(struct pump *pump)
{
    struct answer *answer = pump->answer;
    if (!pump_stop(pump))
        return false;
    if (!answer->head_sent)
        return pump_head(pump);
    if (answer->step < answer->steps)
        return pump_step(pump);
    bool last = pump->close || (answer->is_stream && !answer->chunked);
    return pump_ends(pump, last ? ANSWER_LAST : ANSWER_DONE);
}

enum answer_state answer_pump(struct worker *worker, struct answer *answer, struct conn *conn,
                              struct timer *timer, bool close)
{
    struct pump pump = {worker, answer, conn, timer, close, ANSWER_WAITS};
    answer->waits_output = false;
    uint32_t waiting = conn->out_bytes;
    out_begin(&worker->out, conn);
    while (pump_on(&pump))
        continue;
    mock_count(&worker->counters.bytes_out, worker->out.pending);
    out_end(&worker->core, &worker->out);
    CHECK(conn->out_bytes - waiting == worker->out.pending);
    return pump.state;
}
