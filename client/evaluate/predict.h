/* Predictions in this process, by a trained network or an ensemble of its thinned networks. The
 * figures are defined in common/ensemble/ensemble.h and moments.h. They are computed in f64 in the
 * order of the members, so they are equal for any number of threads. */
#ifndef COP_CLIENT_EVALUATE_PREDICT_H
#define COP_CLIENT_EVALUATE_PREDICT_H

#include "client/cli.h"
#include "common/data/samples.h"

enum { CLI_SHOWN = 3 }; /* classes or outputs that are shown of each sample */

/* The result for one sample. */
typedef struct cli_prediction {
    int32_t class; /* -1: the outputs are not classes */
    int32_t shown_count;
    struct {
        int32_t index;
        double value, deviation;
    } shown[CLI_SHOWN]; /* the most probable classes, or the first outputs */
    double entropy, information,
        variation; /* of class probabilities; a single network has only the first */
    double spread; /* of outputs: root mean square of their deviations */
} cli_prediction;

/* A request for predictions, with its results. */
typedef struct cli_predictions {
    const cli_model *model;
    const cop_data_samples *samples; /* sample i has number i in D3 */
    uint32_t members;                /* of the ensemble; 0: the whole network, in eval mode */
    bool classes;                    /* outputs are class probabilities; else plain outputs */
    cli_prediction *results;         /* [samples] */
} cli_predictions;
/* Writes the name of a class, or its number if it has no name, into `out`, cut to `size` bytes.
 * Returns `out`. */
const char *cli_class_text(const cli_predictions *predictions, int32_t class, char *out,
                           size_t size);
/* The uncertainty of a sample, after cli_predict_run: entropy in nats for class probabilities, else
 * the spread of the outputs. */
double cli_uncertainty(const cli_predictions *predictions, uint32_t sample);

/* The complete outputs of a block of samples: [count][outputs]. */
typedef struct cli_predicted {
    uint32_t first, count;
    const double *values;     /* probabilities, or means of the outputs */
    const double *deviations; /* of the outputs; NULL for probabilities */
} cli_predicted;

/* How to run predictions. */
typedef struct cli_predict_options {
    int64_t workers; /* threads; 0: one per core */
    bool quiet;      /* no progress line */
    /* Receives the complete outputs, in the order of the samples, on the calling thread. The block
     * is valid during the call. NULL: the complete outputs are not stored. */
    cop_err (*on_block)(void *context, const cli_predicted *block, cop_error *error);
    void *context;
} cli_predict_options;
/* True: the model has classes and the loss cross_entropy, so that its outputs are class
 * probabilities. */
bool cli_predicts_classes(const cop_model *model);
/* Computes predictions->results, which the caller has allocated. INPUT: the error names the first
 * sample whose outputs are not finite. An error of on_block ends the run and is returned. */
cop_err cli_predict_run(const cli_predictions *predictions, const cli_predict_options *options,
                        cop_error *error);

/* ---- uncertain.c ---- */
/* The numbers of the `count` most uncertain samples, the most uncertain first; samples with equal
 * uncertainty in ascending order. `count` is at most the number of samples. The caller frees the
 * result with cop_free. NULL: out of memory. */
uint32_t *cli_most_uncertain(const cli_predictions *predictions, uint32_t count);
/* Checks that the samples of this model can be drawn. INPUT: they cannot; the error has the reason.
 */
cop_err cli_uncertain_check(const cli_predictions *predictions, cop_error *error);
/* Draws a sheet of the `count` given samples, at least one, with their classes and figures, into a
 * PNG file. The errors of cli_sheet_draw. */
cop_err cli_uncertain_draw(const cli_predictions *predictions, const uint32_t *samples,
                           uint32_t count, const char *path, cop_error *error);

#endif
