/* Names and checks of ensembles, for coordinator and client. */
#ifndef COP_JOB_ENSEMBLE_H
#define COP_JOB_ENSEMBLE_H

#include "common/job/job.h"
#include "common/ensemble/ensemble.h"
#include "proto/api.pb-c.h"

/* The value of a cop_average for weight scaling: instead of averaging members, it runs the whole
 * network once, with scaled weights. */
#define COP_AVERAGE_WEIGHT_SCALING ((cop_average)0)
/* Reads "arithmetic", "geometric" or "weight-scaling". Returns false for any other name. */
bool cop_average_parse(const char *name, cop_average *out);
/* The name of an average, as cop_average_parse reads it. Static. */
const char *cop_average_name(cop_average average);

/* A job, and the name that errors give it ("job 7", or a path). */
typedef struct cop_named_job {
    const cop_job *job;
    const char *name;
} cop_named_job;
/* Checks that models of both jobs can be members of one ensemble. They must take samples of the
 * same shape and type and have the same number of classes. With same_data, they must also have been
 * trained on the same data set. Otherwise fails with INPUT; the error names the difference. */
cop_err cop_job_check_together(cop_named_job a, cop_named_job b, bool same_data, cop_error *error);

/* Fills *out, one row of the result, with the figures of the ensemble of the first `members`
 * members. */
void cop_job_ensemble_row(const cop_ensemble_figures *figures, uint32_t members,
                          Coppice__Api__EnsembleFigures *out);

#endif
