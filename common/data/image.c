/* Functions that the readers of PNG and JPEG share, and the choice between the two. See image.h. */
#include "common/data/image.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"

cop_err image_create(const char *name, uint64_t values_max, cop_image *image, cop_error *error) {
    const uint64_t pixels = (uint64_t)image->height * (uint64_t)image->width;
    COP_ASSERT(image->channels == 1 || image->channels == 3);
    COP_ASSERT(image->height >= 0 && image->width >= 0);
    image->pixels = NULL;
    if (!pixels || pixels > values_max / (uint64_t)image->channels)
        return cop_fail(
            error, COP_ERR_LIMIT, "%s has %d x %d pixels: expected at most %llu values%s", name,
            image->width, image->height, (unsigned long long)values_max,
            values_max <= COP_UNITS_MAX ? " in a sample (data.resize makes them smaller)" : "");
    image->pixels = cop_alloc_raw((size_t)image->channels * pixels);
    return image->pixels ? COP_OK : cop_no_memory(error);
}

void image_put_row(cop_image *image, int32_t row, const uint8_t *interleaved) {
    const size_t width = (size_t)image->width, plane = width * (size_t)image->height;
    COP_ASSERT(row >= 0 && row < image->height);
    uint8_t *to = image->pixels + (size_t)row * width;
    if (image->channels == 1) {
        memcpy(to, interleaved, width);
        return;
    }
    for (size_t x = 0; x < width; x++)
        for (size_t c = 0; c < 3; c++) to[c * plane + x] = interleaved[3 * x + c];
}

cop_err image_decode(const image_file *file, cop_image *out, cop_error *error) {
    const unsigned char *b = file->bytes;
    *out = (cop_image){0};
    if (file->size >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0)
        return image_decode_png(file, out, error);
    if (file->size >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff)
        return image_decode_jpeg(file, out, error);
    return cop_fail(error, COP_ERR_INPUT, "%s is neither a PNG nor a JPEG file: it is %s",
                    file->name, cop_file_kind(file->bytes, file->size));
}

cop_err cop_image_decode(const char *name, const void *bytes, size_t size, cop_image *out,
                         cop_error *error) {
    const image_file file = {name, bytes, size, COP_UNITS_MAX};
    return image_decode(&file, out, error);
}
