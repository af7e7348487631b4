/* Checkpoints and final models, written by a thread of their own: see saver.c. */
#ifndef COP_COORDINATOR_SAVER_H
#define COP_COORDINATOR_SAVER_H

#include "coordinator/engine/engine.h"

/* Writes the current version of `resident`, of which it holds all that it needs; CHECKPOINTED
 * follows. If the action is final, also writes model.safetensors. */
void coord_saver_submit(coord_engine *engine, coord_resident *resident, const coord_action *action);

#endif
