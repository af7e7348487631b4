/* Decodes PNG images by libpng, without its colour management, so that stored bytes of grey or RGB
 * do not change. Errors leave libpng by longjmp, so everything that must be freed after an error is
 * in `reader`. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/data/gzip.h"
#include "common/data/image.h"

typedef struct reader {
    const image_file *file;
    const unsigned char *at; /* the next byte to read */
    size_t rest;             /* number of bytes from `at` on */
    png_structp png;
    png_infop info;
    png_bytep rows; /* the whole image, because an interlaced image is read in several passes; the
                       values of each pixel are next to each other */
    bool no_memory; /* an allocation has failed */
    char message[120];
} reader;

static void on_error(png_structp png, png_const_charp message) {
    reader *r = png_get_error_ptr(png);
    snprintf(r->message, sizeof r->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

static void on_read(png_structp png, png_bytep out, size_t size) {
    reader *r = png_get_io_ptr(png);
    if (size > r->rest) png_error(png, "it ends early");
    memcpy(out, r->at, size);
    r->at += size;
    r->rest -= size;
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t size) {
    reader *r = png_get_mem_ptr(png);
    void *block = cop_alloc(size);
    if (!block) r->no_memory = true;
    return block;
}

static void on_free(png_structp png, png_voidp pointer) {
    (void)png;
    cop_free(pointer);
}

/* Makes libpng convert pixels of all kinds to grey or RGB of 8 bits. */
static void ask_for_bytes(const reader *r) {
    const png_byte type = png_get_color_type(r->png, r->info);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(r->png);
    if (type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(r->png, r->info) < 8)
        png_set_expand_gray_1_2_4_to_8(r->png);
    if (png_get_bit_depth(r->png, r->info) == 16) png_set_scale_16(r->png);
    png_set_strip_alpha(r->png);
}

static int find_orientation(const reader *r) {
    png_uint_32 size = 0;
    png_bytep exif = NULL;
    if (!png_get_eXIf_1(r->png, r->info, &size, &exif)) return 1;
    return image_orientation(exif, size);
}

/* Runs after setjmp, so a longjmp may skip its rest: only `r` and `out` may own memory. */
static cop_err decode(reader *r, cop_image *out, cop_error *error) {
    png_set_read_fn(r->png, r, on_read);
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(r->png, COP_UNITS_MAX, COP_UNITS_MAX);
    png_set_chunk_malloc_max(r->png, 8u << 20);
    png_read_info(r->png, r->info);
    const uint32_t width = png_get_image_width(r->png, r->info),
                   height = png_get_image_height(r->png, r->info);
    if ((uint64_t)png_get_rowbytes(r->png, r->info) * height >
        (uint64_t)r->file->size * GZIP_RATIO_MAX)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is a damaged PNG file: %zu bytes cannot hold %u x %u pixels",
                        r->file->name, r->file->size, width, height);
    ask_for_bytes(r);
    const int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    const size_t stride = png_get_rowbytes(r->png, r->info);
    *out = (cop_image){png_get_channels(r->png, r->info), (int32_t)height, (int32_t)width, NULL};
    COP_TRY(image_create(r->file->name, r->file->values_max, out, error));
    COP_ASSERT(stride == (size_t)width * (size_t)out->channels);
    r->rows = cop_alloc(stride * height);
    if (!r->rows) return cop_no_memory(error);
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < height; y++) png_read_row(r->png, r->rows + y * stride, NULL);
    png_read_end(r->png, r->info);
    for (uint32_t y = 0; y < height; y++) image_put_row(out, (int32_t)y, r->rows + y * stride);
    return image_rotate_upright(r->file->name, out, find_orientation(r), error);
}

static cop_err guarded(reader *r, cop_image *out, cop_error *error) {
    if (!setjmp(png_jmpbuf(r->png))) return decode(r, out, error);
    const char *name = r->file->name;
    if (r->no_memory) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory to read %s", name);
    return cop_fail(error, COP_ERR_CORRUPT, "%s is a damaged PNG file: %s", name, r->message);
}

cop_err image_decode_png(const image_file *file, cop_image *out, cop_error *error) {
    reader r = {.file = file, .at = file->bytes, .rest = file->size};
    r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning, &r, on_alloc,
                                     on_free);
    if (r.png) r.info = png_create_info_struct(r.png);
    cop_err e = r.info ? guarded(&r, out, error)
                       : cop_fail(error, COP_ERR_NO_MEMORY, "no memory to read %s", file->name);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    cop_free(r.rows);
    if (e) {
        cop_free(out->pixels);
        *out = (cop_image){0};
    }
    return e;
}
