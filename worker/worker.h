/* The worker: pull -> forward/backward -> push. Holds no state that a job needs.
 *
 * One agent thread talks to the coordinator (work link) and hands leases to `threads` compute
 * threads; a second thread sends heartbeats over the control link (W1). A lease is an aligned block
 * of shards; the compute threads split it into aligned sub-blocks and the sums are combined by D5's
 * tree, so that one gradient goes back. The agent's decisions are agent.h: step(state, event, now)
 * -> actions. */
#ifndef COP_WORKER_WORKER_H
#define COP_WORKER_WORKER_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/net/net.h"
#include "common/kernels/kernel.h"
#include "common/wire/message.h"

typedef struct cop_worker cop_worker;

typedef struct cop_worker_config {
    const char *url;            /* coordinator; or NULL and `local` */
    cop_server *local;          /* in-process coordinator */
    const char *name;           /* NULL: the certificate's, or host name and process id */
    const char *token;          /* NULL: the one of the user's state folder, once it is there */
    const cop_tls *tls;         /* for a tls+tcp:// url; borrowed */
    int threads;                /* compute threads, 1 .. COP_WORKER_THREADS_MAX */
    const cop_kernels *kernels; /* chosen by the caller */
    unsigned char self_test[32];
    bool portable;      /* no job needs OpenBLAS: it is not loaded */
    bool retry_forever; /* re-join with backoff (programs) or give up when the coordinator is gone
                           (in process) */
    uint32_t join_timeout_ms; /* give up joining the first time after this; 0: never */
    /* For tests that need a worker who lies: called with each result (and its gradient, or NULL)
     * before it is sent. Programs leave it NULL. */
    void (*tamper)(void *context, cop_result *result, cop_buffer *gradient);
    void *tamper_context;
} cop_worker_config;

/* Starts the threads. Strings are copied. The worker runs until stopped, refused, or (not
 * retry_forever) the coordinator is gone. */
cop_err worker_start(const cop_worker_config *config, cop_worker **out, cop_error *error);
/* Ask it to finish its shard, say goodbye and end (SIGTERM). Any thread, signal-safe is not needed.
 */
void worker_drain(cop_worker *worker);
/* Ends it now: cancels calls; a lease under way is dropped after the running pass. */
void worker_cancel(cop_worker *worker);
/* Has it ended (drained, refused, given up)? Any thread. */
bool worker_ended(cop_worker *worker);
/* Waits for the end; the reason as an error (ok after a drain). Frees it. */
cop_err worker_join(cop_worker *worker, cop_error *error);

#endif
