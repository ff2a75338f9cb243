// SPDX-License-Identifier: MIT
//
// route: which provider answers this request, under which path, and with which model name.
//
// Two steps, both without allocation: route_head() looks at method, path and headers as soon as the
// head is there; route_model() decides when the body's "model" is known. The order of rules is the
// manual:
//
//   1. /NAME/...                           that provider, path behind it      why: path
//   2. x-tokenring-provider: NAME          that provider                      why: header
//   3. model listed under `models:`        its target (by weight)             why: model
//   4. model "NAME/rest"                   provider NAME, model "rest"        why: name
//   5. default_provider, or the only one                                      why: default
//   6. otherwise 404 model_not_found
//
// Upstream path: base_path + path without its leading "/v1" when the provider's URL has a path,
// else the path as it came.
#ifndef ENGINE_ROUTE_H
#define ENGINE_ROUTE_H

#include "engine/config.h"
#include "proto/h1.h"
#include "proto/reply.h"

enum route_kind { ROUTE_FORWARD, ROUTE_HEALTH, ROUTE_MODELS, ROUTE_MODEL, ROUTE_REFUSE };

struct route {
    enum route_kind kind;
    enum dialect dialect;
    bool peek;        // the body must tell the model before we know where to send it
    int provider;     // index, or -1: not known yet
    struct span path; // origin-form path and query, behind a provider prefix if there was one
    struct span id;   // ROUTE_MODEL: which model
    const char *why;
    enum reply_error error; // ROUTE_REFUSE
    const char *allow;      // METHOD_NOT_ALLOWED
};

struct route_choice {
    int provider;
    const char *model; // what to call it upstream; NULL: leave the client's bytes
    size_t model_len;
    const char *why;
};

void route_head(struct route *route, const struct config *config, const struct h1_head *head);

// False: nobody serves that model. `random` picks among weighted targets.
bool route_model(struct route_choice *choice, const struct config *config,
                 const struct route *route, const char *model, size_t len, uint64_t random);

// Does this provider speak the request's dialect?
bool route_speaks(const struct config_provider *provider, enum dialect dialect);

enum { ROUTE_PATH_EXTRA = 512 }; // how much longer than the client's an upstream path can be

// The request target for the provider, without credentials in the query. Returns its length.
size_t route_target(uint8_t *out, const struct config_provider *provider,
                    const struct route *route);

#endif
