/* Job files and JSON, read and printed by one walk over protobuf-c descriptors. Ranges, defaults
 * and help texts are in one table (fields.c). Errors give file:line:column, what was found, what is
 * expected, and the nearest valid name.
 *
 * The steps of a job file: cop_document_read_job, then cop_document_set for each --set, then
 * cop_document_check_read, then cop_document_resolve. A job from the wire begins with
 * cop_proto_unpack and cop_document_check. A *root message* is one that owns an arena: it was read,
 * unpacked or copied on its own, and is not part of another message. Only root jobs know where
 * their fields were read. */
#ifndef COP_WIRE_DOCUMENT_H
#define COP_WIRE_DOCUMENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "proto/job.pb-c.h"

/* Reads a job from a file or from text (`name` begins errors). Free it with cop_proto_free
 * (codec.h). INPUT: a field is unknown, missing, given twice, of the wrong type or out of range.
 * Relations between fields are checked by common/job. Defaults are not filled in. LIMIT: more than
 * COP_JOB_FILE_MAX bytes. */
cop_err cop_document_read_job(const char *path, Coppice__Job **out, cop_error *error);
cop_err cop_document_parse_job(const char *text, size_t size, const char *name, Coppice__Job **out,
                               cop_error *error);
/* Changes one field of a job in place, as `--set a.b=c` asks. The value is YAML. Items of a list
 * have their index: model.1.linear.units=64. train.steps replaces train.epochs, and the reverse.
 * INPUT names the path; the job is good only for cop_proto_free then. Call cop_document_check_read
 * afterwards: a new message may lack required fields. */
cop_err cop_document_set(Coppice__Job *job, const char *assignment, cop_error *error);
/* Fills in every default of the table, so that the job is complete ("as resolved"). */
cop_err cop_document_resolve(Coppice__Job *job, cop_error *error);
/* Checks a job from the wire as reading does; it may be part of a larger message. Also refuses
 * fields that this program does not know. */
cop_err cop_document_check(const Coppice__Job *job, cop_error *error);
/* As cop_document_check, for a job that is a root message, after --set. Errors give the place. */
cop_err cop_document_check_read(const Coppice__Job *job, cop_error *error);
/* Writes where a field ("train.shards", "model[3]") of a job that is a root message was read:
 * "job.yaml:12:5" or "--set train.shards=9". For a missing field it is the place of what encloses
 * it; for a job that was never a file it is "". */
void cop_document_where(const Coppice__Job *job, const char *field, char *out, size_t size);
/* Fails with INPUT and a sentence that begins with that place. For relations between fields. */
cop_err cop_document_fail(const Coppice__Job *job, const char *field, cop_error *error,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Prints the set fields as YAML, in block style. */
void cop_document_print_yaml(const ProtobufCMessage *message, cop_str *out);
/* Prints the set fields, and all lists, as JSON: on one line, or with `indent` spaces per level.
 * Reals have the shortest form that reads back as the same double, seeds are strings (64 bits),
 * enums are lower-case names, bytes are hex, NaN and infinities are null. */
void cop_document_print_json(const ProtobufCMessage *message, int indent, cop_str *out);
/* A stream of such JSON objects, with blanks between them. */
typedef struct cop_json_stream {
    const char *name;     /* begins errors: "name:line: ..." */
    const char *at, *end; /* what is still to be read */
    size_t line;          /* of `at`; 0: nothing was read */
} cop_json_stream;
/* Reads the next object as a message of this type (cop_proto_free); *out NULL: there are no more.
 * INPUT: it is not JSON, or a field is unknown or of the wrong type. */
cop_err cop_document_next_json(cop_json_stream *stream, const ProtobufCMessageDescriptor *type,
                               ProtobufCMessage **out, cop_error *error);
/* Copies a job into a new arena (cop_proto_free). The copy has no places of fields. */
cop_err cop_document_copy_job(const Coppice__Job *job, Coppice__Job **out, cop_error *error);
/* The set fields of a message, in the order of the schema: a path ("train.batch"; items of lists
 * have their index, "model.1.linear.units") and the value as in YAML. A message without fields has
 * the value
 * "". */
typedef struct cop_document_field {
    const char *path, *value; /* owned by the list */
} cop_document_field;
typedef struct cop_document_fields {
    cop_document_field *items;
    size_t count;
    cop_str text; /* what the items point to */
} cop_document_fields;
/* Lists the fields of a message. Free the list with cop_document_fields_fini; after an error there
 * is nothing to free. NO_MEMORY. */
cop_err cop_document_list_fields(const ProtobufCMessage *message, cop_document_fields *out,
                                 cop_error *error);
void cop_document_fields_fini(cop_document_fields *fields);
/* The value of the field with this path; NULL: it is not set. */
const char *cop_document_fields_find(const cop_document_fields *fields, const char *path);
/* Sets data.split to `last` in a job that was pinned before that field existed: it keeps its rows.
 */
void cop_document_set_legacy_split(Coppice__Job *job);
/* Removes `pinned` and every field that has its default value. What remains is a short job file
 * that resolves to the same job. */
void cop_document_strip_defaults(Coppice__Job *job);
/* The help text of a field ("train.batch"); NULL: unknown field. */
const char *cop_document_help(const char *path);
/* Prints the reference of the job file as Markdown: docs/reference/job-file.md (a test compares).
 */
void cop_document_reference(cop_str *out);

#endif
