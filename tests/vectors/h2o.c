// SPDX-License-Identifier: MIT
//
// h2o: raw requests from h2o's fuzzing, fed in every way, must get one verdict each.
//
//   h2o FOLDER | corpus.tar.gz
//
// Every file below FOLDER (or in the archive, which is unpacked to a temporary folder and removed)
// is read as a stream of requests: whole, split at each of the first SPLITS_MAX bytes, and byte by
// byte. The verdict, the number of messages and everything read must not differ; no byte behind the
// input may be read; a file that takes longer than SECONDS_MAX is a hang.
#include "tests/vectors/drive.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SPLITS_MAX = 512, SECONDS_MAX = 20, FILE_BYTES_MAX = 1 << 20 };

static unsigned files, failures, messages, verdicts[DRIVE_VERDICTS];
static char current[4096]; // the file being judged, for the handler below

// A fault or a hang names its file before it ends the run.
static void on_signal(int number)
{
    static const char fault[] = "FAIL over-read or crash in ", hang[] = "FAIL hang in ";
    ssize_t ignored =
        number == SIGALRM ? write(1, hang, sizeof(hang) - 1) : write(1, fault, sizeof(fault) - 1);
    ignored = write(1, current, strlen(current));
    ignored = write(1, "\n", 1);
    (void)ignored;
    _exit(1);
}

static void check(const struct drive *whole, const struct drive *other, const char *way, size_t cut)
{
    if (drive_same(whole, other))
        return;
    printf("FAIL %s: %s at %zu: %s, whole: %s\n", current, way, cut, drive_names[other->verdict],
           drive_names[whole->verdict]);
    failures++;
}

static void start(struct drive *d)
{
    drive_start(d, false);
    d->add_host = true; // few of the inputs have one: without it little but heads would be reached
}

static void judge(const uint8_t *input, size_t len)
{
    static struct drive whole, other;
    start(&whole);
    drive_feed(&whole, input, len);
    verdicts[whole.verdict]++;
    messages += whole.messages;
    for (size_t cut = 1; cut < len && cut <= SPLITS_MAX; cut++) {
        start(&other);
        drive_feed(&other, input, cut);
        drive_feed(&other, input, len);
        check(&whole, &other, "split", cut);
    }
    start(&other);
    for (size_t here = 1; here <= len; here++)
        drive_feed(&other, input, here);
    check(&whole, &other, "byte by byte", len);
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    static uint8_t input[FILE_BYTES_MAX];
    if (kind != FTW_F)
        return 0;
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    size_t len = fread(input, 1, sizeof(input), file);
    fclose(file);
    snprintf(current, sizeof(current), "%s", path);
    alarm(SECONDS_MAX);
    judge(input, len);
    alarm(0);
    files++;
    return 0;
}

// ---- the archive ----

static bool run_tar(const char *archive, const char *folder)
{
    char *const arguments[] = {"tar", "-xzf", (char *)archive, "-C", (char *)folder, NULL};
    extern char **environ;
    pid_t pid;
    int status;
    if (posix_spawnp(&pid, "tar", NULL, NULL, arguments, environ) != 0)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return status == 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static int judge_archive(const char *archive)
{
    char folder[4096];
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/h2o-corpus-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) {
        perror("h2o: mkdtemp");
        return -1;
    }
    int result = run_tar(archive, folder) ? nftw(folder, visit, 16, FTW_PHYS) : -1;
    nftw(folder, remove_one, 16, FTW_PHYS | FTW_DEPTH);
    return result;
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc != 2) {
        fprintf(stderr, "usage: h2o FOLDER | corpus.tar.gz\n");
        return 2;
    }
    if (stat(argv[1], &st) != 0) {
        printf("SKIP: no corpus at %s\n", argv[1]);
        return 77;
    }
    signal(SIGALRM, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    int result = S_ISDIR(st.st_mode) ? nftw(argv[1], visit, 16, FTW_PHYS) : judge_archive(argv[1]);
    if (result != 0 || files == 0) {
        printf("FAIL %s: cannot be read, or is empty\n", argv[1]);
        failures++;
    }
    printf("h2o: %u files, %u whole messages, %u failures; the streams end with", files, messages,
           failures);
    for (int i = 0; i < DRIVE_VERDICTS; i++)
        if (verdicts[i])
            printf(" %s: %u", drive_names[i], verdicts[i]);
    printf("\n");
    return failures ? 1 : 0;
}
