/* The metrics of a job or a run over time, and its job file, for `plot`, `history`, `compare` and
 * `spec`. */
#ifndef COP_CLIENT_LOAD_HISTORY_H
#define COP_CLIENT_LOAD_HISTORY_H

#include "client/cli.h"
#include "coordinator/coordinator.h"

/* Loads epochs and evaluations into *out, which the caller frees with coord_history_fini. `source`
 * is a job of the coordinator or a run folder. `name` receives a name to print: "job 3 (digits)",
 * or the name of the folder. NOT_FOUND: there is no such job or run. */
cop_err cli_history_load(const cli_options *options, const char *source, coord_history *out,
                         char name[COP_NAME_MAX], cop_error *error);
/* Loads the next page of single steps after step `after`: up to COORD_HISTORY_PAGE of them, fewer
 * only at the end. The caller frees *out with coord_history_fini. */
cop_err cli_history_steps(const cli_options *options, const char *source, uint64_t after,
                          coord_history *out, cop_error *error);

/* The final result of a job or run, and its resolved job file. `step` and `digest` belong to its
 * newest weights, `train_loss` to the last epoch, `loss` and `error` to the last evaluation, which
 * was on the part `evaluated_on`. */
typedef struct cli_record {
    Coppice__Job *job; /* cop_proto_free */
    char name[COP_NAME_MAX], digest[65], state[16], evaluated_on[16];
    uint64_t step;
    double train_loss, loss, error, seconds; /* NaN: none */
} cli_record;
/* Loads the record of a job or a run folder. A figure that does not exist yet is NaN or "". The
 * caller frees *out with cli_record_fini, on failure too. */
cop_err cli_record_load(const cli_options *options, const char *source, cli_record *out,
                        cop_error *error);
/* Frees the job file of a record. A record that is all zero is fine. */
void cli_record_fini(cli_record *record);

#endif
