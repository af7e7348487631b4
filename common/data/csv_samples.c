/* Reads samples for a trained model from CSV files, in the same dialects as data sets. The file may
 * have the label's column and the columns that the job drops, or lack them. In this file, `values`
 * is the number of values of a sample. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/str.h"
#include "common/data/csv.h"
#include "common/data/samples_formats.h"

/* ---- the roles of columns ---- */

/* Makes a column the label. If training did not read labels, drops the column instead. */
static cop_err set_label(csv_file *f, uint32_t column, const cop_data_form *form,
                         cop_error *error) {
    return csv_set_role(f, column, form->unlabelled ? CSV_DROPPED : CSV_LABEL, "data.label", error);
}

/* Can the file have a label's column, as the training file had? */
static bool may_have_label(const cop_data_form *form) {
    return form->label || !form->unlabelled;
}

/* Sets the roles of a file with a header. Drops the columns that the job drops, if the file has
 * them. If one column more than `values` is left, it is the label: the column that the job names,
 * or else the last one. */
static cop_err roles_by_name(csv_file *f, const cop_data_form *form, uint32_t values,
                             cop_error *error) {
    uint32_t column;
    for (size_t i = 0; i < form->drop_count; i++)
        if (csv_find_column(f, form->drop[i], &column))
            COP_TRY(csv_set_role(f, column, CSV_DROPPED, "data.drop", error));
    if (form->label && csv_find_column(f, form->label, &column) &&
        (f->values == values + 1 || strcmp(f->names[column], form->label) == 0))
        return set_label(f, column, form, error);
    if (f->values != values + 1 || !may_have_label(form)) return COP_OK;
    if (form->label) return csv_fail_column(f, "data.label", form->label, error);
    for (column = f->columns; f->roles[--column] != CSV_VALUE;) continue;
    return set_label(f, column, form, error);
}

/* Converts `name`, the number of a column counted from 1, to an index counted from 0. Returns false
 * if `name` is not a number. */
static bool index_of(const char *name, uint32_t *index) {
    uint64_t number;
    if (!cop_parse_u64(name, &number) || number < 1 || number > UINT32_MAX) return false;
    *index = (uint32_t)number - 1;
    return true;
}

/* Fails with INPUT: the job gives a column by its name, but the file has no header. `what`
 * describes the column: the label, or a dropped column. */
static cop_err fail_no_header(const csv_file *f, const char *what, const char *name,
                              uint32_t values, cop_error *error) {
    return cop_fail(error, COP_ERR_INPUT,
                    "%s:%zu: there is no header to show which of the %u columns is \"%.60s\", "
                    "%s: add a header, or pass only the %u columns of the samples",
                    f->path, f->body_line, f->columns, name, what, values);
}

/* Sets the roles of a file without a header, by the numbers that columns had in training. The file
 * has all columns of the training file, or all except the label. */
static cop_err roles_by_number(csv_file *f, const cop_data_form *form, uint32_t values,
                               cop_error *error) {
    const bool labelled = f->columns == values + 1 + form->drop_count;
    uint32_t label = UINT32_MAX, column;
    if (form->label && !index_of(form->label, &label))
        return fail_no_header(f, "the label", form->label, values, error);
    for (size_t i = 0; i < form->drop_count; i++) {
        if (!index_of(form->drop[i], &column))
            return fail_no_header(f, "a dropped column", form->drop[i], values, error);
        if (!labelled) column -= column > label;
        if (column >= f->columns) return csv_fail_column(f, "data.drop", form->drop[i], error);
        COP_TRY(csv_set_role(f, column, CSV_DROPPED, "data.drop", error));
    }
    if (!labelled) return COP_OK;
    if (label == UINT32_MAX) {
        for (column = f->columns; f->roles[--column] != CSV_VALUE;) continue;
        label = column;
    }
    if (label >= f->columns) return csv_fail_column(f, "data.label", form->label, error);
    return set_label(f, label, form, error);
}

static cop_err fail_columns(const csv_file *f, const cop_data_form *form, uint32_t values,
                            cop_error *error) {
    char labelled[40] = "";
    if (may_have_label(form))
        snprintf(labelled, sizeof labelled, ", or %u with a label", values + 1);
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu: %u field%s: the model takes %u%s", f->path,
                    f->names ? f->body_line - 1 : f->body_line, f->columns,
                    f->columns == 1 ? "" : "s", values, labelled);
}

static cop_err set_roles(csv_file *f, const cop_data_form *form, cop_error *error) {
    const uint32_t values = (uint32_t)samples_values(form), drops = (uint32_t)form->drop_count;
    uint32_t column;
    if (f->names) {
        COP_TRY(roles_by_name(f, form, values, error));
        if (f->values == values) return COP_OK;
        if (f->columns == values && form->label && csv_find_column(f, form->label, &column))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: apart from the label, column \"%.60s\", there are %u columns: "
                            "the model takes %u",
                            f->path, f->body_line - 1, form->label, values - 1, values);
        return fail_columns(f, form, values, error);
    }
    if (f->columns == values) return COP_OK;
    if (drops == 1 && f->columns == values + 1 && may_have_label(form))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s:%zu: there is no header to show whether one of the %u columns is the "
                        "label or column \"%.60s\", which the job drops: add a header",
                        f->path, f->body_line, f->columns, form->drop[0]);
    if (f->columns == values + drops || (f->columns == values + drops + 1 && may_have_label(form)))
        return roles_by_number(f, form, values, error);
    if (f->columns != values + 1 || !may_have_label(form))
        return fail_columns(f, form, values, error);
    uint32_t label = f->columns - 1; /* the columns are the values and the label */
    if (form->label && !index_of(form->label, &label))
        return fail_no_header(f, "the label", form->label, values, error);
    if (label >= f->columns) return csv_fail_column(f, "data.label", form->label, error);
    return set_label(f, label, form, error);
}

/* ---- values ---- */

/* Stores a value in the type that the model takes. Returns false if the value does not fit. */
static bool store_value(double value, cop_data_type type, void *to) {
    if (type == COP_DATA_U8) {
        if (value < 0 || value > 255 || value != floor(value)) return false;
        *(uint8_t *)to = (uint8_t)value;
        return true;
    }
    const float stored = (float)value + 0.0f; /* turns -0 into 0 */
    memcpy(to, &stored, sizeof stored);
    return isfinite(stored);
}

static cop_err read_label(csv_file *f, const csv_field *field, const cop_data_form *form,
                          int32_t *class, cop_error *error) {
    char expected[200];
    double value;
    COP_ASSERT(class != NULL && form->classes >= 1);
    for (int32_t c = 0; c < form->classes && form->class_names; c++)
        if (strcmp(form->class_names[c], field->text) == 0) {
            *class = c;
            return COP_OK;
        }
    if (!form->class_names && csv_parse(f, field->text, &value) && value >= 0 &&
        value < form->classes && value == floor(value)) {
        *class = (int32_t)value;
        return COP_OK;
    }
    snprintf(expected, sizeof expected, "a label from 0 to %d", form->classes - 1);
    if (form->class_names) snprintf(expected, sizeof expected, "a class of the model");
    for (int32_t c = 0; c < form->classes && c < 4 && form->class_names; c++)
        cop_text_append(expected, sizeof expected, ", %.30s%s", form->class_names[c],
                        c == 3 && form->classes > 4 ? ", ..." : "");
    return csv_fail_value(f, field, expected, error);
}

static cop_err store_row(csv_file *f, const csv_line *line, const cop_data_form *form,
                         const csv_row *to, cop_error *error) {
    char *at = line->text, *end = at + line->length, *sample = to->values;
    const bool bytes = form->type == COP_DATA_U8;
    for (uint32_t c = 0; c < f->columns; c++) {
        double value;
        const csv_field field = {line->number, c, csv_take_field(f, &at, end)};
        if (f->roles[c] == CSV_DROPPED) continue;
        if (f->roles[c] == CSV_LABEL) {
            COP_TRY(read_label(f, &field, form, to->label, error));
            continue;
        }
        if (!csv_parse(f, field.text, &value) || !store_value(value, form->type, sample))
            return bytes ? csv_fail_value(f, &field, "a whole number from 0 to 255", error)
                         : csv_fail_number(f, &field, error);
        sample += bytes ? 1 : sizeof(float);
    }
    return COP_OK;
}

static cop_err store_rows(csv_file *f, const cop_data_form *form, cop_data_samples *out,
                          cop_error *error) {
    char *at = f->body;
    csv_line line = csv_before_body(f);
    size_t row = 0;
    bool labels = false;
    COP_TRY(set_roles(f, form, error));
    COP_ASSERT(f->values == samples_values(form));
    for (uint32_t c = 0; c < f->columns; c++) labels = labels || f->roles[c] == CSV_LABEL;
    COP_TRY(samples_reserve(f->path, form, f->rows, out, error));
    if (labels) COP_TRY(samples_reserve_labels(f->path, out, error));
    for (; csv_next_line(&at, &line); row++) {
        COP_ASSERT(row < f->rows);
        const csv_row to = {(char *)out->rows + row * out->part.stride,
                            labels ? &out->labels[row] : NULL};
        COP_TRY(store_row(f, &line, form, &to, error));
    }
    COP_ASSERT(row == f->rows);
    return COP_OK;
}

cop_err samples_decode_csv(const cop_data_content *csv, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    csv_file f = {.path = csv->name, .text = csv->bytes, .label_optional = true};
    const csv_columns known = {form->label, form->drop, form->drop_count, form->unlabelled};
    cop_err e = csv_scan(&f, csv->size, &known, error);
    if (!e) e = store_rows(&f, form, out, error);
    f.text = NULL; /* belongs to the caller */
    csv_close(&f);
    return e;
}
