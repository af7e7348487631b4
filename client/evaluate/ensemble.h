/* Evaluations of trained weights for `eval --ensemble`, `--average` and `--members-from`, and the
 * output of their results. They run in this process (ensemble_here.c) or on a coordinator's pool
 * (ensemble_pool.c). */
#ifndef COP_CLIENT_EVALUATE_ENSEMBLE_H
#define COP_CLIENT_EVALUATE_ENSEMBLE_H

#include "client/cli.h"
#include "common/job/ensemble.h"
#include "common/ensemble/slices.h"

/* The request. Without a count it is a plain evaluation, on the pool. */
typedef struct cli_ensemble {
    const cli_options *options;
    cop_average average;
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX], count; /* ascending, each once */
    const char *names[CLI_POSITIONAL_MAX];           /* jobs and models */
    uint32_t name_count;
    bool each_model; /* true: each model is a member; false: the members are thinned networks of the
                        only model */
    /* number of printed rows: the table grows row by row */
    uint32_t told;
    cli_progress progress;
} cli_ensemble;

/* The `eval` command for ensembles: reads the options, chooses where to compute, computes and
 * prints the result. */
cop_err cli_ensemble_eval(const cli_options *options, cop_error *error);
/* Computes the ensemble in this process. */
cop_err cli_ensemble_here(cli_ensemble *ensemble, cop_error *error);
/* Computes the ensemble on the coordinator's pool. All names must be jobs. */
cop_err cli_ensemble_pool(cli_ensemble *ensemble, cop_error *error);
/* Evaluates the test part of a job's data on the pool, without averages. The texts of *out live in
 * *answer, which the caller frees with cop_proto_free. */
cop_err cli_pool_evaluate(const cli_options *options, Coppice__Api__EvalResult *out,
                          ProtobufCMessage **answer, cop_error *error);

/* Prints a row of the table; the first call also prints the head. No effect with --json. */
void cli_ensemble_row(cli_ensemble *ensemble, const Coppice__Api__EnsembleFigures *row);
/* Prints the end: the origin of the table, or everything as JSON. */
void cli_ensemble_result(cli_ensemble *ensemble, Coppice__Api__EnsembleResult *result);

#endif
