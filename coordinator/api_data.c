/* Calls about data sets: list, offer, put, commit, remove. See datasets.h. */
#include <stdio.h>

#include "coordinator/api.h"

#include "common/base/alloc.h"
#include "common/wire/codec.h"

/* ---- list ---- */

typedef struct set_list {
    Coppice__Api__DataSetInfo info[256];
    char text[256][2][COP_NAME_MAX];
    Coppice__Api__DataSetInfo *table[256];
    size_t count;
    coord_server *server;
} set_list;

static uint32_t users_of(const coord_server *server, const char *digest) {
    uint32_t users = 0;
    for (uint32_t i = 0; i < server->api->count; i++) {
        const api_note *n = &server->api->notes[i];
        users += n->state < COORD_COMPLETED && strcmp(n->data_digest, digest) == 0;
    }
    return users;
}

static void list_one(void *context, const char *name, const char *digest, uint64_t bytes) {
    set_list *l = context;
    if (l->count == 256) return;
    Coppice__Api__DataSetInfo *s = l->table[l->count] = &l->info[l->count];
    coppice__api__data_set_info__init(s);
    snprintf(l->text[l->count][0], COP_NAME_MAX, "%s", name);
    snprintf(l->text[l->count][1], COP_NAME_MAX, "%s", digest);
    s->name = l->text[l->count][0];
    s->digest = l->text[l->count][1];
    s->has_bytes = s->has_jobs = 1;
    s->bytes = bytes;
    s->jobs = users_of(l->server, digest);
    l->count++;
}

void api_list_data(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    set_list *l = cop_alloc(sizeof *l);
    cop_proto_free(message);
    if (!l) {
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
        return;
    }
    l->server = server;
    coord_datasets_each(server->datasets, list_one, l);
    Coppice__Api__ListDataAnswer answer = COPPICE__API__LIST_DATA_ANSWER__INIT;
    answer.sets = l->table;
    answer.n_sets = l->count;
    api_answer(request, COPPICE__API__METHOD__LIST_DATA, &answer.base, NULL);
    cop_free(l);
}

/* ---- uploads: on the thread pool ---- */

static void start(coord_server *server, cop_request *request, ProtobufCMessage *message,
                  void (*work)(api_task *), void (*done)(api_task *)) {
    cop_buffer *bulk = cop_request_message(request)->part[1];
    api_task *t = api_task_create(server, request, message);
    if (!t) return;
    t->bulk = bulk ? cop_buffer_hold(bulk) : NULL;
    t->work = work;
    t->done = done;
    api_task_start(t);
}

static void offer_work(api_task *t) {
    bool complete = false;
    size_t count = 0;
    t->result = coord_datasets_offer(t->server->datasets,
                                     (const Coppice__Api__OfferDataRequest *)t->message, &complete,
                                     (uint32_t **)&t->extra, &count, &t->error);
    t->value = count;
    t->job = complete;
}

static void offer_done(api_task *t) {
    Coppice__Api__OfferDataAnswer answer = COPPICE__API__OFFER_DATA_ANSWER__INIT;
    answer.has_complete = 1;
    answer.complete = t->job != 0;
    answer.missing = t->extra;
    answer.n_missing = t->value;
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else
        api_answer(t->request, COPPICE__API__METHOD__OFFER_DATA, &answer.base, NULL);
    api_task_free(t);
}

void api_offer_data(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    start(server, request, message, offer_work, offer_done);
}

static void put_work(api_task *t) {
    const Coppice__Api__PutChunkRequest *r = (const Coppice__Api__PutChunkRequest *)t->message;
    t->result = coord_datasets_put(t->server->datasets, r->digest ? r->digest : "", r->index,
                                   t->bulk, &t->error);
}

static void put_done(api_task *t) {
    Coppice__Api__PutChunkAnswer answer = COPPICE__API__PUT_CHUNK_ANSWER__INIT;
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else
        api_answer(t->request, COPPICE__API__METHOD__PUT_CHUNK, &answer.base, NULL);
    api_task_free(t);
}

void api_put_chunk(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    start(server, request, message, put_work, put_done);
}

static void commit_work(api_task *t) {
    const Coppice__Api__CommitDataRequest *r = (const Coppice__Api__CommitDataRequest *)t->message;
    t->result = coord_datasets_commit(t->server->datasets, r->digest ? r->digest : "", &t->error);
}

static void commit_done(api_task *t) {
    Coppice__Api__CommitDataAnswer answer = COPPICE__API__COMMIT_DATA_ANSWER__INIT;
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else
        api_answer(t->request, COPPICE__API__METHOD__COMMIT_DATA, &answer.base, NULL);
    api_task_free(t);
}

void api_commit_data(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    start(server, request, message, commit_work, commit_done);
}

/* ---- remove ---- */

typedef struct use_check {
    const char *wanted;
    const coord_server *server;
    uint32_t users;
} use_check;

static void check_use(void *context, const char *name, const char *digest, uint64_t bytes) {
    use_check *u = context;
    (void)bytes;
    if (strcmp(name, u->wanted) == 0 || strcmp(digest, u->wanted) == 0)
        u->users += users_of(u->server, digest);
}

void api_remove_data(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__RemoveDataRequest *r = (const Coppice__Api__RemoveDataRequest *)message;
    use_check u = {.wanted = r->name_or_digest ? r->name_or_digest : "", .server = server};
    char digest[65];
    cop_error error = {0};
    coord_datasets_each(server->datasets, check_use, &u);
    cop_err e = u.users ? cop_fail(&error, COP_ERR_BUSY,
                                   "data set %s is in use by %u unfinished jobs", u.wanted, u.users)
                        : coord_datasets_remove(server->datasets, u.wanted, digest, &error);
    Coppice__Api__RemoveDataAnswer answer = COPPICE__API__REMOVE_DATA_ANSWER__INIT;
    if (e)
        api_fail(request, &error, e);
    else
        api_answer(request, COPPICE__API__METHOD__REMOVE_DATA, &answer.base, NULL);
    cop_proto_free(message);
}
