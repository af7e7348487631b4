/* Ensembles as coordinator and client both tell and check them. */
#ifndef COP_JOB_ENSEMBLE_H
#define COP_JOB_ENSEMBLE_H

#include "common/job/job.h"
#include "common/ensemble/ensemble.h"
#include "proto/api.pb-c.h"

/* How an ensemble's opinion is made: of its members, or by one pass with scaled weights. */
#define COP_AVERAGE_WEIGHT_SCALING ((cop_average)0)
/* "arithmetic", "geometric", "weight-scaling"; false: another name. */
bool cop_average_read(const char *name, cop_average *out);
const char *cop_average_name(cop_average average);

/* Can both be members of one ensemble? They must see the same samples: shapes, type and classes,
 * and, with same_data, the data set. INPUT says what differs; the names are for that sentence. */
cop_err cop_job_check_together(const cop_job *a, const char *a_name, const cop_job *b,
                               const char *b_name, bool same_data, cop_error *error);

/* A row of the result. */
void cop_job_ensemble_row(const cop_ensemble_figures *figures, uint32_t members,
                          Coppice__Api__EnsembleFigures *out);

#endif
