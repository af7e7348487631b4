/* Inside common/wire: what the job file's fields may hold. One row per field of proto/job.proto. */
#ifndef COP_WIRE_FIELDS_H
#define COP_WIRE_FIELDS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct cop_field_row {
    const char *name; /* "Train.batch": message and field */
    bool required;
    double min, max;          /* both 0: no range (not a number) */
    bool below_max;           /* `max` itself is out of range */
    bool above_min;           /* `min` itself is out of range */
    const char *default_text; /* as in YAML; NULL: there is no default */
    const char *help;
} cop_field_row;

const cop_field_row *cop_fields_find(const ProtobufCMessageDescriptor *message,
                                     const ProtobufCFieldDescriptor *field);
const cop_field_row *cop_fields_all(void); /* ends with name NULL */
/* Has the row (may be NULL) a range? */
static inline bool cop_field_is_ranged(const cop_field_row *row) {
    return row && (row->min < 0 || row->max > 0);
}
/* Exactly one field of this message is set (a one-key map in YAML). */
bool cop_fields_one_of(const ProtobufCMessageDescriptor *message);
/* Most items of a list: layers, figures of channels, classes, sides. */
size_t cop_fields_max_items(const ProtobufCFieldDescriptor *field);
/* The field that a bare text stands for (train: iris.csv), NULL: this message is always a map. */
const ProtobufCFieldDescriptor *cop_fields_shorthand(const ProtobufCMessageDescriptor *message);
/* Of two fields that exclude each other (train.epochs and train.steps) the other one; NULL: the
 * field excludes none. */
const ProtobufCFieldDescriptor *cop_fields_excluded(const ProtobufCMessageDescriptor *message,
                                                    const ProtobufCFieldDescriptor *field);
/* Is this a field, layer or value ("Train.precision", "bf16") of the job file's language that this
 * version does not have yet? */
bool cop_fields_is_reserved(const char *message, const char *name);
/* Of `count` names the one that other programs call `word` ("lr" is "rate"); NULL: none. */
const char *cop_fields_find_synonym(const char *word, const char *const *names, size_t count);
/* Row `index` of the table of such names, for tests; returns how many rows there are. */
size_t cop_fields_synonyms(const char **name, size_t index);
const char *const *cop_fields_reserved_names(void); /* "Layer.conv2d"; ends with NULL */

#endif
