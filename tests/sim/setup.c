/* Draws what a seed stands for: the pool, the jobs and the schedule of faults. Each seed uses only
 * some kinds of faults, so that faults of these kinds often coincide. */
#include "sim/sim.h"

#include "common/base/alloc.h"

#define FAULTS_MAX   40
#define FAULTS_UNTIL (20 * SIM_SECOND) /* faults begin within this time */

static uint32_t number_of_workers(sim_stream *dice) {
    uint64_t kind = sim_below(dice, 100);
    if (kind < 60) return 1 + (uint32_t)sim_below(dice, 6);
    if (kind < 95) return 4 + (uint32_t)sim_below(dice, 12);
    if (kind < 99) return 16 + (uint32_t)sim_below(dice, 48);
    return 64 + (uint32_t)sim_below(dice, 136);
}

static void make_workers(sim *s, sim_stream *dice) {
    bool mixed = s->mixed = sim_chance(dice, 300), slow = sim_chance(dice, 400);
    s->worker_count = s->options.workers ? s->options.workers : number_of_workers(dice);
    s->workers = cop_alloc_array(s->worker_count, sizeof *s->workers);
    COP_ASSERT(s->workers != NULL);
    for (uint32_t w = 0; w < s->worker_count; w++) {
        sim_worker *x = &s->workers[w];
        x->threads = 1 + (uint32_t)sim_below(dice, 3);
        x->slowness = w && slow && sim_chance(dice, 300) ? 2 + (uint32_t)sim_below(dice, 20) : 1;
        x->fingerprint = mixed ? 1 + sim_below(dice, 2) : 1;
        x->compute.key = sim_mix(s->options.seed, 0xc0000000u + w);
        x->party.network.key = sim_mix(s->options.seed, 0xa0000000u + w);
    }
}

/* ---- jobs ---- */

static void make_shape(coord_job_info *info, sim_stream *dice) {
    info->shards = 1 + (uint32_t)sim_below(dice, sim_chance(dice, 50) ? 64 : 12);
    info->batch = info->shards + (uint32_t)sim_below(dice, 30);
    info->train_samples = info->batch * (1 + (uint32_t)sim_below(dice, 4)) +
                          (uint32_t)sim_below(dice, info->batch) + 1;
    info->last_keep = sim_chance(dice, 800);
    info->steps_per_epoch =
        cop_data_steps_per_epoch(info->train_samples, info->batch, info->last_keep);
    info->steps = 3 + sim_below(dice, sim_chance(dice, 50) ? 100 : 16);
}

static void make_rules(coord_job_info *info, bool liars, sim_stream *dice) {
    info->priority = (int32_t)sim_below(dice, 3);
    info->evaluate_samples = (uint32_t)sim_below(dice, 3) * 1250;
    info->evaluate_every = (uint32_t)sim_below(dice, 3);
    info->by_loss = sim_chance(dice, 100);
    info->keep_best = true;
    info->checkpoint_every = sim_below(dice, 9);
    if (sim_chance(dice, 150)) info->workers_max = 1 + (uint32_t)sim_below(dice, 3);
    if (sim_chance(dice, 30)) info->timeout_ns = (1 + sim_below(dice, 60)) * SIM_SECOND;
    info->pin_first = sim_chance(dice, 150);
    /* In a pool with liars, most jobs are audited, some of them completely. */
    if (sim_chance(dice, liars ? 850 : 200))
        info->audit = sim_chance(dice, 450) ? 1 : 0.05 * (double)(1 + sim_below(dice, 12));
}

static void make_job(sim *s, uint32_t number, sim_stream *dice) {
    sim_spec *spec = &s->specs[number];
    coord_job_info *info = &spec->info;
    make_shape(info, dice);
    make_rules(info, s->liars, dice);
    /* An audited block needs equal results of two workers, and of the kind to which the job is
     * pinned there may be only one. */
    if (info->pin_first && s->mixed) info->audit = 0;
    if (s->options.shards) {
        info->shards = s->options.shards;
        info->batch = info->shards * 2;
        info->train_samples = info->batch * 4;
        info->steps_per_epoch = 4;
    }
    spec->seed = sim_next(dice);
    spec->key = sim_next(dice);
    spec->keep = 1 + (uint32_t)sim_below(dice, 3);
    spec->shard_ns = SIM_MS << sim_below(dice, 8);
    while (spec->shard_ns * info->shards * info->steps > 100 * SIM_SECOND) spec->shard_ns /= 2;
    if (sim_chance(dice, 30)) spec->diverges_at = 1 + sim_below(dice, info->steps);
    spec->leaf = cop_alloc_array(info->steps * info->shards, sizeof *spec->leaf);
    spec->rows = cop_alloc_array(info->steps * info->batch, sizeof *spec->rows);
    COP_ASSERT(spec->leaf && spec->rows);
}

static void make_jobs(sim *s, sim_stream *dice) {
    s->spec_count = s->client_count =
        s->options.jobs ? s->options.jobs : 1 + (uint32_t)sim_below(dice, 4);
    s->clients = cop_alloc_array(s->client_count, sizeof *s->clients);
    COP_ASSERT(s->clients && s->spec_count <= SIM_JOBS_MAX);
    for (uint32_t i = 0; i < s->spec_count; i++) {
        make_job(s, i, dice);
        s->clients[i].party.alive = true;
        s->clients[i].party.life = 1;
        s->clients[i].party.network.key = sim_mix(s->options.seed, 0xb0000000u + i);
    }
}

/* Prints the first lines of a trace. */
static void trace_setup(sim *s) {
    for (uint32_t w = 0; w < s->worker_count; w++) {
        const sim_worker *x = &s->workers[w];
        sim_trace(s, "worker %u: %u threads, %u x slower, kind %u", w, x->threads, x->slowness,
                  (unsigned)x->fingerprint);
    }
    for (uint32_t i = 0; i < s->spec_count; i++) {
        const coord_job_info *info = &s->specs[i].info;
        sim_trace(s, "submission %u: %u steps of %u shards, %.3f s each, audit %g%s%s", i,
                  (unsigned)info->steps, info->shards, (double)s->specs[i].shard_ns * 1e-9,
                  info->audit, info->pin_first ? ", pinned" : "",
                  s->specs[i].diverges_at ? ", diverges" : "");
    }
}

void sim_setup(sim *s) {
    sim_stream dice = {.key = sim_mix(s->options.seed, 0x5e7)};
    s->dice.key = sim_mix(s->options.seed, 0x4057);
    s->now = 1000 * SIM_SECOND + sim_below(&dice, SIM_SECOND);
    make_workers(s, &dice);
    /* In a pool with liars, honest workers that can compute every job must be left. */
    s->liars = s->worker_count >= 4 && !s->mixed && !s->options.no_faults && sim_chance(&dice, 150);
    make_jobs(s, &dice);
    sim_setup_ensembles(s);
    s->core_config = (coord_core_config){.heartbeats = true,
                                         .can_recompute = true,
                                         .fingerprint = 1,
                                         .secret = {sim_next(&dice), sim_next(&dice)}};
    s->core_config.speculate = sim_chance(&dice, 700);
    if (sim_chance(&dice, 700)) s->core_config.jobs_running_max = 1 + (uint32_t)sim_below(&dice, 3);
    s->core_config.strikes_max = sim_chance(&dice, 500) ? 3 : 0;
    if (sim_chance(&dice, 600)) s->core_config.lease_floor_ns = 500 * SIM_MS;
    for (uint32_t w = 0; w < s->worker_count; w++)
        sim_post(s, sim_below(&dice, 2 * SIM_SECOND),
                 (sim_event){.kind = SIM_BOOT, .peer = w, .life = 0});
    for (uint32_t i = 0; i < s->client_count; i++)
        sim_post(s, sim_below(&dice, (i ? 8 : 1) * SIM_SECOND),
                 (sim_event){.kind = SIM_CLIENT, .peer = s->worker_count + i, .life = 1});
    trace_setup(s);
}

/* ---- the schedule of faults ---- */

typedef struct shape {
    uint32_t weight;                 /* how often it is drawn, relative to the others */
    uint64_t shortest, longest;      /* bounds of the duration, in ms; 0: it does not last */
    uint32_t min_amount, max_amount; /* bounds of the amount */
    enum { ONE, MOSTLY_ONE, NO_TARGET, A_JOB } target; /* see target_of */
    uint32_t at_most; /* largest number of them in one run; 0: any number */
} shape;

/* What the amount of a fault means, by kind:
 *
 *   KILL            time until the worker starts again, ms; if odd, the coordinator learns of it
 *   SLOW            the worker's slowness while the fault lasts
 *   CUT             1 if the coordinator learns of it, otherwise 0
 *   LOSS            messages that are lost, per mille
 *   DUPLICATE       requests that are sent twice, per mille
 *   DELAY           longest additional delay of a message, ms
 *   PARTITION_*     messages that are late instead of lost, per mille
 *   CRASH, POWER    time until the coordinator starts again, ms
 *   CRASH_SAVE,     twice the time until the coordinator starts again, ms, plus 1 if its machine
 *   CRASH_COMMIT    loses power
 *   STOP            time until the coordinator starts again, ms
 *   CLOCK           jump of the clock, ms
 *   DISK_ERRORS     system calls that fail, per mille
 *   DISK_SLOW       longest additional time of a sync, ms
 *   LIE             results that are lies, per mille
 *   NAN_RESULT, NAN_GRADIENT, CANNOT
 *                   number of results
 *   CLAIM           base 2 logarithm of the computing time that the worker claims, ns
 *   all others      no meaning */
static const shape shapes[SIM_FAULT_KINDS] = {
    [SIM_KILL] = {8, 0, 0, 1, 8000, ONE, 0},
    [SIM_FREEZE] = {4, 100, 8000, 1, 1, ONE, 0},
    [SIM_SLOW] = {3, 500, 10000, 3, 200, ONE, 0},
    [SIM_CUT] = {3, 0, 0, 0, 1, MOSTLY_ONE, 0},
    [SIM_DRAIN] = {2, 0, 0, 1, 1, ONE, 0},
    [SIM_LOSS] = {3, 200, 8000, 20, 400, MOSTLY_ONE, 0},
    [SIM_DUPLICATE] = {3, 200, 8000, 50, 800, MOSTLY_ONE, 0},
    [SIM_DELAY] = {3, 200, 8000, 20, 30000, MOSTLY_ONE, 0},
    [SIM_PARTITION_TO] = {3, 200, 10000, 1, 1000, MOSTLY_ONE, 0},
    [SIM_PARTITION_FROM] = {3, 200, 10000, 1, 1000, MOSTLY_ONE, 0},
    [SIM_CRASH] = {4, 0, 0, 1, 6000, NO_TARGET, 0},
    [SIM_POWER] = {3, 0, 0, 1, 6000, NO_TARGET, 0},
    [SIM_CRASH_SAVE] = {3, 0, 0, 1, 6000, NO_TARGET, 3},
    [SIM_CRASH_COMMIT] = {3, 0, 0, 1, 6000, NO_TARGET, 3},
    [SIM_STOP] = {1, 0, 0, 1, 3000, NO_TARGET, 2},
    [SIM_STALL] = {2, 20, 6000, 1, 1, NO_TARGET, 0},
    [SIM_CLOCK] = {1, 0, 0, 1, 60000, NO_TARGET, 3},
    [SIM_DISK_FULL] = {2, 200, 10000, 1, 1, NO_TARGET, 0},
    [SIM_DISK_ERRORS] = {2, 200, 10000, 10, 300, NO_TARGET, 0},
    [SIM_DISK_SLOW] = {1, 500, 8000, 100, 3000, NO_TARGET, 0},
    [SIM_LIE] = {4, 500, 20000, 50, 1000, ONE, 2},
    [SIM_NAN_RESULT] = {1, 0, 0, 1, 6, ONE, 3},
    [SIM_NAN_GRADIENT] = {1, 0, 0, 1, 6, ONE, 3},
    [SIM_CANNOT] = {2, 0, 0, 1, 6, ONE, 8},
    [SIM_MANGLED] = {2, 0, 0, 1, 1, ONE, 8},
    [SIM_CLAIM] = {1, 500, 20000, 36, 63, ONE, 2},
    [SIM_LAG] = {2, 3000, 40000, 1, 1, ONE, 2},
    [SIM_PAUSE] = {3, 0, 0, 1, 1, A_JOB, 0},
    [SIM_RESUME] = {3, 0, 0, 1, 1, A_JOB, 0},
    [SIM_CANCEL] = {1, 0, 0, 1, 1, A_JOB, 1},
    [SIM_EVALUATE] = {1, 0, 0, 1, 1, A_JOB, 0},
};

static uint32_t target_of(const sim *s, const shape *its, sim_stream *dice) {
    if (its->target == NO_TARGET) return SIM_NOBODY;
    if (its->target == A_JOB) return (uint32_t)sim_below(dice, s->client_count);
    if (its->target == MOSTLY_ONE && sim_chance(dice, 250)) return SIM_NOBODY;
    /* A fault of a kind MOSTLY_ONE may hit the first client, whose index follows those of the
     * workers. */
    return (uint32_t)sim_below(dice, s->worker_count + (its->target == MOSTLY_ONE));
}

static sim_fault make_fault(const sim *s, sim_fault_kind kind, sim_stream *dice) {
    const shape *its = &shapes[kind];
    sim_fault fault = {.kind = kind, .target = target_of(s, its, dice)};
    fault.at = s->now + sim_below(dice, FAULTS_UNTIL);
    if (its->longest) fault.lasts = sim_heavy(dice, its->shortest * SIM_MS, its->longest * SIM_MS);
    fault.amount = (uint32_t)sim_heavy(dice, its->min_amount, its->max_amount);
    if (its->min_amount == 0) fault.amount = (uint32_t)sim_below(dice, 2);
    return fault;
}

static sim_fault_kind draw_kind(const bool *enabled, const uint32_t *used, sim_stream *dice) {
    uint32_t total = 0;
    for (int k = 1; k < SIM_FAULT_KINDS; k++) total += enabled[k] ? shapes[k].weight : 0;
    if (!total) return SIM_FAULT_NONE;
    uint64_t at = sim_below(dice, total);
    for (int k = 1; k < SIM_FAULT_KINDS; k++) {
        if (!enabled[k]) continue;
        if (at < shapes[k].weight)
            return shapes[k].at_most && used[k] >= shapes[k].at_most ? SIM_FAULT_NONE
                                                                     : (sim_fault_kind)k;
        at -= shapes[k].weight;
    }
    return SIM_FAULT_NONE;
}

static int by_time(const void *a, const void *b) {
    const sim_fault *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Is the fault with this number to happen? */
static bool is_wanted(const sim_options *options, uint32_t number) {
    if (!options->only) return true;
    for (uint32_t i = 0; i < options->only_count; i++)
        if (options->only[i] == number) return true;
    return false;
}

void sim_setup_faults(sim *s) {
    sim_stream dice = {.key = sim_mix(s->options.seed, 0xfa17)};
    bool enabled[SIM_FAULT_KINDS] = {false};
    uint32_t used[SIM_FAULT_KINDS] = {0};
    uint32_t all = (uint32_t)sim_below(&dice, FAULTS_MAX);
    s->faults = cop_alloc_array(FAULTS_MAX, sizeof *s->faults);
    COP_ASSERT(s->faults != NULL);
    s->quiet_ns = s->now;
    if (s->options.no_faults) return;
    for (int k = 1; k < SIM_FAULT_KINDS; k++) enabled[k] = sim_chance(&dice, 400);
    enabled[SIM_LIE] = s->liars;
    if (s->liars) s->faults[s->fault_count++] = make_fault(s, SIM_LIE, &dice);
    used[SIM_LIE] = s->liars;
    for (uint32_t i = s->fault_count; i < all; i++) {
        sim_fault_kind kind = draw_kind(enabled, used, &dice);
        if (!kind) continue;
        used[kind]++;
        s->faults[s->fault_count++] = make_fault(s, kind, &dice);
    }
    qsort(s->faults, s->fault_count, sizeof *s->faults, by_time);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->fault_count; i++) {
        s->faults[i].number = i;
        if (is_wanted(&s->options, i)) s->faults[kept++] = s->faults[i];
    }
    s->fault_count = kept;
    for (uint32_t i = 0; i < kept; i++) {
        const sim_fault *f = &s->faults[i];
        s->lasting[f->kind] = s->lasting[f->kind] || f->lasts;
        s->nans = s->nans || f->kind == SIM_NAN_RESULT || f->kind == SIM_NAN_GRADIENT;
        if (f->at + f->lasts > s->quiet_ns) s->quiet_ns = f->at + f->lasts;
        sim_post(s, f->at - s->now, (sim_event){.kind = SIM_FAULT, .value = i});
    }
}
