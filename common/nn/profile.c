/* The lanes of a profile. See profile.h. */
#include "common/nn/profile.h"

#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

#define LANES_MAX     1024
#define ZEROS_ONCE_IN 16 /* steps */

struct cop_profile {
    size_t spans; /* per lane */
    size_t count;
    cop_lane *lanes[LANES_MAX];
};

const char *cop_phase_name(cop_phase phase) {
    static const char *const names[COP_PHASES] = {
        "idle",           "wait", "input",  "forward",  "mask",     "loss", "weights",
        "input gradient", "sum",  "update", "transfer", "evaluate", "step"};
    COP_ASSERT((int)phase >= 0 && phase < COP_PHASES);
    return names[phase];
}

cop_err cop_profile_create(size_t spans, cop_profile **out, cop_error *error) {
    cop_profile *p = cop_alloc(sizeof *p);
    if (!p) return cop_no_memory(error);
    p->spans = spans;
    *out = p;
    return COP_OK;
}

void cop_profile_destroy(cop_profile *p) {
    if (!p) return;
    for (size_t i = 0; i < p->count; i++) {
        cop_free(p->lanes[i]->spans);
        cop_free(p->lanes[i]);
    }
    cop_free(p);
}

cop_lane *cop_profile_lane(cop_profile *p, cop_lane_role role, const char *process,
                           const char *name) {
    if (!p || p->count == LANES_MAX) return NULL;
    cop_lane *lane = cop_alloc(sizeof *lane);
    if (!lane) return NULL;
    if (p->spans) lane->spans = cop_alloc_array(p->spans, sizeof *lane->spans);
    lane->span_max = lane->spans ? p->spans : 0;
    lane->role = role;
    snprintf(lane->process, sizeof lane->process, "%s", process);
    snprintf(lane->name, sizeof lane->name, "%s", name);
    lane->layer = COP_NO_LAYER;
    lane->since_ns = cop_clock_ns();
    p->lanes[p->count++] = lane;
    return lane;
}

size_t cop_profile_lanes(const cop_profile *p) {
    return p->count;
}

const cop_lane *cop_profile_at(const cop_profile *p, size_t index) {
    COP_ASSERT(index < p->count);
    return p->lanes[index];
}

/* ---- the thread of the lane ---- */

static void record(cop_lane *lane, const cop_span *span) {
    if (!lane->spans) return;
    if (lane->span_count < lane->span_max)
        lane->spans[lane->span_count++] = *span;
    else
        lane->spans_lost++;
}

static void change(cop_lane *lane, cop_phase phase, int layer, uint64_t now) {
    COP_ASSERT(layer >= 0 && layer <= COP_NO_LAYER);
    if (lane->phase != COP_PHASE_IDLE) {
        lane->ns[lane->phase][lane->layer] += now - lane->since_ns;
        record(lane, &(cop_span){.begin_ns = lane->since_ns,
                                 .end_ns = now,
                                 .step = lane->step,
                                 .layer = (int16_t)lane->layer,
                                 .phase = (uint8_t)lane->phase});
    }
    lane->phase = phase;
    lane->layer = layer;
    lane->since_ns = now;
    lane->count[phase]++;
}

void cop_lane_switch(cop_lane *lane, cop_phase phase, int layer) {
    change(lane, phase, layer, cop_clock_ns());
}

void cop_lane_discard(cop_lane *lane) {
    if (!lane) return;
    lane->phase = COP_PHASE_IDLE;
    lane->layer = COP_NO_LAYER;
}

void cop_lane_add(cop_lane *lane, cop_phase phase, uint64_t step, uint64_t begin_ns,
                  uint64_t end_ns) {
    if (!lane) return;
    COP_ASSERT(begin_ns <= end_ns);
    lane->ns[phase][COP_NO_LAYER] += end_ns - begin_ns;
    lane->count[phase]++;
    record(lane, &(cop_span){.begin_ns = begin_ns,
                             .end_ns = end_ns,
                             .step = (uint32_t)step,
                             .layer = COP_NO_LAYER,
                             .phase = (uint8_t)phase});
}

void cop_lane_begin_step(cop_lane *lane, uint64_t step, uint64_t samples) {
    if (!lane) return;
    const uint64_t now = cop_clock_ns();
    COP_ASSERT(!lane->step_began_ns && step >= 1);
    change(lane, COP_PHASE_IDLE, COP_NO_LAYER, now);
    lane->step = lane->last_step = (uint32_t)step;
    if (!lane->first_step) lane->first_step = lane->step;
    lane->step_began_ns = now;
    lane->samples += samples;
    lane->count[COP_PHASE_STEP]++;
}

void cop_lane_end_step(cop_lane *lane, cop_phase next) {
    if (!lane) return;
    const uint64_t now = cop_clock_ns();
    COP_ASSERT(lane->step_began_ns);
    change(lane, next, COP_NO_LAYER, now);
    record(lane, &(cop_span){.begin_ns = lane->step_began_ns,
                             .end_ns = now,
                             .step = lane->step,
                             .layer = COP_NO_LAYER,
                             .phase = COP_PHASE_STEP});
    lane->step_began_ns = 0;
    lane->step = 0;
}

bool cop_lane_counts_zeros(const cop_lane *lane) {
    return lane && lane->count[COP_PHASE_STEP] % ZEROS_ONCE_IN == 1;
}

void cop_lane_count_zeros(cop_zeros *zeros, const float *values, const int shape[3]) {
    const int rows = shape[0], columns = shape[1], ld = shape[2];
    for (int r = 0; r < rows; r++) {
        uint64_t found = 0;
        const float *row = values + (ptrdiff_t)r * ld;
        for (int i = 0; i < columns; i++) found += row[i] == 0;
        zeros->zeros += found;
    }
    zeros->values += (uint64_t)rows * (uint64_t)columns;
}
