/* The worker's decisions, without I/O: (event, now) -> one action. The agent talks to one
 * coordinator. It sends HELLO, then one PULL after another; each PULL carries the last result.
 * After a failed call it waits, longer each time. It sends HELLO again if the coordinator does not
 * know it. The caller is the agent thread of host.c, and tests with virtual time. */
#ifndef COP_WORKER_AGENT_H
#define COP_WORKER_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

typedef enum worker_state {
    WORKER_NOT_JOINED, /* no HELLO was answered, or the coordinator forgot this worker */
    WORKER_JOINED,     /* a PULL is in progress, or the wait before one */
    WORKER_COMPUTING,
    WORKER_ENDED /* no event may follow */
} worker_state;

typedef enum worker_event_type {
    WORKER_EVENT_START,
    WORKER_EVENT_WELCOME, /* answer to HELLO */
    WORKER_EVENT_LEASE,   /* answer to a PULL: a lease */
    WORKER_EVENT_NOTHING, /* answer to a PULL: no lease (retry_ms, drain, unknown) */
    WORKER_EVENT_COMPUTED,
    WORKER_EVENT_FAILED, /* a call failed: error */
    WORKER_EVENT_WAITED  /* a wait has passed */
} worker_event_type;

typedef struct worker_event {
    worker_event_type type;
    uint32_t retry_ms;   /* NOTHING: wait this long before the next PULL; 0: do not wait */
    bool drain, unknown; /* NOTHING: leave the pool; the coordinator does not know this worker */
    cop_err error;       /* FAILED: the reason, not OK */
} worker_event;

typedef enum worker_action_type {
    WORKER_ACTION_HELLO = 1,
    WORKER_ACTION_PULL, /* with the last result, if any; goodbye: then leave */
    WORKER_ACTION_COMPUTE,
    WORKER_ACTION_WAIT, /* for wait_ms, then send the event WAITED */
    WORKER_ACTION_END   /* error: the reason (OK after a drain) */
} worker_action_type;

typedef struct worker_action {
    worker_action_type type;
    uint32_t wait_ms;
    bool goodbye;     /* PULL: accept no more leases */
    bool drop_result; /* first drop the result, and all weights and jobs: they belong to another
                         session */
    cop_err error;
} worker_action;

typedef struct worker_agent {
    worker_state state;
    bool draining, retry_forever, ever_joined;
    uint32_t failures;         /* failed calls in succession */
    uint32_t join_timeout_ms;  /* 0: no limit for the first join */
    uint64_t started_ns, salt; /* salt: for the jitter of the waits */
} worker_agent;

/* Prepares an agent that has not joined yet. The first event is START. join_timeout_ms limits the
 * first join; 0: no limit. Without retry_forever, the agent ends after a few consecutive failures
 * once it has joined. */
void worker_agent_init(worker_agent *agent, bool retry_forever, uint32_t join_timeout_ms,
                       uint64_t salt, uint64_t now_ns);
/* Takes one event and returns the next action. The caller carries the action out and reports its
 * outcome as the next event. Asserts that the event fits the state. `now_ns` never decreases. */
worker_action worker_agent_step(worker_agent *agent, const worker_event *event, uint64_t now_ns);
/* Makes the agent finish its lease and leave, after SIGTERM or at the coordinator's request. Takes
 * effect at the next step. Calling it again has no effect. */
void worker_agent_drain(worker_agent *agent);

#endif
