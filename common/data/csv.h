/* Inside common/data: the lines and columns of CSV files, which data sets (csv.c) and samples for a
 * model (csv_samples.c) share. */
#ifndef COP_DATA_CSV_H
#define COP_DATA_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

typedef enum csv_role { CSV_VALUE = 0, CSV_LABEL = 1, CSV_DROPPED = 2 } csv_role;

typedef struct csv_file {
    const char *path;
    char *text;     /* of the file; NUL-terminated */
    char *first;    /* a copy of the first line, split in place */
    char **names;   /* the header's fields, in `first`; NULL: no header */
    uint8_t *roles; /* csv_role of each column */
    char *body;     /* the lines of data */
    size_t body_line;
    uint32_t columns, rows, values; /* values: columns with that role */
    char separator;                 /* , ; or a tab */
    char decimal;                   /* . or , once a number has shown which; before: 0 */
    bool label_optional;            /* a line may consist of one value */
} csv_file;

/* Which columns are no values; `label` NULL: the last of the others. Each is named by the header,
 * or by its number from 1. */
typedef struct csv_columns {
    const char *label;
    const char *const *drop;
    size_t drop_count;
    bool unlabelled; /* no column is the label, but the one that `label` names is left out */
} csv_columns;

/* Finds separator, header, columns and rows of `size` bytes of text; all roles are CSV_VALUE.
 * `known`: names that a header would have. csv_close also after an error. */
cop_err csv_scan(csv_file *f, size_t size, const csv_columns *known, cop_error *error);
/* Reads a file, plain or gzipped, and scans it. */
cop_err csv_open(const char *path, const csv_columns *known, csv_file *f, cop_error *error);
void csv_close(csv_file *f);

/* The column of this name, or of this number from 1; false: there is none. */
bool csv_find_column(const csv_file *f, const char *name, uint32_t *column);
/* INPUT: no column is called `name`, which `field` of the job file (data.label) names. */
cop_err csv_fail_column(const csv_file *f, const char *field, const char *name, cop_error *error);
/* Gives a column its role, which it gets only once. */
cop_err csv_set_role(csv_file *f, uint32_t column, csv_role role, const char *field,
                     cop_error *error);

/* One line of the text, without its end. */
typedef struct csv_line {
    char *text;
    size_t length;
    size_t number; /* in the file, from 1 */
} csv_line;
/* One field of a line. */
typedef struct csv_field {
    size_t line; /* its number */
    uint32_t column;
    char *text;
} csv_field;

/* Where the values and the label of a line go. */
typedef struct csv_row {
    void *values;
    int32_t *label; /* NULL: the file has no labels */
} csv_row;

/* The next line with something in it; line->number is counted on from its value before. *at moves
 * behind it. false: there is none, and the line is empty. */
bool csv_next_line(char **at, csv_line *line);
/* The line before the first one of data: where to start csv_next_line at f->body. */
csv_line csv_before_body(const csv_file *f);
/* The field at *at, cleaned in place of quotes and blanks; *at moves on. `end` is the line's end.
 */
char *csv_take_field(const csv_file *f, char **at, char *end);
/* A number with the file's decimal mark. A file has one: the first number that needs it decides. */
bool csv_parse(csv_file *f, char *text, double *out);
/* INPUT: file, line, column and text, and what was expected. */
cop_err csv_fail_value(const csv_file *f, const csv_field *field, const char *expected,
                       cop_error *error);
/* The same where f32 values are expected: says why `text` is none. */
cop_err csv_fail_number(const csv_file *f, const csv_field *field, cop_error *error);

#endif
