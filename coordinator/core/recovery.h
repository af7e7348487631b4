/* What survives a restart, as decisions without I/O (the simulator drives the same code):
 * - which of the store's writes may be dropped or refused, and which need fsync;
 * - which stored jobs continue after a restart;
 * - the keys of submissions: a request that a client repeats creates no second job.
 * Called by the store and the API, not by the core. */
#ifndef COP_COORDINATOR_RECOVERY_H
#define COP_COORDINATOR_RECOVERY_H

#include "coordinator/core/core.h"

#define COORD_KEY_SIZE 16 /* bytes of a submission's key */
#define COORD_KEYS     256

/* ---- the store's writes ---- */

/* What may happen to a record if the disk is full or slow. */
typedef enum recovery_need {
    RECOVERY_MAY_GO,    /* metrics and events: dropped when too many records wait to be written;
                           written without fsync */
    RECOVERY_REFUSABLE, /* somebody waits for the result: the write is refused when too many records
                           wait, but a record is never dropped later; written with fsync */
    RECOVERY_MUST_SURVIVE /* a restart depends on it: never refused, never dropped; written with
                             fsync */
} recovery_need;

/* X(kind, need) for each kind of record and its recovery_need. */
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
        STORE_KINDS /* not a record: somebody waits until all earlier records are on the disk */
} store_kind;

/* The need of a kind of record; RECOVERY_MUST_SURVIVE for STORE_BARRIER. */
recovery_need recovery_need_of(store_kind kind);
/* True: the record must be on the disk, by fsync, when its transaction ends. False only for metrics
 * and events for which nobody waits: a loss of power may cost the newest of them. */
bool recovery_is_durable(store_kind kind, bool somebody_waits);
/* True: one more record of this kind may wait to be written, although `queued` records of all kinds
 * wait already. By its need, this is true
 *  - for RECOVERY_MAY_GO if fewer than `limit` records wait;
 *  - for RECOVERY_REFUSABLE if fewer than 2 * `limit` records wait;
 *  - for RECOVERY_MUST_SURVIVE always. */
bool recovery_has_room(store_kind kind, uint32_t queued, uint32_t limit);

/* ---- jobs after a restart ---- */

/* Does a job that was stored in this state continue after a restart? */
bool recovery_takes_up(coord_job_state stored);
/* The state in which it continues: PAUSED if it was paused, else QUEUED. */
coord_job_state recovery_state(coord_job_state stored);

/* ---- keys of submissions ---- */

/* A key is pending from the first request that carries it until the job is on the disk. Then it is
 * kept with the job's number, to answer requests that are repeated later. */
typedef struct recovery_key {
    unsigned char key[COORD_KEY_SIZE];
    uint64_t job; /* 0: the key is pending, or the place is free */
    bool pending;
    uint64_t repeat; /* the host's handle of the newest repeated request while the key is pending;
                        0: none */
} recovery_key;

typedef struct recovery_keys {
    recovery_key keys[COORD_KEYS]; /* of the newest submissions */
    uint32_t next;                 /* the place to claim next, modulo COORD_KEYS */
} recovery_keys;

/* The place of a known key; NULL: the key is new. */
recovery_key *recovery_find(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* Stores a new, pending key in the place of the oldest key that is not pending. NULL: all keys are
 * pending, so the client must try again later. */
recovery_key *recovery_claim(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]);
/* Call when the submission of a pending key has ended, with the number of its job. job 0: it has
 * failed, so the key is forgotten, and a repeated request is a new submission. */
void recovery_set_job(recovery_key *key, uint64_t job);
/* At the start, call recovery_restore for the key of each stored job, the newest job first. It
 * ignores keys after the first COORD_KEYS. Then call recovery_restore_done once: from then on, new
 * keys get the free places first, and then the places of the oldest keys. */
void recovery_restore(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE], uint64_t job);
void recovery_restore_done(recovery_keys *keys);

#endif
