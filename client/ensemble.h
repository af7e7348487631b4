/* Ensemble evaluation of trained weights in this process: `eval --ensemble`. */
#ifndef COP_CLIENT_ENSEMBLE_H
#define COP_CLIENT_ENSEMBLE_H

#include "client/cli.h"

#define CLI_COUNTS_MAX 32 /* numbers that --ensemble names */

/* --ensemble and --average, on the test part of the data; prints the result. USAGE and INPUT errors
 * say what was asked wrongly, or why this model has no ensemble. */
cop_err cli_ensemble(const cli_options *options, const cli_model *model, const cop_data *data,
                     cop_error *error);

#endif
