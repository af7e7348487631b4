/* Prints messages as YAML and JSON. See document.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/document.h"
#include "common/wire/reader.h"

#define DEPTH_MAX 32 /* levels; a list is a level, too; the schemas have far fewer */

/* ---- scalars ---- */

/* Prints the shortest decimal number that reads back as the same double. YAML 1.1 would read 1e-05
 * as a string, so it is printed as 1.0e-05. */
static void print_real(double value, cop_str *out) {
    char text[40] = "null";
    if (value == trunc(value) && fabs(value) < 1e15) {
        cop_str_printf(out, "%.0f", value);
        return;
    }
    /* Most real numbers need 16 or 17 digits. Fewer are tried only if 15 digits suffice. */
    snprintf(text, sizeof text, "%.15g", value);
    const int least = strtod(text, NULL) == value ? 1 : 16;
    for (int digits = least; digits <= 17 && isfinite(value); digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    if (!isfinite(value)) snprintf(text, sizeof text, "null");
    const char *e = strchr(text, 'e');
    if (e && !strchr(text, '.'))
        cop_str_printf(out, "%.*s.0%s", (int)(e - text), text, e);
    else
        cop_str_append(out, text);
}

/* Prints the name of an enum's value, in lower case, as in job files. The state of a job is printed
 * in capitals. */
static void print_enum(const ProtobufCEnumDescriptor *d, int value, cop_str *out) {
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
    bool keep_case = strcmp(d->short_name, "State") == 0;
    for (const char *p = v ? v->name : "?"; *p; p++) {
        char c = *p >= 'A' && *p <= 'Z' && !keep_case ? (char)(*p - 'A' + 'a') : *p;
        cop_str_append_bytes(out, &c, 1);
    }
}

/* Can this text stand without quotes in all versions of YAML? */
static bool is_plain(const char *text) {
    static const char *const words[] = {"true", "false", "null", "yes", "no",
                                        "on",   "off",   "y",    "n"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t length =
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-");
    if (!*text || text[length]) return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(words[i], text) == 0) return false;
    return strchr(letters, text[0]) || text[0] == '/';
}

static void print_bytes(const ProtobufCBinaryData *bytes, cop_str *out) {
    cop_str_append(out, "\"");
    for (size_t i = 0; i < bytes->len; i++) cop_str_printf(out, "%02x", bytes->data[i]);
    cop_str_append(out, "\"");
}

/* In JSON, a seed is printed in quotes: many programs read numbers as doubles, and would lose bits.
 */
static void print_u64(const cop_proto_field *field, uint64_t value, bool json, cop_str *out) {
    bool quoted = json && strcmp(field->name, "seed") == 0;
    cop_str_printf(out, quoted ? "\"%llu\"" : "%llu", (unsigned long long)value);
}

void cop_print_scalar(const cop_proto_field *field, const void *at, bool json, cop_str *out) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        print_real(*(const double *)at, out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cop_str_append(out, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_UINT64:
        print_u64(field, *(const uint64_t *)at, json, out);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        cop_str_printf(out, "%u", *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT32:
        cop_str_printf(out, "%d", *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        if (json) cop_str_append(out, "\"");
        print_enum(field->descriptor, *(const int *)at, out);
        if (json) cop_str_append(out, "\"");
        break;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)at;
        if (json || !is_plain(text))
            cop_str_append_json(out, text);
        else
            cop_str_append(out, text);
        break;
    }
    case PROTOBUF_C_TYPE_BYTES:
        print_bytes(at, out);
        break;
    default:
        COP_ASSERT(!"the schema uses the types above");
    }
}

/* ---- flow style: JSON, and the inner parts of YAML ---- */

/* How to print in flow style. */
typedef struct flow {
    bool json;
    int indent; /* spaces per level; 0: prints everything on one line */
    int depth;  /* the current level, from 0 */
} flow;

/* The same way of printing, one level deeper. */
static flow inside(flow how) {
    COP_ASSERT(how.depth >= 0 && how.depth < DEPTH_MAX && how.indent >= 0);
    how.depth++;
    return how;
}

static void print_flow(const cop_proto *m, flow how, cop_str *out);

static void print_value(const cop_proto *m, const cop_proto_field *field, size_t index, flow how,
                        cop_str *out) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        print_flow(cop_reflect_message(m, field, index), how, out);
    else
        cop_print_scalar(field, cop_reflect_at(m, field, index), how.json, out);
}

static void new_line(flow how, cop_str *out) {
    if (how.indent) cop_str_printf(out, "\n%*s", how.indent * how.depth, "");
}

static void print_list(const cop_proto *m, const cop_proto_field *field, flow how, cop_str *out) {
    size_t count = cop_reflect_count(m, field);
    cop_str_append(out, "[");
    for (size_t i = 0; i < count; i++) {
        if (i) cop_str_append(out, how.json ? "," : ", ");
        new_line(inside(how), out);
        print_value(m, field, i, inside(how), out);
    }
    if (count) new_line(how, out);
    cop_str_append(out, "]");
}

static void print_field(const cop_proto *m, const cop_proto_field *field, flow how, cop_str *out) {
    new_line(how, out);
    if (how.json)
        cop_str_printf(out, "\"%s\":%s", field->name, how.indent ? " " : "");
    else
        cop_str_printf(out, "%s: ", field->name);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        print_list(m, field, how, out);
    else
        print_value(m, field, 0, how, out);
}

/* Is the field printed? A field that is set is. JSON also shows empty lists. */
static bool shows(const cop_proto *m, const cop_proto_field *field, flow how) {
    return cop_reflect_is_set(m, field) || (how.json && field->label == PROTOBUF_C_LABEL_REPEATED);
}

static void print_flow(const cop_proto *m, flow how, cop_str *out) {
    bool first = true;
    cop_str_append(out, "{");
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const cop_proto_field *field = &m->descriptor->fields[i];
        if (!shows(m, field, how)) continue;
        if (!first) cop_str_append(out, how.json ? "," : ", ");
        first = false;
        print_field(m, field, inside(how), out);
    }
    if (!first) new_line(how, out);
    cop_str_append(out, "}");
}

void cop_document_print_json(const ProtobufCMessage *message, int indent, cop_str *out) {
    print_flow(message, (flow){.json = true, .indent = indent}, out);
}

/* ---- block style YAML ---- */

static bool is_empty(const cop_proto *m) {
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        if (cop_reflect_is_set(m, &m->descriptor->fields[i])) return false;
    return true;
}

/* Prints a list of one-key maps, such as "- linear: {units: 10}". */
static void print_items(const cop_proto *m, const cop_proto_field *field, int depth, cop_str *out) {
    for (size_t n = 0; n < cop_reflect_count(m, field); n++) {
        const cop_proto *item = cop_reflect_message(m, field, n);
        cop_str_printf(out, "\n%*s-", 2 * depth + 2, "");
        for (unsigned i = 0; i < item->descriptor->n_fields; i++) {
            const cop_proto_field *inner = &item->descriptor->fields[i];
            if (!cop_reflect_is_set(item, inner)) continue;
            cop_str_append(out, " ");
            print_field(item, inner, (flow){0}, out);
        }
    }
}

static void print_block(const cop_proto *m, int depth, cop_str *out) {
    const flow yaml = {0};
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const cop_proto_field *field = &m->descriptor->fields[i];
        bool is_message = field->type == PROTOBUF_C_TYPE_MESSAGE;
        bool is_list = field->label == PROTOBUF_C_LABEL_REPEATED;
        if (!cop_reflect_is_set(m, field)) continue;
        cop_str_printf(out, "%*s%s:", 2 * depth, "", field->name);
        if (is_list && is_message) {
            print_items(m, field, depth, out);
        } else if (is_message && !is_empty(cop_reflect_message(m, field, 0))) {
            cop_str_append(out, "\n");
            print_block(cop_reflect_message(m, field, 0), depth + 1, out);
            continue;
        } else {
            cop_str_append(out, " ");
            if (is_list)
                print_list(m, field, yaml, out);
            else
                print_value(m, field, 0, yaml, out);
        }
        cop_str_append(out, "\n");
    }
}

void cop_document_print_yaml(const ProtobufCMessage *message, cop_str *out) {
    print_block(message, 0, out);
}
