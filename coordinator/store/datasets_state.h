/* Inside the coordinator: what datasets.c (loading, keeping, removing sets), datasets_index.c (the
 * table of their names, on the disk and in memory) and uploads.c (how sets arrive) share. Two
 * locks: `files` is held while files and rows change and may be held for long; `table` guards the
 * tables in memory, is taken within it, and never while anything is read or written. */
#ifndef COP_COORDINATOR_DATASETS_STATE_H
#define COP_COORDINATOR_DATASETS_STATE_H

#include <uv.h>

#include "coordinator/store/datasets.h"
#include "coordinator/store/loaded.h"

#define COORD_SETS_MAX      1024
#define COORD_UPLOAD_FOLDER 72                    /* DIGEST or DIGEST-NUMBER */
#define COORD_USES_MAX      (COP_JOBS_MAX + 1024) /* digests that unfinished jobs may have */
#define COORD_BUILT_IN      "synthetic-digits"
#define COORD_GONE          ".pack.gone" /* a pack that is being removed */

/* Unfinished jobs of a digest, whether or not it has a name. */
typedef struct coord_use {
    char digest[65];
    uint32_t jobs;
} coord_use;

/* An upload under way: what its manifest on the disk says, and which chunks are there. */
typedef struct coord_upload {
    char digest[65], name[COP_NAME_MAX]; /* digest "": a free place */
    char folder[COORD_UPLOAD_FOLDER];    /* of its own, below upload/ */
    char owner[COP_NAME_MAX];            /* who offered it first */
    uint64_t size;                       /* of the pack */
    int64_t touched_s;                   /* when it was offered last */
    uint32_t chunks, missing;
    unsigned char *hashes; /* 32 bytes each */
    bool *there;           /* of each */
} coord_upload;

struct coord_datasets {
    uv_mutex_t files, table;
    coord_store *store;
    coord_loaded *loaded;
    char *folder, *data_folder; /* state/data; --data or NULL */
    uint64_t quota;
    /* under `table` */
    coord_dataset *sets; /* COORD_SETS_MAX, oldest first */
    size_t count;
    coord_use *uses; /* COORD_USES_MAX */
    size_t use_count;
    coord_upload uploads[COORD_UPLOADS_MAX]; /* come and go only under `files` */
};

/* 64 hex digits, lower case: one spelling, one file. */
bool coord_is_digest(const char *text);
void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]);
void coord_gone_path(const coord_datasets *d, const char *digest, char out[4096]);
bool coord_has_pack(const coord_datasets *d, const char *digest);

/* ---- datasets_index.c ---- */
/* Reads the table, takes over a text index of older versions, names packs without a name. */
cop_err coord_read_index(coord_datasets *d, cop_error *error);
/* The newest set of a name, or of a digest. */
bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out);
/* Under `files`, these two: on the disk and in memory, or neither. _add: the pair becomes the
 * newest of its name. _forget: of that name, or with "" all names of the digest. */
cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error);
cop_err coord_forget_set(coord_datasets *d, const char *name, const char *digest, cop_error *error);
void coord_describe_set(const cop_data *data, const char *name, coord_dataset *out);
uint32_t coord_count_users(coord_datasets *d, const char *digest);

/* ---- datasets.c ---- */
/* Under `files`: the pack and its name; or neither. */
cop_err coord_store_set(coord_datasets *d, const cop_data *data, const char *name,
                        cop_error *error);
cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error);
cop_err coord_load_built_in(coord_datasets *d, cop_data **out, cop_error *error);

/* ---- uploads.c ---- */
/* Under `files`. Room for `more` bytes? What the upload `own` was promised, and those of the set
 * `stored` ("": of none), is theirs. LIMIT or NO_SPACE. */
cop_err coord_check_quota(coord_datasets *d, const char *stored, const coord_upload *own,
                          uint64_t more, cop_error *error);
/* At the start: uploads that are sound and were offered within a week; the others are removed. */
void coord_read_uploads(coord_datasets *d);
void coord_free_uploads(coord_datasets *d);

#endif
