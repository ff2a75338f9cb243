// SPDX-License-Identifier: MIT
//
// The bytes of Anthropic's dialect: messages, count_tokens, models, errors.
#include "tools/mock_answer.h"

enum { MESSAGE_HEAD = 1, MESSAGE_TAIL = 2 };

static void member_number(struct sink *sink, const char *prefix, uint64_t number)
{
    sink_text(sink, prefix);
    sink_number(sink, number);
}

static const char *stop_reason(const struct answer *answer)
{
    return answer->calls ? "\"tool_use\"" : "\"end_turn\"";
}

static void render_block_id(struct sink *sink, const struct answer *answer, uint64_t block)
{
    render_id(sink, answer, "toolu_");
    member_number(sink, "_", block);
}

// `{"id":..,"type":"message",..,"content":` up to the content.
static void render_opening(struct sink *sink, const struct answer *answer)
{
    sink_text(sink, "{\"id\":\"");
    render_id(sink, answer, "msg_");
    sink_text(sink, "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"");
    render_model(sink, answer);
    sink_text(sink, "\",\"content\":[");
}

static void render_usage(struct sink *sink, const struct answer *answer, uint64_t output)
{
    member_number(sink, ",\"usage\":{\"input_tokens\":", answer_prompt_tokens(answer));
    sink_text(sink, ",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0");
    member_number(sink, ",\"output_tokens\":", output);
    sink_text(sink, ",\"service_tier\":\"standard\"}");
}

// --------------------------------------------------------------------------------------------
// whole

static void message_calls(struct sink *sink, struct answer *answer)
{
    for (uint64_t block = 0; block < answer->calls; block++) {
        sink_text(sink,
                  block ? ",{\"type\":\"tool_use\",\"id\":\"" : "{\"type\":\"tool_use\",\"id\":\"");
        render_block_id(sink, answer, block);
        sink_text(sink, "\",\"name\":\"");
        render_tool(sink, answer);
        sink_text(sink, "\",\"input\":{\"text\":\"");
        render_text(sink, answer, block);
        sink_text(sink, "\"}}");
    }
}

static void message_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    render_opening(sink, answer);
    if (answer->calls) {
        message_calls(sink, answer);
    } else {
        sink_text(sink, "{\"type\":\"text\",\"text\":\"");
        render_text(sink, answer, 0);
        sink_text(sink, "\"}");
    }
    sink_text(sink, "],\"stop_reason\":");
    sink_text(sink, stop_reason(answer));
    sink_text(sink, ",\"stop_sequence\":null");
    render_usage(sink, answer, answer_completion_tokens(answer));
    sink_text(sink, "}");
}

// -------------------------------------------------------------------------------------------
// stream

static void message_start(struct sink *sink, struct answer *answer)
{
    sink_text(sink, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    render_opening(sink, answer);
    sink_text(sink, "],\"stop_reason\":null,\"stop_sequence\":null");
    render_usage(sink, answer, 1);
    sink_text(sink, "}}\n\n");
}

static void block_start(struct sink *sink, struct answer *answer, struct place place)
{
    if (place.index == 1) { // behind the first block's start, as the provider does
        sink_text(sink, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
        return;
    }
    sink_text(sink, "event: content_block_start\ndata: {\"type\":\"content_block_start\"");
    member_number(sink, ",\"index\":", place.block);
    if (answer->calls) {
        sink_text(sink, ",\"content_block\":{\"type\":\"tool_use\",\"id\":\"");
        render_block_id(sink, answer, place.block);
        sink_text(sink, "\",\"name\":\"");
        render_tool(sink, answer);
        sink_text(sink, "\",\"input\":{}}}\n\n");
    } else {
        sink_text(sink, ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
    }
}

static void block_delta(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    sink_text(sink, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"");
    member_number(sink, ",\"index\":", place.block);
    if (answer->calls) {
        sink_text(sink, ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"");
        sink_text(sink, place.index == 0 ? "{\\\"text\\\":\\\"" : "");
        render_piece_text(sink, answer, place.index);
        sink_text(sink, place.index + 1 == answer->plan.pieces ? "\\\"}\"}}\n\n" : "\"}}\n\n");
    } else {
        sink_text(sink, ",\"delta\":{\"type\":\"text_delta\",\"text\":\"");
        render_piece_text(sink, answer, place.index);
        sink_text(sink, "\"}}\n\n");
    }
}

static void block_stop(struct sink *sink, struct place place)
{
    sink_text(sink, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\"");
    member_number(sink, ",\"index\":", place.block);
    sink_text(sink, "}\n\n");
}

static void message_end(struct sink *sink, struct answer *answer, uint64_t index)
{
    if (index > 0) {
        sink_text(sink, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        return;
    }
    sink_text(sink, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":"
                    "{\"stop_reason\":");
    sink_text(sink, stop_reason(answer));
    sink_text(sink, ",\"stop_sequence\":null}");
    member_number(sink, ",\"usage\":{\"input_tokens\":", answer_prompt_tokens(answer));
    sink_text(sink, ",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0");
    member_number(sink, ",\"output_tokens\":", answer_completion_tokens(answer));
    sink_text(sink, "}}\n\n");
}

static void message_event(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    switch (place.part) {
    case PART_HEAD: message_start(sink, answer); break;
    case PART_OPEN: block_start(sink, answer, place); break;
    case PART_PIECE: block_delta(sink, answer, step); break;
    case PART_CLOSE: block_stop(sink, place); break;
    case PART_TAIL: message_end(sink, answer, place.index); break;
    }
}

// -------------------------------------------------------------------------------------------
// others

static void count_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    member_number(sink, "{\"input_tokens\":", answer_prompt_tokens(answer));
    sink_text(sink, "}");
}

static void model_object(struct sink *sink, struct span name)
{
    sink_text(sink, "{\"type\":\"model\",\"id\":\"");
    sink_span(sink, name);
    sink_text(sink, "\",\"display_name\":\"Mock\",\"created_at\":\"2025-02-19T00:00:00Z\"}");
}

static void models_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    sink_text(sink, "{\"data\":[");
    model_object(sink, SPAN("claude-sonnet-4-5"));
    sink_text(sink, ",");
    model_object(sink, SPAN("mock"));
    sink_text(sink, "],\"has_more\":false,\"first_id\":\"claude-sonnet-4-5\","
                    "\"last_id\":\"mock\"}");
}

static void model_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    model_object(sink, span_of(answer->path_model, answer->path_model_len));
}

static const char *error_type(uint16_t status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 529: return "overloaded_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

void anthropic_error(struct sink *sink, struct answer *answer, uint64_t step)
{
    sink_text(sink, "{\"type\":\"error\",\"error\":{\"type\":\"");
    sink_text(sink, error_type(answer->status));
    sink_text(sink, "\",\"message\":\"");
    sink_text(sink, answer->error);
    sink_text(sink, "\"},\"request_id\":\"");
    render_id(sink, answer, "req_");
    sink_text(sink, "\"}");
}

void anthropic_settle(struct answer *answer)
{
    if (answer->api != API_MESSAGES) {
        answer->script.reply_bytes = 0; // only conversations can be padded
        answer_whole(answer, answer->api == API_COUNT_TOKENS ? count_whole
                             : answer->api == API_MODEL      ? model_whole
                                                             : models_whole);
        return;
    }
    // A ping follows the block's start when there is just one block, so that every block has the
    // same plan.
    answer->is_stream = answer->ask.stream;
    answer_plan(answer, (struct plan){.head = MESSAGE_HEAD,
                                      .blocks = answer->calls ? answer->calls : 1,
                                      .open = answer->calls > 1 ? 1 : 2,
                                      .pieces = answer->script.chunks,
                                      .close = 1,
                                      .tail = MESSAGE_TAIL});
    answer->render = message_event;
    answer->render_piece = block_delta;
    if (!answer->is_stream)
        answer_whole(answer, message_whole);
}
