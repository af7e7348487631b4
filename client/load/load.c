/* Job files, data, kernels and evaluation for commands that compute in this process. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/load/run_folder.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/job/block.h"
#include "common/wire/codec.h"

/* Reads a job file from standard input. */
static cop_err read_standard_input(Coppice__Job **out, cop_error *error) {
    char *text = cop_alloc(COP_JOB_FILE_MAX + 1);
    if (!text) return cop_no_memory(error);
    const size_t size = fread(text, 1, COP_JOB_FILE_MAX + 1, stdin);
    cop_err e;
    if (ferror(stdin))
        e = cop_fail(error, COP_ERR_IO, "cannot read standard input");
    else if (size > COP_JOB_FILE_MAX)
        e = cop_fail(error, COP_ERR_LIMIT,
                     "standard input: job file too large: the limit is %u bytes", COP_JOB_FILE_MAX);
    else
        e = cop_document_parse_job(text, size, "standard input", out, error);
    cop_free(text);
    return e;
}

cop_err cli_read_job(const char *path, const cli_options *options, Coppice__Job **out,
                     cop_error *error) {
    Coppice__Job *job = NULL;
    if (strcmp(path, "-") == 0)
        COP_TRY(read_standard_input(&job, error));
    else
        COP_TRY(cop_document_read_job(path, &job, error));
    cop_err e = COP_OK;
    for (int i = 0; i < options->set_count && !e; i++)
        e = cop_document_set(job, options->sets[i], error);
    if (e) {
        cop_proto_free(&job->base);
        return e;
    }
    *out = job;
    return COP_OK;
}

cop_err cli_load_job(const char *path, const cli_options *options, cop_job **job, cop_data **data,
                     cop_error *error) {
    Coppice__Job *message = NULL;
    cop_data *set = NULL;
    COP_TRY(cli_read_job(path, options, &message, error));
    cop_err e = cli_run_folder_open_job_data(message, path, options, &set, error);
    if (!e) e = cop_job_create(message, set, job, error);
    if (e) {
        cop_proto_free(&message->base);
        if (set) cop_data_destroy(set);
        return e;
    }
    *data = set;
    return COP_OK;
}

cop_err cli_choose_kernels(const cop_kernels **kernels, unsigned char self_test[32],
                           cop_error *error) {
    COP_TRY(cop_kernels_choose(kernels, error));
    cop_compute_thread_init();
    return cop_self_test(*kernels, self_test, error);
}

cop_err cli_evaluate(const cop_job *job, const cop_data *data, const float *flat,
                     Coppice__Api__EvalResult *out, cop_error *error) {
    const cop_kernels *kernels;
    unsigned char digest[32];
    cop_pass *pass;
    uint64_t began = cop_clock_ns();
    COP_TRY(cli_choose_kernels(&kernels, digest, error));
    if (!data->test.count)
        return cop_fail(error, COP_ERR_INPUT, "data set %s has no test samples", data->name);
    COP_TRY(cop_pass_create(job->model, kernels, job->numerics, COP_EVAL_COLUMNS, COP_PASS_EVAL,
                            &pass, error));
    double loss = 0;
    uint64_t correct = 0;
    for (uint32_t first = 0; first < data->test.count; first += COP_EVAL_SLICE) {
        const uint32_t rest = data->test.count - first;
        const cop_block block = {.job = job,
                                 .weights = flat,
                                 .rows = data->test.samples,
                                 .labels = data->test.labels,
                                 .first = (int)first,
                                 .count = (int)(rest < COP_EVAL_SLICE ? rest : COP_EVAL_SLICE)};
        cop_pass_result slice;
        cop_block_evaluate(pass, &block, first, &slice);
        loss += slice.loss;
        correct += (uint64_t)slice.correct;
    }
    cop_pass_destroy(pass);
    COP_ASSERT(correct <= data->test.count);
    out->has_loss = out->has_samples = out->has_seconds = 1;
    out->has_error = cop_model_has_classes(job->model);
    out->samples = data->test.count;
    out->error = (double)(data->test.count - correct) / (double)data->test.count;
    out->loss = loss / (double)data->test.count;
    out->seconds = (double)(cop_clock_ns() - began) * 1e-9;
    return COP_OK;
}
