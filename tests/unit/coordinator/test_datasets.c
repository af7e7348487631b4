/* LABELS: quick threads
 * Data sets of a coordinator: their names, their content, and the sets in memory. Also on a full
 * disk, and after a row of the store or a file was lost.
 * WRAPS: rename unlink */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include <uv.h>

#include "common/base/clock.h"
#include "coordinator/store/loaded.h"
#include "unit/coordinator/datasets.h"

/* The number of the rename or unlink call that fails; 0: none. */
static int fail_at;

static bool is_due(void) {
    const bool due = fail_at > 0 && --fail_at == 0;
    if (due) errno = EACCES;
    return due;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    return is_due() ? -1 : __real_rename(from, to);
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path) {
    return is_due() ? -1 : __real_unlink(path);
}

/* ---- names and content ---- */

static void test_data_set_names_survive_a_reopen(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], b[65];
    if (upload(p, 1, "with spaces", a, &error)) fail_msg("%s", error.text);
    if (upload(p, 2, "b", b, &error)) fail_msg("%s", error.text);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "with spaces b");
    cop_data *data = NULL;
    assert_int_equal(coord_datasets_load(p->sets, "with spaces", &data, &error), COP_OK);
    assert_int_equal(data->train.count, 4);
    cop_data_destroy(data);
}

static void test_removing_a_name_removes_content_only_with_the_last_name(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], again[65];
    if (upload(p, 1, "mine", a, &error)) fail_msg("%s", error.text);
    if (upload(p, 1, "theirs", again, &error)) fail_msg("%s", error.text);
    coord_datasets_use(p->sets, a); /* a job that uses it */
    assert_int_equal(remove_set(p, "mine", &error), COP_OK);
    assert_string_equal(names_of(p), "theirs");
    assert_true(has_pack(p, a));
    assert_int_equal(remove_set(p, "theirs", &error), COP_ERR_IN_USE);
    assert_int_equal(remove_set(p, a, &error), COP_ERR_IN_USE);
    assert_true(has_pack(p, a));
    coord_datasets_release(p->sets, a);
    assert_int_equal(remove_set(p, "theirs", &error), COP_OK);
    assert_string_equal(names_of(p), "");
    assert_false(has_pack(p, a));
    assert_int_equal(remove_set(p, "theirs", &error), COP_ERR_NOT_FOUND);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "");
}

static void test_name_means_its_newest_content(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], b[65], found[65];
    cop_data *data = NULL;
    if (upload(p, 1, "x", a, &error) || upload(p, 2, "x", b, &error) ||
        upload(p, 1, "x", a, &error))
        fail_msg("%s", error.text);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(coord_datasets_load(p->sets, "x", &data, &error), COP_OK);
        cop_hex32(data->digest, found);
        cop_data_destroy(data);
        assert_string_equal(found, a);
        close_place(p);
        open_place(p);
    }
    assert_int_equal(remove_set(p, "x", &error), COP_OK);
    assert_true(!has_pack(p, a) && has_pack(p, b));
}

static void test_failed_removal_on_a_full_disk_can_be_repeated(void **state) {
    place *p = *state;
    cop_error error = {0};
    struct sigaction before;
    char a[65], again[65];
    if (upload(p, 1, "x", a, &error) || upload(p, 1, "y", again, &error))
        fail_msg("%s", error.text);
    fill_disk(&before);
    const cop_err one = remove_set(p, "x", &error), all = remove_set(p, a, &error);
    empty_disk(&before);
    assert_int_not_equal(one, COP_OK);
    assert_int_not_equal(all, COP_OK);
    assert_string_equal(names_of(p), "x y");
    assert_true(has_pack(p, a));
    assert_int_equal(remove_set(p, a, &error), COP_OK);
    assert_string_equal(names_of(p), "");
    assert_false(has_pack(p, a));
}

/* Each system call fails once. Afterwards, also after a restart, either all names and the pack
 * exist or none of them. */
static void test_failed_removal_of_a_file_keeps_all_names(void **state) {
    place *p = *state;
    for (int k = 1; k <= 2; k++) {
        cop_error error = {0};
        char a[65], again[65];
        if (upload(p, 1, "x", a, &error) || upload(p, 1, "y", again, &error))
            fail_msg("%s", error.text);
        fail_at = k;
        const cop_err removed = remove_set(p, a, &error);
        fail_at = 0;
        for (int life = 0; life < 2; life++) {
            assert_string_equal(names_of(p), removed ? "x y" : "");
            assert_true(has_pack(p, a) == (removed != COP_OK));
            close_place(p);
            open_place(p);
        }
    }
}

/* The process ends between any two steps of remove_content. */
static void test_interrupted_removal_is_undone_or_completed_at_the_next_start(void **state) {
    place *p = *state;
    for (int rows_gone = 0; rows_gone < 2; rows_gone++) {
        cop_error error = {0};
        char a[65], pack[256], gone[256];
        if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
        close_place(p);
        snprintf(pack, sizeof pack, "%s/data/%s.pack", p->state, a);
        snprintf(gone, sizeof gone, "%s/data/%s.pack.gone", p->state, a);
        assert_int_equal(rename(pack, gone), 0);
        if (rows_gone) execute(p, "DELETE FROM data_sets");
        open_place(p);
        assert_string_equal(names_of(p), rows_gone ? "" : "x");
        assert_true(has_pack(p, a) == !rows_gone);
        assert_false(cop_file_exists(gone));
    }
}

/* A job's data set has lost its row and its pack. It is uploaded again, and then the job ends. */
static void test_job_may_use_a_data_set_without_a_row(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DELETE FROM data_sets");
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, a);
    assert_int_equal(cop_file_remove(path, &error), COP_OK);
    open_place(p);
    coord_datasets_use(p->sets, a);
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(remove_set(p, "x", &error), COP_ERR_IN_USE);
    coord_datasets_release(p->sets, a);
    assert_int_equal(remove_set(p, "x", &error), COP_OK);
}

static void test_pack_without_a_row_gets_a_name(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], name[40];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DELETE FROM data_sets");
    open_place(p);
    snprintf(name, sizeof name, "recovered-%.12s", a);
    assert_string_equal(names_of(p), name);
    assert_int_equal(remove_set(p, name, &error), COP_OK);
    assert_false(has_pack(p, a));
}

static void test_invalid_data_set_rows_are_skipped(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], sql[1000];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    snprintf(sql, sizeof sql,
             "INSERT INTO data_sets(name, digest, bytes, train, test, classes, rank, dim0, dim1, "
             "dim2) SELECT 'a', 'nonsense', 1, 1, 1, 1, 1, 1, 0, 0 UNION SELECT 'b', '%s', -1, 1, "
             "1, 1, 1, 1, 0, 0 UNION SELECT 'c', '%s', 1, 1, 1, 1, 4, 1, 0, 0 UNION SELECT 'd', "
             "'%s', 1, 1e19, 1, 1, 1, 1, 0, 0 UNION SELECT '', '%s', 1, 1, 1, 1, 1, 1, 0, 0 UNION "
             "SELECT '%s', '%s', 1, 1, 1, 1, 1, 1, 0, 0",
             a, a, a, a, a, a);
    execute(p, sql);
    open_place(p);
    assert_string_equal(names_of(p), "x");
}

/* The index is as an older coordinator with a store of version 3 has written it. */
static void test_text_index_of_older_versions_is_imported_once(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256], text[400];
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    execute(p, "DROP TABLE data_sets; ALTER TABLE meta DROP COLUMN last_evaluation;"
               "UPDATE meta SET version = 3");
    snprintf(path, sizeof path, "%s/data/index", p->state);
    snprintf(text, sizeof text,
             "%s 384 4 4 2 1 2 0 0 old name\n%s 384 4 4 2 1 2 0 0 other\nnonsense\n", a, a);
    assert_int_equal(cop_file_write_text(path, text, &error), COP_OK);
    open_place(p);
    assert_string_equal(names_of(p), "old name other");
    assert_false(cop_file_exists(path));
    assert_int_equal(remove_set(p, "other", &error), COP_OK);
    close_place(p);
    open_place(p);
    assert_string_equal(names_of(p), "old name");
}

static void test_damaged_pack_is_replaced_by_a_new_upload(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65], path[256];
    cop_data *data = NULL;
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    close_place(p);
    snprintf(path, sizeof path, "%s/data/%s.pack", p->state, a);
    assert_int_equal(cop_file_write_text(path, "damaged", &error), COP_OK);
    open_place(p);
    assert_int_equal(coord_datasets_load(p->sets, a, &data, &error), COP_ERR_CORRUPT);
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, a, &data, &error), COP_OK);
    cop_data_destroy(data);
}

/* ---- in memory ---- */

static void test_all_users_of_a_data_set_share_one_copy(void **state) {
    place *p = *state;
    cop_error error = {0};
    char a[65];
    cop_data *x = NULL, *y = NULL;
    if (upload(p, 1, "x", a, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, "x", &x, &error), COP_OK);
    assert_int_equal(coord_datasets_load(p->sets, a, &y, &error), COP_OK);
    assert_ptr_equal(x->pack->data, y->pack->data);
    cop_data_destroy(x);
    cop_data_destroy(y);
    assert_false(coord_datasets_tidy_is_due(p->sets, cop_clock_ns()));
    const uint64_t later = cop_clock_ns() + COORD_LOADED_KEPT_NS;
    assert_true(coord_datasets_tidy_is_due(p->sets, later));
    coord_datasets_tidy(p->sets, later);
    assert_false(coord_datasets_tidy_is_due(p->sets, later));
}

static void test_offered_file_is_read_again_after_a_change(void **state) {
    place *p = *state;
    cop_error error = {0};
    char path[128];
    cop_data *x = NULL, *y = NULL, *z = NULL;
    snprintf(path, sizeof path, "%s/own.csv", p->offered);
    assert_int_equal(cop_file_write_text(path, "1,2,0\n3,4,1\n5,6,0\n", &error), COP_OK);
    if (coord_datasets_load(p->sets, "own.csv", &x, &error)) fail_msg("%s", error.text);
    assert_int_equal(coord_datasets_load(p->sets, "own.csv", &y, &error), COP_OK);
    assert_ptr_equal(x->pack->data, y->pack->data);
    assert_int_equal(cop_file_write_text(path, "1,2,0\n3,4,1\n5,7,0\n", &error), COP_OK);
    assert_int_equal(coord_datasets_load(p->sets, "own.csv", &z, &error), COP_OK);
    assert_memory_not_equal(x->digest, z->digest, 32);
    cop_data_destroy(x);
    cop_data_destroy(y);
    cop_data_destroy(z);
}

typedef struct reading {
    coord_loaded *loaded;
    atomic_int count;
} reading;

static cop_err read_slowly(void *context, cop_data **out, cop_error *error) {
    reading *r = context;
    char bytes[PACK], digest[65];
    make_pack(1, bytes, digest);
    cop_clock_sleep_ms(50);
    if (atomic_fetch_add(&r->count, 1) == 0)
        return cop_fail(error, COP_ERR_IO, "the first one fails");
    cop_buffer *pack = buffer_of(bytes, PACK);
    const cop_err e = cop_data_from_pack(pack, "x", out, error);
    cop_buffer_release(pack);
    return e;
}

static void get_one(void *context) {
    reading *r = context;
    cop_data *data = NULL;
    const coord_loaded_source source = {.key = "x", .stamp = 1, .load = read_slowly, .context = r};
    while (coord_loaded_get(r->loaded, &source, &data, NULL)) continue;
    cop_data_destroy(data);
}

static void test_simultaneous_requests_share_one_reading(void **state) {
    uv_thread_t threads[8];
    reading r = {.loaded = coord_loaded_create()};
    (void)state;
    assert_non_null(r.loaded);
    for (int i = 0; i < 8; i++) assert_int_equal(uv_thread_create(&threads[i], get_one, &r), 0);
    for (int i = 0; i < 8; i++) uv_thread_join(&threads[i]);
    assert_int_equal(atomic_load(&r.count), 2); /* one of them failed */
    coord_loaded_destroy(r.loaded);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SETS_TEST(test_data_set_names_survive_a_reopen),
        SETS_TEST(test_removing_a_name_removes_content_only_with_the_last_name),
        SETS_TEST(test_name_means_its_newest_content),
        SETS_TEST(test_failed_removal_on_a_full_disk_can_be_repeated),
        SETS_TEST(test_failed_removal_of_a_file_keeps_all_names),
        SETS_TEST(test_interrupted_removal_is_undone_or_completed_at_the_next_start),
        SETS_TEST(test_job_may_use_a_data_set_without_a_row),
        SETS_TEST(test_pack_without_a_row_gets_a_name),
        SETS_TEST(test_invalid_data_set_rows_are_skipped),
        SETS_TEST(test_text_index_of_older_versions_is_imported_once),
        SETS_TEST(test_damaged_pack_is_replaced_by_a_new_upload),
        SETS_TEST(test_all_users_of_a_data_set_share_one_copy),
        SETS_TEST(test_offered_file_is_read_again_after_a_change),
        cmocka_unit_test(test_simultaneous_requests_share_one_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
