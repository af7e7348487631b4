/* Pictures, folders of pictures, and detection of what a path contains. */
#include <png.h>

#include "common/data/image.h"
#include "unit/data/files.h"

/* Writes a PNG with this many rows of 4 pixels; returns its size. */
static size_t make_png(char *out, size_t room, png_uint_32 format, int height, const void *pixels) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = 4, .format = format};
    png_alloc_size_t size = room;
    image.height = (png_uint_32)height;
    if (!png_image_write_to_memory(&image, out, &size, 0, pixels, 0, NULL))
        fail_msg("%s", image.message);
    return size;
}

static void test_grey_and_colour_are_decoded_into_planes(void **state) {
    (void)state;
    char file[4096];
    const uint8_t grey[8] = {0, 1, 2, 3, 250, 251, 252, 253};
    cop_image image;
    cop_error error = {0};
    size_t size = make_png(file, sizeof file, PNG_FORMAT_GRAY, 2, grey);
    assert_int_equal(cop_image_decode("a", file, size, &image, &error), COP_OK);
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.height, 2);
    assert_int_equal(image.width, 4);
    assert_memory_equal(image.pixels, grey, 8);
    cop_free(image.pixels);
    const uint8_t colour[16] = {1, 2, 3, 255, 4, 5, 6, 255, 7, 8, 9, 255, 10, 11, 12, 255};
    const uint8_t planes[12] = {1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12};
    size = make_png(file, sizeof file, PNG_FORMAT_RGBA, 1, colour);
    assert_int_equal(cop_image_decode("a", file, size, &image, &error), COP_OK);
    assert_int_equal(image.channels, 3); /* without alpha */
    assert_memory_equal(image.pixels, planes, 12);
    cop_free(image.pixels);
}

static void test_every_truncated_or_altered_png_is_refused(void **state) {
    (void)state;
    char file[4096], work[4096];
    uint8_t grey[32];
    for (int i = 0; i < 32; i++) grey[i] = (uint8_t)(i * 37);
    const size_t size = make_png(file, sizeof file, PNG_FORMAT_GRAY, 8, grey);
    cop_image image;
    for (size_t n = 0; n < size; n++) {
        cop_error error = {0};
        assert_int_not_equal(cop_image_decode("a.png", file, n, &image, &error), COP_OK);
        assert_non_null(strstr(error.text, "a.png is "));
        assert_null(image.pixels);
        memcpy(work, file, size);
        work[n] ^= 4;
        assert_int_not_equal(cop_image_decode("a.png", work, size, &image, &error), COP_OK);
        assert_null(image.pixels);
    }
}

static void test_non_pictures_are_refused_by_name(void **state) {
    (void)state;
    cop_image image;
    cop_error error = {0};
    assert_int_equal(cop_image_decode("a", "GIF89a", 6, &image, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "a is neither a PNG nor a JPEG file: it is a GIF picture");
    assert_int_equal(cop_image_decode("a", "\xff\xd8\xff\xe0", 4, &image, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "a is a damaged JPEG file: "));
}

/* ---- folders ---- */

static void put_picture(const char *part, const char *class, const char *name, int height,
                        uint8_t first) {
    char path[256], file[4096];
    uint8_t grey[32] = {first};
    snprintf(path, sizeof path, "%s/%s", part, class);
    assert_int_equal(cop_folder_create(file_path(path), NULL), COP_OK);
    snprintf(path, sizeof path, "%s/%s/%s", part, class, name);
    file_put(path, file, make_png(file, sizeof file, PNG_FORMAT_GRAY, height, grey));
}

static void test_classes_and_samples_are_in_byte_order(void **state) {
    (void)state;
    put_picture("set/train", "b", "2.png", 3, 20);
    put_picture("set/train", "b", "10.png", 3, 10);
    put_picture("set/train", "a", "z.png", 3, 30);
    put_picture("set/train", "B", "x", 3, 40);
    put_picture("set/test", "b", "1.png", 3, 50);
    put_picture("set/test", "a", "1.png", 3, 60);
    file_put_text("set/train/LICENSE", "not a class");
    file_put_text("set/train/a/.hidden", "not a picture");
    cop_data_input input = {
        .name = "set", .train.path = file_path("set/train"), .test.path = file_path("set/test")};
    cop_data *data = data_load("image-folder", &input), *again;
    const int32_t labels[4] = {0, 1, 2, 2}, tests[2] = {1, 2};
    const uint8_t first[4] = {40, 30, 10, 20};
    assert_int_equal(data->classes, 3);
    assert_int_equal(data->train.count, 4);
    assert_memory_equal(data->train.labels, labels, sizeof labels);
    assert_memory_equal(data->test.labels, tests, sizeof tests);
    for (int i = 0; i < 4; i++)
        assert_int_equal(((const uint8_t *)data->train.samples)[12 * i], first[i]);
    assert_int_equal(cop_data_open_path(file_path("set"), NULL, &again, NULL), COP_OK);
    assert_memory_equal(data->digest, again->digest, 32);
    cop_data_destroy(data), cop_data_destroy(again);
    data_survives_failed_allocations("image-folder", &input);
}

static void test_unsuitable_pictures_are_refused_by_name(void **state) {
    (void)state;
    const cop_data_input input = {.name = "odd", .train.path = file_path("odd")};
    data_refuse("image-folder", &input, COP_ERR_NOT_FOUND, "odd");
    put_picture("odd", "a", "1.png", 3, 1);
    data_refuse("image-folder", &input, COP_ERR_INPUT,
                "odd has 1 folder: expected one for each class, at least two");
    put_picture("odd", "b", "1.png", 4, 1);
    data_refuse("image-folder", &input, COP_ERR_INPUT,
                "odd/b/1.png has 4 x 4 pixels: expected 4 x 3, as in ");
    file_put_text("odd/b/1.png", "\x89PNG\r\n\x1a\nrubbish");
    data_refuse("image-folder", &input, COP_ERR_CORRUPT, "odd/b/1.png is a damaged PNG file: ");
    assert_int_equal(cop_file_remove(file_path("odd/b/1.png"), NULL), COP_OK);
    data_refuse("image-folder", &input, COP_ERR_INPUT, "odd/b contains no images");
    put_picture("odd", "b", "1.png", 3, 1);
    put_picture("other", "a", "1.png", 3, 1);
    put_picture("other", "c", "1.png", 3, 1);
    cop_data_input both = input;
    both.test.path = file_path("other");
    data_refuse("image-folder", &both, COP_ERR_INPUT, "other has a class \"c\" that ");
}

/* ---- CIFAR, paths, statistics ---- */

/* The names of classes are stored after the pack. So the digest covers only the tensors, but damage
 * of the names is detected, too. */
static void test_class_names_are_stored_after_the_pack(void **state) {
    (void)state;
    put_picture("named", "cat", "1.png", 3, 10);
    put_picture("named", "dog", "1.png", 3, 20);
    const cop_data_input input = {.name = "named", .train.path = file_path("named")};
    cop_data *data = data_load("image-folder", &input), *again = NULL;
    const char *path = file_path("named.pack");
    cop_error error = {0};
    assert_int_equal(cop_data_save_pack(data, path, NULL), COP_OK);
    assert_int_equal(cop_data_load_pack(path, &again, &error), COP_OK);
    assert_memory_equal(again->digest, data->digest, 32);
    assert_int_equal(again->pack->size, data->pack->size);
    assert_string_equal(again->class_names[1], "dog");
    cop_data_destroy(again);
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(cop_file_read(path, 1 << 20, &bytes, &size, NULL), COP_OK);
    for (size_t more = 1; more < 24; more++) { /* the trailer is not complete */
        const cop_file_part part = {bytes, data->pack->size + more};
        assert_int_equal(cop_file_write(path, &part, 1, 0644, NULL), COP_OK);
        assert_int_equal(cop_data_load_pack(path, &again, &error), COP_ERR_CORRUPT);
    }
    for (size_t at = data->pack->size; at < size; at++) {
        bytes[at] ^= 1;
        file_put("bad.pack", bytes, size);
        bytes[at] ^= 1;
        again = NULL;
        assert_int_equal(cop_data_load_pack(file_path("bad.pack"), &again, &error),
                         COP_ERR_CORRUPT);
        assert_null(again);
        file_put("bad.pack", bytes, at + (at == data->pack->size));
        if (at > data->pack->size)
            assert_int_equal(cop_data_load_pack(file_path("bad.pack"), &again, &error),
                             COP_ERR_CORRUPT);
    }
    cop_free(bytes);
    cop_data_destroy(data);
}

static void test_cifar_records_are_checked(void **state) {
    (void)state;
    static char record[2 * 3073] = {7};
    char name[64];
    cop_data *data = NULL;
    cop_error error = {0};
    record[3073] = 9;
    assert_int_equal(cop_folder_create(file_path("c/cifar-10-batches-bin"), NULL), COP_OK);
    for (int i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "c/cifar-10-batches-bin/data_batch_%d.bin", i);
        file_put(name, record, sizeof record);
    }
    assert_int_equal(cop_data_load_cifar10(file_path("c"), &data, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "cifar-10-batches-bin has no test_batch.bin"));
    file_put("c/cifar-10-batches-bin/test_batch.bin", record, 3073);
    assert_int_equal(cop_data_load_cifar10(file_path("c"), &data, &error), COP_OK);
    assert_int_equal(data->train.count, 10);
    assert_int_equal(data->test.count, 1);
    assert_int_equal(data->train.labels[9], 9);
    cop_data_destroy(data);
    record[3073] = 10;
    file_put(name, record, sizeof record);
    assert_int_equal(cop_data_load_cifar10(file_path("c"), &data, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "the label of record 1 is 10: expected 0 to 9"));
    file_put(name, record, sizeof record - 1);
    assert_int_equal(cop_data_load_cifar10(file_path("c"), &data, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "expected records of 3073 bytes"));
}

static void test_paths_without_data_are_refused_by_name(void **state) {
    (void)state;
    cop_data *data = NULL;
    cop_error error = {0};
    assert_int_equal(cop_data_open_path(file_path("none"), NULL, &data, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "there is no file or folder "));
    assert_int_equal(cop_folder_create(file_path("void"), NULL), COP_OK);
    assert_int_equal(cop_data_open_path(file_path("void"), NULL, &data, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "void contains no data set"));
    assert_int_equal(cop_data_open_path(file_put_text("a.bin", "x"), NULL, &data, &error),
                     COP_ERR_NOT_FOUND);
    assert_null(cop_data_format_find("tfrecord"));
}

static void test_statistics_use_only_the_training_rows(void **state) {
    (void)state;
    const cop_data_input input = {
        .name = "csv", .train.path = file_put_text("s.csv", "1,5,0\n3,5,1\n5,5,0\n900,5,1\n")};
    cop_data *data = data_load("csv", &input);
    cop_data_view view;
    double mean[2], std[2];
    assert_int_equal(
        cop_data_view_make(data, &(cop_data_selection){.validation = 1, .split = COP_SPLIT_LAST},
                           &view, NULL),
        COP_OK);
    assert_int_equal(cop_data_channels(data->train.rank, data->train.dims[0]), 2);
    cop_data_statistics(&view, mean, std);
    assert_true(mean[0] == 3 && mean[1] == 5);
    assert_true(std[0] > 1.632993161 && std[0] < 1.632993162);
    assert_true(std[1] == 1); /* the values of this channel are all equal */
    cop_data_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grey_and_colour_are_decoded_into_planes),
        cmocka_unit_test(test_every_truncated_or_altered_png_is_refused),
        cmocka_unit_test(test_non_pictures_are_refused_by_name),
        cmocka_unit_test(test_classes_and_samples_are_in_byte_order),
        cmocka_unit_test(test_unsuitable_pictures_are_refused_by_name),
        cmocka_unit_test(test_class_names_are_stored_after_the_pack),
        cmocka_unit_test(test_cifar_records_are_checked),
        cmocka_unit_test(test_paths_without_data_are_refused_by_name),
        cmocka_unit_test(test_statistics_use_only_the_training_rows),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
