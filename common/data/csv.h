/* Inside common/data: lines and columns of CSV files, for data sets (csv.c) and for samples that a
 * model judges (csv_samples.c). */
#ifndef COP_DATA_CSV_H
#define COP_DATA_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

typedef enum csv_role { CSV_VALUE = 0, CSV_LABEL = 1, CSV_DROPPED = 2 } csv_role;

typedef struct csv_file {
    const char *path;
    char *text;     /* the whole file, with a zero byte behind it */
    char *first;    /* a copy of the first line, split in place */
    char **names;   /* the header's fields, in `first`; NULL: no header */
    uint8_t *roles; /* csv_role of each column */
    char *body;     /* the lines of data, in `text` */
    size_t body_line;
    uint32_t columns, rows, values; /* values: columns with the role CSV_VALUE */
    char separator;                 /* , ; or a tab */
    char decimal;                   /* . or , as the first number showed; 0: no number did yet */
    bool label_optional;            /* a line may consist of one value */
} csv_file;

/* Columns that are not values, each by its name in the header or its number from 1. `label` NULL:
 * the last column that is not dropped. */
typedef struct csv_columns {
    const char *label;
    const char *const *drop;
    size_t drop_count;
    bool unlabelled; /* there is no label; a column that `label` names is dropped */
} csv_columns;

/* Finds separator, header, columns and rows of f->text, which has `size` bytes and a zero byte
 * behind them. Sets all roles to CSV_VALUE. `known`: names that a header would have. Call csv_close
 * also after an error. */
cop_err csv_scan(csv_file *f, size_t size, const csv_columns *known, cop_error *error);
/* Reads a file, plain or gzipped, and scans it. After an error there is nothing to close. */
cop_err csv_open(const char *path, const csv_columns *known, csv_file *f, cop_error *error);
void csv_close(csv_file *f);

/* Finds the column with this name, or this number from 1; false: there is none. */
bool csv_find_column(const csv_file *f, const char *name, uint32_t *column);
/* INPUT: no column has the name that `field` of the job file (data.label) gives. */
cop_err csv_fail_column(const csv_file *f, const char *field, const char *name, cop_error *error);
/* Gives a column its role. INPUT: it has one already. */
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

/* Finds the next line that is not blank, from *at on; moves *at behind it, and increases
 * line->number by the lines passed. false: there is none; the line is empty then. */
bool csv_next_line(char **at, csv_line *line);
/* What to give csv_next_line with f->body: the line before the first line of data. */
csv_line csv_before_body(const csv_file *f);
/* Takes the field at *at, without quotes and surrounding blanks (removed in place), and moves *at
 * to the next one. `end` is the line's end. */
char *csv_take_field(const csv_file *f, char **at, char *end);
/* Parses a number with the file's decimal mark. The first number with a mark decides which it is.
 */
bool csv_parse(csv_file *f, char *text, double *out);
/* INPUT, with file, line, column, text, and what was expected. */
cop_err csv_fail_value(const csv_file *f, const csv_field *field, const char *expected,
                       cop_error *error);
/* INPUT for a field that is not an f32 value: also says why. */
cop_err csv_fail_number(const csv_file *f, const csv_field *field, cop_error *error);

#endif
