/* Evaluations of trained weights for `eval` with --ensemble, --average or --members-from, and the
 * output of their results. The evaluations run in this process (ensemble_here.c) or on a
 * coordinator's pool (ensemble_pool.c). */
#ifndef COP_CLIENT_EVALUATE_ENSEMBLE_H
#define COP_CLIENT_EVALUATE_ENSEMBLE_H

#include "client/cli.h"
#include "common/job/ensemble.h"
#include "common/ensemble/slices.h"

/* A request for an ensemble, and how far its output has come. The texts belong to the options. */
typedef struct cli_ensemble {
    const cli_options *options;
    cop_average average;
    /* For each of these numbers of members, the result has one row. Ascending, no duplicates. */
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX];
    uint32_t count;                        /* how many numbers `counts` has */
    const char *names[CLI_POSITIONAL_MAX]; /* the jobs and models that the user named */
    uint32_t name_count;
    bool each_model; /* true: each model is a member; false: there is one model, and the members are
                        its thinned networks */
    uint32_t printed; /* rows printed so far: the table grows row by row */
    cli_progress progress;
} cli_ensemble;

/* The `eval` command for ensembles: reads the options, computes the ensemble and prints the result.
 * It is computed on the pool if all names are jobs and neither --data nor --workers is given,
 * otherwise in this process. USAGE: the options contradict each other. */
cop_err cli_ensemble_eval(const cli_options *options, cop_error *error);
/* Computes the ensemble in this process, with --workers threads (default: one per core). Prints
 * each row as soon as it is complete, then the rest of the result. INPUT: the models cannot form an
 * ensemble, or one of their outputs is not finite. */
cop_err cli_ensemble_here(cli_ensemble *ensemble, cop_error *error);
/* Computes the ensemble on the coordinator's pool, and starts it again if the coordinator restarts.
 * All names must be jobs. Prints each row as soon as it is complete, then the rest of the result.
 * TIMEOUT: the pool has had no workers for the time of --timeout, or the coordinator has not
 * answered for too long. It waits for an answer as described for cli_patience. */
cop_err cli_ensemble_pool(cli_ensemble *ensemble, cop_error *error);
/* Evaluates the final weights of the job positional[0] on the test part, on the pool, as one
 * network without an ensemble. Prints no result. The texts of *out belong to *answer, which the
 * caller frees with cop_proto_free. On failure *answer is NULL. */
cop_err cli_pool_evaluate(const cli_options *options, Coppice__Api__EvalResult *out,
                          ProtobufCMessage **answer, cop_error *error);

/* Counts a row in `printed` and prints it as a line of the table. The first call also prints the
 * head of the table. With --json it prints nothing, because cli_ensemble_result prints all rows. */
void cli_ensemble_row(cli_ensemble *ensemble, const Coppice__Api__EnsembleFigures *row);
/* Prints the lines below the table: the kind of average, the number of samples, and the models.
 * With --json it prints the whole result, including the rows, as one line. */
void cli_ensemble_result(cli_ensemble *ensemble, Coppice__Api__EnsembleResult *result);

#endif
