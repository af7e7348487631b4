/* Small jobs on synthetic digits. */
#ifndef COP_TESTS_JOB_FIXTURE_H
#define COP_TESTS_JOB_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/job/job.h"
#include "common/wire/codec.h"

#define SMALL_JOB                                                                                  \
    "name: small\n"                                                                                \
    "data: {source: synthetic-digits}\n"                                                           \
    "model:\n"                                                                                     \
    "  - dropout: {p: 0.2}\n"                                                                      \
    "  - linear: {units: 9}\n"                                                                     \
    "  - relu\n"                                                                                   \
    "  - linear: {units: 10, max_norm: 2.5, bias: false}\n"                                        \
    "train: {epochs: 2, batch: 30, shards: 4}\n"                                                   \
    "optimizer: {sgd: {rate: 0.1, momentum: 0.9}}\n"

static inline cop_data *small_data(void) {
    cop_data *data = NULL;
    cop_error error = {0};
    if (cop_data_make_synthetic(3, 100, 40, &data, &error)) fail_msg("%s", error.text);
    return data;
}

static inline Coppice__Job *parse_job(const char *text) {
    Coppice__Job *message = NULL;
    cop_error error = {0};
    if (cop_document_parse_job(text, strlen(text), "job.yaml", &message, &error))
        fail_msg("%s", error.text);
    return message;
}

/* Makes the job in `text` after up to two assignments (`set` and `also`, in the syntax of --set;
 * NULL: none). Fails the test only if `text` is not a valid job file. */
static inline cop_err try_job(const char *text, const char *set, const char *also,
                              const cop_data *data, cop_job **out, cop_error *error) {
    Coppice__Job *message = parse_job(text);
    cop_err e = set ? cop_document_set(message, set, error) : COP_OK;
    if (!e && also) e = cop_document_set(message, also, error);
    if (!e) e = cop_job_create(message, data, out, error);
    if (e) cop_proto_free(&message->base);
    return e;
}

static inline cop_job *make_job(const char *set, const cop_data *data) {
    cop_job *job = NULL;
    cop_error error = {0};
    if (try_job(SMALL_JOB, set, NULL, data, &job, &error)) fail_msg("%s", error.text);
    return job;
}

/* Makes a new temporary folder. The caller removes it and frees its path (drop_folder). */
static inline char *new_folder(void) {
    char name[] = "/tmp/coppice-test-XXXXXX";
    assert_non_null(mkdtemp(name));
    return cop_strdup(name);
}

static inline void drop_folder(char *folder) {
    cop_folder_remove(folder, NULL);
    cop_free(folder);
}

static inline float *new_floats(const cop_job *job) {
    COP_ASSERT(job != NULL);
    return cop_alloc((size_t)cop_model_floats(job->model) * sizeof(float));
}

static inline float *first_weights(const cop_job *job) {
    float *flat = new_floats(job);
    cop_model_init(job->model, job->seed, flat);
    return flat;
}

/* A job, its weights and momentum, and a folder for saved files. */
typedef struct job_fixture {
    cop_data *data;
    cop_job *job;
    float *weights, *momentum;
    char *folder;
    size_t size; /* size of `weights`, and of `momentum`, in bytes */
} job_fixture;

/* Owns data, job and folder from now on. */
static inline job_fixture *job_fixture_open(cop_data *data, cop_job *job, char *folder) {
    job_fixture *f = cop_alloc(sizeof *f);
    *f = (job_fixture){.data = data,
                       .job = job,
                       .weights = first_weights(job),
                       .momentum = first_weights(job),
                       .folder = folder,
                       .size = (size_t)cop_model_floats(job->model) * sizeof(float)};
    return f;
}

/* cmocka's teardown. */
static inline int job_fixture_close(void **state) {
    job_fixture *f = *state;
    drop_folder(f->folder);
    cop_free(f->weights), cop_free(f->momentum);
    cop_job_release(f->job);
    cop_data_destroy(f->data);
    cop_free(f);
    return 0;
}

#endif
