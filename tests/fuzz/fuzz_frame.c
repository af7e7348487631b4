/* Fuzz target: any bytes as a frame; as they are, and with hashes that fit. A frame that is taken
 * must encode to one that is taken again and says the same. */
#include "fuzz/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_frame(cop_buffer *frame) {
    cop_message message;
    if (!fuzz_decode(frame, &message)) return;
    fuzz_judge_message(&message);
    cop_message_fini(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cop_buffer *frame = cop_buffer_create(size);
    FUZZ_CHECK(frame);
    if (size) memcpy(frame->data, data, size);
    take_frame(frame);
    fuzz_seal(frame);
    take_frame(frame);
    cop_buffer_release(frame);
    return 0;
}
