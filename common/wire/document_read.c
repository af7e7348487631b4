/* Job files: YAML to the protobuf message, by one walk over its descriptors. See document.h. Every
 * error names file, line, column and path, says what was found and what is expected, and suggests
 * the nearest valid name. */
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/document_internal.h"
#include "common/wire/fields.h"

/* ---- where we are ---- */

typedef struct reader {
    const char *file;
    yaml_document_t *document;
    ProtobufCMessage *root;
    bool pinned_allowed;
    cop_error *error;
} reader;

/* A path as it grows: "model[1].linear.units". */
typedef struct path {
    char text[256];
} path;

static path path_field(const path *p, const char *name) {
    path out;
    snprintf(out.text, sizeof out.text, "%s%s%s", p->text, p->text[0] ? "." : "", name);
    return out;
}

static path path_item(const path *p, size_t index) {
    path out;
    snprintf(out.text, sizeof out.text, "%s[%zu]", p->text, index);
    return out;
}

static cop_err fail_at(const reader *r, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static cop_err fail_at(const reader *r, const yaml_node_t *node, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    cop_vfail(r->error, COP_ERR_INPUT, format, arguments);
    va_end(arguments);
    if (node)
        cop_error_prefix(r->error, "%s:%zu:%zu", r->file, node->start_mark.line + 1,
                         node->start_mark.column + 1);
    else
        cop_error_prefix(r->error, "%s", r->file);
    return COP_ERR_INPUT;
}

static const char *text_of(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static bool is_null(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return !*text || strcmp(text, "null") == 0 || strcmp(text, "~") == 0;
}

static const char *found(const yaml_node_t *node, char out[80]) {
    if (node->type == YAML_MAPPING_NODE)
        snprintf(out, 80, "a map");
    else if (node->type == YAML_SEQUENCE_NODE)
        snprintf(out, 80, "a list");
    else if (is_null(node))
        snprintf(out, 80, "empty");
    else
        snprintf(out, 80, "%.60s", (const char *)node->data.scalar.value);
    return out;
}

/* ---- what is expected, in words ---- */

static void lower_name(const char *in, char out[64]) {
    size_t i = 0;
    for (; in[i] && i < 63; i++)
        out[i] = in[i] >= 'A' && in[i] <= 'Z' ? (char)(in[i] - 'A' + 'a') : in[i];
    out[i] = '\0';
}

static void list_enum(const ProtobufCEnumDescriptor *e, cop_str *out) {
    for (unsigned i = 0; i < e->n_values; i++) {
        char name[64];
        lower_name(e->values[i].name, name);
        cop_str_printf(out, "%s%s", i == 0 ? "" : i + 1 == e->n_values ? " or " : ", ", name);
    }
}

static void number_range(const cop_field_row *row, bool whole, cop_str *out) {
    cop_str_append(out, whole ? "a whole number" : "a number");
    if (!row || (row->least == 0 && row->most == 0)) return;
    cop_str_printf(out, row->above ? " above %.15g" : " from %.15g", row->least);
    if (row->most < 1.8e19)
        cop_str_printf(out, row->below ? " to below %.15g" : " to %.15g", row->most);
}

/* "a number from 0 to below 1" */
static void expectation(const ProtobufCFieldDescriptor *field, const cop_field_row *row,
                        cop_str *out) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        number_range(row, false, out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cop_str_append(out, "true or false");
        break;
    case PROTOBUF_C_TYPE_STRING:
        cop_str_append(out, "a text");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        list_enum(field->descriptor, out);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        cop_str_append(out, field->label == PROTOBUF_C_LABEL_REPEATED ? "a list" : "a map");
        break;
    default:
        number_range(row, true, out);
    }
}

static cop_err wrong_value(const reader *r, const yaml_node_t *node, const path *p,
                           const ProtobufCFieldDescriptor *field, const cop_field_row *row) {
    cop_str words = {0};
    char what[80];
    expectation(field, row, &words);
    cop_err e =
        fail_at(r, node, "%s is %s: expected %s", p->text, found(node, what), cop_str_text(&words));
    cop_str_fini(&words);
    return e;
}

static cop_err unknown_field(const reader *r, const yaml_node_t *key, const path *p,
                             const ProtobufCMessageDescriptor *d) {
    const char *name = text_of(key) ? text_of(key) : "?", *names[64];
    size_t count = 0;
    cop_str all = {0};
    for (unsigned i = 0; i < d->n_fields && count < 64; i++) {
        if (strcmp(d->fields[i].name, "pinned") == 0) continue;
        names[count] = d->fields[i].name;
        cop_str_printf(&all, "%s%s", count ? ", " : "", names[count]);
        count++;
    }
    const char *kind = cop_fields_one_of(d) ? d->short_name : "field";
    char what[64];
    lower_name(kind, what);
    const char *nearest = cop_nearest_name(name, names, count);
    const char *at = p->text[0] ? p->text : "the job file";
    cop_err e;
    if (cop_fields_later(d->short_name, name))
        e = fail_at(r, key, "%s: %s \"%s\" is not supported by this version", at, what, name);
    else if (!count)
        e = fail_at(r, key, "%s takes no fields, but has \"%s\"", at, name);
    else if (nearest)
        e = fail_at(r, key, "%s: unknown %s \"%s\": did you mean \"%s\"? (expected one of %s)", at,
                    what, name, nearest, cop_str_text(&all));
    else
        e = fail_at(r, key, "%s: unknown %s \"%s\" (expected one of %s)", at, what, name,
                    cop_str_text(&all));
    cop_str_fini(&all);
    return e;
}

/* ---- scalars ---- */

static bool in_range(const cop_field_row *row, double value) {
    if (!row || (row->least == 0 && row->most == 0)) return true;
    if (row->above ? value <= row->least : value < row->least) return false;
    return row->below ? value < row->most : value <= row->most;
}

static bool read_bool(const char *text, protobuf_c_boolean *out) {
    bool yes = strcmp(text, "true") == 0, no = strcmp(text, "false") == 0;
    *out = yes;
    return yes || no;
}

static bool read_enum(const ProtobufCEnumDescriptor *d, const char *text, int *out) {
    for (unsigned i = 0; i < d->n_values; i++) {
        char name[64];
        lower_name(d->values[i].name, name);
        if (strcmp(name, text) != 0) continue;
        *out = d->values[i].value;
        return true;
    }
    return false;
}

/* One value into `at`; false: ill-typed or out of range. */
static bool read_number(const ProtobufCFieldDescriptor *field, const cop_field_row *row,
                        const char *text, void *at) {
    uint64_t u;
    int64_t i;
    double d;
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!cop_parse_f64(text, &d) || !in_range(row, d)) return false;
        *(double *)at = d;
        return true;
    case PROTOBUF_C_TYPE_UINT64:
        if (!cop_parse_u64(text, &u) || !in_range(row, (double)u)) return false;
        *(uint64_t *)at = u;
        return true;
    case PROTOBUF_C_TYPE_UINT32:
        if (!cop_parse_u64(text, &u) || u > UINT32_MAX || !in_range(row, (double)u)) return false;
        *(uint32_t *)at = (uint32_t)u;
        return true;
    case PROTOBUF_C_TYPE_INT32:
        if (!cop_parse_i64(text, &i) || i < INT32_MIN || i > INT32_MAX || !in_range(row, (double)i))
            return false;
        *(int32_t *)at = (int32_t)i;
        return true;
    case PROTOBUF_C_TYPE_BOOL:
        return read_bool(text, at);
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(field->descriptor, text, at);
    default:
        return false;
    }
}

static cop_err out_of_memory(const reader *r) {
    return cop_fail(r->error, COP_ERR_LIMIT, "%s needs more memory than a job file may", r->file);
}

static cop_err read_scalar(const reader *r, const yaml_node_t *node,
                           const ProtobufCFieldDescriptor *field, const cop_field_row *row,
                           const path *p, void *at) {
    const char *text = text_of(node);
    if (!text || (is_null(node) && field->type != PROTOBUF_C_TYPE_STRING))
        return wrong_value(r, node, p, field, row);
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        size_t length = node->data.scalar.length;
        if (is_null(node) || strlen(text) != length || length >= 1024)
            return wrong_value(r, node, p, field, row);
        char *copy = cop_proto_strdup(r->root, text);
        if (!copy) return out_of_memory(r);
        *(char **)at = copy;
        return COP_OK;
    }
    if (field->type == PROTOBUF_C_TYPE_ENUM) {
        char later[96];
        snprintf(later, sizeof later, "%s=%.40s", field->name, text);
        if (cop_fields_later("Train", later))
            return fail_at(r, node, "%s: %s is not supported by this version", p->text, text);
    }
    return read_number(field, row, text, at) ? COP_OK : wrong_value(r, node, p, field, row);
}

/* ---- messages ---- */

static cop_err read_message(const reader *r, const yaml_node_t *node,
                            const ProtobufCMessageDescriptor *d, const path *p,
                            ProtobufCMessage **out);

static size_t element_size(const ProtobufCFieldDescriptor *field) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    default:
        return 4;
    }
}

static cop_err read_one(const reader *r, const yaml_node_t *node,
                        const ProtobufCFieldDescriptor *field, const cop_field_row *row,
                        const path *p, void *at) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return read_message(r, node, field->descriptor, p, at);
    return read_scalar(r, node, field, row, p, at);
}

static cop_err read_list(const reader *r, const yaml_node_t *node,
                         const ProtobufCFieldDescriptor *field, const cop_field_row *row,
                         const path *p, ProtobufCMessage *message) {
    if (node->type != YAML_SEQUENCE_NODE) return wrong_value(r, node, p, field, row);
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start),
           size = element_size(field);
    if (count < 1 || count > COP_LAYERS_MAX)
        return fail_at(r, node, "%s has %zu items: expected 1 to %d", p->text, count,
                       COP_LAYERS_MAX);
    char *items = cop_proto_alloc(r->root, count * size);
    if (!items) return out_of_memory(r);
    for (size_t i = 0; i < count; i++) {
        path item = path_item(p, i);
        COP_TRY(read_one(r, yaml_document_get_node(r->document, node->data.sequence.items.start[i]),
                         field, row, &item, items + i * size));
    }
    *(size_t *)(void *)((char *)message + field->quantifier_offset) = count;
    *(char **)(void *)((char *)message + field->offset) = items;
    return COP_OK;
}

static bool is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    const char *base = (const char *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)(const void *)(base + field->quantifier_offset) > 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING)
        return *(void *const *)(const void *)(base + field->offset) != NULL;
    return *(const protobuf_c_boolean *)(const void *)(base + field->quantifier_offset);
}

static void mark_set(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED || field->type == PROTOBUF_C_TYPE_MESSAGE ||
        field->type == PROTOBUF_C_TYPE_STRING)
        return;
    *(protobuf_c_boolean *)(void *)((char *)message + field->quantifier_offset) = 1;
}

static cop_err read_field(const reader *r, const yaml_node_t *node,
                          const ProtobufCFieldDescriptor *field, const path *p,
                          ProtobufCMessage *message) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return read_list(r, node, field, row, p, message);
    COP_TRY(read_one(r, node, field, row, p, (char *)message + field->offset));
    mark_set(message, field);
    return COP_OK;
}

static cop_err read_pair(const reader *r, const yaml_node_pair_t *pair, const path *p,
                         ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *d = message->descriptor;
    yaml_node_t *key = yaml_document_get_node(r->document, pair->key),
                *value = yaml_document_get_node(r->document, pair->value);
    const char *name = text_of(key);
    const ProtobufCFieldDescriptor *field =
        name ? protobuf_c_message_descriptor_get_field_by_name(d, name) : NULL;
    if (!field || (strcmp(name, "pinned") == 0 && !r->pinned_allowed))
        return unknown_field(r, key, p, d);
    path at = path_field(p, name);
    if (is_set(message, field)) return fail_at(r, key, "%s is given twice", at.text);
    return read_field(r, value, field, &at, message);
}

static cop_err check_required(const reader *r, const yaml_node_t *node, const path *p,
                              const ProtobufCMessage *message) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const cop_field_row *row = cop_fields_find(message->descriptor, field);
        if (!row || !row->required || is_set(message, field)) continue;
        cop_str words = {0};
        path at = path_field(p, field->name);
        expectation(field, row, &words);
        cop_err e = fail_at(r, node, "%s is missing: expected %s (%s)", at.text,
                            cop_str_text(&words), row->help);
        cop_str_fini(&words);
        return e;
    }
    return COP_OK;
}

static ProtobufCMessage *new_message(ProtobufCMessage *root, const ProtobufCMessageDescriptor *d) {
    ProtobufCMessage *message = cop_proto_alloc(root, d->sizeof_message);
    if (message) protobuf_c_message_init(d, message);
    return message;
}

/* "loss: cross_entropy", "- relu": the name alone. */
static cop_err read_bare_name(const reader *r, const yaml_node_t *node, const path *p,
                              ProtobufCMessage *message) {
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, text_of(node));
    if (!field) return unknown_field(r, node, p, message->descriptor);
    ProtobufCMessage *inner = new_message(r->root, field->descriptor);
    if (!inner) return out_of_memory(r);
    *(ProtobufCMessage **)(void *)((char *)message + field->offset) = inner;
    path at = path_field(p, field->name);
    return check_required(r, node, &at, inner);
}

static cop_err read_message(const reader *r, const yaml_node_t *node,
                            const ProtobufCMessageDescriptor *d, const path *p,
                            ProtobufCMessage **out) {
    ProtobufCMessage *message = *out ? *out : new_message(r->root, d);
    char what[80];
    if (!message) return out_of_memory(r);
    bool one_of = cop_fields_one_of(d);
    if (one_of && text_of(node) && !is_null(node)) {
        COP_TRY(read_bare_name(r, node, p, message));
    } else if (node->type == YAML_MAPPING_NODE) {
        size_t count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
        if (one_of && count != 1)
            return fail_at(r, node, "%s has %zu keys: expected exactly one, such as \"%s\"",
                           p->text, count, d->fields[0].name);
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
             pair < node->data.mapping.pairs.top; pair++)
            COP_TRY(read_pair(r, pair, p, message));
    } else if (!is_null(node) || one_of) {
        return fail_at(r, node, "%s is %s: expected a map", p->text[0] ? p->text : "the job file",
                       found(node, what));
    }
    *out = message;
    return check_required(r, node, p, message);
}

/* ---- whole documents ---- */

#define JOB_BUDGET (16u << 20)

static cop_err load_document(yaml_parser_t *parser, yaml_document_t *document, const char *name,
                             cop_error *error) {
    if (yaml_parser_load(parser, document)) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu:%zu: not YAML: %s", name,
                    parser->problem_mark.line + 1, parser->problem_mark.column + 1,
                    parser->problem ? parser->problem : "out of memory");
}

static cop_err parse(const char *text, size_t size, const char *name, bool pinned_allowed,
                     Coppice__Job **out, cop_error *error) {
    yaml_parser_t parser;
    yaml_document_t document;
    if (size > COP_JOB_FILE_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s has %zu bytes: a job file has at most %u", name,
                        size, COP_JOB_FILE_MAX);
    if (!yaml_parser_initialize(&parser))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    cop_err e = load_document(&parser, &document, name, error);
    if (!e) {
        ProtobufCMessage *job = cop_proto_create(&coppice__job__descriptor, JOB_BUDGET);
        yaml_node_t *root = yaml_document_get_root_node(&document);
        reader r = {.file = name,
                    .document = &document,
                    .root = job,
                    .pinned_allowed = pinned_allowed,
                    .error = error};
        path top = {""};
        if (!job)
            e = cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        else if (!root)
            e = cop_fail(error, COP_ERR_INPUT, "%s is empty: expected a job (see examples/)", name);
        else
            e = read_message(&r, root, &coppice__job__descriptor, &top, &job);
        if (e)
            cop_proto_free(job);
        else
            *out = (Coppice__Job *)job;
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return e;
}

cop_err cop_document_parse_job(const char *text, size_t size, const char *name, Coppice__Job **out,
                               cop_error *error) {
    return parse(text, size, name, false, out, error);
}

cop_err cop_document_parse_pinned(const char *text, size_t size, const char *name,
                                  Coppice__Job **out, cop_error *error) {
    return parse(text, size, name, true, out, error);
}

cop_err cop_document_read_job(const char *file, Coppice__Job **out, cop_error *error) {
    char *text;
    size_t size;
    COP_TRY(cop_file_read(file, COP_JOB_FILE_MAX, &text, &size, error));
    cop_err e = parse(text, size, file, false, out, error);
    cop_free(text);
    return e;
}

/* ---- --set a.b=c ---- */

/* One of a one-of is set: the others go. */
static void clear_others(ProtobufCMessage *message, const ProtobufCFieldDescriptor *kept) {
    if (!cop_fields_one_of(message->descriptor)) return;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field != kept) *(void **)(void *)((char *)message + field->offset) = NULL;
    }
}

typedef struct target {
    ProtobufCMessage *message;
    const ProtobufCFieldDescriptor *field;
} target;

static cop_err unknown_in_set(const char *assignment, const char *name,
                              const ProtobufCMessageDescriptor *d, cop_error *error) {
    const char *names[64];
    size_t count = 0;
    for (unsigned i = 0; i < d->n_fields && count < 64; i++)
        if (strcmp(d->fields[i].name, "pinned") != 0) names[count++] = d->fields[i].name;
    const char *nearest = cop_nearest_name(name, names, count);
    return cop_fail(error, COP_ERR_INPUT, "--set %s: unknown field \"%s\"%s%s%s", assignment, name,
                    nearest ? ": did you mean \"" : "", nearest ? nearest : "",
                    nearest ? "\"?" : "");
}

/* Steps into `name` (and index, for lists); makes messages that are not there yet. */
static cop_err step_into(ProtobufCMessage *root, const char *assignment, char **rest,
                         ProtobufCMessage **message, const ProtobufCFieldDescriptor **field,
                         cop_error *error) {
    char *name = *rest, *dot = strchr(name, '.');
    if (dot) *dot = '\0';
    *rest = dot ? dot + 1 : NULL;
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name((*message)->descriptor, name);
    if (!f || strcmp(name, "pinned") == 0)
        return unknown_in_set(assignment, name, (*message)->descriptor, error);
    clear_others(*message, f);
    *field = f;
    if (!*rest) return COP_OK;
    void **at = (void **)(void *)((char *)*message + f->offset);
    if (f->type != PROTOBUF_C_TYPE_MESSAGE)
        return cop_fail(error, COP_ERR_INPUT, "--set %s: %s has no fields", assignment, name);
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(size_t *)(void *)((char *)*message + f->quantifier_offset);
        uint64_t index;
        char *end = strchr(*rest, '.');
        if (end) *end = '\0';
        if (!cop_parse_u64(*rest, &index) || index >= count || !end)
            return cop_fail(error, COP_ERR_INPUT,
                            "--set %s: %s is a list: expected %s.0 to %s.%zu and a field of it",
                            assignment, name, name, name, count - 1);
        *rest = end + 1;
        *message = ((ProtobufCMessage **)*at)[index];
        *field = NULL;
        return COP_OK;
    }
    if (!*at && !(*at = new_message(root, f->descriptor)))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    *message = *at;
    *field = NULL;
    return COP_OK;
}

static cop_err assign(ProtobufCMessage *root, const target *t, const char *assignment,
                      const char *value, cop_error *error) {
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)value, strlen(value));
    cop_err e = load_document(&parser, &document, "--set", error);
    if (!e) {
        yaml_node_t *node = yaml_document_get_root_node(&document);
        reader r = {.file = "--set", .document = &document, .root = root, .error = error};
        path p;
        snprintf(p.text, sizeof p.text, "%.*s", (int)strcspn(assignment, "="), assignment);
        if (t->field->type == PROTOBUF_C_TYPE_MESSAGE &&
            t->field->label != PROTOBUF_C_LABEL_REPEATED)
            *(void **)(void *)((char *)t->message + t->field->offset) =
                NULL; /* replaced, not merged */
        if (!node)
            e = cop_fail(error, COP_ERR_INPUT, "--set %s: there is no value", assignment);
        else
            e = read_field(&r, node, t->field, &p, t->message);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return e;
}

cop_err cop_document_set(Coppice__Job *job, const char *assignment, cop_error *error) {
    char copy[512];
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment || (size_t)(equals - assignment) >= sizeof copy)
        return cop_fail(error, COP_ERR_INPUT,
                        "--set %s: expected FIELD=VALUE, such as train.batch=64", assignment);
    snprintf(copy, sizeof copy, "%.*s", (int)(equals - assignment), assignment);
    target t = {.message = &job->base};
    char *rest = copy;
    while (rest) COP_TRY(step_into(&job->base, assignment, &rest, &t.message, &t.field, error));
    return assign(&job->base, &t, assignment, equals + 1, error);
}

/* ---- defaults ---- */

static cop_err resolve_message(ProtobufCMessage *root, ProtobufCMessage *message, cop_error *error);

static cop_err default_field(ProtobufCMessage *root, ProtobufCMessage *message,
                             const ProtobufCFieldDescriptor *field, const char *text,
                             cop_error *error) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage *inner = new_message(root, field->descriptor);
        if (!inner) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        *(ProtobufCMessage **)(void *)((char *)message + field->offset) = inner;
        if (!cop_fields_one_of(field->descriptor)) return COP_OK;
        const ProtobufCFieldDescriptor *one =
            protobuf_c_message_descriptor_get_field_by_name(field->descriptor, text);
        COP_ASSERT(one != NULL);
        ProtobufCMessage *chosen = new_message(root, one->descriptor);
        if (!chosen) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        *(ProtobufCMessage **)(void *)((char *)inner + one->offset) = chosen;
        return COP_OK;
    }
    bool good = read_number(field, NULL, text, (char *)message + field->offset);
    COP_ASSERT(good);
    mark_set(message, field);
    return COP_OK;
}

static cop_err resolve_field(ProtobufCMessage *root, ProtobufCMessage *message,
                             const ProtobufCFieldDescriptor *field, cop_error *error) {
    const cop_field_row *row = cop_fields_find(message->descriptor, field);
    if (!is_set(message, field) && row && row->otherwise)
        COP_TRY(default_field(root, message, field, row->otherwise, error));
    if (field->type != PROTOBUF_C_TYPE_MESSAGE || !is_set(message, field)) return COP_OK;
    void *at = (char *)message + field->offset;
    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return resolve_message(root, *(ProtobufCMessage **)at, error);
    size_t count = *(size_t *)(void *)((char *)message + field->quantifier_offset);
    for (size_t i = 0; i < count; i++)
        COP_TRY(resolve_message(root, (*(ProtobufCMessage ***)at)[i], error));
    return COP_OK;
}

static cop_err resolve_message(ProtobufCMessage *root, ProtobufCMessage *message,
                               cop_error *error) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++)
        COP_TRY(resolve_field(root, message, &message->descriptor->fields[i], error));
    return COP_OK;
}

cop_err cop_document_resolve(Coppice__Job *job, cop_error *error) {
    COP_TRY(resolve_message(&job->base, &job->base, error));
    for (size_t i = 0; i < job->n_model; i++) {
        Coppice__Dropout *d = job->model[i]->dropout;
        if (d && !d->has_scope) d->has_scope = 1, d->scope = job->dropout->scope;
        if (d && !d->has_variant) d->has_variant = 1, d->variant = job->dropout->variant;
    }
    return COP_OK;
}

/* ---- checks of a job that came over the wire: as a job file would be read ---- */

cop_err cop_document_check(const Coppice__Job *job, cop_error *error) {
    cop_str yaml = {0};
    Coppice__Job *copy = NULL;
    cop_document_print_yaml(&job->base, &yaml);
    cop_err e = yaml.failed
                    ? cop_fail(error, COP_ERR_NO_MEMORY, "out of memory")
                    : parse(cop_str_text(&yaml), yaml.length, "the job", true, &copy, error);
    cop_str_fini(&yaml);
    if (copy) cop_proto_free(&copy->base);
    return e;
}
