/* A profile: where the time of training goes.
 *
 * Each thread that takes part has a lane. At any time, a lane is in one phase, which may belong to
 * a layer. Entering the next phase reads the clock once and adds the time since then to the
 * previous phase. A lane can also record the spans themselves, for a trace.
 *
 * Only the lane's own thread may write to it. Others may read it when that thread has ended, or
 * while it waits. All lanes share one clock (cop_clock_ns). Code that is profiled has a pointer to
 * its lane, which is NULL if nobody wants a profile, so that an unused profile costs a test of a
 * pointer. */
#ifndef COP_NN_PROFILE_H
#define COP_NN_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

typedef enum cop_phase {
    COP_PHASE_IDLE,     /* nothing that belongs to training */
    COP_PHASE_WAIT,     /* a worker waits for its next lease, and sends its result meanwhile */
    COP_PHASE_INPUT,    /* loads, normalizes and augments samples */
    COP_PHASE_FORWARD,  /* a layer */
    COP_PHASE_MASK,     /* a layer that draws a mask or noise, and applies it */
    COP_PHASE_LOSS,     /* the loss and its gradient */
    COP_PHASE_WEIGHTS,  /* the gradient of a layer's parameters */
    COP_PHASE_BACKWARD, /* the gradient of a layer's input */
    COP_PHASE_SUM,      /* adds up the gradients of threads */
    COP_PHASE_UPDATE,   /* averages the gradients and computes the next weights */
    COP_PHASE_TRANSFER, /* the coordinator's loop handles messages: leases, samples, results */
    COP_PHASE_EVALUATE, /* an evaluation */
    COP_PHASE_STEP,     /* the span of all phases of one lease; has no time of its own */
    COP_PHASES
} cop_phase;
/* The name of a phase, such as "forward". The text is static. */
const char *cop_phase_name(cop_phase phase);

enum { COP_NO_LAYER = COP_LAYERS_MAX };

/* One visit of a phase. */
typedef struct cop_span {
    uint64_t begin_ns, end_ns;
    uint32_t step; /* number of the step, counted from 1; 0: no step */
    int16_t layer; /* index in the model, or COP_NO_LAYER */
    uint8_t phase;
} cop_span;

/* How many values of a tensor were 0. */
typedef struct cop_zeros {
    uint64_t zeros, values;
} cop_zeros;

/* What the threads of a lane do. */
typedef enum cop_lane_role {
    COP_LANE_WORKER,  /* computes leases */
    COP_LANE_UPDATE,  /* one thread of an update */
    COP_LANE_UPDATES, /* whole updates, from their start to their end on all threads */
    COP_LANE_LOOP     /* the coordinator's loop */
} cop_lane_role;

typedef struct cop_lane {
    char process[64], name[64]; /* names of the participant and of the thread, for people */
    cop_lane_role role;
    cop_phase phase; /* the current phase */
    int layer;
    uint32_t step;
    uint64_t since_ns;                           /* when the current phase began */
    uint64_t step_began_ns;                      /* 0: no span of a step is open */
    uint64_t ns[COP_PHASES][COP_LAYERS_MAX + 1]; /* time spent in each phase and layer; the last
                                                    column is for phases without a layer */
    uint64_t count[COP_PHASES];                  /* how often a phase was entered */
    uint64_t samples;                            /* samples that were trained */
    uint32_t first_step, last_step;   /* the first and the last step that were trained; 0: none */
    uint64_t bytes;                   /* bytes that updates read and wrote */
    cop_zeros inputs[COP_LAYERS_MAX]; /* zeros in the inputs of layers with parameters */
    cop_zeros gradients[COP_LAYERS_MAX]; /* zeros in the gradients of these layers' outputs */
    cop_span *spans;
    size_t span_count, span_max;
    uint64_t spans_lost; /* spans beyond span_max */
} cop_lane;

typedef struct cop_profile cop_profile;

/* Creates a profile. Each lane can record up to `spans` spans; 0: none. The caller owns *out.
 * NO_MEMORY. */
cop_err cop_profile_create(size_t spans, cop_profile **out, cop_error *error);
/* Frees the profile and its lanes, which nobody may use any more. NULL has no effect. */
void cop_profile_destroy(cop_profile *profile);
/* Adds a lane for the thread `name` of the participant `process`, and returns it. The profile owns
 * it. Calls must not overlap. NULL: `profile` is NULL, or memory ran out, so that the thread is
 * missing in the profile. */
cop_lane *cop_profile_lane(cop_profile *profile, cop_lane_role role, const char *process,
                           const char *name);
/* The lanes in the order in which they were added. */
size_t cop_profile_lanes(const cop_profile *profile);
const cop_lane *cop_profile_at(const cop_profile *profile, size_t index);

/* The functions below do nothing if `lane` is NULL. */

void cop_lane_switch(cop_lane *lane, cop_phase phase, int layer);
/* Ends the current phase and begins the next one, which belongs to layer `layer` (its index in the
 * model), or to no layer (COP_NO_LAYER). */
static inline void cop_lane_enter(cop_lane *lane, cop_phase phase, int layer) {
    if (lane) cop_lane_switch(lane, phase, layer);
}
/* Ends the current phase without counting its time. The lane is then IDLE. */
void cop_lane_discard(cop_lane *lane);
/* Adds a span that another thread or clock has measured. It does not change the current phase. */
void cop_lane_add(cop_lane *lane, cop_phase phase, uint64_t step, uint64_t begin_ns,
                  uint64_t end_ns);
/* Opens the span of a step, which contains the following phases, and counts its samples. */
void cop_lane_begin_step(cop_lane *lane, uint64_t step, uint64_t samples);
/* Ends the span of the step. The lane is then in the phase `next`. */
void cop_lane_end_step(cop_lane *lane, cop_phase next);
/* True: the zeros of tensors should be counted now. This is so in one step of 16, because counting
 * takes time. */
bool cop_lane_counts_zeros(const cop_lane *lane);
/* Adds the number of zeros in rows x columns values, whose rows are `ld` values apart. */
void cop_lane_count_zeros(cop_zeros *zeros, const float *values, const int shape[3]);

#endif
