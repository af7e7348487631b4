/* Decompresses gzip data in memory. See gzip.h. */
#include "common/data/gzip.h"

#include <stdint.h>

#include "common/base/alloc.h"
#include "common/base/file.h"

bool gzip_is(const void *bytes, size_t size) {
    const unsigned char *b = bytes;
    return size >= 2 && b[0] == 0x1f && b[1] == 0x8b;
}

cop_err gzip_begin(gzip_reader *g, const cop_data_content *in, cop_error *error) {
    *g = (gzip_reader){.input_size = in->size, .name = in->name};
    g->z.next_in = (unsigned char *)in->bytes;
    return inflateInit2(&g->z, 15 + 16) == Z_OK ? COP_OK : cop_no_memory(error);
}

void gzip_end(gzip_reader *g) {
    inflateEnd(&g->z);
}

/* Called at the end of a member. Starts the next member if there is one. If only zeros follow, sets
 * g->ended. CORRUPT: other bytes follow. */
static cop_err next_member(gzip_reader *g, cop_error *error) {
    const unsigned char *in = g->z.next_in;
    size_t zeros = 0;
    if (gzip_is(in, g->input_size)) {
        inflateReset(&g->z);
        return COP_OK;
    }
    while (zeros < g->input_size && !in[zeros]) zeros++;
    if (zeros < g->input_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s: %zu bytes follow the end of the gzip data",
                        g->name, g->input_size);
    g->ended = true;
    return COP_OK;
}

cop_err gzip_read(gzip_reader *g, void *out, size_t size, size_t *got, cop_error *error) {
    size_t room = size;
    COP_ASSERT(out != NULL || !size);
    g->z.next_out = out;
    *got = 0;
    while (!g->ended && room) {
        const uInt in_now = g->input_size > 1u << 30 ? 1u << 30 : (uInt)g->input_size,
                   out_now = room > 1u << 30 ? 1u << 30 : (uInt)room;
        g->z.avail_in = in_now;
        g->z.avail_out = out_now;
        const int state = inflate(&g->z, Z_NO_FLUSH);
        const bool stuck = in_now == g->z.avail_in && out_now == g->z.avail_out;
        COP_ASSERT(g->z.avail_in <= in_now && g->z.avail_out <= out_now);
        g->input_size -= in_now - g->z.avail_in;
        room -= out_now - g->z.avail_out;
        if (state == Z_MEM_ERROR) return cop_no_memory(error);
        if (state == Z_DATA_ERROR || state == Z_NEED_DICT)
            return cop_fail(error, COP_ERR_CORRUPT, "%s: the gzip data are damaged (%s)", g->name,
                            g->z.msg ? g->z.msg : "dictionary");
        if (state == Z_STREAM_END) COP_TRY(next_member(g, error));
        if (state == Z_BUF_ERROR || (state == Z_OK && stuck)) break; /* end of the input */
    }
    *got = size - room;
    return COP_OK;
}

/* Decompresses everything into new memory, first of `guess` bytes, which doubles as bytes arrive.
 * So the memory depends on the data, not on a size that a header claims. */
static cop_err expand(gzip_reader *g, size_t limit, size_t guess, cop_data_content *out,
                      cop_error *error) {
    size_t capacity = guess < limit ? guess : limit, used = 0, got = 0;
    char *bytes = cop_alloc(capacity + 1);
    cop_err e = bytes ? COP_OK : cop_no_memory(error);
    while (!e) {
        e = gzip_read(g, bytes + used, capacity - used, &got, error);
        used += got;
        if (e || g->ended || used < capacity) break;
        if (capacity == limit) {
            e = cop_fail(error, COP_ERR_LIMIT, "%s: more than %zu bytes when decompressed", g->name,
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
        e = cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: the gzip data end early", g->name);
    if (e) {
        cop_free(bytes);
        return e;
    }
    bytes[used] = '\0';
    *out = (cop_data_content){g->name, bytes, used};
    return COP_OK;
}

cop_err gzip_unpack(const cop_data_content *in, size_t limit, cop_data_content *out,
                    cop_error *error) {
    gzip_reader g;
    COP_TRY(gzip_begin(&g, in, error));
    cop_err e = expand(&g, limit, in->size < 64 ? 256 : 4 * in->size, out, error);
    gzip_end(&g);
    return e;
}

cop_err gzip_read_file(const char *path, size_t limit, cop_data_content *out, cop_error *error) {
    cop_data_content packed = {.name = path};
    *out = (cop_data_content){.name = path};
    COP_TRY(cop_file_read(path, limit, &packed.bytes, &packed.size, error));
    if (!gzip_is(packed.bytes, packed.size)) {
        *out = packed;
        return COP_OK;
    }
    cop_err e = gzip_unpack(&packed, limit, out, error);
    cop_free(packed.bytes);
    return e;
}
