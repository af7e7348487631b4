/* Decides and changes the type of the samples of a set. The values decide the type, not the format
 * of the files. See data.h. */
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/data/pack.h"

static size_t values_of(const cop_data_part *part) {
    size_t values = part->count;
    for (int d = 0; d < part->rank; d++) values *= (size_t)part->dims[d];
    return values;
}

bool cop_data_is_byte(float value) {
    return value >= 0 && value <= 255 && value == (float)(int32_t)value;
}

static bool all_bytes(const cop_data_part *part) {
    const float *samples = part->samples;
    const size_t values = values_of(part);
    for (size_t i = 0; i < values; i++)
        if (!cop_data_is_byte(samples[i])) return false;
    return true;
}

static void convert(const cop_data_part *from, const cop_data_part *to) {
    const size_t values = values_of(from);
    COP_ASSERT(from->type != to->type && from->count == to->count);
    if (to->type == COP_DATA_U8)
        for (size_t i = 0; i < values; i++)
            ((uint8_t *)pack_samples(to))[i] = (uint8_t)((const float *)from->samples)[i];
    else
        for (size_t i = 0; i < values; i++)
            ((float *)pack_samples(to))[i] = (float)((const uint8_t *)from->samples)[i];
    memcpy(pack_labels(to), from->labels, from->count * sizeof *from->labels);
}

static pack_part header_of(const cop_data_part *part, cop_data_type type) {
    pack_part header = {.type = type, .rank = part->rank, .count = part->count};
    memcpy(header.dims, part->dims, sizeof header.dims);
    return header;
}

/* Makes a new set with the same values in another type. It has no names of classes and no digest.
 */
static cop_err convert_set(const cop_data *data, cop_data_type type, cop_data **out,
                           cop_error *error) {
    const pack_part parts[2] = {header_of(&data->train, type), header_of(&data->test, type)};
    COP_TRY(pack_create(data->name, data->classes, parts, out, error));
    convert(&data->train, &(*out)->train);
    convert(&data->test, &(*out)->test);
    return COP_OK;
}

cop_err pack_narrow(cop_data *data, cop_error *error) {
    cop_data *bytes;
    if (data->train.type != COP_DATA_F32 || !all_bytes(&data->train) || !all_bytes(&data->test))
        return COP_OK;
    COP_TRY(convert_set(data, COP_DATA_U8, &bytes, error));
    cop_buffer *floats = data->pack;
    COP_ASSERT(atomic_load(&data->extra_references) == 0); /* the set is not shared yet */
    data->pack = bytes->pack;
    data->train = bytes->train;
    data->test = bytes->test;
    bytes->pack = floats;
    cop_data_destroy(bytes);
    return COP_OK;
}

cop_err cop_data_widen(cop_data **data, cop_error *error) {
    cop_data *floats;
    if ((*data)->train.type == COP_DATA_F32) return COP_OK;
    COP_TRY(convert_set(*data, COP_DATA_F32, &floats, error));
    cop_err e = COP_OK;
    if ((*data)->class_names)
        e = cop_data_name_classes(floats, (const char *const *)(*data)->class_names,
                                  (size_t)floats->classes, error);
    pack_finish(floats, floats->classes);
    cop_data_destroy(e ? floats : *data);
    if (!e) *data = floats;
    return e;
}

bool cop_data_looks_like_bytes(const cop_data *data) {
    const cop_data_part *part = &data->train;
    const uint8_t *samples = part->samples;
    if (part->type != COP_DATA_U8) return false;
    if (part->rank == 3) return true; /* images */
    const size_t values = values_of(part);
    for (size_t i = 0; i < values; i++)
        if (samples[i] > 127) return true;
    return false;
}
