// SPDX-License-Identifier: MIT
#include "perf/load_client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf/load_window.h"

enum { READ_MAX = 65536 };

static char bytes[READ_MAX];
static uint32_t nonce_next;

static void client_fail(struct client *client, const char *why)
{
    struct subject *subject = client->subject;
    if (!subject->errors++)
        snprintf(subject->fault, sizeof subject->fault, "%s", why);
    if (client->busy) {
        client->busy = false;
        subject->busy--;
        subject->open -= client->reader.state > READER_HEAD;
    }
    subject->broken++;
    loop_close(&client->source);
}

static void client_done(struct client *client)
{
    struct subject *subject = client->subject;
    client->took_ns = now_ns() - client->sent_ns;
    client->busy = false;
    subject->busy--;
    subject->open -= client->reader.order.chunks != 0;
    subject->requests++;
    if (subject->done)
        subject->done(client);
}

static void client_take(struct client *client, size_t len)
{
    struct subject *subject = client->subject;
    struct reader *reader = &client->reader;
    bool had_head = reader->state != READER_HEAD;
    uint32_t chunks_before = reader->chunks_seen;
    subject->receives++;
    enum reader_state state = reader_take(reader, bytes, len);
    subject->chunks += reader->chunks_seen - chunks_before;
    subject->open += !had_head && state != READER_HEAD && reader->order.chunks;
    if (reader->order.window && reader->chunks_seen != chunks_before)
        window_set(reader->order.nonce, reader->chunks_seen);
    if (state == READER_BAD)
        client_fail(client, reader->fault);
    else if (state == READER_DONE)
        client_done(client);
}

static void client_ready(struct source *source, uint32_t events)
{
    struct client *client = (struct client *)source;
    ssize_t n = recv(source->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        client_fail(client, strerror(errno));
    else if (!n)
        client_fail(client, client->busy ? "closed inside an answer" : "closed while idle");
    else if (!client->busy)
        client_fail(client, "bytes nobody asked for");
    else
        client_take(client, (size_t)n);
}

void client_send(struct client *client, struct order order)
{
    static char request[WIRE_REQUEST_MAX];
    order.nonce = ++nonce_next;
    size_t len = wire_request(request, &order);
    reader_start(&client->reader, &order);
    client->busy = true;
    client->subject->busy++;
    client->sent_ns = now_ns();
    if (send(client->source.fd, request, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
        client_fail(client, "request not taken whole");
}

// --- subjects ----------------------------------------------------------------------------------

static int dial(uint16_t port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr)) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    nodelay(fd);
    return fd;
}

static struct client *client_new(struct subject *subject, int fd)
{
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        die("memory");
    client->source = (struct source){client_ready, fd};
    client->subject = subject;
    loop_add(&client->source);
    return client;
}

// Connections that broke make room for new ones.
static void drop_broken(struct subject *subject)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < subject->client_count; i++) {
        if (subject->client[i]->source.fd >= 0)
            subject->client[kept++] = subject->client[i];
        else
            free(subject->client[i]);
    }
    subject->client_count = kept;
    subject->broken = 0;
}

static void make_room(struct subject *subject, uint32_t count)
{
    if (count <= subject->client_room)
        return;
    subject->client_room = 2 * count;
    subject->client = realloc(subject->client, subject->client_room * sizeof *subject->client);
    if (!subject->client)
        die("memory");
}

void subject_connect(struct subject *subject, uint32_t count)
{
    if (subject->broken)
        drop_broken(subject);
    make_room(subject, count);
    while (subject->client_count < count) {
        int fd = dial(subject->port);
        if (fd < 0) {
            if (!subject->errors++)
                snprintf(subject->fault, sizeof subject->fault, "connect: %s", strerror(errno));
            return;
        }
        subject->client[subject->client_count++] = client_new(subject, fd);
    }
}

void subject_close(struct subject *subject)
{
    for (uint32_t i = 0; i < subject->client_count; i++) {
        if (subject->client[i]->source.fd >= 0)
            loop_close(&subject->client[i]->source);
        free(subject->client[i]);
    }
    subject->client_count = subject->busy = subject->open = subject->broken = 0;
}

void subject_reset(struct subject *subject)
{
    subject->requests = subject->chunks = subject->receives = subject->errors = 0;
    subject->fault[0] = 0;
}

static uint64_t thread_cpu_ns(int pid, const char *tid)
{
    char path[64], text[64] = {0};
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? strtoull(text, NULL, 10) : 0;
}

uint64_t subject_cpu_ns(const struct subject *subject)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < subject->pid_count; i++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/task", subject->pid[i]);
        DIR *dir = opendir(path);
        if (!dir)
            continue;
        for (struct dirent *entry; (entry = readdir(dir));)
            if (entry->d_name[0] != '.')
                total += thread_cpu_ns(subject->pid[i], entry->d_name);
        closedir(dir);
    }
    return total;
}
