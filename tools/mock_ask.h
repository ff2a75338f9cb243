// SPDX-License-Identifier: MIT
//
// mock_ask: what a request's JSON body wants, read in one pass while it arrives. Any size, cut
// anywhere; the body itself is not kept. Strings are kept as they stand between their quotes,
// escapes and all, so that they can be put into an answer as they are; keys are compared the same
// way.
#ifndef TOOLS_MOCK_ASK_H
#define TOOLS_MOCK_ASK_H

#include "proto/json.h"

enum { ASK_MODEL_MAX = 255, ASK_TOOL_MAX = 64, ASK_WORD_MAX = 256 };

struct ask {
    struct json json;
    uint64_t fed;     // bytes of body so far
    int8_t result;    // enum json_token, JSON_MORE while all is well
    uint8_t key;      // the top-level member under way
    bool naming;      // the next string is a tool's name
    bool in_function; // inside tools[].function
    bool is_object;
    bool stream;        // "stream": true
    bool include_usage; // "stream_options": {"include_usage": true}
    bool base64;        // "encoding_format": "base64"
    bool tools;         // "tools" holds at least one
    bool tool_choice;   // "tool_choice" is there and is not "none"
    uint16_t model_len, tool_len, word_len;
    uint32_t inputs; // elements of "messages" or "input"; a string is one
    uint64_t dimensions;
    uint8_t model[ASK_MODEL_MAX];
    uint8_t tool[ASK_TOOL_MAX]; // the first tool's name
    uint8_t word[ASK_WORD_MAX]; // the token under way, when a slice cut it
};

void ask_start(struct ask *ask);
// False: not JSON, or nested too deep; sticky. `ask->json.offset` says where.
bool ask_feed(struct ask *ask, const uint8_t *bytes, size_t len);
// The body is over. False: it was not one JSON object.
bool ask_end(struct ask *ask);

#endif
