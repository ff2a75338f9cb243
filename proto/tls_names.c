// SPDX-License-Identifier: MIT
#include "proto/tls_names.h"

#include <arpa/inet.h>

// ---- reading ------------------------------------------------------------------------------------

static uint8_t take_u8(struct span *from, bool *good)
{
    if (from->len < 1) {
        *good = false;
        return 0;
    }
    uint8_t value = from->ptr[0];
    *from = span_of(from->ptr + 1, from->len - 1);
    return value;
}

static size_t take_u16(struct span *from, bool *good)
{
    size_t high = take_u8(from, good);
    return high << 8 | take_u8(from, good);
}

static struct span take(struct span *from, size_t len, bool *good)
{
    if (from->len < len) {
        *good = false;
        len = from->len;
    }
    struct span taken = span_of(from->ptr, len);
    if (len)
        *from = span_of(from->ptr + len, from->len - len);
    return taken;
}

// ---- DER ----------------------------------------------------------------------------------------

enum der_tag {
    DER_BOOLEAN = 0x01,
    DER_INTEGER = 0x02,
    DER_OCTETS = 0x04,
    DER_OID = 0x06,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_VERSION = 0xa0,
    DER_EXTENSIONS = 0xa3,
    DER_NAME_HOST = 0x82,   // in a subjectAltName
    DER_NAME_ADDRESS = 0x87 // likewise
};

enum { ATTRIBUTES_MAX = 64, EXTENSIONS_MAX = 64 };

// One element: its tag and body. Lengths up to four bytes, definite only.
static bool der_next(struct span *from, uint8_t *tag, struct span *body)
{
    bool good = true;
    *tag = take_u8(from, &good);
    size_t len = take_u8(from, &good);
    if (len & 0x80) {
        size_t bytes = len & 0x7f;
        if (bytes == 0 || bytes > 4)
            return false;
        for (len = 0; bytes; bytes--)
            len = len << 8 | take_u8(from, &good);
    }
    *body = take(from, len, &good);
    return good;
}

static bool der_expect(struct span *from, uint8_t wanted, struct span *body)
{
    uint8_t tag;
    return der_next(from, &tag, body) && tag == wanted;
}

// The last attribute of that kind (the OID 2.5.4.kind) in a distinguished name.
static struct span attribute_find(struct span name, uint8_t kind)
{
    struct span found = {0};
    for (int i = 0; i < ATTRIBUTES_MAX && name.len; i++) {
        struct span set, pair, oid, value;
        uint8_t tag;
        if (!der_expect(&name, DER_SET, &set) || !der_expect(&set, DER_SEQUENCE, &pair) ||
            !der_expect(&pair, DER_OID, &oid) || !der_next(&pair, &tag, &value))
            break;
        if (oid.len == 3 && oid.ptr[0] == 0x55 && oid.ptr[1] == 0x04 && oid.ptr[2] == kind)
            found = value;
    }
    return found;
}

// Looks for the subjectAltName (2.5.29.17) among the extensions.
static struct span names_find(struct span extensions)
{
    static const uint8_t alternative_name[] = {0x55, 0x1d, 0x11};
    struct span list, none = {0};
    if (!der_expect(&extensions, DER_SEQUENCE, &list))
        return none;
    for (int i = 0; i < EXTENSIONS_MAX && list.len; i++) {
        struct span extension, oid, value, names;
        uint8_t tag;
        if (!der_expect(&list, DER_SEQUENCE, &extension) ||
            !der_expect(&extension, DER_OID, &oid) || !der_next(&extension, &tag, &value))
            return none;
        if (tag == DER_BOOLEAN && !der_next(&extension, &tag, &value))
            return none;
        if (tag == DER_OCTETS && span_equal(oid, span_of(alternative_name, 3)))
            return der_expect(&value, DER_SEQUENCE, &names) ? names : none;
    }
    return none;
}

// ---- certificates -------------------------------------------------------------------------------

enum { ATTRIBUTE_COMMON_NAME = 3, ATTRIBUTE_ORGANISATION = 10 };

bool certificate_open(struct certificate *certificate, struct span der)
{
    *certificate = (struct certificate){0};
    struct span outer, inner, skipped, validity;
    uint8_t tag;
    if (!der_expect(&der, DER_SEQUENCE, &outer) || !der_expect(&outer, DER_SEQUENCE, &inner))
        return false;
    if (!der_next(&inner, &tag, &skipped))
        return false;
    if (tag == DER_VERSION && !der_next(&inner, &tag, &skipped))
        return false;
    if (tag != DER_INTEGER || !der_expect(&inner, DER_SEQUENCE, &skipped) ||
        !der_expect(&inner, DER_SEQUENCE, &certificate->issuer) ||
        !der_expect(&inner, DER_SEQUENCE, &validity) ||
        !der_expect(&inner, DER_SEQUENCE, &certificate->subject) ||
        !der_expect(&inner, DER_SEQUENCE, &certificate->key))
        return false;
    if (!der_next(&validity, &tag, &certificate->not_before) ||
        !der_next(&validity, &tag, &certificate->not_after))
        return false;
    certificate->common_name = attribute_find(certificate->subject, ATTRIBUTE_COMMON_NAME);
    certificate->issuer_name = attribute_find(certificate->issuer, ATTRIBUTE_COMMON_NAME);
    if (certificate->issuer_name.len == 0)
        certificate->issuer_name = attribute_find(certificate->issuer, ATTRIBUTE_ORGANISATION);
    while (inner.len && der_next(&inner, &tag, &skipped))
        if (tag == DER_EXTENSIONS)
            certificate->names = names_find(skipped);
    return true;
}

bool certificate_next_name(struct span *names, enum name_kind *kind, struct span *name)
{
    uint8_t tag;
    if (names->len == 0 || !der_next(names, &tag, name))
        return false;
    *kind = NAME_OTHER;
    if (tag == DER_NAME_HOST)
        *kind = NAME_HOST;
    if (tag == DER_NAME_ADDRESS)
        *kind = NAME_ADDRESS;
    return true;
}

static struct span without_final_dot(struct span name)
{
    if (name.len && name.ptr[name.len - 1] == '.')
        name.len--;
    return name;
}

bool name_fits(struct span pattern, struct span host)
{
    host = without_final_dot(host);
    pattern = without_final_dot(pattern);
    if (pattern.len < 2 || pattern.ptr[0] != '*' || pattern.ptr[1] != '.')
        return pattern.len > 0 && !memchr(pattern.ptr, '*', pattern.len) &&
               span_equal_nocase(pattern, host);
    struct span parent = span_of(pattern.ptr + 1, pattern.len - 1); // ".example.com"
    if (memchr(parent.ptr, '*', parent.len) || !memchr(parent.ptr + 1, '.', parent.len - 1))
        return false;
    const uint8_t *dot = host.len ? memchr(host.ptr, '.', host.len) : NULL;
    if (!dot || dot == host.ptr)
        return false;
    return span_equal_nocase(parent, span_of(dot, host.len - (size_t)(dot - host.ptr)));
}

size_t name_address(const char *host, uint8_t address[16])
{
    if (inet_pton(AF_INET, host, address) == 1)
        return 4;
    if (inet_pton(AF_INET6, host, address) == 1)
        return 16;
    return 0;
}

bool certificate_is_for(const struct certificate *certificate, const char *host)
{
    uint8_t address[16];
    struct span wanted = span_of(host, strlen(host));
    struct span wanted_address = span_of(address, name_address(host, address));
    struct span names = certificate->names, name;
    enum name_kind kind;
    while (certificate_next_name(&names, &kind, &name)) {
        if (kind == NAME_ADDRESS && wanted_address.len && span_equal(name, wanted_address))
            return true;
        if (kind == NAME_HOST && !wanted_address.len && name_fits(name, wanted))
            return true;
    }
    if (certificate->names.len || wanted_address.len)
        return false;
    return name_fits(certificate->common_name, wanted);
}

// ---- ClientHello --------------------------------------------------------------------------------

enum {
    RECORD_HANDSHAKE = 22,
    RECORD_HEADER = 5,
    HANDSHAKE_CLIENT_HELLO = 1,
    HELLO_RANDOM = 32,
    EXTENSION_SERVER_NAME = 0,
    SERVER_NAME_HOST = 0,
    HELLO_EXTENSIONS_MAX = 256
};

// The host name in a server_name extension; empty when there is none.
static struct span name_in_extension(struct span body)
{
    bool good = true;
    struct span list = take(&body, take_u16(&body, &good), &good);
    uint8_t kind = take_u8(&list, &good);
    struct span name = take(&list, take_u16(&list, &good), &good);
    if (!good || kind != SERVER_NAME_HOST)
        name.len = 0;
    return name;
}

// The handshake message, from its type on. It may go on in a second record: then what lies here is
// looked at, which is all of it for any client but a test.
static enum hello_result hello_read(struct span message, struct span *name)
{
    bool good = true;
    if (take_u8(&message, &good) != HANDSHAKE_CLIENT_HELLO)
        return HELLO_BAD;
    take(&message, 3 + 2 + HELLO_RANDOM, &good);      // length, version, random
    take(&message, take_u8(&message, &good), &good);  // session id
    take(&message, take_u16(&message, &good), &good); // cipher suites
    take(&message, take_u8(&message, &good), &good);  // compression methods
    if (!good)
        return HELLO_BAD;
    if (message.len == 0)
        return HELLO_OK;
    take_u16(&message, &good); // length of all extensions
    for (int i = 0; i < HELLO_EXTENSIONS_MAX && message.len; i++) {
        size_t kind = take_u16(&message, &good);
        struct span body = take(&message, take_u16(&message, &good), &good);
        if (!good)
            return HELLO_BAD;
        if (kind == EXTENSION_SERVER_NAME) {
            *name = name_in_extension(body);
            return HELLO_OK;
        }
    }
    return HELLO_OK;
}

enum hello_result hello_server_name(struct span bytes, struct span *name)
{
    *name = (struct span){0};
    if (bytes.len && bytes.ptr[0] != RECORD_HANDSHAKE)
        return HELLO_BAD;
    if (bytes.len < RECORD_HEADER)
        return HELLO_MORE;
    bool good = true;
    take(&bytes, 3, &good); // type, version
    size_t len = take_u16(&bytes, &good);
    if (len > 16384)
        return HELLO_BAD;
    if (bytes.len < len)
        return HELLO_MORE;
    return hello_read(take(&bytes, len, &good), name);
}
