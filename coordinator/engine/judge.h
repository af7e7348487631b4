/* Digests of results, and blocks that the coordinator computes itself: see judge.c. */
#ifndef COP_COORDINATOR_JUDGE_H
#define COP_COORDINATOR_JUDGE_H

#include "coordinator/engine/engine.h"

/* Hash of a gradient by this run's secret, never 0, all NaNs as one value; and is it finite? Any
 * thread. */
uint64_t coord_digest(const coord_engine *engine, const cop_buffer *gradient, bool *finite);
/* ACTION_COMPUTE. */
void coord_judge(coord_engine *engine, const coord_action *action);

#endif
