/* Evaluations of trained weights: `eval --ensemble`, `--average`, `--members-from`, and what is
 * told of them, in this process (ensemble_here.c) or on a coordinator's pool (ensemble_pool.c). */
#ifndef COP_CLIENT_EVALUATE_ENSEMBLE_H
#define COP_CLIENT_EVALUATE_ENSEMBLE_H

#include "client/cli.h"
#include "common/job/ensemble.h"
#include "common/ensemble/tally.h"

/* What is asked. Without a count: a plain evaluation, on the pool. */
typedef struct cli_ensemble {
    const cli_options *options;
    cop_average average;
    uint32_t counts[COP_TALLY_COUNTS_MAX], count; /* ascending, each once */
    const char *names[CLI_POSITIONAL_MAX];        /* jobs and models */
    uint32_t name_count;
    bool each_model; /* every model is a member; else the thinned networks of the only one are */
    /* what was told of it: the table grows with every row */
    uint32_t told;
    cli_progress progress;
} cli_ensemble;

/* The command: reads the options, finds the place, runs it, tells the result. */
cop_err cli_ensemble_eval(const cli_options *options, cop_error *error);
cop_err cli_ensemble_here(cli_ensemble *ensemble, cop_error *error);
/* All names are jobs. */
cop_err cli_ensemble_pool(cli_ensemble *ensemble, cop_error *error);
/* The test part of a job's data, without averages; `out`'s texts live in *answer (cop_proto_free).
 */
cop_err cli_pool_evaluate(const cli_options *options, Coppice__Api__EvalResult *out,
                          ProtobufCMessage **answer, cop_error *error);

/* A row of the table, for people; the head comes with the first. Not with --json. */
void cli_ensemble_row(cli_ensemble *ensemble, const Coppice__Api__EnsembleFigures *row);
/* The end: what the table was made of, or all as JSON. */
void cli_ensemble_result(cli_ensemble *ensemble, Coppice__Api__EnsembleResult *result);

#endif
