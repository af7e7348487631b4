/* Inside common/data: decompresses gzip data. A file may consist of several gzip members, one after
 * another, as cat, bgzip and pigz write them. Zeros may follow the last member, as tar and tapes
 * leave them. */
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

/* A decompression in progress. zlib checks CRC and length at the end of each member. */
typedef struct gzip_reader {
    z_stream z;
    size_t input_size; /* bytes that zlib has not seen yet */
    bool ended;        /* the last member is complete, and only zeros follow it */
    const char *name;  /* name of the file, for errors */
} gzip_reader;

/* Starts to decompress `in`, whose bytes and name must outlive the reader. Call gzip_end
 * afterwards, also after an error. NO_MEMORY. */
cop_err gzip_begin(gzip_reader *g, const cop_data_content *in, cop_error *error);
/* Decompresses up to `size` bytes into `out`; *got: the number of bytes. If *got is less than
 * `size`, the data have ended (g->ended is true), or the input is truncated (g->ended is false).
 * CORRUPT: the data are damaged. NO_MEMORY. */
cop_err gzip_read(gzip_reader *g, void *out, size_t size, size_t *got, cop_error *error);
/* Frees the memory that gzip_begin allocated. */
void gzip_end(gzip_reader *g);

/* Decompresses all of `in` into new memory, out->bytes, which the caller frees with cop_free. A
 * zero byte follows the out->size bytes. LIMIT: there are more than `limit` bytes. CORRUPT: the
 * data are damaged or truncated. NO_MEMORY. After an error there is nothing to free. */
cop_err gzip_unpack(const cop_data_content *in, size_t limit, cop_data_content *out,
                    cop_error *error);
/* Reads a whole file, and decompresses it if it is gzip data. Both the file and the decompressed
 * bytes may have up to `limit` bytes. The caller frees out->bytes with cop_free; a zero byte
 * follows the out->size bytes. After an error there is nothing to free. */
cop_err gzip_read_file(const char *path, size_t limit, cop_data_content *out, cop_error *error);

#endif
