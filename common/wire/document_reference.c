/* The reference of the job file, out of the table that job files are checked with:
 * docs/reference/job-file.md is what this writes, and a test compares. */
#include <stdio.h>
#include <string.h>

#include "common/wire/document.h"
#include "common/wire/reader.h"

const char *cop_document_help(const char *path) {
    const cop_proto_type *type = &coppice__job__descriptor;
    const cop_field_row *row = NULL;
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok_r(copy, ".", &save); name; name = strtok_r(NULL, ".", &save)) {
        const cop_proto_field *field = type ? cop_reflect_find(type, name) : NULL;
        if (!field) return NULL;
        row = cop_fields_find(type, field);
        type = field->type == PROTOBUF_C_TYPE_MESSAGE ? field->descriptor : NULL;
    }
    return row ? row->help : NULL;
}

static void print_range(const cop_field_row *row, cop_str *out) {
    if (!cop_field_is_ranged(row)) return;
    cop_str_printf(out, row->above ? ", above %.15g" : ", from %.15g", row->least);
    if (row->most >= 4294967295.0) return;
    cop_str_printf(out, row->below ? " to below %.15g" : " to %.15g", row->most);
}

static void print_type(const cop_proto_field *field, const cop_field_row *row, cop_str *out) {
    bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        cop_str_append(out, "number");
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cop_str_append(out, "true or false");
        break;
    case PROTOBUF_C_TYPE_STRING:
        cop_str_append(out, "text");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        cop_words_enum(field->descriptor, " or ", out);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (list)
            cop_str_append(out, "list");
        else if (cop_fields_one_of(field->descriptor))
            cop_str_append(out, "one of");
        else
            cop_str_append(out, "map");
        break;
    default:
        cop_str_append(out, "whole number");
    }
    print_range(row, out);
}

static void print_row(const cop_proto_field *field, const cop_field_row *row, const char *path,
                      cop_str *out) {
    const char *otherwise = row->otherwise ? row->otherwise : "";
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && strcmp(otherwise, "{}") == 0) otherwise = "";
    cop_str_printf(out, "| `%s` | ", path);
    print_type(field, row, out);
    cop_str_printf(out, " | %s | %s |\n", row->required ? "required" : otherwise, row->help);
}

static void print_rows(const cop_proto_type *type, const char *prefix, cop_str *out) {
    for (unsigned i = 0; i < type->n_fields; i++) {
        const cop_proto_field *field = &type->fields[i];
        const cop_field_row *row = cop_fields_find(type, field);
        char path[256];
        COP_ASSERT(row != NULL);
        snprintf(path, sizeof path, "%.120s%s", prefix, field->name);
        print_row(field, row, path, out);
        if (field->type != PROTOBUF_C_TYPE_MESSAGE) continue;
        strcat(path, ".");
        print_rows(field->descriptor, path, out);
    }
}

#define TABLE "| field | value | default | meaning |\n|---|---|---|---|\n"

static void print_section(const cop_proto_field *field, cop_str *out) {
    char prefix[64] = "- ";
    bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    cop_str_printf(out, "\n## `%s`\n\n", field->name);
    if (list) cop_str_append(out, "A list of layers, first to last, each a map with one key.\n\n");
    cop_str_append(out, TABLE);
    if (!list) snprintf(prefix, sizeof prefix, "%s.", field->name);
    print_rows(field->descriptor, prefix, out);
}

static void print_later(cop_str *out) {
    cop_str_append(out, "\n## Not yet\n\nThese names are taken, and refused by this version:\n");
    const char *const *names = cop_fields_later_names();
    for (size_t i = 0; names[i]; i++)
        cop_str_printf(out, "%s`%s`", i ? ", " : "", strchr(names[i], '.') + 1);
    cop_str_append(out, ".\n");
}

static const char opening[] =
    "# The job file\n"
    "\n"
    "<!-- Written by the program from the table that it checks job files with. -->\n"
    "\n"
    "A job file and its seed decide the weights, bit for bit. This page lists every field, with\n"
    "range and default. Formulas are in [layers.md](layers.md) and [training.md](training.md),\n"
    "formats of data in [data.md](data.md).\n"
    "\n"
    "A job file is YAML: maps, lists and plain values, without aliases, anchors, tags and second\n"
    "documents. An unknown name is an error. The message has file, line, column and the nearest\n"
    "valid name.\n"
    "\n"
    "```yaml\n"
    "name: mnist-dropout\n"
    "seed: 1\n"
    "data: {source: mnist, validation: 10000}\n"
    "model:\n"
    "  - dropout: {p: 0.2}\n"
    "  - linear: {units: 1024, max_norm: 2.0}\n"
    "  - relu\n"
    "  - dropout: {p: 0.5}\n"
    "  - linear: {units: 10}\n"
    "train: {epochs: 20, batch: 128}\n"
    "optimizer: {sgd: {rate: 0.1, momentum: 0.9, schedule: {inverse: {decay: 1.0e-4}}}}\n"
    "```\n"
    "\n"
    "- *One of* means a map with exactly one key. If that needs no fields, its name is enough:\n"
    "  `loss: cross_entropy`, `- relu`, `schedule: cosine`.\n"
    "- A seed may be quoted, as it is in JSON.\n"
    "- Give either `train.epochs` or `train.steps`.\n"
    "- `--set train.batch=64 --set model.1.linear.units=512` changes fields from the command "
    "line.\n"
    "  Items of lists count from 0. `--set train.steps` removes `train.epochs`, and the reverse.\n"
    "- `coppice plan JOB.yaml` checks a file without training.\n";

void cop_document_reference(cop_str *out) {
    const cop_proto_type *job = &coppice__job__descriptor;
    cop_str_append(out, opening);
    cop_str_append(out, "\n## Top\n\n" TABLE);
    for (unsigned i = 0; i < job->n_fields; i++)
        if (strcmp(job->fields[i].name, "pinned") != 0)
            print_row(&job->fields[i], cop_fields_find(job, &job->fields[i]), job->fields[i].name,
                      out);
    for (unsigned i = 0; i < job->n_fields; i++)
        if (job->fields[i].type == PROTOBUF_C_TYPE_MESSAGE &&
            strcmp(job->fields[i].name, "pinned") != 0)
            print_section(&job->fields[i], out);
    print_later(out);
}
