/* Names the format of a file by its first bytes, for errors about an unexpected format. See file.h.
 */
#include <string.h>

#include "common/base/file.h"

/* A format, and the bytes by which it is recognized. */
typedef struct kind {
    uint32_t at; /* position of `bytes` in the file */
    const char *bytes;
    uint32_t length; /* length of `bytes` */
    const char *name;
} kind;

#define MAGIC(at, text, name) {at, text, sizeof text - 1, name}

static const kind kinds[] = {
    MAGIC(0, "PK\3\4", "a ZIP archive (.zip, .npz, .xlsx)"),
    MAGIC(0, "\x93NUMPY", "an NPY file"),
    MAGIC(0, "\x89PNG\r\n\x1a\n", "a PNG picture"),
    MAGIC(0, "\xff\xd8\xff", "a JPEG picture"),
    MAGIC(0, "GIF8", "a GIF picture"),
    MAGIC(8, "WEBP", "a WebP picture"),
    MAGIC(0, "BM", "a BMP picture"),
    MAGIC(0, "II*\0", "a TIFF picture"),
    MAGIC(0, "MM\0*", "a TIFF picture"),
    MAGIC(4, "ftyp", "a HEIC, AVIF or MP4 file"),
    MAGIC(0, "\x1f\x8b", "a gzip file"),
    MAGIC(0, "BZh", "a bzip2 file"),
    MAGIC(0,
          "\xfd"
          "7zXZ",
          "an xz file"),
    MAGIC(0, "\x28\xb5\x2f\xfd", "a zstd file"),
    MAGIC(0, "PAR1", "a Parquet file"),
    MAGIC(0, "\x89HDF", "an HDF5 file"),
    MAGIC(0, "\xd0\xcf\x11\xe0", "an old Office file (.xls)"),
    MAGIC(0, "%PDF", "a PDF file"),
    MAGIC(0, "SQLite format 3", "an SQLite database"),
    MAGIC(0, "COPDATA1", "a data set of this program (.pack)"),
    MAGIC(8, "{\"", "a safetensors file"),
    MAGIC(0, "version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file)"),
    MAGIC(0, "<!DOCTYPE", "an HTML page"),
    MAGIC(0, "<html", "an HTML page"),
    MAGIC(0, "\xff\xfe", "text in UTF-16 (save it as UTF-8)"),
    MAGIC(0, "\xfe\xff", "text in UTF-16 (save it as UTF-8)"),
    MAGIC(0, "\x80\4", "a Python pickle"),
    MAGIC(0, "\x80\5", "a Python pickle"),
};

/* True: the text looks like UTF-16, because in each of the first pairs of bytes, byte `zero` (0 or
 * 1) is 0 and the other byte is not. Most characters of Western languages are such pairs. */
static bool is_utf16(const unsigned char *b, size_t size, size_t zero) {
    const size_t checked = size < 64 ? size & ~(size_t)1 : 64;
    for (size_t i = 0; i < checked; i++)
        if ((b[i] == 0) != (i % 2 == zero)) return false;
    return checked >= 4;
}

static bool is_text(const unsigned char *b, size_t size) {
    const size_t checked = size < 512 ? size : 512;
    for (size_t i = 0; i < checked; i++)
        if (b[i] < ' ' && (!b[i] || !strchr("\t\n\r\f", b[i]))) return false;
    return true;
}

const char *cop_file_kind(const void *bytes, size_t size) {
    const unsigned char *b = bytes;
    const bool text = is_text(b, size);
    if (!size) return "empty";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const kind *k = &kinds[i];
        if (size < k->at + k->length || memcmp(b + k->at, k->bytes, k->length) != 0) continue;
        /* A text file may begin with "BM" or other short ASCII marks by chance. */
        if (!text || k->length > 3 || (unsigned char)k->bytes[0] > 127) return k->name;
    }
    if (is_utf16(b, size, 0) || is_utf16(b, size, 1)) return "text in UTF-16 (save it as UTF-8)";
    return text ? "a text file" : "a binary file of another format";
}
