/* Finds the most uncertain samples and draws a sheet of them. See predict.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/draw/sheet.h"
#include "client/evaluate/predict.h"
#include "common/base/alloc.h"

#define SHEET_COLUMNS 8

/* ---- ranking ---- */

typedef struct ranked {
    double uncertainty;
    uint32_t sample;
} ranked;

static int most_uncertain_first(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->uncertainty != y->uncertainty) return x->uncertainty < y->uncertainty ? 1 : -1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

uint32_t *cli_most_uncertain(const cli_predictions *p, uint32_t count) {
    const uint32_t all = p->samples->part.count;
    ranked *ranks = cop_alloc_array(all, sizeof *ranks);
    uint32_t *samples = cop_alloc_array(count, sizeof *samples);
    COP_ASSERT(count <= all);
    for (uint32_t i = 0; ranks && i < all; i++) ranks[i] = (ranked){cli_uncertainty(p, i), i};
    if (ranks) qsort(ranks, all, sizeof *ranks, most_uncertain_first);
    for (uint32_t i = 0; ranks && samples && i < count; i++) samples[i] = ranks[i].sample;
    if (!ranks) {
        cop_free(samples);
        samples = NULL;
    }
    cop_free(ranks);
    return samples;
}

/* ---- images ---- */

cop_err cli_uncertain_check(const cli_predictions *p, cop_error *error) {
    const Coppice__Pinned *pinned = p->model->job->message->pinned;
    if (pinned->n_input != 3 || (pinned->input[0] != 1 && pinned->input[0] != 3))
        return cop_fail(error, COP_ERR_INPUT,
                        "--top-uncertain draws images, but the model's samples are not images: %u "
                        "%s; expected 1 or 3 channels of pixels",
                        pinned->input[0], pinned->n_input == 3 ? "channels" : "flat values");
    if (pinned->input[1] > CLI_SHEET_SIDE_MAX || pinned->input[2] > CLI_SHEET_SIDE_MAX)
        return cop_fail(
            error, COP_ERR_INPUT,
            "--top-uncertain draws images of at most %d x %d pixels, but the model's have %u x %u",
            CLI_SHEET_SIDE_MAX, CLI_SHEET_SIDE_MAX, pinned->input[2], pinned->input[1]);
    return COP_OK;
}

/* Maps floats to bytes: the smallest of the `count` values to 0, the largest to 255. */
static void shade(const float *from, size_t count, uint8_t *to) {
    float min = from[0], max = from[0];
    for (size_t i = 1; i < count; i++) {
        min = fminf(min, from[i]);
        max = fmaxf(max, from[i]);
    }
    const double range = max > min ? (double)max - (double)min : 1;
    for (size_t i = 0; i < count; i++)
        to[i] = (uint8_t)lrint(255 * ((double)from[i] - (double)min) / range);
}

/* Copies the images of the chosen samples into *out as bytes. The caller frees out->samples with
 * cop_free, on failure too. */
static cop_err copy_images(const cli_predictions *p, const uint32_t *samples, uint32_t count,
                           cop_data_part *out, cop_error *error) {
    const cop_data_part *part = &p->samples->part;
    const size_t values = part->type == COP_DATA_F32 ? part->stride / sizeof(float) : part->stride;
    uint8_t *pixels = cop_alloc_array(count, values);
    *out = *part;
    out->type = COP_DATA_U8;
    out->count = count;
    out->stride = values;
    out->samples = pixels;
    out->labels = NULL;
    char *rows = cop_alloc_array(count, part->stride);
    if (!pixels || !rows) {
        cop_free(rows);
        return cop_no_memory(error);
    }
    for (uint32_t i = 0; i < count; i++) {
        COP_ASSERT(samples[i] < part->count);
        memcpy(rows + i * part->stride,
               (const char *)part->samples + (size_t)samples[i] * part->stride, part->stride);
    }
    if (part->type == COP_DATA_F32)
        shade((const float *)(const void *)rows, count * values, pixels);
    else
        memcpy(pixels, rows, count * values);
    cop_free(rows);
    return COP_OK;
}

/* ---- captions ---- */

static void name_sample(const cli_predictions *p, uint32_t sample, cli_caption *line) {
    const int32_t *labels = p->samples->part.labels;
    char label[40] = "", name[20];
    if (labels)
        snprintf(label, sizeof label, "  label %s%s",
                 cli_class_text(p, labels[sample], name, sizeof name),
                 labels[sample] == p->results[sample].class ? "" : ", wrong");
    if (p->samples->names)
        snprintf(line->text, sizeof line->text, "%.30s%s", p->samples->names[sample], label);
    else
        snprintf(line->text, sizeof line->text, "#%u%s", sample, label);
    line->bold = true;
}

static void write_class_lines(const cli_predictions *p, const cli_prediction *r,
                              cli_caption *lines) {
    char name[24];
    COP_ASSERT(r->shown_count <= CLI_SHOWN);
    for (int i = 0; i < r->shown_count; i++) {
        snprintf(lines[1 + i].text, sizeof lines[1].text, "%s   %.3f",
                 cli_class_text(p, r->shown[i].index, name, sizeof name), r->shown[i].value);
        lines[1 + i].bar = r->shown[i].value;
        lines[1 + i].bold = i == 0;
    }
    cli_caption *last = &lines[1 + CLI_SHOWN];
    if (p->members)
        snprintf(last->text, sizeof last->text, "H %.2f  MI %.2f  VR %.2f", r->entropy,
                 r->information, r->variation);
    else
        snprintf(last->text, sizeof last->text, "H %.3f", r->entropy);
}

static void write_output_lines(const cli_predictions *p, const cli_prediction *r,
                               cli_caption *lines) {
    char name[24];
    snprintf(lines[1].text, sizeof lines[1].text, "spread %.4g", r->spread);
    if (r->class >= 0)
        snprintf(lines[2].text, sizeof lines[2].text, "class %s",
                 cli_class_text(p, r->class, name, sizeof name));
}

static int caption_lines(const cli_predictions *p) {
    return p->classes ? 2 + CLI_SHOWN : 3;
}

static cli_caption *make_captions(const cli_predictions *p, const uint32_t *samples,
                                  uint32_t count) {
    const size_t height = (size_t)caption_lines(p);
    cli_caption *all = cop_alloc_array(count * height, sizeof *all);
    for (uint32_t i = 0; all && i < count; i++) {
        cli_caption *lines = all + i * height;
        for (size_t k = 0; k < height; k++) lines[k].bar = -1;
        name_sample(p, samples[i], &lines[0]);
        if (p->classes)
            write_class_lines(p, &p->results[samples[i]], lines);
        else
            write_output_lines(p, &p->results[samples[i]], lines);
    }
    return all;
}

cop_err cli_uncertain_draw(const cli_predictions *p, const uint32_t *samples, uint32_t count,
                           const char *path, cop_error *error) {
    char first[120], second[120];
    const char *heading[] = {first, second, NULL};
    cop_data_part part;
    COP_ASSERT(count >= 1);
    snprintf(first, sizeof first, "Most uncertain: %u of %u samples", count,
             p->samples->part.count);
    if (p->members) {
        const size_t end = strlen(first);
        snprintf(first + end, sizeof first - end, ", %u members", p->members);
    }
    snprintf(second, sizeof second, "%s",
             !p->classes  ? "spread: deviation of the outputs over the members"
             : p->members ? "H entropy, MI mutual information (nats), VR variation ratio"
                          : "class and probability, H entropy (nats)");
    cop_err e = copy_images(p, samples, count, &part, error);
    cli_caption *captions = make_captions(p, samples, count);
    if (!e && !captions) e = cop_no_memory(error);
    const cli_sheet sheet = {.part = &part,
                             .columns = count < SHEET_COLUMNS ? (int)count : SHEET_COLUMNS,
                             .lines = caption_lines(p),
                             .captions = captions,
                             .heading = heading};
    if (!e) e = cli_sheet_draw(&sheet, path, error);
    cop_free(captions);
    cop_free((void *)(uintptr_t)part.samples);
    return e;
}
