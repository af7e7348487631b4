/* coppice replay: recomputes one shard of one step and writes all its tensors as safetensors. */
#include <stdio.h>

#include "client/cli.h"
#include "client/load/run_folder.h"
#include "common/base/file.h"
#include "common/job/replay.h"

static cop_err check_step(const cop_job *job, uint64_t trained, int64_t step, cop_error *error) {
    if (step >= 1 && (uint64_t)step <= trained) return COP_OK;
    if (!trained)
        return cop_fail(error, COP_ERR_INPUT,
                        "--step is %lld, but job %s has not completed any step: its weights are "
                        "the initial ones",
                        (long long)step, job->message->name);
    return cop_fail(error, COP_ERR_INPUT,
                    "--step is %lld: job %s was trained for %llu steps, expected 1 to %llu",
                    (long long)step, job->message->name, (unsigned long long)trained,
                    (unsigned long long)trained);
}

/* Trains up to the step before the one that --step names, and shows the progress. If `path` is a
 * run folder, it starts from the newest usable checkpoint before that step. *began becomes the step
 * that it started from. */
static cop_err train_up_to(cop_replay *replay, const char *path, const cli_options *options,
                           uint64_t *began, cop_error *error) {
    const uint64_t step = (uint64_t)options->step;
    cli_progress progress;
    cop_str notes = {0};
    cop_err e = COP_OK;
    COP_ASSERT(options->step >= 1);
    if (cop_folder_exists(path)) e = cop_replay_load(replay, path, step - 1, &notes, error);
    if (notes.length && !options->quiet) cli_note("coppice replay: %s\n", cop_str_text(&notes));
    cop_str_fini(&notes);
    const uint64_t first = *began = cop_replay_step(replay);
    cli_progress_start(&progress, options->quiet);
    while (!e && cop_replay_step(replay) < step - 1) {
        char text[64];
        const uint64_t done = cop_replay_step(replay);
        snprintf(text, sizeof text, "step %llu of %llu", (unsigned long long)done,
                 (unsigned long long)step);
        cli_progress_show(&progress, (double)(done - first) / (double)(step - first), text);
        e = cop_replay_advance(replay, error);
    }
    cli_progress_end(&progress);
    return e;
}

static void print_result(const cli_options *options, uint64_t began, uint64_t step) {
    cop_str quoted = {0};
    if (options->json)
        cli_print("{\"output\":%s,\"step\":%llu,\"shard\":%lld,\"from_step\":%llu}\n",
                  cli_quote(&quoted, options->output), (unsigned long long)step,
                  (long long)options->shard, (unsigned long long)began);
    else
        cli_print("%s  step %llu, shard %lld\n", options->output, (unsigned long long)step,
                  (long long)options->shard);
    cop_str_fini(&quoted);
}

static cop_err replay_model(const cli_options *options, const char *path, const cli_model *m,
                            cop_error *error) {
    const cop_kernels *kernels;
    unsigned char digest[32];
    cop_data *data = NULL;
    cop_replay *replay = NULL;
    uint64_t began = 0;
    COP_TRY(check_step(m->job, m->step, options->step, error));
    COP_TRY(cli_choose_kernels(&kernels, digest, error));
    COP_TRY(cli_run_folder_open_data(m->job->message, path, options, &data, error));
    cop_err e = cop_replay_create(m->job, data, kernels, &replay, error);
    if (!e) e = train_up_to(replay, path, options, &began, error);
    if (!e) e = cop_replay_write(replay, (uint32_t)options->shard, options->output, error);
    if (!e) print_result(options, began, (uint64_t)options->step);
    cop_replay_destroy(replay);
    cop_data_destroy(data);
    return e;
}

cop_err cli_replay(const cli_options *options, cop_error *error) {
    const char *name = options->positional[0];
    cli_model m;
    if (!options->has_step)
        return cop_fail(error, COP_ERR_USAGE, "expected --step T: the step to compute again");
    if (!options->output)
        return cop_fail(error, COP_ERR_USAGE, "expected -o FILE: the file to write");
    if (cli_is_job(name))
        COP_TRY(cli_model_fetch(options, &m, error));
    else
        COP_TRY(cli_model_open(name, &m, error));
    cop_err e = replay_model(options, name, &m, error);
    cli_model_close(&m);
    return e;
}
