/* Inside common/wire: what the fields of a job file may hold. One row per field of proto/job.proto.
 *
 * A row is found by the short name of the message and the name of the field, so it holds wherever
 * that message occurs. reader.c checks YAML against the rows, document_check.c messages from the
 * wire; document.c fills in the defaults, document_reference.c prints the reference. Checks that
 * concern more than one field are in common/job. All names and texts are static. */
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

/* The row of a field; NULL: it has none, as fields of api.proto. */
const cop_field_row *cop_fields_find(const ProtobufCMessageDescriptor *message,
                                     const ProtobufCFieldDescriptor *field);
/* The whole table; the last row has the name NULL. */
const cop_field_row *cop_fields_all(void);
/* Does the row (may be NULL) have a range? */
static inline bool cop_field_is_ranged(const cop_field_row *row) {
    return row && (row->min < 0 || row->max > 0);
}
/* Must exactly one field of this message be set? In YAML it is a map with one key. */
bool cop_fields_one_of(const ProtobufCMessageDescriptor *message);
/* The maximum number of items of a list. */
size_t cop_fields_max_items(const ProtobufCFieldDescriptor *field);
/* The field that a plain text sets (train: iris.csv); NULL: this message must be a map. */
const ProtobufCFieldDescriptor *cop_fields_shorthand(const ProtobufCMessageDescriptor *message);
/* The field that this one excludes (train.epochs and train.steps exclude each other); NULL: none.
 */
const ProtobufCFieldDescriptor *cop_fields_excluded(const ProtobufCMessageDescriptor *message,
                                                    const ProtobufCFieldDescriptor *field);
/* Is this name of a field, layer or value ("Train.precision", "bf16") reserved for a later version?
 */
bool cop_fields_is_reserved(const char *message, const char *name);
/* The one of `count` names that other programs call `word` ("lr" is "rate"); NULL: none. */
const char *cop_fields_find_synonym(const char *word, const char *const *names, size_t count);
/* For tests: the name in row `index` of the table of synonyms; returns the number of rows. */
size_t cop_fields_synonyms(const char **name, size_t index);
/* All reserved names, such as "Train.wire.bf16"; the last one is NULL. */
const char *const *cop_fields_reserved_names(void);

#endif
