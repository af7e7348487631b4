/* Inside common/wire and common/job: fields of protobuf-c messages by their descriptors. The one
 * place that knows how protobuf-c lays out a message: offsets, quantifiers, arrays of repeated
 * fields. */
#ifndef COP_WIRE_REFLECT_H
#define COP_WIRE_REFLECT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

typedef ProtobufCMessage cop_proto;
typedef ProtobufCMessageDescriptor cop_proto_type;
typedef ProtobufCFieldDescriptor cop_proto_field;

/* The field with this name; NULL if the type has none (or name is NULL). */
const cop_proto_field *cop_reflect_find(const cop_proto_type *type, const char *name);
/* Bytes of one value of this field: an element of the array, for repeated fields. */
size_t cop_reflect_size(const cop_proto_field *field);
/* Is there a value? A repeated field: at least one. */
bool cop_reflect_is_set(const cop_proto *message, const cop_proto_field *field);
/* Number of values: of a repeated field its length, else 0 or 1. */
size_t cop_reflect_count(const cop_proto *message, const cop_proto_field *field);
/* The value with this index (0 for a field that is not repeated): a pointer to a number, to a char
 * *, to a message *. */
const void *cop_reflect_at(const cop_proto *message, const cop_proto_field *field, size_t index);
/* The message with this index; the field's type is a message. NULL: not set. */
cop_proto *cop_reflect_message(const cop_proto *message, const cop_proto_field *field,
                               size_t index);

/* Where to write the value of a field that is not repeated, which counts as set from then on. */
void *cop_reflect_put(cop_proto *message, const cop_proto_field *field);
/* Give a repeated field its values; the array must live as long as the message. */
void cop_reflect_put_list(cop_proto *message, const cop_proto_field *field, void *items,
                          size_t count);
/* As if the field had never been set. Frees nothing: memory belongs to the root's arena. */
void cop_reflect_clear(cop_proto *message, const cop_proto_field *field);
/* A new, empty message that lives as long as `root` (codec.h); NULL: out of memory. */
cop_proto *cop_reflect_new(cop_proto *root, const cop_proto_type *type);

#endif
