/* Files: whole reads with a cap, and writes that are either complete or absent.
 *
 * Every system call of persistence goes through this file, so that faults can be injected at one
 * seam: COPPICE_FAIL_IO=k makes the k-th write, fsync or rename of the process fail with ENOSPC
 * (tests). */
#ifndef COP_BASE_FILE_H
#define COP_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Reads a whole file (at most `limit` bytes, else LIMIT) into *out (cop_free), NUL-terminated;
 * *size without the NUL. */
cop_err cop_file_read(const char *path, size_t limit, char **out, size_t *size, cop_error *error);
/* Reads an open descriptor (a pipe, standard input) to its end, in the same way; blocks. `what`
 * names it in errors. */
cop_err cop_file_read_stream(int descriptor, const char *what, size_t limit, char **out,
                             size_t *size, cop_error *error);
/* What the bytes of a file are, by their beginning, for errors: "a ZIP archive (...)", "a text
 * file", "empty". */
const char *cop_file_kind(const void *bytes, size_t size);
typedef struct cop_file_part {
    const void *data;
    size_t size;
} cop_file_part;
/* Writes the parts to `path` atomically: temporary file beside it, write, fsync, rename, fsync of
 * the folder. On failure the old file (if any) is untouched and the temporary is removed; only
 * when the last step fails, the fsync of the folder, the new file is there, whole, but may not
 * survive a loss of power. INPUT if something that is not a file (a folder, a device) has the name.
 * mode e.g. 0644, less the umask. */
cop_err cop_file_write(const char *path, const cop_file_part *parts, size_t count, unsigned mode,
                       cop_error *error);
cop_err cop_file_write_text(const char *path, const char *text, cop_error *error);
/* Could a file be written at `path`? Asked before long work whose result goes there; INPUT says why
 * not. Nothing is written. */
cop_err cop_file_check_place(const char *path, cop_error *error);
bool cop_file_exists(const char *path); /* true also if the disk cannot tell */
bool cop_folder_exists(const char *path);
/* mkdir -p; fine if it is there. What it makes survives a loss of power. */
cop_err cop_folder_create(const char *path, cop_error *error);
/* What names stand in it, and which do not any more, survives a loss of power. */
cop_err cop_folder_sync(const char *path, cop_error *error);
/* Names in a folder in byte order without . and .. ; *names is one block: free with cop_free.
 * NOT_FOUND if absent, or no folder. */
cop_err cop_folder_list(const char *path, char ***names, size_t *count, cop_error *error);
/* Recursive; absent is ok. Links are removed, never followed. INPUT if it is no folder. */
cop_err cop_folder_remove(const char *path, cop_error *error);
cop_err cop_file_remove(const char *path, cop_error *error); /* absent is ok; EXISTS: a folder */
/* From now on everything that this process makes is for its user alone (0700, 0600), whatever umask
 * it was started with. */
void cop_file_make_private_only(void);
/* Takes from others what they may do with a file, or a folder and all that is in it; *changed: how
 * many they could use before. The owner's own rights stay. DENIED when one belongs to somebody
 * else; the others are changed nevertheless. */
cop_err cop_folder_make_private(const char *path, size_t *changed, cop_error *error);
/* Removes temporary files of cop_file_write, in all folders below, that nobody alive is writing:
 * their program was killed. Returns how many. */
size_t cop_folder_sweep(const char *path);
/* A number that is another one when the file was changed; or, of a folder, anything in it (deep:
 * and below): names, sizes, times. */
uint64_t cop_file_stamp(const char *path, bool deep);
cop_err cop_file_rename(const char *from, const char *to,
                        cop_error *error); /* also fsyncs the folder of `to` */
/* Puts folder `from` in the place of folder `to`, which may be there: it is exchanged at once, then
 * removed, so that a crash leaves the one or the other. (Where the file system cannot exchange
 * names, the old one is removed first.) */
cop_err cop_folder_replace(const char *from, const char *to, cop_error *error);
/* Locks a folder for this process: *lock (a descriptor; cop_folder_unlock) holds until the process
 * ends. EXISTS: another process holds it. A file system without locks gives a lock that excludes
 * nobody. */
cop_err cop_folder_lock(const char *path, int *lock, cop_error *error);
void cop_folder_unlock(int lock);
/* Is a text from outside (a job's or a data set's name) the name of one entry of a folder? Not "",
 * no '/', no '.' in front, at most 200 bytes of UTF-8 without control characters. Every such text
 * is asked for before it becomes a part of a path. */
bool cop_path_name_ok(const char *text);
/* "a/b" + "c" -> new string "a/b/c" (cop_free); an absolute second part stands alone. */
char *cop_path_join(const char *folder, const char *name);
/* ~/.cache/coppice or $XDG_CACHE_HOME/coppice or $COPPICE_CACHE (cop_free). Where there is no HOME,
 * ~ is the user's in the system's list; without one, a folder in /tmp that is the user's alone. */
char *cop_path_cache(void);
/* The same for $COPPICE_STATE, $XDG_STATE_HOME/coppice, ~/.local/state/coppice: store and token of
 * a coordinator of this user, where its clients and workers find the token. */
char *cop_path_state(void);
/* Free bytes for us on the file system of `path`; UINT64_MAX if unknown. */
uint64_t cop_file_space(const char *path);

#endif
