// SPDX-License-Identifier: MIT
#include "tools/cputime.h"

#include <dirent.h>
#include <stdio.h>

static bool task_read(const char *folder, const char *task, uint64_t *ns)
{
    char path[320];
    snprintf(path, sizeof path, "%s/%s/schedstat", folder, task);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    unsigned long long run;
    bool ok = fscanf(file, "%llu", &run) == 1;
    fclose(file);
    if (ok)
        *ns += run;
    return ok;
}

bool cputime_read(uint64_t pid, uint64_t *ns)
{
    char folder[64];
    if (pid)
        snprintf(folder, sizeof folder, "/proc/%llu/task", (unsigned long long)pid);
    else
        snprintf(folder, sizeof folder, "/proc/self/task");
    *ns = 0;
    DIR *tasks = opendir(folder);
    if (!tasks)
        return false;
    bool any = false;
    for (struct dirent *entry; (entry = readdir(tasks));)
        if (entry->d_name[0] != '.')
            any |= task_read(folder, entry->d_name, ns);
    closedir(tasks);
    return any;
}
