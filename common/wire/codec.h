/* Frames (docs/reference/protocol.md): a header of 64 bytes, a protobuf header (up to 64 KiB),
 * padding to 64, then raw parts, each padded to 64 bytes. Tensors are never inside protobuf.
 *
 * The 64 bytes, little-endian:
 *
 *      0  u32      magic 0x57504f43, "COPW"
 *      4  u16      version: COP_PROTOCOL_MAJOR
 *      6  u16      type of the message
 *      8  u32      length of the protobuf header
 *     12  u32      flags; bit i: part i is present
 *     16  u64 x 4  lengths of the parts
 *     48  u64      XXH3 of everything before the parts, with this field as zero
 *     56  u64      XXH3 of everything from the parts on
 *
 * Hostile input (W5): every length is checked before it is used. Unpacking runs in an arena with a
 * budget, and checks enums, UTF-8 and zero bytes in texts. */
#ifndef COP_WIRE_CODEC_H
#define COP_WIRE_CODEC_H

#include <protobuf-c/protobuf-c.h>

#include "common/wire/message.h"

/* The size of the encoded frame in bytes. */
size_t cop_codec_size(const cop_message *message);
/* Encodes a message into exactly cop_codec_size bytes. This is the only copy of the parts on their
 * way out. */
void cop_codec_encode(const cop_message *message, void *out);
/* As cop_codec_encode, in a frame of another major version, for a FAILURE that its peer can read.
 * The header and FAILURE are the same in all versions. */
void cop_codec_encode_as(const cop_message *message, uint16_t version, void *out);
/* The major version of a frame; -1: it is not a frame. */
int cop_codec_version(const cop_buffer *frame);
/* Decodes a frame. Parts point into it, and each takes a reference to it; nothing is copied.
 * Release *out with cop_message_fini. PROTOCOL, VERSION: not a valid frame. After an error *out is
 * zeroed and holds nothing. */
cop_err cop_codec_decode(cop_buffer *frame, cop_message *out, cop_error *error);

/* ---- protobuf-c with a budget in bytes: each message lives in an arena of its own ---- */

/* An arena holds one root message, the messages inside it, and whatever cop_proto_alloc gives for
 * it. It only grows, up to its budget, and is freed as a whole: pointers into it are good until
 * cop_proto_free of the root. Only one thread at a time may use it. */

/* Unpacks a message into a new arena; free it with cop_proto_free. PROTOCOL: the bytes are
 * malformed, need more than the budget, or hold a string that is not UTF-8 or has a zero byte, or
 * an unknown enum value. NO_MEMORY: the heap is exhausted. */
cop_err cop_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                         size_t size, size_t budget, ProtobufCMessage **out, cop_error *error);
/* Frees the arena of a root message; NULL is fine. */
void cop_proto_free(ProtobufCMessage *message);
/* Makes an empty message with a new arena, to be filled in. NULL: out of memory. Free it with
 * cop_proto_free. */
ProtobufCMessage *cop_proto_create(const ProtobufCMessageDescriptor *descriptor, size_t budget);
/* Allocates zeroed memory, or a copy of a text, in the arena of `root`, a message from
 * cop_proto_unpack or cop_proto_create. NULL: out of memory or over budget. */
void *cop_proto_alloc(ProtobufCMessage *root, size_t size);
char *cop_proto_strdup(ProtobufCMessage *root, const char *text);
/* Why one of these returned NULL: NO_MEMORY, or LIMIT, the budget. */
cop_err cop_proto_alloc_error(const ProtobufCMessage *root);
/* Attaches one pointer to `root`, to memory of its arena (document.c keeps there where each field
 * was read). NULL until attached. */
void cop_proto_attach(ProtobufCMessage *root, void *attachment);
void *cop_proto_attachment(const ProtobufCMessage *root);
/* Packs a message into a new buffer with one reference. NULL: out of memory. */
cop_buffer *cop_proto_pack(const ProtobufCMessage *message);

#endif
