/* The store, as coordinator/store/store_write.c keeps it in SQLite: writes are queued and committed
 * in batches, each completely or not at all. The real code decides which writes must be on the disk
 * (coordinator/core/recovery.h). SQLite is trusted: a commit that returned survives kill -9 and, if
 * it was synced, a loss of power, too. */
#include "sim/sim.h"

#include "common/base/alloc.h"
#include "coordinator/core/recovery.h"

#define BATCH_MS 100 /* how long metrics wait for a larger batch */
#define RETRY_MS 500 /* time from a failed commit to the next attempt */

static store_kind kind_of(const sim_write *w) {
    static const store_kind kinds[] = {[SIM_ADD_JOB] = STORE_ADD_JOB,
                                       [SIM_SET_STATE] = STORE_SET_STATE,
                                       [SIM_SET_FINGERPRINT] = STORE_SET_FINGERPRINT,
                                       [SIM_ADD_STEP] = STORE_ADD_STEP,
                                       [SIM_BARRIER] = STORE_BARRIER};
    return kinds[w->kind];
}

static bool is_durable(const sim_write *w) {
    return recovery_is_durable(kind_of(w), w->done || w->kind == SIM_BARRIER);
}

static void wake(sim *s, uint64_t delay) {
    s->store.wakes++;
    sim_post(s, delay,
             (sim_event){.kind = SIM_COMMIT, .life = s->host.life, .value = s->store.wakes});
}

static void answer_waiting(sim *s, sim_write *w, bool failed);

/* The real queue holds 16384 writes, more than these jobs have steps. To test a full queue, one
 * waiting write fills it in an eighth of the runs. */
bool sim_store_is_tight(const sim *s) {
    return sim_mix(s->options.seed, 0x71d7) % 8 == 0;
}

/* The queue is full, so this write is dropped. If somebody waits for it, they are told that it
 * failed. */
static void turn_away(sim *s, const sim_write *write) {
    sim_write w = *write;
    answer_waiting(s, &w, true);
}

void sim_store_write(sim *s, const sim_write *write) {
    sim_store *store = &s->store;
    const uint32_t limit = sim_store_is_tight(s) ? 1 : 1024;
    if (!recovery_has_room(kind_of(write), store->count, limit)) {
        turn_away(s, write);
        return;
    }
    if (store->count == store->capacity) {
        store->capacity = store->capacity ? store->capacity * 2 : 64;
        store->queue = cop_realloc(store->queue, store->capacity * sizeof *store->queue);
        COP_ASSERT(store->queue != NULL);
    }
    store->queue[store->count++] = *write;
    if (store->committing || store->retrying) return;
    if (is_durable(write))
        wake(s, 0);
    else if (store->count == 1)
        wake(s, BATCH_MS * SIM_MS);
}

static void apply(sim_store *store, const sim_write *w) {
    sim_row *row = &store->rows[w->job];
    switch (w->kind) {
    case SIM_ADD_JOB:
        *row = w->row;
        break;
    case SIM_SET_STATE:
        row->state = (coord_job_state)w->value;
        break;
    case SIM_SET_FINGERPRINT:
        row->fingerprint = w->value;
        break;
    case SIM_ADD_STEP:
        row->steps[w->value / 64] |= (uint64_t)1 << w->value % 64;
        break;
    case SIM_BARRIER:
        break;
    }
}

static bool any_durable(const sim_store *store) {
    for (uint32_t i = 0; i < store->committing; i++)
        if (is_durable(&store->queue[i])) return true;
    return false;
}

static void apply_batch(sim_store *store) {
    for (uint32_t i = 0; i < store->committing; i++) apply(store, &store->queue[i]);
    if (any_durable(store)) memcpy(store->synced, store->rows, sizeof store->rows);
}

static void begin(sim *s) {
    sim_store *store = &s->store;
    uint64_t takes;
    store->committing = store->count;
    store->batch_fails = !sim_disk_commit(s->disk, any_durable(store), &takes);
    wake(s, takes);
}

static void answer_waiting(sim *s, sim_write *w, bool failed) {
    if (w->kind == SIM_BARRIER) sim_saver_flushed(s, failed);
    if (!w->done) return;
    w->done->error = failed ? COP_ERR_NO_SPACE : COP_OK;
    sim_post(s, 0, (sim_event){.kind = SIM_TASK, .life = s->host.life, .message = w->done});
    w->done = NULL;
}

/* After a failed commit, drops the writes of the batch that somebody waits for, and reports their
 * failure. The others stay in the queue. */
static void drop_batch(sim *s) {
    sim_store *store = &s->store;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < store->count; i++) {
        sim_write *w = &store->queue[i];
        if (i >= store->committing || (!w->done && w->kind != SIM_BARRIER))
            store->queue[kept++] = *w;
        else
            answer_waiting(s, w, true);
    }
    store->count = kept;
}

static bool anybody_waits(const sim_store *store) {
    for (uint32_t i = 0; i < store->committing; i++)
        if (store->queue[i].done) return true;
    return false;
}

static void end(sim *s) {
    sim_store *store = &s->store;
    if (store->batch_fails) {
        drop_batch(s);
    } else {
        apply_batch(store);
        if (anybody_waits(store)) sim_host_die_within(s, &s->host.crash_commit, 3 * SIM_MS);
        for (uint32_t i = 0; i < store->committing; i++) answer_waiting(s, &store->queue[i], false);
        store->count -= store->committing;
        if (store->count)
            memmove(store->queue, store->queue + store->committing,
                    store->count * sizeof *store->queue);
    }
    store->retrying = store->batch_fails && store->count;
    store->committing = 0;
    if (store->retrying)
        wake(s, RETRY_MS * SIM_MS);
    else if (store->count)
        wake(s, 0);
}

void sim_store_commit(sim *s, uint64_t wake_number) {
    sim_store *store = &s->store;
    if (wake_number != store->wakes) return; /* a later wake-up has replaced this one */
    store->retrying = false;
    if (store->committing)
        end(s);
    else if (store->count)
        begin(s);
}

void sim_store_flush(sim *s) {
    sim_store *store = &s->store;
    uint64_t takes;
    store->committing = store->count;
    if (sim_disk_commit(s->disk, true, &takes)) apply_batch(store);
    store->count = store->committing = 0;
}

void sim_store_crash(sim *s, bool power) {
    sim_store *store = &s->store;
    /* A commit in progress may have succeeded without being reported. */
    if (!store->batch_fails && store->committing && sim_chance(&s->dice, 500)) apply_batch(store);
    if (power && sim_chance(&s->dice, 500)) memcpy(store->rows, store->synced, sizeof store->rows);
    memcpy(store->synced, store->rows, sizeof store->rows);
    store->count = store->committing = 0;
    store->retrying = false;
}
