/* Turns the requests of workers into events of the core: HELLO, HEARTBEAT, and PULL, which may
 * bring a result. A request that breaks the rules is answered with FAILURE. Nothing that a peer
 * sends can stop the coordinator. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "coordinator/server/server.h"

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/version.h"

/* ---- HELLO ---- */

/* Sets `out` to the wanted name. If another worker has this name, appends -2, -3 and so on, until
 * no worker has the name. */
static void choose_name(coord_server *server, const char *wanted, char out[COP_NAME_MAX]) {
    for (int n = 1;; n++) {
        if (n == 1)
            snprintf(out, COP_NAME_MAX, "%s", wanted);
        else
            snprintf(out, COP_NAME_MAX, "%.100s-%d", wanted, n);
        bool taken = false;
        for (uint32_t i = 0; i < COP_WORKERS_MAX && !taken; i++)
            taken = server->access.sessions[i].worker &&
                    strcmp(server->access.sessions[i].name, out) == 0;
        if (!taken) return;
    }
}

/* False: the HELLO is refused and has been answered. */
static bool check_hello(coord_server *server, cop_request *request, const cop_hello *h) {
    if (h->major != COP_PROTOCOL_MAJOR)
        coord_reply_failure(request, COP_ERR_VERSION,
                            "this coordinator (%s) speaks protocol %d.%d, you speak %u.%u: install "
                            "the same major version",
                            COP_VERSION, COP_PROTOCOL_MAJOR, COP_PROTOCOL_MINOR, h->major,
                            h->minor);
    else if (!coord_access_token(&server->access, request, h->token) ||
             !coord_access_name(request, h->name))
        return false;
    else if (h->is_client || h->control)
        return true;
    else if (strcmp(h->arithmetic, "portable-1") != 0)
        coord_reply_failure(request, COP_ERR_VERSION,
                            "this coordinator's arithmetic is portable-1, yours is %s",
                            h->arithmetic);
    else if (memcmp(h->self_test, server->config.self_test, 32) != 0)
        coord_reply_failure(request, COP_ERR_VERSION,
                            "worker %s fails the self-test of portable-1: its arithmetic differs "
                            "from the coordinator's, "
                            "so it gets no work",
                            h->name);
    else if (h->threads < 1 || h->threads > COP_WORKER_THREADS_MAX)
        coord_reply_failure(request, COP_ERR_INPUT, "threads is %u: expected 1 to %d", h->threads,
                            COP_WORKER_THREADS_MAX);
    else
        return true;
    return false;
}

/* Says by which path weights and gradients of a new session travel: over its connection. */
static void set_path(coord_session *s, const cop_request *request) {
    const char *address = cop_request_address(request);
    const bool local = strcmp(address, "ipc") == 0 || strcmp(address, "memory") == 0;
    const char *path = cop_request_peer(request)->certified ? "tls" : local ? address : "tcp";
    snprintf(s->path, sizeof s->path, "%s", path);
}

/* Answers a HELLO. `s` is the session of the worker, or NULL if the peer is a client. */
static void welcome(const coord_server *server, cop_request *request, const coord_session *s) {
    cop_message reply = {.type = COP_MESSAGE_WELCOME};
    reply.welcome.major = COP_PROTOCOL_MAJOR;
    reply.welcome.minor = COP_PROTOCOL_MINOR;
    reply.welcome.heartbeat_ms = COP_HEARTBEAT_MS;
    snprintf(reply.welcome.build, sizeof reply.welcome.build, "%s", COP_VERSION);
    if (s) {
        reply.welcome.worker = s->worker;
        reply.welcome.session = s->secret;
        snprintf(reply.welcome.name, sizeof reply.welcome.name, "%s", s->name);
        if (COP_PROTOCOL_MINOR >= 2)
            coord_share_offer(server, &cop_request_message(request)->hello, &reply.welcome);
    }
    cop_server_reply(request, &reply);
}

static void hello_control(coord_server *server, cop_request *request, const cop_hello *h) {
    coord_session *s = coord_access_session(&server->access, request, h->worker, h->session);
    if (!s) {
        coord_reply_failure(request, COP_ERR_NOT_FOUND,
                            "unknown session: send HELLO on the work socket first");
        return;
    }
    s->connection[1] = cop_request_connection(request);
    welcome(server, request, s);
}

static uint32_t live_sessions(const coord_server *server) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) count += server->access.sessions[i].worker != 0;
    return count;
}

/* Returns a free place for a session. NULL: there is none, or the identity has used up its share of
 * them, or the coordinator is stopping. Then the request has been answered. */
static coord_session *take_place(coord_server *server, cop_request *request) {
    const char *identity = coord_access_identity(request);
    const uint32_t configured = server->config.sessions_per_identity;
    const uint32_t share = coord_access_share(
        &server->access, configured ? configured : COP_SESSIONS_PER_IDENTITY_MAX, COP_WORKERS_MAX);
    coord_session *s = NULL;
    uint32_t owned = 0;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *at = &server->access.sessions[i];
        const bool taken = at->worker || at->hashing;
        if (!taken && !s) s = at;
        owned += taken && strcmp(at->certificate, identity) == 0;
    }
    if (server->engine.stopping)
        coord_reply_failure(request, COP_ERR_LIMIT, "the coordinator is stopping");
    else if (!s)
        coord_reply_failure(request, COP_ERR_LIMIT, "the pool is full: it has %d workers",
                            COP_WORKERS_MAX);
    else if (owned >= share)
        coord_reply_failure(
            request, COP_ERR_LIMIT,
            "%s%s%s has %u workers in the pool: the limit is %u; use another certificate for more",
            *identity ? "the certificate \"" : "the token", identity, *identity ? "\"" : "", owned,
            share);
    else
        return s;
    return NULL;
}

static void hello_worker(coord_server *server, cop_request *request, const cop_hello *h) {
    coord_session *s = take_place(server, request);
    if (!s) return;
    coord_worker_identity identity;
    memset(s, 0, sizeof *s);
    coord_access_identify(request, h, &identity);
    snprintf(s->certificate, sizeof s->certificate, "%s", coord_access_identity(request));
    choose_name(server, identity.name, s->name);
    s->worker = ++server->next_worker * COP_WORKERS_MAX + (uint64_t)(s - server->access.sessions);
    COP_ASSERT(coord_session_find(&server->access, s->worker) == s);
    cop_random_bytes(&s->secret, sizeof s->secret);
    s->connection[0] = cop_request_connection(request);
    s->threads = h->threads;
    snprintf(s->isa, sizeof s->isa, "%s", h->isa);
    snprintf(s->build, sizeof s->build, "%s", h->build);
    snprintf(s->address, sizeof s->address, "%s", cop_request_address(request));
    set_path(s, request);
    cop_server_expect_workers(server->transport, (int)live_sessions(server));
    coord_event joined = {.type = COORD_EVENT_WORKER_JOINED, .worker = s->worker};
    joined.joined.name = s->name;
    joined.joined.identity = identity.identity;
    joined.joined.threads = h->threads;
    joined.joined.ensembles = h->minor >= 1;
    joined.joined.bf16 = h->minor >= 3;
    if (*h->fingerprint)
        joined.joined.fingerprint = cop_hash_xxh3(h->fingerprint, strlen(h->fingerprint));
    coord_dispatch(&server->engine, &joined);
    coord_engine_changed(&server->engine, 0);
    welcome(server, request, s);
}

static void on_hello(coord_server *server, cop_request *request) {
    const cop_hello *h = &cop_request_message(request)->hello;
    if (!check_hello(server, request, h)) return;
    if (h->is_client)
        welcome(server, request, NULL);
    else if (h->control)
        hello_control(server, request, h);
    else
        hello_worker(server, request, h);
}

/* ---- HEARTBEAT ---- */

static void on_heartbeat(coord_server *server, cop_request *request) {
    const cop_heartbeat *h = &cop_request_message(request)->heartbeat;
    coord_session *s = coord_access_session(&server->access, request, h->worker, h->session);
    cop_message reply = {.type = COP_MESSAGE_HEARTBEAT_REPLY};
    if (!s) {
        reply.heartbeat_reply.unknown = true;
    } else {
        coord_event beat = {.type = COORD_EVENT_HEARTBEAT, .worker = s->worker};
        coord_dispatch(&server->engine, &beat);
        if (h->draining && !s->drain) {
            coord_event drain = {.type = COORD_EVENT_WORKER_DRAIN, .worker = s->worker};
            s->drain = true;
            coord_dispatch(&server->engine, &drain);
        }
        reply.heartbeat_reply.drain = s->drain;
        if (!coord_core_wants(server->engine.core, s->worker, h->lease))
            reply.heartbeat_reply.cancel_lease = h->lease;
    }
    cop_server_reply(request, &reply);
}

/* ---- sessions that end ---- */

uint64_t coord_take_request(uint64_t *request) {
    const uint64_t taken = *request;
    *request = 0;
    return taken;
}

void coord_close_session(coord_server *server, coord_session *s) {
    cop_request *held = (cop_request *)(uintptr_t)coord_take_request(&s->held);
    cop_request *digesting = (cop_request *)(uintptr_t)coord_take_request(&s->digesting);
    COP_ASSERT(s->worker && (!held || !digesting));
    s->worker = 0;
    coord_share_end(s);
    if (held) cop_server_drop(held);
    if (digesting) cop_server_drop(digesting);
    coord_engine_changed(&server->engine, 0);
}

/* Closes the session of a worker that has left, and tells the core that it has gone. */
static void end_session(coord_server *server, coord_session *s) {
    const coord_event gone = {.type = COORD_EVENT_WORKER_GONE, .worker = s->worker};
    coord_close_session(server, s);
    coord_dispatch(&server->engine, &gone);
}

/* ---- results ---- */

static bool is_known_kind(cop_lease_kind kind) {
    return kind == COP_LEASE_TRAIN || kind == COP_LEASE_EVALUATE || kind == COP_LEASE_ENSEMBLE;
}

/* Says what is wrong with the form of a result that its worker did not report as failed. NULL:
 * nothing is wrong. Sets *members to the number of members in a result of an ensemble; for other
 * results, to 0. */
static const char *check_form(coord_server *server, const cop_result *r, const cop_buffer *tensor,
                              uint32_t *members) {
    const coord_resident *resident = coord_resident_find(&server->engine, r->job);
    const coord_evaluation *evaluation = coord_evaluation_find(&server->engine, r->job);
    const bool bf16 = resident && r->kind == COP_LEASE_TRAIN && resident->job->bf16;
    *members = 0;
    if (!is_known_kind(r->kind)) return "the result has an unknown kind";
    if (tensor && r->values != (bf16 ? COP_VALUES_BF16 : COP_VALUES_F32))
        return "the values of the result have the wrong type";
    if (evaluation && r->kind == COP_LEASE_ENSEMBLE &&
        !coord_evaluation_members(evaluation, r, tensor, members))
        return "the members' outputs have the wrong size";
    if (resident && r->kind == COP_LEASE_TRAIN) {
        if (!tensor || tensor->size != cop_job_sent_bytes(resident->job))
            return "the gradient has the wrong size";
    }
    return NULL;
}

/* Fills *event from the result in a PULL. Returns the tensor of the result, borrowed from the
 * message: a gradient, or the outputs of an ensemble's members. NULL: the result has no tensor, or
 * it has failed, or its form is wrong. A gradient in shared memory is borrowed from the session. */
static cop_buffer *read_result(coord_server *server, const coord_session *s,
                               const cop_message *message, coord_event *event) {
    const cop_result *r = &message->pull.result;
    const bool ensemble = r->kind == COP_LEASE_ENSEMBLE;
    const char *failure = r->failure[0] ? r->failure : NULL, *form = NULL;
    uint32_t members = 0;
    cop_buffer *tensor =
        r->kind == COP_LEASE_TRAIN || ensemble ? message->part[COP_PART_RESULT] : NULL;
    if (r->kind == COP_LEASE_TRAIN && r->segment) tensor = coord_share_result(s, r);
    if (!failure) form = check_form(server, r, tensor, &members);
    if (failure || form) tensor = NULL;
    *event = (coord_event){.type = COORD_EVENT_RESULT,
                           .worker = s->worker,
                           .job = r->job,
                           .step = r->step,
                           .text = failure ? failure : form};
    event->result = (coord_result_info){.lease = r->lease,
                                        .job = r->job,
                                        .step = r->step,
                                        .compute_ns = r->compute_ns,
                                        .attempt = r->attempt,
                                        .first = r->first,
                                        .count = r->count,
                                        .members = members,
                                        .evaluate = r->kind != COP_LEASE_TRAIN,
                                        .ensemble = ensemble,
                                        .finite = isfinite(r->loss),
                                        .failed = failure != NULL,
                                        .malformed = form != NULL,
                                        .loss = r->loss,
                                        .correct = r->correct,
                                        .samples = r->samples};
    return tensor;
}

/* Puts the tensor into a slot and gives the result to the core. If there is no free slot, drops the
 * result and logs that. */
static void give_result(coord_server *server, coord_event *event, cop_buffer *tensor) {
    COP_ASSERT(event->type == COORD_EVENT_RESULT && !event->result.slot);
    event->result.slot = coord_take_slot(&server->engine, tensor);
    if (event->result.slot && !coord_dispatch(&server->engine, event))
        coord_release_slot(&server->engine, event->result.slot);
    if (!event->result.slot)
        cop_log_peer(COP_LOG_ERROR, "coordinator", "", "too many pending results: one is dropped");
}

/* ---- PULL ---- */

static void answer_unknown(cop_request *request) {
    cop_message reply = {.type = COP_MESSAGE_NOTHING, .nothing = {.unknown = true}};
    cop_server_reply(request, &reply);
}

/* Handles a PULL after its result, if it had one, has gone to the core. If the worker says goodbye,
 * ends its session. Otherwise holds the request until the core answers it. */
static void take_pull(coord_server *server, uint64_t worker, cop_request *request) {
    const cop_pull *p = &cop_request_message(request)->pull;
    coord_session *s = coord_session_find(&server->access, worker);
    if (s && p->goodbye) {
        cop_message reply = {.type = COP_MESSAGE_NOTHING, .nothing = {.drain = true}};
        end_session(server, s);
        cop_server_reply(request, &reply);
        return;
    }
    if (!s) { /* the result made the core disconnect the worker */
        answer_unknown(request);
        return;
    }
    COP_ASSERT(!s->held && !s->digesting);
    s->held = (uint64_t)(uintptr_t)request;
    cop_request_release_parts(request);
    coord_event pull = {.type = COORD_EVENT_PULL, .worker = worker};
    pull.pull.request = s->held;
    pull.pull.have_job = p->have_job;
    pull.pull.have_version = p->have_version;
    if (coord_dispatch(&server->engine, &pull)) return;
    s->held = 0;
    coord_reply_failure(request, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
}

/* ---- results that the core compares: a compute thread first hashes the tensor ---- */

typedef struct digest_task {
    cop_task task; /* must be the first field */
    coord_mail mail;
    coord_server *server;
    coord_session *session; /* no other worker can take this place before the task has ended */
    coord_event event;      /* the result */
    cop_buffer *tensor;     /* a reference */
    cop_buffer *room;       /* a reference; the task copies it to `tensor` first; NULL: no copy */
    cop_values values;      /* type of the tensor */
    bool finite;            /* all values of the tensor are finite */
} digest_task;

/* Gives the hashed result to the core, unless its worker has left. */
static void digest_arrived(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    digest_task *d = (digest_task *)(void *)((char *)mail - offsetof(digest_task, mail));
    coord_session *s = d->session;
    COP_ASSERT(s->hashing && (!s->worker || s->worker == d->event.worker));
    s->hashing = false;
    if (s->digesting) { /* `digesting` is 0 if the worker has gone */
        cop_request *request = (cop_request *)(uintptr_t)coord_take_request(&s->digesting);
        d->event.result.finite = d->event.result.finite && d->finite;
        give_result(server, &d->event, d->tensor);
        coord_share_note_received(s, &cop_request_message(request)->pull.result);
        take_pull(server, d->event.worker, request);
    }
    cop_buffer_release(d->room);
    cop_buffer_release(d->tensor);
    cop_free(d);
}

/* Runs on a compute thread. */
static void compute_digest(cop_task *task) {
    digest_task *d = (digest_task *)task;
    if (d->room) memcpy(d->tensor->data, d->room->data, d->tensor->size);
    d->event.result.digest = coord_digest(&d->server->engine, d->tensor, d->values, &d->finite);
    coord_post(&d->server->engine, &d->mail);
}

/* Starts to hash the tensor of a result. Until that ends, the request waits in `digesting`. The
 * worker could write to a tensor in shared memory, so the hash and what is done later use a copy.
 * False: out of memory. */
static bool start_digest(coord_server *server, coord_session *s, cop_request *request,
                         const coord_event *event, cop_buffer *tensor) {
    COP_ASSERT(!s->hashing && !s->digesting && !event->text); /* a text belongs to the message */
    digest_task *d = cop_alloc(sizeof *d);
    cop_buffer *kept = tensor->segment ? cop_buffer_create(tensor->size) : cop_buffer_hold(tensor);
    if (!d || !kept) {
        cop_free(d);
        cop_buffer_release(kept);
        return false;
    }
    *d = (digest_task){.task = {.done = compute_digest},
                       .mail = {.run = digest_arrived},
                       .server = server,
                       .session = s,
                       .event = *event,
                       .tensor = kept,
                       .values = cop_request_message(request)->pull.result.values,
                       .room = tensor->segment ? cop_buffer_hold(tensor) : NULL};
    s->digesting = (uint64_t)(uintptr_t)request;
    s->hashing = true;
    cop_request_release_parts(request);
    cop_thread_pool_submit(server->engine.pool, &d->task);
    return true;
}

/* Makes a repeated PULL wait for the hash, instead of the older one, which is dropped. */
static void wait_for_digest(coord_session *s, cop_request *request) {
    cop_request *older = (cop_request *)(uintptr_t)coord_take_request(&s->digesting);
    if (older) cop_server_drop(older);
    cop_request_release_parts(request);
    s->digesting = (uint64_t)(uintptr_t)request;
}

static void on_pull(coord_server *server, cop_request *request) {
    const cop_message *message = cop_request_message(request);
    const cop_pull *p = &message->pull;
    coord_session *s = coord_access_session(&server->access, request, p->worker, p->session);
    if (!s) {
        answer_unknown(request);
        return;
    }
    const uint64_t worker = s->worker;
    s->connection[0] = cop_request_connection(request);
    coord_share_check(server, s, p);
    /* A worker has only one PULL at a time. If an older one is held, the worker has lost its
     * connection and repeats the PULL, so it no longer waits for the answer to the older one. */
    cop_request *held = (cop_request *)(uintptr_t)coord_take_request(&s->held);
    if (held) cop_server_drop(held);
    if (s->hashing) { /* a task already hashes the result of this PULL */
        wait_for_digest(s, request);
        return;
    }
    if (p->result.present && !coord_share_is_repeated(s, &p->result)) {
        coord_event event;
        cop_buffer *tensor = read_result(server, s, message, &event);
        const bool compared =
            tensor && coord_core_wants_digest(server->engine.core, worker, &event.result);
        if (compared && start_digest(server, s, request, &event, tensor)) return;
        if (compared) { /* the result is lost; its lease expires, and the block is leased again */
            coord_reply_failure(request, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
            return;
        }
        give_result(server, &event, tensor);
        coord_share_note_received(s,
                                  &p->result); /* no effect if the result has ended the session */
    }
    take_pull(server, worker, request);
}

/* ---- entry ---- */

void coord_on_request(void *context, cop_request *request) {
    coord_server *server = context;
    if (!coord_access_role(request)) return;
    switch (cop_request_message(request)->type) {
    case COP_MESSAGE_HELLO:
        on_hello(server, request);
        return;
    case COP_MESSAGE_HEARTBEAT:
        on_heartbeat(server, request);
        return;
    case COP_MESSAGE_PULL:
        on_pull(server, request);
        return;
    case COP_MESSAGE_CALL:
        if (server->api)
            coord_api_on_call(server->api, request);
        else
            coord_reply_failure(request, COP_ERR_UNSUPPORTED, "this coordinator accepts no calls");
        return;
    default:
        coord_reply_failure(request, COP_ERR_PROTOCOL, "%s is not a request",
                            cop_message_type_name(cop_request_message(request)->type));
    }
}

void coord_on_gone(void *context, uint64_t connection) {
    coord_server *server = context;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *s = &server->access.sessions[i];
        if (!s->worker || (s->connection[0] != connection && s->connection[1] != connection))
            continue;
        cop_log_peer(COP_LOG_INFO, "coordinator", *s->certificate ? s->certificate : s->name,
                     "worker %s: connection lost", s->name);
        end_session(server, s);
    }
    if (server->api) coord_api_on_gone(server->api, connection);
}
