/* Reads and writes fields of protobuf-c messages by their descriptors. See reflect.h. */
#include "common/wire/reflect.h"

#include <string.h>

#include "common/base/err.h"
#include "common/wire/codec.h"

static bool is_repeated(const cop_proto_field *field) {
    return field->label == PROTOBUF_C_LABEL_REPEATED;
}

/* Is a value of this field a pointer? Then an optional field is set if the pointer is not NULL. An
 * optional field of another type has a has_ flag at the offset of the quantifier. */
static bool is_pointer(const cop_proto_field *field) {
    return field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING;
}

static const void *value_of(const cop_proto *message, const cop_proto_field *field) {
    /* the field lies in this message */
    COP_ASSERT(field->offset < message->descriptor->sizeof_message);
    return (const char *)message + field->offset;
}

static const void *quantifier_of(const cop_proto *message, const cop_proto_field *field) {
    return (const char *)message + field->quantifier_offset;
}

const cop_proto_field *cop_reflect_find(const cop_proto_type *type, const char *name) {
    return name ? protobuf_c_message_descriptor_get_field_by_name(type, name) : NULL;
}

size_t cop_reflect_size(const cop_proto_field *field) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    default:
        return 4; /* 32-bit numbers, enums, protobuf_c_boolean */
    }
}

size_t cop_reflect_count(const cop_proto *message, const cop_proto_field *field) {
    if (is_repeated(field)) return *(const size_t *)quantifier_of(message, field);
    if (is_pointer(field)) return *(void *const *)value_of(message, field) != NULL;
    return *(const protobuf_c_boolean *)quantifier_of(message, field) != 0;
}

bool cop_reflect_is_set(const cop_proto *message, const cop_proto_field *field) {
    return cop_reflect_count(message, field) > 0;
}

const void *cop_reflect_at(const cop_proto *message, const cop_proto_field *field, size_t index) {
    const void *value = value_of(message, field);
    COP_ASSERT(index < (is_repeated(field) ? cop_reflect_count(message, field) : 1));
    if (!is_repeated(field)) return value;
    return *(const char *const *)value + index * cop_reflect_size(field);
}

cop_proto *cop_reflect_message(const cop_proto *message, const cop_proto_field *field,
                               size_t index) {
    COP_ASSERT(field->type == PROTOBUF_C_TYPE_MESSAGE);
    return *(cop_proto *const *)cop_reflect_at(message, field, index);
}

void *cop_reflect_put(cop_proto *message, const cop_proto_field *field) {
    COP_ASSERT(!is_repeated(field) && field->offset < message->descriptor->sizeof_message);
    char *base = (char *)message;
    if (!is_pointer(field)) *(protobuf_c_boolean *)(void *)(base + field->quantifier_offset) = 1;
    return base + field->offset;
}

void cop_reflect_put_list(cop_proto *message, const cop_proto_field *field, void *items,
                          size_t count) {
    COP_ASSERT(is_repeated(field) && (items || !count));
    COP_ASSERT(field->offset < message->descriptor->sizeof_message);
    char *base = (char *)message;
    *(size_t *)(void *)(base + field->quantifier_offset) = count;
    *(void **)(void *)(base + field->offset) = items;
}

void cop_reflect_clear(cop_proto *message, const cop_proto_field *field) {
    if (is_repeated(field)) {
        cop_reflect_put_list(message, field, NULL, 0);
        return;
    }
    char *base = (char *)message;
    if (is_pointer(field))
        *(void **)(void *)(base + field->offset) = NULL;
    else
        *(protobuf_c_boolean *)(void *)(base + field->quantifier_offset) = 0;
}

cop_proto *cop_reflect_new(cop_proto *root, const cop_proto_type *type) {
    COP_ASSERT(root != NULL && type != NULL);
    cop_proto *message = cop_proto_alloc(root, type->sizeof_message);
    if (message) protobuf_c_message_init(type, message);
    return message;
}
