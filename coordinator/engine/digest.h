/* Digests of results, by which equal results are recognised: see digest.c. */
#ifndef COP_COORDINATOR_DIGEST_H
#define COP_COORDINATOR_DIGEST_H

#include "coordinator/engine/engine.h"

/* The hash of a tensor of a result, keyed with this run's secret. It is never 0, and all NaNs of
 * f32 count as one value. Sets *finite to true if all values are finite, otherwise to false. Any
 * thread. */
uint64_t coord_digest(const coord_engine *engine, const cop_buffer *tensor, cop_values values,
                      bool *finite);
/* False: a value of the tensor is NaN or infinite. Any thread. */
bool coord_all_finite(const coord_engine *engine, const cop_buffer *tensor, cop_values values);

#endif
