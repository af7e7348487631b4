/* Shared by the files of the data sets: datasets.c (load, keep, remove), datasets_index.c (names),
 * upload_files.c (uploads on the disk and in the table, quota) and uploads.c (offer, put, commit).
 *
 * There are two locks. A thread holds `files` while it changes files and rows of the store; this
 * may take long. `table` guards the tables in memory. A thread that holds `files` may take `table`,
 * but not the other way round. A thread that holds `table` does no I/O. "Under `files`" means that
 * the caller holds this lock. */
#ifndef COP_COORDINATOR_DATASETS_STATE_H
#define COP_COORDINATOR_DATASETS_STATE_H

#include <uv.h>

#include "coordinator/store/datasets.h"
#include "coordinator/store/loaded.h"

#define COORD_SETS_MAX      1024                  /* names of sets */
#define COORD_UPLOAD_FOLDER 72                    /* bytes for "DIGEST" or "DIGEST-NUMBER" */
#define COORD_USES_MAX      (COP_JOBS_MAX + 1024) /* digests that unfinished jobs use */
#define COORD_CHUNKS_MAX    16384                 /* chunks of one upload */
#define COORD_BUILT_IN      "synthetic-digits"
#define COORD_REMOVED       ".pack.gone" /* ends the file name of a pack that is being removed */

/* How many unfinished jobs and evaluations use the content of this digest. The digest may have no
 * name. */
typedef struct coord_use {
    char digest[65];
    uint32_t jobs;
} coord_use;

/* An incomplete upload: its manifest, and which chunks are on the disk. */
typedef struct coord_upload {
    char digest[65];                  /* digest of the set; "": this place of the table is free */
    char name[COP_NAME_MAX];          /* name of the set, from the newest offer */
    char folder[COORD_UPLOAD_FOLDER]; /* name of this upload's folder in state/data/upload */
    char owner[COP_NAME_MAX];         /* the identity that began the upload; "": no certificate */
    uint64_t size;                    /* bytes of the pack */
    int64_t touched_s;                /* Unix time of the newest offer */
    uint32_t chunks;                  /* number of chunks of the pack */
    uint32_t missing;                 /* number of chunks that are not on the disk */
    unsigned char *hashes;            /* SHA-256 of each chunk: 32 * `chunks` bytes */
    bool *received;                   /* (chunks) whether each chunk is on the disk */
} coord_upload;

struct coord_datasets {
    uv_mutex_t files, table;
    coord_store *store;
    coord_loaded *loaded; /* sets in memory */
    char *folder;         /* state/data */
    char *data_folder;    /* the folder of --data; NULL: the option was not given */
    uint64_t quota;       /* maximum bytes of packs and incomplete uploads; 0: no limit */
    /* guarded by `table` */
    coord_dataset *sets;                     /* array of COORD_SETS_MAX names, the oldest first */
    size_t count;                            /* number of names in `sets` */
    coord_use *uses;                         /* array of COORD_USES_MAX */
    size_t use_count;                        /* number of digests in `uses` */
    coord_upload uploads[COORD_UPLOADS_MAX]; /* places are taken and freed under both locks */
};

/* True: the text is 64 hex digits in lower case. With upper case, one digest could have several
 * spellings and several files. `text` may be NULL. */
bool coord_is_digest(const char *text);
/* The path of the pack of a set. */
void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]);
/* The path to which a removal renames the pack before it removes the rows of the store. */
void coord_removed_path(const coord_datasets *d, const char *digest, char out[4096]);
bool coord_has_pack(const coord_datasets *d, const char *digest);

/* ---- datasets_index.c ---- */
/* For the start of the coordinator: reads the names from the store, migrates the text index of
 * older versions, and gives a name to each pack that has none. */
cop_err coord_read_index(coord_datasets *d, cop_error *error);
/* Copies the newest entry with this name, or with this digest, to *out. False: there is none. */
bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out);
/* The next two functions change both the store and the table in memory or, on an error, neither of
 * them. Under `files`. */
/* Makes the pair of this name and this digest the newest pair of the name. LIMIT: there are already
 * COORD_SETS_MAX names. */
cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error);
/* Removes the pair of this name and this digest, or, if `name` is "", all names of the digest. */
cop_err coord_forget_set(coord_datasets *d, const char *name, const char *digest, cop_error *error);
/* Fills *out with this name and the properties of `data`. Replaces control characters of the name
 * by "_". */
void coord_describe_set(const cop_data *data, const char *name, coord_dataset *out);
/* Returns how many unfinished jobs and evaluations use the content of this digest. */
uint32_t coord_count_users(coord_datasets *d, const char *digest);

/* ---- datasets.c ---- */
/* Writes the pack of `data`, unless it exists, and adds the name. On an error it leaves neither a
 * new pack nor a new name. Under `files`. */
cop_err coord_store_set(coord_datasets *d, const cop_data *data, const char *name,
                        cop_error *error);
/* Loads the pack of this digest. If it was not in memory, the loaded set gets `name`. CORRUPT: its
 * content has another digest. The caller owns a reference to *out. */
cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error);
cop_err coord_load_built_in(coord_datasets *d, cop_data **out, cop_error *error);

/* ---- upload_files.c ---- */
/* Returns the number of chunks of a pack of `size` bytes, or 0 if no pack may have this size. */
uint32_t coord_chunk_count(uint64_t size);
/* Returns the number of bytes in the chunk `index` of a pack of `size` bytes. */
size_t coord_chunk_size(uint64_t size, uint32_t index);
/* The path of the file of a chunk, in the upload's folder. */
void coord_chunk_path(const coord_datasets *d, const char *folder, uint32_t index, char out[4096]);
/* INPUT: a data set must not have this name. */
cop_err coord_check_set_name(const char *name, cop_error *error);
/* Returns the upload with this folder, or a free place of the table if `folder` is "". NULL: there
 * is none. Under `table` or `files`. */
coord_upload *coord_find_upload(coord_datasets *d, const char *folder);
/* Sets the upload's size and number of chunks, and allocates its tables of chunks, with all chunks
 * marked as missing. False: out of memory. The caller must call coord_free_upload in either case.
 */
bool coord_allocate_upload(coord_upload *upload, uint64_t size);
/* Frees the tables of the upload and zeroes it, so its place is free. */
void coord_free_upload(coord_upload *upload);
/* Creates the upload's folder, if necessary, and writes its manifest. */
cop_err coord_write_manifest(const coord_datasets *d, const coord_upload *upload, cop_error *error);
/* Removes the folder with its files. An error is logged. */
void coord_remove_upload_folder(const coord_datasets *d, const char *folder);
/* Each of the next three functions removes uploads from the disk and from the table. Under `files`,
 * except at the start. */
void coord_drop_upload(coord_datasets *d, coord_upload *upload);
/* Removes all uploads of the set with this digest. */
void coord_drop_uploads(coord_datasets *d, const char *digest);
/* Removes the uploads whose newest offer is at least a week old. */
void coord_drop_old_uploads(coord_datasets *d);
/* For the start of the coordinator: reads the valid uploads into the table and removes all others
 * from the disk. */
void coord_read_uploads(coord_datasets *d);
/* Frees the table in memory. The files stay. */
void coord_free_uploads(coord_datasets *d);
/* Checks that `more` bytes fit into the quota and onto the disk. `more` must contain the bytes of
 * the upload `own` (NULL: none) and of all uploads of the set `stored` ("": none), which are not
 * counted again. LIMIT: the quota is exceeded, or COORD_UPLOADS_MAX other uploads are in progress.
 * NO_SPACE: the disk is full. Under `files`. */
cop_err coord_check_quota(coord_datasets *d, const char *stored, const coord_upload *own,
                          uint64_t more, cop_error *error);

#endif
