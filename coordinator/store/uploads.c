/* Uploads of data sets, and the room they may take. See datasets.h. An upload's folder,
 * state/data/upload/DIGEST, holds the manifest (the pack's size, the chunks' hashes of 32 bytes,
 * the name; after a zero byte the owner) and the chunks by number. A set that was offered with
 * other chunks too has an upload for each cut (DIGEST-1, ...): only the whole shows which offer was
 * right, and a wrong one costs the others nothing. What a manifest says is in memory as well
 * (coord_upload), with the chunks that are there: a chunk costs its own bytes, however many others
 * there are.
 *
 * The offered size is counted from the offer on, and a chunk has exactly the length that follows
 * from it: no upload takes more than it said. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

#define CHUNKS_MAX    16384
#define UPLOAD_KEPT_S (7 * 24 * 3600)
#define SPARE_BYTES   (64u << 20) /* of the disk, for everything else */

/* ---- paths, figures ---- */

/* DIGEST or DIGEST-NUMBER? */
static bool is_upload_folder(const char *name) {
    char digest[65];
    snprintf(digest, sizeof digest, "%.64s", name);
    if (!coord_is_digest(digest) || strlen(name) >= COORD_UPLOAD_FOLDER) return false;
    const char *rest = name + 64;
    return !*rest || (*rest == '-' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

/* Of a file in the upload's folder; "" is the folder itself. */
static void upload_path(const coord_datasets *d, const char *folder, const char *file,
                        char out[4096]) {
    COP_ASSERT(is_upload_folder(folder));
    snprintf(out, 4096, "%s/upload/%s%s%s", d->folder, folder, *file ? "/" : "", file);
}

static void chunk_path(const coord_datasets *d, const char *folder, uint32_t index,
                       char out[4096]) {
    char file[16];
    snprintf(file, sizeof file, "%05u", index);
    upload_path(d, folder, file, out);
}

/* 0: no pack has this size. */
static uint32_t count_chunks(uint64_t size) {
    const uint64_t chunks = size / COP_CHUNK_SIZE + (size % COP_CHUNK_SIZE != 0);
    return chunks <= CHUNKS_MAX ? (uint32_t)chunks : 0;
}

static size_t chunk_size(uint64_t size, uint32_t index) {
    const uint64_t left = size - (uint64_t)index * COP_CHUNK_SIZE;
    return left < COP_CHUNK_SIZE ? (size_t)left : COP_CHUNK_SIZE;
}

static cop_err check_name(const char *name, cop_error *error) {
    if (!name || !*name || strlen(name) >= COP_NAME_MAX)
        return cop_fail(error, COP_ERR_INPUT, "expected a data set name of 1 to %d characters",
                        COP_NAME_MAX - 1);
    if (coord_is_digest(name))
        return cop_fail(error, COP_ERR_INPUT,
                        "a data set's name must not look like a digest: it is %.16s...", name);
    return COP_OK;
}

static cop_err check_digest(const char *digest, cop_error *error) {
    return coord_is_digest(digest)
               ? COP_OK
               : cop_fail(error, COP_ERR_INPUT,
                          "a data set's digest must have 64 hex digits (0-9, a-f)");
}

static cop_err unknown_upload(const char *digest, cop_error *error) {
    return cop_fail(error, COP_ERR_NOT_FOUND,
                    "no upload of %.16s... is under way: offer the data set first", digest);
}

/* ---- the table: under `table` ---- */

/* "": a free place. */
static coord_upload *find_upload(coord_datasets *d, const char *folder) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (strcmp(d->uploads[i].folder, folder) == 0) return &d->uploads[i];
    return NULL;
}

/* The upload of the set that lacks fewest chunks; NULL: there is none. */
static coord_upload *find_fullest(coord_datasets *d, const char *digest) {
    coord_upload *best = NULL;
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        coord_upload *u = &d->uploads[i];
        if (strcmp(u->digest, digest) == 0 && (!best || u->missing < best->missing)) best = u;
    }
    return best;
}

static void free_upload(coord_upload *u) {
    cop_free(u->hashes);
    cop_free(u->there);
    *u = (coord_upload){.size = 0};
}

static bool allocate_upload(coord_upload *u, uint64_t size) {
    u->size = size;
    u->chunks = u->missing = count_chunks(size);
    u->hashes = cop_alloc_array(u->chunks, 32);
    u->there = cop_alloc_array(u->chunks, sizeof *u->there);
    return u->hashes && u->there;
}

/* ---- files ---- */

/* The chunks of `u` that are on the disk, and have their length. */
static void find_chunks(const coord_datasets *d, coord_upload *u) {
    char path[4096];
    struct stat info;
    for (uint32_t i = 0; i < u->chunks; i++) {
        chunk_path(d, u->folder, i, path);
        u->there[i] = stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
                      (uint64_t)info.st_size == chunk_size(u->size, i);
        u->missing -= u->there[i];
    }
}

/* What a manifest says; false: nothing that makes sense. */
static bool parse_manifest(const char *bytes, size_t size, coord_upload *u) {
    const uint64_t pack = size >= 8 ? cop_load_u64(bytes) : 0;
    const size_t name = 8 + 32 * (size_t)count_chunks(pack);
    if (!count_chunks(pack) || size <= name) return false;
    const char *text = bytes + name;
    const size_t rest = size - name, length = strnlen(text, rest);
    const size_t owner = length < rest ? rest - length - 1 : 0;
    if (length >= sizeof u->name || owner >= sizeof u->owner) return false;
    memcpy(u->name, text, length);
    if (owner) memcpy(u->owner, text + length + 1, owner);
    if (check_name(u->name, NULL) || !allocate_upload(u, pack)) return false;
    memcpy(u->hashes, bytes + 8, 32 * (size_t)u->chunks);
    return true;
}

static bool read_upload(const coord_datasets *d, const char *folder, coord_upload *u) {
    char path[4096], *bytes = NULL;
    size_t size;
    struct stat info;
    *u = (coord_upload){.size = 0};
    upload_path(d, folder, "manifest", path);
    if (stat(path, &info) || cop_file_read(path, 1 << 20, &bytes, &size, NULL)) return false;
    const bool sound = parse_manifest(bytes, size, u);
    cop_free(bytes);
    if (!sound) {
        free_upload(u);
        return false;
    }
    snprintf(u->digest, sizeof u->digest, "%.64s", folder);
    snprintf(u->folder, sizeof u->folder, "%s", folder);
    u->touched_s = (int64_t)info.st_mtime; /* each offer writes it */
    find_chunks(d, u);
    return true;
}

static cop_err write_manifest(const coord_datasets *d, const coord_upload *u, cop_error *error) {
    char path[4096], size[8];
    cop_store_u64(size, u->size);
    const size_t owner = strlen(u->owner); /* where certificates say who it is */
    const cop_file_part parts[] = {{size, 8},
                                   {u->hashes, 32 * (size_t)u->chunks},
                                   {u->name, strlen(u->name) + (owner > 0)},
                                   {u->owner, owner}};
    upload_path(d, u->folder, "", path);
    COP_TRY(cop_folder_create(path, error));
    upload_path(d, u->folder, "manifest", path);
    return cop_file_write(path, parts, 4, 0600, error);
}

static void remove_upload(const coord_datasets *d, const char *folder) {
    char path[4096];
    cop_error error = {0};
    upload_path(d, folder, "", path);
    if (cop_folder_remove(path, &error)) cop_log(COP_LOG_WARN, "data", "%s", error.text);
}

/* Under `files`. */
static void drop_upload(coord_datasets *d, coord_upload *u) {
    char folder[COORD_UPLOAD_FOLDER];
    snprintf(folder, sizeof folder, "%s", u->folder);
    uv_mutex_lock(&d->table);
    free_upload(u);
    uv_mutex_unlock(&d->table);
    remove_upload(d, folder);
}

/* Under `files`. Every upload of the set. */
static void drop_uploads(coord_datasets *d, const char *digest) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (strcmp(d->uploads[i].digest, digest) == 0) drop_upload(d, &d->uploads[i]);
}

/* Under `files`. */
static void drop_old_uploads(coord_datasets *d) {
    const int64_t now_s = cop_clock_unix_ms() / 1000;
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        coord_upload *u = &d->uploads[i];
        if (*u->digest && now_s - u->touched_s >= UPLOAD_KEPT_S) drop_upload(d, u);
    }
}

void coord_read_uploads(coord_datasets *d) {
    char path[4096], **names = NULL;
    size_t count = 0, used = 0;
    snprintf(path, sizeof path, "%s/upload", d->folder);
    if (cop_folder_list(path, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        if (!is_upload_folder(names[i])) continue;
        if (used < COORD_UPLOADS_MAX && read_upload(d, names[i], &d->uploads[used]))
            used++;
        else
            remove_upload(d, names[i]);
    }
    cop_free(names);
    drop_old_uploads(d);
}

void coord_free_uploads(coord_datasets *d) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) free_upload(&d->uploads[i]);
}

/* ---- quota ---- */

/* Bytes promised to uploads under way, but for `own` and those of `stored`; *count of them. */
static uint64_t uploading_bytes(coord_datasets *d, const char *stored, const coord_upload *own,
                                size_t *count) {
    uint64_t sum = 0;
    *count = 0;
    uv_mutex_lock(&d->table);
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        const coord_upload *u = &d->uploads[i];
        if (!*u->digest || u == own || strcmp(u->digest, stored) == 0) continue;
        sum += u->size;
        (*count)++;
    }
    uv_mutex_unlock(&d->table);
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

/* Under `files`. */
cop_err coord_check_quota(coord_datasets *d, const char *stored, const coord_upload *own,
                          uint64_t more, cop_error *error) {
    char a[32], b[32], c[32];
    size_t uploads;
    uint64_t used = uploading_bytes(d, stored, own, &uploads) + stored_bytes(d);
    if (uploads >= COORD_UPLOADS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "%d uploads are already running: wait until one is done",
                        COORD_UPLOADS_MAX);
    if (d->quota && (used > d->quota || more > d->quota - used))
        return cop_fail(error, COP_ERR_LIMIT,
                        "the data set of %s exceeds the coordinator's quota of %s (%s are used): "
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

/* ---- offers ---- */

/* Under `files`. Has its owner a place for one more? */
static cop_err check_share(coord_datasets *d, const coord_offerer *who, cop_error *error) {
    uint32_t its = 0;
    uv_mutex_lock(&d->table);
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        const coord_upload *u = &d->uploads[i];
        its += *u->digest && strcmp(u->owner, who->owner) == 0;
    }
    uv_mutex_unlock(&d->table);
    if (its < who->uploads) return COP_OK;
    return cop_fail(error, COP_ERR_LIMIT,
                    "%u uploads of yours are under way, and you may have %u: finish one of them",
                    its, who->uploads);
}

static cop_err check_offer(const Coppice__Api__OfferDataRequest *o, cop_error *error) {
    COP_TRY(check_digest(o->digest, error));
    COP_TRY(check_name(o->name, error));
    const uint32_t chunks = count_chunks(o->bytes);
    if (!chunks || o->n_chunks != chunks)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%llu bytes in chunks of %u: expected 1 to %d chunks and as many hashes (found %zu)",
            (unsigned long long)o->bytes, COP_CHUNK_SIZE, CHUNKS_MAX, o->n_chunks);
    for (size_t i = 0; i < o->n_chunks; i++)
        if (o->chunks[i].len != 32)
            return cop_fail(error, COP_ERR_INPUT,
                            "the hash of chunk %zu has %zu bytes: expected 32", i,
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
    COP_TRY(coord_load_built_in(d, &data, error));
    cop_hex32(data->digest, digest);
    cop_err e = strcmp(digest, o->digest) == 0
                    ? coord_store_set(d, data, o->name, error)
                    : cop_fail(error, COP_ERR_INPUT,
                               "\"%s\" is a built-in data set with other content (%.16s...): "
                               "choose another name for yours",
                               COORD_BUILT_IN, digest);
    cop_data_destroy(data);
    return e;
}

/* Under `files`. The set is there: it gets the offered name, too. */
static cop_err name_again(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          cop_error *error) {
    cop_data *data = NULL;
    COP_TRY(coord_load_pack(d, o->digest, o->name, &data, error));
    cop_err e = coord_store_set(d, data, o->name, error);
    cop_data_destroy(data);
    return e;
}

/* Under `files`. Is the content there? A pack that was damaged gives way to the upload. */
static bool has_sound_pack(coord_datasets *d, const char *digest, const char *name) {
    char path[4096];
    cop_data *data = NULL;
    cop_error error = {0};
    if (!coord_has_pack(d, digest)) return false;
    const cop_err e = coord_load_pack(d, digest, name, &data, &error);
    cop_data_destroy(data);
    if (e != COP_ERR_CORRUPT) return true;
    cop_log_peer(COP_LOG_WARN, "data", "", "%s: it must be uploaded again", error.text);
    coord_pack_path(d, digest, path);
    return cop_file_remove(path, NULL) != COP_OK;
}

static bool is_same_cut(const coord_upload *u, const Coppice__Api__OfferDataRequest *o) {
    bool same = strcmp(u->digest, o->digest) == 0 && u->size == o->bytes;
    for (size_t i = 0; i < o->n_chunks && same; i++)
        same = memcmp(u->hashes + 32 * i, o->chunks[i].data, 32) == 0;
    return same;
}

/* Under `files`. The upload that the offer goes on with; NULL: it is a new one. */
static coord_upload *find_offered(coord_datasets *d, const Coppice__Api__OfferDataRequest *o) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (is_same_cut(&d->uploads[i], o)) return &d->uploads[i];
    return NULL;
}

/* Under `files`. One that no upload has. */
static void name_folder(coord_datasets *d, const char *digest, char out[COORD_UPLOAD_FOLDER]) {
    snprintf(out, COORD_UPLOAD_FOLDER, "%s", digest);
    for (int i = 1; find_upload(d, out); i++)
        snprintf(out, COORD_UPLOAD_FOLDER, "%.64s-%d", digest, i);
}

/* Under `files`. A new upload, in a free place. */
static cop_err start_upload(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                            const char *owner, coord_upload **out, cop_error *error) {
    coord_upload made = {.touched_s = cop_clock_unix_ms() / 1000};
    if (!allocate_upload(&made, o->bytes)) {
        free_upload(&made);
        return cop_no_memory(error);
    }
    snprintf(made.digest, sizeof made.digest, "%s", o->digest);
    name_folder(d, o->digest, made.folder);
    snprintf(made.name, sizeof made.name, "%s", o->name);
    snprintf(made.owner, sizeof made.owner, "%s", owner);
    for (size_t i = 0; i < o->n_chunks; i++) memcpy(made.hashes + 32 * i, o->chunks[i].data, 32);
    const cop_err e = write_manifest(d, &made, error);
    if (e) {
        remove_upload(d, made.folder);
        free_upload(&made);
        return e;
    }
    uv_mutex_lock(&d->table);
    coord_upload *u = find_upload(d, "");
    COP_ASSERT(u != NULL); /* coord_check_quota */
    *u = made;
    uv_mutex_unlock(&d->table);
    *out = u;
    return COP_OK;
}

/* Under `files`. The upload goes on under the name that is offered now. On failure it stays as it
 * was, with the chunks that are there. */
static cop_err resume_upload(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             coord_upload *u, cop_error *error) {
    coord_upload renamed = *u;
    snprintf(renamed.name, sizeof renamed.name, "%s", o->name);
    COP_TRY(write_manifest(d, &renamed, error));
    uv_mutex_lock(&d->table);
    snprintf(u->name, sizeof u->name, "%s", o->name);
    u->touched_s = cop_clock_unix_ms() / 1000;
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

/* Under `files`. */
static cop_err take_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          const coord_offerer *who, bool *complete, uint32_t **missing,
                          size_t *count, cop_error *error) {
    coord_upload *u = NULL;
    COP_TRY(check_built_in(d, o, error));
    *complete = has_sound_pack(d, o->digest, o->name);
    if (*complete) return name_again(d, o, error);
    drop_old_uploads(d);
    u = find_offered(d, o);
    if (!u) COP_TRY(check_share(d, who, error));
    COP_TRY(coord_check_quota(d, "", u, o->bytes, error));
    *missing = cop_alloc_array(o->n_chunks, sizeof **missing);
    if (!*missing) return cop_no_memory(error);
    COP_TRY(u ? resume_upload(d, o, u, error) : start_upload(d, o, who->owner, &u, error));
    uv_mutex_lock(&d->table);
    for (uint32_t i = 0; i < u->chunks; i++)
        if (!u->there[i]) (*missing)[(*count)++] = i;
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

cop_err coord_datasets_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             const coord_offerer *who, bool *complete, uint32_t **missing,
                             size_t *count, cop_error *error) {
    *missing = NULL;
    *count = 0;
    *complete = false;
    COP_TRY(check_offer(o, error));
    uv_mutex_lock(&d->files);
    cop_err e = take_offer(d, o, who, complete, missing, count, error);
    uv_mutex_unlock(&d->files);
    return e;
}

/* ---- chunks ---- */

/* A chunk that came: `folder` is the upload that it is for. */
typedef struct chunk {
    const char *digest;
    const cop_buffer *bytes;
    unsigned char hash[32];
    uint32_t index;
    int next; /* place in the table where the search goes on */
    char folder[COORD_UPLOAD_FOLDER];
    size_t size; /* that the upload expects */
} chunk;

static bool is_offered(const coord_upload *u, const chunk *c) {
    return strcmp(u->digest, c->digest) == 0 && c->index < u->chunks &&
           memcmp(u->hashes + 32 * (size_t)c->index, c->hash, 32) == 0;
}

/* The next upload of the set that was offered with this chunk. */
static bool find_next(coord_datasets *d, chunk *c) {
    bool found = false;
    uv_mutex_lock(&d->table);
    for (; c->next < COORD_UPLOADS_MAX && !found; c->next++) {
        const coord_upload *u = &d->uploads[c->next];
        if (!(found = is_offered(u, c))) continue;
        snprintf(c->folder, sizeof c->folder, "%s", u->folder);
        c->size = chunk_size(u->size, c->index);
    }
    uv_mutex_unlock(&d->table);
    return found;
}

static cop_err wrong_size(const chunk *c, size_t expected, cop_error *error) {
    return cop_fail(error, COP_ERR_INPUT, "chunk %u has %zu bytes: expected %zu", c->index,
                    c->bytes->size, expected);
}

/* No upload of the set was offered with it. */
static cop_err refuse(coord_datasets *d, const chunk *c, cop_error *error) {
    uv_mutex_lock(&d->table);
    const coord_upload *u = find_fullest(d, c->digest);
    const uint32_t chunks = u ? u->chunks : 0;
    const size_t size = c->index < chunks ? chunk_size(u->size, c->index) : 0;
    uv_mutex_unlock(&d->table);
    if (!chunks) return unknown_upload(c->digest, error);
    if (c->index >= chunks)
        return cop_fail(error, COP_ERR_INPUT, "there is no chunk %u: expected 0 to %u", c->index,
                        chunks - 1);
    if (c->bytes->size != size) return wrong_size(c, size, error);
    return cop_fail(error, COP_ERR_CORRUPT,
                    "chunk %u was damaged in transit: its SHA-256 differs from the one offered",
                    c->index);
}

/* It is on the disk; unless the upload was dropped, or is another one, meanwhile. */
static cop_err note_chunk(coord_datasets *d, const chunk *c, uint32_t *missing, cop_error *error) {
    uv_mutex_lock(&d->table);
    coord_upload *u = find_upload(d, c->folder);
    const bool same = u && is_offered(u, c);
    if (same && !u->there[c->index]) {
        u->there[c->index] = true;
        u->missing--;
    }
    if (same && u->missing < *missing) *missing = u->missing;
    uv_mutex_unlock(&d->table);
    return same ? COP_OK : unknown_upload(c->digest, error);
}

/* Its size and its hashes do not fit together: it can never become a set. */
static void give_up(coord_datasets *d, const chunk *c) {
    uv_mutex_lock(&d->files);
    coord_upload *u = find_upload(d, c->folder);
    if (u && is_offered(u, c) && chunk_size(u->size, c->index) != c->bytes->size) drop_upload(d, u);
    uv_mutex_unlock(&d->files);
}

static cop_err keep_chunk(coord_datasets *d, const chunk *c, uint32_t *missing, cop_error *error) {
    const cop_file_part part = {c->bytes->data, c->bytes->size};
    char path[4096];
    chunk_path(d, c->folder, c->index, path);
    COP_TRY(cop_file_write(path, &part, 1, 0600, error));
    return note_chunk(d, c, missing, error);
}

cop_err coord_datasets_put(coord_datasets *d, const char *digest, uint32_t index,
                           const cop_buffer *bytes, uint32_t *missing, cop_error *error) {
    chunk c = {.digest = digest, .bytes = bytes, .index = index};
    bool kept = false;
    COP_TRY(check_digest(digest, error));
    if (!bytes) return cop_fail(error, COP_ERR_INPUT, "chunk %u arrived without its bytes", index);
    cop_sha256_of(bytes->data, bytes->size, c.hash);
    *missing = CHUNKS_MAX;
    cop_err e = COP_ERR_NOT_FOUND;
    while (find_next(d, &c)) {
        if (bytes->size != c.size) {
            give_up(d, &c);
            e = wrong_size(&c, c.size, error);
            continue;
        }
        COP_TRY(keep_chunk(d, &c, missing, error));
        kept = true;
    }
    if (kept) return COP_OK;
    *missing = 0;
    return e == COP_ERR_NOT_FOUND ? refuse(d, &c, error) : e;
}

/* ---- commit: under `files`, so the upload stays; its chunks may still come ---- */

static cop_err read_chunk(const coord_datasets *d, const coord_upload *u, uint32_t index, char *to,
                          cop_error *error) {
    char path[4096], *bytes;
    size_t size;
    const size_t expected = chunk_size(u->size, index);
    chunk_path(d, u->folder, index, path);
    COP_TRY(cop_file_read(path, COP_CHUNK_SIZE, &bytes, &size, error));
    cop_err e = size == expected
                    ? COP_OK
                    : cop_fail(error, COP_ERR_CORRUPT, "chunk %u has %zu bytes: expected %zu",
                               index, size, expected);
    if (!e) memcpy(to + (size_t)index * COP_CHUNK_SIZE, bytes, size);
    cop_free(bytes);
    return e;
}

/* The whole set from its chunks, checked; the caller owns it. */
static cop_err assemble(const coord_datasets *d, const coord_upload *u, cop_data **out,
                        cop_error *error) {
    char found[65];
    cop_buffer *pack = cop_buffer_create(u->size);
    if (!pack) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the data set");
    cop_err e = COP_OK;
    for (uint32_t i = 0; i < u->chunks && !e; i++) e = read_chunk(d, u, i, pack->data, error);
    if (!e) e = cop_data_from_pack(pack, u->name, out, error);
    cop_buffer_release(pack);
    if (e) return e;
    cop_hex32((*out)->digest, found);
    if (strcmp(found, u->digest) == 0) return COP_OK;
    cop_data_destroy(*out);
    *out = NULL;
    return cop_fail(error, COP_ERR_CORRUPT,
                    "the uploaded data set has the digest %.16s..., not %.16s...: upload it again",
                    found, u->digest);
}

/* May the same chunks become a set later? */
static bool may_pass(cop_err e) {
    return e == COP_ERR_NO_MEMORY || e == COP_ERR_NO_SPACE || e == COP_ERR_IO ||
           e == COP_ERR_DENIED || e == COP_ERR_BUSY || e == COP_ERR_LIMIT;
}

/* Names that the client sent: they are kept beside the set. */
static cop_err name_classes(cop_data *data, const char *const *names, size_t count,
                            cop_error *error) {
    if (!count) return COP_OK;
    if (count != (size_t)data->classes || !cop_class_names_ok(names, count))
        return cop_fail(error, COP_ERR_INPUT,
                        "%zu names of classes: expected %d, UTF-8 without control characters, of "
                        "at most %d bytes each and %d in all",
                        count, data->classes, COP_CLASS_NAME_MAX, COP_CLASS_NAMES_BYTES);
    return cop_data_name_classes(data, names, count, error);
}

static cop_err make_set(coord_datasets *d, const coord_upload *u, const char *const *names,
                        size_t count, cop_error *error) {
    cop_data *data = NULL;
    cop_err e = assemble(d, u, &data, error);
    if (!e) e = name_classes(data, names, count, error);
    if (!e) e = coord_store_set(d, data, u->name, error);
    cop_data_destroy(data);
    return e;
}

/* Of several uploads of the set, the first that is whole and sound. */
static cop_err finish_upload(coord_datasets *d, const char *digest, const char *const *names,
                             size_t count, cop_error *error) {
    cop_err e = COP_ERR_NOT_FOUND;
    bool done = coord_has_pack(d, digest); /* before: the answer was lost */
    while (!done) {
        uv_mutex_lock(&d->table);
        coord_upload *u = find_fullest(d, digest);
        const uint32_t missing = u ? u->missing : 0;
        uv_mutex_unlock(&d->table);
        if (e != COP_ERR_NOT_FOUND && (!u || missing)) return e;
        if (!u) return unknown_upload(digest, error);
        if (missing)
            return cop_fail(error, COP_ERR_INPUT,
                            "%u of %u chunks are missing: offer the data set again to learn which",
                            missing, u->chunks);
        e = make_set(d, u, names, count, error);
        if (may_pass(e)) return e;
        done = e == COP_OK;
        if (!done) drop_upload(d, u); /* worthless */
    }
    drop_uploads(d, digest);
    return COP_OK;
}

cop_err coord_datasets_commit(coord_datasets *d, const char *digest, const char *const *names,
                              size_t count, coord_dataset *out, cop_error *error) {
    *out = (coord_dataset){0};
    COP_TRY(check_digest(digest, error));
    uv_mutex_lock(&d->files);
    cop_err e = finish_upload(d, digest, names, count, error);
    if (!e) coord_copy_set(d, digest, out);
    uv_mutex_unlock(&d->files);
    return e;
}
