/* Reads the binary files of CIFAR-10 and CIFAR-100. A record consists of the labels, one byte each,
 * then the pixels, 3 x 32 x 32 bytes. CIFAR-10 has one label. CIFAR-100 has a coarse label, then a
 * fine label; the fine one is used. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/data/pack.h"

#define PIXELS   3072
#define FILE_MAX ((size_t)1 << 30)

typedef struct cifar_kind {
    const char *name;
    const char *folder;   /* the folder that the archive of the set creates */
    const char *files[6]; /* the training files, then the test file */
    int file_count;       /* number of entries of `files` */
    size_t label_bytes;   /* number of labels of a record, one byte each; the last one is used */
    int32_t classes;
} cifar_kind;
static const cifar_kind cifar10 = {"cifar10",
                                   "cifar-10-batches-bin",
                                   {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                    "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"},
                                   6,
                                   1,
                                   10};
static const cifar_kind cifar100 = {"cifar100", "cifar-100-binary", {"train.bin", "test.bin"}, 2, 2,
                                    100};

typedef struct cifar_file {
    char *path, *bytes;
    uint32_t records;
} cifar_file;

static cop_err open_file(const cifar_kind *k, const char *folder, const char *name, cifar_file *f,
                         cop_error *error) {
    const size_t record = k->label_bytes + PIXELS;
    size_t size;
    f->path = cop_path_join(folder, name);
    if (!f->path) return cop_no_memory(error);
    if (!cop_file_exists(f->path))
        return cop_fail(error, COP_ERR_NOT_FOUND, "%s has no %s", folder, name);
    COP_TRY(cop_file_read(f->path, FILE_MAX, &f->bytes, &size, error));
    if (!size || size % record)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s has %zu bytes: expected records of %zu bytes (is it truncated?)",
                        f->path, size, record);
    f->records = (uint32_t)(size / record);
    return COP_OK;
}

static cop_err copy_file(const cifar_kind *k, const cifar_file *f, const cop_data_part *part,
                         uint32_t first, cop_error *error) {
    COP_ASSERT(first + f->records <= part->count);
    for (uint32_t r = 0; r < f->records; r++) {
        const char *record = f->bytes + r * (k->label_bytes + PIXELS);
        const unsigned char label = (unsigned char)record[k->label_bytes - 1];
        if (label >= k->classes)
            return cop_fail(error, COP_ERR_CORRUPT,
                            "%s: the label of record %u is %u: expected 0 to %d", f->path, r, label,
                            k->classes - 1);
        pack_labels(part)[first + r] = label;
        memcpy((char *)pack_samples(part) + (size_t)(first + r) * PIXELS, record + k->label_bytes,
               PIXELS);
    }
    return COP_OK;
}

static cop_err assemble(const cifar_kind *k, const cifar_file *files, cop_data **out,
                        cop_error *error) {
    const int test = k->file_count - 1;
    const pack_part record = {.type = COP_DATA_U8, .rank = 3, .dims = {3, 32, 32}};
    pack_part parts[2] = {record, record};
    for (int i = 0; i < test; i++) parts[0].count += files[i].records;
    parts[1].count = files[test].records;
    COP_TRY(pack_create(k->name, k->classes, parts, out, error));
    uint32_t first = 0;
    for (int i = 0; i < test; i++) {
        COP_TRY(copy_file(k, &files[i], &(*out)->train, first, error));
        first += files[i].records;
    }
    COP_ASSERT(first == parts[0].count);
    COP_TRY(copy_file(k, &files[test], &(*out)->test, 0, error));
    pack_finish(*out, k->classes);
    return COP_OK;
}

static cop_err load(const cifar_kind *k, const char *folder, cop_data **out, cop_error *error) {
    cifar_file files[6] = {0};
    cop_data *data = NULL;
    char *inner = cop_path_join(folder, k->folder);
    cop_err e = inner ? COP_OK : cop_no_memory(error);
    const char *from = !e && cop_folder_exists(inner) ? inner : folder;
    for (int i = 0; i < k->file_count && !e; i++)
        e = open_file(k, from, k->files[i], &files[i], error);
    if (!e) e = assemble(k, files, &data, error);
    for (int i = 0; i < k->file_count; i++) {
        cop_free(files[i].path);
        cop_free(files[i].bytes);
    }
    cop_free(inner);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}

cop_err cop_data_load_cifar10(const char *folder, cop_data **out, cop_error *error) {
    return load(&cifar10, folder, out, error);
}

cop_err cop_data_load_cifar100(const char *folder, cop_data **out, cop_error *error) {
    return load(&cifar100, folder, out, error);
}
