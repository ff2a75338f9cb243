// SPDX-License-Identifier: MIT
//
// states, per byte:
//   OUTSIDE  envelope before the token: hashed           -- `"tok` and a digit --> NUMBER
//   NUMBER   the token's number                          -- a space --> CONTENT
//   CONTENT  filler; in whole replies also more tokens   -- '"' --> BEHIND
//   TOKEN    whole replies: inside the letters "tok" of a further token
//   BEHIND   envelope after the content: hashed
//   SKIP     an event that repeats text that was checked before (Responses API)
#include "tools/load_check.h"

#include "tools/mock_out.h"

enum { OUTSIDE, NUMBER, CONTENT, TOKEN, BEHIND, SKIP };

static const char token_mark[] = "\"tok";
enum { TOKEN_MARK_LEN = sizeof token_mark - 1 };

static const uint64_t hash_start = 0xcbf29ce484222325u;

// FNV-1a.
static uint64_t hash_add(uint64_t hash, uint8_t c)
{
    return (hash ^ c) * 0x100000001b3u;
}

static void event_start(struct check *check)
{
    check->state = OUTSIDE;
    check->match = 0;
    check->has_bytes = false;
    check->first_line = true;
    check->start_len = 0;
    check->hash = hash_start;
    check->len = 0;
}

void check_start(struct check *check, bool stream, bool verify, uint64_t expected)
{
    memset(check, 0, offsetof(struct check, start));
    check->stream = stream;
    check->verify = verify;
    check->expected = expected;
    check->line_start = true;
    event_start(check);
    json_start(&check->json);
}

static void blame(struct check *check, const char *what)
{
    if (!check->wrong)
        check->wrong = what;
}

// -------------------------------------------------------------------------------------- one byte

static void outside_byte(struct check *check, uint8_t c)
{
    if (check->match == TOKEN_MARK_LEN && c >= '0' && c <= '9') {
        check->prefix_hash = check->hash;
        check->prefix_len = check->len;
        check->number = (uint64_t)(c - '0');
        check->state = NUMBER;
        return;
    }
    if (check->match < TOKEN_MARK_LEN && c == (uint8_t)token_mark[check->match])
        check->match++;
    else
        check->match = c == (uint8_t)token_mark[0];
    check->hash = hash_add(check->hash, c);
    check->len++;
}

static void token_end(struct check *check)
{
    if (check->number != check->tokens)
        blame(check, "a token is missing, repeated or out of order");
    check->tokens++;
    check->filler_at = 0;
    check->state = CONTENT;
}

static void number_byte(struct check *check, uint8_t c)
{
    if (c == ' ') {
        token_end(check);
    } else if (c >= '0' && c <= '9' && check->number < UINT32_MAX) {
        check->number = check->number * 10 + (uint64_t)(c - '0');
    } else {
        blame(check, "a token's number is broken");
        check->state = BEHIND;
    }
}

static void content_byte(struct check *check, uint8_t c)
{
    static const char pattern[] = MOCK_FILLER;
    if (c == '"') {
        check->state = BEHIND;
        check->hash = hash_start;
        check->len = 0;
    } else if (!check->stream && !check->filling && c == 't') {
        check->state = TOKEN;
        check->match = 2;
    } else if (c == (uint8_t)pattern[check->filler_at++ % FILLER_PERIOD]) {
        check->filling = true;
    } else {
        blame(check, "a byte of the content is wrong");
    }
}

static void token_byte(struct check *check, uint8_t c)
{
    if (check->match < TOKEN_MARK_LEN && c == (uint8_t)token_mark[check->match]) {
        check->match++;
    } else if (check->match == TOKEN_MARK_LEN && c >= '0' && c <= '9') {
        check->number = (uint64_t)(c - '0');
        check->state = NUMBER;
    } else {
        blame(check, "a byte of the content is wrong");
        check->state = BEHIND;
    }
}

static void byte_step(struct check *check, uint8_t c)
{
    switch (check->state) {
    case OUTSIDE: outside_byte(check, c); break;
    case NUMBER: number_byte(check, c); break;
    case CONTENT: content_byte(check, c); break;
    case TOKEN: token_byte(check, c); break;
    case BEHIND:
        check->hash = hash_add(check->hash, c);
        check->len++;
        break;
    default: break;
    }
}

// ----------------------------------------------------------------------------------------- events

static bool starts(const struct check *check, const char *text)
{
    size_t len = strlen(text);
    return check->start_len >= len && memcmp(check->start, text, len) == 0;
}

// The first line is here: what kind of event is it?
static void first_line_end(struct check *check)
{
    static const char delta[] = ".delta";
    check->first_line = false;
    check->terminal |= starts(check, "data: [DONE]") || starts(check, "event: message_stop") ||
                       starts(check, "event: response.completed");
    if (starts(check, "event: error") || starts(check, "data: {\"error\""))
        blame(check, "the stream reports an error");
    if (starts(check, "event: response.") &&
        !memmem(check->start, check->start_len, delta, sizeof delta - 1))
        check->state = SKIP;
}

static void content_event_end(struct check *check)
{
    if (check->state != BEHIND) {
        blame(check, "an event ends inside its content");
        return;
    }
    if (starts(check, "event: response."))
        return;
    if (check->tokens == 1) {
        check->first_prefix_hash = check->prefix_hash;
        check->first_prefix_len = check->prefix_len;
        check->first_suffix_hash = check->hash;
        check->first_suffix_len = check->len;
    } else if (check->prefix_hash != check->first_prefix_hash ||
               check->prefix_len != check->first_prefix_len ||
               check->hash != check->first_suffix_hash || check->len != check->first_suffix_len) {
        blame(check, "an event differs from the first one outside its content");
    }
}

static void event_end(struct check *check)
{
    check->events++;
    if (check->verify && check->state != OUTSIDE && check->state != SKIP)
        content_event_end(check);
    event_start(check);
}

static void stream_byte(struct check *check, uint8_t c)
{
    bool blank = c == '\n' && check->line_start;
    if (c == '\r')
        return; // line ends may be CRLF
    if (blank) {
        if (check->has_bytes)
            event_end(check);
        return;
    }
    if (check->terminal && !check->has_bytes)
        blame(check, "bytes follow the last event");
    check->has_bytes = true;
    check->line_start = c == '\n';
    if (check->first_line) {
        if (c == '\n')
            first_line_end(check);
        else if (check->start_len < CHECK_START_MAX)
            check->start[check->start_len++] = (char)c;
    }
    byte_step(check, c);
}

// Only count: jump from line feed to line feed.
static void count_events(struct check *check, const uint8_t *bytes, size_t len)
{
    const uint8_t *end = bytes + len;
    while (bytes < end) {
        if (*bytes == '\n' && check->line_start) {
            check->events += check->has_bytes;
            check->has_bytes = false;
            bytes++;
            continue;
        }
        if (*bytes == '\r' && check->line_start) {
            bytes++;
            continue;
        }
        check->has_bytes = true;
        const uint8_t *feed = memchr(bytes, '\n', (size_t)(end - bytes));
        check->line_start = feed != NULL;
        bytes = feed ? feed + 1 : end;
    }
}

static void whole_feed(struct check *check, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    enum json_token token;
    do
        token = json_next(&check->json, bytes, len, &used, 0);
    while (token > JSON_MORE && token < JSON_DONE);
    if (token < 0)
        blame(check, "the body is not JSON");
    for (size_t i = 0; i < len; i++)
        byte_step(check, bytes[i]);
}

void check_feed(struct check *check, const uint8_t *bytes, size_t len)
{
    if (check->stream && !check->verify)
        count_events(check, bytes, len);
    else if (check->stream)
        for (size_t i = 0; i < len; i++)
            stream_byte(check, bytes[i]);
    else if (check->verify)
        whole_feed(check, bytes, len);
}

bool check_end(struct check *check)
{
    if (!check->verify)
        return true;
    if (check->stream && check->has_bytes)
        blame(check, "the stream ends inside an event");
    if (check->stream && !check->terminal)
        blame(check, "the stream ends without its last event");
    if (!check->stream && json_end(&check->json) != JSON_DONE)
        blame(check, "the body is not complete JSON");
    if (check->expected != UINT64_MAX && check->tokens != check->expected)
        blame(check, "more or fewer tokens than ordered");
    return !check->wrong;
}
