/* Fuzz target: random bytes as a frame, first unchanged and then with corrected hashes. The message
 * of an accepted frame must be accepted again after encoding. */
#include "fuzz/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_frame(cop_buffer *frame) {
    cop_message message;
    if (!fuzz_decode(frame, &message)) return;
    fuzz_check_message(&message);
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
