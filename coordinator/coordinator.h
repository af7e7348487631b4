/* The coordinator, as programs embed it: one loop thread that owns all decisions (core.h), a store
 * thread, and compute threads for updates. `coppice-coordinator` and `coppice run` use this header
 * and nothing else of this folder. */
#ifndef COP_COORDINATOR_COORDINATOR_H
#define COP_COORDINATOR_COORDINATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/data.h"
#include "common/job/job.h"
#include "common/net/net.h"
#include "common/kernels/kernel.h"

typedef struct coord_server coord_server;

typedef struct coord_config {
    const char *state; /* folder of store, token, data, checkpoints; NULL: no store (coppice run
                          keeps a run folder) */
    const char *const *listen; /* URLs, NULL-terminated; NULL or empty: none (in process) */
    const char *data_folder;   /* --data: named sets offered to jobs; or NULL */
    uint32_t jobs_per_client;  /* of one certificate, that have not ended; 0: the default */
    /* shares of one identity; 0: the defaults of common/base/limits.h */
    uint32_t sessions_per_identity, watches_per_identity;
    uint64_t quota;     /* bytes for data and checkpoints; 0: none */
    int update_threads; /* compute threads of average + update; 0: the number of cores, at most 4 */
    bool insecure;      /* allow listening beyond loopback without encryption */
    const cop_tls *tls; /* for tls+tcp:// addresses; borrowed; NULL: none */
    const cop_kernels *kernels;
    bool portable; /* no job needs OpenBLAS: it is not loaded */
    unsigned char self_test[32];
} coord_config;

/* Starts everything: opens or creates the store (refuses a newer one), writes the token file, takes
 * up unfinished jobs, listens. When it returns OK, it is ready. Errors are bad configuration, a
 * port in use, a folder that cannot be written, a store of a newer version, a folder that another
 * coordinator holds. */
cop_err coord_start(const coord_config *config, coord_server **out, cop_error *error);
/* Graceful: checkpoints running jobs, answers held requests, closes. Then frees. */
void coord_stop(coord_server *server);
#define COORD_LIST_MAX 16 /* values of an option that may be repeated */
/* --init-tls and what belongs to it. */
typedef struct coord_certificates {
    const char *folder, *days;
    const char *const *hosts, *const *add; /* NULL-terminated */
} coord_certificates;
/* Makes the folder, or with `add` one more certificate for each; tells on standard output what it
 * made. */
cop_err coord_make_certificates(const coord_certificates *what, cop_error *error);
/* The requests that a coordinator takes, as lines of JSON: kind, name, number and needed role. */
void coord_print_rights(void);
cop_server *coord_transport(coord_server *server);   /* for cop_link_open_local */
const char *coord_token(const coord_server *server); /* "" when none is required */

/* ---- for `coppice run`: one job in this process, without a store ---- */
typedef struct coord_progress {
    uint64_t step, steps, first_step_ms; /* from coord_run_submit to the first completed step */
    double epoch, train_loss, test_error, test_loss, samples_per_s, seconds, eta_seconds;
    bool has_train_loss, has_evaluation, has_error, evaluated_on_test, finished;
    uint64_t leases_repeated;
    int workers, state; /* state: Coppice__Api__State */
    char digest[65];    /* final weights when finished */
    char text[512];     /* error or warning */
} coord_progress;
typedef struct coord_run_options {
    const char
        *folder; /* run folder: checkpoints/, metrics.sqlite, model.safetensors are written there */
    bool resume; /* from its newest checkpoint */
    double timeout_s; /* wait at most so long for workers (0: for ever) */
} coord_run_options;
/* Hands over job and data (owned by the server from here). One job at a time. */
cop_err coord_run_submit(coord_server *server, cop_job *job, cop_data *data,
                         const coord_run_options *options, cop_error *error);
/* Snapshot, any thread; waits until something changed or wait_ms passed. */
void coord_run_progress(coord_server *server, uint32_t wait_ms, coord_progress *out);
/* Ask it to checkpoint and stop (signals). Progress then shows finished with state PAUSED. */
void coord_run_interrupt(coord_server *server);

/* ---- figures over time ---- */
typedef struct coord_figure {
    uint64_t step;
    double loss, error; /* means over samples; error as a fraction */
    double seconds;     /* spent training until then */
    bool has_error, has_seconds;
} coord_figure;
typedef struct coord_history {
    coord_figure *train;       /* one for each epoch that ended */
    coord_figure *evaluations; /* in order of steps */
    coord_figure *steps;       /* the loss of single steps */
    size_t train_count, evaluation_count, step_count;
    bool on_test; /* evaluations are of the test part */
} coord_history;
typedef struct coord_history_range {
    uint64_t job;   /* its number in a store; 0: whatever is in it (a run folder) */
    uint64_t after; /* single steps after this one */
    uint32_t limit; /* at most this many; 0: epochs and evaluations instead of single steps */
} coord_history_range;
#define COORD_HISTORY_PAGE 50000 /* single steps in an answer of the API */
/* Reads a store's file or a run folder's metrics.sqlite. NOT_FOUND, CORRUPT, NO_MEMORY. The caller
 * frees *out with coord_history_fini. */
cop_err coord_history_read(const char *path, const coord_history_range *range, coord_history *out,
                           cop_error *error);
void coord_history_fini(coord_history *history);

#endif
