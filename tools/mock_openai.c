// SPDX-License-Identifier: MIT
//
// The bytes of OpenAI's dialect: chat, completions, embeddings, models, files; and the mock's own
// counters. Field order follows the provider's, so that captures can be compared by eye.
#include "tools/mock_answer.h"

enum { DIMENSIONS_DEFAULT = 1536, DIMENSIONS_MAX = 65536 };

static const char *const model_names[] = {"gpt-4o", "gpt-4o-mini", "text-embedding-3-small",
                                          "mock"};

static void member_number(struct sink *sink, const char *prefix, uint64_t number)
{
    sink_text(sink, prefix);
    sink_number(sink, number);
}

static void render_usage(struct sink *sink, const struct answer *answer)
{
    uint64_t prompt = answer_prompt_tokens(answer), completion = answer_completion_tokens(answer);
    member_number(sink, "{\"prompt_tokens\":", prompt);
    member_number(sink, ",\"completion_tokens\":", completion);
    member_number(sink, ",\"total_tokens\":", prompt + completion);
    sink_text(sink, ",\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
                    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
                    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}");
}

// `{"id":..,"object":..,"created":..,"model":..`
static void render_opening(struct sink *sink, const struct answer *answer, const char *id_prefix,
                           const char *object)
{
    sink_text(sink, "{\"id\":\"");
    render_id(sink, answer, id_prefix);
    sink_text(sink, "\",\"object\":\"");
    sink_text(sink, object);
    member_number(sink, "\",\"created\":", answer->created);
    sink_text(sink, ",\"model\":\"");
    render_model(sink, answer);
    sink_text(sink, "\"");
}

static void render_call_id(struct sink *sink, const struct answer *answer, uint64_t block)
{
    render_id(sink, answer, "call_");
    member_number(sink, "_", block);
}

// -------------------------------------------------------------------------------------- chat,
// whole

static void chat_calls(struct sink *sink, struct answer *answer)
{
    for (uint64_t block = 0; block < answer->calls; block++) {
        sink_text(sink, block ? ",{\"id\":\"" : "{\"id\":\"");
        render_call_id(sink, answer, block);
        sink_text(sink, "\",\"type\":\"function\",\"function\":{\"name\":\"");
        render_tool(sink, answer);
        sink_text(sink, "\",\"arguments\":\"{\\\"text\\\":\\\"");
        render_text(sink, answer, block);
        sink_text(sink, "\\\"}\"}}");
    }
}

static void chat_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    render_opening(sink, answer, "chatcmpl-", "chat.completion");
    sink_text(sink, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    if (answer->calls) {
        sink_text(sink, "null,\"tool_calls\":[");
        chat_calls(sink, answer);
        sink_text(sink, "]");
    } else {
        sink_text(sink, "\"");
        render_text(sink, answer, 0);
        sink_text(sink, "\"");
    }
    sink_text(sink, ",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"");
    sink_text(sink, answer->calls ? "tool_calls" : "stop");
    sink_text(sink, "\"}],\"usage\":");
    render_usage(sink, answer);
    sink_text(sink, ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"}");
}

// ------------------------------------------------------------------------------------- chat,
// stream

static void chat_event_begin(struct sink *sink, const struct answer *answer)
{
    sink_text(sink, "data: ");
    render_opening(sink, answer, "chatcmpl-", "chat.completion.chunk");
    sink_text(sink, ",\"system_fingerprint\":\"fp_mock\"");
}

static void chat_event_end(struct sink *sink, const struct answer *answer, const char *finish)
{
    sink_text(sink, ",\"logprobs\":null,\"finish_reason\":");
    sink_text(sink, finish);
    sink_text(sink, answer->ask.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

static void chat_delta_begin(struct sink *sink, const struct answer *answer)
{
    chat_event_begin(sink, answer);
    sink_text(sink, ",\"choices\":[{\"index\":0,\"delta\":{");
}

static void chat_piece(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    chat_delta_begin(sink, answer);
    if (answer->calls) {
        member_number(sink, "\"tool_calls\":[{\"index\":", place.block);
        sink_text(sink, ",\"function\":{\"arguments\":\"");
        sink_text(sink, place.index == 0 ? "{\\\"text\\\":\\\"" : "");
        render_piece_text(sink, answer, place.index);
        sink_text(sink, place.index + 1 == answer->plan.pieces ? "\\\"}\"}}]}" : "\"}}]}");
    } else {
        sink_text(sink, "\"content\":\"");
        render_piece_text(sink, answer, place.index);
        sink_text(sink, "\"}");
    }
    chat_event_end(sink, answer, "null");
}

static void chat_role(struct sink *sink, struct answer *answer)
{
    chat_delta_begin(sink, answer);
    sink_text(sink, answer->calls ? "\"role\":\"assistant\",\"content\":null,\"refusal\":null}"
                                  : "\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}");
    chat_event_end(sink, answer, "null");
}

static void chat_call(struct sink *sink, struct answer *answer, uint64_t block)
{
    chat_delta_begin(sink, answer);
    member_number(sink, "\"tool_calls\":[{\"index\":", block);
    sink_text(sink, ",\"id\":\"");
    render_call_id(sink, answer, block);
    sink_text(sink, "\",\"type\":\"function\",\"function\":{\"name\":\"");
    render_tool(sink, answer);
    sink_text(sink, "\",\"arguments\":\"\"}}]}");
    chat_event_end(sink, answer, "null");
}

static void chat_finish(struct sink *sink, struct answer *answer)
{
    chat_delta_begin(sink, answer);
    sink_text(sink, "}");
    chat_event_end(sink, answer, answer->calls ? "\"tool_calls\"" : "\"stop\"");
}

static void chat_last_usage(struct sink *sink, struct answer *answer)
{
    chat_event_begin(sink, answer);
    sink_text(sink, ",\"choices\":[],\"usage\":");
    render_usage(sink, answer);
    sink_text(sink, "}\n\n");
}

static void chat_event(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    switch (place.part) {
    case PART_HEAD: chat_role(sink, answer); break;
    case PART_OPEN: chat_call(sink, answer, place.block); break;
    case PART_PIECE: chat_piece(sink, answer, step); break;
    case PART_CLOSE: break; // none
    case PART_TAIL:
        if (place.index == 0)
            chat_finish(sink, answer);
        else if (place.index + 1 < answer->plan.tail)
            chat_last_usage(sink, answer);
        else
            sink_text(sink, "data: [DONE]\n\n");
    }
}

// --------------------------------------------------------------------------------------
// completions

static void completion_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    render_opening(sink, answer, "cmpl-", "text_completion");
    sink_text(sink, ",\"choices\":[{\"text\":\"");
    render_text(sink, answer, 0);
    sink_text(sink, "\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":");
    render_usage(sink, answer);
    sink_text(sink, "}");
}

static void completion_piece(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    sink_text(sink, "data: ");
    render_opening(sink, answer, "cmpl-", "text_completion");
    sink_text(sink, ",\"choices\":[{\"text\":\"");
    if (place.part == PART_PIECE)
        render_piece_text(sink, answer, place.index);
    sink_text(sink, "\",\"index\":0,\"logprobs\":null,\"finish_reason\":");
    sink_text(sink, place.part == PART_PIECE ? "null" : "\"stop\"");
    sink_text(sink, answer->ask.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

static void completion_event(struct sink *sink, struct answer *answer, uint64_t step)
{
    struct place place = answer_place(answer, step);
    if (place.part != PART_TAIL || place.index == 0) {
        completion_piece(sink, answer, step);
    } else if (place.index + 1 < answer->plan.tail) {
        sink_text(sink, "data: ");
        render_opening(sink, answer, "cmpl-", "text_completion");
        sink_text(sink, ",\"choices\":[],\"usage\":");
        render_usage(sink, answer);
        sink_text(sink, "}\n\n");
    } else {
        sink_text(sink, "data: [DONE]\n\n");
    }
}

// ---------------------------------------------------------------------------------------
// embeddings

// Number `i` of embedding `index`: sixty-fourths from -1 to 1, exact both as text and as a float.
static int embedding_value(uint64_t index, uint64_t i)
{
    return (int)((index * 37 + i * 29) % 129) - 64;
}

static void embedding_floats(struct sink *sink, uint64_t index, uint64_t dimensions)
{
    sink_text(sink, "[");
    for (uint64_t i = 0; i < dimensions; i++) {
        int value = embedding_value(index, i);
        uint32_t micros = (uint32_t)(value < 0 ? -value : value) * 15625; // a 64th is 0.015625
        char text[] = ",-0.000000";
        text[2] = (char)('0' + micros / 1000000);
        for (int digit = 9; digit >= 4; digit--, micros /= 10)
            text[digit] = (char)('0' + micros % 10);
        if (i)
            sink_bytes(sink, text, 1);
        sink_bytes(sink, value < 0 ? text + 1 : text + 2, value < 0 ? 9 : 8);
    }
    sink_text(sink, "]");
}

static uint8_t embedding_byte(uint64_t index, uint64_t at)
{
    float value = (float)embedding_value(index, at / 4) / 64.0f;
    uint8_t bytes[sizeof value];
    memcpy(bytes, &value, sizeof value); // little-endian machines only, like the wire
    return bytes[at % 4];
}

static void embedding_base64(struct sink *sink, uint64_t index, uint64_t dimensions)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint64_t len = dimensions * 4;
    sink_text(sink, "\"");
    for (uint64_t at = 0; at < len; at += 3) {
        uint32_t three = (uint32_t)embedding_byte(index, at) << 16;
        if (at + 1 < len)
            three |= (uint32_t)embedding_byte(index, at + 1) << 8;
        if (at + 2 < len)
            three |= embedding_byte(index, at + 2);
        char text[4] = {letters[three >> 18], letters[three >> 12 & 63], letters[three >> 6 & 63],
                        letters[three & 63]};
        if (at + 1 >= len)
            text[2] = '=';
        if (at + 2 >= len)
            text[3] = '=';
        sink_bytes(sink, text, sizeof text);
    }
    sink_text(sink, "\"");
}

static void embeddings_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    uint64_t dimensions = answer->ask.dimensions ? answer->ask.dimensions : DIMENSIONS_DEFAULT;
    sink_text(sink, "{\"object\":\"list\",\"data\":[");
    for (uint64_t i = 0; i < answer->ask.inputs; i++) {
        member_number(sink,
                      i ? ",{\"object\":\"embedding\",\"index\":"
                        : "{\"object\":\"embedding\",\"index\":",
                      i);
        sink_text(sink, ",\"embedding\":");
        if (answer->ask.base64)
            embedding_base64(sink, i, dimensions);
        else
            embedding_floats(sink, i, dimensions);
        sink_text(sink, "}");
    }
    sink_text(sink, "],\"model\":\"");
    render_model(sink, answer);
    uint64_t prompt = answer_prompt_tokens(answer);
    member_number(sink, "\",\"usage\":{\"prompt_tokens\":", prompt);
    member_number(sink, ",\"total_tokens\":", prompt);
    sink_text(sink, "}}");
}

// ------------------------------------------------------------------------------- models, files,
// stats

static void model_object(struct sink *sink, struct span name)
{
    sink_text(sink, "{\"id\":\"");
    sink_span(sink, name);
    sink_text(sink, "\",\"object\":\"model\",\"created\":1715367049,\"owned_by\":\"mock\"}");
}

static void models_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    sink_text(sink, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < sizeof model_names / sizeof *model_names; i++) {
        sink_text(sink, i ? "," : "");
        model_object(sink, span_of(model_names[i], strlen(model_names[i])));
    }
    sink_text(sink, "]}");
}

static void model_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    model_object(sink, span_of(answer->path_model, answer->path_model_len));
}

// `bytes` is the whole multipart body, and mock_crc32 (the one of zlib) proves that each of them
// came.
static void file_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    sink_text(sink, "{\"id\":\"");
    render_id(sink, answer, "file-");
    member_number(sink, "\",\"object\":\"file\",\"bytes\":", answer->body_bytes);
    member_number(sink, ",\"created_at\":", answer->created);
    sink_text(sink, ",\"filename\":\"mock.jsonl\",\"purpose\":\"batch\",\"status\":\"processed\","
                    "\"mock_crc32\":\"");
    sink_hex(sink, answer->body_crc, 8);
    sink_text(sink, "\"}");
}

static void stats_whole(struct sink *sink, struct answer *answer, uint64_t step)
{
    const char *prefix = "{\"";
#define X(name)                                                                                    \
    sink_text(sink, prefix);                                                                       \
    member_number(sink, #name "\":", answer->totals.name);                                         \
    prefix = ",\"";
    MOCK_COUNTERS(X)
#undef X
    sink_text(sink, "}\n");
}

static const char *error_type(uint16_t status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_exceeded";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void openai_error(struct sink *sink, struct answer *answer, uint64_t step)
{
    sink_text(sink, "{\"error\":{\"message\":\"");
    sink_text(sink, answer->error);
    sink_text(sink, "\",\"type\":\"");
    sink_text(sink, error_type(answer->status));
    sink_text(sink, "\",\"param\":null,\"code\":");
    sink_text(sink, answer->error_code ? "\"" : "");
    sink_text(sink, answer->error_code ? answer->error_code : "null");
    sink_text(sink, answer->error_code ? "\"}}" : "}}");
}

// -------------------------------------------------------------------------------------------
// settle

static void chat_settle(struct answer *answer)
{
    uint64_t chunks = answer->script.chunks, tail = answer->ask.include_usage ? 3 : 2;
    bool calls = answer->calls > 0;
    answer->is_stream = answer->ask.stream;
    answer_plan(answer, (struct plan){.head = 1,
                                      .blocks = calls ? answer->calls : 1,
                                      .open = calls,
                                      .pieces = chunks,
                                      .tail = tail});
    answer->render = chat_event;
    answer->render_piece = chat_piece;
    if (!answer->is_stream)
        answer_whole(answer, chat_whole);
}

static void completion_settle(struct answer *answer)
{
    answer->is_stream = answer->ask.stream;
    answer_plan(answer, (struct plan){.blocks = 1,
                                      .pieces = answer->script.chunks,
                                      .tail = answer->ask.include_usage ? 3 : 2});
    answer->render = completion_event;
    answer->render_piece = completion_piece;
    if (!answer->is_stream)
        answer_whole(answer, completion_whole);
}

void openai_settle(struct answer *answer)
{
    if (answer->ask.dimensions > DIMENSIONS_MAX)
        answer->ask.dimensions = DIMENSIONS_MAX;
    switch (answer->api) {
    case API_CHAT: chat_settle(answer); return;
    case API_COMPLETIONS: completion_settle(answer); return;
    default: break;
    }
    answer->script.reply_bytes = 0; // only conversations can be padded
    switch (answer->api) {
    case API_EMBEDDINGS: answer_whole(answer, embeddings_whole); return;
    case API_MODEL: answer_whole(answer, model_whole); return;
    case API_FILES: answer_whole(answer, file_whole); return;
    case API_STATS: answer_whole(answer, stats_whole); return;
    default: answer_whole(answer, models_whole); return;
    }
}
