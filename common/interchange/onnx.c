/* Writes a model as an ONNX file: the graph of common/nn/graph.h in the messages of
 * proto/onnx.proto. All messages live in one arena. They borrow names and values from the graph and
 * the weights, which are copied only when the messages are packed. */
#include <stdio.h>
#include <string.h>

#include "common/interchange/export.h"
#include "common/base/file.h"
#include "common/nn/graph.h"
#include "common/version.h"
#include "common/wire/codec.h"
#include "proto/onnx.pb-c.h"

enum {
    PROPERTIES = 4, /* entries in the model's metadata */
    INPUTS = 2,     /* most inputs of a graph: the sample, and the flag that switches dropout on */
    IR_VERSION = 8,
    ARENA_BYTES = 64 << 20 /* 256 layers of ten nodes take 3 MB */
};
#define FILE_MAX 0x7fffffffu /* bytes: protobuf's own limit */

typedef struct writer {
    Coppice__Onnx__Model *model;
    const cop_graph *graph;
    bool failed;
} writer;

/* Casts const away, because the strings of protobuf-c are not const. Nothing here writes to them.
 */
static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

/* Allocates an array from the arena. If the arena is full, returns NULL and sets w->failed. */
static void *allocate(writer *w, size_t count, size_t size) {
    void *block = w->failed ? NULL : cop_proto_alloc(&w->model->base, count * size + 1);
    if (!block) w->failed = true;
    return block;
}

static void *new_message(writer *w, const ProtobufCMessageDescriptor *type) {
    void *message = allocate(w, 1, type->sizeof_message);
    if (message) protobuf_c_message_init(type, message);
    return message;
}
#define NEW(w, kind) new_message((w), &coppice__onnx__##kind##__descriptor)

/* ---- values ---- */

static Coppice__Onnx__Tensor *new_tensor(writer *w, const cop_graph_value *value) {
    static const Coppice__Onnx__Tensor__DataType types[] = {
        [COP_GRAPH_F32] = COPPICE__ONNX__TENSOR__DATA_TYPE__FLOAT,
        [COP_GRAPH_I64] = COPPICE__ONNX__TENSOR__DATA_TYPE__INT64,
        [COP_GRAPH_BOOL] = COPPICE__ONNX__TENSOR__DATA_TYPE__BOOL};
    Coppice__Onnx__Tensor *t = NEW(w, tensor);
    COP_ASSERT(value->rank >= 0 && value->rank <= 4 && value->type <= COP_GRAPH_BOOL);
    int64_t *dims = allocate(w, (size_t)value->rank, sizeof *dims);
    if (w->failed) return NULL;
    for (int d = 0; d < value->rank; d++) dims[d] = value->dims[d];
    t->dims = dims;
    t->n_dims = (size_t)value->rank;
    t->has_data_type = t->has_raw_data = 1;
    t->data_type = types[value->type];
    t->name = borrow(value->name);
    t->raw_data.data = (uint8_t *)(uintptr_t)value->data;
    t->raw_data.len = value->size;
    return t;
}

/* Describes an input or output of the model. Its shape is (N, shape...); if `shape` is NULL, it is
 * a scalar. */
static Coppice__Onnx__ValueInfo *value_info(writer *w, cop_value number,
                                            Coppice__Onnx__Tensor__DataType type,
                                            const cop_shape *shape) {
    Coppice__Onnx__ValueInfo *v = NEW(w, value_info);
    Coppice__Onnx__Type *t = NEW(w, type);
    Coppice__Onnx__TensorType *tensor_type = NEW(w, tensor_type);
    Coppice__Onnx__Shape *s = NEW(w, shape);
    const size_t rank = shape ? (size_t)shape->rank + 1 : 0;
    COP_ASSERT(number >= 0 && number < w->graph->value_count);
    Coppice__Onnx__Dimension **dims = allocate(w, rank, sizeof *dims);
    for (size_t d = 0; d < rank && !w->failed; d++) {
        dims[d] = NEW(w, dimension);
        if (!dims[d]) break;
        if (d == 0)
            dims[d]->dim_param = borrow("N");
        else
            dims[d]->has_dim_value = 1, dims[d]->dim_value = shape->dims[d - 1];
    }
    if (w->failed) return NULL;
    s->dim = dims;
    s->n_dim = rank;
    tensor_type->has_elem_type = 1;
    tensor_type->elem_type = type;
    tensor_type->shape = s;
    t->tensor_type = tensor_type;
    v->name = borrow(w->graph->values[number].name);
    v->type = t;
    return v;
}

/* ---- nodes ---- */

static Coppice__Onnx__Attribute *new_attribute(writer *w, const cop_graph_attribute *a) {
    static const cop_graph_value one = {.rank = 1, .dims = {1}, .size = sizeof(float)};
    Coppice__Onnx__Attribute *out = NEW(w, attribute);
    if (!out) return NULL;
    out->name = borrow(a->name);
    out->has_type = 1;
    switch (a->kind) {
    case COP_GRAPH_INT:
        out->type = COPPICE__ONNX__ATTRIBUTE__TYPE__INT;
        out->has_i = 1;
        out->i = a->ints[0];
        break;
    case COP_GRAPH_INTS:
        out->type = COPPICE__ONNX__ATTRIBUTE__TYPE__INTS;
        out->ints = (int64_t *)(uintptr_t)a->ints;
        out->n_ints = (size_t)a->count;
        break;
    case COP_GRAPH_REAL:
        out->type = COPPICE__ONNX__ATTRIBUTE__TYPE__FLOAT;
        out->has_f = 1;
        out->f = a->real;
        break;
    case COP_GRAPH_TENSOR:
        out->type = COPPICE__ONNX__ATTRIBUTE__TYPE__TENSOR;
        out->t = new_tensor(w, &one);
        if (out->t) out->t->raw_data.data = (uint8_t *)(uintptr_t)&a->real;
        break;
    }
    return out;
}

static char **value_names(writer *w, const cop_value *values, int count) {
    char **out = allocate(w, (size_t)count, sizeof *out);
    for (int i = 0; i < count; i++)
        COP_ASSERT(values[i] >= COP_VALUE_NONE && values[i] < w->graph->value_count);
    for (int i = 0; out && i < count; i++)
        out[i] = borrow(values[i] == COP_VALUE_NONE ? "" : w->graph->values[values[i]].name);
    return out;
}

static Coppice__Onnx__Node *new_node(writer *w, const cop_graph_node *n) {
    Coppice__Onnx__Node *out = NEW(w, node);
    Coppice__Onnx__Attribute **attributes =
        allocate(w, (size_t)n->attribute_count, sizeof *attributes);
    for (int i = 0; attributes && i < n->attribute_count; i++)
        attributes[i] = new_attribute(w, &n->attributes[i]);
    char **inputs = value_names(w, n->inputs, n->input_count);
    char **outputs = value_names(w, n->outputs, n->output_count);
    if (w->failed) return NULL;
    out->input = inputs;
    out->n_input = (size_t)n->input_count;
    out->output = outputs;
    out->n_output = (size_t)n->output_count;
    out->name = borrow(n->name);
    out->op_type = borrow(n->op);
    out->doc_string = borrow(n->note);
    out->attribute = attributes;
    out->n_attribute = (size_t)n->attribute_count;
    return out;
}

/* ---- the model ---- */

static void fill_initializers(writer *w, Coppice__Onnx__Graph *out) {
    const cop_graph *g = w->graph;
    out->initializer = allocate(w, (size_t)g->value_count, sizeof *out->initializer);
    for (int i = 0; i < g->value_count && !w->failed; i++)
        if (g->values[i].data)
            out->initializer[out->n_initializer++] = new_tensor(w, &g->values[i]);
}

static void fill_nodes(writer *w, Coppice__Onnx__Graph *out) {
    const cop_graph *g = w->graph;
    out->node = allocate(w, (size_t)g->node_count, sizeof *out->node);
    for (int i = 0; i < g->node_count && !w->failed; i++)
        out->node[out->n_node++] = new_node(w, &g->nodes[i]);
}

static void fill_inputs_and_outputs(writer *w, Coppice__Onnx__Graph *out, const cop_export *m) {
    const cop_graph *g = w->graph;
    const cop_layer *last = cop_model_layer(m->model, cop_model_layer_count(m->model) - 1);
    out->input = allocate(w, INPUTS, sizeof *out->input);
    out->output = allocate(w, 1, sizeof *out->output);
    if (w->failed) return;
    out->input[out->n_input++] =
        value_info(w, g->input, COPPICE__ONNX__TENSOR__DATA_TYPE__FLOAT, &g->sample);
    if (!w->failed) out->input[0]->doc_string = borrow(m->input);
    /* The flag has an initializer, so callers may omit this input. Then dropout is off. */
    if (g->training != COP_VALUE_NONE) {
        Coppice__Onnx__ValueInfo *flag =
            value_info(w, g->training, COPPICE__ONNX__TENSOR__DATA_TYPE__BOOL, NULL);
        if (flag) flag->doc_string = borrow("true switches dropout on");
        out->input[out->n_input++] = flag;
    }
    COP_ASSERT(out->n_input <= INPUTS && out->n_output == 0);
    out->output[out->n_output++] =
        value_info(w, g->output, COPPICE__ONNX__TENSOR__DATA_TYPE__FLOAT, &last->out);
    if (!w->failed) out->output[0]->doc_string = borrow("output of the last layer");
}

static void add_property(writer *w, const char *key, const char *value) {
    Coppice__Onnx__Property *p = NEW(w, property);
    if (!p) return;
    p->key = borrow(key);
    p->value = borrow(value);
    COP_ASSERT(w->model->n_metadata_props < PROPERTIES);
    w->model->metadata_props[w->model->n_metadata_props++] = p;
}

static void fill_model(writer *w, const cop_export *m, const char *step) {
    Coppice__Onnx__Model *out = w->model;
    Coppice__Onnx__Graph *graph = NEW(w, graph);
    Coppice__Onnx__OperatorSet *set = NEW(w, operator_set);
    out->opset_import = allocate(w, 1, sizeof *out->opset_import);
    out->metadata_props = allocate(w, PROPERTIES, sizeof *out->metadata_props);
    if (w->failed) return;
    out->has_ir_version = 1;
    out->ir_version = IR_VERSION;
    out->producer_name = borrow("coppice");
    out->producer_version = borrow(COP_VERSION);
    out->graph = graph;
    set->domain = borrow("");
    set->has_version = 1;
    set->version = COP_GRAPH_OPSET;
    out->opset_import[out->n_opset_import++] = set;
    add_property(w, "coppice.name", m->name);
    add_property(w, "coppice.digest", m->digest);
    add_property(w, "coppice.step", step);
    add_property(w, "coppice.job", m->yaml);
    graph->name = borrow(*m->name ? m->name : "model");
    fill_inputs_and_outputs(w, graph, m);
    fill_initializers(w, graph);
    fill_nodes(w, graph);
}

static cop_err write_model(writer *w, const char *path, cop_error *error) {
    if (w->failed) return cop_no_memory(error);
    const size_t size = protobuf_c_message_get_packed_size(&w->model->base);
    if (size > FILE_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "the model is too large for ONNX: it has %zu bytes, the limit is %u "
                        "(--format torch and safetensors have no limit)",
                        size, FILE_MAX);
    cop_buffer *bytes = cop_proto_pack(&w->model->base);
    if (!bytes) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for %zu bytes", size);
    const cop_file_part part = {bytes->data, bytes->size};
    cop_err e = cop_file_write(path, &part, 1, 0644, error);
    cop_buffer_release(bytes);
    return e;
}

cop_err cop_export_onnx(const cop_export *m, const char *path, cop_error *error) {
    cop_graph *graph;
    char step[24];
    COP_TRY(cop_graph_create(m->model, &m->sample, m->weights, &graph, error));
    snprintf(step, sizeof step, "%llu", (unsigned long long)m->step);
    writer w = {.graph = graph};
    w.model =
        (Coppice__Onnx__Model *)cop_proto_create(&coppice__onnx__model__descriptor, ARENA_BYTES);
    if (w.model)
        fill_model(&w, m, step);
    else
        w.failed = true;
    cop_err e = write_model(&w, path, error);
    if (w.model) cop_proto_free(&w.model->base);
    cop_graph_destroy(graph);
    return e;
}
