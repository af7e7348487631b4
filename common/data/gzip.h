/* Inside common/data: gzip data. A file may have several members, one after another (from cat,
 * bgzip or pigz), and zeros after the last one (from tar or tapes). */
#ifndef COP_DATA_GZIP_H
#define COP_DATA_GZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <zlib.h>

#include "common/base/err.h"
#include "common/data/content.h"

#define GZIP_RATIO_MAX 1032 /* deflate's largest ratio of decompressed to compressed bytes */

/* Do the bytes begin with gzip's magic number? */
bool gzip_is(const void *bytes, size_t size);

/* Decompression in progress. zlib checks CRC and length at the end of each member. */
typedef struct gzip_reader {
    z_stream z;
    size_t input_size; /* bytes that zlib has not seen yet */
    bool ended;        /* the last member is complete, nothing follows */
    const char *name;
} gzip_reader;

/* Starts to decompress `in`, whose bytes and name must outlive the reader. Call gzip_end
 * afterwards, also after an error. NO_MEMORY. */
cop_err gzip_begin(gzip_reader *g, const cop_data_content *in, cop_error *error);
/* Reads up to `size` bytes into `out`; *got: how many. It is less than `size` only at the end of
 * the data (g->ended), or if the input is truncated. */
cop_err gzip_read(gzip_reader *g, void *out, size_t size, size_t *got, cop_error *error);
/* Frees the memory of the reader. */
void gzip_end(gzip_reader *g);

/* Decompresses all of `in` into new memory (out->bytes: cop_free), with a zero byte behind it.
 * LIMIT: more than `limit` bytes. */
cop_err gzip_unpack(const cop_data_content *in, size_t limit, cop_data_content *out,
                    cop_error *error);
/* Reads a whole file of up to `limit` bytes, and decompresses it if it is gzip data. out->bytes
 * (cop_free) have a zero byte behind them. After an error there is nothing to free. */
cop_err gzip_read_file(const char *path, size_t limit, cop_data_content *out, cop_error *error);

#endif
