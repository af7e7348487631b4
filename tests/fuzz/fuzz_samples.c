/* Fuzz target: random bytes as samples for a trained model, in each of the formats that are
 * recognised by their content. */
#include <stdint.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/data/samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads the bytes as samples of this form. A refusal must have a message. Accepted samples must
 * have the form's type, be readable completely, and have labels within its classes. */
static void check_form(const cop_data_form *form, const uint8_t *data, size_t size) {
    char *bytes = cop_alloc(size + 1);
    cop_data_samples s;
    cop_error error = {0};
    if (!bytes) __builtin_trap();
    memcpy(bytes, data, size);
    const cop_data_content content = {"input", bytes, size};
    if (cop_data_samples_decode(&content, form, &s, &error)) {
        if (!error.code || !error.text[0]) __builtin_trap();
    } else {
        uint64_t sum = 0;
        const uint8_t *row = s.part.samples;
        if (!s.part.count || s.part.type != form->type) __builtin_trap();
        for (size_t i = 0; i < s.part.count * s.part.stride; i++) sum += row[i];
        for (uint32_t i = 0; s.part.labels && i < s.part.count; i++)
            if (s.part.labels[i] < 0 || s.part.labels[i] >= form->classes) __builtin_trap();
        if (sum == UINT64_MAX) __builtin_trap();
    }
    cop_data_samples_fini(&s);
    cop_free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const drop[] = {"id"}, *const names[] = {"iris", "lily", "rose"};
    static const cop_data_form forms[] = {
        {.type = COP_DATA_F32, .rank = 1, .dims = {2}, .classes = 3, .label = "label"},
        {.type = COP_DATA_U8, .rank = 1, .dims = {2}, .classes = 3},
        {.type = COP_DATA_U8, .rank = 3, .dims = {3, 12, 12}, .classes = 3},
        {.type = COP_DATA_U8, .rank = 3, .dims = {3, 5, 17}, .classes = 3, .resize = true},
        {.type = COP_DATA_F32,
         .rank = 1,
         .dims = {2},
         .classes = 3,
         .drop = drop,
         .drop_count = 1,
         .class_names = names},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) check_form(&forms[i], data, size);
    return 0;
}
