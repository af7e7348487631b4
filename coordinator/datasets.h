/* Data sets of a coordinator: by content in state/data/DIGEST.pack, by name in state/data/index;
 * uploads in state/data/upload/DIGEST/ until they are whole. Paths are made of digests (64 hex
 * digits, checked) and never of what a peer sent. Thread-safe: what reads or writes files runs on
 * libuv's thread pool; _use and _release are short and may be called on the loop. */
#ifndef COP_COORDINATOR_DATASETS_H
#define COP_COORDINATOR_DATASETS_H

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/data.h"
#include "proto/api.pb-c.h"

typedef struct coord_datasets coord_datasets;

/* What is known of a set. `digest` is empty, and so are the figures, while a set that --data or
 * this program offers was not read yet. */
typedef struct coord_dataset {
    char name[COP_NAME_MAX], digest[65];
    uint64_t bytes; /* of the pack */
    uint32_t train, test, classes, rank, shape[3];
    uint32_t jobs; /* unfinished jobs that use it */
} coord_dataset;

/* Reads the index, drops uploads that nobody went on with for a week. quota: bytes, 0: none. */
cop_err coord_datasets_open(const char *state_folder, const char *data_folder, uint64_t quota,
                            coord_datasets **out, cop_error *error);
void coord_datasets_close(coord_datasets *datasets);
/* A set by digest; or by name: a built-in one, one of --data, the newest upload of that name. The
 * caller owns it. NOT_FOUND lists what there is. Slow. */
cop_err coord_datasets_load(coord_datasets *datasets, const char *name_or_digest, cop_data **out,
                            cop_error *error);
/* For a job that is pinned to this set: writes its pack if it is not there (so that a restart finds
 * it), and uses it (see below). On failure it is not used. Slow. */
cop_err coord_datasets_keep(coord_datasets *datasets, const cop_data *data, cop_error *error);
/* A set that unfinished jobs use cannot be removed: one _use (or _keep) and one _release for each.
 * An unknown digest is ignored. */
void coord_datasets_use(coord_datasets *datasets, const char *digest);
void coord_datasets_release(coord_datasets *datasets, const char *digest);
/* An upload: which chunks are missing (indices into *missing, cop_free). complete: the set is there
 * already. LIMIT when over quota, INPUT when the name is a built-in one with other content. */
cop_err coord_datasets_offer(coord_datasets *datasets, const Coppice__Api__OfferDataRequest *offer,
                             bool *complete, uint32_t **missing, size_t *count, cop_error *error);
/* One chunk, checked against its hash; *missing: how many are still to come. */
cop_err coord_datasets_put(coord_datasets *datasets, const char *digest, uint32_t index,
                           const cop_buffer *bytes, uint32_t *missing, cop_error *error);
/* Assembles, checks the whole, renames it into place; fine if that was done before. INPUT if chunks
 * are missing, CORRUPT if the digest is another (the upload is dropped then). */
cop_err coord_datasets_commit(coord_datasets *datasets, const char *digest, coord_dataset *out,
                              cop_error *error);
/* IN_USE while jobs use it. */
cop_err coord_datasets_remove(coord_datasets *datasets, const char *name_or_digest,
                              coord_dataset *removed, cop_error *error);
/* All sets: those of the index, then those of --data and the built-in ones that were not used yet.
 * A new table (cop_free). Slow. */
cop_err coord_datasets_list(coord_datasets *datasets, coord_dataset **out, size_t *count,
                            cop_error *error);

#endif
