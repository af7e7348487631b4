/* Mean, standard deviation and range of the training rows (D11). See data.h. */
#include <math.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/data/data.h"

int cop_data_channels(int32_t rank, int32_t first_dim) {
    return rank == 1 && first_dim > COP_STATISTICS_MAX ? 1 : first_dim;
}

static int channels_of(const cop_data_part *part) {
    return cop_data_channels(part->rank, part->dims[0]);
}

/* The number of values of a sample that share one mean. */
static size_t plane_size(const cop_data_part *part) {
    COP_ASSERT(part->rank == 1 || part->rank == 3);
    const size_t first = (size_t)(part->dims[0] / channels_of(part));
    return part->rank == 3 ? (size_t)part->dims[1] * (size_t)part->dims[2] : first;
}

/* Mean and deviation of a channel of u8 values. n * squares - sum^2 is exact in 128 bits, because
 * there are fewer than 2^36 values of at most 255. */
static void of_bytes(const cop_data_view *view, size_t channel, double *mean, double *std) {
    const cop_data_part *part = &view->data->train;
    const size_t plane = plane_size(part);
    uint64_t sum = 0, squares = 0, n = (uint64_t)view->train * plane;
    for (uint32_t r = 0; r < view->train; r++) {
        const uint8_t *p = (const uint8_t *)part->samples +
                           cop_data_view_row(view, r) * part->stride + channel * plane;
        for (size_t i = 0; i < plane; i++) {
            sum += p[i];
            squares += (uint32_t)p[i] * p[i];
        }
    }
    COP_ASSERT(n >= 1);
    const unsigned __int128 variance = /* the variance times n^2 */
        (unsigned __int128)n * squares - (unsigned __int128)sum * sum;
    *mean = (double)sum / (double)n / 255;
    *std = variance ? sqrt((double)variance) / (double)n / 255 : 1;
}

/* Mean and deviation of a channel of f32 values, in two passes. */
static void of_floats(const cop_data_view *view, size_t channel, double *mean, double *std) {
    const cop_data_part *part = &view->data->train;
    const size_t plane = plane_size(part), first = channel * plane,
                 stride = part->stride / sizeof(float);
    const float *samples = part->samples;
    const double n = (double)view->train * (double)plane;
    double sum = 0, squares = 0;
    for (uint32_t r = 0; r < view->train; r++) {
        const float *p = samples + cop_data_view_row(view, r) * stride + first;
        for (size_t i = 0; i < plane; i++) sum += (double)p[i];
    }
    *mean = sum / n;
    for (uint32_t r = 0; r < view->train; r++) {
        const float *p = samples + cop_data_view_row(view, r) * stride + first;
        for (size_t i = 0; i < plane; i++) {
            const double d = (double)p[i] - *mean;
            squares += d * d;
        }
    }
    *std = sqrt(squares / n);
    if (!(*std > 0)) *std = 1;
}

void cop_data_statistics(const cop_data_view *view, double *mean, double *std) {
    const cop_data_part *part = &view->data->train;
    COP_ASSERT(view->train >= 1);
    for (int c = 0; c < channels_of(part); c++) {
        if (part->type == COP_DATA_U8)
            of_bytes(view, (size_t)c, &mean[c], &std[c]);
        else
            of_floats(view, (size_t)c, &mean[c], &std[c]);
    }
}

static void widen(double value, double *min, double *max) {
    if (value < *min) *min = value;
    if (value > *max) *max = value;
}

void cop_data_ranges(const cop_data_view *view, double *min, double *max) {
    const cop_data_part *part = &view->data->train;
    const size_t plane = plane_size(part);
    const int channels = channels_of(part);
    COP_ASSERT(plane * (size_t)channels * (part->type == COP_DATA_U8 ? 1 : 4) == part->stride);
    for (int c = 0; c < channels; c++) min[c] = INFINITY, max[c] = -INFINITY;
    for (uint32_t r = 0; r < view->train; r++) {
        const char *row = (const char *)part->samples + cop_data_view_row(view, r) * part->stride;
        for (size_t i = 0; i < plane * (size_t)channels; i++) {
            const double value = part->type == COP_DATA_U8
                                     ? (double)((const uint8_t *)row)[i]
                                     : (double)((const float *)(const void *)row)[i];
            widen(value, &min[i / plane], &max[i / plane]);
        }
    }
}
