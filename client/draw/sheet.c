/* Contact sheets: a grid of images with labels or captions, as PNG (cairo). See sheet.h. */
#include <cairo.h>
#include <stdio.h>

#include "client/draw/png.h"
#include "client/draw/sheet.h"
#include "common/base/alloc.h"

#define CELL_GAP   4
#define LABEL_ROOM 14

/* Where and how large a sample is drawn on a sheet. */
typedef struct place {
    double x, y; /* the upper left corner */
    int scale;   /* each pixel of the sample becomes a square with this side */
} place;

/* Paints one sample as an opaque image. With one channel it is dark on white, with three channels
 * in colour. */
static void paint_sample(cairo_t *to, const cop_data_part *part, uint32_t index, place at) {
    COP_ASSERT(index < part->count && at.scale >= 1);
    int h = part->dims[1], w = part->dims[2], channels = part->dims[0];
    const uint8_t *values = (const uint8_t *)part->samples + (size_t)index * part->stride;
    cairo_surface_t *picture = cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
    unsigned char *pixels = cairo_image_surface_get_data(picture);
    int stride = cairo_image_surface_get_stride(picture);
    if (pixels) {
        for (int r = 0; r < h; r++)
            for (int c = 0; c < w; c++) {
                int i = r * w + c;
                uint32_t red = values[i], green = channels == 3 ? values[i + h * w] : red,
                         blue = channels == 3 ? values[i + 2 * h * w] : red;
                uint32_t pixel = channels == 3
                                     ? red << 16 | green << 8 | blue
                                     : (255 - red) << 16 | (255 - green) << 8 | (255 - blue);
                cop_store_u32(pixels + r * stride + 4 * c, pixel);
            }
        cairo_surface_mark_dirty(picture);
    }
    cairo_save(to);
    cairo_translate(to, at.x, at.y);
    cairo_scale(to, at.scale, at.scale);
    cairo_set_source_surface(to, picture, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(to), CAIRO_FILTER_NEAREST);
    cairo_paint(to);
    cairo_restore(to);
    cairo_surface_destroy(picture);
}

static void paint_label(cairo_t *to, int32_t label, double x, double y) {
    char text[16];
    snprintf(text, sizeof text, "%d", label);
    cairo_set_source_rgb(to, 0, 0, 0);
    cairo_move_to(to, x, y + LABEL_ROOM - 3);
    cairo_show_text(to, text);
}

static cop_err check_images(const cop_data_part *part, cop_error *error) {
    if (part->rank != 3 || part->type != COP_DATA_U8 || (part->dims[0] != 1 && part->dims[0] != 3))
        return cop_fail(error, COP_ERR_INPUT,
                        "cannot draw these samples: expected images with 1 or 3 channels of bytes");
    if (part->dims[1] > CLI_SHEET_SIDE_MAX || part->dims[2] > CLI_SHEET_SIDE_MAX)
        return cop_fail(error, COP_ERR_INPUT, "samples of %d x %d are too large for a sheet",
                        part->dims[2], part->dims[1]);
    return COP_OK;
}

cop_err cli_sheet_contact(const cop_data_part *part, int rows, int columns, const char *path,
                          cop_error *error) {
    COP_ASSERT(rows >= 1 && columns >= 1);
    COP_TRY(check_images(part, error));
    int scale = part->dims[2] < 40 ? 2 : 1, cell_w = part->dims[2] * scale + CELL_GAP,
        cell_h = part->dims[1] * scale + CELL_GAP + LABEL_ROOM;
    cairo_surface_t *sheet = cairo_image_surface_create(
        CAIRO_FORMAT_RGB24, columns * cell_w + CELL_GAP, rows * cell_h + CELL_GAP);
    cairo_t *to = cairo_create(sheet);
    cairo_set_source_rgb(to, 0.93, 0.93, 0.93);
    cairo_paint(to);
    cairo_set_font_size(to, 11);
    for (int i = 0; i < rows * columns && (uint32_t)i < part->count; i++) {
        double x = CELL_GAP + i % columns * cell_w, y = CELL_GAP + i / columns * cell_h;
        paint_sample(to, part, (uint32_t)i, (place){x, y, scale});
        paint_label(to, part->labels[i], x, y + part->dims[1] * scale);
    }
    cairo_destroy(to);
    cop_err e = cli_png_write(sheet, path, error);
    cairo_surface_destroy(sheet);
    return e;
}

/* ---- sheets with captions ---- */

enum { CAPTION_WIDTH = 170, LINE_ROOM = 16, MARGIN = 12, IMAGE_WIDTH_MIN = 128, SIDE_MAX = 16384 };
enum { PIXELS_PER_UNIT = 2 }; /* pixels of the file per unit of the layout */

typedef struct layout {
    int zoom, cell_width, cell_height, top, width, height;
} layout;

static cop_err lay_out_sheet(const cli_sheet *s, layout *out, cop_error *error) {
    const int w = s->part->dims[2], h = s->part->dims[1];
    const int64_t rows = (s->part->count + (int64_t)s->columns - 1) / s->columns;
    int headings = 0;
    while (s->heading[headings]) headings++;
    out->zoom = w < IMAGE_WIDTH_MIN ? (IMAGE_WIDTH_MIN + w - 1) / w : 1;
    const int image = w * out->zoom;
    out->cell_width = (image > CAPTION_WIDTH ? image : CAPTION_WIDTH) + MARGIN;
    out->cell_height = h * out->zoom + s->lines * LINE_ROOM + MARGIN + 6;
    out->top = MARGIN + headings * LINE_ROOM;
    const int64_t width = MARGIN + (int64_t)s->columns * out->cell_width,
                  height = out->top + rows * out->cell_height;
    if (width * PIXELS_PER_UNIT > SIDE_MAX || height * PIXELS_PER_UNIT > SIDE_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "a sheet of %u images of %d x %d in %d columns has %lld x %lld pixels: the "
                        "limit is %d x %d",
                        s->part->count, w, h, s->columns, (long long)width * PIXELS_PER_UNIT,
                        (long long)height * PIXELS_PER_UNIT, SIDE_MAX, SIDE_MAX);
    out->width = (int)width;
    out->height = (int)height;
    return COP_OK;
}

static void paint_text(cairo_t *to, const char *text, bool bold, double x, double y) {
    cairo_set_source_rgb(to, 0, 0, 0);
    cairo_select_font_face(to, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_move_to(to, x, y + LINE_ROOM - 4);
    cairo_show_text(to, text);
}

static void paint_line(cairo_t *to, const cli_caption *c, double x, double y, double width) {
    if (c->bar >= 0) {
        cairo_set_source_rgb(to, 0.8, 0.8, 0.8);
        cairo_rectangle(to, x, y + 2, width * (c->bar > 1 ? 1 : c->bar), LINE_ROOM - 3);
        cairo_fill(to);
    }
    paint_text(to, c->text, c->bold, x + 2, y);
}

static void paint_cell(cairo_t *to, const cli_sheet *s, const layout *l, uint32_t index) {
    COP_ASSERT(index < s->part->count && l->zoom >= 1);
    const cop_data_part *part = s->part;
    const double x = MARGIN + (double)(index % (uint32_t)s->columns) * l->cell_width,
                 y = l->top + (double)(index / (uint32_t)s->columns) * l->cell_height;
    const double width = l->cell_width - MARGIN, below = y + part->dims[1] * l->zoom + 3;
    paint_sample(to, part, index, (place){x, y, l->zoom});
    cairo_set_source_rgb(to, 0.6, 0.6, 0.6);
    cairo_set_line_width(to, 0.5);
    cairo_rectangle(to, x - 0.25, y - 0.25, part->dims[2] * l->zoom + 0.5,
                    part->dims[1] * l->zoom + 0.5);
    cairo_stroke(to);
    cairo_save(to); /* for the clip below, which cuts off text that is too long */
    cairo_rectangle(to, x, below, width, s->lines * LINE_ROOM);
    cairo_clip(to);
    for (int i = 0; i < s->lines; i++)
        paint_line(to, &s->captions[(size_t)index * (size_t)s->lines + (size_t)i], x,
                   below + i * LINE_ROOM, width);
    cairo_restore(to);
}

cop_err cli_sheet_draw(const cli_sheet *s, const char *path, cop_error *error) {
    layout l = {0};
    COP_ASSERT(s->columns >= 1 && s->lines >= 0 && s->part->count >= 1);
    COP_TRY(check_images(s->part, error));
    COP_TRY(lay_out_sheet(s, &l, error));
    cairo_surface_t *surface = cairo_image_surface_create(
        CAIRO_FORMAT_RGB24, l.width * PIXELS_PER_UNIT, l.height * PIXELS_PER_UNIT);
    cairo_t *to = cairo_create(surface);
    cairo_scale(to, PIXELS_PER_UNIT, PIXELS_PER_UNIT);
    cairo_set_source_rgb(to, 1, 1, 1);
    cairo_paint(to);
    cairo_set_font_size(to, 11.5);
    for (int i = 0; s->heading[i]; i++) {
        paint_text(to, s->heading[i], i == 0, MARGIN, MARGIN / 2.0 + i * LINE_ROOM);
    }
    for (uint32_t i = 0; i < s->part->count; i++) paint_cell(to, s, &l, i);
    cairo_destroy(to);
    cop_err e = cli_png_write(surface, path, error);
    cairo_surface_destroy(surface);
    return e;
}
