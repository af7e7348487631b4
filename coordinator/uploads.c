/* Uploads of data sets, and the room they may take. See datasets.h. An upload's folder holds the
 * manifest (the pack's size, the chunks' hashes of 32 bytes, the name) and the chunks by number. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "coordinator/datasets_state.h"

#define CHUNKS_MAX    16384
#define UPLOADS_MAX   64
#define UPLOAD_KEPT_S (7 * 24 * 3600)
#define SPARE_BYTES   (64u << 20) /* of the disk, for everything else */

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
    if (!coord_is_digest(digest))
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits (0-9, a-f)");
    coord_upload_path(d, digest, "manifest", path);
    const cop_err e = cop_file_read(path, 1 << 20, &m->bytes, &size, error);
    if (e == COP_ERR_NOT_FOUND)
        return cop_fail(error, e, "no upload of %.16s... is under way: offer the data set first",
                        digest);
    if (e) return e;
    m->size = size >= 8 ? cop_load_u64(m->bytes) : 0;
    const bool fits = m->size >= 1 && m->size <= (uint64_t)CHUNKS_MAX * COP_CHUNK_SIZE;
    m->chunks = fits ? (uint32_t)((m->size + COP_CHUNK_SIZE - 1) / COP_CHUNK_SIZE) : 0;
    if (!fits || size < 8 + 32 * (size_t)m->chunks) {
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
        if (!coord_is_digest(names[i]) || strcmp(names[i], except) == 0) continue;
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
cop_err coord_check_quota(coord_datasets *d, const char *digest, uint64_t more, cop_error *error) {
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

/* ---- uploads ---- */

static cop_err check_offer(const Coppice__Api__OfferDataRequest *o, cop_error *error) {
    uint64_t chunks = o->bytes / COP_CHUNK_SIZE + (o->bytes % COP_CHUNK_SIZE != 0);
    if (!coord_is_digest(o->digest))
        return cop_fail(error, COP_ERR_INPUT, "a data set is named by 64 hex digits (0-9, a-f)");
    if (!o->name || !*o->name || strlen(o->name) >= COP_NAME_MAX)
        return cop_fail(error, COP_ERR_INPUT, "a data set's name has 1 to %d characters",
                        COP_NAME_MAX - 1);
    if (coord_is_digest(o->name))
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
    if (strcmp(o->name, COORD_BUILT_IN) != 0) return COP_OK;
    COP_TRY(cop_data_open(COORD_BUILT_IN, NULL, &data, error));
    cop_hex32(data->digest, digest);
    cop_err e = strcmp(digest, o->digest) == 0
                    ? coord_store_set(d, data, error)
                    : cop_fail(error, COP_ERR_INPUT,
                               "\"%s\" is a built-in data set of other content (%.16s...): give "
                               "yours another name",
                               COORD_BUILT_IN, digest);
    cop_data_destroy(data);
    return e;
}

static cop_err write_manifest(const coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                              cop_error *error) {
    char path[4096], size[8];
    cop_str text = {0};
    coord_upload_path(d, o->digest, "", path);
    COP_TRY(cop_folder_create(path, error));
    cop_store_u64(size, o->bytes);
    cop_str_append_bytes(&text, size, 8);
    for (size_t i = 0; i < o->n_chunks; i++) cop_str_append_bytes(&text, o->chunks[i].data, 32);
    cop_str_append(&text, o->name);
    coord_upload_path(d, o->digest, "manifest", path);
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
    coord_upload_path(d, digest, file, out);
}

static void drop_upload(const coord_datasets *d, const char *digest) {
    char path[4096];
    coord_upload_path(d, digest, "", path);
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
static cop_err forget_other_cut(const coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                                cop_error *error) {
    manifest m;
    const cop_err e = read_manifest(d, o->digest, &m, error);
    if (e == COP_ERR_NOT_FOUND) return COP_OK;
    if (e && e != COP_ERR_CORRUPT) return e;
    bool same = !e && m.size == o->bytes;
    for (size_t i = 0; i < o->n_chunks && same; i++)
        same = memcmp(m.hashes + 32 * i, o->chunks[i].data, 32) == 0;
    if (!e) cop_free(m.bytes);
    if (!same) drop_upload(d, o->digest);
    return COP_OK;
}

/* Under `files`. The set is there: it gets the offered name, too. */
static cop_err name_again(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          cop_error *error) {
    cop_data *data = NULL;
    coord_dataset set;
    if (coord_copy_set(d, o->digest, &set)) {
        snprintf(set.name, sizeof set.name, "%s", o->name);
        for (char *p = set.name; *p; p++)
            if ((unsigned char)*p < 32) *p = '_';
        set.jobs = 0;
        return coord_add_set(d, &set, error);
    }
    COP_TRY(coord_load_pack(d, o->digest, o->name, &data, error)); /* a pack that the index lost */
    cop_err e = coord_store_set(d, data, error);
    cop_data_destroy(data);
    return e;
}

/* Under `files`. */
static cop_err take_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          bool *complete, uint32_t **missing, size_t *count, cop_error *error) {
    COP_TRY(check_built_in(d, o, error));
    *complete = coord_has_pack(d, o->digest);
    if (*complete) return name_again(d, o, error);
    COP_TRY(coord_check_quota(d, o->digest, o->bytes, error));
    COP_TRY(forget_other_cut(d, o, error));
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
    if (coord_is_digest(digest) &&
        coord_has_pack(d, digest)) { /* done before: the answer was lost */
        drop_upload(d, digest);
        return COP_OK;
    }
    COP_TRY(read_manifest(d, digest, &m, error));
    cop_err e = assemble(d, digest, &m, &data, error);
    if (!e) e = coord_store_set(d, data, error);
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
    if (!e) coord_copy_set(d, digest, out);
    uv_mutex_unlock(&d->files);
    return e;
}

void coord_drop_old_uploads(const coord_datasets *d) {
    char path[4096], **names = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/upload", d->folder);
    if (cop_folder_list(path, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        struct stat info;
        if (!coord_is_digest(names[i])) continue;
        coord_upload_path(d, names[i], "manifest", path);
        if (stat(path, &info) == 0 && cop_clock_unix_ms() / 1000 - info.st_mtime < UPLOAD_KEPT_S)
            continue;
        coord_upload_path(d, names[i], "", path);
        cop_folder_remove(path, NULL);
    }
    cop_free(names);
}
