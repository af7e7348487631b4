/* How much a program has allocated, preloaded into it (LD_PRELOAD): every half second a thread
 * writes the bytes that malloc has given out and not got back, as a decimal number in a line of its
 * own, over what stood in COPPICE_HEAP_USE/PID. Resident memory tells less: it grows by pages of
 * the allocator's arenas that are touched for the first time, and by freed memory that it keeps. */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WIDTH 21 /* of a line: 20 digits hold every size_t */

static void *write_on(void *file) {
    const int fd = *(const int *)file;
    for (;;) {
        const struct mallinfo2 info = mallinfo2();
        char line[WIDTH + 1];
        snprintf(line, sizeof line, "%20zu\n", info.uordblks + info.hblkhd);
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
    snprintf(path, sizeof path, "%s/%ld", folder, (long)getpid());
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && pthread_create(&thread, NULL, write_on, &fd) == 0) pthread_detach(thread);
}
