/* Measured times of leases. See lease_times.h. */
#include "coordinator/core/lease_times.h"

#include <string.h>

#include "common/base/err.h"

#define SPREADS        9
#define PATIENCE       2
#define MOVED_FRACTION (1.0f / 7)

const coord_lease_times *lease_times_find(const coord_lease_times *lease_times, uint64_t key) {
    for (int i = 0; i < LEASE_TIMES_KINDS; i++)
        if (lease_times[i].key == key) return &lease_times[i];
    return NULL;
}

/* Sorts `values` and returns their median. */
static float median_of(float *values, int count) {
    for (int i = 1; i < count; i++) {
        float v = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > v; at--) values[at] = values[at - 1];
        values[at] = v;
    }
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void measure(coord_lease_times *s) {
    float values[LEASE_TIMES_WINDOW];
    memcpy(values, s->ns, s->count * sizeof *values);
    s->median = median_of(values, s->count);
    for (int i = 0; i < s->count; i++) {
        float distance = s->ns[i] - s->median;
        values[i] = distance < 0 ? -distance : distance;
    }
    s->spread = median_of(values, s->count);
}

/* Moves the entry of `key` to the front and returns it. */
static coord_lease_times *use(coord_lease_times *lease_times, uint64_t key) {
    int at = 0;
    while (at < LEASE_TIMES_KINDS - 1 && lease_times[at].key != key) at++;
    coord_lease_times entry =
        lease_times[at].key == key ? lease_times[at] : (coord_lease_times){.key = key};
    memmove(&lease_times[1], &lease_times[0], (size_t)at * sizeof *lease_times);
    lease_times[0] = entry;
    return &lease_times[0];
}

bool lease_times_note(coord_lease_times lease_times[LEASE_TIMES_KINDS], uint64_t key, double ns) {
    COP_ASSERT(key != 0);
    coord_lease_times *s = use(lease_times, key);
    s->ns[s->next] = ns > 1 ? (float)ns : 1;
    s->next = (uint8_t)((s->next + 1) % LEASE_TIMES_WINDOW);
    if (s->count < LEASE_TIMES_WINDOW) s->count++;
    measure(s);
    if (s->count < LEASE_TIMES_KNOWN) return false;
    float moved = s->median - s->reference;
    if (moved < 0) moved = -moved;
    if (s->reference > 0 && moved <= s->reference * MOVED_FRACTION) return false;
    s->reference = s->median;
    return true;
}

bool lease_times_known(const coord_lease_times *s) {
    return s && s->count >= LEASE_TIMES_KNOWN;
}

double lease_times_patience_ns(const coord_lease_times *s, uint32_t rounds) {
    COP_ASSERT(lease_times_known(s));
    return PATIENCE * (double)rounds * ((double)s->median + SPREADS * (double)s->spread);
}
