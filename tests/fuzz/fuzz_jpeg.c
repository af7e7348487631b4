/* Fuzz target: random bytes as a picture, if they begin like a JPEG file. */
#include "fuzz/picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || data[0] != 0xff || data[1] != 0xd8) return -1;
    fuzz_picture(data, size);
    return 0;
}
