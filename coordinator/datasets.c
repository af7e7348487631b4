/* Data sets of a coordinator. See datasets.h. The index is a text file, one line a set: "DIGEST
 * BYTES TRAIN TEST CLASSES RANK D0 D1 D2 NAME"; an upload's folder holds the manifest (the pack's
 * size, the chunks' hashes of 32 bytes, the name) and the chunks by number.
 *
 * Two locks: `files` is held while files change and may be held for long; `table` guards the table
 * of sets, is taken within it, and never while anything is read or written. */
#include "coordinator/datasets.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/str.h"

#define SETS_MAX      1024
#define CHUNKS_MAX    16384
#define UPLOADS_MAX   64
#define UPLOAD_KEPT_S (7 * 24 * 3600)
#define SPARE_BYTES   (64u << 20) /* of the disk, for everything else */
#define BUILT_IN      "synthetic-digits"

struct coord_datasets {
    uv_mutex_t files, table;
    char *folder, *data_folder; /* state/data; --data or NULL */
    uint64_t quota;
    coord_dataset *sets; /* SETS_MAX, oldest first */
    size_t count;
};

/* ---- paths ---- */

static bool is_digest(const char *text) {
    unsigned char bytes[32];
    if (!text || !cop_unhex32(text, bytes)) return false;
    for (const char *p = text; *p; p++)
        if (*p >= 'A' && *p <= 'F') return false; /* one spelling, one file */
    return true;
}

static void pack_path(const coord_datasets *d, const char *digest, char out[4096]) {
    COP_ASSERT(is_digest(digest));
    snprintf(out, 4096, "%s/%s.pack", d->folder, digest);
}

static void upload_path(const coord_datasets *d, const char *digest, const char *file,
                        char out[4096]) {
    COP_ASSERT(is_digest(digest));
    snprintf(out, 4096, "%s/upload/%s%s%s", d->folder, digest, *file ? "/" : "", file);
}

static bool has_pack(const coord_datasets *d, const char *digest) {
    char path[4096];
    pack_path(d, digest, path);
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
    if (!is_digest(word)) return false;
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
    for (char *line = text; *line && d->count < SETS_MAX;) {
        size_t length = strcspn(line, "\n");
        bool last = line[length] == '\0';
        coord_dataset *s = &d->sets[d->count];
        line[length] = '\0';
        *s = (coord_dataset){0};
        d->count += read_line(line, s) && has_pack(d, s->digest);
        line += length + !last;
    }
    cop_free(text);
    return COP_OK;
}

/* Under `table`. The newest of a name. */
static coord_dataset *find_set(const coord_datasets *d, const char *name_or_digest) {
    bool digest = is_digest(name_or_digest);
    for (size_t i = d->count; i-- > 0;)
        if (strcmp(digest ? d->sets[i].digest : d->sets[i].name, name_or_digest) == 0)
            return &d->sets[i];
    return NULL;
}

static bool copy_set(coord_datasets *d, const char *name_or_digest, coord_dataset *out) {
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
static cop_err add_set(coord_datasets *d, const coord_dataset *set, cop_error *error) {
    uv_mutex_lock(&d->table);
    bool known = false, full = d->count == SETS_MAX;
    for (size_t i = 0; i < d->count && !known; i++)
        known =
            strcmp(d->sets[i].name, set->name) == 0 && strcmp(d->sets[i].digest, set->digest) == 0;
    if (!known && !full) d->sets[d->count++] = *set;
    uv_mutex_unlock(&d->table);
    if (known) return COP_OK;
    if (full)
        return cop_fail(error, COP_ERR_LIMIT,
                        "there are %d data sets already: remove some (coppice data rm)", SETS_MAX);
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

/* An upload whose manifest was not written for a week (each offer writes it) is given up. */
static void drop_old_uploads(const coord_datasets *d) {
    char path[4096], **names = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/upload", d->folder);
    if (cop_folder_list(path, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        struct stat info;
        if (!is_digest(names[i])) continue;
        upload_path(d, names[i], "manifest", path);
        if (stat(path, &info) == 0 && cop_clock_unix_ms() / 1000 - info.st_mtime < UPLOAD_KEPT_S)
            continue;
        upload_path(d, names[i], "", path);
        cop_folder_remove(path, NULL);
    }
    cop_free(names);
}

cop_err coord_datasets_open(const char *state_folder, const char *data_folder, uint64_t quota,
                            coord_datasets **out, cop_error *error) {
    coord_datasets *d = cop_alloc(sizeof *d);
    if (!d) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    d->folder = cop_path_join(state_folder, "data");
    d->sets = cop_alloc_array(SETS_MAX, sizeof *d->sets);
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
    drop_old_uploads(d);
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

static cop_err load_pack(coord_datasets *d, const char *digest, const char *name, cop_data **out,
                         cop_error *error) {
    char path[4096], found[65];
    pack_path(d, digest, path);
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

/* A set of --data: the folder itself for "mnist", or its subfolder of that name. Names with a slash
 * or a dot in front are no names. */
static cop_err load_offered(coord_datasets *d, const char *name, cop_data **out, cop_error *error) {
    if (!d->data_folder || !*name || strchr(name, '/') || name[0] == '.') return COP_ERR_NOT_FOUND;
    cop_err e = COP_ERR_NOT_FOUND;
    if (strcmp(name, "mnist") == 0) e = cop_data_load_mnist(d->data_folder, out, error);
    char *path = e == COP_ERR_NOT_FOUND ? cop_path_join(d->data_folder, name) : NULL;
    if (path && cop_folder_exists(path)) e = cop_data_load_mnist(path, out, error);
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
    bool known = copy_set(d, name_or_digest, &set);
    *out = NULL;
    if (is_digest(name_or_digest)) { /* by content: only ever that */
        if (has_pack(d, name_or_digest))
            return load_pack(d, name_or_digest, known ? set.name : name_or_digest, out, error);
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator has no data set of digest %.16s...: upload it with "
                        "`coppice submit --data DIR`",
                        name_or_digest);
    }
    bool built_in = strcmp(name_or_digest, BUILT_IN) == 0;
    cop_err e = built_in ? COP_ERR_NOT_FOUND : load_offered(d, name_or_digest, out, error);
    if (e != COP_ERR_NOT_FOUND) return e;
    if (known) return load_pack(d, set.digest, set.name, out, error);
    if (built_in) return cop_data_open(BUILT_IN, NULL, out, error);
    return fail_unknown(d, name_or_digest, error);
}

/* ---- quota ---- */

typedef struct manifest {
    char *bytes;
    uint64_t size;
    uint32_t chunks;
    const unsigned char *hashes;
    char name[COP_NAME_MAX];
} manifest;

static cop_err read_manifest(const coord_datasets *d, const char *digest, manifest *m,
                             cop_error *error) {
    char path[4096];
    size_t size;
    *m = (manifest){0};
    if (!is_digest(digest))
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits (0-9, a-f)");
    upload_path(d, digest, "manifest", path);
    if (cop_file_read(path, 1 << 20, &m->bytes, &size, NULL))
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "no upload of %.16s... is under way: offer the data set first", digest);
    m->size = size >= 8 ? cop_load_u64(m->bytes) : 0;
    m->chunks = (uint32_t)((m->size + COP_CHUNK_SIZE - 1) / COP_CHUNK_SIZE);
    if (!m->chunks || m->chunks > CHUNKS_MAX || size < 8 + 32 * (size_t)m->chunks) {
        cop_free(m->bytes);
        return cop_fail(error, COP_ERR_CORRUPT, "the upload of %.16s... is damaged: offer it again",
                        digest);
    }
    m->hashes = (const unsigned char *)m->bytes + 8;
    snprintf(m->name, sizeof m->name, "%.*s", (int)(size - 8 - 32 * (size_t)m->chunks),
             m->bytes + 8 + 32 * (size_t)m->chunks);
    return COP_OK;
}

/* Bytes promised to uploads under way, but for that of `except`; *count of them. */
static uint64_t uploading_bytes(const coord_datasets *d, const char *except, size_t *count) {
    char path[4096], **names = NULL;
    size_t folders = 0;
    uint64_t sum = 0;
    *count = 0;
    snprintf(path, sizeof path, "%s/upload", d->folder);
    if (cop_folder_list(path, &names, &folders, NULL)) return 0;
    for (size_t i = 0; i < folders; i++) {
        manifest m;
        if (!is_digest(names[i]) || strcmp(names[i], except) == 0) continue;
        if (read_manifest(d, names[i], &m, NULL)) continue;
        sum += m.size;
        (*count)++;
        cop_free(m.bytes);
    }
    cop_free(names);
    return sum;
}

/* Of all packs; one that has several names counts once. */
static uint64_t stored_bytes(coord_datasets *d) {
    uint64_t sum = 0;
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        bool again = false;
        for (size_t k = 0; k < i && !again; k++)
            again = strcmp(d->sets[k].digest, d->sets[i].digest) == 0;
        if (!again) sum += d->sets[i].bytes;
    }
    uv_mutex_unlock(&d->table);
    return sum;
}

/* Under `files`. Room for `more` bytes of the set `digest`? */
static cop_err check_quota(coord_datasets *d, const char *digest, uint64_t more, cop_error *error) {
    char a[32], b[32], c[32];
    size_t uploads;
    uint64_t used = uploading_bytes(d, digest, &uploads) + stored_bytes(d);
    if (uploads >= UPLOADS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "%d uploads are under way already: wait until one is done", UPLOADS_MAX);
    if (d->quota && (used > d->quota || more > d->quota - used))
        return cop_fail(error, COP_ERR_LIMIT,
                        "the data set of %s is over the coordinator's quota of %s (%s are used): "
                        "remove others (coppice data rm)",
                        cop_format_bytes((double)more, a), cop_format_bytes((double)d->quota, b),
                        cop_format_bytes((double)used, c));
    uint64_t space = cop_file_space(d->folder);
    if (space < SPARE_BYTES || more > space - SPARE_BYTES)
        return cop_fail(error, COP_ERR_NO_SPACE,
                        "the coordinator's disk has no room for a data set of %s",
                        cop_format_bytes((double)more, a));
    return COP_OK;
}

/* Under `files`. */
static cop_err store_set(coord_datasets *d, const cop_data *data, cop_error *error) {
    coord_dataset set;
    char path[4096];
    describe(data, &set);
    if (!has_pack(d, set.digest)) {
        COP_TRY(check_quota(d, set.digest, set.bytes, error));
        pack_path(d, set.digest, path);
        COP_TRY(cop_data_save_pack(data, path, error));
    }
    return add_set(d, &set, error);
}

cop_err coord_datasets_keep(coord_datasets *d, const cop_data *data, cop_error *error) {
    char digest[65];
    cop_hex32(data->digest, digest);
    uv_mutex_lock(&d->files);
    cop_err e = store_set(d, data, error);
    if (!e) coord_datasets_use(d, digest);
    uv_mutex_unlock(&d->files);
    return e;
}

/* ---- uploads ---- */

static cop_err check_offer(const Coppice__Api__OfferDataRequest *o, cop_error *error) {
    uint64_t chunks = o->bytes / COP_CHUNK_SIZE + (o->bytes % COP_CHUNK_SIZE != 0);
    if (!is_digest(o->digest))
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits (0-9, a-f)");
    if (!o->name || !*o->name || strlen(o->name) >= COP_NAME_MAX)
        return cop_fail(error, COP_ERR_INPUT, "a data set's name has 1 to %d characters",
                        COP_NAME_MAX - 1);
    if (is_digest(o->name))
        return cop_fail(error, COP_ERR_INPUT,
                        "a data set's name must not look like a digest: it is %.16s...", o->name);
    if (chunks < 1 || chunks > CHUNKS_MAX || o->n_chunks != chunks)
        return cop_fail(error, COP_ERR_INPUT,
                        "%llu bytes are %llu chunks: expected 1 to %d, and as many hashes as "
                        "chunks (%zu were named)",
                        (unsigned long long)o->bytes, (unsigned long long)chunks, CHUNKS_MAX,
                        o->n_chunks);
    for (size_t i = 0; i < o->n_chunks; i++)
        if (o->chunks[i].len != 32)
            return cop_fail(error, COP_ERR_INPUT, "chunk %zu is named by %zu bytes: expected 32", i,
                            o->chunks[i].len);
    return COP_OK;
}

/* Under `files`. Nobody gives a built-in name to something else: the set is made here, and the
 * content decides. */
static cop_err check_built_in(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                              cop_error *error) {
    char digest[65];
    cop_data *data = NULL;
    if (strcmp(o->name, BUILT_IN) != 0) return COP_OK;
    COP_TRY(cop_data_open(BUILT_IN, NULL, &data, error));
    cop_hex32(data->digest, digest);
    cop_err e = strcmp(digest, o->digest) == 0
                    ? store_set(d, data, error)
                    : cop_fail(error, COP_ERR_INPUT,
                               "\"%s\" is a built-in data set of other content (%.16s...): give "
                               "yours another name",
                               BUILT_IN, digest);
    cop_data_destroy(data);
    return e;
}

static cop_err write_manifest(const coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                              cop_error *error) {
    char path[4096], size[8];
    cop_str text = {0};
    upload_path(d, o->digest, "", path);
    COP_TRY(cop_folder_create(path, error));
    cop_store_u64(size, o->bytes);
    cop_str_append_bytes(&text, size, 8);
    for (size_t i = 0; i < o->n_chunks; i++) cop_str_append_bytes(&text, o->chunks[i].data, 32);
    cop_str_append(&text, o->name);
    upload_path(d, o->digest, "manifest", path);
    cop_file_part part = {text.text, text.length};
    cop_err e = text.failed ? cop_fail(error, COP_ERR_NO_MEMORY, "out of memory")
                            : cop_file_write(path, &part, 1, 0600, error);
    cop_str_fini(&text);
    return e;
}

static void chunk_path(const coord_datasets *d, const char *digest, uint32_t index,
                       char out[4096]) {
    char file[16];
    snprintf(file, sizeof file, "%05u", index);
    upload_path(d, digest, file, out);
}

static void drop_upload(const coord_datasets *d, const char *digest) {
    char path[4096];
    upload_path(d, digest, "", path);
    cop_folder_remove(path, NULL);
}

/* The indices of chunks that are not there; `missing` may be NULL. */
static size_t find_missing(const coord_datasets *d, const char *digest, size_t chunks,
                           uint32_t *missing) {
    char path[4096];
    size_t count = 0;
    for (uint32_t i = 0; i < chunks; i++) {
        chunk_path(d, digest, i, path);
        if (cop_file_exists(path)) continue;
        if (missing) missing[count] = i;
        count++;
    }
    return count;
}

/* Do the chunks that are there belong to this offer? Another cut of the same set begins anew. */
static void forget_other_cut(const coord_datasets *d, const Coppice__Api__OfferDataRequest *o) {
    manifest m;
    if (read_manifest(d, o->digest, &m, NULL)) return;
    bool same = m.size == o->bytes;
    for (size_t i = 0; i < o->n_chunks && same; i++)
        same = memcmp(m.hashes + 32 * i, o->chunks[i].data, 32) == 0;
    cop_free(m.bytes);
    if (!same) drop_upload(d, o->digest);
}

/* Under `files`. The set is there: it gets the offered name, too. */
static cop_err name_again(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          cop_error *error) {
    cop_data *data = NULL;
    coord_dataset set;
    if (copy_set(d, o->digest, &set)) {
        snprintf(set.name, sizeof set.name, "%s", o->name);
        for (char *p = set.name; *p; p++)
            if ((unsigned char)*p < 32) *p = '_';
        set.jobs = 0;
        return add_set(d, &set, error);
    }
    COP_TRY(load_pack(d, o->digest, o->name, &data, error)); /* a pack that the index lost */
    cop_err e = store_set(d, data, error);
    cop_data_destroy(data);
    return e;
}

/* Under `files`. */
static cop_err take_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          bool *complete, uint32_t **missing, size_t *count, cop_error *error) {
    COP_TRY(check_built_in(d, o, error));
    *complete = has_pack(d, o->digest);
    if (*complete) return name_again(d, o, error);
    COP_TRY(check_quota(d, o->digest, o->bytes, error));
    forget_other_cut(d, o);
    COP_TRY(write_manifest(d, o, error));
    *missing = cop_alloc_array(o->n_chunks, sizeof **missing);
    if (!*missing) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    *count = find_missing(d, o->digest, o->n_chunks, *missing);
    return COP_OK;
}

cop_err coord_datasets_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             bool *complete, uint32_t **missing, size_t *count, cop_error *error) {
    *missing = NULL;
    *count = 0;
    *complete = false;
    COP_TRY(check_offer(o, error));
    uv_mutex_lock(&d->files);
    cop_err e = take_offer(d, o, complete, missing, count, error);
    uv_mutex_unlock(&d->files);
    return e;
}

cop_err coord_datasets_put(coord_datasets *d, const char *digest, uint32_t index,
                           const cop_buffer *bytes, uint32_t *missing, cop_error *error) {
    manifest m;
    unsigned char hash[32];
    char path[4096];
    COP_TRY(read_manifest(d, digest, &m, error));
    cop_err e = COP_OK;
    if (index >= m.chunks)
        e = cop_fail(error, COP_ERR_INPUT, "there is no chunk %u: expected 0 to %u", index,
                     m.chunks - 1);
    else if (!bytes)
        e = cop_fail(error, COP_ERR_INPUT, "chunk %u came without its bytes", index);
    if (!e) {
        cop_sha256_of(bytes->data, bytes->size, hash);
        if (memcmp(hash, m.hashes + 32 * (size_t)index, 32) != 0)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "chunk %u was damaged on its way: its SHA-256 is not the one offered",
                         index);
    }
    if (!e) {
        cop_file_part part = {bytes->data, bytes->size};
        chunk_path(d, digest, index, path);
        e = cop_file_write(path, &part, 1, 0600, error);
    }
    if (!e) *missing = (uint32_t)find_missing(d, digest, m.chunks, NULL);
    cop_free(m.bytes);
    return e;
}

static cop_err read_chunk(const coord_datasets *d, const char *digest, const manifest *m,
                          uint32_t index, char *to, cop_error *error) {
    char path[4096], *bytes;
    size_t size, begin = (size_t)index * COP_CHUNK_SIZE,
                 expected = m->size - begin < COP_CHUNK_SIZE ? m->size - begin : COP_CHUNK_SIZE;
    chunk_path(d, digest, index, path);
    COP_TRY(cop_file_read(path, COP_CHUNK_SIZE, &bytes, &size, error));
    cop_err e = size == expected
                    ? COP_OK
                    : cop_fail(error, COP_ERR_CORRUPT, "chunk %u has %zu bytes: expected %zu",
                               index, size, expected);
    if (!e) memcpy(to + begin, bytes, size);
    cop_free(bytes);
    return e;
}

/* The whole set from its chunks, checked; the caller owns it. */
static cop_err assemble(const coord_datasets *d, const char *digest, const manifest *m,
                        cop_data **out, cop_error *error) {
    unsigned char hash[32];
    char found[65];
    size_t missing = find_missing(d, digest, m->chunks, NULL);
    if (missing)
        return cop_fail(error, COP_ERR_INPUT,
                        "%zu of %u chunks are missing: offer the data set again to learn which",
                        missing, m->chunks);
    cop_buffer *pack = cop_buffer_create(m->size);
    if (!pack) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the data set");
    cop_err e = COP_OK;
    for (uint32_t i = 0; i < m->chunks && !e; i++)
        e = read_chunk(d, digest, m, i, pack->data, error);
    if (!e) {
        cop_sha256_of(pack->data, pack->size, hash);
        cop_hex32(hash, found);
        if (strcmp(found, digest) != 0)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "the uploaded data set has the digest %.16s..., not %.16s...: upload it "
                         "again",
                         found, digest);
    }
    if (!e) e = cop_data_from_pack(pack, m->name, out, error);
    cop_buffer_release(pack);
    return e;
}

/* Under `files`. */
static cop_err finish_upload(coord_datasets *d, const char *digest, cop_error *error) {
    manifest m;
    cop_data *data = NULL;
    if (is_digest(digest) && has_pack(d, digest)) { /* done before: the answer was lost */
        drop_upload(d, digest);
        return COP_OK;
    }
    COP_TRY(read_manifest(d, digest, &m, error));
    cop_err e = assemble(d, digest, &m, &data, error);
    if (!e) e = store_set(d, data, error);
    if (!e || e == COP_ERR_CORRUPT) drop_upload(d, digest); /* done, or worthless */
    if (data) cop_data_destroy(data);
    cop_free(m.bytes);
    return e;
}

cop_err coord_datasets_commit(coord_datasets *d, const char *digest, coord_dataset *out,
                              cop_error *error) {
    *out = (coord_dataset){0};
    uv_mutex_lock(&d->files);
    cop_err e = finish_upload(d, digest, error);
    if (!e) copy_set(d, digest, out);
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
    if (!copy_set(d, name_or_digest, removed))
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "the coordinator keeps no data set \"%.100s\" (coppice data list "
                        "--coordinator URL)",
                        name_or_digest);
    uint32_t users = take_out(d, removed->digest);
    if (users)
        return cop_fail(error, COP_ERR_BUSY,
                        "data set \"%s\" is in use by %u unfinished job%s: wait, or cancel %s",
                        removed->name, users, users == 1 ? "" : "s", users == 1 ? "it" : "them");
    COP_TRY(write_index(d, error));
    pack_path(d, removed->digest, path);
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
    set_list l = {.capacity = 2 * SETS_MAX};
    l.sets = cop_alloc_array(l.capacity, sizeof *l.sets);
    if (!l.sets) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        l.sets[l.count] = d->sets[i];
        l.sets[l.count++].jobs = users_of(d, d->sets[i].digest);
    }
    uv_mutex_unlock(&d->table);
    if (d->data_folder) offer_folder(d->data_folder, &l);
    offer_name(&l, BUILT_IN);
    *out = l.sets;
    *count = l.count;
    return COP_OK;
}
