/* Views: which rows a job trains on, and which it sets aside for validation (D1). The rule is in
 * docs/reference/portable-1.md; tests/parity compares the rows with a second implementation.
 *
 * LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/data/pack.h"

/* A data set of flat samples of one byte each, with these labels. */
static cop_data *make_set(const int32_t *labels, uint32_t count, int32_t classes) {
    const pack_part parts[2] = {{.type = COP_DATA_U8, .rank = 1, .dims = {1}, .count = count},
                                {.type = COP_DATA_U8, .rank = 1, .dims = {1}}};
    cop_data *data;
    assert_int_equal(pack_create("set", classes, parts, &data, NULL), COP_OK);
    for (uint32_t r = 0; r < count; r++) {
        ((unsigned char *)pack_samples(&data->train))[r] = (unsigned char)r;
        pack_labels(&data->train)[r] = labels[r];
    }
    pack_finish(data, classes);
    return data;
}

/* `counts` samples of each class, sorted by class. */
static cop_data *make_sorted(const uint32_t *counts, int32_t classes) {
    int32_t labels[512];
    uint32_t n = 0;
    for (int32_t c = 0; c < classes; c++)
        for (uint32_t i = 0; i < counts[c]; i++) labels[n++] = c;
    return make_set(labels, n, classes);
}

static cop_data_selection stratified(uint32_t validation, uint32_t samples) {
    return (cop_data_selection){validation, samples, COP_SPLIT_STRATIFIED, true};
}

/* Counts the training rows and the validation rows of each class. Checks that no row occurs twice,
 * and that both lists are sorted. */
static void count(const cop_data_view *view, uint32_t *train, uint32_t *validation) {
    bool seen[512] = {false};
    assert_int_equal(cop_data_view_classes(view, train, validation, NULL), COP_OK);
    for (uint32_t i = 0; i < view->train + view->validation; i++) {
        const uint32_t row = cop_data_view_row(view, i);
        assert_false(seen[row]);
        seen[row] = true;
        if (i && i != view->train) assert_true(cop_data_view_row(view, i - 1) < row);
    }
}

static void test_sorted_data_keep_every_class_in_both_parts(void **state) {
    (void)state;
    uint32_t train[3], validation[3];
    cop_data *data = make_sorted((uint32_t[]){8, 8, 8}, 3);
    cop_data_view view;
    const cop_data_selection selection = stratified(8, 0);
    assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
    assert_int_equal(view.train, 16);
    assert_int_equal(view.validation, 8);
    count(&view, train, validation);
    assert_memory_equal(validation, ((uint32_t[]){3, 3, 2}), sizeof validation);
    assert_memory_equal(train, ((uint32_t[]){5, 5, 6}), sizeof train);
    cop_data_view_fini(&view);
    cop_data_destroy(data);
}

static void test_shares_are_proportional_and_leave_a_training_sample(void **state) {
    (void)state;
    static const struct {
        uint32_t counts[4], validation, samples, in_train[4], in_validation[4];
    } cases[] = {
        {{100, 50, 0, 50}, 20, 0, {90, 45, 0, 45}, {10, 5, 0, 5}},
        {{100, 50, 0, 50}, 10, 40, {15, 7, 0, 8}, {5, 3, 0, 2}},
        {{97, 1, 1, 1}, 50, 0, {47, 1, 1, 1}, {50, 0, 0, 0}},
        {{97, 1, 1, 1}, 96, 0, {1, 1, 1, 1}, {96, 0, 0, 0}},
        {{97, 1, 1, 1}, 0, 5, {2, 1, 1, 1}, {0, 0, 0, 0}},
        {{97, 1, 1, 1}, 0, 4, {1, 1, 1, 1}, {0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t train[4], validation[4];
        cop_data *data = make_sorted(cases[i].counts, 4);
        cop_data_view view;
        const cop_data_selection selection = stratified(cases[i].validation, cases[i].samples);
        assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
        count(&view, train, validation);
        assert_memory_equal(train, cases[i].in_train, sizeof train);
        assert_memory_equal(validation, cases[i].in_validation, sizeof validation);
        cop_data_view_fini(&view);
        cop_data_destroy(data);
    }
}

static void test_whole_training_part_keeps_its_order(void **state) {
    (void)state;
    cop_data *data = make_sorted((uint32_t[]){8, 8}, 2);
    cop_data_view view;
    for (uint32_t samples = 0; samples <= 16; samples += 16) {
        const cop_data_selection selection = stratified(0, samples);
        assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
        assert_null(view.rows);
        assert_int_equal(view.train, 16);
        cop_data_view_fini(&view);
    }
    cop_data_destroy(data);
}

static void test_draw_without_labels_ignores_classes(void **state) {
    (void)state;
    uint32_t train[2], validation[2];
    cop_data *data = make_sorted((uint32_t[]){200, 1}, 2);
    cop_data_view view;
    const cop_data_selection selection = {.validation = 200, .split = COP_SPLIT_STRATIFIED};
    assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
    assert_int_equal(view.train, 1);
    cop_data_view_classes(&view, train, validation, NULL);
    assert_int_equal(train[0] + train[1], 1);
    cop_data_view_fini(&view);
    cop_data_destroy(data);
}

static void test_split_last_takes_the_last_rows(void **state) {
    (void)state;
    uint32_t train[3], validation[3];
    cop_data *data = make_sorted((uint32_t[]){8, 8, 8}, 3);
    cop_data_view view;
    cop_error error;
    const cop_data_selection selection = {.validation = 10, .samples = 20, .split = COP_SPLIT_LAST};
    assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
    assert_int_equal(cop_data_view_row(&view, 0), 0);
    assert_int_equal(cop_data_view_row(&view, view.train), 10);
    assert_int_equal(cop_data_view_classes(&view, train, validation, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "class 2 has no training sample"));
    assert_memory_equal(train, ((uint32_t[]){8, 2, 0}), sizeof train);
    cop_data_view_fini(&view);
    cop_data_destroy(data);
}

static void refuse(const cop_data *data, cop_data_selection selection, const char *expected) {
    cop_data_view view;
    cop_error error = {0};
    assert_int_equal(cop_data_view_make(data, &selection, &view, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, expected);
}

static void test_split_without_training_samples_of_a_class_is_refused(void **state) {
    (void)state;
    cop_data *data = make_sorted((uint32_t[]){97, 1, 2}, 3);
    refuse(data, stratified(0, 101), "data.samples is 101: data set set has 100 training samples");
    refuse(data, stratified(100, 0),
           "data.validation is 100: at least one of the 100 samples must be left for training");
    refuse(data, stratified(98, 0),
           "data.validation is 98 of 100 samples: class 1 (1 of the training samples) would have "
           "no training sample; expected at most 97");
    refuse(data, stratified(0, 2),
           "data.samples is 2: the data have 3 classes, so class 1 (1 of the training samples) "
           "would have no training sample; expected at least 3");
    cop_data_destroy(data);
}

static void test_split_depends_only_on_the_data(void **state) {
    (void)state;
    cop_data *data = make_sorted((uint32_t[]){50, 50}, 2), *other;
    cop_data_view a, b, c;
    int32_t labels[100];
    const cop_data_selection selection = stratified(20, 0);
    for (int i = 0; i < 100; i++) labels[i] = i >= 51; /* with other labels, other rows are drawn */
    other = make_set(labels, 100, 2);
    assert_int_equal(cop_data_view_make(data, &selection, &a, NULL), COP_OK);
    assert_int_equal(cop_data_view_make(data, &selection, &b, NULL), COP_OK);
    assert_int_equal(cop_data_view_make(other, &selection, &c, NULL), COP_OK);
    assert_memory_equal(a.rows, b.rows, 100 * sizeof *a.rows);
    assert_memory_not_equal(a.rows, c.rows, 100 * sizeof *a.rows);
    cop_data_view_fini(&a);
    cop_data_view_fini(&b);
    cop_data_view_fini(&c);
    cop_data_destroy(data);
    cop_data_destroy(other);
}

static void test_all_readers_of_rows_use_the_view(void **state) {
    (void)state;
    cop_data *data = make_sorted((uint32_t[]){60, 60}, 2);
    cop_data_view view;
    const cop_data_selection selection = stratified(40, 0);
    uint32_t places[80];
    unsigned char bytes[80];
    int32_t labels[80];
    double sum = 0, mean, std;
    assert_int_equal(cop_data_view_make(data, &selection, &view, NULL), COP_OK);
    for (uint32_t i = 0; i < 80; i++) places[i] = 79 - i;
    const cop_data_destination room = {bytes, sizeof bytes, labels, 80};
    cop_data_view_gather(&view, places, 80, &room);
    for (uint32_t i = 0; i < 80; i++) {
        assert_int_equal(bytes[i], view.rows[79 - i]);
        assert_int_equal(labels[i], view.rows[79 - i] >= 60);
        sum += bytes[i];
    }
    cop_data_statistics(&view, &mean, &std);
    assert_true(mean == sum / 80 / 255);
    cop_data_view_evaluated(&view, false, 5, 35, &room);
    for (uint32_t i = 0; i < 35; i++) assert_int_equal(bytes[i], view.rows[80 + 5 + i]);
    cop_data_view_fini(&view);
    cop_data_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sorted_data_keep_every_class_in_both_parts),
        cmocka_unit_test(test_shares_are_proportional_and_leave_a_training_sample),
        cmocka_unit_test(test_whole_training_part_keeps_its_order),
        cmocka_unit_test(test_draw_without_labels_ignores_classes),
        cmocka_unit_test(test_split_last_takes_the_last_rows),
        cmocka_unit_test(test_split_without_training_samples_of_a_class_is_refused),
        cmocka_unit_test(test_split_depends_only_on_the_data),
        cmocka_unit_test(test_all_readers_of_rows_use_the_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
