/* A table of the data sets in memory, by content. All submissions, resident jobs and evaluations of
 * a set share one copy, which is read and verified once. If two callers ask for a set at the same
 * time, one of them reads it, and the other waits.
 *
 * A set is idle if nothing outside this table refers to it. It is dropped when it is idle and the
 * last request for it is at least COORD_LOADED_KEPT_NS old. If several idle sets together have more
 * than COORD_LOADED_SPARE bytes, those requested least recently are dropped, until the rest has at
 * most this size or only one is left.
 *
 * Thread-safe. Only coord_loaded_is_due is fast enough for the loop thread. */
#ifndef COP_COORDINATOR_LOADED_H
#define COP_COORDINATOR_LOADED_H

#include "common/data/data.h"

#define COORD_LOADED_SPARE   (512u << 20) /* bytes */
#define COORD_LOADED_KEPT_NS 60000000000u

typedef struct coord_loaded coord_loaded;

/* Where a set comes from. */
typedef struct coord_loaded_source {
    const char *key; /* the source's digest or name; not "", and shorter than COP_NAME_MAX */
    uint64_t stamp;  /* time stamp of its files (cop_file_stamp); if it changes, the set is
                        loaded again */
    /* Reads the set; coord_loaded_get then owns *out. May be called twice, if memory is short. */
    cop_err (*load)(void *context, cop_data **out, cop_error *error);
    void *context; /* the first argument of `load` */
} coord_loaded_source;

coord_loaded *coord_loaded_create(void); /* NULL: out of memory */
/* Frees the table and its references. Sets with other references stay in memory. NULL has no
 * effect. */
void coord_loaded_destroy(coord_loaded *loaded);
/* Finds the set that was loaded for this key and stamp, or the set whose digest is the key. If
 * there is none, loads it. If no place of the table is free or idle, the loaded set is not shared.
 * Errors are those of `load`. The caller owns a reference to *out (cop_data_destroy). */
cop_err coord_loaded_get(coord_loaded *loaded, const coord_loaded_source *source, cop_data **out,
                         cop_error *error);
/* True: at this time, coord_loaded_trim has sets to drop. */
bool coord_loaded_is_due(coord_loaded *loaded, uint64_t now_ns);
/* Drops the idle sets that are due at this time, by the rules at the top of this file. */
void coord_loaded_trim(coord_loaded *loaded, uint64_t now_ns);

#endif
