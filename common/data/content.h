/* What readers take, a file in memory, and what they find in it, an array of some shape. */
#ifndef COP_DATA_CONTENT_H
#define COP_DATA_CONTENT_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of a file in memory. Whoever filled the struct owns `bytes`. */
typedef struct cop_data_content {
    const char *name; /* of the file, for errors */
    char *bytes;
    size_t size;
} cop_data_content;

/* The shape of an array of samples: (n, ...). */
typedef struct cop_data_shape {
    uint32_t rank; /* 0 to 4 */
    uint64_t dims[4];
} cop_data_shape;

#endif
