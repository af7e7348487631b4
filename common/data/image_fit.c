/* Changes the size and the number of channels of images, and turns them as their EXIF orientation
 * requires. All arithmetic is in integers, in one fixed order, so every machine computes the same
 * bytes (D4, D11). */
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/image.h"

/* ---- orientation ---- */

/* EXIF data, which have the structure of a TIFF file. */
typedef struct tiff {
    const unsigned char *bytes;
    size_t size;
    bool big_endian;
} tiff;

/* The number of `width` bytes at offset `at`; 0 if it lies outside of the data. */
static uint32_t take(const tiff *t, size_t at, size_t width) {
    uint32_t value = 0;
    if (at > t->size || t->size - at < width) return 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint32_t)t->bytes[at + i] << 8 * (t->big_endian ? width - 1 - i : i);
    return value;
}

int image_orientation(const void *exif, size_t size) {
    const unsigned char *b = exif;
    if (size >= 6 && memcmp(b, "Exif\0\0", 6) == 0) b += 6, size -= 6;
    if (size < 8 || (memcmp(b, "II*\0", 4) != 0 && memcmp(b, "MM\0*", 4) != 0)) return 1;
    const tiff t = {b, size, b[0] == 'M'};
    const size_t table = take(&t, 4, 4);
    const uint32_t entries = take(&t, table, 2);
    for (uint32_t i = 0; i < entries; i++) {
        const size_t at = table + 2 + 12 * (size_t)i;
        if (take(&t, at, 2) != 0x0112) continue;
        const uint32_t value = take(&t, at + 8, 2);
        return take(&t, at + 2, 2) == 3 && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

cop_err image_rotate_upright(const char *name, cop_image *image, int orientation,
                             cop_error *error) {
    const bool swap = orientation >= 5;
    const bool flip_y =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const bool flip_x =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const size_t height = (size_t)image->height, width = (size_t)image->width,
                 plane = height * width;
    COP_ASSERT(orientation >= 1 && orientation <= 8);
    if (orientation == 1) return COP_OK;
    cop_image out = *image;
    if (swap) out.height = image->width, out.width = image->height;
    COP_TRY(image_create(name, IMAGE_VALUES_MAX, &out, error));
    for (size_t y = 0; y < height; y++) /* (x, y) is a pixel of the source */
        for (size_t x = 0; x < width; x++) {
            const size_t v = flip_y ? height - 1 - y : y, u = flip_x ? width - 1 - x : x;
            const size_t to = swap ? u * height + v : v * width + u;
            for (size_t c = 0; c < (size_t)image->channels; c++)
                out.pixels[c * plane + to] = image->pixels[c * plane + y * width + x];
        }
    cop_free(image->pixels);
    *image = out;
    return COP_OK;
}

/* ---- size ---- */

/* The sizes of the source and of the output along one axis. An output value is a weighted mean of
 * neighbouring source values. The weights are integers. Their sum, weight_sum, is the same for all
 * output values. */
typedef struct axis {
    uint32_t in, out;
} axis;

/* Memory for resizing one plane. */
typedef struct scratch {
    uint32_t *sums;    /* (y.in, x.out) weighted sums along the rows */
    uint32_t *weights; /* weights of the input values for one output value */
} scratch;

static uint32_t weight_sum(const axis *a) {
    return a->out <= a->in ? a->in : 2 * a->out;
}

/* Computes the weights of output value `i`. They apply to consecutive source values, beginning with
 * index *first. Returns their number. If the axis shrinks, the output value is the mean of the area
 * that it covers; a weight is an overlap in units of 1/out of a source pixel. If the axis grows,
 * the output value is interpolated between the two source pixels whose centres are nearest; a
 * weight is in units of 1/(2 out). */
static uint32_t weights_of(const axis *a, uint32_t i, uint32_t *first, uint32_t *weights) {
    if (a->out <= a->in) {
        const uint64_t begin = (uint64_t)i * a->in, end = begin + a->in;
        uint32_t count = 0;
        *first = (uint32_t)(begin / a->out);
        for (uint64_t at = *first; at * a->out < end; at++) {
            const uint64_t low = at * a->out > begin ? at * a->out : begin,
                           high = (at + 1) * a->out < end ? (at + 1) * a->out : end;
            weights[count++] = (uint32_t)(high - low);
        }
        return count;
    }
    const int64_t unit = 2 * (int64_t)a->out, centre = (2 * (int64_t)i + 1) * a->in - a->out;
    const int64_t last = (int64_t)a->in - 1, low = centre < 0 ? 0 : centre / unit;
    *first = (uint32_t)(low < last ? low : last);
    if (centre <= 0 || low >= last) {
        weights[0] = (uint32_t)unit;
        return 1;
    }
    weights[1] = (uint32_t)(centre - low * unit);
    weights[0] = (uint32_t)unit - weights[1];
    return 2;
}

/* Resizes one plane from (y->in, x->in) to (y->out, x->out): first along the rows, into work->sums,
 * then along the columns. No sum overflows, because 255 * weight_sum(x) * weight_sum(y) is below
 * 2^53. */
static void resize_plane(const uint8_t *in, const axis *y, const axis *x, const scratch *work,
                         uint8_t *out) {
    uint32_t first, *sums = work->sums, *weights = work->weights;
    for (uint32_t j = 0; j < x->out; j++) {
        const uint32_t count = weights_of(x, j, &first, weights);
        COP_ASSERT(count >= 1 && first + count <= x->in);
        for (uint32_t r = 0; r < y->in; r++) {
            uint32_t sum = 0; /* at most 255 * 2^21 */
            for (uint32_t k = 0; k < count; k++)
                sum += weights[k] * in[(size_t)r * x->in + first + k];
            sums[(size_t)r * x->out + j] = sum;
        }
    }
    const uint64_t whole = (uint64_t)weight_sum(x) * weight_sum(y);
    for (uint32_t i = 0; i < y->out; i++) {
        const uint32_t count = weights_of(y, i, &first, weights);
        COP_ASSERT(count >= 1 && first + count <= y->in);
        for (uint32_t j = 0; j < x->out; j++) {
            uint64_t sum = whole / 2;
            for (uint32_t k = 0; k < count; k++)
                sum += (uint64_t)weights[k] * sums[((size_t)first + k) * x->out + j];
            out[(size_t)i * x->out + j] = (uint8_t)(sum / whole);
        }
    }
}

static cop_err resize(const char *name, const image_form *form, cop_image *image,
                      cop_error *error) {
    cop_image out = {.channels = image->channels, .height = form->height, .width = form->width};
    COP_TRY(image_create(name, COP_UNITS_MAX, &out, error));
    const axis y = {(uint32_t)image->height, (uint32_t)out.height},
               x = {(uint32_t)image->width, (uint32_t)out.width};
    const size_t longest = y.in > x.in ? y.in : x.in;
    const scratch work = {cop_alloc_array((size_t)y.in * x.out, sizeof *work.sums),
                          cop_alloc_array(longest + 2, sizeof *work.weights)};
    const bool done = work.sums && work.weights;
    for (size_t c = 0; c < (size_t)image->channels && done; c++)
        resize_plane(image->pixels + c * y.in * x.in, &y, &x, &work,
                     out.pixels + c * y.out * x.out);
    cop_free(work.sums);
    cop_free(work.weights);
    if (!done) {
        cop_free(out.pixels);
        return cop_no_memory(error);
    }
    cop_free(image->pixels);
    *image = out;
    return COP_OK;
}

/* ---- size and channels ---- */

static cop_err to_colour(const char *name, cop_image *image, cop_error *error) {
    cop_image out = {.channels = 3, .height = image->height, .width = image->width};
    const size_t plane = (size_t)image->height * (size_t)image->width;
    COP_ASSERT(image->channels == 1);
    COP_TRY(image_create(name, COP_UNITS_MAX, &out, error));
    for (size_t c = 0; c < 3; c++) memcpy(out.pixels + c * plane, image->pixels, plane);
    cop_free(image->pixels);
    *image = out;
    return COP_OK;
}

cop_err image_fit(const char *name, const image_form *form, cop_image *image, cop_error *error) {
    const bool sized = form->height && form->width;
    if (sized && (image->height != form->height || image->width != form->width))
        COP_TRY(resize(name, form, image, error));
    if (form->channels == 3 && image->channels == 1) COP_TRY(to_colour(name, image, error));
    return COP_OK;
}
