/* Inside common/data: arrays in NumPy's files. */
#ifndef COP_DATA_NPY_H
#define COP_DATA_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/content.h"

/* One array. `data` points into the file in memory. */
typedef struct npy_array {
    const char *name; /* of the file, for errors */
    char kind;        /* 'u', 'i', 'f', 'b' */
    uint32_t size;    /* bytes of an element: 1, 2, 4, 8 */
    bool big_endian;
    bool fortran; /* the first index changes fastest, not the last */
    cop_data_shape shape;
    uint64_t count; /* elements */
    const unsigned char *data;
} npy_array;

/* Parses an .npy file (format versions 1 to 3) of up to four dimensions. Its length must be the one
 * that its shape asks for. *out points into npy->bytes. */
cop_err npy_parse(const cop_data_content *npy, npy_array *out, cop_error *error);
/* Does the .npz file hold an array with this name? */
bool npz_has(const cop_data_content *npz, const char *name);
/* Unpacks the array `name` (stored or deflated) of an .npz file, and checks its CRC. *out is an
 * .npy file; the caller frees out->bytes with cop_free. NOT_FOUND lists the arrays that there are.
 */
cop_err npz_member(const cop_data_content *npz, const char *name, cop_data_content *out,
                   cop_error *error);

#endif
