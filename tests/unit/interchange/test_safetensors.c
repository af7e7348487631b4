/* Tensor files: written files are read back, and damaged ones are refused. LABELS: quick qemu */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/interchange/safetensors.h"

static char *encode(size_t *size) {
    static const float w[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t n[1] = {-7};
    const cop_tensor_entry tensors[2] = {{"1.weight", "F32", 2, {2, 3}, w, sizeof w},
                                         {"count \"x\"", "I64", 0, {0}, n, sizeof n}};
    const cop_metadata metadata[1] = {{"job", "name: \"a\"\nseed: 1\n"}};
    char *bytes;
    const cop_safetensors_content content = {tensors, 2, metadata, 1};
    assert_int_equal(cop_safetensors_encode(&content, &bytes, size, NULL), COP_OK);
    return bytes;
}

static void test_safetensors_round_trip(void **state) {
    (void)state;
    size_t size;
    char *bytes = encode(&size);
    cop_safetensors *file;
    assert_int_equal(cop_safetensors_decode(bytes, size, "x", &file, NULL), COP_OK);
    assert_int_equal(cop_safetensors_count(file), 2);
    const cop_tensor_entry *t = cop_safetensors_find(file, "1.weight");
    assert_non_null(t);
    assert_int_equal(t->dims[1], 3);
    assert_true(((const float *)t->data)[5] == 6);
    assert_non_null(cop_safetensors_find(file, "count \"x\""));
    assert_null(cop_safetensors_find(file, "nothing"));
    assert_string_equal(cop_safetensors_metadata(file, "job"), "name: \"a\"\nseed: 1\n");
    cop_safetensors_close(file);
    cop_free(bytes);
}

static void test_damaged_safetensors_are_refused(void **state) {
    (void)state;
    size_t size;
    char *bytes = encode(&size);
    cop_safetensors *file;
    cop_error e;
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(cop_safetensors_decode(bytes, cut, "x", &file, &e), COP_ERR_CORRUPT);
    /* With each byte of length and header changed: refused, or a file of the same size; no crash.
     */
    size_t header = 8 + (size_t)cop_load_u64(bytes);
    for (size_t i = 0; i < header; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
            if (cop_safetensors_decode(bytes, size, "x", &file, &e) == COP_OK)
                cop_safetensors_close(file);
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
        }
    cop_free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_round_trip),
        cmocka_unit_test(test_damaged_safetensors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
