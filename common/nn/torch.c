/* A model's layers as PyTorch modules. See torch.h. */
#include "common/nn/torch.h"

#include <stdio.h>
#include <string.h>

void cop_torch_print(cop_torch *out, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    COP_ASSERT(length >= 0 && length < (int)sizeof text);
    cop_str_append(&out->text, text);
}

void cop_torch_real(cop_torch *out, double value) {
    char text[40];
    double read = 0;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (cop_parse_f64(text, &read) && read == value) break;
    }
    cop_str_append(&out->text, text);
}

void cop_torch_flag(cop_torch *out, const char *name, bool value) {
    cop_torch_print(out, ", %s=%s", name, value ? "True" : "False");
}

void cop_torch_class(cop_torch *out, const char *source) {
    for (int i = 0; i < out->class_count; i++)
        if (strcmp(out->classes[i], source) == 0) return;
    COP_ASSERT(out->class_count < COP_TORCH_CLASSES);
    out->classes[out->class_count++] = source;
}
