/* What survives, as decisions without I/O (the simulator drives the same code): which writes of the
 * store must be on the disk before anything follows from them, what a stored job is after a
 * restart, and by which keys submissions are known, so that one is made once, however often its
 * request comes. Called by the store and the API; not by the core. */
#ifndef COP_COORDINATOR_RECOVERY_H
#define COP_COORDINATOR_RECOVERY_H

#include "coordinator/core/core.h"

#define COORD_KEY_SIZE 16 /* bytes of a submission's key */
#define COORD_KEYS     256

/* ---- the store's writes ---- */

/* What may happen to a record that the disk does not take. */
typedef enum recovery_need {
    RECOVERY_MAY_GO,    /* metrics and events: dropped when too many wait; written without fsync */
    RECOVERY_REFUSABLE, /* its caller waits: refused when too many wait, never dropped */
    RECOVERY_MUST_SURVIVE /* decides what a restart does: never dropped, on the disk by fsync */
} recovery_need;

/* X(kind, what it needs): each kind of record. */
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
    STORE_BARRIER = STORE_KINDS /* no row: somebody waits until all before it is on the disk */
} store_kind;

recovery_need recovery_need_of(store_kind kind);
/* Must it be on the disk when its transaction ends? Such writes survive a full disk's first
 * failure; metrics and events may lose their last moments with the machine's power. */
bool recovery_is_durable(store_kind kind, bool somebody_waits);
/* May one more of this kind wait, where `queued` wait already and `limit` metrics may? */
bool recovery_has_room(store_kind kind, uint32_t queued, uint32_t limit);

/* ---- jobs after a restart ---- */

/* Is a job that was stored in this state taken up again, and as what? */
bool recovery_takes_up(coord_job_state stored);
coord_job_state recovery_state(coord_job_state stored); /* QUEUED or PAUSED */

/* ---- keys of submissions: each stands from the first request until the job is on the disk, and
 * then for its number ---- */

typedef struct recovery_key {
    unsigned char key[COORD_KEY_SIZE];
    uint64_t job; /* 0: none yet, or a free place */
    bool pending;
    uint64_t repeat; /* host's handle of the newest repetition of a pending one; 0: none */
} recovery_key;

typedef struct recovery_keys {
    recovery_key keys[COORD_KEYS]; /* of the last submissions */
    uint32_t next;
} recovery_keys;

/* The place of a known key; NULL: it is new. */
recovery_key *recovery_find(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* A new one, pending, in the place of the oldest that is not; NULL: all are, which ends soon. */
recovery_key *recovery_claim(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* The submission ended: job 0 if it failed. The key is forgotten then, and may come again. */
void recovery_settle(recovery_key *key, uint64_t job);
/* At the start: the key of a stored job, newest first; more than COORD_KEYS are left out. After the
 * last, recovery_recalled: free places are the next to be claimed, then the oldest. */
void recovery_recall(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE], uint64_t job);
void recovery_recalled(recovery_keys *keys);

#endif
