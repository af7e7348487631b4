/* Checkpoints and final models, written by a thread of their own: see saver.c. */
#ifndef COP_COORDINATOR_SAVER_H
#define COP_COORDINATOR_SAVER_H

#include "coordinator/engine/engine.h"

cop_err coord_saver_create(coord_engine *engine, struct coord_saver **out, cop_error *error);
/* Writes the current version of `resident`, of which it holds all that it needs; CHECKPOINTED
 * follows. If the action is final, also writes model.safetensors. */
void coord_saver_submit(struct coord_saver *saver, coord_resident *resident,
                        const coord_action *action);
void coord_saver_destroy(
    struct coord_saver *saver); /* Finishes what was submitted, then ends the thread. */

#endif
