/* Frames (docs/reference/protocol.md): 64-byte header {magic "COPW", version, type, lengths, XXH3}
 * + protobuf header (<= 64 KiB) + padding to 64 + raw parts, each padded to 64 bytes. Tensors are
 * never inside protobuf.
 *
 * Layout of the 64 bytes, little-endian: 0 magic u32 0x57504f43; 4 version u16 (=
 * COP_PROTOCOL_MAJOR); 6 type u16; 8 protobuf length u32; 12 flags u32 (bit i: part i is there); 16
 * part lengths u64 x 4; 48 XXH3 of everything before the parts, with this field as zero, u64; 56
 * XXH3 of everything from the parts on, u64.
 *
 * Hostile input (W5): every length is checked before it is used, unpacking runs on a budgeted
 * arena, enums, UTF-8 and NULs are checked. */
#ifndef COP_WIRE_CODEC_H
#define COP_WIRE_CODEC_H

#include <protobuf-c/protobuf-c.h>

#include "common/wire/message.h"

/* Bytes of the encoded frame. */
size_t cop_codec_size(const cop_message *message);
/* Writes exactly cop_codec_size bytes. Copies the parts (the only copy on the way out). */
void cop_codec_encode(const cop_message *message, void *out);
/* The same in a frame of another major version: a FAILURE that tells its peer so. The header and
 * FAILURE are the same in all versions. */
void cop_codec_encode_as(const cop_message *message, uint16_t version, void *out);
/* The major version that a frame names; -1: it is no frame of any. */
int cop_codec_version(const cop_buffer *frame);
/* Decodes a frame that `frame` holds (one reference is taken per part: parts point into it, nothing
 * is copied). PROTOCOL or VERSION with a sentence if it is not a valid frame; then *out is zeroed
 * and nothing is held. */
cop_err cop_codec_decode(cop_buffer *frame, cop_message *out, cop_error *error);

/* ---- protobuf-c with a byte budget: messages live in an arena (cop_alloc) ---- */

/* Unpack with the budget; free with cop_proto_free. PROTOCOL if malformed or over budget; strings
 * are checked for UTF-8 and NULs, enums for known values, nesting is bounded by the schema (no
 * recursive types). NO_MEMORY if the heap has none. */
cop_err cop_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                         size_t size, size_t budget, ProtobufCMessage **out, cop_error *error);
void cop_proto_free(ProtobufCMessage *message);
/* An empty message of this type with an arena of its own, for building one (budget in bytes); NULL:
 * out of memory. Free with cop_proto_free. */
ProtobufCMessage *cop_proto_create(const ProtobufCMessageDescriptor *descriptor, size_t budget);
/* Zeroed memory that lives as long as `root` (a message from cop_proto_unpack or cop_proto_create);
 * NULL: out of memory or over budget. */
void *cop_proto_alloc(ProtobufCMessage *root, size_t size);
char *cop_proto_strdup(ProtobufCMessage *root, const char *text);
/* Why one of these gave NULL: NO_MEMORY or LIMIT (the budget). */
cop_err cop_proto_alloc_error(const ProtobufCMessage *root);
/* One pointer that travels with `root`, for what its memory holds beside the message (document.c
 * keeps where each field was read). NULL until attached. */
void cop_proto_attach(ProtobufCMessage *root, void *attachment);
void *cop_proto_attachment(const ProtobufCMessage *root);
/* Pack into a new buffer (one reference). NULL: out of memory. */
cop_buffer *cop_proto_pack(const ProtobufCMessage *message);

#endif
