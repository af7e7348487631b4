/* The worker's shell: carries out the agent's actions on two links and on the compute threads.
 * See worker.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/version.h"
#include "worker/agent.h"
#include "worker/compute.h"
#include "worker/share.h"
#include "worker/worker.h"

#define HEARTBEAT_MIN_MS 20
/* The timeout of a PULL. The coordinator may hold it for COP_HOLD_MAX_MS, and large bodies take
 * time to transfer. */
#define CALL_TIMEOUT_MS  (COP_HOLD_MAX_MS + 25000)
#define HELLO_TIMEOUT_MS 3000
/* In a coordinator's process, its loop computes leases that take at most this time. Handing a lease
 * over to the worker's thread and back takes 20 to 50 us, and the loop has nothing else to do. */
#define FOLLOW_MAX_NS 500000

struct cop_worker {
    cop_worker_config config;
    char url[320], name[COP_NAME_MAX], token[128];
    cop_link *work, *control;
    worker_compute *compute;
    worker_share share; /* only the agent thread uses it */
    uv_thread_t agent_thread, heartbeat_thread;
    bool heartbeat_started;
    cop_err result;
    cop_error error;
    /* The mutex guards the fields below and `token`, which changes if it is found only later. The
     * agent thread, the heartbeat thread and the callers of worker.h share them. */
    uv_mutex_t mutex;
    uv_cond_t changed;
    bool drain;              /* finish the lease, then end */
    bool cancel;             /* end soon */
    bool ended;              /* the agent has ended */
    uint64_t id;             /* number of this worker in the session; 0: not joined */
    uint64_t session;        /* the coordinator's number of the session */
    uint64_t lease;          /* the lease that is being computed; 0: none */
    uint64_t serial;         /* number of sessions so far */
    uint64_t unknown_serial; /* the serial of a session that the coordinator reported as unknown */
    uint64_t canceled_lease; /* a lease whose result the coordinator no longer needs */
    uint32_t heartbeat_ms;   /* interval of the heartbeats */
};

/* ---- HELLO ---- */

static void fill_hello(cop_worker *w, cop_message *m) {
    *m = (cop_message){.type = COP_MESSAGE_HELLO};
    m->hello.major = COP_PROTOCOL_MAJOR;
    m->hello.minor = COP_PROTOCOL_MINOR;
    m->hello.threads = (uint32_t)w->config.threads;
    snprintf(m->hello.build, sizeof m->hello.build, "%s", COP_VERSION);
    uv_mutex_lock(&w->mutex);
    snprintf(m->hello.token, sizeof m->hello.token, "%s", w->token);
    uv_mutex_unlock(&w->mutex);
    snprintf(m->hello.name, sizeof m->hello.name, "%s", w->name);
    snprintf(m->hello.isa, sizeof m->hello.isa, "%s", w->config.kernels->name);
    snprintf(m->hello.arithmetic, sizeof m->hello.arithmetic, "portable-1");
    if (!w->config.portable) cop_numerics_fingerprint(COP_NUMERICS_OPENBLAS, m->hello.fingerprint);
    memcpy(m->hello.self_test, w->config.self_test, sizeof m->hello.self_test);
}

/* Looks for the token again, because a coordinator that has just started may have written its token
 * file only now. Returns true if it found another token than w->token, and stores it there. */
static bool has_newer_token(cop_worker *w) {
    char token[COP_TOKEN_MAX];
    if (w->config.token || w->config.local || cop_token_find(NULL, NULL, w->url, token, NULL) ||
        strcmp(token, w->token) == 0)
        return false;
    uv_mutex_lock(&w->mutex);
    snprintf(w->token, sizeof w->token, "%s", token);
    uv_mutex_unlock(&w->mutex);
    return true;
}

/* The interval of heartbeats that the coordinator asks for, in ms. If it is unreasonably short or
 * long, the default. */
static uint32_t heartbeat_of(const cop_welcome *welcome) {
    const uint32_t ms = welcome->heartbeat_ms;
    return ms < HEARTBEAT_MIN_MS || ms > COP_HOLD_MAX_MS ? COP_HEARTBEAT_MS : ms;
}

static void fill_work_hello(cop_worker *w, cop_message *m) {
    fill_hello(w, m);
    if (w->share.offered) m->hello.features |= COP_FEATURE_SHARED_MEMORY;
}

static cop_err send_hello(cop_worker *w, cop_error *error) {
    cop_message hello, reply;
    fill_work_hello(w, &hello);
    uint32_t timeout = w->config.join_timeout_ms;
    if (!timeout || timeout > HELLO_TIMEOUT_MS) timeout = HELLO_TIMEOUT_MS;
    uv_mutex_lock(&w->mutex);
    /* Stops the heartbeats of the previous session: an answer to one could interrupt this call. */
    w->id = 0;
    uv_mutex_unlock(&w->mutex);
    cop_err e = cop_link_call(w->work, &hello, &reply, timeout, error);
    if (e == COP_ERR_DENIED && has_newer_token(w)) {
        fill_work_hello(w, &hello);
        e = cop_link_call(w->work, &hello, &reply, timeout, error);
    }
    COP_TRY(e);
    if (reply.type != COP_MESSAGE_WELCOME)
        e = cop_fail(error, COP_ERR_PROTOCOL, "unexpected answer to HELLO: %s",
                     cop_message_type_name(reply.type));
    if (!e) {
        uv_mutex_lock(&w->mutex);
        w->id = reply.welcome.worker;
        w->session = reply.welcome.session;
        w->heartbeat_ms = heartbeat_of(&reply.welcome);
        w->serial++;
        uv_cond_broadcast(&w->changed);
        uv_mutex_unlock(&w->mutex);
        cop_log(COP_LOG_INFO, "worker", "joined %s as %s", cop_link_address(w->work),
                reply.welcome.name);
        worker_share_join(&w->share, &reply.welcome);
    }
    cop_message_fini(&reply);
    return e;
}

/* ---- heartbeats: on their own thread and link, so that they never wait behind a gradient ---- */

static cop_err send_control_hello(cop_worker *w, uint64_t id, uint64_t session) {
    cop_message hello, reply;
    fill_hello(w, &hello);
    hello.hello.control = true;
    hello.hello.worker = id;
    hello.hello.session = session;
    COP_TRY(cop_link_call(w->control, &hello, &reply, HELLO_TIMEOUT_MS, NULL));
    cop_message_fini(&reply);
    return COP_OK;
}

/* Handles the answer to a heartbeat. If the coordinator does not know this worker, it interrupts
 * the call on the work link, which would otherwise wait for an answer that never comes. */
static void apply_heartbeat_reply(cop_worker *w, const cop_heartbeat_reply *r, uint64_t serial) {
    uv_mutex_lock(&w->mutex);
    if (r->drain) w->drain = true;
    if (r->cancel_lease) w->canceled_lease = r->cancel_lease;
    if (r->unknown) w->unknown_serial = serial;
    /* The mutex stays locked here, so that this cannot interrupt the HELLO of the next session. */
    if (r->unknown && serial == w->serial && w->id) cop_link_interrupt(w->work);
    uv_mutex_unlock(&w->mutex);
}

static void send_heartbeat(cop_worker *w, uint64_t id, uint64_t session, uint64_t serial) {
    cop_message m = {.type = COP_MESSAGE_HEARTBEAT}, reply;
    uv_mutex_lock(&w->mutex);
    m.heartbeat =
        (cop_heartbeat){.worker = id, .session = session, .lease = w->lease, .draining = w->drain};
    uv_mutex_unlock(&w->mutex);
    if (cop_link_call(w->control, &m, &reply, COP_HEARTBEAT_MS * COP_HEARTBEATS_MISSED, NULL))
        return; /* only the work link decides whether the coordinator is lost */
    if (reply.type == COP_MESSAGE_HEARTBEAT_REPLY)
        apply_heartbeat_reply(w, &reply.heartbeat_reply, serial);
    cop_message_fini(&reply);
}

static void run_heartbeats(void *argument) {
    cop_worker *w = argument;
    uint64_t control_serial = 0; /* the session for which the control link has sent HELLO */
    uv_mutex_lock(&w->mutex);
    while (!w->ended && !w->cancel) {
        uint64_t id = w->id, session = w->session, serial = w->serial;
        uint32_t period = w->heartbeat_ms;
        if (!id) {
            uv_cond_wait(&w->changed, &w->mutex);
            continue;
        }
        uv_mutex_unlock(&w->mutex);
        if (control_serial != serial && send_control_hello(w, id, session) == COP_OK)
            control_serial = serial;
        send_heartbeat(w, id, session, serial);
        uv_mutex_lock(&w->mutex);
        if (!w->ended && !w->cancel)
            uv_cond_timedwait(&w->changed, &w->mutex, (uint64_t)period * 1000000);
    }
    uv_mutex_unlock(&w->mutex);
}

/* ---- PULL and the lease ---- */

typedef struct work_state {
    cop_worker *worker;
    cop_message lease;      /* the lease that is being computed */
    cop_result result;      /* the result that the next PULL carries, if `present` */
    cop_buffer *gradient;   /* the tensor of this result; NULL: it has none */
    uint64_t job, train_ns; /* job and computing time of the last TRAIN lease; 0: none */
} work_state;

static void drop_result(work_state *s) {
    cop_buffer_release(s->gradient);
    s->gradient = NULL;
    s->result.present = false;
}

/* Makes a PULL, with the result if there is one. */
static void fill_pull(const cop_worker *w, const work_state *s, cop_message *m) {
    COP_ASSERT(!s->gradient || s->result.present);
    *m = (cop_message){.type = COP_MESSAGE_PULL};
    m->pull.worker = w->id;
    m->pull.session = w->session;
    worker_compute_held(w->compute, &m->pull);
    m->pull.result = s->result;
    m->pull.has_proof = w->share.proven;
    memcpy(m->pull.proof, w->share.proof, sizeof m->pull.proof);
    if (s->gradient && s->gradient->segment)
        m->pull.result.segment = s->gradient->segment->name.id;
    else if (s->gradient)
        m->part[COP_PART_RESULT] = cop_buffer_hold(s->gradient);
    if (s->result.present && s->result.kind == COP_LEASE_TRAIN)
        cop_lane_enter(worker_compute_lane(w->compute), COP_PHASE_WAIT, COP_NO_LAYER);
}

static bool is_unknown(cop_worker *w) {
    uv_mutex_lock(&w->mutex);
    bool unknown = w->unknown_serial == w->serial;
    uv_mutex_unlock(&w->mutex);
    return unknown;
}

/* Prepares the lease in s->lease. If its shared memory cannot be mapped, joins again, without
 * shared memory from then on. */
static worker_event take_lease(cop_worker *w, work_state *s) {
    cop_buffer *room = NULL;
    cop_err e = worker_share_take(&w->share, &s->lease, &room, &w->error);
    worker_compute_set_room(w->compute, room);
    cop_buffer_release(room);
    if (e) {
        cop_log(COP_LOG_WARN, "worker", "%s; joining again without shared memory", w->error.text);
        w->share.offered = false;
        cop_message_fini(&s->lease);
        return (worker_event){.type = WORKER_EVENT_NOTHING, .unknown = true};
    }
    uv_mutex_lock(&w->mutex);
    w->lease = s->lease.lease.lease;
    uv_mutex_unlock(&w->mutex);
    return (worker_event){.type = WORKER_EVENT_LEASE};
}

/* Sends a PULL and returns the answer as an event. Every answer except an error means that the
 * coordinator has the result, which is then dropped here. */
static worker_event pull(cop_worker *w, work_state *s, bool goodbye) {
    cop_message request, reply;
    worker_event event = {.type = WORKER_EVENT_NOTHING};
    fill_pull(w, s, &request);
    request.pull.goodbye = goodbye;
    cop_err e = cop_link_call(w->work, &request, &reply, CALL_TIMEOUT_MS, &w->error);
    if (e && is_unknown(w)) return (worker_event){.type = WORKER_EVENT_NOTHING, .unknown = true};
    if (e) return (worker_event){.type = WORKER_EVENT_FAILED, .error = e};
    drop_result(s);
    if (reply.type == COP_MESSAGE_LEASE) {
        s->lease = reply;
        return take_lease(w, s);
    }
    if (reply.type == COP_MESSAGE_NOTHING) {
        event.retry_ms = reply.nothing.retry_ms;
        event.drain = reply.nothing.drain;
        if (event.drain && !goodbye)
            cop_log(COP_LOG_INFO, "worker", "the coordinator asked this worker to leave");
        event.unknown = reply.nothing.unknown;
    } else {
        event = (worker_event){.type = WORKER_EVENT_FAILED, .error = COP_ERR_PROTOCOL};
    }
    cop_message_fini(&reply);
    return event;
}

static void compute(cop_worker *w, work_state *s) {
    COP_ASSERT(s->lease.type == COP_MESSAGE_LEASE && !s->result.present && !s->gradient);
    cop_lane *lane = worker_compute_lane(w->compute);
    if (s->lease.lease.kind == COP_LEASE_TRAIN)
        cop_lane_enter(lane, COP_PHASE_INPUT, COP_NO_LAYER);
    else
        cop_lane_discard(lane);
    worker_compute_run(w->compute, &s->lease, &s->result, &s->gradient);
    if (s->result.kind == COP_LEASE_TRAIN) {
        s->job = s->result.job;
        s->train_ns = s->result.compute_ns;
    }
    if (s->result.failure[0])
        cop_log(COP_LOG_WARN, "worker", "lease %llu failed: %s",
                (unsigned long long)s->result.lease, s->result.failure);
    if (w->config.tamper) w->config.tamper(w->config.tamper_context, &s->result, s->gradient);
    cop_message_fini(&s->lease);
    uv_mutex_lock(&w->mutex);
    bool canceled = w->canceled_lease == s->result.lease && s->result.lease != 0;
    w->lease = 0;
    uv_mutex_unlock(&w->mutex);
    if (canceled) drop_result(s); /* another worker's result came first */
}

/* ---- short leases in the coordinator's process: its loop computes them (cop_link_follower) ----
 */

/* Does the loop compute this lease? Only if it is a whole step, so that no other worker computes at
 * the same time, and if the previous lease of the job was short. */
static bool wants_lease(void *context, const cop_message *reply) {
    const work_state *s = context;
    if (reply->type != COP_MESSAGE_LEASE) return false;
    const cop_lease *l = &reply->lease;
    const cop_buffer *labels = reply->part[COP_PART_LABELS];
    return l->kind == COP_LEASE_TRAIN && l->job == s->job && s->train_ns <= FOLLOW_MAX_NS &&
           labels && labels->size == l->batch * sizeof(int32_t) && !l->weights.id && !l->room.id;
}

/* Computes the lease and makes the next PULL, as one round of the agent does. The agent's state
 * stays the same: it waits for the answer to a PULL. */
static bool follow_lease(void *context, cop_message *reply, cop_message *request) {
    work_state *s = context;
    cop_worker *w = s->worker;
    uv_mutex_lock(&w->mutex);
    const bool stop = w->cancel || w->drain;
    uv_mutex_unlock(&w->mutex);
    if (stop) return false;
    drop_result(s);
    s->lease = *reply;
    memset(reply, 0, sizeof *reply);
    const worker_event event = take_lease(w, s);
    COP_ASSERT(event.type == WORKER_EVENT_LEASE); /* only shared memory could fail */
    compute(w, s);
    fill_pull(w, s, request);
    return true;
}

static void wait_ms(cop_worker *w, uint32_t ms) {
    uv_mutex_lock(&w->mutex);
    if (!w->cancel && !w->drain) uv_cond_timedwait(&w->changed, &w->mutex, (uint64_t)ms * 1000000);
    uv_mutex_unlock(&w->mutex);
}

/* ---- the agent thread ---- */

static worker_event carry_out(cop_worker *w, work_state *s, const worker_action *action) {
    if (action->drop_result) {
        drop_result(s);
        worker_compute_set_room(w->compute, NULL);
        worker_compute_forget(w->compute);
        worker_share_forget(&w->share);
    }
    switch (action->type) {
    case WORKER_ACTION_HELLO: {
        cop_err e = send_hello(w, &w->error);
        if (e) return (worker_event){.type = WORKER_EVENT_FAILED, .error = e};
        return (worker_event){.type = WORKER_EVENT_WELCOME};
    }
    case WORKER_ACTION_PULL:
        return pull(w, s, action->goodbye);
    case WORKER_ACTION_COMPUTE:
        compute(w, s);
        return (worker_event){.type = WORKER_EVENT_COMPUTED};
    case WORKER_ACTION_WAIT:
        wait_ms(w, action->wait_ms);
        return (worker_event){.type = WORKER_EVENT_WAITED};
    case WORKER_ACTION_END:
        break;
    }
    return (worker_event){.type = WORKER_EVENT_FAILED, .error = COP_ERR_INTERNAL};
}

/* Passes a requested drain on to the agent. Returns true if the worker has been canceled. */
static bool check_stop_requests(cop_worker *w, worker_agent *agent) {
    uv_mutex_lock(&w->mutex);
    bool cancel = w->cancel;
    if (w->drain) worker_agent_drain(agent);
    uv_mutex_unlock(&w->mutex);
    return cancel;
}

/* Logs one of 16 failures in succession, beginning with the first. */
static void log_failure(const cop_worker *w, const worker_agent *agent, const worker_event *event) {
    if (event->type != WORKER_EVENT_FAILED || agent->failures % 16 != 1) return;
    cop_log(COP_LOG_WARN, "worker", "%s; trying again", w->error.text);
}

static void run_agent(void *argument) {
    cop_worker *w = argument;
    work_state s = {.worker = w};
    worker_agent agent;
    uint64_t salt;
    cop_random_bytes(&salt, sizeof salt);
    cop_compute_thread_init();
    worker_agent_init(&agent, w->config.retry_forever, w->config.join_timeout_ms, salt,
                      cop_clock_ns());
    cop_link_set_follower(w->work, &(cop_link_follower){wants_lease, follow_lease, &s});
    worker_event event = {.type = WORKER_EVENT_START};
    worker_action action;
    for (;;) {
        if (check_stop_requests(w, &agent)) {
            w->result = COP_ERR_CANCELED;
            break;
        }
        action = worker_agent_step(&agent, &event, cop_clock_ns());
        if (action.type == WORKER_ACTION_END) {
            w->result = action.error;
            break;
        }
        log_failure(w, &agent, &event);
        event = carry_out(w, &s, &action);
    }
    drop_result(&s);
    cop_message_fini(&s.lease);
    uv_mutex_lock(&w->mutex);
    w->ended = true;
    uv_cond_broadcast(&w->changed);
    uv_mutex_unlock(&w->mutex);
    cop_link_cancel(w->control); /* ends a heartbeat that is in progress */
    if (w->config.on_ended) w->config.on_ended(w->config.on_ended_context);
}

/* ---- start and end ---- */

static cop_err open_links(cop_worker *w, cop_error *error) {
    if (w->config.local) {
        COP_TRY(cop_link_open_local(w->config.local, &w->work, error));
        return cop_link_open_local(w->config.local, &w->control, error);
    }
    COP_TRY(cop_link_open(w->url, w->config.tls, &w->work, error));
    return cop_link_open(w->url, w->config.tls, &w->control, error);
}

/* The default name of a worker:
 * - with the certificate of one worker: the name in the certificate
 * - with a certificate for many workers: the common part of their names, host name and process id
 * - without a certificate: host name and process id */
static void default_name(const cop_tls *tls, char out[COP_NAME_MAX]) {
    const cop_peer *self = tls ? cop_tls_self(tls) : &(const cop_peer){0};
    char host[64] = "worker";
    size_t size = sizeof host, length = 0;
    uv_os_gethostname(host, &size);
    if (tls && !cop_peer_is_shared(self, &length))
        snprintf(out, COP_NAME_MAX, "%s", self->name);
    else
        snprintf(out, COP_NAME_MAX, "%.*s%s-%ld", (int)length, self->name, host, (long)getpid());
}

static void destroy(cop_worker *w) {
    cop_link_close(w->work);
    cop_link_close(w->control);
    worker_compute_destroy(w->compute);
    worker_share_forget(&w->share);
    uv_mutex_destroy(&w->mutex);
    uv_cond_destroy(&w->changed);
    cop_free(w);
}

cop_err worker_start(const cop_worker_config *config, cop_worker **out, cop_error *error) {
    COP_ASSERT((config->url != NULL) != (config->local != NULL) && config->kernels);
    COP_ASSERT(config->threads >= 1 && config->threads <= COP_WORKER_THREADS_MAX);
    cop_worker *w = cop_alloc(sizeof *w);
    if (!w) return cop_no_memory(error);
    uv_mutex_init(&w->mutex);
    uv_cond_init(&w->changed);
    w->config = *config;
    w->share.folder = config->share_folder;
    w->share.offered = config->share_memory && !config->local && COP_PROTOCOL_MINOR >= 2;
    snprintf(w->url, sizeof w->url, "%s", config->url ? config->url : "");
    snprintf(w->token, sizeof w->token, "%s", config->token ? config->token : "");
    if (config->name)
        snprintf(w->name, sizeof w->name, "%s", config->name);
    else
        default_name(config->tls, w->name);
    cop_err e = worker_compute_create(config->threads, config->kernels, &w->compute, error);
    if (!e) worker_compute_set_profile(w->compute, config->profile, w->name);
    if (!e) e = open_links(w, error);
    if (!e && uv_thread_create(&w->heartbeat_thread, run_heartbeats, w))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "cannot start a thread");
    w->heartbeat_started = !e;
    if (!e && uv_thread_create(&w->agent_thread, run_agent, w))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "cannot start a thread");
    if (!e) {
        *out = w;
        return COP_OK;
    }
    if (w->heartbeat_started) {
        worker_cancel(w);
        uv_thread_join(&w->heartbeat_thread);
    }
    destroy(w);
    return e;
}

void worker_drain(cop_worker *w) {
    uv_mutex_lock(&w->mutex);
    w->drain = true;
    uv_cond_broadcast(&w->changed);
    uv_mutex_unlock(&w->mutex);
}

void worker_cancel(cop_worker *w) {
    uv_mutex_lock(&w->mutex);
    w->cancel = true;
    uv_cond_broadcast(&w->changed);
    uv_mutex_unlock(&w->mutex);
    cop_link_cancel(w->work);
    cop_link_cancel(w->control);
}

cop_err worker_join(cop_worker *w, cop_error *error) {
    uv_thread_join(&w->agent_thread);
    uv_thread_join(&w->heartbeat_thread);
    COP_ASSERT(w->ended);
    cop_err e = w->result;
    if (e && error) {
        *error = w->error;
        error->code = e;
    }
    destroy(w);
    return e;
}

bool worker_ended(cop_worker *w) {
    uv_mutex_lock(&w->mutex);
    bool ended = w->ended;
    uv_mutex_unlock(&w->mutex);
    return ended;
}
