/* The worker's side of shared memory. If worker and coordinator share the host and the user, the
 * worker reads weights from the coordinator's memory, and writes gradients into it. The messages
 * only name segments. One thread makes all calls. */
#ifndef COP_WORKER_SHARE_H
#define COP_WORKER_SHARE_H

#include "common/wire/message.h"

/* The number of segments that are kept mapped: enough for two jobs, each of which uses a few rooms
 * and a few versions of weights in turn. */
#define WORKER_SEGMENTS_MAX 8

typedef struct worker_share {
    bool offered; /* HELLO says that the worker can use shared memory */
    bool proven;  /* `proof` has the secret of the segment in the newest WELCOME */
    unsigned char proof[COP_SEGMENT_SECRET];
    const char *folder; /* --shm, borrowed; NULL: segments are only opened in /proc */
    uint64_t socket_id; /* id of the segment in the newest WELCOME; its socket has this name */
    struct {
        cop_segment *segment; /* NULL: a free place */
        bool writable;
        uint64_t used; /* the value of `leases` when the segment was last used */
    } kept[WORKER_SEGMENTS_MAX];
    uint64_t leases; /* number of leases so far */
} worker_share;

/* Opens the segment in a WELCOME, if there is one. Logs which path the worker uses, and why. */
void worker_share_join(worker_share *share, const cop_welcome *welcome);
/* Maps the segments of a lease. The weights become the lease's part; *room gets a reference to a
 * buffer for the gradient, or NULL if the lease has none. On failure the lease cannot be computed.
 */
cop_err worker_share_take(worker_share *share, cop_message *lease, cop_buffer **room,
                          cop_error *error);
/* Unmaps all segments that no buffer uses. */
void worker_share_forget(worker_share *share);

#endif
