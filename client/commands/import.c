/* coppice import: turns weights trained by another program into a model file, or into a run folder
 * from which training can continue. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/load/run_folder.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/interchange/import.h"

/* A run folder that is being written. */
typedef struct new_folder {
    const char *path;
    char *job;         /* path of its job.yaml */
    char *checkpoints; /* path of its folder `checkpoints` */
    bool existed;      /* the folder existed before this command */
} new_folder;

/* Writes job.yaml, and a checkpoint of step 0 with the imported weights. `run --resume` can start
 * from this checkpoint. */
static cop_err fill_folder(const new_folder *f, const cop_job *job, const float *flat,
                           cop_error *error) {
    COP_ASSERT(f->job && f->checkpoints);
    float *zeros = cop_alloc_array((size_t)cop_model_floats(job->model), sizeof *zeros);
    const cop_checkpoint start = {.weights = flat, .states = {zeros, zeros}};
    cop_str yaml = {0};
    cop_document_print_yaml(&job->message->base, &yaml);
    cop_err e = zeros && !yaml.failed ? COP_OK : cop_no_memory(error);
    if (!e) e = cop_checkpoint_save(job, f->path, &start, error);
    if (!e) e = cop_file_write_text(f->job, cop_str_text(&yaml), error);
    cop_str_fini(&yaml);
    cop_free(zeros);
    return e;
}

/* Removes from the folder what this command wrote; the folder too if it did not exist before. */
static void undo_folder(const new_folder *f) {
    if (!f->existed) {
        cop_folder_remove(f->path, NULL);
        return;
    }
    cop_folder_remove(f->checkpoints, NULL);
    cop_file_remove(f->job, NULL);
}

static cop_err write_folder(const cop_job *job, const float *flat, const char *path,
                            cop_error *error) {
    new_folder f = {.path = path,
                    .job = cop_path_join(path, "job.yaml"),
                    .checkpoints = cop_path_join(path, "checkpoints"),
                    .existed = cop_folder_exists(path)};
    cop_err e = f.job && f.checkpoints ? COP_OK : cop_no_memory(error);
    if (!e) {
        e = cop_folder_create(path, error);
        if (!e) e = fill_folder(&f, job, flat, error);
        if (e) undo_folder(&f);
    }
    cop_free(f.checkpoints);
    cop_free(f.job);
    return e;
}

static void print_result(const cli_options *options, const cop_job *job, const char *digest) {
    if (options->json)
        cli_print("{\"digest\":\"%s\",\"parameters\":%lld}\n", digest,
                  (long long)cop_model_weights(job->model));
    else
        cli_print("%lld parameters  digest %s\n", (long long)cop_model_weights(job->model), digest);
    if (options->out && !options->json)
        cli_print("to train these weights further: coppice run %s --resume %s\n", options->spec,
                  options->out);
}

static cop_err write_all(const cli_options *options, const cop_job *job, const float *flat,
                         cop_error *error) {
    unsigned char digest[32];
    char hex[65];
    const bool replaced = options->output && cop_file_exists(options->output);
    /* The folder is checked before -o is written. Otherwise the command could replace an older file
     * and then fail because of the folder. */
    if (options->out && cli_run_folder_check_free(options->out, error))
        return cop_error_prefix(error, "--out");
    COP_TRY(cop_model_digest(job->model, flat, digest, error));
    cop_hex32(digest, hex);
    cop_err e = COP_OK;
    if (options->output) e = cop_job_save_model(job, flat, 0, options->output, error);
    if (!e && options->out) e = write_folder(job, flat, options->out, error);
    if (e && options->output && !replaced && cop_file_exists(options->output))
        cop_file_remove(options->output, NULL);
    if (!e) print_result(options, job, hex);
    return e;
}

cop_err cli_import(const cli_options *options, cop_error *error) {
    cop_job *job;
    cop_data *data;
    if (!options->spec)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected --spec JOB.yaml: the job file of these weights");
    if (!options->output && !options->out)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected -o FILE (a model) or --out DIR (a run to continue)");
    COP_TRY(cli_load_job(options->spec, options, &job, &data, error));
    float *flat = cop_alloc_array((size_t)cop_model_floats(job->model), sizeof *flat);
    cop_err e = flat ? cop_import_weights(job->model, options->positional[0], flat, error)
                     : cop_no_memory(error);
    if (!e) e = write_all(options, job, flat, error);
    cop_free(flat);
    cop_job_release(job);
    cop_data_destroy(data);
    return e;
}
