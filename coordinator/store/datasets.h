/* Data sets of a coordinator: by content in state/data/DIGEST.pack; their names are a table of the
 * store; uploads in state/data/upload/DIGEST/ until they are whole. Paths are made of digests (64
 * hex digits, checked) and never of what a peer sent. Thread-safe: what reads or writes files runs
 * on libuv's thread pool; _use, _release and _tidy_is_due are short and may be called on the loop.
 *
 * The disk and the table in memory change together: a name is there when its row and its pack are,
 * and an error means that nothing has changed. */
#ifndef COP_COORDINATOR_DATASETS_H
#define COP_COORDINATOR_DATASETS_H

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/data.h"
#include "coordinator/store/store.h"
#include "proto/api.pb-c.h"

#define COORD_UPLOADS_MAX          64 /* under way at once */
#define COORD_UPLOADS_PER_IDENTITY 16 /* and of one certificate */

typedef struct coord_datasets coord_datasets;

/* Reads the table, drops uploads that nobody went on with for a week. quota: bytes, 0: none. The
 * store must outlive it. */
cop_err coord_datasets_open(coord_store *store, const char *state_folder, const char *data_folder,
                            uint64_t quota, coord_datasets **out, cop_error *error);
void coord_datasets_close(coord_datasets *datasets);
/* A set by digest; or by name: a built-in one, one of --data, the newest upload of that name. A
 * reference for the caller, shared by all that load the same. NOT_FOUND lists what there is. Slow.
 */
cop_err coord_datasets_load(coord_datasets *datasets, const char *name_or_digest, cop_data **out,
                            cop_error *error);
/* For a job that is pinned to this set, which was loaded by this name or digest: writes its pack if
 * it is not there (so that a restart finds it), and uses it (see below). On failure it is not used.
 * Slow. */
cop_err coord_datasets_keep(coord_datasets *datasets, const cop_data *data,
                            const char *name_or_digest, cop_error *error);
/* Content that unfinished jobs use cannot be removed: one _use (or _keep) and one _release for
 * each. The digest need not be known: what a stored job names may be gone. */
void coord_datasets_use(coord_datasets *datasets, const char *digest);
void coord_datasets_release(coord_datasets *datasets, const char *digest);
/* Who offers (coord_access_identity), and how many uploads it may have under way. */
typedef struct coord_offerer {
    const char *owner;
    uint32_t uploads;
} coord_offerer;
/* An upload: which chunks are missing (indices into *missing, cop_free). complete: the set is there
 * already. LIMIT when over quota, INPUT when the name is a built-in one with other content. */
cop_err coord_datasets_offer(coord_datasets *datasets, const Coppice__Api__OfferDataRequest *offer,
                             const coord_offerer *who, bool *complete, uint32_t **missing,
                             size_t *count, cop_error *error);
/* One chunk, checked against its length and hash; *missing: how many are still to come. */
cop_err coord_datasets_put(coord_datasets *datasets, const char *digest, uint32_t index,
                           const cop_buffer *bytes, uint32_t *missing, cop_error *error);
/* Assembles, checks the whole, writes the pack; fine if that was done before. INPUT if chunks are
 * missing. An upload that can never become a set is dropped: CORRUPT if the digest is another. */
cop_err coord_datasets_commit(coord_datasets *datasets, const char *digest,
                              const char *const *names, size_t count, coord_dataset *out,
                              cop_error *error);
/* Removes the newest set of that name; the content goes with its last name, or at once with all its
 * names if it was named by its digest: IN_USE while jobs use it. */
cop_err coord_datasets_remove(coord_datasets *datasets, const char *name_or_digest,
                              coord_dataset *removed, cop_error *error);
/* Sets in memory that nobody needs any more: is there something to do (short), and do it (slow). */
bool coord_datasets_tidy_is_due(coord_datasets *datasets, uint64_t now_ns);
void coord_datasets_tidy(coord_datasets *datasets, uint64_t now_ns);
/* All sets: those of the table, then those of --data and the built-in ones that were not used yet.
 * A new table (cop_free). Slow. */
cop_err coord_datasets_list(coord_datasets *datasets, coord_dataset **out, size_t *count,
                            cop_error *error);

#endif
