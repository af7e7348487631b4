/* Computes leases on several threads. See compute.h. Each lease is cut into pieces that run in
 * parallel. The bits of the result do not depend on the number of threads:
 * - A TRAIN lease is an aligned block of shards. It is cut into smaller aligned blocks, whose
 *   gradients are added up in the order of the summation tree (D5).
 * - An EVALUATE lease is cut into parts of a fixed number of samples, whose sums are added in
 *   order.
 * - An ENSEMBLE lease is cut into its members. If there are more threads than members, each member
 *   is cut into ranges of samples. Each output depends only on its member and its sample. */
#include "worker/compute.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/shards.h"
#include "common/base/thread_pool.h"
#include "common/job/block.h"
#include "common/ensemble/ensemble.h"
#include "common/nn/loss.h"
#include "common/ensemble/members.h"

#define JOBS_KEPT   2
#define COLUMNS_MAX 1024 /* maximum samples per training pass, unless one shard has more */
#define PIECES_MAX  COP_SHARDS_MAX

/* A job that recent leases used. */
typedef struct kept_job {
    uint64_t id;
    uint64_t version; /* version of the weights plus 1; 0: no weights */
    uint64_t used;    /* worker_compute.clock at the last use */
    uint64_t spec_hash;
    cop_job *job;        /* NULL: this slot is empty */
    cop_buffer *weights; /* f32 */
    cop_values received; /* the type in which they were received */
    /* [threads]; each element is created when a lease first needs it */
    cop_pass **train;
    cop_pass **evaluate;
    cop_members **members;
    int train_columns;        /* maximum samples of a training pass */
    cop_buffer_pool *floats;  /* of gradients, and of weights that were received as bf16 */
    cop_buffer_pool *results; /* of gradients as they are sent */
} kept_job;

/* The part of a lease that one thread computes: rows [row, row + rows) of the lease's samples.
 * - Training: these rows are the shards [first, first + count) of the step.
 * - Evaluation: `first` and `count` are unused.
 * - Ensemble: the rows are run through member `first` of the lease (from 0); `count` is unused. */
typedef struct piece {
    int first;
    int count;
    int row;
    int rows;
    cop_buffer *gradient;   /* training only; NULL before the piece is computed */
    cop_pass_result result; /* training and evaluation only */
} piece;

struct worker_compute {
    const cop_kernels *kernels;
    int threads;
    cop_lane **lanes; /* (threads) of the profile; each may be NULL */
    kept_job jobs[JOBS_KEPT];
    uint64_t clock;  /* number of leases so far, as a time for kept_job.used */
    uint64_t newest; /* id of the job of the newest lease; 0: none */
    /* The fields below belong to the current lease. */
    kept_job *job; /* NULL: no lease is running */
    const cop_message *lease;
    cop_buffer *room; /* the buffer into which the gradient is written; NULL: none was offered */
    int32_t *shard_sizes;
    piece *pieces;
    int piece_count;
    cop_tree tree;
    int16_t *tree_ops;
    const float **tree_inputs;
    void *tree_out;           /* f32, or bf16 if the job has `wire: bf16` */
    const uint16_t *received; /* weights that are being widened to f32 */
    float *widened;
    size_t widened_count;
    double *losses;
    float *logits; /* [members][outputs][samples] of an ensemble lease */
    /* The fields below run items in parallel. */
    cop_thread_pool *pool; /* the other compute threads; NULL: there are none */
    cop_task work;
    void (*item)(worker_compute *compute, int thread, int item);
};

static void run_item(cop_task *task, int thread, int item) {
    worker_compute *c = (worker_compute *)(void *)((char *)task - offsetof(worker_compute, work));
    c->item(c, thread, item);
}

/* Runs item(c, thread, i) for each i from 0 to items - 1, on all compute threads. The caller's
 * thread has the number 0. */
static void run_all(worker_compute *c, int items, void (*item)(worker_compute *, int, int)) {
    COP_ASSERT(items >= 1);
    c->item = item;
    c->work = (cop_task){.run = run_item, .parts = items};
    cop_parallel_for(c->pool, &c->work);
}

cop_err worker_compute_create(int threads, const cop_kernels *kernels, worker_compute **out,
                              cop_error *error) {
    COP_ASSERT(threads >= 1 && threads <= COP_WORKER_THREADS_MAX);
    worker_compute *c = cop_alloc(sizeof *c);
    if (!c) return cop_no_memory(error);
    c->threads = threads;
    c->kernels = kernels;
    c->lanes = cop_alloc_array((size_t)threads, sizeof(cop_lane *));
    c->shard_sizes = cop_alloc_array(COP_SHARDS_MAX, sizeof *c->shard_sizes);
    c->pieces = cop_alloc_array(PIECES_MAX, sizeof *c->pieces);
    c->tree_ops = cop_alloc_array(2 * PIECES_MAX, sizeof *c->tree_ops);
    c->tree_inputs = cop_alloc_array(PIECES_MAX, sizeof *c->tree_inputs);
    c->losses = cop_alloc_array(PIECES_MAX, sizeof *c->losses);
    bool ok = c->lanes && c->shard_sizes && c->pieces && c->tree_ops && c->tree_inputs && c->losses;
    if (ok && threads > 1)
        ok = !cop_thread_pool_create(threads - 1, cop_compute_thread_init, &c->pool, NULL);
    if (!ok) {
        worker_compute_destroy(c);
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for %d compute threads", threads);
    }
    *out = c;
    return COP_OK;
}

void worker_compute_set_profile(worker_compute *c, cop_profile *profile, const char *name) {
    COP_ASSERT(!c->job);
    for (int i = 0; i < c->threads; i++) {
        char thread[32];
        snprintf(thread, sizeof thread, "compute %d", i + 1);
        c->lanes[i] = cop_profile_lane(profile, COP_LANE_WORKER, name, thread);
    }
}

cop_lane *worker_compute_lane(worker_compute *c) {
    return c->lanes[0];
}

/* ---- jobs ---- */

static void drop_job(worker_compute *c, kept_job *k) {
    for (int i = 0; i < c->threads; i++) {
        if (k->train && k->train[i]) cop_pass_destroy(k->train[i]);
        if (k->evaluate && k->evaluate[i]) cop_pass_destroy(k->evaluate[i]);
        if (k->members) cop_members_destroy(k->members[i]);
    }
    cop_free(k->train);
    cop_free(k->evaluate);
    cop_free(k->members);
    cop_buffer_release(k->weights);
    cop_buffer_pool_destroy(k->floats);
    cop_buffer_pool_destroy(k->results);
    if (k->job) cop_job_release(k->job);
    *k = (kept_job){0};
}

void worker_compute_forget(worker_compute *c) {
    COP_ASSERT(!c->job);
    for (int i = 0; i < JOBS_KEPT; i++) drop_job(c, &c->jobs[i]);
    c->newest = 0;
}

void worker_compute_destroy(worker_compute *c) {
    if (!c) return;
    cop_thread_pool_destroy(c->pool);
    worker_compute_forget(c);
    cop_free(c->lanes);
    cop_buffer_release(c->room);
    cop_free(c->shard_sizes);
    cop_free(c->pieces);
    cop_free(c->tree_ops);
    cop_free(c->tree_inputs);
    cop_free(c->losses);
    cop_free(c);
}

void worker_compute_set_room(worker_compute *c, cop_buffer *room) {
    COP_ASSERT(!c->job);
    cop_buffer *old = c->room;
    c->room = room ? cop_buffer_hold(room) : NULL;
    cop_buffer_release(old);
}

void worker_compute_held(const worker_compute *c, cop_pull *pull) {
    pull->have_job = pull->have_version = 0;
    pull->have_values = COP_VALUES_F32;
    for (int i = 0; i < JOBS_KEPT; i++) {
        if (!c->newest || c->jobs[i].id != c->newest) continue;
        pull->have_job = c->newest;
        pull->have_version = c->jobs[i].version;
        pull->have_values = c->jobs[i].received;
    }
}

static int shard_columns(const cop_job *job) {
    return (int)((job->batch + job->shards - 1) / job->shards);
}

/* The maximum number of samples of a training pass: a thread's share of all shards, or as many
 * shards as fit into COLUMNS_MAX samples if that is less, but at least one shard. */
static int train_columns(const cop_job *job, int threads) {
    int shard = shard_columns(job), share = ((int)job->shards + threads - 1) / threads;
    int fit = COLUMNS_MAX / shard;
    if (share < fit) fit = share;
    return shard * (fit < 1 ? 1 : fit);
}

/* Creates a job from its spec in the empty slot *k. On failure the slot stays empty. */
static cop_err make_job(worker_compute *c, kept_job *k, const cop_buffer *spec, cop_error *error) {
    COP_ASSERT(!k->job && !k->weights && !k->train);
    COP_TRY(cop_job_from_bytes(spec->data, spec->size, &k->job, error));
    k->train = cop_alloc_array((size_t)c->threads, sizeof(cop_pass *));
    k->evaluate = cop_alloc_array((size_t)c->threads, sizeof(cop_pass *));
    k->members = cop_alloc_array((size_t)c->threads, sizeof(cop_members *));
    k->floats = cop_buffer_pool_create((size_t)cop_model_floats(k->job->model) * sizeof(float));
    k->results = cop_buffer_pool_create(cop_job_sent_bytes(k->job));
    k->train_columns = train_columns(k->job, c->threads);
    k->spec_hash = cop_hash_xxh3(spec->data, spec->size);
    if (k->train && k->evaluate && k->members && k->floats && k->results) return COP_OK;
    drop_job(c, k);
    return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the job");
}

/* The slot of the job with this id. If no slot has it, the least recently used slot. */
static kept_job *choose_job(worker_compute *c, uint64_t id) {
    kept_job *oldest = &c->jobs[0];
    for (int i = 0; i < JOBS_KEPT; i++) {
        if (c->jobs[i].job && c->jobs[i].id == id) return &c->jobs[i];
        if (c->jobs[i].used < oldest->used) oldest = &c->jobs[i];
    }
    return oldest;
}

/* Finds the job of a lease, or creates it from the lease's spec. If the lease has a spec that
 * differs from the spec of the known job, the new job replaces the known one. */
static cop_err find_job(worker_compute *c, const cop_message *lease, kept_job **out,
                        cop_error *error) {
    const cop_buffer *spec = lease->part[COP_PART_JOB];
    kept_job *k = choose_job(c, lease->lease.job);
    bool known = k->job && k->id == lease->lease.job;
    if (known && spec) known = k->spec_hash == cop_hash_xxh3(spec->data, spec->size);
    if (!known && !spec)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the lease has no job spec, and this worker does not know the job");
    if (!known) {
        drop_job(c, k);
        COP_TRY(make_job(c, k, spec, error));
    }
    k->id = lease->lease.job;
    k->used = ++c->clock;
    *out = k;
    return COP_OK;
}

#define SUM_CHUNK 65536 /* values of one item of a parallel loop over weights or gradients */

static size_t chunk_count(size_t values) {
    return (values + SUM_CHUNK - 1) / SUM_CHUNK;
}

static void widen_item(worker_compute *c, int thread, int item) {
    const size_t begin = (size_t)item * SUM_CHUNK, rest = c->widened_count - begin;
    (void)thread;
    c->kernels->widen_bf16(c->received + begin, c->widened + begin,
                           rest < SUM_CHUNK ? rest : SUM_CHUNK);
}

/* Returns the received weights as f32, with one reference. NULL: out of memory. */
static cop_buffer *widen_weights(worker_compute *c, kept_job *k, cop_buffer *received,
                                 cop_values values) {
    if (values == COP_VALUES_F32) return cop_buffer_hold(received);
    cop_buffer *wide = cop_buffer_pool_take(k->floats);
    if (!wide) return NULL;
    c->received = received->data;
    c->widened = wide->data;
    c->widened_count = (size_t)cop_model_floats(k->job->model);
    run_all(c, (int)chunk_count(c->widened_count), widen_item);
    return wide;
}

/* Checks that the weights of the lease have the type of its kind: training computes with weights
 * that are rounded if the job has `wire: bf16`, evaluations never. */
static cop_err check_values(const kept_job *k, const cop_lease *l, cop_error *error) {
    const bool bf16 = k->job->bf16 && l->kind == COP_LEASE_TRAIN;
    if (l->weights_values == (bf16 ? COP_VALUES_BF16 : COP_VALUES_F32)) return COP_OK;
    return cop_fail(error, COP_ERR_PROTOCOL, "the weights are %s: expected %s",
                    bf16 ? "f32" : "bf16", bf16 ? "bf16" : "f32");
}

/* Keeps the weights that the lease contains. If it contains none, checks that the kept weights have
 * the lease's version and type. */
static cop_err take_weights(worker_compute *c, kept_job *k, const cop_message *lease,
                            cop_error *error) {
    const cop_lease *l = &lease->lease;
    cop_buffer *received = lease->part[COP_PART_WEIGHTS];
    COP_TRY(check_values(k, l, error));
    if (received) {
        const size_t expected =
            (size_t)cop_model_floats(k->job->model) * cop_values_size(l->weights_values);
        if (received->size != expected)
            return cop_fail(error, COP_ERR_PROTOCOL, "the weights have %zu bytes: expected %zu",
                            received->size, expected);
        cop_buffer_release(k->weights);
        k->weights = widen_weights(c, k, received, l->weights_values);
        k->version = k->weights ? l->version + 1 : 0;
        k->received = l->weights_values;
        if (!k->weights) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the weights");
    }
    if (!k->weights || k->version != l->version + 1 || k->received != l->weights_values)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the lease has no weights, and this worker does not have version %llu",
                        (unsigned long long)l->version);
    return COP_OK;
}

static cop_err make_passes(worker_compute *c, kept_job *k, bool train, cop_error *error) {
    cop_pass **passes = train ? k->train : k->evaluate;
    int columns = train ? k->train_columns : COP_EVAL_COLUMNS;
    for (int i = 0; i < c->threads; i++)
        if (!passes[i]) {
            COP_TRY(cop_pass_create(k->job->model, c->kernels, k->job->numerics, columns,
                                    train ? COP_PASS_TRAIN : COP_PASS_EVAL, &passes[i], error));
            cop_pass_set_lane(passes[i], c->lanes[i]);
        }
    return COP_OK;
}

/* ---- TRAIN ---- */

/* Cuts the shards [first, first + count) into aligned blocks of at most `limit` shards, and makes
 * c->pieces of them. */
static void cut_block(worker_compute *c, int first, int count, int limit) {
    int size = 1;
    while (size * 2 <= limit) size *= 2;
    if (count <= limit) size = count; /* one piece: the whole block is a node of the tree */
    c->piece_count = 0;
    int row = 0;
    for (int at = first; at < first + count;) {
        int n = first + count - at < size ? first + count - at : size, rows = 0;
        for (int i = 0; i < n; i++) rows += c->shard_sizes[at + i];
        COP_ASSERT(c->piece_count < PIECES_MAX);
        c->pieces[c->piece_count++] = (piece){.first = at, .count = n, .row = row, .rows = rows};
        row += rows;
        at += n;
    }
}

static void plan_pieces(worker_compute *c, const kept_job *k, const cop_lease *l) {
    int fit = k->train_columns / shard_columns(k->job);
    int share = ((int)l->count + c->threads - 1) / c->threads;
    COP_ASSERT(fit >= 1);
    cut_block(c, (int)l->first, (int)l->count, share < fit ? share : fit);
}

/* The samples of a piece, with the job and weights of the lease. */
static cop_block piece_block(const worker_compute *c, const piece *p) {
    return (cop_block){.job = c->job->job,
                       .weights = c->job->weights->data,
                       .rows = c->lease->part[COP_PART_SAMPLES]->data,
                       .labels = c->lease->part[COP_PART_LABELS]->data,
                       .first = p->row,
                       .count = p->rows};
}

static void train_piece(worker_compute *c, int thread, int item) {
    piece *p = &c->pieces[item];
    COP_ASSERT(item < c->piece_count && p->rows > 0 && p->gradient && c->job->train[thread]);
    const cop_block block = piece_block(c, p);
    const cop_block_shards shards = {.step = c->lease->lease.step,
                                     .sizes = c->shard_sizes,
                                     .first = p->first,
                                     .count = p->count};
    cop_lane *lane = c->lanes[thread];
    cop_lane_begin_step(lane, shards.step, (uint64_t)p->rows);
    cop_block_train(c->job->train[thread], &block, &shards, p->gradient->data, &p->result);
    /* Thread 0 asks for leases, so all its time belongs to steps: it waits for the others. */
    cop_lane_end_step(lane, thread ? COP_PHASE_IDLE : COP_PHASE_WAIT);
}

/* Computes values [begin, begin + count) of the sum, rounded to bf16. */
static void sum_rounded(worker_compute *c, size_t begin, size_t count) {
    float sum[1024];
    const float *inputs[PIECES_MAX];
    for (const size_t end = begin + count; begin < end; begin += count) {
        count = end - begin < 1024 ? end - begin : 1024;
        for (int i = 0; i < c->tree.count; i++) inputs[i] = c->tree_inputs[i] + begin;
        c->kernels->tree_sum(inputs, &c->tree, sum, count);
        c->kernels->round_bf16(sum, (uint16_t *)c->tree_out + begin, count);
    }
}

static void sum_item(worker_compute *c, int thread, int item) {
    size_t floats = (size_t)cop_model_floats(c->job->job->model), begin = (size_t)item * SUM_CHUNK;
    size_t count = floats - begin < SUM_CHUNK ? floats - begin : SUM_CHUNK;
    const float *inputs[PIECES_MAX];
    for (int i = 0; i < c->tree.count; i++) inputs[i] = c->tree_inputs[i] + begin;
    cop_lane_enter(c->lanes[thread], COP_PHASE_SUM, COP_NO_LAYER);
    if (c->job->job->bf16)
        sum_rounded(c, begin, count);
    else
        c->kernels->tree_sum(inputs, &c->tree, (float *)c->tree_out + begin, count);
    cop_lane_enter(c->lanes[thread], thread ? COP_PHASE_IDLE : COP_PHASE_WAIT, COP_NO_LAYER);
}

/* Builds the summation tree over the pieces and adds up their losses in its order. The lease is a
 * node of the tree of D5. All its pieces have the same number of shards, a power of two, except
 * that the last piece may be shorter. So the pieces are nodes below the node of the lease, and the
 * tree built here is the upper part of the tree of D5 below that node. Returns the number of pieces
 * that have samples. */
static int build_tree(worker_compute *c, cop_result *result) {
    bool exists[PIECES_MAX];
    int present = 0;
    for (int i = 0; i < c->piece_count; i++) {
        exists[i] = c->pieces[i].rows > 0;
        present += exists[i];
        c->losses[i] = c->pieces[i].result.loss;
    }
    int op_count = cop_tree_build(c->piece_count, exists, c->tree_ops);
    COP_ASSERT(op_count >= 0 && op_count <= 2 * PIECES_MAX);
    c->tree = (cop_tree){.count = c->piece_count,
                         .op_count = op_count,
                         .ops = c->tree_ops,
                         .round_nodes = c->job->job->bf16};
    result->loss = cop_loss_combine(&c->tree, c->losses);
    return present;
}

/* Takes a buffer for the gradient of the lease. NULL: out of memory. */
static cop_buffer *take_result(worker_compute *c, kept_job *k) {
    if (c->room && c->room->size == cop_job_sent_bytes(k->job)) return cop_buffer_hold(c->room);
    return cop_buffer_pool_take(k->results);
}

/* Adds up the gradients of the pieces, and rounds the sum if the job does. Returns the gradient of
 * the lease, of which the caller owns one reference. Pieces without samples are the last ones.
 * NULL: out of memory. */
static cop_buffer *sum_pieces(worker_compute *c, cop_result *result) {
    int present = build_tree(c, result);
    COP_ASSERT(present >= 1 && c->pieces[0].gradient);
    if (present == 1 && !c->job->job->bf16) return cop_buffer_hold(c->pieces[0].gradient);
    cop_buffer *sum = take_result(c, c->job);
    if (!sum) return NULL;
    c->tree_out = sum->data;
    for (int i = 0; i < c->piece_count; i++) { /* the tree never reads a piece without samples */
        const cop_buffer *gradient = c->pieces[c->pieces[i].gradient ? i : 0].gradient;
        c->tree_inputs[i] = gradient->data;
    }
    run_all(c, (int)chunk_count((size_t)cop_model_floats(c->job->job->model)), sum_item);
    return sum;
}

/* Checks the samples of a lease against its job. Without this check, wrong samples would fail an
 * assertion in the pass. */
static cop_err check_samples(const kept_job *k, const cop_message *lease, uint32_t rows,
                             cop_error *error) {
    if (!lease->part[COP_PART_SAMPLES] || !lease->part[COP_PART_LABELS] ||
        lease->part[COP_PART_SAMPLES]->size != (size_t)rows * k->job->sample_stride ||
        lease->part[COP_PART_LABELS]->size != rows * sizeof(int32_t))
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the size of the lease's samples does not match its job");
    cop_samples samples = {.dtype = k->job->sample_type,
                           .count = (int)rows,
                           .features = (int)k->job->features,
                           .stride = k->job->sample_stride,
                           .rows = lease->part[COP_PART_SAMPLES]->data,
                           .labels = lease->part[COP_PART_LABELS]->data};
    return cop_samples_check(&samples, k->job->model, error);
}

static void release_gradients(worker_compute *c) {
    for (int i = 0; i < c->piece_count; i++) {
        cop_buffer_release(c->pieces[i].gradient);
        c->pieces[i].gradient = NULL;
    }
}

static cop_err train(worker_compute *c, const cop_message *lease, cop_result *result,
                     cop_buffer **gradient, cop_error *error) {
    const cop_lease *l = &lease->lease;
    kept_job *k = c->job;
    if (l->batch < 1 || l->batch > k->job->batch || l->count < 1 || l->first >= k->job->shards ||
        l->count > k->job->shards - l->first ||
        !cop_tree_is_node(k->job->shards, l->first, l->count))
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the lease's shards %u + %u are not a block of the job", l->first,
                        l->count);
    if (l->step < 1 || l->step > UINT32_MAX)
        return cop_fail(error, COP_ERR_PROTOCOL, "the lease's step is %llu: expected 1 to %u",
                        (unsigned long long)l->step, UINT32_MAX);
    cop_shard_sizes(l->batch, k->job->shards, c->shard_sizes);
    uint32_t rows = 0;
    for (uint32_t i = 0; i < l->count; i++) rows += (uint32_t)c->shard_sizes[l->first + i];
    if (!rows)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the lease has no samples: its shards lie beyond the end of the batch");
    COP_TRY(check_samples(k, lease, rows, error));
    COP_TRY(make_passes(c, k, true, error));
    plan_pieces(c, k, l);
    int work = 0; /* number of pieces with samples; pieces without samples are the last ones */
    const bool one = !k->job->bf16 && (c->piece_count == 1 || !c->pieces[1].rows);
    for (; work < c->piece_count && c->pieces[work].rows; work++) {
        c->pieces[work].gradient = one ? take_result(c, k) : cop_buffer_pool_take(k->floats);
        if (c->pieces[work].gradient) continue;
        release_gradients(c);
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
    }
    COP_ASSERT(work >= 1);
    run_all(c, work, train_piece);
    for (int i = 0; i < work; i++) result->correct += (uint64_t)c->pieces[i].result.correct;
    result->samples = rows;
    result->values = k->job->bf16 ? COP_VALUES_BF16 : COP_VALUES_F32;
    *gradient = sum_pieces(c, result);
    release_gradients(c);
    return *gradient ? COP_OK : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
}

/* ---- EVALUATE ---- */

static void evaluate_piece(worker_compute *c, int thread, int item) {
    piece *p = &c->pieces[item];
    const cop_block block = piece_block(c, p);
    cop_block_evaluate(c->job->evaluate[thread], &block, c->lease->lease.first + (uint32_t)p->row,
                       &p->result);
}

static cop_err evaluate(worker_compute *c, const cop_message *lease, cop_result *result,
                        cop_error *error) {
    kept_job *k = c->job;
    uint32_t count = lease->lease.count;
    if (count < 1 || count > COP_EVAL_SLICE)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "expected an evaluation slice of 1 to %d samples, found %u", COP_EVAL_SLICE,
                        count);
    COP_TRY(check_samples(k, lease, count, error));
    COP_TRY(make_passes(c, k, false, error));
    cop_lane_enter(c->lanes[0], COP_PHASE_EVALUATE, COP_NO_LAYER);
    c->piece_count = 0;
    for (int row = 0; row < (int)count; row += COP_EVAL_COLUMNS) {
        int rows = (int)count - row < COP_EVAL_COLUMNS ? (int)count - row : COP_EVAL_COLUMNS;
        c->pieces[c->piece_count++] = (piece){.row = row, .rows = rows};
    }
    run_all(c, c->piece_count, evaluate_piece);
    for (int i = 0; i < c->piece_count; i++) {
        result->loss += c->pieces[i].result.loss;
        result->correct += (uint64_t)c->pieces[i].result.correct;
    }
    result->samples = count;
    return COP_OK;
}

/* ---- ENSEMBLE ---- */

static void member_piece(worker_compute *c, int thread, int item) {
    const piece *p = &c->pieces[item];
    COP_ASSERT(item < c->piece_count && c->job->members[thread]);
    const cop_lease *l = &c->lease->lease;
    const size_t cells = (size_t)cop_model_outputs(c->job->job->model) * l->count;
    const cop_block block = piece_block(c, p);
    const cop_member_work work = {
        .weights = c->job->weights->data,
        .place = {.seed = c->job->job->seed, .first_sample = l->first + (uint32_t)p->row},
        .member = l->whole ? COP_MEMBER_WHOLE : l->member + (uint32_t)p->first,
        .samples = cop_block_samples(&block)};
    cop_members_run(c->job->members[thread], &work, c->logits + (size_t)p->first * cells + p->row,
                    l->count);
}

/* Cuts each member into ranges of samples, so that there is at least one piece per thread if the
 * lease has enough samples. */
static void cut_members(worker_compute *c, const cop_lease *l) {
    const int members = (int)l->members, count = (int)l->count;
    const int parts = (c->threads + members - 1) / members;
    const int columns = (int)cop_align_up((size_t)((count + parts - 1) / parts), COP_COLUMNS_PAD);
    c->piece_count = 0;
    for (int m = 0; m < members; m++)
        for (int row = 0; row < count; row += columns) {
            const int rows = count - row < columns ? count - row : columns;
            c->pieces[c->piece_count++] = (piece){.first = m, .row = row, .rows = rows};
        }
}

static cop_err check_members(const kept_job *k, const cop_lease *l, cop_error *error) {
    if (l->count < 1 || l->count > COP_EVAL_SLICE)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "expected an evaluation slice of 1 to %d samples, found %u", COP_EVAL_SLICE,
                        l->count);
    if (l->members < 1 || l->members > COP_LEASE_MEMBERS_MAX ||
        l->member > COP_ENSEMBLE_MEMBERS_MAX || (l->whole && l->members != 1))
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "expected a lease of 1 to %d members of an ensemble (whole networks: 1 "
                        "member), found %u from %u",
                        COP_LEASE_MEMBERS_MAX, l->members, l->member);
    return cop_members_check(k->job->model, !l->whole, error);
}

static cop_err ensemble(worker_compute *c, const cop_message *lease, cop_result *result,
                        cop_buffer **logits, cop_error *error) {
    const cop_lease *l = &lease->lease;
    kept_job *k = c->job;
    COP_TRY(check_members(k, l, error));
    COP_TRY(check_samples(k, lease, l->count, error));
    for (int i = 0; i < c->threads; i++)
        if (!k->members[i])
            COP_TRY(cop_members_create(k->job->model, c->kernels, k->job->numerics, &k->members[i],
                                       error));
    const size_t cells = (size_t)cop_model_outputs(k->job->model) * l->count;
    *logits = cop_buffer_create(l->members * cells * sizeof(float));
    if (!*logits)
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the members' outputs");
    c->logits = (*logits)->data;
    cut_members(c, l);
    COP_ASSERT(c->piece_count >= 1 && c->piece_count <= PIECES_MAX);
    run_all(c, c->piece_count, member_piece);
    result->samples = l->count;
    return COP_OK;
}

/* ---- any lease ---- */

/* Computes c->lease, which belongs to c->job, by the function for its kind. */
static cop_err run_kind(worker_compute *c, cop_result *result, cop_buffer **tensor,
                        cop_error *error) {
    const cop_message *lease = c->lease;
    switch (lease->lease.kind) {
    case COP_LEASE_TRAIN:
        return train(c, lease, result, tensor, error);
    case COP_LEASE_EVALUATE:
        return evaluate(c, lease, result, error);
    case COP_LEASE_ENSEMBLE:
        return ensemble(c, lease, result, tensor, error);
    }
    return cop_fail(error, COP_ERR_PROTOCOL, "unknown kind of lease");
}

void worker_compute_run(worker_compute *c, cop_message *lease, cop_result *result,
                        cop_buffer **tensor) {
    const cop_lease *l = &lease->lease;
    cop_error error = {0};
    kept_job *k = NULL;
    COP_ASSERT(!c->job && !c->lease && lease->type == COP_MESSAGE_LEASE);
    uint64_t began = cop_clock_ns();
    *tensor = NULL;
    *result = (cop_result){.present = true,
                           .kind = l->kind,
                           .lease = l->lease,
                           .job = l->job,
                           .step = l->step,
                           .attempt = l->attempt,
                           .first = l->first,
                           .count = l->count};
    cop_err e = find_job(c, lease, &k, &error);
    if (!e) e = take_weights(c, k, lease, &error);
    if (!e) {
        c->newest = k->id;
        c->job = k;
        c->lease = lease;
        e = run_kind(c, result, tensor, &error);
    }
    if (e)
        snprintf(result->failure, sizeof result->failure, "%s",
                 error.text[0] ? error.text : cop_err_text(e));
    result->compute_ns = cop_clock_ns() - began;
    COP_ASSERT(!e || !*tensor);
    if (k && k->weights && k->weights->segment) { /* the next PULL gives them back */
        cop_buffer_release(k->weights);
        k->weights = NULL;
        k->version = 0;
    }
    c->job = NULL;
    c->lease = NULL;
}
