/* The names of a coordinator's data sets. They are in a table of the store, and a table in memory
 * is a copy of it. The row of the store is changed first. The change in memory follows and cannot
 * fail. So either both tables change, or neither does. See datasets_state.h.
 *
 * Before store version 4, the names were in a text file, state/data/index, with a line for each
 * name: "DIGEST BYTES TRAIN TEST CLASSES RANK D0 D1 D2 NAME". If the file exists at the start, its
 * names move to the store, and the file is removed. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

/* ---- the table in memory: under `table` ---- */

/* Returns the newest entry with this name, or with this digest. NULL: there is none. */
static coord_dataset *find_set(const coord_datasets *d, const char *name_or_digest) {
    const bool digest = coord_is_digest(name_or_digest);
    for (size_t i = d->count; i-- > 0;)
        if (strcmp(digest ? d->sets[i].digest : d->sets[i].name, name_or_digest) == 0)
            return &d->sets[i];
    return NULL;
}

/* Removes the pair of this name and this digest, or, if `name` is "", all names of the digest. */
static void remove_names(coord_datasets *d, const char *name, const char *digest) {
    size_t kept = 0;
    for (size_t i = 0; i < d->count; i++) {
        const coord_dataset *s = &d->sets[i];
        if (strcmp(s->digest, digest) == 0 && (!*name || strcmp(s->name, name) == 0)) continue;
        if (kept != i) d->sets[kept] = *s;
        kept++;
    }
    d->count = kept;
}

bool coord_copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out) {
    uv_mutex_lock(&d->table);
    const coord_dataset *s = find_set(d, name_or_digest);
    if (s) *out = *s;
    uv_mutex_unlock(&d->table);
    return s != NULL;
}

void coord_describe_set(const cop_data *data, const char *name, coord_dataset *out) {
    *out = (coord_dataset){.bytes = data->pack->size,
                           .train = data->train.count,
                           .test = data->test.count,
                           .classes = (uint32_t)data->classes,
                           .rank = (uint32_t)data->train.rank};
    for (uint32_t i = 0; i < out->rank && i < 3; i++) out->shape[i] = (uint32_t)data->train.dims[i];
    snprintf(out->name, sizeof out->name, "%s", name);
    for (char *p = out->name; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '_'; /* the client prints names as they are */
    cop_hex32(data->digest, out->digest);
}

/* ---- changes: under `files` ---- */

cop_err coord_add_set(coord_datasets *d, const coord_dataset *set, cop_error *error) {
    uv_mutex_lock(&d->table);
    const coord_dataset *newest = find_set(d, set->name);
    const bool known = newest && strcmp(newest->digest, set->digest) == 0;
    const bool full = d->count == COORD_SETS_MAX;
    uv_mutex_unlock(&d->table);
    if (known) return COP_OK;
    if (full)
        return cop_fail(error, COP_ERR_LIMIT,
                        "there are already %d data sets: remove some (coppice data rm)",
                        COORD_SETS_MAX);
    COP_TRY(coord_store_put_set(d->store, set, error));
    uv_mutex_lock(&d->table);
    remove_names(d, set->name, set->digest);
    COP_ASSERT(d->count < COORD_SETS_MAX);
    d->sets[d->count++] = *set;
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

cop_err coord_forget_set(coord_datasets *d, const char *name, const char *digest,
                         cop_error *error) {
    COP_TRY(coord_store_remove_set(d->store, name, digest, error));
    uv_mutex_lock(&d->table);
    remove_names(d, name, digest);
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

/* ---- use ---- */

/* Returns the element of `uses` for the digest. NULL: no unfinished job or evaluation uses it.
 * Under `table`. */
static coord_use *find_use(const coord_datasets *d, const char *digest) {
    for (size_t i = 0; i < d->use_count; i++)
        if (strcmp(d->uses[i].digest, digest) == 0) return &d->uses[i];
    return NULL;
}

void coord_datasets_use(coord_datasets *d, const char *digest) {
    uv_mutex_lock(&d->table);
    coord_use *use = find_use(d, digest);
    if (!use) {
        COP_ASSERT(d->use_count < COORD_USES_MAX); /* a place for every job and evaluation */
        use = &d->uses[d->use_count++];
        *use = (coord_use){.jobs = 0};
        snprintf(use->digest, sizeof use->digest, "%s", digest);
    }
    use->jobs++;
    uv_mutex_unlock(&d->table);
}

void coord_datasets_release(coord_datasets *d, const char *digest) {
    uv_mutex_lock(&d->table);
    coord_use *use = find_use(d, digest);
    COP_ASSERT(use != NULL && use->jobs > 0);
    if (--use->jobs == 0) *use = d->uses[--d->use_count];
    uv_mutex_unlock(&d->table);
}

uint32_t coord_count_users(coord_datasets *d, const char *digest) {
    uv_mutex_lock(&d->table);
    const coord_use *use = find_use(d, digest);
    const uint32_t jobs = use ? use->jobs : 0;
    uv_mutex_unlock(&d->table);
    return jobs;
}

/* ---- at the start ---- */

/* For a set that has rows, but no pack: if an interrupted removal has renamed the pack, renames it
 * back. True: the pack exists again. */
static bool restore_pack(const coord_datasets *d, const char *digest) {
    char path[4096], removed[4096];
    coord_pack_path(d, digest, path);
    coord_removed_path(d, digest, removed);
    return cop_file_exists(removed) && cop_file_rename(removed, path, NULL) == COP_OK;
}

/* Adds a row of the store to the table in memory. A set without a pack is skipped, but its row
 * stays in the store, so the set is known again if somebody puts the pack back. */
static cop_err read_row(void *context, const coord_dataset *set) {
    coord_datasets *d = context;
    if (!coord_is_digest(set->digest) || coord_is_digest(set->name)) {
        cop_log(COP_LOG_WARN, "data",
                "ignoring data set \"%.60s\" of the store: its record is invalid", set->name);
    } else if (!coord_has_pack(d, set->digest) && !restore_pack(d, set->digest)) {
        cop_log(COP_LOG_WARN, "data", "ignoring data set \"%s\": %s/%s.pack does not exist",
                set->name, d->folder, set->digest);
    } else if (d->count == COORD_SETS_MAX) {
        cop_log(COP_LOG_WARN, "data", "ignoring data set \"%s\": there are already %d", set->name,
                COORD_SETS_MAX);
    } else {
        d->sets[d->count++] = *set;
    }
    return COP_OK;
}

/* Cuts the next word off the line and returns it. NULL: the line is empty. */
static char *next_word(char **line) {
    char *word = *line, *end = word + strcspn(word, " ");
    if (!*word) return NULL;
    *line = end + (*end == ' ');
    *end = '\0';
    return word;
}

/* Reads a line of the text index. False: the line is not valid. */
static bool read_line(char *line, coord_dataset *s) {
    uint32_t *const figures[] = {&s->train, &s->test,     &s->classes, &s->rank,
                                 s->shape,  s->shape + 1, s->shape + 2};
    *s = (coord_dataset){.bytes = 0};
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
    const int length = snprintf(s->name, sizeof s->name, "%s", line); /* may contain spaces */
    return length > 0 && (size_t)length < sizeof s->name && !coord_is_digest(s->name) &&
           s->rank <= 3;
}

/* Moves the names of the text index, if it exists, to the store. If this is interrupted, the next
 * start repeats it; names that were already moved are not added twice. */
static cop_err migrate_text_index(coord_datasets *d, cop_error *error) {
    char path[4096], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/index", d->folder);
    if (!cop_file_exists(path)) return COP_OK;
    COP_TRY(cop_file_read(path, 1 << 20, &text, &size, error));
    cop_err e = COP_OK;
    for (char *line = text; *line && !e;) {
        const size_t length = strcspn(line, "\n");
        const bool last = line[length] == '\0';
        coord_dataset set;
        line[length] = '\0';
        if (read_line(line, &set) && coord_has_pack(d, set.digest) && d->count < COORD_SETS_MAX)
            e = coord_add_set(d, &set, error);
        line += length + !last;
    }
    cop_free(text);
    return e ? e : cop_file_remove(path, error);
}

/* Gives a name to a pack that has none. A pack has no name if its row was lost, or if the program
 * died after it had written the pack and before it wrote the row. */
static void name_pack(coord_datasets *d, const char *digest) {
    cop_data *data = NULL;
    coord_dataset set;
    cop_error error = {0};
    char name[32];
    snprintf(name, sizeof name, "recovered-%.12s", digest);
    cop_err e = coord_load_pack(d, digest, name, &data, &error);
    if (!e) {
        coord_describe_set(data, name, &set);
        e = coord_add_set(d, &set, &error);
    }
    cop_data_destroy(data);
    if (e)
        cop_log(COP_LOG_WARN, "data", "%s/%s.pack has no name and cannot be used: %s", d->folder,
                digest, error.text);
    else
        cop_log(COP_LOG_WARN, "data",
                "the data set of digest %.16s... had no name: it is now called \"%s\"", digest,
                name);
}

/* Removes the file if it is a pack that an interrupted removal has renamed. Its rows are gone:
 * otherwise restore_pack would have renamed the pack back. */
static void finish_removal(const coord_datasets *d, const char *file) {
    char digest[65], removed[4096];
    cop_error error = {0};
    if (strlen(file) != 64 + strlen(COORD_REMOVED) || strcmp(file + 64, COORD_REMOVED) != 0) return;
    snprintf(digest, sizeof digest, "%.64s", file);
    if (!coord_is_digest(digest)) return;
    coord_removed_path(d, digest, removed);
    if (cop_file_remove(removed, &error)) cop_log(COP_LOG_WARN, "data", "%s", error.text);
}

static cop_err name_packs(coord_datasets *d, cop_error *error) {
    char **names = NULL;
    size_t count = 0;
    COP_TRY(cop_folder_list(d->folder, &names, &count, error));
    for (size_t i = 0; i < count; i++) {
        coord_dataset known;
        char *end = strrchr(names[i], '.');
        finish_removal(d, names[i]);
        if (!end || strcmp(end, ".pack") != 0) continue;
        *end = '\0';
        if (coord_is_digest(names[i]) && !coord_copy_set(d, names[i], &known))
            name_pack(d, names[i]);
    }
    cop_free(names);
    return COP_OK;
}

cop_err coord_read_index(coord_datasets *d, cop_error *error) {
    COP_TRY(coord_store_each_set(d->store, read_row, d, error));
    COP_TRY(migrate_text_index(d, error));
    return name_packs(d, error);
}
