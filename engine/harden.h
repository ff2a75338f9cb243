// SPDX-License-Identifier: MIT
//
// harden: give up, for good, what a running gateway does not need. Linux only; no library.
//
// Three steps, each a call of its own, because each has its own moment in the life of the process:
//
//   harden_user("tokenring", true, ...)  as root only: become somebody else. Before any thread and
//                                        any ring: both keep the rights they were made with
//   harden_process(...)                  no core file, no debugger, no right gained by exec. After
//                                        harden_user, for a change of user resets the first of them
//   ... listeners, rings, workers ...
//   harden_seccomp(&options, ...)        from here on only the system calls of a gateway; all
//                                        threads at once
//
// All of it survives fork and exec, except the two that harden_process repeats at every start (a
// program started by exec can be debugged again). None of it can be taken back.
//
// What this does not cover: the operations of io_uring pass no seccomp filter. A ring can open
// files and connect sockets whatever the filter says (it cannot start programs, trace, mount or
// load code). To bound that too, a ring is opened with IORING_SETUP_R_DISABLED, given
// IORING_REGISTER_RESTRICTIONS with the operations of engine/io.h, and then enabled; that belongs
// to io_uring.c. Without `allow_rings` the filter sees to it that no other ring is ever opened.
//
// Every function returns true, or false with one sentence in `error` that names the mend.
#ifndef ENGINE_HARDEN_H
#define ENGINE_HARDEN_H

#include <stdbool.h>
#include <stddef.h>

// Become `user`: "name", "name:group", or numbers in place of names ("65534:65534"). Takes that
// user's groups (or the one group given), drops all others, and checks that there is no way back.
// With `keep_ports` one capability stays, CAP_NET_BIND_SERVICE: ports below 1024 can be bound
// later, by workers and after a reload. Does nothing if this is that user already.
bool harden_user(const char *user, bool keep_ports, char *error, size_t error_len);

// No core file (secrets would be in it), no ptrace by others of the same user, and no set-user-id
// program gains anything.
bool harden_process(char *error, size_t error_len);

struct harden_seccomp {
    bool allow_exec;  // a new binary takes over by exec: it inherits the filter, so what a start
                      // needs is allowed too
    bool allow_rings; // rings will be opened after this; allow_exec implies it
    bool log_only;    // refuse nothing: what would be refused goes to the kernel's log (dmesg)
};

// Needs harden_process() first. A call that no honest gateway makes kills the process with SIGSYS;
// one that is only unknown fails with ENOSYS, as if the kernel were older.
bool harden_seccomp(const struct harden_seccomp *options, char *error, size_t error_len);

#endif
