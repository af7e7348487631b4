/* A drawn surface as a PNG file (cairo). */
#ifndef COP_CLIENT_DRAW_PNG_H
#define COP_CLIENT_DRAW_PNG_H

#include <cairo.h>

#include "common/base/err.h"

/* A cairo_write_func_t that appends `length` bytes to the cop_str that `out` points to. If memory
 * runs out, it sets `failed` of the cop_str and returns CAIRO_STATUS_NO_MEMORY. */
cairo_status_t cli_png_append(void *out, const unsigned char *bytes, unsigned length);
/* Writes a surface as a PNG file, completely or not at all. Borrows the surface. NO_MEMORY: cairo
 * could not encode the surface, or could not even create it. Other errors come from
 * cop_file_write. */
cop_err cli_png_write(cairo_surface_t *surface, const char *path, cop_error *error);

#endif
