/* Inside common/wire: the table of the fields of a job file. It has one row per field of
 * proto/job.proto, with range, default and help text.
 *
 * The key of a row is the short name of the message and the name of the field, so a row applies
 * wherever that message occurs. reader.c checks YAML against the rows, and document_check.c checks
 * messages from the wire. document.c fills in the defaults, and document_reference.c prints the
 * reference. Checks that concern more than one field are in common/job. All names and texts are
 * static. */
#ifndef COP_WIRE_FIELDS_H
#define COP_WIRE_FIELDS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* One field. If min and max are both 0, the field has no range, for example because it is not a
 * number. */
typedef struct cop_field_row {
    const char *name; /* "Train.batch": message and field */
    bool required;    /* the field must be set */
    double min;
    double max;
    bool below_max;           /* true: `max` itself is out of range */
    bool above_min;           /* true: `min` itself is out of range */
    const char *default_text; /* as in YAML; NULL: there is no default */
    const char *help;
} cop_field_row;

/* The row of a field. NULL: the table has none, as for the fields of api.proto. */
const cop_field_row *cop_fields_find(const ProtobufCMessageDescriptor *message,
                                     const ProtobufCFieldDescriptor *field);
/* The whole table. A row whose name is NULL ends it. */
const cop_field_row *cop_fields_all(void);
/* Does the row have a range? False if `row` is NULL. */
static inline bool cop_field_is_ranged(const cop_field_row *row) {
    return row && (row->min < 0 || row->max > 0);
}
/* Is the message a one-of, in which exactly one field must be set? In YAML a one-of is a map with
 * one key. */
bool cop_fields_one_of(const ProtobufCMessageDescriptor *message);
/* The maximum number of items of a repeated field. */
size_t cop_fields_max_items(const ProtobufCFieldDescriptor *field);
/* The field that is set if the YAML of this message is a plain text instead of a map, as in `train:
 * iris.csv`. NULL: a plain text is not allowed for this message. */
const ProtobufCFieldDescriptor *cop_fields_shorthand(const ProtobufCMessageDescriptor *message);
/* The field that must not be set together with this one, such as train.steps for train.epochs and
 * the reverse. NULL: there is none. */
const ProtobufCFieldDescriptor *cop_fields_excluded(const ProtobufCMessageDescriptor *message,
                                                    const ProtobufCFieldDescriptor *field);
/* Is `name` a name of a field, layer or enum value that is reserved for a later version? `message`
 * is the context, such as "Train.precision" for the value "bf16". */
bool cop_fields_is_reserved(const char *message, const char *name);
/* Finds among `count` valid names the one for which `word` is a synonym, such as "rate" for "lr".
 * NULL: there is none. */
const char *cop_fields_find_synonym(const char *word, const char *const *names, size_t count);
/* For tests: stores the name in row `index` of the table of synonyms in *name, if there is such a
 * row, and returns the number of rows. */
size_t cop_fields_synonyms(const char **name, size_t index);
/* All reserved names, such as "Train.wire.bf16". A NULL ends the list. */
const char *const *cop_fields_reserved_names(void);

#endif
