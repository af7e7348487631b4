/* A seeded simulator of a pool around the decision core, in virtual time: workers that join, die,
 * freeze, are slow, lose or double messages; a host that takes its time, whose checkpoints fail and
 * which crashes. A gradient is a hash of (weights, step, shard), sums of gradients are a hash that
 * neither commutes nor associates, an update hashes weights and sum: a result that is used twice,
 * too late or in another order shows in the final weights. Every failing seed replays. */
#ifndef TESTS_SIM_CORE_SIM_H
#define TESTS_SIM_CORE_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/core.h"

#define SIM_MS      1000000ull
#define SIM_WORKERS 8
#define SIM_JOBS    3
#define SIM_STEPS   64
#define SIM_SLICES  4
#define SIM_SLOTS   65536
#define SIM_QUEUE   8192

/* ---- arithmetic: hashes stand for tensors ---- */

static inline uint64_t sim_mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + b;
    x = (x ^ (x >> 29)) * 0x94d049bb133111ebu;
    return x ^ (x >> 32);
}

static inline double sim_real(uint64_t x) {
    return (double)(x >> 11) * 0x1p-53 + 0.1;
}

/* Gradient sum and loss sum of node [a, b); shards from `present` on are absent. */
static inline uint64_t sim_node(uint64_t weights, uint64_t step, uint32_t a, uint32_t b,
                                uint32_t present, double *loss) {
    if (b - a == 1) {
        uint64_t g = sim_mix(sim_mix(weights, step), a);
        *loss = sim_real(g);
        return g;
    }
    uint32_t left = 1;
    double right_loss = 0;
    while (left * 2 < b - a) left *= 2;
    uint64_t g = sim_node(weights, step, a, a + left, present, loss);
    if (a + left >= present) return g;
    uint64_t right = sim_node(weights, step, a + left, b, present, &right_loss);
    *loss += right_loss;
    return sim_mix(g, right);
}

static inline double sim_slice_loss(uint64_t weights, uint32_t first) {
    return sim_real(sim_mix(weights, first + 77));
}

/* Outputs of an ensemble's members [member, member + members) on one slice. */
static inline uint64_t sim_outputs(uint64_t job, uint32_t slice, uint32_t member,
                                   uint32_t members) {
    uint64_t sum = sim_mix(job, slice);
    for (uint32_t i = 0; i < members; i++) sum = sim_mix(sum, member + i);
    return sum;
}

/* ---- state ---- */

typedef enum sim_kind {
    SIM_TICK,
    SIM_TO_CORE,  /* event: of the host */
    SIM_PULL,     /* a worker's PULL arrives, with or without a result */
    SIM_REPLY,    /* lease, nothing or unknown arrives at the worker */
    SIM_TIMEOUT,  /* the worker's patience with its call */
    SIM_COMPUTED, /* the worker is done */
    SIM_HEARTBEAT,
    SIM_JOIN, /* a worker says HELLO */
    SIM_FAULT
} sim_kind;

typedef struct sim_message {
    uint64_t time, order;
    sim_kind kind;
    uint32_t worker, life, call; /* stale ones are ignored by whoever reboots */
    uint32_t crash;              /* the coordinator's life it belongs to */
    uint64_t id;                 /* the sender's number in the pool */
    bool has_result, unknown, nothing;
    coord_event event;
    coord_action lease;
    uint64_t weights, gradient;
} sim_message;

typedef struct sim_worker {
    bool alive;
    uint32_t life, call;
    uint64_t id, frozen_until;
    uint32_t slowness;
    coord_event result; /* to be sent, and sent again until it is answered */
    uint64_t gradient;
    bool has_result;
} sim_worker;

typedef struct sim_saved {
    uint64_t step, weights, samples, correct;
    double loss_sum, seconds, best_error;
    bool has_best;
} sim_saved;

typedef struct sim_job {
    coord_job_info info;
    bool loaded, ended, updating, paused;
    uint64_t step, weights, next;
    sim_saved saved, saving;
    double step_loss[SIM_STEPS + 1], evaluated[SIM_STEPS + 1], epoch[SIM_STEPS + 1];
    bool not_finite[SIM_STEPS + 1], failed[SIM_STEPS + 1]; /* at most once per step */
    uint32_t absorbed[SIM_SLICES]; /* of an ensemble: members of each slice */
} sim_job;

typedef struct sim {
    uint64_t random, now, order, faults_until, next_worker, next_request, next_slot;
    uint32_t crash, faults, workers, jobs, lease_count, repeated;
    coord_core *core;
    coord_actions actions;
    sim_worker worker[SIM_WORKERS];
    sim_job job[SIM_JOBS + 1];
    sim_message *queue;
    uint32_t queued;
    bool *answered; /* requests */
    uint64_t *slot_value;
    uint8_t *slot_state; /* 1 offered, 2 kept, 3 released */
    struct {
        uint64_t request;
        uint32_t worker, life, call;
    } held[SIM_WORKERS];
} sim;

static inline uint64_t sim_next(sim *s) {
    s->random += 0x9e3779b97f4a7c15u;
    return sim_mix(s->random, s->random >> 7);
}

static inline uint64_t sim_below(sim *s, uint64_t n) {
    COP_ASSERT(n > 0);
    return sim_next(s) % n;
}

static inline bool sim_faulty(sim *s, uint32_t percent) {
    return s->faults && s->now < s->faults_until && sim_below(s, 100) < percent;
}

/* ---- messages in virtual time: a heap ---- */

static inline bool sim_sooner(const sim_message *a, const sim_message *b) {
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static inline void sim_post(sim *s, uint64_t delay, sim_message m) {
    assert_true(s->queued < SIM_QUEUE);
    m.time = s->now + delay;
    m.order = ++s->order;
    m.crash = s->crash;
    uint32_t at = s->queued++;
    for (; at && sim_sooner(&m, &s->queue[(at - 1) / 2]); at = (at - 1) / 2)
        s->queue[at] = s->queue[(at - 1) / 2];
    s->queue[at] = m;
}

static inline sim_message sim_take(sim *s) {
    sim_message first = s->queue[0], last = s->queue[--s->queued];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= s->queued) break;
        if (child + 1 < s->queued && sim_sooner(&s->queue[child + 1], &s->queue[child])) child++;
        if (!sim_sooner(&s->queue[child], &last)) break;
        s->queue[at] = s->queue[child];
        at = child;
    }
    s->queue[at] = last;
    return first;
}

/* A network's delay, sometimes a long one. */
static inline uint64_t sim_delay(sim *s) {
    return sim_faulty(s, 5) ? sim_below(s, 3000 * SIM_MS) : 1 + sim_below(s, 2 * SIM_MS);
}

/* ---- host ---- */

static inline void sim_release(sim *s, uint64_t slot, uint8_t from, uint8_t to) {
    if (!slot) return;
    assert_true(slot <= s->next_slot);
    assert_int_equal(s->slot_state[slot], from);
    s->slot_state[slot] = to;
}

/* The tree over the update's blocks. *at: the next block. */
static inline uint64_t sim_sum(sim *s, const coord_action *a, uint32_t from, uint32_t to,
                               uint32_t *at) {
    const coord_block *b = &a->update.blocks[*at];
    assert_true(*at < a->update.count && b->first == from);
    if (b->count == to - from) {
        (*at)++;
        assert_int_equal(s->slot_state[b->slot], 2);
        return s->slot_value[b->slot];
    }
    uint32_t left = 1;
    while (left * 2 < to - from) left *= 2;
    uint64_t g = sim_sum(s, a, from, from + left, at);
    if (*at == a->update.count) return g; /* absent */
    return sim_mix(g, sim_sum(s, a, from + left, to, at));
}

static inline void sim_answer(sim *s, uint64_t delay, coord_event e) {
    sim_post(s, delay, (sim_message){.kind = SIM_TO_CORE, .event = e});
}

static inline void sim_update(sim *s, const coord_action *a) {
    sim_job *j = &s->job[a->job];
    coord_event e = {.type = COORD_EVENT_UPDATED, .job = a->job, .step = a->step, .ok = true};
    assert_true(j->loaded && !j->updating && a->step == j->step + 1);
    if (sim_faulty(s, 2) && !j->not_finite[a->step]) {
        j->not_finite[a->step] = true;
        e.ok = false;
        e.result.first = a->update.blocks[sim_below(s, a->update.count)].first;
    } else {
        uint32_t at = 0;
        j->next =
            sim_mix(j->weights, sim_mix(sim_sum(s, a, 0, j->info.shards, &at), a->update.batch));
        assert_int_equal(at, a->update.count);
        j->updating = true;
        for (uint32_t i = 0; i < a->update.count; i++)
            sim_release(s, a->update.blocks[i].slot, 2, 3);
    }
    sim_answer(s, 1 + sim_below(s, 3 * SIM_MS), e);
}

static inline void sim_load(sim *s, uint64_t job) {
    sim_job *j = &s->job[job];
    coord_event e = {.type = COORD_EVENT_JOB_LOADED, .job = job};
    assert_false(j->loaded);
    j->step = e.loaded.step = j->saved.step;
    j->weights = j->saved.weights;
    e.loaded.loss_sum = j->saved.loss_sum;
    e.loaded.samples = j->saved.samples;
    e.loaded.correct = j->saved.correct;
    e.loaded.best_error = j->saved.best_error;
    e.loaded.has_best = j->saved.has_best;
    sim_answer(s, 1 + sim_below(s, 50 * SIM_MS), e);
}

static inline void sim_save(sim *s, const coord_action *a) {
    sim_job *j = &s->job[a->job];
    coord_event e = {.type = COORD_EVENT_CHECKPOINTED, .job = a->job, .step = a->step};
    assert_int_equal(a->step, j->step);
    j->saving = (sim_saved){.step = a->step,
                            .weights = j->weights,
                            .samples = a->checkpoint.samples,
                            .correct = a->checkpoint.correct,
                            .loss_sum = a->checkpoint.loss_sum,
                            .best_error = a->checkpoint.best_error,
                            .has_best = a->checkpoint.has_best};
    e.ok = a->checkpoint.final || !sim_faulty(s, 20);
    sim_answer(s, 1 + sim_below(s, 100 * SIM_MS), e);
}

/* Members of a slice come in their order, each once. */
static inline void sim_absorb(sim *s, const coord_action *a) {
    sim_job *j = &s->job[a->job];
    const uint32_t slice = a->lease.first / COP_EVAL_SLICE;
    assert_true(j->loaded && a->lease.member == j->absorbed[slice]);
    assert_true(s->slot_value[a->slot] ==
                sim_outputs(a->job, slice, a->lease.member, a->lease.members));
    j->absorbed[slice] += a->lease.members;
    sim_release(s, a->slot, 2, 3);
    sim_answer(s, 1 + sim_below(s, 3 * SIM_MS),
               (coord_event){.type = COORD_EVENT_ABSORBED, .job = a->job});
}

/* A figure that is computed again must come out the same. */
static inline void sim_record(double *place, double value) {
    if (*place >= 0) assert_true(*place == value);
    *place = value;
}

static inline void sim_reply(sim *s, const coord_action *a) {
    assert_true(a->request <= s->next_request && a->request < SIM_SLOTS);
    assert_false(s->answered[a->request]); /* once */
    s->answered[a->request] = true;
    for (uint32_t w = 0; w < s->workers; w++) {
        if (s->held[w].request != a->request) continue;
        sim_message m = {.kind = SIM_REPLY, .worker = w, .life = s->held[w].life};
        m.call = s->held[w].call;
        m.unknown = a->nothing.unknown;
        m.nothing = a->type == COORD_ACTION_NOTHING;
        m.lease = *a;
        if (!m.nothing) {
            const sim_job *j = &s->job[a->job];
            assert_true(j->loaded && a->lease.version == j->step);
            if (!a->lease.ensemble)
                assert_int_equal(a->step, a->lease.evaluate ? j->step : j->step + 1);
            m.weights = j->weights;
            s->lease_count++;
            s->repeated += a->lease.attempt > 1;
        }
        s->held[w].request = 0;
        if (!sim_faulty(s, 5)) sim_post(s, sim_delay(s), m); /* else lost */
        return;
    }
    /* Its worker has rebooted meanwhile: nobody listens, and the lease comes back by silence. */
}

static inline void sim_state(sim *s, const coord_action *a) {
    sim_job *j = &s->job[a->job];
    if (a->state == COORD_FAILED) fail_msg("job %u failed: %s", (unsigned)a->job, a->text);
    j->ended = a->state == COORD_COMPLETED;
    j->paused = a->state == COORD_PAUSED;
    if (j->paused || a->state == COORD_QUEUED) j->info.state = a->state;
}

static inline void sim_carry_out(sim *s, const coord_action *a) {
    sim_job *j = &s->job[a->job];
    switch (a->type) {
    case COORD_ACTION_LEASE:
    case COORD_ACTION_NOTHING:
        sim_reply(s, a);
        break;
    case COORD_ACTION_KEEP:
        sim_release(s, a->slot, 1, 2);
        break;
    case COORD_ACTION_DROP:
        sim_release(s, a->slot, s->slot_state[a->slot] == 2 ? 2 : 1, 3);
        break;
    case COORD_ACTION_LOAD:
        sim_load(s, a->job);
        break;
    case COORD_ACTION_UNLOAD:
        assert_true(j->loaded);
        j->loaded = false;
        break;
    case COORD_ACTION_UPDATE:
        sim_update(s, a);
        break;
    case COORD_ACTION_ABSORB:
        sim_absorb(s, a);
        break;
    case COORD_ACTION_METRICS:
        sim_record(&j->step_loss[a->step], a->metrics.loss_sum);
        break;
    case COORD_ACTION_EPOCH:
        sim_record(&j->epoch[a->step], a->metrics.loss_sum);
        break;
    case COORD_ACTION_EVALUATED:
        sim_record(&j->evaluated[a->step], a->metrics.loss_sum);
        break;
    case COORD_ACTION_CHECKPOINT:
        sim_save(s, a);
        break;
    case COORD_ACTION_STATE:
        sim_state(s, a);
        break;
    case COORD_ACTION_DIVERGED:
        fail_msg("job %u diverged", (unsigned)a->job);
        break;
    default:
        break; /* DISCONNECT: the worker learns it from its next PULL */
    }
}

static inline void sim_feed(sim *s, const coord_event *e) {
    if (e->type == COORD_EVENT_JOB_LOADED) s->job[e->job].loaded = true;
    if (e->type == COORD_EVENT_UPDATED && e->ok && s->job[e->job].updating) {
        s->job[e->job].weights = s->job[e->job].next;
        s->job[e->job].step = e->step;
        s->job[e->job].updating = false;
    }
    if (e->type == COORD_EVENT_CHECKPOINTED && e->ok) s->job[e->job].saved = s->job[e->job].saving;
    assert_int_equal(coord_core_step(s->core, e, s->now, &s->actions), COP_OK);
    coord_core_check(s->core);
    for (uint32_t i = 0; i < s->actions.count; i++) sim_carry_out(s, &s->actions.items[i]);
}

/* ---- workers ---- */

static inline void sim_call(sim *s, uint32_t w) {
    sim_worker *x = &s->worker[w];
    sim_message m = {.kind = SIM_PULL, .worker = w, .life = x->life, .call = ++x->call};
    m.id = x->id;
    m.has_result = x->has_result;
    m.event = x->result;
    m.gradient = x->gradient;
    if (!sim_faulty(s, 4)) sim_post(s, sim_delay(s), m);
    if (x->has_result && sim_faulty(s, 6)) sim_post(s, sim_delay(s), m); /* twice */
    m.kind = SIM_TIMEOUT;
    sim_post(s, 8000 * SIM_MS, m);
}

static inline void sim_on_pull(sim *s, sim_message *m) {
    sim_worker *x = &s->worker[m->worker];
    sim_message reply = {.kind = SIM_REPLY, .worker = m->worker, .life = m->life, .call = m->call};
    if (m->crash != s->crash) { /* a session of an earlier coordinator */
        reply.unknown = reply.nothing = true;
        sim_post(s, sim_delay(s), reply);
        return;
    }
    if (m->has_result) {
        m->event.result.slot = ++s->next_slot;
        assert_true(s->next_slot < SIM_SLOTS);
        s->slot_value[s->next_slot] = m->gradient;
        s->slot_state[s->next_slot] = 1;
        sim_feed(s, &m->event);
        assert_int_not_equal(s->slot_state[m->event.result.slot], 1);
    }
    if (x->life != m->life || m->call != x->call) return; /* a double: only its result counts */
    coord_event pull = {.type = COORD_EVENT_PULL, .worker = m->id};
    pull.pull.request = ++s->next_request;
    s->held[m->worker].request = pull.pull.request;
    s->held[m->worker].life = m->life;
    s->held[m->worker].call = m->call;
    sim_feed(s, &pull);
}

static inline void sim_compute(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->worker[w];
    const coord_action *a = &m->lease;
    sim_job *j = &s->job[a->job];
    uint32_t shards = j->info.shards, batch = a->lease.batch, first = a->lease.first;
    uint32_t end = first + a->lease.count, present = batch < shards ? batch : shards;
    uint64_t cost = (1 + sim_below(s, 10)) * SIM_MS * x->slowness * a->lease.count;
    coord_result_info r = {.lease = a->lease.lease,
                           .job = a->job,
                           .step = a->step,
                           .compute_ns = a->lease.evaluate ? 5 * SIM_MS : cost,
                           .attempt = a->lease.attempt,
                           .first = first,
                           .count = a->lease.count,
                           .evaluate = a->lease.evaluate,
                           .ensemble = a->lease.ensemble,
                           .members = a->lease.members,
                           .finite = true};
    const uint64_t once = a->step % (SIM_STEPS + 1);
    if (a->lease.ensemble) {
        r.samples = a->lease.count;
        r.compute_ns = (1 + sim_below(s, 10)) * SIM_MS * x->slowness * a->lease.members;
        x->gradient =
            sim_outputs(a->job, first / COP_EVAL_SLICE, a->lease.member, a->lease.members);
    } else if (a->lease.evaluate) {
        r.samples = a->lease.count;
        r.loss = sim_slice_loss(m->weights, first);
    } else {
        uint32_t longer = batch % shards;
        r.samples = (end - first) * (batch / shards) + (end < longer ? end : longer) -
                    (first < longer ? first : longer);
        x->gradient = sim_node(m->weights, a->step, first, end, present, &r.loss);
    }
    r.correct = r.samples / 3;
    if (sim_faulty(s, 2) && !j->not_finite[once] && !a->lease.ensemble) {
        r.finite = false;
        j->not_finite[once] = true;
    } else if (sim_faulty(s, 2) && !j->failed[once]) {
        r.failed = true;
        j->failed[once] = true;
    }
    x->result = (coord_event){.type = COORD_EVENT_RESULT, .worker = x->id, .job = a->job};
    x->result.step = a->step;
    x->result.result = r;
    x->has_result = true;
    sim_post(s, r.compute_ns,
             (sim_message){.kind = SIM_COMPUTED, .worker = w, .life = x->life, .call = x->call});
}

static inline void sim_on_reply(sim *s, const sim_message *m) {
    sim_worker *x = &s->worker[m->worker];
    if (m->call != x->call) return; /* it has given up this call */
    x->has_result = false;
    if (m->unknown) {
        sim_post(s, 10 * SIM_MS,
                 (sim_message){.kind = SIM_JOIN, .worker = m->worker, .life = x->life});
        x->call++;
        return;
    }
    x->call++;
    if (m->nothing)
        sim_call(s, m->worker);
    else
        sim_compute(s, m->worker, m);
}

static inline void sim_join(sim *s, uint32_t w) {
    sim_worker *x = &s->worker[w];
    coord_event e = {.type = COORD_EVENT_WORKER_JOINED, .worker = ++s->next_worker};
    e.joined.name = "w";
    e.joined.threads = 1 + (uint32_t)w % 3;
    e.joined.ensembles = true;
    x->id = e.worker;
    x->has_result = false;
    sim_feed(s, &e);
    sim_call(s, w);
}

/* To whoever lives; frozen ones get it later. */
static inline void sim_on_worker(sim *s, sim_message *m) {
    sim_worker *x = &s->worker[m->worker];
    if (!x->alive || m->life != x->life) return;
    if (s->now < x->frozen_until) {
        sim_post(s, x->frozen_until - s->now, *m);
        return;
    }
    if (m->kind == SIM_REPLY) sim_on_reply(s, m);
    if (m->kind == SIM_COMPUTED && m->call == x->call) sim_call(s, m->worker);
    if (m->kind == SIM_TIMEOUT && m->call == x->call) sim_call(s, m->worker);
    if (m->kind == SIM_JOIN) sim_join(s, m->worker);
    if (m->kind == SIM_HEARTBEAT) {
        coord_event beat = {.type = COORD_EVENT_HEARTBEAT, .worker = x->id};
        sim_feed(s, &beat);
        sim_post(s, 400 * SIM_MS, *m);
    }
}

static inline void sim_boot(sim *s, uint32_t w, uint64_t delay) {
    sim_worker *x = &s->worker[w];
    uint32_t life = x->life + 1;
    *x = (sim_worker){.alive = true, .life = life, .slowness = sim_faulty(s, 20) ? 30 : 1};
    sim_post(s, delay, (sim_message){.kind = SIM_JOIN, .worker = w, .life = life});
    sim_post(s, delay + SIM_MS, (sim_message){.kind = SIM_HEARTBEAT, .worker = w, .life = life});
}

/* ---- faults ---- */

static inline void sim_start_core(sim *s) {
    coord_core_config config = {
        .heartbeats = true, .jobs_running_max = 2, .lease_floor_ns = 500 * SIM_MS};
    assert_int_equal(coord_core_create(&config, &s->core), COP_OK);
    for (uint32_t i = 1; i <= s->jobs; i++) {
        sim_job *j = &s->job[i];
        j->loaded = j->updating = false;
        if (j->ended) continue;
        j->loaded = j->info.kind == COORD_ENSEMBLE; /* which begins anew */
        memset(j->absorbed, 0, sizeof j->absorbed);
        coord_event e = {.type = COORD_EVENT_JOB_ADDED, .job = i, .info = j->info};
        sim_feed(s, &e);
    }
}

/* The coordinator dies: what is not in a checkpoint is lost, its workers must say HELLO again. */
static inline void sim_crash(sim *s) {
    coord_core_destroy(s->core);
    s->crash++;
    memset(s->held, 0, sizeof s->held);
    sim_start_core(s);
}

static inline void sim_kill(sim *s, uint32_t w) {
    sim_worker *x = &s->worker[w];
    if (!x->alive) return;
    x->alive = false;
    if (sim_below(s, 2)) { /* noticed at once; else by its silence */
        coord_event e = {.type = COORD_EVENT_WORKER_GONE, .worker = x->id};
        s->held[w].request = 0;
        sim_feed(s, &e);
    }
    sim_boot(s, w, sim_below(s, 4000 * SIM_MS));
}

static inline void sim_fault(sim *s) {
    uint32_t w = (uint32_t)sim_below(s, s->workers);
    uint64_t job = 1 + sim_below(s, s->jobs);
    coord_event e = {.type = COORD_EVENT_JOB_PAUSE, .job = job};
    switch (sim_below(s, 8)) {
    case 0:
    case 1:
    case 2:
        sim_kill(s, w);
        break;
    case 3:
    case 4:
        s->worker[w].frozen_until = s->now + sim_below(s, 6000 * SIM_MS);
        break;
    case 5:
        if (sim_below(s, 4) == 0) sim_crash(s);
        break;
    case 6:
        sim_feed(s, &e);
        e.type = COORD_EVENT_JOB_RESUME;
        sim_answer(s, sim_below(s, 500 * SIM_MS), e);
        break;
    default:
        e.type = COORD_EVENT_JOB_EVALUATE;
        sim_feed(s, &e);
        break;
    }
    if (s->now < s->faults_until)
        sim_post(s, sim_below(s, 200 * SIM_MS), (sim_message){.kind = SIM_FAULT});
}

/* ---- run ---- */

static inline void sim_dispatch(sim *s, sim_message *m) {
    switch (m->kind) {
    case SIM_TICK: {
        coord_event tick = {.type = COORD_EVENT_TICK};
        sim_feed(s, &tick);
        for (uint64_t i = 1; i <= s->jobs; i++) { /* nobody stays paused for ever */
            coord_event e = {.type = COORD_EVENT_JOB_RESUME, .job = i};
            if (s->now >= s->faults_until && s->job[i].paused) sim_feed(s, &e);
        }
        sim_post(s, 50 * SIM_MS, (sim_message){.kind = SIM_TICK});
        break;
    }
    case SIM_TO_CORE:
        if (m->crash == s->crash) sim_feed(s, &m->event);
        break;
    case SIM_PULL:
        sim_on_pull(s, m);
        break;
    case SIM_FAULT:
        sim_fault(s);
        break;
    default:
        sim_on_worker(s, m);
    }
}

static inline void sim_make_job(sim *s, uint64_t job) {
    sim_job *j = &s->job[job];
    j->info = (coord_job_info){.job = job,
                               .priority = (int32_t)sim_below(s, 2),
                               .shards = 1 + (uint32_t)sim_below(s, 9),
                               .steps = 6 + sim_below(s, 14),
                               .last_keep = true,
                               .evaluate_samples = (uint32_t)sim_below(s, 3) * 1500,
                               .evaluate_every = 1,
                               .checkpoint_every = 2 + sim_below(s, 6),
                               .state = COORD_QUEUED};
    j->info.batch = j->info.shards + (uint32_t)sim_below(s, 30);
    j->info.train_samples = j->info.batch * 3 + (uint32_t)sim_below(s, j->info.batch) + 1;
    j->info.steps_per_epoch = (j->info.train_samples + j->info.batch - 1) / j->info.batch;
    if (sim_below(s, 4) == 0) {
        j->info.kind = COORD_ENSEMBLE;
        j->info.evaluate_samples = 1 + (uint32_t)sim_below(s, SIM_SLICES * COP_EVAL_SLICE);
        j->info.members = 1 + (uint32_t)sim_below(s, 30);
        j->info.lease_members = 1 + (uint32_t)sim_below(s, 5);
        j->info.window = 1 + (uint32_t)sim_below(s, 8);
    }
    j->saved.weights = sim_mix(job, 1);
    for (uint32_t i = 0; i <= SIM_STEPS; i++) j->step_loss[i] = j->evaluated[i] = j->epoch[i] = -1;
}

static inline bool sim_has_all_members(const sim_job *j) {
    for (uint32_t at = 0; at < j->info.evaluate_samples; at += COP_EVAL_SLICE)
        if (j->absorbed[at / COP_EVAL_SLICE] != j->info.members) return false;
    return true;
}

/* The weights that a job must end with: a loop without any pool. Also checks the recorded losses.
 */
static inline uint64_t sim_expected(const sim_job *j) {
    uint64_t weights = sim_mix(j->info.job, 1);
    double sum = 0;
    for (uint64_t step = 1; step <= j->info.steps; step++) {
        uint64_t within = (step - 1) % j->info.steps_per_epoch * j->info.batch;
        uint64_t left = j->info.train_samples - within;
        uint32_t batch = left < j->info.batch ? (uint32_t)left : j->info.batch;
        uint32_t shards = j->info.shards, present = batch < shards ? batch : shards;
        double loss = 0;
        uint64_t g = sim_node(weights, step, 0, shards, present, &loss);
        weights = sim_mix(weights, sim_mix(g, batch));
        sum += loss;
        assert_true(j->step_loss[step] == loss);
        if (step % j->info.steps_per_epoch && step < j->info.steps) continue;
        assert_true(j->epoch[step] == sum);
        sum = 0;
        double evaluated = 0;
        for (uint32_t at = 0; at < j->info.evaluate_samples; at += COP_EVAL_SLICE)
            evaluated += sim_slice_loss(weights, at);
        if (j->info.evaluate_samples) assert_true(j->evaluated[step] == evaluated);
    }
    return weights;
}

/* Runs one seed to the end and compares. Returns how many leases were given. */
static inline uint32_t sim_run(uint64_t seed, bool faults, uint32_t *repeated) {
    sim *s = calloc(1, sizeof *s);
    s->queue = malloc(SIM_QUEUE * sizeof *s->queue);
    s->slot_value = malloc(SIM_SLOTS * sizeof *s->slot_value);
    s->slot_state = calloc(1, SIM_SLOTS);
    s->answered = calloc(1, SIM_SLOTS);
    s->random = seed * 0x2545f4914f6cdd1du + 1;
    s->now = 1000 * SIM_MS;
    s->workers = 1 + (uint32_t)sim_below(s, SIM_WORKERS);
    s->jobs = 1 + (uint32_t)sim_below(s, SIM_JOBS);
    s->faults = faults;
    s->faults_until = s->now + 20000 * SIM_MS;
    for (uint64_t i = 1; i <= s->jobs; i++) sim_make_job(s, i);
    sim_start_core(s);
    for (uint32_t w = 0; w < s->workers; w++) sim_boot(s, w, sim_below(s, 500 * SIM_MS));
    sim_post(s, 50 * SIM_MS, (sim_message){.kind = SIM_TICK});
    if (faults) sim_post(s, 20 * SIM_MS, (sim_message){.kind = SIM_FAULT});
    for (uint64_t guard = 0;; guard++) {
        bool ended = true;
        for (uint32_t i = 1; i <= s->jobs; i++) ended = ended && s->job[i].ended;
        if (ended) break;
        sim_message m = sim_take(s);
        s->now = m.time;
        if (guard > 2000000 || s->now > 3600000 * SIM_MS)
            fail_msg("seed %llu does not come to an end", (unsigned long long)seed);
        sim_dispatch(s, &m);
    }
    for (uint32_t i = 1; i <= s->jobs; i++) {
        const bool ensemble = s->job[i].info.kind == COORD_ENSEMBLE;
        if (ensemble && !sim_has_all_members(&s->job[i]))
            fail_msg("seed %llu: ensemble %u lacks members", (unsigned long long)seed, i);
        if (!ensemble && s->job[i].saved.weights != sim_expected(&s->job[i]))
            fail_msg("seed %llu: job %u has other weights", (unsigned long long)seed, i);
    }
    uint32_t leases = s->lease_count;
    if (repeated) *repeated += s->repeated;
    coord_core_destroy(s->core);
    coord_actions_fini(&s->actions);
    free(s->queue);
    free(s->slot_value);
    free(s->slot_state);
    free(s->answered);
    free(s);
    return leases;
}

#endif
