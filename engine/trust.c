// SPDX-License-Identifier: MIT
#include "engine/trust.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"

enum { FILE_MAX = 16 * 1024 * 1024, FILES_MAX = TLS_IDENTITIES_MAX };

// A file's bytes from the heap. Empty ptr: `error` says why.
static struct span read_file(const char *path, char *error, size_t error_len)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(error, error_len, "cannot read %s: %s", path, strerror(errno));
        return (struct span){0};
    }
    uint8_t *bytes = NULL;
    size_t len = 0, room = 0, got = 1;
    while (got > 0 && len < FILE_MAX) {
        if (len == room) {
            room = room ? room * 2 : 16384;
            bytes = heap_resize(bytes, room);
        }
        got = fread(bytes + len, 1, room - len, file);
        len += got;
    }
    fclose(file);
    if (len == 0) {
        snprintf(error, error_len, "%s is empty", path);
        heap_free(bytes);
        bytes = NULL;
    }
    return span_of(bytes, len);
}

// ---------------------------------------------------------------------------------------- clients

// One name of a comma-separated list, copied; NULL at its end.
static char *list_item(const char **list)
{
    if (!**list)
        return NULL;
    size_t len = strcspn(*list, ",");
    char *item = heap_format("%.*s", (int)len, *list);
    *list += len + ((*list)[len] == ',');
    return item;
}

struct identities {
    struct tls_identity item[FILES_MAX];
    char *origin[FILES_MAX];
    size_t count;
};

static bool identity_add(struct identities *all, char *certificates, char *key, char *error,
                         size_t error_len)
{
    struct tls_identity *identity = &all->item[all->count];
    identity->certificates = read_file(certificates, error, error_len);
    if (identity->certificates.ptr)
        identity->key = read_file(key, error, error_len);
    identity->origin = all->origin[all->count] = certificates;
    all->count++;
    heap_free(key);
    return identity->key.ptr != NULL;
}

static void identities_free(struct identities *all)
{
    for (size_t i = 0; i < all->count; i++) {
        heap_free((void *)all->item[i].certificates.ptr);
        heap_free((void *)all->item[i].key.ptr);
        heap_free(all->origin[i]);
    }
}

static bool identities_read(struct identities *all, const char *certificates, const char *keys,
                            char *error, size_t error_len)
{
    bool ok = true;
    while (ok && *certificates && *keys && all->count < FILES_MAX)
        ok = identity_add(all, list_item(&certificates), list_item(&keys), error, error_len);
    if (ok && (*certificates || *keys)) {
        snprintf(error, error_len, "--tls-cert and --tls-key must name equally many files");
        ok = false;
    }
    return ok;
}

static struct tls_context *clients_open(const struct config *config, struct tls_ticket_keys *keys,
                                        char *error, size_t error_len)
{
    struct identities all = {.count = 0};
    struct span authorities = {0};
    struct tls_context *context = NULL;
    bool ok = identities_read(&all, config->tls_cert, config->tls_key, error, error_len);
    if (ok && config->tls_client_ca) {
        authorities = read_file(config->tls_client_ca, error, error_len);
        ok = authorities.ptr != NULL;
    }
    if (ok) {
        struct tls_settings settings = {.side = TLS_SERVER,
                                        .authorities = authorities,
                                        .authorities_origin = config->tls_client_ca,
                                        .identities = all.item,
                                        .identity_count = all.count,
                                        .alpn = "http/1.1",
                                        .ticket_keys = keys};
        context = tls_context_new(&settings, error, error_len);
    }
    identities_free(&all);
    heap_free((void *)authorities.ptr);
    return context;
}

// -------------------------------------------------------------------------------------- providers

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

// An earlier provider with the same rules, or -1.
static int rules_known(const struct config *config, uint32_t which)
{
    const struct config_provider *provider = &config->provider[which];
    for (uint32_t i = 0; i < which; i++) {
        const struct config_provider *other = &config->provider[i];
        if (other->tls && same_text(other->ca_file, provider->ca_file) &&
            same_text(other->client_cert, provider->client_cert) &&
            same_text(other->client_key, provider->client_key))
            return (int)i;
    }
    return -1;
}

static struct tls_context *provider_open(const struct config_provider *provider, char *error,
                                         size_t error_len)
{
    const char *bundle = provider->ca_file ? provider->ca_file : TRUST_BUNDLE;
    struct span authorities = read_file(bundle, error, error_len);
    if (!authorities.ptr)
        return NULL;
    struct identities own = {.count = 0};
    struct tls_context *context = NULL;
    if (!provider->client_cert ||
        identities_read(&own, provider->client_cert, provider->client_key, error, error_len)) {
        struct tls_settings settings = {.side = TLS_CLIENT,
                                        .authorities = authorities,
                                        .authorities_origin = bundle,
                                        .identities = own.item,
                                        .identity_count = own.count,
                                        .alpn = "http/1.1"};
        context = tls_context_new(&settings, error, error_len);
    }
    identities_free(&own);
    heap_free((void *)authorities.ptr);
    return context;
}

// ------------------------------------------------------------------------------------- open, close

static bool providers_open(struct trust *trust, const struct config *config, char *error,
                           size_t error_len)
{
    for (uint32_t i = 0; i < config->provider_count; i++) {
        const struct config_provider *provider = &config->provider[i];
        if (!provider->tls)
            continue;
        int known = rules_known(config, i);
        trust->provider[i] =
            known >= 0 ? trust->provider[known] : provider_open(provider, error, error_len);
        if (!trust->provider[i])
            return false;
    }
    return true;
}

struct trust *trust_open(const struct config *config, struct tls_ticket_keys *keys, char *error,
                         size_t error_len)
{
    struct trust *trust = heap_alloc(sizeof *trust);
    bool ok = providers_open(trust, config, error, error_len);
    if (ok && config->tls_cert) {
        trust->clients = clients_open(config, keys, error, error_len);
        ok = trust->clients != NULL;
    }
    if (ok)
        return trust;
    trust_close(trust);
    return NULL;
}

void trust_close(struct trust *trust)
{
    if (!trust)
        return;
    for (uint32_t i = 0; i < CONFIG_PROVIDERS_MAX; i++) {
        struct tls_context *context = trust->provider[i];
        if (!context)
            continue;
        for (uint32_t j = i; j < CONFIG_PROVIDERS_MAX; j++)
            if (trust->provider[j] == context)
                trust->provider[j] = NULL;
        tls_context_free(context);
    }
    if (trust->clients)
        tls_context_free(trust->clients);
    heap_free(trust);
}
