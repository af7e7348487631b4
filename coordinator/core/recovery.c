/* What survives a restart. See recovery.h. */
#include "coordinator/core/recovery.h"

#include <string.h>

#include "common/base/injected_bugs.h"

/* ---- the store's writes ---- */

recovery_need recovery_need_of(store_kind kind) {
    static const recovery_need needs[STORE_KINDS + 1] = {
#define X(kind, need) [kind] = need,
        STORE_KIND_TABLE(X)
#undef X
            [STORE_BARRIER] = RECOVERY_MUST_SURVIVE};
    COP_ASSERT(kind > STORE_NONE && kind <= STORE_BARRIER);
    return needs[kind];
}

bool recovery_is_durable(store_kind kind, bool somebody_waits) {
    if (COP_INJECT_BUG(UNSYNCED_JOB, false, kind == STORE_ADD_JOB)) return false;
    return somebody_waits || recovery_need_of(kind) != RECOVERY_MAY_GO;
}

bool recovery_has_room(store_kind kind, uint32_t queued, uint32_t limit) {
    if (COP_INJECT_BUG(DROP_PIN, false, kind == STORE_SET_FINGERPRINT)) return queued < limit;
    switch (recovery_need_of(kind)) {
    case RECOVERY_MUST_SURVIVE:
        return true;
    case RECOVERY_REFUSABLE:
        return queued < 2 * limit;
    default:
        return queued < limit;
    }
}

/* ---- jobs after a restart ---- */

bool recovery_takes_up(coord_job_state stored) {
    return stored < COORD_COMPLETED && COP_INJECT_BUG(FORGET_JOB, true, stored != COORD_QUEUED);
}

coord_job_state recovery_state(coord_job_state stored) {
    COP_ASSERT(recovery_takes_up(stored));
    return stored == COORD_PAUSED ? COORD_PAUSED : COORD_QUEUED;
}

/* ---- keys ---- */

recovery_key *recovery_find(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]) {
    for (uint32_t i = 0; i < COORD_KEYS; i++) {
        recovery_key *k = &keys->keys[i];
        if ((k->job || k->pending) && memcmp(k->key, key, COORD_KEY_SIZE) == 0) return k;
    }
    return NULL;
}

recovery_key *recovery_claim(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE]) {
    for (uint32_t i = 0; i < COORD_KEYS; i++) {
        recovery_key *k = &keys->keys[keys->next++ % COORD_KEYS];
        if (k->pending) continue;
        *k = (recovery_key){.pending = true};
        memcpy(k->key, key, COORD_KEY_SIZE);
        return k;
    }
    return NULL;
}

void recovery_set_job(recovery_key *key, uint64_t job) {
    COP_ASSERT(key->pending);
    key->pending = false;
    key->repeat = 0;
    key->job = job;
}

void recovery_restore(recovery_keys *keys, const unsigned char key[COORD_KEY_SIZE], uint64_t job) {
    if (COP_INJECT_BUG(FORGET_KEY, keys->next, COORD_KEYS) == COORD_KEYS) return;
    recovery_key *k = &keys->keys[COORD_KEYS - 1 - keys->next++];
    *k = (recovery_key){.job = job};
    memcpy(k->key, key, COORD_KEY_SIZE);
}

void recovery_restore_done(recovery_keys *keys) {
    keys->next = 0;
}
