/* Fuzz target: random bytes as a CSV file. */
#include "fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_data_input input = {.name = "fuzz", .train.path = fuzz_file(0, data, size)};
    fuzz_load("csv", &input);
    static const char *const drop[] = {"b", "3"};
    input.label = "a";
    fuzz_load("csv", &input);
    input.drop = drop;
    input.drop_count = 2;
    fuzz_load("csv", &input);
    return 0;
}
