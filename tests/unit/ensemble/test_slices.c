/* The slices of an ensemble, and its members. The figures must equal those of the definition, which
 * takes each sample separately and the members in order, for any blocks and any order of slices. */
#include <math.h>

#include "common/base/limits.h"
#include "common/ensemble/members.h"
#include "common/ensemble/slices.h"
#include "unit/nn/model_fixture.h"

enum { CLASSES = 3, SAMPLES = 2300, MEMBERS = 7, SLICES = 3, INPUTS = 9 };

static int32_t labels[SAMPLES];
static float *logits; /* [members][classes][samples] */

static int group_setup(void **state) {
    (void)state;
    logits = cop_alloc_array((size_t)MEMBERS * CLASSES * SAMPLES, sizeof *logits);
    fill_random(logits, (size_t)MEMBERS * CLASSES * SAMPLES, 9);
    for (int i = 0; i < SAMPLES; i++) labels[i] = (i * 7) % CLASSES;
    return 0;
}

static int group_teardown(void **state) {
    (void)state;
    cop_free(logits);
    return 0;
}

static uint32_t columns_of(uint32_t slice) {
    const uint32_t left = SAMPLES - slice * COP_EVAL_SLICE;
    return left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE;
}

static cop_ensemble_slices_spec spec_of(cop_average average) {
    return (cop_ensemble_slices_spec){.average = average,
                                      .classes = CLASSES,
                                      .samples = SAMPLES,
                                      .labels = labels,
                                      .counts = {1, 4, MEMBERS},
                                      .count = 3};
}

static cop_ensemble_slices *open_slices(cop_average average) {
    const cop_ensemble_slices_spec spec = spec_of(average);
    cop_ensemble_slices *t = NULL;
    cop_error error = {0};
    if (cop_ensemble_slices_create(&spec, &t, &error)) fail_msg("%s", error.text);
    assert_int_equal(cop_ensemble_slices_count(t), SLICES);
    return t;
}

/* Adds members [first, first + count) of a slice, as a worker sends them. */
static bool add(cop_ensemble_slices *t, uint32_t slice, uint32_t first, uint32_t count) {
    const size_t columns = columns_of(slice);
    float *block = cop_alloc_array(count * CLASSES * columns, sizeof *block);
    for (uint32_t m = 0; m < count; m++)
        for (uint32_t k = 0; k < CLASSES; k++)
            memcpy(block + (m * CLASSES + k) * columns,
                   logits + ((first + m) * CLASSES + k) * (size_t)SAMPLES + slice * COP_EVAL_SLICE,
                   columns * sizeof *block);
    const bool ok = cop_ensemble_slices_add(t, slice, count, block);
    cop_free(block);
    return ok;
}

static cop_ensemble_figures get(const cop_ensemble_slices *t, uint32_t index) {
    cop_ensemble_figures f;
    assert_true(cop_ensemble_slices_get(t, index, &f));
    return f;
}

/* Computes the figures by their definition, with all samples as one batch. */
static cop_ensemble_figures by_definition(cop_average average, uint32_t members) {
    cop_ensemble *e = NULL;
    cop_ensemble_sums sums = {0};
    cop_ensemble_figures f;
    assert_int_equal(cop_ensemble_create(average, CLASSES, SAMPLES, &e, NULL), COP_OK);
    cop_ensemble_begin(e, SAMPLES, labels, 0);
    for (uint32_t m = 0; m < members; m++)
        cop_ensemble_add(e, logits + (size_t)m * CLASSES * SAMPLES, SAMPLES);
    cop_ensemble_score(e, &sums);
    cop_ensemble_get(&sums, &f);
    cop_ensemble_destroy(e);
    return f;
}

static void test_figures_match_the_definition(void **state) {
    (void)state;
    static const uint32_t counts[] = {1, 4, MEMBERS};
    for (cop_average average = COP_AVERAGE_ARITHMETIC; average <= COP_AVERAGE_GEOMETRIC;
         average++) {
        cop_ensemble_slices *t = open_slices(average);
        for (uint32_t s = 0; s < SLICES; s++) assert_true(add(t, s, 0, MEMBERS));
        for (uint32_t i = 0; i < 3; i++) {
            const cop_ensemble_figures a = get(t, i), b = by_definition(average, counts[i]);
            assert_int_equal(a.samples, SAMPLES);
            assert_true(a.wrong.value == b.wrong.value); /* a sum of integers */
            assert_true(fabs(a.nll.value - b.nll.value) < 1e-13);
            assert_true(fabs(a.brier.value - b.brier.value) < 1e-13);
            assert_true(fabs(a.ece.value - b.ece.value) < 1e-13);
            assert_true(fabs(a.ece.error - b.ece.error) < 1e-13);
            assert_true(fabs(a.disagreement.value - b.disagreement.value) < 1e-13);
        }
        cop_ensemble_slices_destroy(t);
    }
}

/* Blocks of any size and slices in any order give the same bits. */
static void test_figures_do_not_depend_on_blocks_and_their_order(void **state) {
    (void)state;
    cop_ensemble_slices *whole = open_slices(COP_AVERAGE_ARITHMETIC),
                        *parts = open_slices(COP_AVERAGE_ARITHMETIC);
    for (uint32_t s = 0; s < SLICES; s++) assert_true(add(whole, s, 0, MEMBERS));
    for (uint32_t m = 0; m < MEMBERS; m++) assert_true(add(parts, 2, m, 1));
    assert_true(add(parts, 0, 0, 3));
    assert_true(add(parts, 1, 0, 5));
    assert_true(add(parts, 0, 3, 4));
    assert_true(add(parts, 1, 5, 2));
    for (uint32_t i = 0; i < 3; i++) {
        const cop_ensemble_figures a = get(whole, i), b = get(parts, i);
        assert_memory_equal(&a, &b, sizeof a);
    }
    cop_ensemble_slices_destroy(whole);
    cop_ensemble_slices_destroy(parts);
}

static void test_other_order_of_members_changes_the_bits(void **state) {
    (void)state;
    cop_ensemble_slices *a = open_slices(COP_AVERAGE_ARITHMETIC),
                        *b = open_slices(COP_AVERAGE_ARITHMETIC);
    for (uint32_t s = 0; s < SLICES; s++) {
        assert_true(add(a, s, 0, MEMBERS));
        for (uint32_t m = MEMBERS; m-- > 0;) assert_true(add(b, s, m, 1));
    }
    const cop_ensemble_figures x = get(a, 2), y = get(b, 2);
    assert_memory_not_equal(&x, &y, sizeof x);
    cop_ensemble_slices_destroy(a);
    cop_ensemble_slices_destroy(b);
}

static void test_figures_are_ready_when_every_slice_has_enough_members(void **state) {
    (void)state;
    cop_ensemble_slices *t = open_slices(COP_AVERAGE_ARITHMETIC);
    cop_ensemble_figures f;
    add(t, 0, 0, MEMBERS);
    add(t, 1, 0, 4);
    assert_false(cop_ensemble_slices_get(t, 0, &f));
    add(t, 2, 0, 3);
    assert_true(cop_ensemble_slices_get(t, 0, &f));
    assert_false(cop_ensemble_slices_get(t, 1, &f));
    add(t, 2, 3, 1);
    assert_true(cop_ensemble_slices_get(t, 1, &f));
    assert_false(cop_ensemble_slices_get(t, 2, &f));
    cop_ensemble_slices_destroy(t);
}

static void test_non_finite_outputs_are_refused(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        cop_ensemble_slices *t = open_slices(COP_AVERAGE_ARITHMETIC);
        float *at = &logits[(size_t)2 * CLASSES * SAMPLES + 2 * SAMPLES + 2150], kept = *at;
        *at = bad[i];
        assert_true(add(t, 2, 0, 2)); /* adds the earlier members, which were missing */
        assert_false(add(t, 2, 2, 1));
        *at = kept;
        assert_true(add(t, 2, 2, 5)); /* nothing was added */
        add(t, 0, 0, MEMBERS);
        add(t, 1, 0, MEMBERS);
        const cop_ensemble_figures f = get(t, 2);
        assert_true(f.wrong.value == by_definition(COP_AVERAGE_ARITHMETIC, MEMBERS).wrong.value);
        cop_ensemble_slices_destroy(t);
    }
}

static void test_slices_beyond_the_limit_are_refused(void **state) {
    (void)state;
    cop_ensemble_slices_spec spec = spec_of(COP_AVERAGE_ARITHMETIC);
    cop_ensemble_slices *t = NULL;
    cop_error error = {0};
    spec.classes = 60000;
    assert_int_equal(cop_ensemble_slices_create(&spec, &t, &error), COP_ERR_LIMIT);
    assert_string_equal(
        error.text,
        "the averages over 2300 samples of 60000 classes need 2632 MB: the limit is 1024 MB");
    assert_null(t);
}

static void test_slices_survive_every_failed_allocation(void **state) {
    (void)state;
    const cop_ensemble_slices_spec spec = spec_of(COP_AVERAGE_GEOMETRIC);
    for (uint64_t k = 1;; k++) {
        cop_ensemble_slices *t = NULL;
        cop_alloc_fail_at(k);
        const cop_err e = cop_ensemble_slices_create(&spec, &t, NULL);
        cop_alloc_fail_at(0);
        cop_ensemble_slices_destroy(t);
        if (!e) {
            assert_true(k > SLICES);
            return;
        }
        assert_int_equal(e, COP_ERR_NO_MEMORY);
    }
}

/* ---- members ---- */

static cop_model *dropout_model(cop_scope scope) {
    const cop_layer_spec layers[] = {spec_linear(12), spec_relu(),
                                     spec_dropout(0.5, scope, COP_VARIANT_INVERTED),
                                     spec_linear(CLASSES)};
    return model_of(layers, 4, INPUTS, CLASSES);
}

static cop_samples samples_from(const float *rows, int first, int count) {
    return (cop_samples){.dtype = COP_DTYPE_F32,
                         .count = count,
                         .features = INPUTS,
                         .stride = INPUTS * sizeof(float),
                         .rows = rows + (size_t)first * INPUTS,
                         .labels = labels + first};
}

/* The outputs of single samples, directly from the pass. */
static void test_member_outputs_match_single_sample_passes(void **state) {
    (void)state;
    enum { COUNT = 133, FIRST = 1000, LD = 140 };
    for (cop_scope scope = COP_SCOPE_SAMPLE; scope <= COP_SCOPE_SHARD; scope++) {
        cop_model *model = dropout_model(scope);
        float *flat = cop_alloc((size_t)cop_model_floats(model) * sizeof *flat),
              rows[COUNT * INPUTS], out[CLASSES * LD];
        cop_members *members = NULL;
        cop_pass *pass = NULL;
        fill_random(rows, COUNT * INPUTS, 4);
        cop_model_init(model, 5, flat);
        assert_int_equal(
            cop_members_create(model, best_kernels(), COP_NUMERICS_PORTABLE, &members, NULL),
            COP_OK);
        assert_int_equal(cop_pass_create(model, best_kernels(), COP_NUMERICS_PORTABLE, 1,
                                         COP_PASS_MEMBERS, &pass, NULL),
                         COP_OK);
        for (uint32_t member = 0; member < 3; member++) {
            const uint32_t which = member < 2 ? member : COP_MEMBER_WHOLE;
            const cop_member_work work = {.weights = flat,
                                          .place = {.seed = 8, .first_sample = FIRST},
                                          .member = which,
                                          .samples = samples_from(rows, 0, COUNT)};
            cop_members_run(members, &work, out, LD);
            for (int i = 0; i < COUNT; i++) {
                const cop_samples one = samples_from(rows, i, 1);
                const cop_eval_place place = {.seed = 8, .first_sample = FIRST + (uint32_t)i};
                int ld;
                const float *z = which == COP_MEMBER_WHOLE
                                     ? cop_pass_logits(pass, flat, &place, &one, &ld)
                                     : cop_pass_member(pass, flat, &place, which, &one, &ld);
                for (int k = 0; k < CLASSES; k++)
                    assert_memory_equal(&out[k * LD + i], &z[k * ld], sizeof *out);
            }
        }
        cop_members_destroy(members);
        cop_pass_destroy(pass);
        cop_free(flat);
        cop_model_destroy(model);
    }
}

static void test_which_models_can_be_members(void **state) {
    (void)state;
    cop_error error = {0};
    const cop_layer_spec plain = spec_linear(CLASSES);
    cop_model *dropped = dropout_model(COP_SCOPE_SHARD), *bare = model_of(&plain, 1, 5, CLASSES);
    assert_int_equal(cop_members_check(dropped, true, &error), COP_OK);
    assert_int_equal(cop_members_check(bare, false, &error), COP_OK);
    assert_int_equal(cop_members_check(bare, true, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "no random layer"));
    cop_model_destroy(dropped);
    cop_model_destroy(bare);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_match_the_definition),
        cmocka_unit_test(test_figures_do_not_depend_on_blocks_and_their_order),
        cmocka_unit_test(test_other_order_of_members_changes_the_bits),
        cmocka_unit_test(test_figures_are_ready_when_every_slice_has_enough_members),
        cmocka_unit_test(test_non_finite_outputs_are_refused),
        cmocka_unit_test(test_slices_beyond_the_limit_are_refused),
        cmocka_unit_test(test_slices_survive_every_failed_allocation),
        cmocka_unit_test(test_member_outputs_match_single_sample_passes),
        cmocka_unit_test(test_which_models_can_be_members),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
