/* A model as a graph of operators, for export. The operators, their attributes and types are those
 * of ONNX, opset 17 (https://onnx.ai/onnx/operators). common/interchange/onnx.c writes the file.
 *
 * Each layer appends its own nodes (cop_layer_ops.graph). A value stands for the sample, a
 * parameter, a constant, or the output of a node. When memory runs out, `failed` is set. From then
 * on functions may return COP_VALUE_NONE, which they also accept as an input, and cop_graph_create
 * fails at the end. So the layers need no checks. */
#ifndef COP_NN_GRAPH_H
#define COP_NN_GRAPH_H

#include "common/nn/model.h"

#define COP_GRAPH_OPSET 17

enum { COP_VALUE_NONE = -1, COP_GRAPH_INPUTS = 4, COP_GRAPH_ATTRIBUTES = 4 };

typedef enum cop_graph_type { COP_GRAPH_F32, COP_GRAPH_I64, COP_GRAPH_BOOL } cop_graph_type;

/* A value. The file contains its `data`, if it has any. */
typedef struct cop_graph_value {
    char name[80]; /* such as "1.weight" or "4.maxout/2.ReduceMax"; never empty */
    cop_graph_type type;
    int32_t rank, dims[4]; /* set only for a value with data */
    const void *data;      /* little-endian; NULL: computed by a node, or supplied by the user */
    size_t size;           /* the number of bytes in `data` */
    void *own;             /* equals `data` if the graph must free it; else NULL */
} cop_graph_value;

typedef struct cop_graph_attribute {
    const char *name;
    enum { COP_GRAPH_INT, COP_GRAPH_INTS, COP_GRAPH_REAL, COP_GRAPH_TENSOR } kind;
    int64_t ints[4]; /* the values of INT and INTS */
    int count;       /* how many of `ints` are set */
    float real;      /* the value of REAL, or the only element of TENSOR */
} cop_graph_attribute;

typedef struct cop_graph_node {
    const char *op;   /* the ONNX operator, such as "Gemm" */
    const char *note; /* a remark for people who read the file, or NULL */
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
    /* The flag that turns dropout on. It is false unless the user sets it. COP_VALUE_NONE: no layer
     * has asked for it so far. */
    cop_value training;
    cop_shape sample;                /* the shape of one sample */
    bool failed;                     /* memory ran out */
    const cop_layer *layer;          /* the layer that is appending nodes; NULL: none yet */
    int layer_nodes;                 /* the number of nodes that `layer` has appended so far */
    const cop_parameter *parameters; /* those of `layer` */
    const float *weights;            /* the model's flat buffer */
};

/* Builds the graph of a model. It computes eval mode unless its training flag is on. `sample` is
 * the shape of a sample in the data. The graph includes what the job does to samples
 * (standardisation, flattening), but not the division of bytes by 255. It borrows model and
 * weights. The only error is NO_MEMORY. Free with cop_graph_destroy. */
cop_err cop_graph_create(const cop_model *model, const cop_shape *sample, const float *weights,
                         cop_graph **out, cop_error *error);
void cop_graph_destroy(cop_graph *graph);

/* ---- for the layers ---- */

/* Appends a node with `count` inputs and returns its output. If the last inputs are COP_VALUE_NONE,
 * the node is made without them. COP_NODE takes the inputs as arguments. */
cop_value cop_graph_node_add(cop_graph *g, const char *op, int count, const cop_value *inputs);
#define COP_NODE(g, op, ...)                                                                       \
    cop_graph_node_add((g), (op),                                                                  \
                       (int)(sizeof((const cop_value[]){__VA_ARGS__}) / sizeof(cop_value)),        \
                       (const cop_value[]){__VA_ARGS__})
/* Gives the node that was appended last a second output of this type, and returns that output. */
cop_value cop_graph_second_output(cop_graph *g, cop_graph_type type);
/* These add an attribute, or a remark for people who read the file, to the node that was appended
 * last. Names and notes must be static strings. */
void cop_graph_int(cop_graph *g, const char *name, int64_t value);
void cop_graph_ints(cop_graph *g, const char *name, int count, const int64_t *values);
void cop_graph_real(cop_graph *g, const char *name, double value);
void cop_graph_note(cop_graph *g, const char *note);
/* Adds the current layer's parameter `index` (from 0) as a value. Returns COP_VALUE_NONE if the
 * layer has no such parameter. */
cop_value cop_graph_parameter(cop_graph *g, int index);
/* Add a constant with a copy of the values. The type and shape of each are at the end of its
 * line. */
cop_value cop_graph_scalar(cop_graph *g, double value);                          /* f32 () */
cop_value cop_graph_vector(cop_graph *g, int count, const int64_t *values);      /* i64 (count) */
cop_value cop_graph_floats(cop_graph *g, const cop_shape *shape, const float *); /* f32 shape */
/* The flag that turns dropout on, a bool scalar. Adds it to the graph at the first call. */
cop_value cop_graph_training(cop_graph *g);
/* cop_graph_dims returns the dimensions (N, shape...) as an i64 vector of rank + 1 elements. N is 1
 * if `shared` is set, else the number of samples of x. cop_graph_ones returns an f32 tensor of ones
 * with these dimensions. */
cop_value cop_graph_dims(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);
cop_value cop_graph_ones(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);

#endif
