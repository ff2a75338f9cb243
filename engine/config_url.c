// SPDX-License-Identifier: MIT
//
// Where a provider lives: http://host[:port][/path], https://host[:port][/path], unix:PATH[:/path].
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

static bool read_host(struct config_reader *reader, struct config_provider *provider,
                      const char *text, size_t len)
{
    if (len == 0 || len >= sizeof(provider->host))
        return config_fail(reader, "expected a host of 1 to %zu characters in the URL",
                           sizeof(provider->host) - 1);
    const char *allowed =
        memchr(text, ':', len) ? "0123456789abcdef:." : "0123456789abcdefghijklmnopqrstuvwxyz-._";
    for (size_t i = 0; i < len; i++) {
        char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 0x20) : text[i];
        if (!strchr(allowed, c))
            return config_fail(reader, "bad host \"%.*s\" in the URL", (int)(len < 60 ? len : 60),
                               text);
        provider->host[i] = c;
    }
    provider->host[len] = 0;
    return true;
}

static bool read_path(struct config_reader *reader, struct config_provider *provider,
                      const char *path)
{
    size_t len = strlen(path);
    if (strpbrk(path, "?#"))
        return config_fail(reader, "no ? and no # in the URL; a path is all it may end with");
    while (len && path[len - 1] == '/')
        len--;
    if (len >= sizeof(provider->base_path))
        return config_fail(reader, "the path of the URL is longer than %zu bytes",
                           sizeof(provider->base_path) - 1);
    memcpy(provider->base_path, path, len);
    provider->base_path[len] = 0;
    return true;
}

static bool read_local(struct config_reader *reader, struct config_provider *provider,
                       const char *path)
{
    const char *base = strstr(path, ":/");
    size_t len = base ? (size_t)(base - path) : strlen(path);
    if (len == 0 || len > 107)
        return config_fail(reader, "a socket path has 1 to 107 bytes");
    memcpy(provider->host, path, len);
    provider->host[len] = 0;
    memcpy(provider->authority, "localhost", sizeof("localhost"));
    return read_path(reader, provider, base ? base + 1 : "");
}

static bool read_authority(struct config_reader *reader, struct config_provider *provider,
                           const char *text, size_t len)
{
    const char *host = text, *end = text + len, *port = NULL;
    size_t host_len = len;
    if (memchr(text, '@', len))
        return config_fail(reader, "no user or password in a URL; use api_key or --provider-key");
    if (*text == '[' && memchr(text, ']', len)) {
        const char *bracket = memchr(text, ']', len);
        host = text + 1;
        host_len = (size_t)(bracket - host);
        port = bracket + 1;
        if (host_len == 0 || !memchr(host, ':', host_len) || (port < end && *port != ':'))
            return config_fail(reader, "bad address \"%.*s\" in the URL",
                               (int)(len < 60 ? len : 60), text);
    } else if ((port = memchr(text, ':', len))) {
        host_len = (size_t)(port - text);
    }
    if (!read_host(reader, provider, host, host_len))
        return false;
    uint16_t standard = provider->tls ? 443 : 80;
    provider->port = standard;
    if (port && port < end) {
        char digits[8] = "";
        size_t digits_len = (size_t)(end - port - 1);
        if (digits_len < sizeof(digits))
            memcpy(digits, port + 1, digits_len);
        if (!config_port(digits, &provider->port))
            return config_fail(reader, "the port in the URL must be 1 to 65535");
    }
    struct in6_addr unused;
    bool v6 = strchr(provider->host, ':') != NULL;
    if (v6 && inet_pton(AF_INET6, provider->host, &unused) != 1)
        return config_fail(reader, "bad address \"[%.60s]\" in the URL", provider->host);
    int written = provider->port == standard
                      ? snprintf(provider->authority, sizeof(provider->authority), "%s%s%s",
                                 v6 ? "[" : "", provider->host, v6 ? "]" : "")
                      : snprintf(provider->authority, sizeof(provider->authority), "%s%s%s:%u",
                                 v6 ? "[" : "", provider->host, v6 ? "]" : "", provider->port);
    CHECK(written > 0 && (size_t)written < sizeof(provider->authority));
    return true;
}

bool config_provider_url(struct config_reader *reader, struct config_provider *provider,
                         const char *url)
{
    if (!config_text_visible(url))
        return config_fail(reader, "blanks, control characters or bytes beyond ASCII in the URL");
    if (strncmp(url, "unix:", 5) == 0)
        return read_local(reader, provider, url + 5);
    provider->tls = strncmp(url, "https://", 8) == 0;
    if (!provider->tls && strncmp(url, "http://", 7) != 0)
        return config_fail(reader, "expected http://HOST, https://HOST or unix:PATH as the URL");
    const char *authority = url + (provider->tls ? 8 : 7);
    size_t len = strcspn(authority, "/?#");
    return read_authority(reader, provider, authority, len) &&
           read_path(reader, provider, authority + len);
}
