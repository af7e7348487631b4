/* Files: reads with a size limit, and writes that are either complete or absent.
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

/* Reads a whole file into *out, NUL-terminated; *size is without the NUL. The caller frees *out
 * with cop_free. LIMIT: the file has more than `limit` bytes. */
cop_err cop_file_read(const char *path, size_t limit, char **out, size_t *size, cop_error *error);
/* Like cop_file_read, but reads an open descriptor (a pipe, standard input) to its end. `what`
 * names it in errors. */
cop_err cop_file_read_stream(int descriptor, const char *what, size_t limit, char **out,
                             size_t *size, cop_error *error);
/* Names the format of a file by its first bytes, for errors: "a ZIP archive (...)", "a text file",
 * "empty". Static. */
const char *cop_file_kind(const void *bytes, size_t size);
typedef struct cop_file_part {
    const void *data;
    size_t size;
} cop_file_part;
/* Writes the parts to `path` atomically: temporary file in the same folder, write, fsync, rename,
 * fsync of the folder. On failure, the old file is untouched and the temporary file is removed. One
 * exception: if only the last fsync fails, the new file is complete, but may not survive a power
 * failure. INPUT: `path` exists and is not a file (a folder, a device). `mode` is for example 0644;
 * the umask applies. */
cop_err cop_file_write(const char *path, const cop_file_part *parts, size_t count, unsigned mode,
                       cop_error *error);
/* Like cop_file_write, for one text, with mode 0644. */
cop_err cop_file_write_text(const char *path, const char *text, cop_error *error);
/* Checks that a file can be written at `path`, before long work whose result goes there. Writes
 * nothing. INPUT: it cannot be written; the error says why. */
cop_err cop_file_check_place(const char *path, cop_error *error);
/* True: `path` is a file, or the disk fails and it may be one. */
bool cop_file_exists(const char *path);
/* True: `path` is a folder. */
bool cop_folder_exists(const char *path);
/* Creates a folder and its parents, if absent. On success they survive a power failure. */
cop_err cop_folder_create(const char *path, cop_error *error);
/* Makes the list of names in the folder survive a power failure. */
cop_err cop_folder_sync(const char *path, cop_error *error);
/* Lists the names in a folder in byte order, without . and .. ; free *names with one cop_free.
 * NOT_FOUND: `path` is absent or not a folder. */
cop_err cop_folder_list(const char *path, char ***names, size_t *count, cop_error *error);
/* Removes a folder with its content. Links are removed, never followed. Succeeds if the folder is
 * absent. INPUT: `path` is not a folder. */
cop_err cop_folder_remove(const char *path, cop_error *error);
/* Removes a file. Succeeds if the file is absent. EXISTS: `path` is a folder. */
cop_err cop_file_remove(const char *path, cop_error *error);
/* From now on, only this user can access the files and folders that this process creates (0600,
 * 0700), whatever the umask was. */
void cop_file_make_private_only(void);
/* Removes all permissions of group and others from a file, or from a folder and all its content.
 * The owner's permissions stay. *changed gets the number of files and folders that it changed.
 * DENIED: one of them belongs to another user; the rest is changed nevertheless. */
cop_err cop_folder_make_private(const char *path, size_t *changed, cop_error *error);
/* Removes the temporary files that killed programs left during cop_file_write, in this folder and
 * below. Returns their number. */
size_t cop_folder_sweep(const char *path);
/* Returns a number that changes when the file changes, or when the direct content of the folder
 * changes (deep: all content below it): names, sizes or times. */
uint64_t cop_file_stamp(const char *path, bool deep);
/* Renames a file or folder, and fsyncs the folder of `to`. */
cop_err cop_file_rename(const char *from, const char *to, cop_error *error);
/* Moves folder `from` to `to`. If `to` exists, the two are exchanged in one step and the old one is
 * then removed, so that a crash leaves one of the two. If the file system cannot exchange names,
 * the old folder is removed first. */
cop_err cop_folder_replace(const char *from, const char *to, cop_error *error);
/* Locks a folder for this process; *lock gets a descriptor. The lock lasts until cop_folder_unlock
 * or the end of the process. EXISTS: another process holds the lock. On a file system without
 * locks, the call succeeds without any lock. */
cop_err cop_folder_lock(const char *path, int *lock, cop_error *error);
void cop_folder_unlock(int lock);
/* True: a text from outside (the name of a job or a data set) is safe as the name of one file or
 * folder: 1 to 200 bytes of UTF-8 without control characters, without '/', without a leading '.'.
 * Check every such text before it becomes part of a path. */
bool cop_path_name_ok(const char *text);
/* Joins "a/b" and "c" to a new string "a/b/c" (cop_free). If `name` is absolute, the result is
 * `name` alone. NULL: out of memory. */
char *cop_path_join(const char *folder, const char *name);
/* Returns the cache folder: $COPPICE_CACHE, $XDG_CACHE_HOME/coppice or ~/.cache/coppice (cop_free).
 * Without HOME, ~ comes from the system's list of users; without an entry there, it is a folder in
 * /tmp that only this user can access. NULL: out of memory, or no such folder can be created. */
char *cop_path_cache(void);
/* Like cop_path_cache, for the state folder: $COPPICE_STATE, $XDG_STATE_HOME/coppice or
 * ~/.local/state/coppice. It has the store and the token of this user's coordinator; its clients
 * and workers look there for the token. */
char *cop_path_state(void);
/* Returns the number of bytes that this user can still write to the file system of `path`;
 * UINT64_MAX: unknown. */
uint64_t cop_file_space(const char *path);

#endif
