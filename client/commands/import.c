/* coppice import: weights that were trained elsewhere become a model of a job, or a run folder to
 * go on from. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"

/* The run folder: job.yaml and a checkpoint of step 0, where `run --resume` begins. */
static cop_err write_folder(const cop_job *job, const float *flat, const char *folder,
                            cop_error *error) {
    const size_t floats = (size_t)cop_model_floats(job->model);
    float *zeros = cop_alloc_array(floats, sizeof *zeros);
    char *path = cop_path_join(folder, "job.yaml");
    char *old = cop_path_join(folder, "checkpoints");
    cop_str yaml = {0};
    cop_document_print_yaml(&job->message->base, &yaml);
    cop_err e = zeros && path && old && !yaml.failed
                    ? COP_OK
                    : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = cop_folder_create(folder, error);
    if (!e && cop_folder_exists(old))
        e = cop_fail(error, COP_ERR_INPUT,
                     "--out: %s holds the checkpoints of a run already; choose another folder",
                     folder);
    const cop_checkpoint start = {.weights = flat, .states = {zeros, zeros}, .best_error = -1};
    if (!e) e = cop_checkpoint_save(job, folder, &start, error);
    if (!e) e = cop_file_write_text(path, cop_str_text(&yaml), error);
    cop_str_fini(&yaml);
    cop_free(old);
    cop_free(path);
    cop_free(zeros);
    return e;
}

static cop_err write_all(const cli_options *options, const cop_job *job, const float *flat,
                         cop_error *error) {
    unsigned char digest[32];
    char hex[65];
    COP_TRY(cop_model_digest(job->model, flat, digest, error));
    cop_hex32(digest, hex);
    if (options->out) COP_TRY(write_folder(job, flat, options->out, error));
    if (options->output) COP_TRY(cop_job_save_model(job, flat, 0, options->output, error));
    if (options->json)
        cli_print("{\"digest\":\"%s\",\"parameters\":%lld}\n", hex,
                  (long long)cop_model_weights(job->model));
    else
        cli_print("%lld parameters  digest %s\n", (long long)cop_model_weights(job->model), hex);
    if (options->out && !options->json)
        cli_print("go on from them: coppice run %s --resume %s\n", options->spec, options->out);
    return COP_OK;
}

cop_err cli_import(const cli_options *options, cop_error *error) {
    cop_job *job;
    cop_data *data;
    if (!options->spec)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected --spec JOB.yaml: the job that has these weights");
    if (!options->output && !options->out)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected -o FILE (a model), or --out DIR (a run to go on from)");
    COP_TRY(cli_load_job(options->spec, options, &job, &data, error));
    float *flat = cop_alloc_array((size_t)cop_model_floats(job->model), sizeof *flat);
    cop_err e = flat ? cop_job_import(job, options->positional[0], flat, error)
                     : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = write_all(options, job, flat, error);
    cop_free(flat);
    cop_job_destroy(job);
    cop_data_destroy(data);
    return e;
}
