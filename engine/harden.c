// SPDX-License-Identifier: MIT
//
// The user and the flags of the process; the filter is in harden_seccomp.c.
#include "engine/harden.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 64, GROUPS_MAX = 1024 };

struct identity {
    char user[NAME_MAX_BYTES], group[NAME_MAX_BYTES]; // as given; group may be empty
    char login[NAME_MAX_BYTES];                       // in the user database; empty: not in there
    uid_t uid;
    gid_t gid;
};

__attribute__((format(printf, 3, 4))) static bool failed(char *error, size_t error_len,
                                                         const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_len, format, arguments);
    va_end(arguments);
    return false;
}

// ----------------------------------------------------------------------------------------- lookup

// The highest number is left out: to setresuid() it means "leave it as it is".
static bool read_number(const char *text, uint32_t *number)
{
    uint64_t value = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *number = (uint32_t)value;
    return value < UINT32_MAX;
}

static bool split(struct identity *id, const char *text, char *error, size_t error_len)
{
    const char *colon = strchr(text, ':');
    size_t user_len = colon ? (size_t)(colon - text) : strlen(text);
    const char *group = colon ? colon + 1 : "";
    if (user_len == 0 || user_len >= sizeof id->user || strlen(group) >= sizeof id->group ||
        (colon && !*group))
        return failed(error, error_len,
                      "cannot read the user \"%s\": write a name, name:group, or numbers", text);
    memcpy(id->user, text, user_len);
    memcpy(id->group, group, strlen(group));
    return true;
}

static bool find_user(struct identity *id, char *error, size_t error_len)
{
    struct passwd *entry = getpwnam(id->user);
    uint32_t number;
    if (!entry && read_number(id->user, &number)) {
        id->uid = number;
        entry = getpwuid(number);
        if (!entry && id->group[0])
            return true; // a number that nobody has, with a group: fine in a container
        if (!entry)
            return failed(error, error_len,
                          "user %s is in no user database: give its group too, as in %s:%s",
                          id->user, id->user, id->user);
    }
    if (!entry)
        return failed(error, error_len,
                      "there is no user \"%s\": make it with `useradd --system --no-create-home "
                      "%s`, or name another",
                      id->user, id->user);
    id->uid = entry->pw_uid;
    id->gid = entry->pw_gid;
    snprintf(id->login, sizeof id->login, "%s", entry->pw_name);
    return true;
}

static bool find_group(struct identity *id, char *error, size_t error_len)
{
    uint32_t number;
    if (!id->group[0])
        return true; // the user's own
    struct group *entry = getgrnam(id->group);
    if (entry)
        id->gid = entry->gr_gid;
    else if (read_number(id->group, &number))
        id->gid = number;
    else
        return failed(error, error_len,
                      "there is no group \"%s\": make it with `groupadd --system %s`, or name "
                      "another",
                      id->group, id->group);
    return true;
}

// ------------------------------------------------------------------------------------ becoming it

static bool is_identity(const struct identity *id)
{
    uid_t real, effective, saved;
    gid_t real_group, effective_group, saved_group;
    if (getresuid(&real, &effective, &saved) != 0 ||
        getresgid(&real_group, &effective_group, &saved_group) != 0)
        return false;
    return real == id->uid && effective == id->uid && saved == id->uid && real_group == id->gid &&
           effective_group == id->gid && saved_group == id->gid;
}

// No library: two system calls, and they are per thread, which is why threads come later.
static bool keep_capability(unsigned capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    data[capability / 32].effective = 1u << capability % 32;
    data[capability / 32].permitted = 1u << capability % 32;
    data[capability / 32].inheritable = 1u << capability % 32;
    // Ambient too, so that a new binary that takes over by exec has it.
    return syscall(SYS_capset, &header, data) == 0 &&
           prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0;
}

// Groups first: without root they could not be changed any more.
static bool become(const struct identity *id, bool keep_ports)
{
    int groups =
        id->login[0] && !id->group[0] ? initgroups(id->login, id->gid) : setgroups(1, &id->gid);
    if (groups != 0 || setresgid(id->gid, id->gid, id->gid) != 0)
        return false;
    if (keep_ports && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
        return false;
    if (setresuid(id->uid, id->uid, id->uid) != 0)
        return false;
    return !keep_ports || keep_capability(CAP_NET_BIND_SERVICE);
}

// What was asked for, asked back: nothing of root may be left.
static const char *left_over(const struct identity *id, bool keep_ports)
{
    gid_t groups[GROUPS_MAX];
    int count = getgroups(GROUPS_MAX, groups);
    if (!is_identity(id))
        return "a user or group id of before";
    if (count < 0)
        return "a list of groups too long to check";
    for (int i = 0; i < count; i++)
        if (groups[i] == 0 && id->gid != 0)
            return "the group root";
    if (setuid(0) == 0 || seteuid(0) == 0)
        return "a way back to root";
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    uint32_t wanted = keep_ports ? 1u << CAP_NET_BIND_SERVICE : 0;
    if (syscall(SYS_capget, &header, data) != 0 || data[0].permitted != wanted ||
        data[1].permitted != 0)
        return "a capability of root";
    return NULL;
}

bool harden_user(const char *user, bool keep_ports, char *error, size_t error_len)
{
    struct identity id = {0};
    if (!split(&id, user, error, error_len) || !find_user(&id, error, error_len) ||
        !find_group(&id, error, error_len))
        return false;
    if (id.uid == 0)
        return failed(error, error_len, "user \"%s\" is root: name one without rights", user);
    if (is_identity(&id))
        return true;
    if (geteuid() != 0)
        return failed(error, error_len,
                      "cannot become \"%s\": only root can. Start as root, or as that user and "
                      "without naming one",
                      user);
    if (!become(&id, keep_ports))
        return failed(error, error_len,
                      "cannot become \"%s\": %s. If this is root in a container, give it the "
                      "capabilities SETUID and SETGID%s, or start it as that user",
                      user, strerror(errno), keep_ports ? " and NET_BIND_SERVICE" : "");
    const char *left = left_over(&id, keep_ports);
    if (left)
        return failed(error, error_len,
                      "became \"%s\", but kept %s: start as that user instead (User= in the "
                      "systemd unit)",
                      user, left);
    return true;
}

// ---------------------------------------------------------------------------------------- process

bool harden_process(char *error, size_t error_len)
{
    // A pipe in kernel.core_pattern is not bound by the limit; that is what the flag is for.
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return failed(error, error_len, "cannot forbid core files: %s", strerror(errno));
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return failed(error, error_len, "cannot forbid debuggers: %s", strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return failed(error, error_len, "cannot set no_new_privs: %s", strerror(errno));
    return true;
}
