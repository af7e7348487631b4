/* A worker of a given pace: an ordinary one with one thread, which computes its shards and then
 * waits, so that each takes MS milliseconds. Several of them on few cores are as fast as each would
 * be on a machine of its own, and what a pool of them loses is not hidden by cores that are shared.
 *
 *     paced URL NAME MS
 *
 * Token from COPPICE_TOKEN. Ends when told to (SIGTERM), or refused.
 */
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
