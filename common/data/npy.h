/* Inside common/data: arrays of NumPy's files. */
#ifndef COP_DATA_NPY_H
#define COP_DATA_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* One array; `data` points into the bytes it was parsed from. */
typedef struct npy_array {
    char kind;     /* 'u', 'i', 'f', 'b' */
    uint32_t size; /* bytes of an element: 1, 2, 4, 8 */
    bool big;      /* the most significant byte is the first */
    bool fortran;  /* the first index changes fastest, not the last */
    uint32_t rank;
    uint64_t dims[4];
    uint64_t count; /* elements */
    const unsigned char *data;
} npy_array;

/* An .npy file in memory (format versions 1 to 3). `what` names it in errors. At most four
 * dimensions; the length must be that of the header's shape. */
cop_err npy_parse(const char *what, const void *bytes, size_t size, npy_array *out,
                  cop_error *error);
/* Has an .npz file in memory the array `name`? */
bool npz_has(const void *bytes, size_t size, const char *name);
/* The array `name` of an .npz file in memory (stored or deflated; its CRC is checked), as the bytes
 * of an .npy file (cop_free). NOT_FOUND says which arrays there are. */
cop_err npz_member(const char *path, const void *bytes, size_t size, const char *name, char **out,
                   size_t *out_size, cop_error *error);

#endif
