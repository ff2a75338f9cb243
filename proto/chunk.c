// SPDX-License-Identifier: MIT
#include "proto/chunk.h"

#include "alloc/check.h"
#include "proto/h1.h"

enum { CHUNK_DIGITS_MAX = 15 }; // 60 bits: no arithmetic on a size can wrap

// The states, in the order in which a message meets them. "Where" is what the next byte belongs to.
enum chunk_state {
    CHUNK_SIZE_FIRST, // the first digit of a size: between two chunks
    CHUNK_SIZE,       // more digits, ";" or CR
    CHUNK_EXT_NAME_FIRST,
    CHUNK_EXT_NAME,
    CHUNK_EXT_VALUE_FIRST,
    CHUNK_EXT_VALUE,
    CHUNK_EXT_QUOTED,
    CHUNK_EXT_ESCAPED,
    CHUNK_EXT_QUOTE_CLOSED,
    CHUNK_SIZE_LF,
    CHUNK_BODY, // `left` bytes of data
    CHUNK_BODY_CR,
    CHUNK_BODY_LF,
    CHUNK_TRAILER_FIRST, // the first byte of a trailer line, or the CR of the empty one
    CHUNK_TRAILER_NAME,
    CHUNK_TRAILER_VALUE,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_OVER,
    CHUNK_BROKEN,
};

void chunk_start(struct chunk *chunk)
{
    *chunk = (struct chunk){.state = CHUNK_SIZE_FIRST};
}

bool chunk_at_boundary(const struct chunk *chunk)
{
    return chunk->state == CHUNK_SIZE_FIRST;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_text(uint8_t c)
{
    return c == '\t' || (c >= ' ' && c <= '~');
}

// What may stand where a chunk extension can end.
static enum chunk_state after_extension(uint8_t c)
{
    return c == '\r' ? CHUNK_SIZE_LF : c == ';' ? CHUNK_EXT_NAME_FIRST : CHUNK_BROKEN;
}

static enum chunk_state step_size(struct chunk *chunk, uint8_t c)
{
    int digit = hex_value(c);
    if (digit < 0)
        return chunk->digits ? after_extension(c) : CHUNK_BROKEN;
    if (chunk->digits == CHUNK_DIGITS_MAX)
        return CHUNK_BROKEN;
    chunk->digits++;
    chunk->left = chunk->left << 4 | (uint64_t)digit;
    return CHUNK_SIZE;
}

// chunk-ext = *( ";" name [ "=" ( token / quoted-string ) ] ), without the blanks that old grammars
// allowed there: nobody sends them and readers disagree about them.
static enum chunk_state step_extension(struct chunk *chunk, uint8_t c)
{
    if (c != '\r' && ++chunk->line > CHUNK_EXTENSION_MAX)
        return CHUNK_BROKEN;
    bool token = h1_token_byte(c);
    switch ((enum chunk_state)chunk->state) {
    case CHUNK_EXT_NAME_FIRST: return token ? CHUNK_EXT_NAME : CHUNK_BROKEN;
    case CHUNK_EXT_NAME:
        return token ? CHUNK_EXT_NAME : c == '=' ? CHUNK_EXT_VALUE_FIRST : after_extension(c);
    case CHUNK_EXT_VALUE_FIRST:
        return token ? CHUNK_EXT_VALUE : c == '"' ? CHUNK_EXT_QUOTED : CHUNK_BROKEN;
    case CHUNK_EXT_VALUE: return token ? CHUNK_EXT_VALUE : after_extension(c);
    case CHUNK_EXT_QUOTED:
        if (c == '"')
            return CHUNK_EXT_QUOTE_CLOSED;
        if (c == '\\')
            return CHUNK_EXT_ESCAPED;
        return is_text(c) ? CHUNK_EXT_QUOTED : CHUNK_BROKEN;
    case CHUNK_EXT_ESCAPED: return is_text(c) ? CHUNK_EXT_QUOTED : CHUNK_BROKEN;
    default: return after_extension(c);
    }
}

// The LF that ends a size line: a size of zero is the last chunk.
static enum chunk_state step_size_lf(struct chunk *chunk, uint8_t c)
{
    if (c != '\n')
        return CHUNK_BROKEN;
    chunk->digits = 0;
    chunk->line = 0;
    return chunk->left ? CHUNK_BODY : CHUNK_TRAILER_FIRST;
}

// Everything between two stretches of data, a byte at a time: a dozen bytes a chunk.
static enum chunk_state step_line(struct chunk *chunk, uint8_t c)
{
    switch ((enum chunk_state)chunk->state) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE: return step_size(chunk, c);
    case CHUNK_SIZE_LF: return step_size_lf(chunk, c);
    case CHUNK_BODY_CR: return c == '\r' ? CHUNK_BODY_LF : CHUNK_BROKEN;
    case CHUNK_BODY_LF: return c == '\n' ? CHUNK_SIZE_FIRST : CHUNK_BROKEN;
    case CHUNK_END_LF: return c == '\n' ? CHUNK_OVER : CHUNK_BROKEN;
    default: return step_extension(chunk, c);
    }
}

// A trailer line has the grammar of a header field; the empty line is not among its bytes.
static enum chunk_state step_trailer(struct chunk *chunk, uint8_t c)
{
    if (++chunk->line > CHUNK_TRAILER_MAX)
        return CHUNK_BROKEN;
    switch ((enum chunk_state)chunk->state) {
    case CHUNK_TRAILER_FIRST: return h1_token_byte(c) ? CHUNK_TRAILER_NAME : CHUNK_BROKEN;
    case CHUNK_TRAILER_NAME:
        return h1_token_byte(c) ? CHUNK_TRAILER_NAME
               : c == ':'       ? CHUNK_TRAILER_VALUE
                                : CHUNK_BROKEN;
    case CHUNK_TRAILER_VALUE:
        return c == '\r'                 ? CHUNK_TRAILER_LF
               : is_text(c) || c >= 0x80 ? CHUNK_TRAILER_VALUE
                                         : CHUNK_BROKEN;
    default: return c == '\n' ? CHUNK_TRAILER_FIRST : CHUNK_BROKEN;
    }
}

static enum chunk_result take_body(struct chunk *chunk, const uint8_t *bytes, size_t len,
                                   size_t *used, struct span *data)
{
    size_t take = len - *used < chunk->left ? len - *used : (size_t)chunk->left;
    CHECK(take > 0);
    *data = span_of(bytes + *used, take);
    *used += take;
    chunk->left -= take;
    if (chunk->left == 0)
        chunk->state = CHUNK_BODY_CR;
    return CHUNK_DATA;
}

// As much of the trailer section as there is, up to the CR of the empty line or a bad byte (which
// is not taken, so that the good ones before it are reported however they arrive). CHUNK_MORE:
// nothing to report, go on.
static enum chunk_result take_trailer(struct chunk *chunk, const uint8_t *bytes, size_t len,
                                      size_t *used, struct span *data)
{
    size_t start = *used;
    while (*used < len) {
        if (chunk->state == CHUNK_TRAILER_FIRST && bytes[*used] == '\r')
            break;
        chunk->state = (uint8_t)step_trailer(chunk, bytes[*used]);
        if (chunk->state == CHUNK_BROKEN)
            break;
        (*used)++;
    }
    if (*used > start) {
        *data = span_of(bytes + start, *used - start);
        return CHUNK_TRAILER;
    }
    if (chunk->state == CHUNK_BROKEN)
        return CHUNK_BAD;
    (*used)++;
    chunk->state = CHUNK_END_LF;
    return CHUNK_MORE;
}

enum chunk_result chunk_next(struct chunk *chunk, const uint8_t *bytes, size_t len, size_t *used,
                             struct span *data)
{
    *used = 0;
    *data = (struct span){0};
    while (chunk->state != CHUNK_OVER && chunk->state != CHUNK_BROKEN) {
        if (*used == len)
            return CHUNK_MORE;
        switch ((enum chunk_state)chunk->state) {
        case CHUNK_BODY: return take_body(chunk, bytes, len, used, data);
        case CHUNK_TRAILER_FIRST:
        case CHUNK_TRAILER_NAME:
        case CHUNK_TRAILER_VALUE:
        case CHUNK_TRAILER_LF: {
            enum chunk_result result = take_trailer(chunk, bytes, len, used, data);
            if (result != CHUNK_MORE)
                return result;
            break;
        }
        default: chunk->state = (uint8_t)step_line(chunk, bytes[(*used)++]);
        }
    }
    return chunk->state == CHUNK_OVER ? CHUNK_END : CHUNK_BAD;
}

size_t chunk_size_line(uint8_t *out, uint64_t size)
{
    static const char digit[] = "0123456789abcdef";
    size_t len = 1;
    while (len < 16 && size >> (4 * len))
        len++;
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)digit[size >> (4 * (len - 1 - i)) & 15];
    out[len] = '\r';
    out[len + 1] = '\n';
    return len + 2;
}
