// SPDX-License-Identifier: MIT
//
// The system-call filter: classic BPF by hand, no library (linux/filter.h, seccomp(2)).
//
// Why a list of what is allowed, and not only of what is forbidden: what a gateway needs is short
// and known, what an attacker could use is neither, and a new kernel adds to the second list only.
//
// Why two ways of refusing:
//   unknown     ENOSYS, as from an older kernel: glibc and jemalloc then fall back to a call they
//               used before. A new glibc must not kill a gateway that runs.
//   never ours  the process is killed (SIGSYS, "audit: type=1326" in the kernel's log): whoever
//               starts programs, traces, mounts or loads code here is not us any more.
// A call that is ours in one shape only (socket of four families, no memory that is writable and
// executable) fails in the others with the errno that its callers understand.
//
// Cost: since Linux 5.11 the kernel remembers which calls a filter always allows and does not run
// it for them; io_uring_enter, futex, read and write are such.
#include "engine/harden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/check.h"

#if defined(__x86_64__)
enum { ARCH = AUDIT_ARCH_X86_64, X32_BIT = 0x40000000 };
#elif defined(__aarch64__)
enum { ARCH = AUDIT_ARCH_AARCH64, X32_BIT = 0 };
#else
enum { ARCH = 0, X32_BIT = 0 };
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of an argument comes first");

enum need { ALWAYS, WITH_RINGS, WITH_EXEC };

struct call {
    int number;
    enum need need;
};

static const struct call allowed[] = {
    // the engine: one call for everything on the data path; the eventfd that wakes a core
    {SYS_io_uring_enter, ALWAYS},
    {SYS_read, ALWAYS},
    {SYS_write, ALWAYS},
    {SYS_close, ALWAYS},
    {SYS_futex, ALWAYS},
    // rings opened after this: a worker that starts late, a new binary
    {SYS_io_uring_setup, WITH_RINGS},
    {SYS_io_uring_register, WITH_RINGS},
    // sockets made by hand: listeners, dials, their options and names; handing listeners over
    {SYS_bind, ALWAYS},
    {SYS_listen, ALWAYS},
    {SYS_accept4, ALWAYS},
    {SYS_connect, ALWAYS},
    {SYS_shutdown, ALWAYS},
    {SYS_setsockopt, ALWAYS},
    {SYS_getsockopt, ALWAYS},
    {SYS_getsockname, ALWAYS},
    {SYS_getpeername, ALWAYS},
    {SYS_sendto, ALWAYS},
    {SYS_recvfrom, ALWAYS},
    {SYS_sendmsg, ALWAYS},
    {SYS_recvmsg, ALWAYS},
    // names: getaddrinfo sends two questions in one call and polls; c-ares likewise, or by epoll
    {SYS_sendmmsg, ALWAYS},
    {SYS_recvmmsg, ALWAYS},
    {SYS_ppoll, ALWAYS},
    {SYS_pselect6, ALWAYS},
    {SYS_epoll_create1, ALWAYS},
    {SYS_epoll_ctl, ALWAYS},
    {SYS_epoll_pwait, ALWAYS},
    {SYS_eventfd2, ALWAYS},
    {SYS_pipe2, ALWAYS},
    {SYS_uname, ALWAYS},
    // time, where the vDSO has no answer; dice for TLS and request ids
    {SYS_clock_gettime, ALWAYS},
    {SYS_clock_getres, ALWAYS},
    {SYS_clock_nanosleep, ALWAYS},
    {SYS_nanosleep, ALWAYS},
    {SYS_gettimeofday, ALWAYS},
    {SYS_getrandom, ALWAYS},
    // memory: jemalloc and glibc (mmap and mprotect are below)
    {SYS_munmap, ALWAYS},
    {SYS_mremap, ALWAYS},
    {SYS_madvise, ALWAYS},
    {SYS_brk, ALWAYS},
    {SYS_membarrier, ALWAYS},
    {SYS_sysinfo, ALWAYS},
    // threads and their end; abort() of a failed CHECK (clone is below)
    {SYS_set_robust_list, ALWAYS},
    {SYS_rseq, ALWAYS},
    {SYS_sched_setaffinity, ALWAYS},
    {SYS_sched_getaffinity, ALWAYS},
    {SYS_sched_yield, ALWAYS},
    {SYS_getcpu, ALWAYS},
    {SYS_gettid, ALWAYS},
    {SYS_getpid, ALWAYS},
    {SYS_getppid, ALWAYS},
    {SYS_tgkill, ALWAYS},
    {SYS_exit, ALWAYS},
    {SYS_exit_group, ALWAYS},
    // signals
    {SYS_rt_sigaction, ALWAYS},
    {SYS_rt_sigprocmask, ALWAYS},
    {SYS_rt_sigreturn, ALWAYS},
    {SYS_rt_sigtimedwait, ALWAYS},
    {SYS_sigaltstack, ALWAYS},
    {SYS_restart_syscall, ALWAYS},
    // files: reload of the configuration and of certificates, resolv.conf, NSS modules, logs
    {SYS_openat, ALWAYS},
    {SYS_pread64, ALWAYS},
    {SYS_readv, ALWAYS},
    {SYS_writev, ALWAYS},
    {SYS_lseek, ALWAYS},
    {SYS_fstat, ALWAYS},
    {SYS_newfstatat, ALWAYS},
    {SYS_statx, ALWAYS},
    {SYS_faccessat, ALWAYS},
    {SYS_faccessat2, ALWAYS},
    {SYS_readlinkat, ALWAYS},
    {SYS_getdents64, ALWAYS},
    {SYS_getcwd, ALWAYS},
    {SYS_fcntl, ALWAYS},
    {SYS_dup, ALWAYS},
    {SYS_dup3, ALWAYS},
    // files that are ours: the database (SQLite), a unix listener's socket and its mode
    {SYS_pwrite64, ALWAYS},
    {SYS_fsync, ALWAYS},
    {SYS_fdatasync, ALWAYS},
    {SYS_ftruncate, ALWAYS},
    {SYS_fallocate, ALWAYS},
    {SYS_unlinkat, ALWAYS},
    {SYS_fchmod, ALWAYS},
    {SYS_fchmodat, ALWAYS},
    {SYS_umask, ALWAYS},
    // who and how much: glibc, metrics
    {SYS_getuid, ALWAYS},
    {SYS_geteuid, ALWAYS},
    {SYS_getgid, ALWAYS},
    {SYS_getegid, ALWAYS},
    {SYS_getrusage, ALWAYS},
    // what a start does and serving does not: the loader, limits, waiting for the child, and
    // hardening itself
    {SYS_socketpair, WITH_EXEC},
    {SYS_execve, WITH_EXEC},
    {SYS_execveat, WITH_EXEC},
    {SYS_wait4, WITH_EXEC},
    {SYS_waitid, WITH_EXEC},
    {SYS_set_tid_address, WITH_EXEC},
    {SYS_prctl, WITH_EXEC},
    {SYS_seccomp, WITH_EXEC},
    {SYS_getresuid, WITH_EXEC},
    {SYS_getresgid, WITH_EXEC},
#ifdef __x86_64__
    // the same under the names that newer machines do not have
    {SYS_arch_prctl, WITH_EXEC},
    {SYS_vfork, WITH_EXEC},
    {SYS_dup2, ALWAYS},
    {SYS_poll, ALWAYS},
    {SYS_select, ALWAYS},
    {SYS_epoll_wait, ALWAYS},
    {SYS_time, ALWAYS},
    {SYS_open, ALWAYS},
    {SYS_stat, ALWAYS},
    {SYS_lstat, ALWAYS},
    {SYS_access, ALWAYS},
    {SYS_readlink, ALWAYS},
    {SYS_unlink, ALWAYS},
    {SYS_chmod, ALWAYS},
#endif
};

// Calls that are ours in one shape. Arguments in memory cannot be seen: clone3 is left out, so that
// glibc falls back to clone, whose flags can.
enum shape {
    MASKED_IS,     // (argument & value[0]) == value[1]
    MASKED_IS_NOT, // (argument & value[0]) != value[1]
    ONE_OF,        // argument is one of value[0..count)
};

enum { VALUES_MAX = 6 };

// The flags of clone and unshare that make a namespace.
#define NAMESPACES                                                                                 \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET)

static const struct shaped {
    int number;
    enum need need;
    uint32_t argument;
    enum shape shape;
    int refusal;
    uint32_t count;
    uint32_t value[VALUES_MAX];
} shaped[] = {
    // threads, but no processes and no namespaces; with exec the process that becomes the new one
    {SYS_clone, WITH_EXEC, 0, MASKED_IS, EPERM, 2, {NAMESPACES, 0}},
    {SYS_clone, ALWAYS, 0, MASKED_IS, EPERM, 2, {NAMESPACES | CLONE_THREAD, CLONE_THREAD}},
    // no memory that is both written and run; what NSS modules map to run comes from files
    {SYS_mmap,
     ALWAYS,
     2,
     MASKED_IS_NOT,
     EPERM,
     2,
     {PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC}},
    {SYS_mprotect, ALWAYS, 2, MASKED_IS, EPERM, 2, {PROT_EXEC, 0}},
    // clients, providers, unix listeners; netlink: getaddrinfo asks which addresses we have
    {SYS_socket, ALWAYS, 0, ONE_OF, EAFNOSUPPORT, 4, {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK}},
    // stdio asks whether it writes to a terminal, the resolver how much there is to read
    {SYS_ioctl, ALWAYS, 1, ONE_OF, ENOTTY, 4, {TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO}},
    // names of threads; of memory (glibc, jemalloc: they do not mind a refusal)
    {SYS_prctl, ALWAYS, 0, ONE_OF, EINVAL, 2, {PR_SET_NAME, PR_GET_NAME}},
    // our own limits only
    {SYS_prlimit64, ALWAYS, 0, ONE_OF, EPERM, 1, {0}},
};

// Never ours. Allowed ones were found before, so execve is here for when it is not.
static const int deadly[] = {
    // other programs
    SYS_execve,
    SYS_execveat,
    // other processes' memory and ours through a debugger
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_userfaultfd,
    // another view of the file system
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_open_by_handle_at,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    // namespaces
    SYS_unshare,
    SYS_setns,
    // the kernel: its code, its keys, its eyes
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_syslog,
    SYS_fanotify_init,
    SYS_acct,
    SYS_reboot,
    SYS_vhangup,
    // the clock and the names of the machine
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_sethostname,
    SYS_setdomainname,
    // rings that were not opened at start: their operations would pass this filter unseen
    SYS_io_uring_setup,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef __x86_64__
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_uselib,
#endif
};

// ---------------------------------------------------------------------------------- the program

enum {
    COUNT_ALLOWED = sizeof allowed / sizeof *allowed,
    COUNT_SHAPED = sizeof shaped / sizeof *shaped,
    COUNT_DEADLY = sizeof deadly / sizeof *deadly,
    LEN_MAX = 8 + 2 * (COUNT_ALLOWED + COUNT_DEADLY) + (4 + 2 * VALUES_MAX) * COUNT_SHAPED,
};

static_assert(LEN_MAX <= BPF_MAXINSNS, "the kernel takes no longer program");

struct program {
    struct sock_filter at[LEN_MAX];
    uint32_t len;
    struct harden_seccomp options;
};

static void emit(struct program *p, uint32_t code, uint32_t value, uint8_t if_true,
                 uint8_t if_false)
{
    CHECK(p->len < LEN_MAX);
    p->at[p->len++] = (struct sock_filter){(uint16_t)code, if_true, if_false, value};
}

static void load(struct program *p, size_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

// Go on behind the next instruction if the value is not this one.
static void only_if(struct program *p, uint32_t value)
{
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
}

static void answer(struct program *p, uint32_t action)
{
    if (p->options.log_only && action != SECCOMP_RET_ALLOW)
        action = SECCOMP_RET_LOG;
    emit(p, BPF_RET | BPF_K, action, 0, 0);
}

static bool needed(const struct program *p, enum need need)
{
    switch (need) {
    case ALWAYS: return true;
    case WITH_RINGS: return p->options.allow_rings || p->options.allow_exec;
    case WITH_EXEC: return p->options.allow_exec;
    }
    return false;
}

// The number stays loaded unless this is the call; then every way out of here is an answer.
static void emit_shaped(struct program *p, const struct shaped *call)
{
    uint32_t first = p->len;
    only_if(p, (uint32_t)call->number);
    load(p, offsetof(struct seccomp_data, args) + 8 * call->argument);
    if (call->shape == ONE_OF) {
        for (uint32_t i = 0; i < call->count; i++) {
            only_if(p, call->value[i]);
            answer(p, SECCOMP_RET_ALLOW);
        }
        answer(p, SECCOMP_RET_ERRNO | (uint32_t)call->refusal);
    } else {
        bool is = call->shape == MASKED_IS;
        emit(p, BPF_ALU | BPF_AND | BPF_K, call->value[0], 0, 0);
        only_if(p, call->value[1]);
        answer(p, is ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | (uint32_t)call->refusal);
        answer(p, is ? SECCOMP_RET_ERRNO | (uint32_t)call->refusal : SECCOMP_RET_ALLOW);
    }
    p->at[first].jf = (uint8_t)(p->len - first - 1);
}

static void build(struct program *p)
{
    // The other ABIs of this machine have other numbers: nothing of ours uses them.
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
    if (X32_BIT) {
        emit(p, BPF_JMP | BPF_JSET | BPF_K, X32_BIT, 0, 1);
        answer(p, SECCOMP_RET_KILL_PROCESS);
    }
    for (size_t i = 0; i < COUNT_ALLOWED; i++)
        if (needed(p, allowed[i].need)) {
            only_if(p, (uint32_t)allowed[i].number);
            answer(p, SECCOMP_RET_ALLOW);
        }
    for (size_t i = 0; i < COUNT_SHAPED; i++)
        if (needed(p, shaped[i].need))
            emit_shaped(p, &shaped[i]);
    for (size_t i = 0; i < COUNT_DEADLY; i++) {
        only_if(p, (uint32_t)deadly[i]);
        answer(p, SECCOMP_RET_KILL_PROCESS);
    }
    answer(p, SECCOMP_RET_ERRNO | ENOSYS);
}

bool harden_seccomp(const struct harden_seccomp *options, char *error, size_t error_len)
{
    if (ARCH == 0) {
        snprintf(error, error_len,
                 "there is no system-call filter for this kind of machine yet: "
                 "start without one");
        return false;
    }
    struct program program = {.options = *options};
    build(&program);
    struct sock_fprog filter = {.len = (unsigned short)program.len, .filter = program.at};
    // All threads at once; refusals are logged; and no slower branches for us: we run no code of
    // others (kernels before 5.16 would otherwise turn speculation off for filtered processes).
    unsigned flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
                     SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) == 0)
        return true;
    const char *mend = errno == EACCES  ? "no_new_privs is not set: call harden_process() first"
                       : errno == ESRCH ? "a thread has a filter of its own: start without"
                       : errno == ENOSYS || errno == EINVAL
                           ? "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or a "
                             "container forbids them: allow seccomp, or start without"
                           : strerror(errno);
    snprintf(error, error_len, "cannot install the system-call filter: %s", mend);
    return false;
}
