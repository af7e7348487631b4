/* Statistics of units: sums, and products of all pairs, sample by sample. See features.h. */
#include "common/ensemble/features.h"

#include <math.h>

#include "common/base/alloc.h"

struct cop_features {
    int units;
    uint64_t samples;
    /* The first sample is subtracted from every sample, which keeps the rounding errors small. */
    double *row;      /* (units): the current sample minus the first one */
    double *shift;    /* (units): the first sample */
    double *sums;     /* (units): the sum of `row` over the samples */
    double *products; /* [units][units]: sums of row[u] * row[w], set only for u <= w */
    uint64_t *zeros;  /* (units): how many of a unit's activations are 0 */
    double total;     /* the sum of all activations */
};

cop_err cop_features_create(int units, cop_features **out, cop_error *error) {
    COP_ASSERT(units > 0);
    const size_t n = (size_t)units;
    cop_features *f = cop_alloc(sizeof *f);
    *out = NULL;
    if (!f) return cop_no_memory(error);
    f->units = units;
    f->row = cop_alloc_array(n, sizeof *f->row);
    f->shift = cop_alloc_array(n, sizeof *f->shift);
    f->sums = cop_alloc_array(n, sizeof *f->sums);
    f->zeros = cop_alloc_array(n, sizeof *f->zeros);
    f->products = cop_alloc_array(n * n, sizeof *f->products);
    if (!f->row || !f->shift || !f->sums || !f->zeros || !f->products) {
        cop_features_destroy(f);
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the pairs of %d units", units);
    }
    *out = f;
    return COP_OK;
}

void cop_features_destroy(cop_features *f) {
    if (!f) return;
    cop_free(f->row);
    cop_free(f->shift);
    cop_free(f->sums);
    cop_free(f->zeros);
    cop_free(f->products);
    cop_free(f);
}

/* Adds one sample. The activation of unit u is values[u * stride]. */
static void add_sample(cop_features *f, const float *values, size_t stride) {
    const int n = f->units;
    for (int u = 0; u < n; u++) {
        const double v = (double)values[(size_t)u * stride];
        if (f->samples == 0) f->shift[u] = v;
        f->zeros[u] += v == 0;
        f->total += v;
        f->row[u] = v - f->shift[u];
        f->sums[u] += f->row[u];
    }
    for (int u = 0; u < n; u++) {
        const double v = f->row[u];
        double *products = f->products + (size_t)u * (size_t)n;
        if (v == 0) continue;
        for (int w = u; w < n; w++) products[w] += v * f->row[w];
    }
    f->samples++;
}

void cop_features_add(cop_features *f, const float *values, int places, int columns, int ld) {
    COP_ASSERT(places > 0 && columns >= 0 && columns <= ld);
    for (int c = 0; c < columns; c++)
        for (int p = 0; p < places; p++)
            add_sample(f, values + (size_t)p * (size_t)ld + c, (size_t)places * (size_t)ld);
}

static double covariance(const cop_features *f, int u, int w) {
    return f->products[(size_t)u * (size_t)f->units + (size_t)w] -
           f->sums[u] * f->sums[w] / (double)f->samples;
}

void cop_features_get(const cop_features *f, cop_feature_figures *out) {
    const double count = (double)f->samples * f->units;
    double zeros = 0, dead = 0, sum = 0, pairs = 0;
    *out =
        (cop_feature_figures){.samples = f->samples, .units = f->units, .correlation = (double)NAN};
    if (!f->samples) return;
    for (int u = 0; u < f->units; u++) {
        const double own = covariance(f, u, u);
        zeros += (double)f->zeros[u];
        dead += f->zeros[u] == f->samples;
        out->varying += own > 0;
        for (int w = u + 1; w < f->units; w++) {
            const double both = own * covariance(f, w, w);
            if (own <= 0 || both <= 0) continue;
            sum += fabs(covariance(f, u, w)) / sqrt(both);
            pairs++;
        }
    }
    out->mean = f->total / count;
    out->zeros = zeros / count;
    out->dead = dead / f->units;
    if (pairs > 0) out->correlation = sum / pairs;
}
