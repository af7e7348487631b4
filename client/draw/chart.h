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
    const double *deviation; /* standard error of each y, drawn as a bar through the point; bars of
                                several lines are drawn side by side; NULL: no bars */
    bool level; /* draw a horizontal line at y[0] and a band of deviation[0]; `count` is 1 */
    int color;  /* number of the colour, from 0; lines of one colour differ in their dashes */
} cli_series;

/* One chart. Borrows its texts and lines. */
typedef struct cli_chart {
    const char *title, *x_label, *y_label;
    bool log_x; /* the x axis is logarithmic, and points with x <= 0 are not drawn */
    const cli_series *series;
    size_t count; /* number of lines */
} cli_chart;

/* Draws the charts side by side, from left to right, and writes the file completely or not at all.
 * Points whose x or y is not finite are not drawn. INPUT: the extension of `path` is neither .svg
 * nor .png, or a chart has no point to draw. */
cop_err cli_chart_write(const cli_chart *charts, size_t count, const char *path, cop_error *error);

#endif
