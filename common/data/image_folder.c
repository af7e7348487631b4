/* Reads data sets of images: one folder per class, with PNG or JPEG files. Classes are numbered in
 * the byte order of their names. Samples are sorted by class, then by the byte order of the names
 * of their files (D11). All images must have the same size, unless data.resize gives all of them
 * one size. If any image is in colour, grey images get three equal channels. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/data/image.h"
#include "common/data/pack.h"

/* The folders of the classes of one part. */
typedef struct classes {
    const char *folder; /* the folder that contains them */
    char **names;       /* [count] in byte order */
    size_t count;
} classes;

/* One part of the set. */
typedef struct part {
    classes list;
    uint32_t images; /* number of images */
    char *first;     /* path of the first image; all others must have its size */
} part;

/* The set that is being read. */
typedef struct folder_set {
    part part[2]; /* the training part, then the test part */
    bool has_test;
    const cop_data_input *input;
    bool colour; /* a colour image was found after a grey one, so the set has three channels */
} folder_set;

static void close_part(part *p) {
    cop_free(p->list.names);
    cop_free(p->first);
}

bool image_folder_skips(const char *name) {
    static const char *const names[] = {"Thumbs.db", "desktop.ini", "__MACOSX", "lost+found"};
    bool found = name[0] == '.';
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = strcasecmp(name, names[i]) == 0;
    return found;
}

/* Lists the folders of the classes. Files next to them, such as a licence, are ignored. INPUT:
 * there are fewer than `least` folders, or more than COP_CLASSES_MAX. */
static cop_err list_classes(const char *folder, size_t least, classes *out, cop_error *error) {
    size_t count, kept = 0;
    COP_TRY(cop_folder_list(folder, &out->names, &count, error));
    out->folder = folder;
    for (size_t i = 0; i < count; i++) {
        if (image_folder_skips(out->names[i])) continue;
        char *path = cop_path_join(folder, out->names[i]);
        if (!path) return cop_no_memory(error);
        if (cop_folder_exists(path)) out->names[kept++] = out->names[i];
        cop_free(path);
    }
    out->count = kept;
    if (kept < least || kept > COP_CLASSES_MAX)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %zu folder%s: expected one for each class, at least %s", folder,
                        kept, kept == 1 ? "" : "s", least == 1 ? "one" : "two");
    return COP_OK;
}

/* ---- walking over all images ---- */

/* Called for each image; `class` is the index of its folder. */
typedef cop_err (*visit)(void *context, const char *path, size_t class, cop_error *error);

static cop_err walk_class(const char *folder, size_t class, visit each, void *context,
                          cop_error *error) {
    char **names;
    size_t count, seen = 0;
    COP_TRY(cop_folder_list(folder, &names, &count, error));
    cop_err e = COP_OK;
    for (size_t i = 0; i < count && !e; i++) {
        if (image_folder_skips(names[i])) continue;
        char *path = cop_path_join(folder, names[i]);
        if (path && cop_folder_exists(path))
            e = cop_fail(error, COP_ERR_INPUT,
                         "%s is a folder: expected the images of a class directly in %s", path,
                         folder);
        else
            e = path ? each(context, path, class, error) : cop_no_memory(error);
        cop_free(path);
        seen++;
    }
    cop_free(names);
    if (!e && !seen) e = cop_fail(error, COP_ERR_INPUT, "%s contains no images", folder);
    return e;
}

static cop_err walk(const classes *list, visit each, void *context, cop_error *error) {
    for (size_t i = 0; i < list->count; i++) {
        char *folder = cop_path_join(list->folder, list->names[i]);
        cop_err e = folder ? walk_class(folder, i, each, context, error) : cop_no_memory(error);
        cop_free(folder);
        COP_TRY(e);
    }
    return COP_OK;
}

static cop_err count_image(void *context, const char *path, size_t class, cop_error *error) {
    part *p = context;
    (void)class;
    if (!p->first && !(p->first = cop_strdup(path))) return cop_no_memory(error);
    if (p->images == COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s contains too many images", p->list.folder);
    p->images++;
    return COP_OK;
}

static cop_err open_part(const char *folder, size_t least, part *p, cop_error *error) {
    *p = (part){0};
    cop_err e = list_classes(folder, least, &p->list, error);
    if (!e) e = walk(&p->list, count_image, p, error);
    if (e) close_part(p);
    return e;
}

/* ---- reading ---- */

/* Reads an image, and resizes it to the height and width in `resize`. If these are 0, the image
 * keeps its size. */
static cop_err read_image(const char *path, const uint32_t resize[2], cop_image *out,
                          cop_error *error) {
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(path, IMAGE_FILE_MAX, &bytes, &size, error));
    const image_file file = {path, bytes, size, resize[0] ? IMAGE_VALUES_MAX : COP_UNITS_MAX};
    const image_form form = {.height = (int32_t)resize[0], .width = (int32_t)resize[1]};
    cop_err e = image_decode(&file, out, error);
    cop_free(bytes);
    if (e) return e;
    e = image_fit(path, &form, out, error);
    if (e) cop_free(out->pixels);
    return e;
}

/* One part that is being filled with images. */
typedef struct filling {
    const cop_data_part *to;
    const int32_t *numbers; /* for each class of this part: its number in the training part */
    const char *first;      /* path of the first training image, for errors */
    const uint32_t *resize; /* height and width, as in read_image */
    uint32_t row;           /* index of the next sample */
    bool colour; /* the set has one channel, but an image is in colour: make the set again */
} filling;

static cop_err fill_image(void *context, const char *path, size_t class, cop_error *error) {
    filling *f = context;
    const int32_t *dims = f->to->dims;
    cop_image image;
    if (f->row == f->to->count) /* a file was added after the files were counted */
        return cop_fail(error, COP_ERR_IO, "%s: the folder changed while it was being read", path);
    COP_TRY(read_image(path, f->resize, &image, error));
    cop_err e = COP_OK;
    if (image.height != dims[1] || image.width != dims[2])
        e = cop_fail(error, COP_ERR_INPUT,
                     "%s has %d x %d pixels: expected %d x %d, as in %s (set data.resize: "
                     "[%d, %d] to give all images this size)",
                     path, image.width, image.height, dims[2], dims[1], f->first, dims[1], dims[2]);
    else if (image.channels > dims[0]) {
        f->colour = true;
        e = cop_fail(error, COP_ERR_INPUT, "%s is in colour", path);
    } else {
        const image_form form = {.channels = dims[0]};
        e = image_fit(path, &form, &image, error);
    }
    if (!e) {
        memcpy((char *)pack_samples(f->to) + (size_t)f->row * f->to->stride, image.pixels,
               f->to->stride);
        pack_labels(f->to)[f->row++] = f->numbers[class];
    }
    cop_free(image.pixels);
    return e;
}

/* Looks up the number that each class of `list` has in the training part. The caller frees *out, an
 * array of list->count numbers, with cop_free. INPUT: the training part lacks a class. */
static cop_err number_classes(const classes *train, const classes *list, int32_t **out,
                              cop_error *error) {
    int32_t *numbers = cop_alloc_array(list->count, sizeof *numbers);
    if (!numbers) return cop_no_memory(error);
    size_t at = 0;
    for (size_t i = 0; i < list->count; i++) { /* both lists are in byte order */
        while (at < train->count && strcmp(train->names[at], list->names[i]) < 0) at++;
        if (at == train->count || strcmp(train->names[at], list->names[i]) != 0) {
            cop_free(numbers);
            return cop_fail(error, COP_ERR_INPUT, "%s has a class \"%.100s\" that %s lacks",
                            list->folder, list->names[i], train->folder);
        }
        numbers[i] = (int32_t)at;
    }
    *out = numbers;
    return COP_OK;
}

static cop_err fill_part(folder_set *s, int which, const cop_data_part *to, cop_error *error) {
    const part *train = &s->part[0], *from = &s->part[which];
    int32_t *numbers = NULL;
    COP_TRY(number_classes(&train->list, &from->list, &numbers, error));
    filling f = {.to = to, .numbers = numbers, .first = train->first, .resize = s->input->resize};
    cop_err e = walk(&from->list, fill_image, &f, error);
    cop_free(numbers);
    s->colour = s->colour || f.colour;
    if (!e && f.row != to->count)
        e = cop_fail(error, COP_ERR_IO, "%s: the folder changed while it was being read",
                     from->list.folder);
    return e;
}

static cop_err make(folder_set *s, cop_data **out, cop_error *error) {
    const part *train = &s->part[0];
    const classes *list = &train->list;
    cop_image image;
    pack_part parts[2];
    COP_TRY(read_image(train->first, s->input->resize, &image, error));
    cop_free(image.pixels);
    const cop_data_shape shape = {4,
                                  {train->images, s->colour ? 3 : (uint64_t)image.channels,
                                   (uint64_t)image.height, (uint64_t)image.width}};
    COP_TRY(pack_part_of(list->folder, COP_DATA_U8, &shape, &parts[0], error));
    parts[1] = parts[0];
    parts[1].count = s->has_test ? s->part[1].images : 0;
    COP_TRY(pack_create(s->input->name, (int32_t)list->count, parts, out, error));
    COP_TRY(fill_part(s, 0, &(*out)->train, error));
    if (s->has_test) COP_TRY(fill_part(s, 1, &(*out)->test, error));
    COP_TRY(cop_data_name_classes(*out, (const char *const *)list->names, list->count, error));
    pack_finish(*out, (int32_t)list->count);
    return COP_OK;
}

/* The first image decides the number of channels. If a colour image comes after a grey first image,
 * the set is made again, with three channels. */
static cop_err load(folder_set *s, cop_data **out, cop_error *error) {
    cop_err e = make(s, out, error);
    if (!e || !s->colour) return e;
    cop_data_destroy(*out);
    *out = NULL;
    return make(s, out, error);
}

cop_err pack_load_image_folder(const cop_data_input *input, cop_data **out, cop_error *error) {
    folder_set s = {.input = input, .has_test = input->test.path != NULL};
    cop_data *data = NULL;
    COP_TRY(open_part(input->train.path, 2, &s.part[0], error));
    cop_err e = s.has_test ? open_part(input->test.path, 1, &s.part[1], error) : COP_OK;
    if (!e) {
        e = load(&s, &data, error);
        if (s.has_test) close_part(&s.part[1]);
    }
    close_part(&s.part[0]);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}
