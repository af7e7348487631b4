/* coppice eval --ensemble: the joint opinion of thinned networks on the test set. Threads take
 * slices of the samples; a slice's members come in their order, and slices are added up in theirs:
 * the figures do not depend on the number of threads. */
#include "client/ensemble.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/nn/ensemble.h"

#define COLUMNS     125
#define THREADS_MAX 256

typedef struct evaluation {
    const cli_model *model;
    const cop_data_part *part;
    const cop_kernels *kernels;
    cop_average average; /* 0: weight scaling */
    uint32_t counts[CLI_COUNTS_MAX], count;
    uint32_t slices;
    cop_ensemble_sums *sums; /* [slices][count] */
    atomic_uint next, done;
    atomic_bool failed;
    uv_mutex_t progress_mutex;
    cli_progress progress;
} evaluation;

/* ---- what is asked ---- */

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* "10,20,50", each once, ascending. */
static cop_err read_counts(const char *text, uint32_t *counts, uint32_t *count, cop_error *error) {
    *count = 0;
    for (const char *p = text; *p;) {
        char word[24];
        const size_t length = strcspn(p, ",");
        int64_t value = 0;
        snprintf(word, sizeof word, "%.*s", (int)(length < 20 ? length : 20), p);
        if (!cop_parse_i64(word, &value) || value < 1 || value > COP_ENSEMBLE_MEMBERS_MAX)
            return cop_fail(error, COP_ERR_USAGE,
                            "--ensemble is \"%s\": expected numbers of members from 1 to %d, "
                            "separated by commas",
                            text, COP_ENSEMBLE_MEMBERS_MAX);
        if (*count == CLI_COUNTS_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--ensemble names more than %d numbers",
                            CLI_COUNTS_MAX);
        counts[(*count)++] = (uint32_t)value;
        p += length + (p[length] == ',');
    }
    qsort(counts, *count, sizeof *counts, ascending);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *count; i++)
        if (!kept || counts[kept - 1] != counts[i]) counts[kept++] = counts[i];
    *count = kept;
    return kept ? COP_OK : cop_fail(error, COP_ERR_USAGE, "--ensemble is empty");
}

static cop_err read_average(const char *text, cop_average *out, cop_error *error) {
    *out = COP_AVERAGE_ARITHMETIC;
    if (!text || strcmp(text, "arithmetic") == 0) return COP_OK;
    *out = COP_AVERAGE_GEOMETRIC;
    if (strcmp(text, "geometric") == 0) return COP_OK;
    *out = 0;
    if (strcmp(text, "weight-scaling") == 0) return COP_OK;
    return cop_fail(error, COP_ERR_USAGE,
                    "--average is \"%s\": expected arithmetic, geometric or weight-scaling", text);
}

/* Without a layer that draws, all members are the same network. */
static cop_err check_model(const cop_model *model, cop_error *error) {
    if (!cop_model_has_classes(model) || cop_model_loss(model) != COP_LOSS_CROSS_ENTROPY)
        return cop_fail(error, COP_ERR_INPUT,
                        "an ensemble averages class probabilities, and this model has none: its "
                        "loss is %s, expected cross_entropy",
                        cop_model_loss(model) == COP_LOSS_MSE ? "mse" : "bce or on its input");
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer_ops *ops = cop_model_layer(model, i)->ops;
        if (ops->drops || ops->factors) return COP_OK;
    }
    return cop_fail(error, COP_ERR_INPUT,
                    "the model has no layer that draws at random (dropout, dropconnect ...): all "
                    "its members would be the same");
}

/* ---- the work ---- */

static void show(evaluation *v) {
    const unsigned done = atomic_fetch_add(&v->done, 1) + 1;
    uv_mutex_lock(&v->progress_mutex);
    cli_progress_show(&v->progress, (double)done / v->slices, "ensemble");
    uv_mutex_unlock(&v->progress_mutex);
}

static void run_slice(const evaluation *v, cop_pass *pass, cop_ensemble *ensemble, uint32_t slice) {
    const uint32_t first = slice * COLUMNS, left = v->part->count - first;
    const cop_samples samples = {.dtype = v->model->job->sample_type,
                                 .count = (int)(left < COLUMNS ? left : COLUMNS),
                                 .features = (int)v->model->job->features,
                                 .stride = v->part->stride,
                                 .labels = v->part->labels + first,
                                 .rows = (const char *)v->part->samples +
                                         (size_t)first * v->part->stride};
    const cop_eval_place place = {.seed = v->model->job->seed, .first_sample = first};
    cop_ensemble_sums *sums = v->sums + (size_t)slice * v->count;
    const float *flat = v->model->flat;
    uint32_t asked = 0;
    int ld;
    cop_ensemble_begin(ensemble, samples.count, samples.labels, first);
    for (uint32_t member = 0; asked < v->count; member++) {
        const float *logits = v->average
                                  ? cop_pass_member(pass, flat, &place, member, &samples, &ld)
                                  : cop_pass_logits(pass, flat, &place, &samples, &ld);
        cop_ensemble_add(ensemble, logits, ld);
        if (member + 1 == v->counts[asked]) cop_ensemble_score(ensemble, &sums[asked++]);
    }
}

static void run_thread(void *argument) {
    evaluation *v = argument;
    const cop_job *job = v->model->job;
    const cop_average average = v->average ? v->average : COP_AVERAGE_ARITHMETIC;
    cop_pass *pass = NULL;
    cop_ensemble *ensemble = NULL;
    cop_compute_thread_init();
    if (cop_pass_create(job->model, v->kernels, job->numerics, COLUMNS, COP_PASS_MEMBERS, &pass,
                        NULL) ||
        cop_ensemble_create(average, cop_model_outputs(job->model), COLUMNS, &ensemble, NULL))
        atomic_store(&v->failed, true);
    for (uint32_t slice;
         !atomic_load(&v->failed) && (slice = atomic_fetch_add(&v->next, 1)) < v->slices;) {
        run_slice(v, pass, ensemble, slice);
        show(v);
    }
    if (pass) cop_pass_destroy(pass);
    cop_ensemble_destroy(ensemble);
}

static cop_err run_threads(evaluation *v, int64_t wanted, bool quiet, cop_error *error) {
    uv_thread_t id[THREADS_MAX];
    int64_t threads = wanted ? wanted : (int64_t)uv_available_parallelism(), started = 0;
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    uv_mutex_init(&v->progress_mutex);
    cli_progress_start(&v->progress, quiet);
    while (started < threads && uv_thread_create(&id[started], run_thread, v) == 0) started++;
    if (!started) run_thread(v);
    for (int64_t i = 0; i < started; i++) uv_thread_join(&id[i]);
    cli_progress_end(&v->progress);
    uv_mutex_destroy(&v->progress_mutex);
    return atomic_load(&v->failed) ? cop_fail(error, COP_ERR_NO_MEMORY, "out of memory") : COP_OK;
}

/* ---- what is told ---- */

static const char *average_name(cop_average average) {
    return average == COP_AVERAGE_ARITHMETIC  ? "arithmetic"
           : average == COP_AVERAGE_GEOMETRIC ? "geometric"
                                              : "weight-scaling";
}

static void fill(const cop_ensemble_figures *f, uint32_t members,
                 Coppice__Api__EnsembleFigures *out) {
    coppice__api__ensemble_figures__init(out);
    out->has_members = out->has_error = out->has_error_se = out->has_nll = out->has_nll_se =
        out->has_brier = out->has_brier_se = out->has_ece = out->has_ece_se =
            out->has_disagreement = out->has_disagreement_se = 1;
    out->members = members;
    out->error = f->wrong.value;
    out->error_se = f->wrong.error;
    out->nll = f->nll.value;
    out->nll_se = f->nll.error;
    out->brier = f->brier.value;
    out->brier_se = f->brier.error;
    out->ece = f->ece.value;
    out->ece_se = f->ece.error;
    out->disagreement = f->disagreement.value;
    out->disagreement_se = f->disagreement.error;
}

static void print_table(const Coppice__Api__EnsembleResult *r) {
    static const char *const head[] = {"MEMBERS", "ERROR %", "NLL", "BRIER", "ECE", "DISAGREEMENT"};
    const char *cells[(CLI_COUNTS_MAX + 1) * 6];
    char text[CLI_COUNTS_MAX][6][40];
    memcpy(cells, head, sizeof head);
    for (size_t i = 0; i < r->n_members; i++) {
        const Coppice__Api__EnsembleFigures *f = r->members[i];
        char(*t)[40] = text[i];
        if (strcmp(r->average, "weight-scaling") == 0)
            snprintf(t[0], sizeof t[0], "weight scaling");
        else
            snprintf(t[0], sizeof t[0], "%u", f->members);
        snprintf(t[1], sizeof t[1], "%.2f +- %.2f", 100 * f->error, 100 * f->error_se);
        snprintf(t[2], sizeof t[2], "%.4f +- %.4f", f->nll, f->nll_se);
        snprintf(t[3], sizeof t[3], "%.4f +- %.4f", f->brier, f->brier_se);
        snprintf(t[4], sizeof t[4], "%.4f +- %.4f", f->ece, f->ece_se);
        snprintf(t[5], sizeof t[5], "%.4f +- %.4f", f->disagreement, f->disagreement_se);
        for (int c = 0; c < 6; c++) cells[(i + 1) * 6 + (size_t)c] = t[c];
    }
    cli_print_table(cells, (int)r->n_members + 1, 6, "rrrrrr");
    cli_print("\n%s average over %llu samples of the test part, +- one standard error\n",
              r->average, (unsigned long long)r->samples);
}

static void print_result(const cli_options *options, const evaluation *v, double seconds) {
    Coppice__Api__EnsembleFigures figures[CLI_COUNTS_MAX], *table[CLI_COUNTS_MAX];
    Coppice__Api__EnsembleResult r = COPPICE__API__ENSEMBLE_RESULT__INIT;
    for (uint32_t k = 0; k < v->count; k++) {
        cop_ensemble_sums all = {0};
        cop_ensemble_figures f;
        for (uint32_t s = 0; s < v->slices; s++)
            cop_ensemble_merge(&all, &v->sums[(size_t)s * v->count + k]);
        cop_ensemble_get(&all, &f);
        table[k] = &figures[k];
        fill(&f, v->counts[k], &figures[k]);
    }
    r.average = (char *)(uintptr_t)average_name(v->average);
    r.digest = (char *)(uintptr_t)v->model->digest;
    r.on = (char *)(uintptr_t)"test";
    r.has_samples = r.has_seconds = 1;
    r.samples = v->part->count;
    r.seconds = seconds;
    r.members = table;
    r.n_members = v->count;
    if (options->json)
        cli_print_json(&r.base);
    else
        print_table(&r);
}

cop_err cli_ensemble(const cli_options *options, const cli_model *model, const cop_data *data,
                     cop_error *error) {
    evaluation v = {.model = model, .part = &data->test};
    unsigned char digest[32];
    const uint64_t began = cop_clock_ns();
    COP_TRY(read_average(options->average, &v.average, error));
    if (options->ensemble && v.average) {
        COP_TRY(read_counts(options->ensemble, v.counts, &v.count, error));
    } else if (options->ensemble) {
        return cop_fail(error, COP_ERR_USAGE,
                        "--average weight-scaling is one network: it goes without --ensemble");
    } else if (v.average) {
        return cop_fail(error, COP_ERR_USAGE,
                        "--average %s needs --ensemble K: the number of members", options->average);
    } else {
        v.counts[v.count++] = 1;
    }
    COP_TRY(check_model(model->job->model, error));
    COP_TRY(cli_choose_kernels(&v.kernels, digest, error));
    v.slices = (data->test.count + COLUMNS - 1) / COLUMNS;
    v.sums = cop_alloc_array((size_t)v.slices * v.count, sizeof *v.sums);
    if (!v.sums) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = run_threads(&v, options->workers, options->quiet, error);
    if (!e) print_result(options, &v, (double)(cop_clock_ns() - began) * 1e-9);
    cop_free(v.sums);
    return e;
}
