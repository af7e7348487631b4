/* Sheets of images: samples of a data set in a grid, as a PNG (cairo). */
#ifndef COP_CLIENT_DRAW_SHEET_H
#define COP_CLIENT_DRAW_SHEET_H

#include "common/data/data.h"

enum { CLI_SHEET_SIDE_MAX = 512 }; /* maximum side of a sample, in pixels */
/* Draws the first `rows` x `columns` samples of a part into a PNG file, each with its label below
 * it. Small images are drawn at twice their size. INPUT: the samples are not images with 1 or 3
 * channels of bytes, or a side is longer than CLI_SHEET_SIDE_MAX. */
cop_err cli_sheet_contact(const cop_data_part *part, int rows, int columns, const char *path,
                          cop_error *error);
/* One line of text below a sample. Text that is wider than its column is cut off. */
typedef struct cli_caption {
    char text[48];
    double bar; /* the fraction of the line that is shaded, 0 to 1; below 0: none */
    bool bold;  /* the text is bold */
} cli_caption;
/* A sheet of all samples of a part, with a heading and lines of text below each sample. It is made
 * for print: black on white and grey, with sharp letters at twice the size. Borrows everything. */
typedef struct cli_sheet {
    const cop_data_part *part;
    int columns;                 /* samples per row of the sheet */
    int lines;                   /* lines of text below each sample */
    const cli_caption *captions; /* [part->count][lines] */
    const char *const *heading;  /* the lines of the heading; NULL follows the last one */
} cli_sheet;
/* Draws the sheet into a PNG file, completely or not at all. INPUT: as for cli_sheet_contact.
 * LIMIT: the sheet would be too large; the error has its size and the limit. */
cop_err cli_sheet_draw(const cli_sheet *sheet, const char *path, cop_error *error);

#endif
