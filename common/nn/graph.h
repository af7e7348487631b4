/* A model as a graph of operators, for programs that are not ours. The operators, their attributes
 * and types are ONNX's, opset 17 (https://onnx.ai/onnx/operators); of its file format nothing is
 * known here, common/interchange/onnx.c writes it.
 *
 * Each layer appends its own nodes (cop_layer_ops.graph). A value is a number: the sample, a
 * parameter, a constant, the output of a node. Out of memory sets `failed`; from then on values are
 * COP_VALUE_NONE and nothing is appended, so that layers need no checks. */
#ifndef COP_NN_GRAPH_H
#define COP_NN_GRAPH_H

#include "common/nn/model.h"

#define COP_GRAPH_OPSET 17

enum { COP_VALUE_NONE = -1, COP_GRAPH_INPUTS = 4, COP_GRAPH_ATTRIBUTES = 4 };

typedef enum cop_graph_type { COP_GRAPH_F32, COP_GRAPH_I64, COP_GRAPH_BOOL } cop_graph_type;

/* A value; with `data` its content is part of the file. */
typedef struct cop_graph_value {
    char name[80]; /* "1.weight", "4.maxout/2.ReduceMax"; never empty */
    cop_graph_type type;
    int32_t rank, dims[4]; /* with data */
    const void *data;      /* little-endian; NULL: a node makes it, or the user */
    size_t size;
    void *own; /* what is to be freed of data */
} cop_graph_value;

typedef struct cop_graph_attribute {
    const char *name;
    enum { COP_GRAPH_INT, COP_GRAPH_INTS, COP_GRAPH_REAL, COP_GRAPH_TENSOR } kind;
    int64_t ints[4];
    int count;
    float real; /* REAL; TENSOR: of one element, this */
} cop_graph_attribute;

typedef struct cop_graph_node {
    const char *op, *note; /* note: for people; may be NULL */
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
    cop_value training; /* a flag that switches dropout on, false unless the user sets it; NONE: the
                           model drops nothing */
    cop_shape sample;   /* of `input`; its first dimension is that of the samples */
    bool failed;
    const cop_layer *layer; /* whose nodes are being appended; NULL: before the first */
    int layer_nodes;        /* how many it has */
    const cop_parameter *parameters;
    const float *weights;
};

/* The model in eval mode. `sample` is the shape of a sample in the data; what the job does to
 * samples (standardisation, flattening) is in the graph, division of bytes by 255 is not.
 * Parameters point into `weights`, which must outlive the graph. NO_MEMORY. */
cop_err cop_graph_create(const cop_model *model, const cop_shape *sample, const float *weights,
                         cop_graph **out, cop_error *error);
void cop_graph_destroy(cop_graph *graph);

/* ---- for the layers ---- */

/* Appends a node; inputs may end in COP_VALUE_NONE for what is left out. Returns its output. */
cop_value cop_graph_node_add(cop_graph *g, const char *op, int count, const cop_value *inputs);
#define COP_NODE(g, op, ...)                                                                       \
    cop_graph_node_add((g), (op),                                                                  \
                       (int)(sizeof((const cop_value[]){__VA_ARGS__}) / sizeof(cop_value)),        \
                       (const cop_value[]){__VA_ARGS__})
/* A second output of the last node, of another type. */
cop_value cop_graph_second(cop_graph *g, cop_graph_type type);
/* Attributes of the last node. `note`, text that lives for ever, is for whoever reads the file. */
void cop_graph_int(cop_graph *g, const char *name, int64_t value);
void cop_graph_ints(cop_graph *g, const char *name, int count, const int64_t *values);
void cop_graph_real(cop_graph *g, const char *name, double value);
void cop_graph_note(cop_graph *g, const char *note);
/* The layer's parameter `index`; NONE if it has fewer. */
cop_value cop_graph_parameter(cop_graph *g, int index);
cop_value cop_graph_scalar(cop_graph *g, double value);                          /* f32 () */
cop_value cop_graph_vector(cop_graph *g, int count, const int64_t *values);      /* i64 (count) */
cop_value cop_graph_floats(cop_graph *g, const cop_shape *shape, const float *); /* copied */
/* The flag that switches dropout on: bool (). */
cop_value cop_graph_training(cop_graph *g);
/* Ones of this shape for each sample of x, or, shared, one for all samples: i64 (rank + 1) is what
 * `_dims` gives, f32 (N or 1, shape...) what `_ones` does. */
cop_value cop_graph_dims(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);
cop_value cop_graph_ones(cop_graph *g, cop_value x, const cop_shape *shape, bool shared);

#endif
