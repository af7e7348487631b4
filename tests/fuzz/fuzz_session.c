/* Fuzz target: messages of workers to a coordinator with a running job. The input is a
 * conversation. Each message consists of its type, flags, its protobuf header (length and bytes)
 * and, if a flag says so, the bytes of a tensor. If a message has 0 for the worker's number and
 * session, or for the lease, the target fills in the values that the coordinator has given to the
 * worker that was welcomed last or, if a flag says so, to the one before. */
#include <math.h>

#include "fuzz/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_world session_world;

/* Flags of a message:
 *   HAS_TENSOR  it has a tensor
 *   RIGHT_SIZE  the tensor's bytes are repeated to the size of the weights
 *   OTHER       it is filled in for the worker that was welcomed before the last one */
enum { HAS_TENSOR = 1, RIGHT_SIZE = 2, OTHER = 4 };

#define SESSION_JOB                                                                                \
    "name: fuzz\n"                                                                                 \
    "audit: 0.5\n"                                                                                 \
    "data: {source: tiny.pack}\n"                                                                  \
    "model: [dropout: {p: 0.5}, linear: {units: 2}]\n"                                             \
    "train: {steps: 1000000, batch: 4, shards: 4}\n"                                               \
    "optimizer: {sgd: {rate: 1.0e-6}}\n"                                                           \
    "evaluate: {every: 100000}\n"                                                                  \
    "checkpoint: {every: 1000000}\n"

static void submit_job(fuzz_world *w) {
    Coppice__Api__SubmitRequest r = COPPICE__API__SUBMIT_REQUEST__INIT;
    FUZZ_CHECK(
        !cop_document_parse_job(SESSION_JOB, sizeof SESSION_JOB - 1, "job.yaml", &r.job, NULL));
    cop_buffer *packed = cop_proto_pack(&r.base);
    FUZZ_CHECK(packed);
    fuzz_call(w, COPPICE__API__METHOD__SUBMIT, (fuzz_bytes){packed->data, packed->size}, NULL);
    FUZZ_CHECK(w->server->api->count == 1);
    cop_buffer_release(packed);
    cop_proto_free(&r.job->base);
}

/* Ends the coordinator. Cancels the job first, because otherwise the stop waits for a step that
 * nobody finishes. */
static void end_world(fuzz_world *w) {
    static const uint8_t cancel[] = {0x08, 1, 0x10,
                                     COPPICE__API__CONTROL_JOB_REQUEST__ACTION__CANCEL};
    fuzz_call(w, COPPICE__API__METHOD__CONTROL_JOB, (fuzz_bytes){cancel, sizeof cancel}, NULL);
    fuzz_world_stop(w);
}

static void fill_hello(const fuzz_world *w, const fuzz_self *self, cop_hello *h) {
    if (!h->token[0]) snprintf(h->token, sizeof h->token, "%s", coord_token(w->server));
    if (h->control && !h->worker) h->worker = self->worker, h->session = self->session;
}

static void fill_pull(const fuzz_self *self, cop_pull *p) {
    if (!p->worker) p->worker = self->worker, p->session = self->session;
    if (!p->result.present || p->result.lease) return;
    p->result.lease = self->lease.lease;
    p->result.job = self->lease.job;
    p->result.step = self->lease.step;
    p->result.attempt = self->lease.attempt;
    p->result.first = self->lease.first;
    p->result.count = self->lease.count;
    if (!p->result.samples) p->result.samples = self->lease.count; /* each shard has one sample */
}

static void fill_in(const fuzz_world *w, const fuzz_self *self, cop_message *m) {
    if (m->type == COP_MESSAGE_HELLO) {
        fill_hello(w, self, &m->hello);
    } else if (m->type == COP_MESSAGE_PULL) {
        fill_pull(self, &m->pull);
    } else if (m->type == COP_MESSAGE_HEARTBEAT && !m->heartbeat.worker) {
        m->heartbeat.worker = self->worker;
        m->heartbeat.session = self->session;
    }
}

/* False for results after which blocks are computed later, or the worker's name gets no more work.
 * The coordinator is then replaced before the next input. */
static bool is_harmless(const cop_message *m) {
    const cop_result *r = &m->pull.result;
    const cop_buffer *tensor = m->part[COP_PART_RESULT];
    if (m->type != COP_MESSAGE_PULL || !r->present) return true;
    if (r->failure[0] || r->kind != COP_LEASE_TRAIN || !isfinite(r->loss) || !tensor) return false;
    for (size_t i = 0; i < tensor->size / sizeof(float); i++)
        if (!isfinite(((const float *)tensor->data)[i])) return false;
    return true;
}

static void say(fuzz_world *w, uint16_t type, uint8_t flags, fuzz_bytes proto, fuzz_bytes tensor) {
    static uint8_t stretched[4096];
    cop_message message;
    if (flags & RIGHT_SIZE && w->weights_size <= sizeof stretched) {
        for (size_t i = 0; i < w->weights_size; i++)
            stretched[i] = tensor.size ? tensor.at[i % tensor.size] : 0;
        tensor = (fuzz_bytes){stretched, w->weights_size};
    }
    const fuzz_bytes parts[COP_MESSAGE_PARTS] = {flags & HAS_TENSOR ? tensor : (fuzz_bytes){0}};
    cop_buffer *frame = fuzz_frame(type, proto, parts);
    if (fuzz_decode(frame, &message)) {
        fill_in(w, &w->self[flags & OTHER ? !w->newest : w->newest], &message);
        w->changed = w->changed || !is_harmless(&message);
        fuzz_deliver(w, &message);
    }
    cop_buffer_release(frame);
}

/* True: the coordinator must be replaced before the next input. A peer may have harmed the job,
 * because its results are believed unless those of another worker differ. */
static bool is_spent(const fuzz_world *w, uint32_t inputs) {
    return inputs >= 200 || w->changed || w->disputed || w->server->api->count != 1 ||
           w->server->api->notes[0].state > COORD_RUNNING;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint32_t inputs;
    fuzz_world *w = &session_world;
    fuzz_bytes input = {data, size};
    if (!w->server) {
        fuzz_world_start(w);
        submit_job(w);
        w->changed = false;
        inputs = 0;
    }
    for (int i = 0; i < FUZZ_TALK_MOST && input.size; i++) {
        const uint8_t type = fuzz_byte(&input), flags = fuzz_byte(&input);
        const fuzz_bytes proto = fuzz_piece(&input);
        const fuzz_bytes tensor = flags & HAS_TENSOR ? fuzz_piece(&input) : (fuzz_bytes){0};
        if (type != COP_MESSAGE_CALL) say(w, type, flags, proto, tensor);
    }
    fuzz_leave(w);
    if (is_spent(w, ++inputs)) end_world(w);
    return 0;
}
