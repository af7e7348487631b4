/* Blocks that the coordinator computes itself: see recompute.c. */
#ifndef COP_COORDINATOR_RECOMPUTE_H
#define COP_COORDINATOR_RECOMPUTE_H

#include "coordinator/engine/engine.h"

/* Carries out ACTION_COMPUTE; a RESULT of COORD_SELF follows. */
void coord_recompute(coord_engine *engine, const coord_action *action);

#endif
