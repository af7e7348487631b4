/* A drawn surface as a PNG file (cairo). */
#ifndef COP_CLIENT_DRAW_PNG_H
#define COP_CLIENT_DRAW_PNG_H

#include <cairo.h>

#include "common/base/err.h"

/* A cairo_write_func_t that appends `length` bytes to the cop_str that `out` points to. Out of
 * memory is recorded there and returned as CAIRO_STATUS_NO_MEMORY. */
cairo_status_t cli_png_append(void *out, const unsigned char *bytes, unsigned length);
/* Writes a surface as a PNG file, completely or not at all. Borrows the surface. NO_MEMORY: cairo
 * failed, also if the surface itself could not be created; otherwise the errors of
 * cop_file_write. */
cop_err cli_png_write(cairo_surface_t *surface, const char *path, cop_error *error);

#endif
