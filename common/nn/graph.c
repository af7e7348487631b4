/* Models as graphs of operators. See graph.h. */
#include "common/nn/graph.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"

/* ---- growing tables ---- */

/* Makes room in a table of `count` elements for one more element of `size` bytes. Returns the
 * table, which may have moved. If memory runs out, sets g->failed and returns NULL. */
static void *grow(cop_graph *g, void *table, int count, int *room, size_t size) {
    if (count < *room) return table;
    const int more = *room ? 2 * *room : 16;
    void *grown = g->failed ? NULL : cop_realloc(table, (size_t)more * size);
    if (grown)
        *room = more;
    else
        g->failed = true;
    return grown;
}

static cop_graph_value *value_add(cop_graph *g, cop_value *number) {
    *number = COP_VALUE_NONE;
    cop_graph_value *table = grow(g, g->values, g->value_count, &g->value_room, sizeof *g->values);
    if (!table) return NULL;
    g->values = table;
    *number = g->value_count;
    cop_graph_value *value = &table[g->value_count++];
    memset(value, 0, sizeof *value);
    snprintf(value->name, sizeof value->name, "value%d", (int)*number);
    return value;
}

/* Adds a value that is a constant, with a copy of the data. */
static cop_value constant(cop_graph *g, cop_graph_type type, const cop_shape *shape,
                          const void *data, size_t size) {
    cop_value number;
    COP_ASSERT(data && size > 0);
    cop_graph_value *value = value_add(g, &number);
    if (!value) return number;
    value->type = type;
    value->rank = shape->rank;
    memcpy(value->dims, shape->dims, sizeof value->dims);
    value->own = cop_alloc(size);
    if (!value->own) {
        g->failed = true;
        return COP_VALUE_NONE;
    }
    memcpy(value->own, data, size);
    value->data = value->own;
    value->size = size;
    return number;
}

/* ---- nodes ---- */

cop_value cop_graph_node_add(cop_graph *g, const char *op, int count, const cop_value *inputs) {
    cop_value number;
    COP_ASSERT(count >= 1 && count <= COP_GRAPH_INPUTS);
    cop_graph_value *output = value_add(g, &number);
    cop_graph_node *table = grow(g, g->nodes, g->node_count, &g->node_room, sizeof *g->nodes);
    if (!output || !table) return COP_VALUE_NONE;
    g->nodes = table;
    cop_graph_node *node = &table[g->node_count++];
    memset(node, 0, sizeof *node);
    node->op = op;
    node->outputs[node->output_count++] = number;
    memcpy(node->inputs, inputs, (size_t)count * sizeof *inputs);
    while (count > 0 && inputs[count - 1] == COP_VALUE_NONE) count--;
    node->input_count = count;
    const int place = ++g->layer_nodes;
    if (g->layer)
        snprintf(node->name, sizeof node->name, "%d.%s/%d.%s", (int)g->layer->index,
                 g->layer->ops->kind, place, op);
    else
        snprintf(node->name, sizeof node->name, "input/%d.%s", place, op);
    memcpy(output->name, node->name, sizeof output->name);
    return number;
}

static cop_graph_node *last_node(cop_graph *g) {
    COP_ASSERT(g->failed || g->node_count > 0);
    return g->failed ? NULL : &g->nodes[g->node_count - 1];
}

cop_value cop_graph_second_output(cop_graph *g, cop_graph_type type) {
    cop_value number;
    cop_graph_value *value = value_add(g, &number);
    cop_graph_node *node = last_node(g);
    if (!value || !node) return COP_VALUE_NONE;
    COP_ASSERT(node->output_count == 1);
    value->type = type;
    snprintf(value->name, sizeof value->name, "%.70s.2", node->name);
    node->outputs[node->output_count++] = number;
    return number;
}

static cop_graph_attribute *attribute_add(cop_graph *g, const char *name) {
    cop_graph_node *node = last_node(g);
    if (!node) return NULL;
    COP_ASSERT(node->attribute_count < COP_GRAPH_ATTRIBUTES);
    cop_graph_attribute *a = &node->attributes[node->attribute_count++];
    a->name = name;
    return a;
}

void cop_graph_int(cop_graph *g, const char *name, int64_t value) {
    cop_graph_attribute *a = attribute_add(g, name);
    if (!a) return;
    a->kind = COP_GRAPH_INT;
    a->ints[0] = value;
    a->count = 1;
}

void cop_graph_ints(cop_graph *g, const char *name, int count, const int64_t *values) {
    cop_graph_attribute *a = attribute_add(g, name);
    if (!a) return;
    COP_ASSERT(count <= (int)(sizeof a->ints / sizeof *a->ints));
    a->kind = COP_GRAPH_INTS;
    memcpy(a->ints, values, (size_t)count * sizeof *values);
    a->count = count;
}

void cop_graph_real(cop_graph *g, const char *name, double value) {
    cop_graph_attribute *a = attribute_add(g, name);
    if (!a) return;
    a->kind = COP_GRAPH_REAL;
    a->real = (float)value;
}

void cop_graph_note(cop_graph *g, const char *note) {
    cop_graph_node *node = last_node(g);
    if (node) node->note = note;
}

/* ---- inputs of nodes ---- */

cop_value cop_graph_parameter(cop_graph *g, int index) {
    cop_value number;
    COP_ASSERT(g->layer && index >= 0);
    if (index >= g->layer->parameter_count) return COP_VALUE_NONE;
    const cop_parameter *p = &g->parameters[index];
    cop_graph_value *value = value_add(g, &number);
    if (!value) return number;
    snprintf(value->name, sizeof value->name, "%s", p->name);
    value->type = COP_GRAPH_F32;
    value->rank = p->rank;
    memcpy(value->dims, p->dims, sizeof value->dims);
    value->data = g->weights + p->offset;
    value->size = (size_t)p->count * sizeof(float);
    return number;
}

cop_value cop_graph_scalar(cop_graph *g, double value) {
    const float rounded = (float)value;
    return constant(g, COP_GRAPH_F32, &(cop_shape){0}, &rounded, sizeof rounded);
}

cop_value cop_graph_vector(cop_graph *g, int count, const int64_t *values) {
    const cop_shape shape = {.rank = 1, .dims = {count}};
    return constant(g, COP_GRAPH_I64, &shape, values, (size_t)count * sizeof *values);
}

cop_value cop_graph_floats(cop_graph *g, const cop_shape *shape, const float *values) {
    const size_t size = (size_t)cop_shape_size(shape) * sizeof *values;
    return constant(g, COP_GRAPH_F32, shape, values, size);
}

cop_value cop_graph_training(cop_graph *g) {
    static const uint8_t off = 0;
    if (g->training != COP_VALUE_NONE) return g->training;
    g->training = constant(g, COP_GRAPH_BOOL, &(cop_shape){0}, &off, sizeof off);
    if (g->training != COP_VALUE_NONE)
        snprintf(g->values[g->training].name, sizeof g->values->name, "training_mode");
    return g->training;
}

cop_value cop_graph_dims(cop_graph *g, cop_value x, const cop_shape *shape, bool shared) {
    int64_t dims[5] = {1};
    COP_ASSERT(shape->rank >= 1 && shape->rank <= 4);
    for (int d = 0; d < shape->rank; d++) dims[d + 1] = shape->dims[d];
    if (shared) return cop_graph_vector(g, shape->rank + 1, dims);
    const cop_value samples = COP_NODE(g, "Shape", x);
    cop_graph_int(g, "start", 0);
    cop_graph_int(g, "end", 1);
    const cop_value rest = cop_graph_vector(g, shape->rank, dims + 1);
    const cop_value all = COP_NODE(g, "Concat", samples, rest);
    cop_graph_int(g, "axis", 0);
    return all;
}

cop_value cop_graph_ones(cop_graph *g, cop_value x, const cop_shape *shape, bool shared) {
    const cop_value dims = cop_graph_dims(g, x, shape, shared);
    const cop_value ones = COP_NODE(g, "ConstantOfShape", dims);
    cop_graph_attribute *a = attribute_add(g, "value");
    if (a) *a = (cop_graph_attribute){.name = "value", .kind = COP_GRAPH_TENSOR, .real = 1.0f};
    return ones;
}

/* ---- the whole graph ---- */

/* Computes (x - mean) / std, as cop_input_normalize does. An image has one mean and deviation per
 * channel. A flat sample has one of each per feature, or one for all features. */
static cop_value standardize(cop_graph *g, const cop_input *input, cop_value x) {
    const bool image = g->sample.rank == 3;
    const cop_shape each = {.rank = image ? 3 : 1, .dims = {input->channels, 1, 1}};
    const cop_value mean = cop_graph_floats(g, &each, input->mean);
    const cop_value std = cop_graph_floats(g, &each, input->std);
    return COP_NODE(g, "Div", COP_NODE(g, "Sub", x, mean), std);
}

static void build(cop_graph *g, const cop_model *model) {
    const cop_input *input = cop_model_input(model);
    cop_graph_value *sample = value_add(g, &g->input);
    if (!sample) return;
    snprintf(sample->name, sizeof sample->name, "input");
    cop_value x = g->input;
    if (input->normalize == COP_NORMALIZE_STANDARD) x = standardize(g, input, x);
    if (g->sample.rank > 1 && cop_model_layer(model, 0)->in.rank == 1) {
        x = COP_NODE(g, "Flatten", x);
        cop_graph_int(g, "axis", 1);
    }
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        g->layer = cop_model_layer(model, i);
        g->layer_nodes = 0;
        if (g->layer->parameter_count)
            g->parameters = cop_model_parameter(model, g->layer->parameter_first);
        x = g->layer->ops->graph(g->layer, g, x);
        COP_ASSERT(g->failed || (x >= 0 && x < g->value_count));
    }
    g->output = x;
    if (!g->failed) snprintf(g->values[x].name, sizeof g->values->name, "logits");
}

cop_err cop_graph_create(const cop_model *model, const cop_shape *sample, const float *weights,
                         cop_graph **out, cop_error *error) {
    COP_ASSERT(cop_shape_size(sample) == cop_model_features(model));
    *out = NULL;
    cop_graph *g = cop_alloc(sizeof *g);
    if (!g) return cop_no_memory(error);
    g->training = COP_VALUE_NONE;
    g->sample = *sample;
    g->weights = weights;
    build(g, model);
    if (g->failed) {
        cop_graph_destroy(g);
        return cop_no_memory(error);
    }
    *out = g;
    return COP_OK;
}

void cop_graph_destroy(cop_graph *g) {
    if (!g) return;
    for (int i = 0; i < g->value_count; i++) cop_free(g->values[i].own);
    cop_free(g->values);
    cop_free(g->nodes);
    cop_free(g);
}
