// SPDX-License-Identifier: MIT
//
// ports: the four ports of proto/tls joined to a blocking socket, so that TLS can be tried against
// other implementations without the engine.
//
//   ports server [options]   listens, prints "listening PORT", serves connections one after another
//                            until --count of them are done: answers each line "GET ..." by an HTTP
//                            response and closes, echoes any other line
//   ports client [options] HOST:PORT
//                            connects, sends its standard input, prints what comes until the end
//
//   --certificate NAME     NAME.pem and NAME.key (may be given again: chosen by SNI)
//   --authorities FILE     a bundle; a server then demands client certificates
//   --name NAME            the client's server name (default: HOST)
//   --tls12, --tls13       that version only
//   --alpn LIST            default http/1.1
//   --seed N               the ticket key is made of this number; without it no tickets
//   --count N              connections: a server ends after them; a client makes them one after
//                          another and resumes
//   --bytes N              a server answers GET with so many bytes
//   --piece N              ciphertext is read in pieces of N bytes (default 16384)
//
// Each connection is told on standard error in one line: "tls: TLSv1.3 TLS_AES_128_GCM_SHA256
// X25519 alpn=http/1.1 resumed=0 name=... client=0", or "tls: failed FAULT: words". Exit 0 if all
// were good.
#include "alloc/heap.h"
#include "proto/tls.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, PIECE_MAX = 65536, LINE_MAX_BYTES = 16384 };

struct options {
    bool is_server;
    struct tls_settings settings;
    struct tls_identity identities[8];
    const char *target, *name;
    long seed, count, bytes, piece;
};

struct link {
    int fd;
    struct tls *tls;
    const struct options *options;
    bool ended; // no more comes
    char line[LINE_MAX_BYTES];
    size_t line_len;
};

static _Noreturn void die(const char *what, const char *detail)
{
    fprintf(stderr, "ports: %s: %s\n", what, detail);
    exit(2);
}

// ---- options
// -------------------------------------------------------------------------------------

static struct span file_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path, strerror(errno));
    char *bytes = heap_alloc(FILE_MAX);
    size_t len = fread(bytes, 1, FILE_MAX, file);
    fclose(file);
    return span_of(bytes, len);
}

static void identity_add(struct options *options, const char *name)
{
    char *certificate = heap_format("%s.pem", name), *key = heap_format("%s.key", name);
    if (options->settings.identity_count == 8)
        die("too many certificates", name);
    options->identities[options->settings.identity_count++] =
        (struct tls_identity){file_read(certificate), file_read(key), name};
    heap_free(certificate);
    heap_free(key);
}

static void option_set(struct options *options, const char *name, const char *value)
{
    if (!strcmp(name, "--certificate"))
        identity_add(options, value);
    else if (!strcmp(name, "--authorities"))
        options->settings.authorities = file_read(value);
    else if (!strcmp(name, "--name"))
        options->name = value;
    else if (!strcmp(name, "--alpn"))
        options->settings.alpn = value;
    else if (!strcmp(name, "--seed"))
        options->seed = strtol(value, NULL, 10);
    else if (!strcmp(name, "--count"))
        options->count = strtol(value, NULL, 10);
    else if (!strcmp(name, "--bytes"))
        options->bytes = strtol(value, NULL, 10);
    else if (!strcmp(name, "--piece"))
        options->piece = strtol(value, NULL, 10);
    else
        die("unknown option", name);
}

static void options_read(struct options *options, int argc, char **argv)
{
    *options = (struct options){.count = 1, .bytes = 5, .piece = 16384};
    options->settings.alpn = "http/1.1";
    options->settings.identities = options->identities;
    if (argc < 2 || (strcmp(argv[1], "server") && strcmp(argv[1], "client")))
        die("usage", "ports server|client [options]");
    options->is_server = !strcmp(argv[1], "server");
    options->settings.side = options->is_server ? TLS_SERVER : TLS_CLIENT;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--tls12"))
            options->settings.version_max = TLS_1_2;
        else if (!strcmp(argv[i], "--tls13"))
            options->settings.version_min = TLS_1_3;
        else if (argv[i][0] != '-')
            options->target = argv[i];
        else if (++i < argc)
            option_set(options, argv[i - 1], argv[i]);
        else
            die("no value", argv[i - 1]);
    }
    if (options->piece < 1 || options->piece > PIECE_MAX)
        die("--piece", "1 to 65536");
}

// ---- moving bytes
// --------------------------------------------------------------------------------

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t some = write(fd, bytes, len);
        if (some < 0)
            return; // the peer is gone: reading will tell
        bytes += some;
        len -= (size_t)some;
    }
}

// Encrypt all of it and send, with whatever else waits.
static void link_send(struct link *link, const void *bytes, size_t len)
{
    struct span piece = span_of(bytes, len);
    uint8_t out[20000];
    struct tls_moved moved;
    do {
        moved = tls_encrypt(link->tls, &piece, 1, out, sizeof out);
        write_all(link->fd, out, moved.made);
        piece = span_of(piece.ptr + moved.taken, piece.len - moved.taken);
    } while (moved.result == TLS_ROOM);
}

static void answer_line(struct link *link, const char *line, size_t len)
{
    if (len < 4 || memcmp(line, "GET ", 4) != 0) {
        link_send(link, line, len);
        return;
    }
    char *head = heap_format("HTTP/1.1 200 OK\r\nContent-Length: %ld\r\nConnection: close\r\n\r\n",
                             link->options->bytes);
    link_send(link, head, strlen(head));
    heap_free(head);
    uint8_t body[9000];
    memset(body, 'x', sizeof body);
    for (long left = link->options->bytes; left > 0;) {
        size_t some = left < (long)sizeof body ? (size_t)left : sizeof body;
        link_send(link, body, some);
        left -= (long)some;
    }
    link->ended = true;
}

static void plain_arrived(struct link *link, const uint8_t *bytes, size_t len)
{
    if (!link->options->is_server) {
        write_all(STDOUT_FILENO, bytes, len);
        return;
    }
    for (size_t i = 0; i < len && !link->ended; i++) {
        if (link->line_len < LINE_MAX_BYTES)
            link->line[link->line_len++] = (char)bytes[i];
        if (bytes[i] != '\n')
            continue;
        answer_line(link, link->line, link->line_len);
        link->line_len = 0;
    }
}

// Read once and decrypt all of it.
static void link_receive(struct link *link)
{
    uint8_t in[PIECE_MAX], plain[16384];
    ssize_t len = read(link->fd, in, (size_t)link->options->piece);
    if (len <= 0) {
        tls_cut(link->tls);
        link->ended = true;
        return;
    }
    size_t taken = 0;
    struct tls_moved moved;
    do {
        moved = tls_decrypt(link->tls, in + taken, (size_t)len - taken, plain, sizeof plain);
        taken += moved.taken;
        if (moved.made)
            plain_arrived(link, plain, moved.made);
    } while (moved.result == TLS_ROOM);
    if (moved.result == TLS_END || moved.result == TLS_BAD)
        link->ended = true;
    if (tls_unsent(link->tls))
        link_send(link, NULL, 0);
}

// ---- connections
// ---------------------------------------------------------------------------------

// One line about what was agreed. True: it went well.
static bool tell(struct link *link)
{
    if (tls_state(link->tls) == TLS_FAILED) {
        fprintf(stderr, "tls: failed %s: %s\n", tls_fault_name(tls_fault(link->tls)),
                tls_error(link->tls));
        return false;
    }
    struct tls_facts facts = tls_facts(link->tls);
    fprintf(stderr, "tls: %s %s %s alpn=%s resumed=%d name=%s client=%d\n", facts.version,
            facts.cipher, facts.group, facts.alpn, facts.resumed, facts.server_name,
            facts.client_certificate);
    return true;
}

static bool link_close(struct link *link)
{
    bool good = tell(link);
    tls_close(link->tls);
    link_send(link, NULL, 0);
    shutdown(link->fd, SHUT_WR);
    uint8_t rest[4096];
    struct pollfd wait = {link->fd, POLLIN, 0};
    while (poll(&wait, 1, 1000) > 0 && read(link->fd, rest, sizeof rest) > 0)
        ;
    close(link->fd);
    tls_free(link->tls);
    return good;
}

static int listen_loopback(void)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || listen(fd, 16) != 0 || getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        die("cannot listen", strerror(errno));
    char port[16];
    getnameinfo((struct sockaddr *)&address, len, NULL, 0, port, sizeof port, NI_NUMERICSERV);
    printf("listening %s\n", port);
    fflush(stdout);
    return fd;
}

static bool serve(const struct options *options, struct tls_context *context)
{
    int listener = listen_loopback();
    bool good = true;
    for (long i = 0; i < options->count; i++) {
        struct link link = {.fd = accept(listener, NULL, NULL), .options = options};
        link.tls = tls_server(context);
        while (!link.ended)
            link_receive(&link);
        good &= link_close(&link);
    }
    close(listener);
    return good;
}

static int connect_to(const char *target, char *host, size_t cap)
{
    const char *colon = strrchr(target, ':');
    if (!colon || (size_t)(colon - target) >= cap)
        die("no HOST:PORT", target);
    memcpy(host, target, (size_t)(colon - target));
    host[colon - target] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        die("no such host", host);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        die("cannot connect", strerror(errno));
    freeaddrinfo(found);
    return fd;
}

// Send what stdin holds and read to the end.
static bool visit(const struct options *options, struct tls_context *context, struct span question,
                  struct tls_saved **saved)
{
    char host[256];
    struct link link = {.options = options};
    link.fd = connect_to(options->target, host, sizeof host);
    link.tls = tls_client(context, options->name ? options->name : host, *saved);
    if (!link.tls)
        die("not a name", options->name);
    link_send(&link, NULL, 0);
    while (!link.ended && tls_state(link.tls) == TLS_HANDSHAKING)
        link_receive(&link);
    if (!link.ended)
        link_send(&link, question.ptr, question.len);
    while (!link.ended)
        link_receive(&link);
    struct tls_saved *fresh = tls_save(link.tls);
    if (fresh) {
        tls_saved_free(*saved);
        *saved = fresh;
    }
    return link_close(&link);
}

static bool visits(const struct options *options, struct tls_context *context)
{
    char *question = heap_alloc(FILE_MAX);
    size_t len = fread(question, 1, FILE_MAX, stdin);
    struct tls_saved *saved = NULL;
    bool good = true;
    for (long i = 0; i < options->count; i++)
        good &= visit(options, context, span_of(question, len), &saved);
    tls_saved_free(saved);
    heap_free(question);
    return good;
}

int main(int argc, char **argv)
{
    static struct options options;
    options_read(&options, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    tls_library_start();
    uint8_t random[TLS_TICKET_RANDOM];
    memset(random, (int)options.seed, sizeof random);
    if (options.seed)
        options.settings.ticket_keys = tls_ticket_keys_new(0, random);
    char why[TLS_ERROR_MAX];
    struct tls_context *context = tls_context_new(&options.settings, why, sizeof why);
    if (!context)
        die("settings", why);
    bool good = options.is_server ? serve(&options, context) : visits(&options, context);
    tls_context_free(context);
    tls_ticket_keys_free(options.settings.ticket_keys);
    heap_free((void *)options.settings.authorities.ptr);
    for (size_t i = 0; i < options.settings.identity_count; i++) {
        heap_free((void *)options.identities[i].certificates.ptr);
        heap_free((void *)options.identities[i].key.ptr);
    }
    tls_library_stop();
    return good ? 0 : 1;
}
