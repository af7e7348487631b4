/* The profile of a pass: it changes no bit, counts each phase of each layer, and its spans nest.
 * LABELS: quick */
#include "common/base/clock.h"
#include "common/nn/profile.h"
#include "unit/nn/model_fixture.h"

enum { FEATURES = 20, CLASSES = 5, COUNT = 43, SHARDS = 8 };
static const int32_t sizes[SHARDS] = {6, 6, 6, 5, 5, 5, 5, 5};

static rig rig_with_dropout(void) {
    const cop_layer_spec layers[] = {
        spec_dropout(0.2, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), spec_linear(33), spec_relu(),
        spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), spec_linear(CLASSES)};
    return rig_open(model_of(layers, 5, FEATURES, CLASSES), best_kernels(), COUNT, 11);
}

static void train(rig *r, uint32_t step, float *gradients, cop_pass_result *result) {
    const cop_shard_work work = {
        .seed = 3, .step = step, .shard_count = SHARDS, .shard_sizes = sizes};
    cop_pass_train(r->pass, r->weights, &work, &r->samples, gradients, result);
}

static cop_lane *lane_of(size_t spans, cop_profile **profile) {
    assert_int_equal(cop_profile_create(spans, profile, NULL), COP_OK);
    cop_lane *lane = cop_profile_lane(*profile, COP_LANE_WORKER, "worker", "compute 1");
    assert_non_null(lane);
    return lane;
}

/* A rig whose pass writes to a lane. */
typedef struct profiled_rig {
    rig rig;
    float *gradients;
    cop_pass_result result;
    cop_profile *profile;
    cop_lane *lane;
} profiled_rig;

static profiled_rig open_profiled(size_t spans) {
    profiled_rig p = {.rig = rig_with_dropout()};
    p.gradients = cop_alloc_array((size_t)cop_model_floats(p.rig.model), sizeof *p.gradients);
    p.lane = lane_of(spans, &p.profile);
    cop_pass_set_lane(p.rig.pass, p.lane);
    return p;
}

static void train_step(profiled_rig *p, uint32_t step) {
    cop_lane_begin_step(p->lane, step, COUNT);
    train(&p->rig, step, p->gradients, &p->result);
    cop_lane_end_step(p->lane, COP_PHASE_IDLE);
}

static void close_profiled(profiled_rig *p) {
    cop_profile_destroy(p->profile);
    cop_free(p->gradients);
    rig_close(&p->rig);
}

static void test_profile_changes_no_bit(void **state) {
    (void)state;
    rig r = rig_with_dropout();
    const size_t floats = (size_t)cop_model_floats(r.model);
    float *plain = cop_alloc_array(floats, sizeof *plain);
    float *profiled = cop_alloc_array(floats, sizeof *profiled);
    cop_pass_result expected, found;
    cop_profile *profile;
    train(&r, 1, plain, &expected);
    cop_pass_set_lane(r.pass, lane_of(100, &profile));
    train(&r, 1, profiled, &found);
    assert_memory_equal(plain, profiled, floats * sizeof *plain);
    assert_memory_equal(&expected, &found, sizeof found);
    cop_pass_set_lane(r.pass, NULL);
    cop_profile_destroy(profile);
    cop_free(plain);
    cop_free(profiled);
    rig_close(&r);
}

static void test_profile_has_each_phase_of_each_layer(void **state) {
    (void)state;
    profiled_rig p = open_profiled(100);
    const cop_lane *lane = p.lane;
    const uint64_t began = cop_clock_ns();
    for (uint32_t step = 1; step <= 3; step++) train_step(&p, step);
    const uint64_t wall = cop_clock_ns() - began;
    uint64_t sum = 0;
    for (int phase = 0; phase < COP_PHASES; phase++)
        for (int i = 0; i <= COP_NO_LAYER; i++) sum += lane->ns[phase][i];
    assert_true(sum > 0 && sum <= wall);
    /* dropout 2, linear and relu 3 times forward; linear 2 times weights; backward: relu, dropout
     * and the second linear layer, because the first one ends the pass */
    assert_int_equal(lane->count[COP_PHASE_MASK], 3 * 2);
    assert_int_equal(lane->count[COP_PHASE_FORWARD], 3 * 3);
    assert_int_equal(lane->count[COP_PHASE_WEIGHTS], 3 * 2);
    assert_int_equal(lane->count[COP_PHASE_BACKWARD], 3 * 3);
    assert_int_equal(lane->count[COP_PHASE_LOSS], 3);
    assert_int_equal(lane->count[COP_PHASE_STEP], 3);
    assert_int_equal(lane->samples, 3 * COUNT);
    assert_int_equal(lane->ns[COP_PHASE_BACKWARD][1], 0);
    assert_true(lane->ns[COP_PHASE_BACKWARD][4] > 0 && lane->ns[COP_PHASE_WEIGHTS][1] > 0);
    close_profiled(&p);
}

static void test_profile_counts_zeros_of_dropout_and_relu(void **state) {
    (void)state;
    profiled_rig p = open_profiled(0);
    const cop_lane *lane = p.lane;
    train_step(&p, 1);
    assert_int_equal(lane->inputs[1].values, FEATURES * COUNT);
    assert_int_equal(lane->inputs[4].values, 33 * COUNT);
    assert_int_equal(lane->gradients[1].values, 33 * COUNT);
    const double first = (double)lane->inputs[1].zeros / (FEATURES * COUNT);
    const double second = (double)lane->inputs[4].zeros / (33 * COUNT);
    assert_true(first > 0.15 && first < 0.25); /* p = 0.2 */
    assert_true(second > 0.6 && second < 0.9); /* p = 0.5, and relu */
    assert_int_equal(lane->inputs[4].zeros, lane->gradients[1].zeros);
    assert_int_equal(lane->inputs[2].values, 0); /* relu multiplies nothing */
    close_profiled(&p);
}

static void test_spans_of_layers_are_within_their_step(void **state) {
    (void)state;
    profiled_rig p = open_profiled(100);
    const cop_lane *lane = p.lane;
    train_step(&p, 7);
    const cop_span *step = &lane->spans[lane->span_count - 1];
    assert_int_equal(step->phase, COP_PHASE_STEP);
    assert_int_equal(lane->spans_lost, 0);
    for (size_t i = 0; i + 1 < lane->span_count; i++) {
        const cop_span *s = &lane->spans[i];
        assert_true(step->begin_ns <= s->begin_ns && s->begin_ns <= s->end_ns);
        assert_true(s->end_ns <= s[1].begin_ns || &s[1] == step);
        assert_true(s->end_ns <= step->end_ns && s->step == 7);
    }
    close_profiled(&p);
}

static void test_lane_counts_spans_that_have_no_room(void **state) {
    (void)state;
    cop_profile *profile;
    cop_lane *lane = lane_of(2, &profile);
    for (int i = 0; i < 5; i++) cop_lane_add(lane, COP_PHASE_UPDATE, 1, 10, 20);
    assert_int_equal(lane->span_count, 2);
    assert_int_equal(lane->spans_lost, 3);
    assert_int_equal(lane->ns[COP_PHASE_UPDATE][COP_NO_LAYER], 50);
    cop_profile_destroy(profile);
}

static void test_discarded_phase_has_no_time(void **state) {
    (void)state;
    cop_profile *profile;
    cop_lane *lane = lane_of(2, &profile);
    cop_lane_enter(lane, COP_PHASE_WAIT, COP_NO_LAYER);
    cop_clock_sleep_ms(1);
    cop_lane_discard(lane);
    cop_lane_enter(lane, COP_PHASE_IDLE, COP_NO_LAYER);
    assert_int_equal(lane->ns[COP_PHASE_WAIT][COP_NO_LAYER], 0);
    assert_int_equal(lane->span_count, 0);
    cop_profile_destroy(profile);
}

static void test_absent_profile_gives_no_lane(void **state) {
    (void)state;
    assert_null(cop_profile_lane(NULL, COP_LANE_WORKER, "worker", "compute 1"));
    cop_lane_enter(NULL, COP_PHASE_WAIT, COP_NO_LAYER);
    cop_lane_begin_step(NULL, 1, 1);
    cop_lane_end_step(NULL, COP_PHASE_WAIT);
    cop_lane_discard(NULL);
    assert_false(cop_lane_counts_zeros(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_changes_no_bit),
        cmocka_unit_test(test_profile_has_each_phase_of_each_layer),
        cmocka_unit_test(test_profile_counts_zeros_of_dropout_and_relu),
        cmocka_unit_test(test_spans_of_layers_are_within_their_step),
        cmocka_unit_test(test_lane_counts_spans_that_have_no_room),
        cmocka_unit_test(test_discarded_phase_has_no_time),
        cmocka_unit_test(test_absent_profile_gives_no_lane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
