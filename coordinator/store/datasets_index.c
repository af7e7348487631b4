/* The names of a coordinator's data sets: a table of the store, and the same in memory. A row
 * changes first, then the memory, which cannot fail: so both change or neither does. See
 * datasets_state.h.
 *
 * Versions before store version 4 kept the names in a text file, state/data/index, one line a set:
 * "DIGEST BYTES TRAIN TEST CLASSES RANK D0 D1 D2 NAME". It is taken over once, then removed. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

/* ---- the table in memory: under `table` ---- */

/* The newest of a name, or of a digest. */
static coord_dataset *find_set(const coord_datasets *d, const char *name_or_digest) {
    const bool digest = coord_is_digest(name_or_digest);
    for (size_t i = d->count; i-- > 0;)
        if (strcmp(digest ? d->sets[i].digest : d->sets[i].name, name_or_digest) == 0)
            return &d->sets[i];
    return NULL;
}

/* Of that name, or with "" all names of the digest. */
static void take_out(coord_datasets *d, const char *name, const char *digest) {
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
        if ((unsigned char)*p < 32 || *p == 127) *p = '_'; /* it is printed in lists */
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
    take_out(d, set->name, set->digest);
    d->sets[d->count++] = *set;
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

cop_err coord_forget_set(coord_datasets *d, const char *name, const char *digest,
                         cop_error *error) {
    COP_TRY(coord_store_remove_set(d->store, name, digest, error));
    uv_mutex_lock(&d->table);
    take_out(d, name, digest);
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

/* ---- use ---- */

/* The entry of a digest; NULL: no job uses it. Under `table`. */
static coord_use *find_use(const coord_datasets *d, const char *digest) {
    for (size_t i = 0; i < d->use_count; i++)
        if (strcmp(d->uses[i].digest, digest) == 0) return &d->uses[i];
    return NULL;
}

void coord_datasets_use(coord_datasets *d, const char *digest) {
    uv_mutex_lock(&d->table);
    coord_use *use = find_use(d, digest);
    if (!use) {
        COP_ASSERT(d->use_count < COORD_USES_MAX); /* there are not so many jobs */
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

/* A removal set the pack aside and was interrupted before the rows went: it is as if it had not
 * begun. */
static bool put_back_pack(const coord_datasets *d, const char *digest) {
    char path[4096], gone[4096];
    coord_pack_path(d, digest, path);
    coord_gone_path(d, digest, gone);
    return cop_file_exists(gone) && cop_file_rename(gone, path, NULL) == COP_OK;
}

/* One row. A set whose pack is gone keeps its row, and is left out. */
static cop_err read_row(void *context, const coord_dataset *set) {
    coord_datasets *d = context;
    if (!coord_is_digest(set->digest) || coord_is_digest(set->name)) {
        cop_log(COP_LOG_WARN, "data",
                "ignoring data set \"%.60s\" of the store: its record is invalid", set->name);
    } else if (!coord_has_pack(d, set->digest) && !put_back_pack(d, set->digest)) {
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
    const int length = snprintf(s->name, sizeof s->name, "%s", line); /* the rest, with spaces */
    return length > 0 && (size_t)length < sizeof s->name && !coord_is_digest(s->name) &&
           s->rank <= 3;
}

/* Again from the beginning if it is interrupted: what is there already stays. */
static cop_err take_over_text(coord_datasets *d, cop_error *error) {
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

/* A pack without a name: its row was lost, or a removal or a submission was interrupted. */
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

/* What of a removal is left: the rows have gone. */
static void finish_removal(const coord_datasets *d, const char *file) {
    char digest[65], gone[4096];
    cop_error error = {0};
    if (strlen(file) != 64 + strlen(COORD_GONE) || strcmp(file + 64, COORD_GONE) != 0) return;
    snprintf(digest, sizeof digest, "%.64s", file);
    if (!coord_is_digest(digest)) return;
    coord_gone_path(d, digest, gone);
    if (cop_file_remove(gone, &error)) cop_log(COP_LOG_WARN, "data", "%s", error.text);
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
    COP_TRY(take_over_text(d, error));
    return name_packs(d, error);
}
