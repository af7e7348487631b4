/* The worker's decisions, sans-I/O: (event, now) -> one action. The agent talks to one coordinator:
 * HELLO, then PULL after PULL, each carrying the last result; it backs off when calls fail and says
 * HELLO again when the coordinator does not know it. */
#ifndef COP_WORKER_AGENT_H
#define COP_WORKER_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

typedef enum worker_state {
    WORKER_AWAY,
    WORKER_JOINED,
    WORKER_COMPUTING,
    WORKER_ENDED
} worker_state;

typedef enum worker_event_type {
    WORKER_EVENT_START,
    WORKER_EVENT_WELCOME, /* HELLO was answered */
    WORKER_EVENT_LEASE,   /* a PULL was answered by a lease */
    WORKER_EVENT_NOTHING, /* ... by nothing: retry_ms, drain, unknown */
    WORKER_EVENT_COMPUTED,
    WORKER_EVENT_FAILED, /* a call failed: error */
    WORKER_EVENT_WAITED  /* a wait has passed */
} worker_event_type;

typedef struct worker_event {
    worker_event_type type;
    uint32_t retry_ms;
    bool drain, unknown;
    cop_err error;
} worker_event;

typedef enum worker_action_type {
    WORKER_ACTION_HELLO = 1,
    WORKER_ACTION_PULL, /* with the last result, if there is one; goodbye: leave after it */
    WORKER_ACTION_COMPUTE,
    WORKER_ACTION_WAIT, /* wait_ms, then WAITED */
    WORKER_ACTION_END   /* error: why (OK after a drain) */
} worker_action_type;

typedef struct worker_action {
    worker_action_type type;
    uint32_t wait_ms;
    bool goodbye, drop_result;
    cop_err error;
} worker_action;

typedef struct worker_agent {
    worker_state state;
    bool draining, retry_forever, ever_joined;
    uint32_t failures;         /* calls that failed in a row */
    uint32_t join_timeout_ms;  /* 0: never gives up the first join */
    uint64_t started_ns, salt; /* salt: for the jitter of back-off */
} worker_agent;

void worker_agent_init(worker_agent *agent, bool retry_forever, uint32_t join_timeout_ms,
                       uint64_t salt, uint64_t now_ns);
worker_action worker_agent_step(worker_agent *agent, const worker_event *event, uint64_t now_ns);
/* Finish what is under way and leave (SIGTERM, the coordinator's wish). Takes effect at the next
 * step. */
void worker_agent_drain(worker_agent *agent);

#endif
