/* Augmentation and normalisation of samples, compared with their written definition.
 *
 * LABELS: quick qemu */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/nn/input.h"

#define CHANNELS 2
#define HEIGHT   5
#define WIDTH    7
#define PIXELS   (CHANNELS * HEIGHT * WIDTH)

static const cop_shape image_shape = {3, {CHANNELS, HEIGHT, WIDTH}};

static int at(const int32_t *image, int c, int y, int x) {
    return y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH ? image[(c * HEIGHT + y) * WIDTH + x] : 0;
}

static void move(const int32_t *in, int right, int down, int32_t *out) {
    for (int c = 0; c < CHANNELS; c++)
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                out[(c * HEIGHT + y) * WIDTH + x] = at(in, c, y - down, x - right);
}

static void mirror(const int32_t *in, int32_t *out) {
    for (int c = 0; c < CHANNELS; c++)
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                out[(c * HEIGHT + y) * WIDTH + x] = at(in, c, y, WIDTH - 1 - x);
}

static int pick(uint32_t word, int most) {
    return (int)(((uint64_t)word * (uint32_t)(2 * most + 1)) >> 32) - most;
}

static void check_one(const cop_input *input, cop_rng_key key, uint32_t sample, uint32_t step) {
    int32_t image[PIXELS], a[PIXELS], b[PIXELS], found[PIXELS];
    uint8_t bytes[PIXELS], found_bytes[PIXELS];
    uint32_t words[4], more[4];
    const uint32_t first[4] = {0, sample, 0, step}, second[4] = {1, sample, 0, step};
    for (int i = 0; i < PIXELS; i++) image[i] = bytes[i] = (uint8_t)(i + 1);
    cop_philox(first, key, words);
    cop_philox(second, key, more);
    move(image, pick(words[0], input->shift), pick(words[1], input->shift), a);
    if (input->flip && (more[0] & 1))
        mirror(a, b);
    else
        memcpy(b, a, sizeof b);
    move(b, pick(words[2], input->crop), pick(words[3], input->crop), a);
    const cop_augment_draw draw = {key, sample, step};
    cop_input_augment(input, &draw, 4, image, found);
    assert_memory_equal(found, a, sizeof a);
    cop_input_augment(input, &draw, 1, bytes, found_bytes);
    for (int i = 0; i < PIXELS; i++) assert_int_equal(found_bytes[i], a[i]);
}

static void test_augmentation_does_shift_then_flip_then_crop(void **state) {
    (void)state;
    const int most[][3] = {{0, 0, 0}, {3, 0, 0}, {0, 0, 4}, {2, 1, 3}, {4, 1, 4}, {0, 1, 0}};
    for (size_t k = 0; k < sizeof most / sizeof *most; k++) {
        const cop_input_spec spec = {
            .shift = most[k][0], .flip = most[k][1] != 0, .crop = most[k][2]};
        cop_input input;
        assert_int_equal(cop_input_create(&spec, &image_shape, &input, NULL), COP_OK);
        assert_int_equal(cop_input_augments(&input), k > 0);
        const cop_rng_key key = cop_rng_derive(9, COP_RNG_AUGMENT, (uint32_t)k);
        for (uint32_t sample = 0; sample < 40; sample++)
            check_one(&input, key, sample, 1 + sample % 3);
        cop_input_destroy(&input);
    }
}

static void test_augmentation_draws_are_uniform(void **state) {
    (void)state;
    const cop_input_spec spec = {.shift = 1};
    cop_input input;
    int seen[3] = {0};
    assert_int_equal(cop_input_create(&spec, &image_shape, &input, NULL), COP_OK);
    const cop_rng_key key = cop_rng_derive(1, COP_RNG_AUGMENT, 0);
    for (uint32_t sample = 0; sample < 3000; sample++) {
        uint8_t row[PIXELS] = {0}, out[PIXELS];
        for (int y = 0; y < HEIGHT; y++) row[y * WIDTH + 3] = 1;
        cop_input_augment(&input, &(cop_augment_draw){key, sample, 1}, 1, row, out);
        for (int x = 2; x <= 4; x++) seen[x - 2] += out[2 * WIDTH + x];
    }
    for (int i = 0; i < 3; i++) assert_in_range(seen[i], 1000 - 130, 1000 + 130); /* 5 sigma */
    assert_int_equal(seen[0] + seen[1] + seen[2], 3000);
}

static void test_standard_uses_mean_and_deviation_of_each_channel(void **state) {
    (void)state;
    const double mean[CHANNELS] = {0.1, 0.7}, std[CHANNELS] = {0.3, 2};
    const cop_input_spec spec = {
        .normalize = COP_NORMALIZE_STANDARD, .mean = mean, .std = std, .channels = CHANNELS};
    cop_input input;
    float x[PIXELS * 16];
    assert_int_equal(cop_input_create(&spec, &image_shape, &input, NULL), COP_OK);
    for (int i = 0; i < PIXELS * 16; i++) x[i] = (float)(i % 256) / 255.0f;
    cop_input_normalize(&input, true, x, 16);
    for (int i = 0; i < PIXELS * 16; i++) {
        const int c = i / (HEIGHT * WIDTH * 16);
        const float expected = ((float)(i % 256) / 255.0f - (float)mean[c]) / (float)std[c];
        assert_true(x[i] == expected);
    }
    cop_input_destroy(&input);
}

static void test_normalize_none_keeps_every_byte(void **state) {
    (void)state;
    const cop_input_spec spec = {.normalize = COP_NORMALIZE_NONE};
    const cop_shape shape = {1, {16}};
    cop_input input;
    float x[256];
    assert_int_equal(cop_input_create(&spec, &shape, &input, NULL), COP_OK);
    for (int i = 0; i < 256; i++) x[i] = (float)i / 255.0f;
    cop_input_normalize(&input, true, x, 16);
    for (int i = 0; i < 256; i++) assert_true(x[i] == (float)i);
    cop_input_normalize(&input, false, x, 16);
    assert_true(x[255] == 255);
}

static void refuse(const cop_input_spec *spec, const cop_shape *shape, const char *text) {
    cop_input input;
    cop_error error = {0};
    assert_int_equal(cop_input_create(spec, shape, &input, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, text);
    assert_null(input.mean);
}

static void test_unsuitable_input_fields_are_refused(void **state) {
    (void)state;
    const cop_shape flat = {1, {6}};
    const double mean[2] = {0, 0}, std[2] = {1, 0};
    refuse(&(cop_input_spec){.flip = true}, &flat,
           "data.augment needs images, but samples are flat, of 6 values");
    refuse(&(cop_input_spec){.shift = 5}, &image_shape,
           "data.augment shifts images completely out of view: expected fewer pixels than their "
           "size, 5 x 7");
    refuse(&(cop_input_spec){.normalize = COP_NORMALIZE_STANDARD, .channels = 3}, &image_shape,
           "data.normalize has statistics of 3 channels, but samples have 2");
    refuse(
        &(cop_input_spec){
            .normalize = COP_NORMALIZE_STANDARD, .channels = 2, .mean = mean, .std = std},
        &image_shape, "data.normalize is standard: the deviation of channel 1 is too small");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_augmentation_does_shift_then_flip_then_crop),
        cmocka_unit_test(test_augmentation_draws_are_uniform),
        cmocka_unit_test(test_standard_uses_mean_and_deviation_of_each_channel),
        cmocka_unit_test(test_normalize_none_keeps_every_byte),
        cmocka_unit_test(test_unsuitable_input_fields_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
