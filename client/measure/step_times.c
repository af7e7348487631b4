/* The figures of a profile. See step_times.h. */
#include "client/measure/step_times.h"

#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"

/* ---- from lanes to figures ---- */

/* Sums over the lanes of workers, in ns. */
typedef struct lane_sums {
    uint64_t ns[COP_PHASES][COP_LAYERS_MAX + 1];
    uint64_t all[COP_PHASES];
    cop_zeros inputs[COP_LAYERS_MAX], gradients[COP_LAYERS_MAX];
    uint64_t samples, passes, waited_ns, update_ns, transfer_ns, bytes;
    uint32_t first_step, last_step;
    int threads;
    int agents;         /* number of threads that also ask for leases */
    uint64_t agents_ns; /* the whole time of these threads */
} lane_sums;

static void add_zeros(cop_zeros *to, const cop_zeros *from) {
    to->zeros += from->zeros;
    to->values += from->values;
}

static uint64_t total_of(const cop_lane *lane) {
    uint64_t ns = 0;
    for (int p = COP_PHASE_WAIT; p < COP_PHASE_EVALUATE; p++)
        for (int i = 0; i <= COP_NO_LAYER; i++) ns += lane->ns[p][i];
    return ns;
}

static void add_worker(lane_sums *s, const cop_lane *lane) {
    if (!lane->count[COP_PHASE_STEP]) return;
    for (int p = 0; p < COP_PHASES; p++)
        for (int i = 0; i <= COP_NO_LAYER; i++) {
            s->ns[p][i] += lane->ns[p][i];
            s->all[p] += lane->ns[p][i];
        }
    for (int i = 0; i < COP_LAYERS_MAX; i++) {
        add_zeros(&s->inputs[i], &lane->inputs[i]);
        add_zeros(&s->gradients[i], &lane->gradients[i]);
    }
    if (!s->threads || lane->first_step < s->first_step) s->first_step = lane->first_step;
    if (lane->last_step > s->last_step) s->last_step = lane->last_step;
    s->samples += lane->samples;
    s->passes += lane->count[COP_PHASE_STEP];
    s->threads++;
    if (!lane->count[COP_PHASE_WAIT]) return;
    s->agents++;
    s->agents_ns += total_of(lane);
}

static void add_lane(lane_sums *s, const cop_lane *lane) {
    switch (lane->role) {
    case COP_LANE_WORKER:
        add_worker(s, lane);
        return;
    case COP_LANE_UPDATES:
        s->update_ns += lane->ns[COP_PHASE_UPDATE][COP_NO_LAYER];
        s->bytes += lane->bytes;
        return;
    case COP_LANE_LOOP:
        s->transfer_ns += lane->ns[COP_PHASE_TRANSFER][COP_NO_LAYER];
        return;
    case COP_LANE_UPDATE:
        return;
    }
}

static double share_of(const cop_zeros *zeros) {
    return zeros->values ? (double)zeros->zeros / (double)zeros->values : -1;
}

/* The speed if only the terms count that no kernel can leave out. A kernel may leave out zeros of
 * the input in the forward product, and zeros of the gradient in the other two products. */
static double needed_speed(const cli_layer_times *l, int products) {
    const double x = l->input_zeros > 0 ? l->input_zeros : 0;
    const double dy = l->gradient_zeros > 0 ? l->gradient_zeros : 0;
    return l->gflops * (1 - x + (products - 1) * (1 - dy)) / products;
}

/* `unit` is the ms per step of 1 ns in the sums. */
static void layer_times(const lane_sums *s, const cop_layer *layer, double unit,
                        cli_layer_times *out) {
    const int i = layer->index;
    *out = (cli_layer_times){
        .forward = unit * (double)s->ns[COP_PHASE_FORWARD][i],
        .mask = unit * (double)s->ns[COP_PHASE_MASK][i],
        .weights = unit * (double)s->ns[COP_PHASE_WEIGHTS][i],
        .backward = unit * (double)s->ns[COP_PHASE_BACKWARD][i],
        .input_zeros = share_of(&s->inputs[i]),
        .gradient_zeros = share_of(&s->gradients[i]),
    };
    const uint64_t down = s->ns[COP_PHASE_BACKWARD][i];
    const uint64_t ns = s->ns[COP_PHASE_FORWARD][i] + s->ns[COP_PHASE_WEIGHTS][i] + down;
    if (!layer->parameter_count || !ns || !layer->ops->flop) return;
    const int products = down ? 3 : 2;
    out->gflops = layer->ops->flop(layer) * (double)s->samples * products / (double)ns;
    out->needed_gflops = needed_speed(out, products);
}

/* Divides the workers' waiting time among updates, messages and the rest, in this order. */
static void divide_wait(const lane_sums *s, cli_step_times *t) {
    const double waited = t->wait;
    t->update = 1e-6 * (double)s->update_ns / (double)t->steps;
    if (t->update > waited) t->update = waited;
    t->transfer = 1e-6 * (double)s->transfer_ns / (double)t->steps;
    if (t->transfer > waited - t->update) t->transfer = waited - t->update;
    t->wait = waited - t->update - t->transfer;
    t->update_bytes = (double)s->bytes / (double)t->steps;
    if (s->update_ns) t->update_gb_per_s = (double)s->bytes / (double)s->update_ns;
}

bool cli_step_times_of(const cop_profile *profile, const cop_model *model, cli_step_times *t) {
    lane_sums s = {0};
    for (size_t i = 0; i < cop_profile_lanes(profile); i++)
        add_lane(&s, cop_profile_at(profile, i));
    *t = (cli_step_times){.layer_count = cop_model_layer_count(model), .threads = s.threads};
    if (!s.threads) return false;
    t->steps = s.last_step - s.first_step + 1;
    t->columns = (int)((s.samples + s.passes - 1) / s.passes);
    const double unit = 1e-6 / (double)t->steps / s.threads;
    t->input = unit * (double)s.all[COP_PHASE_INPUT];
    t->loss = unit * (double)s.all[COP_PHASE_LOSS];
    t->sum = unit * (double)s.all[COP_PHASE_SUM];
    double computed = t->input + t->loss + t->sum;
    for (int i = 0; i < t->layer_count; i++) {
        cli_layer_times *l = &t->layers[i];
        layer_times(&s, cop_model_layer(model, i), unit, l);
        computed += l->forward + l->mask + l->weights + l->backward;
    }
    t->step = computed;
    if (s.agents) t->step = 1e-6 * (double)s.agents_ns / s.agents / (double)t->steps;
    if (t->step < computed) t->step = computed;
    t->wait = t->step - computed;
    divide_wait(&s, t);
    return true;
}

/* ---- for people ---- */

#define COLUMNS 10
typedef char row_text[COLUMNS][32];

static void print_ms(char *out, double ms) {
    if (ms > 0)
        snprintf(out, 32, "%.3f", ms);
    else
        snprintf(out, 32, "-");
}

static void print_share(char *out, double share) {
    if (share >= 0)
        snprintf(out, 32, "%.0f %%", 100 * share);
    else
        snprintf(out, 32, "-");
}

static void print_speed(char *out, double gflops) {
    if (gflops > 0)
        snprintf(out, 32, "%.3g", gflops);
    else
        snprintf(out, 32, "-");
}

static void fill_row(const cop_layer *layer, const cli_step_times *t, row_text text) {
    const cli_layer_times *l = &t->layers[layer->index];
    snprintf(text[0], 32, "%d %.24s", layer->index, layer->spec.kind);
    print_ms(text[1], l->forward);
    print_ms(text[2], l->mask);
    print_ms(text[3], l->weights);
    print_ms(text[4], l->backward);
    print_share(text[5], l->input_zeros);
    print_share(text[6], l->gradient_zeros);
    print_speed(text[7], l->gflops);
    print_speed(text[8], l->needed_gflops);
    print_speed(text[9], l->dense_gflops);
}

static cop_err print_layers(const cop_model *model, const cli_step_times *t, cop_error *error) {
    static const char *const head[COLUMNS] = {"LAYER", "FORWARD", "MASK",    "WEIGHTS", "INPUT",
                                              "X = 0", "DY = 0",  "GFLOP/S", "NEEDED",  "DENSE"};
    const size_t rows = (size_t)t->layer_count + 1;
    const char **cells = cop_alloc_array(rows * COLUMNS, sizeof *cells);
    row_text *text = cop_alloc_array(rows, sizeof *text);
    for (int c = 0; cells && c < COLUMNS; c++) cells[c] = head[c];
    for (size_t r = 1; cells && text && r < rows; r++) {
        fill_row(cop_model_layer(model, (int)r - 1), t, text[r]);
        for (int c = 0; c < COLUMNS; c++) cells[r * COLUMNS + (size_t)c] = text[r][c];
    }
    const bool complete = cells && text;
    if (complete) cli_print_table(cells, (int)rows, COLUMNS, "lrrrrrrrrr");
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

cop_err cli_step_times_print(const cop_model *model, const cli_step_times *t, cop_error *error) {
    cli_print("\nwhere the time of a step went, in ms: the mean of %d compute threads and %llu "
              "steps\n\n",
              t->threads, (unsigned long long)t->steps);
    COP_TRY(print_layers(model, t, error));
    char text[7][32], memory[80] = "";
    const double figures[7] = {t->input, t->loss, t->sum, t->update, t->transfer, t->wait, t->step};
    for (int i = 0; i < 7; i++) snprintf(text[i], sizeof text[i], "%.3f", figures[i]);
    if (t->update_gb_per_s > 0)
        snprintf(memory, sizeof memory, "%.3g GB/s; this machine adds large arrays at %.3g GB/s",
                 t->update_gb_per_s, t->memory_gb_per_s);
    const char *cells[] = {"samples",  text[0], "loads and checks them",
                           "loss",     text[1], "",
                           "sum",      text[2], "of the gradients of a worker's threads",
                           "update",   text[3], memory,
                           "transfer", text[4], "the coordinator handles messages",
                           "wait",     text[5], "for the other workers and the operating system",
                           "step",     text[6], "all of the above, and the layers"};
    cli_print("\n");
    cli_print_table(cells, 7, 3, "lrl");
    return COP_OK;
}

/* ---- for programs ---- */

static void fill_message(const cop_layer *layer, const cli_layer_times *l,
                         Coppice__Api__ProfileLayer *m) {
    coppice__api__profile_layer__init(m);
    m->has_index = m->has_forward_ms = m->has_mask_ms = m->has_weights_ms = m->has_input_ms = 1;
    m->index = (uint32_t)layer->index;
    m->kind = (char *)(uintptr_t)layer->spec.kind;
    m->forward_ms = l->forward;
    m->mask_ms = l->mask;
    m->weights_ms = l->weights;
    m->input_ms = l->backward;
    m->has_input_zeros = l->input_zeros >= 0;
    m->input_zeros = l->input_zeros;
    m->has_gradient_zeros = l->gradient_zeros >= 0;
    m->gradient_zeros = l->gradient_zeros;
    m->has_gflops = l->gflops > 0;
    m->gflops = l->gflops;
    m->has_needed_gflops = l->gflops > 0;
    m->needed_gflops = l->needed_gflops;
    m->has_dense_gflops = l->dense_gflops > 0;
    m->dense_gflops = l->dense_gflops;
}

/* The message, the table of its layers and the layers, in one block. */
typedef struct profile_message {
    Coppice__Api__Profile message;
    Coppice__Api__ProfileLayer *table[COP_LAYERS_MAX], layers[COP_LAYERS_MAX];
} profile_message;

cop_err cli_step_times_message(const cop_model *model, const cli_step_times *t,
                               Coppice__Api__Profile **out, cop_error *error) {
    profile_message *p = cop_alloc(sizeof *p);
    if (!p) return cop_no_memory(error);
    Coppice__Api__Profile *m = *out = &p->message;
    coppice__api__profile__init(m);
    for (int i = 0; i < t->layer_count; i++) {
        p->table[i] = &p->layers[i];
        fill_message(cop_model_layer(model, i), &t->layers[i], p->table[i]);
    }
    m->layers = p->table;
    m->n_layers = (size_t)t->layer_count;
    m->has_steps = m->has_threads = m->has_samples_ms = m->has_loss_ms = m->has_sum_ms =
        m->has_update_ms = m->has_transfer_ms = m->has_wait_ms = m->has_step_ms = 1;
    m->steps = t->steps;
    m->threads = (uint32_t)t->threads;
    m->samples_ms = t->input;
    m->loss_ms = t->loss;
    m->sum_ms = t->sum;
    m->update_ms = t->update;
    m->transfer_ms = t->transfer;
    m->wait_ms = t->wait;
    m->step_ms = t->step;
    m->has_update_gb_per_s = t->update_gb_per_s > 0;
    m->update_gb_per_s = t->update_gb_per_s;
    m->has_memory_gb_per_s = t->memory_gb_per_s > 0;
    m->memory_gb_per_s = t->memory_gb_per_s;
    return COP_OK;
}
