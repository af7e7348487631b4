/* Charts for `coppice plot`: lines over a numeric axis, side by side on one sheet, as SVG or PNG
 * (cairo). Readable without colour: each line has its own dash and marker; colours are those of
 * Okabe and Ito, "Color universal design", 2008, which colour-blind people tell apart. */
#ifndef COP_CLIENT_DRAW_CHART_H
#define COP_CLIENT_DRAW_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

/* One line. Borrowed arrays of `count` points, x ascending. */
typedef struct cli_series {
    const char *name;
    size_t count;
    const double *x, *y;
    const double *deviation; /* standard error of each y, drawn as a bar; NULL: none. Lines with
                                bars stand side by side, a little apart */
    bool level;              /* y[0] holds everywhere: a horizontal line (count 1), its deviation a
                                band around it */
    int color;               /* lines of one thing share it; dashes differ all the same */
} cli_series;

typedef struct cli_chart {
    const char *title, *x_label, *y_label;
    bool log_x;
    const cli_series *series;
    size_t count;
} cli_chart;

/* Draws the charts from left to right. The file's name decides: .svg or .png (INPUT otherwise);
 * written whole or not at all. Values that are not finite are left out; a chart without any is an
 * error (INPUT). */
cop_err cli_chart_write(const cli_chart *charts, size_t count, const char *path, cop_error *error);

#endif
