/* Averages of thinned networks and their scores. See ensemble.h. */
#include "common/ensemble/ensemble.h"

#include <math.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/real.h"

struct cop_ensemble {
    cop_average average;
    int classes, max_columns, columns;
    uint32_t first, members;
    const int32_t *labels;
    /* [classes][columns]: the sum over members of the probabilities (arithmetic average) or of
     * their logarithms (geometric average) */
    double *sums;
    double *probabilities; /* [classes][columns]: the average, computed on demand */
    double *work;          /* [classes]: log probabilities of one sample by one member */
    double *entropies;     /* [columns]: sums over members; used for the arithmetic average only */
    uint32_t *votes;       /* [classes][columns]: the number of members that chose the class */
};

cop_err cop_ensemble_create(cop_average average, int classes, int max_columns, cop_ensemble **out,
                            cop_error *error) {
    COP_ASSERT(classes > 0 && max_columns > 0);
    const size_t cells = (size_t)classes * (size_t)max_columns;
    cop_ensemble *e = cop_alloc(sizeof *e);
    *out = NULL;
    if (!e) return cop_no_memory(error);
    e->average = average;
    e->classes = classes;
    e->max_columns = max_columns;
    e->sums = cop_alloc_array(cells, sizeof *e->sums);
    e->probabilities = cop_alloc_array(cells, sizeof *e->probabilities);
    e->votes = cop_alloc_array(cells, sizeof *e->votes);
    e->work = cop_alloc_array((size_t)classes, sizeof *e->work);
    e->entropies = cop_alloc_array((size_t)max_columns, sizeof *e->entropies);
    if (!e->sums || !e->probabilities || !e->votes || !e->work || !e->entropies) {
        cop_ensemble_destroy(e);
        return cop_no_memory(error);
    }
    *out = e;
    return COP_OK;
}

void cop_ensemble_destroy(cop_ensemble *e) {
    if (!e) return;
    cop_free(e->sums);
    cop_free(e->probabilities);
    cop_free(e->votes);
    cop_free(e->work);
    cop_free(e->entropies);
    cop_free(e);
}

void cop_ensemble_begin(cop_ensemble *e, int columns, const int32_t *labels, uint32_t first) {
    COP_ASSERT(columns > 0 && columns <= e->max_columns);
    const size_t cells = (size_t)e->classes * (size_t)columns;
    memset(e->sums, 0, cells * sizeof *e->sums);
    memset(e->votes, 0, cells * sizeof *e->votes);
    memset(e->entropies, 0, (size_t)columns * sizeof *e->entropies);
    e->columns = columns;
    e->labels = labels;
    e->first = first;
    e->members = 0;
}

/* Computes work[k] = ln softmax(z)[k] for one column, whose logits are `stride` elements apart.
 * Returns the class with the largest logit, of equal ones the first. */
static int log_softmax(const cop_ensemble *e, const float *z, size_t stride) {
    int best = 0;
    for (int k = 1; k < e->classes; k++)
        if (z[(size_t)k * stride] > z[(size_t)best * stride]) best = k;
    const double largest = (double)z[(size_t)best * stride];
    double sum = 0;
    for (int k = 0; k < e->classes; k++) {
        e->work[k] = (double)z[(size_t)k * stride] - largest;
        sum += cop_exp(e->work[k]);
    }
    const double norm = cop_ln(sum);
    for (int k = 0; k < e->classes; k++) e->work[k] -= norm;
    return best;
}

/* Adds one member's probabilities for a column, which are exp(work), to the sums, and their entropy
 * to the entropies. */
static void add_probabilities(cop_ensemble *e, size_t column) {
    const size_t n = (size_t)e->columns;
    double entropy = 0;
    for (size_t k = 0; k < (size_t)e->classes; k++) {
        const double p = cop_exp(e->work[k]);
        e->sums[k * n + column] += p;
        entropy -= p * e->work[k];
    }
    e->entropies[column] += entropy;
}

void cop_ensemble_add(cop_ensemble *e, const float *logits, int ld) {
    COP_ASSERT(e->columns > 0 && ld >= e->columns);
    const size_t n = (size_t)e->columns;
    for (size_t c = 0; c < n; c++) {
        const int best = log_softmax(e, logits + c, (size_t)ld);
        e->votes[(size_t)best * n + c]++;
        if (e->average != COP_AVERAGE_GEOMETRIC)
            add_probabilities(e, c);
        else
            for (size_t k = 0; k < (size_t)e->classes; k++) e->sums[k * n + c] += e->work[k];
    }
    e->members++;
}

/* Computes the geometric means of the probabilities in one column and scales them to sum 1. */
static void renormalise(cop_ensemble *e, size_t column) {
    const size_t n = (size_t)e->columns;
    double largest = e->sums[column] / e->members, sum = 0;
    for (size_t k = 1; k < (size_t)e->classes; k++) {
        const double mean = e->sums[k * n + column] / e->members;
        if (mean > largest) largest = mean;
    }
    for (size_t k = 0; k < (size_t)e->classes; k++) {
        double *p = &e->probabilities[k * n + column];
        *p = cop_exp(e->sums[k * n + column] / e->members - largest);
        sum += *p;
    }
    for (size_t k = 0; k < (size_t)e->classes; k++) e->probabilities[k * n + column] /= sum;
}

const double *cop_ensemble_probabilities(cop_ensemble *e) {
    COP_ASSERT(e->members > 0);
    const size_t n = (size_t)e->columns;
    if (e->average == COP_AVERAGE_GEOMETRIC)
        for (size_t c = 0; c < n; c++) renormalise(e, c);
    else
        for (size_t i = 0; i < n * (size_t)e->classes; i++)
            e->probabilities[i] = e->sums[i] / e->members;
    return e->probabilities;
}

/* The share of pairs of members that chose different classes; 0 for one member. */
static double disagreement(const cop_ensemble *e, size_t column) {
    const double m = e->members;
    double same = 0;
    for (size_t k = 0; k < (size_t)e->classes; k++) {
        const double votes = e->votes[k * (size_t)e->columns + column];
        same += votes * (votes - 1);
    }
    return e->members > 1 ? 1 - same / (m * (m - 1)) : 0;
}

static void score_column(const cop_ensemble *e, size_t column, cop_ensemble_sums *sums) {
    const size_t n = (size_t)e->columns;
    const int label = e->labels[column];
    COP_ASSERT(label >= 0 && label < e->classes);
    int best = 0;
    double brier = 0;
    for (int k = 0; k < e->classes; k++) {
        const double p = e->probabilities[(size_t)k * n + column], off = p - (k == label);
        if (p > e->probabilities[(size_t)best * n + column]) best = k;
        brier += off * off;
    }
    const double p = e->probabilities[(size_t)best * n + column];
    const double own = e->probabilities[(size_t)label * n + column];
    const double smallest = 0x1p-1022; /* if p(label) underflowed, -ln p is 708, not infinite */
    const double values[4] = {best != label, -cop_ln(own > smallest ? own : smallest), brier,
                              disagreement(e, column)};
    for (int i = 0; i < 4; i++) {
        sums->value[i] += values[i];
        sums->square[i] += values[i] * values[i];
    }
    int bin = (int)(p * COP_ENSEMBLE_BINS);
    if (bin >= COP_ENSEMBLE_BINS) bin = COP_ENSEMBLE_BINS - 1;
    const size_t group = (e->first + column) % COP_ENSEMBLE_GROUPS;
    sums->bin[group][bin].count++;
    sums->bin[group][bin].confidence += p;
    sums->bin[group][bin].correct += best == label;
    sums->samples++;
}

void cop_ensemble_score(cop_ensemble *e, cop_ensemble_sums *sums) {
    COP_ASSERT(e->labels);
    cop_ensemble_probabilities(e);
    for (int c = 0; c < e->columns; c++) score_column(e, (size_t)c, sums);
}

/* ---- uncertainty about each sample ---- */

static void column_opinion(const cop_ensemble *e, size_t column, cop_ensemble_opinion *out) {
    const size_t n = (size_t)e->columns;
    const double own = e->entropies[column] / e->members;
    uint32_t max_votes = 0;
    *out = (cop_ensemble_opinion){0};
    for (size_t k = 0; k < (size_t)e->classes; k++) {
        const double p = e->probabilities[k * n + column];
        if (p > e->probabilities[(size_t)out->class * n + column]) out->class = (int)k;
        if (p > 0) out->entropy -= p * cop_ln(p);
        if (e->votes[k * n + column] > max_votes) max_votes = e->votes[k * n + column];
    }
    /* By Jensen's inequality the entropy is at least `own`, the mean entropy of a member. Rounding
     * may make it smaller. */
    if (out->entropy < 0) out->entropy = 0;
    out->information = e->members > 1 && out->entropy > own ? out->entropy - own : 0;
    out->variation = 1 - (double)max_votes / e->members;
}

void cop_ensemble_opinions(cop_ensemble *e, cop_ensemble_opinion *out) {
    COP_ASSERT(e->average == COP_AVERAGE_ARITHMETIC);
    cop_ensemble_probabilities(e);
    for (int c = 0; c < e->columns; c++) column_opinion(e, (size_t)c, &out[c]);
}

/* ---- sums ---- */

void cop_ensemble_merge(cop_ensemble_sums *into, const cop_ensemble_sums *from) {
    into->samples += from->samples;
    for (int i = 0; i < 4; i++) {
        into->value[i] += from->value[i];
        into->square[i] += from->square[i];
    }
    for (int g = 0; g < COP_ENSEMBLE_GROUPS; g++)
        for (int b = 0; b < COP_ENSEMBLE_BINS; b++) {
            into->bin[g][b].count += from->bin[g][b].count;
            into->bin[g][b].confidence += from->bin[g][b].confidence;
            into->bin[g][b].correct += from->bin[g][b].correct;
        }
}

/* The expected calibration error of all samples that are not in group `without`; -1 leaves out no
 * group. */
static double calibration(const cop_ensemble_sums *s, int without) {
    double gaps = 0, all = 0;
    for (int b = 0; b < COP_ENSEMBLE_BINS; b++) {
        double count = 0, confidence = 0, correct = 0;
        for (int g = 0; g < COP_ENSEMBLE_GROUPS; g++) {
            if (g == without) continue;
            count += s->bin[g][b].count;
            confidence += s->bin[g][b].confidence;
            correct += s->bin[g][b].correct;
        }
        gaps += fabs(correct - confidence);
        all += count;
    }
    return all > 0 ? gaps / all : 0;
}

/* The standard error of the ECE by the delete-one-group jackknife. */
static double calibration_error(const cop_ensemble_sums *s) {
    double value[COP_ENSEMBLE_GROUPS], mean = 0, sum = 0;
    for (int g = 0; g < COP_ENSEMBLE_GROUPS; g++) mean += value[g] = calibration(s, g);
    mean /= COP_ENSEMBLE_GROUPS;
    for (int g = 0; g < COP_ENSEMBLE_GROUPS; g++) sum += (value[g] - mean) * (value[g] - mean);
    return sqrt(sum * (COP_ENSEMBLE_GROUPS - 1) / COP_ENSEMBLE_GROUPS);
}

void cop_ensemble_get(const cop_ensemble_sums *s, cop_ensemble_figures *out) {
    cop_ensemble_figure *const figures[4] = {&out->wrong, &out->nll, &out->brier,
                                             &out->disagreement};
    const double n = (double)s->samples;
    memset(out, 0, sizeof *out);
    out->samples = s->samples;
    if (!s->samples) return;
    for (int i = 0; i < 4; i++) {
        const double mean = s->value[i] / n, variance = s->square[i] / n - mean * mean;
        figures[i]->value = mean;
        figures[i]->error = s->samples > 1 && variance > 0 ? sqrt(variance / (n - 1)) : 0;
    }
    out->ece = (cop_ensemble_figure){calibration(s, -1), calibration_error(s)};
}
