/* Measures the memory of a program into which it is preloaded (LD_PRELOAD). Every half second a
 * thread overwrites the file COPPICE_HEAP_USE/PID with a line of three decimal numbers:
 * - the bytes that malloc has given out,
 * - the bytes of other private writable memory (stacks, mmap, data of libraries),
 * - the resident bytes.
 * Before each line it makes malloc return freed memory to the system. Otherwise the resident bytes
 * would vary by megabytes of unused memory. */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WIDTH 63 /* width of a line; every size_t fits in 20 digits */

/* The program's resident bytes, and its private writable bytes including stacks (`resident` and
 * `data` of statm). */
struct statm {
    size_t resident, writable;
};
static struct statm statm(void) {
    char text[256] = "";
    size_t resident = 0, data = 0;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) abort();
    close(fd);
    if (sscanf(text, "%*u %zu %*u %*u %*u %zu", &resident, &data) != 2) abort();
    return (struct statm){page * resident, page * data};
}

/* The writable bytes of malloc's arenas. This is the last `aspace` figure of type mprotect in the
 * report of malloc_info, which is the total. mallinfo2 counts less, because memory that an arena
 * gave back stays mapped and writable. */
static size_t arenas(void) {
    static char report[1 << 20];
    static const char figure[] = "<aspace type=\"mprotect\" size=\"";
    const char *last = NULL;
    FILE *to = fmemopen(report, sizeof report, "w");
    if (!to || malloc_info(0, to) || fclose(to)) abort();
    for (const char *at = report; (at = strstr(at, figure)); at++) last = at;
    if (!last || !strstr(last, "</malloc>"))
        abort(); /* the report is truncated; no figure is better than a wrong one */
    return strtoull(last + sizeof figure - 1, NULL, 10);
}

static void *write_on(void *file) {
    const int fd = *(const int *)file;
    for (;;) {
        malloc_trim(0);
        const struct statm now = statm();
        const size_t in_arenas = arenas();
        const struct mallinfo2 info = mallinfo2();
        char line[WIDTH + 1];
        const size_t given_out = info.uordblks + info.hblkhd,
                     outside_malloc = now.writable - in_arenas - info.hblkhd;
        snprintf(line, sizeof line, "%20zu %20zu %20zu\n", given_out, outside_malloc, now.resident);
        if (pwrite(fd, line, WIDTH, 0) != WIDTH) return NULL;
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    }
}

__attribute__((constructor)) static void begin(void) {
    static int fd;
    const char *folder = getenv("COPPICE_HEAP_USE");
    char path[4096];
    pthread_t thread;
    if (!folder) return;
    /* Sets both thresholds to their default values. Otherwise glibc raises them when a large block
     * is freed. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
    snprintf(path, sizeof path, "%s/%ld", folder, (long)getpid());
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && pthread_create(&thread, NULL, write_on, &fd) == 0) pthread_detach(thread);
}
