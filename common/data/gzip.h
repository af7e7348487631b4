/* Inside common/data: gzip data. A file may have several members, one after another (cat a.gz b.gz,
 * bgzip, pigz), and zeros after the last (tapes, tar). */
#ifndef COP_DATA_GZIP_H
#define COP_DATA_GZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <zlib.h>

#include "common/base/err.h"

#define GZIP_DEFLATE_MOST 1032 /* no deflate stream gives more bytes for one */

bool gzip_is(const void *bytes, size_t size);

/* Decompression under way; zlib checks CRC and length at the end of each member. */
typedef struct gzip_reader {
    z_stream z;
    size_t in_left;
    bool ended; /* the last member is complete, nothing follows */
    const char *path;
} gzip_reader;

cop_err gzip_begin(gzip_reader *g, const char *path, const void *in, size_t size, cop_error *error);
/* Up to `size` more bytes into `out`; *got of them came. Fewer only at the end of the data
 * (g->ended) or of the input (truncated). */
cop_err gzip_read(gzip_reader *g, void *out, size_t size, size_t *got, cop_error *error);
void gzip_end(gzip_reader *g);

/* All of gzip data into memory of its own (cop_free), NUL-terminated. LIMIT: more than `limit`
 * bytes. */
cop_err gzip_unpack(const char *path, size_t limit, const char *bytes, size_t size, char **out,
                    size_t *out_size, cop_error *error);
/* Replaces *bytes (cop_free), if they are gzip data, by what they contain; other bytes stay. */
cop_err gzip_expand(const char *path, size_t limit, char **bytes, size_t *size, cop_error *error);
/* cop_file_read, then gzip_expand. */
cop_err gzip_read_file(const char *path, size_t limit, char **bytes, size_t *size,
                       cop_error *error);

#endif
