// SPDX-License-Identifier: MIT
#include "engine/metrics.h"

// 1-2-5 steps from 5 microseconds to five minutes.
const uint32_t histogram_bound_us[HISTOGRAM_BUCKETS - 1] = {
    5,       10,       20,       50,       100,       200,       500,       1000,    2000,
    5000,    10000,    20000,    50000,    100000,    200000,    500000,    1000000, 2000000,
    5000000, 10000000, 20000000, 50000000, 100000000, 200000000, 300000000,
};

void histogram_add(struct histogram *histogram, uint64_t ns)
{
    uint64_t us = ns / 1000;
    int bucket = 0;
    while (bucket < HISTOGRAM_BUCKETS - 1 && us > histogram_bound_us[bucket])
        bucket++;
    count(&histogram->bucket[bucket]);
    count_add(&histogram->sum_ns, ns);
}
