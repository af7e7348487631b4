/* Calls about the weights of a job: EXPORT_MODEL and EVALUATE. See api.h. */
#include <math.h>
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

/* Reads the final model of the job, or else its newest checkpoint, checks it, and encodes it as a
 * model file for the answer. */
static void export_work(api_task *t) {
    coord_model m;
    t->result = coord_model_open(t->api->engine, t->job, &m, &t->error);
    if (t->result == COP_ERR_NOT_FOUND)
        cop_fail(&t->error, COP_ERR_NOT_FOUND, "job %llu has no checkpoint yet",
                 (unsigned long long)t->job);
    if (t->result) return;
    t->result = cop_job_encode_model(m.job, m.flat, m.step, &t->bulk_out, &t->error);
    t->value = m.step;
    snprintf(t->digest, sizeof t->digest, "%s", m.digest);
    coord_model_close(&m);
}

static void export_done(api_task *t) {
    Coppice__Api__ExportModelAnswer answer = COPPICE__API__EXPORT_MODEL_ANSWER__INIT;
    COP_ASSERT((t->result == COP_OK) == (t->bulk_out != NULL));
    answer.digest = t->digest;
    answer.has_step = answer.has_size = 1;
    answer.step = t->value;
    answer.size = t->bulk_out ? t->bulk_out->size : 0;
    api_task_finish(t, COPPICE__API__METHOD__EXPORT_MODEL, &answer.base);
}

void api_export_model(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const uint64_t job = ((const Coppice__Api__ExportModelRequest *)message)->job;
    const api_note *n = api_note_of(api, request, job);
    if (n && n->evaluation) api_not_completed(request, n);
    api_task *t = n && !n->evaluation ? api_task_create(api, request, NULL) : NULL;
    cop_proto_free(message);
    if (!t) return;
    t->job = job;
    api_task_start(t, export_work, export_done);
}

/* Answers with the evaluation of the final weights, which a job makes at its end. NOT_FOUND: it did
 * not make one. */
void api_evaluate(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const uint64_t job = ((const Coppice__Api__EvaluateRequest *)message)->job;
    const api_note *n = api_note_of(api, request, job);
    cop_proto_free(message);
    if (!n) return;
    if (n->state != COORD_COMPLETED || n->evaluation) {
        api_not_completed(request, n);
    } else if (!n->has_evaluation || n->evaluated_step != n->steps) {
        coord_reply_failure(request, COP_ERR_NOT_FOUND,
                            "the final weights of job %llu were not evaluated: get them with "
                            "`coppice export %llu -o FILE` and `coppice eval FILE`",
                            (unsigned long long)job, (unsigned long long)job);
    } else {
        Coppice__Api__EvaluateAnswer answer = COPPICE__API__EVALUATE_ANSWER__INIT;
        answer.has_error = !isnan(n->test_error);
        answer.has_loss = answer.has_samples = 1;
        answer.error = n->test_error;
        answer.loss = n->test_loss;
        answer.samples = n->evaluated_samples;
        answer.on = (char *)(uintptr_t)(n->on_test ? "test" : "validation");
        answer.digest = (char *)(uintptr_t)n->digest;
        api_answer(request, COPPICE__API__METHOD__EVALUATE, &answer.base, NULL);
    }
}
