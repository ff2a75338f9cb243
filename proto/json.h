// SPDX-License-Identifier: MIT
//
// json: a strict JSON validator that reads slices and reports tokens (RFC 8259). No tree, no copy.
//
// The scanner is fed a document in any number of slices cut anywhere, and keeps about forty bytes
// of state. It pulls one token at a time; a token is a place in the document (absolute byte
// offsets) and never a copy of it. Depth is bounded by JSON_DEPTH_MAX; there is no recursion. UTF-8
// in strings is checked, control characters are refused, escapes are checked, numbers follow the
// grammar. A byte order mark is refused. A lone escaped surrogate is accepted (the grammar allows
// it) until somebody decodes it: json_unescape refuses. Runs of plain string bytes are skipped with
// SIMD (SSE2 at least, AVX2 when the build has it).
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "proto/span.h"

enum { JSON_DEPTH_MAX = 64 };

enum json_token {
    JSON_MORE,   // the slice is used up
    JSON_KEY,    // a member name: [at, end) are the bytes between its quotes
    JSON_STRING, // a string value: [at, end) are the bytes between its quotes
    JSON_NUMBER, // [at, end) is the number; reported when the byte behind it is seen, or at
                 // json_end
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
    JSON_OBJECT_BEGIN, // depth is already that of the inside
    JSON_OBJECT_END,   // depth is already that of the outside
    JSON_ARRAY_BEGIN,
    JSON_ARRAY_END,
    JSON_DONE,     // the top-level value is complete and only whitespace followed so far (sticky)
    JSON_BAD = -1, // not JSON: `offset` is the offending byte
    JSON_TOO_DEEP = -2 // nesting over JSON_DEPTH_MAX: `offset` is the bracket
};

struct json {
    uint64_t offset;    // absolute offset of the next byte to be read
    uint64_t at, end;   // the token just reported
    uint64_t is_object; // one bit per level: object or array
    uint8_t depth;
    uint8_t state; // see json.c
    uint8_t sub;   // progress inside a literal, escape, number or UTF-8 sequence
    uint8_t kind;  // the string or literal under way: what it will be reported as
    bool escaped;  // the string just reported holds a backslash
};

void json_start(struct json *json);

// Pull the next token from bytes[*used..len). `*used` moves forward; on JSON_MORE it equals len and
// the caller comes back with the next slice and *used = 0. Errors are sticky. With `json->depth >
// skip_depth` tokens are validated but not reported (a caller that only wants the top level passes
// 1): this is the fast way over a long conversation. Depth is what it is when the token is
// reported, so of an array or object that lies at `skip_depth` only the end is reported: one token
// per value. skip_depth may differ from call to call.
enum json_token json_next(struct json *json, const uint8_t *bytes, size_t len, size_t *used,
                          uint8_t skip_depth);

// The document has ended: JSON_DONE if it was complete (a top-level number ends here), else
// JSON_BAD.
enum json_token json_end(struct json *json);

// Is the top-level value complete? (A top-level number is not before json_end.)
bool json_complete(const struct json *json);

// Which token was cut by the end of the slice: JSON_KEY, JSON_STRING, JSON_NUMBER or a literal,
// with its first byte at `json->at`; JSON_MORE if the slice ended between two tokens.
enum json_token json_under_way(const struct json *json);

// Decode the escapes of a string's bytes (between the quotes) into out[0..cap): returns the number
// of bytes, or -1 if it does not fit or holds an unpaired surrogate.
int json_unescape(uint8_t *out, size_t cap, struct span text);

// Append `text` to out[0..cap) as the inside of a JSON string (quotes not included): returns the
// number of bytes, or -1 if it does not fit. Invalid UTF-8 is replaced by U+FFFD.
int json_escape(uint8_t *out, size_t cap, struct span text);

#endif
