/* Data sets of a coordinator. Content is in state/data/DIGEST.pack, names are a table of the store,
 * and incomplete uploads are in state/data/upload/. Paths contain digests (64 hex digits, checked)
 * and never anything else that a peer sent.
 *
 * The disk and the tables in memory change together: a name exists when its row and its pack do,
 * and after an error nothing has changed.
 *
 * Thread-safe. Everything that reads or writes files runs on libuv's thread pool; only _use,
 * _release and _tidy_is_due are short enough for the loop. */
#ifndef COP_COORDINATOR_DATASETS_H
#define COP_COORDINATOR_DATASETS_H

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/data.h"
#include "coordinator/store/store.h"
#include "proto/api.pb-c.h"

#define COORD_UPLOADS_MAX          64 /* incomplete uploads */
#define COORD_UPLOADS_PER_IDENTITY 16 /* ... of one certificate */

typedef struct coord_datasets coord_datasets;

typedef struct coord_datasets_config {
    coord_store *store; /* borrowed: must outlive the data sets */
    const char *state_folder;
    const char *data_folder; /* --data; NULL: none */
    uint64_t quota;          /* bytes; 0: no limit */
} coord_datasets_config;

/* Reads the tables and the incomplete uploads, finishes interrupted removals, and removes uploads
 * that were last offered a week ago. NOT_FOUND: there is no data_folder. The caller owns *out. */
cop_err coord_datasets_open(const coord_datasets_config *config, coord_datasets **out,
                            cop_error *error);
void coord_datasets_close(coord_datasets *datasets); /* NULL has no effect */

/* Loads a set by its digest or by a name: of a set of --data, of the newest upload, or built in.
 * The caller owns a reference to *out (cop_data_destroy), which shares one copy with all others
 * that load the set. NOT_FOUND: the error lists the sets. CORRUPT: the pack was altered. */
cop_err coord_datasets_load(coord_datasets *datasets, const char *name_or_digest, cop_data **out,
                            cop_error *error);
/* Keeps the set of a submission, which was loaded by this name or digest: writes its pack if there
 * is none, so that a restart finds it, and counts one use, as coord_datasets_use does. LIMIT: over
 * the quota. On an error the use is not counted. */
cop_err coord_datasets_keep(coord_datasets *datasets, const cop_data *data,
                            const char *name_or_digest, cop_error *error);
/* Counts unfinished jobs of a digest: their content cannot be removed. Each _use or _keep needs one
 * _release. The digest may be unknown, because the set of a stored job may have been deleted. */
void coord_datasets_use(coord_datasets *datasets, const char *digest);
void coord_datasets_release(coord_datasets *datasets, const char *digest);

/* ---- uploads: offer, put each missing chunk, commit ---- */

/* The identity that offers (coord_access_identity), and how many incomplete uploads it may have. */
typedef struct coord_offerer {
    const char *identity;
    uint32_t uploads_max;
} coord_offerer;
typedef struct coord_offer_result {
    bool complete;     /* the set is stored: nothing to upload */
    uint32_t *missing; /* indices of the missing chunks (cop_free); NULL: none */
    size_t count;
} coord_offer_result;
/* Begins an upload or continues one. INPUT: the offer is not valid, or names a built-in set with
 * other content. LIMIT: over the quota or the share of the offerer. NO_SPACE. */
cop_err coord_datasets_offer(coord_datasets *datasets, const Coppice__Api__OfferDataRequest *offer,
                             const coord_offerer *offerer, coord_offer_result *out,
                             cop_error *error);
/* A chunk that arrived. */
typedef struct coord_chunk {
    const char *digest; /* of the set */
    uint32_t index;
    const cop_buffer *bytes; /* NULL: it came without */
} coord_chunk;
/* Stores a chunk after comparing its length and hash with the offer. *missing: the number of chunks
 * that are still missing. INPUT, NOT_FOUND: no such upload or chunk. CORRUPT: another hash. */
cop_err coord_datasets_put(coord_datasets *datasets, const coord_chunk *chunk, uint32_t *missing,
                           cop_error *error);
typedef struct coord_commit {
    const char *digest;
    const char *const *class_names; /* from the client; NULL: none */
    size_t class_count;
} coord_commit;
/* Assembles and checks the whole set and writes its pack; succeeds again if that was done before.
 * INPUT: chunks are missing. CORRUPT: the chunks have another digest. An upload that can never
 * become a set is removed. */
cop_err coord_datasets_commit(coord_datasets *datasets, const coord_commit *commit,
                              coord_dataset *out, cop_error *error);

/* Removes the newest set of that name; its content goes with its last name. By digest: removes all
 * names and the content. IN_USE: unfinished jobs use the content. */
cop_err coord_datasets_remove(coord_datasets *datasets, const char *name_or_digest,
                              coord_dataset *removed, cop_error *error);
/* Frees sets in memory that were not used lately (slow). _is_due: there are some. */
bool coord_datasets_tidy_is_due(coord_datasets *datasets, uint64_t now_ns);
void coord_datasets_tidy(coord_datasets *datasets, uint64_t now_ns);
/* All stored sets, then those of --data and the built-in ones that are not stored. The caller owns
 * the array *out (cop_free). */
cop_err coord_datasets_list(coord_datasets *datasets, coord_dataset **out, size_t *count,
                            cop_error *error);

#endif
