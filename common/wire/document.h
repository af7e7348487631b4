/* Reads and prints job files and JSON, by the descriptors that protobuf-c generates. Ranges,
 * defaults and help texts of the fields are in one table (fields.c). An error in a job file gives
 * file:line:column, the value that was found, the values that are expected, and for a wrong name
 * the nearest valid name.
 *
 * A program that reads a job file calls cop_document_read_job, then cop_document_set for each
 * --set, then cop_document_check_read, then cop_document_resolve. A program that receives a job
 * over the wire calls cop_proto_unpack, then cop_document_check.
 *
 * A *root message* owns an arena (codec.h). It was read, unpacked or copied by itself, and is not
 * part of another message. Places of fields are recorded only for a job that is a root message. */
#ifndef COP_WIRE_DOCUMENT_H
#define COP_WIRE_DOCUMENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "proto/job.pb-c.h"

/* Read a job from a file, or from `size` bytes of text; in the second case `name` begins errors.
 * Free *out with cop_proto_free (codec.h). Defaults are not filled in, and relations between fields
 * are not checked; common/job checks these. INPUT: the text is not YAML, or a field is unknown,
 * missing, given twice, of the wrong type or out of range. LIMIT: the file has more than
 * COP_JOB_FILE_MAX bytes, or the job needs too much memory. NO_MEMORY. */
cop_err cop_document_read_job(const char *path, Coppice__Job **out, cop_error *error);
cop_err cop_document_parse_job(const char *text, size_t size, const char *name, Coppice__Job **out,
                               cop_error *error);
/* Changes one field of a job in place, as `--set a.b=c` does; `assignment` is "a.b=c". The value is
 * YAML. An item of a list is named by its index, from 0: model.1.linear.units=64. Setting
 * train.steps removes train.epochs, and the reverse. Call cop_document_check_read afterwards,
 * because a message that was created on the path may lack required fields. INPUT: path or value is
 * invalid. After an error the job may be half changed, so the caller may only free it. */
cop_err cop_document_set(Coppice__Job *job, const char *assignment, cop_error *error);
/* Fills in the default of every field that is not set. The job is *resolved* afterwards. Some
 * defaults depend on other fields: train.shards gets at most the value of train.batch, and a mask
 * layer gets scope and variant from job.dropout. NO_MEMORY. */
cop_err cop_document_resolve(Coppice__Job *job, cop_error *error);
/* Checks a job from the wire by the rules that apply to job files. The job may be part of a larger
 * message. INPUT: a field is missing or out of range, or this program does not know it. */
cop_err cop_document_check(const Coppice__Job *job, cop_error *error);
/* Checks a job as cop_document_check does, but the job must be a root message, and errors give the
 * place where the field was read. For a job that --set has changed. */
cop_err cop_document_check_read(const Coppice__Job *job, cop_error *error);
/* Writes to `out` where a field of a job was read. `field` is a path such as "train.shards" or
 * "model[3]". The job must be a root message. The place is:
 *
 *  - "job.yaml:12:5" if the field was read from a file;
 *  - "--set train.shards=9" if the command line has set it;
 *  - the place of the nearest enclosing field if the field itself was not read;
 *  - "" if nothing in the job was read from a file or set, as in a job from the wire. */
void cop_document_where(const Coppice__Job *job, const char *field, char *out, size_t size);
/* Fails with INPUT. The error begins with the place from cop_document_where; the rest of the
 * sentence is `format`. For checks of relations between fields. */
cop_err cop_document_fail(const Coppice__Job *job, const char *field, cop_error *error,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Appends the fields that are set to *out as YAML, in block style. */
void cop_document_print_yaml(const ProtobufCMessage *message, cop_str *out);
/* Appends the fields that are set, and all lists, even empty ones, to *out as JSON. With `indent` 0
 * the JSON is one line; otherwise each level is indented by `indent` spaces. Values are printed as
 * follows:
 *
 *  - A real number has the shortest form that reads back as the same double; NaN and infinities are
 *    null.
 *  - A field named `seed` is a string, because many programs read numbers as doubles.
 *  - An enum is its name in lower case, but the state of a job is in capitals.
 *  - Bytes are a string of hex digits. */
void cop_document_print_json(const ProtobufCMessage *message, int indent, cop_str *out);
/* A text with several objects as cop_document_print_json prints them, with or without blanks
 * between them. The caller sets name, at and end, and line to 0. */
typedef struct cop_json_stream {
    const char *name; /* begins errors: "name:line: ..." */
    const char *at;   /* the rest of the text begins here */
    const char *end;  /* the rest of the text ends here */
    size_t line;      /* number of the line at `at`, from 1; 0: nothing was read yet */
} cop_json_stream;
/* Reads the next object as a message of this type, a root message (cop_proto_free). If only blanks
 * are left, succeeds with *out NULL. INPUT: the text is not JSON, or a field is unknown or of the
 * wrong type. NO_MEMORY. */
cop_err cop_document_next_json(cop_json_stream *stream, const ProtobufCMessageDescriptor *type,
                               ProtobufCMessage **out, cop_error *error);
/* Copies a job into a new arena; free *out with cop_proto_free. The copy does not know where its
 * fields were read. NO_MEMORY. */
cop_err cop_document_copy_job(const Coppice__Job *job, Coppice__Job **out, cop_error *error);
/* One field that is set in a message. `path` and `value` belong to the cop_document_fields that
 * contains the field. */
typedef struct cop_document_field {
    const char *path;  /* "train.batch"; with the index of a list's item: "model.1.linear.units" */
    const char *value; /* as in YAML; "" for a message in which no field is set */
} cop_document_field;
/* The fields that are set in a message, in the order of the schema. */
typedef struct cop_document_fields {
    cop_document_field *items;
    size_t count; /* number of items */
    cop_str text; /* the texts of all items */
} cop_document_fields;
/* Lists the fields that are set in a message. Free the list with cop_document_fields_fini; after an
 * error there is nothing to free. NO_MEMORY. */
cop_err cop_document_list_fields(const ProtobufCMessage *message, cop_document_fields *out,
                                 cop_error *error);
/* Frees the list and its texts. */
void cop_document_fields_fini(cop_document_fields *fields);
/* The value of the field with this path; NULL: it is not set. */
const char *cop_document_fields_find(const cop_document_fields *fields, const char *path);
/* Sets data.split to `last` if the job is pinned and has no data.split. Such a job is older than
 * this field, and its validation rows were the last rows. */
void cop_document_set_legacy_split(Coppice__Job *job);
/* Removes `pinned`, and every field whose value is its default. The result is a short job that
 * resolves to the same job again. */
void cop_document_strip_defaults(Coppice__Job *job);
/* The help text of the field with this path, such as "train.batch". Static. NULL: there is no such
 * field. */
const char *cop_document_help(const char *path);
/* Appends the reference of the job file to *out as Markdown. It is the content of
 * docs/reference/job-file.md; a test compares the two. */
void cop_document_reference(cop_str *out);

#endif
