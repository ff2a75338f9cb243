// SPDX-License-Identifier: MIT
//
// The bytes of OpenAI's Responses API. Every event names its type twice and carries a
// sequence_number that rises by one: here it is simply the number of the step.
#include "tools/mock_answer.h"

static void member_number(struct sink *sink, const char *prefix, uint64_t number)
{
    sink_text(sink, prefix);
    sink_number(sink, number);
}

static void render_item_id(struct sink *sink, const struct answer *answer, uint64_t block)
{
    render_id(sink, answer, answer->calls ? "fc_" : "msg_");
    member_number(sink, "_", block);
}

// An output item, while it is being made (empty) or complete.
static void render_item(struct sink *sink, struct answer *answer, uint64_t block, bool complete)
{
    sink_text(sink, answer->calls ? "{\"type\":\"function_call\",\"id\":\""
                                  : "{\"type\":\"message\",\"id\":\"");
    render_item_id(sink, answer, block);
    sink_text(sink, complete ? "\",\"status\":\"completed\"" : "\",\"status\":\"in_progress\"");
    if (answer->calls) {
        render_id(sink, answer, ",\"call_id\":\"call_");
        member_number(sink, "_", block);
        sink_text(sink, "\",\"name\":\"");
        render_tool(sink, answer);
        sink_text(sink, complete ? "\",\"arguments\":\"{\\\"text\\\":\\\"" : "\",\"arguments\":\"");
    } else {
        sink_text(sink, complete ? ",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
                                   "\"annotations\":[],\"logprobs\":[],\"text\":\""
                                 : ",\"role\":\"assistant\",\"content\":[");
    }
    if (complete)
        render_text(sink, answer, block);
    if (answer->calls)
        sink_text(sink, complete ? "\\\"}\"}" : "\"}");
    else
        sink_text(sink, complete ? "\"}]}" : "]}");
}

static void render_usage(struct sink *sink, const struct answer *answer)
{
    uint64_t input = answer_prompt_tokens(answer), output = answer_completion_tokens(answer);
    member_number(sink, "{\"input_tokens\":", input);
    sink_text(sink, ",\"input_tokens_details\":{\"cached_tokens\":0}");
    member_number(sink, ",\"output_tokens\":", output);
    member_number(sink, ",\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":",
                  input + output);
    sink_text(sink, "}");
}

static void render_response(struct sink *sink, struct answer *answer, bool complete)
{
    render_id(sink, answer, "{\"id\":\"resp_");
    member_number(sink, "\",\"object\":\"response\",\"created_at\":", answer->created);
    sink_text(sink, complete ? ",\"status\":\"completed\"" : ",\"status\":\"in_progress\"");
    sink_text(sink, ",\"background\":false,\"error\":null,\"incomplete_details\":null,"
                    "\"instructions\":null,\"max_output_tokens\":null,\"model\":\"");
    render_model(sink, answer);
    sink_text(sink, "\",\"output\":[");
    for (uint64_t block = 0; complete && block < answer->plan.blocks; block++) {
        sink_text(sink, block ? "," : "");
        render_item(sink, answer, block, true);
    }
    sink_text(sink, "],\"parallel_tool_calls\":true,\"previous_response_id\":null,"
                    "\"reasoning\":{\"effort\":null,\"summary\":null},\"service_tier\":\"default\","
                    "\"store\":true,\"temperature\":1.0,\"text\":{\"format\":{\"type\":\"text\"}},"
                    "\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":1.0,"
                    "\"truncation\":\"disabled\",\"usage\":");
    if (complete)
        render_usage(sink, answer);
    else
        sink_text(sink, "null");
    sink_text(sink, ",\"user\":null,\"metadata\":{}}");
}

static void response_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    render_response(sink, answer, true);
}

// -------------------------------------------------------------------------------------------
// stream

static void event_begin(struct sink *sink, const char *type, uint64_t step)
{
    sink_text(sink, "event: ");
    sink_text(sink, type);
    sink_text(sink, "\ndata: {\"type\":\"");
    sink_text(sink, type);
    member_number(sink, "\",\"sequence_number\":", step);
}

static void event_response(struct sink *sink, struct answer *answer, const char *type,
                           uint64_t step, bool complete)
{
    event_begin(sink, type, step);
    sink_text(sink, ",\"response\":");
    render_response(sink, answer, complete);
    sink_text(sink, "}\n\n");
}

static void event_item(struct sink *sink, struct answer *answer, const char *type, uint64_t step,
                       bool complete)
{
    uint64_t block = answer_place(answer, step).block;
    event_begin(sink, type, step);
    member_number(sink, ",\"output_index\":", block);
    sink_text(sink, ",\"item\":");
    render_item(sink, answer, block, complete);
    sink_text(sink, "}\n\n");
}

// `"item_id":..,"output_index":..`, and for text the index of its part.
static void render_where(struct sink *sink, const struct answer *answer, uint64_t block)
{
    sink_text(sink, ",\"item_id\":\"");
    render_item_id(sink, answer, block);
    member_number(sink, "\",\"output_index\":", block);
    if (!answer->calls)
        sink_text(sink, ",\"content_index\":0");
}

static void event_delta(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    event_begin(sink,
                answer->calls ? "response.function_call_arguments.delta"
                              : "response.output_text.delta",
                step);
    render_where(sink, answer, place.block);
    sink_text(sink, ",\"delta\":\"");
    if (answer->calls && place.index == 0)
        sink_text(sink, "{\\\"text\\\":\\\"");
    render_piece_text(sink, answer, place.index);
    if (answer->calls)
        sink_text(sink, place.index + 1 == answer->plan.pieces ? "\\\"}\"}\n\n" : "\"}\n\n");
    else
        sink_text(sink, "\",\"logprobs\":[]}\n\n");
}

static void event_part(struct sink *sink, struct answer *answer, const char *type, uint64_t step,
                       bool complete)
{
    uint64_t block = answer_place(answer, step).block;
    event_begin(sink, type, step);
    render_where(sink, answer, block);
    sink_text(sink, ",\"part\":{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],"
                    "\"text\":\"");
    if (complete)
        render_text(sink, answer, block);
    sink_text(sink, "\"}}\n\n");
}

static void event_text_done(struct sink *sink, struct answer *answer, uint64_t step)
{
    uint64_t block = answer_place(answer, step).block;
    event_begin(
        sink, answer->calls ? "response.function_call_arguments.done" : "response.output_text.done",
        step);
    render_where(sink, answer, block);
    sink_text(sink, answer->calls ? ",\"arguments\":\"{\\\"text\\\":\\\"" : ",\"text\":\"");
    render_text(sink, answer, block);
    sink_text(sink, answer->calls ? "\\\"}\"}\n\n" : "\",\"logprobs\":[]}\n\n");
}

static void event_close(struct sink *sink, struct answer *answer, uint64_t step, struct place place)
{
    if (place.index == 0)
        event_text_done(sink, answer, step);
    else if (place.index + 1 < answer->plan.close)
        event_part(sink, answer, "response.content_part.done", step, true);
    else
        event_item(sink, answer, "response.output_item.done", step, true);
}

static void response_event(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    switch (place.part) {
    case PART_HEAD:
        event_response(sink, answer, place.index == 0 ? "response.created" : "response.in_progress",
                       step, false);
        break;
    case PART_OPEN:
        if (place.index == 0)
            event_item(sink, answer, "response.output_item.added", step, false);
        else
            event_part(sink, answer, "response.content_part.added", step, false);
        break;
    case PART_PIECE: event_delta(sink, answer, step); break;
    case PART_CLOSE: event_close(sink, answer, step, place); break;
    case PART_TAIL: event_response(sink, answer, "response.completed", step, true); break;
    }
}

void responses_settle(struct answer *answer)
{
    bool calls = answer->calls > 0;
    answer->is_stream = answer->ask.stream;
    answer_plan(answer, (struct plan){.head = 2,
                                      .blocks = calls ? answer->calls : 1,
                                      .open = calls ? 1 : 2,
                                      .pieces = answer->script.chunks,
                                      .close = calls ? 2 : 3,
                                      .tail = 1});
    answer->render = response_event;
    answer->render_piece = event_delta;
    if (!answer->is_stream)
        answer_whole(answer, response_whole);
}
