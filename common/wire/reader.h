/* Inside common/wire: how to fill a message from a YAML document (reader.c), the texts of its
 * errors (reader_words.c), and the record of where each field was read (document.c).
 *
 * cop_yaml_load makes a document of a text; cop_reader_message then walks over its nodes and fills
 * a message: maps become messages, lists repeated fields, scalars values. Everything that is read
 * lives in the arena of reader->root. A function that fails has written a sentence with the place
 * into reader->error; the message is then incomplete, and good only for cop_proto_free of the root.
 */
#ifndef COP_WIRE_READER_H
#define COP_WIRE_READER_H

#include <yaml.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "common/wire/fields.h"
#include "common/wire/reflect.h"

typedef struct cop_reader {
    const char *source; /* begins errors: a job file's path, or "--set train.batch=9" */
    bool lines;         /* errors have line and column, too */
    yaml_document_t *document;
    cop_proto *root; /* everything that is read lives in its arena */
    cop_error *error;
} cop_reader;

/* The path of a field: "model[1].linear.units"; the job itself: "". A longer one is cut. */
typedef struct cop_field_path {
    char text[200];
} cop_field_path;
/* The path of a member ("model[1]" and "linear": "model[1].linear"), or of an item of a list. */
cop_field_path cop_field_path_member(const cop_field_path *p, const char *name);
cop_field_path cop_field_path_item(const cop_field_path *p, size_t index);

/* YAML text, and how errors name it. */
typedef struct cop_yaml_source {
    const char *name; /* begins errors; line and column follow if `lines` */
    const char *text;
    size_t size;
    bool lines;
} cop_yaml_source;

/* Loads one YAML document of plain maps, lists and scalars. INPUT: not YAML, an alias, anchor or
 * tag, a second document, or nesting beyond COP_JOB_YAML_DEPTH_MAX. On success the caller deletes
 * *out. */
cop_err cop_yaml_load(const cop_yaml_source *from, yaml_document_t *out, cop_error *error);

/* Fills a message from a map, or from a plain name or text if the type allows it. *out: the
 * message, or NULL, to make a new one. */
cop_err cop_reader_message(const cop_reader *r, const yaml_node_t *node, const cop_proto_type *type,
                           const cop_field_path *p, cop_proto **out);
/* Fills one field of `message`, also a list, from a node. INPUT: wrong type, out of range, a
 * required field is missing, too many items. LIMIT, NO_MEMORY. */
cop_err cop_reader_field(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_field_path *p, cop_proto *message);
/* Parses a number, bool or enum into `at`; false: wrong type, or out of the row's range (row NULL:
 * no range). */
bool cop_reader_value(const cop_proto_field *field, const cop_field_row *row, const char *text,
                      void *at);
/* Does the value lie in the row's range? True if the row is NULL or has no range. */
bool cop_field_in_range(const cop_field_row *row, double value);

/* ---- errors ---- */

/* Fails with INPUT; source, line and column begin the sentence (node NULL: only the source). */
cop_err cop_reader_fail(const cop_reader *r, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails with, for example, "train.batch is x: expected a whole number from 1 to 65536". */
cop_err cop_reader_fail_value(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                              const cop_proto_field *field, const cop_field_row *row);
/* Fails with the text of cop_describe_unknown: `type` has no field `name`, or it is reserved for a
 * later version. */
cop_err cop_reader_fail_unknown(const cop_reader *r, const yaml_node_t *node,
                                const cop_field_path *p, const cop_proto_type *type,
                                const char *name);
/* NO_MEMORY, or LIMIT if the arena's budget is used up. */
cop_err cop_reader_no_memory(const cop_reader *r);
/* Describes what a field takes, such as "a number from 0 to below 1" or "keep or drop"; `row` may
 * be NULL. Appends to *out, as the next two do. */
void cop_describe_expected(const cop_proto_field *field, const cop_field_row *row, cop_str *out);
/* Describes a wrong name: `train: unknown field "batsh": did you mean "batch"? (expected one of
 * ...)` */
void cop_describe_unknown(const cop_field_path *p, const cop_proto_type *type, const char *name,
                          cop_str *out);
/* Lists the values of an enum, with `last` before the last one: "keep or drop". */
void cop_describe_enum(const ProtobufCEnumDescriptor *e, const char *last, cop_str *out);
/* The text of a scalar node, with a zero byte behind it (it may hold others); NULL: a map or list.
 */
const char *cop_yaml_text(const yaml_node_t *node);
/* Is this an unquoted empty scalar, "null" or "~"? */
bool cop_yaml_is_null(const yaml_node_t *node);

/* Records where the field at p was read (document.c). If memory runs out, its place stays unknown.
 * `node` may be NULL if the source has no lines. */
void cop_marks_add(const cop_reader *r, const cop_field_path *p, const yaml_node_t *node);

/* Prints a value as YAML or JSON shows it (document_print.c). */
void cop_print_scalar(const cop_proto_field *field, const void *at, bool json, cop_str *out);

#endif
