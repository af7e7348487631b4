/* A training and a test part that are each valid but do not match are never accepted as a data set.
 * Code that copies samples respects the size of its buffer. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/data/pack.h"

static const pack_part forms[] = {
    {.type = COP_DATA_U8, .rank = 1, .dims = {4}},
    {.type = COP_DATA_U8, .rank = 1, .dims = {4096}},
    {.type = COP_DATA_F32, .rank = 1, .dims = {4}},
    {.type = COP_DATA_F32, .rank = 1, .dims = {1}}, /* the same size in bytes as the first */
    {.type = COP_DATA_U8, .rank = 3, .dims = {1, 2, 2}},
    {.type = COP_DATA_U8, .rank = 3, .dims = {1, 4, 1}},
    {.type = COP_DATA_U8, .rank = 3, .dims = {4, 1, 1}},
    {.type = COP_DATA_F32, .rank = 3, .dims = {1, 2, 2}},
};
#define FORMS (sizeof forms / sizeof *forms)

static size_t bytes_of(const pack_part *p) {
    size_t bytes = p->type == COP_DATA_F32 ? 4 : 1;
    for (int d = 0; d < p->rank; d++) bytes *= (size_t)p->dims[d];
    return bytes;
}

/* Makes a pack as a peer may send it. Each of its parts matches the header of that part. */
static cop_buffer *make_pack(const pack_part parts[2]) {
    size_t size = 128;
    for (int i = 0; i < 2; i++)
        size += cop_align_up(bytes_of(&parts[i]) * parts[i].count, 64) +
                cop_align_up(parts[i].count * 4, 64);
    cop_buffer *pack = cop_buffer_create(size);
    char *bytes = pack->data;
    memset(bytes, 0, size);
    memcpy(bytes, "COPDATA1\2", 9);
    for (int i = 0; i < 2; i++) {
        char *p = bytes + 16 + 32 * i;
        cop_store_u32(p, parts[i].type);
        cop_store_u32(p + 4, (uint32_t)parts[i].rank);
        for (int d = 0; d < 3; d++) cop_store_u32(p + 8 + 4 * d, (uint32_t)parts[i].dims[d]);
        cop_store_u32(p + 20, parts[i].count);
    }
    return pack;
}

static void check_pair(const pack_part *train, const pack_part *test, bool fits) {
    const pack_part parts[2] = {*train, *test};
    cop_buffer *pack = make_pack(parts);
    cop_data *data = NULL;
    cop_error error = {0};
    assert_int_equal(cop_data_from_pack(pack, "two", &data, &error), fits ? COP_OK : COP_ERR_INPUT);
    cop_buffer_release(pack);
    if (fits) {
        assert_int_equal(data->train.stride, data->test.stride);
        cop_data_destroy(data);
    } else {
        assert_null(data);
        assert_non_null(
            strstr(error.text, train->type == test->type ? "differ in shape" : "differ in"));
    }
    data = NULL;
    assert_int_equal(pack_create("two", 2, parts, &data, &error), fits ? COP_OK : COP_ERR_INPUT);
    cop_data_destroy(data);
}

static void test_parts_of_different_forms_are_refused(void **state) {
    (void)state;
    for (size_t a = 0; a < FORMS; a++)
        for (size_t b = 0; b < FORMS; b++)
            for (uint32_t tests = 0; tests < 3; tests++) {
                pack_part train = forms[a], test = forms[b];
                train.count = 3;
                test.count = tests;
                check_pair(&train, &test, a == b);
            }
}

static void test_refusal_of_a_data_set_names_both_forms(void **state) {
    (void)state;
    pack_part parts[2] = {forms[4], forms[1]};
    cop_data *data = NULL;
    cop_error error = {0};
    parts[0].count = parts[1].count = 1;
    cop_buffer *pack = make_pack(parts);
    assert_int_equal(cop_data_from_pack(pack, "two.pack", &data, &error), COP_ERR_INPUT);
    assert_string_equal(error.text,
                        "the samples of the training part of two.pack and its test part differ in "
                        "shape: u8 (1, 2, 2) and u8 (4096)");
    cop_buffer_release(pack);
}

/* A job's samples have one or three dimensions; no reader makes two. */
static void test_samples_of_two_dimensions_are_refused(void **state) {
    (void)state;
    const pack_part two = {.type = COP_DATA_U8, .rank = 2, .dims = {2, 2}, .count = 2};
    const pack_part parts[2] = {two, two};
    cop_data *data = NULL;
    cop_error error = {0};
    cop_buffer *pack = make_pack(parts);
    assert_int_equal(cop_data_from_pack(pack, "two", &data, &error), COP_ERR_CORRUPT);
    cop_buffer_release(pack);
}

/* ---- copies ---- */

typedef struct copy {
    const cop_data_part *part;
    uint32_t first, count, room_count;
    size_t room_bytes;
} copy;

static bool dies(const copy *c, bool gather) {
    const pid_t child = fork();
    if (!child) {
        char samples[64];
        int32_t labels[8];
        uint32_t rows[8];
        const cop_data_destination room = {samples, c->room_bytes, labels, c->room_count};
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        for (uint32_t i = 0; i < 8; i++) rows[i] = c->first + i;
        if (gather)
            cop_data_gather(c->part, rows, c->count, &room);
        else
            cop_data_copy(c->part, c->first, c->count, &room);
        _exit(0);
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_copies_stay_within_the_buffer_and_the_rows(void **state) {
    (void)state;
    const pack_part form = {.type = COP_DATA_U8, .rank = 1, .dims = {4}, .count = 6};
    const pack_part parts[2] = {form, form};
    cop_data *data;
    assert_int_equal(pack_create("six", 2, parts, &data, NULL), COP_OK);
    const struct {
        copy copy;
        bool dies;
    } cases[] = {
        {{&data->test, 0, 6, 6, 24}, false}, {{&data->test, 2, 4, 4, 16}, false},
        {{&data->test, 0, 6, 5, 24}, true},  {{&data->test, 0, 6, 6, 23}, true},
        {{&data->test, 1, 6, 6, 24}, true},  {{&data->test, 7, 0, 6, 24}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dies(&cases[i].copy, true), cases[i].dies);
        if (cases[i].copy.count) assert_int_equal(dies(&cases[i].copy, false), cases[i].dies);
    }
    cop_data_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_different_forms_are_refused),
        cmocka_unit_test(test_refusal_of_a_data_set_names_both_forms),
        cmocka_unit_test(test_samples_of_two_dimensions_are_refused),
        cmocka_unit_test(test_copies_stay_within_the_buffer_and_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
