/* Averages the class probabilities of thinned networks, scores the averages, and measures how
 * uncertain they are about each sample. Everything is computed in f64 by base/real.h, in the order
 * of the members, so it is the same on every machine. */
#ifndef COP_ENSEMBLE_ENSEMBLE_H
#define COP_ENSEMBLE_ENSEMBLE_H

#include <stdint.h>

#include "common/base/err.h"

typedef enum cop_average {
    COP_AVERAGE_ARITHMETIC = 1, /* the mean of the probabilities */
    COP_AVERAGE_GEOMETRIC = 2   /* exp of the mean of their logarithms, scaled to sum 1 */
} cop_average;

enum { COP_ENSEMBLE_BINS = 15, COP_ENSEMBLE_GROUPS = 20, COP_ENSEMBLE_MEMBERS_MAX = 100000 };

/* Sums over samples. It is plain data, and the empty sum is all zero. */
typedef struct cop_ensemble_sums {
    uint64_t samples; /* the number of samples */
    /* The sums of four values per sample, and the sums of their squares:
     *   0  1 if the sample is misclassified, else 0
     *   1  -ln p(label)
     *   2  the sum over all classes of (p - 1)^2 for the label and p^2 for each other class
     *   3  the share of pairs of members that chose different classes */
    double value[4], square[4];
    /* For the calibration error and, by the jackknife, its standard error. The largest probability
     * of a sample decides its bin. The index of the sample in the evaluated part decides its
     * jackknife group. */
    struct {
        double count;      /* the number of samples */
        double confidence; /* the sum of their largest probabilities */
        double correct;    /* the number of samples that are classified correctly */
    } bin[COP_ENSEMBLE_GROUPS][COP_ENSEMBLE_BINS];
} cop_ensemble_sums;
/* Adds `from` to `into`. The last bits of the sums depend on the order of such calls. */
void cop_ensemble_merge(cop_ensemble_sums *into, const cop_ensemble_sums *from);

typedef struct cop_ensemble_figure {
    double value;
    double error; /* standard error over the samples; of ece, by a jackknife over 20 groups */
} cop_ensemble_figure;
/* The figures of an ensemble:
 *   wrong         the share of samples that are misclassified
 *   nll           the mean of -ln p(label)
 *   brier         the Brier score, from 0 to 2 (Brier 1950)
 *   ece           the expected calibration error with 15 bins of equal width (Guo et al. 2017)
 *   disagreement  the share of pairs of members that chose different classes, averaged over the
 *                 samples; 0 for one member */
typedef struct cop_ensemble_figures {
    uint64_t samples;
    cop_ensemble_figure wrong, nll, brier, ece, disagreement;
} cop_ensemble_figures;
/* Computes the figures. If there are no samples, all figures are 0. */
void cop_ensemble_get(const cop_ensemble_sums *sums, cop_ensemble_figures *out);

/* Accumulates the members' outputs for up to max_columns samples at a time. Use one per thread. */
typedef struct cop_ensemble cop_ensemble;
cop_err cop_ensemble_create(cop_average average, int classes, int max_columns, cop_ensemble **out,
                            cop_error *error);
void cop_ensemble_destroy(cop_ensemble *ensemble);
/* Forgets all members and starts again with `columns` other samples. `first` is the index of the
 * first sample in the evaluated part. The labels are borrowed until the next begin. They may be
 * NULL if cop_ensemble_score will not be called. */
void cop_ensemble_begin(cop_ensemble *ensemble, int columns, const int32_t *labels, uint32_t first);
/* Adds one member. Its logits are [classes][ld], feature-major, with ld >= columns. */
void cop_ensemble_add(cop_ensemble *ensemble, const float *logits, int ld);
/* Returns the average of the probabilities of the members so far, [classes][columns]. There must be
 * at least one member; the average of one member is its softmax. The result belongs to the ensemble
 * and is valid until its next call. */
const double *cop_ensemble_probabilities(cop_ensemble *ensemble);
/* Scores the average of the members so far and adds all samples to `sums`. */
void cop_ensemble_score(cop_ensemble *ensemble, cop_ensemble_sums *sums);

/* How uncertain K members are about one sample. The sample's label is not used. p_m are the class
 * probabilities by member m, and p is their arithmetic mean over the members. Entropies are in
 * nats, with 0 ln 0 = 0.
 *
 *   entropy      H[p] = -sum_k p(k) ln p(k): predictive entropy, the total uncertainty
 *                (Gal, Uncertainty in Deep Learning, 2016, section 3.3.1)
 *   information  H[p] - 1/K sum_m H[p_m]: mutual information of class and mask, from 0 to H[p]. It
 *                measures how much the members disagree (epistemic uncertainty). The rest of H[p],
 *                1/K sum_m H[p_m], is the mean uncertainty of a single member (aleatoric
 *                uncertainty) (Houlsby et al. 2011, BALD; Depeweg et al. 2018)
 *   variation    1 - f / K, where f is the number of members that chose the most frequent class:
 *                variation ratio (Freeman 1965; Gal 2016, section 3.3.1)
 *
 * The members are the dropout samples of Gal and Ghahramani 2016. With one member, information and
 * variation are 0. */
typedef struct cop_ensemble_opinion {
    int class; /* the class with the largest p; of equal ones the first (D10) */
    double entropy, information, variation;
} cop_ensemble_opinion;
/* Computes how uncertain the members so far are about each sample, and writes it to out[columns].
 * The ensemble must have been created with COP_AVERAGE_ARITHMETIC. */
void cop_ensemble_opinions(cop_ensemble *ensemble, cop_ensemble_opinion *out);

#endif
