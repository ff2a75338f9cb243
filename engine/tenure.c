// SPDX-License-Identifier: MIT
#include "engine/tenure.h"

#include <stdatomic.h>

#include "alloc/check.h"
#include "alloc/heap.h"

void tenures_open(struct tenures *tenures)
{
    list_init(&tenures->all);
    tenures->count = 0;
}

struct tenure *tenure_begin(struct tenures *tenures, const struct config *config,
                            struct config *owned, struct trust *trust, uint32_t holders)
{
    struct tenure *tenure = heap_alloc(sizeof *tenure);
    tenure->config = config;
    tenure->owned = owned;
    tenure->trust = trust;
    atomic_init(&tenure->holders, holders);
    list_init(&tenure->all);
    list_push_back(&tenures->all, &tenure->all);
    tenures->count++;
    return tenure;
}

uint32_t tenures_sweep(struct tenures *tenures, const struct tenure *current)
{
    for (struct list *next, *node = tenures->all.next; node != &tenures->all; node = next) {
        next = node->next;
        struct tenure *tenure = LIST_OWNER(node, struct tenure, all);
        if (tenure == current || atomic_load_explicit(&tenure->holders, memory_order_acquire) > 0)
            continue;
        list_remove(&tenure->all);
        tenures->count--;
        trust_close(tenure->trust);
        config_free(tenure->owned);
        heap_free(tenure);
    }
    return tenures->count;
}
