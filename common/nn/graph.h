/* A model as a graph of operators, for export. The operators, their attributes and types are those
 * of ONNX, opset 17 (https://onnx.ai/onnx/operators). common/interchange/onnx.c writes the file.
 *
 * Each layer appends its own nodes (cop_layer_ops.graph). A value stands for the sample, a
 * parameter, a constant, or the output of a node. When memory runs out, `failed` is set; from then
 * on all new values are COP_VALUE_NONE and nothing is appended, so the layers need no checks. */
#ifndef COP_NN_GRAPH_H
#define COP_NN_GRAPH_H

#include "common/nn/model.h"

#define COP_GRAPH_OPSET 17

enum { COP_VALUE_NONE = -1, COP_GRAPH_INPUTS = 4, COP_GRAPH_ATTRIBUTES = 4 };

typedef enum cop_graph_type { COP_GRAPH_F32, COP_GRAPH_I64, COP_GRAPH_BOOL } cop_graph_type;

/* A value. If it has `data`, the file contains it. */
typedef struct cop_graph_value {
    char name[80]; /* "1.weight", "4.maxout/2.ReduceMax"; never empty */
    cop_graph_type type;
    int32_t rank, dims[4]; /* with data */
    const void *data;      /* little-endian; NULL: a node computes it, or the user supplies it */
    size_t size;           /* bytes of data */
    void *own;             /* data, if the graph must free it; else NULL */
} cop_graph_value;

typedef struct cop_graph_attribute {
    const char *name;
    enum { COP_GRAPH_INT, COP_GRAPH_INTS, COP_GRAPH_REAL, COP_GRAPH_TENSOR } kind;
    int64_t ints[4];
    int count;
    float real; /* of REAL; the one element of TENSOR */
} cop_graph_attribute;

typedef struct cop_graph_node {
    const char *op, *note; /* note: a remark for people, or NULL */
    char name[80];
    cop_value inputs[COP_GRAPH_INPUTS];
    cop_value outputs[2];
    int input_count, output_count;
    cop_graph_attribute attributes[COP_GRAPH_ATTRIBUTES];
    int attribute_count;
} cop_graph_node;

struct cop_graph {
    cop_graph_value *values;
    cop_graph_node *nodes;
    int value_count, value_room, node_count, node_room;
    cop_value input, output;
    cop_value training; /* the flag that turns dropout on, false by default; NONE: the model does
                           not drop anything */
    cop_shape sample;   /* of `input`, without its first dimension, which counts the samples */
    bool failed;
    const cop_layer *layer; /* the layer that is appending nodes; NULL: before the first layer */
    int layer_nodes;        /* nodes that it has appended so far */
    const cop_parameter *parameters;
    const float *weights;
};

/* Builds the graph of a model in eval mode. `sample` is the shape of a sample in the data. The
 * graph includes what the job does to samples (standardisation, flattening), except for the
 * division of bytes by 255. It borrows model and weights. NO_MEMORY. Free with cop_graph_destroy.
 */
cop_err cop_graph_create(const cop_model *model, const cop_shape *sample, const float *weights,
                         cop_graph **out, cop_error *error);
void cop_graph_destroy(cop_graph *graph);

/* ---- for the layers ---- */

/* Appends a node and returns its output. Trailing inputs that are COP_VALUE_NONE are left out. */
cop_value cop_graph_node_add(cop_graph *g, const char *op, int count, const cop_value *inputs);
#define COP_NODE(g, op, ...)                                                                       \
    cop_graph_node_add((g), (op),                                                                  \
                       (int)(sizeof((const cop_value[]){__VA_ARGS__}) / sizeof(cop_value)),        \
                       (const cop_value[]){__VA_ARGS__})
/* Gives the last node a second output, of this type, and returns it. */
cop_value cop_graph_second(cop_graph *g, cop_graph_type type);
/* Add an attribute, or a remark for people who read the file, to the last node. Names and notes
 * must be static. */
void cop_graph_int(cop_graph *g, const char *name, int64_t value);
void cop_graph_ints(cop_graph *g, const char *name, int count, const int64_t *values);
void cop_graph_real(cop_graph *g, const char *name, double value);
void cop_graph_note(cop_graph *g, const char *note);
/* The current layer's parameter `index`; NONE: it has fewer. */
cop_value cop_graph_parameter(cop_graph *g, int index);
/* Constants; the values are copied. */
cop_value cop_graph_scalar(cop_graph *g, double value);                          /* f32 () */
cop_value cop_graph_vector(cop_graph *g, int count, const int64_t *values);      /* i64 (count) */
cop_value cop_graph_floats(cop_graph *g, const cop_shape *shape, const float *); /* f32 shape */
/* The flag that turns dropout on: bool (). */
cop_value cop_graph_training(cop_graph *g);
/* dims: the dimensions (N, shape...) as i64 (rank + 1), where N is the number of samples of x or,
 * if `shared`, 1. ones: an f32 tensor of ones with these dimensions. */
cop_value cop_graph_dims(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);
cop_value cop_graph_ones(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);

#endif
