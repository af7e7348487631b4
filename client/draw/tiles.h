/* Weights as images: one tile per unit, as in Srivastava et al. 2014, figure 7. */
#ifndef COP_CLIENT_DRAW_TILES_H
#define COP_CLIENT_DRAW_TILES_H

#include "common/base/err.h"

/* `count` tiles, one after another in `weights`. A tile has the shape [channels][height][width],
 * but its last `missing` values are not stored and are drawn as background. So a tile takes
 * channels * height * width - missing floats. In each tile 0 is grey. With m as the largest
 * |weight| of the tile, m is white and -m is black. Three channels are drawn as red, green and
 * blue; of any other number of channels, the tile shows the mean. */
typedef struct cli_tiles {
    const float *weights;
    int count;
    int channels;
    int height;
    int width;
    int missing; /* values missing at the end of each tile */
    int columns; /* tiles per row of the sheet */
} cli_tiles;
/* Draws the tiles into a PNG file, completely or not at all. Each weight becomes a square with a
 * side of 2, 4 or 8 pixels. LIMIT: the image would be too large; the error has its size and the
 * limit. */
cop_err cli_tiles_write(const cli_tiles *tiles, const char *path, cop_error *error);

#endif
