/* Fuzz target: random bytes as an NPY file of samples, and as an NPZ archive. */
#include "fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char labels[] =
        "\x93NUMPY\1\0\x37\0{'descr':'|u1','fortran_order':False,'shape':(4,)}    \n\0\1\1\0";
    const char *path = fuzz_file(0, data, size);
    const cop_data_input pair = {
        .name = "fuzz",
        .train = {.images = path,
                  .labels = fuzz_file(1, (const uint8_t *)labels, sizeof labels - 1)}};
    cop_data_input archive = {.name = "fuzz", .train.path = path};
    fuzz_load("npy", &pair);
    fuzz_load("npy", &archive);
    archive.test.path = path;
    archive.order = COP_DATA_CHANNELS_LAST;
    fuzz_load("npy", &archive);
    return 0;
}
