/* A worker with a fixed pace: a normal worker with one thread, which waits after each lease, so
 * that the lease takes MS milliseconds per shard. Several of these workers on few cores are as fast
 * as on separate machines, so that shared cores do not hide the losses of a pool. A lease that
 * takes longer anyway is not delayed.
 *
 *     paced URL NAME MS
 *
 * COPPICE_TOKEN contains the coordinator's token. The program ends on SIGTERM or when it is
 * refused. */
#include "tampering.h"

#include <stdio.h>

static void wait_for_pace(void *context, cop_result *result, cop_buffer *gradient) {
    const uint64_t *ms = context;
    const uint64_t whole_ns = *ms * 1000000u * (result->count ? result->count : 1);
    (void)gradient;
    if (result->compute_ns >= whole_ns) return;
    cop_clock_sleep_ms((unsigned)((whole_ns - result->compute_ns) / 1000000u));
    result->compute_ns = whole_ns;
}

int main(int argc, char **argv) {
    cop_error error = {0};
    if (argc != 4) return fputs("paced URL NAME MS\n", stderr) < 0 ? 1 : 2;
    uint64_t ms = strtoull(argv[3], NULL, 10);
    cop_err e = tampering_run(argv[1], argv[2], wait_for_pace, &ms, &error);
    if (e) fprintf(stderr, "paced: %s\n", error.text);
    return e != COP_OK;
}
