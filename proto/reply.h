// SPDX-License-Identifier: MIT
//
// reply: the answers that are ours, in the client's dialect.
//
// An error has a stable name (header x-tokenring-error, label in metrics), a status, and a
// sentence. reply_error() writes a complete HTTP/1.1 response (head and body) into the caller's
// bytes; it never allocates and cannot fail for the sizes promised below. The overload answers are
// written once at start and sent from there, so that shedding can never itself fail.
//
// Bodies by dialect (field lists: the providers' own error pages):
//   OpenAI     {"error":{"message":..,"type":..,"param":null,"code":..}}
//   Anthropic  {"type":"error","error":{"type":..,"message":..},"request_id":..}
//   Gemini     {"error":{"code":429,"message":..,"status":"RESOURCE_EXHAUSTED"}}
//   Ollama     {"error":".."}
#ifndef PROTO_REPLY_H
#define PROTO_REPLY_H

#include "proto/span.h"

enum dialect { DIALECT_OPENAI, DIALECT_ANTHROPIC, DIALECT_GEMINI, DIALECT_OLLAMA, DIALECT_COUNT };

// Every refusal and failure a client can meet. One table in reply.c: name, status, Retry-After
// seconds, types per dialect, default sentence. X(id, name, status)
#define REPLY_ERRORS(X)                                                                            \
    X(BAD_REQUEST, "bad_request", 400) /* malformed or ambiguous HTTP */                           \
    X(HEAD_TOO_LARGE, "head_too_large", 431)                                                       \
    X(BAD_EXPECT, "bad_expect", 417)                                                               \
    X(NOT_IMPLEMENTED, "transfer_coding_unsupported", 501)                                         \
    X(VERSION, "http_version_unsupported", 505)                                                    \
    X(UPGRADE, "upgrade_unsupported", 426)                                                         \
    X(BODY_TOO_LARGE, "body_too_large", 413)                                                       \
    X(LENGTH_REQUIRED, "length_required", 411)                                                     \
    X(NOT_JSON, "not_json", 400)                                                                   \
    X(TOO_DEEP, "json_too_deep", 400)                                                              \
    X(NO_MODEL, "no_model", 400)                                                                   \
    X(MODEL_INVALID, "model_invalid", 400)                                                         \
    X(MODEL_BEYOND_PEEK, "model_beyond_peek", 400)                                                 \
    X(MODEL_NOT_FOUND, "model_not_found", 404)                                                     \
    X(PATH_NOT_FOUND, "path_not_found", 404)                                                       \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", 405)                                               \
    X(CLIENT_TIMEOUT, "request_timeout", 408)                                                      \
    X(DIALECT_UNSUPPORTED, "dialect_unsupported", 400)                                             \
    X(UPSTREAM_CONNECT, "upstream_connect_failed", 502)                                            \
    X(UPSTREAM_TLS, "upstream_tls_failed", 502)                                                    \
    X(UPSTREAM_RESET, "upstream_reset", 502)                                                       \
    X(UPSTREAM_PROTOCOL, "upstream_protocol_error", 502)                                           \
    X(UPSTREAM_HEAD_TOO_LARGE, "upstream_head_too_large", 502)                                     \
    X(UPSTREAM_TRUNCATED, "upstream_truncated", 502)                                               \
    X(UPSTREAM_BUSY, "upstream_connections_exhausted", 503)                                        \
    X(TIMEOUT_CONNECT, "timeout_connect", 504)                                                     \
    X(TIMEOUT_FIRST_BYTE, "timeout_first_byte", 504)                                               \
    X(TIMEOUT_IDLE, "timeout_idle", 504)                                                           \
    X(TIMEOUT_TOTAL, "timeout_total", 504)                                                         \
    X(OVERLOAD_CONNECTIONS, "overload_connections", 503)                                           \
    X(OVERLOAD_MEMORY, "overload_memory", 503)                                                     \
    X(DRAINING, "draining", 503)                                                                   \
    X(INTERNAL, "internal_error", 500)

enum reply_error {
#define X(id, name, status) REPLY_##id,
    REPLY_ERRORS(X)
#undef X
        REPLY_ERROR_COUNT
};

enum {
    REPLY_ERROR_MAX = 1536, // bytes reply_error may write
    REPLY_EVENT_MAX = 512,  // bytes reply_error_event may write
    REPLY_MESSAGE_MAX = 400 // longer sentences are cut
};

const char *reply_error_name(enum reply_error error);
uint16_t reply_error_status(enum reply_error error);
const char *reply_error_message(enum reply_error error); // the default sentence

struct reply_error_args {
    enum reply_error error;
    enum dialect dialect;
    const char *message;    // NULL: the default sentence. May quote client bytes; it is escaped.
    struct span request_id; // may be empty
    bool close;             // say Connection: close
    bool head_only;         // answer to HEAD: Content-Length as for GET, no body
    const char *allow;      // METHOD_NOT_ALLOWED: the Allow field's value
};

// A complete response in out[0..REPLY_ERROR_MAX). Returns its length.
size_t reply_error(uint8_t *out, const struct reply_error_args *args);

// The event that ends a broken stream in the client's dialect (never followed by [DONE] or
// message_stop). Begins with an empty line so that it stands alone after a torn event; Ollama's, a
// JSON object on a line, begins with one line end, which a caller between two lines leaves out.
// Returns its length, at most REPLY_EVENT_MAX.
size_t reply_error_event(uint8_t *out, enum dialect dialect, enum reply_error error,
                         const char *message);

// The reason phrase of a status code (RFC 9110 section 15), "" if we have none.
const char *reply_reason(uint16_t status);

#endif
