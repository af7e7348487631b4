/* Tensors that arrived: results of workers and of the coordinator. The core knows them by slot
 * number. See engine.h. */
#include "coordinator/engine/engine.h"

uint64_t coord_take_slot(coord_engine *engine, cop_buffer *gradient) {
    for (uint32_t i = 0; i < COORD_SLOTS_MAX; i++) {
        uint32_t at = (engine->slot_hint + i) % COORD_SLOTS_MAX;
        if (engine->slots[at].used) continue;
        engine->slots[at] =
            (coord_slot){.gradient = gradient ? cop_buffer_hold(gradient) : NULL, .used = true};
        engine->slot_hint = at + 1;
        return at + 1;
    }
    return 0;
}

void coord_release_slot(coord_engine *engine, uint64_t slot) {
    if (!slot) return;
    COP_ASSERT(slot <= COORD_SLOTS_MAX);
    coord_slot *s = &engine->slots[slot - 1];
    COP_ASSERT(s->used);
    cop_buffer_release(s->gradient);
    *s = (coord_slot){0};
}
