/* Files: whole reads, atomic writes. See file.h. */
#include "common/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/str.h"
#include "common/base/injected_bugs.h"

/* ---- fault injection: writes, fsyncs and renames are counted, and the k-th one fails ---- */

static atomic_ullong operations; /* how many writes, fsyncs and renames there have been */

static bool fault_due(void) {
    static atomic_ullong fail_at;
    static atomic_int known;
    if (!atomic_load(&known)) {
        const char *k = getenv("COPPICE_FAIL_IO");
        atomic_store(&fail_at, k ? strtoull(k, NULL, 10) : 0);
        atomic_store(&known, 1);
    }
    unsigned long long k = atomic_load(&fail_at);
    if (atomic_fetch_add(&operations, 1) + 1 != k || !k) return false;
    errno = ENOSPC;
    return true;
}

static ssize_t write_or_fail(int fd, const void *data, size_t size) {
    return fault_due() ? -1 : write(fd, data, size);
}

static int fsync_or_fail(int fd) {
    return fault_due() ? -1 : fsync(fd);
}

static int rename_or_fail(const char *from, const char *to) {
    return fault_due() ? -1 : rename(from, to);
}

static int exchange_or_fail(const char *from, const char *to) {
    return fault_due() ? -1 : renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE);
}

/* ---- reading ---- */

static cop_err read_open(int fd, const char *path, size_t size, char *text, cop_error *error) {
    size_t at = 0;
    while (at < size) {
        ssize_t n = read(fd, text + at, size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cop_fail_errno(error, errno, "cannot read %s", path);
        if (n == 0) return cop_fail(error, COP_ERR_IO, "%s shrank while it was being read", path);
        at += (size_t)n;
    }
    text[size] = '\0';
    return COP_OK;
}

cop_err cop_file_read(const char *path, size_t limit, char **out, size_t *size, cop_error *error) {
    struct stat info;
    /* O_NONBLOCK has no effect on regular files. If `path` is a FIFO, open must not wait for a
     * writer, because the FIFO is refused below. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cop_fail_errno(error, errno, "cannot open %s", path);
    cop_err e = COP_OK;
    char *text = NULL;
    if (fstat(fd, &info))
        e = cop_fail_errno(error, errno, "cannot read %s", path);
    else if (!S_ISREG(info.st_mode))
        e = cop_fail(error, COP_ERR_INPUT, "%s is not a file", path);
    else if ((uint64_t)info.st_size > limit)
        e = cop_fail(error, COP_ERR_LIMIT, "%s is too large: %lld bytes, the limit is %zu", path,
                     (long long)info.st_size, limit);
    else if (!(text = cop_alloc_raw((size_t)info.st_size + 1)))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the %lld bytes of %s",
                     (long long)info.st_size, path);
    else
        e = read_open(fd, path, (size_t)info.st_size, text, error);
    close(fd);
    if (e) {
        cop_free(text);
        return e;
    }
    *out = text;
    *size = (size_t)info.st_size;
    return COP_OK;
}

typedef struct stream_text {
    char *text;
    size_t size, capacity;
} stream_text;

/* Reads the next bytes of a stream and appends them to *s. At the end of the stream, s->size does
 * not change. */
static cop_err read_more(int fd, const char *what, stream_text *s, cop_error *error) {
    if (s->size + 1 >= s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 1u << 16;
        char *more = cop_realloc(s->text, s->capacity);
        if (!more)
            return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the %zu bytes of %s",
                            s->capacity, what);
        s->text = more;
    }
    ssize_t n;
    while ((n = read(fd, s->text + s->size, s->capacity - 1 - s->size)) < 0 && errno == EINTR)
        continue;
    if (n < 0) return cop_fail_errno(error, errno, "cannot read %s", what);
    s->size += (size_t)n;
    return COP_OK;
}

cop_err cop_file_read_stream(int descriptor, const char *what, size_t limit, char **out,
                             size_t *size, cop_error *error) {
    stream_text s = {0};
    size_t before;
    cop_err e;
    do {
        before = s.size;
        e = read_more(descriptor, what, &s, error);
        if (!e && s.size > limit)
            e = cop_fail(error, COP_ERR_LIMIT, "%s is too large: the limit is %zu bytes", what,
                         limit);
    } while (!e && s.size > before);
    if (e) {
        cop_free(s.text);
        return e;
    }
    s.text[s.size] = '\0';
    *out = s.text;
    *size = s.size;
    return COP_OK;
}

/* ---- writing ---- */

static cop_err write_all(int fd, const char *path, const cop_file_part *part, cop_error *error) {
    const char *p = part->data;
    size_t remaining = part->size;
    while (remaining) {
        ssize_t n = write_or_fail(fd, p, remaining);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return cop_fail_errno(error, n ? errno : ENOSPC, "cannot write %s", path);
        p += n;
        remaining -= (size_t)n;
    }
    return COP_OK;
}

/* Writes the folder part of `path` to out[size]. */
static void folder_of(const char *path, char *out, size_t size) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(out, size, ".");
    else if (slash == path)
        snprintf(out, size, "/");
    else
        snprintf(out, size, "%.*s", (int)(slash - path), path);
}

cop_err cop_folder_sync(const char *path, cop_error *error) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return cop_fail_errno(error, errno, "cannot open folder %s", path);
    int failed = COP_INJECT_BUG(SYNC_FOLDER, fsync_or_fail(fd), 0) ? errno : 0;
    close(fd);
    /* Some file systems cannot sync folders. */
    if (failed && failed != EINVAL)
        return cop_fail_errno(error, failed, "cannot sync folder %s", path);
    return COP_OK;
}

/* Syncs the folder that contains `path`. */
static cop_err sync_parent(const char *path, cop_error *error) {
    char folder[4096];
    folder_of(path, folder, sizeof folder);
    return cop_folder_sync(folder, error);
}

/* Locks a new temporary file, so that cop_folder_sweep of another process does not remove it while
 * it is written. False: another process has locked it to remove it, or has already removed it. */
static bool lock_temporary(int fd) {
    struct stat info;
    if (flock(fd, LOCK_EX | LOCK_NB)) return errno != EWOULDBLOCK;
    return fstat(fd, &info) || info.st_nlink > 0;
}

typedef struct temporary_file {
    char path[4096];
    int fd;
} temporary_file;

/* Creates and locks a temporary file in the folder of `path`. Its name contains our process id and
 * a number. If a file with this name exists, it was left by a killed program that had the same
 * process id, which is common in containers; then the next number is tried. */
static cop_err open_temporary(const char *path, unsigned mode, temporary_file *out,
                              cop_error *error) {
    static atomic_uint serial;
    do {
        int length = snprintf(out->path, sizeof out->path, "%s.%ld-%u.tmp", path, (long)getpid(),
                              atomic_fetch_add(&serial, 1));
        if (length < 0 || (size_t)length >= sizeof out->path)
            return cop_fail(error, COP_ERR_INPUT, "the path is too long: %s", path);
        out->fd = open(out->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        if (out->fd >= 0 && !lock_temporary(out->fd)) {
            close(out->fd);
            out->fd = -1;
            errno = EINTR;
        }
    } while (out->fd < 0 && (errno == EEXIST || errno == EINTR));
    return out->fd < 0 ? cop_fail_errno(error, errno, "cannot write %s", path) : COP_OK;
}

cop_err cop_file_write(const char *path, const cop_file_part *parts, size_t count, unsigned mode,
                       cop_error *error) {
    temporary_file temporary;
    struct stat info;
    COP_ASSERT((parts || !count) && mode <= 0777);
    /* Without this check, the rename would replace a device or a pipe with a file. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return cop_fail(error, COP_ERR_INPUT, "cannot write %s: it exists and is not a file", path);
    COP_TRY(open_temporary(path, mode, &temporary, error));
    cop_err e = COP_OK;
    for (size_t i = 0; i < count && !e; i++) e = write_all(temporary.fd, path, &parts[i], error);
    if (!e && COP_INJECT_BUG(SYNC_FILE, fsync_or_fail(temporary.fd), 0))
        e = cop_fail_errno(error, errno, "cannot sync %s", path);
    if (!e && rename_or_fail(temporary.path, path))
        e = cop_fail_errno(error, errno, "cannot rename to %s", path);
    if (e) unlink(temporary.path);
    close(temporary.fd); /* also releases the lock; cannot fail in a new way after the fsync */
    COP_TRY(e);
    return sync_parent(path, error);
}

cop_err cop_file_write_text(const char *path, const char *text, cop_error *error) {
    cop_file_part part = {text, strlen(text)};
    return cop_file_write(path, &part, 1, 0644, error);
}

cop_err cop_file_rename(const char *from, const char *to, cop_error *error) {
    if (rename_or_fail(from, to))
        return cop_fail_errno(error, errno, "cannot rename %s to %s", from, to);
    return sync_parent(to, error);
}

cop_err cop_file_remove(const char *path, cop_error *error) {
    if (unlink(path) && errno != ENOENT)
        return cop_fail_errno(error, errno, "cannot remove %s", path);
    return COP_OK;
}

cop_err cop_file_check_place(const char *path, cop_error *error) {
    char folder[4096];
    folder_of(path, folder, sizeof folder);
    if (cop_folder_exists(path))
        return cop_fail(error, COP_ERR_INPUT, "cannot write %s: it is a folder", path);
    if (access(folder, W_OK | X_OK)) {
        const int number = errno;
        return cop_fail(error, COP_ERR_INPUT, "cannot write %s: %s: %s", path, folder,
                        strerror(number));
    }
    if (!cop_folder_exists(folder))
        return cop_fail(error, COP_ERR_INPUT, "cannot write %s: %s is not a folder", path, folder);
    return COP_OK;
}

/* ---- folders and paths ---- */

/* If the disk fails, the result is true. The caller then opens the file and gets the error, instead
 * of concluding that the file is absent and using another one. */
bool cop_file_exists(const char *path) {
    struct stat info;
    if (stat(path, &info) == 0) return S_ISREG(info.st_mode);
    return errno != ENOENT && errno != ENOTDIR && errno != EACCES && errno != ELOOP &&
           errno != ENAMETOOLONG;
}

bool cop_folder_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool is_empty(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry = NULL;
    if (!folder) return false;
    while ((entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) break;
    closedir(folder);
    return !entry;
}

/* Creates one folder and syncs its parent. Without this sync, a power failure could lose the folder
 * with everything that was later written to it. If the folder exists and is empty, its parent is
 * synced, too, because the program that created it may have been killed before its sync. */
static cop_err create_one_folder(const char *path, cop_error *error) {
    bool existed = mkdir(path, 0777) != 0;
    if (existed && errno != EEXIST)
        return cop_fail_errno(error, errno, "cannot create folder %s", path);
    if (existed && !is_empty(path)) return COP_OK;
    cop_err e = sync_parent(path, error);
    if (e == COP_ERR_DENIED && existed) return COP_OK; /* we may not open the parent folder */
    if (e && !existed) rmdir(path);
    return e;
}

cop_err cop_folder_create(const char *path, cop_error *error) {
    char part[4096];
    size_t length = strlen(path);
    if (!length || length >= sizeof part)
        return cop_fail(error, COP_ERR_INPUT, "not a usable folder name: \"%s\"", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        COP_TRY(create_one_folder(part, error));
        part[i] = kept;
    }
    struct stat info;
    if (stat(path, &info)) return cop_fail_errno(error, errno, "cannot create folder %s", path);
    if (!S_ISDIR(info.st_mode))
        return cop_fail(error, COP_ERR_EXISTS, "%s exists and is not a folder", path);
    return COP_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends all names in a folder, each with its NUL, to *text. Returns the number of names. If it
 * fails, it returns -1 and sets errno. */
static long read_names(DIR *folder, char **text, size_t *size) {
    long count = 0;
    size_t capacity = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        size_t length = strlen(entry->d_name) + 1;
        if (*size + length > capacity) {
            capacity = capacity * 2 + length + 256;
            char *more = cop_realloc(*text, capacity);
            if (!more) {
                errno = ENOMEM;
                return -1;
            }
            *text = more;
        }
        memcpy(*text + *size, entry->d_name, length);
        *size += length;
        count++;
    }
    return errno ? -1 : count;
}

cop_err cop_folder_list(const char *path, char ***names, size_t *count, cop_error *error) {
    DIR *folder = opendir(path);
    if (!folder) return cop_fail_errno(error, errno, "cannot open folder %s", path);
    char *text = NULL;
    size_t size = 0;
    long found = read_names(folder, &text, &size);
    int number = errno;
    closedir(folder);
    if (found < 0) {
        cop_free(text);
        return cop_fail_errno(error, number, "cannot read folder %s", path);
    }
    size_t table = (size_t)found * sizeof(char *);
    char **list = cop_alloc(table + size + 1);
    if (!list) {
        cop_free(text);
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the names in %s", path);
    }
    char *copy = (char *)list + table;
    if (size) memcpy(copy, text, size);
    cop_free(text);
    for (long i = 0; i < found; i++) {
        list[i] = copy;
        copy += strlen(copy) + 1;
    }
    COP_ASSERT(copy == (char *)list + table + size);
    qsort(list, (size_t)found, sizeof *list, compare_names);
    *names = list;
    *count = (size_t)found;
    return COP_OK;
}

static cop_err remove_entry(const char *path, cop_error *error) {
    struct stat info;
    if (lstat(path, &info))
        return errno == ENOENT ? COP_OK : cop_fail_errno(error, errno, "cannot remove %s", path);
    return S_ISDIR(info.st_mode) ? cop_folder_remove(path, error) : cop_file_remove(path, error);
}

cop_err cop_folder_remove(const char *path, cop_error *error) {
    struct stat info;
    const bool exists = lstat(path, &info) == 0;
    if (exists && S_ISLNK(info.st_mode)) return cop_file_remove(path, error);
    if (exists && !S_ISDIR(info.st_mode))
        return cop_fail(error, COP_ERR_INPUT, "cannot remove %s: it is not a folder", path);
    char **names = NULL;
    size_t count = 0;
    cop_error why = {0};
    cop_err e = cop_folder_list(path, &names, &count, &why);
    if (e == COP_ERR_NOT_FOUND) return COP_OK;
    if (e) return cop_fail(error, e, "%s", why.text);
    for (size_t i = 0; i < count && !e; i++) {
        char *entry = cop_path_join(path, names[i]);
        e = entry ? remove_entry(entry, error) : cop_no_memory(error);
        cop_free(entry);
    }
    cop_free(names);
    if (!e && rmdir(path) && errno != ENOENT)
        e = cop_fail_errno(error, errno, "cannot remove folder %s", path);
    return e;
}

cop_err cop_folder_replace(const char *from, const char *to, cop_error *error) {
    COP_ASSERT(strcmp(from, to) != 0); /* otherwise the only copy would be removed below */
    if (!cop_folder_exists(to)) return cop_file_rename(from, to, error);
    if (exchange_or_fail(from, to) == 0) {
        COP_TRY(sync_parent(to, error));
        cop_folder_remove(from, NULL); /* `from` is now the old folder; leaving it does no harm */
        return COP_OK;
    }
    if (errno != EINVAL && errno != ENOSYS)
        return cop_fail_errno(error, errno, "cannot exchange %s and %s", from, to);
    COP_TRY(cop_folder_remove(to, error));
    return cop_file_rename(from, to, error);
}

cop_err cop_folder_lock(const char *path, int *lock, cop_error *error) {
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return cop_fail_errno(error, errno, "cannot open %s", path);
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return COP_OK;
    cop_folder_unlock(*lock);
    *lock = -1;
    return cop_fail(error, COP_ERR_EXISTS, "another process has locked %s", path);
}

void cop_folder_unlock(int lock) {
    COP_ASSERT(lock >= 0);
    close(lock);
}

uint64_t cop_file_space(const char *path) {
    struct statvfs info;
    if (statvfs(path, &info)) return UINT64_MAX;
    return (uint64_t)info.f_bavail * info.f_frsize;
}
