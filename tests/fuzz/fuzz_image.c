/* Fuzz target: any bytes as a PNG or JPEG file. Build with clang
 * -fsanitize=fuzzer,address,undefined, or let tests/unit/data/test_fuzz.c drive it. */
#include "common/data/image.h"
#include "fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_image image;
    cop_error error = {0};
    if (cop_image_decode("fuzz", data, size, &image, &error)) {
        if (!error.code || !error.text[0] || image.pixels) __builtin_trap();
        return 0;
    }
    if ((image.channels != 1 && image.channels != 3) || image.height < 1 || image.width < 1)
        __builtin_trap();
    cop_free(image.pixels);
    return 0;
}
