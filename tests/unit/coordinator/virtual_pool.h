/* A pool in virtual time around the decision core. Its workers have any speed, steady or not, and
 * are honest or not. Its host answers at once. It counts the steps done, the shards computed by
 * each worker, and the wrong results averaged. A gradient is a hash of weights, step and shard. The
 * sum of two gradients is a hash that neither commutes nor associates. The network never fails
 * here; the simulator in tests/sim has such faults. */
#ifndef TESTS_VIRTUAL_POOL_H
#define TESTS_VIRTUAL_POOL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/core.h"

#define VP_MS     1000000ull
#define VP_SECOND 1000000000ull
#define VP_JOBS   4

typedef struct vp_event {
    uint64_t time;   /* ns */
    uint64_t order;  /* at the same time, the event with the smaller number comes first */
    uint32_t worker; /* 0: the event is a tick */
    uint64_t lease;  /* number of the lease that the worker finishes; 0: the worker pulls */
} vp_event;

typedef struct vp_worker {
    uint64_t id;
    uint64_t shard_ns;   /* mean computing time of one shard */
    double jitter;       /* the time of a lease varies uniformly, by at most this fraction */
    uint64_t stall_ns;   /* added to the time of one lease in a hundred */
    uint64_t late_ns;    /* added to the time of each lease */
    double of_deadline;  /* > 0: each lease takes this fraction of the time until its deadline */
    double claim;        /* > 0: it claims this many times its computing time */
    uint64_t longest_ns; /* the longest time from one of its leases to the deadline */
    bool alive;
    bool idle; /* its PULL is not answered with a lease yet */
    coord_action lease;
    uint64_t weights;        /* weights of the lease's version */
    uint64_t has_job;        /* number of the job whose weights the worker has */
    uint64_t has_weights;    /* name of the weights that it has */
    uint64_t shards, leases; /* number of computed shards, or samples, and of leases */
    uint64_t wrong;          /* number of wrong results */
    uint64_t idle_since_ns;  /* when it pulled last */
    uint64_t idle_ns;        /* time that it was idle, in total */
    double lie;              /* probability that a result is wrong */
    bool lies_in_loss;       /* wrong results have a wrong loss and a wrong gradient */
    bool not_finite;         /* wrong results say that they are not finite */
    bool lies_in_count;      /* wrong results have only a wrong number of correct samples */
    uint64_t lies_huge;      /* the gradient of its wrong results, VP_HUGE or VP_POISON; 0: any
                                other wrong gradient */
    uint64_t wrong_since;    /* shards computed since its first wrong result */
} vp_worker;

/* Finite gradients that do damage. Every sum with VP_HUGE is not finite. An update with VP_POISON
 * gives the weights VP_POISONED, whose gradients are not finite. */
#define VP_HUGE     0xfffffffffffffff0u
#define VP_POISON   0xfffffffffffffff2u
#define VP_POISONED 0xfffffffffffffff4u

#define VP_SAVED 64

typedef struct vp_saved {
    uint64_t step, weights;
} vp_saved;

typedef struct vp_job {
    coord_job_info info;
    uint64_t step, weights;
    uint64_t updates;         /* number of updates, those that were undone included */
    uint64_t wrong_averaged;  /* number of wrong gradients that were averaged */
    uint64_t rolled_to;       /* the step at which it was loaded last */
    double evaluated;         /* loss of the newest evaluation */
    vp_saved saved[VP_SAVED]; /* the newest checkpoints */
    uint32_t saves;           /* length of `saved` */
    bool ended;
    uint64_t state_step; /* the step at which `state` was reported */
    coord_job_state state;
} vp_job;

#define VP_NAMES 1024

/* Weights that were leased, and their name. */
typedef struct vp_named {
    uint64_t job, name, weights;
} vp_named;

typedef struct virtual_pool {
    coord_core *core;
    coord_actions actions;
    uint64_t now;         /* virtual time, ns */
    uint64_t order;       /* number of the event posted last */
    uint64_t random;      /* state of vp_random */
    uint64_t requests;    /* number of the last PULL */
    uint64_t network_ns;  /* time of a message, in each direction */
    const char *identity; /* identity with which workers join; NULL: their own names */
    vp_worker *worker;    /* the index is the worker's number; [0] is unused */
    uint32_t workers;     /* number of workers */
    vp_event *queue;
    uint32_t queued, queue_capacity;
    uint64_t *slot; /* the gradient in each slot; [0] is unused */
    uint32_t slots; /* number of slots */
    vp_job job[VP_JOBS + 1];
    vp_named named[VP_NAMES];         /* the newest weights for each hash of job and name */
    uint64_t core_steps;              /* number of events that the core has taken */
    uint64_t recomputed;              /* leases that the coordinator has computed itself */
    bool diverges;                    /* no gradient is finite, on any worker */
    uint64_t diverges_at;             /* in this step, no gradient is finite, on any worker */
    uint64_t overflows_at;            /* in this step, the sum of the gradients is not finite */
    uint64_t digests[COP_SHARDS_MAX]; /* hashes of an update's gradients whose sum is not finite */
    char warnings[16384];             /* texts of all warnings, one per line */
} virtual_pool;

/* ---- arithmetic ---- */

static inline uint64_t vp_mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + b;
    x = (x ^ (x >> 29)) * 0x94d049bb133111ebu;
    return x ^ (x >> 32);
}

static inline uint64_t vp_random(virtual_pool *p) {
    p->random += 0x9e3779b97f4a7c15u;
    return vp_mix(p->random, p->random >> 7);
}

static inline double vp_real(virtual_pool *p) {
    return (double)(vp_random(p) >> 11) * 0x1p-53;
}

/* The gradient sum of shards a to b - 1, a node of the tree. */
static inline uint64_t vp_node(uint64_t weights, uint64_t step, uint32_t a, uint32_t b) {
    if (b - a == 1) return vp_mix(vp_mix(weights, step), a);
    uint32_t left = 1;
    while (left * 2 < b - a) left *= 2;
    return vp_mix(vp_node(weights, step, a, a + left), vp_node(weights, step, a + left, b));
}

/* ---- time ---- */

static inline bool vp_sooner(const vp_event *a, const vp_event *b) {
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static inline void vp_post(virtual_pool *p, uint64_t delay, uint32_t worker, uint64_t lease) {
    if (p->queued == p->queue_capacity) {
        p->queue_capacity = p->queue_capacity ? p->queue_capacity * 2 : 1024;
        p->queue = realloc(p->queue, p->queue_capacity * sizeof *p->queue);
        assert_non_null(p->queue);
    }
    vp_event e = {p->now + delay, ++p->order, worker, lease};
    uint32_t at = p->queued++;
    for (; at && vp_sooner(&e, &p->queue[(at - 1) / 2]); at = (at - 1) / 2)
        p->queue[at] = p->queue[(at - 1) / 2];
    p->queue[at] = e;
}

static inline vp_event vp_take(virtual_pool *p) {
    vp_event first = p->queue[0], last = p->queue[--p->queued];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= p->queued) break;
        if (child + 1 < p->queued && vp_sooner(&p->queue[child + 1], &p->queue[child])) child++;
        if (!vp_sooner(&p->queue[child], &last)) break;
        p->queue[at] = p->queue[child];
        at = child;
    }
    p->queue[at] = last;
    return first;
}

/* ---- host ---- */

static inline void vp_feed(virtual_pool *p, coord_event e);

/* Puts a gradient into a new slot, and returns the slot's number. */
static inline uint64_t vp_keep(virtual_pool *p, uint64_t value) {
    if ((p->slots & (p->slots + 1)) == 0) { /* all 2^n - 1 slots are in use */
        p->slot = realloc(p->slot, (size_t)(p->slots + 1) * 2 * sizeof *p->slot);
        assert_non_null(p->slot);
    }
    p->slot[++p->slots] = value;
    return p->slots;
}

/* Checks that a name always means the same weights. A worker that has weights of this name is not
 * sent the weights again. */
static inline void vp_check_name(virtual_pool *p, const coord_action *a, uint64_t weights) {
    uint64_t name = coord_weights_name(a);
    vp_named *n = &p->named[(name + a->job) % VP_NAMES];
    if (n->job == a->job && n->name == name) assert_true(n->weights == weights);
    *n = (vp_named){a->job, name, weights};
}

static inline void vp_lease(virtual_pool *p, const coord_action *a) {
    vp_worker *w = &p->worker[a->worker];
    const vp_job *j = &p->job[a->job];
    uint64_t per_shard = w->shard_ns;
    if (w->jitter > 0)
        per_shard = (uint64_t)((double)per_shard * (1 + w->jitter * (2 * vp_real(p) - 1)));
    uint64_t time = per_shard * (a->lease.evaluate ? 8 : a->lease.count);
    if (w->stall_ns && vp_random(p) % 100 == 0) time += w->stall_ns;
    uint64_t given = a->lease.deadline_ns - p->now;
    if (given > w->longest_ns) w->longest_ns = given;
    if (w->of_deadline > 0) time = (uint64_t)((double)given * w->of_deadline);
    time += w->late_ns;
    w->lease = *a;
    vp_check_name(p, a, j->weights);
    if (w->has_job != a->job || w->has_weights != coord_weights_name(a)) w->weights = j->weights;
    w->has_job = a->job;
    w->has_weights = coord_weights_name(a);
    w->leases++;
    w->idle = false;
    w->idle_ns += p->now - w->idle_since_ns;
    vp_post(p, 2 * p->network_ns + time, (uint32_t)a->worker, a->lease.lease);
}

/* Returns whether the sum of the gradients is finite; if not, reports it to the core. */
static inline bool vp_sum_is_finite(virtual_pool *p, const coord_action *a) {
    coord_event e = {.type = COORD_EVENT_UPDATED, .job = a->job, .step = a->step};
    bool finite = a->step != p->overflows_at;
    for (uint32_t i = 0; i < a->update.count; i++) {
        const uint64_t value = p->slot[a->update.blocks[i].slot];
        p->digests[i] = value | 1;
        finite = finite && value != VP_HUGE;
    }
    if (finite) return true;
    e.result.finite = true;
    e.result.first = a->update.blocks[0].first;
    e.result.digest = p->digests[0];
    e.digests = p->digests;
    vp_feed(p, e);
    return false;
}

static inline bool vp_is_poisoned(const virtual_pool *p, const coord_action *a) {
    bool poisoned = false;
    for (uint32_t i = 0; i < a->update.count; i++)
        poisoned = poisoned || p->slot[a->update.blocks[i].slot] == VP_POISON;
    return poisoned;
}

static inline void vp_update(virtual_pool *p, const coord_action *a) {
    vp_job *j = &p->job[a->job];
    uint64_t sum = 0;
    assert_int_equal(a->step, j->step + 1);
    if (!vp_sum_is_finite(p, a)) return;
    for (uint32_t i = 0; i < a->update.count; i++) {
        const coord_block *b = &a->update.blocks[i];
        uint64_t truth = vp_node(j->weights, a->step, b->first, b->first + b->count);
        j->wrong_averaged += p->slot[b->slot] != truth;
        sum = vp_mix(sum, p->slot[b->slot]);
    }
    /* If no gradient is wrong, the weights must not depend on the partition, so the whole tree is
     * summed anew. */
    bool clean = true;
    for (uint32_t i = 0; i < a->update.count; i++) {
        const coord_block *b = &a->update.blocks[i];
        clean = clean &&
                p->slot[b->slot] == vp_node(j->weights, a->step, b->first, b->first + b->count);
    }
    if (clean) sum = vp_node(j->weights, a->step, 0, j->info.shards);
    j->weights = vp_is_poisoned(p, a) ? VP_POISONED : vp_mix(j->weights, sum);
    j->step = a->step;
    j->updates++;
    vp_feed(p,
            (coord_event){.type = COORD_EVENT_UPDATED, .job = a->job, .step = a->step, .ok = true});
}

/* Loads the newest checkpoint that is not after the action's step, or else the first weights. */
static inline void vp_load(virtual_pool *p, const coord_action *a) {
    vp_job *j = &p->job[a->job];
    while (j->saves && j->saved[j->saves - 1].step > a->step) j->saves--;
    j->step = j->saves ? j->saved[j->saves - 1].step : 0;
    j->weights = j->saves ? j->saved[j->saves - 1].weights : vp_mix(a->job, 1);
    j->rolled_to = j->step;
    vp_feed(p, (coord_event){
                   .type = COORD_EVENT_JOB_LOADED, .job = a->job, .loaded = {.step = j->step}});
}

static inline void vp_save(virtual_pool *p, const coord_action *a) {
    vp_job *j = &p->job[a->job];
    if (j->saves == VP_SAVED) memmove(j->saved, j->saved + 1, --j->saves * sizeof *j->saved);
    j->saved[j->saves++] = (vp_saved){j->step, j->weights};
    assert_int_equal(a->step, j->step);
    vp_feed(p, (coord_event){
                   .type = COORD_EVENT_CHECKPOINTED, .job = a->job, .step = a->step, .ok = true});
}

static inline void vp_compute(virtual_pool *p, const coord_action *a);

static inline void vp_carry_out(virtual_pool *p, const coord_action *a) {
    switch (a->type) {
    case COORD_ACTION_ROLLBACK:
        vp_load(p, a);
        break;
    case COORD_ACTION_COMPUTE:
        vp_compute(p, a);
        break;
    case COORD_ACTION_DIVERGED:
        vp_feed(p,
                (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = a->job, .text = "diverged"});
        break;
    case COORD_ACTION_EVALUATED:
        p->job[a->job].evaluated = a->metrics.loss_sum;
        break;
    case COORD_ACTION_EVENT:
        if (!a->ok && strlen(p->warnings) + 300 < sizeof p->warnings) {
            strcat(p->warnings, a->text);
            strcat(p->warnings, "\n");
        }
        break;
    case COORD_ACTION_LEASE:
        vp_lease(p, a);
        break;
    case COORD_ACTION_NOTHING:
        vp_post(p, a->nothing.retry_ms * VP_MS + 1, (uint32_t)a->worker, 0);
        break;
    case COORD_ACTION_LOAD:
        vp_load(p, a);
        break;
    case COORD_ACTION_UPDATE:
        vp_update(p, a);
        break;
    case COORD_ACTION_CHECKPOINT:
        vp_save(p, a);
        break;
    case COORD_ACTION_STATE:
        p->job[a->job].state = a->state;
        p->job[a->job].state_step = a->step;
        p->job[a->job].ended = a->state >= COORD_COMPLETED;
        break;
    default:
        break;
    }
}

static inline void vp_feed(virtual_pool *p, coord_event e) {
    p->core_steps++;
    assert_int_equal(coord_core_step(p->core, &e, p->now, &p->actions), COP_OK);
    /* Copies the actions before carrying them out, because the next event reuses their memory. */
    uint32_t count = p->actions.count;
    coord_action *copy = malloc((count + 1) * sizeof *copy);
    char(*texts)[COORD_TEXT_MAX] = malloc((p->actions.text_count + 1) * sizeof *texts);
    coord_block blocks[COP_SHARDS_MAX];
    assert_true(copy && texts);
    memcpy(copy, p->actions.items, count * sizeof *copy);
    memcpy(texts, p->actions.texts, p->actions.text_count * sizeof *texts);
    for (uint32_t i = 0, text = 0; i < count; i++) {
        if (copy[i].type == COORD_ACTION_STATE || copy[i].type == COORD_ACTION_EVENT)
            copy[i].text = texts[text++];
        if (copy[i].type == COORD_ACTION_UPDATE) {
            memcpy(blocks, copy[i].update.blocks, copy[i].update.count * sizeof *blocks);
            copy[i].update.blocks = blocks;
        }
        vp_carry_out(p, &copy[i]);
    }
    free(copy);
    free(texts);
}

/* ---- workers ---- */

static inline void vp_pull(virtual_pool *p, uint32_t worker) {
    vp_worker *w = &p->worker[worker];
    coord_event e = {.type = COORD_EVENT_PULL, .worker = w->id};
    e.pull.request = ++p->requests;
    w->idle = true;
    w->idle_since_ns = p->now;
    vp_feed(p, e);
}

/* The correct result of a lease; *value is the gradient. */
static inline coord_event vp_result(virtual_pool *p, const coord_action *a, uint64_t weights,
                                    uint64_t *value) {
    uint32_t first = a->lease.first, count = a->lease.count, shards = p->job[a->job].info.shards;
    coord_event e = {.type = COORD_EVENT_RESULT, .job = a->job, .step = a->step};
    *value = vp_node(weights, a->step, first, first + (a->lease.evaluate ? 1 : count));
    e.result = (coord_result_info){.lease = a->lease.lease,
                                   .job = a->job,
                                   .step = a->step,
                                   .attempt = a->lease.attempt,
                                   .first = first,
                                   .count = count,
                                   .evaluate = a->lease.evaluate,
                                   .finite = !p->diverges && weights != VP_POISONED &&
                                             (a->step != p->diverges_at || a->lease.evaluate),
                                   .loss = (double)(*value >> 40)};
    e.result.samples = a->lease.evaluate ? count : (uint64_t)count * (a->lease.batch / shards);
    e.result.correct = e.result.samples / 2;
    return e;
}

static inline void vp_compute(virtual_pool *p, const coord_action *a) {
    uint64_t value;
    coord_event e = vp_result(p, a, p->job[a->job].weights, &value);
    e.worker = COORD_SELF;
    e.result.digest = a->lease.evaluate ? 0 : value | 1;
    e.result.slot = vp_keep(p, value);
    p->recomputed++;
    vp_feed(p, e);
}

static inline void vp_lie(vp_worker *w, coord_event *e, uint64_t *value) {
    if (w->lies_in_count) {
        e->result.correct++;
        w->wrong++;
        return;
    }
    if (w->lies_huge) {
        *value = w->lies_huge;
        w->wrong++;
        return;
    }
    if (w->not_finite)
        e->result.finite = false;
    else if (w->lies_in_loss)
        e->result.loss += 1;
    else if (e->result.evaluate)
        e->result.correct++;
    *value += 2; /* also changes a bit of the digest */
    w->wrong++;
}

static inline void vp_done(virtual_pool *p, uint32_t worker) {
    vp_worker *w = &p->worker[worker];
    const coord_action *a = &w->lease;
    uint64_t value;
    coord_event e = vp_result(p, a, w->weights, &value);
    e.worker = w->id;
    e.result.compute_ns = w->shard_ns * a->lease.count;
    if (w->claim > 0) e.result.compute_ns = (uint64_t)((double)e.result.compute_ns * w->claim);
    if (w->lie > 0 && vp_real(p) < w->lie) vp_lie(w, &e, &value);
    if (w->wrong) w->wrong_since += a->lease.evaluate ? 0 : a->lease.count;
    e.result.slot = vp_keep(p, value);
    if (coord_core_wants_digest(p->core, e.worker, &e.result)) e.result.digest = value | 1;
    w->shards += a->lease.count;
    vp_feed(p, e);
    if (w->alive) vp_pull(p, worker);
}

static inline void vp_join(virtual_pool *p, uint32_t worker, uint32_t threads) {
    char name[16];
    snprintf(name, sizeof name, "w%u", worker);
    coord_event e = {.type = COORD_EVENT_WORKER_JOINED, .worker = worker};
    e.joined.name = name;
    e.joined.identity = p->identity;
    e.joined.threads = threads;
    e.joined.fingerprint = 7;
    p->worker[worker].alive = true;
    p->worker[worker].id = worker;
    vp_feed(p, e);
    vp_pull(p, worker);
}

/* ---- life ---- */

static inline virtual_pool *vp_create(coord_core_config config, uint32_t workers, uint64_t seed) {
    virtual_pool *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->worker = calloc(workers + 1, sizeof *p->worker);
    p->workers = workers;
    p->random = seed * 0x2545f4914f6cdd1du + 1;
    p->now = VP_SECOND;
    p->network_ns = VP_MS / 20;
    for (uint32_t w = 1; w <= workers; w++) p->worker[w].shard_ns = VP_MS;
    assert_int_equal(coord_core_create(&config, &p->core), COP_OK);
    vp_post(p, 50 * VP_MS, 0, 0);
    return p;
}

static inline void vp_destroy(virtual_pool *p) {
    coord_core_destroy(p->core);
    coord_actions_fini(&p->actions);
    free(p->queue);
    free(p->slot);
    free(p->worker);
    free(p);
}

/* A job with 4 samples per shard and 10 steps per epoch, without evaluations. */
static inline coord_job_info vp_info(uint64_t job, uint32_t shards, uint64_t steps) {
    return (coord_job_info){.job = job,
                            .batch = 4 * shards,
                            .shards = shards,
                            .train_samples = 40 * shards,
                            .steps = steps,
                            .steps_per_epoch = 10,
                            .last_keep = true,
                            .state = COORD_QUEUED};
}

static inline void vp_add(virtual_pool *p, coord_job_info info) {
    p->job[info.job].info = info;
    p->job[info.job].weights = vp_mix(info.job, 1);
    vp_feed(p, (coord_event){.type = COORD_EVENT_JOB_ADDED, .job = info.job, .info = info});
}

/* The expected weights of the job after `steps` steps. */
static inline uint64_t vp_expected_weights(const coord_job_info *info, uint64_t steps) {
    uint64_t weights = vp_mix(info->job, 1);
    for (uint64_t step = 1; step <= steps; step++)
        weights = vp_mix(weights, vp_node(weights, step, 0, info->shards));
    return weights;
}

/* Runs the next event. */
static inline void vp_advance(virtual_pool *p) {
    vp_event e = vp_take(p);
    p->now = e.time;
    if (!e.worker) {
        vp_feed(p, (coord_event){.type = COORD_EVENT_TICK});
        vp_post(p, 50 * VP_MS, 0, 0);
    } else if (!p->worker[e.worker].alive) {
        return;
    } else if (!e.lease) {
        vp_pull(p, e.worker);
    } else if (e.lease == p->worker[e.worker].lease.lease.lease) {
        vp_done(p, e.worker);
    }
}

/* Runs until job 1 has ended, or has the weights of `step`. */
static inline void vp_run(virtual_pool *p, uint64_t step) {
    for (uint64_t guard = 0; !p->job[1].ended && p->job[1].step < step; guard++) {
        if (guard > 50000000) fail_msg("job 1 does not reach step %llu", (unsigned long long)step);
        vp_advance(p);
    }
}

/* Runs until job 1 has ended. */
static inline void vp_run_all(virtual_pool *p) {
    for (uint64_t guard = 0; !p->job[1].ended; guard++) {
        if (guard > 20000000) fail_msg("job 1 does not end");
        vp_advance(p);
    }
}

static inline bool vp_quarantined(const virtual_pool *p, uint32_t worker) {
    coord_worker_view view;
    return coord_core_worker(p->core, worker, &view) && view.quarantined;
}

static inline coord_job_view vp_view(const virtual_pool *p, uint64_t job) {
    coord_job_view view = {0};
    coord_core_job(p->core, job, p->now, &view);
    return view;
}

#endif
