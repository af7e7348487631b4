/* Makes, reads and writes packs, the canonical bytes of data sets. See data.h. */
#include "common/data/pack.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/str.h"

#define HEADER_SIZE 80 /* "COPDATA1", number of classes, 0, and two headers of parts */
#define CLASSES_AT  8
#define PARTS_AT    16
#define PART_SIZE   32
#define ALIGN       64
#define PACK_MAX    ((uint64_t)64 << 30)

static uint64_t element_size(cop_data_type type) {
    return type == COP_DATA_F32 ? 4 : 1;
}

static uint64_t stride_of(const pack_part *p) {
    COP_ASSERT(p->rank >= 1 && p->rank <= 3);
    uint64_t stride = element_size(p->type);
    for (int i = 0; i < p->rank; i++) stride *= (uint64_t)p->dims[i];
    return stride;
}

/* Where the sections of a pack are: offsets in bytes. Index 0 is the training part, 1 the test
 * part. */
typedef struct pack_layout {
    uint64_t samples[2];
    uint64_t labels[2];
    uint64_t size; /* bytes of the whole pack */
} pack_layout;

static void lay_out(const pack_part parts[2], pack_layout *out) {
    uint64_t at = cop_align_up(HEADER_SIZE, ALIGN);
    for (int i = 0; i < 2; i++) {
        out->samples[i] = at;
        at += cop_align_up(stride_of(&parts[i]) * parts[i].count, ALIGN);
        out->labels[i] = at;
        at += cop_align_up((uint64_t)parts[i].count * 4, ALIGN);
    }
    out->size = at;
}

static void point_into(cop_data *data, const pack_part parts[2]) {
    pack_layout layout;
    cop_data_part *to[2] = {&data->train, &data->test};
    char *base = data->pack->data;
    lay_out(parts, &layout);
    for (int i = 0; i < 2; i++) {
        *to[i] = (cop_data_part){.type = parts[i].type,
                                 .rank = parts[i].rank,
                                 .count = parts[i].count,
                                 .stride = stride_of(&parts[i]),
                                 .samples = base + layout.samples[i],
                                 .labels = (const int32_t *)(void *)(base + layout.labels[i])};
        memcpy(to[i]->dims, parts[i].dims, sizeof to[i]->dims);
    }
}

/* Makes the cop_data of a pack, and takes a reference to the pack. All cop_data are made here.
 * INPUT: the parts differ in shape or type. NO_MEMORY. */
static cop_err make_data(cop_buffer *pack, const char *name, const pack_part parts[2],
                         cop_data **out, cop_error *error) {
    char train[160];
    const char *const names[2] = {train, "its test part"};
    snprintf(train, sizeof train, "the training part of %.120s", name);
    COP_TRY(pack_check_parts(parts, names, error));
    cop_data *data = cop_alloc(sizeof *data);
    if (!data) return cop_no_memory(error);
    snprintf(data->name, sizeof data->name, "%s", name);
    data->classes = (int32_t)cop_load_u32((const char *)pack->data + CLASSES_AT);
    data->pack = cop_buffer_hold(pack);
    point_into(data, parts);
    *out = data;
    return COP_OK;
}

static void write_header(char *out, int32_t classes, const pack_part parts[2]) {
    memset(out, 0, HEADER_SIZE);
    memcpy(out, "COPDATA1", 8);
    cop_store_u32(out + CLASSES_AT, (uint32_t)classes);
    for (int i = 0; i < 2; i++) {
        char *p = out + PARTS_AT + PART_SIZE * i;
        cop_store_u32(p, (uint32_t)parts[i].type);
        cop_store_u32(p + 4, (uint32_t)parts[i].rank);
        for (int d = 0; d < 3; d++)
            cop_store_u32(p + 8 + 4 * d, d < parts[i].rank ? (uint32_t)parts[i].dims[d] : 0);
        cop_store_u32(p + 20, parts[i].count);
    }
}

/* Zeroes the header, the labels and all padding. The samples stay undefined. */
static void zero_gaps(char *base, const pack_part parts[2], const pack_layout *layout) {
    memset(base, 0, layout->samples[0]);
    for (int i = 0; i < 2; i++) {
        uint64_t next = i == 0 ? layout->samples[1] : layout->size,
                 end = layout->samples[i] + stride_of(&parts[i]) * parts[i].count;
        COP_ASSERT(end <= layout->labels[i]);
        memset(base + end, 0, next - end);
    }
}

cop_err pack_create(const char *name, int32_t classes, const pack_part parts[2], cop_data **out,
                    cop_error *error) {
    pack_layout layout;
    COP_ASSERT(classes >= 1 && classes <= COP_CLASSES_MAX);
    COP_ASSERT(parts[0].rank >= 1 && parts[0].rank <= 3 && parts[0].count >= 1);
    lay_out(parts, &layout);
    cop_buffer *pack = cop_buffer_create(layout.size);
    if (!pack)
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the %llu bytes of data set %s",
                        (unsigned long long)layout.size, name);
    zero_gaps(pack->data, parts, &layout);
    write_header(pack->data, classes, parts);
    cop_err e = make_data(pack, name, parts, out, error);
    cop_buffer_release(pack);
    return e;
}

void pack_finish(cop_data *data, int32_t classes) {
    COP_ASSERT(classes >= 1 && classes <= COP_CLASSES_MAX);
    COP_ASSERT(atomic_load(&data->extra_references) == 0); /* the set is not shared yet */
    data->classes = classes;
    cop_store_u32((char *)data->pack->data + CLASSES_AT, (uint32_t)classes);
    cop_sha256_of(data->pack->data, data->pack->size, data->digest);
}

/* ---- functions that the readers of files share ---- */

void pack_warn_of_gaps(const cop_data_part *part, const char *path, int32_t largest) {
    bool *seen = cop_alloc_array((size_t)largest + 1, sizeof *seen);
    int32_t missing = 0, first = -1;
    for (uint32_t r = 0; seen && r < part->count; r++) {
        COP_ASSERT(part->labels[r] >= 0 && part->labels[r] <= largest);
        seen[part->labels[r]] = true;
    }
    for (int32_t c = largest; seen && c >= 0; c--)
        if (!seen[c]) {
            missing++;
            first = c;
        }
    cop_free(seen);
    if (missing)
        cop_log(COP_LOG_WARN, "data",
                "%s: %d of %d classes, 0 to %d, have no training sample; the first of them is %d "
                "(labels count from 0)",
                path, missing, largest + 1, largest, first);
}

cop_err pack_finish_labels(cop_data *data, const char *train_path, const char *test_path,
                           cop_error *error) {
    int32_t largest = 0;
    const cop_data_part *parts[2] = {&data->train, &data->test};
    const char *paths[2] = {train_path, test_path};
    for (uint32_t r = 0; r < data->train.count; r++)
        if (data->train.labels[r] > largest) largest = data->train.labels[r];
    if (largest >= COP_CLASSES_MAX)
        return cop_fail(error, COP_ERR_INPUT, "%s: a label is %d: expected 0 to %d", train_path,
                        largest, COP_CLASSES_MAX - 1);
    for (int i = 0; i < 2; i++)
        for (uint32_t r = 0; r < parts[i]->count; r++)
            if (parts[i]->labels[r] < 0 || parts[i]->labels[r] > largest)
                return cop_fail(error, COP_ERR_INPUT,
                                "%s: label %u is %d, but the training labels go from 0 to %d",
                                paths[i], r, parts[i]->labels[r], largest);
    if (largest < 1)
        return cop_fail(error, COP_ERR_INPUT, "%s: all labels are 0: expected at least two classes",
                        train_path);
    pack_warn_of_gaps(&data->train, train_path, largest);
    COP_TRY(pack_narrow(data, error));
    pack_finish(data, largest + 1);
    return COP_OK;
}

cop_err pack_finish_unlabelled(cop_data *data, cop_error *error) {
    COP_TRY(pack_narrow(data, error));
    pack_finish(data, 1);
    return COP_OK;
}

cop_err pack_part_of(const char *path, cop_data_type type, const cop_data_shape *shape,
                     pack_part *out, cop_error *error) {
    const uint64_t *dims = shape->dims;
    const uint32_t rank = shape->rank;
    uint64_t values = 1;
    if (rank < 2 || rank > 4)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %u dimensions: expected samples, (n, features), (n, height, width) "
                        "or (n, channels, height, width)",
                        path, rank);
    if (!dims[0]) return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", path);
    for (uint32_t d = 1; d < rank; d++) {
        if (values <= COP_UNITS_MAX && dims[d] <= COP_UNITS_MAX)
            values *= dims[d];
        else
            values = (uint64_t)COP_UNITS_MAX + 1;
    }
    if (values < 1 || values > COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_INPUT, "%s: a sample has %s values: expected 1 to %u", path,
                        values ? "more" : "no", COP_UNITS_MAX);
    if (dims[0] > COP_SAMPLES_MAX || dims[0] > PACK_MAX / 4 / values)
        return cop_fail(error, COP_ERR_LIMIT, "%s has too many samples: %llu", path,
                        (unsigned long long)dims[0]);
    *out = (pack_part){.type = type, .rank = rank == 2 ? 1 : 3, .count = (uint32_t)dims[0]};
    out->dims[0] = rank == 3 ? 1 : (int32_t)dims[1];
    if (rank > 2) {
        out->dims[1] = (int32_t)dims[rank - 2];
        out->dims[2] = (int32_t)dims[rank - 1];
    }
    return COP_OK;
}

const char *cop_data_describe(cop_data_type type, int32_t rank, const int32_t *dims, char out[64]) {
    COP_ASSERT(rank >= 1 && rank <= 3);
    snprintf(out, 64, "%s (%d", type == COP_DATA_F32 ? "f32" : "u8", dims[0]);
    for (int d = 1; d < rank; d++) cop_text_append(out, 64, ", %d", dims[d]);
    cop_text_append(out, 64, ")");
    return out;
}

cop_err pack_check_parts(const pack_part parts[2], const char *const paths[2], cop_error *error) {
    const pack_part *train = &parts[0], *test = &parts[1];
    bool same_shape = train->rank == test->rank;
    for (int d = 0; same_shape && d < train->rank; d++)
        same_shape = train->dims[d] == test->dims[d];
    char a[64], b[64];
    if (!same_shape || train->type != test->type)
        return cop_fail(error, COP_ERR_INPUT, "the samples of %s and %s differ in %s: %s and %s",
                        paths[0], paths[1], same_shape ? "type" : "shape",
                        cop_data_describe(train->type, train->rank, train->dims, a),
                        cop_data_describe(test->type, test->rank, test->dims, b));
    return COP_OK;
}

/* ---- reading ---- */

static cop_err read_part(const char *p, pack_part *out, const char *which, cop_error *error) {
    uint32_t type = cop_load_u32(p), rank = cop_load_u32(p + 4);
    uint64_t values = 1;
    if ((type != COP_DATA_U8 && type != COP_DATA_F32) || (rank != 1 && rank != 3))
        return cop_fail(error, COP_ERR_CORRUPT, "the %s part's header is damaged", which);
    *out = (pack_part){
        .type = (cop_data_type)type, .rank = (int32_t)rank, .count = cop_load_u32(p + 20)};
    for (uint32_t d = 0; d < rank; d++) {
        uint32_t dim = cop_load_u32(p + 8 + 4 * d);
        if (dim < 1 || dim > COP_UNITS_MAX)
            return cop_fail(error, COP_ERR_CORRUPT, "the %s part has a dimension of %u", which,
                            dim);
        out->dims[d] = (int32_t)dim;
        values *= dim;
        if (values > COP_UNITS_MAX)
            return cop_fail(error, COP_ERR_CORRUPT, "the %s part's samples are too large", which);
    }
    if (out->count > COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_CORRUPT, "the %s part has too many samples", which);
    return COP_OK;
}

static cop_err check_labels(const cop_data *data, cop_error *error) {
    const cop_data_part *parts[2] = {&data->train, &data->test};
    for (int i = 0; i < 2; i++)
        for (uint32_t r = 0; r < parts[i]->count; r++)
            if (parts[i]->labels[r] < 0 || parts[i]->labels[r] >= data->classes)
                return cop_fail(error, COP_ERR_CORRUPT,
                                "label %u of the %s part is %d: expected 0 to %d", r,
                                i ? "test" : "training", parts[i]->labels[r], data->classes - 1);
    return COP_OK;
}

cop_err cop_data_from_pack(cop_buffer *pack, const char *name, cop_data **out, cop_error *error) {
    pack_part parts[2];
    pack_layout layout;
    const char *base = pack->data;
    if (pack->size < HEADER_SIZE || memcmp(base, "COPDATA1", 8) != 0)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is not a data set", name);
    uint32_t classes = cop_load_u32(base + CLASSES_AT);
    if (classes < 1 || classes > COP_CLASSES_MAX)
        return cop_fail(error, COP_ERR_CORRUPT, "%s: %u classes", name, classes);
    COP_TRY(read_part(base + PARTS_AT, &parts[0], "training", error));
    COP_TRY(read_part(base + PARTS_AT + PART_SIZE, &parts[1], "test", error));
    lay_out(parts, &layout);
    if (layout.size != pack->size || layout.size > PACK_MAX)
        return cop_fail(error, COP_ERR_CORRUPT, "%s has %zu bytes: its header says %llu", name,
                        pack->size, (unsigned long long)layout.size);
    if (!parts[0].count)
        return cop_fail(error, COP_ERR_CORRUPT, "%s has no training samples", name);
    cop_data *data;
    COP_TRY(make_data(pack, name, parts, &data, error));
    cop_err e = check_labels(data, error);
    if (e) {
        cop_data_destroy(data);
        return e;
    }
    cop_sha256_of(pack->data, pack->size, data->digest);
    *out = data;
    return COP_OK;
}

/* The size of the pack in a file of `size` bytes, in which the names of classes may follow it.
 * Returns `size` if no names follow, or if the header is damaged; cop_data_from_pack reports the
 * damage. */
static size_t pack_size_of(const char *bytes, size_t size) {
    pack_part parts[2];
    pack_layout layout;
    if (size < HEADER_SIZE || read_part(bytes + PARTS_AT, &parts[0], "", NULL) ||
        read_part(bytes + PARTS_AT + PART_SIZE, &parts[1], "", NULL))
        return size;
    lay_out(parts, &layout);
    if (layout.size > size || size - layout.size < 4) return size;
    return memcmp(bytes + layout.size, "COPN", 4) == 0 ? layout.size : size;
}

static void free_file(cop_buffer *buffer) {
    cop_free(buffer->data);
    cop_free(buffer);
}

cop_err cop_data_load_pack(const char *path, cop_data **out, cop_error *error) {
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(path, PACK_MAX, &bytes, &size, error));
    const size_t packed = pack_size_of(bytes, size);
    cop_buffer *pack = cop_buffer_wrap(bytes, packed, NULL, free_file);
    cop_data *data = NULL;
    if (!pack) {
        cop_free(bytes);
        return cop_no_memory(error);
    }
    cop_err e = cop_data_from_pack(pack, path, &data, error);
    if (!e && packed < size) e = pack_read_names(data, bytes + packed, size - packed, error);
    cop_buffer_release(pack);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}

cop_err cop_data_save_pack(const cop_data *data, const char *path, cop_error *error) {
    char *names = NULL;
    size_t size = 0;
    if (data->class_names)
        COP_TRY(pack_write_names((const char *const *)data->class_names, (size_t)data->classes,
                                 &names, &size, error));
    const cop_file_part parts[2] = {{data->pack->data, data->pack->size}, {names, size}};
    cop_err e = cop_file_write(path, parts, names ? 2 : 1, 0644, error);
    cop_free(names);
    return e;
}

cop_data *cop_data_hold(cop_data *data) {
    COP_ASSERT(data != NULL);
    atomic_fetch_add(&data->extra_references, 1);
    return data;
}

unsigned cop_data_references(const cop_data *data) {
    return atomic_load(&data->extra_references) + 1;
}

void cop_data_destroy(cop_data *data) {
    if (!data || atomic_fetch_sub(&data->extra_references, 1) > 0) return;
    cop_buffer_release(data->pack);
    cop_free(data->class_names);
    cop_free(data);
}
