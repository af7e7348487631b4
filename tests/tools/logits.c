/* Computes the output of a model's last layer in evaluation, for comparison with other programs
 * (tests/parity/test_export.py).
 *
 *   logits MODEL <ROWS >OUTPUTS
 *
 * Standard input contains samples in the type of the job's data. Standard output gets the outputs
 * as f32, one row for each sample. */
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/job/job.h"

enum { COLUMNS = 64 };

static int fail(const char *what) {
    fprintf(stderr, "logits: %s\n", what);
    return 1;
}

static bool write_outputs(const float *logits, int count, int outputs, int ld) {
    for (int i = 0; i < count; i++)
        for (int o = 0; o < outputs; o++)
            if (fwrite(logits + (ptrdiff_t)o * ld + i, sizeof *logits, 1, stdout) != 1)
                return false;
    return true;
}

/* Reads, computes and writes COLUMNS samples at a time. */
static bool run(const cop_job *job, const float *flat, cop_pass *pass) {
    const size_t size = job->sample_stride;
    char *rows = cop_alloc(COLUMNS * size);
    cop_eval_place place = {.seed = job->seed};
    bool ok = rows != NULL;
    for (size_t count = COLUMNS; ok && count == COLUMNS; place.first_sample += COLUMNS) {
        count = fread(rows, size, COLUMNS, stdin);
        int ld;
        const cop_samples samples = {.dtype = job->sample_type,
                                     .count = (int)count,
                                     .features = (int)job->features,
                                     .stride = size,
                                     .rows = rows};
        if (!count) break;
        const float *logits = cop_pass_logits(pass, flat, &place, &samples, &ld);
        ok = write_outputs(logits, (int)count, cop_model_outputs(job->model), ld);
    }
    cop_free(rows);
    return ok && feof(stdin);
}

int main(int argc, char **argv) {
    cop_error error = {0};
    cop_saved_model m;
    const cop_kernels *kernels;
    cop_pass *pass;
    if (argc != 2) return fail("usage: logits MODEL");
    if (cop_job_open_model(argv[1], &m, &error) || cop_kernels_choose(&kernels, &error) ||
        cop_pass_create(m.job->model, kernels, m.job->numerics, COLUMNS, COP_PASS_EVAL, &pass,
                        &error))
        return fail(error.text);
    const bool done = run(m.job, m.flat, pass);
    cop_pass_destroy(pass);
    cop_free(m.flat);
    cop_job_release(m.job);
    return done ? 0 : fail("a sample that is not whole");
}
