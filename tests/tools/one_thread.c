/* Trains a whole job in one thread with only the libraries, without a coordinator and leases. It
 * computes each shard in a separate pass, and sums the gradients by D5's tree. Prints the digest of
 * the final weights. With an injected fault, the digest must differ from the digest without the
 * fault (tests/integration/test_golden.py).
 *
 *   one_thread JOB.yaml [flip|swap]
 *
 *   flip  flips one bit of the masks that each call of mask_fill makes, in step 3
 *   swap  exchanges the samples of the first two shards of step 3 */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/base/shards.h"
#include "common/job/job.h"

enum { FAULTY_STEP = 3 };

typedef struct run {
    const cop_job *job;
    const cop_data_part *part;
    cop_data_view view;
    cop_pass *pass;
    float *weights, *states[COP_OPTIMIZER_STATES_MAX], *gradients[COP_SHARDS_MAX];
    uint32_t *rows;
    int32_t *labels, sizes[COP_SHARDS_MAX];
    char *samples;
    bool swap;
} run;

static const cop_kernels *honest;

static void fill_but_one(const cop_mask_request *request) {
    honest->mask_fill(request);
    if (request->step == FAULTY_STEP) request->bits[0] ^= 1;
}

static int report(const cop_error *error) {
    fprintf(stderr, "%s\n", error->text);
    return 1;
}

/* Computes the gradient sum of one shard. Its samples begin at row `first_row` of the step's batch.
 */
static void train_shard(run *r, uint32_t step, int shard, int first_row, float *gradients) {
    const cop_shard_work work = {.seed = r->job->seed,
                                 .step = step,
                                 .shard_first = shard,
                                 .shard_count = 1,
                                 .shard_sizes = &r->sizes[shard]};
    const cop_samples samples = {.dtype = r->job->sample_type,
                                 .count = r->sizes[shard],
                                 .features = (int)r->job->features,
                                 .stride = r->part->stride,
                                 .rows = r->samples + (size_t)first_row * r->part->stride,
                                 .labels = r->labels + first_row};
    cop_pass_result result;
    cop_pass_train(r->pass, r->weights, &work, &samples, gradients, &result);
}

static void train_step(run *r, const cop_kernels *kernels, uint32_t step) {
    const cop_job *job = r->job;
    uint32_t count = 0, epoch = 0;
    int16_t ops[2 * COP_SHARDS_MAX];
    bool present[COP_SHARDS_MAX];
    const int shards = (int)job->shards;
    const cop_data_batches batches = {job->seed, r->view.train, job->batch, job->last_keep};
    cop_data_batch_rows(&batches, step, r->rows, &count, &epoch);
    const cop_data_destination room = {.samples = r->samples,
                                       .bytes = job->batch * r->part->stride,
                                       .labels = r->labels,
                                       .count = job->batch};
    cop_data_view_gather(&r->view, r->rows, count, &room);
    cop_shard_sizes(count, job->shards, r->sizes);
    int starts[COP_SHARDS_MAX] = {0};
    for (int s = 1; s < shards; s++) starts[s] = starts[s - 1] + r->sizes[s - 1];
    const bool swap = r->swap && step == FAULTY_STEP;
    for (int s = 0; s < shards; s++) {
        present[s] = r->sizes[s] > 0;
        const int from = swap && s < 2 ? !s : s; /* shards 0 and 1 must have equally many samples */
        if (present[s]) train_shard(r, step, s, starts[from], r->gradients[s]);
    }
    const cop_tree tree = {
        .count = shards, .op_count = cop_tree_build(shards, present, ops), .ops = ops};
    const cop_update update = {.model = job->model,
                               .kernels = kernels,
                               .spec = &job->optimizer,
                               .step = step,
                               .batch = count,
                               .gradients = (const float *const *)r->gradients,
                               .tree = &tree,
                               .w_in = r->weights,
                               .w_out = r->weights,
                               .states = {r->states[0], r->states[1]}};
    cop_update_run(&update, 0, 1);
}

static void train(run *r, const cop_kernels *kernels) {
    const size_t floats = (size_t)cop_model_floats(r->job->model);
    r->weights = cop_alloc_array(floats, sizeof(float));
    for (int i = 0; i < cop_optimizer_states(&r->job->optimizer); i++)
        r->states[i] = cop_alloc_array(floats, sizeof(float));
    for (uint32_t s = 0; s < r->job->shards; s++)
        r->gradients[s] = cop_alloc_array(floats, sizeof(float));
    r->rows = cop_alloc_array(r->job->batch, sizeof *r->rows);
    r->labels = cop_alloc_array(r->job->batch, sizeof *r->labels);
    r->samples = cop_alloc_array(r->job->batch, r->part->stride);
    cop_model_init(r->job->model, r->job->seed, r->weights);
    for (uint64_t step = 1; step <= r->job->steps; step++) train_step(r, kernels, (uint32_t)step);
}

static void drop(run *r) {
    cop_pass_destroy(r->pass);
    cop_free(r->weights);
    for (int i = 0; i < COP_OPTIMIZER_STATES_MAX; i++) cop_free(r->states[i]);
    for (uint32_t s = 0; s < COP_SHARDS_MAX; s++) cop_free(r->gradients[s]);
    cop_free(r->rows);
    cop_free(r->labels);
    cop_free(r->samples);
}

int main(int argc, char **argv) {
    cop_error error = {0};
    Coppice__Job *message = NULL;
    cop_data *data = NULL;
    cop_job *job = NULL;
    run r = {.swap = argc > 2 && strcmp(argv[2], "swap") == 0};
    if (argc < 2 || (argc > 2 && !r.swap && strcmp(argv[2], "flip") != 0)) {
        fprintf(stderr, "usage: one_thread JOB.yaml [flip|swap]\n");
        return 2;
    }
    if (cop_document_read_job(argv[1], &message, &error) ||
        cop_job_open_data(message, argv[1], NULL, &data, &error) ||
        cop_job_create(message, data, &job, &error) || cop_job_view(job, data, &r.view, &error) ||
        cop_kernels_choose(&honest, &error))
        return report(&error);
    cop_kernels kernels = *honest;
    if (argc > 2 && !r.swap) kernels.mask_fill = fill_but_one;
    r.job = job;
    r.part = &data->train;
    if (cop_pass_create(job->model, &kernels, job->numerics, (int)job->batch, COP_PASS_TRAIN,
                        &r.pass, &error))
        return report(&error);
    train(&r, &kernels);
    unsigned char digest[32];
    if (cop_model_digest(job->model, r.weights, digest, &error)) return report(&error);
    for (int i = 0; i < 32; i++) printf("%02x", digest[i]);
    printf("\n");
    drop(&r);
    cop_job_release(job);
    cop_data_destroy(data);
    return 0;
}
