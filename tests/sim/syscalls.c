/* The system calls of common/base/file.c, wrapped by the linker (--wrap). On paths below /sim they
 * use the model of a disk, elsewhere the system. */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "sim/disk.h"
#include "tools/wrapped_calls.h"

pid_t __wrap_getpid(void);

int __wrap_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return disk_is_on(path) ? disk_open(path, flags) : __real_open(path, flags, mode);
}

int __wrap_close(int fd) {
    if (fd < DISK_FD) return __real_close(fd);
    disk_close(fd);
    return 0;
}

ssize_t __wrap_read(int fd, void *to, size_t size) {
    return fd < DISK_FD ? __real_read(fd, to, size) : disk_read(fd, to, size);
}

ssize_t __wrap_write(int fd, const void *from, size_t size) {
    return fd < DISK_FD ? __real_write(fd, from, size) : disk_write(fd, from, size);
}

int __wrap_fsync(int fd) {
    return fd < DISK_FD ? __real_fsync(fd) : disk_sync(fd);
}

int __wrap_fstat(int fd, struct stat *out) {
    return fd < DISK_FD ? __real_fstat(fd, out) : disk_fstat(fd, out);
}

int __wrap_stat(const char *path, struct stat *out) {
    return disk_is_on(path) ? disk_stat(path, out) : __real_stat(path, out);
}

int __wrap_lstat(const char *path, struct stat *out) {
    return disk_is_on(path) ? disk_stat(path, out) : __real_lstat(path, out);
}

int __wrap_rename(const char *from, const char *to) {
    return disk_is_on(from) ? disk_rename(from, to, false) : __real_rename(from, to);
}

int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    if (!disk_is_on(from)) return __real_renameat2(a, from, b, to, flags);
    return disk_rename(from, to, (flags & RENAME_EXCHANGE) != 0);
}

int __wrap_unlink(const char *path) {
    return disk_is_on(path) ? disk_remove(path, false) : __real_unlink(path);
}

int __wrap_mkdir(const char *path, mode_t mode) {
    return disk_is_on(path) ? disk_mkdir(path) : __real_mkdir(path, mode);
}

int __wrap_rmdir(const char *path) {
    return disk_is_on(path) ? disk_remove(path, true) : __real_rmdir(path);
}

/* Names of temporary files must not depend on the process. */
pid_t __wrap_getpid(void) {
    return 1;
}

/* ---- folders: a DIR of the model is our own struct ---- */

typedef struct model_folder {
    uint64_t mark;
    int fd;
    uint32_t at;
    struct dirent entry;
} model_folder;

#define MARK 0x51f01de4u

DIR *__wrap_opendir(const char *path) {
    if (!disk_is_on(path)) return __real_opendir(path);
    int fd = disk_open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return NULL;
    model_folder *folder = cop_alloc(sizeof *folder);
    COP_ASSERT(folder != NULL);
    folder->mark = MARK;
    folder->fd = fd;
    return (DIR *)folder;
}

struct dirent *__wrap_readdir(DIR *stream) {
    model_folder *folder = (model_folder *)stream;
    if (folder->mark != MARK) return __real_readdir(stream);
    const char *name = disk_list(folder->fd, &folder->at);
    if (!name) return NULL;
    snprintf(folder->entry.d_name, sizeof folder->entry.d_name, "%s", name);
    return &folder->entry;
}

int __wrap_closedir(DIR *stream) {
    model_folder *folder = (model_folder *)stream;
    if (folder->mark != MARK) return __real_closedir(stream);
    disk_close(folder->fd);
    cop_free(folder);
    return 0;
}
