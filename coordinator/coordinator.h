/* The coordinator, as programs embed it. It has a loop thread, which makes all decisions (core.h),
 * a thread for the store, a thread for checkpoints, and compute threads for updates.
 * `coppice-coordinator` and `coppice run` include no other header of this folder. */
#ifndef COP_COORDINATOR_COORDINATOR_H
#define COP_COORDINATOR_COORDINATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/data.h"
#include "common/job/job.h"
#include "common/net/net.h"
#include "common/kernels/kernel.h"
#include "common/nn/profile.h"

typedef struct coord_server coord_server;

typedef struct coord_config {
    /* The folder of the store, the token, the data sets and the checkpoints. NULL: the coordinator
     * has no such folder; `coppice run` uses its run folder instead. */
    const char *state;
    const char *const *listen; /* URLs, NULL-terminated; NULL or empty: in-process links only */
    const char *http;          /* address of the HTTP server; NULL: there is none */
    const char *data_folder;   /* --data: holds sets that jobs can name; NULL: there is none */
    uint32_t jobs_per_client;  /* unfinished jobs that one certificate may have; 0: the default */
    /* How many workers and how many held requests one identity may have. 0: the defaults in
     * common/base/limits.h. */
    uint32_t sessions_per_identity, watches_per_identity;
    uint64_t quota;     /* maximum bytes of data sets; 0: no limit */
    int update_threads; /* number of compute threads; 0: the number of cores, at most 4 */
    bool share_memory;  /* share memory with workers of this host and user */
    /* Folder for a socket at which workers in other containers of this host get shared memory; must
     * live as long as the coordinator. NULL: none. */
    const char *share_folder;
    bool insecure;      /* may listen for other machines without encryption */
    const cop_tls *tls; /* for tls+tcp:// addresses; borrowed; NULL: there are no certificates */
    const cop_kernels *kernels;
    cop_profile *profile;        /* gets lanes of the loop and of updates; NULL: no profile */
    bool portable;               /* no job needs OpenBLAS, so it is not loaded */
    unsigned char self_test[32]; /* the result of the self-test that workers must also have */
} coord_config;

/* Starts the coordinator: opens or creates the store, writes the token file if it does not exist,
 * listens, and continues unfinished jobs. On success the coordinator is ready, and the caller owns
 * *out (coord_stop).
 * USAGE, INPUT: the configuration is not valid.
 * NOT_FOUND: the data folder does not exist.
 * IN_USE: another process uses an address or the state folder.
 * VERSION: the store is newer than this program.
 * DENIED, IO: the state folder cannot be written. */
cop_err coord_start(const coord_config *config, coord_server **out, cop_error *error);
/* Saves checkpoints of the running jobs, answers the held requests, and closes and frees
 * everything. Returns when all of this is done. NULL has no effect. */
void coord_stop(coord_server *server);

#define COORD_LIST_MAX 16 /* how often an option that may be repeated can be given */
/* The option --init-tls and those that belong to it. */
typedef struct coord_certificates {
    const char *folder;       /* --init-tls */
    const char *days;         /* --tls-days: validity of the certificates; NULL: the default */
    const char *const *hosts; /* --tls-host: names of the coordinator's machine; NULL-terminated */
    const char *const *add;   /* --add: certificates as "ROLE:NAME"; NULL-terminated */
} coord_certificates;
/* If `add` is empty, creates the folder with a CA and a certificate for each role. Otherwise adds
 * the certificates in `add` to the folder. Prints the names of the files on standard output. USAGE:
 * the number of days, a role or a name is not valid. EXISTS: a file exists already. IO. */
cop_err coord_make_certificates(const coord_certificates *certificates, cop_error *error);
/* Prints a line of JSON for each request that a coordinator accepts. It has the fields `kind`
 * ("message" or "method"), `name`, `number` and `role`. */
void coord_print_rights(void);
/* Returns the transport, for cop_link_open_local. The server owns it. */
cop_server *coord_transport(coord_server *server);
/* Returns the token that workers and clients need, or "" if they need none. The server owns it. */
const char *coord_token(const coord_server *server);

/* ---- for `coppice run`: one job in this process, without a store ---- */
typedef struct coord_progress {
    uint64_t step;          /* steps done so far */
    uint64_t steps;         /* number of steps of the whole job */
    uint64_t first_step_ms; /* time from coord_run_submit to the end of the first step; 0: no
                               step has ended */
    double epoch;           /* epochs done so far, with a fraction */
    double train_loss;      /* mean over the last epoch; in the first epoch, the mean so far */
    double test_error;      /* share of wrong samples in the last evaluation */
    double test_loss;       /* loss of the last evaluation */
    double samples_per_s;   /* present speed of training */
    double seconds;         /* of training so far */
    double eta_seconds;     /* estimated time to the end of the job */
    bool has_train_loss;
    bool has_evaluation;    /* test_loss is valid */
    bool has_error;         /* test_error is valid; false if the job has no classes */
    bool evaluated_on_test; /* evaluations are of the test part; false: of the validation part */
    bool finished;          /* the run has ended: completed, failed, canceled or paused */
    uint64_t leases_repeated;
    int workers;     /* connected to the coordinator */
    int state;       /* Coppice__Api__State */
    char digest[65]; /* digest of the weights in the newest checkpoint; of a completed job, of
                        its final weights */
    char text[512];  /* error or warning; "": none */
} coord_progress;
typedef struct coord_run_options {
    /* The run folder, which gets checkpoints/, metrics.sqlite and model.safetensors. NULL: the job
     * writes no files. */
    const char *folder;
    bool resume;      /* continue from the newest checkpoint in the folder */
    double timeout_s; /* fail the job when it has had no worker for this time; 0: never */
} coord_run_options;
/* Starts the only job of this server, which must have no state folder. May be called once. From now
 * on the server owns `job` and `data`, even after an error. INPUT: the run to resume is pinned to
 * another OpenBLAS or processor. CORRUPT, VERSION, IO and other errors of the store. NO_MEMORY. */
cop_err coord_run_submit(coord_server *server, cop_job *job, cop_data *data,
                         const coord_run_options *options, cop_error *error);
/* Copies the progress to *out. If nothing has changed since the last call, first waits up to
 * wait_ms for a change. Any thread. */
void coord_run_progress(coord_server *server, uint32_t wait_ms, coord_progress *out);
/* Asks the job to save a checkpoint and to stop, and returns at once. When the job has stopped, its
 * progress is `finished`, with the state PAUSED. All calls must come from the same thread. */
void coord_run_interrupt(coord_server *server);

/* ---- figures over time ---- */
typedef struct coord_figure {
    uint64_t step;
    double loss;    /* mean over samples */
    double error;   /* share of the samples that were classified wrongly; valid if has_error */
    double seconds; /* seconds of training until this step; valid if has_seconds */
    bool has_error;
    bool has_seconds;
} coord_figure;
/* The three arrays ascend by step. */
typedef struct coord_history {
    coord_figure *train;       /* a figure for each completed epoch */
    coord_figure *evaluations; /* a figure for each evaluation */
    coord_figure *steps;       /* the losses of single steps */
    size_t train_count, evaluation_count, step_count;
    bool on_test; /* evaluations are of the test part; false: of the validation part */
} coord_history;
typedef struct coord_history_range {
    uint64_t job;   /* the job's number in the store; 0: all rows, because a run folder has one
                       job */
    uint64_t after; /* read only single steps after this one; unused if limit is 0 */
    uint32_t limit; /* the maximum number of single steps; 0: read epochs and evaluations instead */
} coord_history_range;
#define COORD_HISTORY_PAGE 50000 /* the maximum number of single steps in an answer of the API */
/* Reads figures from the file `path`: store.sqlite of a coordinator, or metrics.sqlite of a run
 * folder. On success the caller owns *out (coord_history_fini). Any thread; slow. NOT_FOUND: the
 * file cannot be opened. CORRUPT: it cannot be read. LIMIT: it has too many rows. NO_MEMORY. */
cop_err coord_history_read(const char *path, const coord_history_range *range, coord_history *out,
                           cop_error *error);
void coord_history_fini(coord_history *history); /* frees the arrays and zeroes *history */

#endif
