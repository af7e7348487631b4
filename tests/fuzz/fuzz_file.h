/* What the fuzz targets of data files share: bytes as a file, and what must hold of whatever a
 * reader makes of it. */
#ifndef TESTS_FUZZ_FUZZ_FILE_H
#define TESTS_FUZZ_FUZZ_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/data/data.h"

/* The path of a file of this process; `turn` tells several apart. */
static inline const char *fuzz_path(int turn) {
    static char paths[4][64];
    snprintf(paths[turn], sizeof paths[0], "/tmp/coppice-fuzz-%d-%d", (int)getpid(), turn);
    return paths[turn];
}

static inline const char *fuzz_file(int turn, const uint8_t *data, size_t size) {
    const char *path = fuzz_path(turn);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size) __builtin_trap();
    fclose(f);
    return path;
}

/* A refusal has a sentence; what was taken is a pack that is taken again and says the same. */
static inline void fuzz_load(const char *format, const cop_data_input *input) {
    cop_data *data = NULL, *again = NULL;
    cop_error error = {0};
    if (cop_data_format_find(format)->load(input, &data, &error)) {
        if (!error.code || !error.text[0] || data) __builtin_trap();
        return;
    }
    if (cop_data_from_pack(data->pack, "again", &again, NULL)) __builtin_trap();
    if (memcmp(data->digest, again->digest, sizeof data->digest) != 0) __builtin_trap();
    cop_data_destroy(again);
    cop_data_destroy(data);
}

#endif
