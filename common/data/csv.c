/* Reads data sets from CSV files. Each line is a sample. One column is the label, which is a whole
 * number or the name of a class. The other columns are values, f32. Errors name file and line. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/data/csv.h"
#include "common/data/pack.h"

/* The names of classes, if labels are text. While the files are read, a class has the number of its
 * name in the order of first use. */
typedef struct class_list {
    bool decided;    /* a label was read; the first one decides `text` */
    bool text;       /* labels are names, not numbers */
    bool complete;   /* a new name is an error, because the training file was read */
    char **names;    /* [count] names in the order of first use; they point into the text of the
                        training file */
    uint32_t *order; /* [count] indices of `names`, in byte order of the names */
    uint32_t count;
    uint32_t capacity; /* number of entries for which `names` and `order` have room */
} class_list;

/* The files of a data set. */
typedef struct csv_set {
    csv_file file[2]; /* of the training part, then of the test part */
    bool has_test;
    class_list classes;
} csv_set;

/* ---- columns ---- */

/* Checks that both files have the same columns; otherwise fails with INPUT. */
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

static bool means_label(const csv_file *f, uint32_t column) {
    static const char *const usual[] = {"label", "labels", "class", "target", "y"};
    bool found = false;
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !found; i++)
        found = strcasecmp(f->names[column], usual[i]) == 0;
    return found;
}

/* Called if the job names no label, so that the last column is the label. Warns if another column
 * has a name that is usual for labels. */
static void warn_of_label(const csv_file *f, uint32_t last) {
    if (!f->names || means_label(f, last)) return;
    for (uint32_t c = 0; c < last; c++) {
        if (f->roles[c] != CSV_VALUE || !means_label(f, c)) continue;
        cop_log(COP_LOG_WARN, "data",
                "%s: the last column, \"%.60s\", is used as the label, although a column is called "
                "\"%s\": to use that one, set data.label: %s (coppice inspect: --label %s)",
                f->path, f->names[last], f->names[c], f->names[c], f->names[c]);
        return;
    }
}

static cop_err set_roles(csv_file *f, const csv_columns *columns, cop_error *error) {
    uint32_t column;
    for (size_t i = 0; i < columns->drop_count; i++) {
        if (!csv_find_column(f, columns->drop[i], &column))
            return csv_fail_column(f, "data.drop", columns->drop[i], error);
        COP_TRY(csv_set_role(f, column, CSV_DROPPED, "data.drop", error));
    }
    if (columns->unlabelled && !columns->label && f->values) return COP_OK;
    if (f->values < 2)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s: data.drop leaves %u of the %u columns: expected a label and at least one value",
            f->path, f->values, f->columns);
    column = f->columns;
    if (!columns->label) {
        while (f->roles[--column] != CSV_VALUE) continue;
        if (!columns->unlabelled) warn_of_label(f, column);
    } else if (!csv_find_column(f, columns->label, &column))
        return csv_fail_column(f, "data.label", columns->label, error);
    return csv_set_role(f, column, columns->unlabelled ? CSV_DROPPED : CSV_LABEL, "data.label",
                        error);
}

/* ---- labels ---- */

static void free_classes(class_list *list) {
    cop_free(list->names);
    cop_free(list->order);
}

/* Looks up a name. *at: its index in list->order. Returns false if the list does not have the name;
 * then *at is the index at which to insert it. */
static bool find_class(const class_list *list, const char *name, uint32_t *at) {
    uint32_t low = 0, high = list->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = strcmp(list->names[list->order[middle]], name);
        if (order == 0) {
            *at = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return false;
}

static cop_err grow_classes(class_list *list, cop_error *error) {
    if (list->count < list->capacity) return COP_OK;
    const uint32_t capacity = list->capacity ? 2 * list->capacity : 16;
    char **names = cop_realloc(list->names, capacity * sizeof *names);
    if (names) list->names = names;
    uint32_t *order = names ? cop_realloc(list->order, capacity * sizeof *order) : NULL;
    if (order) list->order = order;
    if (!names || !order) return cop_no_memory(error);
    list->capacity = capacity;
    return COP_OK;
}

static cop_err class_of_name(csv_file *f, const csv_field *field, class_list *list, int32_t *class,
                             cop_error *error) {
    uint32_t at;
    double number;
    char *name = field->text;
    if (!*name || csv_parse(f, name, &number))
        return csv_fail_value(f, field, "the name of a class, as in the first line of data", error);
    if (!find_class(list, name, &at)) {
        if (list->complete)
            return csv_fail_value(f, field, "a label that occurs in the training part", error);
        if (list->count == COP_CLASSES_MAX)
            return csv_fail_value(f, field, "at most 65536 different labels", error);
        COP_TRY(grow_classes(list, error));
        COP_ASSERT(at <= list->count && list->count < list->capacity);
        memmove(list->order + at + 1, list->order + at, (list->count - at) * sizeof *list->order);
        list->order[at] = list->count;
        list->names[list->count++] = name;
    }
    COP_ASSERT(list->order != NULL); /* the list holds at least this name */
    *class = (int32_t)list->order[at];
    return COP_OK;
}

static cop_err class_of_number(csv_file *f, const csv_field *field, int32_t *class,
                               cop_error *error) {
    double value;
    char expected[64];
    if (csv_parse(f, field->text, &value) && value >= 0 && value < COP_CLASSES_MAX &&
        value == floor(value)) {
        *class = (int32_t)value;
        return COP_OK;
    }
    snprintf(expected, sizeof expected, "a label, a whole number from 0 to %d",
             COP_CLASSES_MAX - 1);
    return csv_fail_value(f, field, expected, error);
}

/* Renumbers the classes in the byte order of their names, as the reader of image folders does. */
static cop_err number_classes(const class_list *list, cop_data *data, cop_error *error) {
    int32_t *numbers = cop_alloc_array(list->count, sizeof *numbers);
    const char **names = cop_alloc_array(list->count, sizeof *names);
    const cop_data_part *parts[2] = {&data->train, &data->test};
    cop_err e = numbers && names ? COP_OK : cop_no_memory(error);
    for (uint32_t i = 0; i < list->count && !e; i++) {
        numbers[list->order[i]] = (int32_t)i;
        names[i] = list->names[list->order[i]];
    }
    for (int p = 0; p < 2 && !e; p++)
        for (uint32_t r = 0; r < parts[p]->count; r++)
            pack_labels(parts[p])[r] = numbers[parts[p]->labels[r]];
    if (!e) e = cop_data_name_classes(data, names, list->count, error);
    cop_free(numbers);
    cop_free(names);
    return e;
}

/* ---- values ---- */

static cop_err read_label(csv_file *f, const csv_field *field, class_list *classes, int32_t *class,
                          cop_error *error) {
    double value;
    if (!classes->decided) classes->text = *field->text && !csv_parse(f, field->text, &value);
    classes->decided = true;
    return classes->text ? class_of_name(f, field, classes, class, error)
                         : class_of_number(f, field, class, error);
}

/* Splits one line into the values and the label of a sample. */
static cop_err read_row(csv_file *f, const csv_line *line, class_list *classes, const csv_row *to,
                        cop_error *error) {
    char *at = line->text, *end = at + line->length;
    float *sample = to->values;
    for (uint32_t c = 0; c < f->columns; c++) {
        double value;
        const csv_field field = {line->number, c, csv_take_field(f, &at, end)};
        if (f->roles[c] == CSV_DROPPED) continue;
        if (f->roles[c] == CSV_LABEL) {
            COP_TRY(read_label(f, &field, classes, to->label, error));
            continue;
        }
        if (!csv_parse(f, field.text, &value) || !isfinite((float)value))
            return csv_fail_number(f, &field, error);
        *sample++ = (float)value + 0.0f; /* turns -0 into 0 */
    }
    COP_ASSERT(sample == (float *)to->values + f->values);
    return COP_OK;
}

static cop_err fill_part(csv_file *f, class_list *classes, const cop_data_part *part,
                         cop_error *error) {
    char *at = f->body;
    csv_line line = csv_before_body(f);
    uint32_t row = 0;
    for (; csv_next_line(&at, &line); row++) {
        COP_ASSERT(row < part->count);
        const csv_row to = {(float *)pack_samples(part) + (size_t)row * f->values,
                            pack_labels(part) + row};
        COP_TRY(read_row(f, &line, classes, &to, error));
    }
    COP_ASSERT(row == part->count);
    return COP_OK;
}

/* Finds the first column of values whose values are 0, 1, 2 ... or 1, 2, 3 ..., and returns its
 * index among the columns of values. UINT32_MAX: there is none, or there are fewer than 10 lines.
 */
static uint32_t find_line_numbers(const csv_file *f, const cop_data_part *part) {
    const float *x = (const float *)pack_samples(part);
    for (uint32_t v = 0; v < f->values && part->count > 9; v++) {
        bool counts = x[v] == 0 || x[v] == 1;
        for (uint32_t r = 1; r < part->count && counts; r++)
            counts = x[(size_t)r * f->values + v] == x[v] + (float)r;
        if (counts) return v;
    }
    return UINT32_MAX;
}

/* Warns of a column that contains line numbers. pandas and R write such a column as an index. If
 * the lines are sorted by class, it reveals the class. */
static void warn_of_line_numbers(const csv_file *f, const cop_data_part *part) {
    const uint32_t value = find_line_numbers(f, part);
    uint32_t column = 0, values = 0;
    if (value == UINT32_MAX || f->values < 2) return;
    for (; f->roles[column] != CSV_VALUE || values++ < value; column++) continue;
    cop_log(COP_LOG_WARN, "data",
            "%s: column %u%s%.60s%s contains line numbers, but is used as a value: to drop it, set "
            "data.drop: [\"%u\"] (coppice inspect: --drop %u)",
            f->path, column + 1, f->names ? " (\"" : "", f->names ? f->names[column] : "",
            f->names ? "\")" : "", column + 1, column + 1);
}

static pack_part part_of(const csv_file *f, uint32_t rows) {
    return (pack_part){
        .type = COP_DATA_F32, .rank = 1, .dims = {(int32_t)f->values}, .count = rows};
}

static cop_err load(csv_set *s, const cop_data_input *input, const csv_columns *columns,
                    cop_data **out, cop_error *error) {
    csv_file *train = &s->file[0], *test = &s->file[1];
    class_list *classes = &s->classes;
    if (s->has_test) COP_TRY(check_same_columns(train, test, error));
    COP_TRY(set_roles(train, columns, error));
    if (s->has_test) {
        memcpy(test->roles, train->roles, train->columns * sizeof *train->roles);
        test->values = train->values;
    }
    const pack_part parts[2] = {part_of(train, train->rows),
                                part_of(train, s->has_test ? test->rows : 0)};
    COP_TRY(pack_create(input->name, 1, parts, out, error));
    COP_TRY(fill_part(train, classes, &(*out)->train, error));
    warn_of_line_numbers(train, &(*out)->train);
    classes->complete = true;
    if (s->has_test) COP_TRY(fill_part(test, classes, &(*out)->test, error));
    if (input->unlabelled) return pack_finish_unlabelled(*out, error);
    if (!classes->text) return pack_finish_labels(*out, input->train.path, input->test.path, error);
    if (classes->count < 2)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: all labels are \"%.60s\": expected at least two classes", train->path,
                        classes->names[0]);
    COP_TRY(number_classes(classes, *out, error));
    COP_TRY(pack_narrow(*out, error));
    pack_finish(*out, (int32_t)classes->count);
    return COP_OK;
}

cop_err pack_load_csv(const cop_data_input *input, cop_data **out, cop_error *error) {
    csv_set s = {.has_test = input->test.path != NULL};
    const csv_columns columns = {input->label, input->drop, input->drop_count, input->unlabelled};
    cop_data *data = NULL;
    COP_TRY(csv_open(input->train.path, &columns, &s.file[0], error));
    cop_err e = s.has_test ? csv_open(input->test.path, &columns, &s.file[1], error) : COP_OK;
    if (!e) {
        e = load(&s, input, &columns, &data, error);
        if (s.has_test) csv_close(&s.file[1]);
    }
    csv_close(&s.file[0]);
    free_classes(&s.classes);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}
