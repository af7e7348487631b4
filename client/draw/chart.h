/* Charts for `coppice plot`: lines over a numeric axis, side by side on one sheet, as SVG or PNG
 * (cairo). They are readable without colour: each line has its own dash and marker. The colours
 * (Okabe and Ito, "Color universal design", 2008) can be distinguished by colour-blind people. */
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

/* One chart with all its lines, which it borrows. */
typedef struct cli_chart {
    const char *title, *x_label, *y_label;
    bool log_x; /* logarithmic x axis: points with x <= 0 are skipped */
    const cli_series *series;
    size_t count;
} cli_chart;

/* Draws the charts from left to right into a file, completely or not at all. Values that are not
 * finite are skipped. INPUT: the extension of `path` is neither .svg nor .png, or a
 * chart has no finite value. */
cop_err cli_chart_write(const cli_chart *charts, size_t count, const char *path, cop_error *error);

#endif
