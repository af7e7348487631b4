/* SQLite on a disk that fails or loses power, for tests of the store. It is a VFS (SQLite's
 * interface to files) that passes all calls to the system's VFS and records all changes of files.
 * vfs_fail makes one of its calls fail. vfs_crash writes the files as they would be after a crash.
 *
 * The rules are a strict reading of POSIX: the content of a file is safe after its sync, and a name
 * in a folder is safe after a sync of the folder, which SQLite does with the first sync of a new
 * journal or log. Everything else may be lost, torn or complete after a loss of power. */
#ifndef COP_TESTS_COORDINATOR_DISK_VFS_H
#define COP_TESTS_COORDINATOR_DISK_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Makes this VFS the default of all databases. It records nothing and makes nothing fail yet. */
void vfs_install(void);
/* Forgets the recorded changes, and begins to record. */
void vfs_record(void);
void vfs_stop(void);
/* Number of changes recorded so far. Any thread may call it. */
uint32_t vfs_changes(void);

/* Makes the n-th call of the VFS from now on fail (n >= 1; 0: no call fails). All calls count, also
 * reads and opens. `code` says how the call fails:
 *   SQLITE_FULL  as on a full disk: a write writes half of its bytes and returns SQLITE_FULL; an
 *                open and a sync return the error code of their kind; other calls succeed
 *   any other    it does nothing and returns the error code of its kind */
void vfs_fail(uint32_t n, int code);
/* The name of the call that vfs_fail made fail; NULL: none has failed since. */
const char *vfs_failed(void);

typedef enum vfs_loss {
    VFS_KILLED,  /* kill -9: all changes are there */
    VFS_DROPPED, /* a loss of power: all unsynced changes are lost */
    VFS_TORN     /* a loss of power: a random part of the unsynced changes is lost */
} vfs_loss;
/* Writes the files of a new database at `path` as they would be after a crash that follows the
 * first `changes` changes. `dice` is the seed that decides what VFS_TORN loses. */
void vfs_crash(const char *path, uint32_t changes, vfs_loss loss, uint64_t dice);

#endif
