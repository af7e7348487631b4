/* gzip data in memory. See gzip.h. */
#include "common/data/gzip.h"

#include <stdint.h>

#include "common/base/alloc.h"
#include "common/base/file.h"

bool gzip_is(const void *bytes, size_t size) {
    const unsigned char *b = bytes;
    return size >= 2 && b[0] == 0x1f && b[1] == 0x8b;
}

cop_err gzip_begin(gzip_reader *g, const char *path, const void *in, size_t size,
                   cop_error *error) {
    *g = (gzip_reader){.in_left = size, .path = path};
    g->z.next_in = (unsigned char *)(uintptr_t)in;
    return inflateInit2(&g->z, 15 + 16) == Z_OK ? COP_OK : cop_no_memory(error);
}

void gzip_end(gzip_reader *g) {
    inflateEnd(&g->z);
}

/* A member has ended: another one begins, only zeros follow, or the file is damaged. */
static cop_err next_member(gzip_reader *g, cop_error *error) {
    const unsigned char *in = g->z.next_in;
    size_t zeros = 0;
    if (gzip_is(in, g->in_left)) {
        inflateReset(&g->z);
        return COP_OK;
    }
    while (zeros < g->in_left && !in[zeros]) zeros++;
    if (zeros < g->in_left)
        return cop_fail(error, COP_ERR_CORRUPT, "%s: %zu bytes follow the end of the gzip data",
                        g->path, g->in_left);
    g->ended = true;
    return COP_OK;
}

cop_err gzip_read(gzip_reader *g, void *out, size_t size, size_t *got, cop_error *error) {
    size_t left = size;
    g->z.next_out = out;
    *got = 0;
    while (!g->ended && left) {
        const uInt in_now = g->in_left > 1u << 30 ? 1u << 30 : (uInt)g->in_left,
                   out_now = left > 1u << 30 ? 1u << 30 : (uInt)left;
        g->z.avail_in = in_now;
        g->z.avail_out = out_now;
        const int state = inflate(&g->z, Z_NO_FLUSH);
        const bool stuck = in_now == g->z.avail_in && out_now == g->z.avail_out;
        g->in_left -= in_now - g->z.avail_in;
        left -= out_now - g->z.avail_out;
        if (state == Z_MEM_ERROR) return cop_no_memory(error);
        if (state == Z_DATA_ERROR || state == Z_NEED_DICT)
            return cop_fail(error, COP_ERR_CORRUPT, "%s: the gzip data are damaged (%s)", g->path,
                            g->z.msg ? g->z.msg : "dictionary");
        if (state == Z_STREAM_END) COP_TRY(next_member(g, error));
        if (state == Z_BUF_ERROR || (state == Z_OK && stuck)) break; /* the input has ended */
    }
    *got = size - left;
    return COP_OK;
}

/* Everything into memory that grows as bytes come: a header that promises much takes nothing. */
static cop_err expand(gzip_reader *g, size_t limit, size_t guess, char **out, size_t *size,
                      cop_error *error) {
    size_t capacity = guess < limit ? guess : limit, used = 0, got = 0;
    char *bytes = cop_alloc(capacity + 1);
    cop_err e = bytes ? COP_OK : cop_no_memory(error);
    while (!e) {
        e = gzip_read(g, bytes + used, capacity - used, &got, error);
        used += got;
        if (e || g->ended || used < capacity) break;
        if (capacity == limit) {
            e = cop_fail(error, COP_ERR_LIMIT, "%s: more than %zu bytes when decompressed", g->path,
                         limit);
            break;
        }
        capacity = capacity < limit / 2 ? 2 * capacity : limit;
        char *more = cop_realloc(bytes, capacity + 1);
        if (more)
            bytes = more;
        else
            e = cop_no_memory(error);
    }
    if (!e && !g->ended)
        e = cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: the gzip data end early", g->path);
    if (e) {
        cop_free(bytes);
        return e;
    }
    bytes[used] = '\0';
    *out = bytes;
    *size = used;
    return COP_OK;
}

cop_err gzip_unpack(const char *path, size_t limit, const char *bytes, size_t size, char **out,
                    size_t *out_size, cop_error *error) {
    gzip_reader g;
    COP_TRY(gzip_begin(&g, path, bytes, size, error));
    cop_err e = expand(&g, limit, size < 64 ? 256 : 4 * size, out, out_size, error);
    gzip_end(&g);
    return e;
}

cop_err gzip_expand(const char *path, size_t limit, char **bytes, size_t *size, cop_error *error) {
    char *all = NULL;
    size_t all_size = 0;
    if (!gzip_is(*bytes, *size)) return COP_OK;
    COP_TRY(gzip_unpack(path, limit, *bytes, *size, &all, &all_size, error));
    cop_free(*bytes);
    *bytes = all;
    *size = all_size;
    return COP_OK;
}

cop_err gzip_read_file(const char *path, size_t limit, char **bytes, size_t *size,
                       cop_error *error) {
    COP_TRY(cop_file_read(path, limit, bytes, size, error));
    cop_err e = gzip_expand(path, limit, bytes, size, error);
    if (e) {
        cop_free(*bytes);
        *bytes = NULL;
    }
    return e;
}
