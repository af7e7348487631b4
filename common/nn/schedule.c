/* Learning rates and momenta over the steps of a job (D6). They are computed in f64 by the
 * functions of base/real.h, so they are the same on every machine. Callers round each once to
 * f32. */
#include "common/base/real.h"
#include "common/nn/optim.h"

static const double pi = 3.14159265358979323846;

/* The rate after t completed steps, without warmup. */
static double scheduled(const cop_schedule *schedule, double rate, uint64_t t) {
    switch (schedule->kind) {
    case COP_SCHEDULE_CONSTANT:
        return rate;
    case COP_SCHEDULE_STEP:
        COP_ASSERT(schedule->every > 0);
        return rate * cop_power(schedule->factor, t / schedule->every);
    case COP_SCHEDULE_INVERSE:
        return rate / (1 + schedule->decay * (double)t);
    case COP_SCHEDULE_EXPONENTIAL:
        return rate * cop_power(schedule->factor, t);
    case COP_SCHEDULE_COSINE:
        COP_ASSERT(schedule->total_steps > 0);
        if (t >= schedule->total_steps) return schedule->final;
        return schedule->final + (rate - schedule->final) *
                                     (1 + cop_cos(pi * (double)t / (double)schedule->total_steps)) /
                                     2;
    }
    COP_ASSERT(!"the job file allows no other schedule");
    return rate;
}

double cop_schedule_rate(const cop_optimizer_spec *spec, uint64_t step) {
    COP_ASSERT(step >= 1);
    const cop_schedule *schedule = &spec->schedule;
    const double rate = scheduled(schedule, spec->rate, step - 1);
    if (step >= schedule->warmup) return rate;
    return rate * ((double)step / (double)schedule->warmup);
}

double cop_optimizer_momentum(const cop_optimizer_spec *spec, uint64_t step) {
    COP_ASSERT(step >= 1);
    if (spec->momentum_steps == 0) return spec->momentum;
    if (step >= spec->momentum_steps) return spec->momentum_final;
    const double passed = (double)(step - 1) / (double)(spec->momentum_steps - 1);
    return spec->momentum + (spec->momentum_final - spec->momentum) * passed;
}
