/* The coordinator's process around the real core. It handles sessions as
 * coordinator/server/sessions.c does, gives the core one event after another as
 * coordinator/engine/loop.c does, and takes up stored jobs as coordinator/api/api_recover.c does.
 * This file turns messages into events; actions.c carries out the core's actions. */
#include "sim/sim.h"

#include "common/base/alloc.h"
#include "coordinator/core/recovery.h"

#define TICK_MS 50

uint64_t sim_host_now(const sim *s) {
    return s->now + s->host.clock_ahead;
}

/* ---- events ---- */

static void grow(void **array, uint32_t *capacity, uint32_t count, size_t size) {
    if (count <= *capacity) return;
    *capacity = *capacity ? *capacity * 2 : 64;
    *array = cop_realloc(*array, *capacity * size);
    COP_ASSERT(*array != NULL);
}

void sim_dispatch(sim *s, const coord_event *event) {
    sim_host *h = &s->host;
    grow((void **)&h->queue, &h->queue_capacity, h->queue_count + 1, sizeof *h->queue);
    h->queue[h->queue_count++] = *event;
    if (h->dispatching) return;
    h->dispatching = true;
    for (uint32_t i = 0; i < h->queue_count && h->up; i++) {
        coord_event now = h->queue[i];
        sim_check_before(s, &now);
        sim_memory_count(true);
        cop_err e = coord_core_step(h->core, &now, sim_host_now(s), &h->actions);
        sim_memory_count(false);
        s->result->decisions++;
        SIM_CHECK(s, "events-are-taken", !e || e == COP_ERR_LIMIT, "event %d: %s", (int)now.type,
                  cop_err_text(e));
        for (uint32_t a = 0; a < h->actions.count && h->up; a++) {
            sim_trace_action(s, &h->actions.items[a]);
            sim_check_action(s, &h->actions.items[a]);
            sim_carry_out(s, &h->actions.items[a]);
        }
        sim_check_after(s, &now);
    }
    h->queue_count = 0;
    h->dispatching = false;
}

/* ---- sessions ---- */

sim_session *sim_session_of(sim *s, uint64_t worker) {
    sim_host *h = &s->host;
    if (!worker || worker > h->session_count || !h->sessions[worker - 1].live) return NULL;
    return &h->sessions[worker - 1];
}

static sim_session *session_of_message(sim *s, const sim_message *m) {
    sim_session *session = sim_session_of(s, m->worker);
    return session && session->secret == m->session ? session : NULL;
}

static void answer_nothing(sim *s, const sim_message *m, bool drain, bool unknown) {
    sim_reply(s, m, &(sim_message){.type = SIM_NOTHING, .drain = drain, .unknown = unknown});
}

void sim_end_session(sim *s, uint64_t worker, bool notify_core) {
    sim_session *session = sim_session_of(s, worker);
    cop_free(session->held);
    session->held = NULL;
    session->digesting = 0;
    session->live = false;
    coord_event gone = {.type = COORD_EVENT_WORKER_GONE, .worker = worker};
    if (notify_core) sim_dispatch(s, &gone);
}

static void on_hello(sim *s, const sim_message *m) {
    sim_host *h = &s->host;
    const sim_worker *x = &s->workers[m->peer];
    char name[32];
    if (h->stopping) {
        sim_reply(s, m, &(sim_message){.type = SIM_FAILURE, .error = COP_ERR_LIMIT});
        return;
    }
    grow((void **)&h->sessions, &h->session_capacity, h->session_count + 1, sizeof *h->sessions);
    uint64_t worker = ++h->session_count;
    sim_session *session = &h->sessions[worker - 1];
    *session = (sim_session){.secret = sim_next(&s->dice), .live = true, .peer = m->peer};
    session->connection[SIM_WORK] = m->connection;
    coord_event joined = {.type = COORD_EVENT_WORKER_JOINED, .worker = worker};
    snprintf(name, sizeof name, "w%u", m->peer);
    joined.joined.name = name;
    joined.joined.threads = x->threads;
    joined.joined.fingerprint = x->fingerprint;
    joined.joined.ensembles = true;
    sim_dispatch(s, &joined);
    sim_message welcome = {
        .type = SIM_WELCOME, .worker = worker, .session = h->sessions[worker - 1].secret};
    sim_reply(s, m, &welcome);
}

static void on_hello_control(sim *s, const sim_message *m) {
    sim_session *session = session_of_message(s, m);
    if (!session) {
        sim_reply(s, m, &(sim_message){.type = SIM_FAILURE, .error = COP_ERR_NOT_FOUND});
        return;
    }
    session->connection[SIM_CONTROL] = m->connection;
    sim_reply(s, m, &(sim_message){.type = SIM_WELCOME, .worker = m->worker});
}

static void on_heartbeat(sim *s, const sim_message *m) {
    sim_message reply = {.type = SIM_HEARTBEAT_REPLY};
    if (!session_of_message(s, m)) {
        reply.unknown = true;
        sim_reply(s, m, &reply);
        return;
    }
    coord_event beat = {.type = COORD_EVENT_HEARTBEAT, .worker = m->worker};
    sim_dispatch(s, &beat);
    sim_session *session = sim_session_of(s, m->worker);
    if (session && m->draining && !session->drain) {
        coord_event drain = {.type = COORD_EVENT_WORKER_DRAIN, .worker = m->worker};
        session->drain = true;
        sim_dispatch(s, &drain);
    }
    reply.drain = session && session->drain;
    if (!coord_core_wants(s->host.core, m->worker, m->lease_held))
        reply.cancel_lease = m->lease_held;
    sim_reply(s, m, &reply);
}

static void give_result(sim *s, const sim_message *m) {
    coord_event event = {.type = COORD_EVENT_RESULT,
                         .worker = m->worker,
                         .job = m->result.job,
                         .step = m->result.step,
                         .result = m->result};
    event.text = m->result.failed ? "cannot" : NULL;
    event.result.slot = sim_slot_offer(s, m);
    bool wanted = sim_is_wanted(s, m);
    sim_dispatch(s, &event);
    sim_check_answered(s, event.result.slot);
    if (wanted) sim_check_kept(s, m);
}

static void take_pull(sim *s, const sim_message *m) {
    sim_session *session = sim_session_of(s, m->worker);
    if (m->goodbye && session) {
        sim_end_session(s, m->worker, true);
        answer_nothing(s, m, true, false);
        return;
    }
    if (!session) { /* the core has removed the worker in the meantime */
        answer_nothing(s, m, false, true);
        return;
    }
    session->held = sim_message_new(m);
    session->held->request = ++s->host.next_request;
    session->held_since = sim_host_now(s);
    coord_event pull = {.type = COORD_EVENT_PULL, .worker = m->worker};
    pull.pull.request = session->held->request;
    pull.pull.have_job = m->have_job;
    pull.pull.have_version = m->have_version;
    sim_dispatch(s, &pull);
}

static void on_pull(sim *s, sim_message *m) {
    sim_session *session = session_of_message(s, m);
    if (!session) {
        answer_nothing(s, m, false, true);
        return;
    }
    session->connection[SIM_WORK] = m->connection;
    cop_free(session->held); /* the worker ignores replies to older requests */
    session->held = NULL;
    session->digesting = 0;
    bool tensor = m->has_result && (!m->result.evaluate || m->result.ensemble) && !m->result.failed;
    if (tensor && coord_core_wants_digest(s->host.core, m->worker, &m->result)) {
        session->digesting = m->request = ++s->host.next_request;
        sim_post(
            s, 20000 + sim_below(&s->dice, 2 * SIM_MS),
            (sim_event){.kind = SIM_DIGESTED, .life = s->host.life, .message = sim_message_new(m)});
        return;
    }
    if (m->has_result) give_result(s, m);
    take_pull(s, m);
}

static void on_digested(sim *s, sim_message *m) {
    sim_session *session = sim_session_of(s, m->worker);
    /* The worker has left or has sent a newer PULL. */
    if (!session || session->digesting != m->request) return;
    session->digesting = 0;
    m->result.digest = sim_digest(s, &m->gradient);
    m->result.finite = m->result.finite && !m->gradient.nan;
    give_result(s, m);
    take_pull(s, m);
}

static void on_gone(sim *s, uint64_t connection) {
    sim_host *h = &s->host;
    for (uint32_t i = 0; i < h->session_count; i++) {
        const sim_session *session = &h->sessions[i];
        bool its = session->connection[SIM_WORK] == connection ||
                   session->connection[SIM_CONTROL] == connection;
        if (session->live && its) sim_end_session(s, i + 1, true);
    }
}

static void on_request(sim *s, sim_message *m) {
    switch (m->type) {
    case SIM_HELLO:
        on_hello(s, m);
        break;
    case SIM_HELLO_CONTROL:
        on_hello_control(s, m);
        break;
    case SIM_HEARTBEAT:
        on_heartbeat(s, m);
        break;
    case SIM_PULL:
        on_pull(s, m);
        break;
    default:
        sim_client_call(s, m);
    }
}

/* ---- life ---- */

static void take_up(sim *s, uint64_t job) {
    const sim_row *row = &s->store.rows[job];
    if (!row->exists) return;
    s->host.next_job = job;
    s->jobs[job].state = row->state;
    s->host.resident[job].spec = row->spec;
    if (!recovery_takes_up(row->state)) return;
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = job};
    added.info = s->specs[row->spec].info;
    added.info.job = job;
    added.info.state = recovery_state(row->state);
    added.info.fingerprint = row->fingerprint;
    sim_write write = {.kind = SIM_SET_STATE, .job = job, .value = added.info.state};
    sim_store_write(s, &write);
    sim_dispatch(s, &added);
}

void sim_host_start(sim *s) {
    sim_host *h = &s->host;
    uint32_t life = h->life + 1;
    *h = (sim_host){.up = true,
                    .life = life,
                    .clock_ahead = h->clock_ahead,
                    .crash_save = h->crash_save,
                    .crash_commit = h->crash_commit};
    for (uint64_t i = 0; i <= SIM_IDS_MAX; i++) h->resident[i].pause_from = UINT64_MAX;
    h->keys = cop_alloc(sizeof *h->keys);
    sim_memory_count(true);
    cop_err e = coord_core_create(&s->core_config, &h->core);
    sim_memory_count(false);
    COP_ASSERT(!e && h->keys);
    for (uint64_t job = SIM_IDS_MAX; job > 0; job--) { /* newest first */
        unsigned char key[COORD_KEY_SIZE];
        if (!s->store.rows[job].exists) continue;
        sim_key_of(s->store.rows[job].key, key);
        recovery_restore(h->keys, key, job);
    }
    recovery_restore_done(h->keys);
    for (uint64_t job = 1; job <= SIM_IDS_MAX; job++) take_up(s, job);
    sim_ensembles_start(s);
    sim_post(s, TICK_MS * SIM_MS, (sim_event){.kind = SIM_TICK, .life = life});
}

void sim_host_die(sim *s, bool power) {
    sim_host *h = &s->host;
    if (!h->up) return;
    h->up = false;
    sim_store_crash(s, power);
    sim_disk_crash(s->disk, s->now, power);
    sim_host_gone(s);
    sim_memory_count(true);
    coord_core_destroy(h->core);
    coord_actions_fini(&h->actions);
    sim_memory_count(false);
    h->core = NULL;
    for (uint32_t i = 0; i < h->session_count; i++) cop_free(h->sessions[i].held);
    cop_free(h->sessions);
    cop_free(h->slots);
    cop_free(h->keys);
    cop_free(h->saves);
    h->sessions = NULL;
    h->slots = NULL;
    h->keys = NULL;
    h->saves = NULL;
    h->session_count = h->save_count = 0;
    sim_check_died(s);
}

void sim_host_die_within(sim *s, uint64_t *armed, uint64_t span) {
    if (!*armed) return;
    sim_post(s, sim_below(&s->dice, span + 1),
             (sim_event){.kind = SIM_DIE, .life = s->host.life, .value = *armed - 1});
    *armed = 0;
}

/* Ends a graceful stop: the core has reported STOPPED, and the other threads finish their work. */
static void leave(sim *s) {
    sim_saver_finish(s);
    sim_store_flush(s);
    uint64_t pause = s->host.pause_ms * SIM_MS;
    sim_host_die(s, false);
    sim_post(s, pause, (sim_event){.kind = SIM_RESTART});
}

void sim_host_on(sim *s, sim_event *e) {
    sim_host *h = &s->host;
    if (e->kind == SIM_RESTART) {
        if (!h->up) sim_host_start(s);
        return;
    }
    if (!h->up || e->life != h->life) return;
    switch (e->kind) {
    case SIM_TICK: {
        coord_event tick = {.type = COORD_EVENT_TICK};
        sim_dispatch(s, &tick);
        sim_post(s, TICK_MS * SIM_MS, (sim_event){.kind = SIM_TICK, .life = h->life});
        break;
    }
    case SIM_TO_CORE:
        sim_dispatch(s, e->event);
        break;
    case SIM_REQUEST:
        on_request(s, e->message);
        break;
    case SIM_GONE:
        on_gone(s, e->value);
        break;
    case SIM_LOADED:
        sim_load(s, e->value);
        break;
    case SIM_UPDATED:
        sim_updated(s, e->event);
        break;
    case SIM_DIGESTED:
        on_digested(s, e->message);
        break;
    case SIM_RECOMPUTED:
        sim_recomputed(s, e->message);
        break;
    case SIM_SAVED:
        sim_saved(s, e->event);
        break;
    case SIM_TASK:
        sim_client_task(s, e->message);
        break;
    case SIM_ENSEMBLE:
        sim_ensemble_submit(s, (uint32_t)e->value);
        break;
    case SIM_COMMIT:
        sim_store_commit(s, e->value);
        break;
    case SIM_SAVE:
        sim_saver_run(s, e->value);
        break;
    case SIM_DIE:
        /* A fault that waited for a checkpoint or commit happens now, so it ends now. */
        if (s->now > s->quiet_ns) s->quiet_ns = s->now;
        sim_host_die(s, e->value & 1);
        sim_post(s, e->value / 2 * SIM_MS, (sim_event){.kind = SIM_RESTART});
        break;
    default:
        COP_ASSERT(!"an event of the coordinator");
    }
    if (h->up && h->stopped) leave(s);
}
