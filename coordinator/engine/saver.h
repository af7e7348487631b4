/* Checkpoints and final models, written by a thread of their own: see saver.c. */
#ifndef COP_COORDINATOR_SAVER_H
#define COP_COORDINATOR_SAVER_H

#include "coordinator/engine/engine.h"

/* Has the saver's thread write a checkpoint of the current version of `resident`, and
 * model.safetensors, too, if the action is final. CHECKPOINTED follows. The request holds
 * references of everything that it needs, so `resident` may be unloaded meanwhile. Loop thread. */
void coord_saver_submit(coord_engine *engine, coord_resident *resident, const coord_action *action);

#endif
