/* Finds and changes the order of dimensions in arrays of images. PyTorch and packs have (n,
 * channels, height, width). TensorFlow, Pillow and OpenCV have (n, height, width, channels). */
#include <string.h>

#include "common/base/alloc.h"
#include "common/data/pack.h"

/* Is this a usual number of channels? */
static bool is_image(uint64_t channels) {
    return channels == 1 || channels == 3;
}

/* Guesses the order from the shape (a, b, c) of a sample: images have few channels, and their
 * height and width are often equal. Returns AUTO if the shape is ambiguous. */
static cop_data_order order_of(uint64_t a, uint64_t b, uint64_t c) {
    if (a == 1 || (b == c && a != b)) return COP_DATA_CHANNELS_FIRST;
    if (a == b && b != c && c <= 4) return COP_DATA_CHANNELS_LAST;
    if (is_image(a) != is_image(c))
        return is_image(a) ? COP_DATA_CHANNELS_FIRST : COP_DATA_CHANNELS_LAST;
    if (a <= 4 && c <= 4) return COP_DATA_ORDER_AUTO;
    return a <= 4 || c > 4 ? COP_DATA_CHANNELS_FIRST : COP_DATA_CHANNELS_LAST;
}

cop_err channels_find(const char *path, const cop_data_shape *shape, cop_data_order *order,
                      cop_error *error) {
    const uint64_t *dims = shape->dims;
    COP_ASSERT(shape->rank <= 4);
    if (shape->rank != 4 || *order != COP_DATA_ORDER_AUTO) return COP_OK;
    *order = order_of(dims[1], dims[2], dims[3]);
    if (*order != COP_DATA_ORDER_AUTO) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT,
                    "%s has the ambiguous shape (%llu, %llu, %llu, %llu): the channels may be "
                    "first or last; expected data.layout: nchw or nhwc",
                    path, (unsigned long long)dims[0], (unsigned long long)dims[1],
                    (unsigned long long)dims[2], (unsigned long long)dims[3]);
}

void channels_reorder(cop_data_shape *shape, cop_data_order order) {
    uint64_t *dims = shape->dims;
    if (shape->rank != 4 || order != COP_DATA_CHANNELS_LAST) return;
    const uint64_t channels = dims[3];
    dims[3] = dims[2];
    dims[2] = dims[1];
    dims[1] = channels;
}

cop_err channels_to_front(const int32_t dims[3], uint64_t count, size_t element, void *samples,
                          cop_error *error) {
    const size_t channels = (size_t)dims[0], pixels = (size_t)dims[1] * (size_t)dims[2],
                 stride = channels * pixels * element;
    COP_ASSERT(dims[0] >= 1 && dims[1] >= 1 && dims[2] >= 1);
    COP_ASSERT(element == 1 || element == sizeof(float));
    char *one = channels > 1 ? cop_alloc_raw(stride) : NULL, *at = samples;
    if (channels == 1) return COP_OK; /* nothing moves */
    if (!one) return cop_no_memory(error);
    for (uint64_t i = 0; i < count; i++, at += stride) {
        memcpy(one, at, stride);
        for (size_t c = 0; c < channels; c++)
            for (size_t p = 0; p < pixels; p++)
                memcpy(at + (c * pixels + p) * element, one + (p * channels + c) * element,
                       element);
    }
    cop_free(one);
    return COP_OK;
}
