/* Encodes messages to frames and decodes frames (docs/reference/protocol.md). A frame consists of a
 * header of 64 bytes, a protobuf header of up to 64 KiB, and up to four raw parts. Zeros pad the
 * protobuf header and each part to a multiple of 64 bytes. Tensors are always in parts, never in
 * the protobuf header.
 *
 * The header of 64 bytes; numbers are little-endian:
 *
 *      0  u32      magic 0x57504f43, "COPW"
 *      4  u16      version: COP_PROTOCOL_MAJOR
 *      6  u16      type of the message
 *      8  u32      length of the protobuf header
 *     12  u32      flags; bit i: part i is present
 *     16  u64 x 4  lengths of the parts
 *     48  u64      XXH3 of all bytes before the first part, computed with 0 in this field
 *     56  u64      XXH3 of all bytes from the first part to the end
 *
 * The input may be hostile. Every length is checked before it is used. The protobuf header is
 * unpacked into an arena of limited size. Unknown values of enums, texts that are not UTF-8, and
 * zero bytes in texts are errors. */
#ifndef COP_WIRE_CODEC_H
#define COP_WIRE_CODEC_H

#include <protobuf-c/protobuf-c.h>

#include "common/wire/message.h"

/* The size of the encoded frame in bytes. */
size_t cop_codec_size(const cop_message *message);
/* Encodes a message into `out`, which has room for cop_codec_size bytes; all of them are written.
 * Between the buffers of the parts and the socket, parts are copied only here. */
void cop_codec_encode(const cop_message *message, void *out);
/* Encodes a message as cop_codec_encode does, but writes the given major version into the frame.
 * With this a program can send a FAILURE to a peer of another version: the header and FAILURE are
 * the same in all versions. Asserts that only a FAILURE gets another version than our own. */
void cop_codec_encode_as(const cop_message *message, uint16_t version, void *out);
/* The major version in the header of a frame. -1: the bytes are not a frame. */
int cop_codec_version(const cop_buffer *frame);
/* Decodes a frame. The parts of *out point into the frame, and each holds a reference to it, so no
 * part is copied. Release *out with cop_message_fini. PROTOCOL: the frame is malformed or damaged.
 * VERSION: it has another major version. NO_MEMORY. After an error *out is zeroed and owns
 * nothing. */
cop_err cop_codec_decode(cop_buffer *frame, cop_message *out, cop_error *error);

/* ---- protobuf-c messages in arenas with a limited number of bytes ---- */

/* An arena holds one root message, the messages inside it, and the memory that cop_proto_alloc
 * allocates for that root. An arena only grows, up to its budget, which is a number of bytes. It is
 * freed as a whole: pointers into it are valid until cop_proto_free of the root. Only one thread at
 * a time may use an arena. */

/* Unpacks a message into a new arena; free both with cop_proto_free. PROTOCOL: the bytes are
 * malformed, need more memory than `budget`, or contain an unknown enum value or a string that is
 * not UTF-8 or has a zero byte. NO_MEMORY: the heap is exhausted. */
cop_err cop_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                         size_t size, size_t budget, ProtobufCMessage **out, cop_error *error);
/* Frees a root message with its arena. `message` may be NULL. */
void cop_proto_free(ProtobufCMessage *message);
/* Makes an empty root message in a new arena, for the caller to fill in. Free both with
 * cop_proto_free. NULL: out of memory. */
ProtobufCMessage *cop_proto_create(const ProtobufCMessageDescriptor *descriptor, size_t budget);
/* Allocate zeroed memory, or a copy of a text, in the arena of `root`. `root` must be a message
 * from cop_proto_unpack or cop_proto_create. NULL: the heap or the budget of the arena is
 * exhausted. */
void *cop_proto_alloc(ProtobufCMessage *root, size_t size);
char *cop_proto_strdup(ProtobufCMessage *root, const char *text);
/* Why an allocation in the arena of `root` returned NULL. NO_MEMORY: the heap is exhausted. LIMIT:
 * the budget is exhausted. */
cop_err cop_proto_alloc_error(const ProtobufCMessage *root);
/* Set and get the one pointer that is attached to `root`; it is NULL at first. It must point to
 * memory of the arena of `root`. document.c attaches the list of the places where the fields of a
 * job were read. */
void cop_proto_attach(ProtobufCMessage *root, void *attachment);
void *cop_proto_attachment(const ProtobufCMessage *root);
/* Packs a message into a new buffer; the caller owns its one reference. NULL: out of memory. */
cop_buffer *cop_proto_pack(const ProtobufCMessage *message);

#endif
