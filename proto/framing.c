// SPDX-License-Identifier: MIT
#include "proto/framing.h"

#include "alloc/check.h"

// What one pass over the fields finds.
struct facts {
    const struct h1_field *host, *length, *coding; // the last of each, or NULL
    unsigned hosts, lengths, codings;
    bool close, keep_alive, upgrade; // options of Connection
    bool has_upgrade;                // an Upgrade field
    bool has_expect;
    bool bad_expect; // an expectation that is not 100-continue
};

static void note_connection(struct facts *facts, struct span list)
{
    struct span option;
    while ((option = h1_list_next(&list)).len) {
        facts->close |= span_equal_nocase(option, SPAN("close"));
        facts->keep_alive |= span_equal_nocase(option, SPAN("keep-alive"));
        facts->upgrade |= span_equal_nocase(option, SPAN("upgrade"));
    }
}

static void note_field(struct facts *facts, const struct h1_field *field)
{
    switch (field->id) {
    case H1_FIELD_HOST:
        facts->host = field;
        facts->hosts++;
        break;
    case H1_FIELD_CONTENT_LENGTH:
        facts->length = field;
        facts->lengths++;
        break;
    case H1_FIELD_TRANSFER_ENCODING:
        facts->coding = field;
        facts->codings++;
        break;
    case H1_FIELD_CONNECTION: note_connection(facts, field->value); break;
    case H1_FIELD_UPGRADE: facts->has_upgrade = true; break;
    case H1_FIELD_EXPECT:
        facts->has_expect = true;
        facts->bad_expect |= !span_equal_nocase(field->value, SPAN("100-continue"));
        break;
    default: break;
    }
}

static struct facts read_facts(const struct h1_head *head)
{
    struct facts facts = {0};
    for (size_t i = 0; i < head->field_count; i++)
        note_field(&facts, &head->field[i]);
    return facts;
}

static inline bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static inline bool is_hex(uint8_t c)
{
    return is_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f');
}

// ---- Content-Length and Transfer-Encoding ----

// Digits and nothing else; the value fits 63 bits, so that sums of two lengths cannot wrap.
static bool length_parse(struct span text, uint64_t *length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
        uint64_t digit = (uint64_t)(text.ptr[i] - '0');
        if (value > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *length = value;
    return text.len > 0;
}

static bool is_token(struct span text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!h1_token_byte(text.ptr[i]))
            return false;
    return text.len > 0;
}

// A Transfer-Encoding that is not "chunked": a list of codings we lack can be told from one that
// lies about where the body ends (chunked not last, or twice, or not tokens at all).
static enum framing_result other_coding(struct span value)
{
    struct span element = h1_list_next(&value), next;
    for (; element.len; element = next) {
        next = h1_list_next(&value);
        if (!is_token(element))
            return FRAMING_BAD;
        if (next.len && span_equal_nocase(element, SPAN("chunked")))
            return FRAMING_BAD;
        if (!next.len)
            return FRAMING_NOT_IMPLEMENTED;
    }
    return FRAMING_BAD;
}

// What the two length fields say. FRAMING_NONE: there is neither.
static enum framing_result read_lengths(struct framing *framing, const struct facts *facts,
                                        uint8_t minor)
{
    if (facts->lengths > 1 || facts->codings > 1 || (facts->lengths && facts->codings))
        return FRAMING_BAD;
    if (facts->lengths) {
        framing->kind = FRAMING_LENGTH;
        return length_parse(facts->length->value, &framing->length) ? FRAMING_OK : FRAMING_BAD;
    }
    if (facts->codings) {
        if (minor == 0)
            return FRAMING_BAD;
        if (!span_equal_nocase(facts->coding->value, SPAN("chunked")))
            return other_coding(facts->coding->value);
        framing->kind = FRAMING_CHUNKED;
    }
    return FRAMING_OK;
}

static bool lives_on(const struct facts *facts, uint8_t minor)
{
    return !facts->close && (minor >= 1 || facts->keep_alive);
}

// ---- Host ----

// ":port" with 1..5 digits up to 65535, or nothing.
static bool port_is_valid(struct span text)
{
    if (text.len == 0)
        return true;
    if (text.ptr[0] != ':' || text.len < 2 || text.len > 6)
        return false;
    unsigned port = 0;
    for (size_t i = 1; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return false;
        port = port * 10 + (unsigned)(text.ptr[i] - '0');
    }
    return port <= 65535;
}

// Four decimal octets, no leading zeros (which some read as octal).
static bool ipv4_is_valid(struct span text)
{
    size_t at = 0;
    for (int octet = 0; octet < 4; octet++) {
        if (octet && (at == text.len || text.ptr[at++] != '.'))
            return false;
        size_t start = at;
        unsigned value = 0;
        while (at < text.len && at - start < 3 && is_digit(text.ptr[at]))
            value = value * 10 + (unsigned)(text.ptr[at++] - '0');
        if (at == start || value > 255 || (text.ptr[start] == '0' && at - start > 1))
            return false;
    }
    return at == text.len;
}

// RFC 4291 section 2.2: eight groups of 1..4 hex digits, one "::" for a run of zero groups, the
// last two groups perhaps in IPv4 form. No zone: it means nothing to another host.
static bool ipv6_is_valid(struct span text)
{
    size_t at = 0;
    int groups = 0;
    bool gap = false;
    if (text.len >= 2 && text.ptr[0] == ':' && text.ptr[1] == ':') {
        gap = true;
        at = 2;
    }
    while (at < text.len) {
        size_t start = at;
        while (at < text.len && at - start < 4 && is_hex(text.ptr[at]))
            at++;
        if (at < text.len && text.ptr[at] == '.') {
            groups += 2;
            if (!ipv4_is_valid(span_of(text.ptr + start, text.len - start)))
                return false;
            break;
        }
        if (at == start)
            return false;
        groups++;
        if (at == text.len)
            break;
        if (text.ptr[at++] != ':' || at == text.len)
            return false;
        if (text.ptr[at] == ':') {
            if (gap)
                return false;
            gap = true;
            at++;
        }
    }
    return gap ? groups <= 7 : groups == 8;
}

// Bytes of a reg-name (RFC 3986 section 3.2.2): letters, digits and -._~!$&'()*+;= but not the
// comma, which would make two hosts of one for whoever reads Host as a list. One bit per byte.
static inline bool name_byte(uint8_t c)
{
    static const uint64_t set[2] = {0x2bff6fd200000000u, 0x47fffffe87fffffeu};
    return c < 128 && set[c >> 6] >> (c & 63) & 1;
}

// How many bytes of `text` are a host name; 0 if it has none or an escape in it is broken.
static size_t name_length(struct span text)
{
    size_t at = 0;
    while (at < text.len) {
        if (name_byte(text.ptr[at])) {
            at++;
        } else if (text.ptr[at] == '%') {
            if (text.len - at < 3 || !is_hex(text.ptr[at + 1]) || !is_hex(text.ptr[at + 2]))
                return 0;
            at += 3;
        } else {
            break;
        }
    }
    return at;
}

// uri-host [ ":" port ]: never empty, never with userinfo.
static bool authority_is_valid(struct span text)
{
    size_t host = 0;
    if (text.len && text.ptr[0] == '[') {
        const uint8_t *close = memchr(text.ptr, ']', text.len);
        if (!close || !ipv6_is_valid(span_of(text.ptr + 1, (size_t)(close - text.ptr) - 1)))
            return false;
        host = (size_t)(close - text.ptr) + 1;
    } else {
        host = name_length(text);
    }
    return host > 0 && port_is_valid(span_of(text.ptr + host, text.len - host));
}

// The authority of an absolute-form target: what stands between "://" and the path or query.
static struct span target_authority(struct span target)
{
    const uint8_t *scheme_end = memchr(target.ptr, ':', target.len);
    CHECK(scheme_end != NULL); // h1 lets no other target through
    const uint8_t *at = scheme_end + 3, *end = target.ptr + target.len, *stop = at;
    while (stop < end && *stop != '/' && *stop != '?')
        stop++;
    return span_of(at, (size_t)(stop - at));
}

// RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0; a target that
// carries an authority of its own must name the same host, or two readers could route two ways.
static bool host_is_valid(const struct h1_head *head, const struct facts *facts)
{
    const struct h1_field *host = facts->host;
    if (facts->hosts > 1 || (facts->hosts == 0 && head->minor >= 1))
        return false;
    if (host && !authority_is_valid(host->value))
        return false;
    if (head->target.ptr[0] == '/' || head->target.ptr[0] == '*')
        return true;
    struct span authority =
        head->method == H1_METHOD_CONNECT ? head->target : target_authority(head->target);
    if (!authority_is_valid(authority))
        return false;
    return !host || head->method == H1_METHOD_CONNECT || span_equal_nocase(authority, host->value);
}

// ---- the two answers ----

enum framing_result framing_request(struct framing *framing, const struct h1_head *head)
{
    CHECK(head->target.len > 0);
    *framing = (struct framing){.kind = FRAMING_NONE};
    struct facts facts = read_facts(head);
    enum framing_result result = read_lengths(framing, &facts, head->minor);
    if (result != FRAMING_OK)
        return result;
    if (!host_is_valid(head, &facts))
        return FRAMING_NO_HOST;
    if (facts.bad_expect)
        return FRAMING_BAD_EXPECT;
    framing->keep_alive = lives_on(&facts, head->minor);
    framing->upgrade = facts.has_upgrade && facts.upgrade;
    // HTTP/1.0 cannot wait for a 100 (RFC 9110 section 10.1.1); without a body nobody does.
    bool body = framing->kind == FRAMING_CHUNKED || framing->length > 0;
    framing->expect_continue = facts.has_expect && head->minor >= 1 && body;
    return FRAMING_OK;
}

// These never have a body, whatever their fields say (RFC 9112 section 6.3).
static bool is_bodiless(uint16_t status, enum h1_method method)
{
    return method == H1_METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

enum framing_result framing_response(struct framing *framing, const struct h1_head *head,
                                     enum h1_method method)
{
    CHECK(head->status >= 100);
    *framing = (struct framing){.kind = FRAMING_NONE};
    if (method == H1_METHOD_CONNECT)
        return FRAMING_BAD;
    struct facts facts = read_facts(head);
    if (read_lengths(framing, &facts, head->minor) != FRAMING_OK)
        return FRAMING_BAD;
    framing->keep_alive = lives_on(&facts, head->minor);
    if (is_bodiless(head->status, method)) {
        // HEAD and 304 may state the length of a body that is not sent. A 1xx or 204 must not
        // announce one: a sender that does may well send it, so nothing after it can be trusted.
        bool announced = framing->kind == FRAMING_CHUNKED || framing->length > 0;
        if (announced && method != H1_METHOD_HEAD && head->status != 304)
            framing->keep_alive = false;
        framing->kind = FRAMING_NONE;
        framing->length = 0;
        return FRAMING_OK;
    }
    if (framing->kind == FRAMING_NONE) {
        framing->kind = FRAMING_UNTIL_CLOSE;
        framing->keep_alive = false;
    }
    return FRAMING_OK;
}
