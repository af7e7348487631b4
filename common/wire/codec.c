/* Encodes and decodes frames. Only this file converts messages to bytes and bytes to messages. See
 * codec.h and docs/reference/protocol.md. */
#include "common/wire/codec.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/wire/message_proto.h"

#define MAGIC 0x57504f43u /* "COPW" */
#define PAD   64

/* The first 64 bytes of a frame, as in codec.h. */
typedef struct frame_header {
    uint32_t magic;
    uint16_t version, type;
    uint32_t proto_size, flags;
    uint64_t part_size[COP_MESSAGE_PARTS];
    uint64_t head_hash, body_hash;
} frame_header;
_Static_assert(sizeof(frame_header) == COP_FRAME_HEADER_SIZE, "the frame header is 64 bytes");

/* ---- encoding ---- */

static size_t parts_size(const cop_message *message) {
    size_t size = 0;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (message->part[i]) size += cop_align_up(message->part[i]->size, PAD);
    return size;
}

size_t cop_codec_size(const cop_message *message) {
    cop_message_proto proto;
    cop_message_to_proto(message, &proto);
    size_t packed = protobuf_c_message_get_packed_size(&proto.base);
    return cop_align_up(COP_FRAME_HEADER_SIZE + packed, PAD) + parts_size(message);
}

/* Copies the parts and their padding to `to`, and hashes them, in one pass over memory. Sets flags,
 * sizes and hash of the parts in the header. */
static void copy_parts(const cop_message *message, char *to, frame_header *header) {
    cop_xxh3 hash;
    cop_xxh3_init(&hash);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        const cop_buffer *part = message->part[i];
        if (!part) continue;
        COP_ASSERT(part->size <= part->capacity);
        size_t padded = cop_align_up(part->size, PAD);
        cop_xxh3_copy(&hash, to, part->data, part->size);
        memset(to + part->size, 0, padded - part->size);
        cop_xxh3_update(&hash, to + part->size, padded - part->size);
        header->flags |= 1u << i;
        header->part_size[i] = part->size;
        to += padded;
    }
    header->body_hash = cop_xxh3_final(&hash);
}

void cop_codec_encode(const cop_message *message, void *out) {
    cop_codec_encode_as(message, COP_PROTOCOL_MAJOR, out);
}

void cop_codec_encode_as(const cop_message *message, uint16_t version, void *out) {
    COP_ASSERT(version == COP_PROTOCOL_MAJOR || message->type == COP_MESSAGE_FAILURE);
    cop_message_proto proto;
    frame_header header = {.magic = MAGIC, .version = version, .type = (uint16_t)message->type};
    char *bytes = out;
    cop_message_to_proto(message, &proto);
    header.proto_size =
        (uint32_t)protobuf_c_message_pack(&proto.base, (uint8_t *)bytes + COP_FRAME_HEADER_SIZE);
    COP_ASSERT(header.proto_size <= COP_FRAME_PROTO_MAX);
    size_t head = COP_FRAME_HEADER_SIZE + header.proto_size, body = cop_align_up(head, PAD);
    memset(bytes + head, 0, body - head);
    copy_parts(message, bytes + body, &header);
    /* head_hash also covers body_hash, so it comes last; it is 0 while it is computed. */
    memcpy(bytes, &header, sizeof header);
    header.head_hash = cop_hash_xxh3(bytes, body);
    memcpy(bytes, &header, sizeof header);
}

/* ---- decoding ---- */

int cop_codec_version(const cop_buffer *frame) {
    frame_header h;
    if (frame->size < sizeof h) return -1;
    memcpy(&h, frame->data, sizeof h);
    return h.magic == MAGIC ? h.version : -1;
}

/* Checks magic number and version, and the lengths in the header against each other and against the
 * size of the frame. *body: the offset of the first part. */
static cop_err check_frame(const cop_buffer *frame, const frame_header *h, size_t *body,
                           cop_error *error) {
    if (h->magic != MAGIC) return cop_fail(error, COP_ERR_PROTOCOL, "not a Coppice frame");
    if (h->version != COP_PROTOCOL_MAJOR)
        return cop_fail(error, COP_ERR_VERSION, "the peer speaks protocol %u, this program %d",
                        h->version, COP_PROTOCOL_MAJOR);
    if (h->proto_size > COP_FRAME_PROTO_MAX ||
        COP_FRAME_HEADER_SIZE + (size_t)h->proto_size > frame->size ||
        h->flags >> COP_MESSAGE_PARTS)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame's header has inconsistent lengths");
    *body = cop_align_up(COP_FRAME_HEADER_SIZE + (size_t)h->proto_size, PAD);
    size_t rest = frame->size >= *body ? frame->size - *body : 0;
    bool fits = frame->size >= *body;
    for (int i = 0; i < COP_MESSAGE_PARTS && fits; i++) {
        const bool present = h->flags >> i & 1;
        fits = present ? h->part_size[i] <= rest && cop_align_up(h->part_size[i], PAD) <= rest
                       : h->part_size[i] == 0;
        if (fits && present) rest -= cop_align_up(h->part_size[i], PAD);
    }
    if (!fits || rest)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame's header has inconsistent lengths");
    return COP_OK;
}

static cop_err check_hashes(const cop_buffer *frame, const frame_header *h, size_t body,
                            cop_error *error) {
    COP_ASSERT(body >= sizeof *h && body <= frame->size);
    const char *bytes = frame->data;
    frame_header zeroed = *h;
    zeroed.head_hash = 0;
    if (cop_hash_xxh3_pair(&zeroed, sizeof zeroed, bytes + sizeof zeroed, body - sizeof zeroed) !=
            h->head_hash ||
        cop_hash_xxh3(bytes + body, frame->size - body) != h->body_hash)
        return cop_fail(error, COP_ERR_PROTOCOL, "the frame was damaged in transit (hash)");
    return COP_OK;
}

static void release_frame(cop_buffer *part) {
    cop_buffer_release(part->owner);
    cop_free(part);
}

static cop_err make_parts(cop_buffer *frame, const frame_header *h, size_t body, cop_message *out) {
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        if (!(h->flags >> i & 1)) continue;
        out->part[i] =
            cop_buffer_wrap((char *)frame->data + body, h->part_size[i], frame, release_frame);
        if (!out->part[i]) return COP_ERR_NO_MEMORY;
        cop_buffer_hold(frame);
        body += cop_align_up(h->part_size[i], PAD);
    }
    COP_ASSERT(body == frame->size); /* check_frame has checked it */
    return COP_OK;
}

static cop_err decode_proto(const cop_buffer *frame, const frame_header *h, cop_message *out,
                            cop_error *error) {
    const ProtobufCMessageDescriptor *descriptor = cop_message_descriptor(h->type);
    ProtobufCMessage *message = NULL;
    if (!descriptor) return cop_fail(error, COP_ERR_PROTOCOL, "unknown message type %u", h->type);
    COP_TRY(cop_proto_unpack(descriptor, (const char *)frame->data + COP_FRAME_HEADER_SIZE,
                             h->proto_size, COP_FRAME_UNPACK_MAX, &message, error));
    out->type = (cop_message_type)h->type;
    bool good = cop_message_from_proto(message, out);
    cop_proto_free(message);
    return good ? COP_OK
                : cop_fail(error, COP_ERR_PROTOCOL, "a field of %s is missing or malformed",
                           cop_message_type_name(out->type));
}

cop_err cop_codec_decode(cop_buffer *frame, cop_message *out, cop_error *error) {
    frame_header h;
    size_t body = 0;
    memset(out, 0, sizeof *out);
    if (frame->size < sizeof h)
        return cop_fail(error, COP_ERR_PROTOCOL, "expected a frame of at least %d bytes, found %zu",
                        COP_FRAME_HEADER_SIZE, frame->size);
    memcpy(&h, frame->data, sizeof h);
    COP_TRY(check_frame(frame, &h, &body, error));
    COP_TRY(check_hashes(frame, &h, body, error));
    cop_err e = decode_proto(frame, &h, out, error);
    if (!e && (e = make_parts(frame, &h, body, out))) cop_fail(error, e, "out of memory");
    if (e) cop_message_fini(out);
    return e;
}
