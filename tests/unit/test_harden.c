// SPDX-License-Identifier: MIT
//
// Proves that a hardened process keeps no way back: not to root, not to a debugger, not to another
// program; that what a gateway does goes on working under the filter; and that mistakes are told
// with their mend. Each step is taken by a child, for none can be taken back.
//
// Only root can become somebody else: those tests skip, with that reason, for others.
#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/harden.h"

// What a child answers; a signal that ended it is told as 1000 + its number.
enum { FINE = 0, NOT_HARDENED = 100, WRONG = 101, KILLED = 1000 + SIGSYS };

static int run(int (*child)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        _exit(child());
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool filtered(bool allow_exec, bool allow_rings, bool log_only)
{
    char error[256];
    struct harden_seccomp options = {allow_exec, allow_rings, log_only};
    return harden_process(error, sizeof error) && harden_seccomp(&options, error, sizeof error);
}

// A kernel without filters, or a container that forbids them, is no fault of ours.
static int try_filter(void)
{
    return filtered(false, false, true) ? FINE : NOT_HARDENED;
}

static void need_filter(void)
{
    if (run(try_filter) != FINE)
        cr_skip_test("this kernel takes no seccomp filter");
}

static void need_root(void)
{
    if (geteuid() != 0)
        cr_skip_test("only root can become somebody else");
}

// ---- process ----

static int process_flags(void)
{
    char error[256];
    struct rlimit limit;
    if (!harden_process(error, sizeof error))
        return NOT_HARDENED;
    if (prctl(PR_GET_DUMPABLE) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return WRONG;
    if (getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur != 0 || limit.rlim_max != 0)
        return WRONG;
    return harden_process(error, sizeof error) ? FINE : WRONG; // again, as after an exec
}

Test(harden, the_process_leaves_no_core_and_gains_no_rights)
{
    cr_assert_eq(run(process_flags), FINE);
}

// ---- user ----

static int become_nobody(void)
{
    char error[256];
    if (!harden_user("nobody", false, error, sizeof error))
        return NOT_HARDENED;
    if (getuid() == 0 || geteuid() == 0 || getgid() == 0 || getegid() == 0)
        return WRONG;
    if (setuid(0) == 0 || setgid(0) == 0 || setgroups(0, NULL) == 0)
        return WRONG;
    if (open("/etc/shadow", O_RDONLY) >= 0)
        return WRONG;
    return harden_user("nobody", false, error, sizeof error) ? FINE : WRONG; // is it already
}

Test(harden, nobody_cannot_become_root_again)
{
    need_root();
    cr_assert_eq(run(become_nobody), FINE);
}

static int become_numbers(void)
{
    char error[256];
    if (!harden_user("12345:23456", false, error, sizeof error))
        return NOT_HARDENED;
    gid_t group = 0;
    return getuid() == 12345 && getgid() == 23456 && getgroups(1, &group) == 1 && group == 23456
               ? FINE
               : WRONG;
}

Test(harden, numbers_that_nobody_has_are_good_with_a_group)
{
    need_root();
    cr_assert_eq(run(become_numbers), FINE);
}

static int bind_port(uint16_t port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 ? errno : 0;
}

static int keep_ports(void)
{
    char error[256];
    if (!harden_user("nobody", true, error, sizeof error))
        return NOT_HARDENED;
    int answer = bind_port(1);
    return (answer == 0 || answer == EADDRINUSE) && setuid(0) != 0 && chown("/", 0, 0) != 0 ? FINE
                                                                                            : WRONG;
}

static int keep_no_ports(void)
{
    char error[256];
    if (!harden_user("nobody", false, error, sizeof error))
        return NOT_HARDENED;
    return bind_port(1) == EACCES ? FINE : WRONG;
}

Test(harden, low_ports_are_kept_only_if_asked_for)
{
    need_root();
    FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
    int first = 1024;
    if (file) {
        if (fscanf(file, "%d", &first) != 1)
            first = 1024;
        fclose(file);
    }
    cr_assert_eq(run(keep_ports), FINE);
    if (first > 1)
        cr_assert_eq(run(keep_no_ports), FINE);
}

static void refused(const char *user, const char *mend)
{
    char error[256] = "";
    cr_assert_not(harden_user(user, false, error, sizeof error), "%s", user);
    cr_assert(strstr(error, mend) != NULL, "%s: %s", user, error);
}

Test(harden, wrong_users_are_told_with_the_mend)
{
    refused("", "write a name");
    refused(":root", "write a name");
    refused("nobody:", "write a name");
    refused("no-such-user-here", "useradd --system");
    refused("nobody:no-such-group-here", "groupadd --system");
    refused("1234567", "give its group too");
    refused("4294967295:1", "there is no user"); // (uid_t)-1 would mean: stay who you are
    refused("4294967296:1", "there is no user");
    refused("nobody:4294967295", "there is no group");
    refused("root", "is root");
    refused("0:1", "is root");
}

// ---- filter ----

// Each of these is one act of somebody who got in.
static int act_exec(void)
{
    char *const argv[] = {"true", NULL};
    execv("/bin/true", argv);
    return WRONG;
}

// The other way to start a program: a child first.
static int act_spawn(void)
{
    char *const argv[] = {"true", NULL};
    pid_t pid;
    int status = 1;
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) != 0)
        return WRONG;
    return waitpid(pid, &status, 0) == pid && status == 0 ? FINE : WRONG;
}

static int act_ptrace(void)
{
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    return WRONG;
}

static int act_read_memory(void)
{
    syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
    return WRONG;
}

static int act_mount(void)
{
    mount("none", "/mnt", "tmpfs", 0, NULL);
    return WRONG;
}

static int act_bpf(void)
{
    syscall(SYS_bpf, 0, NULL, 0);
    return WRONG;
}

static int act_unshare(void)
{
    unshare(CLONE_NEWUSER);
    return WRONG;
}

static int act_module(void)
{
    syscall(SYS_finit_module, -1, "", 0);
    return WRONG;
}

static int act_keyctl(void)
{
    syscall(SYS_keyctl, 0, 0, 0, 0, 0);
    return WRONG;
}

static int act_ring(void)
{
    struct io_uring_params params = {0};
    long fd = syscall(SYS_io_uring_setup, 1, &params);
    return fd >= 0 ? FINE : errno == ENOSYS ? WRONG : FINE;
}

static int (*const acts[])(void) = {act_exec, act_ptrace,  act_read_memory, act_mount, act_bpf,
                                    act_ring, act_unshare, act_module,      act_keyctl};

static int (*act)(void);

static int filtered_act(void)
{
    return filtered(false, false, false) ? act() : NOT_HARDENED;
}

Test(harden, what_is_never_ours_kills_the_process)
{
    need_filter();
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        act = acts[i];
        cr_assert_eq(run(filtered_act), KILLED, "act %zu", i);
    }
}

static int exec_act(void)
{
    return filtered(true, false, false) ? act() : NOT_HARDENED;
}

Test(harden, with_exec_a_program_starts_but_nothing_else_is_allowed)
{
    need_filter();
    act = act_exec;
    cr_assert_eq(run(exec_act), FINE, "/bin/true under the inherited filter");
    act = act_spawn;
    cr_assert_eq(run(exec_act), FINE, "or in a child of ours");
    cr_assert_eq(run(filtered_act), WRONG, "without exec there are no children");
    act = act_ring;
    cr_assert_eq(run(exec_act), FINE, "it needs a ring");
    act = act_ptrace;
    cr_assert_eq(run(exec_act), KILLED);
    act = act_unshare;
    cr_assert_eq(run(exec_act), KILLED);
}

static int ring_act(void)
{
    return filtered(false, true, false) ? act() : NOT_HARDENED;
}

Test(harden, rings_can_be_opened_later_if_asked_for)
{
    need_filter();
    act = act_ring;
    cr_assert_eq(run(ring_act), FINE);
    act = act_exec;
    cr_assert_eq(run(ring_act), KILLED);
}

static int log_only_act(void)
{
    if (!filtered(false, false, true))
        return NOT_HARDENED;
    return act_exec(); // becomes /bin/true, which answers 0
}

Test(harden, log_only_refuses_nothing)
{
    need_filter();
    cr_assert_eq(run(log_only_act), FINE);
}

// Only the errno of each refusal, so that one child can try them all.
static int refusals(void)
{
    if (!filtered(false, false, false))
        return NOT_HARDENED;
    errno = 0;
    if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS)
        return 1;
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) != -1 || errno != EPERM)
        return 2;
    if (mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
            MAP_FAILED ||
        errno != EPERM)
        return 3;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC) != -1 || errno != EPERM)
        return 4;
    if (socket(AF_PACKET, SOCK_RAW, 0) != -1 || errno != EAFNOSUPPORT)
        return 5;
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != -1 || errno != EINVAL)
        return 6;
    if (syscall(SYS_setresuid, 0, 0, 0) != -1 || errno != ENOSYS)
        return 7;
    if (syscall(100000) != -1 || errno != ENOSYS)
        return 8;
    return FINE;
}

Test(harden, what_is_unknown_fails_as_on_an_older_kernel)
{
    need_filter();
    cr_assert_eq(run(refusals), FINE);
}

static void *answer_in_thread(void *answer)
{
    *(int *)answer = 42;
    return NULL;
}

// Some of all that a gateway does after its start.
static int serve(void)
{
    if (!filtered(false, false, false))
        return NOT_HARDENED;
    pthread_t thread;
    int answer = 0;
    if (pthread_create(&thread, NULL, answer_in_thread, &answer) != 0 ||
        pthread_join(thread, NULL) != 0 || answer != 42)
        return 1;
    void *memory = malloc(64 << 20);
    if (!memory)
        return 2;
    memset(memory, 1, 64 << 20);
    free(memory);
    struct addrinfo *found = NULL;
    int result = getaddrinfo("localhost", "80", NULL, &found);
    if (result == 0)
        freeaddrinfo(found);
    else if (result != EAI_NONAME && result != EAI_AGAIN)
        return 3;
    FILE *file = fopen("/etc/hosts", "re");
    char line[256];
    if (file && (!fgets(line, sizeof line, file) || fclose(file) != 0))
        return 4;
    int answer_of_bind = bind_port(0);
    return answer_of_bind == 0 ? FINE : 5;
}

Test(harden, threads_memory_names_files_and_sockets_go_on)
{
    need_filter();
    cr_assert_eq(run(serve), FINE);
}

static int check_fails(void)
{
    if (!filtered(false, false, false))
        return NOT_HARDENED;
    signal(SIGABRT, SIG_DFL);
    abort();
}

Test(harden, a_failed_check_still_ends_as_abort)
{
    need_filter();
    cr_assert_eq(run(check_fails), 1000 + SIGABRT);
}

static void *other_thread(void *unused)
{
    (void)unused;
    pause();
    return NULL;
}

static void *exec_in_thread(void *unused)
{
    (void)unused;
    usleep(50 * 1000); // until the filter is there
    act_exec();
    return NULL;
}

static int threads_before(void)
{
    pthread_t idle, eager;
    if (pthread_create(&idle, NULL, other_thread, NULL) != 0 ||
        pthread_create(&eager, NULL, exec_in_thread, NULL) != 0)
        return WRONG;
    if (!filtered(false, false, false))
        return NOT_HARDENED;
    pthread_join(eager, NULL);
    return WRONG;
}

Test(harden, threads_that_run_already_are_bound_too)
{
    need_filter();
    cr_assert_eq(run(threads_before), KILLED);
}

static int filter_without_flags(void)
{
    char error[256] = "";
    struct harden_seccomp options = {0};
    char user_error[256];
    if (geteuid() == 0 && !harden_user("nobody", false, user_error, sizeof user_error))
        return NOT_HARDENED;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
        return FINE; // a container set it: nothing to prove here
    if (harden_seccomp(&options, error, sizeof error))
        return WRONG;
    return strstr(error, "harden_process") ? FINE : WRONG;
}

Test(harden, a_filter_without_the_flags_is_told_with_the_mend)
{
    need_filter();
    cr_assert_eq(run(filter_without_flags), FINE);
}
