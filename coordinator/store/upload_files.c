/* Uploads on the disk and in the table in memory, and the quota. See datasets_state.h.
 *
 * Each upload has a folder, state/data/upload/DIGEST. It holds the file `manifest` and a file for
 * each chunk, whose name is its number with five digits. The manifest consists of:
 * - the size of the pack (u64),
 * - the hash of each chunk (32 bytes),
 * - the name of the set,
 * - if the owner has a certificate, a zero byte and the owner.
 *
 * If several offers have the same digest but different chunks, each of them has its own upload in
 * its own folder: DIGEST, DIGEST-1, DIGEST-2 and so on. Only the complete data shows which offer
 * was right, and a wrong offer must not harm the others.
 *
 * The table in memory holds the content of the manifests and records which chunks have arrived. So
 * the time to store a chunk does not depend on the number of chunks. From its first offer on, an
 * upload uses the full size of its pack from the quota. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/store/datasets_state.h"

#define UPLOAD_KEPT_S (7 * 24 * 3600) /* an upload is kept for this time after its newest offer */
#define SPARE_BYTES   (64u << 20)     /* room on the disk that data sets do not take */

/* ---- paths and sizes ---- */

/* True: the name is "DIGEST" or "DIGEST-NUMBER". */
static bool is_upload_folder(const char *name) {
    char digest[65];
    snprintf(digest, sizeof digest, "%.64s", name);
    if (!coord_is_digest(digest) || strlen(name) >= COORD_UPLOAD_FOLDER) return false;
    const char *rest = name + 64;
    return !*rest || (*rest == '-' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

/* The path of a file in the upload's folder, or of the folder itself if `file` is "". */
static void upload_path(const coord_datasets *d, const char *folder, const char *file,
                        char out[4096]) {
    COP_ASSERT(is_upload_folder(folder));
    snprintf(out, 4096, "%s/upload/%s%s%s", d->folder, folder, *file ? "/" : "", file);
}

void coord_chunk_path(const coord_datasets *d, const char *folder, uint32_t index, char out[4096]) {
    char file[16];
    COP_ASSERT(index < COORD_CHUNKS_MAX);
    snprintf(file, sizeof file, "%05u", index);
    upload_path(d, folder, file, out);
}

uint32_t coord_chunk_count(uint64_t size) {
    const uint64_t chunks = size / COP_CHUNK_SIZE + (size % COP_CHUNK_SIZE != 0);
    return chunks <= COORD_CHUNKS_MAX ? (uint32_t)chunks : 0;
}

size_t coord_chunk_size(uint64_t size, uint32_t index) {
    COP_ASSERT((uint64_t)index * COP_CHUNK_SIZE < size);
    const uint64_t remaining = size - (uint64_t)index * COP_CHUNK_SIZE;
    return remaining < COP_CHUNK_SIZE ? (size_t)remaining : COP_CHUNK_SIZE;
}

cop_err coord_check_set_name(const char *name, cop_error *error) {
    if (!name || !*name || strlen(name) >= COP_NAME_MAX)
        return cop_fail(error, COP_ERR_INPUT, "expected a data set name of 1 to %d characters",
                        COP_NAME_MAX - 1);
    if (coord_is_digest(name))
        return cop_fail(error, COP_ERR_INPUT,
                        "a data set's name must not look like a digest: it is %.16s...", name);
    return COP_OK;
}

/* ---- the table ---- */

coord_upload *coord_find_upload(coord_datasets *d, const char *folder) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (strcmp(d->uploads[i].folder, folder) == 0) return &d->uploads[i];
    return NULL;
}

void coord_free_upload(coord_upload *u) {
    cop_free(u->hashes);
    cop_free(u->received);
    *u = (coord_upload){.size = 0};
}

bool coord_allocate_upload(coord_upload *u, uint64_t size) {
    u->size = size;
    u->chunks = u->missing = coord_chunk_count(size);
    COP_ASSERT(u->chunks > 0);
    u->hashes = cop_alloc_array(u->chunks, 32);
    u->received = cop_alloc_array(u->chunks, sizeof *u->received);
    return u->hashes && u->received;
}

/* ---- files ---- */

/* Sets `received` and `missing` of the upload. A chunk counts as received if its file has the right
 * length; its content is not read. */
static void find_chunks(const coord_datasets *d, coord_upload *u) {
    char path[4096];
    struct stat info;
    for (uint32_t i = 0; i < u->chunks; i++) {
        coord_chunk_path(d, u->folder, i, path);
        u->received[i] = stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
                         (uint64_t)info.st_size == coord_chunk_size(u->size, i);
        COP_ASSERT(u->missing >= u->received[i]);
        u->missing -= u->received[i];
    }
}

/* Fills the upload from its manifest. False: the manifest is not valid, or out of memory. The
 * caller must call coord_free_upload in either case. */
static bool parse_manifest(const char *bytes, size_t size, coord_upload *u) {
    const uint64_t pack = size >= 8 ? cop_load_u64(bytes) : 0;
    const size_t name = 8 + 32 * (size_t)coord_chunk_count(pack);
    if (!coord_chunk_count(pack) || size <= name) return false;
    const char *text = bytes + name;
    const size_t rest = size - name, length = strnlen(text, rest);
    const size_t owner = length < rest ? rest - length - 1 : 0;
    if (length >= sizeof u->name || owner >= sizeof u->owner) return false;
    memcpy(u->name, text, length);
    if (owner) memcpy(u->owner, text + length + 1, owner);
    if (coord_check_set_name(u->name, NULL) || !coord_allocate_upload(u, pack)) return false;
    memcpy(u->hashes, bytes + 8, 32 * (size_t)u->chunks);
    return true;
}

/* Fills *u from the upload's folder. False: the folder has no valid manifest, or out of memory; *u
 * is then zeroed. */
static bool read_upload(const coord_datasets *d, const char *folder, coord_upload *u) {
    char path[4096], *bytes = NULL;
    size_t size;
    struct stat info;
    *u = (coord_upload){.size = 0};
    upload_path(d, folder, "manifest", path);
    if (stat(path, &info) || cop_file_read(path, 1 << 20, &bytes, &size, NULL)) return false;
    const bool valid = parse_manifest(bytes, size, u);
    cop_free(bytes);
    if (!valid) {
        coord_free_upload(u);
        return false;
    }
    snprintf(u->digest, sizeof u->digest, "%.64s", folder);
    snprintf(u->folder, sizeof u->folder, "%s", folder);
    u->touched_s = (int64_t)info.st_mtime; /* the newest offer wrote the manifest */
    find_chunks(d, u);
    return true;
}

cop_err coord_write_manifest(const coord_datasets *d, const coord_upload *u, cop_error *error) {
    char path[4096], size[8];
    cop_store_u64(size, u->size);
    const size_t owner = strlen(u->owner);
    const cop_file_part parts[] = {{size, 8},
                                   {u->hashes, 32 * (size_t)u->chunks},
                                   {u->name, strlen(u->name) + (owner > 0)},
                                   {u->owner, owner}};
    upload_path(d, u->folder, "", path);
    COP_TRY(cop_folder_create(path, error));
    upload_path(d, u->folder, "manifest", path);
    return cop_file_write(path, parts, 4, 0600, error);
}

void coord_remove_upload_folder(const coord_datasets *d, const char *folder) {
    char path[4096];
    cop_error error = {0};
    upload_path(d, folder, "", path);
    if (cop_folder_remove(path, &error)) cop_log(COP_LOG_WARN, "data", "%s", error.text);
}

void coord_drop_upload(coord_datasets *d, coord_upload *u) {
    char folder[COORD_UPLOAD_FOLDER];
    COP_ASSERT(*u->digest && u >= d->uploads && u < d->uploads + COORD_UPLOADS_MAX);
    snprintf(folder, sizeof folder, "%s", u->folder);
    uv_mutex_lock(&d->table);
    coord_free_upload(u);
    uv_mutex_unlock(&d->table);
    coord_remove_upload_folder(d, folder);
}

void coord_drop_uploads(coord_datasets *d, const char *digest) {
    COP_ASSERT(*digest);
    for (int i = 0; i < COORD_UPLOADS_MAX; i++)
        if (strcmp(d->uploads[i].digest, digest) == 0) coord_drop_upload(d, &d->uploads[i]);
}

void coord_drop_old_uploads(coord_datasets *d) {
    const int64_t now_s = cop_clock_unix_ms() / 1000;
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) {
        coord_upload *u = &d->uploads[i];
        if (*u->digest && now_s - u->touched_s >= UPLOAD_KEPT_S) coord_drop_upload(d, u);
    }
}

/* True: nobody needs the upload in this folder, because its set is stored. Such a folder remains if
 * the coordinator died during a commit, or if an older version, which does not know folders
 * DIGEST-NUMBER, committed the set. */
static bool is_obsolete(const coord_datasets *d, const char *folder) {
    char digest[65];
    snprintf(digest, sizeof digest, "%.64s", folder);
    return coord_has_pack(d, digest);
}

void coord_read_uploads(coord_datasets *d) {
    char path[4096], **names = NULL;
    size_t count = 0, used = 0;
    snprintf(path, sizeof path, "%s/upload", d->folder);
    if (cop_folder_list(path, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        if (!is_upload_folder(names[i]))
            cop_log(COP_LOG_WARN, "data", "ignoring %s/%s: it is not an upload", path, names[i]);
        else if (used < COORD_UPLOADS_MAX && !is_obsolete(d, names[i]) &&
                 read_upload(d, names[i], &d->uploads[used]))
            used++;
        else
            coord_remove_upload_folder(d, names[i]);
    }
    cop_free(names);
    coord_drop_old_uploads(d);
}

void coord_free_uploads(coord_datasets *d) {
    for (int i = 0; i < COORD_UPLOADS_MAX; i++) coord_free_upload(&d->uploads[i]);
}

/* ---- quota ---- */

/* Returns the total size of the incomplete uploads, without the upload `own` and without all
 * uploads of the set `stored`. Sets *count to the number of uploads in this total. */
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

/* Returns the total size of all packs that have names. A pack with several names counts once. */
static uint64_t stored_bytes(coord_datasets *d) {
    uint64_t sum = 0;
    uv_mutex_lock(&d->table);
    for (size_t i = 0; i < d->count; i++) {
        bool counted = false;
        for (size_t k = 0; k < i && !counted; k++)
            counted = strcmp(d->sets[k].digest, d->sets[i].digest) == 0;
        if (!counted) sum += d->sets[i].bytes;
    }
    uv_mutex_unlock(&d->table);
    return sum;
}

cop_err coord_check_quota(coord_datasets *d, const char *stored, const coord_upload *own,
                          uint64_t more, cop_error *error) {
    char a[32], b[32], c[32];
    size_t uploads;
    uint64_t used = uploading_bytes(d, stored, own, &uploads) + stored_bytes(d);
    if (uploads >= COORD_UPLOADS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "%d uploads are already in progress: try again when one has ended",
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
