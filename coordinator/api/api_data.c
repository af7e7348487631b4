/* Calls about data sets: LIST_DATA, OFFER_DATA, PUT_CHUNK, COMMIT_DATA, REMOVE_DATA. All of them
 * read or write files, so each runs as a task on the thread pool. See datasets.h. */
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

/* Describes the set for a client. The strings and the shape in *s belong to `set`. */
static void fill_info(const coord_dataset *set, Coppice__Api__DataSetInfo *s) {
    coppice__api__data_set_info__init(s);
    s->name = (char *)(uintptr_t)set->name;
    s->has_jobs = 1;
    s->jobs = set->jobs;
    if (!set->digest[0]) return; /* the set has not been read yet: nothing else is known of it */
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
    api_task_finish(t, COPPICE__API__METHOD__LIST_DATA, &answer.base); /* frees the sets, too */
    cop_free(infos);
    cop_free(table);
}

void api_list_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_run(api, request, message, list_work, list_done);
}

/* ---- uploads ---- */

static void offer_work(api_task *t) {
    const Coppice__Api__OfferDataRequest *r = (const Coppice__Api__OfferDataRequest *)t->message;
    const coord_offerer offerer = {
        .identity = coord_access_identity(t->request),
        .uploads_max =
            coord_access_share(t->api->access, COORD_UPLOADS_PER_IDENTITY, COORD_UPLOADS_MAX)};
    coord_offer_result offered;
    t->result = coord_datasets_offer(t->api->engine->datasets, r, &offerer, &offered, &t->error);
    t->extra = offered.missing;
    t->value = offered.count;
    t->complete = offered.complete;
}

static void offer_done(api_task *t) {
    Coppice__Api__OfferDataAnswer answer = COPPICE__API__OFFER_DATA_ANSWER__INIT;
    answer.has_complete = 1;
    answer.complete = t->complete;
    answer.missing = t->extra;
    answer.n_missing = t->value;
    api_task_finish(t, COPPICE__API__METHOD__OFFER_DATA, &answer.base);
}

void api_offer_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_run(api, request, message, offer_work, offer_done);
}

static void put_work(api_task *t) {
    const Coppice__Api__PutChunkRequest *r = (const Coppice__Api__PutChunkRequest *)t->message;
    const coord_chunk chunk = {
        .digest = r->digest ? r->digest : "", .index = r->index, .bytes = t->bulk_in};
    uint32_t missing = 0;
    t->result = coord_datasets_put(t->api->engine->datasets, &chunk, &missing, &t->error);
    t->value = missing;
}

static void put_done(api_task *t) {
    Coppice__Api__PutChunkAnswer answer = COPPICE__API__PUT_CHUNK_ANSWER__INIT;
    answer.has_missing = 1;
    answer.missing = (uint32_t)t->value;
    api_task_finish(t, COPPICE__API__METHOD__PUT_CHUNK, &answer.base);
}

void api_put_chunk(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_run(api, request, message, put_work, put_done);
}

/* Allocates the data set that the answer of the task describes. t->extra owns it. NULL: out of
 * memory; then t->result says so. */
static coord_dataset *make_set(api_task *t) {
    coord_dataset *set = t->extra = cop_alloc(sizeof *set);
    if (!set)
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    return set;
}

static void commit_work(api_task *t) {
    const Coppice__Api__CommitDataRequest *r = (const Coppice__Api__CommitDataRequest *)t->message;
    const coord_commit commit = {.digest = r->digest ? r->digest : "",
                                 .class_names = (const char *const *)r->class_names,
                                 .class_count = r->n_class_names};
    coord_dataset *set = make_set(t);
    if (set) t->result = coord_datasets_commit(t->api->engine->datasets, &commit, set, &t->error);
}

static void commit_done(api_task *t) {
    Coppice__Api__CommitDataAnswer answer = COPPICE__API__COMMIT_DATA_ANSWER__INIT;
    Coppice__Api__DataSetInfo info;
    if (!t->result) fill_info(t->extra, &info);
    answer.set = &info;
    api_task_finish(t, COPPICE__API__METHOD__COMMIT_DATA, &answer.base);
}

void api_commit_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_run(api, request, message, commit_work, commit_done);
}

/* ---- remove ---- */

static void remove_work(api_task *t) {
    const Coppice__Api__RemoveDataRequest *r = (const Coppice__Api__RemoveDataRequest *)t->message;
    const char *name = r->name_or_digest ? r->name_or_digest : "";
    coord_dataset *set = make_set(t);
    if (set) t->result = coord_datasets_remove(t->api->engine->datasets, name, set, &t->error);
}

static void remove_done(api_task *t) {
    Coppice__Api__RemoveDataAnswer answer = COPPICE__API__REMOVE_DATA_ANSWER__INIT;
    Coppice__Api__DataSetInfo info;
    if (!t->result) fill_info(t->extra, &info);
    answer.set = &info;
    api_task_finish(t, COPPICE__API__METHOD__REMOVE_DATA, &answer.base);
}

void api_remove_data(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_run(api, request, message, remove_work, remove_done);
}

/* ---- sets in memory ---- */

static void tidy_work(api_task *t) {
    coord_datasets_tidy(t->api->engine->datasets, t->value);
}

static void tidy_done(api_task *t) {
    COP_ASSERT(t->api->tidying);
    t->api->tidying = false;
    api_task_free(t);
}

void api_tidy_data(coord_api *api, uint64_t now_ns) {
    if (api->tidying || !coord_datasets_tidy_is_due(api->engine->datasets, now_ns)) return;
    api_task *t = api_task_create(api, NULL, NULL);
    if (!t) return; /* the next tick tries again */
    api->tidying = true;
    t->value = now_ns;
    api_task_start(t, tidy_work, tidy_done);
}
