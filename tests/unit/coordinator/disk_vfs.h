/* SQLite on a disk that fails or loses its power, for tests of the store: a VFS in front of the
 * system's, which records all changes of files. vfs_fail makes one of its calls fail; vfs_crash
 * makes a folder look as after a crash after a given number of changes.
 *
 * The rules are a strict reading of POSIX: the content of a file is safe after its sync, and a name
 * in a folder after a sync of the folder, which SQLite does with the first sync of a new journal or
 * log. Everything else may be there, complete or torn. */
#ifndef COP_TESTS_COORDINATOR_DISK_VFS_H
#define COP_TESTS_COORDINATOR_DISK_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Makes it the default VFS of all databases. Records nothing and injects no faults yet. */
void vfs_install(void);
/* Forgets recorded changes, and starts recording. */
void vfs_record(void);
void vfs_stop(void);
/* Number of changes recorded so far. Any thread may call it. */
uint32_t vfs_changes(void);

/* Makes the n-th call from now on fail (from 1, including reads and opens) with this SQLite code; a
 * write that fails with SQLITE_FULL writes half. 0: no call fails. */
void vfs_fail(uint32_t n, int code);
/* The name of the failed call, or NULL. */
const char *vfs_failed(void);

typedef enum vfs_loss {
    VFS_KILLED,  /* all changes are there */
    VFS_DROPPED, /* unsynced changes are lost */
    VFS_TORN     /* unsynced changes are partly lost, at random */
} vfs_loss;
/* Writes the files of the new database `path` as they are after the first `changes`. */
void vfs_crash(const char *path, uint32_t changes, vfs_loss loss, uint64_t dice);

#endif
