/* Carries out the core's actions: sends leases, keeps or drops gradients, starts updates and
 * checkpoints. Does what coordinator/server/actions.c and coordinator/engine/resident.c do, with
 * hashes for tensors. */
#include "sim/sim.h"

#include "common/base/alloc.h"

/* ---- slots of gradients ---- */

uint64_t sim_slot_offer(sim *s, const sim_message *m) {
    sim_host *h = &s->host;
    uint64_t slot = h->slot_free;
    if (slot) {
        h->slot_free = h->slots[slot].next_free;
    } else {
        slot = h->slot_count ? h->slot_count : 1; /* slot number 0 means "no slot" */
        h->slot_count = slot + 1;
        if (h->slot_count > h->slot_capacity) {
            h->slot_capacity = h->slot_capacity ? h->slot_capacity * 2 : 64;
            h->slots = cop_realloc(h->slots, h->slot_capacity * sizeof *h->slots);
            COP_ASSERT(h->slots != NULL);
        }
    }
    h->slots[slot] = (sim_slot){.state = SIM_OFFERED,
                                .gradient = m->gradient,
                                .job = m->result.job,
                                .step = m->result.step,
                                .first = m->result.first,
                                .count = m->result.count,
                                .evaluate = m->result.evaluate};
    return slot;
}

static sim_slot *slot_of(sim *s, uint64_t slot) {
    SIM_CHECK(s, "slots", slot && slot < s->host.slot_count, "slot %llu was never given",
              (unsigned long long)slot);
    return &s->host.slots[slot];
}

void sim_slot_release(sim *s, uint64_t slot) {
    sim_slot *x = slot_of(s, slot);
    SIM_CHECK(s, "slots", x->state != SIM_FREE, "slot %llu is released twice",
              (unsigned long long)slot);
    x->state = SIM_FREE;
    x->next_free = s->host.slot_free;
    s->host.slot_free = slot;
}

static void keep(sim *s, const coord_action *a) {
    sim_slot *x = slot_of(s, a->slot);
    SIM_CHECK(s, "slots", x->state == SIM_OFFERED, "slot %llu is kept twice",
              (unsigned long long)a->slot);
    x->state = SIM_KEPT;
}

/* ---- answers ---- */

/* Takes the held request that the action answers. NULL: its worker has gone or has sent a newer
 * request. The caller owns the request. */
static sim_message *take_request(sim *s, const coord_action *a) {
    sim_session *session = sim_session_of(s, a->worker);
    if (!session || !session->held || session->held->request != a->request) return NULL;
    sim_message *request = session->held;
    session->held = NULL;
    return request;
}

static void nothing(sim *s, const coord_action *a) {
    sim_message *request = take_request(s, a);
    if (!request) return;
    sim_message reply = {.type = SIM_NOTHING,
                         .retry_ms = a->nothing.retry_ms,
                         .drain = a->nothing.drain,
                         .unknown = a->nothing.unknown};
    sim_reply(s, request, &reply);
    cop_free(request);
}

static void lease(sim *s, const coord_action *a) {
    sim_message *request = take_request(s, a);
    if (!request) return;
    const sim_resident *r = &s->host.resident[a->job];
    sim_message reply = {.type = SIM_LEASE};
    reply.lease = (sim_lease){.lease = a->lease.lease,
                              .job = a->job,
                              .step = a->step,
                              .version = coord_weights_name(a),
                              .attempt = a->lease.attempt,
                              .first = a->lease.first,
                              .count = a->lease.count,
                              .batch = a->lease.batch,
                              .spec = r->spec,
                              .member = a->lease.member,
                              .members = a->lease.members,
                              .evaluate = a->lease.evaluate,
                              .ensemble = a->lease.ensemble};
    bool has_it = request->have_job == a->job && request->have_version == coord_weights_name(a) + 1;
    reply.lease.has_weights = !has_it;
    reply.lease.weights = has_it ? 0 : r->weights;
    s->result->leases++;
    s->result->repeated += a->lease.attempt > 1;
    sim_reply(s, request, &reply);
    cop_free(request);
}

static void disconnect(sim *s, const coord_action *a) {
    sim_session *session = sim_session_of(s, a->worker);
    if (!session) return;
    uint32_t peer = session->peer;
    uint64_t connection[SIM_LINKS] = {session->connection[0], session->connection[1]};
    sim_end_session(s, a->worker, false);
    for (int kind = 0; kind < SIM_LINKS; kind++)
        if (sim_party_of(s, peer)->link[kind].connection == connection[kind])
            sim_cut(s, peer, (sim_link_kind)kind, false);
}

/* ---- loading ---- */

static void load(sim *s, const coord_action *a) {
    sim_resident *r = &s->host.resident[a->job];
    SIM_CHECK(s, "host-contract", !r->loaded && !r->loading, "job %llu is loaded twice",
              (unsigned long long)a->job);
    r->loading = true;
    r->undone = r->best_lost = false;
    r->max_step = a->step;
    sim_post(s, SIM_MS + sim_heavy(&s->dice, SIM_MS, 2000 * SIM_MS),
             (sim_event){.kind = SIM_LOADED, .life = s->host.life, .value = a->job});
}

static void roll_back(sim *s, const coord_action *a) {
    sim_resident *r = &s->host.resident[a->job];
    SIM_CHECK(s, "host-contract", r->loaded && !r->updating,
              "job %llu goes back, but is not loaded or is being updated",
              (unsigned long long)a->job);
    sim_check_slots(s, a->job);
    r->loaded = false;
    load(s, a);
}

static void unload(sim *s, const coord_action *a) {
    sim_resident *r = &s->host.resident[a->job];
    SIM_CHECK(s, "host-contract", r->loaded, "job %llu is unloaded, but not loaded",
              (unsigned long long)a->job);
    r->loaded = false;
    r->unload_wanted = r->updating; /* during an update, its slots are released after the update */
    if (!r->updating) sim_check_slots(s, a->job);
}

/* ---- updating ---- */

static uint32_t left_of(uint32_t size) {
    uint32_t left = 1;
    while (left * 2 < size) left *= 2;
    return left;
}

/* Sums the gradients of shards `from` to `to - 1` in the order of the tree. *at is the index of the
 * next block of the update, and is advanced. */
static uint64_t sum_of(sim *s, const coord_action *a, uint32_t from, uint32_t to, uint32_t *at) {
    const coord_block *b = &a->update.blocks[*at];
    SIM_CHECK(s, "blocks-tile", *at < a->update.count && b->first == from,
              "step %llu: no block begins at shard %u", (unsigned long long)a->step, from);
    if (b->count == to - from) {
        (*at)++;
        return s->host.slots[b->slot].gradient.sum;
    }
    SIM_CHECK(s, "blocks-tile", to - from > 1, "step %llu: a block is larger than its node",
              (unsigned long long)a->step);
    uint32_t middle = from + left_of(to - from);
    uint64_t left = sum_of(s, a, from, middle, at);
    /* the batch is too small for the shards on the right */
    if (*at == a->update.count) return left;
    return sim_mix(left, sum_of(s, a, middle, to, at));
}

static const sim_gradient *gradient_of(const sim *s, const coord_action *a, uint32_t block) {
    return &s->host.slots[a->update.blocks[block].slot].gradient;
}

/* Fills in the event if the update's gradient is not finite. Names the first block that is not
 * finite or, if all blocks are finite and only their sum is not, the first block of all. */
static void find_bad_block(sim *s, const coord_action *a, coord_event *e) {
    sim_resident *r = &s->host.resident[a->job];
    for (uint32_t i = 0; i < a->update.count; i++)
        r->digests[i] = sim_digest(s, gradient_of(s, a, i));
    for (uint32_t i = a->update.count; i-- > 0;) {
        const sim_gradient *gradient = gradient_of(s, a, i);
        if (!gradient->nan && (!gradient->huge || !e->ok)) continue;
        e->ok = false;
        e->result.finite = !gradient->nan;
        e->result.first = a->update.blocks[gradient->nan ? i : 0].first;
        e->result.digest = r->digests[gradient->nan ? i : 0];
    }
    e->digests = e->result.finite ? r->digests : NULL;
}

static void apply(sim *s, const coord_action *a) {
    sim_resident *r = &s->host.resident[a->job];
    uint32_t at = 0;
    sim_note_applied(s, a);
    uint64_t sum = sum_of(s, a, 0, s->specs[r->spec].info.shards, &at);
    r->next_weights = r->weights;
    r->next_momentum = r->momentum;
    sim_apply(sum, a->update.batch, &r->next_weights, &r->next_momentum);
    for (uint32_t i = 0; i < a->update.count; i++)
        if (gradient_of(s, a, i)->poison) r->next_weights = SIM_POISONED;
}

static void update(sim *s, const coord_action *a) {
    sim_resident *r = &s->host.resident[a->job];
    coord_event e = {.type = COORD_EVENT_UPDATED, .job = a->job, .step = a->step, .ok = true};
    sim_check_update(s, a, r);
    if (!r->slots) r->slots = cop_alloc_array(COP_SHARDS_MAX, sizeof *r->slots);
    if (!r->digests) r->digests = cop_alloc_array(COP_SHARDS_MAX, sizeof *r->digests);
    COP_ASSERT(r->slots && r->digests);
    find_bad_block(s, a, &e);
    if (e.ok) apply(s, a);
    r->updating = true;
    r->update_count = a->update.count;
    for (uint32_t i = 0; i < a->update.count; i++) r->slots[i] = a->update.blocks[i].slot;
    sim_post(s, sim_heavy(&s->dice, SIM_MS, 300 * SIM_MS),
             (sim_event){.kind = SIM_UPDATED, .life = s->host.life, .event = sim_event_new(&e)});
}

void sim_updated(sim *s, const coord_event *e) {
    sim_resident *r = &s->host.resident[e->job];
    r->updating = false;
    if (e->ok || r->unload_wanted)
        for (uint32_t i = 0; i < r->update_count; i++) sim_slot_release(s, r->slots[i]);
    if (r->unload_wanted) {
        r->unload_wanted = false;
        sim_check_slots(s, e->job);
        return;
    }
    if (e->ok) {
        r->weights = r->next_weights;
        r->momentum = r->next_momentum;
        r->step = e->step;
        sim_check_version(s, e->job, r);
    }
    sim_dispatch(s, e);
}

/* ---- evidence ---- */

uint64_t sim_digest(const sim *s, const sim_gradient *gradient) {
    return sim_mix(sim_mix(s->options.seed, s->host.life), gradient->sum + gradient->nan) | 1;
}

/* The coordinator computes a block itself. In 3 of 1000 cases it takes 90 s longer, so that the
 * lease has expired. */
static void compute(sim *s, const coord_action *a) {
    const sim_resident *r = &s->host.resident[a->job];
    sim_spec *spec = &s->specs[r->spec];
    sim_message m = {.worker = COORD_SELF, .spec = r->spec};
    m.result = (coord_result_info){.lease = a->lease.lease,
                                   .job = a->job,
                                   .step = a->step,
                                   .compute_ns = spec->shard_ns,
                                   .attempt = a->lease.attempt,
                                   .first = a->lease.first,
                                   .count = a->lease.count,
                                   .members = a->lease.members,
                                   .evaluate = a->lease.evaluate,
                                   .ensemble = a->lease.ensemble,
                                   .finite = true};
    if (a->lease.ensemble) {
        m.result.samples = a->lease.count;
        m.gradient.sum = sim_outputs(spec, a->lease.first, a->lease.member, a->lease.members);
        m.result.digest = sim_digest(s, &m.gradient);
    } else if (a->lease.evaluate) {
        m.result.samples = a->lease.count;
        sim_slice(r->weights, a->lease.first, a->lease.count, &m.result.loss, &m.result.correct);
    } else {
        m.result.compute_ns *= a->lease.count;
        m.result.samples = sim_samples(spec, a->lease.batch, a->lease.first, a->lease.count);
        m.gradient.sum = sim_block(spec, r->weights, a->step, a->lease.first, a->lease.count,
                                   s->core_config.fingerprint, &m.result.loss, &m.result.correct);
        m.gradient.nan = sim_diverges(spec, a->step, a->lease.first, r->weights);
        m.result.finite = !m.gradient.nan;
        m.result.digest = sim_digest(s, &m.gradient);
    }
    uint64_t late = sim_chance(&s->dice, 3) ? 90 * SIM_SECOND : 0;
    sim_post(
        s, m.result.compute_ns + late,
        (sim_event){.kind = SIM_RECOMPUTED, .life = s->host.life, .message = sim_message_new(&m)});
}

void sim_recomputed(sim *s, const sim_message *m) {
    coord_event event = {.type = COORD_EVENT_RESULT,
                         .worker = COORD_SELF,
                         .job = m->result.job,
                         .step = m->result.step,
                         .result = m->result};
    event.result.slot = sim_slot_offer(s, m);
    sim_dispatch(s, &event);
    sim_check_answered(s, event.result.slot);
}

/* ---- the rest ---- */

static void store_state(sim *s, const coord_action *a) {
    if (sim_is_ensemble(s, a->job)) {
        sim_ensemble_ended(s, a);
        return;
    }
    sim_write write = {.kind = SIM_SET_STATE, .job = a->job, .value = a->state};
    sim_store_write(s, &write);
}

static void store_metrics(sim *s, const coord_action *a) {
    sim_write write = {.kind = SIM_ADD_STEP, .job = a->job, .value = a->step};
    if (a->type == COORD_ACTION_METRICS) sim_store_write(s, &write);
}

static void pinned(sim *s, const coord_action *a) {
    sim_write write = {.kind = SIM_SET_FINGERPRINT, .job = a->job, .value = a->fingerprint};
    if (a->fingerprint) sim_store_write(s, &write);
}

static void diverged(sim *s, const coord_action *a) {
    if (a->slot) sim_slot_release(s, a->slot);
    coord_event failed = {.type = COORD_EVENT_JOB_FAILED, .job = a->job, .step = a->step};
    failed.text = "training diverged";
    sim_dispatch(s, &failed);
}

void sim_carry_out(sim *s, const coord_action *a) {
    switch (a->type) {
    case COORD_ACTION_LEASE:
        lease(s, a);
        break;
    case COORD_ACTION_NOTHING:
        nothing(s, a);
        break;
    case COORD_ACTION_KEEP:
        keep(s, a);
        break;
    case COORD_ACTION_DROP:
        sim_slot_release(s, a->slot);
        break;
    case COORD_ACTION_LOAD:
        load(s, a);
        break;
    case COORD_ACTION_ROLLBACK:
        roll_back(s, a);
        break;
    case COORD_ACTION_COMPUTE:
        compute(s, a);
        break;
    case COORD_ACTION_UNLOAD:
        unload(s, a);
        break;
    case COORD_ACTION_UPDATE:
        update(s, a);
        break;
    case COORD_ACTION_METRICS:
    case COORD_ACTION_EPOCH:
    case COORD_ACTION_EVALUATED:
        store_metrics(s, a);
        break;
    case COORD_ACTION_CHECKPOINT:
        sim_saver_submit(s, a);
        break;
    case COORD_ACTION_ABSORB:
        sim_absorb(s, a);
        break;
    case COORD_ACTION_STATE:
        store_state(s, a);
        break;
    case COORD_ACTION_EVENT:
        pinned(s, a);
        break;
    case COORD_ACTION_DISCONNECT:
        disconnect(s, a);
        break;
    case COORD_ACTION_DIVERGED:
        diverged(s, a);
        break;
    case COORD_ACTION_STOPPED:
        s->host.stopped = true;
        break;
    }
}
