// SPDX-License-Identifier: MIT
//
// One table says what each error is (its kind) and what we say about it; a second says how each
// dialect calls a kind. Everything is written through `struct writer`, whose bound is checked: the
// sizes promised in the header are kept because every part has a limit here.
#include "proto/reply.h"

#include "alloc/check.h"
#include "proto/json.h"

enum {
    REQUEST_ID_MAX = 128, // a longer one is not repeated
    ALLOW_MAX = 128,
    HEAD_MAX = 640,
    BODY_MAX = REPLY_ERROR_MAX - HEAD_MAX,
    EVENT_MESSAGE_MAX = 320, // of an event, so that the rest fits into REPLY_EVENT_MAX
    RETRY_AFTER_SECONDS = 1,
};

// What went wrong, as the dialects see it.
enum kind {
    KIND_REQUEST,     // the request is at fault
    KIND_NOT_FOUND,   // what it asks for does not exist
    KIND_TOO_LARGE,   // its body is too large
    KIND_UNSUPPORTED, // HTTP that we do not speak
    KIND_TIMEOUT,
    KIND_OVERLOADED,
    KIND_UPSTREAM, // the provider failed
    KIND_INTERNAL, // we failed
    KIND_COUNT
};

static const struct {
    const char *openai, *anthropic, *gemini;
} kinds[KIND_COUNT] = {
    [KIND_REQUEST] = {"invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"},
    [KIND_NOT_FOUND] = {"invalid_request_error", "not_found_error", "NOT_FOUND"},
    [KIND_TOO_LARGE] = {"request_too_large", "request_too_large", "INVALID_ARGUMENT"},
    [KIND_UNSUPPORTED] = {"invalid_request_error", "invalid_request_error", "UNIMPLEMENTED"},
    [KIND_TIMEOUT] = {"timeout", "timeout_error", "DEADLINE_EXCEEDED"},
    [KIND_OVERLOADED] = {"overloaded", "overloaded_error", "UNAVAILABLE"},
    [KIND_UPSTREAM] = {"server_error", "api_error", "UNAVAILABLE"},
    [KIND_INTERNAL] = {"server_error", "api_error", "INTERNAL"},
};

static const struct {
    const char *name;
    uint16_t status;
} errors[REPLY_ERROR_COUNT] = {
#define X(id, name, status) [REPLY_##id] = {name, status},
    REPLY_ERRORS(X)
#undef X
};

static const struct {
    enum kind kind;
    const char *message;
} texts[REPLY_ERROR_COUNT] = {
    [REPLY_BAD_REQUEST] = {KIND_REQUEST, "The request is not well-formed HTTP/1.1."},
    [REPLY_HEAD_TOO_LARGE] = {KIND_REQUEST, "The request's header fields are too large."},
    [REPLY_BAD_EXPECT] = {KIND_REQUEST, "The only expectation we can meet is 100-continue."},
    [REPLY_NOT_IMPLEMENTED] =
        {KIND_UNSUPPORTED, "This transfer coding is not supported; use chunked or Content-Length."},
    [REPLY_VERSION] = {KIND_UNSUPPORTED, "This HTTP version is not supported; use HTTP/1.1."},
    [REPLY_UPGRADE] = {KIND_UNSUPPORTED,
                       "Upgrading the connection is not supported; use HTTP/1.1."},
    [REPLY_BODY_TOO_LARGE] = {KIND_TOO_LARGE, "The request's body is over the gateway's limit."},
    [REPLY_LENGTH_REQUIRED] = {KIND_REQUEST, "The request's body needs a Content-Length."},
    [REPLY_NOT_JSON] = {KIND_REQUEST, "The body is not a JSON object."},
    [REPLY_TOO_DEEP] = {KIND_REQUEST, "The JSON body is nested more than 64 levels deep."},
    [REPLY_NO_MODEL] = {KIND_REQUEST, "The body has no 'model'."},
    [REPLY_MODEL_INVALID] = {KIND_REQUEST,
                             "'model' must occur once and be a string of 1 to 255 bytes."},
    [REPLY_MODEL_BEYOND_PEEK] = {KIND_REQUEST,
                                 "'model' stands too far back in the body; move it to the front."},
    [REPLY_MODEL_NOT_FOUND] = {KIND_NOT_FOUND, "This model is not known here."},
    [REPLY_PATH_NOT_FOUND] = {KIND_NOT_FOUND, "There is nothing at this path."},
    [REPLY_METHOD_NOT_ALLOWED] = {KIND_REQUEST, "This path does not take this method; see Allow."},
    [REPLY_CLIENT_TIMEOUT] = {KIND_TIMEOUT, "The request took too long to arrive."},
    [REPLY_DIALECT_UNSUPPORTED] = {KIND_REQUEST,
                                   "The model's provider does not speak this request's dialect."},
    [REPLY_UPSTREAM_CONNECT] = {KIND_UPSTREAM, "The provider could not be reached."},
    [REPLY_UPSTREAM_TLS] = {KIND_UPSTREAM,
                            "No secure connection to the provider: its certificate was not "
                            "accepted, or the handshake failed."},
    [REPLY_UPSTREAM_RESET] = {KIND_UPSTREAM,
                              "The provider closed the connection without an answer."},
    [REPLY_UPSTREAM_PROTOCOL] = {KIND_UPSTREAM, "The provider's answer was not well-formed HTTP."},
    [REPLY_UPSTREAM_HEAD_TOO_LARGE] = {KIND_UPSTREAM,
                                       "The provider's header fields were too large."},
    [REPLY_UPSTREAM_TRUNCATED] = {KIND_UPSTREAM, "The provider's answer ended too early."},
    [REPLY_UPSTREAM_BUSY] = {KIND_OVERLOADED, "All connections to the provider are in use."},
    [REPLY_TIMEOUT_CONNECT] = {KIND_TIMEOUT, "Connecting to the provider took too long."},
    [REPLY_TIMEOUT_FIRST_BYTE] = {KIND_TIMEOUT, "The provider took too long to begin its answer."},
    [REPLY_TIMEOUT_IDLE] = {KIND_TIMEOUT, "The provider fell silent in the middle of its answer."},
    [REPLY_TIMEOUT_TOTAL] = {KIND_TIMEOUT, "The answer took longer than a request may take."},
    [REPLY_OVERLOAD_CONNECTIONS] = {KIND_OVERLOADED, "The gateway has too many connections."},
    [REPLY_OVERLOAD_MEMORY] = {KIND_OVERLOADED, "The gateway is short of memory."},
    [REPLY_DRAINING] = {KIND_OVERLOADED, "The gateway is about to stop."},
    [REPLY_INTERNAL] = {KIND_INTERNAL, "The gateway met an error of its own."},
};

const char *reply_error_name(enum reply_error error)
{
    CHECK(error < REPLY_ERROR_COUNT);
    return errors[error].name;
}

uint16_t reply_error_status(enum reply_error error)
{
    CHECK(error < REPLY_ERROR_COUNT);
    return errors[error].status;
}

const char *reply_error_message(enum reply_error error)
{
    CHECK(error < REPLY_ERROR_COUNT);
    CHECK(texts[error].message != NULL);
    return texts[error].message;
}

// ---- writing ----

struct writer {
    uint8_t *out;
    size_t len, cap;
};

static void put_span(struct writer *writer, struct span text)
{
    CHECK(writer->cap - writer->len >= text.len);
    if (text.len)
        memcpy(writer->out + writer->len, text.ptr, text.len);
    writer->len += text.len;
}

static void put(struct writer *writer, const char *text)
{
    put_span(writer, span_of(text, strlen(text)));
}

static void put_number(struct writer *writer, size_t number)
{
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number);
    put_span(writer, span_of(digits + at, sizeof digits - at));
}

// The bytes of the character at text[at]: a lead and what continues it.
static size_t character_length(struct span text, size_t at)
{
    size_t len = 1;
    while (len < 4 && at + len < text.len && (text.ptr[at + len] & 0xC0) == 0x80)
        len++;
    return len;
}

// The text as the inside of a JSON string, cut behind the last character that fits into `max`
// bytes.
static void put_escaped(struct writer *writer, struct span text, size_t max)
{
    CHECK(writer->cap - writer->len >= max);
    uint8_t *out = writer->out + writer->len;
    size_t written = 0;
    for (size_t at = 0; at < text.len;) {
        size_t len = character_length(text, at);
        int count = json_escape(out + written, max - written, span_of(text.ptr + at, len));
        if (count < 0)
            break;
        written += (size_t)count;
        at += len;
    }
    writer->len += written;
}

// ---- bodies ----

static void put_openai(struct writer *body, enum reply_error error, struct span message, size_t max)
{
    put(body, "{\"error\":{\"message\":\"");
    put_escaped(body, message, max);
    put(body, "\",\"type\":\"");
    put(body, kinds[texts[error].kind].openai);
    put(body, "\",\"param\":null,\"code\":\"");
    put(body, errors[error].name);
    put(body, "\"}}");
}

static void put_anthropic(struct writer *body, enum reply_error error, struct span message,
                          size_t max, struct span request_id)
{
    put(body, "{\"type\":\"error\",\"error\":{\"type\":\"");
    put(body, kinds[texts[error].kind].anthropic);
    put(body, "\",\"message\":\"");
    put_escaped(body, message, max);
    if (request_id.len == 0) {
        put(body, "\"},\"request_id\":null}");
        return;
    }
    put(body, "\"},\"request_id\":\"");
    put_escaped(body, request_id, 2 * REQUEST_ID_MAX);
    put(body, "\"}");
}

static void put_gemini(struct writer *body, enum reply_error error, struct span message, size_t max)
{
    put(body, "{\"error\":{\"code\":");
    put_number(body, errors[error].status);
    put(body, ",\"message\":\"");
    put_escaped(body, message, max);
    put(body, "\",\"status\":\"");
    put(body, kinds[texts[error].kind].gemini);
    put(body, "\"}}");
}

static void put_ollama(struct writer *body, struct span message, size_t max)
{
    put(body, "{\"error\":\"");
    put_escaped(body, message, max);
    put(body, "\"}");
}

static void put_body(struct writer *body, enum dialect dialect, enum reply_error error,
                     const char *message, size_t max, struct span request_id)
{
    CHECK(error < REPLY_ERROR_COUNT);
    if (message == NULL)
        message = reply_error_message(error);
    // strnlen: more than `max` bytes would be cut anyway.
    struct span text = span_of(message, strnlen(message, max));
    switch (dialect) {
    case DIALECT_OPENAI: put_openai(body, error, text, max); return;
    case DIALECT_ANTHROPIC: put_anthropic(body, error, text, max, request_id); return;
    case DIALECT_GEMINI: put_gemini(body, error, text, max); return;
    case DIALECT_OLLAMA: put_ollama(body, text, max); return;
    case DIALECT_COUNT: break;
    }
    CHECK(dialect < DIALECT_COUNT);
}

// ---- the response ----

static void put_field(struct writer *head, const char *name, struct span value)
{
    put(head, name);
    put(head, ": ");
    put_span(head, value);
    put(head, "\r\n");
}

// A request id is repeated only if it cannot be mistaken for anything else in a head.
static bool request_id_fits(struct span id)
{
    if (id.len == 0 || id.len > REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++)
        if (id.ptr[i] <= ' ' || id.ptr[i] >= 0x7F)
            return false;
    return true;
}

// RFC 9110: 405 must say Allow (15.5.6), empty if nothing is allowed; 426 must say Upgrade
// (15.5.22), and whoever says Upgrade must name it in Connection (7.8).
static void put_connection(struct writer *head, const struct reply_error_args *args)
{
    bool upgrade = errors[args->error].status == 426;
    if (upgrade)
        put_field(head, "Upgrade", SPAN("HTTP/1.1"));
    if (upgrade && args->close)
        put_field(head, "Connection", SPAN("upgrade, close"));
    else if (upgrade)
        put_field(head, "Connection", SPAN("upgrade"));
    else if (args->close)
        put_field(head, "Connection", SPAN("close"));
}

static void put_head(struct writer *head, const struct reply_error_args *args, struct span id,
                     size_t content_length)
{
    uint16_t status = errors[args->error].status;
    put(head, "HTTP/1.1 ");
    put_number(head, status);
    put(head, " ");
    put(head, reply_reason(status));
    put(head, "\r\nContent-Type: application/json\r\nContent-Length: ");
    put_number(head, content_length);
    put(head, "\r\n");
    put_field(head, "x-tokenring-error",
              span_of(errors[args->error].name, strlen(errors[args->error].name)));
    if (id.len)
        put_field(head, "x-request-id", id);
    if (status == 503 || status == 429) {
        put(head, "Retry-After: ");
        put_number(head, RETRY_AFTER_SECONDS);
        put(head, "\r\n");
    }
    if (status == 405) {
        const char *allow = args->allow ? args->allow : "";
        put_field(head, "Allow", span_of(allow, strnlen(allow, ALLOW_MAX)));
    }
    put_connection(head, args);
    put(head, "\r\n");
}

size_t reply_error(uint8_t *out, const struct reply_error_args *args)
{
    CHECK(args->error < REPLY_ERROR_COUNT);
    CHECK(args->allow == NULL || strlen(args->allow) <= ALLOW_MAX);
    struct span id = request_id_fits(args->request_id) ? args->request_id : span_of(NULL, 0);
    uint8_t body_bytes[BODY_MAX];
    struct writer body = {body_bytes, 0, sizeof body_bytes};
    put_body(&body, args->dialect, args->error, args->message, REPLY_MESSAGE_MAX, id);
    struct writer response = {out, 0, REPLY_ERROR_MAX};
    put_head(&response, args, id, body.len);
    if (!args->head_only)
        put_span(&response, span_of(body.out, body.len));
    return response.len;
}

// Two line ends: the first ends a torn line, the second the torn event. Between events both are
// nothing. Ollama streams one JSON object a line, where one line end is enough and an empty line
// would be one too many for some readers: a caller that knows it is between two lines leaves out
// the first byte.
size_t reply_error_event(uint8_t *out, enum dialect dialect, enum reply_error error,
                         const char *message)
{
    struct writer event = {out, 0, REPLY_EVENT_MAX};
    bool sse = dialect != DIALECT_OLLAMA;
    put(&event, sse ? "\n\n" : "\n");
    if (dialect == DIALECT_ANTHROPIC)
        put(&event, "event: error\n");
    if (sse)
        put(&event, "data: ");
    put_body(&event, dialect, error, message, EVENT_MESSAGE_MAX, span_of(NULL, 0));
    put(&event, sse ? "\n\n" : "\n");
    return event.len;
}

const char *reply_reason(uint16_t status)
{
    static const struct {
        uint16_t status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},           // RFC 6585
        {429, "Too Many Requests"},               // RFC 6585
        {431, "Request Header Fields Too Large"}, // RFC 6585
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {511, "Network Authentication Required"}, // RFC 6585
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}
