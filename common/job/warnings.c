/* Warnings about a job's layers: what is legal but known to be of little use. Called by
 * cop_job_warnings; each is one line that says what to write instead. */
#include "common/job/internal.h"

/* The losses that work on logits apply the last function themselves. */
static void warn_of_last_layer(const cop_model *model, cop_str *out) {
    const int last = cop_model_layer_count(model) - 1;
    const cop_layer *layer = cop_model_layer(model, last);
    const bool bce = cop_model_loss(model) == COP_LOSS_BCE;
    if (!layer->ops->squashes || cop_model_loss(model) == COP_LOSS_MSE) return;
    cop_str_printf(out,
                   "model[%d] %s: the loss %s takes logits and applies a %s itself, so this layer "
                   "squashes the outputs a second time and slows learning: remove it\n",
                   last, layer->ops->kind, bce ? "bce" : "cross_entropy",
                   bce ? "sigmoid" : "softmax");
}

/* Unit by unit on the output of a convolution: neighbouring pixels tell what was dropped. */
static void warn_of_maps(const cop_model *model, cop_str *out) {
    bool maps = false; /* has a layer with weights made the images? */
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        const bool by_unit = layer->ops->drops && !layer->ops->drops_maps;
        if (maps && by_unit && layer->in.rank == 3)
            cop_str_printf(
                out,
                "model[%d] %s: it drops single pixels of feature maps, but their neighbours carry "
                "the same information: spatial_dropout drops whole maps\n",
                i, layer->ops->kind);
        maps = maps || layer->parameter_count > 0;
    }
}

void job_warn_of_layers(const cop_model *model, cop_str *out) {
    warn_of_maps(model, out);
    warn_of_last_layer(model, out);
}
