/* Weights as pictures: one tile for each unit, as in Srivastava et al. 2014, figure 7. */
#ifndef COP_CLIENT_DRAW_TILES_H
#define COP_CLIENT_DRAW_TILES_H

#include "common/base/err.h"

/* `count` tiles; tile i is weights[i * channels * height * width ...], [channels][height][width],
 * of which the last `missing` values are not there (drawn as background). Each is scaled by its own
 * largest |weight|: 0 is grey, the largest white, its negative black; three channels are red, green
 * and blue, any other number above 1 is shown as their mean. */
typedef struct cli_tiles {
    const float *weights;
    int count, channels, height, width, missing;
    int columns; /* of the sheet */
} cli_tiles;
/* Writes a PNG; nothing is left behind on failure. LIMIT when the picture would be too large. */
cop_err cli_tiles_write(const cli_tiles *tiles, const char *path, cop_error *error);

#endif
