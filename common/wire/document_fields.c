/* Copies jobs, lists the fields of messages for comparisons, and removes defaults. See document.h.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/fields.h"
#include "common/wire/reader.h"

#define JOB_BUDGET (16u << 20) /* bytes of the arena of a job */

cop_err cop_document_copy_job(const Coppice__Job *job, Coppice__Job **out, cop_error *error) {
    cop_buffer *packed = cop_proto_pack(&job->base);
    ProtobufCMessage *copy = NULL;
    if (!packed) return cop_no_memory(error);
    cop_err e = cop_proto_unpack(&coppice__job__descriptor, packed->data, packed->size, JOB_BUDGET,
                                 &copy, error);
    cop_buffer_release(packed);
    *out = (Coppice__Job *)copy;
    return e;
}

/* ---- list ---- */

enum { PATH_MAX_LENGTH = 256 };

/* Appends "path\0value\0" to out->text. */
static void add(cop_document_fields *out, const char *path, const cop_str *value) {
    const char *text = cop_str_text(value);
    cop_str_append_bytes(&out->text, path, strlen(path) + 1);
    cop_str_append_bytes(&out->text, text, strlen(text) + 1);
    out->count++;
}

static void list_message(const cop_proto *m, const char *path, cop_document_fields *out);

static void list_value(const cop_proto *m, const cop_proto_field *field, size_t index,
                       const char *path, cop_document_fields *out) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        list_message(cop_reflect_message(m, field, index), path, out);
        return;
    }
    cop_str value = {0};
    cop_print_scalar(field, cop_reflect_at(m, field, index), false, &value);
    out->text.failed = out->text.failed || value.failed;
    add(out, path, &value);
    cop_str_fini(&value);
}

static void list_message(const cop_proto *m, const char *path, cop_document_fields *out) {
    const size_t before = out->count;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const cop_proto_field *field = &m->descriptor->fields[i];
        const bool is_list = field->label == PROTOBUF_C_LABEL_REPEATED;
        char inner[PATH_MAX_LENGTH], numbered[PATH_MAX_LENGTH + 24];
        snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", field->name);
        for (size_t n = 0; n < cop_reflect_count(m, field); n++) {
            snprintf(numbered, sizeof numbered, "%s.%zu", inner, n);
            list_value(m, field, n, is_list ? numbered : inner, out);
        }
    }
    if (out->count == before && *path) add(out, path, &(cop_str){0}); /* such as relu: {} */
}

cop_err cop_document_list_fields(const ProtobufCMessage *message, cop_document_fields *out,
                                 cop_error *error) {
    *out = (cop_document_fields){0};
    list_message(message, "", out);
    out->items = out->text.failed ? NULL : cop_alloc_array(out->count + 1, sizeof *out->items);
    if (!out->items) {
        cop_document_fields_fini(out);
        return cop_no_memory(error);
    }
    const char *at = cop_str_text(&out->text);
    for (size_t i = 0; i < out->count; i++) {
        out->items[i].path = at;
        out->items[i].value = at += strlen(at) + 1;
        at += strlen(at) + 1;
    }
    COP_ASSERT(at == cop_str_text(&out->text) + out->text.length);
    return COP_OK;
}

void cop_document_fields_fini(cop_document_fields *fields) {
    cop_str_fini(&fields->text);
    cop_free(fields->items);
    *fields = (cop_document_fields){0};
}

const char *cop_document_fields_find(const cop_document_fields *fields, const char *path) {
    for (size_t i = 0; i < fields->count; i++)
        if (strcmp(fields->items[i].path, path) == 0) return fields->items[i].value;
    return NULL;
}

/* ---- without defaults ---- */

static bool is_default(const cop_proto *m, const cop_proto_field *field) {
    const cop_field_row *row = cop_fields_find(m->descriptor, field);
    if (!row || !row->default_text) return false;
    cop_str value = {0};
    cop_print_scalar(field, cop_reflect_at(m, field, 0), false, &value);
    const bool same = !value.failed && strcmp(cop_str_text(&value), row->default_text) == 0;
    cop_str_fini(&value);
    return same;
}

/* True: no field of this message is set, and the message has a default. A message without a default
 * must stay even if it is empty: `augment: {}` is not the same as no augment. */
static bool is_default_message(const cop_proto *m, const cop_proto_field *field) {
    const cop_field_row *row = cop_fields_find(m->descriptor, field);
    const cop_proto *inner = cop_reflect_message(m, field, 0);
    COP_ASSERT(inner != NULL);
    for (unsigned i = 0; i < inner->descriptor->n_fields; i++)
        if (cop_reflect_is_set(inner, &inner->descriptor->fields[i])) return false;
    return row && row->default_text;
}

static void strip(cop_proto *m) {
    const bool one_of = cop_fields_one_of(m->descriptor); /* then its key names the kind: keep it */
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const cop_proto_field *field = &m->descriptor->fields[i];
        const bool is_list = field->label == PROTOBUF_C_LABEL_REPEATED;
        if (!cop_reflect_is_set(m, field)) continue;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            for (size_t n = 0; n < cop_reflect_count(m, field); n++)
                strip(cop_reflect_message(m, field, n));
            if (!is_list && !one_of && is_default_message(m, field)) cop_reflect_clear(m, field);
        } else if (!is_list && is_default(m, field)) {
            cop_reflect_clear(m, field);
        }
    }
}

void cop_document_strip_defaults(Coppice__Job *job) {
    cop_document_set_legacy_split(job);
    job->pinned = NULL; /* the job's arena owns it */
    strip(&job->base);
}
