/* Checkpoints and final models, written by a thread of their own: see saver.c. */
#ifndef COP_COORDINATOR_SAVER_H
#define COP_COORDINATOR_SAVER_H

#include "coordinator/engine/engine.h"

/* Asks the saver's thread to write a checkpoint of the current version of `resident`. If the action
 * is final, the thread also writes model.safetensors. CHECKPOINTED follows. The request holds
 * references to everything that it needs, so `resident` may be unloaded meanwhile. Loop thread. */
void coord_saver_submit(coord_engine *engine, coord_resident *resident, const coord_action *action);

#endif
