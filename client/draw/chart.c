/* Draws charts. See chart.h. Invariant: the position of a line depends only on the figures of the
 * chart, never on the metrics of a font. */
#include "client/draw/chart.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/draw/png.h"
#include "common/base/file.h"
#include "common/base/str.h"

enum { WIDTH = 560, HEIGHT = 400, LEFT = 70, RIGHT = 16, TOP = 34, BOTTOM = 52, SCALE = 2 };
enum { COLORS = 7, DASHES = 5, MARKERS = 4, LEGEND_LINE = 16, TICKS_MAX = 16, BAR_SHIFT = 7 };

static const double colors[COLORS][3] = {
    {0.00, 0.45, 0.70}, {0.84, 0.37, 0.00}, {0.00, 0.62, 0.45}, {0.80, 0.47, 0.65},
    {0.90, 0.62, 0.00}, {0.34, 0.71, 0.91}, {0.00, 0.00, 0.00},
};
static const struct {
    int count;
    double lengths[4];
} dashes[DASHES] = {{0, {0}}, {2, {7, 4}}, {2, {2, 3}}, {4, {9, 3, 2, 3}}, {2, {14, 4}}};

typedef struct range {
    double min, max;
} range;

/* The position of a chart on the sheet, and the ranges that map values to points. */
typedef struct frame {
    cairo_t *to;
    const cli_chart *chart;
    double left;
    range x, y;
} frame;

static double place_x(const frame *f, double value) {
    const range *r = &f->x;
    COP_ASSERT(r->min < r->max && (!f->chart->log_x || r->min > 0));
    const double at = f->chart->log_x ? log(value / r->min) / log(r->max / r->min)
                                      : (value - r->min) / (r->max - r->min);
    return f->left + LEFT + at * (WIDTH - LEFT - RIGHT);
}

static double place_y(const frame *f, double value) {
    COP_ASSERT(f->y.min < f->y.max);
    const double at = (value - f->y.min) / (f->y.max - f->y.min);
    return HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM);
}

static bool drawable(const cli_chart *chart, const cli_series *s, size_t i) {
    return isfinite(s->x[i]) && isfinite(s->y[i]) && (!chart->log_x || s->x[i] > 0);
}

static void widen(range *r, double value) {
    r->min = fmin(r->min, value);
    r->max = fmax(r->max, value);
}

/* Widens the x axis at both ends if the chart has error bars, because bar_shift moves these to the
 * side. */
static void make_room(const cli_chart *chart, range *x) {
    bool bars = false;
    for (size_t n = 0; n < chart->count; n++)
        bars = bars || (chart->series[n].deviation && !chart->series[n].level);
    if (!bars) return;
    const double room = 0.03 * (x->max - x->min), ratio = pow(x->max / x->min, 0.03);
    x->min = chart->log_x ? x->min / ratio : x->min - room;
    x->max = chart->log_x ? x->max * ratio : x->max + room;
}

/* Finds the ranges of both axes. False: the chart has no point that can be drawn. */
static bool measure(const cli_chart *chart, range *x, range *y) {
    *x = *y = (range){INFINITY, -INFINITY};
    for (size_t n = 0; n < chart->count; n++) {
        const cli_series *s = &chart->series[n];
        for (size_t i = 0; i < s->count; i++) {
            if (!drawable(chart, s, i)) continue;
            const double half = s->deviation && isfinite(s->deviation[i]) ? s->deviation[i] : 0;
            widen(y, s->y[i] - half);
            widen(y, s->y[i] + half);
            if (!s->level) widen(x, s->x[i]);
        }
    }
    if (!(y->min <= y->max)) return false;
    if (!(x->min <= x->max)) *x = (range){1, 2}; /* all lines are horizontal */
    if (x->min == x->max) *x = (range){x->min * 0.5, x->max * 1.5 + (x->max == 0)};
    const double half = fmax(0.5, 1e-6 * fabs(y->min));
    if (y->min == y->max) *y = (range){y->min - half, y->max + half};
    make_room(chart, x);
    const double room = 0.04 * (y->max - y->min);
    y->min = y->min >= 0 && y->min - room < 0 ? 0 : y->min - room;
    y->max += room;
    return true;
}

/* The distance between two ticks: 1, 2 or 5 times a power of ten, so that a range of the length
 * `span` has at most `count` such distances. */
static double nice_step(double span, int count) {
    COP_ASSERT(span > 0 && count > 0);
    const double raw = span / count, power = pow(10, floor(log10(raw)));
    const double unit = raw / power;
    return power * (unit <= 1 ? 1 : unit <= 2 ? 2 : unit <= 5 ? 5 : 10);
}

static size_t linear_ticks(const range *r, double out[TICKS_MAX]) {
    const double step = nice_step(r->max - r->min, 6);
    size_t count = 0;
    for (double t = ceil(r->min / step) * step; t <= r->max + step * 1e-9; t += step)
        if (count < TICKS_MAX) out[count++] = fabs(t) < step * 1e-9 ? 0 : t;
    return count;
}

/* Sets ticks at 1, 2 and 5 times powers of ten, or only at powers of ten if the range is wide. */
static size_t log_ticks(const range *r, double out[TICKS_MAX]) {
    static const double units[] = {1, 2, 5};
    const bool few = r->max / r->min < 3000;
    size_t count = 0;
    for (double power = pow(10, floor(log10(r->min))); power <= r->max; power *= 10)
        for (int u = 0; u < (few ? 3 : 1); u++) {
            const double t = power * units[u];
            if (t >= r->min * 0.999 && t <= r->max * 1.001 && count < TICKS_MAX) out[count++] = t;
        }
    return count;
}

static void text_at(cairo_t *to, double x, double y, double align, const char *text) {
    cairo_text_extents_t size;
    cairo_text_extents(to, text, &size);
    cairo_move_to(to, x - align * size.x_advance, y);
    cairo_show_text(to, text);
}

static void gray(cairo_t *to, double value) {
    cairo_set_source_rgb(to, value, value, value);
}

static void line(cairo_t *to, double x1, double y1, double x2, double y2) {
    cairo_move_to(to, x1, y1);
    cairo_line_to(to, x2, y2);
    cairo_stroke(to);
}

static void draw_ticks(const frame *f) {
    double ticks[TICKS_MAX];
    char text[32];
    const double left = f->left + LEFT, right = f->left + WIDTH - RIGHT, base = HEIGHT - BOTTOM;
    cairo_set_line_width(f->to, 0.6);
    size_t count = linear_ticks(&f->y, ticks);
    for (size_t i = 0; i < count; i++) {
        const double y = place_y(f, ticks[i]);
        gray(f->to, 0.88);
        line(f->to, left, y, right, y);
        gray(f->to, 0.15);
        snprintf(text, sizeof text, "%.4g", ticks[i]);
        text_at(f->to, left - 6, y + 4, 1, text);
    }
    count = f->chart->log_x ? log_ticks(&f->x, ticks) : linear_ticks(&f->x, ticks);
    for (size_t i = 0; i < count; i++) {
        const double x = place_x(f, ticks[i]);
        gray(f->to, 0.15);
        line(f->to, x, base, x, base + 4);
        snprintf(text, sizeof text, "%.6g", ticks[i]);
        text_at(f->to, x, base + 17, 0.5, text);
    }
}

static void draw_axes(const frame *f) {
    const double middle = f->left + (LEFT + WIDTH - RIGHT) / 2.0;
    draw_ticks(f);
    gray(f->to, 0.15);
    cairo_set_line_width(f->to, 1);
    line(f->to, f->left + LEFT, TOP, f->left + LEFT, HEIGHT - BOTTOM);
    line(f->to, f->left + LEFT, HEIGHT - BOTTOM, f->left + WIDTH - RIGHT, HEIGHT - BOTTOM);
    text_at(f->to, middle, HEIGHT - 14, 0.5, f->chart->x_label);
    cairo_save(f->to);
    cairo_translate(f->to, f->left + 16, (TOP + HEIGHT - BOTTOM) / 2.0);
    cairo_rotate(f->to, -acos(-1) / 2);
    text_at(f->to, 0, 0, 0.5, f->chart->y_label);
    cairo_restore(f->to);
    cairo_set_font_size(f->to, 14);
    text_at(f->to, middle, 20, 0.5, f->chart->title);
    cairo_set_font_size(f->to, 12);
}

static void pen(cairo_t *to, const cli_series *s, size_t number) {
    COP_ASSERT(s->color >= 0);
    const double *c = colors[s->color % COLORS];
    const size_t dash = number % DASHES;
    cairo_set_source_rgb(to, c[0], c[1], c[2]);
    cairo_set_line_width(to, 1.8);
    cairo_set_dash(to, dashes[dash].lengths, dashes[dash].count, 0);
}

static void draw_marker(cairo_t *to, size_t number, double x, double y) {
    const double r = 3.2;
    cairo_new_path(to);
    switch (number % MARKERS) {
    case 0:
        cairo_arc(to, x, y, r, 0, 2 * acos(-1));
        break;
    case 1:
        cairo_rectangle(to, x - r, y - r, 2 * r, 2 * r);
        break;
    case 2:
        cairo_move_to(to, x, y - r * 1.2);
        cairo_line_to(to, x + r * 1.2, y + r);
        cairo_line_to(to, x - r * 1.2, y + r);
        break;
    default:
        cairo_move_to(to, x, y - r * 1.3);
        cairo_line_to(to, x + r * 1.3, y);
        cairo_line_to(to, x, y + r * 1.3);
        cairo_line_to(to, x - r * 1.3, y);
    }
    cairo_close_path(to);
    cairo_fill(to);
}

/* How far the points and error bars of a line are moved to the right, in units of the drawing.
 * Otherwise the bars of several lines at the same x would hide each other. */
static double bar_shift(const cli_chart *chart, size_t number) {
    size_t before = 0, all = 0;
    COP_ASSERT(number < chart->count);
    for (size_t n = 0; n < chart->count; n++) {
        if (!chart->series[n].deviation || chart->series[n].level) continue;
        all++;
        before += n < number;
    }
    const bool one = all < 2 || !chart->series[number].deviation;
    return one ? 0 : BAR_SHIFT * ((double)before - (double)(all - 1) / 2);
}

static void draw_path(const frame *f, const cli_series *s, double shift) {
    bool open = false;
    cairo_new_path(f->to);
    for (size_t i = 0; i < s->count; i++) {
        if (!drawable(f->chart, s, i)) {
            open = false;
            continue;
        }
        const double x = place_x(f, s->x[i]) + shift, y = place_y(f, s->y[i]);
        if (open)
            cairo_line_to(f->to, x, y);
        else
            cairo_move_to(f->to, x, y);
        open = true;
    }
    cairo_stroke(f->to);
}

static void draw_points(const frame *f, const cli_series *s, size_t number, double shift) {
    const bool markers = s->count <= 40;
    cairo_set_dash(f->to, NULL, 0, 0);
    cairo_set_line_width(f->to, 1);
    for (size_t i = 0; i < s->count; i++) {
        if (!drawable(f->chart, s, i)) continue;
        const double x = place_x(f, s->x[i]) + shift, y = place_y(f, s->y[i]);
        if (markers) draw_marker(f->to, number, x, y);
        if (!s->deviation || !(s->deviation[i] > 0)) continue;
        const double top = place_y(f, s->y[i] + s->deviation[i]),
                     bottom = place_y(f, s->y[i] - s->deviation[i]);
        line(f->to, x, top, x, bottom);
        line(f->to, x - 3, top, x + 3, top);
        line(f->to, x - 3, bottom, x + 3, bottom);
    }
}

/* Draws a pale band, with thin dotted edges so that it is visible in print. */
static void draw_band(const frame *f, const cli_series *s) {
    COP_ASSERT(s->level && s->count == 1 && s->deviation);
    const double *c = colors[s->color % COLORS];
    const double left = f->left + LEFT, right = f->left + WIDTH - RIGHT,
                 top = place_y(f, s->y[0] + s->deviation[0]),
                 bottom = place_y(f, s->y[0] - s->deviation[0]);
    cairo_set_source_rgba(f->to, c[0], c[1], c[2], 0.12);
    cairo_rectangle(f->to, left, top, right - left, bottom - top);
    cairo_fill(f->to);
    cairo_set_source_rgba(f->to, c[0], c[1], c[2], 0.6);
    cairo_set_dash(f->to, (const double[]){1, 3}, 2, 0);
    cairo_set_line_width(f->to, 0.8);
    line(f->to, left, top, right, top);
    line(f->to, left, bottom, right, bottom);
}

static void draw_series(const frame *f, const cli_series *s, size_t number) {
    if (s->level && s->count && isfinite(s->y[0])) {
        const double y = place_y(f, s->y[0]);
        pen(f->to, s, number);
        line(f->to, f->left + LEFT, y, f->left + WIDTH - RIGHT, y);
    } else if (!s->level) {
        const double shift = bar_shift(f->chart, number);
        pen(f->to, s, number);
        draw_path(f, s, shift);
        draw_points(f, s, number, shift);
    }
    cairo_set_dash(f->to, NULL, 0, 0);
}

/* Draws the legend in the upper right corner, on a pale background. */
static void draw_legend(const frame *f) {
    double width = 0;
    cairo_text_extents_t size;
    for (size_t n = 0; n < f->chart->count; n++) {
        cairo_text_extents(f->to, f->chart->series[n].name, &size);
        width = fmax(width, size.x_advance);
    }
    const double left = f->left + WIDTH - RIGHT - width - 52, top = TOP + 4;
    cairo_set_source_rgba(f->to, 1, 1, 1, 0.85);
    cairo_rectangle(f->to, left, top, width + 48, (double)f->chart->count * LEGEND_LINE + 6);
    cairo_fill(f->to);
    for (size_t n = 0; n < f->chart->count; n++) {
        const cli_series *s = &f->chart->series[n];
        const double y = top + 11 + (double)n * LEGEND_LINE;
        pen(f->to, s, n);
        line(f->to, left + 4, y, left + 34, y);
        cairo_set_dash(f->to, NULL, 0, 0);
        if (!s->level && s->count <= 40) draw_marker(f->to, n, left + 19, y);
        gray(f->to, 0.1);
        text_at(f->to, left + 40, y + 4, 0, s->name);
    }
}

static cop_err draw_chart(cairo_t *to, const cli_chart *chart, double left, cop_error *error) {
    frame f = {.to = to, .chart = chart, .left = left};
    if (!measure(chart, &f.x, &f.y))
        return cop_fail(error, COP_ERR_INPUT, "nothing to plot: %s has no metrics yet",
                        chart->title);
    draw_axes(&f);
    cairo_save(to);
    cairo_rectangle(to, left + LEFT - 4, TOP - 4, WIDTH - LEFT - RIGHT + 8,
                    HEIGHT - TOP - BOTTOM + 8);
    cairo_clip(to);
    for (size_t n = 0; n < chart->count; n++) {
        const cli_series *s = &chart->series[n];
        if (s->level && s->count && s->deviation && s->deviation[0] > 0) draw_band(&f, s);
    }
    for (size_t n = 0; n < chart->count; n++) draw_series(&f, &chart->series[n], n);
    cairo_restore(to);
    draw_legend(&f);
    return COP_OK;
}

static cop_err draw_all(cairo_surface_t *surface, const cli_chart *charts, size_t count,
                        double scale, cop_error *error) {
    cairo_t *to = cairo_create(surface);
    cop_err e = COP_OK;
    cairo_scale(to, scale, scale);
    cairo_set_source_rgb(to, 1, 1, 1);
    cairo_paint(to);
    cairo_select_font_face(to, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(to, 12);
    for (size_t i = 0; i < count && !e; i++)
        e = draw_chart(to, &charts[i], (double)(i * WIDTH), error);
    if (!e && cairo_status(to) != CAIRO_STATUS_SUCCESS)
        e = cop_fail(error, COP_ERR_NO_MEMORY, "cannot draw the chart: %s",
                     cairo_status_to_string(cairo_status(to)));
    cairo_destroy(to);
    return e;
}

cop_err cli_chart_write(const cli_chart *charts, size_t count, const char *path, cop_error *error) {
    const bool svg = cop_ends_with(path, ".svg");
    if (!svg && !cop_ends_with(path, ".png"))
        return cop_fail(error, COP_ERR_INPUT, "-o %s: expected a name that ends in .svg or .png",
                        path);
    cop_str bytes = {0};
    COP_ASSERT(count >= 1 && count <= 16);
    const int width = (int)count * WIDTH;
    cairo_surface_t *surface =
        svg ? cairo_svg_surface_create_for_stream(cli_png_append, &bytes, width, HEIGHT)
            : cairo_image_surface_create(CAIRO_FORMAT_RGB24, width * SCALE, HEIGHT * SCALE);
    cop_err e = draw_all(surface, charts, count, svg ? 1 : SCALE, error);
    if (!e && !svg) cairo_surface_write_to_png_stream(surface, cli_png_append, &bytes);
    cairo_surface_finish(surface);
    if (!e && (bytes.failed || cairo_surface_status(surface) != CAIRO_STATUS_SUCCESS))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "cannot create the image %s", path);
    cairo_surface_destroy(surface);
    const cop_file_part part = {bytes.text, bytes.length};
    if (!e) e = cop_file_write(path, &part, 1, 0644, error);
    cop_str_fini(&bytes);
    return e;
}
