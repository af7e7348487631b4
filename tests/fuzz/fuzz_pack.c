/* Fuzz target: random bytes as an uploaded data pack, and as the file of a pack in a coordinator's
 * folder. In the file, class names may follow the pack. An accepted pack must have samples that lie
 * within its bytes and labels that are less than its number of classes, and either a name for each
 * class or no names. */
#include <string.h>

#include "common/data/data.h"
#include "fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const cop_data *data, const cop_data_part *part) {
    const uint8_t *bytes = part->samples, *end = (const uint8_t *)data->pack->data;
    end += data->pack->size;
    FUZZ_CHECK(part->rank >= 1 && part->rank <= 3 && part->stride >= 1);
    FUZZ_CHECK(part->stride * part->count <= (size_t)(end - bytes));
    for (uint32_t i = 0; i < part->count; i++)
        FUZZ_CHECK(part->labels[i] >= 0 && part->labels[i] < data->classes);
}

static void check_file(const char *path) {
    cop_data *set = NULL;
    cop_error error = {0};
    if (cop_data_load_pack(path, &set, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!set);
        return;
    }
    check_part(set, &set->train);
    FUZZ_CHECK(!set->class_names ||
               cop_class_names_ok((const char *const *)set->class_names, (size_t)set->classes));
    cop_data_destroy(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_file(fuzz_file(0, data, size));
    cop_data *set = NULL;
    cop_error error = {0};
    cop_buffer *pack = cop_buffer_create(size);
    FUZZ_CHECK(pack);
    if (size) memcpy(pack->data, data, size);
    if (cop_data_from_pack(pack, "fuzz", &set, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!set && pack->references == 1);
    } else {
        check_part(set, &set->train);
        check_part(set, &set->test);
        cop_data_destroy(set);
    }
    cop_buffer_release(pack);
    return 0;
}
