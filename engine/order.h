// SPDX-License-Identifier: MIT
//
// order: which of a model's targets is next? An iterator over the targets of one model for one
// request; it yields each target at most once, and each time looks at what the breakers say *now*.
//
//   first    weighted dice among the usable targets (breaker says yes, or it wants a probe)
//   then     the usable ones that are left: those whose breaker is closed before those that want a
//            probe, the heavier before the lighter, else as they stand in the config
//   last     only if nothing was yielded so far and every breaker says no: the one that opens
//            soonest, marked `last_resort`. A gateway with one provider thus asks it rather than
//            refuse everybody on a guess; with several it asks one rather than none
//
// A target of weight 0 takes no traffic, not even this. A target that failed is not yielded again;
// trying the *same* target once more is the caller's own business (retry.h).
//
// Order of calls, per request and model:
//
//   struct order order = {0};
//   peek[i] = breaker_peek(breaker of target i, now)   for each target; ORDER_NEVER if it cannot
//   pick = order_next(&order, model, peek, random);     serve this request at all
//   pick.target == ORDER_END: refuse, or go on to the model's fallbacks with an order of their own
//   pass = breaker_allow(...): the real question. BREAKER_NO (a probe's place was taken in
//   between):
//          ask for the next one. With pick.last_resort send in spite of NO; its zeroed pass then
//          counts nowhere, and there should be no second attempt
#ifndef ENGINE_ORDER_H
#define ENGINE_ORDER_H

#include "engine/breaker.h"
#include "engine/config.h"

enum { ORDER_END = -1 };

// A verdict for a target that cannot serve the request whatever its breaker says (it speaks another
// dialect, say).
#define ORDER_NEVER ((struct breaker_pass){.wait_ms = UINT32_MAX})

// All of it may be zeroed: nothing tried yet.
struct order {
    uint16_t tried; // one bit per target: yielded or dropped
    bool begun;     // something was yielded
};

struct order_pick {
    int8_t target; // index into model->target, or ORDER_END
    bool last_resort;
};

// The next target. `peek` has model->target_count entries.
struct order_pick order_next(struct order *order, const struct config_model *model,
                             const struct breaker_pass *peek, uint64_t random);

// Would order_next yield a usable target? Takes nothing.
bool order_more(const struct order *order, const struct config_model *model,
                const struct breaker_pass *peek);

// Do not yield this provider's targets any more: it refused our key, or cannot be reached at all.
void order_drop_provider(struct order *order, const struct config_model *model, uint16_t provider);

#endif
