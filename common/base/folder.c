/* Functions that walk over a folder and everything in it: they remove permissions, remove leftover
 * temporary files, or detect changes. See file.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"

#define DEPTH_MAX 16 /* levels of folders below the first path that a walk visits */

/* `walk` calls a visitor for the path itself, and then for everything in it. `info` is the result
 * of lstat: symbolic links are not followed. If a visitor returns an error, the walk ends. */
typedef cop_err (*visitor)(void *context, const char *path, const struct stat *info,
                           cop_error *error);

static cop_err walk(const char *path, int depth, visitor visit, void *context, cop_error *error) {
    struct stat info;
    char **names = NULL;
    size_t count = 0;
    COP_ASSERT(depth >= 0 && depth <= DEPTH_MAX);
    if (lstat(path, &info))
        return errno == ENOENT ? COP_OK : cop_fail_errno(error, errno, "cannot open %s", path);
    COP_TRY(visit(context, path, &info, error));
    if (!S_ISDIR(info.st_mode) || !depth) return COP_OK;
    cop_err e = cop_folder_list(path, &names, &count, error);
    for (size_t i = 0; i < count && !e; i++) {
        char *entry = cop_path_join(path, names[i]);
        e = entry ? walk(entry, depth - 1, visit, context, error) : cop_no_memory(error);
        cop_free(entry);
    }
    cop_free(names);
    return e;
}

/* ---- private ---- */

typedef struct privacy {
    size_t changed;
    cop_error first; /* the first file that could not be changed; the walk continues after it */
} privacy;

static cop_err make_private(void *context, const char *path, const struct stat *info,
                            cop_error *error) {
    privacy *p = context;
    const mode_t mode = info->st_mode & 07777, own = mode & 0700; /* the owner's permissions */
    (void)error;
    if (S_ISLNK(info->st_mode) || (mode & 077) == 0) return COP_OK;
    if (chmod(path, own) == 0)
        p->changed++;
    else if (!p->first.code)
        cop_fail_errno(&p->first, errno,
                       "%s has mode %04o, which lets other users access it, and cannot be changed "
                       "to mode %04o",
                       path, (unsigned)mode, (unsigned)own);
    return COP_OK;
}

void cop_file_make_private_only(void) {
    umask(077);
}

cop_err cop_folder_make_private(const char *path, size_t *changed, cop_error *error) {
    privacy p = {.changed = 0};
    const cop_err e = walk(path, DEPTH_MAX, make_private, &p, error);
    *changed = p.changed;
    return e || !p.first.code ? e : cop_fail(error, p.first.code, "%s", p.first.text);
}

/* ---- temporary files ---- */

/* True: the path ends in a name such as "NAME.123-4.tmp", which cop_file_write gives its temporary
 * files (123: the process id, 4: a number). */
static bool is_temporary(const char *path) {
    const size_t length = strlen(path), end = strlen(".tmp");
    if (length <= end || strcmp(path + length - end, ".tmp") != 0) return false;
    size_t at = length - end, digits = at;
    while (at && path[at - 1] >= '0' && path[at - 1] <= '9') at--;
    if (at == digits || !at || path[at - 1] != '-') return false;
    digits = --at;
    while (at && path[at - 1] >= '0' && path[at - 1] <= '9') at--;
    return at != digits && at > 1 && path[at - 1] == '.' && path[at - 2] != '/';
}

/* Removes a temporary file if it can lock the file. A program that still writes the file holds the
 * lock. If the file system has no locks, the file stays. */
static cop_err sweep_one(void *context, const char *path, const struct stat *info,
                         cop_error *error) {
    size_t *removed = context;
    (void)error;
    if (!S_ISREG(info->st_mode) || !is_temporary(path)) return COP_OK;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return COP_OK;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && unlink(path) == 0) ++*removed;
    close(fd);
    return COP_OK;
}

size_t cop_folder_sweep(const char *path) {
    size_t removed = 0;
    walk(path, DEPTH_MAX, sweep_one, &removed, NULL);
    return removed;
}

/* ---- changes ---- */

static cop_err add_to_stamp(void *context, const char *path, const struct stat *info,
                            cop_error *error) {
    cop_xxh3 *hash = context;
    const int64_t fields[] = {(int64_t)info->st_ino,
                              info->st_size,
                              info->st_mtim.tv_sec,
                              info->st_mtim.tv_nsec,
                              info->st_ctim.tv_sec,
                              info->st_ctim.tv_nsec,
                              (int64_t)(info->st_mode & S_IFMT)};
    (void)error;
    cop_xxh3_update(hash, path, strlen(path) + 1);
    cop_xxh3_update(hash, fields, sizeof fields);
    return COP_OK;
}

uint64_t cop_file_stamp(const char *path, bool deep) {
    cop_xxh3 hash;
    cop_xxh3_init(&hash);
    walk(path, deep ? DEPTH_MAX : 1, add_to_stamp, &hash, NULL);
    return cop_xxh3_final(&hash);
}
