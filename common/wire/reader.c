/* The walk: YAML nodes to a protobuf message, by its descriptors. See reader.h. Called by
 * document.c for whole job files and by document_set.c for one field. */
#include "common/wire/reader.h"

#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/wire/codec.h"

#define TEXT_MAX 1024

/* ---- scalars ---- */

bool cop_field_in_range(const cop_field_row *row, double value) {
    if (!row || !cop_field_is_ranged(row)) return true;
    if (row->above ? !(value > row->least) : !(value >= row->least)) return false;
    return row->below ? value < row->most : value <= row->most;
}

/* YAML's core schema has three spellings of each. */
static bool read_bool(const char *text, protobuf_c_boolean *out) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i < 3;
            return true;
        }
    return false;
}

static bool read_enum(const ProtobufCEnumDescriptor *d, const char *text, int *out) {
    for (unsigned i = 0; i < d->n_values; i++) {
        const char *name = d->values[i].name;
        size_t at = 0;
        while (name[at] &&
               (name[at] >= 'A' && name[at] <= 'Z' ? name[at] + 32 : name[at]) == text[at])
            at++;
        if (name[at] || text[at]) continue;
        *out = d->values[i].value;
        return true;
    }
    return false;
}

static bool read_whole(const char *text, const cop_field_row *row, uint64_t most, uint64_t *out) {
    return cop_parse_u64(text, out) && *out <= most && cop_field_in_range(row, (double)*out);
}

bool cop_reader_value(const cop_proto_field *field, const cop_field_row *row, const char *text,
                      void *at) {
    uint64_t u;
    int64_t i;
    double d;
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!cop_parse_f64(text, &d) || !cop_field_in_range(row, d)) return false;
        *(double *)at = d;
        return true;
    case PROTOBUF_C_TYPE_UINT64:
        return read_whole(text, row, UINT64_MAX, at);
    case PROTOBUF_C_TYPE_UINT32:
        if (!read_whole(text, row, UINT32_MAX, &u)) return false;
        *(uint32_t *)at = (uint32_t)u;
        return true;
    case PROTOBUF_C_TYPE_INT32:
        if (!cop_parse_i64(text, &i) || i < INT32_MIN || i > INT32_MAX) return false;
        *(int32_t *)at = (int32_t)i;
        return cop_field_in_range(row, (double)i);
    case PROTOBUF_C_TYPE_BOOL:
        return read_bool(text, at);
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(field->descriptor, text, at);
    default:
        return false;
    }
}

static cop_err read_text(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_path *p, void *at) {
    const char *text = cop_yaml_text(node);
    if (cop_yaml_is_null(node) || strlen(text) != node->data.scalar.length)
        return cop_reader_wrong(r, node, p, field, NULL);
    if (node->data.scalar.length >= TEXT_MAX)
        return cop_reader_fail(r, node, "%s has %zu bytes: expected fewer than %d", p->text,
                               node->data.scalar.length, TEXT_MAX);
    char *copy = cop_proto_strdup(r->root, text);
    if (!copy) return cop_reader_no_memory(r);
    *(char **)at = copy;
    return COP_OK;
}

/* Numbers and bools stand without quotes; a 64-bit number (a seed) may have them, as in JSON. */
static bool may_be_quoted(const cop_proto_field *field) {
    return field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_ENUM;
}

static cop_err read_scalar(const cop_reader *r, const yaml_node_t *node,
                           const cop_proto_field *field, const cop_field_row *row,
                           const cop_path *p, void *at) {
    const char *text = cop_yaml_text(node);
    if (!text) return cop_reader_wrong(r, node, p, field, row);
    if (field->type == PROTOBUF_C_TYPE_STRING) return read_text(r, node, field, p, at);
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!plain && !may_be_quoted(field)) return cop_reader_wrong(r, node, p, field, row);
    if (row && field->type == PROTOBUF_C_TYPE_ENUM && cop_fields_later(row->name, text))
        return cop_reader_fail(r, node, "%s: %s is not supported by this version", p->text, text);
    if (!cop_reader_value(field, row, text, at)) return cop_reader_wrong(r, node, p, field, row);
    return COP_OK;
}

/* ---- fields ---- */

static cop_err read_one(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                        const cop_field_row *row, const cop_path *p, void *at) {
    cop_marks_add(r, p, node);
    if (field->type != PROTOBUF_C_TYPE_MESSAGE) return read_scalar(r, node, field, row, p, at);
    *(cop_proto **)at = NULL;
    return cop_reader_message(r, node, field->descriptor, p, at);
}

static cop_err read_list(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_path *p, cop_proto *message) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    if (node->type != YAML_SEQUENCE_NODE) return cop_reader_wrong(r, node, p, field, row);
    const yaml_node_item_t *first = node->data.sequence.items.start;
    size_t count = (size_t)(node->data.sequence.items.top - first);
    size_t size = cop_reflect_size(field);
    const size_t most = cop_fields_most(field);
    if (count > most || (count < 1 && row && row->required))
        return cop_reader_fail(r, node, "%s has %zu items: expected 1 to %zu", p->text, count,
                               most);
    char *items = cop_proto_alloc(r->root, count * size);
    if (!items) return cop_reader_no_memory(r);
    cop_marks_add(r, p, node);
    for (size_t i = 0; i < count; i++) {
        cop_path item = cop_path_item(p, i);
        const yaml_node_t *at = yaml_document_get_node(r->document, first[i]);
        COP_TRY(read_one(r, at, field, row, &item, items + i * size));
    }
    cop_reflect_put_list(message, field, items, count);
    return COP_OK;
}

cop_err cop_reader_field(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_path *p, cop_proto *message) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED) return read_list(r, node, field, p, message);
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    return read_one(r, node, field, row, p, cop_reflect_put(message, field));
}

/* ---- messages ---- */

static cop_err read_pair(const cop_reader *r, const yaml_node_pair_t *pair, const cop_path *p,
                         cop_proto *message) {
    const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
    const char *name = cop_yaml_text(key);
    const cop_proto_field *field = cop_reflect_find(message->descriptor, name);
    if (!field) return cop_reader_unknown(r, key, p, message->descriptor, name ? name : "?");
    cop_path at = cop_path_field(p, name);
    if (cop_reflect_is_set(message, field))
        return cop_reader_fail(r, key, "%s is given twice", at.text);
    return cop_reader_field(r, value, field, &at, message);
}

static cop_err check_required(const cop_reader *r, const yaml_node_t *node, const cop_path *p,
                              const cop_proto *message) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const cop_proto_field *field = &message->descriptor->fields[i];
        const cop_field_row *row = cop_fields_find(message->descriptor, field);
        if (!row || !row->required || cop_reflect_is_set(message, field)) continue;
        cop_str words = {0};
        cop_path at = cop_path_field(p, field->name);
        cop_words_expected(field, row, &words);
        cop_err e = cop_reader_fail(r, node, "%s is missing: expected %s (%s)", at.text,
                                    cop_str_text(&words), row->help);
        cop_str_fini(&words);
        return e;
    }
    return COP_OK;
}

/* "loss: cross_entropy", "- relu": the name alone. */
static cop_err read_bare_name(const cop_reader *r, const yaml_node_t *node, const cop_path *p,
                              cop_proto *message) {
    const char *name = cop_yaml_text(node);
    const cop_proto_field *field = cop_reflect_find(message->descriptor, name);
    if (!field) return cop_reader_unknown(r, node, p, message->descriptor, name);
    cop_proto *inner = cop_reflect_new(r->root, field->descriptor);
    if (!inner) return cop_reader_no_memory(r);
    *(cop_proto **)cop_reflect_put(message, field) = inner;
    cop_path at = cop_path_field(p, field->name);
    return check_required(r, node, &at, inner);
}

static cop_err read_map(const cop_reader *r, const yaml_node_t *node, const cop_path *p,
                        cop_proto *message) {
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    size_t count = (size_t)(node->data.mapping.pairs.top - first);
    if (cop_fields_one_of(message->descriptor) && count != 1)
        return cop_reader_fail(r, node, "%s has %zu keys: expected exactly one, such as \"%s\"",
                               p->text, count, message->descriptor->fields[0].name);
    for (size_t i = 0; i < count; i++) COP_TRY(read_pair(r, &first[i], p, message));
    return COP_OK;
}

cop_err cop_reader_message(const cop_reader *r, const yaml_node_t *node, const cop_proto_type *type,
                           const cop_path *p, cop_proto **out) {
    if (!*out) *out = cop_reflect_new(r->root, type);
    if (!*out) return cop_reader_no_memory(r);
    bool one_of = cop_fields_one_of(type), null = cop_yaml_is_null(node);
    const char *at = p->text[0] ? p->text : "the job";
    if (node->type == YAML_MAPPING_NODE)
        COP_TRY(read_map(r, node, p, *out));
    else if (one_of && cop_yaml_text(node) && !null)
        COP_TRY(read_bare_name(r, node, p, *out));
    else if (one_of)
        return cop_reader_fail(r, node, "%s is %s: expected a map such as {%s: ...}", at,
                               null ? "empty" : "a list", type->fields[0].name);
    else if (cop_fields_bare(type) && cop_yaml_text(node) && !null)
        COP_TRY(cop_reader_field(r, node, cop_fields_bare(type), p, *out));
    else if (!null)
        return cop_reader_fail(r, node, "%s is %s: expected a map", at,
                               cop_yaml_text(node) ? cop_yaml_text(node) : "a list");
    return check_required(r, node, p, *out);
}
