/* Data sets of a coordinator. See datasets.h. The index is a text file, one line a set: "DIGEST
 * NAME"; an upload's folder holds the manifest (the chunks' hashes, 32 bytes each, after the pack's
 * size) and the chunks by number. */
#include "coordinator/datasets.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/str.h"

#define SETS_MAX   1024
#define CHUNKS_MAX 16384

typedef struct set_entry {
    char name[COP_NAME_MAX], digest[65];
} set_entry;

struct coord_datasets {
    uv_mutex_t mutex;
    char *folder, *data_folder; /* state/data; --data or NULL */
    uint64_t quota;
    set_entry *sets;
    size_t count;
};

/* ---- paths ---- */

static bool is_digest(const char *text) {
    unsigned char bytes[32];
    return text && cop_unhex32(text, bytes);
}

/* "FOLDER/a", "FOLDER/ab" ... into a caller's buffer; digests only. */
static void pack_path(const coord_datasets *d, const char *digest, char out[4096]) {
    snprintf(out, 4096, "%s/%s.pack", d->folder, digest);
}

static void upload_path(const coord_datasets *d, const char *digest, const char *file,
                        char out[4096]) {
    snprintf(out, 4096, "%s/upload/%s/%s", d->folder, digest, file);
}

static uint64_t file_size(const char *path) {
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_size;
}

/* ---- the index ---- */

static cop_err write_index(const coord_datasets *d, cop_error *error) {
    cop_str text = {0};
    char path[4096];
    for (size_t i = 0; i < d->count; i++)
        cop_str_printf(&text, "%s %s\n", d->sets[i].digest, d->sets[i].name);
    snprintf(path, sizeof path, "%s/index", d->folder);
    cop_err e = cop_file_write_text(path, cop_str_text(&text), error);
    cop_str_fini(&text);
    return e;
}

static void read_index(coord_datasets *d) {
    char path[4096], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/index", d->folder);
    if (cop_file_read(path, 1 << 20, &text, &size, NULL)) return;
    for (char *line = text; *line && d->count < SETS_MAX;) {
        size_t length = strcspn(line, "\n");
        set_entry *s = &d->sets[d->count];
        if (length > 65 && line[64] == ' ') {
            snprintf(s->digest, sizeof s->digest, "%.64s", line);
            snprintf(s->name, sizeof s->name, "%.*s", (int)(length - 65), line + 65);
            d->count += is_digest(s->digest);
        }
        line += length + (line[length] == '\n');
    }
    cop_free(text);
}

static set_entry *find_set(coord_datasets *d, const char *name_or_digest) {
    for (size_t i = d->count; i-- > 0;) /* the newest of a name */
        if (strcmp(d->sets[i].name, name_or_digest) == 0 ||
            strcmp(d->sets[i].digest, name_or_digest) == 0)
            return &d->sets[i];
    return NULL;
}

static cop_err add_set(coord_datasets *d, const char *name, const char *digest, cop_error *error) {
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->sets[i].name, name) == 0 && strcmp(d->sets[i].digest, digest) == 0)
            return COP_OK;
    if (d->count == SETS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "there are %d data sets already: remove some (coppice data rm)", SETS_MAX);
    set_entry *s = &d->sets[d->count++];
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->digest, sizeof s->digest, "%s", digest);
    for (char *p = s->name; *p; p++)
        if ((unsigned char)*p < 32) *p = '_';
    return write_index(d, error);
}

cop_err coord_datasets_open(const char *state_folder, const char *data_folder, uint64_t quota,
                            coord_datasets **out, cop_error *error) {
    coord_datasets *d = cop_alloc(sizeof *d);
    if (d) {
        d->folder = cop_path_join(state_folder, "data");
        d->sets = cop_alloc_array(SETS_MAX, sizeof *d->sets);
        d->data_folder = data_folder ? cop_strdup(data_folder) : NULL;
        uv_mutex_init(&d->mutex);
    }
    if (!d || !d->folder || !d->sets || (data_folder && !d->data_folder)) {
        if (d) coord_datasets_close(d);
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    }
    d->quota = quota;
    cop_err e = cop_folder_create(d->folder, error);
    if (!e && data_folder && !cop_folder_exists(data_folder))
        e = cop_fail(error, COP_ERR_NOT_FOUND, "--data: there is no folder %s", data_folder);
    if (e) {
        coord_datasets_close(d);
        return e;
    }
    read_index(d);
    *out = d;
    return COP_OK;
}

void coord_datasets_close(coord_datasets *d) {
    if (!d) return;
    uv_mutex_destroy(&d->mutex);
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

cop_err coord_datasets_load(coord_datasets *d, const char *name_or_digest, cop_data **out,
                            cop_error *error) {
    char name[COP_NAME_MAX] = "", digest[65] = "";
    uv_mutex_lock(&d->mutex);
    const set_entry *s = find_set(d, name_or_digest);
    if (s) {
        snprintf(name, sizeof name, "%s", s->name);
        snprintf(digest, sizeof digest, "%s", s->digest);
    }
    uv_mutex_unlock(&d->mutex);
    if (*digest) return load_pack(d, digest, name, out, error);
    cop_err e = load_offered(d, name_or_digest, out, error);
    if (e == COP_ERR_NOT_FOUND && strcmp(name_or_digest, "synthetic-digits") == 0)
        e = cop_data_open(name_or_digest, NULL, out, error);
    if (e == COP_ERR_NOT_FOUND)
        cop_fail(error, e,
                 "the coordinator has no data set \"%.100s\": upload it with `coppice submit "
                 "--data DIR`, or see `coppice data list --coordinator URL`",
                 name_or_digest);
    return e;
}

static uint64_t used_bytes(const coord_datasets *d) {
    uint64_t sum = 0;
    for (size_t i = 0; i < d->count; i++) {
        char path[4096];
        pack_path(d, d->sets[i].digest, path);
        sum += file_size(path);
    }
    return sum;
}

static cop_err check_quota(const coord_datasets *d, uint64_t more, cop_error *error) {
    char a[32], b[32], c[32];
    if (d->quota && used_bytes(d) + more > d->quota)
        return cop_fail(error, COP_ERR_LIMIT,
                        "the data set of %s is over the coordinator's quota of %s (%s are used): "
                        "remove others (coppice data rm)",
                        cop_format_bytes((double)more, a), cop_format_bytes((double)d->quota, b),
                        cop_format_bytes((double)used_bytes(d), c));
    if (cop_file_space(d->folder) < more + (64u << 20))
        return cop_fail(error, COP_ERR_NO_SPACE,
                        "the coordinator's disk has no room for a data set of %s",
                        cop_format_bytes((double)more, a));
    return COP_OK;
}

cop_err coord_datasets_keep(coord_datasets *d, const cop_data *data, cop_error *error) {
    char digest[65], path[4096];
    cop_hex32(data->digest, digest);
    pack_path(d, digest, path);
    uv_mutex_lock(&d->mutex);
    cop_err e = COP_OK;
    if (!cop_file_exists(path)) {
        e = check_quota(d, data->pack->size, error);
        if (!e) e = cop_data_save_pack(data, path, error);
    }
    if (!e) e = add_set(d, data->name, digest, error);
    uv_mutex_unlock(&d->mutex);
    return e;
}

/* ---- uploads ---- */

static cop_err check_offer(const Coppice__Api__OfferDataRequest *o, cop_error *error) {
    uint64_t chunks = (o->bytes + COP_CHUNK_SIZE - 1) / COP_CHUNK_SIZE;
    if (!is_digest(o->digest))
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits");
    if (!o->name || !*o->name || strlen(o->name) >= COP_NAME_MAX)
        return cop_fail(error, COP_ERR_INPUT, "a data set's name has 1 to %d characters",
                        COP_NAME_MAX - 1);
    if (chunks < 1 || chunks > CHUNKS_MAX || o->n_chunks != chunks)
        return cop_fail(
            error, COP_ERR_INPUT, "%llu bytes are %llu chunks, at most %d: %zu were named",
            (unsigned long long)o->bytes, (unsigned long long)chunks, CHUNKS_MAX, o->n_chunks);
    for (size_t i = 0; i < o->n_chunks; i++)
        if (o->chunks[i].len != 32)
            return cop_fail(error, COP_ERR_INPUT, "a chunk is named by 32 bytes");
    return COP_OK;
}

static cop_err write_manifest(const coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                              cop_error *error) {
    char folder[4096], path[4096];
    cop_str text = {0};
    upload_path(d, o->digest, "", folder);
    COP_TRY(cop_folder_create(folder, error));
    cop_str_append_bytes(&text, &o->bytes, 8);
    for (size_t i = 0; i < o->n_chunks; i++) cop_str_append_bytes(&text, o->chunks[i].data, 32);
    cop_str_append(&text, o->name);
    upload_path(d, o->digest, "manifest", path);
    cop_file_part part = {text.text, text.length};
    cop_err e = text.failed ? cop_fail(error, COP_ERR_NO_MEMORY, "out of memory")
                            : cop_file_write(path, &part, 1, 0600, error);
    cop_str_fini(&text);
    return e;
}

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
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits");
    upload_path(d, digest, "manifest", path);
    if (cop_file_read(path, 1 << 20, &m->bytes, &size, error))
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

static void chunk_path(const coord_datasets *d, const char *digest, uint32_t index,
                       char out[4096]) {
    char file[16];
    snprintf(file, sizeof file, "%05u", index);
    upload_path(d, digest, file, out);
}

cop_err coord_datasets_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             bool *complete, uint32_t **missing, size_t *count, cop_error *error) {
    char path[4096];
    COP_TRY(check_offer(o, error));
    uv_mutex_lock(&d->mutex);
    pack_path(d, o->digest, path);
    *complete = cop_file_exists(path);
    *missing = NULL;
    *count = 0;
    cop_err e = COP_OK;
    if (*complete) {
        e = add_set(d, o->name, o->digest, error);
    } else {
        e = check_quota(d, o->bytes, error);
        if (!e) e = write_manifest(d, o, error);
        if (!e && !(*missing = cop_alloc_array(o->n_chunks, sizeof **missing)))
            e = cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        for (uint32_t i = 0; !e && i < o->n_chunks; i++) {
            chunk_path(d, o->digest, i, path);
            if (!cop_file_exists(path)) (*missing)[(*count)++] = i;
        }
    }
    uv_mutex_unlock(&d->mutex);
    return e;
}

cop_err coord_datasets_put(coord_datasets *d, const char *digest, uint32_t index,
                           const cop_buffer *bytes, cop_error *error) {
    manifest m;
    unsigned char hash[32];
    char path[4096];
    COP_TRY(read_manifest(d, digest, &m, error));
    cop_err e = COP_OK;
    if (!bytes || index >= m.chunks)
        e = cop_fail(error, COP_ERR_INPUT, "there is no chunk %u", index);
    if (!e) {
        cop_sha256_of(bytes->data, bytes->size, hash);
        if (memcmp(hash, m.hashes + 32 * (size_t)index, 32) != 0)
            e = cop_fail(error, COP_ERR_CORRUPT, "chunk %u was damaged on its way", index);
    }
    cop_file_part part = {bytes ? bytes->data : NULL, bytes ? bytes->size : 0};
    chunk_path(d, digest, index, path);
    if (!e) e = cop_file_write(path, &part, 1, 0600, error);
    cop_free(m.bytes);
    return e;
}

static cop_err assemble(coord_datasets *d, const char *digest, const manifest *m,
                        cop_error *error) {
    cop_buffer *pack = cop_buffer_create(m->size);
    unsigned char hash[32];
    char path[4096], found[65];
    if (!pack) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the data set");
    cop_err e = COP_OK;
    for (uint32_t i = 0; i < m->chunks && !e; i++) {
        char *bytes;
        size_t size, begin = (size_t)i * COP_CHUNK_SIZE,
                     expected = m->size - begin < COP_CHUNK_SIZE ? m->size - begin : COP_CHUNK_SIZE;
        chunk_path(d, digest, i, path);
        if (cop_file_read(path, COP_CHUNK_SIZE, &bytes, &size, error)) {
            e = cop_fail(error, COP_ERR_INPUT, "chunk %u of %u is missing", i, m->chunks);
            break;
        }
        if (size != expected)
            e = cop_fail(error, COP_ERR_CORRUPT, "chunk %u has %zu bytes: expected %zu", i, size,
                         expected);
        else
            memcpy((char *)pack->data + begin, bytes, size);
        cop_free(bytes);
    }
    cop_data *data = NULL;
    if (!e) {
        cop_sha256_of(pack->data, pack->size, hash);
        cop_hex32(hash, found);
        if (strcmp(found, digest) != 0)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "the uploaded data set has the digest %.16s..., not %.16s...", found,
                         digest);
    }
    if (!e) e = cop_data_from_pack(pack, m->name, &data, error);
    pack_path(d, digest, path);
    if (!e) e = cop_data_save_pack(data, path, error);
    if (data) cop_data_destroy(data);
    cop_buffer_release(pack);
    return e;
}

cop_err coord_datasets_commit(coord_datasets *d, const char *digest, cop_error *error) {
    manifest m;
    char path[4096];
    COP_TRY(read_manifest(d, digest, &m, error));
    cop_err e = assemble(d, digest, &m, error);
    uv_mutex_lock(&d->mutex);
    if (!e) e = add_set(d, m.name, digest, error);
    uv_mutex_unlock(&d->mutex);
    if (!e || e == COP_ERR_CORRUPT) { /* done, or worthless */
        upload_path(d, digest, "", path);
        path[strlen(path) - 1] = '\0';
        cop_folder_remove(path, NULL);
    }
    cop_free(m.bytes);
    return e;
}

/* ---- removing and listing ---- */

cop_err coord_datasets_remove(coord_datasets *d, const char *name_or_digest, char removed[65],
                              cop_error *error) {
    uv_mutex_lock(&d->mutex);
    set_entry *s = find_set(d, name_or_digest);
    cop_err e = COP_OK;
    if (!s)
        e = cop_fail(error, COP_ERR_NOT_FOUND,
                     "there is no data set \"%.100s\" (coppice data list)", name_or_digest);
    if (!e) {
        char path[4096];
        snprintf(removed, 65, "%s", s->digest);
        pack_path(d, removed, path);
        size_t kept = 0;
        for (size_t i = 0; i < d->count; i++)
            if (strcmp(d->sets[i].digest, removed) != 0) d->sets[kept++] = d->sets[i];
        d->count = kept;
        e = write_index(d, error);
        if (!e) e = cop_file_remove(path, error);
    }
    uv_mutex_unlock(&d->mutex);
    return e;
}

void coord_datasets_each(coord_datasets *d,
                         void (*visit)(void *, const char *, const char *, uint64_t),
                         void *context) {
    uv_mutex_lock(&d->mutex);
    for (size_t i = 0; i < d->count; i++) {
        char path[4096];
        pack_path(d, d->sets[i].digest, path);
        visit(context, d->sets[i].name, d->sets[i].digest, file_size(path));
    }
    uv_mutex_unlock(&d->mutex);
}
