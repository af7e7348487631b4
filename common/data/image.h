/* Pictures of PNG and JPEG files as bytes: grey (1 channel) or RGB (3), as training data want them.
 */
#ifndef COP_DATA_IMAGE_H
#define COP_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define IMAGE_FILE_MAX   ((size_t)256 << 20)   /* bytes of one that is read */
#define IMAGE_VALUES_MAX ((uint64_t)256 << 20) /* of one that is read to be made smaller */

typedef struct cop_image {
    int32_t channels, height, width;
    uint8_t *pixels; /* (channels, height, width); cop_free */
} cop_image;

/* A picture in memory; its first bytes say which format it is. Palettes become RGB, fewer bits than
 * 8 are widened, 16 are rounded to 8, transparency is left out, EXIF's orientation is applied.
 * CORRUPT, with the library's words,
 * for a file that is damaged or truncated anywhere; INPUT for what is no PNG or JPEG, and for more
 * than COP_UNITS_MAX values. `what` begins the sentence. */
cop_err cop_image_decode(const char *what, const void *bytes, size_t size, cop_image *out,
                         cop_error *error);

/* The same of up to `most` values, COP_UNITS_MAX to IMAGE_VALUES_MAX. */
cop_err cop_image_decode_large(const char *what, const void *bytes, size_t size, uint64_t most,
                               cop_image *out, cop_error *error);

/* Height and width as asked (0: as they are), and grey as three equal channels where 3 are asked; a
 * colour picture stays one. Smaller is the mean of the area that a pixel covers, larger is
 * bilinear. On an error the image stays as it was. */
cop_err cop_image_fit(const char *what, cop_image *image, int32_t channels, uint32_t height,
                      uint32_t width, cop_error *error);

/* The two formats (png.c, jpeg.c). */
cop_err image_decode_png(const char *what, const void *bytes, size_t size, uint64_t most,
                         cop_image *out, cop_error *error);
cop_err image_decode_jpeg(const char *what, const void *bytes, size_t size, uint64_t most,
                          cop_image *out, cop_error *error);
/* Is it a file or folder that file managers leave behind, or one with a dot in front? */
bool image_folder_skips(const char *name);
/* Takes memory for the pixels; LIMIT (more than `most` values) or NO_MEMORY. */
cop_err image_create(const char *what, uint32_t channels, uint32_t height, uint32_t width,
                     uint64_t most, cop_image *out, cop_error *error);
/* EXIF's orientation, 1 to 8; 1, upright, also where there is none. */
int image_orientation(const void *exif, size_t size);
/* Turns the picture upright. */
cop_err image_turn(const char *what, cop_image *image, int orientation, cop_error *error);
/* One row of interleaved pixels into the planes. */
void image_put_row(cop_image *image, uint32_t row, const uint8_t *interleaved);

#endif
