/* Charts for `coppice plot`: lines over a numeric axis, side by side on one sheet, as SVG or PNG
 * (cairo). They are readable without colour: each line has its own dash and marker. The colours are
 * those of Okabe and Ito, "Color universal design", 2008, which colour-blind people can
 * distinguish. */
#ifndef COP_CLIENT_DRAW_CHART_H
#define COP_CLIENT_DRAW_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

/* One line: `count` points with ascending x. Borrows the arrays. */
typedef struct cli_series {
    const char *name;
    size_t count;
    const double *x, *y;
    const double *deviation; /* standard error of each y, drawn as a bar; NULL: none. Bars of
                                several lines are drawn side by side */
    bool level; /* a horizontal line at y[0] (count 1); its deviation is drawn as a band */
    int color;  /* lines of one subject share a colour; their dashes differ */
} cli_series;

typedef struct cli_chart {
    const char *title, *x_label, *y_label;
    bool log_x;
    const cli_series *series;
    size_t count;
} cli_chart;

/* Draws the charts from left to right into a file. The extension chooses SVG or PNG; any other is
 * INPUT. The file is written completely or not at all. Values that are not finite are skipped.
 * INPUT: a chart has no finite value. */
cop_err cli_chart_write(const cli_chart *charts, size_t count, const char *path, cop_error *error);

#endif
