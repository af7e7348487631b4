/* Fuzz target: random bytes as a picture, if they begin like a PNG file. They are read unchanged,
 * and with corrected checksums of chunks, so that the code behind the check of these is reached. */
#include <string.h>
#include <zlib.h>

#include "common/base/bytes.h"
#include "fuzz/picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIGNATURE "\x89PNG\r\n\x1a\n"

/* Corrects the checksums of all chunks. A chunk consists of a length, four letters, as many bytes
 * as the length says, and the CRC of letters and bytes. */
static void seal_chunks(uint8_t *png, size_t size) {
    for (size_t at = 8; size - at >= 12;) {
        const uint32_t length = cop_load_u32_big(png + at);
        if (length > size - at - 12) return;
        const uint32_t crc = (uint32_t)crc32_z(0, png + at + 4, length + 4);
        cop_store_u32(png + at + 8 + length, __builtin_bswap32(crc));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 8 || memcmp(data, SIGNATURE, 8) != 0) return -1;
    uint8_t *sealed = cop_alloc(size);
    FUZZ_CHECK(sealed);
    memcpy(sealed, data, size);
    seal_chunks(sealed, size);
    fuzz_picture(data, size);
    if (memcmp(sealed, data, size) != 0) fuzz_picture(sealed, size);
    cop_free(sealed);
    return 0;
}
