/* SQLite on a disk that fails or loses its power, for tests of the store: a VFS in front of the
 * system's, which writes down what changes files. vfs_fail makes one of its calls fail; vfs_crash
 * makes of a folder what a crash after so many changes would have left.
 *
 * The rules are POSIX's, taken strictly: what a file holds is safe after its sync, that a name
 * stands in the folder after a sync of the folder, which SQLite does with the first sync of a new
 * journal or log. Everything else may be there, torn or not. */
#ifndef COP_TESTS_COORDINATOR_DISK_VFS_H
#define COP_TESTS_COORDINATOR_DISK_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Makes it the one that all databases use from now on. Nothing is recorded, nothing fails. */
void vfs_install(void);
/* Forgets what was recorded, and records from here on. */
void vfs_record(void);
void vfs_stop(void);
/* Changes recorded so far. Any thread. */
uint32_t vfs_changes(void);

/* Call number n (from 1, reads and openings, too) of those to come fails: with this code of SQLite;
 * SQLITE_FULL of a write comes after half of it. 0: none. */
void vfs_fail(uint32_t n, int code);
/* The name of the call that failed; NULL: none has. */
const char *vfs_failed(void);

typedef enum vfs_loss {
    VFS_KILLED,  /* all changes so far are there */
    VFS_DROPPED, /* nothing that was not synced */
    VFS_TORN     /* some of it, in part: by the dice */
} vfs_loss;
/* Puts the files of the database `path` (a new one) as they are after the first `changes`. */
void vfs_crash(const char *path, uint32_t changes, vfs_loss loss, uint64_t dice);

#endif
