/* Shared by the fuzz targets of PNG and JPEG. */
#ifndef TESTS_FUZZ_PICTURE_H
#define TESTS_FUZZ_PICTURE_H

#include "common/base/alloc.h"
#include "common/data/image.h"
#include "fuzz/fuzz.h"

static inline void fuzz_picture(const uint8_t *data, size_t size) {
    cop_image image;
    cop_error error = {0};
    uint64_t sum = 0;
    if (cop_image_decode("fuzz", data, size, &image, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!image.pixels);
        return;
    }
    FUZZ_CHECK(image.channels == 1 || image.channels == 3);
    FUZZ_CHECK(image.height >= 1 && image.width >= 1);
    const size_t values = (size_t)image.channels * (size_t)image.height * (size_t)image.width;
    for (size_t i = 0; i < values; i++) sum += image.pixels[i]; /* all pixels can be read */
    FUZZ_CHECK(sum <= 255 * (uint64_t)values);
    cop_free(image.pixels);
}

#endif
