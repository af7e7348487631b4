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
    {"Limits.workers", false, 0, COP_WORKERS_MAX, false, false, "0",
     "workers at a time; 0: any number"},
    {"Limits.timeout", false, 0, 1e9, false, false, "0", "seconds of training; 0: any"},
    {"Limits.memory", false, 0, U64, false, false, "0",
     "bytes that one compute thread of a worker may need; 0: any"},
    {"Data.source", true, ANY, NULL,
     "mnist, idx, synthetic-digits, or the name of a set that the coordinator has"},
    {"Data.train", false, ANY, NULL, "files of the training part, for idx"},
    {"Data.test", false, ANY, NULL, "files of the test part, for idx"},
    {"Data.validation", false, 0, U32, false, false, "0",
     "the last so many training samples are set aside"},
    {"Data.samples", false, 0, U32, false, false, "0",
     "use only the first so many training samples; 0: all"},
    {"DataFiles.images", true, ANY, NULL, "IDX file of samples"},
    {"DataFiles.labels", true, ANY, NULL, "IDX file of labels"},
    {"Layer.linear", false, ANY, NULL, "y = W x + b"},
    {"Layer.relu", false, ANY, NULL, "y = max(x, 0)"},
    {"Layer.dropout", false, ANY, NULL, "drops units with probability p"},
    {"Layer.flatten", false, ANY, NULL, "one vector of what comes in"},
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

const ProtobufCFieldDescriptor *cop_fields_excluded(const ProtobufCMessageDescriptor *message,
                                                    const ProtobufCFieldDescriptor *field) {
    static const char *const pairs[][3] = {{"Train", "epochs", "steps"},
                                           {"Train", "steps", "epochs"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(message->short_name, pairs[i][0]) == 0 && strcmp(field->name, pairs[i][1]) == 0)
            return protobuf_c_message_descriptor_get_field_by_name(message, pairs[i][2]);
    return NULL;
}

static const char *const later[] = {"Job.audit",
                                    "Data.target",
                                    "Data.normalize",
                                    "Data.augment",
                                    "Data.label",
                                    "Layer.conv2d",
                                    "Layer.max_pool2d",
                                    "Layer.avg_pool2d",
                                    "Layer.maxout",
                                    "Layer.dropconnect",
                                    "Layer.spatial_dropout",
                                    "Layer.gaussian_dropout",
                                    "Layer.alpha_dropout",
                                    "Layer.leaky_relu",
                                    "Layer.sigmoid",
                                    "Layer.tanh",
                                    "Layer.selu",
                                    "Layer.gelu",
                                    "Layer.softmax",
                                    "Loss.mse",
                                    "Loss.bce",
                                    "Optimizer.adam",
                                    "Optimizer.adamw",
                                    "Optimizer.rmsprop",
                                    "Optimizer.adagrad",
                                    "Train.precision.bf16",
                                    "Train.wire.bf16",
                                    NULL};

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
