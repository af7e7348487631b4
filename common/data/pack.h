/* Inside common/data: making packs. See data.h for the layout. */
#ifndef COP_DATA_PACK_H
#define COP_DATA_PACK_H

#include "common/data/data.h"

/* What a pack's header says of one part. */
typedef struct pack_part {
    cop_data_type type;
    int32_t rank, dims[3];
    uint32_t count;
} pack_part;

/* A pack with room for both parts, samples and labels zero; *data points into it and has no digest
 * yet. The caller fills it through the (const) pointers and calls pack_finish. */
cop_err pack_create(const char *name, int32_t classes, const pack_part *train,
                    const pack_part *test, cop_data **out, cop_error *error);
/* Write the header's number of classes and compute the digest. */
void pack_finish(cop_data *data, int32_t classes);

#endif
