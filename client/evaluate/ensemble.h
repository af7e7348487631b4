/* Evaluations of trained weights for `eval --ensemble`, `--average` and `--members-from`, and the
 * output of their results. They run in this process (ensemble_here.c) or on a coordinator's pool
 * (ensemble_pool.c). */
#ifndef COP_CLIENT_EVALUATE_ENSEMBLE_H
#define COP_CLIENT_EVALUATE_ENSEMBLE_H

#include "client/cli.h"
#include "common/job/ensemble.h"
#include "common/ensemble/slices.h"

/* A request for an ensemble, and how far its output has come. The texts belong to the options. */
typedef struct cli_ensemble {
    const cli_options *options;
    cop_average average;
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX],
        count;                             /* numbers of members: ascending, no duplicates */
    const char *names[CLI_POSITIONAL_MAX]; /* jobs and models */
    uint32_t name_count;
    bool each_model; /* true: each model is a member; false: the members are thinned networks of the
                        only model */
    uint32_t printed; /* rows printed so far: the table grows row by row */
    cli_progress progress;
} cli_ensemble;

/* The `eval` command for ensembles: reads the options, chooses where to compute, computes and
 * prints the result. The pool computes if all names are jobs and neither --data nor --workers is
 * given. USAGE: the options contradict each other. */
cop_err cli_ensemble_eval(const cli_options *options, cop_error *error);
/* Computes the ensemble in this process, with --workers threads (default: one per core). Prints
 * each row as soon as it is complete, then the result. INPUT: the models cannot form an ensemble,
 * or have diverged. */
cop_err cli_ensemble_here(cli_ensemble *ensemble, cop_error *error);
/* Computes the ensemble on the coordinator's pool, and starts it again if the coordinator restarts.
 * All names must be jobs. Prints rows and result. TIMEOUT: with --timeout, the pool has no workers
 * or the coordinator does not answer for this long. */
cop_err cli_ensemble_pool(cli_ensemble *ensemble, cop_error *error);
/* Evaluates the final weights of the job positional[0] on the test part, on the pool and without
 * averages. Prints nothing. The texts of *out live in *answer, which the caller frees with
 * cop_proto_free; on failure *answer is NULL. */
cop_err cli_pool_evaluate(const cli_options *options, Coppice__Api__EvalResult *out,
                          ProtobufCMessage **answer, cop_error *error);

/* Counts a row and prints it as a line of the table; the first call also prints the head. With
 * --json it prints nothing: the rows are in the result. */
void cli_ensemble_row(cli_ensemble *ensemble, const Coppice__Api__EnsembleFigures *row);
/* Prints what follows the table: its average, samples and models. With --json prints everything as
 * one line. */
void cli_ensemble_result(cli_ensemble *ensemble, Coppice__Api__EnsembleResult *result);

#endif
