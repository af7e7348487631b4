/* The table of names that PyTorch, Keras, scikit-learn and people use for fields, layers and losses
 * of a job file. A job file that uses such a name is wrong; the table only serves for "did you
 * mean". */
#include <stdio.h>
#include <string.h>

#include "common/wire/fields.h"

/* A row has a valid name, and the words that mean it, with a blank before and after each word. A
 * word may be in several rows: then the first row counts whose name is valid where the word was
 * used. So "size" means "units" in a linear layer, and "kernel" in a pooling layer. */
static const struct {
    const char *name, *words;
} rows[] = {
    {"rate", " lr learning_rate learningrate eta step_size alpha lr0 base_lr "},
    {"p",
     " rate dropout_rate drop_rate drop_prob drop_probability prob probability dropout ratio "},
    {"batch", " batch_size batchsize minibatch minibatch_size mini_batch "},
    {"epochs", " num_epochs n_epochs max_epochs nb_epoch epoch n_iter "},
    {"steps", " num_steps n_steps max_steps iterations num_iterations max_iter iters updates "},
    {"shards", " num_shards n_shards microbatches slices "},
    {"units", " hidden hidden_size hidden_units out_features features neurons nodes width size "
              "output_dim output_size dim num_units n_units "},
    {"channels", " filters out_channels num_filters n_filters features maps "},
    {"kernel", " kernel_size filter_size pool_size pool window size "},
    {"stride", " strides subsample step "},
    {"padding", " pad pads zero_padding "},
    {"bias", " use_bias with_bias "},
    {"init", " initializer kernel_initializer weight_init initialization "},
    {"slope", " negative_slope alpha leak "},
    {"pieces", " num_pieces pool_size k "},
    {"max_norm", " maxnorm max_weight_norm kernel_constraint constraint "},
    {"weight_decay", " decay l2 wd l2_penalty penalty lambda regularization "},
    {"l1", " l1_penalty lasso "},
    {"epsilon", " eps "},
    {"beta1", " beta_1 betas b1 "},
    {"beta2", " beta_2 b2 "},
    {"alpha", " rho decay smoothing_constant "},
    {"momentum_final", " final_momentum "},
    {"schedule", " scheduler lr_schedule lr_scheduler lr_policy annealing "},
    {"warmup", " warmup_steps warm_up num_warmup_steps "},
    {"factor", " gamma decay_rate decay_factor "},
    {"every", " step_size period decay_steps interval frequency save_steps save_every "},
    {"decay", " gamma decay_rate "},
    {"final", " eta_min min_lr end "},
    {"keep", " max_to_keep save_total_limit save_top_k "},
    {"smoothing", " label_smoothing "},
    {"linear", " dense fc fully_connected affine inner_product "},
    {"conv2d", " conv convolution convolution2d convolutional "},
    {"max_pool2d",
     " maxpool max_pool maxpool2d maxpooling maxpooling2d max_pooling2d pool pooling "},
    {"avg_pool2d", " avgpool avg_pool average_pool avgpool2d averagepooling2d average_pooling2d "},
    {"spatial_dropout", " dropout2d spatialdropout2d channel_dropout "},
    {"dropconnect", " drop_connect dropweight "},
    {"sigmoid", " logistic "},
    {"flatten", " reshape view "},
    {"cross_entropy", " crossentropy cross_entropy_loss crossentropyloss categorical_crossentropy "
                      "sparse_categorical_crossentropy nll nll_loss log_loss softmax "},
    {"bce", " binary_crossentropy binary_cross_entropy bcewithlogits bcewithlogitsloss logistic "},
    {"mse", " mean_squared_error l2 squared_error mse_loss mseloss regression "},
    {"source", " dataset name type format kind set "},
    {"train", " train_data training file files path train_path x_train data training_data "},
    {"test", " test_data test_path x_test eval_data "},
    {"validation", " val valid val_size validation_size validation_split val_split dev holdout "},
    {"samples", " limit subset max_samples num_samples n_samples "},
    {"label", " target_column label_column class_column y_column "},
    {"drop", " ignore exclude skip remove omit leave_out drop_columns ignore_columns "},
    {"normalize", " normalization normalise scale scaling standardize preprocess "},
    {"augment", " augmentation transforms transform "},
    {"resize", " image_size img_size target_size input_size shape size "},
    {"layout", " data_format channels_last image_data_format order "},
    {"model", " layers network architecture net arch "},
    {"train", " training fit trainer "},
    {"seed", " random_seed random_state rng "},
    {"loss", " criterion objective cost loss_function "},
    {"optimizer", " optim optimiser solver "},
    {"evaluate", " eval evaluation "},
    {"checkpoint", " checkpoints save saving "},
    {"limits", " limit resources "},
    {"name", " title id job "},
    {"shift", " translate translation width_shift "},
    {"flip", " horizontal_flip hflip mirror "},
    {"crop", " random_crop "},
};

const char *cop_fields_find_synonym(const char *word, const char *const *names, size_t count) {
    char lower[64], key[68];
    size_t length = strlen(word);
    if (length >= sizeof lower || strchr(word, ' ')) return NULL;
    for (size_t i = 0; i <= length; i++) {
        const char c = word[i] == '-' ? '_' : word[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    snprintf(key, sizeof key, " %s ", lower);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t i = 0; i < count && strstr(rows[r].words, key); i++)
            if (strcmp(names[i], rows[r].name) == 0) return names[i];
    return NULL;
}

size_t cop_fields_synonyms(const char **name, size_t index) {
    const size_t count = sizeof rows / sizeof *rows;
    if (index < count) *name = rows[index].name;
    return count;
}
