/* Shared by the fuzz targets of the wire: frames with correct hashes, so that the code behind the
 * check of the hashes is reached, and checks of accepted messages. */
#ifndef TESTS_FUZZ_WIRE_H
#define TESTS_FUZZ_WIRE_H

#include <string.h>

#include "common/base/hash.h"
#include "common/wire/codec.h"
#include "fuzz/fuzz.h"

/* Corrects magic, version and both hashes of a frame (common/wire/codec.h shows their places). Does
 * nothing if the frame is too short for its header or for the protobuf header. */
static inline void fuzz_seal(cop_buffer *frame) {
    char *bytes = frame->data;
    if (frame->size < COP_FRAME_HEADER_SIZE) return;
    const size_t proto = cop_load_u32(bytes + 8);
    const size_t body = cop_align_up(COP_FRAME_HEADER_SIZE + proto, 64);
    if (body > frame->size) return;
    cop_store_u32(bytes, 0x57504f43);
    cop_store_u16(bytes + 4, COP_PROTOCOL_MAJOR);
    cop_store_u64(bytes + 56, cop_hash_xxh3(bytes + body, frame->size - body));
    cop_store_u64(bytes + 48, 0);
    cop_store_u64(bytes + 48, cop_hash_xxh3(bytes, body));
}

/* A frame with these bytes as protobuf header and as parts. A part whose bytes are NULL is absent.
 */
static inline cop_buffer *fuzz_frame(uint16_t type, fuzz_bytes proto,
                                     const fuzz_bytes parts[COP_MESSAGE_PARTS]) {
    size_t body = cop_align_up(COP_FRAME_HEADER_SIZE + proto.size, 64), size = body;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) size += cop_align_up(parts[i].size, 64);
    cop_buffer *frame = cop_buffer_create(size);
    FUZZ_CHECK(frame);
    char *bytes = frame->data;
    uint32_t flags = 0;
    memset(bytes, 0, size);
    cop_store_u16(bytes + 6, type);
    cop_store_u32(bytes + 8, (uint32_t)proto.size);
    if (proto.size) memcpy(bytes + COP_FRAME_HEADER_SIZE, proto.at, proto.size);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        if (!parts[i].at) continue;
        flags |= 1u << i;
        cop_store_u64(bytes + 16 + 8 * i, parts[i].size);
        if (parts[i].size) memcpy(bytes + body, parts[i].at, parts[i].size);
        body += cop_align_up(parts[i].size, 64);
    }
    cop_store_u32(bytes + 12, flags);
    fuzz_seal(frame);
    return frame;
}

/* A message that was accepted, or that our own code has made, must be accepted again after
 * encoding, with the same type and with parts of the same sizes. */
static inline void fuzz_check_message(const cop_message *message) {
    cop_message again;
    cop_buffer *frame = cop_buffer_create(cop_codec_size(message));
    FUZZ_CHECK(frame);
    cop_codec_encode(message, frame->data);
    FUZZ_CHECK(!cop_codec_decode(frame, &again, NULL) && again.type == message->type);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        FUZZ_CHECK(!again.part[i] == !message->part[i]);
        FUZZ_CHECK(!again.part[i] || again.part[i]->size == message->part[i]->size);
    }
    cop_message_fini(&again);
    cop_buffer_release(frame);
}

/* Decodes a frame. True: the caller owns *out. False: the frame was refused with a message, and no
 * reference to it was kept. */
static inline bool fuzz_decode(cop_buffer *frame, cop_message *out) {
    cop_error error = {0};
    if (!cop_codec_decode(frame, out, &error)) return true;
    fuzz_refused(&error);
    FUZZ_CHECK(frame->references == 1);
    return false;
}

#endif
