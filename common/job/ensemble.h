/* Names and checks of ensembles, for coordinator and client. */
#ifndef COP_JOB_ENSEMBLE_H
#define COP_JOB_ENSEMBLE_H

#include "common/job/job.h"
#include "common/ensemble/ensemble.h"
#include "proto/api.pb-c.h"

/* How an ensemble decides: the average of its members, or one pass with scaled weights. */
#define COP_AVERAGE_WEIGHT_SCALING ((cop_average)0)
/* Reads "arithmetic", "geometric" or "weight-scaling"; false: another name. */
bool cop_average_read(const char *name, cop_average *out);
/* The name of an average. Static. */
const char *cop_average_name(cop_average average);

/* A job, and what errors call it ("job 7", a path). */
typedef struct cop_named_job {
    const cop_job *job;
    const char *name;
} cop_named_job;
/* Can both jobs be members of one ensemble? They must take the same samples: shape, type and
 * classes and, with same_data, the data set. INPUT: no; the error names the difference and uses the
 * two names. */
cop_err cop_job_check_together(cop_named_job a, cop_named_job b, bool same_data, cop_error *error);

/* Fills one row of the result from the figures of `members` members. */
void cop_job_ensemble_row(const cop_ensemble_figures *figures, uint32_t members,
                          Coppice__Api__EnsembleFigures *out);

#endif
