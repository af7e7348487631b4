/* Carries out the core's actions: sends leases, drops results, starts updates and checkpoints,
 * writes news to the store and reports it to the listener. */
#include <math.h>
#include <stdio.h>

#include "coordinator/server/server.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"

/* Removes the held request that the action answers from its session, and returns it. NULL: the
 * worker has gone, or its session no longer holds this request. */
static cop_request *take_request(coord_server *server, const coord_action *action) {
    coord_session *s = coord_session_find(&server->access, action->worker);
    if (!s || !s->held || s->held != action->request) return NULL;
    return (cop_request *)(uintptr_t)coord_take_request(&s->held);
}

static void do_nothing(coord_server *server, const coord_action *action) {
    cop_request *request = take_request(server, action);
    if (!request) return;
    cop_message reply = {.type = COP_MESSAGE_NOTHING};
    reply.nothing = (cop_nothing){.retry_ms = action->nothing.retry_ms,
                                  .drain = action->nothing.drain,
                                  .unknown = action->nothing.unknown};
    cop_server_reply(request, &reply);
}

static void do_lease(coord_server *server, const coord_action *action) {
    cop_request *request = take_request(server, action);
    coord_resident *resident = coord_resident_find(&server->engine, action->job);
    coord_evaluation *evaluation = coord_evaluation_find(&server->engine, action->job);
    if (!request) return; /* nobody gets the lease, so the core leases the block again */
    COP_ASSERT((resident != NULL) != (evaluation != NULL));
    const cop_pull *pull = &cop_request_message(request)->pull;
    uint64_t now = cop_clock_ns();
    cop_message reply = {.type = COP_MESSAGE_LEASE};
    reply.lease = (cop_lease){.kind = action->lease.ensemble   ? COP_LEASE_ENSEMBLE
                                      : action->lease.evaluate ? COP_LEASE_EVALUATE
                                                               : COP_LEASE_TRAIN,
                              .lease = action->lease.lease,
                              .job = action->job,
                              .step = action->step,
                              .version = coord_weights_name(action),
                              .deadline_ms = action->lease.deadline_ns > now
                                                 ? (action->lease.deadline_ns - now) / 1000000
                                                 : 0,
                              .attempt = action->lease.attempt,
                              .first = action->lease.first,
                              .count = action->lease.count,
                              .batch = action->lease.batch,
                              .member = action->lease.member,
                              .members = action->lease.members};
    bool have_spec = pull->have_job == action->job;
    bool have_weights = resident && have_spec &&
                        pull->have_version == coord_weights_name(action) + 1 && /* 0: none */
                        pull->have_values == coord_resident_weights_values(resident, action);
    cop_err e = evaluation
                    ? coord_evaluation_fill_lease(evaluation, action, pull, &reply)
                    : coord_resident_fill_lease(resident, action, have_weights, have_spec, &reply);
    if (e) {
        cop_message_fini(&reply);
        coord_reply_failure(request, e, "the coordinator is out of memory; try again");
        return; /* the lease expires, and the core leases the block again */
    }
    coord_session *s = coord_session_find(&server->access, action->worker);
    coord_share_lend(s, resident, &reply);
    cop_log(COP_LOG_DEBUG, "coordinator",
            "job %llu: step %llu, shards %u + %u, attempt %u: leased to %s",
            (unsigned long long)action->job, (unsigned long long)action->step, action->lease.first,
            action->lease.count, action->lease.attempt, s->name);
    cop_server_reply(request, &reply);
}

static void do_unload(coord_server *server, const coord_action *action) {
    coord_resident *resident = coord_resident_find(&server->engine, action->job);
    coord_evaluation *evaluation = coord_evaluation_find(&server->engine, action->job);
    if (evaluation) coord_evaluation_unload(evaluation);
    if (!resident) return;
    if (resident->update_running)
        resident->unload_wanted = true; /* the end of the update unloads the job */
    else
        coord_resident_fini(resident);
}

static void do_state(coord_server *server, const coord_action *action) {
    /* Without an API this is `coppice run`, which reports the end of its only job itself. */
    cop_log_level level = !server->engine.store || !server->api ? COP_LOG_DEBUG
                          : action->state == COORD_FAILED       ? COP_LOG_ERROR
                                                                : COP_LOG_INFO;
    char text[COORD_TEXT_MAX + 64], number[32];
    snprintf(text, sizeof text, "job %s: %s%s%s", cop_format_job(action->job, number),
             coord_state_name(action->state), action->text[0] ? ": " : "", action->text);
    const cop_log_kind kind = {.level = level,
                               .area = "coordinator",
                               .kind = (uint64_t)(uintptr_t)do_state,
                               .source = action->job};
    cop_log_one_of(&kind, text);
    if (server->engine.store && !coord_evaluation_find(&server->engine, action->job))
        coord_store_set_state(server->engine.store, action->job, action->state, action->text);
}

static void do_event(coord_server *server, const coord_action *action) {
    const cop_log_kind kind = {.level = action->ok ? COP_LOG_INFO : COP_LOG_WARN,
                               .area = "coordinator",
                               .kind = action->kind,
                               .source = action->identity ? action->identity : action->job};
    const bool written = cop_log_one_of(&kind, action->text);
    if (written && server->engine.store && !coord_evaluation_find(&server->engine, action->job))
        coord_store_add_event(server->engine.store, action->job, action->ok ? "info" : "warn",
                              action->text);
    if (server->engine.store && action->fingerprint)
        coord_store_set_fingerprint(server->engine.store, action->job, action->fingerprint);
}

/* Writes the metrics to the store. Training loss and error are means over samples. */
static void do_metrics(coord_server *server, const coord_action *action) {
    coord_store *store = server->engine.store;
    if (!store || !action->metrics.samples) return;
    const double loss = action->metrics.loss_sum / (double)action->metrics.samples;
    const coord_resident *resident = coord_resident_find(&server->engine, action->job);
    if (action->type == COORD_ACTION_METRICS)
        coord_store_add_step(store, action->job,
                             &(coord_store_step){.step = action->step,
                                                 .loss = loss,
                                                 .seconds = action->metrics.seconds});
    else if (action->type == COORD_ACTION_EPOCH && resident)
        coord_store_add_epoch(store, action->job,
                              &(coord_store_epoch){.step = action->step,
                                                   .epoch = (double)action->step /
                                                            (double)resident->job->steps_per_epoch,
                                                   .train_loss = loss,
                                                   .train_error = action->metrics.error});
    else if (resident)
        coord_store_add_evaluation(store, action->job,
                                   &(coord_store_evaluation){.step = action->step,
                                                             .part = resident->job->evaluate_on_test
                                                                         ? "test"
                                                                         : "validation",
                                                             .loss = loss,
                                                             .error = action->metrics.error,
                                                             .seconds = action->metrics.seconds});
}

/* Composes a message about a loss, gradient or output that is not finite, and fails the job with
 * it. */
static void do_diverged(coord_server *server, const coord_action *action) {
    COP_ASSERT(action->slot <= COORD_SLOTS_MAX);
    coord_resident *resident = coord_resident_find(&server->engine, action->job);
    cop_buffer *gradient = action->slot ? server->engine.slots[action->slot - 1].gradient : NULL;
    char text[256] = "the model has diverged: the loss is not finite";
    if (action->lease.ensemble)
        snprintf(text, sizeof text,
                 "the model has diverged: an output of members %u to %u on samples from %u is not "
                 "finite",
                 action->lease.member, action->lease.member + action->lease.members - 1,
                 action->lease.first);
    if (resident && !action->lease.ensemble)
        coord_resident_describe(resident, action, gradient, text, sizeof text);
    coord_release_slot(&server->engine, action->slot);
    const coord_event failed = {
        .type = COORD_EVENT_JOB_FAILED, .job = action->job, .step = action->step, .text = text};
    coord_dispatch(&server->engine, &failed);
}

static void do_disconnect(coord_server *server, const coord_action *action) {
    coord_session *s = coord_session_find(&server->access, action->worker);
    if (!s) return;
    const uint64_t work = s->connection[0], control = s->connection[1];
    coord_close_session(server, s);
    if (work) cop_server_disconnect(server->transport, work);
    if (control && control != work) cop_server_disconnect(server->transport, control);
}

void coord_carry_out(coord_engine *engine, const coord_action *action) {
    coord_server *server = coord_server_of(engine);
    switch (action->type) {
    case COORD_ACTION_LEASE:
        do_lease(server, action);
        break;
    case COORD_ACTION_NOTHING:
        do_nothing(server, action);
        break;
    case COORD_ACTION_KEEP:
        break; /* the slot keeps the gradient until the update */
    case COORD_ACTION_DROP:
        coord_release_slot(&server->engine, action->slot);
        break;
    case COORD_ACTION_LOAD:
        server->engine.listener->load(engine, action->job, action->step);
        break;
    case COORD_ACTION_ROLLBACK:
        server->engine.listener->rollback(engine, action->job, action->step);
        break;
    case COORD_ACTION_COMPUTE:
        coord_recompute(&server->engine, action);
        break;
    case COORD_ACTION_UNLOAD:
        do_unload(server, action);
        break;
    case COORD_ACTION_UPDATE: {
        coord_resident *resident = coord_resident_find(&server->engine, action->job);
        COP_ASSERT(resident != NULL);
        coord_resident_update(&server->engine, resident, action);
        break;
    }
    case COORD_ACTION_METRICS:
    case COORD_ACTION_EPOCH:
    case COORD_ACTION_EVALUATED:
        do_metrics(server, action);
        coord_engine_note(engine, action, NULL, "");
        break;
    case COORD_ACTION_CHECKPOINT: {
        coord_resident *resident = coord_resident_find(&server->engine, action->job);
        COP_ASSERT(resident != NULL);
        coord_saver_submit(&server->engine, resident, action);
        break;
    }
    case COORD_ACTION_ABSORB:
        coord_evaluation_absorb(&server->engine, action);
        break;
    case COORD_ACTION_STATE:
        do_state(server, action);
        coord_engine_note(engine, action, NULL, "");
        break;
    case COORD_ACTION_EVENT:
        do_event(server, action);
        break;
    case COORD_ACTION_DISCONNECT:
        do_disconnect(server, action);
        break;
    case COORD_ACTION_DIVERGED:
        do_diverged(server, action);
        break;
    case COORD_ACTION_STOPPED:
        uv_stop(&server->engine.loop);
        break;
    }
}
