// SPDX-License-Identifier: MIT
#include "engine/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/listeners.h"

enum {
    FDS_PER_MESSAGE = 64,
    PATIENCE_S = 20, // for a message of the other side
    PATH_BYTES = 4096,
};

#define VARIABLE "TOKENRING_HANDOVER_FD"

// A message is one byte: what it is.
enum { MESSAGE_FDS = 'f', MESSAGE_END = 'e', MESSAGE_END_FILTERED = 'E' };

union control_space {
    char bytes[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    struct cmsghdr align;
};

// -------------------------------------------------------------------------------------- the
// program

char *handover_program(const char *argv0)
{
    char path[PATH_BYTES];
    if (strchr(argv0, '/')) {
        if (*argv0 == '/')
            return heap_copy(argv0);
        if (getcwd(path, sizeof path))
            return heap_format("%s/%s", path, argv0);
    }
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    if (len <= 0)
        return heap_copy(argv0);
    path[len] = 0;
    return heap_copy(path);
}

static bool named(const char *variable, const char *name)
{
    size_t len = strlen(name);
    return strncmp(variable, name, len) == 0 && variable[len] == '=';
}

// Ours, without what was meant for this very process.
static char **environment(int fd)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **all = heap_alloc((count + 2) * sizeof *all);
    for (size_t i = 0; i < count; i++)
        if (!named(environ[i], "WATCHDOG_PID") && !named(environ[i], VARIABLE))
            all[kept++] = environ[i];
    all[kept++] = heap_format(VARIABLE "=%d", fd);
    all[kept] = NULL;
    return all;
}

static void environment_free(char **all)
{
    char **last = all;
    while (last[1])
        last++;
    heap_free(*last);
    heap_free(all);
}

// The workers' threads are not copied, nor the signals that we catch or ignore.
static int spawn(const char *program, char *const *argv, int fd, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawnattr_init(&attributes) == 0);
    sigemptyset(&none);
    sigemptyset(&all);
    const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR2};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaddset(&all, caught[i]);
    CHECK(posix_spawnattr_setsigmask(&attributes, &none) == 0);
    CHECK(posix_spawnattr_setsigdefault(&attributes, &all) == 0);
    CHECK(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) ==
          0);
    // Onto itself: that keeps it open across exec, in the child only.
    CHECK(posix_spawn_file_actions_adddup2(&actions, fd, fd) == 0);
    char **variables = environment(fd);
    int result = posix_spawn(pid, program, &actions, &attributes, argv, variables);
    environment_free(variables);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

// ------------------------------------------------------------------------------------- the old one

static bool send_message(int to, char what, const int *fd, uint32_t count)
{
    union control_space space;
    struct iovec bytes = {&what, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (count > 0) {
        memset(&space, 0, sizeof space);
        message.msg_control = space.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fd);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof *fd);
        memcpy(CMSG_DATA(header), fd, count * sizeof *fd);
    }
    return sendmsg(to, &message, MSG_NOSIGNAL) == 1;
}

static bool send_all(int to, const int *fd, uint32_t count, bool filtered)
{
    for (uint32_t at = 0; at < count; at += FDS_PER_MESSAGE) {
        uint32_t some = count - at < FDS_PER_MESSAGE ? count - at : FDS_PER_MESSAGE;
        if (!send_message(to, MESSAGE_FDS, fd + at, some))
            return false;
    }
    return send_message(to, filtered ? MESSAGE_END_FILTERED : MESSAGE_END, NULL, 0);
}

int handover_start(const char *program, char *const *argv, const int *fd, uint32_t count,
                   bool filtered, pid_t *pid, char *error, size_t error_len)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        snprintf(error, error_len, "no socket pair: %s", strerror(errno));
        return -1;
    }
    struct timeval patience = {.tv_sec = PATIENCE_S};
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int result = spawn(program, argv, pair[1], pid);
    close(pair[1]);
    if (result != 0) {
        snprintf(error, error_len, "cannot start %s: %s", program, strerror(result));
        close(pair[0]);
        return -1;
    }
    // One that died already has said why; the caller hears of it by the end of the pair.
    (void)send_all(pair[0], fd, count, filtered);
    // The ring will close it, which ThreadSanitizer does not see: it would take the next owner of
    // the number for a second user of this socket.
    int ours = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    close(pair[0]);
    if (ours < 0)
        snprintf(error, error_len, "no descriptor: %s", strerror(errno));
    return ours < 0 ? -1 : ours;
}

void handover_ended(pid_t pid, char *text, size_t len)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    if (got == pid && WIFEXITED(status))
        snprintf(text, len, "status %d", WEXITSTATUS(status));
    else if (got == pid && WIFSIGNALED(status))
        snprintf(text, len, "signal %d", WTERMSIG(status));
    else
        snprintf(text, len, "an unknown status");
}

// ------------------------------------------------------------------------------------- the new one

int handover_fd(void)
{
    const char *text = getenv(VARIABLE);
    int fd = -1;
    if (text && *text >= '0' && *text <= '9' && strlen(text) < 8)
        fd = (int)strtol(text, NULL, 10);
    unsetenv(VARIABLE);
    if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return -1;
    return fd;
}

// What it is, or 0.
static char receive_message(int from, struct inherited *inherited)
{
    char what = 0;
    union control_space space;
    struct iovec bytes = {&what, 1};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = space.bytes,
                             .msg_controllen = sizeof space.bytes};
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1)
        return 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            inherited_add(inherited, fd);
        }
    }
    return message.msg_flags & MSG_CTRUNC ? 0 : what;
}

bool handover_receive(int fd, struct inherited *inherited, bool *filtered)
{
    struct timeval patience = {.tv_sec = PATIENCE_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char what;
    while ((what = receive_message(fd, inherited)) == MESSAGE_FDS)
        ;
    *filtered = what == MESSAGE_END_FILTERED;
    return what == MESSAGE_END || what == MESSAGE_END_FILTERED;
}

bool handover_ready(int fd)
{
    bool told = send_message(fd, HANDOVER_READY, NULL, 0);
    close(fd);
    return told;
}
