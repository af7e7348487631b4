/* Finds the rows that a step uses, and their order (D1), and copies rows. See data.h. */
#include <string.h>

#include "common/base/rng.h"
#include "common/data/data.h"

uint64_t cop_data_steps_per_epoch(uint32_t samples, uint32_t batch, bool keep_last) {
    COP_ASSERT(samples >= 1 && batch >= 1);
    uint64_t steps = keep_last ? ((uint64_t)samples + batch - 1) / batch : samples / batch;
    return steps ? steps : 1; /* with fewer samples than a batch, the epoch is one short batch */
}

void cop_data_batch_rows(const cop_data_batches *b, uint64_t step, uint32_t *rows, uint32_t *count,
                         uint32_t *epoch) {
    COP_ASSERT(step >= 1);
    const uint64_t per_epoch = cop_data_steps_per_epoch(b->samples, b->batch, b->keep_last);
    const uint64_t begin = (step - 1) % per_epoch * b->batch;
    COP_ASSERT(begin < b->samples && (step - 1) / per_epoch <= UINT32_MAX);
    cop_permutation permutation;
    *epoch = (uint32_t)((step - 1) / per_epoch);
    *count = b->samples - begin < b->batch ? (uint32_t)(b->samples - begin) : b->batch;
    cop_permutation_init(&permutation, b->seed, *epoch, b->samples);
    for (uint32_t i = 0; i < *count; i++)
        rows[i] = cop_permutation_at(&permutation, (uint32_t)begin + i);
}

cop_data_destination cop_data_destination_of(cop_buffer *samples, cop_buffer *labels) {
    return (cop_data_destination){.samples = samples->data,
                                  .bytes = samples->capacity,
                                  .labels = labels->data,
                                  .count = (uint32_t)(labels->capacity / sizeof(int32_t))};
}

static void check_room(const cop_data_part *part, uint32_t count, const cop_data_destination *out) {
    COP_ASSERT(part->stride >= 1);
    COP_ASSERT(count <= out->count && count <= out->bytes / part->stride);
}

void cop_data_gather(const cop_data_part *part, const uint32_t *rows, uint32_t count,
                     const cop_data_destination *out) {
    check_room(part, count, out);
    for (uint32_t i = 0; i < count; i++) {
        COP_ASSERT(rows[i] < part->count);
        memcpy((char *)out->samples + i * part->stride,
               (const char *)part->samples + (size_t)rows[i] * part->stride, part->stride);
        out->labels[i] = part->labels[rows[i]];
    }
}

void cop_data_copy(const cop_data_part *part, uint32_t first, uint32_t count,
                   const cop_data_destination *out) {
    check_room(part, count, out);
    COP_ASSERT(first <= part->count && count <= part->count - first);
    memcpy(out->samples, (const char *)part->samples + (size_t)first * part->stride,
           count * part->stride);
    memcpy(out->labels, part->labels + first, count * sizeof *out->labels);
}
