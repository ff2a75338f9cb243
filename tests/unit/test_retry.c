// SPDX-License-Identifier: MIT
//
// Proves that nothing is sent twice that may have been acted on unless the route permits it,
// nothing at all once the client has a byte, that pauses stay within their bounds, and that retries
// cannot outgrow their budget. PAINS: 9, 10, 21, 24, and of the extras: the hanging provider, the
// Idempotency-Key, retry only what failed before the request was accepted.
#include <criterion/criterion.h>
#include <string.h>

#include "engine/retry.h"
#include "tests/unit/edge.h"

static const struct retry_policy *const policy = &retry_policy_default;

static uint64_t dice_state;

static uint64_t dice(void) // xorshift
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state;
}

// A first attempt at a POST that can be sent again, on a default route with another target.
static struct retry_attempt first(enum retry_event event, unsigned status)
{
    return (struct retry_attempt){
        .event = (uint8_t)event,
        .status = (uint16_t)status,
        .number = 1,
        .our_key = true,
        .body_kept = true,
        .other_target = true,
        .retry_after = RETRY_AFTER_NONE,
        .left_ms = UINT64_MAX,
    };
}

static void expect(const struct retry_attempt *attempt, enum retry_act act, enum retry_why why)
{
    struct retry_decision got = retry_decide(policy, attempt, 0);
    cr_assert_eq(got.why, why, "event %u status %u permission %u: %s, not %s", attempt->event,
                 attempt->status, attempt->permission, retry_why_name((enum retry_why)got.why),
                 retry_why_name(why));
    cr_assert_eq(got.act, act, "event %u status %u permission %u", attempt->event, attempt->status,
                 attempt->permission);
}

// ------------------------------------------------------------------------------------- the tables

// What happened; whether it may have been acted on; whether the same target can be asked again.
static const struct row {
    enum retry_event event;
    unsigned status;
    bool acted_on, same;
} failing[] = {
    {RETRY_CONNECT_FAILED, 0, false, true},    {RETRY_TIMEOUT_CONNECT, 0, false, true},
    {RETRY_NO_CONNECTION, 0, false, false},    {RETRY_RESET_FRESH, 0, true, true},
    {RETRY_TIMEOUT_FIRST_BYTE, 0, true, true}, {RETRY_TIMEOUT_IDLE, 0, true, true},
    {RETRY_PROTOCOL, 0, true, true},           {RETRY_TRUNCATED, 0, true, true},
    {RETRY_STATUS, 408, false, true},          {RETRY_STATUS, 429, false, true},
    {RETRY_STATUS, 503, false, true},          {RETRY_STATUS, 529, false, true},
    {RETRY_STATUS, 500, true, true},           {RETRY_STATUS, 502, true, true},
    {RETRY_STATUS, 504, true, true},           {RETRY_STATUS, 520, true, true},
    {RETRY_STATUS, 401, false, false},         {RETRY_STATUS, 402, false, false},
    {RETRY_STATUS, 403, false, false},         {RETRY_FIRST_EVENT, 429, false, true},
    {RETRY_FIRST_EVENT, 500, false, true},     {RETRY_FIRST_EVENT, 504, false, true},
    {RETRY_FIRST_EVENT, 529, false, true},     {RETRY_FIRST_EVENT, 401, false, false},
};
enum { FAILING = sizeof failing / sizeof *failing };

Test(retry, by_default_only_what_was_not_acted_on_goes_to_the_next_target)
{
    for (unsigned i = 0; i < FAILING; i++) {
        struct retry_attempt attempt = first(failing[i].event, failing[i].status);
        if (failing[i].acted_on)
            expect(&attempt, RETRY_NO, RETRY_WHY_ACTED_ON);
        else
            expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
        attempt.has_key = true; // the default does not look at it
        if (failing[i].acted_on)
            expect(&attempt, RETRY_NO, RETRY_WHY_ACTED_ON);
    }
}

Test(retry, a_route_that_says_always_and_the_methods_get_and_head_permit_everything)
{
    for (unsigned i = 0; i < FAILING; i++)
        for (int by_method = 0; by_method <= 1; by_method++) {
            struct retry_attempt attempt = first(failing[i].event, failing[i].status);
            attempt.permission = by_method ? RETRY_SAFE : RETRY_ALWAYS;
            attempt.method_is_safe = by_method;
            expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
        }
}

// The key means nothing to another provider: what may have been acted on stays where it was.
Test(retry, an_idempotency_key_permits_the_same_target_where_the_route_says_so)
{
    for (unsigned i = 0; i < FAILING; i++) {
        struct retry_attempt attempt = first(failing[i].event, failing[i].status);
        attempt.permission = RETRY_IDEMPOTENT;
        if (failing[i].acted_on)
            expect(&attempt, RETRY_NO, RETRY_WHY_ACTED_ON);
        attempt.has_key = true;
        expect(&attempt, failing[i].acted_on ? RETRY_SAME : RETRY_NEXT, RETRY_WHY_YES);
    }
}

Test(retry, without_another_target_the_same_one_is_asked_again_if_that_can_help)
{
    for (unsigned i = 0; i < FAILING; i++) {
        struct retry_attempt attempt = first(failing[i].event, failing[i].status);
        attempt.permission = RETRY_ALWAYS;
        attempt.other_target = false;
        if (failing[i].same)
            expect(&attempt, RETRY_SAME, RETRY_WHY_YES);
        else
            expect(&attempt, RETRY_NO, RETRY_WHY_NO_TARGET);
    }
}

Test(retry, a_caller_that_can_prove_that_nothing_left_may_go_on)
{
    for (unsigned i = 0; i < FAILING; i++) {
        struct retry_attempt attempt = first(failing[i].event, failing[i].status);
        attempt.not_acted_on = true;
        expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
    }
}

Test(retry, what_is_the_clients_fault_or_no_failure_is_the_answer)
{
    static const unsigned final[] = {200, 204, 304, 400, 404, 405, 409, 413, 415, 422, 451, 501};
    for (unsigned i = 0; i < sizeof final / sizeof *final; i++)
        for (int event = RETRY_STATUS; event <= RETRY_FIRST_EVENT; event++) {
            struct retry_attempt attempt = first((enum retry_event)event, final[i]);
            attempt.permission = RETRY_ALWAYS;
            expect(&attempt, RETRY_NO, RETRY_WHY_FINAL);
        }
}

Test(retry, a_refused_key_of_the_clients_own_is_the_answer)
{
    for (unsigned status = 401; status <= 403; status++) {
        struct retry_attempt attempt = first(RETRY_STATUS, status);
        attempt.our_key = false;
        expect(&attempt, RETRY_NO, RETRY_WHY_FINAL);
    }
}

// ---------------------------------------------------------------------------------- never, however

// Every event, every permission, every other input: PAINS 9.
Test(retry, nothing_follows_the_first_byte_to_the_client)
{
    dice_state = 4711;
    for (unsigned i = 0; i < 200000; i++) {
        struct retry_attempt attempt = {
            .event = (uint8_t)(dice() % RETRY_EVENT_COUNT),
            .permission = (uint8_t)(dice() % 3),
            .status = (uint16_t)(100 + dice() % 500),
            .number = 1 + (uint32_t)(dice() % 4),
            .our_key = dice() % 2,
            .not_acted_on = dice() % 2,
            .method_is_safe = dice() % 2,
            .has_key = dice() % 2,
            .client_has_byte = dice() % 2,
            .body_kept = dice() % 4 != 0,
            .other_target = dice() % 2,
            .retry_after = dice() % 2 ? RETRY_AFTER_NONE : dice() % 60000,
            .left_ms = dice() % 2 ? UINT64_MAX : dice() % 60000,
        };
        struct retry_decision got = retry_decide(policy, &attempt, dice());
        cr_assert_eq(got.act != RETRY_NO, got.why == RETRY_WHY_YES);
        if (attempt.client_has_byte)
            cr_assert_eq(got.why, RETRY_WHY_ANSWERED);
        if (got.act == RETRY_NO)
            continue;
        cr_assert(!attempt.client_has_byte);
        cr_assert(attempt.body_kept);
        cr_assert(got.free || attempt.number < policy->attempts_max);
        cr_assert(got.act != RETRY_NEXT || attempt.other_target);
        cr_assert(got.act != RETRY_NEXT || got.delay_ms == 0);
        cr_assert_lt(got.delay_ms, attempt.left_ms);
        cr_assert_leq(got.delay_ms, policy->retry_after_max_ms + policy->backoff_max_ms);
        cr_assert(!got.free || attempt.event == RETRY_RESET_REUSED);
    }
}

Test(retry, without_the_requests_bytes_there_is_no_second_attempt)
{
    for (unsigned i = 0; i < FAILING; i++) {
        struct retry_attempt attempt = first(failing[i].event, failing[i].status);
        attempt.permission = RETRY_ALWAYS;
        attempt.body_kept = false;
        expect(&attempt, RETRY_NO, RETRY_WHY_BODY);
    }
}

Test(retry, attempts_are_counted_from_one_to_the_bound)
{
    struct retry_policy once = *policy;
    once.attempts_max = 1;
    struct retry_attempt attempt = first(RETRY_CONNECT_FAILED, 0);
    cr_assert_eq(retry_decide(&once, &attempt, 0).why, RETRY_WHY_ATTEMPTS);
    attempt.number = 2;
    expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
    attempt.number = 3;
    expect(&attempt, RETRY_NO, RETRY_WHY_ATTEMPTS);
    attempt.number = UINT32_MAX;
    expect(&attempt, RETRY_NO, RETRY_WHY_ATTEMPTS);
}

// PAINS 24: it costs neither an attempt nor a pause nor budget, and it stays where it was.
Test(retry, a_stale_connection_costs_nothing)
{
    struct retry_policy once = *policy;
    once.attempts_max = 1;
    struct retry_attempt attempt = first(RETRY_RESET_REUSED, 0);
    for (uint32_t number = 1; number <= 3; number++) {
        attempt.number = number;
        struct retry_decision got = retry_decide(&once, &attempt, UINT64_MAX);
        cr_assert_eq(got.act, RETRY_SAME);
        cr_assert_eq(got.delay_ms, 0);
        cr_assert(got.free);
    }
    attempt.body_kept = false;
    expect(&attempt, RETRY_NO, RETRY_WHY_BODY);
}

// -------------------------------------------------------------------------------------------
// pauses

Test(retry, pauses_double_up_to_the_cap_with_full_jitter)
{
    static const uint32_t steps[] = {250, 500, 1000, 2000, 4000, 8000, 8000, 8000};
    struct retry_policy many = *policy;
    many.attempts_max = 100;
    struct retry_attempt attempt = first(RETRY_CONNECT_FAILED, 0);
    attempt.other_target = false;
    for (uint32_t n = 1; n <= 8; n++) {
        attempt.number = n;
        cr_assert_eq(retry_decide(&many, &attempt, 0).delay_ms, 0);
        cr_assert_eq(retry_decide(&many, &attempt, steps[n - 1]).delay_ms, steps[n - 1]);
        cr_assert_eq(retry_decide(&many, &attempt, steps[n - 1] + 1).delay_ms, 0);
        uint64_t sum = 0;
        dice_state = 99 + n;
        for (unsigned i = 0; i < 10000; i++)
            sum += retry_decide(&many, &attempt, dice()).delay_ms;
        cr_assert_float_eq(sum / 10000.0, steps[n - 1] / 2.0, steps[n - 1] * 0.02);
    }
    attempt.number = 99;
    cr_assert_eq(retry_decide(&many, &attempt, 8000).delay_ms, 8000);
}

// PAINS 21: honoured, capped, and failed over instead of waited for where there is another target.
Test(retry, retry_after_is_honoured_up_to_the_cap)
{
    struct retry_attempt attempt = first(RETRY_STATUS, 429);
    attempt.retry_after = 30000;
    expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
    attempt.other_target = false;
    struct retry_decision got = retry_decide(policy, &attempt, 0);
    cr_assert_eq(got.act, RETRY_SAME);
    cr_assert_eq(got.delay_ms, 30000);
    cr_assert_eq(retry_decide(policy, &attempt, 250).delay_ms, 30250);
    cr_assert_eq(retry_decide(policy, &attempt, 251).delay_ms, 30000);
    attempt.retry_after = 30001;
    expect(&attempt, RETRY_NO, RETRY_WHY_RETRY_AFTER);
    attempt.retry_after = RETRY_AFTER_NONE - 1; // "capped absurd values"
    expect(&attempt, RETRY_NO, RETRY_WHY_RETRY_AFTER);
    attempt.other_target = true;
    expect(&attempt, RETRY_NEXT, RETRY_WHY_YES);
    attempt.other_target = false;
    attempt.retry_after = 0;
    cr_assert_eq(retry_decide(policy, &attempt, 0).delay_ms, 0);
}

Test(retry, no_pause_outlasts_the_exchange)
{
    struct retry_attempt attempt = first(RETRY_STATUS, 429);
    attempt.other_target = false;
    attempt.retry_after = 5000;
    attempt.left_ms = 5000;
    expect(&attempt, RETRY_NO, RETRY_WHY_DEADLINE);
    attempt.left_ms = 5001;
    expect(&attempt, RETRY_SAME, RETRY_WHY_YES);
    attempt.other_target = true;
    attempt.left_ms = 0;
    expect(&attempt, RETRY_NO, RETRY_WHY_DEADLINE);
}

Test(retry, reasons_have_names)
{
    static const char *const names[] = {"yes",      "answered", "body",      "final",
                                        "attempts", "acted_on", "no_target", "retry_after",
                                        "deadline", "budget"};
    for (unsigned i = 0; i < RETRY_WHY_COUNT; i++)
        cr_assert_str_eq(retry_why_name((enum retry_why)i), names[i]);
}

// --------------------------------------------------------------------------------------
// Retry-After

static uint64_t parse(const char *text, uint64_t now_ms)
{
    size_t len = strlen(text);
    return retry_after_ms(span_of(edge_put(text, len), len), now_ms);
}

Test(retry_after, seconds)
{
    cr_assert_eq(parse("0", 0), 0);
    cr_assert_eq(parse("7", 12345), 7000);
    cr_assert_eq(parse("120", 0), 120000);
    cr_assert_eq(parse("007", 0), 7000);
    cr_assert_eq(parse("1.5", 0), 1500);
    cr_assert_eq(parse("0.25", 0), 250);
    cr_assert_eq(parse("2.0", 0), 2000);
    cr_assert_eq(parse("0.0004", 0), 1);
    cr_assert_eq(parse("7.660000000000000000000000000001", 0), 7661);
    cr_assert_eq(parse("1000000000", 0), 1000000000000u);
    cr_assert_eq(parse("1000000001", 0), 1000000000000u);
    cr_assert_eq(parse("99999999999999999999999999999999", 0), 1000000000000u);
}

Test(retry_after, the_three_forms_of_a_date)
{
    const uint64_t at = 784111777000; // Sun, 06 Nov 1994 08:49:37 GMT
    static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                        "Sunday, 06-Nov-94 08:49:37 GMT",
                                        "Sun Nov  6 08:49:37 1994"};
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(parse(forms[i], at - 5000), 5000, "%s", forms[i]);
        cr_assert_eq(parse(forms[i], at - 1), 1, "%s", forms[i]);
        cr_assert_eq(parse(forms[i], at), 0, "%s", forms[i]);
        cr_assert_eq(parse(forms[i], at + 1000), 0, "%s", forms[i]);
    }
    cr_assert_eq(parse("Wed Nov 16 08:49:37 1994", at), 864000000);
}

Test(retry_after, calendar_edges)
{
    cr_assert_eq(parse("Thu, 01 Jan 1970 00:00:01 GMT", 0), 1000);
    cr_assert_eq(parse("Thu, 29 Feb 2024 00:00:00 GMT", 0), 1709164800000u);
    cr_assert_eq(parse("Fri, 01 Mar 2024 00:00:00 GMT", 0), 1709251200000u);
    cr_assert_eq(parse("Tue, 29 Feb 2000 12:00:00 GMT", 0), 951825600000u);
    cr_assert_eq(parse("Sat, 31 Dec 2016 23:59:60 GMT", 0), 1483228800000u);
    cr_assert_eq(parse("Sun, 31 Dec 2023 23:59:59 GMT", 0), 1704067199000u);
    cr_assert_eq(parse("Mon, 01 Mar 2100 00:00:00 GMT", 0), 4107542400000u);
    cr_assert_eq(parse("Wed, 31 Dec 1969 23:59:59 GMT", 0), 0);
    cr_assert_eq(parse("Mon, 01 Jan 0000 00:00:00 GMT", 5), 0);
    cr_assert_eq(parse("Fri, 31 Dec 9999 23:59:59 GMT", 0), 253402300799000u);
}

// RFC 9110 section 5.6.7: more than fifty years ahead means the century before.
Test(retry_after, years_of_two_digits)
{
    const uint64_t in_2026 = 1767225600000, in_2099 = 4070908800000, in_2080 = 3471292800000;
    cr_assert_eq(parse("Wednesday, 01-Jan-76 00:00:00 GMT", in_2026), 3345062400000u - in_2026);
    cr_assert_eq(parse("Saturday, 01-Jan-77 00:00:00 GMT", in_2026), 0);
    cr_assert_eq(parse("Sunday, 01-Jan-02 00:00:00 GMT", in_2099), 4165516800000u - in_2099);
    cr_assert_eq(parse("Friday, 01-Jan-99 00:00:00 GMT", in_2026), 0);
    cr_assert_eq(parse("Wednesday, 01-Jan-10 00:00:00 GMT", in_2080), 4417977600000u - in_2080);
    cr_assert_eq(parse("Sunday, 01-Jan-80 00:00:00 GMT", in_2080 - 1000), 1000);
    // Christmas: the leap days since 1970 are more than the days that are left of the year.
    cr_assert_eq(parse("Saturday, 01-Jan-77 00:00:00 GMT", 1798156800000u), 0);
    (void)parse("Sunday, 01-Jan-80 00:00:00 GMT", UINT64_MAX); // a mad clock ends, too
}

Test(retry_after, what_is_neither_is_none)
{
    static const char *const none[] = {"",
                                       " ",
                                       "-1",
                                       "+1",
                                       "1 ",
                                       " 1",
                                       "1s",
                                       "1.",
                                       ".5",
                                       "1.5.1",
                                       "1e3",
                                       "0x10",
                                       "soon",
                                       "Sun",
                                       "Sun, 06 Nov 1994 08:49:37",
                                       "Sun, 06 Nov 1994 08:49:37 GMT ",
                                       "Sun, 06 Nov 1994 08:49:37 UTC",
                                       "Sun, 6 Nov 1994 08:49:37 GMT",
                                       "Sun, 06 nov 1994 08:49:37 GMT",
                                       "Sun, 31 Nov 1994 08:49:37 GMT",
                                       "Sun, 00 Nov 1994 08:49:37 GMT",
                                       "Wed, 29 Feb 2023 00:00:00 GMT",
                                       "Mon, 29 Feb 2100 00:00:00 GMT",
                                       "Sun, 06 Nov 1994 24:00:00 GMT",
                                       "Sun, 06 Nov 1994 08:60:00 GMT",
                                       "Sun, 06 Nov 1994 08:49:61 GMT",
                                       "Sunday, 06-Nov-1994 08:49:37 GMT",
                                       "Sun Nov 6 08:49:37 1994",
                                       "Sun Nov  6 08:49:37 1994 GMT"};
    for (unsigned i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert_eq(parse(none[i], 0), RETRY_AFTER_NONE, "\"%s\"", none[i]);
}

// Cut at every byte and with every byte replaced, against an unreadable page: no answer is absurd.
Test(retry_after, torn_and_spoiled_dates_are_read_within_their_bytes)
{
    static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                        "Sunday, 06-Nov-94 08:49:37 GMT",
                                        "Sun Nov  6 08:49:37 1994", "120.125"};
    for (unsigned f = 0; f < 4; f++) {
        size_t len = strlen(forms[f]);
        for (size_t cut = 0; cut < len; cut++) {
            uint64_t got = retry_after_ms(span_of(edge_put(forms[f], cut), cut), 0);
            cr_assert(f == 3 || got == RETRY_AFTER_NONE, "%.*s", (int)cut, forms[f]);
        }
        for (size_t at = 0; at < len; at++)
            for (unsigned byte = 0; byte < 256; byte++) {
                char spoiled[64];
                memcpy(spoiled, forms[f], len);
                spoiled[at] = (char)byte;
                uint64_t got = retry_after_ms(span_of(edge_put(spoiled, len), len), 0);
                cr_assert(got == RETRY_AFTER_NONE || got < 400000000000000u);
            }
    }
}

// Every day of 400 years by a calendar that walks.
Test(retry_after, agrees_with_a_calendar_that_walks)
{
    static const char *const names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t days = 0;
    for (unsigned year = 1970; year < 2370; year++)
        for (unsigned month = 0; month < 12; month++) {
            unsigned length = month == 3 || month == 5 || month == 8 || month == 10 ? 30 : 31;
            bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            if (month == 1)
                length = leap ? 29 : 28;
            for (unsigned day = 1; day <= length; day++, days++) {
                char text[64];
                snprintf(text, sizeof text, "Sun, %02u %s %04u 00:00:00 GMT", day, names[month],
                         year);
                cr_assert_eq(parse(text, 0), days * 86400000, "%s", text);
            }
        }
}

// ---------------------------------------------------------------------------------------- the
// budget

static unsigned take_all(struct retry_budget *budget, uint64_t now_ms)
{
    unsigned taken = 0;
    while (taken < 100000 && retry_budget_take(budget, now_ms))
        taken++;
    return taken;
}

Test(retry_budget, a_share_of_the_traffic_and_a_floor)
{
    for (unsigned requests = 0; requests <= 5000; requests += 7) {
        struct retry_budget budget;
        retry_budget_init(&budget, RETRY_BUDGET_PERCENT, RETRY_BUDGET_PER_SECOND);
        for (unsigned i = 0; i < requests; i++)
            retry_budget_request(&budget, 1000 + i % 1000);
        cr_assert_eq(take_all(&budget, 2000), requests / 5 + 100);
        cr_assert_eq(budget.denied, 1);
    }
}

Test(retry_budget, what_was_taken_comes_back_when_it_slides_out)
{
    struct retry_budget budget;
    retry_budget_init(&budget, 0, 1);
    cr_assert_eq(take_all(&budget, 1500), 10);
    cr_assert_eq(take_all(&budget, 10999), 0);
    cr_assert_eq(take_all(&budget, 11000), 10);
}

Test(retry_budget, nothing_at_all_when_both_are_zero)
{
    struct retry_budget budget;
    retry_budget_init(&budget, 0, 0);
    for (unsigned i = 0; i < 1000; i++)
        retry_budget_request(&budget, 1000);
    cr_assert(!retry_budget_take(&budget, 1000));
}

// An outage at any traffic: every request wants two more. Over any ten seconds no more leave than
// the share and the floor, so that a provider in trouble sees 1.2 times its traffic, not three.
Test(retry_budget, an_outage_is_not_multiplied)
{
    enum { SECONDS = 60 };
    dice_state = 20240229;
    for (unsigned life = 0; life < 50; life++) {
        struct retry_budget budget;
        unsigned sent[SECONDS] = {0}, retried[SECONDS] = {0}, rate = (unsigned)(dice() % 2000);
        retry_budget_init(&budget, RETRY_BUDGET_PERCENT, RETRY_BUDGET_PER_SECOND);
        for (unsigned second = 0; second < SECONDS; second++) {
            sent[second] = (unsigned)(dice() % (rate + 1));
            for (unsigned i = 0; i < sent[second]; i++) {
                retry_budget_request(&budget, second * 1000 + i * 1000 / (rate + 1));
                for (unsigned k = 0; k < 2; k++)
                    retried[second] += retry_budget_take(&budget, second * 1000 + 999);
            }
            unsigned requests = 0, retries = 0;
            for (unsigned s = second < 9 ? 0 : second - 9; s <= second; s++) {
                requests += sent[s];
                retries += retried[s];
            }
            // What was granted against traffic that has slid out since is within the bound of its
            // own ten seconds; this one may exceed only by what falls away in a second.
            unsigned before = second >= 10 ? sent[second - 10] : 0;
            cr_assert_leq(retries, (requests + before) / 5 + 100, "life %u, second %u", life,
                          second);
        }
    }
}
