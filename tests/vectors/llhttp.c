// SPDX-License-Identifier: MIT
//
// llhttp: the request and response vectors of llhttp (strict mode), judged against our own reading.
//
//   llhttp FOLDER      FOLDER holds vectors.json
//
// The law: never laxer than llhttp. What it refuses we refuse; what it accepts we accept and read
// the same (messages, methods, targets, fields, bodies), or we refuse it for a reason that the
// table below names. An entry of the table that no vector needs any more is a failure too. Each
// vector is fed whole, split at each byte and byte by byte.
//
// Three notes. Many vectors lack Host, which we would refuse; they are given one, because a refusal
// for that reason would hide everything else they test. And where llhttp stops in the middle of a
// head, the head is completed before we are asked, because we judge heads only when they are
// complete. Last, llhttp has a list of methods; we parse any token, and the gateway answers 405 to
// those it does not know.
#include "tests/vectors/drive.h"

#include <cjson/cJSON.h>

#define STRAY "stray bytes before an answer: the upstream connection is not trusted any more"
#define GUESS "an answer in a coding we lack is not guessed to run until the close"

// Where we refuse what llhttp accepts: which vector, how we refuse it, and why.
static struct stricter {
    const char *file, *title;
    enum drive_verdict verdict;
    const char *why;
    bool used;
} stricter[] = {
    {"request/method.md", "M-SEARCH request", DRIVE_BAD_HEAD, "the target * is for OPTIONS only",
     0},
    {"request/method.md", "SOURCE request with ICE", DRIVE_BAD_HEAD, "not HTTP", 0},
    {"request/method.md", "OPTIONS request with RTSP", DRIVE_BAD_HEAD, "not HTTP", 0},
    {"request/method.md", "ANNOUNCE request with RTSP", DRIVE_BAD_HEAD, "not HTTP", 0},
    {"request/sample.md", "No HTTP version", DRIVE_BAD_HEAD, "HTTP/0.9", 0},
    {"response/sample.md", "HTTP version 0.9", DRIVE_BAD_HEAD, "HTTP/0.9", 0},
    {"response/sample.md", "RTSP response", DRIVE_BAD_HEAD, "not HTTP", 0},
    {"response/sample.md", "ICE response", DRIVE_BAD_HEAD, "not HTTP", 0},
    {"request/uri.md", "Fragment in URI", DRIVE_BAD_HEAD, "a target has no fragment", 0},
    {"request/transfer-encoding.md", "POST with `chunked` as last transfer-encoding",
     DRIVE_BAD_HEAD, "a target has no fragment (and the coding would be 501)", 0},
    {"request/transfer-encoding.md",
     "POST with `chunked` as last transfer-encoding (multiple headers)", DRIVE_BAD_HEAD,
     "a target has no fragment (and two coding fields are refused)", 0},
    {"request/uri.md", "`host:port` and basic auth", DRIVE_NO_HOST, "userinfo in an authority", 0},
    {"response/connection.md", "HTTP 304 with Content-Length", DRIVE_BAD_HEAD, STRAY, 0},
    {"response/connection.md", "HTTP 100 first, then 400", DRIVE_BAD_HEAD, STRAY, 0},
    {"response/pipelining.md", "Should parse multiple events", DRIVE_BAD_HEAD, STRAY, 0},
    {"response/sample.md", "Google 301", DRIVE_BAD_HEAD, STRAY, 0},
    {"response/sample.md", "Response starting with CRLF", DRIVE_BAD_HEAD, STRAY, 0},
    {"response/transfer-encoding.md", "`chunked` before other transfer-encoding", DRIVE_BAD_FRAMING,
     GUESS, 0},
    {"response/transfer-encoding.md",
     "multiple transfer-encoding where chunked is not the last one", DRIVE_BAD_FRAMING, GUESS, 0},
    {"response/transfer-encoding.md",
     "`chunkedchunked` transfer-encoding does not enable chunked enconding", DRIVE_BAD_FRAMING,
     GUESS, 0},
};

struct vector {
    const char *file, *title, *error; // error: what llhttp said, or NULL
    bool response;
    unsigned messages;
    uint8_t *input;
    size_t len;
    char *spans; // what llhttp read, in the form of drive's trace
};

static unsigned agreed, refused_both, stricter_count, failures;

static void fail(const struct vector *v, const char *what, const char *detail)
{
    printf("FAIL %s: %s: %s%s%s\n", v->file, v->title, what, detail ? ": " : "",
           detail ? detail : "");
    failures++;
}

// ---- reading the file ----

static const char *text_of(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

// Decode into a fresh block that has room for a line end more.
static uint8_t *base64_decode(const char *text, size_t *len)
{
    uint8_t *out = malloc(strlen(text) + 8);
    uint32_t bits = 0;
    int count = 0;
    *len = 0;
    for (; out && base64_value(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)base64_value(*text);
        count += 6;
        if (count >= 8)
            out[(*len)++] = (uint8_t)(bits >> (count -= 8));
    }
    return out;
}

// llhttp's span kinds by our trace's names; NULL: not in the trace.
static const char *trace_kind(const char *kind)
{
    static const char *const kinds[][2] = {{"method", "method"},      {"url", "url"},
                                           {"status", "status"},      {"header_field", "field"},
                                           {"header_value", "value"}, {"body", "body"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kind, kinds[i][0]) == 0)
            return kinds[i][1];
    return NULL;
}

static char *read_spans(const cJSON *spans)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    const cJSON *span;
    cJSON_ArrayForEach(span, spans)
    {
        const char *kind = trace_kind(text_of(span, "kind"));
        if (kind)
            fprintf(out, "%s=%s\n", kind, text_of(span, "text"));
    }
    fclose(out);
    return text;
}

static struct vector read_vector(const cJSON *object)
{
    struct vector v = {
        .file = text_of(object, "file"),
        .title = text_of(object, "title"),
        .error = text_of(object, "llhttp_error"),
        .response = strncmp(text_of(object, "type"), "response", 8) == 0,
        .messages = (unsigned)cJSON_GetObjectItem(object, "messages")->valueint,
        .spans = read_spans(cJSON_GetObjectItem(object, "spans")),
    };
    v.input = base64_decode(text_of(object, "input_base64"), &v.len);
    return v;
}

// ---- feeding ----

// llhttp's own harness told the parser that these messages have no body.
static bool skips_bodies(const struct vector *v)
{
    return strcmp(v->title, "Content-Length reset when no body is received") == 0;
}

static void start(struct drive *d, const struct vector *v)
{
    drive_start(d, v->response);
    d->add_host = true;
    d->skip_bodies = skips_bodies(v);
}

// Feed whole with a trace, and prove that all other ways come to the same.
static char *feed(struct drive *d, const struct vector *v)
{
    static struct drive other;
    char *trace = NULL;
    size_t size;
    start(d, v);
    d->trace = open_memstream(&trace, &size);
    drive_feed(d, v->input, v->len);
    fclose(d->trace);
    d->trace = NULL;
    for (size_t cut = 0; cut <= v->len; cut++) {
        start(&other, v);
        drive_feed(&other, v->input, cut);
        drive_feed(&other, v->input, v->len);
        if (!drive_same(d, &other))
            fail(v, "a split changes the verdict", drive_names[other.verdict]);
    }
    start(&other, v);
    for (size_t here = 0; here <= v->len; here++)
        drive_feed(&other, v->input, here);
    if (!drive_same(d, &other))
        fail(v, "byte by byte changes the verdict", drive_names[other.verdict]);
    return trace;
}

// ---- judging ----

// What llhttp calls an error but is only its way to hand over: the stream was good up to there.
static bool accepted_by_llhttp(const struct vector *v)
{
    return !v->error || strcmp(v->error, "Pause on CONNECT/Upgrade") == 0 ||
           strcmp(v->error, "Data after `Connection: close`") == 0;
}

static struct stricter *find_stricter(const struct vector *v, enum drive_verdict verdict)
{
    for (size_t i = 0; i < sizeof(stricter) / sizeof(stricter[0]); i++) {
        struct stricter *s = &stricter[i];
        if (strcmp(s->file, v->file) == 0 && strcmp(s->title, v->title) == 0 &&
            s->verdict == verdict)
            return s;
    }
    return NULL;
}

// llhttp refused it: so must we, or at least we must not have gone past the place.
static void judge_refused(const struct vector *v, struct drive *d)
{
    if (d->verdict == DRIVE_MORE && d->state == DRIVE_HEAD) {
        memcpy(v->input + v->len, "\r\n\r\n", 4);
        drive_feed(d, v->input, v->len + 4);
    }
    bool unknown_method = !v->response && d->head.method == H1_METHOD_OTHER;
    if (drive_refused(d) || unknown_method)
        refused_both++;
    else
        fail(v, "llhttp refuses and we do not", v->error);
}

// Where the text of a trace line begins: behind "kind=", and a body goes on over many lines.
static const char *line_text(const char *line, const char *end)
{
    static const char *const kinds[] = {"method=", "url=", "status=", "field=", "value=", "body="};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(line, kinds[i], strlen(kinds[i])) == 0) {
            line += strlen(kinds[i]);
            break;
        }
    while (line < end && *line == ' ')
        line++;
    return line;
}

// Where it ends for the comparison. The spans in the file come from a text form of llhttp's: cut at
// the first quote, as Unicode, without line ends, a tab at the end spelled out. So: up to the first
// byte that this form may have changed, without blanks at the end.
static const char *text_stop(const char *text, const char *end)
{
    const char *stop = text;
    while (stop < end && *stop != '"' && (unsigned char)*stop < 0x80 && *stop != '\r')
        stop++;
    for (;;) {
        if (stop > text && stop[-1] == ' ')
            stop--;
        else if (stop - text >= 2 && stop[-2] == '\\' && stop[-1] == 't')
            stop -= 2;
        else
            return stop;
    }
}

static char *comparable(const char *trace)
{
    char *out = NULL;
    size_t size;
    FILE *to = open_memstream(&out, &size);
    while (*trace) {
        const char *end = trace + strcspn(trace, "\n");
        const char *text = line_text(trace, end), *stop = text_stop(text, end);
        if (stop > text)
            fprintf(to, "%.*s\n", (int)(stop - text), text);
        trace = end + (*end == '\n');
    }
    fclose(to);
    return out;
}

// Is what we read the beginning of what llhttp read? (It also reports heads that are not complete.)
static bool same_trace(const struct vector *v, const char *ours)
{
    // Here the file gives the spans of another input.
    if (strcmp(v->title, "CRLF between requests, explicit `close`") == 0)
        return true;
    char *a = comparable(ours), *b = comparable(v->spans);
    bool same = strncmp(a, b, strlen(a)) == 0;
    free(a);
    free(b);
    return same;
}

static void judge_accepted(const struct vector *v, struct drive *d, const char *trace)
{
    struct stricter *reason = find_stricter(v, d->verdict);
    if (reason) {
        reason->used = true;
        stricter_count++;
    } else if (drive_refused(d)) {
        fail(v, "refused without a listed reason", drive_names[d->verdict]);
    } else if (d->messages != v->messages && d->verdict != DRIVE_UPGRADE) {
        fail(v, "another number of messages", NULL);
    } else if (!same_trace(v, trace)) {
        fail(v, "read in another way", trace);
        printf("   llhttp: %s\n", v->spans);
    } else {
        agreed++;
    }
}

static void judge(const cJSON *object)
{
    static struct drive d;
    struct vector v = read_vector(object);
    char *trace = feed(&d, &v);
    if (accepted_by_llhttp(&v))
        judge_accepted(&v, &d, trace);
    else
        judge_refused(&v, &d);
    free(trace);
    free(v.input);
    free(v.spans);
}

static cJSON *load(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/vectors.json", folder);
    FILE *file = fopen(path, "rb");
    if (!file) {
        printf("SKIP: no vectors at %s\n", path);
        exit(77);
    }
    enum { JSON_BYTES_MAX = 16 << 20 };
    char *text = malloc(JSON_BYTES_MAX);
    size_t len = text ? fread(text, 1, JSON_BYTES_MAX, file) : 0;
    fclose(file);
    cJSON *vectors = cJSON_ParseWithLength(text, len);
    free(text);
    return vectors;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: llhttp FOLDER\n");
        return 2;
    }
    cJSON *vectors = load(argv[1]);
    if (!cJSON_IsArray(vectors) || cJSON_GetArraySize(vectors) == 0) {
        printf("FAIL %s/vectors.json holds no vectors\n", argv[1]);
        return 1;
    }
    const cJSON *object;
    cJSON_ArrayForEach(object, vectors) judge(object);
    for (size_t i = 0; i < sizeof(stricter) / sizeof(stricter[0]); i++)
        if (!stricter[i].used) {
            printf("FAIL %s: %s: listed as stricter, and it is not\n", stricter[i].file,
                   stricter[i].title);
            failures++;
        }
    printf("llhttp: %d vectors: %u read the same, %u refused by both, %u refused by us alone for a "
           "listed reason, %u failures\n",
           cJSON_GetArraySize(vectors), agreed, refused_both, stricter_count, failures);
    cJSON_Delete(vectors);
    return failures ? 1 : 0;
}
