/* Finds few faults that still break the same invariant, by delta debugging (Zeller and Hildebrandt,
 * "Simplifying and isolating failure-inducing input", 2002) on the schedule of faults. */
#include "sim/sim.h"

static bool still_fails(const sim_options *options, const char *invariant, const uint32_t *only,
                        uint32_t count) {
    sim_options o = *options;
    sim_result r;
    o.only = only;
    o.only_count = count;
    o.trace = false;
    sim_run(&o, &r);
    return r.failed && strcmp(r.invariant, invariant) == 0;
}

uint32_t sim_shrink(const sim_options *options, const char *invariant, uint32_t *only,
                    uint32_t count) {
    uint32_t rest[256], parts = 2;
    if (count > sizeof rest / sizeof *rest) return count;
    if (still_fails(options, invariant, only, 0)) return 0;
    while (count >= 2) {
        uint32_t size = (count + parts - 1) / parts;
        bool smaller = false;
        for (uint32_t from = 0; from < count && !smaller; from += size) {
            uint32_t left = 0;
            for (uint32_t i = 0; i < count; i++)
                if (i < from || i >= from + size) rest[left++] = only[i];
            if (!still_fails(options, invariant, rest, left)) continue;
            memcpy(only, rest, left * sizeof *only);
            count = left;
            smaller = true;
        }
        if (smaller)
            parts = parts > 2 ? parts - 1 : 2;
        else if (size == 1)
            break;
        else
            parts = parts * 2 < count ? parts * 2 : count;
    }
    return count;
}
