// SPDX-License-Identifier: MIT
#include "tools/cputime.h"

#include <dirent.h>
#include <stdio.h>
#include <time.h>

uint64_t cputime_self(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static bool task_read(const char *folder, const char *task, uint64_t *ns)
{
    char path[400];
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
    snprintf(folder, sizeof folder, "/proc/%llu/task", (unsigned long long)pid);
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
