/* Recognises the dialects of CSV that spreadsheets, R, pandas and Kaggle write. They differ in
 * separators, line ends, decimal marks and headers. If the separator is ambiguous, the file is an
 * error. See csv.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/data/csv.h"
#include "common/data/gzip.h"

#define CSV_MAX         ((size_t)8 << 30)
#define LINES_INSPECTED 50 /* number of lines that decide the separator */

/* ---- lines and fields ---- */

static bool is_blank(const csv_line *line) {
    size_t at = 0;
    while (at < line->length && line->text[at] == ' ') at++;
    return at == line->length;
}

/* A line ends in \n, \r\n or \r, or at the end of the text. */
bool csv_next_line(char **at, csv_line *line) {
    while (**at) {
        line->text = *at;
        line->length = strcspn(*at, "\r\n");
        line->number++;
        *at += line->length;
        *at += **at == '\r' && (*at)[1] == '\n' ? 2 : **at != '\0';
        if (!is_blank(line)) return true;
    }
    line->text = *at; /* an empty line: without this, it would be the last blank line */
    line->length = 0;
    return false;
}

csv_line csv_before_body(const csv_file *f) {
    COP_ASSERT(f->body_line >= 1);
    return (csv_line){.number = f->body_line - 1};
}

/* The end of the field that begins at `at`. It is the next separator outside of quotes, or `end`.
 */
static const char *field_end(const char *at, const char *end, char separator) {
    bool quoted = false;
    for (; at < end && (quoted || *at != separator); at++)
        if (*at == '"') quoted = !quoted;
    return at;
}

static uint32_t count_fields(const csv_line *line, char separator) {
    const char *at = line->text, *end = at + line->length;
    for (uint32_t fields = 1;; fields++) {
        at = field_end(at, end, separator);
        if (at == end) return fields;
        at++;
    }
}

static bool ends_in_quotes(const csv_line *line) {
    size_t quotes = 0;
    for (size_t i = 0; i < line->length; i++) quotes += line->text[i] == '"';
    return quotes % 2 == 1;
}

/* Removes quotes and surrounding blanks of a field in place. Returns where the field begins now. */
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

char *csv_take_field(const csv_file *f, char **at, char *end) {
    COP_ASSERT(f->separator && *at <= end);
    char *field = *at, *stop = field + (field_end(field, end, f->separator) - field);
    *at = stop < end ? stop + 1 : end;
    *stop = '\0';
    return clean_field(field, stop);
}

/* ---- numbers ---- */

/* The first decimal mark (. or ,) in a text, or 0. */
static char decimal_of(const char *text) {
    return text[strcspn(text, ".,")];
}

/* Parses a number. "0,5" is a number unless the separator is a comma. */
static bool parse(char *text, char separator, double *out) {
    char *comma = separator == ',' ? NULL : strchr(text, ',');
    if (!comma) return cop_parse_f64(text, out);
    if (strpbrk(comma + 1, ".,")) return false;
    *comma = '.';
    const bool good = cop_parse_f64(text, out);
    *comma = ',';
    return good;
}

bool csv_parse(csv_file *f, char *text, double *out) {
    const char mark = decimal_of(text);
    if (!parse(text, f->separator, out)) return false;
    if (mark && f->decimal && mark != f->decimal) return false;
    if (mark) f->decimal = mark;
    return true;
}

cop_err csv_fail_value(const csv_file *f, const csv_field *field, const char *expected,
                       cop_error *error) {
    char name[80];
    COP_ASSERT(field->column < f->columns);
    if (f->names && *f->names[field->column])
        snprintf(name, sizeof name, "\"%.60s\"", f->names[field->column]);
    else
        snprintf(name, sizeof name, "%u", field->column + 1);
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu: column %s is \"%.40s\": expected %s", f->path,
                    field->line, name, field->text, expected);
}

cop_err csv_fail_number(const csv_file *f, const csv_field *field, cop_error *error) {
    const char *text = field->text;
    const bool number = *text && !text[strspn(text, "0123456789+-.,eE")];
    const bool large = number && fabs(strtod(text, NULL)) > 1e38;
    const bool other_mark = number && f->decimal && decimal_of(text) &&
                            decimal_of(text) != f->decimal && f->separator != ',';
    return csv_fail_value(f, field,
                          large               ? "a 32-bit number (magnitude below 3.4e38)"
                          : !other_mark       ? "a number"
                          : f->decimal == ',' ? "a number with a decimal comma, as in the lines "
                                                "before"
                                              : "a number with a decimal point, as in the lines "
                                                "before",
                          error);
}

/* ---- which separator ---- */

/* Splits the first lines at `separator`, and counts the fields that are numbers. *fields: the
 * number of fields of the first line. */
static uint32_t count_numbers(char *text, char separator, uint32_t *fields) {
    char *at = text;
    csv_line line = {0};
    uint32_t numbers = 0;
    *fields = 0;
    for (int i = 0; i < LINES_INSPECTED && csv_next_line(&at, &line); i++) {
        if (i == 0) *fields = count_fields(&line, separator);
        for (const char *field = line.text, *end = field + line.length; field <= end;) {
            const char *stop = field_end(field, end, separator);
            char word[40];
            double value;
            if (stop - field < (long)sizeof word) {
                memcpy(word, field, (size_t)(stop - field));
                word[stop - field] = '\0';
                numbers += parse(clean_field(word, word + (stop - field)), separator, &value);
            }
            field = stop + 1;
        }
    }
    return numbers;
}

static const char *separator_name(char separator) {
    return separator == ',' ? "a comma" : separator == ';' ? "a semicolon" : "a tab";
}

/* If the first line is one such as "sep=;", which spreadsheets write and read, sets the separator
 * of the file, and moves *at past the line. Otherwise returns false. */
static bool take_separator_line(csv_file *f, char **at) {
    if (strncmp(*at, "sep=", 4) != 0 || !(*at)[4] || !strchr(",;\t", (*at)[4])) return false;
    if ((*at)[5] && !strchr("\r\n", (*at)[5])) return false;
    csv_line line = {.number = f->body_line};
    f->separator = (*at)[4];
    csv_next_line(at, &line);
    f->body_line = line.number;
    return true;
}

/* Chooses the separator. Among the separators that split the first line, it is the one with which
 * the most fields are numbers. If none splits the first line, it is the comma. INPUT: two
 * separators give equally many numbers. */
static cop_err find_separator(csv_file *f, char *text, cop_error *error) {
    static const char known[] = {',', ';', '\t'};
    uint32_t best = 0, fields;
    char other = 0;
    f->separator = 0;
    for (size_t i = 0; i < sizeof known; i++) {
        const uint32_t numbers = count_numbers(text, known[i], &fields);
        if (fields < 2) continue;
        if (!f->separator || numbers > best) {
            f->separator = known[i];
            best = numbers;
            other = 0;
        } else if (numbers == best) {
            other = known[i];
        }
    }
    if (!f->separator) f->separator = ',';
    if (other && best)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s: the separator may be %s or %s: expected only one of them in the whole file",
            f->path, separator_name(f->separator), separator_name(other));
    return COP_OK;
}

/* ---- header or data ---- */

/* Does the first line, in f->names, contain a name that `known` gives? */
static bool names_column(const csv_file *f, const csv_columns *known) {
    uint32_t column;
    double number;
    const bool by_name = known->label && !cop_parse_f64(known->label, &number);
    if (by_name && csv_find_column(f, known->label, &column)) return true;
    for (size_t i = 0; i < known->drop_count; i++)
        if (!cop_parse_f64(known->drop[i], &number) && csv_find_column(f, known->drop[i], &column))
            return true;
    return false;
}

/* Are there at least two numbers among the fields of the first line, and are these 0, 1, 2 ... or
 * 1, 2, 3 ...? Then they may be names of columns. */
static bool counts_up(const csv_file *f) {
    double expected = -1, value;
    uint32_t numbers = 0;
    for (uint32_t c = 0; c < f->columns; c++) {
        if (!parse(f->names[c], f->separator, &value)) continue;
        if (numbers++ == 0) expected = value;
        if (value != expected++ || (value != 0 && value != 1 && numbers == 1)) return false;
    }
    return numbers > 1;
}

/* Is the first line the header that pandas writes for columns without names? True if its fields are
 * 0, 1, 2 ..., the second line has a fraction, and there are more than two columns. */
static bool numbers_columns(const csv_file *f, const csv_line *second) {
    bool fraction = false;
    double value;
    for (uint32_t c = 0; c < f->columns; c++)
        if (!parse(f->names[c], f->separator, &value) || value != c) return false;
    for (size_t i = 0; i < second->length && !fraction; i++)
        fraction = second->text[i] == '.' || (second->text[i] == ',' && f->separator != ',');
    return fraction && f->columns > 2;
}

/* Does the line have the same text in this column as the first line? Then the text is the name of a
 * class, not of a column. */
static bool has_word(const csv_file *f, const csv_line *line, uint32_t column) {
    const char *field = line->text, *end = field + line->length,
               *stop = field_end(field, end, f->separator);
    char word[COP_CLASS_NAME_MAX + 8];
    for (uint32_t c = 0; c < column && stop < end; c++) {
        field = stop + 1;
        stop = field_end(field, end, f->separator);
    }
    const size_t size = (size_t)(stop - field);
    if (size >= sizeof word) return false;
    memcpy(word, field, size);
    word[size] = '\0';
    return strcmp(clean_field(word, word + size), f->names[column]) == 0;
}

/* Does a field of the first line that is not a number occur in the same column of a later line? */
static bool word_recurs(const csv_file *f, char *rest) {
    csv_line line = {0};
    double value;
    while (csv_next_line(&rest, &line))
        for (uint32_t c = 0; c < f->columns; c++)
            if (!parse(f->names[c], f->separator, &value) && has_word(f, &line, c)) return true;
    return false;
}

/* Is the first line, in f->names, a header? A *word* is a field that is not a number. The line is a
 * header in each of these cases:
 *
 *  - All fields are words.
 *  - A column has a word in the first line and a number, or no field, in the second line.
 *  - There are words and numbers, the numbers count up, and no word recurs in its column. A word
 *    that recurs is probably a label.
 *  - There are no words, and the line is the header that pandas writes (numbers_columns). */
static cop_err is_header(const csv_file *f, const csv_line *second, bool *header,
                         cop_error *error) {
    uint32_t words = 0, matched = 0;
    double value;
    char *copy = cop_strndup(second->text, second->length), *at = copy;
    if (!copy) return cop_no_memory(error);
    const char *end = copy + second->length;
    for (uint32_t c = 0; c < f->columns; c++) {
        char *below = at < end ? csv_take_field(f, &at, copy + second->length) : NULL;
        if (parse(f->names[c], f->separator, &value)) continue;
        words++;
        matched += below && !parse(below, f->separator, &value);
    }
    cop_free(copy);
    *header = words && (words == f->columns || matched < words ||
                        (counts_up(f) && !word_recurs(f, second->text)));
    if (!words) *header = numbers_columns(f, second);
    return COP_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Checks that no two columns have the same name, because `data.label` would be ambiguous; otherwise
 * fails with INPUT. Several columns may lack a name. */
static cop_err check_names(const csv_file *f, cop_error *error) {
    char **sorted = cop_alloc_array(f->columns, sizeof *sorted);
    if (!sorted) return cop_no_memory(error);
    memcpy(sorted, f->names, f->columns * sizeof *sorted);
    qsort(sorted, f->columns, sizeof *sorted, by_text);
    const char *twice = NULL;
    for (uint32_t c = 1; c < f->columns && !twice; c++)
        if (*sorted[c] && strcmp(sorted[c], sorted[c - 1]) == 0) twice = sorted[c];
    uint32_t at[2] = {0};
    for (uint32_t c = 0, seen = 0; twice && c < f->columns && seen < 2; c++)
        if (strcmp(f->names[c], twice) == 0) at[seen++] = c + 1;
    cop_free(sorted);
    if (!twice) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT,
                    "%s:%zu: columns %u and %u are both named \"%.60s\": expected different names",
                    f->path, f->body_line, at[0], at[1], twice);
}

/* ---- the whole file ---- */

static cop_err split_first_line(csv_file *f, const csv_line *line, cop_error *error) {
    f->columns = count_fields(line, f->separator);
    if (f->columns < (f->label_optional ? 1 : 2) || f->columns > COP_UNITS_MAX + 1)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s:%zu: %u field%s: expected 2 to %u, one the label, separated by commas, "
                        "semicolons or tabs",
                        f->path, f->body_line, f->columns, f->columns == 1 ? "" : "s",
                        COP_UNITS_MAX + 1);
    f->first = cop_strndup(line->text, line->length);
    f->names = cop_alloc_array(f->columns, sizeof *f->names);
    f->roles = cop_alloc_array(f->columns, sizeof *f->roles);
    if (!f->first || !f->names || !f->roles) return cop_no_memory(error);
    char *at = f->first, *end = f->first + line->length;
    for (uint32_t c = 0; c < f->columns; c++) f->names[c] = csv_take_field(f, &at, end);
    f->values = f->columns;
    return COP_OK;
}

/* Counts the lines of data, without blank lines. INPUT: a line has another number of fields than
 * the first line, or a quote is not closed. Since all lines have equally many fields, the memory
 * for the set is in proportion to the size of the file. */
static cop_err count_rows(csv_file *f, cop_error *error) {
    char *at = f->body;
    csv_line line = csv_before_body(f);
    size_t rows = 0;
    while (csv_next_line(&at, &line)) {
        const uint32_t fields = count_fields(&line, f->separator);
        if (ends_in_quotes(&line))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: a quote is not closed: expected each field to end on its line",
                            f->path, line.number);
        if (fields != f->columns)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s:%zu: %u field%s: expected %u, as in the first line", f->path,
                            line.number, fields, fields == 1 ? "" : "s", f->columns);
        rows++;
    }
    if (!rows) return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", f->path);
    if (rows > COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s has too many lines", f->path);
    f->rows = (uint32_t)rows;
    return COP_OK;
}

static cop_err check_text(const csv_file *f, size_t size, cop_error *error) {
    const char *kind = cop_file_kind(f->text, size);
    const bool text = strlen(f->text) == size;
    const bool other = strncmp(kind, "text in", 7) == 0 || strncmp(kind, "a pointer", 9) == 0 ||
                       strcmp(kind, "an HTML page") == 0;
    if (other || (!text && strncmp(kind, "a binary", 8) != 0 && strcmp(kind, "a text file") != 0))
        return cop_fail(error, COP_ERR_INPUT, "%s is not a CSV file: it is %s", f->path, kind);
    if (!text)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is not a text file: it contains a zero byte",
                        f->path);
    return COP_OK;
}

cop_err csv_scan(csv_file *f, size_t size, const csv_columns *known, cop_error *error) {
    char *at = f->text;
    csv_line first = {0}, second = {0};
    bool header = false;
    COP_ASSERT(f->text[size] == '\0');
    COP_TRY(check_text(f, size, error));
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* UTF-8's byte order mark */
    f->body_line = 0;
    if (!take_separator_line(f, &at)) COP_TRY(find_separator(f, at, error));
    f->body = at;
    first.number = f->body_line;
    if (!csv_next_line(&at, &first))
        return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", f->path);
    f->body_line = first.number;
    COP_TRY(split_first_line(f, &first, error));
    char *after = at;
    csv_next_line(&after, &second); /* `second` is empty if there is no second line */
    COP_TRY(is_header(f, &second, &header, error));
    if (header || names_column(f, known)) {
        COP_TRY(check_names(f, error));
        f->body = at;
        f->body_line++;
    } else {
        f->body = first.text;
        cop_free(f->names);
        f->names = NULL;
    }
    return count_rows(f, error);
}

cop_err csv_open(const char *path, const csv_columns *known, csv_file *f, cop_error *error) {
    cop_data_content content;
    *f = (csv_file){.path = path};
    COP_TRY(gzip_read_file(path, CSV_MAX, &content, error));
    f->text = content.bytes;
    cop_err e = csv_scan(f, content.size, known, error);
    if (e) csv_close(f);
    return e;
}

void csv_close(csv_file *f) {
    cop_free(f->text);
    cop_free(f->first);
    cop_free(f->names);
    cop_free(f->roles);
}

/* ---- columns ---- */

bool csv_find_column(const csv_file *f, const char *name, uint32_t *column) {
    uint64_t number;
    for (uint32_t c = 0; f->names && c < f->columns; c++)
        if (strcmp(f->names[c], name) == 0) {
            *column = c;
            return true;
        }
    if (!cop_parse_u64(name, &number) || number < 1 || number > f->columns) return false;
    *column = (uint32_t)number - 1;
    return true;
}

cop_err csv_fail_column(const csv_file *f, const char *field, const char *name, cop_error *error) {
    if (!f->names)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has no header, and %s is \"%.60s\": expected the number of a column, 1 "
                        "to %u",
                        f->path, field, name, f->columns);
    const char *nearest = cop_nearest_name(name, (const char *const *)f->names, f->columns);
    cop_str words = {0};
    for (uint32_t c = 0; !nearest && c < f->columns && c < 12; c++)
        cop_str_printf(&words, "%s%.40s", c ? ", " : "; it has: ", f->names[c]);
    if (!nearest && f->columns > 12) cop_str_append(&words, ", ...");
    cop_fail(error, COP_ERR_INPUT, "%s:%zu: no column is named \"%.60s\"%s%.60s%s%s", f->path,
             f->body_line - 1, name, nearest ? ": did you mean \"" : "", nearest ? nearest : "",
             nearest ? "\"?" : "", cop_str_text(&words));
    cop_str_fini(&words);
    return COP_ERR_INPUT;
}

cop_err csv_set_role(csv_file *f, uint32_t column, csv_role role, const char *field,
                     cop_error *error) {
    COP_ASSERT(column < f->columns && role != CSV_VALUE);
    if (f->roles[column] != CSV_VALUE)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s names column %u of %s, which is already %s: expected each column once",
                        field, column + 1, f->path,
                        f->roles[column] == CSV_LABEL ? "the label" : "dropped");
    f->roles[column] = (uint8_t)role;
    COP_ASSERT(f->values >= 1);
    f->values--;
    return COP_OK;
}
