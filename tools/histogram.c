// SPDX-License-Identifier: MIT
#include "tools/histogram.h"

#include <string.h>

#include "alloc/check.h"

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->min = UINT64_MAX;
}

static uint32_t bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (uint32_t)value;
    if (value > HISTOGRAM_MAX)
        value = HISTOGRAM_MAX;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return (shift + 1) * HISTOGRAM_STEPS + (uint32_t)((value >> shift) & (HISTOGRAM_STEPS - 1));
}

// The largest value that falls into the bucket.
static uint64_t bucket_end(uint32_t bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t step = HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS;
    return ((step + 1) << shift) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    uint32_t bucket = bucket_of(value);
    CHECK(bucket < HISTOGRAM_BUCKETS);
    histogram->bucket[bucket]++;
    histogram->count++;
    histogram->sum += value;
    if (value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    if (histogram->count == 0)
        return 0;
    // The rank of the value wanted, counted from 1.
    double exact = percent / 100.0 * (double)histogram->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact || rank == 0)
        rank++;
    if (rank >= histogram->count)
        return histogram->max;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen >= rank) {
            uint64_t end = bucket_end(i);
            return end < histogram->max ? end : histogram->max;
        }
    }
    CHECK(!"the buckets hold every value");
    return 0;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
}
