/* Data sets of a coordinator: by content in state/data/DIGEST.pack, by name in state/data/index;
 * uploads in state/data/upload/DIGEST/ until they are whole. Paths are made of digests (64 hex
 * digits, checked) and never of what a peer sent. Thread-safe: loading and writing happen on
 * libuv's thread pool. */
#ifndef COP_COORDINATOR_DATASETS_H
#define COP_COORDINATOR_DATASETS_H

#include "common/base/bytes.h"
#include "common/data/data.h"
#include "proto/api.pb-c.h"

typedef struct coord_datasets coord_datasets;

cop_err coord_datasets_open(const char *state_folder, const char *data_folder, uint64_t quota,
                            coord_datasets **out, cop_error *error);
void coord_datasets_close(coord_datasets *datasets);
/* A set by digest, by the name of an uploaded set, of --data, or a built-in name. The caller owns
 * it. NOT_FOUND lists what there is. Slow. */
cop_err coord_datasets_load(coord_datasets *datasets, const char *name_or_digest, cop_data **out,
                            cop_error *error);
/* Keep a set that a job was pinned to (so that a restart finds it): writes its pack if it is not
 * there. Slow. */
cop_err coord_datasets_keep(coord_datasets *datasets, const cop_data *data, cop_error *error);
/* An upload: which chunks are missing (indices into *missing, cop_free). complete: the set is there
 * already. LIMIT when over quota. */
cop_err coord_datasets_offer(coord_datasets *datasets, const Coppice__Api__OfferDataRequest *offer,
                             bool *complete, uint32_t **missing, size_t *count, cop_error *error);
cop_err coord_datasets_put(coord_datasets *datasets, const char *digest, uint32_t index,
                           const cop_buffer *bytes, cop_error *error);
/* Assembles, checks the whole, renames it into place. INPUT if chunks are missing, CORRUPT if the
 * digest is another. */
cop_err coord_datasets_commit(coord_datasets *datasets, const char *digest, cop_error *error);
cop_err coord_datasets_remove(coord_datasets *datasets, const char *name_or_digest,
                              char removed[65], cop_error *error);
/* All sets of the index: visit is called with name, digest and size of the pack. */
void coord_datasets_each(coord_datasets *datasets,
                         void (*visit)(void *context, const char *name, const char *digest,
                                       uint64_t bytes),
                         void *context);

#endif
