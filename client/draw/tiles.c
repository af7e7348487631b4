/* Draws weights as tiles on a sheet, as PNG (cairo). See tiles.h. */
#include "client/draw/tiles.h"

#include <cairo.h>
#include <math.h>

#include "client/draw/png.h"
#include "common/base/bytes.h"

#define GAP      2
#define SIDE_MAX 16384 /* maximum side of the sheet, in pixels */

static double largest_magnitude(const float *w, int count) {
    double max = 0;
    for (int i = 0; i < count; i++) max = fmax(max, fabs((double)w[i]));
    return max;
}

/* Maps a value from [-scale, scale] to 0 to 255. If `scale` is 0, the result is the middle. */
static uint32_t shade(double value, double scale) {
    const double unit = scale > 0 ? 0.5 + 0.5 * value / scale : 0.5;
    return (uint32_t)lrint(255 * (unit < 0 ? 0 : unit > 1 ? 1 : unit));
}

static uint32_t pixel_of(const cli_tiles *t, const float *w, int at, double scale) {
    const int size = t->height * t->width;
    if (t->channels == 3)
        return shade(w[at], scale) << 16 | shade(w[at + size], scale) << 8 |
               shade(w[at + 2 * size], scale);
    double sum = 0;
    for (int c = 0; c < t->channels; c++) sum += w[at + c * size];
    const uint32_t grey = shade(sum / t->channels, scale);
    return grey << 16 | grey << 8 | grey;
}

/* Paints tile `index`; each weight becomes a square of `zoom` x `zoom` pixels. */
static void paint(const cli_tiles *t, int index, int zoom, unsigned char *pixels, int stride) {
    COP_ASSERT(index >= 0 && index < t->count && zoom >= 1);
    const int size = t->channels * t->height * t->width - t->missing;
    const float *w = t->weights + (size_t)index * (size_t)size;
    const double scale = largest_magnitude(w, size);
    const int x = GAP + index % t->columns * (t->width * zoom + GAP),
              y = GAP + index / t->columns * (t->height * zoom + GAP);
    for (int r = 0; r < t->height * zoom; r++)
        for (int c = 0; c < t->width * zoom; c++) {
            const int at = r / zoom * t->width + c / zoom;
            if (at >= size) continue;
            cop_store_u32(pixels + (size_t)(y + r) * (size_t)stride + (size_t)(x + c) * 4,
                          pixel_of(t, w, at, scale));
        }
}

cop_err cli_tiles_write(const cli_tiles *t, const char *path, cop_error *error) {
    COP_ASSERT(t->count >= 1 && t->columns >= 1 && t->channels >= 1 && t->height >= 1 &&
               t->width >= 1);
    COP_ASSERT(t->missing >= 0 && t->missing < t->channels * t->height * t->width);
    const int zoom = t->width >= 20 ? 2 : t->width >= 8 ? 4 : 8;
    const int64_t rows = (t->count + t->columns - 1) / t->columns,
                  width = GAP + (int64_t)t->columns * (t->width * zoom + GAP),
                  height = GAP + rows * (t->height * zoom + GAP);
    if (width > SIDE_MAX || height > SIDE_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "%d tiles of %d x %d weights in %d columns are %lld x %lld pixels: the "
                        "limit is %d x %d; choose another number of --columns",
                        t->count, t->width, t->height, t->columns, (long long)width,
                        (long long)height, SIDE_MAX, SIDE_MAX);
    cairo_surface_t *sheet =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
    cairo_t *to = cairo_create(sheet);
    cairo_set_source_rgb(to, 0.2, 0.2, 0.35);
    cairo_paint(to);
    cairo_destroy(to);
    cairo_surface_flush(sheet);
    unsigned char *pixels = cairo_image_surface_get_data(sheet);
    for (int i = 0; pixels && i < t->count; i++)
        paint(t, i, zoom, pixels, cairo_image_surface_get_stride(sheet));
    cairo_surface_mark_dirty(sheet);
    cop_err e = cli_png_write(sheet, path, error);
    cairo_surface_destroy(sheet);
    return e;
}
