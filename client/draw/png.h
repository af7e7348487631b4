/* A drawn surface as a PNG file (cairo). */
#ifndef COP_CLIENT_DRAW_PNG_H
#define COP_CLIENT_DRAW_PNG_H

#include <cairo.h>

#include "common/base/err.h"

/* For cairo's streams: appends to the cop_str that `out` points to. */
cairo_status_t cli_png_append(void *out, const unsigned char *bytes, unsigned length);
/* Writes the surface, which stays the caller's: the whole file or none. NO_MEMORY if cairo fails,
 * else the errors of cop_file_write. */
cop_err cli_png_write(cairo_surface_t *surface, const char *path, cop_error *error);

#endif
