/* Checks a job that came over the wire, or that --set has changed, by the rules of job files.
 * Errors have the same texts as those of the reader. See document.h. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/wire/document.h"
#include "common/wire/reader.h"

typedef struct checker {
    const Coppice__Job *job;
    bool located; /* errors give the places of fields; the job must be a root message */
    cop_error *error;
} checker;

static cop_err fail(const checker *c, const cop_field_path *p, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static cop_err fail(const checker *c, const cop_field_path *p, const char *format, ...) {
    char where[400] = "";
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(c->error, COP_ERR_INPUT, format, arguments);
    va_end(arguments);
    if (c->located) cop_document_where(c->job, p->text, where, sizeof where);
    if (where[0]) cop_error_prefix(c->error, "%s", where);
    return COP_ERR_INPUT;
}

static double number_at(const cop_proto_field *field, const void *at) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        return *(const double *)at;
    case PROTOBUF_C_TYPE_UINT64:
        return (double)*(const uint64_t *)at;
    case PROTOBUF_C_TYPE_UINT32:
        return *(const uint32_t *)at;
    case PROTOBUF_C_TYPE_INT32:
        return *(const int32_t *)at;
    default:
        return 0;
    }
}

/* Is the value at `at` valid for this field? */
static bool is_good(const cop_proto_field *field, const cop_field_row *row, const void *at) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strlen(*(const char *const *)at) < 1024;
    case PROTOBUF_C_TYPE_ENUM:
        return protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at) != NULL;
    case PROTOBUF_C_TYPE_BOOL:
        return true;
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!isfinite(*(const double *)at)) return false;
        __attribute__((fallthrough));
    default:
        return cop_field_in_range(row, number_at(field, at));
    }
}

static cop_err check_scalar(const checker *c, const cop_proto_field *field,
                            const cop_field_row *row, const cop_field_path *p, const void *at) {
    if (is_good(field, row, at)) return COP_OK;
    cop_str value = {0}, words = {0};
    cop_print_scalar(field, at, false, &value);
    cop_describe_expected(field, row, &words);
    cop_err e =
        fail(c, p, "%s is %.60s: expected %s", p->text, cop_str_text(&value), cop_str_text(&words));
    cop_str_fini(&value);
    cop_str_fini(&words);
    return e;
}

static cop_err check_message(const checker *c, const cop_proto *message, const cop_field_path *p);

static cop_err check_missing(const checker *c, const cop_proto_field *field,
                             const cop_field_row *row, const cop_field_path *p) {
    if (!row->required) return COP_OK;
    cop_str words = {0};
    cop_describe_expected(field, row, &words);
    cop_err e =
        fail(c, p, "%s is missing: expected %s (%s)", p->text, cop_str_text(&words), row->help);
    cop_str_fini(&words);
    return e;
}

static cop_err check_field(const checker *c, const cop_proto *message, const cop_proto_field *field,
                           const cop_field_path *p) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    size_t count = cop_reflect_count(message, field);
    COP_ASSERT(row != NULL);
    if (!count) return check_missing(c, field, row, p);
    const size_t max = cop_fields_max_items(field);
    if (count > max) return fail(c, p, "%s has %zu items: expected 1 to %zu", p->text, count, max);
    for (size_t i = 0; i < count; i++) {
        cop_field_path at =
            field->label == PROTOBUF_C_LABEL_REPEATED ? cop_field_path_item(p, i) : *p;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            COP_TRY(check_message(c, cop_reflect_message(message, field, i), &at));
        else
            COP_TRY(check_scalar(c, field, row, &at, cop_reflect_at(message, field, i)));
    }
    return COP_OK;
}

static cop_err check_one_of(const checker *c, const cop_proto *message, const cop_field_path *p) {
    const cop_proto_type *type = message->descriptor;
    unsigned set = 0;
    for (unsigned i = 0; i < type->n_fields; i++)
        set += cop_reflect_is_set(message, &type->fields[i]);
    if (set == 1) return COP_OK;
    return fail(c, p, "%s has %u keys: expected exactly one, such as \"%s\"", p->text, set,
                type->fields[0].name);
}

/* Checks a message and all messages inside it. An unknown field is an error, because the job could
 * mean something else without it. */
static cop_err check_message(const checker *c, const cop_proto *message, const cop_field_path *p) {
    const cop_proto_type *type = message->descriptor;
    if (message->n_unknown_fields)
        return fail(c, p, "%s has a field that this version does not know (number %u)",
                    p->text[0] ? p->text : "the job", message->unknown_fields[0].tag);
    if (cop_fields_one_of(type)) COP_TRY(check_one_of(c, message, p));
    for (unsigned i = 0; i < type->n_fields; i++) {
        cop_field_path at = cop_field_path_member(p, type->fields[i].name);
        COP_TRY(check_field(c, message, &type->fields[i], &at));
    }
    return COP_OK;
}

static cop_err check_job(const Coppice__Job *job, bool located, cop_error *error) {
    COP_ASSERT(job->base.descriptor == &coppice__job__descriptor);
    const checker c = {job, located, error};
    const cop_field_path top = {""};
    return check_message(&c, &job->base, &top);
}

cop_err cop_document_check(const Coppice__Job *job, cop_error *error) {
    return check_job(job, false, error);
}

cop_err cop_document_check_read(const Coppice__Job *job, cop_error *error) {
    return check_job(job, true, error);
}
