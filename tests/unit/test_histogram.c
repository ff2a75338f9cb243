// SPDX-License-Identifier: MIT
//
// Proves that the histogram keeps every value to within one percent, whatever its size, that
// percentiles are ranks and not guesses, and that merging loses nothing.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "tools/histogram.h"

static struct histogram histogram, other;

static void clear(void)
{
    histogram_clear(&histogram);
    histogram_clear(&other);
}

TestSuite(histogram, .init = clear);

Test(histogram, empty_answers_zero)
{
    cr_assert_eq(histogram_percentile(&histogram, 50), 0);
    cr_assert_eq(histogram_percentile(&histogram, 100), 0);
    cr_assert_eq(histogram_mean(&histogram), 0);
}

Test(histogram, one_value_is_every_percentile)
{
    histogram_record(&histogram, 123456789);
    cr_assert_eq(histogram_percentile(&histogram, 0), 123456789);
    cr_assert_eq(histogram_percentile(&histogram, 50), 123456789);
    cr_assert_eq(histogram_percentile(&histogram, 100), 123456789);
    cr_assert_eq(histogram.min, 123456789);
    cr_assert_eq(histogram.max, 123456789);
    cr_assert_eq(histogram_mean(&histogram), 123456789);
}

Test(histogram, small_values_are_exact)
{
    for (uint64_t value = 0; value < 2 * HISTOGRAM_STEPS; value++)
        histogram_record(&histogram, value);
    for (uint64_t rank = 1; rank <= 2 * HISTOGRAM_STEPS; rank++) {
        double percent = 100.0 * (double)rank / (2 * HISTOGRAM_STEPS);
        cr_assert_eq(histogram_percentile(&histogram, percent), rank - 1);
    }
}

// The value is recorded among larger ones, so that its own bucket answers and not the maximum.
static void check_error(uint64_t value)
{
    histogram_clear(&histogram);
    histogram_record(&histogram, value);
    histogram_record(&histogram, HISTOGRAM_MAX);
    uint64_t found = histogram_percentile(&histogram, 50);
    cr_assert_geq(found, value);
    cr_assert_leq((double)(found - value), 0.01 * (double)value, "%llu was kept as %llu",
                  (unsigned long long)value, (unsigned long long)found);
}

Test(histogram, error_is_below_one_percent_at_every_size)
{
    for (int bit = 0; bit < HISTOGRAM_VALUE_BITS - 1; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        check_error(power);
        check_error(power - 1);
        check_error(power + 1);
        check_error(power + power / 3);
        check_error(power + power / 2 + power / 5);
    }
}

Test(histogram, values_beyond_the_range_count_and_keep_the_maximum)
{
    histogram_record(&histogram, UINT64_MAX / 4);
    histogram_record(&histogram, 1);
    cr_assert_eq(histogram.count, 2);
    cr_assert_eq(histogram.max, UINT64_MAX / 4);
    cr_assert_eq(histogram_percentile(&histogram, 100), UINT64_MAX / 4);
    cr_assert_eq(histogram_percentile(&histogram, 50), 1);
}

Test(histogram, percentiles_are_ranks)
{
    for (uint64_t value = 1; value <= 100; value++) // all exact
        histogram_record(&histogram, value);
    cr_assert_eq(histogram_percentile(&histogram, 1), 1);
    cr_assert_eq(histogram_percentile(&histogram, 50), 50);
    cr_assert_eq(histogram_percentile(&histogram, 90), 90);
    cr_assert_eq(histogram_percentile(&histogram, 99), 99);
    cr_assert_eq(histogram_percentile(&histogram, 99.9), 100);
    cr_assert_eq(histogram_percentile(&histogram, 100), 100);
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

Test(histogram, agrees_with_sorting)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < COUNT; i++) { // xorshift; sizes spread over nine decades
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        values[i] = (seed >> 20) >> (seed % 31);
        histogram_record(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, by_value);
    const double percents[] = {0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99};
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
        size_t rank = (size_t)ceil(percents[i] / 100.0 * COUNT);
        double exact = (double)values[rank - 1];
        double found = (double)histogram_percentile(&histogram, percents[i]);
        cr_assert_leq(fabs(found - exact), 0.01 * exact + 0.5, "p%g: %f, not %f", percents[i],
                      found, exact);
    }
}

Test(histogram, merge_is_recording_both)
{
    for (uint64_t value = 1; value < 5000; value += 3)
        histogram_record(&histogram, value * 1000);
    for (uint64_t value = 1; value < 9000; value += 2)
        histogram_record(&other, value * 77);
    static struct histogram both;
    histogram_clear(&both);
    for (uint64_t value = 1; value < 5000; value += 3)
        histogram_record(&both, value * 1000);
    for (uint64_t value = 1; value < 9000; value += 2)
        histogram_record(&both, value * 77);
    histogram_merge(&histogram, &other);
    cr_assert_arr_eq(&histogram, &both, sizeof both);
}

Test(histogram, merge_with_an_empty_one_changes_nothing)
{
    histogram_record(&histogram, 5);
    histogram_merge(&histogram, &other);
    cr_assert_eq(histogram.min, 5);
    cr_assert_eq(histogram.max, 5);
    histogram_merge(&other, &histogram);
    cr_assert_arr_eq(&other, &histogram, sizeof other);
}
