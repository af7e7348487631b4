/* Simulates a slow disk in a program into which it is preloaded (LD_PRELOAD). Each fsync, fdatasync
 * and rename takes longer, by less than COPPICE_SLOW_DISK_MS milliseconds. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void dawdle(void) {
    const char *text = getenv("COPPICE_SLOW_DISK_MS");
    const long most = text ? strtol(text, NULL, 10) : 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const long ms = most > 0 ? now.tv_nsec / 1000 % most : 0;
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Converts what dlsym returns, because ISO C has no conversion from pointers to objects to pointers
 * to functions. */
typedef union slow_symbol {
    void *object;
    int (*on_file)(int);
    int (*on_paths)(const char *, const char *);
} slow_symbol;

static slow_symbol next(const char *name) {
    return (slow_symbol){.object = dlsym(RTLD_NEXT, name)};
}

int fsync(int fd) {
    dawdle();
    return next("fsync").on_file(fd);
}

int fdatasync(int fd) {
    dawdle();
    return next("fdatasync").on_file(fd);
}

int rename(const char *from, const char *to) {
    dawdle();
    return next("rename").on_paths(from, to);
}
