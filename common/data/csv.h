/* Inside common/data: splits CSV files into lines, columns and fields. csv.c uses it to read data
 * sets, csv_samples.c to read samples for a trained model. */
#ifndef COP_DATA_CSV_H
#define COP_DATA_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* What a column is used for. */
typedef enum csv_role { CSV_VALUE = 0, CSV_LABEL = 1, CSV_DROPPED = 2 } csv_role;

/* A CSV file in memory, and what csv_scan found in it. */
typedef struct csv_file {
    const char *path;
    char *text;          /* the whole file, followed by a zero byte */
    char *first;         /* a copy of the first line, split in place */
    char **names;        /* [columns] the fields of the header, in `first`; NULL: no header */
    uint8_t *roles;      /* [columns] the csv_role of each column */
    char *body;          /* the first line of data, in `text` */
    size_t body_line;    /* number of the line at `body` in the file, from 1 */
    uint32_t columns;    /* number of columns */
    uint32_t rows;       /* number of lines of data, without blank lines */
    uint32_t values;     /* number of columns with the role CSV_VALUE */
    char separator;      /* a comma, a semicolon or a tab */
    char decimal;        /* the decimal mark, . or , ; 0 until a number with a mark was parsed */
    bool label_optional; /* lines may have a single field; false: each line has at least two */
} csv_file;

/* The columns that are not values. Each is given by its name in the header, or by its number,
 * counted from 1. */
typedef struct csv_columns {
    const char *label;       /* the label's column; NULL: the last column that is not dropped */
    const char *const *drop; /* the columns to leave out */
    size_t drop_count;       /* number of entries of `drop` */
    bool unlabelled;         /* read no labels; the column in `label`, if any, is dropped */
} csv_columns;

/* Finds separator, header, columns and rows of f->text, which has `size` bytes, followed by a zero
 * byte. Sets all roles to CSV_VALUE. If a field of the first line is a column name in `known`, the
 * first line is the header. INPUT, CORRUPT or LIMIT: the text is not a CSV file, is ambiguous,
 * empty or too large. Call csv_close afterwards, also after an error. */
cop_err csv_scan(csv_file *f, size_t size, const csv_columns *known, cop_error *error);
/* Reads a file, plain or gzipped, and scans it as csv_scan does. After an error there is nothing to
 * close. */
cop_err csv_open(const char *path, const csv_columns *known, csv_file *f, cop_error *error);
/* Frees f->text and everything that csv_scan allocated. */
void csv_close(csv_file *f);

/* Finds the column with this name in the header. If there is none, reads `name` as the number of a
 * column, counted from 1. *column: its index, counted from 0. Returns false if there is no such
 * column. */
bool csv_find_column(const csv_file *f, const char *name, uint32_t *column);
/* Fails with INPUT: no column has the name or number `name`, which the field `field` of the job
 * file (such as data.label) gives. */
cop_err csv_fail_column(const csv_file *f, const char *field, const char *name, cop_error *error);
/* Makes a column the label or a dropped column, and decreases f->values. INPUT: the column is
 * already one of these. `field` is the field of the job file that names the column, for the
 * error. */
cop_err csv_set_role(csv_file *f, uint32_t column, csv_role role, const char *field,
                     cop_error *error);

/* One line of the text, without its end. */
typedef struct csv_line {
    char *text;
    size_t length; /* bytes of the line */
    size_t number; /* of the line in the file, from 1 */
} csv_line;
/* One field of a line. */
typedef struct csv_field {
    size_t line;     /* number of its line in the file, from 1 */
    uint32_t column; /* index of its column, from 0 */
    char *text;
} csv_field;

/* Where to store the values and the label of a line. */
typedef struct csv_row {
    void *values;
    int32_t *label; /* NULL if the file has no column of labels */
} csv_row;

/* Finds the first line from *at on that is not blank. Moves *at to the beginning of the line after
 * it, and increases line->number by the number of lines passed. If only blank lines are left,
 * returns false, with an empty line. */
bool csv_next_line(char **at, csv_line *line);
/* The line before the first line of data. To walk over the data, start csv_next_line with it and
 * with f->body. */
csv_line csv_before_body(const csv_file *f);
/* Returns the field at *at, and moves *at to the next field. Changes the text in place: removes
 * quotes and surrounding blanks, and writes a zero byte after the field. `end` is the end of the
 * line. */
char *csv_take_field(const csv_file *f, char **at, char *end);
/* Parses a number. The first number with a decimal mark decides the mark of the file, f->decimal.
 * Returns false if the text is not a number or has the other mark. */
bool csv_parse(csv_file *f, char *text, double *out);
/* Fails with INPUT. The error gives file, line, column and text of the field, and `expected`. */
cop_err csv_fail_value(const csv_file *f, const csv_field *field, const char *expected,
                       cop_error *error);
/* Fails with INPUT for a field that is not a valid f32 value. The error also gives the reason. */
cop_err csv_fail_number(const csv_file *f, const csv_field *field, cop_error *error);

#endif
