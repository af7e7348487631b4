/* What survives a restart, as decisions without I/O (the simulator drives the same code): which of
 * the store's writes must be on the disk before anything follows from them; what becomes of a
 * stored job; and the keys of submissions, by which a repeated request creates no second job.
 * Called by the store and the API, not by the core. */
#ifndef COP_COORDINATOR_RECOVERY_H
#define COP_COORDINATOR_RECOVERY_H

#include "coordinator/core/core.h"

#define COORD_KEY_SIZE 16 /* bytes of a submission's key */
#define COORD_KEYS     256

/* ---- the store's writes ---- */

/* What may happen to a record if the disk does not take it. */
typedef enum recovery_need {
    RECOVERY_MAY_GO,    /* metrics and events: dropped when too many wait; written without fsync */
    RECOVERY_REFUSABLE, /* its caller waits: refused when too many wait, never dropped */
    RECOVERY_MUST_SURVIVE /* a restart depends on it: never dropped, written with fsync */
} recovery_need;

/* X(kind, its need): each kind of record. */
#define STORE_KIND_TABLE(X)                                                                        \
    X(STORE_ADD_JOB, RECOVERY_REFUSABLE)                                                           \
    X(STORE_SET_STATE, RECOVERY_MUST_SURVIVE)                                                      \
    X(STORE_SET_DIGEST, RECOVERY_MUST_SURVIVE)                                                     \
    X(STORE_SET_FINGERPRINT, RECOVERY_MUST_SURVIVE)                                                \
    X(STORE_ADD_STEP, RECOVERY_MAY_GO)                                                             \
    X(STORE_ADD_EPOCH, RECOVERY_MAY_GO)                                                            \
    X(STORE_ADD_EVALUATION, RECOVERY_MAY_GO)                                                       \
    X(STORE_ADD_EVENT, RECOVERY_MAY_GO)                                                            \
    X(STORE_REMOVE_JOB, RECOVERY_MUST_SURVIVE)                                                     \
    X(STORE_KEEP_EVALUATION, RECOVERY_MUST_SURVIVE)                                                \
    X(STORE_PUT_SET, RECOVERY_REFUSABLE)                                                           \
    X(STORE_REMOVE_SET, RECOVERY_REFUSABLE)

typedef enum store_kind {
    STORE_NONE,
#define X(kind, need) kind,
    STORE_KIND_TABLE(X)
#undef X
        STORE_KINDS,
    STORE_BARRIER =
        STORE_KINDS /* not a record: somebody waits until all before it is on the disk */
} store_kind;

recovery_need recovery_need_of(store_kind kind);
/* Must it be on the disk when its transaction ends? Such writes survive the first failure of a full
 * disk. A loss of power may cost the last moments of metrics and events. */
bool recovery_is_durable(store_kind kind, bool somebody_waits);
/* May one more record of this kind wait, where `queued` wait already and up to `limit` metrics may?
 */
bool recovery_has_room(store_kind kind, uint32_t queued, uint32_t limit);

/* ---- jobs after a restart ---- */

/* Does a job that was stored in this state continue after a restart, and in which state? */
bool recovery_takes_up(coord_job_state stored);
coord_job_state recovery_state(coord_job_state stored); /* QUEUED or PAUSED */

/* ---- keys of submissions: each is kept from the first request until its job is on the disk, and
 * then for the job's number ---- */

typedef struct recovery_key {
    unsigned char key[COORD_KEY_SIZE];
    uint64_t job; /* 0: none yet, or a free place */
    bool pending;
    uint64_t repeat; /* the host's handle of the newest repeated request while pending; 0: none */
} recovery_key;

typedef struct recovery_keys {
    recovery_key keys[COORD_KEYS]; /* of the newest submissions */
    uint32_t next;
} recovery_keys;

/* The place of a known key; NULL: it is new. */
recovery_key *recovery_find(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* A new, pending key, in the place of the oldest that is not pending; NULL: all are, try again. */
recovery_key *recovery_claim(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* The submission ended; job 0: it failed, so its key is forgotten and may come again. */
void recovery_settle(recovery_key *key, uint64_t job);
/* Call at the start for the keys of stored jobs, newest first; more than COORD_KEYS are ignored.
 * Call recovery_recalled at the end: free places are the next to be claimed, then the oldest. */
void recovery_recall(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE], uint64_t job);
void recovery_recalled(recovery_keys *keys);

#endif
