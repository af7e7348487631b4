/* The trees of D5 as postfix programs. A program fixes the order in which gradient buffers are
 * added, whatever arrived first: it depends on the leaves alone. The coordinator builds one program
 * per step; the kernels tree_sum and sgd run it. */
#include "common/kernels/kernel.h"
#include "common/kernels/tree_counter.h"

int cop_tree_build(int count, const bool *present, int16_t *ops) {
    COP_ASSERT(count >= 1 && count <= INT16_MAX);
    cop_tree_counter counter = {0};
    int length = 0;
    for (int leaf = 0; leaf < count; leaf++) {
        const bool there = !present || present[leaf];
        if (there) ops[length++] = (int16_t)leaf;
        for (int merges = cop_tree_counter_push(&counter, there); merges > 0; merges--) {
            ops[length++] = -1;
            counter.depth--;
        }
    }
    for (; counter.depth > 1; counter.depth--) ops[length++] = -1;
    COP_ASSERT(length <= 2 * count - 1);
    return length;
}

/* Split point of node [from, to): from plus the largest power of two below its size. */
static int split_of(int from, int to) {
    COP_ASSERT(to - from >= 2);
    return from + (1 << (31 - __builtin_clz((unsigned)(to - from - 1))));
}

typedef struct block_builder {
    const int *first, *size;
    int count, next; /* blocks; the next one to place */
    int length;      /* ops so far */
    int16_t *ops;
} block_builder;

static void build_node(block_builder *builder, int from, int to) {
    COP_ASSERT(builder->next < builder->count);
    COP_ASSERT(builder->first[builder->next] == from); /* ascending, without gaps */
    if (builder->size[builder->next] == to - from) {
        builder->ops[builder->length++] = (int16_t)builder->next++;
        return;
    }
    const int middle = split_of(from, to);
    COP_ASSERT(builder->size[builder->next] <= middle - from); /* otherwise it is no node */
    build_node(builder, from, middle);
    build_node(builder, middle, to);
    builder->ops[builder->length++] = -1;
}

int cop_tree_build_blocks(int leaves, int blocks, const int *first, const int *size, int16_t *ops) {
    COP_ASSERT(leaves >= 1 && blocks >= 1 && blocks <= INT16_MAX);
    block_builder builder = {.first = first, .size = size, .count = blocks, .ops = ops};
    build_node(&builder, 0, leaves);
    COP_ASSERT(builder.next == blocks && builder.length == 2 * blocks - 1);
    return builder.length;
}

bool cop_tree_is_node(int leaves, int first, int size) {
    if (size < 1 || first < 0 || first > leaves - size) return false;
    int from = 0, to = leaves;
    while (from != first || to != first + size) {
        if (to - from < 2) return false;
        const int middle = split_of(from, to);
        if (first >= middle)
            from = middle;
        else if (first + size <= middle)
            to = middle;
        else
            return false;
    }
    return true;
}
