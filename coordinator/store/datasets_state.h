/* Shared by the files of the data sets: datasets.c (load, keep, remove), datasets_index.c (names),
 * upload_files.c (uploads on the disk and in the table, quota) and uploads.c (offer, put, commit).
 *
 * Two locks. `files` is held while files and rows change, perhaps for long. `table` guards the
 * tables in memory; it may be taken under `files`, and nobody does I/O under it. */
#ifndef COP_COORDINATOR_DATASETS_STATE_H
#define COP_COORDINATOR_DATASETS_STATE_H

#include <uv.h>

#include "coordinator/store/datasets.h"
#include "coordinator/store/loaded.h"

#define COORD_SETS_MAX      1024
#define COORD_UPLOAD_FOLDER 72                    /* bytes of "DIGEST" or "DIGEST-NUMBER" */
#define COORD_USES_MAX      (COP_JOBS_MAX + 1024) /* digests of unfinished jobs */
#define COORD_CHUNKS_MAX    16384                 /* of one upload */
#define COORD_BUILT_IN      "synthetic-digits"
#define COORD_REMOVED       ".pack.gone" /* the pack of a set whose removal is not finished */

/* How many unfinished jobs use a digest, which may have no name. */
typedef struct coord_use {
    char digest[65];
    uint32_t jobs;
} coord_use;

/* An incomplete upload: its manifest, and which chunks are on the disk. */
typedef struct coord_upload {
    char digest[65], name[COP_NAME_MAX]; /* digest "": the place is free */
    char folder[COORD_UPLOAD_FOLDER];    /* its own, below upload/ */
    char owner[COP_NAME_MAX];            /* the identity that offered it first */
    uint64_t size;                       /* of the pack */
    int64_t touched_s;                   /* time of the newest offer */
    uint32_t chunks, missing;
    unsigned char *hashes; /* (chunks, 32) */
    bool *received;        /* (chunks) */
} coord_upload;

struct coord_datasets {
    uv_mutex_t files, table;
    coord_store *store;
    coord_loaded *loaded;
    char *folder, *data_folder; /* state/data; --data or NULL */
    uint64_t quota;
    /* guarded by `table` */
    coord_dataset *sets; /* COORD_SETS_MAX, oldest first */
    size_t count;
    coord_use *uses; /* COORD_USES_MAX */
    size_t use_count;
    coord_upload uploads[COORD_UPLOADS_MAX]; /* places are taken and freed under both locks */
};

/* True: 64 hex digits in lower case, so that a digest has one spelling and one file. */
bool coord_is_digest(const char *text);
void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]);
/* Where a removal puts the pack before it removes the rows. */
void coord_removed_path(const coord_datasets *d, const char *digest, char out[4096]);
bool coord_has_pack(const coord_datasets *d, const char *digest);

/* ---- datasets_index.c ---- */
/* At the start: reads the names, migrates the text index of older versions, and names packs without
 * a name. */
cop_err coord_read_index(coord_datasets *d, cop_error *error);
/* The newest set of a name, or of a digest. False: there is none. */
bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out);
/* These two change the store and the table in memory, or neither. Under `files`. _add: the pair of
 * name and digest becomes the newest of its name. _forget: removes this name of the digest, or all
 * its names if `name` is "". */
cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error);
cop_err coord_forget_set(coord_datasets *d, const char *name, const char *digest, cop_error *error);
void coord_describe_set(const cop_data *data, const char *name, coord_dataset *out);
uint32_t coord_count_users(coord_datasets *d, const char *digest);

/* ---- datasets.c ---- */
/* Writes the pack and adds the name, or neither. Under `files`. */
cop_err coord_store_set(coord_datasets *d, const cop_data *data, const char *name,
                        cop_error *error);
cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error);
cop_err coord_load_built_in(coord_datasets *d, cop_data **out, cop_error *error);

/* ---- upload_files.c ---- */
/* The number of chunks of a pack; 0: no pack has this size. */
uint32_t coord_chunk_count(uint64_t size);
size_t coord_chunk_size(uint64_t size, uint32_t index);
void coord_chunk_path(const coord_datasets *d, const char *folder, uint32_t index, char out[4096]);
/* INPUT: not a name for a data set. */
cop_err coord_check_set_name(const char *name, cop_error *error);
/* The upload with this folder; "": a free place. NULL: none. Under `table` or `files`. */
coord_upload *coord_find_upload(coord_datasets *d, const char *folder);
/* Sets size, chunks and empty tables for them. False: out of memory; free it in any case. */
bool coord_allocate_upload(coord_upload *upload, uint64_t size);
void coord_free_upload(coord_upload *upload);
/* Creates the upload's folder, if necessary, and writes its manifest. */
cop_err coord_write_manifest(const coord_datasets *d, const coord_upload *upload, cop_error *error);
void coord_remove_upload_folder(const coord_datasets *d, const char *folder);
/* Removes an upload from the disk and the table; all uploads of a set; those last offered a week
 * ago. Under `files`. */
void coord_drop_upload(coord_datasets *d, coord_upload *upload);
void coord_drop_uploads(coord_datasets *d, const char *digest);
void coord_drop_old_uploads(coord_datasets *d);
/* At the start: reads the valid uploads into the table and removes the others. */
void coord_read_uploads(coord_datasets *d);
void coord_free_uploads(coord_datasets *d);
/* LIMIT or NO_SPACE: `more` bytes exceed the quota, or the free space of the disk. Bytes promised
 * to the upload `own` (NULL: none) and to uploads of the set `stored` ("": none) do not count,
 * because `more` contains them. Under `files`. */
cop_err coord_check_quota(coord_datasets *d, const char *stored, const coord_upload *own,
                          uint64_t more, cop_error *error);

#endif
