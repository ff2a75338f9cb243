// SPDX-License-Identifier: MIT
#include "engine/notify.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/listeners.h"

enum { FIRST_SOCKET = 3, MESSAGE_MAX = 256 };

// A number in the environment, or 0.
static uint64_t number_of(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    unsigned long long number = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    return end && *end == 0 ? number : 0;
}

static bool meant_for_us(const char *name)
{
    return !getenv(name) || number_of(name) == (uint64_t)getpid();
}

static bool manager_address(struct notify *notify)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof notify->manager.sun_path || (*path != '/' && *path != '@'))
        return false;
    notify->manager.sun_family = AF_UNIX;
    memcpy(notify->manager.sun_path, path, len);
    if (*path == '@') // a name without a file
        notify->manager.sun_path[0] = 0;
    notify->manager_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return true;
}

void notify_open(struct notify *notify)
{
    *notify = (struct notify){.fd = -1};
    if (!manager_address(notify))
        return;
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->fd >= 0 && meant_for_us("WATCHDOG_PID"))
        notify->watchdog_ms = number_of("WATCHDOG_USEC") / 2000;
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}

void notify_send(const struct notify *notify, const char *format, ...)
{
    if (notify->fd < 0)
        return;
    char text[MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len > 0 && (size_t)len < sizeof text)
        (void)sendto(notify->fd, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&notify->manager, notify->manager_len);
}

void notify_sockets(struct inherited *inherited)
{
    uint64_t count = number_of("LISTEN_PID") == (uint64_t)getpid() ? number_of("LISTEN_FDS") : 0;
    for (uint64_t i = 0; i < count && i < INHERITED_MAX; i++) {
        int fd = FIRST_SOCKET + (int)i;
        int listens = 0;
        socklen_t len = sizeof listens;
        // Whatever else the manager keeps there is not ours.
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens)
            continue;
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        inherited_add(inherited, fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}
