// SPDX-License-Identifier: MIT
//
// mock_answer: how an answer leaves.
//
// An answer is a head and a number of steps. A whole reply has one step, its body; a stream has
// one step per event. Nothing is stored: `render` writes step n into a sink whenever some of its
// bytes are due.
//
//     head   step 0   step 1   step 2  ...              a stream of 3 content pieces ("chunks"):
//     |------|--------|--------|---->                   opening events, 3 pieces, closing events
//     first_delay      gap      gap                     opening and first piece leave together,
//                                                       so do the last piece and the closing
//
// Scripted faults, all by counting events of a stream (or bytes of a whole body):
//   cut_after    the connection is closed (or reset) behind them, without an end
//   stall_after  silence behind them, for as long as the client stays
//   malformed    this event is broken: its JSON ends in the middle, or it is no SSE at all
//   split        each event leaves in two pieces, some milliseconds apart
//
// One timer per answer. Output waits in the connection up to OUT_BYTES_MAX, then rendering pauses
// until the kernel has taken it: a slow client costs no memory.
#ifndef TOOLS_MOCK_ANSWER_H
#define TOOLS_MOCK_ANSWER_H

#include "proto/h1.h"
#include "tools/mock.h"
#include "tools/mock_ask.h"

enum {
    ANSWER_CALLS_MAX = 8,
    ANSWER_ERROR_MAX = 160,
    ANSWER_PATH_MAX = 256,
    OUT_BYTES_MAX = 32 * 1024, // output of one connection that may wait
    SPLIT_MS = 2,              // between the two pieces of a split event
};

// Which API a path belongs to; decides the shape of bodies, errors and heads.
enum api {
    API_NONE, // not found
    API_CHAT,
    API_COMPLETIONS,
    API_EMBEDDINGS,
    API_RESPONSES,
    API_MESSAGES,
    API_COUNT_TOKENS,
    API_MODELS,
    API_MODEL,
    API_FILES,
    API_STATS,
    API_COUNT
};

enum malformed { MALFORMED_NOT, MALFORMED_JSON, MALFORMED_SSE };

// The steps of a stream: `head`, then `blocks` times (`open`, `pieces`, `close`), then `tail`.
struct plan {
    uint64_t head, blocks, open, pieces, close, tail;
};
enum part { PART_HEAD, PART_OPEN, PART_PIECE, PART_CLOSE, PART_TAIL };
struct place {
    enum part part;
    uint64_t block;
    uint64_t index;  // within the part
    uint64_t pieces; // content pieces of all blocks before this step
};

struct answer;
typedef void answer_render(struct sink *sink, struct answer *answer, uint64_t step);

// x-mock-* fields of one request on top of the flags.
struct script {
    uint64_t status, retry_after, first_delay_ms, headers_delay_ms, gap_ms, chunks, chunk_bytes,
        reply_bytes, cut_after, stall_after, malformed_at, split_at, tools;
    bool has_retry_after, has_headers_delay, has_cut, has_stall, cut_reset, split, split_random;
    enum malformed malformed;
};

struct answer {
    struct mock *mock;
    enum api api;
    enum h1_method method;
    struct script script;
    struct ask ask;
    uint16_t path_model_len;
    uint8_t path_model[ANSWER_PATH_MAX]; // API_MODEL: which, ready to stand in a JSON string
    uint64_t body_bytes;                 // of the request
    uint32_t body_crc;                   // of the request, API_FILES only
    uint64_t serial;                     // makes ids
    uint64_t created;                    // seconds since 1970
    bool anthropic;                      // speaks Anthropic's dialect
    bool is_stream;
    bool chunked;   // a stream, but for HTTP/1.0: there it ends with the connection
    bool json_body; // the request's body is JSON: it is scanned
    uint16_t status;
    uint64_t calls;               // tool calls in the answer, 0: text
    char error[ANSWER_ERROR_MAX]; // message, when status is an error
    const char *error_code;       // "code" of OpenAI's errors; NULL: null
    const char *allow;            // 405: what would be allowed
    struct mock_totals totals;    // API_STATS
    // what leaves
    answer_render *render, *render_piece;
    struct plan plan;
    uint64_t steps;  // 1 for a whole reply
    uint64_t length; // of a whole reply's body
    uint64_t fill;   // filler bytes in the step being rendered
    // where it is
    bool head_sent;
    bool waits_output; // go on when the kernel has taken something
    uint64_t head_due_ms, first_due_ms, piece_due_ms;
    uint64_t step, offset; // the next byte to leave
    uint64_t event_length; // of that step
    uint64_t step_length;  // the same with its framing
    uint64_t body_at;      // bytes of a whole body that left
    uint64_t split_event;  // bytes of the event in the first of its two chunks; 0: one chunk
    uint64_t split_at;     // pause at this byte of the step; 0: no
};

// mock_route.c. Decide by the head. The body, if any, is fed to answer->ask before answer_start().
void answer_route(struct worker *worker, struct answer *answer, const struct h1_head *head);
// The body is complete: settle what the answer is.
void answer_settle(struct worker *worker, struct answer *answer);
// Answer with an error instead. The first refusal stands.
void answer_refuse(struct answer *answer, uint16_t status, const char *code, const char *message);

// mock_answer.c
enum answer_state {
    ANSWER_WAITS, // for its timer, or for the kernel to take output (waits_output)
    ANSWER_DONE,  // all queued: the next request may be read
    ANSWER_LAST,  // all queued, and the connection must end with it
    ANSWER_CUT,   // close it abruptly, now
};
void answer_start(struct worker *worker, struct answer *answer); // settles, starts the clock
// Queue all that is due. `timer` is set for what comes later. `close`: say so in the head.
enum answer_state answer_pump(struct worker *worker, struct answer *answer, struct conn *conn,
                              struct timer *timer, bool close);
// Nobody is there to take it any more, or it is over.
void answer_count_end(struct worker *worker, const struct answer *answer, bool cancelled);

// For the renderers.
struct place answer_place(const struct answer *answer, uint64_t step);
uint64_t answer_step_of(const struct answer *answer, uint64_t block, uint64_t piece);
void answer_plan(struct answer *answer, struct plan plan); // a stream
void answer_whole(struct answer *answer, answer_render *render);
// The text of piece `number` of a block of a stream; answer->fill must be that piece's.
void render_piece_text(struct sink *sink, const struct answer *answer, uint64_t number);
// The whole text of a block, in a whole reply or in the closing events of a stream.
void render_text(struct sink *sink, struct answer *answer, uint64_t block);
void render_model(struct sink *sink, const struct answer *answer);
void render_tool(struct sink *sink, const struct answer *answer);
// Member `"name":`"prefix" + the answer's own id.
void render_id(struct sink *sink, const struct answer *answer, const char *prefix);
uint64_t answer_prompt_tokens(const struct answer *answer);
uint64_t answer_completion_tokens(const struct answer *answer);

// The dialects.
void openai_settle(struct answer *answer);
void responses_settle(struct answer *answer);
void anthropic_settle(struct answer *answer);
answer_render openai_error, anthropic_error;

#endif
