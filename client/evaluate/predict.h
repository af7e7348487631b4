/* Predictions in this process, by a trained network or an ensemble of its thinned networks. The
 * figures are defined in common/ensemble/ensemble.h and common/ensemble/moments.h. They are
 * computed in f64, in the order of the members, so they do not depend on the number of threads. */
#ifndef COP_CLIENT_EVALUATE_PREDICT_H
#define COP_CLIENT_EVALUATE_PREDICT_H

#include "client/cli.h"
#include "common/data/samples.h"

enum { CLI_SHOWN = 3 }; /* how many classes or outputs of each sample are shown */

/* The result for one sample. */
typedef struct cli_prediction {
    int32_t class; /* the predicted class; -1: the outputs do not stand for classes */
    int32_t shown_count;
    struct {
        int32_t index; /* index of the class or output */
        double value;
        double deviation; /* standard deviation of an output, over the members; 0 for a class */
    } shown[CLI_SHOWN];   /* the most probable classes, or the first outputs */
    /* For class probabilities. For a single network, `information` and `variation` are 0. */
    double entropy;
    double information;
    double variation;
    double spread; /* for plain outputs: the root mean square of their deviations */
} cli_prediction;

/* A request for predictions, with its results. */
typedef struct cli_predictions {
    const cli_model *model;
    const cop_data_samples *samples; /* the number of a sample in D3 is its index here */
    uint32_t members;                /* number of members of the ensemble; 0: the whole network,
                                        in eval mode */
    bool classes;                    /* the outputs are class probabilities, not plain outputs */
    cli_prediction *results;         /* [samples] */
} cli_predictions;
/* Writes the name of a class into `out`, or its number if it has no name. A text that does not fit
 * into `size` bytes is cut (cli_shorten). Returns `out`. */
const char *cli_class_text(const cli_predictions *predictions, int32_t class, char *out,
                           size_t size);
/* The uncertainty of a sample: the entropy of the class probabilities in nats, or the spread of
 * plain outputs. Call it after cli_predict_run. */
double cli_uncertainty(const cli_predictions *predictions, uint32_t sample);

/* The complete outputs of a block of samples: [count][outputs]. */
typedef struct cli_predicted {
    uint32_t first; /* index of the first sample of the block */
    uint32_t count;
    const double *values;     /* class probabilities, or means of the plain outputs */
    const double *deviations; /* standard deviations of the plain outputs; NULL for class
                                 probabilities */
} cli_predicted;

/* How to run predictions. */
typedef struct cli_predict_options {
    int64_t workers; /* threads; 0: one per core */
    bool quiet;      /* no progress line */
    /* Called with the complete outputs, block after block in the order of the samples, on the
     * thread that called cli_predict_run. The block is valid only during the call. NULL: the
     * complete outputs are not stored. */
    cop_err (*on_block)(void *context, const cli_predicted *block, cop_error *error);
    void *context;
} cli_predict_options;
/* True: the model's outputs are class probabilities, because it has classes and the loss
 * cross_entropy. */
bool cli_predicts_classes(const cop_model *model);
/* Computes predictions->results, which the caller has allocated. INPUT: the error names the first
 * sample whose outputs are not finite. An error of on_block ends the run and is returned. */
cop_err cli_predict_run(const cli_predictions *predictions, const cli_predict_options *options,
                        cop_error *error);

/* ---- uncertain.c ---- */
/* Returns the indices of the `count` most uncertain samples, the most uncertain first. Samples with
 * equal uncertainty are in ascending order. `count` is at most the number of samples. The caller
 * frees the result with cop_free. NULL: out of memory. */
uint32_t *cli_most_uncertain(const cli_predictions *predictions, uint32_t count);
/* Checks that the samples of this model can be drawn as images. INPUT: they cannot; the error has
 * the reason. */
cop_err cli_uncertain_check(const cli_predictions *predictions, cop_error *error);
/* Draws a sheet of the samples with the given indices into a PNG file, with their classes and
 * figures. `count` is at least 1. The errors are those of cli_sheet_draw, or NO_MEMORY. */
cop_err cli_uncertain_draw(const cli_predictions *predictions, const uint32_t *samples,
                           uint32_t count, const char *path, cop_error *error);

#endif
