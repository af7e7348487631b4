/* Error against the number of thinned networks, as in Srivastava et al. 2014, figure 11. */
#ifndef COP_CLIENT_DRAW_ENSEMBLE_PLOT_H
#define COP_CLIENT_DRAW_ENSEMBLE_PLOT_H

#include "client/cli.h"

/* Draws the JSON output of `eval --ensemble K,K,...` and `eval --average weight-scaling` into
 * options->output. The input is files, or "-" for standard input; each may contain several results.
 * Each average of each model becomes a line with bars of one standard error; weight scaling becomes
 * a horizontal line with a band. Later rows replace earlier ones with the same number of members.
 * *lines: the number of lines. INPUT: a result is invalid, and the error names its file and line;
 * or results cover different samples. */
cop_err cli_ensemble_plot(const cli_options *options, int *lines, cop_error *error);

#endif
