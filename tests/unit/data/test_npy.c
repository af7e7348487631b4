/* NPY and NPZ files: types, shapes, variants of the header, and damage. */
#include <zlib.h>

#include "common/base/bytes.h"
#include "common/data/npy.h"
#include "unit/data/files.h"

/* Writes an .npy file with this header; returns its size. */
static size_t make(char *out, const char *header, const void *body, size_t size) {
    const size_t length = strlen(header);
    memcpy(out, "\x93NUMPY\1\0", 8);
    cop_store_u16(out + 8, (uint16_t)length);
    memcpy(out + 10, header, length);
    memcpy(out + 10 + length, body, size);
    return 10 + length + size;
}

static const char *put(const char *name, const char *header, const void *body, size_t size) {
    char bytes[2048];
    return file_put(name, bytes, make(bytes, header, body, size));
}

#define HEADER(descr, shape)                                                                       \
    "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }\n"
#define BYTES_4x2 HEADER("|u1", "(4, 2)")

static void refuse(const char *header, size_t size, cop_err code, const char *text) {
    const char zeros[256] = {0};
    const uint8_t labels[4] = {0, 1, 1, 0};
    const cop_data_input input = {
        .train = {.images = put("x.npy", header, zeros, size),
                  .labels = put("y.npy", HEADER("|u1", "(4,)"), labels, 4)}};
    data_refuse("npy", &input, code, text);
}

static void test_types_become_bytes_or_f32(void **state) {
    (void)state;
    const double wide[4] = {0.1, -0.0, 3, 4};
    const int64_t labels[2] = {1, 0};
    cop_data_input input = {.name = "npy"};
    input.train.images = put("x.npy", HEADER("<f8", "(2, 1, 2)"), wide, sizeof wide);
    input.train.labels = put("y.npy", HEADER("<i8", "(2,)"), labels, sizeof labels);
    cop_data *data = data_load("npy", &input);
    const float values[4] = {0.1f, 0, 3, 4};
    assert_int_equal(data->train.type, COP_DATA_F32);
    assert_int_equal(data->train.rank, 3);
    assert_int_equal(data->train.dims[0], 1);
    assert_int_equal(data->train.dims[2], 2);
    assert_memory_equal(data->train.samples, values, sizeof values); /* -0 has become 0 */
    assert_int_equal(data->train.labels[0], 1);
    cop_data_destroy(data);
    put("x.npy", "{\"shape\":(2,3,1,1),'fortran_order':False,'descr':'|u1'}  \n", "abcdef", 6);
    data = data_load("npy", &input);
    assert_int_equal(data->train.type, COP_DATA_U8);
    assert_int_equal(data->train.dims[0], 3);
    assert_memory_equal(data->train.samples, "abcdef", 6);
    cop_data_destroy(data);
    data_survives_failed_allocations("npy", &input);
}

static void test_npy_length_must_match_its_shape(void **state) {
    (void)state;
    refuse(BYTES_4x2, 7, COP_ERR_CORRUPT, "it is shorter than its shape says");
    refuse(BYTES_4x2, 9, COP_ERR_CORRUPT, "it is longer than its shape says");
    refuse(HEADER("|u1", "(4294967296, 4294967296)"), 8, COP_ERR_CORRUPT, "it is shorter");
    refuse(HEADER("<f8", "(2305843009213693953, 1)"), 8, COP_ERR_CORRUPT, "it is shorter");
    refuse(HEADER("|u1", "(99999999999999999999999, 1)"), 8, COP_ERR_CORRUPT,
           "its shape holds no whole numbers");
    refuse(HEADER("|u1", "(0, 2)"), 0, COP_ERR_INPUT, "x.npy is an empty data set");
    refuse(HEADER("|u1", "(2, 4)"), 8, COP_ERR_INPUT, "x.npy has 2 samples, but ");
    refuse(HEADER("|u1", "(8,)"), 8, COP_ERR_INPUT, "x.npy has 1 dimensions: expected samples");
    refuse(HEADER("|u1", "(4, 0)"), 0, COP_ERR_INPUT, "a sample has no values");
    refuse(HEADER("|u1", "(1, 1, 1, 1, 8)"), 8, COP_ERR_INPUT, "more than 4 dimensions");
}

static void test_headers_are_read_strictly(void **state) {
    (void)state;
    refuse(HEADER("<c8", "(4, 2)"), 64, COP_ERR_INPUT, "elements of type \"<c8\"");
    refuse(HEADER("|f1", "(4, 2)"), 8, COP_ERR_INPUT, "elements of type \"|f1\"");
    refuse(HEADER("|O", "(4, 2)"), 32, COP_ERR_INPUT, "elements of type \"|O\"");
    refuse("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}", 8, COP_ERR_INPUT,
           "contains records");
    refuse("{'descr': '|u1', 'shape': (4, 2)}", 8, COP_ERR_CORRUPT, "needs descr, fortran_order");
    refuse("{'descr': '|u1', 'fortran_order': No, 'shape': (4, 2)}", 8, COP_ERR_CORRUPT,
           "neither True nor False");
    refuse("{'x': 1}", 8, COP_ERR_CORRUPT, "its header has an unknown key");
    refuse("{'descr': '|u1'", 8, COP_ERR_CORRUPT, "its header does not end");
    refuse("{'shape': (4 2)}", 8, COP_ERR_CORRUPT, "its shape does not end");
    refuse("(4, 2)", 8, COP_ERR_CORRUPT, "its header is not a dictionary");
    npy_array array;
    cop_error error = {0};
    char version_4[] = "\x93NUMPY\4\0\0\0\0\0", huge_header[] = "\x93NUMPY\2\0\xff\xff\xff\xff",
         no_length[] = "\x93NUMPY\1\0\1";
    const cop_data_content files[3] = {
        {"a", version_4, 12}, {"a", huge_header, 12}, {"a", no_length, 9}};
    assert_int_equal(npy_parse(&files[0], &array, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "a: NPY version 4: expected 1 to 3");
    assert_int_equal(npy_parse(&files[1], &array, &error), COP_ERR_CORRUPT);
    assert_int_equal(npy_parse(&files[2], &array, &error), COP_ERR_CORRUPT);
}

static void test_values_are_checked(void **state) {
    (void)state;
    const float values[2] = {1, (float)(1e30 * 1e30)};
    const int8_t labels[2] = {0, -1};
    const cop_data_input input = {
        .train = {.images = put("x.npy", HEADER("<f4", "(2, 1)"), values, sizeof values),
                  .labels = put("y.npy", HEADER("|i1", "(2,)"), labels, sizeof labels)}};
    data_refuse("npy", &input, COP_ERR_INPUT, "x.npy: element 1 is not a finite 32-bit number");
    put("x.npy", HEADER("|u1", "(2, 1)"), "ab", 2);
    data_refuse("npy", &input, COP_ERR_INPUT,
                "y.npy: label 1 is -1: expected labels, whole numbers from 0 to 65535");
    put("y.npy", HEADER("<f4", "(2,)"), values, sizeof values);
    data_refuse("npy", &input, COP_ERR_INPUT,
                "y.npy: label 1 is inf: expected labels, whole numbers");
}

/* Samples of any number type become f32; labels may be floats, booleans or a column. */
static void test_other_numbers_are_converted(void **state) {
    (void)state;
    const int16_t values[4] = {-3, 300, 0, 7};
    const float expected[4] = {-3, 300, 0, 7};
    const double labels[2] = {1, 0};
    const cop_data_input input = {
        .train = {.images = put("x.npy", HEADER("<i2", "(2, 2)"), values, sizeof values),
                  .labels = put("y.npy", HEADER("<f8", "(2, 1)"), labels, sizeof labels)}};
    cop_data *data = data_load("npy", &input);
    assert_int_equal(data->train.type, COP_DATA_F32);
    assert_memory_equal(data->train.samples, expected, sizeof expected);
    assert_int_equal(data->train.labels[0], 1);
    cop_data_destroy(data);
}

/* ---- position of the channels ---- */

static void expect_shape(const char *shape, cop_data_order order, const int32_t dims[3]) {
    char values[96], header[200];
    for (int i = 0; i < 96; i++) values[i] = (char)i;
    snprintf(header, sizeof header, "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }",
             shape);
    const cop_data_input input = {
        .train = {.images = put("x.npy", header, values, sizeof values),
                  .labels = put("y.npy", HEADER("|u1", "(2,)"), "\0\1", 2)},
        .order = order};
    cop_data *data = data_load("npy", &input);
    assert_memory_equal(data->train.dims, dims, 3 * sizeof *dims);
    const uint8_t *out = data->train.samples;
    const bool moved = strcmp(shape, "(2, 4, 4, 3)") == 0;
    assert_int_equal(out[1], moved ? 3 : 1); /* the second pixel of the first channel */
    assert_int_equal(out[48], 48);
    cop_data_destroy(data);
}

static void test_channels_last_are_moved_to_the_front(void **state) {
    (void)state;
    const int32_t first[3] = {3, 4, 4}, tall[3] = {1, 16, 3}, many[3] = {12, 2, 2};
    expect_shape("(2, 3, 4, 4)", COP_DATA_ORDER_AUTO, first);
    expect_shape("(2, 4, 4, 3)", COP_DATA_ORDER_AUTO, first);
    expect_shape("(2, 4, 4, 3)", COP_DATA_CHANNELS_LAST, first);
    expect_shape("(2, 1, 16, 3)", COP_DATA_ORDER_AUTO, tall);
    expect_shape("(2, 12, 2, 2)", COP_DATA_ORDER_AUTO, many);
    const char values[36] = {0};
    const cop_data_input input = {
        .train = {.images = put("x.npy", HEADER("|u1", "(2, 3, 2, 3)"), values, sizeof values),
                  .labels = put("y.npy", HEADER("|u1", "(2,)"), "\0\1", 2)}};
    data_refuse("npy", &input, COP_ERR_INPUT,
                "x.npy has the ambiguous shape (2, 3, 2, 3): the channels may be first or last; "
                "expected data.layout: nchw or nhwc");
}

/* ---- archives ---- */

/* Makes a ZIP archive with one uncompressed member. */
static size_t archive(char *out, const char *name, const char *body, uint32_t size) {
    const uint16_t length = (uint16_t)strlen(name);
    char head[46] = {0};
    memcpy(head, "PK\3\4", 4);
    cop_store_u32(head + 14, (uint32_t)crc32_z(0, (const unsigned char *)body, size));
    cop_store_u32(head + 18, size);
    cop_store_u32(head + 22, size);
    cop_store_u16(head + 26, length);
    memcpy(out, head, 30);
    memcpy(out + 30, name, length);
    memcpy(out + 30 + length, body, size);
    char *central = out + 30 + length + size;
    memmove(head + 6, head + 4, 26);
    memcpy(head, "PK\1\2", 4);
    memset(head + 4, 0, 12);
    memset(head + 30, 0, 16);
    memcpy(central, head, 46);
    memcpy(central + 46, name, length);
    char *end = central + 46 + length;
    memset(end, 0, 22);
    memcpy(end, "PK\5\6", 4);
    cop_store_u32(end + 12, 46u + length);
    cop_store_u32(end + 16, (uint32_t)(central - out));
    return (size_t)(end - out) + 22;
}

static void refuse_archive(char *bytes, size_t size, const char *text) {
    const cop_data_content npz = {"a.npz", bytes, size};
    cop_data_content out = {0};
    cop_error error = {0};
    assert_int_not_equal(npz_member(&npz, "x", &out, &error), COP_OK);
    if (!strstr(error.text, text)) fail_msg("\"%s\" has no \"%s\"", error.text, text);
    assert_null(out.bytes);
}

static void test_npz_arrays_are_found_by_name(void **state) {
    (void)state;
    char bytes[512];
    const cop_data_content npz = {"a.npz", bytes, archive(bytes, "x.npy", "hello", 5)};
    cop_data_content out = {0};
    assert_int_equal(npz_member(&npz, "x", &out, NULL), COP_OK);
    assert_int_equal(out.size, 5);
    assert_memory_equal(out.bytes, "hello", 5);
    cop_free(out.bytes);
    refuse_archive(bytes, archive(bytes, "y.npy", "hello", 5),
                   "a.npz has no array \"x\"; it has: y");
}

static void test_damaged_archives_are_refused(void **state) {
    (void)state;
    char bytes[512];
    const size_t size = archive(bytes, "x.npy", "hello", 5), central = 40;
    refuse_archive(bytes, size - 1, "it has no directory");
    refuse_archive(bytes, 3, "it has no directory");
    refuse_archive(bytes, 1, "is not an NPZ file: it is a text file");
    bytes[36]++; /* changes a byte of the body */
    refuse_archive(bytes, size, "the content of x.npy is damaged");
    bytes[36]--;
    cop_store_u32(bytes + central + 42, 1000);
    refuse_archive(bytes, size, "an array lies outside the file");
    cop_store_u32(bytes + central + 42, 0);
    cop_store_u32(bytes + central + 20, 400), cop_store_u32(bytes + central + 24, 400);
    refuse_archive(bytes, size, "an array lies outside the file");
    cop_store_u32(bytes + central + 20, 5), cop_store_u32(bytes + central + 24, 4000000000u);
    refuse_archive(bytes, size, "the sizes of an array contradict each other");
    cop_store_u16(bytes + central + 10, 8); /* deflate expands at most 1032 times */
    refuse_archive(bytes, size, "the sizes of an array contradict each other");
    cop_store_u16(bytes + central + 10, 12);
    refuse_archive(bytes, size, "is compressed with method 12");
    cop_store_u16(bytes + central + 8, 1);
    refuse_archive(bytes, size, "it is encrypted");
    cop_store_u16(bytes + central + 28, 60000);
    refuse_archive(bytes, size, "its directory is damaged");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_become_bytes_or_f32),
        cmocka_unit_test(test_npy_length_must_match_its_shape),
        cmocka_unit_test(test_headers_are_read_strictly),
        cmocka_unit_test(test_values_are_checked),
        cmocka_unit_test(test_other_numbers_are_converted),
        cmocka_unit_test(test_channels_last_are_moved_to_the_front),
        cmocka_unit_test(test_npz_arrays_are_found_by_name),
        cmocka_unit_test(test_damaged_archives_are_refused),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
