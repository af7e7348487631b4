/* Errors, allocation, buffers, strings, files, hashes. LABELS: quick threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/str.h"

/* ---- errors ---- */

static void test_errors_have_names_texts_and_exit_status(void **state) {
    (void)state;
    assert_string_equal(cop_err_name(COP_ERR_INPUT), "INPUT");
    assert_string_equal(cop_err_text(COP_ERR_TIMEOUT), "timed out");
    assert_int_equal(cop_err_exit_status(COP_OK), 0);
    assert_int_equal(cop_err_exit_status(COP_ERR_USAGE), 2);
    assert_int_equal(cop_err_exit_status(COP_ERR_DIVERGED), 1);
}

static void test_error_sentences(void **state) {
    (void)state;
    cop_error e;
    assert_int_equal(cop_fail(&e, COP_ERR_INPUT, "p is %g", 1.5), COP_ERR_INPUT);
    cop_error_prefix(&e, "job.yaml:%d", 7);
    assert_string_equal(e.text, "job.yaml:7: p is 1.5");
    assert_int_equal(cop_fail_errno(&e, ENOSPC, "cannot write %s", "x"), COP_ERR_NO_SPACE);
    assert_string_equal(e.text, "cannot write x: No space left on device");
    assert_int_equal(cop_fail(NULL, COP_ERR_IO, "nobody listens"), COP_ERR_IO);
}

/* ---- allocation ---- */

static void test_the_kth_allocation_fails_once(void **state) {
    (void)state;
    cop_alloc_fail_at(2);
    void *a = cop_alloc(10), *b = cop_alloc(10), *c = cop_alloc(10);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    cop_alloc_fail_at(0);
    cop_free(a);
    cop_free(c);
    assert_null(cop_alloc_array(SIZE_MAX / 2, 4));
}

static void test_large_blocks_are_aligned_and_zero(void **state) {
    (void)state;
    unsigned char *block = cop_alloc(1000);
    assert_int_equal((uintptr_t)block % 64, 0);
    for (int i = 0; i < 1000; i++) assert_int_equal(block[i], 0);
    cop_free(block);
}

/* ---- buffers ---- */

static int freed;
static void count_free(cop_buffer *b) {
    freed++;
    cop_free(b);
}

static void test_last_release_frees(void **state) {
    (void)state;
    char data[4];
    cop_buffer *b = cop_buffer_wrap(data, 4, NULL, count_free);
    cop_buffer_hold(b);
    cop_buffer_release(b);
    assert_int_equal(freed, 0);
    cop_buffer_release(b);
    assert_int_equal(freed, 1);
}

static void test_pool_recycles_without_allocating(void **state) {
    (void)state;
    cop_buffer_pool *pool = cop_buffer_pool_create(1 << 16);
    cop_buffer *first = cop_buffer_pool_take(pool);
    void *data = first->data;
    cop_buffer_release(first);
    uint64_t before = cop_alloc_count();
    for (int i = 0; i < 100; i++) {
        cop_buffer *again = cop_buffer_pool_take(pool);
        assert_ptr_equal(again->data, data);
        cop_buffer_release(again);
    }
    assert_int_equal(cop_alloc_count(), before);
    cop_buffer *outlives = cop_buffer_pool_take(pool);
    cop_buffer_pool_destroy(pool);
    memset(outlives->data, 1, outlives->size);
    cop_buffer_release(outlives);
}

static void *take_and_release(void *pool) {
    for (int i = 0; i < 2000; i++) {
        cop_buffer *a = cop_buffer_pool_take(pool), *b = cop_buffer_hold(a);
        *(int *)a->data = i;
        cop_buffer_release(a);
        cop_buffer_release(b);
    }
    return NULL;
}

static void test_pool_serves_threads(void **state) {
    (void)state;
    cop_buffer_pool *pool = cop_buffer_pool_create(64);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_release, pool), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    cop_buffer_pool_destroy(pool);
}

/* ---- strings ---- */

static void test_nearest_name(void **state) {
    (void)state;
    const char *const names[] = {"optimizer", "dropout", "train", "relu"};
    assert_string_equal(cop_nearest_name("optimiser", names, 4), "optimizer");
    assert_string_equal(cop_nearest_name("rleu", names, 4), "relu");
    assert_string_equal(cop_nearest_name("DropOut", names, 4), "dropout");
    assert_null(cop_nearest_name("banana", names, 4));
}

static void test_json_escapes(void **state) {
    (void)state;
    cop_str s = {0};
    cop_str_append_json(&s, "a\"b\\c\n\x01\xc3\xa9\xff");
    assert_string_equal(cop_str_text(&s), "\"a\\\"b\\\\c\\n\\u0001\xc3\xa9\xef\xbf\xbd\"");
    cop_str_fini(&s);
}

static void test_utf8(void **state) {
    (void)state;
    assert_true(cop_utf8_valid("gr\xc3\xbc\xc3\x9f", 6));
    static const char *const bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82",
                                      "\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cop_utf8_valid(bad[i], strlen(bad[i])));
    assert_false(cop_utf8_valid("a\0b", 3));
}

static void test_numbers(void **state) {
    (void)state;
    uint64_t u;
    int64_t i;
    double d;
    assert_true(cop_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(cop_parse_u64("0x10", &u) && u == 16);
    static const char *const bad[] = {"",    "-1", " 1", "1 ", "18446744073709551616",
                                      "1.5", "0x", "abc"};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) assert_false(cop_parse_u64(bad[n], &u));
    assert_true(cop_parse_i64("-5", &i) && i == -5);
    assert_true(cop_parse_f64("1.0e-4", &d) && d == 1.0e-4);
    assert_false(cop_parse_f64("inf", &d) || cop_parse_f64("nan", &d) ||
                 cop_parse_f64("0x1p3", &d) || cop_parse_f64("1e999", &d) || cop_parse_f64("", &d));
    assert_true(cop_parse_size("16MiB", &u) && u == 16u << 20);
    assert_true(cop_parse_size("2G", &u) && u == 2ull << 30);
    assert_false(cop_parse_size("2X", &u) || cop_parse_size("99999999999G", &u));
}

/* ---- files ---- */

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/coppice-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return cop_folder_remove(folder, NULL) || cop_folder_exists(folder);
}

static void test_files_are_whole_or_absent(void **state) {
    (void)state;
    char *path = cop_path_join(folder, "file"), *text;
    size_t size;
    cop_file_part parts[2] = {{"hello ", 6}, {"world", 5}};
    assert_int_equal(cop_file_write(path, parts, 2, 0600, NULL), COP_OK);
    assert_int_equal(cop_file_read(path, 100, &text, &size, NULL), COP_OK);
    assert_string_equal(text, "hello world");
    assert_int_equal(size, 11);
    cop_free(text);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    cop_error e;
    assert_int_equal(cop_file_read(path, 10, &text, &size, &e), COP_ERR_LIMIT);
    assert_int_equal(cop_file_read("/nowhere/x", 10, &text, &size, &e), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/x"));
    assert_int_equal(cop_file_write("/nowhere/x", parts, 2, 0600, &e), COP_ERR_NOT_FOUND);
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, 1); /* no temporary is left */
    cop_free(names);
    cop_free(path);
}

static void test_folders(void **state) {
    (void)state;
    char *deep = cop_path_join(folder, "a/b/c"), *file = cop_path_join(folder, "a/b/c/f"),
         *top = cop_path_join(folder, "a");
    assert_int_equal(cop_folder_create(deep, NULL), COP_OK);
    assert_int_equal(cop_folder_create(deep, NULL), COP_OK);
    assert_int_equal(cop_file_write_text(file, "x", NULL), COP_OK);
    cop_error e;
    assert_int_equal(cop_folder_create(file, &e), COP_ERR_EXISTS);
    assert_int_equal(cop_folder_remove(top, NULL), COP_OK);
    assert_false(cop_folder_exists(top));
    assert_int_equal(cop_folder_remove(top, NULL), COP_OK);
    cop_free(deep);
    cop_free(file);
    cop_free(top);
}

/* ---- hashes ---- */

static void test_sha256_known_answer(void **state) {
    (void)state;
    unsigned char out[32], back[32];
    char hex[65];
    cop_sha256 h;
    cop_sha256_init(&h);
    cop_sha256_update(&h, "a", 1);
    cop_sha256_update(&h, "bc", 2);
    cop_sha256_final(&h, out);
    cop_hex32(out, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(cop_unhex32(hex, back));
    assert_memory_equal(out, back, 32);
    assert_false(cop_unhex32("ba78", back));
}

static void test_xxh3_known_answer_and_pairs(void **state) {
    (void)state;
    assert_true(cop_hash_xxh3("", 0) == 0x2d06800538d394c2ull);
    assert_true(cop_hash_xxh3_pair("hello ", 6, "world", 5) == cop_hash_xxh3("hello world", 11));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_have_names_texts_and_exit_status),
        cmocka_unit_test(test_error_sentences),
        cmocka_unit_test(test_the_kth_allocation_fails_once),
        cmocka_unit_test(test_large_blocks_are_aligned_and_zero),
        cmocka_unit_test(test_last_release_frees),
        cmocka_unit_test(test_pool_recycles_without_allocating),
        cmocka_unit_test(test_pool_serves_threads),
        cmocka_unit_test(test_nearest_name),
        cmocka_unit_test(test_json_escapes),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test_setup_teardown(test_files_are_whole_or_absent, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_folders, make_folder, remove_folder),
        cmocka_unit_test(test_sha256_known_answer),
        cmocka_unit_test(test_xxh3_known_answer_and_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
