/* Data sets in memory, by content: all submissions, resident jobs and evaluations of a set share
 * one copy, which was read and verified once. Whoever asks while it is being read waits for it. A
 * set that nobody refers to stays for a minute, and at most COORD_LOADED_SPARE bytes of these, but
 * always the newest. Thread-safe; nothing here is for the loop but coord_loaded_is_due. */
#ifndef COP_COORDINATOR_LOADED_H
#define COP_COORDINATOR_LOADED_H

#include "common/data/data.h"

#define COORD_LOADED_SPARE   (512u << 20)
#define COORD_LOADED_KEPT_NS 60000000000u

typedef struct coord_loaded coord_loaded;
typedef cop_err (*coord_loader)(void *context, cop_data **out, cop_error *error);

coord_loaded *coord_loaded_create(void); /* NULL: out of memory */
/* Sets that others refer to outlive it. */
void coord_loaded_destroy(coord_loaded *loaded);
/* A reference (cop_data_destroy) to the set that was read for this key and stamp, or has the key as
 * its digest; else reads it. A file's stamp tells whether it changed (cop_file_stamp). */
cop_err coord_loaded_get(coord_loaded *loaded, const char *key, uint64_t stamp, coord_loader load,
                         void *context, cop_data **out, cop_error *error);
/* Is there something to drop by now? Then _trim does it: slow. */
bool coord_loaded_is_due(coord_loaded *loaded, uint64_t now_ns);
void coord_loaded_trim(coord_loaded *loaded, uint64_t now_ns);

#endif
