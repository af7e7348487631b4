/* Data sets of a coordinator. See datasets.h. The index is a text file, one line a set: "DIGEST
 * BYTES TRAIN TEST CLASSES RANK D0 D1 D2 NAME". */
#include "coordinator/datasets.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "coordinator/datasets_state.h"

/* ---- paths ---- */

bool coord_is_digest(const char *text) {
    unsigned char bytes[32];
    if (!text || !cop_unhex32(text, bytes)) return false;
    for (const char *p = text; *p; p++)
        if (*p >= 'A' && *p <= 'F') return false; /* one spelling, one file */
    return true;
}

void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]) {
    COP_ASSERT(coord_is_digest(digest));
    snprintf(out, 4096, "%s/%s.pack", d->folder, digest);
}

void coord_upload_path(const coord_datasets *d, const char *digest, const char *file,
                       char out[4096]) {
    COP_ASSERT(coord_is_digest(digest));
    snprintf(out, 4096, "%s/upload/%s%s%s", d->folder, digest, *file ? "/" : "", file);
}

bool coord_has_pack(const coord_datasets *d, const char *digest) {
    char path[4096];
    coord_pack_path(d, digest, path);
    return cop_file_exists(path);
}

/* ---- the table and its file, the index ---- */

static cop_err write_index(coord_datasets *d, cop_error *error) {
    cop_str text = {0};
    char path[4096];
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        const coord_dataset *s = &d->sets[i];
        cop_str_printf(&text, "%s %llu %u %u %u %u %u %u %u %s\n", s->digest,
                       (unsigned long long)s->bytes, s->train, s->test, s->classes, s->rank,
                       s->shape[0], s->shape[1], s->shape[2], s->name);
    }
    uv_mutex_unlock(&d->table);
    snprintf(path, sizeof path, "%s/index", d->folder);
    cop_err e = text.failed ? cop_fail(error, COP_ERR_NO_MEMORY, "out of memory")
                            : cop_file_write_text(path, cop_str_text(&text), error);
    cop_str_fini(&text);
    return e;
}

/* The next word of a line; NULL at its end. */
static char *next_word(char **line) {
    char *word = *line, *end = word + strcspn(word, " ");
    if (!*word) return NULL;
    *line = end + (*end == ' ');
    *end = '\0';
    return word;
}

static bool read_line(char *line, coord_dataset *s) {
    uint32_t *const figures[] = {&s->train, &s->test,     &s->classes, &s->rank,
                                 s->shape,  s->shape + 1, s->shape + 2};
    const char *word = next_word(&line);
    if (!coord_is_digest(word)) return false;
    snprintf(s->digest, sizeof s->digest, "%s", word);
    word = next_word(&line);
    if (!word || !cop_parse_u64(word, &s->bytes)) return false;
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        uint64_t value;
        word = next_word(&line);
        if (!word || !cop_parse_u64(word, &value) || value > UINT32_MAX) return false;
        *figures[i] = (uint32_t)value;
    }
    snprintf(s->name, sizeof s->name, "%s", line); /* the rest: names may have spaces */
    return *line && s->rank <= 3;
}

/* Sets whose pack is gone are left out. */
static cop_err read_index(coord_datasets *d, cop_error *error) {
    char path[4096], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/index", d->folder);
    if (!cop_file_exists(path)) return COP_OK;
    COP_TRY(cop_file_read(path, 1 << 20, &text, &size, error));
    for (char *line = text; *line && d->count < COORD_SETS_MAX;) {
        size_t length = strcspn(line, "\n");
        bool last = line[length] == '\0';
        coord_dataset *s = &d->sets[d->count];
        line[length] = '\0';
        *s = (coord_dataset){0};
        d->count += read_line(line, s) && coord_has_pack(d, s->digest);
        line += length + !last;
    }
    cop_free(text);
    return COP_OK;
}

/* Under `table`. The newest of a name. */
static coord_dataset *find_set(const coord_datasets *d, const char *name_or_digest) {
    bool digest = coord_is_digest(name_or_digest);
    for (size_t i = d->count; i-- > 0;)
        if (strcmp(digest ? d->sets[i].digest : d->sets[i].name, name_or_digest) == 0)
            return &d->sets[i];
    return NULL;
}

bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out) {
    uv_mutex_lock(&d->table);
    const coord_dataset *s = find_set(d, name_or_digest);
    if (s) *out = *s;
    uv_mutex_unlock(&d->table);
    return s != NULL;
}

static void describe(const cop_data *data, coord_dataset *s) {
    *s = (coord_dataset){.bytes = data->pack->size,
                         .train = data->train.count,
                         .test = data->test.count,
                         .classes = (uint32_t)data->classes,
                         .rank = (uint32_t)data->train.rank};
    for (uint32_t i = 0; i < s->rank && i < 3; i++) s->shape[i] = (uint32_t)data->train.dims[i];
    snprintf(s->name, sizeof s->name, "%s", data->name);
    for (char *p = s->name; *p; p++)
        if ((unsigned char)*p < 32) *p = '_'; /* a name is one line of the index */
    cop_hex32(data->digest, s->digest);
}

/* Under `files`. The newest place is for what came last: a name that moves to other content does so
 * by a new entry. */
cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error) {
    uv_mutex_lock(&d->table);
    bool known = false, full = d->count == COORD_SETS_MAX;
    for (size_t i = 0; i < d->count && !known; i++)
        known =
            strcmp(d->sets[i].name, set->name) == 0 && strcmp(d->sets[i].digest, set->digest) == 0;
    if (!known && !full) d->sets[d->count++] = *set;
    uv_mutex_unlock(&d->table);
    if (known) return COP_OK;
    if (full)
        return cop_fail(error, COP_ERR_LIMIT,
                        "there are %d data sets already: remove some (coppice data rm)",
                        COORD_SETS_MAX);
    return write_index(d, error);
}

/* ---- use: counted at the first entry of a digest ---- */

static void change_use(coord_datasets *d, const char *digest, int by) {
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->sets[i].digest, digest) != 0) continue;
        COP_ASSERT(by > 0 || d->sets[i].jobs > 0);
        d->sets[i].jobs += (uint32_t)by;
        break;
    }
    uv_mutex_unlock(&d->table);
}

void coord_datasets_use(coord_datasets *d, const char *digest) {
    change_use(d, digest, 1);
}

void coord_datasets_release(coord_datasets *d, const char *digest) {
    change_use(d, digest, -1);
}

static uint32_t users_of(const coord_datasets *d, const char *digest) {
    uint32_t users = 0;
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->sets[i].digest, digest) == 0) users += d->sets[i].jobs;
    return users;
}

/* ---- opening ---- */

cop_err coord_datasets_open(const char *state_folder, const char *data_folder, uint64_t quota,
                            coord_datasets **out, cop_error *error) {
    coord_datasets *d = cop_alloc(sizeof *d);
    if (!d) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    d->folder = cop_path_join(state_folder, "data");
    d->sets = cop_alloc_array(COORD_SETS_MAX, sizeof *d->sets);
    d->data_folder = data_folder ? cop_strdup(data_folder) : NULL;
    d->quota = quota;
    uv_mutex_init(&d->files);
    uv_mutex_init(&d->table);
    cop_err e = COP_OK;
    if (!d->folder || !d->sets || (data_folder && !d->data_folder))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = cop_folder_create(d->folder, error);
    if (!e && data_folder && !cop_folder_exists(data_folder))
        e = cop_fail(error, COP_ERR_NOT_FOUND, "--data: there is no folder %s", data_folder);
    if (!e) e = read_index(d, error);
    if (e) {
        coord_datasets_close(d);
        return e;
    }
    coord_drop_old_uploads(d);
    *out = d;
    return COP_OK;
}

void coord_datasets_close(coord_datasets *d) {
    if (!d) return;
    uv_mutex_destroy(&d->files);
    uv_mutex_destroy(&d->table);
    cop_free(d->folder);
    cop_free(d->data_folder);
    cop_free(d->sets);
    cop_free(d);
}

/* ---- loading ---- */

cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error) {
    char path[4096], found[65];
    coord_pack_path(d, digest, path);
    COP_TRY(cop_data_load_pack(path, out, error));
    cop_hex32((*out)->digest, found);
    if (strcmp(found, digest) != 0) {
        cop_data_destroy(*out);
        *out = NULL;
        return cop_fail(error, COP_ERR_CORRUPT, "%s was altered: its content is %.16s...", path,
                        found);
    }
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    return COP_OK;
}

/* A set of --data: the folder itself for "mnist", or what stands in it by that name. Names with a
 * slash or a dot in front are no names. */
static cop_err load_offered(coord_datasets *d, const char *name, cop_data **out, cop_error *error) {
    if (!d->data_folder || !*name || strchr(name, '/') || name[0] == '.') return COP_ERR_NOT_FOUND;
    cop_err e = COP_ERR_NOT_FOUND;
    if (strcmp(name, "mnist") == 0) e = cop_data_load_mnist(d->data_folder, out, error);
    char *path = e == COP_ERR_NOT_FOUND ? cop_path_join(d->data_folder, name) : NULL;
    if (path && (cop_folder_exists(path) || cop_file_exists(path)))
        e = cop_data_open_path(path, out, error);
    cop_free(path);
    if (!e) snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    return e;
}

/* "the coordinator has no data set "mnits": did you mean "mnist"? It has mnist, ... */
static cop_err fail_unknown(coord_datasets *d, const char *name, cop_error *error) {
    coord_dataset *sets = NULL;
    const char **names = NULL;
    size_t count = 0, shown = 0;
    cop_str list = {0};
    if (coord_datasets_list(d, &sets, &count, NULL) == COP_OK)
        names = cop_alloc_array(count + 1, sizeof *names);
    for (size_t i = 0; names && i < count; i++) {
        names[i] = sets[i].name;
        if (shown++ < 8) cop_str_printf(&list, "%s%.60s", shown > 1 ? ", " : "", names[i]);
    }
    const char *nearest = names ? cop_nearest_name(name, names, count) : NULL;
    cop_fail(error, COP_ERR_NOT_FOUND,
             "the coordinator has no data set \"%.100s\"%s%s%s; it has %s%s: name one of them, or "
             "upload yours with `coppice submit --data DIR`",
             name, nearest ? ": did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "",
             cop_str_text(&list), shown > 8 ? ", ..." : "");
    cop_str_fini(&list);
    cop_free(names);
    cop_free(sets);
    return COP_ERR_NOT_FOUND;
}

cop_err coord_datasets_load(coord_datasets *d, const char *name_or_digest, cop_data **out,
                            cop_error *error) {
    coord_dataset set;
    bool known = coord_copy_set(d, name_or_digest, &set);
    *out = NULL;
    if (coord_is_digest(name_or_digest)) { /* by content: only ever that */
        if (coord_has_pack(d, name_or_digest))
            return coord_load_pack(d, name_or_digest, known ? set.name : name_or_digest, out,
                                   error);
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator has no data set of digest %.16s...: upload it with "
                        "`coppice submit --data DIR`",
                        name_or_digest);
    }
    bool built_in = strcmp(name_or_digest, COORD_BUILT_IN) == 0;
    cop_err e = built_in ? COP_ERR_NOT_FOUND : load_offered(d, name_or_digest, out, error);
    if (e != COP_ERR_NOT_FOUND) return e;
    if (known) return coord_load_pack(d, set.digest, set.name, out, error);
    if (built_in) return cop_data_open(COORD_BUILT_IN, NULL, out, error);
    return fail_unknown(d, name_or_digest, error);
}

/* ---- keeping ---- */

/* Under `files`. */
cop_err coord_store_set(coord_datasets *d, const cop_data *data, cop_error *error) {
    coord_dataset set;
    char path[4096];
    describe(data, &set);
    if (!coord_has_pack(d, set.digest)) {
        COP_TRY(coord_check_quota(d, set.digest, set.bytes, error));
        coord_pack_path(d, set.digest, path);
        COP_TRY(cop_data_save_pack(data, path, error));
    }
    return coord_add_set(d, &set, error);
}

cop_err coord_datasets_keep(coord_datasets *d, const cop_data *data, cop_error *error) {
    char digest[65];
    cop_hex32(data->digest, digest);
    uv_mutex_lock(&d->files);
    cop_err e = coord_store_set(d, data, error);
    if (!e) coord_datasets_use(d, digest);
    uv_mutex_unlock(&d->files);
    return e;
}

/* ---- removing and listing ---- */

/* Takes all names of the set out of the table; 0, or how many jobs use it. */
static uint32_t take_out(coord_datasets *d, const char *digest) {
    size_t kept = 0;
    uv_mutex_lock(&d->table);
    uint32_t users = users_of(d, digest);
    for (size_t i = 0; i < d->count && !users; i++)
        if (strcmp(d->sets[i].digest, digest) != 0) d->sets[kept++] = d->sets[i];
    if (!users) d->count = kept;
    uv_mutex_unlock(&d->table);
    return users;
}

static cop_err remove_set(coord_datasets *d, const char *name_or_digest, coord_dataset *removed,
                          cop_error *error) {
    char path[4096];
    if (!coord_copy_set(d, name_or_digest, removed))
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator keeps no data set \"%.100s\" (coppice data list "
                        "--coordinator URL)",
                        name_or_digest);
    uint32_t users = take_out(d, removed->digest);
    if (users)
        return cop_fail(error, COP_ERR_IN_USE,
                        "data set \"%s\" is in use by %u unfinished job%s: wait, or cancel %s",
                        removed->name, users, users == 1 ? "" : "s", users == 1 ? "it" : "them");
    COP_TRY(write_index(d, error));
    coord_pack_path(d, removed->digest, path);
    return cop_file_remove(path, error);
}

cop_err coord_datasets_remove(coord_datasets *d, const char *name_or_digest, coord_dataset *removed,
                              cop_error *error) {
    *removed = (coord_dataset){0};
    uv_mutex_lock(&d->files);
    cop_err e = remove_set(d, name_or_digest, removed, error);
    uv_mutex_unlock(&d->files);
    return e;
}

/* By the names of its files only: reading them is for the job that wants them. */
static bool looks_like_mnist(const char *folder) {
    static const char *const stems[] = {"train-images", "train-labels", "t10k-images",
                                        "t10k-labels"};
    char **names = NULL;
    size_t count = 0, found = 0;
    if (cop_folder_list(folder, &names, &count, NULL)) return false;
    for (size_t s = 0; s < 4; s++) {
        bool there = false;
        for (size_t i = 0; i < count && !there; i++)
            there = strncmp(names[i], stems[s], strlen(stems[s])) == 0;
        found += there;
    }
    cop_free(names);
    return found == 4;
}

typedef struct set_list {
    coord_dataset *sets;
    size_t count, capacity;
} set_list;

static void offer_name(set_list *l, const char *name) {
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->sets[i].name, name) == 0) return;
    if (l->count == l->capacity || strlen(name) >= COP_NAME_MAX) return;
    coord_dataset *s = &l->sets[l->count++];
    *s = (coord_dataset){0};
    snprintf(s->name, sizeof s->name, "%s", name);
}

static void offer_folder(const char *folder, set_list *l) {
    char **names = NULL;
    size_t count = 0;
    if (looks_like_mnist(folder)) offer_name(l, "mnist");
    if (cop_folder_list(folder, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        char *path = names[i][0] == '.' ? NULL : cop_path_join(folder, names[i]);
        if (path && cop_folder_exists(path) && looks_like_mnist(path)) offer_name(l, names[i]);
        cop_free(path);
    }
    cop_free(names);
}

cop_err coord_datasets_list(coord_datasets *d, coord_dataset **out, size_t *count,
                            cop_error *error) {
    set_list l = {.capacity = 2 * COORD_SETS_MAX};
    l.sets = cop_alloc_array(l.capacity, sizeof *l.sets);
    if (!l.sets) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        l.sets[l.count] = d->sets[i];
        l.sets[l.count++].jobs = users_of(d, d->sets[i].digest);
    }
    uv_mutex_unlock(&d->table);
    if (d->data_folder) offer_folder(d->data_folder, &l);
    offer_name(&l, COORD_BUILT_IN);
    *out = l.sets;
    *count = l.count;
    return COP_OK;
}
