/* Fuzz target: any bytes as a CSV file. Build with clang -fsanitize=fuzzer,address,undefined, or
 * let tests/unit/data/test_fuzz.c drive it. */
#include "fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_data_input input = {.name = "fuzz", .train.path = fuzz_file(0, data, size)};
    fuzz_load("csv", &input);
    input.label = "a";
    fuzz_load("csv", &input);
    return 0;
}
