/* A small job on synthetic digits, and its leases as a coordinator gives them. */
#ifndef COP_TESTS_WORKER_FIXTURE_H
#define COP_TESTS_WORKER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/shards.h"
#include "common/job/job.h"
#include "common/wire/codec.h"
#include "common/wire/message.h"

#define BATCH  50
#define SHARDS 7 /* one shard of 8 samples and six of 7; their tree is not full */

typedef struct fixture {
    cop_data *data;
    cop_job *job;
    cop_buffer *spec, *weights;
    cop_data_view view;
} fixture;

static void make_fixture_with(fixture *f, uint64_t seed, const char *wire) {
    char text[1024];
    cop_error error = {0};
    Coppice__Job *message = NULL;
    int length = snprintf(text, sizeof text,
                          "name: small\nseed: %llu\ndata: {source: synthetic-digits}\nmodel:\n"
                          "  - dropout: {p: 0.2}\n  - linear: {units: 33}\n  - relu: {}\n"
                          "  - dropout: {p: 0.5}\n  - linear: {units: 10}\nloss: cross_entropy\n"
                          "train: {steps: 20, batch: %d, shards: %d, wire: %s}\n"
                          "optimizer: {sgd: {rate: 0.1, momentum: 0.9}}\n",
                          (unsigned long long)seed, BATCH, SHARDS, wire);
    cop_err e = cop_data_make_synthetic(1, 553, 300, &f->data, &error);
    if (!e) e = cop_document_parse_job(text, (size_t)length, "test", &message, &error);
    if (!e) e = cop_job_create(message, f->data, &f->job, &error);
    if (!e) e = cop_job_view(f->job, f->data, &f->view, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    assert_int_equal(e, COP_OK);
    f->spec = cop_job_pack(f->job);
    f->weights = cop_buffer_create((size_t)cop_model_floats(f->job->model) * sizeof(float));
    cop_model_init(f->job->model, f->job->seed, f->weights->data);
}

static void make_fixture(fixture *f, uint64_t seed) {
    make_fixture_with(f, seed, "f32");
}

static void drop_fixture(fixture *f) {
    cop_buffer_release(f->spec);
    cop_buffer_release(f->weights);
    cop_job_release(f->job);
    cop_data_destroy(f->data);
}

static size_t gradient_size(const fixture *f) {
    return (size_t)cop_model_floats(f->job->model) * sizeof(float);
}

/* A lease of shards `first` to `first + count - 1` of a step. If `whole`, it contains the weights
 * and the job. */
static inline cop_message train_lease(const fixture *f, uint64_t step, uint32_t first,
                                      uint32_t count, bool whole) {
    uint32_t rows[BATCH], batch, epoch, skipped = 0, taken = 0;
    int32_t sizes[SHARDS];
    const cop_data_part *part = &f->data->train;
    const cop_data_batches batches = {f->job->seed, f->view.train, BATCH, true};
    cop_data_batch_rows(&batches, step, rows, &batch, &epoch);
    cop_shard_sizes(batch, SHARDS, sizes);
    for (uint32_t i = 0; i < first; i++) skipped += (uint32_t)sizes[i];
    for (uint32_t i = 0; i < count; i++) taken += (uint32_t)sizes[first + i];
    cop_message m = {.type = COP_MESSAGE_LEASE};
    m.lease = (cop_lease){.kind = COP_LEASE_TRAIN,
                          .lease = step * 100 + first,
                          .job = 5,
                          .step = step,
                          .version = 0,
                          .attempt = 1,
                          .first = first,
                          .count = count,
                          .batch = batch};
    m.part[COP_PART_SAMPLES] = cop_buffer_create(taken * part->stride);
    m.part[COP_PART_LABELS] = cop_buffer_create(taken * sizeof(int32_t));
    const cop_data_destination room =
        cop_data_destination_of(m.part[COP_PART_SAMPLES], m.part[COP_PART_LABELS]);
    cop_data_gather(part, rows + skipped, taken, &room);
    if (!whole) return m;
    m.part[COP_PART_WEIGHTS] = cop_buffer_hold(f->weights);
    m.part[COP_PART_JOB] = cop_buffer_hold(f->spec);
    return m;
}

static inline cop_message evaluate_lease(const fixture *f, uint32_t count, bool whole) {
    const cop_data_part *part = &f->data->test;
    cop_message m = {.type = COP_MESSAGE_LEASE};
    m.lease =
        (cop_lease){.kind = COP_LEASE_EVALUATE, .lease = 9999, .job = 5, .step = 3, .count = count};
    m.part[COP_PART_SAMPLES] = cop_buffer_create(count * part->stride);
    m.part[COP_PART_LABELS] = cop_buffer_create(count * sizeof(int32_t));
    const cop_data_destination room =
        cop_data_destination_of(m.part[COP_PART_SAMPLES], m.part[COP_PART_LABELS]);
    cop_data_copy(part, 0, count, &room);
    if (!whole) return m;
    m.part[COP_PART_WEIGHTS] = cop_buffer_hold(f->weights);
    m.part[COP_PART_JOB] = cop_buffer_hold(f->spec);
    return m;
}

static inline cop_message ensemble_lease(const fixture *f, uint32_t count, uint32_t member,
                                         uint32_t members) {
    cop_message m = evaluate_lease(f, count, true);
    m.lease.kind = COP_LEASE_ENSEMBLE;
    m.lease.step = 4;
    m.lease.member = member;
    m.lease.members = members;
    return m;
}

#endif
