/* Samples as a sheet of pictures. */
#ifndef COP_CLIENT_DRAW_SHEET_H
#define COP_CLIENT_DRAW_SHEET_H

#include "common/data/data.h"

enum { CLI_SHEET_SIDE_MAX = 512 }; /* of a sample, in pixels */
/* Contact sheet: `rows` x `columns` samples of a part as a PNG with a label under each (cairo).
 * Only for image shapes with 1 or 3 channels. */
cop_err cli_sheet_contact(const cop_data_part *part, int rows, int columns, const char *path,
                          cop_error *error);
/* The same of all samples of a part, with lines of text under each and a heading; for print: black
 * on white and grey, letters sharp at twice the size. */
typedef struct cli_caption {
    char text[48];
    double bar; /* from 0 to 1: its share of the line is shaded; below: it is not */
    bool strong;
} cli_caption;
typedef struct cli_sheet {
    const cop_data_part *part;
    int columns, lines;
    const cli_caption *captions; /* [part->count][lines] */
    const char *const *heading;  /* NULL-terminated lines */
} cli_sheet;
/* INPUT: no pictures; LIMIT: the sheet would be too large. */
cop_err cli_sheet_draw(const cli_sheet *sheet, const char *path, cop_error *error);

#endif
