/* Inside common/wire: fills protobuf messages from YAML documents (reader.c), writes the texts of
 * the errors (reader_words.c), and records where each field was read (document.c).
 *
 * cop_yaml_load parses a text into a document of nodes. cop_reader_message walks over the nodes and
 * fills a message: a map becomes a message, a list becomes a repeated field, and a scalar becomes a
 * value. All memory comes from the arena of reader->root. If a function fails, reader->error is a
 * sentence that begins with the place of the fault. The message is incomplete then, and the caller
 * may only free the root with cop_proto_free. */
#ifndef COP_WIRE_READER_H
#define COP_WIRE_READER_H

#include <yaml.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "common/wire/fields.h"
#include "common/wire/reflect.h"

/* A YAML document that is being read. */
typedef struct cop_reader {
    const char *source; /* begins errors, such as the path of a job file or "--set train.batch=9" */
    bool lines;         /* errors also give line and column, because the source is a file */
    yaml_document_t *document;
    cop_proto *root;  /* the message whose arena provides all memory */
    cop_error *error; /* where to write errors */
} cop_reader;

/* The path of a field, such as "model[1].linear.units". The path of the job itself is "". A path
 * that does not fit is cut. */
typedef struct cop_field_path {
    char text[200];
} cop_field_path;
/* The path of the member `name` of the message at p. For p "model[1]" and `name` "linear" it is
 * "model[1].linear". */
cop_field_path cop_field_path_member(const cop_field_path *p, const char *name);
/* The path of item `index`, from 0, of the list at p. For p "model" and index 1 it is "model[1]".
 */
cop_field_path cop_field_path_item(const cop_field_path *p, size_t index);

/* A YAML text. */
typedef struct cop_yaml_source {
    const char *name; /* begins errors */
    const char *text;
    size_t size; /* bytes of the text */
    bool lines;  /* errors give line and column after the name */
} cop_yaml_source;

/* Parses a text that consists of one YAML document of plain maps, lists and scalars. On success the
 * caller frees *out with yaml_document_delete. INPUT: the text is not YAML, or it has an alias, an
 * anchor, a tag, a second document, or more than COP_JOB_YAML_DEPTH_MAX levels of nesting.
 * NO_MEMORY. */
cop_err cop_yaml_load(const cop_yaml_source *from, yaml_document_t *out, cop_error *error);

/* Fills the message *out, of type `type`, from a node; `p` is the path of the message. If *out is
 * NULL, makes a new message in the arena of r->root. The node must be a map, with two exceptions:
 * for a one-of it may be a name (`- relu`), and for a type with a shorthand (cop_fields_shorthand)
 * it may be a text. An empty node counts as an empty map, except for a one-of. Errors are those of
 * cop_reader_field. */
cop_err cop_reader_message(const cop_reader *r, const yaml_node_t *node, const cop_proto_type *type,
                           const cop_field_path *p, cop_proto **out);
/* Fills the field `field` of `message` from a node; `p` is the path of the field. The field may be
 * repeated; then the node is a list. INPUT: the node has the wrong type, a value is out of range, a
 * field is unknown or given twice, a required field is missing, or a list has too many items.
 * LIMIT: the budget of the arena is exhausted. NO_MEMORY. */
cop_err cop_reader_field(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_field_path *p, cop_proto *message);
/* Parses a number, bool or enum, and stores it at `at`, in the type of the field. Returns false if
 * the text has another type or the value is out of the row's range. If `row` is NULL, there is no
 * range. */
bool cop_reader_value(const cop_proto_field *field, const cop_field_row *row, const char *text,
                      void *at);
/* Is the value in the range of the row? True if `row` is NULL or has no range. */
bool cop_field_in_range(const cop_field_row *row, double value);

/* ---- errors ---- */

/* Fails with INPUT. The error begins with the source. Line and column of the node follow if
 * r->lines is true and `node` is not NULL. The rest of the sentence is `format`. */
cop_err cop_reader_fail(const cop_reader *r, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails with INPUT because the node is not a valid value of the field at p, with a sentence such as
 * "train.batch is x: expected a whole number from 1 to 65536". */
cop_err cop_reader_fail_value(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                              const cop_proto_field *field, const cop_field_row *row);
/* Fails with INPUT because the message type `type` has no field `name`, or because the name is
 * reserved for a later version. cop_describe_unknown writes the sentence. */
cop_err cop_reader_fail_unknown(const cop_reader *r, const yaml_node_t *node,
                                const cop_field_path *p, const cop_proto_type *type,
                                const char *name);
/* Fails after an allocation in the arena has failed: with LIMIT if its budget is exhausted, with
 * NO_MEMORY if the heap is. */
cop_err cop_reader_no_memory(const cop_reader *r);
/* Appends a description of the valid values of a field to *out, such as "a number from 0 to below
 * 1" or "keep or drop". `row` may be NULL. */
void cop_describe_expected(const cop_proto_field *field, const cop_field_row *row, cop_str *out);
/* Appends a description of the wrong name `name` to *out. `p` is the path of the message of type
 * `type` in which the name occurs. For the path "train", for example, it is `train: unknown field
 * "batsh": did you mean "batch"? (expected one of ...)`. */
void cop_describe_unknown(const cop_field_path *p, const cop_proto_type *type, const char *name,
                          cop_str *out);
/* Appends the names of an enum's values to *out. Commas separate them, but the text `last` comes
 * before the last name. If `last` is " or ", the result is, for example, "keep or drop". */
void cop_describe_enum(const ProtobufCEnumDescriptor *e, const char *last, cop_str *out);
/* The text of a scalar node, owned by the node. A zero byte follows the text; the text itself may
 * contain zero bytes, too. NULL: the node is a map or a list. */
const char *cop_yaml_text(const yaml_node_t *node);
/* Is the node an unquoted scalar that is empty, "~", "null", "Null" or "NULL"? */
bool cop_yaml_is_null(const yaml_node_t *node);

/* Records that the field at p was read from `node` (document.c). `node` may be NULL if r->lines is
 * false. If memory runs out, nothing is recorded, and this is not an error. */
void cop_reader_record_line(const cop_reader *r, const cop_field_path *p, const yaml_node_t *node);

/* Appends the value at `at`, which has the type of the field, to *out: as JSON if `json` is true,
 * otherwise as YAML (document_print.c). */
void cop_print_scalar(const cop_proto_field *field, const void *at, bool json, cop_str *out);

#endif
