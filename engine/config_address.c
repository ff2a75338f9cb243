// SPDX-License-Identifier: MIT
//
// Addresses: what a listener binds, and where a provider's name leads.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "engine/config_reader.h"

bool config_port(const char *text, uint16_t *port)
{
    uint32_t number = 0;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 5 || text[len])
        return false;
    for (size_t i = 0; i < len; i++)
        number = number * 10 + (uint32_t)(text[i] - '0');
    *port = (uint16_t)number;
    return number > 0 && number <= 65535;
}

static bool parse_local(const char *path, struct config_address *address, const char **why)
{
    size_t len = strlen(path);
    *why = "a socket path has 1 to 107 bytes and no control characters";
    if (len == 0 || len >= sizeof(address->addr.local.sun_path) || !config_text_clean(path))
        return false;
    address->addr.local.sun_family = AF_UNIX;
    memcpy(address->addr.local.sun_path, path, len + 1);
    address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    snprintf(address->text, sizeof(address->text), "unix:%s", path);
    return true;
}

static void format_v6(struct config_address *address)
{
    char text[INET6_ADDRSTRLEN];
    inet_ntop(AF_INET6, &address->addr.v6.sin6_addr, text, sizeof(text));
    snprintf(address->text, sizeof(address->text), "[%s]:%u", text,
             ntohs(address->addr.v6.sin6_port));
}

static void format_v4(struct config_address *address)
{
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address->addr.v4.sin_addr, text, sizeof(text));
    snprintf(address->text, sizeof(address->text), "%s:%u", text, ntohs(address->addr.v4.sin_port));
}

// A literal address; false if `host` is a name.
static bool numeric(const char *host, uint16_t port, struct config_address *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        address->addr.v4 =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = v4};
        address->len = sizeof(address->addr.v4);
        format_v4(address);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        address->addr.v6 = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = v6};
        address->len = sizeof(address->addr.v6);
        format_v6(address);
        return true;
    }
    return false;
}

// ":8080": one IPv6 socket takes both families; a kernel without IPv6 gets 0.0.0.0.
static void every_address(uint16_t port, struct config_address *address)
{
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe >= 0)
        close(probe);
    address->dual_stack = probe >= 0;
    CHECK(numeric(probe >= 0 ? "::" : "0.0.0.0", port, address));
    snprintf(address->text, sizeof(address->text), ":%u", port);
}

bool config_address_parse(const char *text, struct config_address *address, const char **why)
{
    char host[64];
    uint16_t port;
    memset(address, 0, sizeof(*address));
    if (strncmp(text, "unix:", 5) == 0)
        return parse_local(text + 5, address, why);

    *why = "expected ADDR:PORT, [ADDR]:PORT for IPv6, :PORT for all addresses, or unix:PATH";
    const char *colon = strrchr(text, ':');
    if (!colon || strchr(text, '/'))
        return false;
    bool bracketed = text[0] == '[' && colon > text && colon[-1] == ']';
    const char *from = bracketed ? text + 1 : text;
    size_t len = (size_t)(colon - from) - bracketed;
    if (!bracketed && memchr(from, ':', len)) {
        *why = "an IPv6 address goes in brackets, with a port, as in [::1]:8080";
        return false;
    }
    if (len >= sizeof(host))
        return false;
    memcpy(host, from, len);
    host[len] = 0;
    if (!config_port(colon + 1, &port)) {
        *why = "the port must be 1 to 65535";
        return false;
    }
    if (!bracketed && (len == 0 || strcmp(host, "*") == 0)) {
        every_address(port, address);
        return true;
    }
    if (!bracketed && strcmp(host, "localhost") == 0)
        return numeric("127.0.0.1", port, address);
    *why = "expected a numeric address, as in 127.0.0.1:8080 or [::1]:8080";
    return numeric(host, port, address) && bracketed == (address->addr.any.sa_family == AF_INET6);
}

bool config_address_loopback(const struct config_address *address)
{
    const struct in6_addr *v6 = &address->addr.v6.sin6_addr;
    switch (address->addr.any.sa_family) {
    case AF_UNIX: return true;
    case AF_INET: return ntohl(address->addr.v4.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
    default: return false;
    }
}

bool config_read_listen(struct config_reader *reader, const struct config_option *option,
                        const char *value)
{
    struct config *config = reader->config;
    const char *why;
    if (reader->origin[config_option_index(option)].source != reader->place.source)
        config->listener_count = 0;
    if (config->listener_count == CONFIG_LISTENERS_MAX)
        return config_fail(reader, "more than %d addresses", CONFIG_LISTENERS_MAX);
    struct config_address *address = &config->listener[config->listener_count];
    if (!config_address_parse(value, address, &why))
        return config_fail(reader, "\"%.120s\": %s", value, why);
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (strcmp(config->listener[i].text, address->text) == 0)
            return config_fail(reader, "%s is given twice", address->text);
    config->listener_count++;
    return true;
}

bool config_read_admin(struct config_reader *reader, const struct config_option *option,
                       const char *value)
{
    const char *why;
    if (!config_address_parse(value, &reader->config->admin, &why))
        return config_fail(reader, "\"%.120s\": %s", value, why);
    return true;
}

static int look_up(const char *host, uint16_t port, struct addrinfo **found)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    int status = getaddrinfo(host, service, &hints, found);
    if (status == 0 || status == EAI_AGAIN)
        return status;
    // AI_ADDRCONFIG does not count loopback: a machine without a network asks once more without it.
    hints.ai_flags = 0;
    return getaddrinfo(host, service, &hints, found);
}

static void add_address(struct config_provider *provider, const struct addrinfo *found)
{
    struct config_address *address = &provider->address[provider->address_count];
    if (found->ai_family == AF_INET) {
        memcpy(&address->addr.v4, found->ai_addr, sizeof(address->addr.v4));
        address->len = sizeof(address->addr.v4);
        format_v4(address);
    } else if (found->ai_family == AF_INET6) {
        memcpy(&address->addr.v6, found->ai_addr, sizeof(address->addr.v6));
        address->len = sizeof(address->addr.v6);
        format_v6(address);
    } else {
        return;
    }
    provider->address_count++;
}

bool config_resolve(struct config_reader *reader, struct config_provider *provider)
{
    struct addrinfo *found = NULL;
    const char *why;
    if (provider->port == 0) {
        char text[sizeof(provider->host) + 8];
        snprintf(text, sizeof(text), "unix:%s", provider->host);
        CHECK(config_address_parse(text, &provider->address[0], &why)); // checked with the URL
        provider->address_count = 1;
        return true;
    }
    if (numeric(provider->host, provider->port, &provider->address[0])) {
        provider->address_count = 1;
        return true;
    }
    if (reader->no_network)
        return true;
    int status = look_up(provider->host, provider->port, &found);
    if (status)
        return config_fail(reader,
                           "provider %s: cannot resolve %s: %s; mend DNS, or give an address",
                           provider->name, provider->host, gai_strerror(status));
    for (struct addrinfo *each = found; each; each = each->ai_next)
        if (provider->address_count < CONFIG_ADDRESSES_MAX)
            add_address(provider, each);
    freeaddrinfo(found);
    if (provider->address_count == 0)
        return config_fail(reader, "provider %s: %s has no IP address", provider->name,
                           provider->host);
    return true;
}
