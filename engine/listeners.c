// SPDX-License-Identifier: MIT
#include "engine/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"

// -------------------------------------------------------------------------------------- inherited

void inherited_add(struct inherited *inherited, int fd)
{
    if (inherited->count == INHERITED_MAX)
        close(fd);
    else
        inherited->fd[inherited->count++] = fd;
}

static bool bound_to(int fd, const struct config_address *address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } name = {0};
    socklen_t len = sizeof name;
    if (getsockname(fd, &name.any, &len) != 0 || name.any.sa_family != address->addr.any.sa_family)
        return false;
    switch (name.any.sa_family) {
    case AF_INET:
        return name.v4.sin_port == address->addr.v4.sin_port &&
               name.v4.sin_addr.s_addr == address->addr.v4.sin_addr.s_addr;
    case AF_INET6:
        return name.v6.sin6_port == address->addr.v6.sin6_port &&
               memcmp(&name.v6.sin6_addr, &address->addr.v6.sin6_addr, sizeof name.v6.sin6_addr) ==
                   0;
    case AF_UNIX:
        return strncmp(name.local.sun_path, address->addr.local.sun_path,
                       sizeof name.local.sun_path) == 0;
    default: return false;
    }
}

uint32_t inherited_take(struct inherited *inherited, const struct config_address *address, int *fd,
                        uint32_t max)
{
    uint32_t taken = 0, kept = 0;
    for (uint32_t i = 0; i < inherited->count; i++) {
        if (taken < max && bound_to(inherited->fd[i], address))
            fd[taken++] = inherited->fd[i];
        else
            inherited->fd[kept++] = inherited->fd[i];
    }
    inherited->count = kept;
    return taken;
}

uint32_t inherited_close(struct inherited *inherited)
{
    uint32_t left = inherited->count;
    for (uint32_t i = 0; i < left; i++)
        close(inherited->fd[i]);
    inherited->count = 0;
    return left;
}

// ------------------------------------------------------------------------------------------- open

// One more socket for an address, beside those that are there. One that somebody else has bound
// without SO_REUSEPORT, or as another user, is shared: then several workers accept on one queue.
static int open_more(struct io *io, const struct listening *entry, uint32_t backlog, bool inherited)
{
    int fd = io_listen(io, &entry->address.addr.any, entry->address.len, backlog);
    if (fd >= 0 || !inherited)
        return fd;
    fd = fcntl(entry->fd[0], F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int open_entry(struct io *io, struct listening *entry, const struct config *config,
                      struct inherited *inherited)
{
    int on = 1;
    bool local = entry->address.addr.any.sa_family == AF_UNIX;
    // There is no SO_REUSEPORT between sockets in the file system: the first worker serves it.
    uint32_t wanted = local ? 1 : config->workers;
    uint32_t old = inherited_take(inherited, &entry->address, entry->fd, LISTENER_FDS_MAX);
    for (uint32_t i = 0; !local && i < old; i++)
        (void)setsockopt(entry->fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    entry->fd_count = old;
    entry->state = LISTENING_NEW;
    while (entry->fd_count < wanted) {
        int fd = open_more(io, entry, config->listen_backlog, old > 0);
        if (fd < 0)
            return fd;
        entry->fd[entry->fd_count++] = fd;
    }
    return 0;
}

static struct listening *entry_of(struct listeners *listeners, const struct config_address *address)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        struct listening *entry = &listeners->entry[i];
        if (entry->state != LISTENING_NOT && strcmp(entry->address.text, address->text) == 0)
            return entry;
    }
    return NULL;
}

static struct listening *entry_free(struct listeners *listeners)
{
    int i = 0;
    while (listeners->entry[i].state != LISTENING_NOT)
        CHECK(++i < LISTENERS_MAX); // settled ones are at most half
    return &listeners->entry[i];
}

static void mark(struct listeners *listeners, const struct config *config)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        struct listening *entry = &listeners->entry[i];
        bool wanted = false;
        for (uint32_t j = 0; j < config->listener_count; j++)
            wanted = wanted || strcmp(config->listener[j].text, entry->address.text) == 0;
        if (entry->state == LISTENING && !wanted)
            entry->state = LISTENING_LEAVES;
    }
}

// As many as one worker may have to accept on.
static bool fits(const struct listeners *listeners, uint32_t workers)
{
    uint32_t most = 0;
    for (int i = 0; i < LISTENERS_MAX; i++)
        if (listeners->entry[i].state != LISTENING_NOT)
            most += (listeners->entry[i].fd_count + workers - 1) / workers;
    return most <= CORE_LISTENERS_MAX;
}

bool listeners_change(struct listeners *listeners, struct io *io, const struct config *config,
                      struct inherited *inherited, char *error, size_t error_len)
{
    int result = 0;
    const struct config_address *address = NULL;
    for (uint32_t i = 0; result == 0 && i < config->listener_count; i++) {
        address = &config->listener[i];
        if (entry_of(listeners, address))
            continue;
        struct listening *entry = entry_free(listeners);
        entry->address = *address;
        result = open_entry(io, entry, config, inherited);
    }
    if (result == 0 && !fits(listeners, config->workers))
        result = -EMFILE;
    if (result == 0) {
        mark(listeners, config);
        return true;
    }
    snprintf(error, error_len, "cannot listen on %s: %s%s", address->text, strerror(-result),
             result == -EADDRINUSE ? ": another program uses it; choose another --listen" : "");
    listeners_undo(listeners);
    return false;
}

void listeners_undo(struct listeners *listeners)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        struct listening *entry = &listeners->entry[i];
        if (entry->state == LISTENING_LEAVES)
            entry->state = LISTENING;
        if (entry->state != LISTENING_NEW)
            continue;
        for (uint32_t j = 0; j < entry->fd_count; j++)
            close(entry->fd[j]);
        entry->state = LISTENING_NOT;
    }
}

// ------------------------------------------------------------------------------------------ share

void listeners_share(const struct listeners *listeners, struct gateway_update *update,
                     uint32_t worker, uint32_t workers)
{
    update->opened_count = update->closed_count = 0;
    for (uint32_t tag = 0; tag < LISTENERS_MAX; tag++) {
        const struct listening *entry = &listeners->entry[tag];
        if (entry->state == LISTENING_LEAVES)
            update->closed[update->closed_count++] = tag;
        if (entry->state != LISTENING_NEW)
            continue;
        for (uint32_t i = worker; i < entry->fd_count; i += workers) {
            CHECK(update->opened_count < CORE_LISTENERS_MAX);
            update->opened[update->opened_count].tag = tag;
            update->opened[update->opened_count++].fd = entry->fd[i];
        }
    }
}

void listeners_settle(struct listeners *listeners)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        struct listening *entry = &listeners->entry[i];
        if (entry->state == LISTENING_LEAVES)
            entry->state = LISTENING_NOT;
        if (entry->state == LISTENING_NEW)
            entry->state = LISTENING;
    }
}

uint32_t listeners_all(const struct listeners *listeners, int *fd, uint32_t max)
{
    uint32_t count = 0;
    for (int i = 0; i < LISTENERS_MAX; i++) {
        const struct listening *entry = &listeners->entry[i];
        for (uint32_t j = 0; entry->state == LISTENING && j < entry->fd_count && count < max; j++)
            fd[count++] = entry->fd[j];
    }
    return count;
}
