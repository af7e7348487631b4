/* The figures of a job or a run over time, and its job file: for `plot`, `history`, `compare`,
 * `spec`. */
#ifndef COP_CLIENT_LOAD_HISTORY_H
#define COP_CLIENT_LOAD_HISTORY_H

#include "client/cli.h"
#include "coordinator/coordinator.h"

/* `what` is a job of the coordinator or a run folder. Epochs and evaluations, into *out
 * (coord_history_fini); `name` is for people: "job 3 (digits)", or the folder's name. */
cop_err cli_history_load(const cli_options *options, const char *what, coord_history *out,
                         char name[COP_NAME_MAX], cop_error *error);
/* The next single steps after `after`, a page at a time; none left: step_count is 0. */
cop_err cli_history_steps(const cli_options *options, const char *what, uint64_t after,
                          coord_history *out, cop_error *error);

/* What a job or run ended with, and its resolved job file. */
typedef struct cli_record {
    Coppice__Job *job; /* cop_proto_free */
    char name[COP_NAME_MAX], digest[65], state[16], on[16];
    uint64_t step;
    double train_loss, loss, error, seconds; /* NaN: none */
} cli_record;
cop_err cli_record_load(const cli_options *options, const char *what, cli_record *out,
                        cop_error *error);
void cli_record_fini(cli_record *record);

#endif
