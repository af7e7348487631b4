/* How much memory a program uses, preloaded into it (LD_PRELOAD): every half second a thread writes
 * three decimal numbers, in one line, over what stood in COPPICE_HEAP_USE/PID: the bytes that
 * malloc has given out and not got back; the bytes of private writable memory that are not malloc's
 * (stacks, what mmap gave, data of libraries); and the resident bytes. The allocator gives freed
 * memory back at once, here: else the resident bytes would go up and down by megabytes that nobody
 * uses. */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WIDTH 63 /* of a line: 20 digits hold every size_t */

/* The program's resident bytes, and its private writable bytes, stacks among them (`resident` and
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

/* The writable bytes of malloc's arenas: malloc_info's last figure of them is the sum. mallinfo2
 * tells less: what an arena gave back stays mapped and writable. */
static size_t arenas(void) {
    static char report[1 << 20];
    static const char figure[] = "<aspace type=\"mprotect\" size=\"";
    const char *last = NULL;
    FILE *to = fmemopen(report, sizeof report, "w");
    if (!to || malloc_info(0, to) || fclose(to)) abort();
    for (const char *at = report; (at = strstr(at, figure)); at++) last = at;
    if (!last || !strstr(last, "</malloc>"))
        abort(); /* it was cut off: no figure at all is better */
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
                     beside = now.writable - in_arenas - info.hblkhd;
        snprintf(line, sizeof line, "%20zu %20zu %20zu\n", given_out, beside, now.resident);
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
    /* Fixed thresholds: glibc raises both to the largest block that was ever freed. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
    snprintf(path, sizeof path, "%s/%ld", folder, (long)getpid());
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && pthread_create(&thread, NULL, write_on, &fd) == 0) pthread_detach(thread);
}
