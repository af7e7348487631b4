/* Files: reads with a size limit, and writes that are either complete or absent.
 *
 * Every system call of persistence goes through this file, so faults can be injected in one place.
 * In tests, COPPICE_FAIL_IO=k makes the k-th write, fsync or rename of the process fail with
 * ENOSPC. All functions block. */
#ifndef COP_BASE_FILE_H
#define COP_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Reads a whole file into *out, NUL-terminated; *size is without the NUL. The caller frees *out
 * with cop_free. LIMIT: the file has more than `limit` bytes. */
cop_err cop_file_read(const char *path, size_t limit, char **out, size_t *size, cop_error *error);
/* As cop_file_read, for an open descriptor (a pipe, standard input), which it reads to the end.
 * `what` names it in errors. */
cop_err cop_file_read_stream(int descriptor, const char *what, size_t limit, char **out,
                             size_t *size, cop_error *error);
/* What the bytes of a file are, by their beginning, for errors: "a ZIP archive (...)", "a text
 * file", "empty". */
const char *cop_file_kind(const void *bytes, size_t size);
typedef struct cop_file_part {
    const void *data;
    size_t size;
} cop_file_part;
/* Writes the parts to `path` atomically: temporary file in the same folder, write, fsync, rename,
 * fsync of the folder. On failure the old file is untouched and the temporary file is removed. One
 * exception: if only the last fsync fails, the new file is complete, but may not survive a loss of
 * power. INPUT: something with this name is not a file (a folder, a device). `mode` is for example
 * 0644; the umask applies. */
cop_err cop_file_write(const char *path, const cop_file_part *parts, size_t count, unsigned mode,
                       cop_error *error);
/* As cop_file_write with mode 0644, for one text. */
cop_err cop_file_write_text(const char *path, const char *text, cop_error *error);
/* Checks whether a file can be written at `path`, before long work that ends there. INPUT: no, with
 * the reason. Writes nothing. */
cop_err cop_file_check_place(const char *path, cop_error *error);
/* True: something has this name, or the disk cannot tell. */
bool cop_file_exists(const char *path);
/* True: a folder has this name. */
bool cop_folder_exists(const char *path);
/* Creates a folder and its parents, if absent. On success they survive a loss of power. */
cop_err cop_folder_create(const char *path, cop_error *error);
/* Makes the list of names in the folder survive a loss of power. */
cop_err cop_folder_sync(const char *path, cop_error *error);
/* The names in a folder in byte order, without . and .. ; *names is one block for cop_free.
 * NOT_FOUND: absent, or not a folder. */
cop_err cop_folder_list(const char *path, char ***names, size_t *count, cop_error *error);
/* Removes a folder with its content. Links are removed, never followed. An absent folder is ok.
 * INPUT: not a folder. */
cop_err cop_folder_remove(const char *path, cop_error *error);
/* Removes a file. An absent file is ok. EXISTS: it is a folder. */
cop_err cop_file_remove(const char *path, cop_error *error);
/* From now on this process creates all files and folders for its user alone (0600, 0700), with any
 * umask. */
void cop_file_make_private_only(void);
/* Takes the rights of other users away from a file, or from a folder and its content. The owner's
 * rights stay. *changed: how many others could use before. DENIED: one of them belongs to another
 * user; the rest is changed nevertheless. */
cop_err cop_folder_make_private(const char *path, size_t *changed, cop_error *error);
/* Removes the temporary files of cop_file_write that killed programs left, in this folder and
 * below. Returns their number. */
size_t cop_folder_sweep(const char *path);
/* A number that differs after a change of the file, or of a folder's direct content (deep: all
 * content below): names, sizes, times. */
uint64_t cop_file_stamp(const char *path, bool deep);
/* Renames a file or folder, and fsyncs the folder of `to`. */
cop_err cop_file_rename(const char *from, const char *to, cop_error *error);
/* Moves folder `from` to `to`. An existing `to` is exchanged in one step and then removed, so a
 * crash leaves one of the two. If the file system cannot exchange names, the old folder is removed
 * first. */
cop_err cop_folder_replace(const char *from, const char *to, cop_error *error);
/* Locks a folder for this process; *lock is a descriptor. The lock lasts until cop_folder_unlock or
 * the end of the process. EXISTS: another process has locked it. On a file system without locks,
 * the call succeeds and excludes nobody. */
cop_err cop_folder_lock(const char *path, int *lock, cop_error *error);
void cop_folder_unlock(int lock);
/* True: a text from outside (the name of a job or a data set) can be the name of one entry of a
 * folder. It is not empty, has no '/' and no leading '.', and is at most 200 bytes of UTF-8 without
 * control characters. Check every such text before it becomes a part of a path. */
bool cop_path_name_ok(const char *text);
/* "a/b" + "c" -> new string "a/b/c" (cop_free). An absolute second part is the result itself. NULL:
 * out of memory. */
char *cop_path_join(const char *folder, const char *name);
/* $COPPICE_CACHE, $XDG_CACHE_HOME/coppice or ~/.cache/coppice (cop_free). Without HOME, ~ comes
 * from the system's list of users; without an entry there, the result is a folder in /tmp for this
 * user alone. */
char *cop_path_cache(void);
/* As cop_path_cache, for $COPPICE_STATE, $XDG_STATE_HOME/coppice or ~/.local/state/coppice: the
 * store and the token of this user's coordinator. Its clients and workers look there for the token.
 */
char *cop_path_state(void);
/* The free bytes for us on the file system of `path`; UINT64_MAX: unknown. */
uint64_t cop_file_space(const char *path);

#endif
