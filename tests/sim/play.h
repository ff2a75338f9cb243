// SPDX-License-Identifier: MIT
//
// play: the scripted parties around the gateway, and what passes between them.
//
//   visitor (visitor.c)    a client: sends exchanges one after the other on one connection
//   backend (backend.c)    a provider's end of one connection
//   exchange (exchange.c)  one request and its answer: every byte of both is made beforehand, from
//                          the seed, with the fate the provider has in store for it
//
// An exchange travels as `x-request-id`, which the gateway hands on: that is how a backend knows
// what to do, and how both parties' sights of it meet in one place and can be compared.
#ifndef TESTS_SIM_PLAY_H
#define TESTS_SIM_PLAY_H

#include "tests/sim/message.h"
#include "tests/sim/sim.h"

enum { PLAY_EXCHANGES_MAX = 128, PLAY_PROVIDERS = 3, PLAY_BACKENDS_MAX = 1024 };

// What a play may contain.
enum temper {
    TEMPER_CALM,   // everybody behaves, nothing is scarce: every request must be answered
    TEMPER_FAULTY, // peers misbehave, the network and the resources are good
    TEMPER_HARSH,  // anything goes
};

struct bytes {
    uint8_t *at;
    uint32_t len, cap;
};

enum ask {
    ASK_CHAT,  // JSON with a model, looked at
    ASK_RAW,   // POST of bytes that nobody looks at
    ASK_GET,   // forwarded
    ASK_HEAD,  // forwarded
    ASK_LOCAL, // answered by the gateway itself
    ASK_BAD,   // to be refused: `status` says how
};

// What becomes of an answer at `cut_at`.
enum fate {
    FATE_WHOLE,
    FATE_FINISH, // the provider ends its stream there
    FATE_RESET,
    FATE_SILENT,    // nothing more, ever
    FATE_MALFORMED, // from there on it is not HTTP
    FATE_GONE,      // resets while it still reads the request
};

enum answer_framing { ANSWER_LENGTH, ANSWER_CHUNKS, ANSWER_TO_CLOSE, ANSWER_BODILESS };

enum result { RESULT_NONE, RESULT_WHOLE, RESULT_REFUSED, RESULT_CUT };

struct backend;

struct exchange {
    struct play *play;
    uint32_t number;
    char tag[32];
    // the request
    enum ask ask;
    bool http10, anthropic, stream, chunked, closes;
    struct bytes request; // as sent
    uint32_t head_len;    // of it
    struct bytes body;    // decoded; without what stands for the model
    uint32_t model_at;    // where the model's name goes in `body`
    const char *model;    // as asked for; NULL: none
    // the answer
    struct bytes answer;      // as sent
    uint32_t answer_head_len; // interim heads included
    struct bytes content;     // decoded
    unsigned status;
    bool sse, interim, early, keep_alive, chatter; // chatter: bytes behind the answer's end
    bool abandons;                                 // early, and closes without reading on
    bool trap; // a body too big for all buffers on the way, to a provider that reads none of it
    bool deaf; // when it falls silent, it reads no more either
    enum answer_framing framing;
    enum fate fate;
    uint32_t cut_at;
    uint32_t delay_ms;
    // what the provider saw and did
    unsigned deliveries;
    struct backend *backend; // the last one that got it
    bool fresh;              // its connection had carried nothing before
    bool delivered;          // the whole request was read
    uint32_t wrote;          // bytes of the answer
    bool answered;           // the whole answer was written
    // what the client saw
    bool sent;        // the whole request
    bool left;        // it left while this one was under way
    bool must_finish; // a drain began while its provider worked on it
    enum result result;
    unsigned got_status;
    char error[48]; // x-tokenring-error
    bool error_event;
};

struct play {
    enum temper temper;
    struct dice dice;
    bool idle_closes; // providers close connections that rest
    uint32_t exchange_count;
    struct exchange exchange[PLAY_EXCHANGES_MAX];
    uint32_t backend_count;
    struct backend *backend[PLAY_BACKENDS_MAX];
    bool chattered; // a provider said more than was asked: the next answer may suffer
    bool stopped;   // the gateway drains or was aborted: what had not begun may be cut
    struct sockaddr_storage gateway_at;
    socklen_t gateway_len;
    bool (*starved)(void); // did the gateway ever run out of receive buffers?
};

// ------------------------------------------------------------------------------------- exchange.c

struct exchange *exchange_draw(struct play *play, bool last);
void exchange_free(struct exchange *exchange);
struct exchange *exchange_find(struct play *play, const char *tag);

// What a model is called at this provider, NULL: it does not go there.
const char *exchange_model(const struct exchange *exchange, int provider);
// Is this the body that the provider must get?
bool exchange_body_right(const struct exchange *exchange, int provider, const uint8_t *body,
                         uint32_t len);

// --------------------------------------------------------------------------------------- backend.c

struct backend {
    struct play *play;
    int provider;
    struct sim_end *end;
    struct dice dice;
    struct message request;
    uint8_t ahead[4096]; // read, and not part of `request`: the next one, behind an early answer
    uint32_t ahead_len;
    struct exchange *exchange; // under way
    unsigned requests;         // begun on this connection
    uint32_t answer_at;
    bool answering, delaying, pausing, silent, over;
    bool lost;               // it ended so that bytes of ours may not have arrived
    uint64_t rests_until_ns; // then it closes, if it still rests
};

void backend_listen(struct play *play, int provider, const struct sockaddr *addr, socklen_t len);

// --------------------------------------------------------------------------------------- visitor.c

struct visitor {
    struct play *play;
    struct sim_end *end;
    struct dice dice;
    struct exchange *exchange[6];
    uint32_t count, writing, reading;
    uint32_t write_at; // of the exchange being written
    struct message answer;
    bool answer_open;
    bool pipelines, waits_for_end, write_pauses, read_pauses, deaf, done;
    uint32_t pause_per_mille, pause_ms, write_most, read_most;
    bool leaves, by_reset, hesitates,
        leaving;              // hesitates: leaves a while after it came to leave_at
    uint32_t leave_at, moved; // bytes both ways
    uint64_t left_ns, left_stalled_ns;
};

void visitor_start(struct visitor *visitor, struct play *play, uint32_t number);
void visitor_free(struct visitor *visitor);
// Its connection is over, in whatever way: what it saw is judged.
void visitor_finish(struct visitor *visitor);

// ----------------------------------------------------------------------------------------- census

#define PLAY_CENSUS(X)                                                                             \
    X(answered_whole)                                                                              \
    X(answer_cut)                                                                                  \
    X(refused)                                                                                     \
    X(error_event)                                                                                 \
    X(answer_sse)                                                                                  \
    X(answer_to_close)                                                                             \
    X(answer_bodiless)                                                                             \
    X(answer_early)                                                                                \
    X(answer_early_abandoned)                                                                      \
    X(interim_head)                                                                                \
    X(request_chunked)                                                                             \
    X(request_big)                                                                                 \
    X(request_http10)                                                                              \
    X(request_pipelined)                                                                           \
    X(request_bad)                                                                                 \
    X(request_local)                                                                               \
    X(model_renamed)                                                                               \
    X(left_before_answer)                                                                          \
    X(left_mid_answer)                                                                             \
    X(left_and_upstream_cancelled)                                                                 \
    X(left_while_pipelining)                                                                       \
    X(provider_finished_early)                                                                     \
    X(provider_reset_before_head)                                                                  \
    X(provider_reset_mid_head)                                                                     \
    X(provider_reset_mid_body)                                                                     \
    X(provider_reset_mid_request)                                                                  \
    X(provider_silent)                                                                             \
    X(provider_deaf)                                                                               \
    X(provider_malformed)                                                                          \
    X(provider_chatter)                                                                            \
    X(provider_closed_idle)                                                                        \
    X(connection_stale)                                                                            \
    X(connection_reused)                                                                           \
    X(delivered_twice)

enum play_situation {
#define X(name) PLAY_##name,
    PLAY_CENSUS(X)
#undef X
        PLAY_SITUATIONS
};

void play_count(enum play_situation situation);
extern uint64_t *play_counts; // where; the sweep sets it

#endif
