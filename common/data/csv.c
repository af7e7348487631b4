/* CSV files: numbers separated by commas, one sample a line, one column of which is the label.
 * Whatever is wrong is told with file and line. A first line with a field that is no number is the
 * header. Values are kept as f32. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/data/pack.h"
#include "common/data/samples_formats.h"

#define CSV_MAX ((size_t)8 << 30)

typedef struct csv_file {
    const char *path;
    char *text;   /* of the file; NUL-terminated */
    char *first;  /* a copy of the first line, split in place */
    char **names; /* the header's fields, in `first`; NULL: no header */
    char *body;   /* the lines of data */
    size_t body_line;
    uint32_t columns, rows;
    bool bare; /* there need not be a label */
} csv_file;

/* ---- lines and fields ---- */

/* The next line, without its end; false at the end of the text. *at moves on. */
static bool next_line(char **at, char **line, size_t *length) {
    if (!**at) return false;
    *line = *at;
    size_t whole = strcspn(*at, "\n");
    *at += whole + ((*at)[whole] == '\n');
    *length = whole && (*line)[whole - 1] == '\r' ? whole - 1 : whole;
    return true;
}

/* The end of the field that begins at `at`: a comma outside of quotes, or `end`. */
static const char *field_end(const char *at, const char *end) {
    bool quoted = false;
    for (; at < end && (quoted || *at != ','); at++)
        if (*at == '"') quoted = !quoted;
    return at;
}

static uint32_t count_fields(const char *line, size_t length) {
    const char *at = line, *end = line + length;
    for (uint32_t fields = 1;; fields++) {
        at = field_end(at, end);
        if (at == end) return fields;
        at++;
    }
}

/* Takes quotes and surrounding blanks away, in place. */
static char *clean_field(char *field, char *end) {
    while (*field == ' ' || *field == '\t') field++;
    while (end > field && (end[-1] == ' ' || end[-1] == '\t')) *--end = '\0';
    if (*field != '"') return field;
    char *to = ++field;
    for (const char *from = field; *from; from++) {
        if (*from == '"' && from[1] != '"') break;
        if (*from == '"') from++;
        *to++ = *from;
    }
    *to = '\0';
    return field;
}

/* The field at *at, split off in place; *at moves behind its comma. `end` is the line's end. */
static char *take_field(char **at, char *end) {
    char *field = *at, *stop = field + (field_end(field, end) - field);
    *at = stop < end ? stop + 1 : end;
    *stop = '\0';
    return clean_field(field, stop);
}

/* ---- the whole file ---- */

static void close_csv(csv_file *f) {
    cop_free(f->text);
    cop_free(f->first);
    cop_free(f->names);
}

/* Columns, and whether the first line is a header. */
static cop_err read_first_line(csv_file *f, const char *line, size_t length, bool *header,
                               cop_error *error) {
    f->columns = count_fields(line, length);
    if (f->columns < (f->bare ? 1 : 2) || f->columns > COP_UNITS_MAX + 1)
        return cop_fail(error, COP_ERR_INPUT, "%s:%zu: %u fields: expected 2 to %u, one the label",
                        f->path, f->body_line, f->columns, COP_UNITS_MAX + 1);
    f->first = cop_strndup(line, length);
    f->names = cop_alloc_array(f->columns, sizeof *f->names);
    if (!f->first || !f->names) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    char *at = f->first, *end = f->first + length;
    double ignored;
    *header = false;
    for (uint32_t c = 0; c < f->columns; c++) {
        f->names[c] = take_field(&at, end);
        *header = *header || !cop_parse_f64(f->names[c], &ignored);
    }
    return COP_OK;
}

/* Every line of data has as many fields as the first line, so that the set is no larger than the
 * file gives reason for. Blank lines do not count. */
static cop_err count_rows(csv_file *f, cop_error *error) {
    char *at = f->body, *line;
    size_t length, rows = 0;
    for (size_t number = f->body_line; next_line(&at, &line, &length); number++) {
        if (!length) continue;
        uint32_t fields = count_fields(line, length);
        if (fields != f->columns)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: %u field%s: expected %u, as in the first line", f->path,
                            number, fields, fields == 1 ? "" : "s", f->columns);
        rows++;
    }
    if (!rows) return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", f->path);
    if (rows > COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s has more lines than this program reads", f->path);
    f->rows = (uint32_t)rows;
    return COP_OK;
}

static cop_err scan(csv_file *f, size_t size, cop_error *error) {
    char *at = f->text, *line = NULL;
    size_t length = 0;
    bool header = false;
    if (strlen(f->text) != size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is not a text file: it holds a zero byte",
                        f->path);
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* UTF-8's byte order mark */
    f->body_line = 1;
    f->body = at;
    for (; next_line(&at, &line, &length) && !length; f->body = at) f->body_line++;
    if (!length) return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", f->path);
    COP_TRY(read_first_line(f, line, length, &header, error));
    if (header) {
        f->body = at;
        f->body_line++;
    } else {
        cop_free(f->names);
        f->names = NULL;
    }
    return count_rows(f, error);
}

static cop_err open_csv(const char *path, csv_file *f, cop_error *error) {
    size_t size;
    *f = (csv_file){.path = path};
    COP_TRY(cop_file_read(path, CSV_MAX, &f->text, &size, error));
    cop_err e = scan(f, size, error);
    if (e) close_csv(f);
    return e;
}

/* ---- the label's column ---- */

static bool find_column(const csv_file *f, const char *name, uint32_t *column) {
    for (uint32_t c = 0; f->names && c < f->columns; c++)
        if (strcmp(f->names[c], name) == 0) {
            *column = c;
            return true;
        }
    return false;
}

static cop_err find_label(const csv_file *f, const char *label, uint32_t *column,
                          cop_error *error) {
    *column = f->columns - 1;
    if (!label) return COP_OK;
    if (!f->names) {
        uint64_t number;
        if (!cop_parse_u64(label, &number) || number < 1 || number > f->columns)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s has no header, and data.label is \"%.60s\": expected the number of "
                            "a column, 1 to %u",
                            f->path, label, f->columns);
        *column = (uint32_t)number - 1;
        return COP_OK;
    }
    if (find_column(f, label, column)) return COP_OK;
    const char *nearest = cop_nearest_name(label, (const char *const *)f->names, f->columns);
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu: no column is named \"%.60s\"%s%.60s%s", f->path,
                    f->body_line - 1, label, nearest ? ": did you mean \"" : "",
                    nearest ? nearest : "", nearest ? "\"?" : "");
}

/* Both files must have the same columns. */
static cop_err check_same_columns(const csv_file *a, const csv_file *b, cop_error *error) {
    if (a->columns != b->columns)
        return cop_fail(error, COP_ERR_INPUT, "%s has %u columns, but %s has %u", b->path,
                        b->columns, a->path, a->columns);
    for (uint32_t c = 0; a->names && b->names && c < a->columns; c++)
        if (strcmp(a->names[c], b->names[c]) != 0)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: column %u is \"%.60s\": expected \"%.60s\", as in %s", b->path,
                            b->body_line - 1, c + 1, b->names[c], a->names[c], a->path);
    return COP_OK;
}

/* ---- values ---- */

static cop_err fail_value(const csv_file *f, size_t line, uint32_t column, const char *text,
                          const char *expected, cop_error *error) {
    char name[80];
    if (f->names)
        snprintf(name, sizeof name, "\"%.60s\"", f->names[column]);
    else
        snprintf(name, sizeof name, "%u", column + 1);
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu: column %s is \"%.40s\": expected %s", f->path,
                    line, name, text, expected);
}

/* One line into its sample (columns - 1 floats) and label. */
static cop_err read_row(const csv_file *f, char *line, size_t length, size_t number, uint32_t label,
                        float *sample, int32_t *class, cop_error *error) {
    char *at = line, *end = line + length;
    for (uint32_t c = 0; c < f->columns; c++) {
        double value;
        const char *text = take_field(&at, end);
        bool good = cop_parse_f64(text, &value);
        if (c == label) {
            if (!good || value < 0 || value >= COP_CLASSES_MAX || value != floor(value))
                return fail_value(f, number, c, text, "a label, a whole number from 0", error);
            *class = (int32_t)value;
            continue;
        }
        if (!good || !isfinite((float)value))
            return fail_value(f, number, c, text, "a number", error);
        *sample++ = (float)value + 0.0f; /* no -0 */
    }
    return COP_OK;
}

static cop_err fill_part(const csv_file *f, uint32_t label, const cop_data_part *part,
                         cop_error *error) {
    char *at = f->body, *line;
    size_t length;
    uint32_t row = 0;
    for (size_t number = f->body_line; next_line(&at, &line, &length); number++) {
        if (!length) continue;
        COP_ASSERT(row < part->count);
        COP_TRY(read_row(f, line, length, number, label,
                         (float *)pack_samples(part) + (size_t)row * (f->columns - 1),
                         pack_labels(part) + row, error));
        row++;
    }
    COP_ASSERT(row == part->count);
    return COP_OK;
}

static pack_part part_of(const csv_file *f, uint32_t rows) {
    return (pack_part){
        .type = COP_DATA_F32, .rank = 1, .dims = {(int32_t)f->columns - 1}, .count = rows};
}

static cop_err load(const csv_file f[2], bool test, const cop_data_input *input, cop_data **out,
                    cop_error *error) {
    uint32_t label;
    if (test) COP_TRY(check_same_columns(&f[0], &f[1], error));
    COP_TRY(find_label(&f[0], input->label, &label, error));
    const pack_part parts[2] = {part_of(&f[0], f[0].rows), part_of(&f[0], test ? f[1].rows : 0)};
    COP_TRY(pack_create(input->name, 1, &parts[0], &parts[1], out, error));
    COP_TRY(fill_part(&f[0], label, &(*out)->train, error));
    if (test) COP_TRY(fill_part(&f[1], label, &(*out)->test, error));
    return pack_finish_labels(*out, input->train.path, input->test.path, error);
}

cop_err pack_load_csv(const cop_data_input *input, cop_data **out, cop_error *error) {
    csv_file f[2];
    const bool test = input->test.path != NULL;
    cop_data *data = NULL;
    COP_TRY(open_csv(input->train.path, &f[0], error));
    cop_err e = test ? open_csv(input->test.path, &f[1], error) : COP_OK;
    if (!e) {
        e = load(f, test, input, &data, error);
        if (test) close_csv(&f[1]);
    }
    close_csv(&f[0]);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}

/* ---- samples for a trained model ---- */

/* Which column is the label; f->columns: none is. */
static cop_err match_columns(const csv_file *f, const cop_data_form *form, uint32_t *label,
                             cop_error *error) {
    const uint32_t values = (uint32_t)samples_values(form);
    const size_t line = f->names ? f->body_line - 1 : f->body_line;
    uint32_t column = f->columns;
    *label = f->columns;
    if (f->columns != values && f->columns != values + 1)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s:%zu: %u field%s: the model takes %u, or %u with a label", f->path, line,
                        f->columns, f->columns == 1 ? "" : "s", values, values + 1);
    if (f->columns == values) {
        if (form->label && find_column(f, form->label, &column))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: column \"%.60s\" is the label, beside it are %u columns: the "
                            "model takes %u",
                            f->path, line, form->label, values - 1, values);
        return COP_OK;
    }
    uint64_t number;
    if (form->label && !f->names && !cop_parse_u64(form->label, &number))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s:%zu: no header says which of the %u columns is \"%.60s\", the label: "
                        "expected one, or the %u columns of the samples alone",
                        f->path, line, f->columns, form->label, values);
    return find_label(f, form->label, label, error);
}

/* A value of a sample as the model stores it. */
static bool store_value(const char *text, cop_data_type type, void *to) {
    double value;
    if (!cop_parse_f64(text, &value)) return false;
    if (type == COP_DATA_U8) {
        if (value < 0 || value > 255 || value != floor(value)) return false;
        *(uint8_t *)to = (uint8_t)value;
        return true;
    }
    const float stored = (float)value + 0.0f; /* no -0 */
    memcpy(to, &stored, sizeof stored);
    return isfinite(stored);
}

/* `to`: the sample's row. */
static cop_err store_row(const csv_file *f, char *line, size_t length, size_t number,
                         const cop_data_form *form, uint32_t label, char *to, int32_t *class,
                         cop_error *error) {
    char *at = line, *end = line + length, expected[64];
    const bool bytes = form->type == COP_DATA_U8;
    for (uint32_t c = 0; c < f->columns; c++) {
        double value;
        const char *text = take_field(&at, end);
        if (c != label) {
            if (!store_value(text, form->type, to))
                return fail_value(f, number, c, text,
                                  bytes ? "a whole number from 0 to 255" : "a number", error);
            to += bytes ? 1 : sizeof(float);
            continue;
        }
        if (!cop_parse_f64(text, &value) || value < 0 || value >= form->classes ||
            value != floor(value)) {
            snprintf(expected, sizeof expected, "a label from 0 to %d", form->classes - 1);
            return fail_value(f, number, c, text, expected, error);
        }
        COP_ASSERT(class); /* it is there where a label is */
        *class = (int32_t)value;
    }
    return COP_OK;
}

static cop_err store_rows(const csv_file *f, const cop_data_form *form, cop_data_samples *out,
                          cop_error *error) {
    char *at = f->body, *line;
    size_t length, row = 0;
    uint32_t label;
    COP_TRY(match_columns(f, form, &label, error));
    COP_TRY(samples_take(f->path, form, f->rows, label < f->columns, out, error));
    for (size_t number = f->body_line; next_line(&at, &line, &length); number++) {
        if (!length) continue;
        COP_TRY(store_row(f, line, length, number, form, label,
                          (char *)out->rows + row * out->part.stride,
                          out->labels ? &out->labels[row] : NULL, error));
        row++;
    }
    COP_ASSERT(row == f->rows);
    return COP_OK;
}

cop_err samples_decode_csv(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    csv_file f = {.path = what, .text = bytes, .bare = true};
    cop_err e = scan(&f, size, error);
    if (!e) e = store_rows(&f, form, out, error);
    f.text = NULL; /* the caller's */
    close_csv(&f);
    return e;
}
