/* Files and folders: reads with a size limit, and writes that leave either the complete new file or
 * the old state.
 *
 * Every system call that makes data persistent is in file.c, so that tests can inject faults in one
 * place: COPPICE_FAIL_IO=k makes the k-th write, fsync or rename of the process fail with ENOSPC.
 * All functions block. */
#ifndef COP_BASE_FILE_H
#define COP_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Reads a whole file into *out and appends a NUL, which *size does not count. The caller frees *out
 * with cop_free. LIMIT: the file has more than `limit` bytes. INPUT: `path` is not a regular file.
 */
cop_err cop_file_read(const char *path, size_t limit, char **out, size_t *size, cop_error *error);
/* Like cop_file_read, but reads from an open descriptor (a pipe, standard input) until its end.
 * `what` names the descriptor in errors. */
cop_err cop_file_read_stream(int descriptor, const char *what, size_t limit, char **out,
                             size_t *size, cop_error *error);
/* Returns the format of a file whose first `size` bytes are `bytes`, in words for errors, such as
 * "a ZIP archive (.zip, .npz, .xlsx)", "a text file" or "empty". The string is static. */
const char *cop_file_kind(const void *bytes, size_t size);
/* A piece of the content of a file that is written. */
typedef struct cop_file_part {
    const void *data;
    size_t size;
} cop_file_part;
/* Writes the parts, one after the other, to the file `path`. A crash leaves either the old file or
 * the complete new one, because it
 *  1. writes a temporary file in the same folder,
 *  2. fsyncs that file,
 *  3. renames it to `path`,
 *  4. fsyncs the folder.
 * If one of the steps 1 to 3 fails, the old file is unchanged, and the temporary file is removed.
 * If step 4 fails, it returns the error, but the new file is in place; a power failure may lose it.
 * `mode` has the permissions of the new file, such as 0644, less those that the umask removes.
 * INPUT: `path` exists and is not a regular file (a folder, a device), or it is too long. */
cop_err cop_file_write(const char *path, const cop_file_part *parts, size_t count, unsigned mode,
                       cop_error *error);
/* Writes one text like cop_file_write, with mode 0644. */
cop_err cop_file_write_text(const char *path, const char *text, cop_error *error);
/* Checks that cop_file_write could create a file at `path`. Call it before long work whose result
 * goes there. Writes nothing. INPUT: `path` cannot be written; the error gives the reason. */
cop_err cop_file_check_place(const char *path, cop_error *error);
/* True: `path` is a regular file. Also true if the disk failed, because `path` may then be one. */
bool cop_file_exists(const char *path);
/* True: `path` is a folder. */
bool cop_folder_exists(const char *path);
/* Creates a folder and its parents where they are absent. On success, the folders that it created
 * survive a power failure. EXISTS: `path` exists and is not a folder. */
cop_err cop_folder_create(const char *path, cop_error *error);
/* Fsyncs a folder, so that the names that were created, renamed or removed in it survive a power
 * failure. Has no effect on file systems that cannot sync folders. */
cop_err cop_folder_sync(const char *path, cop_error *error);
/* Lists the names in a folder, without "." and "..", in the order of their bytes. The array and all
 * names are one block, which the caller frees with cop_free(*names). NOT_FOUND: `path` is absent or
 * not a folder. */
cop_err cop_folder_list(const char *path, char ***names, size_t *count, cop_error *error);
/* Removes a folder with its content. Removes symbolic links without following them; this includes
 * `path` itself. Succeeds if `path` is absent. INPUT: `path` is neither a folder nor a link. */
cop_err cop_folder_remove(const char *path, cop_error *error);
/* Removes a file. Succeeds if the file is absent. EXISTS: `path` is a folder. */
cop_err cop_file_remove(const char *path, cop_error *error);
/* Sets the umask to 077. From then on, only this user can access the files and folders that this
 * process creates. */
void cop_file_make_private_only(void);
/* Removes all permissions of group and others from a file, or from a folder and its content down to
 * 16 levels. The owner's permissions stay. *changed gets the number of files and folders that it
 * changed. If it may not change one of them, it continues with the others, and returns the first
 * error at the end; this is DENIED if the file belongs to another user. */
cop_err cop_folder_make_private(const char *path, size_t *changed, cop_error *error);
/* Removes the temporary files of cop_file_write that killed programs left, from this folder and
 * from folders in it, down to 16 levels. Does not touch a file that another process is still
 * writing. Returns the number of files that it removed. */
size_t cop_folder_sweep(const char *path);
/* Returns a hash of what the file system knows about `path`: names, inode numbers, sizes, types and
 * times, but no contents. Two equal numbers mean that nothing has changed. For a folder, it covers
 * the folder and its direct entries or, if `deep`, everything in it down to 16 levels. */
uint64_t cop_file_stamp(const char *path, bool deep);
/* Renames a file or folder, and fsyncs the folder that contains `to`. */
cop_err cop_file_rename(const char *from, const char *to, cop_error *error);
/* Renames folder `from` to `to`. If `to` exists, it exchanges the two names in one step and then
 * removes the old folder, so that after a crash `to` is either the old or the new folder. If the
 * file system cannot exchange names, it removes the old folder before the rename; a crash between
 * these steps leaves the new folder at `from`, and `to` is absent or incomplete. */
cop_err cop_folder_replace(const char *from, const char *to, cop_error *error);
/* Locks a folder for this process. *lock gets a descriptor for cop_folder_unlock. The lock lasts
 * until cop_folder_unlock or the end of the process. EXISTS: another process holds the lock. On a
 * file system without locks, the call succeeds, but nothing is locked. */
cop_err cop_folder_lock(const char *path, int *lock, cop_error *error);
/* Releases the lock, and closes its descriptor. */
void cop_folder_unlock(int lock);
/* True: `text` is safe as the name of one file or folder. It has 1 to 200 bytes of UTF-8, no
 * control character and no '/', and does not begin with '.'. Check every text from outside, such as
 * the name of a data set, before it becomes part of a path. */
bool cop_path_name_ok(const char *text);
/* Joins a folder "a/b" and a name "c" to "a/b/c". If `name` begins with '/', or if `folder` is
 * empty, the result is `name` alone. The caller frees the result with cop_free. NULL: out of
 * memory. */
char *cop_path_join(const char *folder, const char *name);
/* Returns the path of the cache folder, which may not exist yet. The caller frees it with cop_free.
 * It is the first of these whose variable is set and not empty:
 *  - $COPPICE_CACHE
 *  - $XDG_CACHE_HOME/coppice
 *  - $HOME/.cache/coppice
 *  - .cache/coppice in the home folder from the system's user database, if this user owns it
 *  - .cache/coppice in a folder in /tmp that only this user can access
 * NULL: out of memory, or the folder in /tmp cannot be created. */
char *cop_path_cache(void);
/* Like cop_path_cache, for the state folder: $COPPICE_STATE, $XDG_STATE_HOME/coppice or
 * .local/state/coppice in the home folder. There this user's coordinator keeps its store and its
 * token, and this user's clients and workers look for the token. */
char *cop_path_state(void);
/* Returns the number of bytes that this user can still write to the file system of `path`, or
 * UINT64_MAX if the system does not know it. */
uint64_t cop_file_space(const char *path);

#endif
