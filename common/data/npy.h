/* Inside common/data: arrays of NumPy's files. */
#ifndef COP_DATA_NPY_H
#define COP_DATA_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/content.h"

/* One array; `data` points into the bytes it was parsed from. */
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
/* Has an .npz file in memory the array `name`? */
bool npz_has(const cop_data_content *npz, const char *name);
/* The array `name` of an .npz file in memory (stored or deflated; its CRC is checked), as the bytes
 * of an .npy file (cop_free). NOT_FOUND says which arrays there are. */
cop_err npz_member(const cop_data_content *npz, const char *name, cop_data_content *out,
                   cop_error *error);

#endif
