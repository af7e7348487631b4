/* Squared error and binary cross-entropy. They are compared with their definitions in long double,
 * also at the limits of the number range, and have the same bits on every instruction set. Also
 * tests passes whose targets are their own inputs. LABELS: quick qemu */
#include <math.h>

#include "common/base/real_f32.h"
#include "common/nn/loss.h"
#include "unit/nn/model_fixture.h"

enum { OUTPUTS = 37, COLUMNS = 21, LD = 32, COUNT = OUTPUTS * LD };

typedef struct tensors {
    float z[COUNT], target[COUNT], dz[COUNT], loss[LD];
    int32_t labels[LD], argmax[LD];
} tensors;

static tensors *tensors_of(uint32_t stream) {
    tensors *t = cop_alloc(sizeof *t);
    fill_random(t->z, COUNT, stream);
    fill_random(t->target, COUNT, stream + 1);
    for (int i = 0; i < COUNT; i++) {
        t->z[i] *= (float)(1 << i % 6); /* up to 32 */
        t->target[i] = (t->target[i] + 1) / 2;
    }
    for (int c = 0; c < COLUMNS; c++) t->labels[c] = c * 5 % OUTPUTS;
    return t;
}

static cop_mean_loss request_of(tensors *t, bool bce, bool labels) {
    return (cop_mean_loss){.bce = bce,
                           .outputs = OUTPUTS,
                           .columns = COLUMNS,
                           .ld = LD,
                           .z = t->z,
                           .labels = labels ? t->labels : NULL,
                           .target = labels ? NULL : t->target,
                           .dz = t->dz,
                           .loss = t->loss,
                           .argmax = labels ? t->argmax : NULL};
}

static long double exact_output(bool bce, long double z, long double t, long double *slope) {
    if (!bce) {
        *slope = 2 * (z - t);
        return (z - t) * (z - t);
    }
    *slope = 1 / (1 + expl(-z)) - t;
    return (z > 0 ? z : 0) - z * t + log1pl(expl(-fabsl(z)));
}

static void check_exact(const cop_kernels *kernels, bool bce, bool labels) {
    tensors *t = tensors_of(labels ? 3 : 5);
    const cop_mean_loss request = request_of(t, bce, labels);
    kernels->mean_loss(&request);
    for (int c = 0; c < COLUMNS; c++) {
        long double sum = 0;
        int largest = 0;
        for (int j = 0; j < OUTPUTS; j++) {
            const int at = j * LD + c;
            const float target = labels ? (float)(t->labels[c] == j) : t->target[at];
            long double slope;
            sum += exact_output(bce, (long double)t->z[at], (long double)target, &slope);
            if (fabsl((long double)t->dz[at] - slope / OUTPUTS) > 1e-6L * fmaxl(0.1L, fabsl(slope)))
                fail_msg("gradient %g, exactly %Lg", (double)t->dz[at], slope / OUTPUTS);
            if (t->z[at] > t->z[largest * LD + c]) largest = j;
        }
        sum /= OUTPUTS;
        if (fabsl((long double)t->loss[c] - sum) > 1e-6L * sum)
            fail_msg("loss %.9g, exactly %.9Lg", (double)t->loss[c], sum);
        if (labels) assert_int_equal(t->argmax[c], largest);
    }
    for (int j = 0; j < OUTPUTS; j++)
        for (int c = COLUMNS; c < LD; c++) assert_true(t->dz[j * LD + c] == 0);
    cop_free(t);
}

static void test_mse_and_bce_match_their_definitions(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) check_exact(best_kernels(), k & 1, k & 2);
}

static void test_every_instruction_set_gives_the_same_bits(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        tensors *expected = tensors_of(9), *found = tensors_of(9);
        const cop_mean_loss first = request_of(expected, k & 1, k & 2);
        best_kernels()->mean_loss(&first);
        for (const char *const *name = cop_kernels_names(); *name; name++) {
            if (!cop_kernels_find(*name)) continue;
            const cop_mean_loss again = request_of(found, k & 1, k & 2);
            cop_kernels_find(*name)->mean_loss(&again);
            if (memcmp(found, expected, sizeof *found) != 0) fail_msg("%s: other bits", *name);
        }
        cop_free(expected), cop_free(found);
    }
}

/* The vector functions equal the scalar ones in base/real_f32.h, for all kinds of floats. */
static void test_bce_uses_the_functions_of_real_f32_h(void **state) {
    (void)state;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        for (uint32_t u = 0; kernels && u < 0xfff00000u; u += 16 * 65521) {
            float z[16], target[16], dz[16], loss[16];
            const cop_mean_loss request = {.bce = true,
                                           .outputs = 1,
                                           .columns = 16,
                                           .ld = 16,
                                           .z = z,
                                           .target = target,
                                           .dz = dz,
                                           .loss = loss};
            for (uint32_t l = 0; l < 16; l++) {
                z[l] = cop_f32_from_bits(u + l * 65521);
                if (!isfinite(z[l])) z[l] = 0;
                target[l] = (float)(l & 3) / 3;
            }
            kernels->mean_loss(&request);
            for (int l = 0; l < 16; l++) {
                const float e = cop_exp_f32(-fabsf(z[l]));
                const float first = fmaf(-z[l], target[l], z[l] > 0 ? z[l] : 0);
                assert_true(loss[l] == first + cop_log1p_unit_f32(e));
                assert_true(dz[l] == (z[l] < 0 ? e : 1.0f) / (1.0f + e) - target[l]);
            }
        }
    }
}

/* Returns the loss of a single output of a single column. */
static float loss_of(bool bce, float z, float target, float *dz) {
    float zs[16] = {z}, targets[16] = {target}, gradient[16], losses[16];
    const cop_mean_loss request = {.bce = bce,
                                   .outputs = 1,
                                   .columns = 1,
                                   .ld = 16,
                                   .z = zs,
                                   .target = targets,
                                   .dz = gradient,
                                   .loss = losses};
    best_kernels()->mean_loss(&request);
    *dz = gradient[0];
    return losses[0];
}

static void test_bce_is_stable_for_large_logits(void **state) {
    (void)state;
    float dz;
    assert_true(loss_of(true, 1e30f, 1, &dz) == 0 && dz == 0);
    assert_true(loss_of(true, -1e30f, 0, &dz) == 0 && dz == 0);
    assert_true(loss_of(true, 1e30f, 0, &dz) == 1e30f && dz == 1);
    assert_true(loss_of(true, -1e30f, 1, &dz) == 1e30f && dz == -1);
    assert_true(fabsf(loss_of(true, 0, 0.5f, &dz) - 0.69314718f) < 1e-7f && dz == 0);
    /* e^-20 is lost in 1 + e^-20, but not in the loss */
    assert_true(fabs((double)loss_of(true, 20, 1, &dz) / 2.0611536e-9 - 1) < 1e-6);
    assert_true(fabs((double)loss_of(true, -20, 0, &dz) / 2.0611536e-9 - 1) < 1e-6);
}

static void test_losses_propagate_nan(void **state) {
    (void)state;
    float dz;
    assert_true(isnan(loss_of(true, NAN, 0, &dz)) && isnan(dz));
    assert_true(isnan(loss_of(false, NAN, 0, &dz)) && isnan(dz));
    assert_true(isinf(loss_of(false, INFINITY, 0, &dz)) && isinf(dz));
}

/* ---- passes ---- */

static cop_model *autoencoder(cop_loss_kind loss) {
    const cop_layer_spec layers[] = {spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                                     spec_linear(7), spec_relu(), spec_linear(20)};
    const cop_model_spec spec = {.layers = layers,
                                 .layer_count = 4,
                                 .input = {.rank = 1, .dims = {20}},
                                 .classes = 3,
                                 .target_input = true,
                                 .loss = loss};
    cop_model *model = NULL;
    cop_error error = {0};
    if (cop_model_create(&spec, &model, &error) != COP_OK) fail_msg("%s", error.text);
    return model;
}

/* If all weights are 0, the outputs are 0. So the loss is the mean square of the inputs before any
 * mask. */
static void test_autoencoder_target_is_the_input_before_any_layer(void **state) {
    (void)state;
    enum { SAMPLES = 30 };
    rig r = rig_open(autoencoder(COP_LOSS_MSE), best_kernels(), SAMPLES, 1);
    memset(r.weights, 0, (size_t)cop_model_floats(r.model) * sizeof *r.weights);
    for (int i = 0; i < SAMPLES; i++) r.labels[i] = 999; /* labels are ignored */
    assert_int_equal(cop_samples_check(&r.samples, r.model, NULL), COP_OK);
    double expected = 0;
    for (int i = 0; i < SAMPLES * 20; i++) expected += (double)r.rows[i] * (double)r.rows[i] / 20;
    const int32_t sizes[] = {SAMPLES};
    const cop_pass_result trained = rig_train(&r, 3, 1, sizes, 0, 1, r.gradients);
    assert_true(fabs(trained.loss - expected) < 1e-5);
    assert_int_equal(trained.correct, 0);
    assert_int_equal(trained.samples, SAMPLES);
    /* Only the last bias changes: by the mean of -2 x / 20 in each output. */
    const cop_parameter *bias = cop_model_parameter(r.model, 3);
    for (int j = 0; j < 20; j++) {
        double sum = 0;
        for (int i = 0; i < SAMPLES; i++) sum += (double)r.rows[i * 20 + j] * -2 / 20;
        assert_true(fabs((double)r.gradients[bias->offset + j] - sum) < 1e-5);
    }
    cop_pass_result evaluated;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &evaluated);
    assert_true(fabs(evaluated.loss - expected) < 1e-5 && evaluated.correct == 0);
    rig_close(&r);
}

static void test_autoencoder_learns(void **state) {
    (void)state;
    rig r = rig_open(autoencoder(COP_LOSS_BCE), best_kernels(), 24, 1);
    for (int i = 0; i < 24 * 20; i++) r.rows[i] = (i / 20 + i % 20) % 3 == 0 ? 1 : 0;
    const cop_optimizer_spec spec = {
        .kind = COP_OPTIMIZER_SGD, .rate = 2, .schedule = {.kind = COP_SCHEDULE_CONSTANT}};
    const int32_t sizes[] = {24};
    cop_pass_result before, after;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &before);
    for (uint32_t step = 1; step <= 300; step++) {
        rig_train(&r, 3, step, sizes, 0, 1, r.gradients);
        rig_update(&r, &spec, step, NULL);
    }
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &after);
    assert_true(after.loss < before.loss / 5);
    rig_close(&r);
}

static void test_labels_are_compared_one_against_all(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(3)};
    const cop_model_spec spec = {.layers = layers,
                                 .layer_count = 1,
                                 .input = {.rank = 1, .dims = {3}},
                                 .classes = 3,
                                 .loss = COP_LOSS_MSE};
    cop_model *model = NULL;
    assert_int_equal(cop_model_create(&spec, &model, NULL), COP_OK);
    assert_true(cop_model_has_classes(model));
    rig r = rig_open(model, best_kernels(), 3, 1);
    memset(r.weights, 0, (size_t)cop_model_floats(model) * sizeof *r.weights);
    for (int i = 0; i < 3; i++) {
        r.weights[i * 3 + i] = 1; /* outputs = inputs */
        r.labels[i] = i;
    }
    const float rows[] = {1, 0, 0, 0, 0.5f, 0, 0.75f, 0, 0};
    memcpy(r.rows, rows, sizeof rows);
    cop_pass_result result;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &result);
    assert_int_equal(result.correct, 2);
    assert_true(fabs(result.loss - (0 + 0.25 + 0.5625 + 1) / 3) < 1e-7);
    rig_close(&r);
}

static void test_losses_have_names_and_requirements(void **state) {
    (void)state;
    cop_error error = {0};
    assert_string_equal(cop_loss_name(COP_LOSS_MSE), "mse");
    assert_string_equal(cop_loss_name(COP_LOSS_BCE), "bce");
    assert_string_equal(cop_loss_name(9), "unknown");
    assert_int_equal(cop_loss_check(COP_LOSS_MSE, 0, true, &error), COP_OK);
    assert_int_equal(cop_loss_check(COP_LOSS_BCE, 0, false, &error), COP_OK);
    assert_int_equal(cop_loss_check(COP_LOSS_BCE, 0.1, false, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "only cross_entropy smooths labels, not bce"));
    assert_int_equal(cop_loss_check(COP_LOSS_CROSS_ENTROPY, 0, true, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "expected mse or bce"));
    assert_int_equal(cop_loss_check(9, 0, false, &error), COP_ERR_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mse_and_bce_match_their_definitions),
        cmocka_unit_test(test_every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(test_bce_uses_the_functions_of_real_f32_h),
        cmocka_unit_test(test_bce_is_stable_for_large_logits),
        cmocka_unit_test(test_losses_propagate_nan),
        cmocka_unit_test(test_autoencoder_target_is_the_input_before_any_layer),
        cmocka_unit_test(test_autoencoder_learns),
        cmocka_unit_test(test_labels_are_compared_one_against_all),
        cmocka_unit_test(test_losses_have_names_and_requirements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
