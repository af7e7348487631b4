/* Measured times. See speed.h. */
#include "coordinator/core/speed.h"

#include <string.h>

#include "common/base/err.h"

#define SPREADS        9
#define PATIENCE       2
#define MOVED_FRACTION (1.0f / 7)

const coord_speed *speed_find(const coord_speed *speeds, uint64_t key) {
    for (int i = 0; i < SPEED_KINDS; i++)
        if (speeds[i].key == key) return &speeds[i];
    return NULL;
}

/* Median of `count` numbers, which are sorted. */
static float median_of(float *values, int count) {
    for (int i = 1; i < count; i++) {
        float v = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > v; at--) values[at] = values[at - 1];
        values[at] = v;
    }
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void measure(coord_speed *s) {
    float values[SPEED_WINDOW];
    memcpy(values, s->ns, s->count * sizeof *values);
    s->median = median_of(values, s->count);
    for (int i = 0; i < s->count; i++) {
        float distance = s->ns[i] - s->median;
        values[i] = distance < 0 ? -distance : distance;
    }
    s->spread = median_of(values, s->count);
}

/* The entry of `key`, moved to the front. */
static coord_speed *use(coord_speed *speeds, uint64_t key) {
    int at = 0;
    while (at < SPEED_KINDS - 1 && speeds[at].key != key) at++;
    coord_speed entry = speeds[at].key == key ? speeds[at] : (coord_speed){.key = key};
    memmove(&speeds[1], &speeds[0], (size_t)at * sizeof *speeds);
    speeds[0] = entry;
    return &speeds[0];
}

bool speed_note(coord_speed speeds[SPEED_KINDS], uint64_t key, double ns) {
    COP_ASSERT(key != 0);
    coord_speed *s = use(speeds, key);
    s->ns[s->next] = ns > 1 ? (float)ns : 1;
    s->next = (uint8_t)((s->next + 1) % SPEED_WINDOW);
    if (s->count < SPEED_WINDOW) s->count++;
    measure(s);
    if (s->count < SPEED_KNOWN) return false;
    float moved = s->median - s->reference;
    if (moved < 0) moved = -moved;
    if (s->reference > 0 && moved <= s->reference * MOVED_FRACTION) return false;
    s->reference = s->median;
    return true;
}

bool speed_known(const coord_speed *s) {
    return s && s->count >= SPEED_KNOWN;
}

double speed_patience_ns(const coord_speed *s, uint32_t rounds) {
    COP_ASSERT(speed_known(s));
    return PATIENCE * (double)rounds * ((double)s->median + SPREADS * (double)s->spread);
}
