// SPDX-License-Identifier: MIT
#include "engine/order.h"

#include "alloc/check.h"

_Static_assert(CONFIG_TARGETS_MAX <= 16, "order.tried has one bit per target");

static bool open_to(const struct order *order, const struct config_model *model, uint32_t i)
{
    return !(order->tried >> i & 1) && model->target[i].weight > 0;
}

static bool usable(const struct order *order, const struct config_model *model,
                   const struct breaker_pass *peek, uint32_t i)
{
    return open_to(order, model, i) && peek[i].verdict != BREAKER_NO;
}

static int by_dice(const struct order *order, const struct config_model *model,
                   const struct breaker_pass *peek, uint64_t random)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < model->target_count; i++)
        if (usable(order, model, peek, i))
            sum += model->target[i].weight;
    uint64_t at = sum ? random % sum : 0;
    int best = ORDER_END;
    for (uint32_t i = 0; i < model->target_count; i++) {
        if (!usable(order, model, peek, i))
            continue;
        best = (int)i;
        if (at < model->target[i].weight)
            break;
        at -= model->target[i].weight;
    }
    return best;
}

// Is usable target `a` to be asked before usable target `b`, which stands earlier in the config?
static bool before(const struct config_model *model, const struct breaker_pass *peek, uint32_t a,
                   uint32_t b)
{
    bool a_closed = peek[a].verdict == BREAKER_YES, b_closed = peek[b].verdict == BREAKER_YES;
    if (a_closed != b_closed)
        return a_closed;
    return model->target[a].weight > model->target[b].weight;
}

static int by_weight(const struct order *order, const struct config_model *model,
                     const struct breaker_pass *peek)
{
    int best = ORDER_END;
    for (uint32_t i = 0; i < model->target_count; i++)
        if (usable(order, model, peek, i) &&
            (best == ORDER_END || before(model, peek, i, (uint32_t)best)))
            best = (int)i;
    return best;
}

static int opens_soonest(const struct order *order, const struct config_model *model,
                         const struct breaker_pass *peek)
{
    int best = ORDER_END;
    for (uint32_t i = 0; i < model->target_count; i++)
        if (open_to(order, model, i) && peek[i].wait_ms != UINT32_MAX &&
            (best == ORDER_END || peek[i].wait_ms < peek[best].wait_ms))
            best = (int)i;
    return best;
}

struct order_pick order_next(struct order *order, const struct config_model *model,
                             const struct breaker_pass *peek, uint64_t random)
{
    CHECK(model->target_count <= CONFIG_TARGETS_MAX);
    struct order_pick pick = {.target = ORDER_END};
    int target = order->begun ? by_weight(order, model, peek) : by_dice(order, model, peek, random);
    if (target == ORDER_END && !order->begun) {
        target = opens_soonest(order, model, peek);
        pick.last_resort = target != ORDER_END;
    }
    if (target == ORDER_END)
        return pick;
    order->begun = true;
    order->tried |= (uint16_t)(1u << target);
    pick.target = (int8_t)target;
    return pick;
}

bool order_more(const struct order *order, const struct config_model *model,
                const struct breaker_pass *peek)
{
    return by_weight(order, model, peek) != ORDER_END;
}

void order_drop_provider(struct order *order, const struct config_model *model, uint16_t provider)
{
    for (uint32_t i = 0; i < model->target_count; i++)
        if (model->target[i].provider == provider)
            order->tried |= (uint16_t)(1u << i);
}
