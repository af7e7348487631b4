/* Blocks that the coordinator computes itself: see recompute.c. */
#ifndef COP_COORDINATOR_RECOMPUTE_H
#define COP_COORDINATOR_RECOMPUTE_H

#include "coordinator/engine/engine.h"

/* Carries out ACTION_COMPUTE on libuv's thread pool. A RESULT of COORD_SELF follows: at once, with
 * `failed` set, if there is no memory. Loop thread. */
void coord_recompute(coord_engine *engine, const coord_action *action);

#endif
