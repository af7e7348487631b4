/* PNG and JPEG images, decoded to bytes for training: grey (1 channel) or RGB (3 channels). */
#ifndef COP_DATA_IMAGE_H
#define COP_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define IMAGE_FILE_MAX   ((size_t)256 << 20)   /* bytes of an image file */
#define IMAGE_VALUES_MAX ((uint64_t)256 << 20) /* values of an image before it is resized */

/* A decoded image. */
typedef struct cop_image {
    int32_t channels; /* 1: grey; 3: RGB */
    int32_t height;   /* in pixels */
    int32_t width;    /* in pixels */
    uint8_t *pixels;  /* (channels, height, width); the caller frees it with cop_free */
} cop_image;

/* Decodes an image of up to COP_UNITS_MAX values; the first bytes decide the format. Converts the
 * pixels as follows:
 *
 *  - A palette becomes RGB.
 *  - Values of fewer than 8 bits are scaled up to 8 bits; values of 16 bits are rounded to 8 bits.
 *  - Transparency is dropped.
 *  - The image is turned upright, as its EXIF orientation requires.
 *
 * `name` begins errors. CORRUPT: the file is damaged or truncated; the error contains the message
 * of libpng or libjpeg. INPUT: the file has another format, or it is a JPEG with other colours than
 * grey or RGB. LIMIT: the image has no pixels or too many values. NO_MEMORY. After an error
 * out->pixels is NULL. */
cop_err cop_image_decode(const char *name, const void *bytes, size_t size, cop_image *out,
                         cop_error *error);

/* An image file in memory. */
typedef struct image_file {
    const char *name; /* how errors name the image */
    const void *bytes;
    size_t size;         /* number of bytes */
    uint64_t values_max; /* maximum number of values of the image: COP_UNITS_MAX, or
                            IMAGE_VALUES_MAX if the caller resizes the image */
} image_file;

/* Decodes as cop_image_decode does, but the image may have up to file->values_max values. */
cop_err image_decode(const image_file *file, cop_image *out, cop_error *error);
/* The decoders of the two formats (png.c, jpeg.c). image_decode calls one of them. */
cop_err image_decode_png(const image_file *file, cop_image *out, cop_error *error);
cop_err image_decode_jpeg(const image_file *file, cop_image *out, cop_error *error);

/* The form that an image should get. */
typedef struct image_form {
    int32_t channels; /* 3: turn a grey image into three equal channels; otherwise: no change */
    int32_t height;   /* 0: no change of height and width */
    int32_t width;    /* 0: no change of height and width */
} image_form;

/* Resizes the image to form->height and form->width, then changes its channels. A colour image
 * always keeps its three channels. Along an axis that shrinks, a new pixel is the mean of the area
 * that it covers; along an axis that grows, values are interpolated linearly. LIMIT: the result has
 * more than COP_UNITS_MAX values. NO_MEMORY. */
cop_err image_fit(const char *name, const image_form *form, cop_image *image, cop_error *error);

/* Should the readers of image folders ignore a file or folder with this name? True for names that
 * begin with a dot, and for names such as Thumbs.db that file managers and operating systems
 * create. */
bool image_folder_skips(const char *name);
/* Allocates image->pixels; the caller has set channels, height and width. The pixels are undefined.
 * LIMIT: the image has no pixels, or more than `values_max` values. NO_MEMORY. */
cop_err image_create(const char *name, uint64_t values_max, cop_image *image, cop_error *error);
/* Returns the orientation that EXIF data give, 1 to 8. Returns 1 (upright) if they give none or are
 * damaged. */
int image_orientation(const void *exif, size_t size);
/* Turns the image upright; `orientation` is EXIF's, 1 to 8. After an error (LIMIT, NO_MEMORY) the
 * image is unchanged. */
cop_err image_rotate_upright(const char *name, cop_image *image, int orientation, cop_error *error);
/* Stores row `row` of the image: copies the values of its pixels, which are interleaved
 * (RGBRGB...), to the planes of the channels. */
void image_put_row(cop_image *image, int32_t row, const uint8_t *interleaved);

#endif
