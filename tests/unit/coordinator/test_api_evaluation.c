/* Invalid calls about evaluations, which our client never makes. The coordinator refuses each with
 * a message, and mistakes none for a valid call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/net/net.h"
#include "common/wire/codec.h"
#include "coordinator/api/api.h"
#include "coordinator/coordinator.h"
#include "coordinator/engine/evaluation.h"
#include "proto/api.pb-c.h"

typedef struct fixture {
    char folder[64];
    coord_server *server;
    cop_link *link;
} fixture;

static int group_setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    cop_error error = {0};
    coord_config config = {.state = f->folder};
    strcpy(f->folder, "/tmp/coppice-api-XXXXXX");
    if (!mkdtemp(f->folder)) return -1;
    cop_log_configure(COP_LOG_ERROR, false);
    cop_err e = cop_kernels_choose(&config.kernels, &error);
    if (!e) e = coord_start(&config, &f->server, &error);
    if (!e) e = cop_link_open_local(coord_transport(f->server), &f->link, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    *state = f;
    return e ? -1 : 0;
}

static int group_teardown(void **state) {
    fixture *f = *state;
    cop_link_close(f->link);
    coord_stop(f->server);
    cop_folder_remove(f->folder, NULL);
    free(f);
    return 0;
}

static void expect(const fixture *f, Coppice__Api__Method method, const ProtobufCMessage *request,
                   cop_err code, const char *part) {
    cop_message call = {.type = COP_MESSAGE_CALL}, reply = {0};
    cop_error error = {0};
    call.call.method = (uint32_t)method;
    call.call.major = COP_PROTOCOL_MAJOR;
    call.call.minor = COP_PROTOCOL_MINOR;
    snprintf(call.call.token, sizeof call.call.token, "%s", coord_token(f->server));
    call.part[COP_PART_BODY] = cop_proto_pack(request);
    assert_int_equal(cop_link_call(f->link, &call, &reply, 5000, &error), code);
    if (!strstr(error.text, part)) fail_msg("\"%s\" does not say \"%s\"", error.text, part);
}

static uint8_t key[17] = "0123456789abcdef";

typedef Coppice__Api__StartEvaluationRequest start_request;

/* A valid request about a missing job. */
static start_request good(uint64_t *jobs, uint32_t *counts) {
    start_request r = COPPICE__API__START_EVALUATION_REQUEST__INIT;
    r.has_key = 1;
    r.key = (ProtobufCBinaryData){.len = 16, .data = key};
    r.jobs = jobs;
    r.n_jobs = 1;
    r.counts = counts;
    r.n_counts = 2;
    r.average = (char *)(uintptr_t)"arithmetic";
    return r;
}

static void expect_start(const fixture *f, const start_request *r, cop_err code, const char *part) {
    expect(f, COPPICE__API__METHOD__START_EVALUATION, &r->base, code, part);
}

static void test_invalid_evaluation_request_is_refused(void **state) {
    const fixture *f = *state;
    uint64_t jobs[65] = {7, 8};
    uint32_t counts[33] = {1, 5};
    start_request r = good(jobs, counts);
    expect_start(f, &r, COP_ERR_NOT_FOUND, "there is no job 7");
    r.n_jobs = 0;
    expect_start(f, &r, COP_ERR_INPUT, "expected 1 to 64 jobs");
    r.n_jobs = 65;
    expect_start(f, &r, COP_ERR_INPUT, "expected 1 to 64 jobs");
    r.n_jobs = 2;
    expect_start(f, &r, COP_ERR_INPUT, "several jobs require `models`");
    r.has_models = r.models = 1;
    expect_start(f, &r, COP_ERR_INPUT, "fewer models than members");
    r.average = (char *)(uintptr_t)"weight-scaling";
    expect_start(f, &r, COP_ERR_INPUT, "models require an average of members");
    r = good(jobs, counts);
    r.average = (char *)(uintptr_t)"harmonic";
    expect_start(f, &r, COP_ERR_INPUT, "unknown average");
    r.average = NULL;
    expect_start(f, &r, COP_ERR_INPUT, "counts require an average");
    r.average = (char *)(uintptr_t)"weight-scaling";
    expect_start(f, &r, COP_ERR_INPUT, "counts require an average");
}

static void test_member_counts_must_ascend_within_limits(void **state) {
    const fixture *f = *state;
    uint64_t jobs[1] = {7};
    uint32_t counts[33] = {1, 5};
    start_request r = good(jobs, counts);
    r.n_counts = 0;
    expect_start(f, &r, COP_ERR_INPUT, "requires counts");
    r.n_counts = 33;
    expect_start(f, &r, COP_ERR_INPUT, "too many counts");
    r.n_counts = 2;
    static const uint32_t bad[][2] = {{5, 5}, {5, 1}, {0, 5}, {5, 100001}, {5, UINT32_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(counts, bad[i], sizeof bad[i]);
        expect_start(f, &r, COP_ERR_INPUT,
                     i < 2 ? "strictly ascending" : "counts must be from 1 to 100000");
    }
}

static void test_evaluation_keys_must_have_16_bytes(void **state) {
    const fixture *f = *state;
    uint64_t jobs[1] = {7};
    uint32_t counts[2] = {1, 5};
    start_request r = good(jobs, counts);
    Coppice__Api__WatchEvaluationRequest w = COPPICE__API__WATCH_EVALUATION_REQUEST__INIT;
    r.key.len = 15;
    expect_start(f, &r, COP_ERR_INPUT, "the key has 15 bytes: expected 16");
    r.key.len = 17;
    expect_start(f, &r, COP_ERR_INPUT, "the key has 17 bytes: expected 16");
    r.has_key = 0;
    expect_start(f, &r, COP_ERR_INPUT, "the key has 0 bytes: expected 16");
    expect(f, COPPICE__API__METHOD__WATCH_EVALUATION, &w.base, COP_ERR_INPUT,
           "the key has 0 bytes: expected 16");
}

/* After a restart of the coordinator, a client learns in this way that it must start its evaluation
 * again. */
static void test_unknown_evaluation_is_reported_at_once(void **state) {
    const fixture *f = *state;
    Coppice__Api__WatchEvaluationRequest w = COPPICE__API__WATCH_EVALUATION_REQUEST__INIT;
    w.has_key = w.has_version = w.has_hold_ms = 1;
    w.key = (ProtobufCBinaryData){.len = 16, .data = key};
    w.version = 9;
    w.hold_ms = 60000;
    expect(f, COPPICE__API__METHOD__WATCH_EVALUATION, &w.base, COP_ERR_NOT_FOUND,
           "there is no such evaluation");
}

/* ---- places ---- */

/* An API for tests of its places for evaluations, which several identities share. */
typedef struct places {
    coord_config config;
    coord_access access;
    coord_engine engine;
    coord_api *api;
} places;

static places *with_places(void) {
    static const char any[1];
    places *p = cop_alloc(sizeof *p);
    assert_non_null(p);
    p->config.tls = (const cop_tls *)any;
    p->access.config = &p->config;
    assert_int_equal(coord_api_create(&p->engine, &p->access, &p->api, NULL), COP_OK);
    return p;
}

static void without_places(places *p) {
    for (int i = 0; i < COP_EVALUATION_PLACES; i++) coord_evaluation_free(p->engine.evaluations[i]);
    coord_api_destroy(p->api);
    cop_free(p);
}

static coord_evaluation *take(places *p, const char *owner) {
    cop_error error = {0};
    coord_evaluation **place = api_evaluation_place(p->api, owner, &error);
    if (!place) {
        assert_int_equal(error.code, COP_ERR_BUSY);
        return NULL;
    }
    assert_null(*place);
    coord_evaluation *e = *place = cop_alloc(sizeof *e);
    assert_non_null(e);
    snprintf(e->owner, sizeof e->owner, "%s", owner);
    e->id = ++p->api->next_job;
    return e;
}

static void test_ended_evaluations_make_room_for_new_ones(void **state) {
    (void)state;
    places *p = with_places();
    coord_evaluation *unheard = take(p, "a");
    unheard->ended = true;
    unheard->ended_ns = 1;
    for (uint64_t i = 2; i < 100; i++) {
        coord_evaluation *e = take(p, "b");
        assert_non_null(e);
        e->ended = e->reported = true;
        e->ended_ns = i;
    }
    /* An evaluation whose client has not fetched the result is removed last. */
    bool there = false;
    for (int i = 0; i < COP_EVALUATION_PLACES; i++)
        there = there || p->engine.evaluations[i] == unheard;
    assert_true(there);
    without_places(p);
}

static void test_no_identity_can_use_all_evaluations(void **state) {
    (void)state;
    places *p = with_places();
    for (int i = 0; i < COP_EVALUATIONS_PER_IDENTITY_MAX; i++) assert_non_null(take(p, "a"));
    assert_null(take(p, "a"));
    for (int i = COP_EVALUATIONS_PER_IDENTITY_MAX; i < COP_EVALUATIONS_MAX; i++)
        assert_non_null(take(p, "b"));
    assert_null(take(p, "b"));
    assert_null(take(p, "c"));
    without_places(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invalid_evaluation_request_is_refused),
        cmocka_unit_test(test_ended_evaluations_make_room_for_new_ones),
        cmocka_unit_test(test_no_identity_can_use_all_evaluations),
        cmocka_unit_test(test_member_counts_must_ascend_within_limits),
        cmocka_unit_test(test_evaluation_keys_must_have_16_bytes),
        cmocka_unit_test(test_unknown_evaluation_is_reported_at_once),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
