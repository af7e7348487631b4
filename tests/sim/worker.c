/* A worker's process around the real agent. It does what worker/host.c does with its two links
 * (work and control), heartbeats and computing. Faults kill it, freeze it or make it slow. After
 * its death it is started again, as by a supervisor. */
#include "sim/sim.h"

#include <math.h>

#define CALL_TIMEOUT_MS  (COP_HOLD_MAX_MS + 25000)
#define HELLO_TIMEOUT_MS 3000

static sim_event of(const sim *s, uint32_t w, sim_kind kind) {
    return (sim_event){.kind = kind, .peer = w, .life = s->workers[w].party.life};
}

static void drop_result(sim_worker *x) {
    x->has_result = false;
}

/* ---- the agent's actions ---- */

/* Returns how long a piece of work takes now. Without a fault it takes `cost` ns; a fault SLOW
 * makes it slower until the fault ends. */
static uint64_t slowed(const sim *s, uint32_t w, uint64_t cost) {
    uint32_t usual = s->workers[w].slowness, slow = sim_fault_on(s, SIM_SLOW, w, s->now);
    if (slow <= usual) return cost;
    uint64_t lasts = sim_fault_ends(s, SIM_SLOW, w) - s->now, whole = cost / usual * slow;
    return whole <= lasts ? whole : lasts + cost - lasts / slow * usual;
}

static void compute(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    const sim_lease *l = &x->lease;
    sim_spec *spec = &s->specs[l->spec];
    uint32_t count = l->evaluate ? 1 : l->count;
    uint64_t rounds = (count + x->threads - 1) / x->threads;
    uint64_t cost = rounds * (spec->shard_ns / 2 + sim_below(&x->compute, spec->shard_ns));
    cost = slowed(s, w, cost * x->slowness);
    const sim_session *session = sim_session_of(s, x->id);
    if (session && sim_fault_on(s, SIM_LAG, w, s->now) && session->deadline_ns > sim_host_now(s)) {
        const uint64_t late = (session->deadline_ns - sim_host_now(s)) / 100 * 93;
        if (late > cost) cost = late;
    }
    x->lease_now = l->lease;
    sim_event done = of(s, w, SIM_COMPUTED);
    done.value = l->lease;
    sim_post(s, cost, done);
    x->result.compute_ns = cost;
}

static void pull(sim *s, uint32_t w, bool goodbye) {
    sim_worker *x = &s->workers[w];
    sim_message m = {.type = SIM_PULL,
                     .link = SIM_WORK,
                     .worker = x->id,
                     .session = x->session,
                     .have_job = x->have_job,
                     .have_version = x->have_version,
                     .goodbye = goodbye,
                     .has_result = x->has_result,
                     .mangled = x->mangled,
                     .result = x->result,
                     .gradient = x->gradient};
    sim_call(s, w, &m, CALL_TIMEOUT_MS * SIM_MS);
}

/* The process exits, and its supervisor starts it again. */
static void end(sim *s, uint32_t w) {
    sim_trace(s, "worker %u ends", w);
    sim_worker_kill(s, w, true, SIM_SECOND + sim_below(&s->workers[w].compute, 4 * SIM_SECOND));
}

static void carry_out(sim *s, uint32_t w, const worker_action *a) {
    sim_worker *x = &s->workers[w];
    if (a->drop_result) {
        drop_result(x);
        x->have_job = x->have_version = 0;
    }
    switch (a->type) {
    case WORKER_ACTION_HELLO:
        sim_call(s, w, &(sim_message){.type = SIM_HELLO, .link = SIM_WORK},
                 HELLO_TIMEOUT_MS * SIM_MS);
        break;
    case WORKER_ACTION_PULL:
        pull(s, w, a->goodbye);
        break;
    case WORKER_ACTION_COMPUTE:
        compute(s, w);
        break;
    case WORKER_ACTION_WAIT: {
        sim_event waited = of(s, w, SIM_WAITED);
        waited.value = ++x->waits;
        x->waiting = true;
        sim_post(s, x->drain ? 0 : a->wait_ms * SIM_MS, waited);
        break;
    }
    case WORKER_ACTION_END:
        end(s, w);
        break;
    }
}

static void feed(sim *s, uint32_t w, worker_event event) {
    sim_worker *x = &s->workers[w];
    if (x->drain) worker_agent_drain(&x->agent);
    worker_action action = worker_agent_step(&x->agent, &event, s->now);
    s->result->agent_decisions++;
    sim_note_hash(s, ((uint64_t)event.type << 8) + (uint64_t)action.type);
    carry_out(s, w, &action);
}

static void feed_failed(sim *s, uint32_t w, cop_err error) {
    sim_worker *x = &s->workers[w];
    bool pulling = x->party.link[SIM_WORK].request.type == SIM_PULL;
    if (pulling && x->forgotten == x->serial)
        feed(s, w, (worker_event){.type = WORKER_EVENT_NOTHING, .unknown = true});
    else
        feed(s, w, (worker_event){.type = WORKER_EVENT_FAILED, .error = error});
}

/* ---- computing ---- */

static void compute_gradient(sim *s, sim_worker *x, coord_result_info *r) {
    const sim_lease *l = &x->lease;
    sim_spec *spec = &s->specs[l->spec];
    r->samples = sim_samples(spec, l->batch, l->first, l->count);
    x->gradient.sum = sim_block(spec, x->weights, l->step, l->first, l->count, x->fingerprint,
                                &r->loss, &r->correct);
    x->gradient.lie = 0;
    x->gradient.huge = x->gradient.poison = false;
    x->gradient.nan = sim_diverges(spec, l->step, l->first, x->weights);
    if (x->nan_gradients) {
        x->nan_gradients--;
        x->nans++;
        s->nan_faults++;
        x->gradient.nan = true;
    }
}

/* The worker sends a gradient of large finite values. Either the sum of the step's gradients
 * overflows, or the gradients of the next step do. */
static void lie_huge(sim *s, sim_worker *x) {
    x->gradient.sum ^= sim_next(&x->compute) | 1;
    x->gradient.huge = sim_chance(&x->compute, 500);
    x->gradient.poison = !x->gradient.huge;
    s->huge_lies++;
}

/* A liar's result is wrong in its gradient, loss or number of correctly classified samples. No two
 * liars send the same wrong result. */
static void lie(sim *s, uint32_t w, coord_result_info *r) {
    sim_worker *x = &s->workers[w];
    if (!sim_chance(&x->compute, sim_fault_on(s, SIM_LIE, w, s->now))) return;
    uint64_t kind = sim_below(&x->compute, 4);
    if (kind == 3 && !r->evaluate)
        lie_huge(s, x);
    else if (kind == 0 && !r->evaluate)
        x->gradient.sum ^= sim_next(&x->compute) | 1;
    else if (kind < 2 || r->samples <= w)
        r->loss += 0.25 * (1 + w);
    else
        r->correct = (r->correct + 1 + w) % (r->samples + 1);
    x->gradient.lie = w + 1;
    x->lies++;
    s->lies++;
}

/* Spoils one of the fields by which the result names its lease, each time another one. */
static void mangle(sim *s, uint32_t w, coord_result_info *r) {
    sim_worker *x = &s->workers[w];
    x->mangled = x->mangled_results > 0;
    if (!x->mangled) return;
    x->mangled_results--;
    switch (s->mangled_faults++ % 7) {
    case 0:
        r->count++;
        break;
    case 1:
        r->attempt++;
        break;
    case 2:
        r->step++;
        break;
    case 3:
        r->first = r->first ? r->first - 1 : 1;
        break;
    case 4:
        r->evaluate = !r->evaluate;
        break;
    case 5:
        r->job++;
        break;
    default:
        r->lease += 1000;
        break;
    }
    x->mangles++;
}

static void fill_result(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    const sim_lease *l = &x->lease;
    uint64_t cost = x->result.compute_ns;
    const uint32_t bits = sim_fault_on(s, SIM_CLAIM, w, s->now);
    if (bits) cost = 1ull << bits;
    coord_result_info r = {.lease = l->lease,
                           .job = l->job,
                           .step = l->step,
                           .compute_ns = cost,
                           .attempt = l->attempt,
                           .first = l->first,
                           .count = l->count,
                           .members = l->members,
                           .evaluate = l->evaluate,
                           .ensemble = l->ensemble,
                           .finite = true};
    if (l->ensemble) {
        r.samples = l->count;
        x->gradient =
            (sim_gradient){.sum = sim_outputs(&s->specs[l->spec], l->first, l->member, l->members)};
    } else if (l->evaluate) {
        r.samples = l->count;
        sim_slice(x->weights, l->first, l->count, &r.loss, &r.correct);
    } else {
        compute_gradient(s, x, &r);
    }
    lie(s, w, &r);
    if (x->nan_results) {
        x->nan_results--;
        x->nans++;
        s->nan_faults++;
        r.finite = false;
        r.loss = NAN;
    } else if (x->failed_results) {
        x->failed_results--;
        s->cannot_faults++;
        r.failed = true;
    }
    mangle(s, w, &r);
    x->result = r;
    x->has_result = true;
    x->results++;
}

static void on_lease(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->workers[w];
    x->lease = m->lease;
    if (m->lease.has_weights) x->weights = m->lease.weights;
    x->have_job = m->lease.job;
    x->have_version = m->lease.version + 1; /* + 1, because 0 means none */
    feed(s, w, (worker_event){.type = WORKER_EVENT_LEASE});
}

static void on_computed(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    fill_result(s, w);
    if (x->canceled == x->lease_now) drop_result(x); /* another worker's result came first */
    x->lease_now = 0;
    feed(s, w, (worker_event){.type = WORKER_EVENT_COMPUTED});
}

/* ---- the work link's answers ---- */

static void on_welcome(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->workers[w];
    x->id = m->worker;
    x->session = m->session;
    x->serial++;
    if (!x->party.link[SIM_CONTROL].calling)
        sim_post(s, 0, of(s, w, SIM_BEAT)); /* the heartbeats start */
    feed(s, w, (worker_event){.type = WORKER_EVENT_WELCOME});
}

static void on_work_answer(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->workers[w];
    if (m->type == SIM_FAILURE) {
        feed_failed(s, w, m->error);
        return;
    }
    if (m->type == SIM_WELCOME) {
        on_welcome(s, w, m);
        return;
    }
    drop_result(x); /* any reply to a PULL means that it arrived */
    if (m->type == SIM_LEASE) {
        on_lease(s, w, m);
        return;
    }
    COP_ASSERT(m->type == SIM_NOTHING);
    feed(s, w,
         (worker_event){.type = WORKER_EVENT_NOTHING,
                        .retry_ms = m->retry_ms,
                        .drain = m->drain,
                        .unknown = m->unknown});
}

/* ---- heartbeats ---- */

static void beat(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    sim_message m = {.type = SIM_HEARTBEAT,
                     .link = SIM_CONTROL,
                     .worker = x->id,
                     .session = x->session,
                     .lease_held = x->lease_now,
                     .draining = x->drain};
    sim_call(s, w, &m, COP_HEARTBEAT_MS * COP_HEARTBEATS_MISSED * SIM_MS);
}

static void on_beat(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    /* A call is in progress, or there is no session yet. */
    if (x->party.link[SIM_CONTROL].calling || !x->id) return;
    x->beating = x->serial;
    if (x->greeted == x->serial) {
        beat(s, w);
        return;
    }
    sim_message hello = {
        .type = SIM_HELLO_CONTROL, .link = SIM_CONTROL, .worker = x->id, .session = x->session};
    sim_call(s, w, &hello, HELLO_TIMEOUT_MS * SIM_MS);
}

static void signal_drain(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    if (x->drain) return;
    x->drain = true;
    sim_event waited = of(s, w, SIM_WAITED); /* ends a wait early */
    waited.value = x->waits;
    sim_post(s, 0, waited);
    if (!x->party.link[SIM_CONTROL].calling) sim_post(s, 0, of(s, w, SIM_BEAT));
}

static void apply_heartbeat_reply(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->workers[w];
    sim_link *work = &x->party.link[SIM_WORK];
    if (m->cancel_lease) x->canceled = m->cancel_lease;
    if (m->drain) signal_drain(s, w);
    if (!m->unknown) return;
    x->forgotten = x->beating;
    if (x->beating != x->serial || !work->calling) return;
    work->calling = false; /* a held call will not be answered: interrupt it */
    feed_failed(s, w, COP_ERR_CLOSED);
}

/* A call on the control link has ended. `m` is its reply; NULL: it failed. */
static void on_control_answer(sim *s, uint32_t w, const sim_message *m) {
    sim_worker *x = &s->workers[w];
    bool greeting = x->party.link[SIM_CONTROL].request.type == SIM_HELLO_CONTROL;
    if (greeting) {
        if (m && m->type == SIM_WELCOME) x->greeted = x->beating;
        beat(s, w);
        return;
    }
    sim_post(s, COP_HEARTBEAT_MS * SIM_MS, of(s, w, SIM_BEAT));
    if (m && m->type == SIM_HEARTBEAT_REPLY) apply_heartbeat_reply(s, w, m);
}

/* ---- life ---- */

void sim_worker_boot(sim *s, uint32_t w) {
    sim_worker *x = &s->workers[w];
    sim_worker fresh = {.party = x->party,
                        .compute = x->compute,
                        .fingerprint = x->fingerprint,
                        .slowness = x->slowness,
                        .threads = x->threads};
    fresh.lies = x->lies;
    fresh.nans = x->nans;
    fresh.mangles = x->mangles;
    fresh.results = x->results;
    fresh.party.alive = true;
    fresh.party.frozen_until = 0;
    *x = fresh;
    worker_agent_init(&x->agent, true, 0, sim_next(&x->compute), s->now);
    feed(s, w, (worker_event){.type = WORKER_EVENT_START});
}

void sim_worker_kill(sim *s, uint32_t w, bool noticed, uint64_t comes_back) {
    sim_worker *x = &s->workers[w];
    if (x->party.alive)
        for (int kind = 0; kind < SIM_LINKS; kind++) {
            x->party.link[kind].calling = false;
            sim_cut(s, w, (sim_link_kind)kind, noticed);
        }
    x->party.alive = false;
    x->party.life++;
    sim_post(s, comes_back, of(s, w, SIM_BOOT));
}

void sim_worker_drain(sim *s, uint32_t w) {
    if (s->workers[w].party.alive) signal_drain(s, w);
}

void sim_worker_on(sim *s, sim_event *e) {
    sim_worker *x = &s->workers[e->peer];
    if (x->party.life != e->life) return;
    if (e->kind == SIM_BOOT) {
        sim_worker_boot(s, e->peer);
        return;
    }
    if (!x->party.alive) return;
    switch (e->kind) {
    case SIM_SEND:
        sim_send(s, e->peer, e->link);
        break;
    case SIM_REPLY:
        if (!sim_call_ends(s, e)) break;
        if (e->link == SIM_WORK)
            on_work_answer(s, e->peer, e->message);
        else
            on_control_answer(s, e->peer, e->message);
        break;
    case SIM_LOST:
    case SIM_TIMEOUT:
        if (!sim_call_ends(s, e)) break;
        if (e->link == SIM_WORK)
            feed_failed(s, e->peer, e->kind == SIM_LOST ? COP_ERR_CLOSED : COP_ERR_TIMEOUT);
        else
            on_control_answer(s, e->peer, NULL);
        break;
    case SIM_COMPUTED:
        if (e->value == x->lease_now) on_computed(s, e->peer);
        break;
    case SIM_WAITED:
        if (e->value != x->waits || !x->waiting) break;
        x->waiting = false;
        feed(s, e->peer, (worker_event){.type = WORKER_EVENT_WAITED});
        break;
    case SIM_BEAT:
        on_beat(s, e->peer);
        break;
    default:
        COP_ASSERT(!"an event of a worker");
    }
}
