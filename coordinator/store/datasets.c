/* Data sets of a coordinator: open, load, keep, remove, list. See datasets.h. */
#include "coordinator/store/datasets.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

/* ---- paths ---- */

bool coord_is_digest(const char *text) {
    unsigned char bytes[32];
    if (!text || !cop_unhex32(text, bytes)) return false;
    for (const char *p = text; *p; p++)
        if (*p >= 'A' && *p <= 'F') return false;
    return true;
}

void coord_pack_path(const coord_datasets *d, const char *digest, char out[4096]) {
    COP_ASSERT(coord_is_digest(digest));
    snprintf(out, 4096, "%s/%s.pack", d->folder, digest);
}

void coord_removed_path(const coord_datasets *d, const char *digest, char out[4096]) {
    COP_ASSERT(coord_is_digest(digest));
    snprintf(out, 4096, "%s/%s" COORD_REMOVED, d->folder, digest);
}

bool coord_has_pack(const coord_datasets *d, const char *digest) {
    char path[4096];
    coord_pack_path(d, digest, path);
    return cop_file_exists(path);
}

/* ---- opening ---- */

static cop_err allocate(coord_datasets *d, const coord_datasets_config *c, cop_error *error) {
    d->folder = cop_path_join(c->state_folder, "data");
    d->sets = cop_alloc_array(COORD_SETS_MAX, sizeof *d->sets);
    d->uses = cop_alloc_array(COORD_USES_MAX, sizeof *d->uses);
    d->loaded = coord_loaded_create();
    d->data_folder = c->data_folder ? cop_strdup(c->data_folder) : NULL;
    if (d->folder && d->sets && d->uses && d->loaded && (!c->data_folder || d->data_folder))
        return COP_OK;
    return cop_no_memory(error);
}

cop_err coord_datasets_open(const coord_datasets_config *config, coord_datasets **out,
                            cop_error *error) {
    COP_ASSERT(config->store && config->state_folder);
    coord_datasets *d = cop_alloc(sizeof *d);
    if (!d) return cop_no_memory(error);
    d->store = config->store;
    d->quota = config->quota;
    uv_mutex_init(&d->files);
    uv_mutex_init(&d->table);
    cop_err e = allocate(d, config, error);
    if (!e) e = cop_folder_create(d->folder, error);
    if (!e && d->data_folder && !cop_folder_exists(d->data_folder))
        e = cop_fail(error, COP_ERR_NOT_FOUND, "--data: there is no folder %s", d->data_folder);
    if (!e) coord_read_uploads(d);
    if (!e) e = coord_read_index(d, error);
    if (e)
        coord_datasets_close(d);
    else
        *out = d;
    return e;
}

void coord_datasets_close(coord_datasets *d) {
    if (!d) return;
    coord_free_uploads(d);
    coord_loaded_destroy(d->loaded);
    uv_mutex_destroy(&d->files);
    uv_mutex_destroy(&d->table);
    cop_free(d->folder);
    cop_free(d->data_folder);
    cop_free(d->sets);
    cop_free(d->uses);
    cop_free(d);
}

bool coord_datasets_tidy_is_due(coord_datasets *d, uint64_t now_ns) {
    return coord_loaded_is_due(d->loaded, now_ns);
}

void coord_datasets_tidy(coord_datasets *d, uint64_t now_ns) {
    coord_loaded_trim(d->loaded, now_ns);
}

/* ---- loading ---- */

/* The context of read_pack and of read_offered. */
typedef struct set_source {
    const coord_datasets *datasets;
    const char *key;  /* read_pack: the digest; read_offered: the path of the set */
    const char *name; /* the name that the loaded set gets */
} set_source;

static cop_err read_pack(void *context, cop_data **out, cop_error *error) {
    const set_source *source = context;
    char path[4096], found[65];
    coord_pack_path(source->datasets, source->key, path);
    COP_TRY(cop_data_load_pack(path, out, error));
    cop_hex32((*out)->digest, found);
    if (strcmp(found, source->key) != 0) {
        cop_data_destroy(*out);
        *out = NULL;
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s was altered: its content has the digest %.16s...", path, found);
    }
    snprintf((*out)->name, sizeof(*out)->name, "%s", source->name);
    return COP_OK;
}

cop_err coord_load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                        cop_error *error) {
    set_source source = {d, digest, name};
    const coord_loaded_source pack = {.key = digest, .load = read_pack, .context = &source};
    return coord_loaded_get(d->loaded, &pack, out, error);
}

static cop_err make_built_in(void *context, cop_data **out, cop_error *error) {
    (void)context;
    return cop_data_open(COORD_BUILT_IN, NULL, out, error);
}

cop_err coord_load_built_in(coord_datasets *d, cop_data **out, cop_error *error) {
    const coord_loaded_source built_in = {.key = COORD_BUILT_IN, .load = make_built_in};
    return coord_loaded_get(d->loaded, &built_in, out, error);
}

static cop_err read_offered(void *context, cop_data **out, cop_error *error) {
    const set_source *source = context;
    cop_err e = COP_ERR_NOT_FOUND;
    if (strcmp(source->name, "mnist") == 0)
        e = cop_data_load_mnist(source->datasets->data_folder, out, error);
    if (e == COP_ERR_NOT_FOUND) e = cop_data_open_path(source->key, NULL, out, error);
    if (!e) snprintf((*out)->name, sizeof(*out)->name, "%s", source->name);
    return e;
}

/* Loads a set of --data: the file or folder of this name in the folder of --data. If the name is
 * "mnist", the folder of --data itself may also be the set. NOT_FOUND: there is no such set; the
 * error may have no text. */
static cop_err load_offered(coord_datasets *d, const char *name, cop_data **out, cop_error *error) {
    if (!d->data_folder || !cop_path_name_ok(name)) return COP_ERR_NOT_FOUND;
    if (strlen(name) >= COP_NAME_MAX) return COP_ERR_NOT_FOUND;
    char *path = cop_path_join(d->data_folder, name);
    if (!path) return cop_no_memory(error);
    const bool exists = cop_folder_exists(path) || cop_file_exists(path);
    cop_err e = COP_ERR_NOT_FOUND;
    if (exists || strcmp(name, "mnist") == 0) {
        set_source source = {d, path, name};
        const coord_loaded_source offered = {
            .key = name,
            .stamp = cop_file_stamp(exists ? path : d->data_folder, exists),
            .load = read_offered,
            .context = &source};
        e = coord_loaded_get(d->loaded, &offered, out, error);
    }
    cop_free(path);
    return e;
}

/* Fails with NOT_FOUND. The text has the nearest name, if one is similar, and up to 8 names of
 * sets. */
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
    if (coord_is_digest(name_or_digest)) { /* no set has a name that looks like a digest */
        if (coord_has_pack(d, name_or_digest))
            return coord_load_pack(d, name_or_digest, known ? set.name : name_or_digest, out,
                                   error);
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator has no data set of digest %.16s...: upload it with "
                        "`coppice submit --data DIR`",
                        name_or_digest);
    }
    const bool built_in = strcmp(name_or_digest, COORD_BUILT_IN) == 0;
    cop_err e = built_in ? COP_ERR_NOT_FOUND : load_offered(d, name_or_digest, out, error);
    if (e != COP_ERR_NOT_FOUND) return e;
    if (known) return coord_load_pack(d, set.digest, set.name, out, error);
    if (built_in) return coord_load_built_in(d, out, error);
    return fail_unknown(d, name_or_digest, error);
}

/* ---- keeping ---- */

cop_err coord_store_set(coord_datasets *d, const cop_data *data, const char *name,
                        cop_error *error) {
    coord_dataset set;
    char path[4096];
    COP_ASSERT(data->pack != NULL);
    coord_describe_set(data, name, &set);
    coord_pack_path(d, set.digest, path);
    const bool exists = coord_has_pack(d, set.digest);
    if (!exists) {
        COP_TRY(coord_check_quota(d, set.digest, NULL, set.bytes, error));
        COP_TRY(cop_data_save_pack(data, path, error));
    }
    const cop_err e = coord_add_set(d, &set, error);
    if (e && !exists) cop_file_remove(path, NULL);
    return e;
}

cop_err coord_datasets_keep(coord_datasets *d, const cop_data *data, const char *name_or_digest,
                            cop_error *error) {
    char digest[65];
    coord_dataset known;
    cop_hex32(data->digest, digest);
    uv_mutex_lock(&d->files);
    const char *name = name_or_digest;
    if (coord_is_digest(name)) name = coord_copy_set(d, digest, &known) ? known.name : data->name;
    cop_err e = coord_store_set(d, data, name, error);
    if (!e) coord_datasets_use(d, digest);
    uv_mutex_unlock(&d->files);
    return e;
}

/* ---- removing and listing ---- */

static size_t count_names(coord_datasets *d, const char *digest) {
    size_t names = 0;
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) names += strcmp(d->sets[i].digest, digest) == 0;
    uv_mutex_unlock(&d->table);
    return names;
}

/* Renames the pack, removes the rows of the store, then removes the renamed pack. If one of these
 * steps fails or the program dies in between, the next start completes or undoes the removal
 * (datasets_index.c): if the rows still exist, it renames the pack back; otherwise it removes the
 * renamed pack. */
static cop_err remove_content(coord_datasets *d, const coord_dataset *set, cop_error *error) {
    char path[4096], removed[4096];
    cop_error problem = {0};
    const uint32_t users = coord_count_users(d, set->digest);
    if (users)
        return cop_fail(error, COP_ERR_IN_USE,
                        "data set \"%s\" is in use by %u unfinished job%s: wait, or cancel %s",
                        set->name, users, users == 1 ? "" : "s", users == 1 ? "it" : "them");
    coord_pack_path(d, set->digest, path);
    coord_removed_path(d, set->digest, removed);
    const bool exists = coord_has_pack(d, set->digest);
    cop_err e = exists ? cop_file_rename(path, removed, error) : COP_OK;
    if (!e) e = coord_forget_set(d, "", set->digest, error);
    if (e && exists && !coord_has_pack(d, set->digest) && cop_file_rename(removed, path, &problem))
        cop_log(COP_LOG_WARN, "data", "%s: the next start restores it", problem.text);
    if (!e && exists && cop_file_remove(removed, &problem))
        cop_log(COP_LOG_WARN, "data", "%s: the next start removes it", problem.text);
    return e;
}

static cop_err remove_set(coord_datasets *d, const char *name_or_digest, coord_dataset *removed,
                          cop_error *error) {
    if (!coord_copy_set(d, name_or_digest, removed))
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator has no data set \"%.100s\" (coppice data list "
                        "--coordinator URL)",
                        name_or_digest);
    if (coord_is_digest(name_or_digest) || count_names(d, removed->digest) == 1)
        return remove_content(d, removed, error);
    return coord_forget_set(d, removed->name, removed->digest, error);
}

cop_err coord_datasets_remove(coord_datasets *d, const char *name_or_digest, coord_dataset *removed,
                              cop_error *error) {
    *removed = (coord_dataset){0};
    uv_mutex_lock(&d->files);
    cop_err e = remove_set(d, name_or_digest, removed, error);
    uv_mutex_unlock(&d->files);
    return e;
}

/* True: for each of MNIST's four files, the folder has a file with the same beginning of its name.
 * Does not read the files. */
static bool looks_like_mnist(const char *folder) {
    static const char *const stems[] = {"train-images", "train-labels", "t10k-images",
                                        "t10k-labels"};
    char **names = NULL;
    size_t count = 0, found = 0;
    if (cop_folder_list(folder, &names, &count, NULL)) return false;
    for (size_t s = 0; s < 4; s++) {
        bool exists = false;
        for (size_t i = 0; i < count && !exists; i++)
            exists = strncmp(names[i], stems[s], strlen(stems[s])) == 0;
        found += exists;
    }
    cop_free(names);
    return found == 4;
}

typedef struct set_list {
    coord_dataset *sets;
    size_t count, capacity;
} set_list;

/* Appends the name, unless the list contains it or is full. */
static void list_name(set_list *l, const char *name) {
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->sets[i].name, name) == 0) return;
    if (l->count == l->capacity || strlen(name) >= COP_NAME_MAX) return;
    coord_dataset *s = &l->sets[l->count++];
    *s = (coord_dataset){0};
    snprintf(s->name, sizeof s->name, "%s", name);
}

/* Appends the names of the sets in the folder of --data: the folder itself and its subfolders, if
 * they look like MNIST. */
static void list_folder(const char *folder, set_list *l) {
    char **names = NULL;
    size_t count = 0;
    if (looks_like_mnist(folder)) list_name(l, "mnist");
    if (cop_folder_list(folder, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        char *path = names[i][0] == '.' ? NULL : cop_path_join(folder, names[i]);
        if (path && cop_folder_exists(path) && looks_like_mnist(path)) list_name(l, names[i]);
        cop_free(path);
    }
    cop_free(names);
}

cop_err coord_datasets_list(coord_datasets *d, coord_dataset **out, size_t *count,
                            cop_error *error) {
    set_list l = {.capacity = 2 * COORD_SETS_MAX};
    l.sets = cop_alloc_array(l.capacity, sizeof *l.sets);
    if (!l.sets) return cop_no_memory(error);
    uv_mutex_lock(&d->table);
    COP_ASSERT(d->count <= COORD_SETS_MAX);
    l.count = d->count;
    if (d->count) memcpy(l.sets, d->sets, d->count * sizeof *l.sets);
    uv_mutex_unlock(&d->table);
    for (size_t i = 0; i < l.count; i++) l.sets[i].jobs = coord_count_users(d, l.sets[i].digest);
    if (d->data_folder) list_folder(d->data_folder, &l);
    list_name(&l, COORD_BUILT_IN);
    *out = l.sets;
    *count = l.count;
    return COP_OK;
}
