/* Shards of a batch, and the summation trees of D5 as postfix programs. See shards.h. A program is
 * the order in which gradients are added. It depends only on the leaves, never on the order in
 * which gradients arrive. */
#include "common/base/shards.h"

#include "common/base/err.h"
#include "common/base/tree_counter.h"

uint32_t cop_shard_begin(uint32_t batch, uint32_t shards, uint32_t shard) {
    COP_ASSERT(shards >= 1 && shard <= shards);
    const uint32_t longer = batch % shards;
    return shard * (batch / shards) + (shard < longer ? shard : longer);
}

void cop_shard_sizes(uint32_t batch, uint32_t shards, int32_t *sizes) {
    COP_ASSERT(shards >= 1);
    for (uint32_t s = 0; s < shards; s++)
        sizes[s] = (int32_t)(batch / shards + (s < batch % shards));
}

uint32_t cop_tree_left(uint32_t size) {
    COP_ASSERT(size >= 2);
    return 1u << (31 - __builtin_clz(size - 1));
}

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

typedef struct block_builder {
    const int *first, *size; /* of each block */
    int count;               /* number of blocks */
    int next;                /* the next block to place */
    int length;              /* number of operations so far */
    int16_t *ops;
} block_builder;

/* Writes the program for the node that covers the leaves from `from` up to but without `to`. */
static void build_node(block_builder *builder, int from, int to) {
    COP_ASSERT(builder->next < builder->count);
    COP_ASSERT(builder->first[builder->next] == from); /* ascending, without gaps */
    if (builder->size[builder->next] == to - from) {
        builder->ops[builder->length++] = (int16_t)builder->next++;
        return;
    }
    const int middle = from + (int)cop_tree_left((uint32_t)(to - from));
    COP_ASSERT(builder->size[builder->next] <= middle - from); /* the block must be a node */
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

bool cop_tree_is_node(uint32_t leaves, uint32_t first, uint32_t size) {
    uint32_t from = 0, to = leaves;
    if (size == 0 || first >= leaves || size > leaves - first) return false;
    while (from != first || to != first + size) {
        if (to - from < 2) return false;
        const uint32_t middle = from + cop_tree_left(to - from);
        if (first >= middle)
            from = middle;
        else if (first + size <= middle)
            to = middle;
        else
            return false;
    }
    return true;
}
