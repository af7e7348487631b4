/* Pictures of PNG and JPEG files as bytes: grey (1 channel) or RGB (3), as training data want them.
 */
#ifndef COP_DATA_IMAGE_H
#define COP_DATA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define IMAGE_FILE_MAX ((size_t)256 << 20) /* bytes of one that is read */

typedef struct cop_image {
    int32_t channels, height, width;
    uint8_t *pixels; /* (channels, height, width); cop_free */
} cop_image;

/* A picture in memory; its first bytes say which format it is. Palettes become RGB, fewer bits than
 * 8 are widened, 16 are rounded to 8, transparency is left out. CORRUPT, with the library's words,
 * for a file that is damaged or truncated anywhere; INPUT for what is no PNG or JPEG, and for more
 * than COP_UNITS_MAX values. `what` begins the sentence. */
cop_err cop_image_decode(const char *what, const void *bytes, size_t size, cop_image *out,
                         cop_error *error);

/* The two formats (png.c, jpeg.c). */
cop_err image_decode_png(const char *what, const void *bytes, size_t size, cop_image *out,
                         cop_error *error);
cop_err image_decode_jpeg(const char *what, const void *bytes, size_t size, cop_image *out,
                          cop_error *error);
/* Takes memory for the pixels; LIMIT or NO_MEMORY. */
cop_err image_create(const char *what, uint32_t channels, uint32_t height, uint32_t width,
                     cop_image *out, cop_error *error);
/* One row of interleaved pixels into the planes. */
void image_put_row(cop_image *image, uint32_t row, const uint8_t *interleaved);

#endif
