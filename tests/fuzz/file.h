/* Shared by the fuzz targets of data files: makes a file of some bytes (in memory, so that no disk
 * slows the targets down), and checks what a reader makes of it. */
#ifndef TESTS_FUZZ_FILE_H
#define TESTS_FUZZ_FILE_H

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/data/data.h"
#include "fuzz/fuzz.h"

/* Returns the path of a file with these bytes. A call with the same `turn` (0 to 3) overwrites the
 * file, so files that are needed at the same time need different turns. */
static inline const char *fuzz_file(int turn, const uint8_t *data, size_t size) {
    static char paths[4][32];
    static int files[4];
    if (!files[turn]) {
        files[turn] = memfd_create("fuzz", MFD_CLOEXEC);
        FUZZ_CHECK(files[turn] > 0);
        snprintf(paths[turn], sizeof paths[0], "/proc/self/fd/%d", files[turn]);
    }
    FUZZ_CHECK(ftruncate(files[turn], 0) == 0);
    FUZZ_CHECK(pwrite(files[turn], data, size, 0) == (ssize_t)size);
    return paths[turn];
}

/* Loads files as a data set. The pack of an accepted data set must be accepted again, with the same
 * digest. */
static inline void fuzz_load(const char *format, const cop_data_input *input) {
    cop_data *data = NULL, *again = NULL;
    cop_error error = {0};
    if (cop_data_format_find(format)->load(input, &data, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!data);
        return;
    }
    FUZZ_CHECK(!cop_data_from_pack(data->pack, "again", &again, NULL));
    FUZZ_CHECK(memcmp(data->digest, again->digest, sizeof data->digest) == 0);
    cop_data_destroy(again);
    cop_data_destroy(data);
}

#endif
