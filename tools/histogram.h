// SPDX-License-Identifier: MIT
//
// histogram: counts of durations, log-linear: each power of two is cut into HISTOGRAM_STEPS equal
// buckets, so a value is known to 1/128 (0.8 %) whatever its size, and recording it costs a shift
// and an add. Values below 128 are exact; those over HISTOGRAM_MAX are counted in the last
// bucket.
//
//   value    0 1 2 ... 127 | 128 129 ... 255 | 256 258 ... 510 | 512 516 ...
//   bucket   0 1 2 ... 127 | 128 129 ... 255 | 256 257 ... 383 | 384 385 ...
//   width    1             | 1               | 2               | 4
//
// One thread records; merge when it is done.
#ifndef TOOLS_HISTOGRAM_H
#define TOOLS_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 7,
    HISTOGRAM_STEPS = 1 << HISTOGRAM_STEP_BITS,
    HISTOGRAM_VALUE_BITS = 44, // 2^44 ns are close to five hours
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS,
};

#define HISTOGRAM_MAX ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t min, max; // exact; meaningless when count is 0
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

// The value that `percent` (0..100) of all values do not exceed: the upper end of its bucket,
// never more than the true maximum. 0 when nothing was recorded.
uint64_t histogram_percentile(const struct histogram *histogram, double percent);
double histogram_mean(const struct histogram *histogram);

#endif
