/* Reads whole job files, fills in defaults, and records where each field was read. See document.h.
 */
#include "common/wire/document.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/wire/codec.h"
#include "common/wire/reader.h"

#define JOB_BUDGET (16u << 20) /* bytes of the arena of a job */

/* ---- the places where fields were read ---- */

/* One field and its place. The marks of a job are a list in its arena, newest first. */
typedef struct mark {
    const struct mark *older;
    const char *path;   /* path of the field */
    const char *source; /* the path of a job file, or "--set train.batch=9" */
    size_t line;        /* from 1; 0: the source has no lines */
    size_t column;      /* from 1; 0: the source has no lines */
} mark;

/* Copies the name of the source into the arena, or returns the copy of the newest mark if that has
 * the same source. NULL: no memory. */
static const char *keep_source(const cop_reader *r, const mark *newest) {
    if (newest && strcmp(newest->source, r->source) == 0) return newest->source;
    return cop_proto_strdup(r->root, r->source);
}

void cop_reader_record_line(const cop_reader *r, const cop_field_path *p, const yaml_node_t *node) {
    COP_ASSERT(node != NULL || !r->lines);
    const mark *newest = cop_proto_attachment(r->root);
    mark *m = cop_proto_alloc(r->root, sizeof *m);
    const char *path = cop_proto_strdup(r->root, p->text);
    const char *source = keep_source(r, newest);
    if (!m || !path || !source) return;
    *m = (mark){newest, path, source, 0, 0};
    if (r->lines) m->line = node->start_mark.line + 1, m->column = node->start_mark.column + 1;
    cop_proto_attach(r->root, m);
}

/* Is `outer` equal to the path `inner`, or the path of a message or list that contains it?
 * "model[1]" encloses "model[1].linear". */
static bool encloses(const char *outer, const char *inner) {
    size_t length = strlen(outer);
    if (strncmp(outer, inner, length) != 0) return false;
    return length == 0 || !inner[length] || inner[length] == '.' || inner[length] == '[';
}

/* The place of a field is that of the newest mark whose path encloses it. The newest one is the
 * right one: within a file, a field is marked after the messages that contain it, and a later --set
 * replaces a field with everything in it. */
void cop_document_where(const Coppice__Job *job, const char *field, char *out, size_t size) {
    const mark *m = cop_proto_attachment(&job->base);
    COP_ASSERT(size >= 1);
    while (m && !encloses(m->path, field)) m = m->older;
    if (!m)
        snprintf(out, size, "%s", "");
    else if (!m->line)
        snprintf(out, size, "%s", m->source);
    else
        snprintf(out, size, "%s:%zu:%zu", m->source, m->line, m->column);
}

cop_err cop_document_fail(const Coppice__Job *job, const char *field, cop_error *error,
                          const char *format, ...) {
    char where[400];
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(error, COP_ERR_INPUT, format, arguments);
    va_end(arguments);
    cop_document_where(job, field, where, sizeof where);
    if (where[0]) cop_error_prefix(error, "%s", where);
    return COP_ERR_INPUT;
}

void cop_document_set_legacy_split(Coppice__Job *job) {
    if (!job->pinned || !job->data || job->data->has_split) return;
    job->data->has_split = 1;
    job->data->split = COPPICE__DATA__SPLIT__LAST;
}

/* ---- reading ---- */

static cop_err read_job(const cop_reader *r, Coppice__Job **out) {
    const cop_field_path top = {""};
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    cop_proto *job = r->root;
    if (!root)
        return cop_fail(r->error, COP_ERR_INPUT, "%s is empty: expected a job (see examples/)",
                        r->source);
    cop_reader_record_line(r, &top, root);
    COP_TRY(cop_reader_message(r, root, &coppice__job__descriptor, &top, &job));
    *out = (Coppice__Job *)job;
    cop_document_set_legacy_split(*out);
    return COP_OK;
}

static cop_err parse(const char *text, size_t size, const char *name, Coppice__Job **out,
                     cop_error *error) {
    yaml_document_t document;
    if (size > COP_JOB_FILE_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s has %zu bytes: the limit for a job file is %u",
                        name, size, COP_JOB_FILE_MAX);
    const cop_yaml_source from = {name, text, size, true};
    COP_TRY(cop_yaml_load(&from, &document, error));
    cop_reader r = {.source = name,
                    .lines = true,
                    .document = &document,
                    .root = cop_proto_create(&coppice__job__descriptor, JOB_BUDGET),
                    .error = error};
    cop_err e = r.root ? read_job(&r, out) : cop_no_memory(error);
    if (e) cop_proto_free(r.root);
    yaml_document_delete(&document);
    return e;
}

cop_err cop_document_parse_job(const char *text, size_t size, const char *name, Coppice__Job **out,
                               cop_error *error) {
    return parse(text, size, name, out, error);
}

cop_err cop_document_read_job(const char *path, Coppice__Job **out, cop_error *error) {
    char *text;
    size_t size;
    COP_TRY(cop_file_read(path, COP_JOB_FILE_MAX, &text, &size, error));
    cop_err e = parse(text, size, path, out, error);
    cop_free(text);
    return e;
}

/* ---- defaults ---- */

/* Sets a field that is a message to its default. `text` is "{}", or the name of a member if the
 * message is a one-of. */
static cop_err default_message(cop_proto *root, cop_proto *message, const cop_proto_field *field,
                               const char *text, cop_error *error) {
    cop_proto *inner = cop_reflect_new(root, field->descriptor);
    if (!inner) return cop_no_memory(error);
    *(cop_proto **)cop_reflect_put(message, field) = inner;
    if (!cop_fields_one_of(field->descriptor)) return COP_OK;
    const cop_proto_field *one = cop_reflect_find(field->descriptor, text);
    COP_ASSERT(one != NULL);
    cop_proto *chosen = cop_reflect_new(root, one->descriptor);
    if (!chosen) return cop_no_memory(error);
    *(cop_proto **)cop_reflect_put(inner, one) = chosen;
    return COP_OK;
}

static cop_err default_field(cop_proto *root, cop_proto *message, const cop_proto_field *field,
                             cop_error *error) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    if (!row || !row->default_text || cop_reflect_is_set(message, field)) return COP_OK;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return default_message(root, message, field, row->default_text, error);
    bool good = cop_reader_value(field, row, row->default_text, cop_reflect_put(message, field));
    COP_ASSERT(good);
    return COP_OK;
}

/* Fills in the defaults of a message and of all messages inside it. */
static cop_err resolve(cop_proto *root, cop_proto *message, cop_error *error) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const cop_proto_field *field = &message->descriptor->fields[i];
        COP_TRY(default_field(root, message, field, error));
        if (field->type != PROTOBUF_C_TYPE_MESSAGE) continue;
        for (size_t n = 0; n < cop_reflect_count(message, field); n++)
            COP_TRY(resolve(root, cop_reflect_message(message, field, n), error));
    }
    return COP_OK;
}

/* Sets the enum field `name` to `value`, if the message has such a field and it is not set. */
static void inherit_field(cop_proto *message, const char *name, int value) {
    const cop_proto_field *field = cop_reflect_find(message->descriptor, name);
    if (!field || cop_reflect_is_set(message, field)) return;
    COP_ASSERT(field->type == PROTOBUF_C_TYPE_ENUM);
    memcpy(cop_reflect_put(message, field), &value, sizeof value);
}

/* Gives scope and variant of the layer the values of job.dropout, if its kind has these fields and
 * they are not set. */
static void inherit(Coppice__Layer *layer, const Coppice__DropoutDefaults *defaults) {
    for (unsigned i = 0; i < layer->base.descriptor->n_fields; i++) {
        const cop_proto_field *field = &layer->base.descriptor->fields[i];
        if (!cop_reflect_is_set(&layer->base, field)) continue;
        cop_proto *kind = cop_reflect_message(&layer->base, field, 0);
        inherit_field(kind, "scope", (int)defaults->scope);
        inherit_field(kind, "variant", (int)defaults->variant);
    }
}

cop_err cop_document_resolve(Coppice__Job *job, cop_error *error) {
    bool own_shards = job->train && job->train->has_shards;
    cop_document_set_legacy_split(job);
    COP_TRY(resolve(&job->base, &job->base, error));
    COP_ASSERT(job->train != NULL && job->dropout != NULL);
    if (!own_shards && job->train->shards > job->train->batch)
        job->train->shards = job->train->batch;
    for (size_t i = 0; i < job->n_model; i++) inherit(job->model[i], job->dropout);
    return COP_OK;
}
