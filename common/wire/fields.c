/* The table of the fields of a job file, with range, default and help text. A test checks that
 * every field of proto/job.proto has a row. */
#include "common/wire/fields.h"

#include <stdio.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/limits.h"

#define U32 4294967295.0
#define U64 18446744073709551615.0
#define ANY 0, 0, false, false

static const cop_field_row rows[] = {
    {"Job.name", true, ANY, NULL, "name of the job, for people"},
    {"Job.seed", false, 0, U64, false, false, "1",
     "together with the rest of this file, decides every bit of the weights"},
    {"Job.numerics", false, ANY, "portable",
     "portable: equal bits on every CPU; openblas: matrix products of OpenBLAS, pinned to one kind "
     "of worker"},
    {"Job.priority", false, -1000000, 1000000, false, false, "0",
     "jobs with a higher priority run first"},
    {"Job.audit", false, 0, 1, false, false, "0",
     "fraction of the shards that a second worker also computes, to detect wrong results"},
    {"Job.limits", false, ANY, "{}", "limits that the coordinator enforces"},
    {"Job.data", true, ANY, NULL, "what to train on"},
    {"Job.model", true, ANY, NULL, "the layers, in order"},
    {"Job.loss", false, ANY, "cross_entropy", "loss function to minimize"},
    {"Job.train", true, ANY, NULL, "length of the training, and how each batch is divided"},
    {"Job.optimizer", true, ANY, NULL, "optimizer: how a gradient changes the weights"},
    {"Job.dropout", false, ANY, "{}", "defaults for all mask layers"},
    {"Job.evaluate", false, ANY, "{}", "when and on what to evaluate"},
    {"Job.checkpoint", false, ANY, "{}", "when to save"},
    {"Job.pinned", false, ANY, NULL, "set by the coordinator"},
    {"Pinned.data_digest", false, ANY, NULL, "digest of the data set"},
    {"Pinned.arithmetic", false, ANY, NULL, "version of the arithmetic contract"},
    {"Pinned.fingerprint", false, ANY, NULL, "fingerprint of OpenBLAS, for numerics: openblas"},
    {"Pinned.train_samples", false, 0, U32, false, false, NULL, "number of samples to train on"},
    {"Pinned.validation_samples", false, 0, U32, false, false, NULL, "number of samples set aside"},
    {"Pinned.test_samples", false, 0, U32, false, false, NULL,
     "number of samples of the test part"},
    {"Pinned.classes", false, 0, U32, false, false, NULL, "number of classes"},
    {"Pinned.input", false, 0, U32, false, false, NULL, "shape of one sample"},
    {"Pinned.steps", false, 0, U64, false, false, NULL, "total number of steps"},
    {"Pinned.steps_per_epoch", false, 0, U64, false, false, NULL, "number of steps per epoch"},
    {"Pinned.sample_type", false, ANY, NULL, "u8 or f32"},
    {"Pinned.mean", false, -3.4e38, 3.4e38, false, false, NULL,
     "mean of the training samples, per channel (normalize: standard)"},
    {"Pinned.std", false, 0, 3.4e38, false, true, NULL, "their standard deviation"},
    {"Pinned.class_names", false, ANY, NULL, "names of the classes, by number"},
    {"Limits.workers", false, 0, COP_WORKERS_MAX, false, false, "0",
     "maximum number of workers at a time; 0: no limit"},
    {"Limits.timeout", false, 0, 1e9, false, false, "0",
     "maximum seconds of training, not counting waits for workers; 0: no limit"},
    {"Limits.memory", false, 0, U64, false, false, "0",
     "maximum bytes that one compute thread of a worker may need; 0: no limit"},
    {"Data.source", true, ANY, NULL,
     "mnist, cifar10, cifar100, idx, csv, npy, image-folder, synthetic-digits, or the name of a "
     "data set that the coordinator has"},
    {"Data.train", false, ANY, NULL, "files of the training part, for idx, csv, npy, image-folder"},
    {"Data.test", false, ANY, NULL, "files of the test part"},
    {"Data.target", false, ANY, "label", "what the loss compares the outputs with: label or input"},
    {"Data.normalize", false, ANY, "auto",
     "unit: scales bytes to 0..1; standard: also scales to mean 0 and variance 1 over the training "
     "samples, per channel (flat samples: per feature); none: unchanged values; auto: unit for "
     "images of bytes and for whole numbers up to 255 that exceed 127, else standard"},
    {"Data.augment", false, ANY, NULL, "random changes of the training samples"},
    {"Data.label", false, ANY, NULL,
     "csv: name or number (from 1) of the label column (default: the last)"},
    {"Data.drop", false, ANY, NULL,
     "csv: columns to leave out, such as an identifier; each by its name, or its number from 1"},
    {"Data.layout", false, ANY, NULL,
     "npy, idx: position of the channels in (n, ., ., .): nchw (first) or nhwc (last) (default: "
     "decided by the sizes if they allow only one)"},
    {"Data.resize", false, 1, 4096, false, false, NULL,
     "image-folder: resize all images to [height, width] (default: all must have the size of the "
     "first)"},
    {"Augment.shift", false, 0, 64, false, false, "0",
     "maximum shift in each direction, in pixels; zeros fill the gap"},
    {"Augment.flip", false, ANY, "false", "flip left and right with probability 1/2"},
    {"Augment.crop", false, 0, 64, false, false, "0",
     "zeros added around an image before a random crop of its original size"},
    {"Data.validation", false, 0, U32, false, false, "0",
     "number of training samples set aside for evaluation"},
    {"Data.samples", false, 0, U32, false, false, "0",
     "number of training samples to use, including those set aside; 0: all"},
    {"Data.split", false, ANY, "stratified",
     "which training samples are used and set aside; stratified: drawn at random with the same "
     "share "
     "of each class, equal for every job on these data; last: the first ones are used, and the "
     "last "
     "of these are set aside"},
    {"DataFiles.images", false, ANY, NULL,
     "file of samples, for idx and npy; with a path to an npz file, the name of the array "
     "[images]"},
    {"DataFiles.labels", false, ANY, NULL,
     "file of labels, for idx and npy; with a path to an npz file, the name of the array [labels]"},
    {"DataFiles.path", false, ANY, NULL,
     "the file or folder, for csv, npz and image-folder; the short form train: iris.csv also "
     "works"},
    {"Layer.linear", false, ANY, NULL, "y = W x + b"},
    {"Layer.relu", false, ANY, NULL, "y = max(x, 0)"},
    {"Layer.dropout", false, ANY, NULL, "drops units with probability p"},
    {"Layer.flatten", false, ANY, NULL, "flattens its input to one vector"},
    {"Layer.conv2d", false, ANY, NULL, "convolution of images"},
    {"Layer.max_pool2d", false, ANY, NULL, "maximum of a window"},
    {"Layer.avg_pool2d", false, ANY, NULL, "mean of a window"},
    {"Layer.maxout", false, ANY, NULL, "maximum of several linear pieces"},
    {"Layer.dropconnect", false, ANY, NULL,
     "a linear layer that drops weights, separately for each sample"},
    {"Layer.spatial_dropout", false, ANY, NULL, "drops whole channels"},
    {"Layer.gaussian_dropout", false, ANY, NULL, "multiplies by noise of mean 1"},
    {"Layer.alpha_dropout", false, ANY, NULL, "dropout that keeps selu's mean and variance"},
    {"Layer.leaky_relu", false, ANY, NULL, "y = x above 0, slope x below"},
    {"Layer.sigmoid", false, ANY, NULL, "y = 1 / (1 + exp(-x))"},
    {"Layer.tanh", false, ANY, NULL, "y = tanh(x)"},
    {"Layer.selu", false, ANY, NULL, "scaled exponential linear unit"},
    {"Layer.gelu", false, ANY, NULL, "y = x times the normal distribution function of x"},
    {"Layer.softmax", false, ANY, NULL, "outputs that are positive and sum to 1"},
    {"Conv2d.channels", true, 1, COP_UNITS_MAX, false, false, NULL, "filters"},
    {"Conv2d.kernel", true, 1, 1024, false, false, NULL, "height and width of a filter"},
    {"Conv2d.stride", false, 1, 1024, false, false, "1", "step from window to window, in pixels"},
    {"Conv2d.padding", false, 0, 1024, false, false, "0", "zeros added on each side"},
    {"Conv2d.max_norm", false, 0, 1e9, false, false, "0",
     "maximum norm of a filter's weights; 0: no limit"},
    {"Conv2d.bias", false, ANY, "true", "add a bias"},
    {"Conv2d.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"MaxPool2d.kernel", true, 1, 1024, false, false, NULL, "height and width of the window"},
    {"MaxPool2d.stride", false, 1, 1024, false, false, NULL,
     "step from window to window, in pixels (default: kernel)"},
    {"AvgPool2d.kernel", true, 1, 1024, false, false, NULL, "height and width of the window"},
    {"AvgPool2d.stride", false, 1, 1024, false, false, NULL,
     "step from window to window, in pixels (default: kernel)"},
    {"Maxout.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Maxout.pieces", true, 1, 256, false, false, NULL, "linear pieces of each output"},
    {"Maxout.max_norm", false, 0, 1e9, false, false, "0",
     "maximum norm of a piece's weights; 0: no limit"},
    {"Maxout.bias", false, ANY, "true", "add a bias"},
    {"Maxout.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"Dropconnect.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Dropconnect.p", false, 0, 1, true, false, "0.5", "probability to drop a weight"},
    {"Dropconnect.drop_bias", false, ANY, "false", "drop biases too"},
    {"Dropconnect.inference", false, ANY, "moments",
     "moments: averages draws from a normal distribution with each unit's mean and variance; mean: "
     "uses each unit's mean, without draws"},
    {"Dropconnect.draws", false, 1, 1e6, false, false, "1000",
     "number of draws per unit, for inference: moments"},
    {"Dropconnect.scope", false, ANY, NULL,
     "sample: a separate mask per sample; shard: one mask per shard and step (default: "
     "dropout.scope)"},
    {"Dropconnect.variant", false, ANY, "classic",
     "inverted: scaled in training; classic: scaled in evaluation"},
    {"Dropconnect.max_norm", false, 0, 1e9, false, false, "0",
     "maximum norm of a row of the weights; 0: no limit"},
    {"Dropconnect.bias", false, ANY, "true", "add a bias"},
    {"Dropconnect.init", false, ANY, "he",
     "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"SpatialDropout.p", true, 0, 1, true, false, NULL, "probability to drop a channel"},
    {"SpatialDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"SpatialDropout.variant", false, ANY, NULL, "inverted or classic (default: dropout.variant)"},
    {"GaussianDropout.p", true, 0, 1, true, false, NULL, "noise of variance p / (1 - p)"},
    {"GaussianDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"GaussianDropout.variant", false, ANY, NULL,
     "no effect: the mean of the noise is always 1 (default: dropout.variant)"},
    {"AlphaDropout.p", true, 0, 1, true, false, NULL, "probability to drop a unit"},
    {"AlphaDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"AlphaDropout.variant", false, ANY, NULL,
     "no effect: training always keeps mean and variance (default: dropout.variant)"},
    {"LeakyRelu.slope", false, 0, 1, false, false, "0.01", "slope below 0"},
    {"Linear.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Linear.max_norm", false, 0, 1e9, false, false, "0",
     "maximum norm of a row of the weights; 0: no limit"},
    {"Linear.bias", false, ANY, "true", "add a bias"},
    {"Linear.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"Dropout.p", false, 0, 1, true, false, "0.5", "probability to drop a unit"},
    {"Dropout.scope", false, ANY, NULL,
     "sample: a separate mask per sample; shard: one mask per shard and step (default: "
     "dropout.scope)"},
    {"Dropout.variant", false, ANY, NULL,
     "inverted: scaled in training; classic: scaled in evaluation (default: dropout.variant)"},
    {"DropoutDefaults.scope", false, ANY, "sample",
     "sample: a separate mask per sample; shard: one mask per shard and step"},
    {"DropoutDefaults.variant", false, ANY, "inverted",
     "inverted: scaled in training; classic: scaled in evaluation"},
    {"Loss.cross_entropy", false, ANY, NULL, "softmax and negative log-likelihood"},
    {"Loss.mse", false, ANY, NULL, "mean squared error"},
    {"Loss.bce", false, ANY, NULL, "sigmoid and binary cross-entropy"},
    {"CrossEntropy.smoothing", false, 0, 1, true, false, "0", "label smoothing"},
    {"Train.epochs", false, 0, 1e6, false, true, NULL,
     "number of passes over the training samples; give epochs or steps, not both"},
    {"Train.steps", false, 1, 4294967295.0, false, false, NULL,
     "number of optimizer steps; give steps or epochs, not both"},
    {"Train.batch", false, 1, COP_BATCH_MAX, false, false, "128", "number of samples per step"},
    {"Train.shards", false, 1, COP_SHARDS_MAX, false, false, "8",
     "number of slices of a batch; fixed by the job, independent of the pool"},
    {"Train.last", false, ANY, "keep",
     "what to do with a short last batch of an epoch: keep or drop it"},
    {"Train.precision", false, ANY, "f32", "precision of the matrix products"},
    {"Train.wire", false, ANY, "f32",
     "precision of weights and gradients on the wire; bf16 halves the bytes and gives other "
     "weights"},
    {"Optimizer.sgd", false, ANY, NULL, "stochastic gradient descent, as in PyTorch"},
    {"Optimizer.adam", false, ANY, NULL, "Adam (Kingma and Ba, 2015), as in PyTorch"},
    {"Optimizer.adamw", false, ANY, NULL, "AdamW: Adam with decoupled weight decay, as in PyTorch"},
    {"Optimizer.rmsprop", false, ANY, NULL, "RMSprop (Hinton, 2012), as in PyTorch"},
    {"Optimizer.adagrad", false, ANY, NULL, "Adagrad (Duchi, Hazan, Singer, 2011), as in PyTorch"},
    {"Adam.rate", false, 0, 1e6, false, true, "0.001", "learning rate"},
    {"Adam.beta1", false, 0, 1, true, false, "0.9", "decay rate of the mean of gradients"},
    {"Adam.beta2", false, 0, 1, true, false, "0.999",
     "decay rate of the mean of squared gradients"},
    {"Adam.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the square root"},
    {"Adam.weight_decay", false, 0, 1e6, false, false, "0", "L2 penalty"},
    {"Adam.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adam.warmup", false, 0, U64, false, false, "0",
     "number of steps at the start in which the rate rises linearly"},
    {"Adamw.rate", false, 0, 1e6, false, true, "0.001", "learning rate"},
    {"Adamw.beta1", false, 0, 1, true, false, "0.9", "decay rate of the mean of gradients"},
    {"Adamw.beta2", false, 0, 1, true, false, "0.999",
     "decay rate of the mean of squared gradients"},
    {"Adamw.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the square root"},
    {"Adamw.weight_decay", false, 0, 1e6, false, false, "0.01",
     "in each step, rate * weight_decay * weight is subtracted from each weight"},
    {"Adamw.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adamw.warmup", false, 0, U64, false, false, "0",
     "number of steps at the start in which the rate rises linearly"},
    {"Rmsprop.rate", false, 0, 1e6, false, true, "0.01", "learning rate"},
    {"Rmsprop.alpha", false, 0, 1, true, false, "0.99",
     "decay rate of the mean of squared gradients"},
    {"Rmsprop.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the square root"},
    {"Rmsprop.momentum", false, 0, 1, true, false, "0", "momentum"},
    {"Rmsprop.schedule", false, ANY, "constant", "how the rate changes"},
    {"Rmsprop.warmup", false, 0, U64, false, false, "0",
     "number of steps at the start in which the rate rises linearly"},
    {"Adagrad.rate", false, 0, 1e6, false, true, "0.01", "learning rate"},
    {"Adagrad.epsilon", false, 1e-30, 1, false, false, "1.0e-10", "added to the square root"},
    {"Adagrad.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adagrad.warmup", false, 0, U64, false, false, "0",
     "number of steps at the start in which the rate rises linearly"},
    {"Sgd.rate", true, 0, 1e6, false, true, NULL, "learning rate"},
    {"Sgd.momentum", false, 0, 1, true, false, "0", "momentum"},
    {"Sgd.momentum_final", false, 0, 1, true, false, NULL,
     "the momentum changes linearly to this value in the first momentum_steps steps"},
    {"Sgd.momentum_steps", false, 0, U64, false, false, "0",
     "number of steps in which the momentum changes to momentum_final"},
    {"Sgd.nesterov", false, ANY, "false", "Nesterov's momentum"},
    {"Sgd.weight_decay", false, 0, 1e6, false, false, "0", "L2 penalty"},
    {"Sgd.l1", false, 0, 1e6, false, false, "0", "L1 penalty"},
    {"Sgd.schedule", false, ANY, "constant", "how the rate changes"},
    {"Sgd.warmup", false, 0, U64, false, false, "0",
     "number of steps at the start in which the rate rises linearly"},
    {"Schedule.constant", false, ANY, NULL, "the rate stays the same"},
    {"Schedule.step", false, ANY, NULL, "rate * factor^(t / every)"},
    {"Schedule.inverse", false, ANY, NULL, "rate / (1 + decay t)"},
    {"Schedule.exponential", false, ANY, NULL, "rate * factor^t"},
    {"Schedule.cosine", false, ANY, NULL, "half a cosine from rate to final"},
    {"ScheduleStep.every", true, 1, U64, false, false, NULL, "number of steps between changes"},
    {"ScheduleStep.factor", true, 0, 1e6, false, true, NULL, "factor of each change"},
    {"ScheduleInverse.decay", true, 0, 1e6, false, false, NULL, "decay per step"},
    {"ScheduleExponential.factor", true, 0, 1e6, false, true, NULL, "factor per step"},
    {"ScheduleCosine.final", false, 0, 1e6, false, false, "0", "rate at the end"},
    {"Evaluate.every", false, 1, 1e6, false, false, "1", "number of epochs between evaluations"},
    {"Evaluate.on", false, ANY, NULL,
     "validation or test (default: validation if there are validation samples)"},
    {"Checkpoint.every", false, 1, U64, false, false, "500", "number of steps between checkpoints"},
    {"Checkpoint.keep", false, 1, COP_CHECKPOINTS_KEPT_MAX, false, false, "3",
     "number of checkpoints to keep, in addition to the best"},
    {0},
};

const cop_field_row *cop_fields_all(void) {
    return rows;
}

/* A linear search is fast enough: there are few rows, and no training step searches them. */
const cop_field_row *cop_fields_find(const ProtobufCMessageDescriptor *message,
                                     const ProtobufCFieldDescriptor *field) {
    char name[128];
    const int length = snprintf(name, sizeof name, "%s.%s", message->short_name, field->name);
    COP_ASSERT(length > 0 && (size_t)length < sizeof name);
    for (const cop_field_row *r = rows; r->name; r++)
        if (strcmp(r->name, name) == 0) return r;
    return NULL;
}

bool cop_fields_one_of(const ProtobufCMessageDescriptor *message) {
    static const char *const names[] = {"Layer", "Loss", "Optimizer", "Schedule"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(message->short_name, names[i]) == 0) return true;
    return false;
}

size_t cop_fields_max_items(const ProtobufCFieldDescriptor *field) {
    if (strcmp(field->name, "class_names") == 0) return COP_CLASSES_MAX;
    if (strcmp(field->name, "resize") == 0) return 2;
    return field->type == PROTOBUF_C_TYPE_DOUBLE ? COP_STATISTICS_MAX : COP_LAYERS_MAX;
}

const ProtobufCFieldDescriptor *cop_fields_shorthand(const ProtobufCMessageDescriptor *message) {
    if (strcmp(message->short_name, "DataFiles") != 0) return NULL;
    const ProtobufCFieldDescriptor *path =
        protobuf_c_message_descriptor_get_field_by_name(message, "path");
    COP_ASSERT(path != NULL);
    return path;
}

const ProtobufCFieldDescriptor *cop_fields_excluded(const ProtobufCMessageDescriptor *message,
                                                    const ProtobufCFieldDescriptor *field) {
    static const char *const pairs[][3] = {{"Train", "epochs", "steps"},
                                           {"Train", "steps", "epochs"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(message->short_name, pairs[i][0]) == 0 && strcmp(field->name, pairs[i][1]) == 0)
            return protobuf_c_message_descriptor_get_field_by_name(message, pairs[i][2]);
    return NULL;
}

static const char *const reserved[] = {"Train.precision.bf16", NULL};

const char *const *cop_fields_reserved_names(void) {
    return reserved;
}

bool cop_fields_is_reserved(const char *message, const char *name) {
    char whole[128];
    snprintf(whole, sizeof whole, "%s.%s", message, name);
    for (size_t i = 0; reserved[i]; i++)
        if (strcmp(reserved[i], whole) == 0) return true;
    return false;
}
