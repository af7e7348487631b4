/* Fuzz target: what clients ask of a coordinator. The input is a conversation: the number of a
 * method, its request as protobuf (length and bytes), of PUT_CHUNK also the chunk. Each request is
 * answered, by something that a client can take, or with the peer's end at the latest. */
#include "coordinator/store/datasets_state.h"
#include "fuzz/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_world call_world;

/* The built-in set takes a second to draw, which anybody may ask for, on the thread pool. */
static bool names_built_in(fuzz_bytes body) {
    return memmem(body.at, body.size, COORD_BUILT_IN, strlen(COORD_BUILT_IN)) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes input = {data, size};
    if (!call_world.server) fuzz_world_start(&call_world);
    for (int i = 0; i < FUZZ_TALK_MOST && input.size; i++) {
        const uint32_t method = fuzz_byte(&input);
        const fuzz_bytes body = fuzz_piece(&input);
        const bool put = method == COPPICE__API__METHOD__PUT_CHUNK;
        const fuzz_bytes chunk = put ? fuzz_piece(&input) : (fuzz_bytes){0};
        if (!names_built_in(body)) fuzz_call(&call_world, method, body, put ? &chunk : NULL);
    }
    fuzz_leave(&call_world);
    /* What it left behind is no part of the next conversation. */
    if (call_world.changed) fuzz_world_stop(&call_world);
    return 0;
}
