/* The worker: pull, forward and backward pass, push. It holds no state that a job needs.
 *
 * One agent thread talks to the coordinator over the work link and gives leases to `threads`
 * compute threads. A second thread sends heartbeats over the control link. A training lease is
 * an aligned block of shards. The compute threads split it into aligned smaller blocks, and the
 * summation tree (D5) adds up their gradients, so the worker returns one gradient per lease. The
 * decisions are in agent.h: step(state, event, now) -> action. */
#ifndef COP_WORKER_WORKER_H
#define COP_WORKER_WORKER_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/net/net.h"
#include "common/kernels/kernel.h"
#include "common/nn/profile.h"
#include "common/wire/message.h"

typedef struct cop_worker cop_worker;

typedef struct cop_worker_config {
    const char *url;    /* the coordinator's address; NULL: use `local` */
    cop_server *local;  /* a coordinator in this process; NULL: use `url` */
    const char *name;   /* NULL: the name in the certificate, else host name and process id */
    const char *token;  /* NULL: join without a token; if the coordinator denies that, look for one
                           with cop_token_find before each further attempt */
    const cop_tls *tls; /* certificates for a tls+tcp:// url; borrowed */
    int threads;        /* compute threads, 1 to COP_WORKER_THREADS_MAX */
    const cop_kernels *kernels;
    unsigned char self_test[32]; /* digest of the kernels' self-test, for HELLO */
    bool share_memory;           /* use memory that the coordinator shares, where possible */
    const char *share_folder;    /* see coord_config; borrowed until worker_join; NULL: none */
    bool portable;               /* no job needs OpenBLAS: HELLO reports no fingerprint of it */
    /* What happens after the worker has lost the coordinator. True, in programs: it tries to join
     * again, with increasing waits. False, with a coordinator in the same process: it ends after a
     * few failed calls. */
    bool retry_forever;
    uint32_t join_timeout_ms; /* limit for the first join; 0: none */
    cop_profile *profile;     /* gets a lane for each compute thread; NULL: no profile */
    /* Called once, on the agent's thread, after worker_ended has become true. NULL: no call. */
    void (*on_ended)(void *context);
    void *on_ended_context;
    /* For tests that need a worker with wrong results: called with each result before it is
     * sent. `gradient` is the tensor of the result, or NULL if it has none. Programs leave
     * `tamper` NULL. */
    void (*tamper)(void *context, cop_result *result, cop_buffer *gradient);
    void *tamper_context;
} cop_worker_config;

/* Starts the threads and copies the strings. `kernels`, `tls` and `local` stay borrowed until
 * worker_join. The worker runs until it is drained, canceled or refused, or the first join takes
 * longer than join_timeout_ms. Without retry_forever, it also ends when the coordinator is gone.
 * NO_MEMORY: memory ran out, or a thread could not be started. On failure nothing runs and *out is
 * not set. */
cop_err worker_start(const cop_worker_config *config, cop_worker **out, cop_error *error);
/* Asks the worker to finish its lease, deliver the result and end. Does not wait for the end. May
 * be called on any thread, but not in a signal handler. */
void worker_drain(cop_worker *worker);
/* Ends the worker soon: cancels its calls. If it computes a lease, it ends after the computation
 * and drops the result. Does not wait for the end. May be called on any thread, but not in a signal
 * handler. */
void worker_cancel(cop_worker *worker);
/* True: the worker has ended (drained, canceled, refused or given up), so worker_join soon returns.
 * May be called on any thread. */
bool worker_ended(cop_worker *worker);
/* Waits for the end of the worker and frees it. Returns why it ended: OK after a drain, CANCELED
 * after worker_cancel, otherwise the error of the last call, which was refused or failed. */
cop_err worker_join(cop_worker *worker, cop_error *error);

#endif
