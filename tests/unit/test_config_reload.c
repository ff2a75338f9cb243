// SPDX-License-Identifier: MIT
//
// Proves that a reload keeps what cannot change and names it, that a provider keeps its slot by its
// name, and that its generation changes exactly when it leads elsewhere or carries another key.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "alloc/heap.h"
#include "engine/config.h"

static struct config_slots slots;
static char kept[256];

static struct config *load(char *const *flags, char *const *env)
{
    char error[1024];
    char *argv[32] = {"tokenring"};
    int argc = 1;
    for (; *flags; flags++)
        argv[argc++] = *flags;
    struct config *config = config_load(argc, argv, env, true, error, sizeof error);
    cr_assert_not_null(config, "%s", error);
    return config;
}

#define LOAD(...) load((char *const[]){__VA_ARGS__, NULL}, (char *const[]){"K=one", "L=two", NULL})

static const struct config_provider *named(const struct config *config, const char *name)
{
    int at = config_provider_find(config, name, strlen(name));
    cr_assert_geq(at, 0);
    return &config->provider[at];
}

static void start(void)
{
    memset(&slots, 0, sizeof slots);
}

TestSuite(config_reload, .init = start);

#define A "-p", "a=openai+http://127.0.0.1:1"
#define B "-p", "b=openai+http://127.0.0.1:2"

Test(config_reload, slots_follow_names)
{
    struct config *first = LOAD(A, B), *second = LOAD(B, "-p", "c=openai+http://127.0.0.1:3");
    config_succeed(first, NULL, &slots, kept, sizeof kept);
    cr_expect_eq(named(first, "a")->slot, 0);
    cr_expect_eq(named(first, "b")->slot, 1);
    config_succeed(second, first, &slots, kept, sizeof kept);
    cr_expect_eq(named(second, "b")->slot, 1);
    cr_expect_eq(named(second, "c")->slot, 2, "not the one of a, which may still be in use");
    cr_expect_eq(named(second, "b")->generation, named(first, "b")->generation);
    cr_expect_str_eq(kept, "");
    struct config *third = LOAD(A, B);
    config_succeed(third, second, &slots, kept, sizeof kept);
    cr_expect_eq(named(third, "a")->slot, 0, "back again");
    cr_expect_gt(named(third, "a")->generation, named(second, "c")->generation);
    config_free(first);
    config_free(second);
    config_free(third);
}

Test(config_reload, slots_are_taken_over_when_all_were_used)
{
    struct config *before = LOAD("-p", "p0=openai+http://127.0.0.1:1");
    config_succeed(before, NULL, &slots, kept, sizeof kept);
    for (int i = 1; i < 3 * CONFIG_PROVIDERS_MAX; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "p%d=openai+http://127.0.0.1:1", i);
        struct config *next = LOAD("-p", flag, B);
        config_succeed(next, before, &slots, kept, sizeof kept);
        cr_expect_lt(next->provider[0].slot, CONFIG_PROVIDERS_MAX);
        cr_expect_neq(next->provider[0].slot, next->provider[1].slot);
        cr_expect_neq(next->provider[0].generation, before->provider[0].generation);
        config_free(before);
        before = next;
    }
    config_free(before);
}

static bool another_generation(struct config *next)
{
    struct config *first = LOAD(A, "--provider-key", "a=env:K");
    memset(&slots, 0, sizeof slots);
    config_succeed(first, NULL, &slots, kept, sizeof kept);
    config_succeed(next, first, &slots, kept, sizeof kept);
    bool another = next->provider[0].generation != first->provider[0].generation;
    cr_expect_eq(next->provider[0].slot, first->provider[0].slot);
    config_free(first);
    config_free(next);
    return another;
}

Test(config_reload, generations)
{
    cr_expect_not(another_generation(LOAD(A, "--provider-key", "a=env:K")));
    cr_expect_not(another_generation(LOAD(A, "--provider-key", "a=env:K", "--window", "1M")));
    cr_expect(another_generation(LOAD(A, "--provider-key", "a=env:L")));
    cr_expect(another_generation(LOAD(A)));
    cr_expect(
        another_generation(LOAD("-p", "a=openai+http://127.0.0.1:9", "--provider-key", "a=env:K")));
    cr_expect(another_generation(
        LOAD("-p", "a=openai+https://127.0.0.1:1", "--provider-key", "a=env:K")));
}

Test(config_reload, what_stays)
{
    struct config *first = LOAD(A, "-w", "2", "--cpus", "none", "--congestion", "reno");
    struct config *next = LOAD(A, "-w", "3", "--buffers", "64", "--admin", "127.0.0.1:9", "--user",
                               "nobody", "--cpus", "none", "--max-body", "5");
    config_succeed(first, NULL, &slots, kept, sizeof kept);
    config_succeed(next, first, &slots, kept, sizeof kept);
    cr_expect_str_eq(kept, "user, admin, workers, buffers, congestion");
    cr_expect_eq(next->workers, 2);
    cr_expect_eq(next->buffers, first->buffers);
    cr_expect_str_eq(next->admin.text, first->admin.text);
    cr_expect_str_eq(next->congestion, "reno");
    cr_expect_null(next->user);
    cr_expect_eq(next->max_body, 5);
    config_free(first);
    config_free(next);
}

Test(config_reload, a_window_still_holds_a_buffer)
{
    struct config *first = LOAD(A, "--buffer-size", "64K", "--window", "64K");
    struct config *next = LOAD(A, "--buffer-size", "4K", "--window", "4K");
    config_succeed(first, NULL, &slots, kept, sizeof kept);
    config_succeed(next, first, &slots, kept, sizeof kept);
    cr_expect_eq(next->buffer_size, 64 * 1024);
    cr_expect_geq(next->window_bytes, next->buffer_size);
    config_free(first);
    config_free(next);
}
