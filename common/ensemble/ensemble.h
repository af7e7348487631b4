/* Averages the class probabilities of thinned networks, scores the averages, and measures how
 * uncertain they are about each sample. Everything is computed in f64 by base/real.h, in the order
 * of the members, so it is the same on every machine. */
#ifndef COP_ENSEMBLE_ENSEMBLE_H
#define COP_ENSEMBLE_ENSEMBLE_H

#include <stdint.h>

#include "common/base/err.h"

typedef enum cop_average {
    COP_AVERAGE_ARITHMETIC = 1, /* mean of probabilities */
    COP_AVERAGE_GEOMETRIC = 2   /* exp of the mean of log probabilities, renormalised */
} cop_average;

enum { COP_ENSEMBLE_BINS = 15, COP_ENSEMBLE_GROUPS = 20, COP_ENSEMBLE_MEMBERS_MAX = 100000 };

/* Sums over samples. Plain data: all zero is the empty sum. */
typedef struct cop_ensemble_sums {
    uint64_t samples;
    /* The sums of four values per sample, and of their squares: 1 if wrong, else 0; -ln p(label);
     * the sum over classes of (p - [class is label])^2; the share of pairs of members that
     * disagree. */
    double value[4], square[4];
    /* For calibration: samples by their largest probability, in groups for the jackknife. */
    struct {
        double count, confidence, correct;
    } bin[COP_ENSEMBLE_GROUPS][COP_ENSEMBLE_BINS];
} cop_ensemble_sums;
/* Adds `from` to `into`. The order of merges decides the last bits. */
void cop_ensemble_merge(cop_ensemble_sums *into, const cop_ensemble_sums *from);

typedef struct cop_ensemble_figure {
    double value, error; /* standard error over samples; ECE: jackknife over 20 groups */
} cop_ensemble_figure;
/* wrong: the share of misclassified samples. nll: mean of -ln p(label). brier: Brier 1950, from 0
 * to
 * 2. ece: expected calibration error with 15 bins of equal width (Guo et al. 2017). disagreement:
 * the share of pairs of members with different classes, averaged over samples; 0 for one member. */
typedef struct cop_ensemble_figures {
    uint64_t samples;
    cop_ensemble_figure wrong, nll, brier, ece, disagreement;
} cop_ensemble_figures;
/* Computes the figures; all 0 for an empty sum. */
void cop_ensemble_get(const cop_ensemble_sums *sums, cop_ensemble_figures *out);

/* Accumulates the members' outputs for up to max_columns samples at a time. Use one per thread. */
typedef struct cop_ensemble cop_ensemble;
cop_err cop_ensemble_create(cop_average average, int classes, int max_columns, cop_ensemble **out,
                            cop_error *error);
void cop_ensemble_destroy(cop_ensemble *ensemble);
/* Starts again with other samples. `first` is the index of the first one in the evaluated part.
 * Labels are borrowed until the next begin; NULL: the samples will not be scored. */
void cop_ensemble_begin(cop_ensemble *ensemble, int columns, const int32_t *labels, uint32_t first);
/* Adds one member: logits [classes][ld], feature-major, ld >= columns. */
void cop_ensemble_add(cop_ensemble *ensemble, const float *logits, int ld);
/* The average probabilities of the members so far (at least one), [classes][columns]. Owned by the
 * ensemble and valid until its next call. With one member they are its softmax. */
const double *cop_ensemble_probabilities(cop_ensemble *ensemble);
/* Scores the average of the members so far and adds all samples to `sums`. */
void cop_ensemble_score(cop_ensemble *ensemble, cop_ensemble_sums *sums);

/* The uncertainty of K members about one sample, without its label. p_m are the probabilities of
 * member m, p is their arithmetic mean, and entropies are in nats with 0 ln 0 = 0.
 *
 *   entropy      H[p] = -sum_k p(k) ln p(k): predictive entropy, the total uncertainty
 *                (Gal, Uncertainty in Deep Learning, 2016, section 3.3.1)
 *   information  H[p] - 1/K sum_m H[p_m]: mutual information of class and mask, from 0 to H[p]. It
 *                is the disagreement between members (epistemic uncertainty). The rest of H[p] is
 *                the mean entropy within a member (aleatoric uncertainty): Houlsby et al. 2011
 *                (BALD); Depeweg et al. 2018
 *   variation    1 - f / K, where f members chose the most frequent class: variation ratio (Freeman
 *                1965; Gal 2016, section 3.3.1)
 *
 * The members are the dropout samples of Gal and Ghahramani 2016. With one member, information and
 * variation are 0. */
typedef struct cop_ensemble_opinion {
    int class; /* with the largest p; the first of equal ones (D10) */
    double entropy, information, variation;
} cop_ensemble_opinion;
/* Computes the uncertainty of the members so far about each sample, out[columns]. The average must
 * be arithmetic. */
void cop_ensemble_opinions(cop_ensemble *ensemble, cop_ensemble_opinion *out);

#endif
