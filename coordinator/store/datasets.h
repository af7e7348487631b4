/* Data sets of a coordinator. The content of a set is in state/data/DIGEST.pack. The names of sets
 * are in a table of the store. Incomplete uploads are in state/data/upload/. The only text from a
 * peer that becomes part of a path is a digest, after a check that it has 64 hex digits.
 *
 * The disk and the tables in memory change together. A name exists if both its row in the store and
 * its pack exist. After an error, neither the disk nor the tables have changed.
 *
 * Thread-safe. The loop thread may call only coord_datasets_use, coord_datasets_release and
 * coord_datasets_tidy_is_due. All others may wait for the disk; calls of clients run them on
 * libuv's thread pool. */
#ifndef COP_COORDINATOR_DATASETS_H
#define COP_COORDINATOR_DATASETS_H

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/data.h"
#include "coordinator/store/store.h"
#include "proto/api.pb-c.h"

#define COORD_UPLOADS_MAX          64 /* incomplete uploads of all clients */
#define COORD_UPLOADS_PER_IDENTITY 16 /* incomplete uploads of one certificate */

typedef struct coord_datasets coord_datasets;

typedef struct coord_datasets_config {
    coord_store *store; /* borrowed: must outlive the data sets */
    const char *state_folder;
    const char *data_folder; /* the folder of --data; NULL: the option was not given */
    uint64_t quota;          /* maximum bytes of packs and incomplete uploads; 0: no limit */
} coord_datasets_config;

/* Reads the names and the incomplete uploads, finishes or undoes interrupted removals, and removes
 * uploads whose newest offer is at least a week old. NOT_FOUND: the folder `data_folder` does not
 * exist. The caller owns *out (coord_datasets_close). */
cop_err coord_datasets_open(const coord_datasets_config *config, coord_datasets **out,
                            cop_error *error);
void coord_datasets_close(coord_datasets *datasets); /* NULL has no effect */

/* Loads a set by its digest or by its name. A name is looked up first in --data, then among the
 * stored sets (the newest set of this name counts), then among the built-in sets; but the name of a
 * built-in set is not looked up in --data. All callers that load a set share one copy of it. The
 * caller owns a reference to *out (cop_data_destroy).
 * NOT_FOUND: there is no such set; for an unknown name the error lists the sets.
 * CORRUPT: the pack was altered. */
cop_err coord_datasets_load(coord_datasets *datasets, const char *name_or_digest, cop_data **out,
                            cop_error *error);
/* Keeps the set of a submission for its job. `data` was loaded by `name_or_digest`. If the set has
 * no pack, writes one, so that the job finds the set after a restart. Counts one use, as
 * coord_datasets_use does. LIMIT: the quota or a maximum number is exceeded. NO_SPACE: the disk is
 * full. On an error the use is not counted. */
cop_err coord_datasets_keep(coord_datasets *datasets, const cop_data *data,
                            const char *name_or_digest, cop_error *error);
/* Count one more, or one fewer, unfinished job or evaluation that uses this digest. While the count
 * is above 0, the content cannot be removed. Each call of coord_datasets_use or coord_datasets_keep
 * needs one of coord_datasets_release. A set of this digest need not exist, because the set of a
 * stored job may have been deleted. */
void coord_datasets_use(coord_datasets *datasets, const char *digest);
void coord_datasets_release(coord_datasets *datasets, const char *digest);

/* ---- uploads: offer, put each missing chunk, commit ---- */

/* The client that offers a set. */
typedef struct coord_offerer {
    const char *identity; /* see coord_access_identity */
    uint32_t uploads_max; /* how many incomplete uploads this identity may have */
} coord_offerer;
typedef struct coord_offer_result {
    bool complete;     /* the set is already stored, so the client uploads nothing */
    uint32_t *missing; /* indices of the missing chunks (cop_free); NULL if `complete` */
    size_t count;      /* number of elements in `missing` */
} coord_offer_result;
/* Begins an upload or continues one; or, if the set is already stored, adds the offered name to it.
 * INPUT: the offer is not valid, or it has the name of a built-in set but other content. LIMIT: the
 * quota, the offerer's share or a maximum number is exceeded. NO_SPACE: the disk is full. The
 * caller frees out->missing even after an error. */
cop_err coord_datasets_offer(coord_datasets *datasets, const Coppice__Api__OfferDataRequest *offer,
                             const coord_offerer *offerer, coord_offer_result *out,
                             cop_error *error);
/* A chunk that arrived. */
typedef struct coord_chunk {
    const char *digest; /* digest of the set */
    uint32_t index;
    const cop_buffer *bytes; /* NULL: the client sent no bytes */
} coord_chunk;
/* Stores a chunk in every incomplete upload of the set whose offer has this hash at this index. On
 * success, *missing is the number of chunks that such an upload still lacks; with several such
 * uploads, the smallest of these numbers.
 * INPUT: the digest is not valid, the set has no chunk of this index, the bytes are missing, or
 * their length is wrong.
 * NOT_FOUND: there is no upload of this set.
 * CORRUPT: the hash of the bytes differs from the offered one. */
cop_err coord_datasets_put(coord_datasets *datasets, const coord_chunk *chunk, uint32_t *missing,
                           cop_error *error);
typedef struct coord_commit {
    const char *digest;             /* digest of the set */
    const char *const *class_names; /* sent by the client; may be NULL if class_count is 0 */
    size_t class_count;             /* 0: the client sent no names of classes */
} coord_commit;
/* Assembles the uploaded set from its chunks, checks it, writes its pack and adds its name. *out
 * describes the set. Also succeeds if the pack already exists, because the client may repeat its
 * request.
 * INPUT: chunks are missing, or the class names do not fit the set.
 * NOT_FOUND: there is no upload of this set.
 * CORRUPT: the content of the chunks is not valid, or it has another digest.
 * If the error shows that an upload can never become a set, this upload is removed. */
cop_err coord_datasets_commit(coord_datasets *datasets, const coord_commit *commit,
                              coord_dataset *out, cop_error *error);

/* Given a name, removes this name from the newest set that has it, and also removes the content if
 * this was its last name. Given a digest, removes all names of the set and the content. *removed
 * describes the set. NOT_FOUND: there is no such set. IN_USE: the content would be removed, but
 * unfinished jobs use it. */
cop_err coord_datasets_remove(coord_datasets *datasets, const char *name_or_digest,
                              coord_dataset *removed, cop_error *error);
/* True: at this time, coord_datasets_tidy has sets to free. */
bool coord_datasets_tidy_is_due(coord_datasets *datasets, uint64_t now_ns);
/* Frees the sets in memory that nobody has used lately: see loaded.h. Slow. */
void coord_datasets_tidy(coord_datasets *datasets, uint64_t now_ns);
/* Lists all stored sets, then the sets of --data and the built-in sets whose names are not among
 * them. The caller owns the array *out (cop_free). */
cop_err coord_datasets_list(coord_datasets *datasets, coord_dataset **out, size_t *count,
                            cop_error *error);

#endif
