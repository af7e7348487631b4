/* Inside common/wire: the walk over a YAML document that fills a message (reader.c), the words of
 * its errors (reader_words.c), and where each field came from (document.c). */
#ifndef COP_WIRE_READER_H
#define COP_WIRE_READER_H

#include <yaml.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "common/wire/fields.h"
#include "common/wire/reflect.h"

typedef struct cop_reader {
    const char *source; /* a job file's path, or "--set train.batch=9"; errors begin with it */
    bool lines;         /* and go on with line and column */
    yaml_document_t *document;
    cop_proto *root; /* whose memory everything read lives in */
    cop_error *error;
} cop_reader;

/* A field's place, as it grows: "model[1].linear.units"; the job itself: "". */
typedef struct cop_field_path {
    char text[200];
} cop_field_path;
cop_field_path cop_field_path_member(const cop_field_path *p, const char *name);
cop_field_path cop_field_path_item(const cop_field_path *p, size_t index);

/* YAML text, and how errors name it. */
typedef struct cop_yaml_source {
    const char *name; /* begins errors; line and column follow if `lines` */
    const char *text;
    size_t size;
    bool lines;
} cop_yaml_source;

/* One YAML document of plain maps, lists and scalars: no aliases, anchors, tags, no nesting beyond
 * COP_JOB_YAML_DEPTH_MAX (yaml.c). Errors begin with `name`, and
 * with line and column if `lines`. On success the caller deletes *out. */
cop_err cop_yaml_load(const cop_yaml_source *from, yaml_document_t *out, cop_error *error);

/* Fills a message from a map (or a bare name, for one-of messages). *out: filled in place if it is
 * not NULL, else made. */
cop_err cop_reader_message(const cop_reader *r, const yaml_node_t *node, const cop_proto_type *type,
                           const cop_field_path *p, cop_proto **out);
/* Fills one field of `message`. */
cop_err cop_reader_field(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_field_path *p, cop_proto *message);
/* A number, bool or enum from its text into `at`; false: ill-typed or out of the row's range (row
 * NULL: any). */
bool cop_reader_value(const cop_proto_field *field, const cop_field_row *row, const char *text,
                      void *at);
bool cop_field_in_range(const cop_field_row *row, double value);

/* ---- words ---- */

/* INPUT, with source, line and column before the sentence (node NULL: the source alone). */
cop_err cop_reader_fail(const cop_reader *r, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "train.batch is x: expected a whole number from 1 to 65536" */
cop_err cop_reader_fail_value(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                         const cop_proto_field *field, const cop_field_row *row);
cop_err cop_reader_fail_unknown(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                           const cop_proto_type *type, const char *name);
cop_err cop_reader_no_memory(const cop_reader *r);
/* "a number from 0 to below 1" */
void cop_describe_expected(const cop_proto_field *field, const cop_field_row *row, cop_str *out);
/* `train: unknown field "batsh": did you mean "batch"? (expected one of ...)` */
void cop_describe_unknown(const cop_field_path *p, const cop_proto_type *type, const char *name,
                       cop_str *out);
void cop_describe_enum(const ProtobufCEnumDescriptor *e, const char *last, cop_str *out);
/* The scalar of a node; NULL for maps and lists. */
const char *cop_yaml_text(const yaml_node_t *node);
bool cop_yaml_is_null(const yaml_node_t *node);

/* Remember where the field at p came from (document.c). Out of memory is no error: the place is
 * not known then. `node` may be NULL where the source has no lines. */
void cop_marks_add(const cop_reader *r, const cop_field_path *p, const yaml_node_t *node);

/* A value as YAML shows it (document_print.c). */
void cop_print_scalar(const cop_proto_field *field, const void *at, bool json, cop_str *out);

#endif
