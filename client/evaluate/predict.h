/* Predictions in this process: what a trained network, or an ensemble of its thinned networks, says
 * of each sample. Figures are those of common/ensemble/ensemble.h and moments.h, f64 in the order
 * of the members: the same for any number of threads. */
#ifndef COP_CLIENT_EVALUATE_PREDICT_H
#define COP_CLIENT_EVALUATE_PREDICT_H

#include "client/cli.h"
#include "common/data/samples.h"

enum { CLI_SHOWN = 3 };

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
    cli_prediction *of;              /* [samples] */
} cli_predictions;
/* The name or the number of a class, cut to `size` bytes. Returns `out`. */
const char *cli_class_text(const cli_predictions *predictions, int32_t class, char *out,
                           size_t size);
/* The uncertainty of a sample: entropy for classes, else spread. */
double cli_uncertainty(const cli_predictions *predictions, uint32_t sample);

/* The complete outputs of a block of samples: [count][outputs]. */
typedef struct cli_predicted {
    uint32_t first, count;
    const double *values;     /* probabilities, or means of the outputs */
    const double *deviations; /* of the outputs; NULL for probabilities */
} cli_predicted;

typedef struct cli_predict_how {
    int64_t workers; /* threads; 0: one per core */
    bool quiet;
    /* Receives the complete outputs, in the order of the samples, on the calling thread. NULL:
     * nobody needs them. */
    cop_err (*take)(void *context, const cli_predicted *block, cop_error *error);
    void *context;
} cli_predict_how;
/* True: the outputs of the model are class probabilities. */
bool cli_predicts_classes(const cop_model *model);
/* Computes predictions->of. INPUT: the error names the first sample whose outputs are not finite.
 * An error of how->take ends the run and is passed on. */
cop_err cli_predict_run(const cli_predictions *predictions, const cli_predict_how *how,
                        cop_error *error);

/* ---- uncertain.c ---- */
/* The numbers of the `count` most uncertain samples, the most uncertain first; equal ones in
 * ascending order. The caller frees them with cop_free. NULL: out of memory. */
uint32_t *cli_most_uncertain(const cli_predictions *predictions, uint32_t count);
/* Can these samples be drawn? INPUT: no, with the reason. */
cop_err cli_uncertain_check(const cli_predictions *predictions, cop_error *error);
/* Draws a sheet of these samples, with class and figures, into a PNG file. */
cop_err cli_uncertain_draw(const cli_predictions *predictions, const uint32_t *samples,
                           uint32_t count, const char *path, cop_error *error);

#endif
