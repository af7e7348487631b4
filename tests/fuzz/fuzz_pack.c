/* Fuzz target: any bytes as a data pack, as it is uploaded and lies in a coordinator's folder. What
 * is taken holds what its header says, and labels within its classes. */
#include <string.h>

#include "common/data/data.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge_part(const cop_data *data, const cop_data_part *part) {
    const uint8_t *bytes = part->samples, *end = (const uint8_t *)data->pack->data;
    end += data->pack->size;
    FUZZ_CHECK(part->rank >= 1 && part->rank <= 3 && part->stride >= 1);
    FUZZ_CHECK(part->stride * part->count <= (size_t)(end - bytes));
    for (uint32_t i = 0; i < part->count; i++)
        FUZZ_CHECK(part->labels[i] >= 0 && part->labels[i] < data->classes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_data *set = NULL;
    cop_error error = {0};
    cop_buffer *pack = cop_buffer_create(size);
    FUZZ_CHECK(pack);
    if (size) memcpy(pack->data, data, size);
    if (cop_data_from_pack(pack, "fuzz", &set, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!set && pack->references == 1);
    } else {
        judge_part(set, &set->train);
        judge_part(set, &set->test);
        cop_data_destroy(set);
    }
    cop_buffer_release(pack);
    return 0;
}
