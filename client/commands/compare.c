/* coppice compare: shows the fields in which the job files of jobs or runs differ, and their final
 * results. */
#include "client/load/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"

typedef struct side {
    cli_record record;
    cop_document_fields fields;
} side;

/* ---- rows ---- */

typedef struct row {
    const char *path;
    const char *values[CLI_POSITIONAL_MAX]; /* value for each job or run; NULL: not set there */
} row;

typedef struct rows {
    row *items;
    size_t count;
} rows;

static bool has_path(const rows *r, const char *path) {
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].path, path) == 0) return true;
    return false;
}

static bool is_same(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Adds the field `path` to *out if its values in the job files differ. */
static void add_if_different(const side *sides, int count, const char *path, rows *out) {
    row r = {.path = path};
    COP_ASSERT(count >= 1 && count <= CLI_POSITIONAL_MAX);
    bool same = true;
    for (int i = 0; i < count; i++) {
        r.values[i] = cop_document_fields_find(&sides[i].fields, path);
        same = same && is_same(r.values[i], r.values[0]);
    }
    if (!same && !has_path(out, path)) out->items[out->count++] = r;
}

static cop_err find_differences(const side *sides, int count, rows *out, cop_error *error) {
    size_t capacity = 0;
    for (int i = 0; i < count; i++) capacity += sides[i].fields.count;
    *out = (rows){.items = cop_alloc_array(capacity + 1, sizeof(row))};
    if (!out->items) return cop_no_memory(error);
    for (int i = 0; i < count; i++)
        for (size_t f = 0; f < sides[i].fields.count; f++)
            add_if_different(sides, count, sides[i].fields.items[f].path, out);
    return COP_OK;
}

/* ---- figures ---- */

enum { FIGURES = 7 };
static const char *const figures[FIGURES] = {"state", "steps", "train loss", "error",
                                             "loss",  "time",  "digest"};

static void format_figures(const cli_record *r, char out[FIGURES][80]) {
    for (int i = 0; i < FIGURES; i++) snprintf(out[i], 80, "-");
    if (*r->state) snprintf(out[0], 80, "%s", r->state);
    snprintf(out[1], 80, "%llu", (unsigned long long)r->step);
    if (!isnan(r->train_loss)) snprintf(out[2], 80, "%.4f", r->train_loss);
    if (!isnan(r->error)) snprintf(out[3], 80, "%.2f %% (%s)", 100 * r->error, r->evaluated_on);
    if (!isnan(r->loss)) snprintf(out[4], 80, "%.4f (%s)", r->loss, r->evaluated_on);
    if (!isnan(r->seconds)) cop_format_seconds(r->seconds, out[5]);
    if (*r->digest) snprintf(out[6], 80, "%.16s...", r->digest);
}

static cop_err print_table(const side *sides, int count, const rows *differences,
                           cop_error *error) {
    const size_t lines = 1 + differences->count + FIGURES, columns = (size_t)count + 1;
    const char **cells = cop_alloc_array(lines * columns, sizeof *cells);
    char(*text)[FIGURES][80] = cop_alloc_array((size_t)count, sizeof *text);
    char align[CLI_POSITIONAL_MAX + 2];
    if (!cells || !text) {
        cop_free(cells);
        cop_free(text);
        return cop_no_memory(error);
    }
    memset(align, 'f', sizeof align);
    cells[0] = "FIELD";
    for (int c = 0; c < count; c++) {
        cells[c + 1] = sides[c].record.name;
        format_figures(&sides[c].record, text[c]);
    }
    for (size_t r = 0; r < differences->count; r++) {
        const char **line = cells + (r + 1) * columns;
        line[0] = differences->items[r].path;
        for (int c = 0; c < count; c++)
            line[c + 1] = differences->items[r].values[c] ? differences->items[r].values[c] : "-";
    }
    for (size_t r = 0; r < FIGURES; r++) {
        const char **line = cells + (differences->count + 1 + r) * columns;
        line[0] = figures[r];
        for (int c = 0; c < count; c++) line[c + 1] = text[c][r];
    }
    cli_print_table(cells, (int)lines, (int)columns, align);
    cop_free(cells);
    cop_free(text);
    return COP_OK;
}

/* ---- JSON ---- */

static void print_real(const char *name, double value) {
    if (isfinite(value))
        cli_print(",\"%s\":%.17g", name, value);
    else
        cli_print(",\"%s\":null", name);
}

static void print_json(const side *sides, int count, const rows *differences) {
    cop_str quoted = {0};
    cli_print("{\"differences\":[");
    for (size_t r = 0; r < differences->count; r++) {
        cli_print("%s{\"field\":%s,\"values\":[", r ? "," : "",
                  cli_quote(&quoted, differences->items[r].path));
        for (int c = 0; c < count; c++)
            cli_print("%s%s", c ? "," : "",
                      differences->items[r].values[c]
                          ? cli_quote(&quoted, differences->items[r].values[c])
                          : "null");
        cli_print("]}");
    }
    cli_print("],\"results\":[");
    for (int c = 0; c < count; c++) {
        const cli_record *s = &sides[c].record;
        cli_print("%s{\"name\":%s", c ? "," : "", cli_quote(&quoted, s->name));
        cli_print(",\"state\":%s", cli_quote(&quoted, s->state));
        cli_print(",\"step\":%llu,\"digest\":\"%s\"", (unsigned long long)s->step, s->digest);
        if (*s->evaluated_on) cli_print(",\"evaluated_on\":\"%s\"", s->evaluated_on);
        print_real("train_loss", s->train_loss);
        print_real("error", s->error);
        print_real("loss", s->loss);
        print_real("seconds", s->seconds);
        cli_print("}");
    }
    cli_print("]}\n");
    cop_str_fini(&quoted);
}

cop_err cli_compare(const cli_options *options, cop_error *error) {
    const int count = options->positional_count;
    COP_ASSERT(count >= 1 && count <= CLI_POSITIONAL_MAX);
    side *sides = cop_alloc_array((size_t)count, sizeof *sides);
    rows differences = {0};
    cop_err e = sides ? COP_OK : cop_no_memory(error);
    for (int i = 0; i < count && !e; i++) {
        e = cli_record_load(options, options->positional[i], &sides[i].record, error);
        if (!e) e = cop_document_list_fields(&sides[i].record.job->base, &sides[i].fields, error);
    }
    if (!e) e = find_differences(sides, count, &differences, error);
    if (!e && options->json)
        print_json(sides, count, &differences);
    else if (!e)
        e = print_table(sides, count, &differences, error);
    for (int i = 0; sides && i < count; i++) {
        cop_document_fields_fini(&sides[i].fields);
        cli_record_fini(&sides[i].record);
    }
    cop_free(differences.items);
    cop_free(sides);
    return e;
}
