/* The worker's decisions, without I/O: (event, now) -> one action. The agent talks to one
 * coordinator. It sends HELLO, then one PULL after another. Each PULL carries the result of the
 * last lease, if there is one. After a failed call the agent waits, longer after each failure in
 * succession. It sends HELLO again if the coordinator does not know this worker. The callers are
 * the agent thread of host.c, and tests with virtual time. */
#ifndef COP_WORKER_AGENT_H
#define COP_WORKER_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

typedef enum worker_state {
    WORKER_NOT_JOINED, /* no HELLO has been answered yet, or the coordinator forgot this worker */
    WORKER_JOINED,     /* the worker sends a PULL, or waits before the next PULL */
    WORKER_COMPUTING,
    WORKER_ENDED /* worker_agent_step must not be called again */
} worker_state;

typedef enum worker_event_type {
    WORKER_EVENT_START,
    WORKER_EVENT_WELCOME,  /* the coordinator has answered HELLO */
    WORKER_EVENT_LEASE,    /* the coordinator has answered a PULL with a lease */
    WORKER_EVENT_NOTHING,  /* it has answered a PULL, but without a lease; see the fields below */
    WORKER_EVENT_COMPUTED, /* the lease has been computed */
    WORKER_EVENT_FAILED,   /* a HELLO or a PULL has failed; see `error` below */
    WORKER_EVENT_WAITED    /* the wait of WORKER_ACTION_WAIT has passed */
} worker_event_type;

typedef struct worker_event {
    worker_event_type type;
    uint32_t retry_ms; /* NOTHING: wait this long before the next PULL; 0: do not wait */
    bool drain;        /* NOTHING: the coordinator asks this worker to leave the pool */
    bool unknown;      /* NOTHING: the coordinator does not know this worker */
    cop_err error;     /* FAILED: why the call failed; never OK */
} worker_event;

typedef enum worker_action_type {
    WORKER_ACTION_HELLO = 1, /* send HELLO */
    WORKER_ACTION_PULL,      /* send a PULL with the last result, if there is one, and `goodbye` */
    WORKER_ACTION_COMPUTE,   /* compute the lease that the last PULL brought */
    WORKER_ACTION_WAIT,      /* wait for wait_ms; then the next event is WAITED */
    WORKER_ACTION_END        /* the worker ends for the reason in `error`: OK after a drain */
} worker_action_type;

typedef struct worker_action {
    worker_action_type type;
    uint32_t wait_ms; /* WAIT: for how long */
    bool goodbye;     /* PULL: says that this worker accepts no more leases */
    bool drop_result; /* before the action, drop the result and all weights and jobs: they belong to
                         an earlier session */
    cop_err error;    /* END: why the worker ends; OK after a drain */
} worker_action;

typedef struct worker_agent {
    worker_state state;
    bool draining;            /* the worker is to leave after its lease */
    bool retry_forever;       /* see worker_agent_init */
    bool ever_joined;         /* a HELLO was answered at least once */
    uint32_t failures;        /* failed calls in succession */
    uint32_t join_timeout_ms; /* limit for the first join, from started_ns on; 0: no limit */
    uint64_t started_ns;
    uint64_t salt; /* a random number that varies the waits from worker to worker */
} worker_agent;

/* Prepares an agent that has not joined yet. The first event is START. join_timeout_ms limits the
 * first join; 0: no limit. An agent without retry_forever that has joined once ends after 3 failed
 * calls in succession. */
void worker_agent_init(worker_agent *agent, bool retry_forever, uint32_t join_timeout_ms,
                       uint64_t salt, uint64_t now_ns);
/* Takes one event and returns the next action. The caller carries the action out and reports its
 * outcome as the next event. Asserts that the event fits the state. `now_ns` never decreases. */
worker_action worker_agent_step(worker_agent *agent, const worker_event *event, uint64_t now_ns);
/* Makes the agent finish its lease and leave, for example after SIGTERM or at the coordinator's
 * request. Takes effect at the next call of worker_agent_step. A second call has no effect. */
void worker_agent_drain(worker_agent *agent);

#endif
