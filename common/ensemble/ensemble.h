/* The joint opinion of thinned networks: averages of their class probabilities, the figures that
 * judge them, and how sure they are of each sample. All in f64 by base/real.h, in the order of the
 * members: the same on every machine. */
#ifndef COP_ENSEMBLE_ENSEMBLE_H
#define COP_ENSEMBLE_ENSEMBLE_H

#include <stdint.h>

#include "common/base/err.h"

typedef enum cop_average {
    COP_AVERAGE_ARITHMETIC = 1, /* mean of probabilities */
    COP_AVERAGE_GEOMETRIC = 2   /* exp of the mean of log probabilities, renormalised */
} cop_average;

enum { COP_ENSEMBLE_BINS = 15, COP_ENSEMBLE_GROUPS = 20, COP_ENSEMBLE_MEMBERS_MAX = 100000 };

/* Sums over samples: plain data, added up with cop_ensemble_merge. */
typedef struct cop_ensemble_sums {
    uint64_t samples;
    /* per sample: wrong or not, -ln p(label), sum over classes of (p - [label])^2, share of pairs
     * of members that disagree; and their squares */
    double value[4], square[4];
    /* calibration: samples by the largest probability, in groups for its jackknife */
    struct {
        double count, confidence, correct;
    } bin[COP_ENSEMBLE_GROUPS][COP_ENSEMBLE_BINS];
} cop_ensemble_sums;
void cop_ensemble_merge(cop_ensemble_sums *into, const cop_ensemble_sums *from);

typedef struct cop_ensemble_figure {
    double value, error; /* standard error over samples; ECE: jackknife over 20 groups */
} cop_ensemble_figure;
/* brier: Brier 1950, from 0 to 2. ece: expected calibration error, 15 bins of equal width (Guo et
 * al. 2017). disagreement: share of pairs of members with different classes, mean over samples; 0
 * for one member. */
typedef struct cop_ensemble_figures {
    uint64_t samples;
    cop_ensemble_figure wrong, nll, brier, ece, disagreement;
} cop_ensemble_figures;
void cop_ensemble_get(const cop_ensemble_sums *sums, cop_ensemble_figures *out);

/* Accumulates members for up to max_columns samples at a time. One per thread. */
typedef struct cop_ensemble cop_ensemble;
cop_err cop_ensemble_create(cop_average average, int classes, int max_columns, cop_ensemble **out,
                            cop_error *error);
void cop_ensemble_destroy(cop_ensemble *ensemble);
/* Forgets what there is; the next members are about these samples. `first` is the number of the
 * first one. Labels are borrowed until the next begin. */
void cop_ensemble_begin(cop_ensemble *ensemble, int columns, const int32_t *labels, uint32_t first);
/* One more member: logits [classes][ld], feature-major. */
void cop_ensemble_add(cop_ensemble *ensemble, const float *logits, int ld);
/* Probabilities of the members so far, [classes][columns] (borrowed). With one member: its softmax.
 */
const double *cop_ensemble_probabilities(cop_ensemble *ensemble);
/* Adds the samples' figures for the members so far. */
void cop_ensemble_score(cop_ensemble *ensemble, cop_ensemble_sums *sums);

/* What K members say of one sample, whatever its label; p_m are their probabilities, p is the
 * arithmetic mean of these, entropies are in nats with 0 ln 0 = 0.
 *
 *   entropy      H[p] = -sum_k p(k) ln p(k): predictive entropy, all uncertainty there is
 *                (Gal, Uncertainty in Deep Learning, 2016, section 3.3.1)
 *   information  H[p] - 1/K sum_m H[p_m]: mutual information of class and mask, from 0 to H[p]. It
 *                is what the members do not agree on (epistemic); the rest, the mean entropy of a
 *                member, is what each finds open by itself (aleatoric): Houlsby et al. 2011 (BALD);
 *                Depeweg et al. 2018
 *   variation    1 - f / K, f members having the most frequent class: variation ratio (Freeman
 *                1965; Gal 2016, section 3.3.1)
 *
 * The members are the dropout samples of Gal and Ghahramani 2016. With one member information and
 * variation are 0. */
typedef struct cop_ensemble_opinion {
    int class; /* of the largest p; the first of equals (D10) */
    double entropy, information, variation;
} cop_ensemble_opinion;
/* Of each sample, out[columns], for the members so far. The average must be arithmetic. */
void cop_ensemble_judge(cop_ensemble *ensemble, cop_ensemble_opinion *out);

#endif
