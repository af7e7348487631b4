/* The call HISTORY: sends the figures of a job over time. A task on the thread pool reads them from
 * the store. See api.h. */
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "coordinator/api/api.h"
#include "coordinator/coordinator.h"

static void history_work(api_task *t) {
    const Coppice__Api__HistoryRequest *r = (const Coppice__Api__HistoryRequest *)t->message;
    coord_history *history = t->extra = cop_alloc(sizeof *history);
    const coord_history_range range = {
        .job = r->job, .after = r->after, .limit = r->steps ? COORD_HISTORY_PAGE : 0};
    if (!r->job || r->after > INT64_MAX)
        t->result = cop_fail(&t->error, COP_ERR_INPUT, "expected a job's number and a step");
    else
        t->result =
            history ? coord_history_read(t->folder, &range, history, &t->error)
                    : cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
}

/* Converts rows to the points of an answer. Returns an array of pointers to the points. The points
 * follow the array in the same block of memory (cop_free). NULL: out of memory. */
static Coppice__Api__HistoryPoint **make_points(const coord_figure *rows, size_t count) {
    const size_t pointers = cop_align_up(count * sizeof(void *), 16);
    char *block = cop_alloc(pointers + count * sizeof(Coppice__Api__HistoryPoint) + 16);
    if (!block) return NULL;
    Coppice__Api__HistoryPoint **table = (void *)block;
    Coppice__Api__HistoryPoint *points = (void *)(block + pointers);
    for (size_t i = 0; i < count; i++) {
        coppice__api__history_point__init(&points[i]);
        points[i].has_step = points[i].has_loss = 1;
        points[i].has_error = rows[i].has_error;
        points[i].step = rows[i].step;
        points[i].loss = rows[i].loss;
        points[i].error = rows[i].error;
        points[i].has_seconds = rows[i].has_seconds;
        points[i].seconds = rows[i].seconds;
        table[i] = &points[i];
    }
    return table;
}

static void history_done(api_task *t) {
    const Coppice__Api__HistoryRequest *r = (const Coppice__Api__HistoryRequest *)t->message;
    coord_history none = {0}, *history = t->extra ? t->extra : &none;
    const api_note *note = api_note_find(t->api, r->job);
    Coppice__Api__HistoryAnswer answer = COPPICE__API__HISTORY_ANSWER__INIT;
    Coppice__Api__HistoryPoint **train = make_points(history->train, history->train_count);
    Coppice__Api__HistoryPoint **evaluations =
        make_points(history->evaluations, history->evaluation_count);
    Coppice__Api__HistoryPoint **steps = make_points(history->steps, history->step_count);
    if (!t->result && (!train || !evaluations || !steps))
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    answer.name = note ? (char *)(uintptr_t)note->name : NULL;
    answer.on = (char *)(uintptr_t)(history->on_test ? "test" : "validation");
    answer.train = train;
    answer.n_train = history->train_count;
    answer.evaluations = evaluations;
    answer.n_evaluations = history->evaluation_count;
    answer.steps = steps;
    answer.n_steps = history->step_count;
    /* api_task_finish frees t->extra, but not the arrays in it: the copy is needed to free them. */
    coord_history figures = *history;
    api_task_finish(t, COPPICE__API__METHOD__HISTORY, &answer.base);
    coord_history_fini(&figures);
    cop_free(train);
    cop_free(evaluations);
    cop_free(steps);
}

void api_history(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__HistoryRequest *r = (const Coppice__Api__HistoryRequest *)message;
    if (!api_note_of(api, request, r->job)) {
        cop_proto_free(message);
        return;
    }
    api_task *t = api_task_create(api, request, message);
    if (!t) return;
    snprintf(t->folder, sizeof t->folder, "%.4000s/store.sqlite", api->engine->state_folder);
    api_task_start(t, history_work, history_done);
}
