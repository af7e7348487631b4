/* Error against the number of thinned networks, as in Srivastava et al. 2014, figure 11. */
#ifndef COP_CLIENT_DRAW_ENSEMBLE_PLOT_H
#define COP_CLIENT_DRAW_ENSEMBLE_PLOT_H

#include "client/cli.h"

/* Draws the JSON output of `eval --ensemble K,K,...` and `eval --average weight-scaling` into
 * options->output. The arguments in options->positional are files, or "-" for standard input. Each
 * file may contain several results. The results of one model with one kind of average become a line
 * with bars of one standard error; those of weight scaling become a horizontal line with a band. If
 * a line has several rows with the same number of members, the last one counts. *lines becomes the
 * number of lines. INPUT: a result is invalid, and the error names its file and line; or the
 * results cover different numbers of samples. */
cop_err cli_ensemble_plot(const cli_options *options, int *lines, cop_error *error);

#endif
