/* Tests heap_use.c, which is preloaded into this program. Prints twice by how many bytes the memory
 * outside malloc has grown: after a thread has allocated and freed 8 MB, and again after the
 * program has mapped and kept 4,000,000 bytes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS_MOST 4000

static void *allocate_and_free(void *blocks) {
    static char *block[BLOCKS_MOST];
    const int count = *(const int *)blocks;
    for (int i = 0; i < count; i++)
        if (!(block[i] = malloc(2000))) abort();
    for (int i = count - 1; i >= 0; i--) free(block[i]);
    return NULL;
}

/* Returns the bytes of memory outside malloc after a thread has allocated and freed this many
 * blocks. Each call starts one thread, so the threads' stacks and arenas do not change the
 * difference of two results. */
static long long outside_malloc_after(int blocks) {
    char path[4096];
    long long outside_malloc;
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate_and_free, &blocks)) abort();
    pthread_join(thread, NULL);
    nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 200000000},
              NULL); /* long enough for heap_use.c to write two lines */
    snprintf(path, sizeof path, "%s/%ld", getenv("COPPICE_HEAP_USE"), (long)getpid());
    FILE *from = fopen(path, "r");
    if (!from || fscanf(from, "%*s %lld", &outside_malloc) != 1) abort();
    fclose(from);
    return outside_malloc;
}

int main(void) {
    const long long before = outside_malloc_after(1);
    printf("%lld ", outside_malloc_after(BLOCKS_MOST) - before);
    if (mmap(NULL, 4000000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
        MAP_FAILED)
        abort();
    printf("%lld\n", outside_malloc_after(1) - before);
    return 0;
}
