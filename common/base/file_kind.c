/* Names the format of a file by its first bytes, for errors about an unexpected format. See file.h.
 */
#include <string.h>

#include "common/base/file.h"

typedef struct kind {
    uint32_t at;
    const char *bytes;
    uint32_t length;
    const char *name;
} kind;

#define MARK(at, text, name) {at, text, sizeof text - 1, name}

static const kind kinds[] = {
    MARK(0, "PK\3\4", "a ZIP archive (.zip, .npz, .xlsx)"),
    MARK(0, "\x93NUMPY", "an NPY file"),
    MARK(0, "\x89PNG\r\n\x1a\n", "a PNG picture"),
    MARK(0, "\xff\xd8\xff", "a JPEG picture"),
    MARK(0, "GIF8", "a GIF picture"),
    MARK(8, "WEBP", "a WebP picture"),
    MARK(0, "BM", "a BMP picture"),
    MARK(0, "II*\0", "a TIFF picture"),
    MARK(0, "MM\0*", "a TIFF picture"),
    MARK(4, "ftyp", "a HEIC, AVIF or MP4 file"),
    MARK(0, "\x1f\x8b", "a gzip file"),
    MARK(0, "BZh", "a bzip2 file"),
    MARK(0,
         "\xfd"
         "7zXZ",
         "an xz file"),
    MARK(0, "\x28\xb5\x2f\xfd", "a zstd file"),
    MARK(0, "PAR1", "a Parquet file"),
    MARK(0, "\x89HDF", "an HDF5 file"),
    MARK(0, "\xd0\xcf\x11\xe0", "an old Office file (.xls)"),
    MARK(0, "%PDF", "a PDF file"),
    MARK(0, "SQLite format 3", "an SQLite database"),
    MARK(0, "COPDATA1", "a data set of this program (.pack)"),
    MARK(8, "{\"", "a safetensors file"),
    MARK(0, "version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file)"),
    MARK(0, "<!DOCTYPE", "an HTML page"),
    MARK(0, "<html", "an HTML page"),
    MARK(0, "\xff\xfe", "text in UTF-16 (save it as UTF-8)"),
    MARK(0, "\xfe\xff", "text in UTF-16 (save it as UTF-8)"),
    MARK(0, "\x80\4", "a Python pickle"),
    MARK(0, "\x80\5", "a Python pickle"),
};

/* In UTF-16, most characters of Western languages have one zero byte: the byte `zero` of each pair.
 */
static bool is_utf16(const unsigned char *b, size_t size, size_t zero) {
    const size_t look = size < 64 ? size & ~(size_t)1 : 64;
    for (size_t i = 0; i < look; i++)
        if ((b[i] == 0) != (i % 2 == zero)) return false;
    return look >= 4;
}

static bool is_text(const unsigned char *b, size_t size) {
    const size_t look = size < 512 ? size : 512;
    for (size_t i = 0; i < look; i++)
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
        /* A text file may begin with "BM" as well. */
        if (!text || k->length > 3 || (unsigned char)k->bytes[0] > 127) return k->name;
    }
    if (is_utf16(b, size, 0) || is_utf16(b, size, 1)) return "text in UTF-16 (save it as UTF-8)";
    return text ? "a text file" : "a binary file of another format";
}
