/* Inside common/data: arrays in NumPy's files. */
#ifndef COP_DATA_NPY_H
#define COP_DATA_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/content.h"

/* One array. */
typedef struct npy_array {
    const char *name; /* name of the file, for errors */
    char kind;        /* type of an element: 'u' unsigned, 'i' signed, 'f' float, 'b' bool */
    uint32_t size;    /* bytes of an element: 1, 2, 4 or 8 */
    bool big_endian;  /* byte order of an element */
    bool fortran;     /* true: the first index changes fastest (Fortran order); false: the last
                         index changes fastest (C order) */
    cop_data_shape shape;
    uint64_t count;            /* number of elements */
    const unsigned char *data; /* the elements, in the file in memory */
} npy_array;

/* Parses an .npy file (format versions 1 to 3) of up to four dimensions. *out points into
 * npy->bytes. CORRUPT: the header is damaged, or the file does not have exactly the length that
 * shape and element type require. INPUT: a version, an element type or a number of dimensions that
 * this reader does not support. */
cop_err npy_parse(const cop_data_content *npy, npy_array *out, cop_error *error);
/* Does the .npz file hold an array with this name? */
bool npz_has(const cop_data_content *npz, const char *name);
/* Unpacks the array `name` of an .npz file, and checks its CRC. The archive may store or deflate
 * it. *out becomes the content of an .npy file; the caller frees out->bytes with cop_free.
 * NOT_FOUND: no array has this name; the error lists the names of all arrays. INPUT: two arrays
 * have it, or it is compressed by another method. LIMIT: it has more than 4 GB. CORRUPT: the
 * archive is damaged. */
cop_err npz_member(const cop_data_content *npz, const char *name, cop_data_content *out,
                   cop_error *error);

#endif
