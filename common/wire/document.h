/* Job files and JSON: one walker over protobuf-c descriptors. YAML in, YAML and JSON out; ranges,
 * defaults and help texts in one table (fields.c). Errors carry file:line:column, what was found,
 * what is expected, and the nearest valid name. */
#ifndef COP_WIRE_DOCUMENT_H
#define COP_WIRE_DOCUMENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "proto/job.pb-c.h"

/* Reads a job file (`path` names it in errors) or text. Unknown, missing, ill-typed, out-of-range,
 * duplicate fields are INPUT errors. Field-level checks only (types, ranges, one-of, required
 * fields of the table); relations between fields are common/job's. Defaults are NOT filled in. Free
 * with cop_proto_free (codec.h). */
cop_err cop_document_read_job(const char *path, Coppice__Job **out, cop_error *error);
cop_err cop_document_parse_job(const char *text, size_t size, const char *name, Coppice__Job **out,
                               cop_error *error);
/* `--set a.b=c` (value is YAML; list items by index: model.1.linear.units=64): changes the job in
 * place; train.steps replaces train.epochs and the other way round. INPUT names the path, and the
 * job is fit only for cop_proto_free then. What a path leaves out (a required field of a message
 * that it made) is found by cop_document_check_read. */
cop_err cop_document_set(Coppice__Job *job, const char *assignment, cop_error *error);
/* Fill in every default of the table, so that the printed job is complete ("as resolved"). */
cop_err cop_document_resolve(Coppice__Job *job, cop_error *error);
/* The same checks as reading, for a job that came over the wire (it may be part of a larger
 * message). Fields that this program does not know are refused too. */
cop_err cop_document_check(const Coppice__Job *job, cop_error *error);
/* The same for a job that was read or unpacked by itself, after --set: errors say where. */
cop_err cop_document_check_read(const Coppice__Job *job, cop_error *error);
/* Where a field ("train.shards", "model[3]") of a job that was read or unpacked by itself comes
 * from: "job.yaml:12:5" or "--set train.shards=9"; if the field is not there, of what encloses it;
 * "" for a job that was never a file. */
void cop_document_where(const Coppice__Job *job, const char *field, char *out, size_t size);
/* INPUT with that place before the sentence: for relations between fields. */
cop_err cop_document_fail(const Coppice__Job *job, const char *field, cop_error *error,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));
void cop_document_print_yaml(const ProtobufCMessage *message, cop_str *out);
/* One line of JSON. Only set fields; reals by %.17g shortened to the shortest form that reads back,
 * 64-bit seeds and 64-bit ids that are seeds as strings, enums as lower-case names, bytes as hex;
 * NaN and infinities as null. indent > 0: pretty-printed. */
void cop_document_print_json(const ProtobufCMessage *message, int indent, cop_str *out);
/* Reads such JSON again: objects one after another, with whatever blanks between them. */
typedef struct cop_json_stream {
    const char *name;     /* begins errors: "name:line: ..." */
    const char *at, *end; /* what is left */
    size_t line;          /* of `at`; 0: not begun */
} cop_json_stream;
/* The next object as a message of this type (cop_proto_free); *out NULL: there is no more. INPUT:
 * not JSON, or fields that the type has not, or of another type. */
cop_err cop_document_next_json(cop_json_stream *stream, const ProtobufCMessageDescriptor *type,
                               ProtobufCMessage **out, cop_error *error);
/* A copy with memory of its own (cop_proto_free); it does not know where its fields came from. */
cop_err cop_document_copy_job(const Coppice__Job *job, Coppice__Job **out, cop_error *error);
/* A message as a list of its set fields, in the order of the schema: "train.batch" and its value as
 * in YAML; list items by index ("model.1.linear.units"); a message without fields has value "". */
typedef struct cop_document_field {
    const char *path, *value; /* belong to the list */
} cop_document_field;
typedef struct cop_document_fields {
    cop_document_field *items;
    size_t count;
    cop_str text; /* what the items point to */
} cop_document_fields;
cop_err cop_document_list_fields(const ProtobufCMessage *message, cop_document_fields *out,
                                 cop_error *error);
void cop_document_fields_fini(cop_document_fields *fields);
/* The value at a path; NULL: not set. */
const char *cop_document_fields_find(const cop_document_fields *fields, const char *path);
/* A job that was pinned before `data.split` existed gets `last`: the rows that it began with. */
void cop_document_set_legacy_split(Coppice__Job *job);
/* Takes `pinned` and every field that has its default out of a job, so that it reads as a short job
 * file that resolves to the same job. */
void cop_document_strip_defaults(Coppice__Job *job);
/* Help of a field ("train.batch") for docs and error texts; NULL if unknown. And the whole
 * reference as Markdown (docs/reference/job-file.md is generated from it; a test compares). */
const char *cop_document_help(const char *path);
void cop_document_reference(cop_str *out);

#endif
