/* The worker: pull, forward and backward pass, push. It holds no state that a job needs.
 *
 * One agent thread talks to the coordinator over the work link and gives leases to `threads`
 * compute threads. A second thread sends heartbeats over the control link (W1). A lease is an
 * aligned block of shards. The compute threads split it into aligned sub-blocks; D5's tree combines
 * their sums, so one gradient goes back. The decisions are in agent.h: step(state, event, now) ->
 * action. */
#ifndef COP_WORKER_WORKER_H
#define COP_WORKER_WORKER_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/net/net.h"
#include "common/kernels/kernel.h"
#include "common/wire/message.h"

typedef struct cop_worker cop_worker;

typedef struct cop_worker_config {
    const char *url;    /* the coordinator's address; NULL: use `local` */
    cop_server *local;  /* a coordinator in this process */
    const char *name;   /* NULL: the name in the certificate, else host name and process id */
    const char *token;  /* NULL: the token in the user's state folder, as soon as it exists */
    const cop_tls *tls; /* for a tls+tcp:// url; borrowed */
    int threads;        /* compute threads, 1 .. COP_WORKER_THREADS_MAX */
    const cop_kernels *kernels; /* chosen by the caller */
    unsigned char self_test[32];
    bool portable;      /* no job needs OpenBLAS, so it is not loaded */
    bool retry_forever; /* join again after a loss, with increasing waits (programs), or end when
                           the coordinator is gone (in one process) */
    uint32_t join_timeout_ms; /* limit for the first join; 0: none */
    /* Called once, on the agent's thread, when worker_ended has become true; NULL: not wanted. */
    void (*on_ended)(void *context);
    void *on_ended_context;
    /* For tests that need a worker with wrong results: called with each result, and its gradient or
     * NULL, before it is sent. Programs leave it NULL. */
    void (*tamper)(void *context, cop_result *result, cop_buffer *gradient);
    void *tamper_context;
} cop_worker_config;

/* Starts the threads and copies the strings; kernels, tls and `local` stay borrowed until
 * worker_join. The worker runs until it is stopped or refused, or, without retry_forever, until the
 * coordinator is gone. NO_MEMORY: also too many threads. On failure nothing runs and *out is not
 * set. */
cop_err worker_start(const cop_worker_config *config, cop_worker **out, cop_error *error);
/* Asks the worker to finish its lease, deliver the result and end. Does not wait. Any thread, but
 * not a signal handler. */
void worker_drain(cop_worker *worker);
/* Ends the worker soon: cancels its calls and drops the running lease when its computation is done.
 * Does not wait. Any thread, but not a signal handler. */
void worker_cancel(cop_worker *worker);
/* True: the worker has ended (drained, canceled, refused or given up), so that worker_join does not
 * block. Any thread. */
bool worker_ended(cop_worker *worker);
/* Waits for the end and frees the worker. Returns the reason of the end as an error: OK after a
 * drain, CANCELED after worker_cancel, else the refusal or the failure of the last call. */
cop_err worker_join(cop_worker *worker, cop_error *error);

#endif
