/* Clients, and how the coordinator handles their calls. Each client submits one job with a key of
 * its own, and repeats the submission until it is acknowledged. Then it makes its control requests
 * (pause, resume, cancel, evaluate), and repeats each until it is answered. The coordinator's side
 * does what coordinator/api/api_submit.c and coordinator/api/api_jobs.c do, with the real table of
 * keys (coordinator/core/recovery.h). */
#include "sim/sim.h"

#include "common/base/alloc.h"
#include "coordinator/core/recovery.h"

void sim_key_of(uint64_t key, unsigned char out[16]) {
    memset(out, 0x5a, COORD_KEY_SIZE);
    memcpy(out, &key, sizeof key);
}

/* ---- the client ---- */

static uint32_t identity_of(const sim *s, uint32_t client) {
    return s->worker_count + client;
}

static void ask_again(sim *s, uint32_t client, uint64_t delay) {
    sim_post(s, delay,
             (sim_event){.kind = SIM_CLIENT,
                         .peer = identity_of(s, client),
                         .life = s->clients[client].party.life});
}

static void ask(sim *s, uint32_t client) {
    sim_client *c = &s->clients[client];
    sim_message m = {.link = SIM_WORK, .spec = client, .job = c->job};
    if (c->party.link[SIM_WORK].calling) return;
    if (!c->acknowledged) {
        m.type = SIM_SUBMIT;
    } else if (c->request_count) {
        m.type = SIM_CONTROL_JOB;
        m.control = c->requests[0];
        sim_check_asked(s, c->job, m.control);
    } else {
        return;
    }
    sim_call(s, identity_of(s, client), &m, COP_CLIENT_TIMEOUT_MS * SIM_MS);
}

void sim_client_request(sim *s, uint32_t client, coord_event_type what) {
    sim_client *c = &s->clients[client];
    COP_ASSERT(c->request_count <
               sizeof c->requests / sizeof *c->requests); /* the array has more places than a run
                                                             has faults */
    c->requests[c->request_count++] = what;
    ask(s, client);
}

static void remove_request(sim *s, uint32_t client, bool ended) {
    sim_client *c = &s->clients[client];
    coord_event_type request = c->requests[0];
    memmove(c->requests, c->requests + 1, --c->request_count * sizeof *c->requests);
    sim_trace(s, "client %u: granted", client);
    if (!ended) sim_check_granted(s, c->job, request);
}

static void on_answer(sim *s, uint32_t client, const sim_message *m) {
    sim_client *c = &s->clients[client];
    bool submitting = !c->acknowledged;
    if (m->type == SIM_FAILURE && !submitting) {
        SIM_CHECK(s, "acknowledged-stays", m->error != COP_ERR_NOT_FOUND,
                  "job %llu was acknowledged and is not known", (unsigned long long)c->job);
        if (m->error == COP_ERR_INPUT) remove_request(s, client, true);
    } else if (m->type == SIM_ANSWER && submitting) {
        c->acknowledged = true;
        c->job = m->job;
        sim_trace(s, "client %u: job %llu is acknowledged", client, (unsigned long long)m->job);
        sim_check_acknowledged(s, client, m->job);
    } else if (m->type == SIM_ANSWER) {
        remove_request(s, client, false);
    }
    uint64_t wait = sim_heavy(&c->party.network, SIM_SECOND, 8 * SIM_SECOND);
    ask_again(s, client, m->type == SIM_FAILURE ? wait : 0);
}

void sim_client_on(sim *s, sim_event *e) {
    uint32_t client = e->peer - s->worker_count;
    sim_client *c = &s->clients[client];
    switch (e->kind) {
    case SIM_SEND:
        sim_send(s, e->peer, e->link);
        break;
    case SIM_REPLY:
        if (sim_call_ends(s, e)) on_answer(s, client, e->message);
        break;
    case SIM_LOST:
    case SIM_TIMEOUT:
        if (sim_call_ends(s, e))
            ask_again(s, client, sim_heavy(&c->party.network, 50 * SIM_MS, 2 * SIM_SECOND));
        break;
    case SIM_CLIENT:
        if (e->value) sim_client_request(s, client, (coord_event_type)e->value);
        ask(s, client);
        break;
    default:
        COP_ASSERT(!"an event of a client");
    }
}

/* ---- the coordinator's side ---- */

static void answer(sim *s, const sim_message *m, uint64_t job) {
    sim_reply(s, m, &(sim_message){.type = SIM_ANSWER, .job = job});
}

static void refuse(sim *s, const sim_message *m, cop_err error) {
    sim_reply(s, m, &(sim_message){.type = SIM_FAILURE, .error = error});
}

static void later(sim *s, uint64_t delay, const sim_message *m) {
    sim_post(s, delay,
             (sim_event){.kind = SIM_TASK, .life = s->host.life, .message = sim_message_new(m)});
}

static void submit(sim *s, sim_message *m) {
    unsigned char key[COORD_KEY_SIZE];
    sim_key_of(s->specs[m->spec].key, key);
    recovery_key *k = recovery_find(s->host.keys, key);
    if (k && !k->pending) {
        answer(s, m, k->job);
        return;
    }
    if (k) {
        /* the client no longer waits for the answer to the earlier repetition */
        cop_free((void *)(uintptr_t)k->repeat);
        k->repeat = (uint64_t)(uintptr_t)sim_message_new(m);
        return;
    }
    if (!recovery_claim(s->host.keys, key)) {
        refuse(s, m, COP_ERR_BUSY);
        return;
    }
    m->task = SIM_BUILT;
    later(s, SIM_MS + sim_heavy(&s->dice, SIM_MS, 200 * SIM_MS), m);
}

/* Ends a submission. Its request gets the answer, and so does the last repetition, if any. */
static void settle(sim *s, const sim_message *m) {
    unsigned char key[COORD_KEY_SIZE];
    sim_key_of(s->specs[m->spec].key, key);
    recovery_key *k = recovery_find(s->host.keys, key);
    COP_ASSERT(k != NULL);
    const sim_message *both[2] = {m, (const sim_message *)(uintptr_t)k->repeat};
    for (int i = 0; i < 2; i++) {
        if (!both[i]) continue;
        if (m->error)
            refuse(s, both[i], m->error);
        else
            answer(s, both[i], m->job);
    }
    cop_free((void *)(uintptr_t)k->repeat);
    recovery_set_job(k, m->error ? 0 : m->job);
}

static void built(sim *s, sim_message *m) {
    if (s->host.next_job >= SIM_IDS_MAX) {
        m->error = COP_ERR_LIMIT;
        settle(s, m);
        return;
    }
    m->job = ++s->host.next_job;
    m->task = SIM_COMMITTED;
    sim_write write = {.kind = SIM_ADD_JOB, .job = m->job};
    write.row = (sim_row){
        .exists = true, .spec = m->spec, .key = s->specs[m->spec].key, .state = COORD_QUEUED};
    write.done = sim_message_new(m);
    sim_store_write(s, &write);
}

static void committed(sim *s, const sim_message *m) {
    settle(s, m);
    if (m->error) return;
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = m->job};
    added.info = s->specs[m->spec].info;
    added.info.job = m->job;
    added.info.state = COORD_QUEUED;
    s->host.resident[m->job].spec = m->spec;
    s->jobs[m->job].state = COORD_QUEUED;
    sim_dispatch(s, &added);
}

/* Cancels, pauses or resumes a job, or evaluates it. The core is told at once. The client is
 * answered when the store has the new state; for an evaluation, which the store does not keep, at
 * once. */
static void control(sim *s, sim_message *m) {
    const sim_row *row = m->job <= SIM_IDS_MAX ? &s->store.rows[m->job] : NULL;
    if (!row || !row->exists) {
        refuse(s, m, COP_ERR_NOT_FOUND);
        return;
    }
    coord_job_state state = s->jobs[m->job].state;
    bool done = state == COORD_CANCELED && m->control == COORD_EVENT_JOB_CANCEL;
    if (state >= COORD_COMPLETED && !done) {
        refuse(s, m, COP_ERR_INPUT);
        return;
    }
    coord_event event = {.type = m->control, .job = m->job};
    if (!done) sim_dispatch(s, &event);
    if (m->control == COORD_EVENT_JOB_EVALUATE) { /* nothing to store */
        answer(s, m, m->job);
        return;
    }
    sim_write write = {.kind = SIM_SET_STATE, .job = m->job, .value = COORD_QUEUED};
    if (m->control == COORD_EVENT_JOB_CANCEL) write.value = COORD_CANCELED;
    if (m->control == COORD_EVENT_JOB_PAUSE) write.value = COORD_PAUSED;
    m->task = SIM_CONFIRMED;
    write.done = sim_message_new(m);
    sim_store_write(s, &write);
}

static void confirmed(sim *s, const sim_message *m) {
    if (m->error)
        refuse(s, m, m->error);
    else
        answer(s, m, m->job);
}

void sim_client_call(sim *s, sim_message *m) {
    if (m->type == SIM_SUBMIT)
        submit(s, m);
    else
        control(s, m);
}

void sim_client_task(sim *s, sim_message *m) {
    if (m->task == SIM_BUILT)
        built(s, m);
    else if (m->task == SIM_COMMITTED)
        committed(s, m);
    else
        confirmed(s, m);
}
