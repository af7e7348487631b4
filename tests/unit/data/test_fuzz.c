/* Runs the fuzz targets of data files on kept inputs, and on inputs that are made of truncated,
 * copied and mixed pieces of valid files, the same in every run. */
#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#include "fuzz/replay.h"
#include "unit/data/files.h"

#define LLVMFuzzerTestOneInput fuzz_csv
#include "fuzz/fuzz_csv.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_npy
#include "fuzz/fuzz_npy.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_png
#include "fuzz/fuzz_png.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_jpeg
#include "fuzz/fuzz_jpeg.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_pack
#include "fuzz/fuzz_pack.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_idx
#include "fuzz/fuzz_idx.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_samples
#include "fuzz/fuzz_samples.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput

#define ROUNDS 3000

static uint64_t next(uint64_t *s) {
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return *s * 2685821657736338717ull >> 8;
}

/* Makes one change: a byte, a number of four bytes, a copied piece, or a removed piece. */
static size_t mutate(uint8_t *bytes, size_t size, const char *words, uint64_t *random) {
    if (size < 8) return size;
    size_t from = next(random) % (size - 4), to = next(random) % size, span = 1 + next(random) % 24;
    if (from + span > size) span = size - from;
    if (to + span > size) to = size - span;
    switch (next(random) % 5) {
    case 0:
        bytes[from] = (uint8_t)next(random);
        return size;
    case 1:
        bytes[from] = (uint8_t)words[next(random) % strlen(words)];
        return size;
    case 2:
        memset(bytes + from, next(random) % 2 ? 0xff : 0, 1 + next(random) % 4);
        return size;
    case 3:
        memmove(bytes + to, bytes + from, span);
        return size;
    default:
        if (span >= size / 2) return size;
        memmove(bytes + from, bytes + from + span, size - from - span);
        return size - span;
    }
}

static void drive(int (*target)(const uint8_t *, size_t), const void *seed, size_t size,
                  const char *words) {
    uint64_t random = size + 1;
    uint8_t *work = cop_alloc(size);
    const uint64_t before = cop_alloc_count();
    target(seed, size);
    assert_true(cop_alloc_count() > before); /* the valid input is processed */
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = size;
        memcpy(work, seed, size);
        for (uint64_t changes = 1 + next(&random) % 3; changes-- > 0;)
            n = mutate(work, n, words, &random);
        target(work, n);
    }
    cop_free(work);
}

static void test_kept_fuzz_inputs_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("csv", fuzz_csv) > 0);
    assert_true(fuzz_replay("npy", fuzz_npy) > 0);
    assert_true(fuzz_replay("png", fuzz_png) > 0);
    assert_true(fuzz_replay("jpeg", fuzz_jpeg) > 0);
    assert_true(fuzz_replay("idx", fuzz_idx) > 0);
    assert_true(fuzz_replay("pack", fuzz_pack) > 0);
    assert_true(fuzz_replay("samples", fuzz_samples) > 0);
}

static void test_mutated_csv_files_never_crash(void **state) {
    (void)state;
    static const char text[] = "\"a\",\"b \"\"c\"\"\",label\r\n1,2.5e3,0\r\n-3,.25,1\n\n 7 ,8,2\n";
    drive(fuzz_csv, text, sizeof text - 1, "\",\n\r0123456789.e+- ax");
    drive(fuzz_samples, text, sizeof text - 1, "\",\n\r0123456789.e+- ax");
}

static const char samples_npy[] = "\x93NUMPY\1\0\x37\0{'descr':'|u1','fortran_order':False,"
                                  "'shape':(4,2)}   \n12345678";
static const char labels_npy[] = "\x93NUMPY\1\0\x37\0{'descr':'|u1','fortran_order':False,"
                                 "'shape':(4,)}    \n\0\1\1\0";

static void test_mutated_npy_files_never_crash(void **state) {
    (void)state;
    const cop_data_input input = {
        .name = "npy",
        .train = {.images = file_put("x.npy", samples_npy, sizeof samples_npy - 1),
                  .labels = file_put("y.npy", labels_npy, sizeof labels_npy - 1)}};
    cop_data_destroy(data_load("npy", &input));
    drive(fuzz_npy, samples_npy, sizeof samples_npy - 1, "0123456789(),'<>|=fiub ");
    drive(fuzz_samples, samples_npy, sizeof samples_npy - 1, "0123456789(),'<>|=fiub ");
}

/* Two uncompressed members, as numpy.savez writes them. */
static void test_mutated_npz_files_never_crash(void **state) {
    (void)state;
    const char *bodies[2] = {samples_npy, labels_npy}, *names[2] = {"images.npy", "labels.npy"};
    const uint32_t sizes[2] = {sizeof samples_npy - 1, sizeof labels_npy - 1};
    char zip[1024] = {0}, directory[256] = {0};
    size_t at = 0, central = 0;
    for (int i = 0; i < 2; i++) {
        char *local = zip + at, *entry = directory + central;
        memcpy(local, "PK\3\4", 4);
        cop_store_u32(local + 14, (uint32_t)crc32_z(0, (const uint8_t *)bodies[i], sizes[i]));
        cop_store_u32(local + 18, sizes[i]);
        cop_store_u32(local + 22, sizes[i]);
        cop_store_u16(local + 26, 10);
        memcpy(entry, "PK\1\2", 4);
        memcpy(entry + 16, local + 14, 14);
        cop_store_u32(entry + 42, (uint32_t)at);
        memcpy(entry + 46, names[i], 10);
        memcpy(local + 30, names[i], 10);
        memcpy(local + 40, bodies[i], sizes[i]);
        at += 40 + sizes[i];
        central += 56;
    }
    memcpy(zip + at, directory, central);
    memcpy(zip + at + central, "PK\5\6", 4);
    cop_store_u32(zip + at + central + 12, (uint32_t)central);
    cop_store_u32(zip + at + central + 16, (uint32_t)at);
    const cop_data_input input = {.name = "npz",
                                  .train.path = file_put("a.npz", zip, at + central + 22)};
    cop_data_destroy(data_load("npy", &input));
    drive(fuzz_npy, zip, at + central + 22, "PK\1\2\3\4\5\6\10\n");
    drive(fuzz_samples, zip, at + central + 22, "PK\1\2\3\4\5\6\10\n");
}

static void test_mutated_pictures_never_crash(void **state) {
    (void)state;
    uint8_t pixels[3 * 12 * 12], *jpeg = NULL;
    char png[4096];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 29 >> 2);
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = 12, .height = 12, .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = sizeof png;
    assert_true(png_image_write_to_memory(&image, png, &size, 0, pixels, 0, NULL));
    drive(fuzz_png, png, size, "IHDRIDATPLTEtRNS\1\2\3\4\10\20");
    drive(fuzz_samples, png, size, "IHDRIDATPLTEtRNS\1\2\3\4\10\20");

    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned long jpeg_size = 0;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &jpeg, &jpeg_size);
    c.image_width = c.image_height = 12;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < 12; y++) jpeg_write_scanlines(&c, (uint8_t *[]){pixels + 36 * y}, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    drive(fuzz_jpeg, jpeg, jpeg_size, "\xff\xd8\xd9\xda\xc0\xc2\xc4\xdb\1\2\3\4");
    drive(fuzz_samples, jpeg, jpeg_size, "\xff\xd8\xd9\xda\xc0\xc2\xc4\xdb\1\2\3\4");
    free(jpeg); /* the library's */
}

static void test_mutated_idx_files_never_crash(void **state) {
    (void)state;
    static const uint8_t plain[] = {0, 0, 8, 2, 0, 0, 0, 4, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t packed[128];
    z_stream z = {0};
    drive(fuzz_idx, plain, sizeof plain, "\1\2\3\4\5\10\40\377");
    drive(fuzz_samples, plain, sizeof plain, "\1\2\3\4\5\10\40\377");
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)plain;
    z.avail_in = sizeof plain;
    z.next_out = packed;
    z.avail_out = sizeof packed;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    drive(fuzz_idx, packed, z.total_out, "\1\2\3\4\5\10\40\377");
    drive(fuzz_samples, packed, z.total_out, "\1\2\3\4\5\10\40\377");
    deflateEnd(&z);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_fuzz_inputs_pass),
        cmocka_unit_test(test_mutated_csv_files_never_crash),
        cmocka_unit_test(test_mutated_npy_files_never_crash),
        cmocka_unit_test(test_mutated_npz_files_never_crash),
        cmocka_unit_test(test_mutated_pictures_never_crash),
        cmocka_unit_test(test_mutated_idx_files_never_crash),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
