/* Inside the coordinator: what datasets.c (the table of sets, their packs) and uploads.c (how sets
 * arrive) share. Two locks: `files` is held while files change and may be held for long; `table`
 * guards the table of sets, is taken within it, and never while anything is read or written. */
#ifndef COP_COORDINATOR_DATASETS_STATE_H
#define COP_COORDINATOR_DATASETS_STATE_H

#include <uv.h>

#include "coordinator/datasets.h"

#define COORD_SETS_MAX 1024
#define COORD_BUILT_IN "synthetic-digits"

struct coord_datasets {
    uv_mutex_t files, table;
    char *folder, *data_folder; /* state/data; --data or NULL */
    uint64_t quota;
    coord_dataset *sets; /* COORD_SETS_MAX, oldest first */
    size_t count;
};

/* 64 hex digits, lower case: one spelling, one file. */
bool coord_is_digest(const char *text);
void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]);
/* Of a file in the upload's folder; "" is the folder itself. */
void coord_upload_path(const coord_datasets *d, const char *digest, const char *file,
                       char out[4096]);
bool coord_has_pack(const coord_datasets *d, const char *digest);
bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out);
/* Under `files`, these three. A name that moves to other content does so by a new entry. */
cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error);
cop_err coord_store_set(coord_datasets *d, const cop_data *data, cop_error *error);
/* Room for `more` bytes of the set `digest`? LIMIT or NO_SPACE. */
cop_err coord_check_quota(coord_datasets *d, const char *digest, uint64_t more, cop_error *error);
cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error);
/* An upload whose manifest was not written for a week (each offer writes it) is given up. */
void coord_drop_old_uploads(const coord_datasets *d);

#endif
