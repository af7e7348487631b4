/* The table of the file formats that `data.source` may name, and cop_data_open_path, which finds
 * the format of the data at a path. */
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/str.h"
#include "common/data/pack.h"

static const cop_data_format formats[] = {
    {"idx", "two IDX files per part, plain or .gz", true, false, true, pack_load_idx},
    {"csv", "a CSV file per part, one column is the label", false, true, false, pack_load_csv},
    {"npy", "two NPY files or one NPZ file per part", true, true, false, pack_load_npy},
    {"image-folder", "a folder per part, with one folder of PNG or JPEG files per class", false,
     true, false, pack_load_image_folder},
};

const cop_data_format *cop_data_format_find(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

/* ---- finding the format of a path ---- */

/* Turns NOT_FOUND into INPUT: the set exists, and a file that is missing inside it is a fault of
 * the set. Returns other codes unchanged. */
static cop_err within(cop_err e, cop_error *error) {
    if (e != COP_ERR_NOT_FOUND) return e;
    if (error) error->code = COP_ERR_INPUT;
    return COP_ERR_INPUT;
}

static const char *last_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Does the folder contain a folder whose name does not begin with a dot? */
static bool holds_folder(const char *folder) {
    char **names;
    size_t count;
    bool found = false;
    if (cop_folder_list(folder, &names, &count, NULL)) return false;
    for (size_t i = 0; i < count && !found; i++) {
        char *path = names[i][0] != '.' ? cop_path_join(folder, names[i]) : NULL;
        found = path && cop_folder_exists(path);
        cop_free(path);
    }
    cop_free(names);
    return found;
}

/* Loads a set of images from `path`, which contains one folder per class. If `path` contains a
 * folder `train`, the folders of the classes are in `train`, and in `test` if that exists, too. */
static cop_err open_image_folder(const char *path, const cop_data_input *how, cop_data **out,
                                 cop_error *error) {
    char *train = cop_path_join(path, "train"), *test = cop_path_join(path, "test");
    cop_data_input input = *how;
    cop_err e = train && test ? COP_OK : cop_no_memory(error);
    if (!e && cop_folder_exists(train)) {
        input.train.path = train;
        if (cop_folder_exists(test)) input.test.path = test;
    }
    if (!e && !holds_folder(input.train.path))
        e = cop_fail(error, COP_ERR_NOT_FOUND,
                     "%s contains no data set: expected the files of MNIST or CIFAR, or one folder "
                     "of PNG or JPEG files per class",
                     path);
    else if (!e)
        e = within(pack_load_image_folder(&input, out, error), error);
    cop_free(train);
    cop_free(test);
    return e;
}

static cop_err open_folder(const char *path, const cop_data_input *how, cop_data **out,
                           cop_error *error) {
    static cop_err (*const openers[])(const char *, cop_data **, cop_error *) = {
        cop_data_load_mnist, cop_data_load_cifar10, cop_data_load_cifar100};
    for (size_t i = 0; i < sizeof openers / sizeof *openers; i++) {
        cop_err e = openers[i](path, out, error);
        if (e != COP_ERR_NOT_FOUND) return e;
    }
    return open_image_folder(path, how, out, error);
}

static cop_err load_pack(const cop_data_input *input, cop_data **out, cop_error *error) {
    return cop_data_load_pack(input->train.path, out, error);
}

static cop_err load_npz(const cop_data_input *input, cop_data **out, cop_error *error) {
    cop_data_input both = *input;
    if (pack_npz_has_test(input->train.path)) both.test.path = input->train.path;
    return pack_load_npy(&both, out, error);
}

static const struct {
    const char *ending;
    cop_err (*load)(const cop_data_input *input, cop_data **out, cop_error *error);
} endings[] = {{".csv", pack_load_csv},    {".csv.gz", pack_load_csv}, {".tsv", pack_load_csv},
               {".tsv.gz", pack_load_csv}, {".txt", pack_load_csv},    {".data", pack_load_csv},
               {".npz", load_npz},         {".pack", load_pack}};

cop_err cop_data_open_path(const char *path, const cop_data_input *how, cop_data **out,
                           cop_error *error) {
    cop_data_input input = how ? *how : (cop_data_input){0};
    input.name = last_name(path);
    input.train = (cop_data_files){.path = path};
    input.test = (cop_data_files){0};
    if (cop_folder_exists(path)) return open_folder(path, &input, out, error);
    if (!cop_file_exists(path))
        return cop_fail(error, COP_ERR_NOT_FOUND, "there is no file or folder %s", path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (cop_ends_with(path, endings[i].ending))
            return within(endings[i].load(&input, out, error), error);
    return cop_fail(error, COP_ERR_NOT_FOUND,
                    "cannot tell the format of %s from its name: expected .csv, .tsv (or with "
                    ".gz), .txt, .data, .npz or .pack",
                    path);
}
