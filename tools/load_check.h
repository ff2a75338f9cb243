// SPDX-License-Identifier: MIT
//
// load_check: one answer of tokenring-mock, checked byte by byte as it arrives, cut anywhere.
//
// Streams, with `verify`:
//   - each content event holds one token, "tok0 ", "tok1 ", ... in order, and behind it nothing or
//     the filler pattern from its beginning;
//   - all bytes of a content event before the token are the same as in the first one, and so are
//     all behind it (by hash and length), but for the Responses API, whose events are numbered;
//   - no event reports an error, and the dialect's last event came: [DONE], message_stop,
//     response.completed;
//   - as many tokens came as were ordered, if that is known.
// Whole replies, with `verify`: the body is JSON, its first text that begins with "tok0 " holds
// the tokens in order and then nothing or filler; as many as ordered. Without `verify` only
// events are counted.
#ifndef TOOLS_LOAD_CHECK_H
#define TOOLS_LOAD_CHECK_H

#include "proto/json.h"

enum { CHECK_START_MAX = 48 };

struct check {
    bool verify, stream;
    bool line_start; // the byte before was a line feed
    bool has_bytes;  // the event under way is not empty
    bool first_line; // of the event
    bool terminal;   // the last event was seen
    bool filling;    // filler has begun, so no further token may come (whole replies)
    uint8_t state;   // see load_check.c
    uint8_t match;   // bytes of `"tok` matched
    uint8_t start_len;
    uint32_t filler_at;
    uint64_t events;                  // complete ones
    uint64_t tokens;                  // in order so far
    uint64_t expected;                // UINT64_MAX: not known
    uint64_t number;                  // of the token under way
    uint64_t hash, len;               // of the part under way
    uint64_t prefix_hash, prefix_len; // of the event under way
    uint64_t first_prefix_hash, first_prefix_len, first_suffix_hash, first_suffix_len;
    const char *wrong;           // NULL: nothing found yet
    struct json json;            // whole replies
    char start[CHECK_START_MAX]; // how the event's first line begins
};

void check_start(struct check *check, bool stream, bool verify, uint64_t expected);
void check_feed(struct check *check, const uint8_t *bytes, size_t len);
// The body is complete. False: check->wrong says why.
bool check_end(struct check *check);

#endif
