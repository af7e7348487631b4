/* Fuzz target: random bytes as a model file, and as a file of weights to import. A refusal must
 * have a message. An accepted model file must be accepted again after saving, with the same
 * weights. Imported weights must be finite. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/interchange/import.h"
#include "common/base/alloc.h"
#include "common/job/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_model(const uint8_t *data, size_t size) {
    cop_saved_model m, again;
    cop_error error = {0};
    cop_buffer *bytes;
    if (cop_job_decode_model(data, size, "fuzz", &m, &error)) {
        if (!error.code || !error.text[0] || m.job || m.flat) __builtin_trap();
        return;
    }
    if (cop_job_encode_model(m.job, m.flat, m.step, &bytes, NULL)) __builtin_trap();
    if (cop_job_decode_model(bytes->data, bytes->size, "again", &again, NULL)) __builtin_trap();
    const size_t floats = (size_t)cop_model_floats(m.job->model) * sizeof *m.flat;
    if (again.step != m.step || memcmp(m.flat, again.flat, floats) != 0) __builtin_trap();
    cop_buffer_release(bytes);
    cop_free(m.flat);
    cop_free(again.flat);
    cop_job_release(m.job);
    cop_job_release(again.job);
}

/* Imports the bytes as weights of this job. */
static void as_weights(const cop_job *job, const uint8_t *data, size_t size) {
    cop_safetensors *file = NULL;
    cop_error error = {0};
    if (cop_safetensors_decode(data, size, "fuzz", &file, &error)) {
        if (!error.code || !error.text[0] || file) __builtin_trap();
        return;
    }
    const int64_t floats = cop_model_floats(job->model);
    float *flat = cop_alloc_array((size_t)floats, sizeof *flat);
    const cop_err e = cop_import_tensors(job->model, file, "fuzz", flat, &error);
    if (e && (!error.code || !error.text[0])) __builtin_trap();
    for (int64_t i = 0; i < floats && !e; i++)
        if (!isfinite(flat[i])) __builtin_trap();
    cop_free(flat);
    cop_safetensors_close(file);
}

/* A network with few weights. */
#define FUZZ_JOB                                                                                   \
    "name: fuzz\n"                                                                                 \
    "data: {source: synthetic-digits}\n"                                                           \
    "model: [max_pool2d: {kernel: 14}, conv2d: {channels: 2, kernel: 2}, flatten, linear: "        \
    "{units: 10}]\n"                                                                               \
    "train: {steps: 1, batch: 2, shards: 1}\n"                                                     \
    "optimizer: {sgd: {rate: 0.1}}\n"

static const cop_job *fuzz_network(void) {
    static cop_job *job;
    Coppice__Job *message = NULL;
    cop_data *data = NULL;
    if (job) return job;
    if (cop_data_make_synthetic(3, 20, 10, &data, NULL) ||
        cop_document_parse_job(FUZZ_JOB, sizeof FUZZ_JOB - 1, "job.yaml", &message, NULL) ||
        cop_job_create(message, data, &job, NULL))
        __builtin_trap();
    cop_data_destroy(data);
    return job;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    as_model(data, size);
    as_weights(fuzz_network(), data, size);
    return 0;
}
