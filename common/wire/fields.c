/* The table of the job file's fields: ranges, defaults, help. A test checks that it covers every
 * field of proto/job.proto. */
#include "common/wire/fields.h"

#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"

#define U32 4294967295.0
#define U64 18446744073709551615.0
#define ANY 0, 0, false, false

static const cop_field_row rows[] = {
    {"Job.name", true, ANY, NULL, "name of the job, for people"},
    {"Job.seed", false, 0, U64, false, false, "1",
     "decides, with the rest of this file, every bit of the weights"},
    {"Job.numerics", false, ANY, "portable",
     "portable: the same bits on every CPU; openblas: OpenBLAS' products, pinned to one kind of "
     "worker"},
    {"Job.priority", false, -1000000, 1000000, false, false, "0",
     "jobs of higher priority go first"},
    {"Job.audit", false, 0, 1, false, false, "0",
     "share of the shards that a second worker computes as well, to find wrong results"},
    {"Job.limits", false, ANY, "{}", "bounds that the coordinator keeps"},
    {"Job.data", true, ANY, NULL, "what to train on"},
    {"Job.model", true, ANY, NULL, "the layers, in order"},
    {"Job.loss", false, ANY, "cross_entropy", "what is minimised"},
    {"Job.train", true, ANY, NULL, "how long, and in which portions"},
    {"Job.optimizer", true, ANY, NULL, "how the weights follow the gradient"},
    {"Job.dropout", false, ANY, "{}", "defaults for all mask layers"},
    {"Job.evaluate", false, ANY, "{}", "when and on what to evaluate"},
    {"Job.checkpoint", false, ANY, "{}", "when to save"},
    {"Job.pinned", false, ANY, NULL, "set by the service"},
    {"Pinned.data_digest", false, ANY, NULL, "digest of the data set"},
    {"Pinned.arithmetic", false, ANY, NULL, "version of the arithmetic contract"},
    {"Pinned.fingerprint", false, ANY, NULL, "of OpenBLAS, for numerics: openblas"},
    {"Pinned.train_samples", false, 0, U32, false, false, NULL, "samples trained on"},
    {"Pinned.validation_samples", false, 0, U32, false, false, NULL, "samples set aside"},
    {"Pinned.test_samples", false, 0, U32, false, false, NULL, "samples of the test part"},
    {"Pinned.classes", false, 0, U32, false, false, NULL, "number of classes"},
    {"Pinned.input", false, 0, U32, false, false, NULL, "shape of one sample"},
    {"Pinned.steps", false, 0, U64, false, false, NULL, "steps in all"},
    {"Pinned.steps_per_epoch", false, 0, U64, false, false, NULL, "steps of one epoch"},
    {"Pinned.sample_type", false, ANY, NULL, "u8 or f32"},
    {"Pinned.mean", false, -3.4e38, 3.4e38, false, false, NULL,
     "of the training samples, per channel (normalize: standard)"},
    {"Pinned.std", false, 0, 3.4e38, false, true, NULL, "their standard deviation"},
    {"Pinned.class_names", false, ANY, NULL, "names of the classes, by number"},
    {"Limits.workers", false, 0, COP_WORKERS_MAX, false, false, "0",
     "workers at a time; 0: any number"},
    {"Limits.timeout", false, 0, 1e9, false, false, "0", "seconds of training; 0: any"},
    {"Limits.memory", false, 0, U64, false, false, "0",
     "bytes that one compute thread of a worker may need; 0: any"},
    {"Data.source", true, ANY, NULL,
     "mnist, cifar10, cifar100, idx, csv, npy, image-folder, synthetic-digits, or the name of a "
     "set that the coordinator has"},
    {"Data.train", false, ANY, NULL, "files of the training part, for idx, csv, npy, image-folder"},
    {"Data.test", false, ANY, NULL, "files of the test part"},
    {"Data.target", false, ANY, "label", "what the outputs are compared with: label, or input"},
    {"Data.normalize", false, ANY, "auto",
     "unit: bytes become 0..1; standard: then mean 0 and variance 1 by the training samples, per "
     "channel, or feature of flat samples; none: values as they are; auto: unit for pictures of "
     "bytes and for whole numbers up to 255 that go beyond 127, else standard"},
    {"Data.augment", false, ANY, NULL, "random changes of the training samples"},
    {"Data.label", false, ANY, NULL,
     "csv: the label's column by its name, or its number from 1 (default: the last)"},
    {"Data.drop", false, ANY, NULL,
     "csv: columns to leave out, such as an identifier; each by its name, or its number from 1"},
    {"Data.layout", false, ANY, NULL,
     "npy, idx: where (n, ., ., .) has its channels: nchw, first, or nhwc, last (default: decided "
     "by the sizes where they can be only one of these)"},
    {"Data.resize", false, 1, 4096, false, false, NULL,
     "image-folder: [height, width] that all pictures are brought to (default: all are as large as "
     "the first)"},
    {"Augment.shift", false, 0, 64, false, false, "0",
     "moved by at most so many pixels in each direction, zeros come in"},
    {"Augment.flip", false, ANY, "false", "left and right exchanged, one time in two"},
    {"Augment.crop", false, 0, 64, false, false, "0",
     "zeros added around an image, from which a piece of its size is cut"},
    {"Data.validation", false, 0, U32, false, false, "0",
     "number of training samples that are set aside, to evaluate on"},
    {"Data.samples", false, 0, U32, false, false, "0",
     "number of training samples that are used, those set aside included; 0: all"},
    {"Data.split", false, ANY, "stratified",
     "which samples validation and samples take: stratified: drawn at random over the whole "
     "training part, the same share of each class, the same for every job on these data; last: "
     "the first samples are used, and the last of these are set aside"},
    {"DataFiles.images", false, ANY, NULL,
     "file of samples, for idx and npy; with a path to an npz file the array's name [images]"},
    {"DataFiles.labels", false, ANY, NULL,
     "file of labels, for idx and npy; with a path to an npz file the array's name [labels]"},
    {"DataFiles.path", false, ANY, NULL,
     "the file or folder, for csv, npz and image-folder; the bare text will do: train: iris.csv"},
    {"Layer.linear", false, ANY, NULL, "y = W x + b"},
    {"Layer.relu", false, ANY, NULL, "y = max(x, 0)"},
    {"Layer.dropout", false, ANY, NULL, "drops units with probability p"},
    {"Layer.flatten", false, ANY, NULL, "one vector of what comes in"},
    {"Layer.conv2d", false, ANY, NULL, "convolution of images"},
    {"Layer.max_pool2d", false, ANY, NULL, "largest value of a window"},
    {"Layer.avg_pool2d", false, ANY, NULL, "mean of a window"},
    {"Layer.maxout", false, ANY, NULL, "largest of several linear pieces"},
    {"Layer.dropconnect", false, ANY, NULL, "a linear layer that drops weights, for each sample"},
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
    {"Conv2d.stride", false, 1, 1024, false, false, "1", "pixels from window to window"},
    {"Conv2d.padding", false, 0, 1024, false, false, "0", "zeros added at each side"},
    {"Conv2d.max_norm", false, 0, 1e9, false, false, "0",
     "largest norm of a filter's weights; 0: no limit"},
    {"Conv2d.bias", false, ANY, "true", "add a bias"},
    {"Conv2d.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"MaxPool2d.kernel", true, 1, 1024, false, false, NULL, "height and width of the window"},
    {"MaxPool2d.stride", false, 1, 1024, false, false, NULL,
     "pixels from window to window (default: kernel)"},
    {"AvgPool2d.kernel", true, 1, 1024, false, false, NULL, "height and width of the window"},
    {"AvgPool2d.stride", false, 1, 1024, false, false, NULL,
     "pixels from window to window (default: kernel)"},
    {"Maxout.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Maxout.pieces", true, 1, 256, false, false, NULL, "linear pieces of each output"},
    {"Maxout.max_norm", false, 0, 1e9, false, false, "0",
     "largest norm of a piece's weights; 0: no limit"},
    {"Maxout.bias", false, ANY, "true", "add a bias"},
    {"Maxout.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"Dropconnect.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Dropconnect.p", false, 0, 1, true, false, "0.5", "probability to drop a weight"},
    {"Dropconnect.drop_bias", false, ANY, "false", "drop biases too"},
    {"Dropconnect.inference", false, ANY, "moments",
     "moments: draws from the Gaussian of the same mean and variance; mean: the mean alone"},
    {"Dropconnect.draws", false, 1, 1e6, false, false, "1000", "draws of a unit, for moments"},
    {"Dropconnect.scope", false, ANY, NULL,
     "sample: each sample its own mask; shard: one mask for a shard and step (default: "
     "dropout.scope)"},
    {"Dropconnect.variant", false, ANY, "classic",
     "inverted: scaled in training; classic: scaled in evaluation"},
    {"Dropconnect.max_norm", false, 0, 1e9, false, false, "0",
     "largest norm of a row of the weights; 0: no limit"},
    {"Dropconnect.bias", false, ANY, "true", "add a bias"},
    {"Dropconnect.init", false, ANY, "he",
     "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"SpatialDropout.p", true, 0, 1, true, false, NULL, "probability to drop a channel"},
    {"SpatialDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"SpatialDropout.variant", false, ANY, NULL, "inverted or classic (default: dropout.variant)"},
    {"GaussianDropout.p", true, 0, 1, true, false, NULL, "noise of variance p / (1 - p)"},
    {"GaussianDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"GaussianDropout.variant", false, ANY, NULL,
     "either: the mean of the noise is 1 (default: dropout.variant)"},
    {"AlphaDropout.p", true, 0, 1, true, false, NULL, "probability to drop a unit"},
    {"AlphaDropout.scope", false, ANY, NULL, "sample or shard (default: dropout.scope)"},
    {"AlphaDropout.variant", false, ANY, NULL,
     "either: mean and variance are kept in training (default: dropout.variant)"},
    {"LeakyRelu.slope", false, 0, 1, false, false, "0.01", "slope below 0"},
    {"Linear.units", true, 1, COP_UNITS_MAX, false, false, NULL, "outputs"},
    {"Linear.max_norm", false, 0, 1e9, false, false, "0",
     "largest norm of a row of the weights; 0: no limit"},
    {"Linear.bias", false, ANY, "true", "add a bias"},
    {"Linear.init", false, ANY, "he", "initial weights: he, glorot, or torch (PyTorch's default)"},
    {"Dropout.p", false, 0, 1, true, false, "0.5", "probability to drop a unit"},
    {"Dropout.scope", false, ANY, NULL,
     "sample: each sample its own mask; shard: one mask for a shard and step (default: "
     "dropout.scope)"},
    {"Dropout.variant", false, ANY, NULL,
     "inverted: scaled in training; classic: scaled in evaluation (default: dropout.variant)"},
    {"DropoutDefaults.scope", false, ANY, "sample", "sample or shard"},
    {"DropoutDefaults.variant", false, ANY, "inverted", "inverted or classic"},
    {"Loss.cross_entropy", false, ANY, NULL, "softmax and negative log-likelihood"},
    {"Loss.mse", false, ANY, NULL, "mean squared error"},
    {"Loss.bce", false, ANY, NULL, "sigmoid and binary cross-entropy"},
    {"CrossEntropy.smoothing", false, 0, 1, true, false, "0", "label smoothing"},
    {"Train.epochs", false, 0, 1e6, false, true, NULL,
     "passes over the training samples (this or steps)"},
    {"Train.steps", false, 1, 4294967295.0, false, false, NULL, "optimizer steps (this or epochs)"},
    {"Train.batch", false, 1, COP_BATCH_MAX, false, false, "128", "samples of one step"},
    {"Train.shards", false, 1, COP_SHARDS_MAX, false, false, "8",
     "slices of a batch; part of the job, whatever the pool"},
    {"Train.last", false, ANY, "keep", "the short last batch of an epoch: keep or drop"},
    {"Train.precision", false, ANY, "f32", "of the products"},
    {"Train.wire", false, ANY, "f32", "of weights and gradients on the wire"},
    {"Optimizer.sgd", false, ANY, NULL, "stochastic gradient descent, as PyTorch's"},
    {"Optimizer.adam", false, ANY, NULL, "Kingma and Ba, 2015; as PyTorch's"},
    {"Optimizer.adamw", false, ANY, NULL, "Adam with decoupled weight decay; as PyTorch's"},
    {"Optimizer.rmsprop", false, ANY, NULL, "Hinton, 2012; as PyTorch's"},
    {"Optimizer.adagrad", false, ANY, NULL, "Duchi, Hazan, Singer, 2011; as PyTorch's"},
    {"Adam.rate", false, 0, 1e6, false, true, "0.001", "learning rate"},
    {"Adam.beta1", false, 0, 1, true, false, "0.9", "decay of the mean of gradients"},
    {"Adam.beta2", false, 0, 1, true, false, "0.999", "decay of the mean of their squares"},
    {"Adam.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the root"},
    {"Adam.weight_decay", false, 0, 1e6, false, false, "0", "L2 penalty"},
    {"Adam.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adam.warmup", false, 0, U64, false, false, "0", "steps during which the rate rises linearly"},
    {"Adamw.rate", false, 0, 1e6, false, true, "0.001", "learning rate"},
    {"Adamw.beta1", false, 0, 1, true, false, "0.9", "decay of the mean of gradients"},
    {"Adamw.beta2", false, 0, 1, true, false, "0.999", "decay of the mean of their squares"},
    {"Adamw.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the root"},
    {"Adamw.weight_decay", false, 0, 1e6, false, false, "0.01",
     "share of a weight taken off per step, times rate"},
    {"Adamw.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adamw.warmup", false, 0, U64, false, false, "0",
     "steps during which the rate rises linearly"},
    {"Rmsprop.rate", false, 0, 1e6, false, true, "0.01", "learning rate"},
    {"Rmsprop.alpha", false, 0, 1, true, false, "0.99", "decay of the mean of squares"},
    {"Rmsprop.epsilon", false, 1e-30, 1, false, false, "1.0e-8", "added to the root"},
    {"Rmsprop.momentum", false, 0, 1, true, false, "0", "momentum"},
    {"Rmsprop.schedule", false, ANY, "constant", "how the rate changes"},
    {"Rmsprop.warmup", false, 0, U64, false, false, "0",
     "steps during which the rate rises linearly"},
    {"Adagrad.rate", false, 0, 1e6, false, true, "0.01", "learning rate"},
    {"Adagrad.epsilon", false, 1e-30, 1, false, false, "1.0e-10", "added to the root"},
    {"Adagrad.schedule", false, ANY, "constant", "how the rate changes"},
    {"Adagrad.warmup", false, 0, U64, false, false, "0",
     "steps during which the rate rises linearly"},
    {"Sgd.rate", true, 0, 1e6, false, true, NULL, "learning rate"},
    {"Sgd.momentum", false, 0, 1, true, false, "0", "momentum"},
    {"Sgd.momentum_final", false, 0, 1, true, false, NULL, "momentum at the end of a ramp"},
    {"Sgd.momentum_steps", false, 0, U64, false, false, "0", "length of the ramp in steps"},
    {"Sgd.nesterov", false, ANY, "false", "Nesterov's momentum"},
    {"Sgd.weight_decay", false, 0, 1e6, false, false, "0", "L2 penalty"},
    {"Sgd.l1", false, 0, 1e6, false, false, "0", "L1 penalty"},
    {"Sgd.schedule", false, ANY, "constant", "how the rate changes"},
    {"Sgd.warmup", false, 0, U64, false, false, "0", "steps during which the rate rises linearly"},
    {"Schedule.constant", false, ANY, NULL, "rate"},
    {"Schedule.step", false, ANY, NULL, "rate * factor^(t / every)"},
    {"Schedule.inverse", false, ANY, NULL, "rate / (1 + decay t)"},
    {"Schedule.exponential", false, ANY, NULL, "rate * factor^t"},
    {"Schedule.cosine", false, ANY, NULL, "half a cosine from rate to final"},
    {"ScheduleStep.every", true, 1, U64, false, false, NULL, "steps"},
    {"ScheduleStep.factor", true, 0, 1e6, false, true, NULL, "factor"},
    {"ScheduleInverse.decay", true, 0, 1e6, false, false, NULL, "decay per step"},
    {"ScheduleExponential.factor", true, 0, 1e6, false, true, NULL, "factor per step"},
    {"ScheduleCosine.final", false, 0, 1e6, false, false, "0", "rate at the end"},
    {"Evaluate.every", false, 1, 1e6, false, false, "1", "epochs"},
    {"Evaluate.on", false, ANY, NULL, "validation or test (default: validation if there is any)"},
    {"Checkpoint.every", false, 1, U64, false, false, "500", "steps"},
    {"Checkpoint.keep", false, 1, COP_CHECKPOINTS_KEPT_MAX, false, false, "3",
     "how many are kept, beside the best"},
    {0},
};

const cop_field_row *cop_fields_all(void) {
    return rows;
}

/* Rows are few and this is no hot path. */
const cop_field_row *cop_fields_find(const ProtobufCMessageDescriptor *message,
                                     const ProtobufCFieldDescriptor *field) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", message->short_name, field->name);
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

size_t cop_fields_most(const ProtobufCFieldDescriptor *field) {
    if (strcmp(field->name, "class_names") == 0) return COP_CLASSES_MAX;
    if (strcmp(field->name, "resize") == 0) return 2;
    return field->type == PROTOBUF_C_TYPE_DOUBLE ? COP_STATISTICS_MAX : COP_LAYERS_MAX;
}

const ProtobufCFieldDescriptor *cop_fields_bare(const ProtobufCMessageDescriptor *message) {
    if (strcmp(message->short_name, "DataFiles") != 0) return NULL;
    return protobuf_c_message_descriptor_get_field_by_name(message, "path");
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

static const char *const later[] = {"Train.precision.bf16", "Train.wire.bf16", NULL};

const char *const *cop_fields_later_names(void) {
    return later;
}

bool cop_fields_later(const char *message, const char *name) {
    char whole[128];
    snprintf(whole, sizeof whole, "%s.%s", message, name);
    for (size_t i = 0; later[i]; i++)
        if (strcmp(later[i], whole) == 0) return true;
    return false;
}
