/* Limits the memory of protobuf-c messages. A message from outside is unpacked into an arena of
 * limited size, so a small message cannot expand without bound. Its bytes are scanned first,
 * because protobuf-c would silently cut strings at a zero byte and accept unknown enum values.
 * Messages that this program builds are in arenas, too.
 *
 * An arena is a list of blocks, which are freed together. A pointer to the arena is stored right
 * before the root message:
 *
 *     first block: [arena *, padded to 16][root message][...]
 */
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/str.h"
#include "common/wire/codec.h"
#include "common/wire/reflect.h"

#define ARENA_ALIGN 16
#define ARENA_BLOCK 4096
#define DEPTH_MAX   16 /* levels of messages; the schemas have fewer, and no recursive types */

typedef struct arena_block arena_block;
struct arena_block {
    _Alignas(ARENA_ALIGN) arena_block *next;
    size_t used, size;
};
typedef struct arena {
    arena_block *blocks; /* newest first */
    size_t left;         /* bytes of the budget that are left */
    bool no_memory;      /* an allocation failed because the heap was exhausted */
    void *attachment;    /* cop_proto_attach */
} arena;

static void *arena_alloc(void *data, size_t size) {
    arena *a = data;
    if (size > a->left) return NULL;
    size = cop_align_up(size ? size : 1, ARENA_ALIGN);
    if (size > a->left) return NULL;
    arena_block *b = a->blocks;
    if (!b || b->size - b->used < size) {
        size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        b = cop_alloc(sizeof *b + room);
        if (!b) {
            a->no_memory = true;
            return NULL;
        }
        b->size = room;
        b->next = a->blocks;
        a->blocks = b;
    }
    COP_ASSERT(b->size - b->used >= size && a->left >= size);
    void *at = (char *)(b + 1) + b->used;
    b->used += size;
    a->left -= size;
    return at;
}

static void arena_free(void *data, void *pointer) {
    (void)data;
    (void)pointer; /* arena_destroy frees its memory */
}

static void arena_destroy(arena *a) {
    while (a->blocks) {
        arena_block *next = a->blocks->next;
        cop_free(a->blocks);
        a->blocks = next;
    }
    cop_free(a);
}

/* Makes an arena. The first allocation from it must be the root message, so that the pointer to the
 * arena is right before the message. NULL: out of memory. */
static arena *arena_create(size_t budget) {
    arena *a = cop_alloc(sizeof *a);
    if (!a) return NULL;
    a->left = budget;
    arena **back = arena_alloc(a, ARENA_ALIGN);
    if (!back) {
        arena_destroy(a);
        return NULL;
    }
    *back = a;
    return a;
}

static arena *arena_of(const cop_proto *root) {
    COP_ASSERT(root != NULL);
    return *(arena *const *)(const void *)((const char *)root - ARENA_ALIGN);
}

/* ---- scanning packed bytes ---- */

/* Packed bytes that are still to be scanned. */
typedef struct packed {
    const uint8_t *at, *end;
} packed;

static bool take_varint(packed *p, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 70 && p->at < p->end; shift += 7) {
        uint8_t byte = *p->at++;
        if (shift < 64) *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool take_bytes(packed *p, uint64_t size, packed *out) {
    if (size > (uint64_t)(p->end - p->at)) return false;
    *out = (packed){p->at, p->at + size};
    p->at += size;
    return true;
}

static cop_err scan_message(const cop_proto_type *type, packed bytes, int depth, cop_error *error);

static cop_err malformed(const cop_proto_type *type, cop_error *error) {
    return cop_fail(error, COP_ERR_PROTOCOL, "malformed: not a %s", type->name);
}

static cop_err scan_enum(const cop_proto_field *field, uint64_t value, cop_error *error) {
    int number = (int)(int64_t)value;
    if (value <= INT32_MAX && protobuf_c_enum_descriptor_get_value(field->descriptor, number))
        return COP_OK;
    return cop_fail(error, COP_ERR_PROTOCOL, "field %s has the unknown value %lld", field->name,
                    (long long)value);
}

/* Scans a value of wire type 2, which is a string, bytes, a message, or packed numbers or enums. */
static cop_err scan_bytes(const cop_proto_field *field, packed bytes, int depth, cop_error *error) {
    uint64_t value;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        if (cop_utf8_valid((const char *)bytes.at, (size_t)(bytes.end - bytes.at))) return COP_OK;
        return cop_fail(error, COP_ERR_PROTOCOL, "field %s is not UTF-8 text without NUL",
                        field->name);
    case PROTOBUF_C_TYPE_MESSAGE:
        return scan_message(field->descriptor, bytes, depth + 1, error);
    case PROTOBUF_C_TYPE_ENUM:
        while (bytes.at < bytes.end) {
            if (!take_varint(&bytes, &value))
                return cop_fail(error, COP_ERR_PROTOCOL, "field %s is malformed", field->name);
            COP_TRY(scan_enum(field, value, error));
        }
        return COP_OK;
    default:
        return COP_OK;
    }
}

static cop_err scan_field(const cop_proto_type *type, packed *p, int depth, cop_error *error) {
    uint64_t key, value;
    packed inner;
    if (!take_varint(p, &key) || key > UINT32_MAX) return malformed(type, error);
    const cop_proto_field *field =
        protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3));
    switch (key & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!take_varint(p, &value)) return malformed(type, error);
        return field && field->type == PROTOBUF_C_TYPE_ENUM ? scan_enum(field, value, error)
                                                            : COP_OK;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!take_varint(p, &value) || !take_bytes(p, value, &inner)) return malformed(type, error);
        return field ? scan_bytes(field, inner, depth, error) : COP_OK;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return take_bytes(p, 8, &inner) ? COP_OK : malformed(type, error);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return take_bytes(p, 4, &inner) ? COP_OK : malformed(type, error);
    default:
        return malformed(type, error); /* groups */
    }
}

static cop_err scan_message(const cop_proto_type *type, packed bytes, int depth, cop_error *error) {
    COP_ASSERT(bytes.at <= bytes.end && depth >= 0);
    if (depth > DEPTH_MAX) return malformed(type, error);
    while (bytes.at < bytes.end) COP_TRY(scan_field(type, &bytes, depth, error));
    return COP_OK;
}

/* ---- the public functions ---- */

cop_err cop_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                         size_t size, size_t budget, ProtobufCMessage **out, cop_error *error) {
    COP_ASSERT(bytes != NULL || !size);
    packed all = {bytes, (const uint8_t *)bytes + size};
    if (size) COP_TRY(scan_message(descriptor, all, 0, error));
    arena *a = arena_create(budget);
    if (!a) return cop_no_memory(error);
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = a};
    cop_proto *message = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
    if (!message) {
        const bool no_memory = a->no_memory;
        arena_destroy(a);
        if (no_memory) return cop_no_memory(error);
        return cop_fail(error, COP_ERR_PROTOCOL, "malformed or too large: not a %s",
                        descriptor->name);
    }
    COP_ASSERT(arena_of(message) == a); /* protobuf-c allocates the message first */
    *out = message;
    return COP_OK;
}

void cop_proto_free(ProtobufCMessage *message) {
    if (message) arena_destroy(arena_of(message));
}

ProtobufCMessage *cop_proto_create(const ProtobufCMessageDescriptor *descriptor, size_t budget) {
    arena *a = arena_create(budget);
    if (!a) return NULL;
    cop_proto *message = arena_alloc(a, descriptor->sizeof_message);
    if (!message) {
        arena_destroy(a);
        return NULL;
    }
    protobuf_c_message_init(descriptor, message);
    COP_ASSERT(arena_of(message) == a);
    return message;
}

cop_err cop_proto_alloc_error(const ProtobufCMessage *root) {
    return arena_of(root)->no_memory ? COP_ERR_NO_MEMORY : COP_ERR_LIMIT;
}

void *cop_proto_alloc(ProtobufCMessage *root, size_t size) {
    void *block = arena_alloc(arena_of(root), size);
    if (block) memset(block, 0, size);
    return block;
}

char *cop_proto_strdup(ProtobufCMessage *root, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = cop_proto_alloc(root, size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

void cop_proto_attach(ProtobufCMessage *root, void *attachment) {
    arena_of(root)->attachment = attachment;
}

void *cop_proto_attachment(const ProtobufCMessage *root) {
    return arena_of(root)->attachment;
}

cop_buffer *cop_proto_pack(const ProtobufCMessage *message) {
    size_t size = protobuf_c_message_get_packed_size(message);
    cop_buffer *buffer = cop_buffer_create(size);
    if (!buffer) return NULL;
    const size_t written = protobuf_c_message_pack(message, buffer->data);
    COP_ASSERT(written == size);
    return buffer;
}
