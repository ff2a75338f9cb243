// SPDX-License-Identifier: MIT
#include "perf/load_loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256 };

static int epoll_fd;
static struct epoll_event events[EVENTS_MAX];
static int event_count, event_at; // of the turn that is being handed out

void die(const char *what)
{
    fprintf(stderr, "perf-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void loop_init(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll");
}

static void control(struct source *source, int verb, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.ptr = source};
    if (epoll_ctl(epoll_fd, verb, source->fd, &event))
        die("epoll_ctl");
}

void loop_add(struct source *source)
{
    control(source, EPOLL_CTL_ADD, EPOLLIN);
}

void loop_want_write(struct source *source, bool want)
{
    control(source, EPOLL_CTL_MOD, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void loop_close(struct source *source)
{
    for (int i = event_at; i < event_count; i++)
        if (events[i].data.ptr == source)
            events[i].data.ptr = NULL;
    close(source->fd);
    source->fd = -1;
}

void loop_turn(int timeout_ms)
{
    event_count = epoll_wait(epoll_fd, events, EVENTS_MAX, timeout_ms);
    for (event_at = 0; event_at < event_count; event_at++) {
        struct source *source = events[event_at].data.ptr;
        if (source)
            source->ready(source, events[event_at].events);
    }
    event_count = 0;
}
