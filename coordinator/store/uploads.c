/* How data sets arrive: a client offers a set with the hashes of its chunks, puts the missing
 * chunks, and commits the set. See datasets.h. The files of uploads are in upload_files.c.
 *
 * The offered size of the set gives the exact length of each chunk. A chunk of any other length is
 * refused, so the chunks of an upload never take more room than its offer was granted. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

static cop_err check_digest(const char *digest, cop_error *error) {
    return coord_is_digest(digest)
               ? COP_OK
               : cop_fail(error, COP_ERR_INPUT,
                          "a data set's digest must have 64 hex digits (0-9, a-f)");
}

static cop_err fail_unknown_upload(const char *digest, cop_error *error) {
    return cop_fail(error, COP_ERR_NOT_FOUND,
                    "there is no upload of %.16s...: offer the data set first", digest);
}

/* Of the uploads of this set, returns the one that misses the fewest chunks. NULL: there is none.
 * Under `table`. */
static coord_upload *find_fullest(coord_datasets *d, const char *digest) {
    coord_upload *best = NULL;
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        coord_upload *u = &d->uploads[i];
        if (strcmp(u->digest, digest) == 0 && (!best || u->missing < best->missing)) best = u;
    }
    return best;
}

/* ---- offer: the functions after check_offer run under `files` ---- */

static cop_err check_offer(const Coppice__Api__OfferDataRequest *o, cop_error *error) {
    COP_TRY(check_digest(o->digest, error));
    COP_TRY(coord_check_set_name(o->name, error));
    const uint32_t chunks = coord_chunk_count(o->bytes);
    if (!chunks || o->n_chunks != chunks)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%llu bytes in chunks of %u: expected 1 to %d chunks and as many hashes (found %zu)",
            (unsigned long long)o->bytes, COP_CHUNK_SIZE, COORD_CHUNKS_MAX, o->n_chunks);
    for (size_t i = 0; i < o->n_chunks; i++)
        if (o->chunks[i].len != 32)
            return cop_fail(error, COP_ERR_INPUT,
                            "the hash of chunk %zu has %zu bytes: expected 32", i,
                            o->chunks[i].len);
    return COP_OK;
}

/* LIMIT: the offerer may not have one more upload. */
static cop_err check_share(coord_datasets *d, const coord_offerer *offerer, cop_error *error) {
    uint32_t owned = 0;
    COP_ASSERT(d && offerer->identity);
    uv_mutex_lock(&d->table);
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        const coord_upload *u = &d->uploads[i];
        owned += *u->digest && strcmp(u->owner, offerer->identity) == 0;
    }
    uv_mutex_unlock(&d->table);
    if (owned < offerer->uploads_max) return COP_OK;
    return cop_fail(error, COP_ERR_LIMIT,
                    "you have %u uploads in progress, and the limit is %u: finish one of them",
                    owned, offerer->uploads_max);
}

/* Checks that an offer with the name of a built-in set has the content of this set; otherwise fails
 * with INPUT. If the content is the same, stores the set as it was generated here. */
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

/* Adds the offered name to a set that is already stored. */
static cop_err add_name(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                        cop_error *error) {
    cop_data *data = NULL;
    COP_TRY(coord_load_pack(d, o->digest, o->name, &data, error));
    cop_err e = coord_store_set(d, data, o->name, error);
    cop_data_destroy(data);
    return e;
}

/* True: the pack of the set exists, and no damage was found. Removes a damaged pack, so that the
 * upload replaces it. Also true if a damaged pack could not be removed. */
static bool has_intact_pack(coord_datasets *d, const char *digest, const char *name) {
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

/* True: the offer has the size and the chunks of this upload. */
static bool is_offer_of(const coord_upload *u, const Coppice__Api__OfferDataRequest *o) {
    bool same = strcmp(u->digest, o->digest) == 0 && u->size == o->bytes;
    for (size_t i = 0; i < o->n_chunks && same; i++)
        same = memcmp(u->hashes + 32 * i, o->chunks[i].data, 32) == 0;
    return same;
}

/* Returns the upload that the offer continues. NULL: the offer begins a new upload. */
static coord_upload *find_offered(coord_datasets *d, const Coppice__Api__OfferDataRequest *o) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (is_offer_of(&d->uploads[i], o)) return &d->uploads[i];
    return NULL;
}

/* Chooses the name of a folder for a new upload of this digest; no other upload has it. */
static void choose_folder(coord_datasets *d, const char *digest, char out[COORD_UPLOAD_FOLDER]) {
    snprintf(out, COORD_UPLOAD_FOLDER, "%s", digest);
    for (int i = 1; coord_find_upload(d, out); i++)
        snprintf(out, COORD_UPLOAD_FOLDER, "%.64s-%d", digest, i);
}

static cop_err start_upload(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                            const char *owner, coord_upload **out, cop_error *error) {
    coord_upload made = {.touched_s = cop_clock_unix_ms() / 1000};
    if (!coord_allocate_upload(&made, o->bytes)) {
        coord_free_upload(&made);
        return cop_no_memory(error);
    }
    COP_ASSERT(made.chunks == o->n_chunks); /* check_offer has compared them */
    snprintf(made.digest, sizeof made.digest, "%s", o->digest);
    choose_folder(d, o->digest, made.folder);
    snprintf(made.name, sizeof made.name, "%s", o->name);
    snprintf(made.owner, sizeof made.owner, "%s", owner);
    for (size_t i = 0; i < o->n_chunks; i++) memcpy(made.hashes + 32 * i, o->chunks[i].data, 32);
    const cop_err e = coord_write_manifest(d, &made, error);
    if (e) {
        coord_remove_upload_folder(d, made.folder);
        coord_free_upload(&made);
        return e;
    }
    uv_mutex_lock(&d->table);
    coord_upload *u = coord_find_upload(d, "");
    COP_ASSERT(u != NULL); /* coord_check_quota found a free place */
    *u = made;
    uv_mutex_unlock(&d->table);
    *out = u;
    return COP_OK;
}

/* Sets the name of the upload to that in this offer, and its time to that of this offer. On an
 * error the upload is unchanged. */
static cop_err resume_upload(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             coord_upload *u, cop_error *error) {
    coord_upload renamed = *u;
    snprintf(renamed.name, sizeof renamed.name, "%s", o->name);
    COP_TRY(coord_write_manifest(d, &renamed, error));
    uv_mutex_lock(&d->table);
    snprintf(u->name, sizeof u->name, "%s", o->name);
    u->touched_s = cop_clock_unix_ms() / 1000;
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

static cop_err take_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                          const coord_offerer *offerer, coord_offer_result *out, cop_error *error) {
    coord_upload *u = NULL;
    COP_TRY(check_built_in(d, o, error));
    out->complete = has_intact_pack(d, o->digest, o->name);
    if (out->complete) return add_name(d, o, error);
    coord_drop_old_uploads(d);
    u = find_offered(d, o);
    if (!u) COP_TRY(check_share(d, offerer, error));
    COP_TRY(coord_check_quota(d, "", u, o->bytes, error));
    out->missing = cop_alloc_array(o->n_chunks, sizeof *out->missing);
    if (!out->missing) return cop_no_memory(error);
    COP_TRY(u ? resume_upload(d, o, u, error) : start_upload(d, o, offerer->identity, &u, error));
    uv_mutex_lock(&d->table);
    for (uint32_t i = 0; i < u->chunks; i++)
        if (!u->received[i]) out->missing[out->count++] = i;
    COP_ASSERT(out->count == u->missing);
    uv_mutex_unlock(&d->table);
    return COP_OK;
}

cop_err coord_datasets_offer(coord_datasets *d, const Coppice__Api__OfferDataRequest *o,
                             const coord_offerer *offerer, coord_offer_result *out,
                             cop_error *error) {
    *out = (coord_offer_result){.count = 0};
    COP_TRY(check_offer(o, error));
    uv_mutex_lock(&d->files);
    cop_err e = take_offer(d, o, offerer, out, error);
    uv_mutex_unlock(&d->files);
    return e;
}

/* ---- put: without `files`, so that chunks arrive in parallel ---- */

/* A chunk that arrived, and the search for the uploads that need it. An upload needs the chunk if
 * it is of the same set, and its offer has the hash of this chunk at this index. */
typedef struct arrival {
    const coord_chunk *chunk;
    unsigned char hash[32];           /* hash of the bytes that arrived */
    int next;                         /* the place in the table where the search continues */
    char folder[COORD_UPLOAD_FOLDER]; /* folder of the upload that the search found last */
    size_t size;                      /* the length that this upload expects of the chunk */
} arrival;

/* True: the offer of this upload has the hash of the chunk at its index. */
static bool is_offered(const coord_upload *u, const arrival *a) {
    return strcmp(u->digest, a->chunk->digest) == 0 && a->chunk->index < u->chunks &&
           memcmp(u->hashes + 32 * (size_t)a->chunk->index, a->hash, 32) == 0;
}

/* Finds the next upload that was offered with this chunk. False: there are no more. */
static bool find_next(coord_datasets *d, arrival *a) {
    bool found = false;
    uv_mutex_lock(&d->table);
    for (; a->next < COORD_UPLOADS_MAX && !found; a->next++) {
        const coord_upload *u = &d->uploads[a->next];
        if (!(found = is_offered(u, a))) continue;
        snprintf(a->folder, sizeof a->folder, "%s", u->folder);
        a->size = coord_chunk_size(u->size, a->chunk->index);
    }
    uv_mutex_unlock(&d->table);
    return found;
}

static cop_err fail_size(const coord_chunk *c, size_t expected, cop_error *error) {
    return cop_fail(error, COP_ERR_INPUT, "chunk %u has %zu bytes: expected %zu", c->index,
                    c->bytes->size, expected);
}

/* Fails when no upload was offered with this chunk. The error says what is wrong with the chunk. */
static cop_err refuse(coord_datasets *d, const coord_chunk *c, cop_error *error) {
    uv_mutex_lock(&d->table);
    const coord_upload *u = find_fullest(d, c->digest);
    const uint32_t chunks = u ? u->chunks : 0;
    const size_t size = c->index < chunks ? coord_chunk_size(u->size, c->index) : 0;
    uv_mutex_unlock(&d->table);
    if (!chunks) return fail_unknown_upload(c->digest, error);
    if (c->index >= chunks)
        return cop_fail(error, COP_ERR_INPUT, "there is no chunk %u: expected 0 to %u", c->index,
                        chunks - 1);
    if (c->bytes->size != size) return fail_size(c, size, error);
    return cop_fail(error, COP_ERR_CORRUPT,
                    "chunk %u was damaged in transit: its SHA-256 differs from the one offered",
                    c->index);
}

/* Records in the table that the chunk is on the disk. Lowers *missing to the number of chunks that
 * the upload still misses, if this is less. NOT_FOUND: the upload was dropped in the meantime. */
static cop_err note_chunk(coord_datasets *d, const arrival *a, uint32_t *missing,
                          cop_error *error) {
    uv_mutex_lock(&d->table);
    coord_upload *u = coord_find_upload(d, a->folder);
    const bool same = u && is_offered(u, a);
    if (same && !u->received[a->chunk->index]) {
        COP_ASSERT(u->missing > 0);
        u->received[a->chunk->index] = true;
        u->missing--;
    }
    if (same && u->missing < *missing) *missing = u->missing;
    uv_mutex_unlock(&d->table);
    return same ? COP_OK : fail_unknown_upload(a->chunk->digest, error);
}

/* Drops the upload that the search has found last. A chunk with the offered hash arrived, but its
 * length does not match the offered size. So the offer contradicts itself, and the upload can never
 * become a set. */
static void drop_inconsistent(coord_datasets *d, const arrival *a) {
    const coord_chunk *c = a->chunk;
    uv_mutex_lock(&d->files);
    coord_upload *u = coord_find_upload(d, a->folder);
    if (u && is_offered(u, a) && coord_chunk_size(u->size, c->index) != c->bytes->size)
        coord_drop_upload(d, u);
    uv_mutex_unlock(&d->files);
}

static cop_err store_chunk(coord_datasets *d, const arrival *a, uint32_t *missing,
                           cop_error *error) {
    const cop_file_part part = {a->chunk->bytes->data, a->chunk->bytes->size};
    char path[4096];
    coord_chunk_path(d, a->folder, a->chunk->index, path);
    COP_TRY(cop_file_write(path, &part, 1, 0600, error));
    return note_chunk(d, a, missing, error);
}

cop_err coord_datasets_put(coord_datasets *d, const coord_chunk *chunk, uint32_t *missing,
                           cop_error *error) {
    arrival a = {.chunk = chunk};
    bool stored = false;
    *missing = 0;
    COP_TRY(check_digest(chunk->digest, error));
    if (!chunk->bytes)
        return cop_fail(error, COP_ERR_INPUT, "chunk %u arrived without its bytes", chunk->index);
    cop_sha256_of(chunk->bytes->data, chunk->bytes->size, a.hash);
    uint32_t fewest = COORD_CHUNKS_MAX;
    cop_err e = COP_ERR_NOT_FOUND;
    while (find_next(d, &a)) {
        if (chunk->bytes->size != a.size) {
            drop_inconsistent(d, &a);
            e = fail_size(chunk, a.size, error);
            continue;
        }
        COP_TRY(store_chunk(d, &a, &fewest, error));
        stored = true;
    }
    if (stored) *missing = fewest;
    if (stored) return COP_OK;
    return e == COP_ERR_NOT_FOUND ? refuse(d, chunk, error) : e;
}

/* ---- commit: under `files`, so no other thread drops the upload; chunks may still arrive ---- */

static cop_err read_chunk(const coord_datasets *d, const coord_upload *u, uint32_t index, char *to,
                          cop_error *error) {
    char path[4096], *bytes;
    size_t size;
    const size_t expected = coord_chunk_size(u->size, index);
    coord_chunk_path(d, u->folder, index, path);
    COP_TRY(cop_file_read(path, COP_CHUNK_SIZE, &bytes, &size, error));
    cop_err e = size == expected
                    ? COP_OK
                    : cop_fail(error, COP_ERR_CORRUPT, "chunk %u has %zu bytes: expected %zu",
                               index, size, expected);
    if (!e) memcpy(to + (size_t)index * COP_CHUNK_SIZE, bytes, size);
    cop_free(bytes);
    return e;
}

/* Assembles the set from the chunks of a complete upload, and checks it. CORRUPT: it is not valid,
 * or it has another digest. The caller owns *out. */
static cop_err assemble(const coord_datasets *d, const coord_upload *u, cop_data **out,
                        cop_error *error) {
    char found[65];
    COP_ASSERT(u->missing == 0);
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

/* True: after this error, a later attempt with the same chunks may succeed. */
static bool is_transient(cop_err e) {
    return e == COP_ERR_NO_MEMORY || e == COP_ERR_NO_SPACE || e == COP_ERR_IO ||
           e == COP_ERR_DENIED || e == COP_ERR_BUSY || e == COP_ERR_LIMIT;
}

/* Adds the client's names of the classes to the set, if it sent any. INPUT: they do not fit it. */
static cop_err name_classes(cop_data *data, const coord_commit *c, cop_error *error) {
    if (!c->class_count) return COP_OK;
    if (c->class_count != (size_t)data->classes ||
        !cop_class_names_ok(c->class_names, c->class_count))
        return cop_fail(error, COP_ERR_INPUT,
                        "%zu class names: expected %d, in UTF-8 without control "
                        "characters, at most %d bytes each and %d bytes in total",
                        c->class_count, data->classes, COP_CLASS_NAME_MAX, COP_CLASS_NAMES_BYTES);
    return cop_data_name_classes(data, c->class_names, c->class_count, error);
}

static cop_err make_set(coord_datasets *d, const coord_upload *u, const coord_commit *c,
                        cop_error *error) {
    cop_data *data = NULL;
    cop_err e = assemble(d, u, &data, error);
    if (!e) e = name_classes(data, c, error);
    if (!e) e = coord_store_set(d, data, u->name, error);
    cop_data_destroy(data);
    return e;
}

/* Makes the set from the first upload that is complete and valid, then drops all uploads of this
 * set. An upload that can never become a set is dropped, and the next complete one is tried. */
static cop_err finish_upload(coord_datasets *d, const coord_commit *c, cop_error *error) {
    cop_err e = COP_ERR_NOT_FOUND;
    bool done = coord_has_pack(d, c->digest); /* the client repeats a commit that succeeded */
    while (!done) {
        uv_mutex_lock(&d->table);
        coord_upload *u = find_fullest(d, c->digest);
        const uint32_t missing = u ? u->missing : 0;
        uv_mutex_unlock(&d->table);
        if (e != COP_ERR_NOT_FOUND && (!u || missing)) return e;
        if (!u) return fail_unknown_upload(c->digest, error);
        if (missing)
            return cop_fail(error, COP_ERR_INPUT,
                            "%u of %u chunks are missing: offer the data set again to learn which",
                            missing, u->chunks);
        e = make_set(d, u, c, error);
        if (is_transient(e)) return e;
        done = e == COP_OK;
        if (!done) coord_drop_upload(d, u); /* the upload can never become a set */
    }
    coord_drop_uploads(d, c->digest);
    return COP_OK;
}

cop_err coord_datasets_commit(coord_datasets *d, const coord_commit *commit, coord_dataset *out,
                              cop_error *error) {
    *out = (coord_dataset){0};
    COP_TRY(check_digest(commit->digest, error));
    uv_mutex_lock(&d->files);
    cop_err e = finish_upload(d, commit, error);
    if (!e) coord_copy_set(d, commit->digest, out);
    uv_mutex_unlock(&d->files);
    return e;
}
