/* Messages as YAML and JSON, and the reference of the job file. See document.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/document.h"
#include "common/wire/fields.h"

/* The shortest decimal that reads back as the same double. */
static void print_real(double value, cop_str *out) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    cop_str_append(out, text);
}

static void print_enum(const ProtobufCEnumDescriptor *d, int value, bool keep_case, cop_str *out) {
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
    for (const char *p = v ? v->name : "?"; *p; p++) {
        char c = *p >= 'A' && *p <= 'Z' && !keep_case ? (char)(*p - 'A' + 'a') : *p;
        cop_str_append_bytes(out, &c, 1);
    }
}

static bool is_plain(const char *text) {
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off"};
    if (!*text ||
        text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")])
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], text) == 0) return false;
    return (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') ||
           text[0] == '/';
}

static void print_bytes(const ProtobufCBinaryData *bytes, cop_str *out) {
    cop_str_append(out, "\"");
    for (size_t i = 0; i < bytes->len; i++) cop_str_printf(out, "%02x", bytes->data[i]);
    cop_str_append(out, "\"");
}

static void print_scalar(const ProtobufCFieldDescriptor *f, const void *at, bool json,
                         cop_str *out) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_DOUBLE: {
        double value = *(const double *)at;
        if (isfinite(value))
            print_real(value, out);
        else
            cop_str_append(out, "null");
        break;
    }
    case PROTOBUF_C_TYPE_BOOL:
        cop_str_append(out, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_UINT64:
        cop_str_printf(out, json && strcmp(f->name, "seed") == 0 ? "\"%llu\"" : "%llu",
                       (unsigned long long)*(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        cop_str_printf(out, "%u", *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT32:
        cop_str_printf(out, "%d", *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumDescriptor *d = f->descriptor;
        if (json) cop_str_append(out, "\"");
        print_enum(d, *(const int *)at, strcmp(d->short_name, "State") == 0, out);
        if (json) cop_str_append(out, "\"");
        break;
    }
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
        cop_str_append(out, "null");
    }
}

static size_t list_size(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    return *(const size_t *)(const void *)((const char *)m + f->quantifier_offset);
}

static bool shows(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    const char *base = (const char *)m;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) return list_size(m, f) > 0;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_STRING)
        return *(void *const *)(const void *)(base + f->offset) != NULL;
    return *(const protobuf_c_boolean *)(const void *)(base + f->quantifier_offset);
}

static size_t item_size(const ProtobufCFieldDescriptor *f) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

/* ---- flow style: JSON, and the inner parts of YAML ---- */

typedef struct flow {
    bool json;
    int indent;
} flow;

static void print_flow(const ProtobufCMessage *m, flow how, int depth, cop_str *out);

static void print_value(const ProtobufCFieldDescriptor *f, const void *at, flow how, int depth,
                        cop_str *out) {
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        print_flow(*(const ProtobufCMessage *const *)at, how, depth, out);
    else
        print_scalar(f, at, how.json, out);
}

static void new_line(flow how, int depth, cop_str *out) {
    if (how.indent) cop_str_printf(out, "\n%*s", how.indent * depth, "");
}

static void print_list(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, flow how,
                       int depth, cop_str *out) {
    const char *items = *(const char *const *)(const void *)((const char *)m + f->offset);
    size_t count = list_size(m, f);
    cop_str_append(out, "[");
    for (size_t i = 0; i < count; i++) {
        if (i) cop_str_append(out, how.indent || how.json ? "," : ", ");
        new_line(how, depth + 1, out);
        print_value(f, items + i * item_size(f), how, depth + 1, out);
    }
    new_line(how, depth, out);
    cop_str_append(out, "]");
}

static void print_flow(const ProtobufCMessage *m, flow how, int depth, cop_str *out) {
    bool first = true;
    cop_str_append(out, "{");
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        /* In JSON answers lists are always there, empty or not. */
        if (!shows(m, f) && !(how.json && f->label == PROTOBUF_C_LABEL_REPEATED)) continue;
        if (!first) cop_str_append(out, how.json ? "," : ", ");
        first = false;
        new_line(how, depth + 1, out);
        if (how.json)
            cop_str_printf(out, "\"%s\":%s", f->name, how.indent ? " " : "");
        else
            cop_str_printf(out, "%s: ", f->name);
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            print_list(m, f, how, depth + 1, out);
        else
            print_value(f, (const char *)m + f->offset, how, depth + 1, out);
    }
    if (!first) new_line(how, depth, out);
    cop_str_append(out, "}");
}

void cop_document_print_json(const ProtobufCMessage *message, int indent, cop_str *out) {
    print_flow(message, (flow){.json = true, .indent = indent}, 0, out);
}

/* ---- block style YAML ---- */

static bool is_empty(const ProtobufCMessage *m) {
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        if (shows(m, &m->descriptor->fields[i])) return false;
    return true;
}

static void print_block(const ProtobufCMessage *m, int depth, cop_str *out) {
    const flow yaml = {0};
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const void *at = (const char *)m + f->offset;
        if (!shows(m, f)) continue;
        cop_str_printf(out, "%*s%s:", 2 * depth, "", f->name);
        if (f->label == PROTOBUF_C_LABEL_REPEATED && f->type == PROTOBUF_C_TYPE_MESSAGE) {
            const ProtobufCMessage *const *items = *(const ProtobufCMessage *const *const *)at;
            cop_str_append(out, "\n");
            for (size_t n = 0; n < list_size(m, f); n++) {
                /* One key: "- linear: {units: 10}" */
                cop_str inner = {0};
                print_flow(items[n], yaml, 0, &inner);
                size_t length = inner.length;
                cop_str_printf(out, "%*s- %.*s\n", 2 * depth + 2, "",
                               length > 2 ? (int)length - 2 : 0, length > 2 ? inner.text + 1 : "");
                cop_str_fini(&inner);
            }
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            cop_str_append(out, " ");
            print_list(m, f, yaml, 0, out);
            cop_str_append(out, "\n");
        } else if (f->type == PROTOBUF_C_TYPE_MESSAGE &&
                   !is_empty(*(const ProtobufCMessage *const *)at)) {
            cop_str_append(out, "\n");
            print_block(*(const ProtobufCMessage *const *)at, depth + 1, out);
        } else {
            cop_str_append(out, " ");
            print_value(f, at, yaml, 0, out);
            cop_str_append(out, "\n");
        }
    }
}

void cop_document_print_yaml(const ProtobufCMessage *message, cop_str *out) {
    print_block(message, 0, out);
}

/* ---- the reference ---- */

const char *cop_document_help(const char *path) {
    const ProtobufCMessageDescriptor *d = &coppice__job__descriptor;
    const cop_field_row *row = NULL;
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok_r(copy, ".", &save); name; name = strtok_r(NULL, ".", &save)) {
        const ProtobufCFieldDescriptor *f =
            d ? protobuf_c_message_descriptor_get_field_by_name(d, name) : NULL;
        if (!f) return NULL;
        row = cop_fields_find(d, f);
        d = f->type == PROTOBUF_C_TYPE_MESSAGE ? f->descriptor : NULL;
    }
    return row ? row->help : NULL;
}

static const char *type_name(const ProtobufCFieldDescriptor *f) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        return "number";
    case PROTOBUF_C_TYPE_BOOL:
        return "true, false";
    case PROTOBUF_C_TYPE_STRING:
        return "text";
    case PROTOBUF_C_TYPE_ENUM:
        return "name";
    case PROTOBUF_C_TYPE_MESSAGE:
        return f->label == PROTOBUF_C_LABEL_REPEATED ? "list" : "map";
    default:
        return "whole number";
    }
}

static void print_range(const cop_field_row *row, cop_str *out) {
    if (row->least == 0 && row->most == 0) return;
    cop_str_printf(out, row->above ? "> %.15g" : ">= %.15g", row->least);
    if (row->most < 4294967295.0)
        cop_str_printf(out, row->below ? ", < %.15g" : ", <= %.15g", row->most);
}

static void reference_rows(const ProtobufCMessageDescriptor *d, const char *prefix, int depth,
                           cop_str *out) {
    for (unsigned i = 0; i < d->n_fields && depth < 8; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        const cop_field_row *row = cop_fields_find(d, f);
        char path[256];
        if (strcmp(f->name, "pinned") == 0 || !row) continue;
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        cop_str_printf(out, "| `%s` | %s | ", path, type_name(f));
        if (f->type == PROTOBUF_C_TYPE_ENUM) {
            const ProtobufCEnumDescriptor *e = f->descriptor;
            for (unsigned v = 0; v < e->n_values; v++) {
                if (v) cop_str_append(out, ", ");
                print_enum(e, e->values[v].value, false, out);
            }
        }
        print_range(row, out);
        cop_str_printf(out, " | %s | %s |\n",
                       row->required    ? "required"
                       : row->otherwise ? row->otherwise
                                        : "",
                       row->help);
        if (f->type != PROTOBUF_C_TYPE_MESSAGE) continue;
        char inner[256];
        snprintf(inner, sizeof inner,
                 f->label == PROTOBUF_C_LABEL_REPEATED ? "%.250s[]." : "%.250s.", path);
        reference_rows(f->descriptor, inner, depth + 1, out);
    }
}

void cop_document_reference(cop_str *out) {
    cop_str_append(out, "# The job file\n\nWritten by the program itself from the table that it "
                        "checks job files with.\n\n"
                        "| field | type | range | default | meaning |\n|---|---|---|---|---|\n");
    reference_rows(&coppice__job__descriptor, "", 0, out);
}
