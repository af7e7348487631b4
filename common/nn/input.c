/* Augmentation and normalisation of samples. See input.h. */
#include "common/nn/input.h"

#include <string.h>

#include "common/base/alloc.h"

/* ---- setup ---- */

static cop_err copy_statistics(const cop_input_spec *spec, cop_input *out, cop_error *error) {
    if (spec->channels != out->channels)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.normalize has statistics of %d channels, but samples have %d",
                        spec->channels, out->channels);
    out->mean = cop_alloc_array((size_t)spec->channels * 2, sizeof *out->mean);
    if (!out->mean) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for a model");
    out->std = out->mean + spec->channels;
    for (int c = 0; c < spec->channels; c++) {
        out->mean[c] = (float)spec->mean[c];
        out->std[c] = (float)spec->std[c];
        if (!(out->std[c] > 0)) {
            cop_input_destroy(out);
            return cop_fail(error, COP_ERR_INPUT,
                            "data.normalize is standard: the deviation of channel %d is too small",
                            c);
        }
    }
    return COP_OK;
}

cop_err cop_input_create(const cop_input_spec *spec, const cop_shape *shape, cop_input *out,
                         cop_error *error) {
    const bool image = shape->rank == 3, as_one = !image && spec->channels == 1;
    *out = (cop_input){.normalize = spec->normalize,
                       .channels = as_one ? 1 : shape->dims[0],
                       .height = image ? shape->dims[1] : 1,
                       .width = image    ? shape->dims[2]
                                : as_one ? shape->dims[0]
                                         : 1,
                       .shift = spec->shift,
                       .crop = spec->crop,
                       .flip = spec->flip};
    char text[64];
    if (cop_input_augments(out) && !image)
        return cop_fail(error, COP_ERR_INPUT,
                        "data.augment needs images, but samples are flat, of %s values",
                        cop_shape_format(shape, text));
    if (out->shift + out->crop > 0 && (out->shift >= out->height || out->shift >= out->width ||
                                       out->crop >= out->height || out->crop >= out->width))
        return cop_fail(error, COP_ERR_INPUT,
                        "data.augment shifts images completely out of view: expected fewer pixels "
                        "than their size, %d x %d",
                        out->height, out->width);
    if (spec->normalize == COP_NORMALIZE_STANDARD) return copy_statistics(spec, out, error);
    return COP_OK;
}

void cop_input_destroy(cop_input *input) {
    cop_free(input->mean);
    input->mean = input->std = NULL;
}

/* ---- augmentation ---- */

/* Maps a random word to a number that is uniform in [-limit, limit]. */
static int32_t pick_shift(uint32_t word, int32_t limit) {
    return (int32_t)((uint64_t)word * (2 * (uint64_t)limit + 1) >> 32) - limit;
}

/* How one line of an image is moved: out[x] = row[from + step * x] for low <= x < high. All other
 * pixels of out are 0. */
typedef struct line_map {
    int32_t low, high, from, step;
} line_map;

/* Combines three moves into one map: a shift by s, then a flip, then a crop by c. Pixel u of the
 * shifted line is pixel u - s of the row. The flipped line is the shifted line mirrored, or equal
 * to it without `flip`. Pixel x of the result is pixel x - c of the flipped line. All lines are
 * `width` pixels wide, so a pixel that one move pushes out of the line does not come back by the
 * next. */
static line_map map_line(int32_t width, int32_t s, bool flip, int32_t c) {
    line_map m = {c > 0 ? c : 0, c < 0 ? width + c : width, -c - s, 1};
    if (flip) {
        m.from = width - 1 + c - s;
        m.step = -1;
    }
    /* The range of x for which 0 <= from + step * x < width. */
    const int32_t low = flip ? m.from - width + 1 : -m.from,
                  high = flip ? m.from + 1 : width - m.from;
    if (low > m.low) m.low = low;
    if (high < m.high) m.high = high;
    if (m.high < m.low) m.high = m.low;
    COP_ASSERT(m.high == m.low ||
               (m.from + m.step * m.low >= 0 && m.from + m.step * m.low < width));
    return m;
}

static void copy_line(const line_map *m, int32_t width, size_t element, const char *row,
                      char *out) {
    memset(out, 0, (size_t)width * element);
    const size_t count = (size_t)(m->high - m->low);
    if (!count) return;
    COP_ASSERT(m->low >= 0 && m->high <= width);
    if (m->step == 1) {
        memcpy(out + (size_t)m->low * element, row + (size_t)(m->from + m->low) * element,
               count * element);
        return;
    }
    for (int32_t x = m->low; x < m->high; x++)
        memcpy(out + (size_t)x * element, row + (size_t)(m->from - x) * element, element);
}

void cop_input_augment(const cop_input *input, const cop_augment_draw *draw, size_t element,
                       const void *row, void *out) {
    uint32_t move[4], flip[4];
    COP_ASSERT(element >= 1 && row != out);
    const uint32_t first[4] = {0, draw->sample, 0, draw->step};
    const uint32_t second[4] = {1, draw->sample, 0, draw->step};
    cop_philox(first, draw->key, move);
    cop_philox(second, draw->key, flip);
    const int32_t height = input->height, width = input->width;
    const line_map across =
        map_line(width, pick_shift(move[0], input->shift), input->flip && (flip[0] & 1),
                 pick_shift(move[2], input->crop));
    const line_map down = map_line(height, pick_shift(move[1], input->shift), false,
                                   pick_shift(move[3], input->crop));
    const size_t line = (size_t)width * element;
    for (int32_t c = 0; c < input->channels; c++)
        for (int32_t y = 0; y < height; y++) {
            const size_t plane = (size_t)c * (size_t)height;
            char *to = (char *)out + (plane + (size_t)y) * line;
            if (y < down.low || y >= down.high)
                memset(to, 0, line);
            else
                copy_line(&across, width, element,
                          (const char *)row + (plane + (size_t)(down.from + y)) * line, to);
        }
}

/* ---- normalisation ---- */

void cop_input_normalize(const cop_input *input, bool bytes, float *x, int ld) {
    const size_t plane = (size_t)input->height * (size_t)input->width * (size_t)ld;
    if (input->normalize == COP_NORMALIZE_NONE && bytes)
        for (size_t i = 0; i < plane * (size_t)input->channels; i++) x[i] *= 255.0f; /* exact */
    if (input->normalize != COP_NORMALIZE_STANDARD) return;
    COP_ASSERT(input->mean && input->std);
    for (int32_t c = 0; c < input->channels; c++) {
        const float mean = input->mean[c], std = input->std[c];
        float *channel = x + (size_t)c * plane;
        for (size_t i = 0; i < plane; i++) channel[i] = (channel[i] - mean) / std;
    }
}
