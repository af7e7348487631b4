/* What all fuzz targets share. A target is LLVMFuzzerTestOneInput of fuzz_<target>.c: it gives its
 * bytes to what reads such bytes, and stops the process when that does not hold what it promises.
 * `./dev fuzz` builds each with clang's libFuzzer; test_fuzz.c beside the tests of a library
 * includes it and drives it in every build. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* What holds whatever the input is. */
#define FUZZ_CHECK(condition)                                                                      \
    do                                                                                             \
        if (!(condition)) __builtin_trap();                                                        \
    while (0)

/* Who refuses something says why. */
static inline void fuzz_refused(const cop_error *error) {
    FUZZ_CHECK(error->code && error->text[0]);
}

/* An input that is read from its front. */
typedef struct fuzz_bytes {
    const uint8_t *at;
    size_t size;
} fuzz_bytes;

/* Past its end there are zeros. */
static inline uint8_t fuzz_byte(fuzz_bytes *from) {
    if (!from->size) return 0;
    from->size--;
    return *from->at++;
}

/* A length of two bytes, and so many bytes, or as many as there are. */
static inline fuzz_bytes fuzz_piece(fuzz_bytes *from) {
    size_t size = fuzz_byte(from);
    size |= (size_t)fuzz_byte(from) << 8;
    if (size > from->size) size = from->size;
    const fuzz_bytes piece = {from->at, size};
    from->at += size;
    from->size -= size;
    return piece;
}

#endif
