/* Predictions in this process: what a trained network, or an ensemble of its thinned networks, says
 * of each sample. Figures are those of common/ensemble/ensemble.h and moments.h, f64 in the order
 * of the members: the same for any number of threads. */
#ifndef COP_CLIENT_EVALUATE_PREDICT_H
#define COP_CLIENT_EVALUATE_PREDICT_H

#include "client/cli.h"
#include "common/data/samples.h"

enum { CLI_SHOWN = 3 };

typedef struct cli_prediction {
    int32_t class; /* -1: the outputs are no classes */
    int32_t shown_count;
    struct {
        int32_t index;
        double value, deviation;
    } shown[CLI_SHOWN];                     /* the most probable classes, or the first outputs */
    double entropy, information, variation; /* of class probabilities; of one network the first */
    double spread; /* of outputs: root of the mean of their deviations' squares */
} cli_prediction;

/* What is predicted, and what of. */
typedef struct cli_predictions {
    const cli_model *model;
    const cop_data_samples *samples; /* sample i has number i of D3 */
    uint32_t members;                /* of the ensemble; 0: the whole network, in eval mode */
    bool classes;                    /* probabilities of classes; else plain outputs */
    cli_prediction *of;              /* [samples] */
} cli_predictions;
/* The name or the number of a class, cut to `size` bytes of `out`. */
const char *cli_class_text(const cli_predictions *predictions, int32_t class, char *out,
                           size_t size);
/* How little sure the model is of a sample: entropy, or spread. */
double cli_uncertainty(const cli_predictions *predictions, uint32_t sample);

/* Some samples as they come, whole: [count][outputs]. */
typedef struct cli_predicted {
    uint32_t first, count;
    const double *values;     /* probabilities, or means of the outputs */
    const double *deviations; /* of the outputs; NULL for probabilities */
} cli_predicted;

typedef struct cli_predict_how {
    int64_t workers; /* threads; 0: as many as cores */
    bool quiet;
    /* Called in the samples' order on the calling thread; NULL: nobody wants them whole. */
    cop_err (*take)(void *context, const cli_predicted *block, cop_error *error);
    void *context;
} cli_predict_how;
bool cli_predicts_classes(const cop_model *model);
/* Fills `of`. INPUT names the first sample whose outputs are not finite. */
cop_err cli_predict_run(const cli_predictions *predictions, const cli_predict_how *how,
                        cop_error *error);

/* ---- uncertain.c ---- */
/* The `count` samples of which the model is least sure, the least sure first, of equal ones the
 * lower number first (cop_free); NULL: out of memory. */
uint32_t *cli_most_uncertain(const cli_predictions *predictions, uint32_t count);
/* Can they be drawn at all? INPUT. */
cop_err cli_uncertain_check(const cli_predictions *predictions, cop_error *error);
/* A sheet of them, with class and figures. */
cop_err cli_uncertain_draw(const cli_predictions *predictions, const uint32_t *samples,
                           uint32_t count, const char *path, cop_error *error);

#endif
