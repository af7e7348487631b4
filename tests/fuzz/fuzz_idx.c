/* Fuzz target: random bytes as an IDX file of samples, and as one of labels. */
#include "fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t samples[] = {0, 0, 8, 2, 0, 0, 0, 4, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8},
                         labels[] = {0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 1, 0};
    const char *path = fuzz_file(0, data, size), *x = fuzz_file(1, samples, sizeof samples),
               *y = fuzz_file(2, labels, sizeof labels);
    const cop_data_input as_samples = {
        .name = "fuzz", .train = {path, y, NULL}, .test = {path, y, NULL}};
    const cop_data_input as_labels = {
        .name = "fuzz", .train = {x, path, NULL}, .test = {x, y, NULL}};
    fuzz_load("idx", &as_samples);
    fuzz_load("idx", &as_labels);
    return 0;
}
