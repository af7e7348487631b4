/* Error against the number of thinned networks, as Srivastava et al. 2014, figure 11. */
#ifndef COP_CLIENT_DRAW_ENSEMBLE_PLOT_H
#define COP_CLIENT_DRAW_ENSEMBLE_PLOT_H

#include "client/cli.h"

/* Draws what `eval --ensemble K,K,... --json` and `eval --average weight-scaling --json` printed
 * (files, or "-" for standard input; each may hold several results) into options->output: a line
 * with bars of one standard error for each average of each model, weight scaling as a horizontal
 * line with its band. *lines: how many. INPUT names the file and line that is no such result. */
cop_err cli_ensemble_plot(const cli_options *options, int *lines, cop_error *error);

#endif
