/* Warnings about layers that are valid but known to be of little use. Each warning is one line that
 * says what to do instead. cop_job_warnings calls this file. */
#include "common/job/internal.h"

/* Warns if the last layer squashes the outputs although the loss takes logits, and so applies the
 * sigmoid or softmax itself. */
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

/* Warns of layers that drop single pixels after a layer with weights: neighbouring pixels carry the
 * same information. */
static void warn_of_maps(const cop_model *model, cop_str *out) {
    bool maps = false; /* an earlier layer has weights */
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
