/* The input of the readers, which is a file in memory, and the shape of the array that they find
 * in it. */
#ifndef COP_DATA_CONTENT_H
#define COP_DATA_CONTENT_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of a file in memory. The code that filled the struct owns `bytes`. */
typedef struct cop_data_content {
    const char *name; /* name of the file, for errors */
    char *bytes;
    size_t size; /* number of bytes */
} cop_data_content;

/* The shape of an array. In an array of samples, dims[0] is the number of samples. */
typedef struct cop_data_shape {
    uint32_t rank;    /* number of dimensions, 0 to 4 */
    uint64_t dims[4]; /* dims[0] to dims[rank - 1] are valid */
} cop_data_shape;

#endif
