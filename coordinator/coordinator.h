/* The coordinator, as programs embed it: a loop thread that makes all decisions (core.h), a store
 * thread, and compute threads for updates. `coppice-coordinator` and `coppice run` include this
 * header and nothing else of this folder. */
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
    /* Folder of store, token, data and checkpoints; NULL: none (coppice run has a run folder). */
    const char *state;
    const char *const *listen; /* URLs, NULL-terminated; NULL or empty: in-process links only */
    const char *data_folder;   /* --data: sets that jobs can name; NULL: none */
    uint32_t jobs_per_client;  /* unfinished jobs of one certificate; 0: the default */
    /* shares of one identity; 0: the defaults in common/base/limits.h */
    uint32_t sessions_per_identity, watches_per_identity;
    uint64_t quota;     /* bytes of data sets; 0: no limit */
    int update_threads; /* that average and update; 0: the number of cores, at most 4 */
    bool insecure;      /* allows addresses of other machines without encryption */
    const cop_tls *tls; /* for tls+tcp:// addresses; borrowed; NULL: none */
    const cop_kernels *kernels;
    bool portable; /* no job needs OpenBLAS, so it is not loaded */
    unsigned char self_test[32];
} coord_config;

/* Starts everything: opens or creates the store, writes the token file, takes up unfinished jobs,
 * and listens. On success the coordinator is ready, and the caller owns *out (coord_stop). USAGE,
 * INPUT: bad configuration. IN_USE: an address, or the state folder, is used by another process.
 * VERSION: the store is newer than this program. DENIED, IO: the state folder cannot be written. */
cop_err coord_start(const coord_config *config, coord_server **out, cop_error *error);
/* Stops: saves checkpoints of running jobs, answers held requests, closes and frees everything.
 * Waits for all of it. NULL has no effect. */
void coord_stop(coord_server *server);

#define COORD_LIST_MAX 16 /* values of an option that may be repeated */
/* --init-tls with its options. */
typedef struct coord_certificates {
    const char *folder, *days;             /* days NULL: the default */
    const char *const *hosts, *const *add; /* NULL-terminated; add: "ROLE:NAME" */
} coord_certificates;
/* Creates the folder with a CA and certificates; or, if `add` is not empty, adds those
 * certificates. Prints the names of the files on standard output. USAGE: bad days or names. EXISTS,
 * IO. */
cop_err coord_make_certificates(const coord_certificates *certificates, cop_error *error);
/* Prints the requests that a coordinator accepts, each as a line of JSON: kind, name, number, role.
 */
void coord_print_rights(void);
/* The transport, for cop_link_open_local. Owned by the server. */
cop_server *coord_transport(coord_server *server);
/* The token that workers and clients need; "": none. Owned by the server. */
const char *coord_token(const coord_server *server);

/* ---- for `coppice run`: one job in this process, without a store ---- */
typedef struct coord_progress {
    uint64_t step, steps;
    uint64_t first_step_ms; /* from coord_run_submit to the end of the first step; 0: not yet */
    double epoch, train_loss, test_error, test_loss, samples_per_s, seconds, eta_seconds;
    bool has_train_loss, has_evaluation, has_error, evaluated_on_test, finished;
    uint64_t leases_repeated;
    int workers, state; /* state: Coppice__Api__State */
    char digest[65];    /* final weights when finished */
    char text[512];     /* error or warning */
} coord_progress;
typedef struct coord_run_options {
    const char *folder; /* gets checkpoints/, metrics.sqlite, model.safetensors; NULL: none */
    bool resume;        /* continue from the newest checkpoint in the folder */
    double timeout_s;   /* fail the job after this time without workers; 0: never */
} coord_run_options;
/* Starts the job of this server, which has no state folder. Once only. The server owns job and data
 * from now on, even on an error. INPUT: the run is pinned to another OpenBLAS or processor.
 * CORRUPT, IO, NO_MEMORY. */
cop_err coord_run_submit(coord_server *server, cop_job *job, cop_data *data,
                         const coord_run_options *options, cop_error *error);
/* Copies the progress to *out, after a change or after wait_ms. Any thread. */
void coord_run_progress(coord_server *server, uint32_t wait_ms, coord_progress *out);
/* Asks the job to save a checkpoint and stop. Then its progress is finished, with state PAUSED. One
 * thread. */
void coord_run_interrupt(coord_server *server);

/* ---- figures over time ---- */
typedef struct coord_figure {
    uint64_t step;
    double loss, error; /* means over samples; error as a fraction */
    double seconds;     /* of training up to this step */
    bool has_error, has_seconds;
} coord_figure;
typedef struct coord_history {
    coord_figure *train;       /* of each completed epoch */
    coord_figure *evaluations; /* ascending by step */
    coord_figure *steps;       /* losses of single steps */
    size_t train_count, evaluation_count, step_count;
    bool on_test; /* evaluations are of the test part */
} coord_history;
typedef struct coord_history_range {
    uint64_t job;   /* its number in the store; 0: all rows (a run folder has one job) */
    uint64_t after; /* only single steps after this one */
    uint32_t limit; /* the maximum number of single steps; 0: epochs and evaluations instead */
} coord_history_range;
#define COORD_HISTORY_PAGE 50000 /* the maximum number of single steps in an answer of the API */
/* Reads the store in the file `path`: store.sqlite of a coordinator, or metrics.sqlite of a run
 * folder. NOT_FOUND, CORRUPT, LIMIT (too many rows), NO_MEMORY. The caller owns *out
 * (coord_history_fini). Any thread; slow. */
cop_err coord_history_read(const char *path, const coord_history_range *range, coord_history *out,
                           cop_error *error);
void coord_history_fini(coord_history *history); /* frees and zeroes */

#endif
