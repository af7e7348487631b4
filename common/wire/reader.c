/* Walks over YAML nodes and fills a protobuf message, by its descriptor. See reader.h. document.c
 * uses it to read whole job files, document_set.c to read one field. */
#include "common/wire/reader.h"

#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/wire/codec.h"

#define TEXT_MAX 1024 /* bytes of a text, with its zero byte */

/* ---- scalars ---- */

bool cop_field_in_range(const cop_field_row *row, double value) {
    if (!row || !cop_field_is_ranged(row)) return true;
    COP_ASSERT(row->min <= row->max);
    if (row->above_min ? !(value > row->min) : !(value >= row->min)) return false;
    return row->below_max ? value < row->max : value <= row->max;
}

/* YAML's core schema allows three spellings of true, and three of false. */
static bool read_bool(const char *text, protobuf_c_boolean *out) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i < 3;
            return true;
        }
    return false;
}

/* Enums are written in lower case in job files, and in capitals in the schema. */
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

static bool read_whole(const char *text, const cop_field_row *row, uint64_t max, uint64_t *out) {
    return cop_parse_u64(text, out) && *out <= max && cop_field_in_range(row, (double)*out);
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

/* Where to store the value of a node. */
typedef struct slot {
    const cop_proto_field *field;
    const cop_field_row *row; /* NULL: the field has no row, and so no range */
    const cop_field_path *path;
    void *at; /* the address of the value */
} slot;

static cop_err fail_value(const cop_reader *r, const yaml_node_t *node, const slot *to) {
    return cop_reader_fail_value(r, node, to->path, to->field, to->row);
}

static cop_err read_text(const cop_reader *r, const yaml_node_t *node, const slot *to) {
    const char *text = cop_yaml_text(node);
    COP_ASSERT(text != NULL);
    if (cop_yaml_is_null(node) || strlen(text) != node->data.scalar.length)
        return fail_value(r, node, to);
    if (node->data.scalar.length >= TEXT_MAX)
        return cop_reader_fail(r, node, "%s has %zu bytes: expected fewer than %d", to->path->text,
                               node->data.scalar.length, TEXT_MAX);
    char *copy = cop_proto_strdup(r->root, text);
    if (!copy) return cop_reader_no_memory(r);
    *(char **)to->at = copy;
    return COP_OK;
}

/* May a value of this field be quoted? Enums and u64 numbers, such as a seed, may be, because they
 * are quoted in JSON. Other numbers and bools must not be quoted. */
static bool may_be_quoted(const cop_proto_field *field) {
    return field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_ENUM;
}

static cop_err read_scalar(const cop_reader *r, const yaml_node_t *node, const slot *to) {
    const char *text = cop_yaml_text(node);
    const cop_proto_field *field = to->field;
    if (!text) return fail_value(r, node, to);
    if (field->type == PROTOBUF_C_TYPE_STRING) return read_text(r, node, to);
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!plain && !may_be_quoted(field)) return fail_value(r, node, to);
    if (to->row && field->type == PROTOBUF_C_TYPE_ENUM &&
        cop_fields_is_reserved(to->row->name, text))
        return cop_reader_fail(r, node, "%s: %s is not supported by this version", to->path->text,
                               text);
    return cop_reader_value(field, to->row, text, to->at) ? COP_OK : fail_value(r, node, to);
}

/* ---- fields ---- */

/* Reads the value of a field that is not repeated, or one item of a repeated field. */
static cop_err read_one(const cop_reader *r, const yaml_node_t *node, const slot *to) {
    cop_reader_record_line(r, to->path, node);
    if (to->field->type != PROTOBUF_C_TYPE_MESSAGE) return read_scalar(r, node, to);
    *(cop_proto **)to->at = NULL;
    return cop_reader_message(r, node, to->field->descriptor, to->path, to->at);
}

static cop_err read_list(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_field_path *p, cop_proto *message) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    if (node->type != YAML_SEQUENCE_NODE) return cop_reader_fail_value(r, node, p, field, row);
    const yaml_node_item_t *first = node->data.sequence.items.start;
    size_t count = (size_t)(node->data.sequence.items.top - first);
    size_t size = cop_reflect_size(field);
    const size_t max = cop_fields_max_items(field);
    if (count > max || (count < 1 && row && row->required))
        return cop_reader_fail(r, node, "%s has %zu items: expected 1 to %zu", p->text, count, max);
    char *items = cop_proto_alloc(r->root, count * size);
    if (!items) return cop_reader_no_memory(r);
    cop_reader_record_line(r, p, node);
    for (size_t i = 0; i < count; i++) {
        cop_field_path item = cop_field_path_item(p, i);
        const slot to = {field, row, &item, items + i * size};
        COP_TRY(read_one(r, yaml_document_get_node(r->document, first[i]), &to));
    }
    cop_reflect_put_list(message, field, items, count);
    return COP_OK;
}

cop_err cop_reader_field(const cop_reader *r, const yaml_node_t *node, const cop_proto_field *field,
                         const cop_field_path *p, cop_proto *message) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED) return read_list(r, node, field, p, message);
    const slot to = {field, cop_fields_find(message->descriptor, field), p,
                     cop_reflect_put(message, field)};
    return read_one(r, node, &to);
}

/* ---- messages ---- */

static cop_err read_pair(const cop_reader *r, const yaml_node_pair_t *pair, const cop_field_path *p,
                         cop_proto *message) {
    const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
    const char *name = cop_yaml_text(key);
    const cop_proto_field *field = cop_reflect_find(message->descriptor, name);
    if (!field) return cop_reader_fail_unknown(r, key, p, message->descriptor, name ? name : "?");
    cop_field_path at = cop_field_path_member(p, name);
    if (cop_reflect_is_set(message, field))
        return cop_reader_fail(r, key, "%s is given twice", at.text);
    return cop_reader_field(r, value, field, &at, message);
}

static cop_err check_required(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                              const cop_proto *message) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const cop_proto_field *field = &message->descriptor->fields[i];
        const cop_field_row *row = cop_fields_find(message->descriptor, field);
        if (!row || !row->required || cop_reflect_is_set(message, field)) continue;
        cop_str words = {0};
        cop_field_path at = cop_field_path_member(p, field->name);
        cop_describe_expected(field, row, &words);
        cop_err e = cop_reader_fail(r, node, "%s is missing: expected %s (%s)", at.text,
                                    cop_str_text(&words), row->help);
        cop_str_fini(&words);
        return e;
    }
    return COP_OK;
}

/* Reads a one-of that is only the name of a member, as in "loss: cross_entropy" and "- relu". */
static cop_err read_bare_name(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                              cop_proto *message) {
    const char *name = cop_yaml_text(node);
    const cop_proto_field *field = cop_reflect_find(message->descriptor, name);
    if (!field) return cop_reader_fail_unknown(r, node, p, message->descriptor, name);
    cop_proto *inner = cop_reflect_new(r->root, field->descriptor);
    if (!inner) return cop_reader_no_memory(r);
    *(cop_proto **)cop_reflect_put(message, field) = inner;
    cop_field_path at = cop_field_path_member(p, field->name);
    return check_required(r, node, &at, inner);
}

static cop_err read_map(const cop_reader *r, const yaml_node_t *node, const cop_field_path *p,
                        cop_proto *message) {
    COP_ASSERT(node->type == YAML_MAPPING_NODE);
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    size_t count = (size_t)(node->data.mapping.pairs.top - first);
    if (cop_fields_one_of(message->descriptor) && count != 1)
        return cop_reader_fail(r, node, "%s has %zu keys: expected exactly one, such as \"%s\"",
                               p->text, count, message->descriptor->fields[0].name);
    for (size_t i = 0; i < count; i++) COP_TRY(read_pair(r, &first[i], p, message));
    return COP_OK;
}

cop_err cop_reader_message(const cop_reader *r, const yaml_node_t *node, const cop_proto_type *type,
                           const cop_field_path *p, cop_proto **out) {
    COP_ASSERT(!*out || (*out)->descriptor == type);
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
    else if (cop_fields_shorthand(type) && cop_yaml_text(node) && !null)
        COP_TRY(cop_reader_field(r, node, cop_fields_shorthand(type), p, *out));
    else if (!null)
        return cop_reader_fail(r, node, "%s is %s: expected a map", at,
                               cop_yaml_text(node) ? cop_yaml_text(node) : "a list");
    return check_required(r, node, p, *out);
}
