/* Makes a data set of rendered digits, which needs no download. A glyph consists of strokes, which
 * are lines between points. For each sample, an elastic field bends a glyph, a random affine map
 * places it on a plane of 28 x 28 pixels, a random pen draws it, and noise is added. Random numbers
 * come from Philox (D3, purpose synthetic). The part selects the key, and the counter is {block,
 * sample, 0, 0}. Positions are rounded to 1/256 pixel, and drawing is integer arithmetic, so the
 * bytes are the same on every CPU. */
#include <string.h>

#include "common/base/err.h"
#include "common/base/real.h"
#include "common/base/rng.h"
#include "common/data/pack.h"

#define SIDE   28
#define POINTS 24
#define UNIT   256 /* raster units per pixel */

/* A glyph. Its points are in [-1, 1]^2; x grows to the right, y grows downwards. */
typedef struct glyph {
    int count;             /* number of points */
    signed char x[POINTS]; /* in hundredths */
    signed char y[POINTS]; /* in hundredths */
    unsigned pen_up;       /* bit i is 1 if no line leads from point i to point i + 1 */
} glyph;

/* The glyphs of the digits 0 to 9: two or three ways to write each. */
static const struct {
    int variants;
    glyph glyph[3];
} glyphs[10] = {
    {2,
     {{13,
       {0, -35, -55, -60, -55, -35, 0, 35, 55, 60, 55, 35, 0},
       {-90, -75, -45, 0, 45, 75, 90, 75, 45, 0, -45, -75, -90},
       0},
      {11,
       {10, -25, -45, -50, -40, -10, 25, 45, 45, 30, 0},
       {-85, -75, -35, 15, 65, 88, 70, 25, -30, -75, -88},
       0}}},
    {2, {{2, {5, -5}, {-90, 90}, 0}, {5, {-35, 5, 5, -35, 40}, {-55, -90, 90, 90, 90}, 1u << 2}}},
    {2,
     {{10,
       {-50, -35, 0, 40, 50, 30, -10, -55, 0, 60},
       {-55, -82, -90, -75, -40, 0, 40, 88, 82, 88},
       0},
      {12,
       {-45, -20, 20, 45, 35, 0, -35, -50, -30, -10, 20, 60},
       {-65, -88, -88, -55, -10, 35, 70, 85, 60, 70, 88, 80},
       0}}},
    {2,
     {{13,
       {-45, -10, 35, 45, 20, -10, 25, 50, 50, 20, -15, -50, -50},
       {-75, -90, -75, -40, -8, -2, 5, 30, 60, 85, 90, 75, 75},
       0},
      {8, {-45, 45, 0, 35, 50, 30, -10, -50}, {-85, -85, -10, 5, 40, 75, 90, 75}, 0}}},
    {2,
     {{5, {20, -60, 60, 20, 20}, {-90, 30, 30, -30, 90}, 1u << 2},
      {6, {-40, -50, 45, 40, 30, 25}, {-85, 10, 10, -85, 10, 90}, 1u << 2}}},
    {2,
     {{11,
       {50, -40, -45, -10, 30, 52, 50, 20, -15, -50, -50},
       {-88, -88, -15, -28, -18, 15, 55, 85, 90, 72, 72},
       0},
      {9,
       {-35, -40, 0, 40, 50, 30, -10, -48, -35},
       {-80, -10, -25, -5, 40, 78, 90, 75, -80},
       1u << 7}}},
    {2,
     {{13,
       {40, 0, -35, -52, -55, -40, -5, 35, 52, 45, 10, -30, -52},
       {-85, -70, -30, 15, 50, 80, 90, 78, 45, 12, -2, 8, 40},
       0},
      {11,
       {10, -30, -48, -45, -15, 25, 45, 38, 5, -30, -46},
       {-90, -40, 15, 60, 88, 84, 50, 15, 2, 15, 45},
       0}}},
    {3,
     {{3, {-55, 55, -10}, {-85, -85, 90}, 0},
      {5, {-50, 50, 0, -30, 30}, {-80, -85, 88, 5, 0}, 1u << 2},
      {4, {-50, -48, 52, 0}, {-60, -85, -85, 90}, 0}}},
    {2,
     {{17,
       {0, -35, -42, -20, 0, 25, 50, 35, 0, -38, -52, -25, 0, 22, 42, 35, 0},
       {-90, -75, -45, -15, -5, 10, 45, 78, 90, 78, 45, 10, -5, -18, -45, -75, -90},
       0},
      {15,
       {35, 0, -35, -40, 0, 40, 42, 0, -42, -45, -10, 25, 42, 38, 35},
       {-75, -90, -75, -40, -5, 30, 70, 90, 75, 40, 5, -20, -50, -70, -75},
       0}}},
    {2,
     {{14,
       {45, 20, -15, -45, -48, -20, 15, 42, 48, 45, 40, 20, -10, -40},
       {-45, -80, -90, -65, -30, -5, -8, -30, -55, -45, 20, 70, 90, 80},
       0},
      {9, {40, 0, -38, -35, 0, 40, 42, 38, 30}, {-70, -88, -60, -20, -5, -35, -75, 20, 90}, 0}}},
};

/* The random numbers of one sample: the words of successive blocks of Philox. */
typedef struct stream {
    cop_rng_key key;
    uint32_t counter[4]; /* Philox counter of the next block */
    uint32_t words[4];   /* the current block */
    int used;            /* number of its words that were used */
} stream;

static uint32_t next_word(stream *s) {
    COP_ASSERT(s->used >= 0 && s->used <= 4);
    if (s->used == 4) {
        cop_philox(s->counter, s->key, s->words);
        s->counter[0]++;
        s->used = 0;
    }
    return s->words[s->used++];
}

/* A uniform random number in [-1, 1). It is a multiple of 2^-31, and so exact in f64. */
static double uniform(stream *s) {
    return (double)(int32_t)next_word(s) / 2147483648.0;
}

/* ---- geometry: f64 with plain operations, no contraction ---- */

/* How a glyph is bent and placed. wave[w] is {amplitude, frequency in x, frequency in y, phase};
 * waves 0 and 2 move a point in y, waves 1 and 3 in x. Then x becomes a * x + b * y + dx, and y
 * becomes c * x + d * y + dy. */
typedef struct pose {
    double a, b, c, d, dx, dy, wave[4][4];
} pose;

static void draw_pose(stream *s, pose *p) {
    double angle = 0.30 * uniform(s), shear = 0.35 * uniform(s), sx = 8.2 + 1.7 * uniform(s),
           sy = 8.8 + 1.5 * uniform(s);
    double cosine = cop_cos(angle), sine = cop_sin(angle);
    p->a = sx * cosine;
    p->b = sx * (shear * cosine) - sy * sine;
    p->c = sx * sine;
    p->d = sx * (shear * sine) + sy * cosine;
    p->dx = 13.5 + 2.2 * uniform(s);
    p->dy = 13.5 + 2.2 * uniform(s);
    for (int w = 0; w < 4; w++) {
        p->wave[w][0] = (w < 2 ? 0.13 : 0.07) * uniform(s); /* amplitude */
        p->wave[w][1] = 1.2 + 1.6 * (double)(w / 2) + 0.8 * uniform(s);
        p->wave[w][2] = 1.2 + 1.6 * (double)(w / 2) + 0.8 * uniform(s);
        p->wave[w][3] = 3.2 * uniform(s);
    }
}

/* Bends and places one point. `out` is {x, y} in raster units. */
static void place_point(const pose *p, double x, double y, int32_t out[2]) {
    double bx = x, by = y;
    for (int w = 0; w < 4; w++) {
        double v = p->wave[w][0] * cop_sin(p->wave[w][1] * x + p->wave[w][2] * y + p->wave[w][3]);
        if (w % 2)
            bx += v;
        else
            by += v;
    }
    out[0] = (int32_t)((p->a * bx + p->b * by + p->dx) * UNIT);
    out[1] = (int32_t)((p->c * bx + p->d * by + p->dy) * UNIT);
}

/* ---- the raster: integer arithmetic ---- */

/* The squared distance of the point (px, py) from the segment between a and b. Coordinates are in
 * raster units. */
static int64_t distance2(int32_t px, int32_t py, const int32_t a[2], const int32_t b[2]) {
    int64_t vx = b[0] - a[0], vy = b[1] - a[1], wx = px - a[0], wy = py - a[1];
    int64_t length = vx * vx + vy * vy, along = wx * vx + wy * vy;
    if (along < 0) along = 0;
    if (along > length) along = length;
    int64_t qx = length ? wx - vx * along / length : wx,
            qy = length ? wy - vy * along / length : wy;
    return qx * qx + qy * qy;
}

static int32_t clamp(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

/* The ink of a pen as a function of the squared distance from the stroke. Up to `core` a pixel gets
 * full ink, from `edge` on it gets none, and between the two the ink decreases linearly. */
typedef struct pen_profile {
    int64_t core;  /* in squared raster units */
    int64_t edge;  /* in squared raster units */
    int32_t reach; /* in raster units; at least the root of `edge` */
} pen_profile;

static void draw_segment(uint8_t *image, const int32_t a[2], const int32_t b[2],
                         const pen_profile *pen) {
    const int32_t reach = pen->reach;
    int32_t x0 = clamp(((a[0] < b[0] ? a[0] : b[0]) - reach) / UNIT, 0, SIDE - 1),
            x1 = clamp(((a[0] > b[0] ? a[0] : b[0]) + reach) / UNIT + 1, 0, SIDE - 1);
    int32_t y0 = clamp(((a[1] < b[1] ? a[1] : b[1]) - reach) / UNIT, 0, SIDE - 1),
            y1 = clamp(((a[1] > b[1] ? a[1] : b[1]) + reach) / UNIT + 1, 0, SIDE - 1);
    for (int32_t y = y0; y <= y1; y++)
        for (int32_t x = x0; x <= x1; x++) {
            int64_t d = distance2(x * UNIT, y * UNIT, a, b);
            if (d >= pen->edge) continue;
            int64_t ink = d <= pen->core ? 255 : 255 * (pen->edge - d) / (pen->edge - pen->core);
            uint8_t *at = &image[y * SIDE + x];
            if (ink > *at) *at = (uint8_t)ink;
        }
}

/* Adds noise to the strokes, and changes a few pixels of the background. */
static void add_noise(stream *s, uint8_t *image) {
    uint32_t strength = 16 + next_word(s) % 40;
    for (int i = 0; i < SIDE * SIDE; i += 4) {
        uint32_t word = next_word(s);
        for (int k = 0; k < 4; k++, word >>= 8) {
            int32_t n = (int32_t)((word & 255) * strength >> 8) - (int32_t)strength / 2;
            int32_t v = image[i + k];
            v += v ? n * 2 : (word & 255) > 250 ? n * 3 : 0;
            image[i + k] = (uint8_t)clamp(v, 0, 255);
        }
    }
}

/* Adds a stray stroke to one sample of four, as if the pen had slipped. */
static void add_stray(stream *s, uint8_t *image, const pen_profile *pen) {
    if (next_word(s) >> 30) return;
    int32_t a[2], b[2];
    for (int i = 0; i < 2; i++) {
        a[i] = (int32_t)(next_word(s) % (SIDE * UNIT));
        b[i] = a[i] + (int32_t)(next_word(s) % (8 * UNIT)) - 4 * UNIT;
    }
    const pen_profile thin = {pen->core / 2, pen->edge / 2, pen->reach};
    draw_segment(image, a, b, &thin);
}

static void draw_sample(cop_rng_key key, uint32_t sample, uint8_t *image, int32_t *label) {
    stream s = {.key = key, .counter = {0, sample, 0, 0}, .used = 4};
    pose p;
    *label = (int32_t)(next_word(&s) % 10);
    const glyph *g = &glyphs[*label].glyph[next_word(&s) % (uint32_t)glyphs[*label].variants];
    COP_ASSERT(g->count >= 2 && g->count <= POINTS);
    draw_pose(&s, &p);
    const double radius = 230 + 110 * uniform(&s); /* of the pen, in raster units */
    const int32_t inner = (int32_t)radius, outer = inner + 230;
    const pen_profile pen = {(int64_t)inner * inner, (int64_t)outer * outer, outer};
    int32_t last[2] = {0}, now[2];
    memset(image, 0, SIDE * SIDE);
    for (int i = 0; i < g->count; i++) {
        double x = g->x[i] / 100.0 + 0.09 * uniform(&s), y = g->y[i] / 100.0 + 0.09 * uniform(&s);
        place_point(&p, x, y, now);
        bool up = i == 0 || (g->pen_up >> (i - 1) & 1);
        if (!up) draw_segment(image, last, now, &pen);
        memcpy(last, now, sizeof last);
    }
    add_stray(&s, image, &pen);
    add_noise(&s, image);
}

cop_err cop_data_make_synthetic(uint64_t seed, uint32_t train, uint32_t test, cop_data **out,
                                cop_error *error) {
    const pack_part parts[2] = {
        {.type = COP_DATA_U8, .rank = 3, .dims = {1, SIDE, SIDE}, .count = train},
        {.type = COP_DATA_U8, .rank = 3, .dims = {1, SIDE, SIDE}, .count = test}};
    if (train < 1)
        return cop_fail(error, COP_ERR_INPUT, "a data set has at least one training sample");
    cop_data *data;
    COP_TRY(pack_create("synthetic-digits", 10, parts, &data, error));
    const cop_data_part *to[2] = {&data->train, &data->test};
    for (uint32_t part = 0; part < 2; part++) {
        cop_rng_key key = cop_rng_derive(seed, COP_RNG_SYNTHETIC, part);
        uint8_t *samples = pack_samples(to[part]);
        for (uint32_t i = 0; i < to[part]->count; i++)
            draw_sample(key, i, samples + (size_t)i * SIDE * SIDE, pack_labels(to[part]) + i);
    }
    pack_finish(data, 10);
    *out = data;
    return COP_OK;
}
