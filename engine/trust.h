// SPDX-License-Identifier: MIT
//
// trust: the TLS contexts that a config asks for, made once and shared read-only by all workers.
//
//   providers   one context for each set of rules (authorities, own certificate); providers with
//   the
//               same rules share it. Verification cannot be switched off.
//   clients     one context with every certificate of --tls-cert, picked by SNI
//
// Ticket keys outlive configs: a reload must not make every client shake hands anew. They are made
// and rotated by control.
#ifndef ENGINE_TRUST_H
#define ENGINE_TRUST_H

#include "engine/config.h"
#include "proto/tls.h"

#define TRUST_BUNDLE "/etc/ssl/certs/ca-certificates.crt" // when a provider names no ca_file

struct trust {
    struct tls_context *clients;                        // NULL: plaintext
    struct tls_context *provider[CONFIG_PROVIDERS_MAX]; // NULL: plaintext
};

// NULL: `error` names the file and what is wrong with it. Memory is from alloc/heap.
struct trust *trust_open(const struct config *config, struct tls_ticket_keys *keys, char *error,
                         size_t error_len);
void trust_close(struct trust *trust);

#endif
