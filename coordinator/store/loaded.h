/* Data sets in memory, by content. All submissions, resident jobs and evaluations of a set share
 * one copy, which was read and verified once. A caller that asks for a set while another one reads
 * it waits for that. A set without references outside this table stays for COORD_LOADED_KEPT_NS;
 * such sets together take up to COORD_LOADED_SPARE bytes, except that the newest always stays.
 *
 * Thread-safe. Everything but coord_loaded_is_due may be slow: not on the loop. */
#ifndef COP_COORDINATOR_LOADED_H
#define COP_COORDINATOR_LOADED_H

#include "common/data/data.h"

#define COORD_LOADED_SPARE   (512u << 20)
#define COORD_LOADED_KEPT_NS 60000000000u

typedef struct coord_loaded coord_loaded;

/* Where a set comes from. `load` reads it into *out, which the table then owns. */
typedef struct coord_loaded_source {
    const char *key; /* "" is not allowed; shorter than COP_NAME_MAX */
    uint64_t stamp;  /* of its file (cop_file_stamp): another stamp means another content */
    cop_err (*load)(void *context, cop_data **out, cop_error *error);
    void *context;
} coord_loaded_source;

coord_loaded *coord_loaded_create(void); /* NULL: out of memory */
/* Sets that are referenced elsewhere outlive the table. NULL has no effect. */
void coord_loaded_destroy(coord_loaded *loaded);
/* The set that was loaded for this key and stamp, or whose digest is the key; loads it if there is
 * none. Errors are those of `load`. The caller owns a reference (cop_data_destroy). */
cop_err coord_loaded_get(coord_loaded *loaded, const coord_loaded_source *source, cop_data **out,
                         cop_error *error);
/* True: coord_loaded_trim has sets to drop at this time. Short. */
bool coord_loaded_is_due(coord_loaded *loaded, uint64_t now_ns);
void coord_loaded_trim(coord_loaded *loaded, uint64_t now_ns);

#endif
