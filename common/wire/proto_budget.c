/* protobuf-c with a budget: unpacking outside input takes memory from one arena whose size is
 * capped, so that a small message cannot expand without bound (W5); then every string, enum and
 * bytes field is checked. */
#include <protobuf-c/protobuf-c.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/str.h"
#include "common/wire/codec.h"

/* An arena is a list of blocks; freed as a whole. A pointer to it lies right before the root
 * message, which is the first allocation after it; every message struct is smaller than a block, so
 * both lie in the first. */
typedef struct arena_block arena_block;
struct arena_block {
    arena_block *next;
    size_t used, size;
};
typedef struct arena {
    arena_block *blocks;
    size_t left; /* of the budget */
} arena;

#define ARENA_BLOCK 4096

static void *arena_alloc(void *data, size_t size) {
    arena *a = data;
    if (size > a->left) return NULL;
    size = cop_align_up(size ? size : 1, 16);
    if (size > a->left) return NULL;
    arena_block *b = a->blocks;
    if (!b || b->size - b->used < size) {
        size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        b = cop_alloc(sizeof *b + 16 + room);
        if (!b) return NULL;
        b->size = room;
        b->next = a->blocks;
        a->blocks = b;
    }
    char *base = (char *)b + cop_align_up(sizeof *b, 16);
    void *at = base + b->used;
    b->used += size;
    a->left -= size;
    return at;
}

static void arena_free(void *data, void *pointer) {
    (void)data;
    (void)pointer; /* with the arena */
}

static void arena_destroy(arena *a) {
    while (a->blocks) {
        arena_block *next = a->blocks->next;
        cop_free(a->blocks);
        a->blocks = next;
    }
    cop_free(a);
}

/* ---- checks of what protobuf-c lets through ---- */

static cop_err check_message(const ProtobufCMessage *message, cop_error *error);

static cop_err check_value(const ProtobufCFieldDescriptor *field, const void *at,
                           cop_error *error) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)at;
        if (text && !cop_utf8_valid(text, strlen(text)))
            return cop_fail(error, COP_ERR_PROTOCOL, "field %s is not UTF-8", field->name);
        return COP_OK;
    }
    case PROTOBUF_C_TYPE_ENUM:
        if (!protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at))
            return cop_fail(error, COP_ERR_PROTOCOL, "field %s has the unknown value %d",
                            field->name, *(const int *)at);
        return COP_OK;
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *inner = *(const ProtobufCMessage *const *)at;
        return inner ? check_message(inner, error) : COP_OK;
    }
    default:
        return COP_OK;
    }
}

static size_t value_size(const ProtobufCFieldDescriptor *field) {
    return field->type == PROTOBUF_C_TYPE_ENUM ? sizeof(int) : sizeof(void *);
}

static bool needs_check(const ProtobufCFieldDescriptor *field) {
    return field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_ENUM ||
           field->type == PROTOBUF_C_TYPE_MESSAGE;
}

static cop_err check_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                           cop_error *error) {
    const char *base = (const char *)message, *at = base + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
        const char *items = *(const char *const *)(const void *)at;
        for (size_t i = 0; i < count; i++)
            COP_TRY(check_value(field, items + i * value_size(field), error));
        return COP_OK;
    }
    if (field->type == PROTOBUF_C_TYPE_ENUM &&
        !*(const protobuf_c_boolean *)(const void *)(base + field->quantifier_offset))
        return COP_OK;
    return check_value(field, at, error);
}

static cop_err check_message(const ProtobufCMessage *message, cop_error *error) {
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (needs_check(&descriptor->fields[i]))
            COP_TRY(check_field(message, &descriptor->fields[i], error));
    return COP_OK;
}

/* protobuf-c cuts a string at an embedded NUL without saying so; packing again then gives fewer
 * bytes. Unknown fields are kept by protobuf-c and packed again, so a difference can only come from
 * NULs or from a non-canonical encoding of known fields, which our programs never write. */
static bool strings_whole(const ProtobufCMessage *message, size_t size) {
    return protobuf_c_message_get_packed_size(message) >= size || message->n_unknown_fields > 0;
}

cop_err cop_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                         size_t size, size_t budget, ProtobufCMessage **out, cop_error *error) {
    arena *a = cop_alloc(sizeof *a);
    if (!a) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    a->left = budget;
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = a};
    /* The first allocation of the arena remembers the arena itself, right before the message. */
    arena **back = arena_alloc(a, sizeof *back);
    if (!back) {
        arena_destroy(a);
        return cop_fail(error, COP_ERR_PROTOCOL, "the memory limit is too small");
    }
    *back = a;
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
    cop_err e = COP_OK;
    if (!message)
        e = cop_fail(error, COP_ERR_PROTOCOL, "malformed or too large: not a %s", descriptor->name);
    else if (!strings_whole(message, size))
        e = cop_fail(error, COP_ERR_PROTOCOL, "%s holds a NUL in a string", descriptor->name);
    else
        e = check_message(message, error);
    if (e) {
        arena_destroy(a);
        return e;
    }
    *out = message;
    COP_ASSERT((char *)message == (char *)back + 16); /* the second allocation is the message */
    return COP_OK;
}

static arena *arena_of(ProtobufCMessage *root) {
    return *(arena **)(void *)((char *)root - 16);
}

void cop_proto_free(ProtobufCMessage *message) {
    if (!message) return;
    arena_destroy(arena_of(message));
}

ProtobufCMessage *cop_proto_create(const ProtobufCMessageDescriptor *descriptor, size_t budget) {
    arena *a = cop_alloc(sizeof *a);
    if (!a) return NULL;
    a->left = budget;
    arena **back = arena_alloc(a, sizeof *back);
    ProtobufCMessage *message = back ? arena_alloc(a, descriptor->sizeof_message) : NULL;
    if (!message) {
        arena_destroy(a);
        return NULL;
    }
    COP_ASSERT((char *)message == (char *)back + 16);
    *back = a;
    protobuf_c_message_init(descriptor, message);
    return message;
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

cop_buffer *cop_proto_pack(const ProtobufCMessage *message) {
    size_t size = protobuf_c_message_get_packed_size(message);
    cop_buffer *buffer = cop_buffer_create(size);
    if (buffer) protobuf_c_message_pack(message, buffer->data);
    return buffer;
}
