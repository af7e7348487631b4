/* Evaluations of ensembles alongside trainings (`sim --ensembles`). The store does not keep them,
 * so after a restart of the coordinator, or a failure, they are submitted again, as a client would.
 * The outputs of some members on a slice are modelled by a hash of the members' numbers in order.
 * So a member that is lost, absorbed twice or absorbed out of order changes it. */
#include "sim/sim.h"

#define AGAIN_NS SIM_SECOND /* time from a restart or failure to the next submission */

void sim_setup_ensembles(sim *s) {
    sim_stream dice = {.key = sim_mix(s->options.seed, 0xe5e3)};
    if (!s->options.ensembles) return;
    s->ensemble_count = 1 + (uint32_t)sim_below(&dice, SIM_ENSEMBLES_MAX);
    for (uint32_t i = 0; i < s->ensemble_count; i++) {
        COP_ASSERT(s->spec_count + i < SIM_SPECS_MAX);
        sim_spec *spec = &s->specs[s->spec_count + i];
        coord_job_info *info = &spec->info;
        info->kind = COORD_ENSEMBLE;
        info->evaluate_samples = 1 + (uint32_t)sim_below(&dice, SIM_SLICES * COP_EVAL_SLICE);
        info->members = 1 + (uint32_t)sim_below(&dice, 30);
        info->lease_members = 1 + (uint32_t)sim_below(&dice, 5);
        info->window = 1 + (uint32_t)sim_below(&dice, 8);
        info->each_version = sim_chance(&dice, 300);
        if (info->each_version) info->lease_members = 1;
        info->priority = (int32_t)sim_below(&dice, 3);
        info->state = COORD_QUEUED;
        spec->seed = sim_next(&dice);
        spec->shard_ns = SIM_MS << sim_below(&dice, 6);
        s->ensembles[i].begins_ns = sim_below(&dice, 20 * SIM_SECOND);
    }
}

static void submit_in(sim *s, uint32_t index, uint64_t delay) {
    sim_post(s, delay, (sim_event){.kind = SIM_ENSEMBLE, .life = s->host.life, .value = index});
}

void sim_ensembles_start(sim *s) {
    for (uint32_t i = 0; i < s->ensemble_count; i++) {
        s->ensembles[i].job = 0;
        if (!s->ensembles[i].done) submit_in(s, i, s->ensembles[i].begins_ns);
        s->ensembles[i].begins_ns = AGAIN_NS;
    }
}

void sim_ensemble_submit(sim *s, uint32_t index) {
    sim_ensemble *e = &s->ensembles[index];
    if (e->done || e->job || s->host.stopping) return;
    COP_ASSERT(s->ensemble_ids < SIM_IDS_MAX - s->host.next_job);
    e->job = SIM_IDS_MAX - s->ensemble_ids++; /* numbers of trainings count up, these down */
    memset(e->absorbed, 0, sizeof e->absorbed);
    s->host.resident[e->job] =
        (sim_resident){.loaded = true, .spec = s->spec_count + index, .pause_from = UINT64_MAX};
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = e->job};
    added.info = s->specs[s->spec_count + index].info;
    added.info.job = e->job;
    sim_dispatch(s, &added);
}

sim_ensemble *sim_ensemble_of(sim *s, uint64_t job) {
    for (uint32_t i = 0; i < s->ensemble_count; i++)
        if (job && s->ensembles[i].job == job) return &s->ensembles[i];
    return NULL;
}

bool sim_is_ensemble(const sim *s, uint64_t job) {
    return job && job <= SIM_IDS_MAX && s->host.resident[job].spec >= s->spec_count;
}

uint64_t sim_outputs(const sim_spec *spec, uint32_t first, uint32_t member, uint32_t members) {
    uint64_t sum = sim_mix(spec->seed, first / COP_EVAL_SLICE);
    for (uint32_t i = 0; i < members; i++) sum = sim_mix(sum, member + i);
    return sum;
}

void sim_absorb(sim *s, const coord_action *a) {
    sim_ensemble *e = sim_ensemble_of(s, a->job);
    const uint32_t slice = a->lease.first / COP_EVAL_SLICE;
    SIM_CHECK(s, "members-in-order", e && a->lease.member == e->absorbed[slice],
              "job %llu: members from %u of slice %u are absorbed after %u",
              (unsigned long long)a->job, a->lease.member, slice, e ? e->absorbed[slice] : 0);
    const sim_gradient *outputs = &s->host.slots[a->slot].gradient;
    const sim_spec *spec = &s->specs[s->host.resident[a->job].spec];
    SIM_CHECK(s, "members-in-order",
              outputs->sum == sim_outputs(spec, a->lease.first, a->lease.member, a->lease.members),
              "job %llu absorbs other outputs than those of members %u to %u",
              (unsigned long long)a->job, a->lease.member, a->lease.member + a->lease.members - 1);
    e->absorbed[slice] += a->lease.members;
    sim_slot_release(s, a->slot);
    coord_event *absorbed =
        sim_event_new(&(coord_event){.type = COORD_EVENT_ABSORBED, .job = a->job, .step = a->step});
    sim_post(s, 1 + sim_below(&s->dice, 3 * SIM_MS),
             (sim_event){.kind = SIM_TO_CORE, .life = s->host.life, .event = absorbed});
}

/* An ensemble that has ended is done if it is complete; otherwise it is submitted again soon. */
void sim_ensemble_ended(sim *s, const coord_action *a) {
    sim_ensemble *e = sim_ensemble_of(s, a->job);
    if (!e || a->state < COORD_COMPLETED) return;
    const coord_job_info *info = &s->specs[s->host.resident[a->job].spec].info;
    const uint32_t slices = (info->evaluate_samples + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    e->job = 0;
    e->done = a->state == COORD_COMPLETED;
    for (uint32_t i = 0; e->done && i < slices; i++)
        SIM_CHECK(s, "complete-is-complete", e->absorbed[i] == info->members,
                  "job %llu is complete with %u of %u members of slice %u",
                  (unsigned long long)a->job, e->absorbed[i], info->members, i);
    if (!e->done) submit_in(s, (uint32_t)(e - s->ensembles), AGAIN_NS);
}

bool sim_ensembles_done(const sim *s) {
    for (uint32_t i = 0; i < s->ensemble_count; i++)
        if (!s->ensembles[i].done) return false;
    return true;
}
