/* The metrics of a job or a run over time, and its job file, for `plot`, `history`, `compare` and
 * `spec`. */
#ifndef COP_CLIENT_LOAD_HISTORY_H
#define COP_CLIENT_LOAD_HISTORY_H

#include "client/cli.h"
#include "coordinator/coordinator.h"

/* Loads the figures of epochs and evaluations into *out, which the caller frees with
 * coord_history_fini. `source` is a job of the coordinator or a run folder. `name` receives a name
 * to print: "job 3 (digits)" for a job, or the last part of the path for a run folder. NOT_FOUND:
 * there is no such job or run. */
cop_err cli_history_load(const cli_options *options, const char *source, coord_history *out,
                         char name[COP_NAME_MAX], cop_error *error);
/* Loads the figures of up to COORD_HISTORY_PAGE single steps, beginning after step `after`. If
 * there are fewer, no further steps exist yet. The caller frees *out with coord_history_fini. */
cop_err cli_history_steps(const cli_options *options, const char *source, uint64_t after,
                          coord_history *out, cop_error *error);

/* The newest result of a job or run, and its resolved job file. A text that is not known is "", a
 * figure that is not known is NaN. */
typedef struct cli_record {
    Coppice__Job *job;       /* owned */
    char name[COP_NAME_MAX]; /* the number of the job, or the name of the run folder */
    char digest[65];         /* digest of the newest weights */
    char state[16];          /* as of cli_state_name */
    char evaluated_on[16];   /* the part of the data that the last evaluation used */
    uint64_t step;           /* completed steps of the newest weights */
    double train_loss;       /* mean training loss of the last epoch */
    double loss;             /* loss of the last evaluation */
    double error;            /* share of wrong samples in the last evaluation */
    double seconds;          /* duration of the training */
} cli_record;
/* Loads the record of a job or a run folder. The caller frees *out with cli_record_fini, on failure
 * too. */
cop_err cli_record_load(const cli_options *options, const char *source, cli_record *out,
                        cop_error *error);
/* Frees the job file of a record. The record may be all zero. */
void cli_record_fini(cli_record *record);

#endif
