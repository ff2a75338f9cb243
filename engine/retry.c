// SPDX-License-Identifier: MIT
#include "engine/retry.h"

#include "alloc/check.h"
#include "engine/attribution.h"

const struct retry_policy retry_policy_default = {
    .attempts_max = 3,
    .backoff_ms = 250,
    .backoff_max_ms = 8 * 1000,
    .retry_after_max_ms = 30 * 1000,
};

// ------------------------------------------------------------------------------------ the decision

static bool has_status(const struct retry_attempt *attempt)
{
    return attempt->event == RETRY_STATUS || attempt->event == RETRY_FIRST_EVENT;
}

static enum fault fault_of(const struct retry_attempt *attempt)
{
    if (!has_status(attempt))
        return FAULT_PROVIDER;
    return (enum fault)attribution_status(attempt->status, attempt->our_key).fault;
}

// Was it turned away before it was acted on?
static bool refused(const struct retry_attempt *attempt, enum fault fault)
{
    if (attempt->not_acted_on)
        return true;
    switch ((enum retry_event)attempt->event) {
    case RETRY_CONNECT_FAILED:
    case RETRY_TIMEOUT_CONNECT:
    case RETRY_NO_CONNECTION:
    case RETRY_RESET_REUSED:
    case RETRY_FIRST_EVENT: return true;
    case RETRY_STATUS:
        return fault == FAULT_OVERLOAD || fault == FAULT_CONFIG || attempt->status == 408;
    default: return false;
    }
}

enum permit { PERMIT_NONE, PERMIT_SAME, PERMIT_ANY };

static enum permit permit(const struct retry_attempt *attempt, enum fault fault)
{
    if (refused(attempt, fault) || attempt->method_is_safe || attempt->permission == RETRY_ALWAYS)
        return PERMIT_ANY;
    if (attempt->permission == RETRY_IDEMPOTENT && attempt->has_key)
        return PERMIT_SAME;
    return PERMIT_NONE;
}

static uint64_t step_ms(const struct retry_policy *policy, uint32_t number)
{
    uint64_t ms = policy->backoff_ms;
    for (uint32_t i = 1; i < number && ms < policy->backoff_max_ms; i++)
        ms *= 2;
    return ms < policy->backoff_max_ms ? ms : policy->backoff_max_ms;
}

static uint64_t pause_ms(const struct retry_policy *policy, const struct retry_attempt *attempt,
                         uint64_t random)
{
    uint64_t jitter = random % (step_ms(policy, attempt->number) + 1);
    return attempt->retry_after == RETRY_AFTER_NONE ? jitter : attempt->retry_after + jitter;
}

static struct retry_decision no(enum retry_why why)
{
    return (struct retry_decision){.act = RETRY_NO, .why = (uint8_t)why};
}

// There is no other target, or none that is permitted.
static struct retry_decision same(const struct retry_policy *policy,
                                  const struct retry_attempt *attempt, enum fault fault,
                                  uint64_t random)
{
    if (fault == FAULT_CONFIG || attempt->event == RETRY_NO_CONNECTION)
        return no(RETRY_WHY_NO_TARGET);
    if (attempt->retry_after != RETRY_AFTER_NONE &&
        attempt->retry_after > policy->retry_after_max_ms)
        return no(RETRY_WHY_RETRY_AFTER);
    uint64_t delay_ms = pause_ms(policy, attempt, random);
    if (delay_ms >= attempt->left_ms)
        return no(RETRY_WHY_DEADLINE);
    CHECK(delay_ms <= UINT32_MAX);
    return (struct retry_decision){.act = RETRY_SAME, .delay_ms = (uint32_t)delay_ms};
}

struct retry_decision retry_decide(const struct retry_policy *policy,
                                   const struct retry_attempt *attempt, uint64_t random)
{
    CHECK(attempt->event < RETRY_EVENT_COUNT);
    CHECK(attempt->permission <= RETRY_ALWAYS);
    CHECK(attempt->number > 0);
    if (attempt->client_has_byte)
        return no(RETRY_WHY_ANSWERED);
    enum fault fault = fault_of(attempt);
    if (fault == FAULT_NONE || fault == FAULT_CLIENT)
        return no(RETRY_WHY_FINAL);
    if (!attempt->body_kept)
        return no(RETRY_WHY_BODY);
    if (attempt->left_ms == 0)
        return no(RETRY_WHY_DEADLINE);
    if (attempt->event == RETRY_RESET_REUSED)
        return (struct retry_decision){.act = RETRY_SAME, .free = true};
    enum permit permitted = permit(attempt, fault);
    if (permitted == PERMIT_NONE)
        return no(RETRY_WHY_ACTED_ON);
    if (attempt->number >= policy->attempts_max)
        return no(RETRY_WHY_ATTEMPTS);
    if (permitted == PERMIT_ANY && attempt->other_target)
        return (struct retry_decision){.act = RETRY_NEXT};
    return same(policy, attempt, fault, random);
}

const char *retry_why_name(enum retry_why why)
{
    static const char *const names[RETRY_WHY_COUNT] = {
        [RETRY_WHY_YES] = "yes",
        [RETRY_WHY_ANSWERED] = "answered",
        [RETRY_WHY_BODY] = "body",
        [RETRY_WHY_FINAL] = "final",
        [RETRY_WHY_ATTEMPTS] = "attempts",
        [RETRY_WHY_ACTED_ON] = "acted_on",
        [RETRY_WHY_NO_TARGET] = "no_target",
        [RETRY_WHY_RETRY_AFTER] = "retry_after",
        [RETRY_WHY_DEADLINE] = "deadline",
        [RETRY_WHY_BUDGET] = "budget",
    };
    CHECK(why < RETRY_WHY_COUNT);
    return names[why];
}

// --------------------------------------------------------------------------------------- the date

// What is left to read of a date. Every function below takes exactly what it names, or says no.
static bool take(struct span *rest, struct span text)
{
    if (!span_starts(*rest, text))
        return false;
    *rest = span_of(rest->ptr + text.len, rest->len - text.len);
    return true;
}

static bool take_digits(struct span *rest, unsigned digits, uint32_t *number)
{
    if (rest->len < digits)
        return false;
    *number = 0;
    for (unsigned i = 0; i < digits; i++) {
        uint8_t c = rest->ptr[i];
        if (c < '0' || c > '9')
            return false;
        *number = *number * 10 + (c - '0');
    }
    *rest = span_of(rest->ptr + digits, rest->len - digits);
    return true;
}

// One of `count` names; `*which` is its place.
static bool take_name(struct span *rest, const char *const *names, unsigned count, uint32_t *which)
{
    for (unsigned i = 0; i < count; i++) {
        if (take(rest, span_of(names[i], strlen(names[i])))) {
            *which = i;
            return true;
        }
    }
    return false;
}

static const char *const days_long[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                        "Friday", "Saturday", "Sunday"};
static const char *const days_short[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct date {
    uint32_t year, month, day, hour, minute, second; // month from 0
};

static bool take_clock(struct span *rest, struct date *date)
{
    return take_digits(rest, 2, &date->hour) && take(rest, SPAN(":")) &&
           take_digits(rest, 2, &date->minute) && take(rest, SPAN(":")) &&
           take_digits(rest, 2, &date->second);
}

// "Sun, 06 Nov 1994 08:49:37 GMT"
static bool date_fixed(struct span rest, struct date *date)
{
    uint32_t weekday;
    return take_name(&rest, days_short, 7, &weekday) && take(&rest, SPAN(", ")) &&
           take_digits(&rest, 2, &date->day) && take(&rest, SPAN(" ")) &&
           take_name(&rest, months, 12, &date->month) && take(&rest, SPAN(" ")) &&
           take_digits(&rest, 4, &date->year) && take(&rest, SPAN(" ")) &&
           take_clock(&rest, date) && take(&rest, SPAN(" GMT")) && rest.len == 0;
}

// "Sunday, 06-Nov-94 08:49:37 GMT": its year is within a hundred years; what looks more than fifty
// years ahead has passed (RFC 9110 section 5.6.7).
static bool date_850(struct span rest, struct date *date, uint32_t year_now)
{
    uint32_t weekday;
    if (!(take_name(&rest, days_long, 7, &weekday) && take(&rest, SPAN(", ")) &&
          take_digits(&rest, 2, &date->day) && take(&rest, SPAN("-")) &&
          take_name(&rest, months, 12, &date->month) && take(&rest, SPAN("-")) &&
          take_digits(&rest, 2, &date->year) && take(&rest, SPAN(" ")) && take_clock(&rest, date) &&
          take(&rest, SPAN(" GMT")) && rest.len == 0))
        return false;
    date->year += year_now / 100 * 100;
    if (date->year > year_now + 50)
        date->year -= 100;
    else if (date->year + 50 <= year_now)
        date->year += 100;
    return true;
}

// "Sun Nov  6 08:49:37 1994"
static bool date_asctime(struct span rest, struct date *date)
{
    uint32_t weekday;
    if (!(take_name(&rest, days_short, 7, &weekday) && take(&rest, SPAN(" ")) &&
          take_name(&rest, months, 12, &date->month) && take(&rest, SPAN(" "))))
        return false;
    unsigned digits = take(&rest, SPAN(" ")) ? 1 : 2;
    return take_digits(&rest, digits, &date->day) && take(&rest, SPAN(" ")) &&
           take_clock(&rest, date) && take(&rest, SPAN(" ")) &&
           take_digits(&rest, 4, &date->year) && rest.len == 0;
}

static bool leap(uint32_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static bool date_valid(const struct date *date)
{
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint32_t length = lengths[date->month] + (date->month == 1 && leap(date->year));
    return date->day >= 1 && date->day <= length && date->hour < 24 && date->minute < 60 &&
           date->second <= 60;
}

static uint64_t leap_days_before(uint32_t year)
{
    uint64_t last = year - 1;
    return last / 4 - last / 100 + last / 400;
}

// Seconds since 1970; what lies before is 0.
static uint64_t date_seconds(const struct date *date)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    if (date->year < 1970)
        return 0;
    uint64_t days = (date->year - 1970) * 365ull + leap_days_before(date->year) -
                    leap_days_before(1970) + before[date->month] + (date->day - 1) +
                    (date->month > 1 && leap(date->year));
    return ((days * 24 + date->hour) * 60 + date->minute) * 60 + date->second;
}

static uint32_t year_of(uint64_t wall_ms)
{
    uint64_t days = wall_ms / 86400000;
    // Too late by the leap days only; the bound keeps a mad clock from making that many.
    uint32_t year = days < 10000000 ? 1970 + (uint32_t)(days / 365) : 9999;
    while (year > 1970 && date_seconds(&(struct date){.year = year, .day = 1}) / 86400 > days)
        year--;
    return year;
}

// ------------------------------------------------------------------------------------- Retry-After

static uint64_t seconds_ms(struct span value)
{
    enum { SECONDS_MAX = 1000 * 1000 * 1000 }; // more is that: thirty years are never waited for
    uint64_t ms = 0;
    size_t at = 0;
    for (; at < value.len && value.ptr[at] >= '0' && value.ptr[at] <= '9'; at++) {
        ms = ms * 10 + (uint64_t)(value.ptr[at] - '0');
        if (ms > SECONDS_MAX)
            ms = SECONDS_MAX;
    }
    ms *= 1000;
    if (at == 0)
        return RETRY_AFTER_NONE;
    if (at == value.len)
        return ms;
    if (value.ptr[at] != '.' || at + 1 == value.len)
        return RETRY_AFTER_NONE;
    uint64_t unit = 100;
    bool more = false; // than whole milliseconds: not earlier than asked
    for (at++; at < value.len; at++, unit /= 10) {
        uint8_t c = value.ptr[at];
        if (c < '0' || c > '9')
            return RETRY_AFTER_NONE;
        ms += unit * (uint64_t)(c - '0');
        more = more || (unit == 0 && c != '0');
    }
    return ms + more;
}

uint64_t retry_after_ms(struct span value, uint64_t now_wall_ms)
{
    if (value.len > 0 && value.ptr[0] >= '0' && value.ptr[0] <= '9')
        return seconds_ms(value);
    struct date date;
    if (!date_fixed(value, &date) && !date_850(value, &date, year_of(now_wall_ms)) &&
        !date_asctime(value, &date))
        return RETRY_AFTER_NONE;
    if (!date_valid(&date))
        return RETRY_AFTER_NONE;
    uint64_t at_ms = date_seconds(&date) * 1000;
    return at_ms > now_wall_ms ? at_ms - now_wall_ms : 0;
}

// ---------------------------------------------------------------------------------------- the
// budget

void retry_budget_init(struct retry_budget *budget, uint32_t percent, uint32_t per_second)
{
    CHECK(percent <= 100);
    breaker_window_init(&budget->window, RETRY_BUDGET_WINDOW_MS);
    budget->percent = percent;
    budget->floor = per_second * (RETRY_BUDGET_WINDOW_MS / 1000);
    budget->denied = 0;
}

void retry_budget_request(struct retry_budget *budget, uint64_t now_ms)
{
    breaker_window_add(&budget->window, now_ms, 1, 0);
}

bool retry_budget_take(struct retry_budget *budget, uint64_t now_ms)
{
    breaker_window_turn(&budget->window, now_ms);
    uint64_t allowed = (uint64_t)budget->window.total * budget->percent / 100 + budget->floor;
    if (budget->window.marked >= allowed) {
        budget->denied++;
        return false;
    }
    breaker_window_add(&budget->window, now_ms, 0, 1);
    return true;
}
