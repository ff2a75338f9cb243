// SPDX-License-Identifier: MIT
//
// From one config to the next while the process runs: what cannot change stays, and every provider
// keeps its place in what the cores keep about it.
#include <stdio.h>
#include <string.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config_reader.h"

// ---- what stays ----

// Written into rings, pools, threads and the process at start.
static const char *const fixed[] = {
    "user", "seccomp", "admin", "workers", "ring-entries", "buffers", "buffer-size", "congestion",
};

static void keep_text(char **next, const char *current)
{
    heap_free(*next);
    *next = current ? heap_copy(current) : NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

// A field of plain numbers, or a text that the config owns.
static bool keep_field(struct config *next, const struct config *current,
                       const struct config_option *option)
{
    void *to = (uint8_t *)next + option->offset;
    const void *from = (const uint8_t *)current + option->offset;
    if (option->type == OPTION_TEXT) {
        char **text = to;
        const char *old = *(char *const *)from;
        bool same = same_text(*text, old);
        if (!same)
            keep_text(text, old);
        return same;
    }
    bool same = memcmp(to, from, option->width) == 0;
    memcpy(to, from, option->width);
    return same;
}

static bool keep_admin(struct config *next, const struct config *current)
{
    bool same = strcmp(next->admin.text, current->admin.text) == 0;
    next->admin = current->admin;
    return same;
}

static void name_kept(const char *flag, char *kept, size_t kept_len)
{
    size_t len = strlen(kept);
    snprintf(kept + len, kept_len - len, "%s%s", len ? ", " : "", flag);
}

static void keep_fixed(struct config *next, const struct config *current, char *kept,
                       size_t kept_len)
{
    bool same_workers = next->workers == current->workers; // or the list of CPUs differs anyway
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        const struct config_option *option = config_option_flag(fixed[i], strlen(fixed[i]));
        CHECK(option != NULL);
        bool same = option->read == config_read_admin ? keep_admin(next, current)
                                                      : keep_field(next, current, option);
        if (!same)
            name_kept(fixed[i], kept, kept_len);
    }
    if (same_workers && memcmp(next->cpu, current->cpu, sizeof(next->cpu)) != 0)
        name_kept("cpus", kept, kept_len);
    memcpy(next->cpu, current->cpu, sizeof(next->cpu));
    if (next->window_bytes < next->buffer_size)
        next->window_bytes = next->buffer_size;
}

// ---- slots and generations ----

static bool has_address(const struct config_provider *provider, const struct config_address *wanted)
{
    for (uint32_t i = 0; i < provider->address_count; i++)
        if (strcmp(provider->address[i].text, wanted->text) == 0)
            return true;
    return false;
}

// The same place, spoken to in the same way? A resolver turns its addresses round: order is
// nothing.
static bool same_place(const struct config_provider *a, const struct config_provider *b)
{
    if (a->kind != b->kind || a->auth != b->auth || a->tls != b->tls || a->port != b->port ||
        strcmp(a->authority, b->authority) != 0 || strcmp(a->host, b->host) != 0 ||
        !same_text(a->api_key, b->api_key) || !same_text(a->ca_file, b->ca_file) ||
        !same_text(a->client_cert, b->client_cert) || !same_text(a->client_key, b->client_key) ||
        a->address_count != b->address_count)
        return false;
    for (uint32_t i = 0; i < a->address_count; i++)
        if (!has_address(b, &a->address[i]))
            return false;
    return true;
}

static int slot_named(const struct config_slots *slots, const char *name)
{
    for (int i = 0; i < CONFIG_PROVIDERS_MAX; i++)
        if (strcmp(slots->name[i], name) == 0)
            return i;
    return -1;
}

// One that nobody ever had, or else one whose owner is not in `next` any more.
static int slot_free(const struct config_slots *slots, const struct config *next)
{
    int slot = slot_named(slots, "");
    for (int i = 0; slot < 0 && i < CONFIG_PROVIDERS_MAX; i++)
        if (config_provider_find(next, slots->name[i], strlen(slots->name[i])) < 0)
            slot = i;
    CHECK(slot >= 0); // as many slots as providers
    return slot;
}

void config_succeed(struct config *next, const struct config *current, struct config_slots *slots,
                    char *kept, size_t kept_len)
{
    kept[0] = 0;
    if (current)
        keep_fixed(next, current, kept, kept_len);
    for (uint32_t i = 0; i < next->provider_count; i++) {
        struct config_provider *provider = &next->provider[i];
        int slot = slot_named(slots, provider->name);
        if (slot < 0) {
            slot = slot_free(slots, next);
            memcpy(slots->name[slot], provider->name, sizeof(provider->name));
        }
        provider->slot = (uint16_t)slot;
        int before =
            current ? config_provider_find(current, provider->name, strlen(provider->name)) : -1;
        if (before >= 0 && same_place(&current->provider[before], provider))
            provider->generation = current->provider[before].generation;
        else
            provider->generation = ++slots->generation;
    }
}
