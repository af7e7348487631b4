/* Writes the texts of errors in job files: the value that was found, the values that are expected,
 * and the nearest valid name. See reader.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/codec.h"
#include "common/wire/reader.h"

#define NAMES_MAX 64

cop_field_path cop_field_path_member(const cop_field_path *p, const char *name) {
    cop_field_path out;
    snprintf(out.text, sizeof out.text, "%s%s%s", p->text, p->text[0] ? "." : "", name);
    return out;
}

cop_field_path cop_field_path_item(const cop_field_path *p, size_t index) {
    cop_field_path out;
    snprintf(out.text, sizeof out.text, "%s[%zu]", p->text, index);
    return out;
}

cop_err cop_reader_fail(const cop_reader *r, const yaml_node_t *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(r->error, COP_ERR_INPUT, format, arguments);
    va_end(arguments);
    if (node && r->lines)
        cop_error_prefix(r->error, "%s:%zu:%zu", r->source, node->start_mark.line + 1,
                         node->start_mark.column + 1);
    else
        cop_error_prefix(r->error, "%s", r->source);
    return COP_ERR_INPUT;
}

cop_err cop_reader_no_memory(const cop_reader *r) {
    if (cop_proto_alloc_error(r->root) == COP_ERR_NO_MEMORY)
        return cop_fail(r->error, COP_ERR_NO_MEMORY, "out of memory while reading %s", r->source);
    return cop_fail(r->error, COP_ERR_LIMIT, "%s needs more memory than a job may use", r->source);
}

const char *cop_yaml_text(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

bool cop_yaml_is_null(const yaml_node_t *node) {
    const char *text = cop_yaml_text(node);
    if (!text || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return false;
    return !*text || strcmp(text, "null") == 0 || strcmp(text, "Null") == 0 ||
           strcmp(text, "NULL") == 0 || strcmp(text, "~") == 0;
}

/* Writes a description of what the node contains into `out`, and returns `out`. */
static const char *found(const yaml_node_t *node, char out[80]) {
    const char *text = cop_yaml_text(node);
    if (node->type == YAML_MAPPING_NODE)
        snprintf(out, 80, "a map");
    else if (node->type == YAML_SEQUENCE_NODE)
        snprintf(out, 80, "a list");
    else if (cop_yaml_is_null(node))
        snprintf(out, 80, "empty");
    else if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        snprintf(out, 80, "%.60s", text);
    else
        snprintf(out, 80, "\"%.60s\"", text);
    return out;
}

static void lower_name(const char *in, char out[64]) {
    size_t i = 0;
    for (; in[i] && i < 63; i++)
        out[i] = in[i] >= 'A' && in[i] <= 'Z' ? (char)(in[i] - 'A' + 'a') : in[i];
    out[i] = '\0';
}

void cop_describe_enum(const ProtobufCEnumDescriptor *e, const char *last, cop_str *out) {
    for (unsigned i = 0; i < e->n_values; i++) {
        char name[64];
        lower_name(e->values[i].name, name);
        cop_str_printf(out, "%s%s", i == 0 ? "" : i + 1 == e->n_values ? last : ", ", name);
    }
}

static void number_range(const cop_field_row *row, bool whole, cop_str *out) {
    cop_str_append(out, whole ? "a whole number" : "a number");
    if (!cop_field_is_ranged(row)) return;
    cop_str_printf(out, row->above_min ? " above %.15g" : " from %.15g", row->min);
    if (row->max < 1.8e19)
        cop_str_printf(out, row->below_max ? " to below %.15g" : " to %.15g", row->max);
}

void cop_describe_expected(const cop_proto_field *field, const cop_field_row *row, cop_str *out) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        number_range(row, false, out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cop_str_append(out, "true or false");
        break;
    case PROTOBUF_C_TYPE_STRING:
        cop_str_append(out, "text");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        cop_describe_enum(field->descriptor, " or ", out);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        cop_str_append(out, field->label == PROTOBUF_C_LABEL_REPEATED ? "a list" : "a map");
        break;
    default:
        number_range(row, true, out);
    }
}

cop_err cop_reader_fail_value(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                              const cop_proto_field *field, const cop_field_row *row) {
    cop_str words = {0};
    char what[80];
    cop_describe_expected(field, row, &words);
    cop_err e = cop_reader_fail(r, node, "%s is %s: expected %s", p->text, found(node, what),
                                cop_str_text(&words));
    cop_str_fini(&words);
    return e;
}

void cop_describe_unknown(const cop_field_path *p, const cop_proto_type *type, const char *name,
                          cop_str *out) {
    const char *names[NAMES_MAX];
    size_t count = 0;
    char kind[64] = "field";
    if (cop_fields_one_of(type)) lower_name(type->short_name, kind);
    if (p->text[0]) cop_str_printf(out, "%s: ", p->text);
    if (cop_fields_is_reserved(type->short_name, name)) {
        cop_str_printf(out, "%s \"%s\" is not supported by this version", kind, name);
        return;
    }
    if (type->n_fields == 0) {
        cop_str_printf(out, "unknown %s \"%s\" (no fields are allowed here)", kind, name);
        return;
    }
    for (unsigned i = 0; i < type->n_fields && count < NAMES_MAX; i++)
        if (strcmp(type->fields[i].name, "pinned") != 0) names[count++] = type->fields[i].name;
    const char *nearest = cop_fields_find_synonym(name, names, count);
    if (!nearest) nearest = cop_nearest_name(name, names, count);
    cop_str_printf(out, "unknown %s \"%.60s\"", kind, name);
    if (nearest) cop_str_printf(out, ": did you mean \"%s\"?", nearest);
    for (size_t i = 0; i < count; i++)
        cop_str_printf(out, "%s%s", i ? ", " : " (expected one of ", names[i]);
    cop_str_append(out, ")");
}

cop_err cop_reader_fail_unknown(const cop_reader *r, const yaml_node_t *node,
                                const cop_field_path *p, const cop_proto_type *type,
                                const char *name) {
    cop_str words = {0};
    cop_describe_unknown(p, type, name, &words);
    cop_err e = cop_reader_fail(r, node, "%s", cop_str_text(&words));
    cop_str_fini(&words);
    return e;
}
