/* What the tests of data formats share: a temporary folder for the files of each test program, and
 * checks of what loading a file gives. */
#ifndef TESTS_UNIT_DATA_FILES_H
#define TESTS_UNIT_DATA_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/data/data.h"

static char files_folder[64];

static int files_begin(void **state) {
    (void)state;
    snprintf(files_folder, sizeof files_folder, "/tmp/coppice-data-XXXXXX");
    return mkdtemp(files_folder) ? 0 : -1;
}

static int files_end(void **state) {
    (void)state;
    return cop_folder_remove(files_folder, NULL) ? -1 : 0;
}

/* A path in the folder. The text stays valid for 64 calls. */
static inline const char *file_path(const char *name) {
    static char paths[64][256];
    static int turn;
    char *path = paths[turn++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", files_folder, name);
    return path;
}

static inline const char *file_put(const char *name, const void *bytes, size_t size) {
    const char *path = file_path(name);
    FILE *f = fopen(path, "wb");
    size_t written = f ? fwrite(bytes, 1, size, f) : 0;
    if (f) fclose(f);
    assert_int_equal(written, size);
    return path;
}

static inline const char *file_put_text(const char *name, const char *text) {
    return file_put(name, text, strlen(text));
}

static inline cop_data *data_load(const char *format, const cop_data_input *input) {
    cop_data *data = NULL;
    cop_error error = {0};
    const cop_data_format *f = cop_data_format_find(format);
    assert_non_null(f);
    if (f->load(input, &data, &error)) fail_msg("%s", error.text);
    return data;
}

/* Checks that loading fails with this code, and that the message contains `text`. */
static inline void data_refuse(const char *format, const cop_data_input *input, cop_err code,
                               const char *text) {
    cop_data *data = NULL;
    cop_error error = {0};
    cop_err e = cop_data_format_find(format)->load(input, &data, &error);
    if (!strstr(error.text, text)) fail_msg("\"%s\" has no \"%s\"", error.text, text);
    assert_int_equal(e, code);
    assert_int_equal(error.code, code);
    assert_null(data);
}

/* For k = 1, 2, ... makes the k-th allocation of a load fail: first only this one, then this one
 * and all later ones. Each load must return COP_ERR_NO_MEMORY and no data, until k is larger than
 * the number of allocations; then the load must succeed. */
static inline void data_survives_failed_allocations(const char *format,
                                                    const cop_data_input *input) {
    const cop_data_format *f = cop_data_format_find(format);
    for (uint64_t n = 2; n < 2000; n++) {
        const uint64_t k = n / 2; /* in every second run, all later ones fail, too */
        cop_data *data = NULL;
        cop_error error = {0};
        (n % 2 ? cop_alloc_fail_from : cop_alloc_fail_at)(k);
        cop_err e = f->load(input, &data, &error);
        cop_alloc_fail_at(0);
        if (!e) {
            assert_true(k > 5);
            cop_data_destroy(data);
            return;
        }
        if (e != COP_ERR_NO_MEMORY) fail_msg("allocation %d: %s", (int)k, error.text);
        assert_null(data);
    }
    fail_msg("never succeeds");
}

#endif
