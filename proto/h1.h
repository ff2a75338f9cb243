// SPDX-License-Identifier: MIT
//
// h1: message heads of HTTP/1.1 and 1.0, read strictly (RFC 9110, RFC 9112).
//
// The head lies in one contiguous stretch of bytes that the caller owns; the parser copies nothing
// and keeps nothing: every span in struct h1_head points into the caller's bytes. Strict means:
// CRLF ends a line and nothing else does, no whitespace before the colon, no obs-fold, no NUL, no
// bare CR, field names are tokens, field values are VCHAR, SP, HTAB and obs-text, methods are
// case-sensitive. A request target is visible ASCII without '#' (a target has no fragment): "/..."
// with any method, "http(s)://host..." likewise, "*" with OPTIONS only, "host:port" with CONNECT
// only. Versions other than HTTP/1.0 and HTTP/1.1 are H1_BAD. One thing is let through that the
// grammar forbids: a status line that ends behind the code, without the space before its empty
// reason phrase.
//
// Empty lines before a request line are not skipped by the parser: the caller skips at most one
// CRLF between requests, as RFC 9112 section 2.2 allows.
//
// Order of calls, per message:
//   1. h1_head_complete() until it says H1_OK (cheap, resumable: bytes are looked at once);
//   2. h1_parse_request() or h1_parse_response() once on the whole head;
//   3. framing_request() or framing_response() (framing.h) says how long the body is.
//
// Bounds: H1_FIELDS_MAX fields, H1_HEAD_MAX bytes, H1_METHOD_MAX bytes of method.
// Nothing here allocates, and nothing reads past bytes + len.
#ifndef PROTO_H1_H
#define PROTO_H1_H

#include "proto/span.h"

enum {
    H1_HEAD_MAX = 64 * 1024, // bytes of one head, start line to blank line, both included
    H1_FIELDS_MAX = 128,     // header fields in one head
    H1_METHOD_MAX = 32,      // bytes of a method token
};

// What a parser answers. Failures are values; the caller maps them to 400 or 431.
enum h1_result {
    H1_OK = 0,
    H1_MORE = 1,      // the head is not complete yet
    H1_BAD = -1,      // not HTTP/1.x, or ambiguous: 400 and close
    H1_TOO_LARGE = -2 // more than H1_HEAD_MAX bytes or H1_FIELDS_MAX fields: 431 and close
};

enum h1_method {
    H1_METHOD_OTHER, // a well-formed token that we have no name for: see method_text
    H1_METHOD_GET,
    H1_METHOD_HEAD,
    H1_METHOD_POST,
    H1_METHOD_PUT,
    H1_METHOD_DELETE,
    H1_METHOD_PATCH,
    H1_METHOD_OPTIONS,
    H1_METHOD_CONNECT,
    H1_METHOD_TRACE,
};

// Field names the gateway acts on. Everything else is H1_FIELD_OTHER and is forwarded as it is.
enum h1_field_id {
    H1_FIELD_OTHER,
    H1_FIELD_HOST,
    H1_FIELD_CONTENT_LENGTH,
    H1_FIELD_TRANSFER_ENCODING,
    H1_FIELD_CONNECTION,
    H1_FIELD_KEEP_ALIVE,
    H1_FIELD_PROXY_CONNECTION,
    H1_FIELD_PROXY_AUTHORIZATION,
    H1_FIELD_PROXY_AUTHENTICATE,
    H1_FIELD_TE,
    H1_FIELD_TRAILER,
    H1_FIELD_UPGRADE,
    H1_FIELD_EXPECT,
    H1_FIELD_AUTHORIZATION,
    H1_FIELD_X_API_KEY,
    H1_FIELD_API_KEY,
    H1_FIELD_X_GOOG_API_KEY,
    H1_FIELD_COOKIE,
    H1_FIELD_VIA,
    H1_FIELD_X_FORWARDED_FOR,
    H1_FIELD_FORWARDED,
    H1_FIELD_X_FORWARDED_PROTO,
    H1_FIELD_X_REQUEST_ID,
    H1_FIELD_CONTENT_TYPE,
    H1_FIELD_CONTENT_ENCODING,
    H1_FIELD_ACCEPT,
    H1_FIELD_ACCEPT_ENCODING,
    H1_FIELD_DATE,
    H1_FIELD_SERVER,
    H1_FIELD_RETRY_AFTER,
    H1_FIELD_IDEMPOTENCY_KEY,
    H1_FIELD_ANTHROPIC_VERSION,
    H1_FIELD_X_TOKENRING, // any field whose name starts with "x-tokenring-"
};

struct h1_field {
    struct span name;  // as sent
    struct span value; // without surrounding whitespace
    enum h1_field_id id;
};

struct h1_head {
    // request line
    enum h1_method method;
    struct span method_text;
    struct span target; // as sent: origin-form, absolute-form, "*" or authority-form
    // status line
    uint16_t status; // 100..999
    struct span reason;
    // both
    uint8_t minor; // HTTP/1.<minor>: 0 or 1
    uint16_t field_count;
    struct h1_field field[H1_FIELDS_MAX];
    size_t len; // bytes of the whole head, blank line included
};

// Is the whole head here? `*from` starts at 0 and remembers how far was looked, so that a head that
// arrives byte by byte costs linear time. On H1_OK `*head_len` is its length. H1_BAD at the first
// LF that does not follow a CR, at the first NUL, and if the very first line is empty: hostile
// bytes do not get to wait for a blank line. H1_TOO_LARGE once H1_HEAD_MAX bytes are here without a
// blank line.
enum h1_result h1_head_complete(const uint8_t *bytes, size_t len, size_t *from, size_t *head_len);

// Parse a complete head. Returns H1_OK, H1_BAD or H1_TOO_LARGE; H1_MORE if the blank line is
// missing. Bytes behind the blank line are not looked at. The head is meaningful only on H1_OK.
enum h1_result h1_parse_request(struct h1_head *head, const uint8_t *bytes, size_t len);
enum h1_result h1_parse_response(struct h1_head *head, const uint8_t *bytes, size_t len);

// The first field with this id, or NULL.
const struct h1_field *h1_find(const struct h1_head *head, enum h1_field_id id);

// The first field with this name (any case), or NULL. For names that have no id.
const struct h1_field *h1_find_name(const struct h1_head *head, struct span name);

// Which known field is this name, in any case of letters?
enum h1_field_id h1_field_id(struct span name);

// Walk a comma-separated list value (RFC 9110 section 5.6.1): returns the next non-empty element,
// trimmed, and moves *rest behind it; an empty span ends the walk. Quoted strings stay whole.
struct span h1_list_next(struct span *rest);

// Is `token` (any case) an element of any field with this id?
bool h1_list_has(const struct h1_head *head, enum h1_field_id id, struct span token);

// May this byte stand in a token (RFC 9110 section 5.6.2)?
bool h1_token_byte(uint8_t c);

// Must this field stay on this hop (RFC 9110 section 7.6.1)? True for Connection and its kin, and
// for every field that a Connection field of `head` names. Content-Length and Transfer-Encoding are
// hop framing too: the caller writes its own.
bool h1_hop_by_hop(const struct h1_head *head, const struct h1_field *field);

#endif
