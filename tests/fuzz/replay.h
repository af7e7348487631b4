/* Replays the kept inputs of a fuzz target, which are in tests/fuzz/corpus/<target>/: seeds, and
 * inputs that once failed. The path is relative, because tests run in the root of the repository.
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "fuzz/fuzz.h"

/* Returns the number of kept inputs; 0 if they cannot be listed. Prints the name of each before it
 * is run, in case it stops the process. */
static inline size_t fuzz_replay(const char *target, int (*run)(const uint8_t *, size_t)) {
    char folder[128], **names, *bytes;
    size_t count, size;
    cop_error error = {0};
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", target);
    if (cop_folder_list(folder, &names, &count, &error)) {
        printf("%s\n", error.text);
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        char *path = cop_path_join(folder, names[i]);
        printf("%s\n", path);
        fflush(stdout);
        FUZZ_CHECK(!cop_file_read(path, 1 << 20, &bytes, &size, NULL));
        run((const uint8_t *)bytes, size);
        cop_free(bytes);
        cop_free(path);
    }
    cop_free(names);
    return count;
}

#endif
