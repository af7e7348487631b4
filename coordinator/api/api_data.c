/* Calls about data sets: list, offer, put, commit, remove. Each touches files, so each is a task on
 * the thread pool. See datasets.h. */
#include <stdio.h>

#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

#include "common/base/alloc.h"
#include "common/wire/codec.h"

static void start(coord_api *api, cop_request *request, ProtobufCMessage *message,
                  void (*work)(api_task *), void (*done)(api_task *)) {
    cop_buffer *bulk = cop_request_message(request)->part[COP_PART_BULK];
    api_task *t = api_task_create(api, request, message);
    if (!t) return;
    t->bulk = bulk ? cop_buffer_hold(bulk) : NULL;
    t->work = work;
    t->done = done;
    api_task_start(t);
}

/* The end of a task: its failure, or this answer. */
static void finish(api_task *t, uint32_t method, const ProtobufCMessage *answer) {
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else
        api_answer(t->request, method, answer, NULL);
    api_task_free(t);
}

/* Borrows from `set`. */
static void fill_info(const coord_dataset *set, Coppice__Api__DataSetInfo *s) {
    coppice__api__data_set_info__init(s);
    s->name = (char *)(uintptr_t)set->name;
    s->has_jobs = 1;
    s->jobs = set->jobs;
    if (!set->digest[0]) return; /* offered, not read yet */
    s->digest = (char *)(uintptr_t)set->digest;
    s->has_bytes = s->has_train = s->has_test = s->has_classes = 1;
    s->bytes = set->bytes;
    s->train = set->train;
    s->test = set->test;
    s->classes = set->classes;
    s->shape = (uint32_t *)(uintptr_t)set->shape;
    s->n_shape = set->rank;
}

/* ---- list ---- */

static void list_work(api_task *t) {
    coord_dataset *sets = NULL;
    size_t count = 0;
    t->result = coord_datasets_list(t->api->engine->datasets, &sets, &count, &t->error);
    t->extra = sets;
    t->value = count;
}

static void list_done(api_task *t) {
    const coord_dataset *sets = t->extra;
    size_t count = t->value;
    Coppice__Api__ListDataAnswer answer = COPPICE__API__LIST_DATA_ANSWER__INIT;
    Coppice__Api__DataSetInfo *infos = cop_alloc_array(count + 1, sizeof *infos);
    Coppice__Api__DataSetInfo **table = cop_alloc_array(count + 1, sizeof *table);
    if (!t->result && (!infos || !table)) t->result = COP_ERR_NO_MEMORY;
    for (size_t i = 0; !t->result && i < count; i++) {
        table[i] = &infos[i];
        fill_info(&sets[i], table[i]);
    }
    answer.sets = table;
    answer.n_sets = count;
    finish(t, COPPICE__API__METHOD__LIST_DATA, &answer.base);
    cop_free(infos);
    cop_free(table);
}

void api_list_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    start(api, request, message, list_work, list_done);
}

/* ---- uploads ---- */

static void offer_work(api_task *t) {
    const Coppice__Api__OfferDataRequest *r = (const Coppice__Api__OfferDataRequest *)t->message;
    bool complete = false;
    uint32_t *missing = NULL;
    size_t count = 0;
    const coord_offerer who = {.owner = coord_access_identity(t->request),
                               .uploads = coord_access_share(
                                   t->api->access, COORD_UPLOADS_PER_IDENTITY, COORD_UPLOADS_MAX)};
    t->result = coord_datasets_offer(t->api->engine->datasets, r, &who, &complete, &missing, &count,
                                     &t->error);
    t->extra = missing;
    t->value = count;
    t->job = complete;
}

static void offer_done(api_task *t) {
    Coppice__Api__OfferDataAnswer answer = COPPICE__API__OFFER_DATA_ANSWER__INIT;
    answer.has_complete = 1;
    answer.complete = t->job != 0;
    answer.missing = t->extra;
    answer.n_missing = t->value;
    finish(t, COPPICE__API__METHOD__OFFER_DATA, &answer.base);
}

void api_offer_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    start(api, request, message, offer_work, offer_done);
}

static void put_work(api_task *t) {
    const Coppice__Api__PutChunkRequest *r = (const Coppice__Api__PutChunkRequest *)t->message;
    uint32_t missing = 0;
    t->result = coord_datasets_put(t->api->engine->datasets, r->digest ? r->digest : "", r->index,
                                   t->bulk, &missing, &t->error);
    t->value = missing;
}

static void put_done(api_task *t) {
    Coppice__Api__PutChunkAnswer answer = COPPICE__API__PUT_CHUNK_ANSWER__INIT;
    answer.has_missing = 1;
    answer.missing = (uint32_t)t->value;
    finish(t, COPPICE__API__METHOD__PUT_CHUNK, &answer.base);
}

void api_put_chunk(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    start(api, request, message, put_work, put_done);
}

static void commit_work(api_task *t) {
    const Coppice__Api__CommitDataRequest *r = (const Coppice__Api__CommitDataRequest *)t->message;
    coord_dataset *set = t->extra = cop_alloc(sizeof *set);
    if (!set)
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    else
        t->result = coord_datasets_commit(t->api->engine->datasets, r->digest ? r->digest : "",
                                          (const char *const *)r->class_names, r->n_class_names,
                                          set, &t->error);
}

static void commit_done(api_task *t) {
    Coppice__Api__CommitDataAnswer answer = COPPICE__API__COMMIT_DATA_ANSWER__INIT;
    Coppice__Api__DataSetInfo info;
    if (!t->result) fill_info(t->extra, &info);
    answer.set = &info;
    finish(t, COPPICE__API__METHOD__COMMIT_DATA, &answer.base);
}

void api_commit_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    start(api, request, message, commit_work, commit_done);
}

/* ---- remove ---- */

static void remove_work(api_task *t) {
    const Coppice__Api__RemoveDataRequest *r = (const Coppice__Api__RemoveDataRequest *)t->message;
    coord_dataset *set = t->extra = cop_alloc(sizeof *set);
    if (!set)
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    else
        t->result = coord_datasets_remove(
            t->api->engine->datasets, r->name_or_digest ? r->name_or_digest : "", set, &t->error);
}

static void remove_done(api_task *t) {
    Coppice__Api__RemoveDataAnswer answer = COPPICE__API__REMOVE_DATA_ANSWER__INIT;
    Coppice__Api__DataSetInfo info;
    if (!t->result) fill_info(t->extra, &info);
    answer.set = &info;
    finish(t, COPPICE__API__METHOD__REMOVE_DATA, &answer.base);
}

void api_remove_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    start(api, request, message, remove_work, remove_done);
}

/* ---- sets in memory ---- */

static void tidy_work(api_task *t) {
    coord_datasets_tidy(t->api->engine->datasets, t->value);
}

static void tidy_done(api_task *t) {
    t->api->tidying = false;
    api_task_free(t);
}

void api_tidy_data(coord_api *api, uint64_t now_ns) {
    if (api->tidying || !coord_datasets_tidy_is_due(api->engine->datasets, now_ns)) return;
    api_task *t = api_task_create(api, NULL, NULL);
    if (!t) return; /* next time */
    api->tidying = true;
    t->value = now_ns;
    t->work = tidy_work;
    t->done = tidy_done;
    api_task_start(t);
}
