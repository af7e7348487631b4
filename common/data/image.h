/* PNG and JPEG images, decoded to bytes for training: grey (1 channel) or RGB (3 channels). */
#ifndef COP_DATA_IMAGE_H
#define COP_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define IMAGE_FILE_MAX   ((size_t)256 << 20)   /* bytes of an image file */
#define IMAGE_VALUES_MAX ((uint64_t)256 << 20) /* values of an image that is resized */

typedef struct cop_image {
    int32_t channels, height, width;
    uint8_t *pixels; /* (channels, height, width); cop_free */
} cop_image;

/* Decodes an image of up to COP_UNITS_MAX values; the first bytes tell the format. Palettes become
 * RGB, fewer bits than 8 are widened, 16 are rounded to 8, transparency is dropped, and EXIF's
 * orientation is applied. `name` begins errors. CORRUPT, with the library's words: the file is
 * damaged or truncated anywhere. INPUT: neither PNG nor JPEG. LIMIT: too many values. After an
 * error out->pixels is NULL. */
cop_err cop_image_decode(const char *name, const void *bytes, size_t size, cop_image *out,
                         cop_error *error);

/* An image file in memory, and how many values its image may have: COP_UNITS_MAX, or up to
 * IMAGE_VALUES_MAX if the image is to be made smaller. */
typedef struct image_file {
    const char *name; /* for errors */
    const void *bytes;
    size_t size;
    uint64_t values_max;
} image_file;

/* As cop_image_decode, up to file->values_max values. */
cop_err image_decode(const image_file *file, cop_image *out, cop_error *error);
/* The two formats (png.c, jpeg.c). */
cop_err image_decode_png(const image_file *file, cop_image *out, cop_error *error);
cop_err image_decode_jpeg(const image_file *file, cop_image *out, cop_error *error);

/* What an image is to become; 0: as it is. */
typedef struct image_form {
    int32_t channels, height, width;
} image_form;

/* Resizes the image to form->height and form->width, and makes a grey one into three equal channels
 * if form->channels is 3. A colour image keeps its channels. Smaller is the mean of the area that a
 * pixel covers, larger is bilinear. On an error the image stays as it was. */
cop_err image_fit(const char *name, const image_form *form, cop_image *image, cop_error *error);

/* Should folders of images ignore a file or folder of this name? True for names that begin with a
 * dot, and for what file managers leave behind. */
bool image_folder_skips(const char *name);
/* Allocates the pixels of an image whose channels, height and width are set. LIMIT: it has no
 * pixel, or more than `values_max` values. NO_MEMORY. */
cop_err image_create(const char *name, uint64_t values_max, cop_image *image, cop_error *error);
/* The orientation in EXIF data, 1 to 8; 1, upright, also where there is none. */
int image_orientation(const void *exif, size_t size);
/* Turns the image upright. */
cop_err image_turn(const char *name, cop_image *image, int orientation, cop_error *error);
/* Stores one row of interleaved pixels in the planes. */
void image_put_row(cop_image *image, int32_t row, const uint8_t *interleaved);

#endif
