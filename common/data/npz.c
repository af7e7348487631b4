/* Reads .npz files, which are ZIP archives of .npy files. A file in the archive, a *member*, is
 * stored or deflated, and is found through the central directory. Every number in the archive is
 * checked against the size of the file before it is used. */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/str.h"
#include "common/data/gzip.h"
#include "common/data/npy.h"

#define END_SIZE     22
#define CENTRAL_SIZE 46
#define LOCAL_SIZE   30

typedef struct archive {
    const char *name; /* how errors name the archive */
    const unsigned char *bytes;
    size_t size;         /* bytes of the archive */
    size_t central;      /* offset of the central directory */
    size_t central_size; /* bytes of the central directory */
} archive;

typedef struct member {
    const char *name; /* name of the member in the archive, without a zero byte at its end */
    size_t name_length;
    uint32_t method; /* 0: stored; 8: deflated */
    uint32_t crc;    /* CRC-32 of the decompressed bytes */
    uint32_t offset; /* offset of the local header, from the beginning of the archive */
    uint64_t packed; /* bytes in the archive */
    uint64_t size;   /* bytes after decompression */
} member;

static archive archive_of(const cop_data_content *npz) {
    return (archive){
        .name = npz->name, .bytes = (const unsigned char *)npz->bytes, .size = npz->size};
}

static cop_err damaged(const archive *a, const char *why, cop_error *error) {
    return cop_fail(error, COP_ERR_CORRUPT, "%s is not a valid NPZ file: %s", a->name, why);
}

/* Finds the end record, and from it the central directory. Only a comment of up to 65535 bytes may
 * follow the end record. */
static cop_err find_directory(archive *a, cop_error *error) {
    if (a->size < 2 || memcmp(a->bytes, "PK", 2) != 0)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is not an NPZ file: it is %s", a->name,
                        cop_file_kind(a->bytes, a->size));
    if (a->size < END_SIZE) return damaged(a, "it has no directory (is it truncated?)", error);
    size_t at = a->size - END_SIZE, lowest = at > 65535 ? at - 65535 : 0;
    while (memcmp(a->bytes + at, "PK\5\6", 4) != 0)
        if (at-- == lowest) return damaged(a, "it has no directory (is it truncated?)", error);
    a->central_size = cop_load_u32(a->bytes + at + 12);
    a->central = cop_load_u32(a->bytes + at + 16);
    if (a->central > at || a->central_size > at - a->central)
        return damaged(a, "its directory lies outside the file", error);
    return COP_OK;
}

/* Reads the entry of the central directory at offset *at, and moves *at to the next entry. */
static cop_err next_member(const archive *a, size_t *at, member *out, cop_error *error) {
    COP_ASSERT(*at < a->central_size);
    const unsigned char *p = a->bytes + a->central + *at;
    const size_t rest = a->central_size - *at;
    if (rest < CENTRAL_SIZE || memcmp(p, "PK\1\2", 4) != 0)
        return damaged(a, "its directory is damaged", error);
    const size_t name = cop_load_u16(p + 28), extra = cop_load_u16(p + 30),
                 comment = cop_load_u16(p + 32);
    if (rest - CENTRAL_SIZE < name + extra + comment)
        return damaged(a, "its directory is damaged", error);
    *out = (member){.name = (const char *)p + CENTRAL_SIZE,
                    .name_length = name,
                    .method = cop_load_u16(p + 10),
                    .crc = cop_load_u32(p + 16),
                    .packed = cop_load_u32(p + 20),
                    .size = cop_load_u32(p + 24),
                    .offset = cop_load_u32(p + 42)};
    if (cop_load_u16(p + 8) & 1) return damaged(a, "it is encrypted", error);
    *at += CENTRAL_SIZE + name + extra + comment;
    return COP_OK;
}

/* Finds the bytes of a member, which follow its local header. */
static cop_err find_bytes(const archive *a, const member *m, const unsigned char **out,
                          cop_error *error) {
    if (m->packed == UINT32_MAX || m->size == UINT32_MAX || m->offset == UINT32_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "%s: %.*s has more than 4 GB: save it as a separate NPY file", a->name,
                        (int)m->name_length, m->name);
    if (m->offset > a->size || a->size - m->offset < LOCAL_SIZE ||
        memcmp(a->bytes + m->offset, "PK\3\4", 4) != 0)
        return damaged(a, "an array lies outside the file", error);
    const unsigned char *p = a->bytes + m->offset;
    const size_t head = (size_t)LOCAL_SIZE + cop_load_u16(p + 26) + cop_load_u16(p + 28);
    if (a->size - m->offset < head || a->size - m->offset - head < m->packed)
        return damaged(a, "an array lies outside the file", error);
    *out = p + head;
    return COP_OK;
}

static bool inflate_all(const unsigned char *in, const member *m, char *out) {
    z_stream z = {0};
    COP_ASSERT(m->packed <= UINT32_MAX && m->size <= UINT32_MAX);
    if (inflateInit2(&z, -15) != Z_OK) return false;
    z.next_in = (unsigned char *)(uintptr_t)in;
    z.avail_in = (uInt)m->packed;
    z.next_out = (unsigned char *)out;
    z.avail_out = (uInt)m->size;
    const int state = inflate(&z, Z_FINISH);
    const bool whole = state == Z_STREAM_END && !z.avail_in && !z.avail_out;
    inflateEnd(&z);
    return whole;
}

static cop_err unpack(const archive *a, const member *m, cop_data_content *out, cop_error *error) {
    const unsigned char *in = NULL;
    if (m->method != 0 && m->method != 8)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: %.*s is compressed with method %u: expected deflate", a->name,
                        (int)m->name_length, m->name, m->method);
    COP_TRY(find_bytes(a, m, &in, error));
    COP_ASSERT(in != NULL);
    if (m->method == 0 ? m->size != m->packed : m->size > m->packed * GZIP_RATIO_MAX)
        return damaged(a, "the sizes of an array contradict each other", error);
    char *bytes = cop_alloc_raw(m->size + 1);
    if (!bytes) return cop_no_memory(error);
    bool whole = true;
    if (m->method == 0)
        memcpy(bytes, in, m->size);
    else
        whole = inflate_all(in, m, bytes);
    if (!whole || crc32_z(0, (const unsigned char *)bytes, m->size) != m->crc) {
        cop_free(bytes);
        return cop_fail(error, COP_ERR_CORRUPT, "%s: the content of %.*s is damaged", a->name,
                        (int)m->name_length, m->name);
    }
    *out = (cop_data_content){a->name, bytes, m->size};
    return COP_OK;
}

static bool is_array(const member *m, const char *name) {
    const size_t length = strlen(name);
    return m->name_length == length + 4 && memcmp(m->name, name, length) == 0 &&
           memcmp(m->name + length, ".npy", 4) == 0;
}

bool npz_has(const cop_data_content *npz, const char *name) {
    archive a = archive_of(npz);
    member m = {0};
    if (find_directory(&a, NULL)) return false;
    for (size_t at = 0; at < a.central_size;) {
        if (next_member(&a, &at, &m, NULL)) return false;
        if (is_array(&m, name)) return true;
    }
    return false;
}

cop_err npz_member(const cop_data_content *npz, const char *name, cop_data_content *out,
                   cop_error *error) {
    archive a = archive_of(npz);
    cop_str names = {0};
    member m = {0}, found = {0};
    COP_TRY(find_directory(&a, error));
    cop_err e = COP_OK;
    for (size_t at = 0; at < a.central_size && !e;) {
        if ((e = next_member(&a, &at, &m, error))) break;
        const bool npy = m.name_length > 4 && memcmp(m.name + m.name_length - 4, ".npy", 4) == 0;
        if (!npy) continue;
        if (is_array(&m, name) && found.name)
            e = cop_fail(error, COP_ERR_INPUT, "%s has two arrays \"%.60s\": expected one", a.name,
                         name);
        else if (is_array(&m, name))
            found = m;
        cop_str_printf(&names, "%s%.*s", names.length ? ", " : "", (int)(m.name_length - 4),
                       m.name);
    }
    if (!e && !found.name)
        e = cop_fail(error, COP_ERR_NOT_FOUND, "%s has no array \"%.60s\"; it has: %.300s", a.name,
                     name, cop_str_text(&names));
    cop_str_fini(&names);
    return e ? e : unpack(&a, &found, out, error);
}
