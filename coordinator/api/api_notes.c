/* The notes: what clients are shown of each job. The core's reports keep them up to date. A note
 * exists as long as its job. The table of notes is sorted by job number. See api.h. */
#include <math.h>
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/str.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

/* ---- the table ---- */

uint32_t api_note_place(const coord_api *api, uint64_t job) {
    uint32_t low = 0, high = api->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (api->notes[middle].job < job)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

api_note *api_note_find(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    return at < api->count && api->notes[at].job == job ? &api->notes[at] : NULL;
}

api_note *api_note_of(coord_api *api, cop_request *request, uint64_t job) {
    api_note *note = api_note_find(api, job);
    if (!note) api_unknown_job(request, job);
    return note;
}

api_note *api_note_append(coord_api *api, uint64_t job) {
    COP_ASSERT(job > 0);
    if (api->count == api->capacity) {
        uint32_t capacity = api->capacity ? api->capacity * 2 : 64;
        api_note *notes = cop_realloc(api->notes, capacity * sizeof *notes);
        if (!notes) return NULL;
        api->notes = notes;
        api->capacity = capacity;
    }
    api_note *n = &api->notes[api->count++];
    *n = (api_note){.job = job, .version = 1, .state = COORD_QUEUED};
    return n;
}

api_note *api_note_add(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    COP_ASSERT(at == api->count || api->notes[at].job != job);
    api_note *n = api_note_append(api, job);
    if (!n) return NULL;
    api_note added = *n;
    memmove(&api->notes[at + 1], &api->notes[at], (api->count - 1 - at) * sizeof *api->notes);
    api->notes[at] = added;
    return &api->notes[at];
}

void api_note_remove(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    if (at == api->count || api->notes[at].job != job) return;
    memmove(&api->notes[at], &api->notes[at + 1], (api->count - at - 1) * sizeof *api->notes);
    api->count--;
}

/* ---- failures about a job ---- */

void api_unknown_job(cop_request *request, uint64_t job) {
    coord_reply_failure(request, COP_ERR_NOT_FOUND,
                        "there is no job %llu (coppice jobs lists them)", (unsigned long long)job);
}

void api_not_completed(cop_request *request, const api_note *n) {
    if (n->evaluation) {
        char number[32];
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s is an evaluation and has no weights of its own",
                            cop_format_job(n->job, number));
        return;
    }
    coord_reply_failure(request, COP_ERR_INPUT,
                        "job %llu is %s and has no final weights%s: `coppice status %llu` "
                        "shows its newest evaluation, and `coppice export %llu` gets its "
                        "newest weights",
                        (unsigned long long)n->job, coord_state_name(n->state),
                        n->state < COORD_COMPLETED ? " yet" : "", (unsigned long long)n->job,
                        (unsigned long long)n->job);
}

/* ---- the status that clients see ---- */

const char *coord_state_name(coord_job_state state) {
    static const char *const names[] = {"?",         "QUEUED", "RUNNING", "PAUSED",
                                        "COMPLETED", "FAILED", "CANCELED"};
    return state >= COORD_QUEUED && state <= COORD_CANCELED ? names[state] : names[0];
}

static void status_leases(const coord_lease_counts *c, Coppice__Api__JobStatus *s) {
    s->has_leases_given = s->has_leases_repeated = s->has_leases_doubled = 1;
    s->leases_given = c->given;
    s->leases_repeated = c->repeated;
    s->leases_doubled = c->doubled;
    s->has_results_ignored = s->has_results_late = s->has_results_twice = s->has_results_stale = 1;
    s->results_ignored = c->late + c->twice + c->stale;
    s->results_late = c->late;
    s->results_twice = c->twice;
    s->results_stale = c->stale;
    s->has_blocks_audited = s->has_results_compared = s->has_results_disputed = 1;
    s->blocks_audited = c->audited;
    s->results_compared = c->compared;
    s->results_disputed = c->disputed;
    s->has_rollbacks = 1;
    s->rollbacks = c->rollbacks;
}

void api_status(coord_api *api, const api_note *n, Coppice__Api__JobStatus *s) {
    coord_job_view view;
    coppice__api__job_status__init(s);
    s->has_job = s->has_state = s->has_step = s->has_steps = s->has_seconds = s->has_priority = 1;
    s->has_epoch = !n->evaluation;
    s->job = n->job;
    s->name = (char *)(uintptr_t)n->name;
    s->owner = n->owner[0] ? (char *)(uintptr_t)n->owner : NULL;
    s->state = (Coppice__Api__State)n->state;
    s->step = n->step;
    s->steps = n->steps;
    s->epoch = n->steps_per_epoch ? (double)n->step / (double)n->steps_per_epoch : 0;
    s->seconds = n->seconds;
    s->priority = n->priority;
    s->has_train_loss = n->has_train_loss;
    s->train_loss = n->train_loss;
    s->has_test_loss = n->has_evaluation;
    s->has_test_error = n->has_evaluation && !isnan(n->test_error);
    s->test_error = n->test_error;
    s->test_loss = n->test_loss;
    if (n->has_evaluation)
        s->evaluated_on = (char *)(uintptr_t)(n->on_test ? "test" : "validation");
    s->digest = n->digest[0] ? (char *)(uintptr_t)n->digest : NULL;
    s->error = n->text[0] ? (char *)(uintptr_t)n->text : NULL;
    s->warning = n->warning[0] ? (char *)(uintptr_t)n->warning : NULL;
    s->created = (char *)(uintptr_t)n->created;
    s->finished = n->finished[0] ? (char *)(uintptr_t)n->finished : NULL;
    s->has_workers = 1;
    status_leases(&n->leases, s);
    s->has_samples_per_s = n->seconds > 0; /* the mean, unless the core knows the present speed */
    if (s->has_samples_per_s) s->samples_per_s = (double)n->step * n->batch / n->seconds;
    if (!coord_core_job(api->engine->core, n->job, cop_clock_ns(), &view)) return;
    s->workers = view.workers;
    s->has_eta_seconds = view.samples_per_s > 0;
    if (view.samples_per_s > 0) s->has_samples_per_s = 1, s->samples_per_s = view.samples_per_s;
    s->eta_seconds = view.eta_seconds;
    s->waiting_for = (char *)(uintptr_t)view.waiting_for;
}

/* ---- reports of the core ---- */

static void note_metrics(coord_api *api, api_note *n, const coord_action *a) {
    double samples = (double)a->metrics.samples;
    if (!a->metrics.samples) return;
    const double before = n->seconds;
    n->seconds = a->metrics.seconds;
    switch (a->type) {
    case COORD_ACTION_METRICS:
        n->step = a->step;
        api_totals_step(&api->totals, fmax(n->seconds - before, 0), a->metrics.samples);
        n->epoch_loss_sum += a->metrics.loss_sum;
        n->samples += a->metrics.samples;
        if (a->step <= n->steps_per_epoch) { /* in the first epoch, shows the mean so far */
            n->train_loss = n->epoch_loss_sum / (double)n->samples;
            n->has_train_loss = true;
        }
        break;
    case COORD_ACTION_EPOCH:
        n->train_loss = a->metrics.loss_sum / samples;
        n->has_train_loss = true;
        n->epoch_loss_sum = 0;
        n->samples = 0;
        break;
    case COORD_ACTION_EVALUATED:
        n->test_error = a->metrics.error;
        n->test_loss = a->metrics.loss_sum / samples;
        n->has_evaluation = true;
        n->evaluated_step = a->step;
        n->evaluated_samples = a->metrics.samples;
        break;
    default:
        break;
    }
}

/* Notes a change of state and adds it to the job's log. When the job ends, releases its data set,
 * which it no longer needs. */
static void note_state(coord_api *api, api_note *n, const coord_action *a) {
    char text[300];
    bool ends = a->state >= COORD_COMPLETED && n->state < COORD_COMPLETED;
    COP_ASSERT(a->state >= COORD_QUEUED && a->state <= COORD_CANCELED);
    n->state = a->state;
    if (n->evaluation && a->state == COORD_COMPLETED) n->step = n->steps;
    snprintf(n->text, sizeof n->text, "%s", a->text);
    snprintf(text, sizeof text, "%s%s%s", coord_state_name(a->state), a->text[0] ? ": " : "",
             a->text);
    if (!n->evaluation)
        coord_store_add_event(api->engine->store, n->job,
                              a->state == COORD_FAILED ? "error" : "info", text);
    n->finished[0] = '\0';
    if (a->state >= COORD_COMPLETED) cop_clock_format_utc(cop_clock_unix_ms(), n->finished);
    if (ends) coord_datasets_release(api->engine->datasets, n->data_digest);
}

void api_note_leases(coord_api *api, api_note *n) {
    coord_job_view view;
    if (!coord_core_job(api->engine->core, n->job, 0, &view)) return;
    api_totals_leases(&api->totals, &n->leases, &view.leases);
    n->leases = view.leases;
    if (!n->evaluation) return;
    n->step = view.blocks_done;
    n->steps = view.blocks;
}

void api_note_action(coord_engine *engine, const coord_action *a, const char *digest,
                     const char *warning) {
    coord_api *api = api_of(engine);
    api_note *n = api_note_find(api, a->job);
    if (!n) return;
    n->version++;
    api_note_leases(api, n);
    if (a->type == COORD_ACTION_STATE) {
        note_state(api, n, a);
    } else if (a->type == COORD_ACTION_CHECKPOINT) {
        if (digest) snprintf(n->digest, sizeof n->digest, "%s", digest);
        snprintf(n->warning, sizeof n->warning, "%s", warning);
        api->totals.checkpoints += digest != NULL;
        if (digest) api->totals.checkpoint_ms = (int64_t)cop_clock_unix_ms();
    } else {
        note_metrics(api, n, a);
    }
}

void coord_api_changed(coord_api *api, uint64_t job) {
    api_note *n = job ? api_note_find(api, job) : NULL;
    if (!n) return;
    n->version++;
    if (n->evaluation) api_note_leases(api, n);
}
