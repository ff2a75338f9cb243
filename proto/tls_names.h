// SPDX-License-Identifier: MIT
//
// tls_names: whom a certificate is for, and whom a ClientHello asks for.
//
// Two small readers of bytes that a peer chose: they copy nothing, keep nothing, read nothing past
// the end, and answer "nothing" to what they do not understand. wolfSSL judges certificates; these
// tell what a message and a choice of certificate need, and check the name once more and strictly.
#ifndef PROTO_TLS_NAMES_H
#define PROTO_TLS_NAMES_H

#include "proto/span.h"

// A certificate in DER, as far as we look into it.
struct certificate {
    struct span issuer, subject;       // distinguished names, DER
    struct span issuer_name;           // the issuer's common name, else its organisation; or empty
    struct span common_name;           // the subject's; may be empty
    struct span not_before, not_after; // "YYMMDDHHMMSSZ" or "YYYYMMDDHHMMSSZ"
    struct span names;                 // its subjectAltName, to be walked; empty: it has none
    struct span key; // its public key (SubjectPublicKeyInfo without the outer header)
};

enum name_kind { NAME_OTHER, NAME_HOST, NAME_ADDRESS };

// False: not a certificate.
bool certificate_open(struct certificate *certificate, struct span der);

// The next alternative name: a host (ASCII, maybe "*.example.com") or an address (4 or 16 bytes).
// False: that was the last. Start with a copy of certificate.names.
bool certificate_next_name(struct span *names, enum name_kind *kind, struct span *name);

// Is it for `host`, a host name or an IP address as text? A wildcard stands for one whole label,
// the leftmost, with two more behind it. Addresses match addresses only. The common name counts
// only when there is no alternative name at all.
bool certificate_is_for(const struct certificate *certificate, const char *host);

// Does `pattern` from a certificate fit this host name?
bool name_fits(struct span pattern, struct span host);

// Is it an IP address as text? Writes 4 or 16 bytes and says how many; 0: it is not.
size_t name_address(const char *host, uint8_t address[16]);

enum hello_result {
    HELLO_OK = 0,   // *name is set; empty: no name is asked for
    HELLO_MORE = 1, // the first record is not complete
    HELLO_BAD = -1  // not a ClientHello, or one we do not understand: let wolfSSL answer it
};

// The name that the ClientHello at the start of a connection asks for (SNI); points into the bytes.
enum hello_result hello_server_name(struct span bytes, struct span *name);

#endif
