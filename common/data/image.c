/* What PNG and JPEG have in common. See image.h. */
#include "common/data/image.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"

cop_err image_create(const char *what, uint32_t channels, uint32_t height, uint32_t width,
                     uint64_t most, cop_image *out, cop_error *error) {
    COP_ASSERT(channels == 1 || channels == 3);
    if (!height || !width || (uint64_t)height * width > most / channels)
        return cop_fail(
            error, COP_ERR_LIMIT, "%s has %u x %u pixels: expected at most %llu values%s", what,
            width, height, (unsigned long long)most,
            most <= COP_UNITS_MAX ? " in a sample (data.resize makes them smaller)" : "");
    *out = (cop_image){(int32_t)channels, (int32_t)height, (int32_t)width, NULL};
    out->pixels = cop_alloc_raw((size_t)channels * height * width);
    return out->pixels ? COP_OK : cop_no_memory(error);
}

void image_put_row(cop_image *image, uint32_t row, const uint8_t *interleaved) {
    const size_t width = (size_t)image->width, plane = width * (size_t)image->height;
    COP_ASSERT(row < (uint32_t)image->height);
    uint8_t *to = image->pixels + row * width;
    if (image->channels == 1) {
        memcpy(to, interleaved, width);
        return;
    }
    for (size_t x = 0; x < width; x++)
        for (size_t c = 0; c < 3; c++) to[c * plane + x] = interleaved[3 * x + c];
}

cop_err cop_image_decode_large(const char *what, const void *bytes, size_t size, uint64_t most,
                               cop_image *out, cop_error *error) {
    const unsigned char *b = bytes;
    *out = (cop_image){0};
    if (size >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0)
        return image_decode_png(what, bytes, size, most, out, error);
    if (size >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff)
        return image_decode_jpeg(what, bytes, size, most, out, error);
    return cop_fail(error, COP_ERR_INPUT, "%s is neither a PNG nor a JPEG file: it is %s", what,
                    cop_file_kind(bytes, size));
}

cop_err cop_image_decode(const char *what, const void *bytes, size_t size, cop_image *out,
                         cop_error *error) {
    return cop_image_decode_large(what, bytes, size, COP_UNITS_MAX, out, error);
}
