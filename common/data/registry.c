/* The table of named data sets, and the functions that open them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/str.h"
#include "common/data/data.h"

#define SYNTHETIC_SEED  1
#define SYNTHETIC_TRAIN 60000
#define SYNTHETIC_TEST  10000

static cop_err open_mnist(const char *folder, cop_data **out, cop_error *error) {
    if (folder) return cop_data_load_mnist(folder, out, error);
    const char *environment = getenv("COPPICE_MNIST");
    if (environment && *environment) return cop_data_load_mnist(environment, out, error);
    char *cache = cop_path_cache(), *path = cache ? cop_path_join(cache, "mnist") : NULL;
    cop_err e = path ? cop_data_load_mnist(path, out, error) : cop_no_memory(error);
    if (e == COP_ERR_NOT_FOUND)
        cop_fail(error, e,
                 "MNIST is not in %s: run `coppice data get mnist`, or pass --data DIR with its "
                 "four files, or use data: {source: synthetic-digits}",
                 path);
    cop_free(cache);
    cop_free(path);
    return e;
}

static cop_err open_synthetic(const char *folder, cop_data **out, cop_error *error) {
    (void)folder;
    return cop_data_make_synthetic(SYNTHETIC_SEED, SYNTHETIC_TRAIN, SYNTHETIC_TEST, out, error);
}

/* Opens CIFAR. Coppice does not download it. The user unpacks the archive into the folder of
 * --data, or into the cache folder. */
static cop_err open_cifar(const char *name, const char *folder, cop_data **out, cop_error *error) {
    cop_err (*const load)(const char *, cop_data **, cop_error *) =
        strcmp(name, "cifar10") == 0 ? cop_data_load_cifar10 : cop_data_load_cifar100;
    if (folder) return load(folder, out, error);
    char *cache = cop_path_cache(), *path = cache ? cop_path_join(cache, name) : NULL;
    cop_err e = path ? load(path, out, error) : cop_no_memory(error);
    if (e == COP_ERR_NOT_FOUND)
        cop_fail(error, e,
                 "%s is not in %s: unpack its binary version there, or pass --data DIR with its "
                 "files",
                 name, path);
    cop_free(cache);
    cop_free(path);
    return e;
}

static cop_err open_cifar10(const char *folder, cop_data **out, cop_error *error) {
    return open_cifar("cifar10", folder, out, error);
}

static cop_err open_cifar100(const char *folder, cop_data **out, cop_error *error) {
    return open_cifar("cifar100", folder, out, error);
}

static const cop_data_source sources[] = {
    {"mnist", "handwritten digits, 28 x 28, 60000 + 10000 (LeCun, Cortes, Burges)", true, false},
    {"cifar10", "small photographs, 3 x 32 x 32, 50000 + 10000 (Krizhevsky)", false, false},
    {"cifar100", "the same photographs with 100 classes", false, false},
    {"synthetic-digits", "rendered digits, 28 x 28, 60000 + 10000: no download", false, true},
};
static cop_err (*const openers[])(const char *, cop_data **, cop_error *) = {
    open_mnist, open_cifar10, open_cifar100, open_synthetic};

const cop_data_source *cop_data_sources(size_t *count) {
    *count = sizeof sources / sizeof *sources;
    return sources;
}

cop_err cop_data_open(const char *source, const char *folder, cop_data **out, cop_error *error) {
    const char *names[sizeof sources / sizeof *sources];
    size_t count = sizeof sources / sizeof *sources;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(sources[i].name, source) == 0) return openers[i](folder, out, error);
        names[i] = sources[i].name;
    }
    const char *nearest = cop_nearest_name(source, names, count);
    return cop_fail(
        error, COP_ERR_NOT_FOUND, "there is no data set \"%s\"%s%s%s (coppice data list --local)",
        source, nearest ? ": did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
}
