/* Folders and a small data set, for fuzz targets that need a state folder. */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/job/job.h"
#include "common/wire/codec.h"
#include "fuzz/fuzz.h"

/* Makes a new folder in TMPDIR, which ./dev fuzz removes. */
static inline void fuzz_folder(char out[128]) {
    const char *top = getenv("TMPDIR");
    snprintf(out, 128, "%.90s/coppice-fuzz-XXXXXX", top ? top : "/tmp");
    FUZZ_CHECK(mkdtemp(out));
}

/* Writes a file. An old file is overwritten in place and shortened afterwards, because some systems
 * write a file to disk at once if it was truncated first. */
static inline void fuzz_write(const char *folder, const char *name, const void *bytes,
                              size_t size) {
    char *path = cop_path_join(folder, name);
    const int file = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    FUZZ_CHECK(file >= 0 && pwrite(file, bytes, size, 0) == (ssize_t)size);
    FUZZ_CHECK(ftruncate(file, (off_t)size) == 0 && close(file) == 0);
    cop_free(path);
}

static inline char *fuzz_read(const char *folder, const char *name, size_t *size) {
    char *path = cop_path_join(folder, name), *bytes = NULL;
    FUZZ_CHECK(path && !cop_file_read(path, 1 << 20, &bytes, size, NULL));
    cop_free(path);
    return bytes;
}

/* A data set of four samples of two features, in two classes. Training and test have the same
 * samples. */
static inline cop_data *fuzz_data(void) {
    static const char header[] = "COPDATA1\2\0\0\0\0\0\0";
    cop_data *data = NULL;
    cop_buffer *pack = cop_buffer_create(384);
    FUZZ_CHECK(pack);
    char *bytes = pack->data;
    memset(bytes, 0, pack->size);
    memcpy(bytes, header, sizeof header);
    for (int part = 0; part < 2; part++) {
        char *p = bytes + 16 + 32 * part, *samples = bytes + 128 + 128 * part;
        cop_store_u32(p, COP_DATA_U8);
        cop_store_u32(p + 4, 1);
        cop_store_u32(p + 8, 2);
        cop_store_u32(p + 20, 4);
        for (int i = 0; i < 8; i++) samples[i] = (char)(31 * i);
        for (uint32_t i = 0; i < 4; i++) cop_store_u32(samples + 64 + 4 * i, i % 2);
    }
    FUZZ_CHECK(!cop_data_from_pack(pack, "tiny", &data, NULL));
    cop_buffer_release(pack);
    return data;
}

static inline cop_job *fuzz_job_of(const char *yaml, const cop_data *data) {
    Coppice__Job *message = NULL;
    cop_job *job = NULL;
    FUZZ_CHECK(!cop_document_parse_job(yaml, strlen(yaml), "job.yaml", &message, NULL));
    FUZZ_CHECK(!cop_job_create(message, data, &job, NULL));
    return job;
}

#endif
