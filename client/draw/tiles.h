/* Weights as images: one tile per unit, as in Srivastava et al. 2014, figure 7. */
#ifndef COP_CLIENT_DRAW_TILES_H
#define COP_CLIENT_DRAW_TILES_H

#include "common/base/err.h"

/* `count` tiles. Tile i is weights[i * channels * height * width ...], shape
 * [channels][height][width]; its last `missing` values do not exist and are drawn as background.
 * Each tile is scaled by its largest |weight|: 0 is grey, the largest value white, its negative
 * black. Three channels are red, green and blue; for any other number above 1, the tile shows their
 * mean. */
typedef struct cli_tiles {
    const float *weights;
    int count, channels, height, width, missing;
    int columns; /* tiles per row of the sheet */
} cli_tiles;
/* Draws the tiles into a PNG file, completely or not at all. Each weight becomes a square of 2, 4
 * or 8 pixels. LIMIT: the image would be too large; the error has its size and the limit. */
cop_err cli_tiles_write(const cli_tiles *tiles, const char *path, cop_error *error);

#endif
