/* Shared by all fuzz targets. A target is LLVMFuzzerTestOneInput in fuzz_<target>.c: it passes the
 * input to a parser, and stops the process if the parser breaks its contract. `./dev fuzz` builds
 * each target with clang's libFuzzer; test_fuzz.c, next to the tests of a library, includes the
 * target and runs it in every build. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* Checks a condition that must hold for any input. */
#define FUZZ_CHECK(condition)                                                                      \
    do                                                                                             \
        if (!(condition)) __builtin_trap();                                                        \
    while (0)

/* A refusal must have a reason. */
static inline void fuzz_refused(const cop_error *error) {
    FUZZ_CHECK(error->code && error->text[0]);
}

/* An input that is read from the front. */
typedef struct fuzz_bytes {
    const uint8_t *at;
    size_t size;
} fuzz_bytes;

/* Reads one byte; 0 after the end of the input. */
static inline uint8_t fuzz_byte(fuzz_bytes *from) {
    if (!from->size) return 0;
    from->size--;
    return *from->at++;
}

/* Reads a length of two bytes, then this many bytes, or as many as remain. */
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
