/* Digests of results, by which equal ones are known: see digest.c. */
#ifndef COP_COORDINATOR_DIGEST_H
#define COP_COORDINATOR_DIGEST_H

#include "coordinator/engine/engine.h"

/* Hash of a gradient by this run's secret, never 0, all NaNs as one value; and is it finite? Any
 * thread. */
uint64_t coord_digest(const coord_engine *engine, const cop_buffer *gradient, bool *finite);

#endif
