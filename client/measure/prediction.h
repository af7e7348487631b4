/* The prediction of `plan --time`, made from a trial. */
#ifndef COP_CLIENT_PREDICTION_H
#define COP_CLIENT_PREDICTION_H

#include "client/measure/trial.h"

/* The prediction as a message. The caller frees *out with cop_free. NO_MEMORY. */
cop_err cli_prediction_message(const cop_job *job, const cli_trial *trial, bool cached,
                               Coppice__Api__PlanTime **out, cop_error *error);
/* Prints a prediction as tables. */
cop_err cli_prediction_print(const cop_job *job, const Coppice__Api__PlanTime *time,
                             cop_error *error);

#endif
