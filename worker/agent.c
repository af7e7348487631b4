/* The worker's decisions. See agent.h. */
#include "worker/agent.h"

#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/injected_bugs.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 2000
/* A worker without retry_forever that has joined once ends after this many failures in
 * succession. */
#define FAILURES_MAX 3

void worker_agent_init(worker_agent *agent, bool retry_forever, uint32_t join_timeout_ms,
                       uint64_t salt, uint64_t now_ns) {
    *agent = (worker_agent){.state = WORKER_NOT_JOINED,
                            .retry_forever = retry_forever,
                            .join_timeout_ms = join_timeout_ms,
                            .salt = salt,
                            .started_ns = now_ns};
}

void worker_agent_drain(worker_agent *agent) {
    agent->draining = true;
}

/* The wait after a failed call. It doubles with each failure from 50 ms up to 2 s. A random part
 * of up to a quarter is subtracted, so that a thousand workers do not call again at the same
 * moment. */
static uint32_t backoff_ms(const worker_agent *agent) {
    uint32_t shift = agent->failures < 7 ? agent->failures : 7;
    uint32_t full = BACKOFF_MIN_MS << (shift ? shift - 1 : 0);
    if (full > BACKOFF_MAX_MS) full = BACKOFF_MAX_MS;
    uint64_t mixed[2] = {agent->salt, agent->failures};
    COP_ASSERT(full >= BACKOFF_MIN_MS && full <= BACKOFF_MAX_MS);
    return full - (uint32_t)(cop_hash_xxh3(mixed, sizeof mixed) % (full / 4 + 1));
}

static worker_action end(worker_agent *agent, cop_err error) {
    agent->state = WORKER_ENDED;
    return (worker_action){.type = WORKER_ACTION_END, .error = error};
}

/* True: the coordinator refuses this worker, and another HELLO would be refused too. */
static bool is_refusal(cop_err error) {
    return error == COP_ERR_VERSION || error == COP_ERR_DENIED || error == COP_ERR_INPUT;
}

static worker_action on_failed(worker_agent *agent, const worker_event *event, uint64_t now_ns) {
    bool joined = agent->state != WORKER_NOT_JOINED;
    COP_ASSERT(event->error != COP_OK && agent->state != WORKER_COMPUTING);
    if (!joined && is_refusal(event->error)) return end(agent, event->error);
    if (agent->draining) return end(agent, COP_OK);
    bool gone = agent->ever_joined && agent->failures + 1 >= FAILURES_MAX;
    if (gone && !agent->retry_forever) return end(agent, event->error);
    bool overdue = agent->join_timeout_ms &&
                   now_ns - agent->started_ns >= (uint64_t)agent->join_timeout_ms * 1000000;
    if (!agent->ever_joined && overdue) return end(agent, event->error);
    agent->failures++;
    return (worker_action){.type = WORKER_ACTION_WAIT, .wait_ms = backoff_ms(agent)};
}

static worker_action pull(const worker_agent *agent) {
    COP_ASSERT(agent->state == WORKER_JOINED);
    return (worker_action){.type = WORKER_ACTION_PULL, .goodbye = agent->draining};
}

/* Waits as long as the coordinator asked, but at most COP_HOLD_MAX_MS, the longest time for which a
 * coordinator may hold a request. */
static worker_action wait_as_asked(uint32_t ms) {
    return (worker_action){.type = WORKER_ACTION_WAIT,
                           .wait_ms = ms < COP_HOLD_MAX_MS ? ms : COP_HOLD_MAX_MS};
}

worker_action worker_agent_step(worker_agent *agent, const worker_event *event, uint64_t now_ns) {
    COP_ASSERT(agent->state != WORKER_ENDED);
    switch (event->type) {
    case WORKER_EVENT_START:
        COP_ASSERT(agent->state == WORKER_NOT_JOINED && !agent->ever_joined);
        return (worker_action){.type = WORKER_ACTION_HELLO};
    case WORKER_EVENT_WELCOME:
        COP_ASSERT(agent->state == WORKER_NOT_JOINED);
        agent->state = WORKER_JOINED;
        agent->ever_joined = true;
        agent->failures = 0;
        return pull(agent);
    case WORKER_EVENT_LEASE:
        COP_ASSERT(agent->state == WORKER_JOINED);
        agent->state = WORKER_COMPUTING;
        agent->failures = 0;
        return (worker_action){.type = WORKER_ACTION_COMPUTE};
    case WORKER_EVENT_COMPUTED:
        COP_ASSERT(agent->state == WORKER_COMPUTING);
        agent->state = WORKER_JOINED;
        return pull(agent);
    case WORKER_EVENT_NOTHING:
        COP_ASSERT(agent->state == WORKER_JOINED);
        agent->failures = 0;
        if (COP_INJECT_BUG(NO_HELLO, event->unknown, false)) {
            /* The coordinator has restarted or has removed this worker, so it cannot use the
             * result. */
            agent->state = WORKER_NOT_JOINED;
            if (agent->draining) return end(agent, COP_OK);
            return (worker_action){.type = WORKER_ACTION_HELLO, .drop_result = true};
        }
        if (agent->draining && event->drain) return end(agent, COP_OK);
        if (event->drain) {
            agent->draining = true;
            return pull(agent); /* this PULL says goodbye, because the agent drains now */
        }
        if (event->retry_ms) return wait_as_asked(event->retry_ms);
        return pull(agent);
    case WORKER_EVENT_WAITED:
        COP_ASSERT(agent->state != WORKER_COMPUTING);
        if (agent->state == WORKER_NOT_JOINED && agent->draining) return end(agent, COP_OK);
        return agent->state == WORKER_NOT_JOINED ? (worker_action){.type = WORKER_ACTION_HELLO}
                                                 : pull(agent);
    case WORKER_EVENT_FAILED:
        return on_failed(agent, event, now_ns);
    }
    return end(agent, COP_ERR_INTERNAL);
}
