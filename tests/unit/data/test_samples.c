/* Samples for a trained model. The same samples give the same values in each format, and unsuitable
 * input is refused. */
#include <math.h>
#include <png.h>
#include <zlib.h>

#include "common/data/samples.h"
#include "unit/data/files.h"

/* Two samples of one channel, 2 x 3 bytes. */
static const uint8_t values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 0, 255};
static const cop_data_form grey = {
    .type = COP_DATA_U8, .rank = 3, .dims = {1, 2, 3}, .classes = 10};
static const cop_data_form colour = {
    .type = COP_DATA_U8, .rank = 3, .dims = {3, 2, 3}, .classes = 10};
static const cop_data_form flat = {.type = COP_DATA_F32, .rank = 1, .dims = {3}, .classes = 4};

static cop_err decode(const cop_data_form *form, const void *bytes, size_t size,
                      cop_data_samples *out, cop_error *error) {
    char *copy = cop_alloc(size + 1);
    memcpy(copy, bytes, size);
    const cop_data_content content = {"x", copy, size};
    const cop_err e = cop_data_samples_decode(&content, form, out, error);
    cop_free(copy);
    return e;
}

static void expect_values(const cop_data_form *form, const void *bytes, size_t size, int samples,
                          const void *wanted, const int32_t *labels) {
    cop_data_samples s;
    cop_error error = {0};
    if (decode(form, bytes, size, &s, &error)) fail_msg("%s", error.text);
    assert_int_equal(s.part.count, samples);
    assert_int_equal(s.part.type, form->type);
    assert_int_equal(s.part.rank, form->rank);
    assert_memory_equal(s.part.dims, form->dims, sizeof form->dims);
    assert_memory_equal(s.part.samples, wanted, (size_t)samples * s.part.stride);
    if (labels) assert_memory_equal(s.part.labels, labels, (size_t)samples * sizeof *labels);
    if (!labels) assert_null(s.part.labels);
    cop_data_samples_fini(&s);
}

static void refuse(const cop_data_form *form, const void *bytes, size_t size, cop_err code,
                   const char *sentence) {
    cop_data_samples s;
    cop_error error = {0};
    assert_int_equal(decode(form, bytes, size, &s, &error), code);
    assert_string_equal(error.text, sentence);
    cop_data_samples_fini(&s);
}

static void refuse_text(const cop_data_form *form, const char *text, const char *sentence) {
    refuse(form, text, strlen(text), COP_ERR_INPUT, sentence);
}

/* Writes an NPY file with these bytes; returns its size. */
static size_t make_npy(char *out, const char *type, const char *shape, const void *data,
                       size_t size) {
    char header[118];
    const int length =
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                 type, shape);
    memset(out, ' ', 128);
    memcpy(out, "\x93NUMPY\1\0\x76\0", 10);
    memcpy(out + 10, header, (size_t)length);
    out[127] = '\n';
    memcpy(out + 128, data, size);
    return 128 + size;
}

static size_t make_png(char *out, size_t room, png_uint_32 format, int width, int height) {
    png_image image = {.version = PNG_IMAGE_VERSION, .format = format};
    png_alloc_size_t size = room;
    image.width = (png_uint_32)width;
    image.height = (png_uint_32)height;
    if (!png_image_write_to_memory(&image, out, &size, 0, values, 0, NULL))
        fail_msg("%s", image.message);
    return size;
}

/* ---- the same samples in each format ---- */

static void test_npy_idx_csv_and_png_give_the_same_samples(void **state) {
    (void)state;
    char file[1024];
    expect_values(&grey, file, make_npy(file, "|u1", "(2, 2, 3)", values, 12), 2, values, NULL);
    expect_values(&grey, file, make_npy(file, "|u1", "(2, 1, 2, 3)", values, 12), 2, values, NULL);
    uint8_t idx[16 + 12] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3};
    memcpy(idx + 16, values, 12);
    expect_values(&grey, idx, sizeof idx, 2, values, NULL);
    uLongf packed = sizeof file;
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = idx, z.avail_in = sizeof idx;
    z.next_out = (uint8_t *)file, z.avail_out = sizeof file;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    packed = z.total_out;
    deflateEnd(&z);
    expect_values(&grey, file, packed, 2, values, NULL);
    const char csv[] = "1,2,3,4,5,6\n7,8,9,250,0,255\n";
    const int32_t labels[2] = {7, 2};
    expect_values(&grey, csv, sizeof csv - 1, 2, values, NULL);
    const char labelled[] = "a,b,c,d,e,f,l\n1,2,3,4,5,6,7\n7,8,9,250,0,255,2\n";
    expect_values(&grey, labelled, sizeof labelled - 1, 2, values, labels);
    expect_values(&grey, file, make_png(file, sizeof file, PNG_FORMAT_GRAY, 3, 2), 1, values, NULL);
}

/* The channels of an array are last if the job says so, or if no other order fits. Both array
 * formats are tested. */
static void test_samples_with_channels_last_are_reordered(void **state) {
    (void)state;
    const cop_data_form thin = {.type = COP_DATA_U8, .rank = 3, .dims = {3, 1, 2}, .classes = 10},
                        square = {.type = COP_DATA_U8,
                                  .rank = 3,
                                  .dims = {2, 2, 2},
                                  .classes = 10,
                                  .order = COP_DATA_CHANNELS_LAST};
    char file[1024];
    uint8_t idx[20 + 8] = {0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3};
    const uint8_t pixels[8] = {1, 2, 3, 4, 5, 6, 7, 8}, planes[6] = {1, 4, 2, 5, 3, 6},
                  four[8] = {1, 3, 5, 7, 2, 4, 6, 8};
    memcpy(idx + 20, pixels, 8);
    expect_values(&thin, file, make_npy(file, "|u1", "(1, 1, 2, 3)", pixels, 6), 1, planes, NULL);
    expect_values(&thin, idx, 26, 1, planes, NULL);
    idx[11] = idx[15] = idx[19] = 2;
    expect_values(&square, file, make_npy(file, "|u1", "(1, 2, 2, 2)", pixels, 8), 1, four, NULL);
    expect_values(&square, idx, 28, 1, four, NULL);
}

static void test_floats_are_kept_in_32_bits(void **state) {
    (void)state;
    char file[1024];
    const double wide[3] = {1, -0.0, 1e-3};
    const float narrow[3] = {1, 0, 1e-3f};
    const int32_t label = 3;
    expect_values(&flat, file, make_npy(file, "<f8", "(1, 3)", wide, sizeof wide), 1, narrow, NULL);
    expect_values(&flat, "1,-0,.001", 9, 1, narrow, NULL);
    cop_data_form named = flat;
    named.label = "kind";
    const char csv[] = "kind,x,y,z\n3,1,0,.001\n";
    expect_values(&named, csv, sizeof csv - 1, 1, narrow, &label);
    named.label = "1"; /* a column by its number */
    expect_values(&named, csv + 11, sizeof csv - 12, 1, narrow, &label);
}

static void test_one_feature_needs_no_label(void **state) {
    (void)state;
    const cop_data_form one = {.type = COP_DATA_F32, .rank = 1, .dims = {1}, .classes = 2};
    const float x[2] = {5, 6};
    expect_values(&one, "5\n6\n", 4, 2, x, NULL);
}

static void test_pictures_of_a_folder_are_in_byte_order(void **state) {
    (void)state;
    char file[1024];
    const size_t size = make_png(file, sizeof file, PNG_FORMAT_GRAY, 3, 2);
    assert_int_equal(cop_folder_create(file_path("in"), NULL), COP_OK);
    file_put("in/b.png", file, size), file_put("in/10", file, size);
    file_put_text("in/.hidden", "x");
    cop_data_samples s;
    cop_error error = {0};
    assert_int_equal(cop_data_samples_read(file_path("in"), &grey, NULL, &s, &error), COP_OK);
    assert_int_equal(s.part.count, 2);
    assert_string_equal(s.names[0], "10");
    assert_string_equal(s.names[1], "b.png");
    assert_memory_equal((const uint8_t *)s.part.samples + 6, values, 6);
    cop_data_samples_fini(&s);
    for (uint64_t k = 1; k < 100; k++) {
        cop_alloc_fail_at(k);
        cop_err e = cop_data_samples_read(file_path("in"), &grey, NULL, &s, &error);
        cop_alloc_fail_at(0);
        cop_data_samples_fini(&s);
        if (!e) {
            assert_true(k > 5);
            break;
        }
        if (e != COP_ERR_NO_MEMORY) fail_msg("allocation %d: %s", (int)k, error.text);
    }
    assert_int_equal(cop_folder_create(file_path("in/z"), NULL), COP_OK);
    assert_int_equal(cop_data_samples_read(file_path("in"), &grey, NULL, &s, &error),
                     COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "in/z is a folder: expected an image"));
    cop_data_samples_fini(&s);
    assert_int_equal(cop_data_samples_read(file_path("in/z"), &grey, NULL, &s, &error),
                     COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "in/z contains no images"));
    cop_data_samples_fini(&s);
}

/* ---- unsuitable input ---- */

static void test_unsuitable_shapes_are_refused_by_name(void **state) {
    (void)state;
    char file[1024];
    refuse(&grey, file, make_npy(file, "|u1", "(2, 6)", values, 12), COP_ERR_INPUT,
           "x has the shape (2, 6): the model takes (n, 2, 3) or (n, 1, 2, 3)");
    refuse(&grey, file, make_npy(file, "|u1", "(2, 3)", values, 6), COP_ERR_INPUT,
           "x has the shape (2, 3): the model takes (n, 2, 3) or (n, 1, 2, 3)");
    refuse(&colour, file, make_npy(file, "|u1", "(2, 2, 3)", values, 12), COP_ERR_INPUT,
           "x has the shape (2, 2, 3): the model takes (n, 3, 2, 3)");
    refuse(&flat, file, make_npy(file, "|u1", "(12,)", values, 12), COP_ERR_INPUT,
           "x has the shape (12,): the model takes (n, 3)");
    refuse(&grey, file, make_npy(file, "|u1", "(0, 2, 3)", values, 0), COP_ERR_INPUT,
           "x is empty: expected at least one sample");
    const uint8_t idx[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4};
    refuse(&grey, idx, sizeof idx, COP_ERR_INPUT,
           "x has the shape (2, 2): the model takes (n, 2, 3) or (n, 1, 2, 3)");
}

static void test_unsuitable_types_are_refused_by_name(void **state) {
    (void)state;
    char file[1024];
    const double wide[3] = {0, 1, 255.5};
    const float infinite[3] = {0, HUGE_VALF, 0};
    const cop_data_form bytes = {.type = COP_DATA_U8, .rank = 1, .dims = {3}, .classes = 4};
    refuse(&bytes, file, make_npy(file, "<f8", "(1, 3)", wide, 24), COP_ERR_INPUT,
           "x: element 2 is 255.5: the model takes bytes, whole numbers from 0 to 255");
    refuse(&bytes, file, make_npy(file, "<i8", "(1, 3)", wide, 24), COP_ERR_INPUT,
           "x: element 1 is 4.60718e+18: the model takes bytes, whole numbers from 0 to 255");
    refuse(&flat, file, make_npy(file, "<f4", "(1, 3)", infinite, 12), COP_ERR_INPUT,
           "x: element 1 is not a finite 32-bit number (sample 0: inf)");
}

static void test_unsuitable_pictures_are_refused_by_name(void **state) {
    (void)state;
    char file[1024];
    size_t size = make_png(file, sizeof file, PNG_FORMAT_GRAY, 2, 2);
    refuse(&grey, file, size, COP_ERR_INPUT,
           "x has 2 x 2 pixels in grey, of 1 channel: the model takes 3 x 2 pixels in grey, of 1 "
           "channel");
    refuse(&flat, file, size, COP_ERR_INPUT,
           "x is an image of 2 x 2 pixels in grey, of 1 channel: the model takes flat samples of 3 "
           "values, not images");
    size = make_png(file, sizeof file, PNG_FORMAT_RGB, 2, 2);
    refuse(&grey, file, size, COP_ERR_INPUT,
           "x has 2 x 2 pixels in colour, of 3 channels: the model takes 3 x 2 pixels in grey, of "
           "1 channel");
    file[size / 2] ^= 1;
    cop_data_samples s;
    cop_error error = {0};
    assert_int_equal(decode(&grey, file, size, &s, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "x is a damaged PNG file: "));
    cop_data_samples_fini(&s);
}

static void test_unsuitable_csv_lines_are_refused_by_name(void **state) {
    (void)state;
    cop_data_form named = flat;
    named.label = "kind";
    refuse_text(&flat, "1,2\n", "x:1: 2 fields: the model takes 3, or 4 with a label");
    refuse_text(&flat, "1,2,3\n4,5\n", "x:2: 2 fields: expected 3, as in the first line");
    refuse_text(&flat, "1,2,3\n4,,6\n", "x:2: column 2 is \"\": expected a number");
    refuse_text(&flat, "a,b,c\n4,5,1e40\n",
                "x:2: column \"c\" is \"1e40\": expected a 32-bit number (magnitude below "
                "3.4e38)");
    refuse_text(&flat, "1,2,3,4\n", "x:1: column 4 is \"4\": expected a label from 0 to 3");
    refuse_text(&flat, "1,2,3,0.5\n", "x:1: column 4 is \"0.5\": expected a label from 0 to 3");
    refuse_text(&flat, "a,b,c\n", "x is an empty data set");
    refuse_text(&flat, "", "x is empty");
    refuse_text(
        &named, "a,b,kind\n1,2,3\n",
        "x:1: apart from the label, column \"kind\", there are 2 columns: the model takes 3");
    refuse_text(&named, "a,b,c,kin\n1,2,3,1\n",
                "x:1: no column is named \"kind\": did you mean \"kin\"?");
    refuse_text(&named, "1,2,3,1\n",
                "x:1: there is no header to show which of the 4 columns is \"kind\", the label: "
                "add a header, or pass only the 3 columns of the samples");
    refuse_text(&grey, "1,2,3,4,5,256\n",
                "x:1: column 6 is \"256\": expected a whole number from 0 to 255");
    refuse_text(&grey, "1,2,3,4,5,.5\n",
                "x:1: column 6 is \".5\": expected a whole number from 0 to 255");
}

static void test_unknown_formats_are_refused_by_name(void **state) {
    (void)state;
    refuse(&grey, "\7\0\1\2", 4, COP_ERR_INPUT,
           "x is a binary file of another format: expected one of PNG, JPEG, NPY, NPZ, IDX, CSV");
    cop_data_samples s;
    cop_error error = {0};
    assert_int_equal(cop_data_samples_read(file_path("none"), &grey, NULL, &s, &error),
                     COP_ERR_NOT_FOUND);
    cop_data_samples_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_npy_idx_csv_and_png_give_the_same_samples),
        cmocka_unit_test(test_samples_with_channels_last_are_reordered),
        cmocka_unit_test(test_floats_are_kept_in_32_bits),
        cmocka_unit_test(test_one_feature_needs_no_label),
        cmocka_unit_test(test_pictures_of_a_folder_are_in_byte_order),
        cmocka_unit_test(test_unsuitable_shapes_are_refused_by_name),
        cmocka_unit_test(test_unsuitable_types_are_refused_by_name),
        cmocka_unit_test(test_unsuitable_pictures_are_refused_by_name),
        cmocka_unit_test(test_unsuitable_csv_lines_are_refused_by_name),
        cmocka_unit_test(test_unknown_formats_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
