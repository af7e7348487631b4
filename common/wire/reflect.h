/* Inside common/wire and common/job: access to fields of protobuf-c messages by their descriptors.
 * Only reflect.c knows how protobuf-c lays out a message in memory.
 *
 * protobuf-c generates a C struct for each message type. The descriptor of a field has the offset
 * of its value in the struct, and the offset of its quantifier:
 *
 *  - The quantifier of a repeated field is its length. The value is a pointer to an array. The
 *    elements of the array are numbers, bools or enums, or pointers to strings or messages.
 *  - The quantifier of an optional number, bool, enum or bytes is its has_ flag.
 *  - An optional string or message has no quantifier. It is set if the pointer is not NULL.
 *
 * In all functions, `field` must be a field of `message`. The functions assert this where they
 * can. */
#ifndef COP_WIRE_REFLECT_H
#define COP_WIRE_REFLECT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

typedef ProtobufCMessage cop_proto;
typedef ProtobufCMessageDescriptor cop_proto_type;
typedef ProtobufCFieldDescriptor cop_proto_field;

/* The field of the type with this name, owned by the type. NULL: there is none, or `name` is NULL.
 */
const cop_proto_field *cop_reflect_find(const cop_proto_type *type, const char *name);
/* The size of a value of this field in bytes. For a repeated field it is the size of one element.
 */
size_t cop_reflect_size(const cop_proto_field *field);
/* Is the field set? A repeated field is set if it has at least one element. */
bool cop_reflect_is_set(const cop_proto *message, const cop_proto_field *field);
/* The number of values of the field: the length of a repeated field; for another field, 1 if it is
 * set, otherwise 0. */
size_t cop_reflect_count(const cop_proto *message, const cop_proto_field *field);
/* The address of value `index` of the field, which is 0 if the field is not repeated. For a string
 * or a message, this is the address of the pointer to it. */
const void *cop_reflect_at(const cop_proto *message, const cop_proto_field *field, size_t index);
/* Message `index` of a field whose type is a message. NULL: the field is not set. */
cop_proto *cop_reflect_message(const cop_proto *message, const cop_proto_field *field,
                               size_t index);

/* Marks a field that is not repeated as set, and returns the address of its value, where the caller
 * must write the value. For a string or a message, the caller writes a pointer; the memory that it
 * points to must live as long as `message`. Such a field is set as soon as the pointer is not
 * NULL. */
void *cop_reflect_put(cop_proto *message, const cop_proto_field *field);
/* Sets a repeated field to the array `items` of `count` elements of cop_reflect_size bytes each.
 * The array must live as long as the message. It replaces the array that the field had. */
void cop_reflect_put_list(cop_proto *message, const cop_proto_field *field, void *items,
                          size_t count);
/* Clears a field. Frees nothing, because the arena of the root message owns the memory. */
void cop_reflect_clear(cop_proto *message, const cop_proto_field *field);
/* Makes an empty message in the arena of `root` (codec.h). NULL: the heap or the budget of the
 * arena is exhausted. */
cop_proto *cop_reflect_new(cop_proto *root, const cop_proto_type *type);

#endif
