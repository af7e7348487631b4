/* Fuzz target: any bytes as a frame. Build with clang -fsanitize=fuzzer,address,undefined, or let
 * tests/unit/wire/test_codec.c drive it. A frame that is taken must encode to one that is taken
 * again and says the same. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_message first, second;
    cop_buffer *frame = cop_buffer_create(size);
    if (!frame) return 0;
    if (size) memcpy(frame->data, data, size);
    if (!cop_codec_decode(frame, &first, NULL)) {
        cop_buffer *again = cop_buffer_create(cop_codec_size(&first));
        cop_codec_encode(&first, again->data);
        cop_err e = cop_codec_decode(again, &second, NULL);
        if (e || second.type != first.type) __builtin_trap();
        for (int i = 0; i < COP_MESSAGE_PARTS; i++)
            if (!first.part[i] != !second.part[i] ||
                (first.part[i] && first.part[i]->size != second.part[i]->size))
                __builtin_trap();
        cop_message_fini(&first);
        cop_message_fini(&second);
        cop_buffer_release(again);
    }
    cop_buffer_release(frame);
    return 0;
}
