/* Fuzz target: requests of clients to a coordinator. The input is a conversation: the number of a
 * method, its request as protobuf (length and bytes), and for PUT_CHUNK also the chunk. Each
 * request must get an answer that a client accepts, or be dropped when the peer disconnects. */
#include "coordinator/store/datasets_state.h"
#include "fuzz/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_world call_world;

/* Does the request name the built-in data set? Such requests are skipped: it takes a second to draw
 * this data set on the thread pool, which is allowed but slow. */
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
    /* Ends the coordinator and removes its state folder, if the conversation left something behind.
     */
    if (call_world.changed) fuzz_world_stop(&call_world);
    return 0;
}
