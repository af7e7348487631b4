/* Inside common/wire and common/job: access to fields of protobuf-c messages by their descriptors.
 * Only reflect.c knows how protobuf-c lays out a message: offsets, quantifiers, arrays of repeated
 * fields.
 *
 * protobuf-c generates a C struct per message. For each field the descriptor has the offset of the
 * value and the offset of a quantifier: the length of a repeated field, or the has_ flag of an
 * optional number, bool, enum or bytes. Optional strings and messages have no flag: they are set if
 * the pointer is not NULL. A repeated field is a pointer to an array of values; for strings and
 * messages, of pointers. `message` and `field` must belong together: the functions assert it where
 * they can. */
#ifndef COP_WIRE_REFLECT_H
#define COP_WIRE_REFLECT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

typedef ProtobufCMessage cop_proto;
typedef ProtobufCMessageDescriptor cop_proto_type;
typedef ProtobufCFieldDescriptor cop_proto_field;

/* The field with this name, owned by the type; NULL: there is none, or `name` is NULL. */
const cop_proto_field *cop_reflect_find(const cop_proto_type *type, const char *name);
/* The size of one value in bytes; of a repeated field, of one element. */
size_t cop_reflect_size(const cop_proto_field *field);
/* Is the field set? A repeated one is if it has an element. */
bool cop_reflect_is_set(const cop_proto *message, const cop_proto_field *field);
/* The number of values: the length of a repeated field, else 0 or 1. */
size_t cop_reflect_count(const cop_proto *message, const cop_proto_field *field);
/* A pointer to the value with this index (0 if the field is not repeated): to a number, a char *,
 * or a message *. */
const void *cop_reflect_at(const cop_proto *message, const cop_proto_field *field, size_t index);
/* The message with this index, of a field of messages. NULL: not set. */
cop_proto *cop_reflect_message(const cop_proto *message, const cop_proto_field *field,
                               size_t index);

/* Marks a field that is not repeated as set, and returns where to write its value: a number, a char
 * * or a message *, whose memory must live as long as the message. A message is set only once that
 * pointer is not NULL. */
void *cop_reflect_put(cop_proto *message, const cop_proto_field *field);
/* Sets a repeated field to `count` elements of cop_reflect_size bytes each. The array must live as
 * long as the message; it replaces the one before. */
void cop_reflect_put_list(cop_proto *message, const cop_proto_field *field, void *items,
                          size_t count);
/* Clears a field. Frees nothing: the root's arena owns the memory. */
void cop_reflect_clear(cop_proto *message, const cop_proto_field *field);
/* Makes an empty message in the arena of `root` (codec.h); NULL: out of memory, or over budget. */
cop_proto *cop_reflect_new(cop_proto *root, const cop_proto_type *type);

#endif
