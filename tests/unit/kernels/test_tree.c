/* The trees of D5 as programs. For every number of leaves up to 70, they are compared with the
 * recursive definition, also with absent leaves and split into aligned blocks. Also tests how the
 * kernels evaluate them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/kernels/kernel.h"

enum { MOST = 70 };

/* Writes a node of D5's tree as a text such as "((0+1)+2)", or "" if no leaf is present. */
static void describe_node(int from, int to, const bool *present, char *out) {
    if (to - from == 1) {
        if (!present || present[from])
            sprintf(out, "%d", from);
        else
            out[0] = '\0';
        return;
    }
    static char buffers[16][2][2048];
    static int depth;
    char *left = buffers[depth][0], *right = buffers[depth][1];
    int half = 1;
    while (half * 2 < to - from) half *= 2;
    depth++;
    describe_node(from, from + half, present, left);
    describe_node(from + half, to, present, right);
    depth--;
    if (*left && *right)
        sprintf(out, "(%s+%s)", left, right);
    else
        strcpy(out, *left ? left : right);
}

/* Writes a postfix program as such a text. `names` has the texts of its inputs; NULL: their
 * numbers. */
static void describe_program(const int16_t *ops, int count, char (*names)[2048], char *out) {
    static char stack[16][2048];
    int depth = 0;
    for (int i = 0; i < count; i++) {
        if (ops[i] >= 0) {
            assert_true(depth < 16);
            if (names)
                strcpy(stack[depth++], names[ops[i]]);
            else
                sprintf(stack[depth++], "%d", ops[i]);
        } else {
            static char sum[4200];
            assert_true(depth >= 2);
            sprintf(sum, "(%s+%s)", stack[depth - 2], stack[depth - 1]);
            assert_true(strlen(sum) < sizeof stack[0]);
            strcpy(stack[--depth - 1], sum);
        }
    }
    assert_true(depth <= 1);
    strcpy(out, depth ? stack[0] : "");
}

static void test_program_matches_the_tree_of_the_definition(void **state) {
    (void)state;
    for (int count = 1; count <= MOST; count++) {
        int16_t ops[2 * MOST];
        static char expected[2048], got[2048];
        const int length = cop_tree_build(count, NULL, ops);
        assert_int_equal(length, 2 * count - 1);
        describe_node(0, count, NULL, expected);
        describe_program(ops, length, NULL, got);
        assert_string_equal(got, expected);
    }
}

static void test_absent_leaves_are_skipped(void **state) {
    (void)state;
    uint32_t random = 3;
    for (int round = 0; round < 400; round++) {
        const int count = round % MOST + 1;
        bool present[MOST];
        int there = 0;
        for (int i = 0; i < count; i++) {
            random = random * 1664525u + 1013904223u;
            present[i] = (int)(random >> 24) % 100 < (round % 5) * 25;
            there += present[i];
        }
        int16_t ops[2 * MOST];
        static char expected[2048], got[2048];
        const int length = cop_tree_build(count, present, ops);
        assert_int_equal(length, there ? 2 * there - 1 : 0);
        describe_node(0, count, present, expected);
        describe_program(ops, length, NULL, got);
        assert_string_equal(got, expected);
    }
}

/* Splits the tree at random into nodes. If the block program combines the texts of these nodes, it
 * must give the text of the whole tree. */
static int cut(int from, int to, uint32_t *random, int *first, int *size, int blocks) {
    *random = *random * 1664525u + 1013904223u;
    if (to - from == 1 || *random >> 30 == 0) {
        first[blocks] = from;
        size[blocks] = to - from;
        return blocks + 1;
    }
    int half = 1;
    while (half * 2 < to - from) half *= 2;
    blocks = cut(from, from + half, random, first, size, blocks);
    return cut(from + half, to, random, first, size, blocks);
}

static void test_blocks_that_are_nodes_give_the_same_tree(void **state) {
    (void)state;
    uint32_t random = 11;
    for (int round = 0; round < 300; round++) {
        const int leaves = round % MOST + 1;
        int first[MOST], size[MOST];
        const int blocks = cut(0, leaves, &random, first, size, 0);
        static char names[MOST][2048], expected[2048], got[2048];
        for (int i = 0; i < blocks; i++) {
            assert_true(cop_tree_is_node(leaves, first[i], size[i]));
            describe_node(first[i], first[i] + size[i], NULL, names[i]);
        }
        int16_t ops[2 * MOST];
        const int length = cop_tree_build_blocks(leaves, blocks, first, size, ops);
        assert_int_equal(length, 2 * blocks - 1);
        describe_node(0, leaves, NULL, expected);
        describe_program(ops, length, names, got);
        assert_string_equal(got, expected);
    }
}

static bool is_node_by_definition(int from, int to, int first, int size) {
    if (from == first && to - from == size) return true;
    if (to - from <= 1) return false;
    int half = 1;
    while (half * 2 < to - from) half *= 2;
    return is_node_by_definition(from, from + half, first, size) ||
           is_node_by_definition(from + half, to, first, size);
}

static void test_is_node_knows_exactly_the_nodes(void **state) {
    (void)state;
    for (int leaves = 1; leaves <= 24; leaves++)
        for (int first = -2; first <= leaves + 1; first++)
            for (int size = -1; size <= leaves + 2; size++)
                assert_int_equal(cop_tree_is_node(leaves, first, size),
                                 size >= 1 && is_node_by_definition(0, leaves, first, size));
}

static void test_tree_sum_runs_the_program_on_every_instruction_set(void **state) {
    (void)state;
    enum { INPUTS = 13, COUNT = 1300 };
    static float values[INPUTS][COUNT], out[COUNT + 1];
    const float *inputs[INPUTS];
    uint32_t random = 5;
    for (int i = 0; i < INPUTS; i++) {
        inputs[i] = values[i];
        for (int j = 0; j < COUNT; j++) {
            random = random * 1664525u + 1013904223u;
            values[i][j] = (float)(int32_t)random * 0x1p-31f;
        }
    }
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        static const int counts[] = {1, 2, 15, 16, 17, 511, 512, 513, COUNT};
        for (size_t c = 0; kernels && c < sizeof counts / sizeof counts[0]; c++) {
            int16_t ops[2 * INPUTS];
            const int leaves = (int)c + 5;
            const cop_tree tree = {
                .count = leaves, .op_count = cop_tree_build(leaves, NULL, ops), .ops = ops};
            out[counts[c]] = 42.0f;
            kernels->tree_sum(inputs, &tree, out, (size_t)counts[c]);
            for (int j = 0; j < counts[c]; j++) {
                float stack[8];
                int depth = 0;
                for (int i = 0; i < tree.op_count; i++) {
                    if (ops[i] >= 0)
                        stack[depth++] = values[ops[i]][j];
                    else
                        depth--, stack[depth - 1] += stack[depth];
                }
                assert_memory_equal(&out[j], &stack[0], 4);
            }
            assert_true(out[counts[c]] == 42.0f);
        }
    }
}

/* With round_nodes each sum is rounded. Inputs that are bf16 give the same as their values in f32.
 */
static void test_tree_sum_rounds_its_nodes(void **state) {
    (void)state;
    enum { INPUTS = 7, COUNT = 1100 };
    static float values[INPUTS][COUNT], out[COUNT], narrow_out[COUNT];
    static uint16_t narrow[INPUTS][COUNT];
    const float *inputs[INPUTS], *narrow_inputs[INPUTS];
    uint32_t random = 8;
    for (int i = 0; i < INPUTS; i++) {
        inputs[i] = values[i];
        narrow_inputs[i] = (const void *)narrow[i];
        for (int j = 0; j < COUNT; j++) {
            random = random * 1664525u + 1013904223u;
            narrow[i][j] = cop_bf16_of((float)(int32_t)random * 0x1p-31f);
            values[i][j] = cop_bf16_float(narrow[i][j]);
        }
    }
    int16_t ops[2 * INPUTS];
    cop_tree tree = {.count = INPUTS,
                     .op_count = cop_tree_build(INPUTS, NULL, ops),
                     .ops = ops,
                     .round_nodes = true};
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        tree.bf16_inputs = false;
        kernels->tree_sum(inputs, &tree, out, COUNT);
        tree.bf16_inputs = true;
        kernels->tree_sum(narrow_inputs, &tree, narrow_out, COUNT);
        assert_memory_equal(narrow_out, out, sizeof out);
        for (int j = 0; j < COUNT; j++) {
            float stack[8];
            int depth = 0;
            for (int i = 0; i < tree.op_count; i++) {
                if (ops[i] >= 0) {
                    stack[depth++] = values[ops[i]][j];
                    continue;
                }
                depth--;
                stack[depth - 1] = cop_bf16_round(stack[depth - 1] + stack[depth]) + 0.0f;
            }
            assert_memory_equal(&out[j], &stack[0], 4);
        }
    }
}

static void test_tree_sum_of_one_input_copies_it(void **state) {
    (void)state;
    const int16_t ops[1] = {0};
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = ops};
    const float in[5] = {1, 2, -0.0f, 4, 5}, *inputs[1] = {in};
    float out[5];
    cop_kernels_find("baseline")->tree_sum(inputs, &tree, out, 5);
    assert_memory_equal(out, in, sizeof out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_matches_the_tree_of_the_definition),
        cmocka_unit_test(test_absent_leaves_are_skipped),
        cmocka_unit_test(test_blocks_that_are_nodes_give_the_same_tree),
        cmocka_unit_test(test_is_node_knows_exactly_the_nodes),
        cmocka_unit_test(test_tree_sum_runs_the_program_on_every_instruction_set),
        cmocka_unit_test(test_tree_sum_rounds_its_nodes),
        cmocka_unit_test(test_tree_sum_of_one_input_copies_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
