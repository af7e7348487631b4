/* Warnings about layers that are valid but known to be of little use. Each is one line that says
 * what to write instead. Called by cop_job_warnings. */
#include "common/job/internal.h"

/* Losses that take logits apply the sigmoid or softmax themselves. */
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

/* Dropping single pixels after a convolution: neighbouring pixels carry the same information. */
static void warn_of_maps(const cop_model *model, cop_str *out) {
    bool maps = false; /* is the input the output of a layer with weights? */
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
