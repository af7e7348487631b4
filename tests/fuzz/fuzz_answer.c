/* Fuzz target: messages of a coordinator. The input is a sequence of messages, and the first byte
 * of each decides its kind:
 * - even: a lease, which a worker computes. It continues with flags, number of samples, protobuf
 *   header and parts.
 * - odd: an answer to a call, which a client prints. It continues with number of the method and
 *   body. */
#include "common/job/job.h"
#include "fuzz/folder.h"
#include "fuzz/wire.h"
#include "proto/api.pb-c.h"
#include "worker/compute.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGES_MOST 4
#define WORK_BYTES    (8u << 20) /* larger jobs are not computed */
#define WORK_FLOP     1e7        /* leases with more work are not computed */

#define ANSWER_JOB                                                                                 \
    "name: fuzz\n"                                                                                 \
    "data: {source: tiny.pack}\n"                                                                  \
    "model: [dropout: {p: 0.5}, linear: {units: 3}, relu, linear: {units: 2}]\n"                   \
    "train: {steps: 100, batch: 4, shards: 3}\n"                                                   \
    "optimizer: {sgd: {rate: 0.1}}\n"

/* The parts of a valid lease. */
typedef struct good_lease {
    worker_compute *compute;
    cop_job *job;
    cop_buffer *weights, *spec;
    uint8_t samples[512];
    int32_t labels[256];
} good_lease;

static const good_lease *make_good(void) {
    static good_lease good;
    const cop_kernels *kernels;
    if (good.compute) return &good;
    cop_data *data = fuzz_data();
    good.job = fuzz_job_of(ANSWER_JOB, data);
    good.spec = cop_job_pack(good.job);
    good.weights = cop_buffer_create((size_t)cop_model_floats(good.job->model) * sizeof(float));
    FUZZ_CHECK(good.spec && good.weights);
    cop_model_init(good.job->model, 1, good.weights->data);
    for (int i = 0; i < 512; i++) good.samples[i] = (uint8_t)(i * 37);
    for (int i = 0; i < 256; i++) good.labels[i] = i % 2;
    cop_data_destroy(data);
    FUZZ_CHECK(!cop_kernels_choose(&kernels, NULL));
    FUZZ_CHECK(!worker_compute_create(1, kernels, &good.compute, NULL));
    return &good;
}

/* ---- leases ---- */

/* True if the lease contains no valid job, or if computing it takes little memory and time. Others
 * are not computed, because the time that a large job takes is not an error. */
static bool is_small(const cop_message *lease) {
    const cop_buffer *packed = lease->part[COP_PART_JOB];
    cop_job *job = NULL;
    cop_plan_figures figures;
    if (!packed) return true;
    if (cop_job_from_bytes(packed->data, packed->size, &job, NULL)) return true;
    cop_job_plan(job, 1, &figures);
    const bool small = figures.worker_bytes <= WORK_BYTES &&
                       figures.flop_per_sample * (1 + lease->lease.count + job->batch) <= WORK_FLOP;
    cop_job_release(job);
    return small;
}

static void compute(worker_compute *c, cop_message *lease) {
    cop_result result;
    cop_buffer *tensor = NULL;
    worker_compute_run(c, lease, &result, &tensor);
    FUZZ_CHECK(result.present && result.lease == lease->lease.lease);
    if (result.failure[0]) FUZZ_CHECK(!tensor);
    if (!result.failure[0] && result.kind != COP_LEASE_EVALUATE) FUZZ_CHECK(tensor);
    cop_message pull = {.type = COP_MESSAGE_PULL, .pull = {.result = result}};
    pull.part[COP_PART_RESULT] = tensor;
    fuzz_check_message(&pull); /* the result can be sent */
    cop_message_fini(&pull);
}

/* Each part of the lease has two bits in the flags. If bit 4 + i is set, part i is that of a valid
 * lease. Otherwise, if bit i is set, part i is taken from the input. Otherwise it is absent. */
static void take_lease(const good_lease *good, fuzz_bytes *input) {
    const uint8_t flags = fuzz_byte(input), rows = fuzz_byte(input);
    const fuzz_bytes proto = fuzz_piece(input);
    const fuzz_bytes good_parts[COP_MESSAGE_PARTS] = {
        [COP_PART_WEIGHTS] = {good->weights->data, good->weights->size},
        [COP_PART_SAMPLES] = {good->samples, 2 * (size_t)rows},
        [COP_PART_LABELS] = {(const uint8_t *)good->labels, sizeof(int32_t) * rows},
        [COP_PART_JOB] = {good->spec->data, good->spec->size}};
    fuzz_bytes parts[COP_MESSAGE_PARTS] = {0};
    cop_message lease;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (flags >> (4 + i) & 1)
            parts[i] = good_parts[i];
        else if (flags >> i & 1)
            parts[i] = fuzz_piece(input);
    cop_buffer *frame = fuzz_frame(COP_MESSAGE_LEASE, proto, parts);
    if (fuzz_decode(frame, &lease)) {
        if (is_small(&lease)) compute(good->compute, &lease);
        cop_message_fini(&lease);
    }
    cop_buffer_release(frame);
}

/* ---- answers ---- */

static const ProtobufCMessageDescriptor *const answers[] = {
    [COPPICE__API__METHOD__SUBMIT] = &coppice__api__submit_answer__descriptor,
    [COPPICE__API__METHOD__LIST_JOBS] = &coppice__api__list_jobs_answer__descriptor,
    [COPPICE__API__METHOD__GET_JOB] = &coppice__api__get_job_answer__descriptor,
    [COPPICE__API__METHOD__WATCH_JOB] = &coppice__api__watch_job_answer__descriptor,
    [COPPICE__API__METHOD__CONTROL_JOB] = &coppice__api__control_job_answer__descriptor,
    [COPPICE__API__METHOD__LOGS] = &coppice__api__logs_answer__descriptor,
    [COPPICE__API__METHOD__LIST_WORKERS] = &coppice__api__list_workers_answer__descriptor,
    [COPPICE__API__METHOD__DRAIN_WORKER] = &coppice__api__drain_worker_answer__descriptor,
    [COPPICE__API__METHOD__EXPORT_MODEL] = &coppice__api__export_model_answer__descriptor,
    [COPPICE__API__METHOD__LIST_DATA] = &coppice__api__list_data_answer__descriptor,
    [COPPICE__API__METHOD__OFFER_DATA] = &coppice__api__offer_data_answer__descriptor,
    [COPPICE__API__METHOD__PUT_CHUNK] = &coppice__api__put_chunk_answer__descriptor,
    [COPPICE__API__METHOD__COMMIT_DATA] = &coppice__api__commit_data_answer__descriptor,
    [COPPICE__API__METHOD__REMOVE_DATA] = &coppice__api__remove_data_answer__descriptor,
    [COPPICE__API__METHOD__EVALUATE] = &coppice__api__evaluate_answer__descriptor,
    [COPPICE__API__METHOD__INFO] = &coppice__api__info_answer__descriptor,
    [COPPICE__API__METHOD__HISTORY] = &coppice__api__history_answer__descriptor,
    [COPPICE__API__METHOD__START_EVALUATION] = &coppice__api__start_evaluation_answer__descriptor,
    [COPPICE__API__METHOD__WATCH_EVALUATION] = &coppice__api__watch_evaluation_answer__descriptor,
    [COPPICE__API__METHOD__METRICS] = &coppice__api__metrics_answer__descriptor,
};

/* Prints an answer as JSON. If this JSON is accepted when it is read back, it must be printed the
 * same again. */
static void take_answer(fuzz_bytes *input) {
    const size_t method = fuzz_byte(input);
    const fuzz_bytes body = fuzz_piece(input);
    ProtobufCMessage *answer = NULL, *again = NULL;
    cop_error error = {0};
    cop_str text = {0}, twice = {0};
    if (method >= sizeof answers / sizeof *answers || !answers[method]) return;
    if (cop_proto_unpack(answers[method], body.at, body.size, 1 << 20, &answer, &error)) {
        fuzz_refused(&error);
        return;
    }
    cop_document_print_json(answer, 0, &text);
    cop_json_stream s = {
        .name = "again", .at = cop_str_text(&text), .end = cop_str_text(&text) + text.length};
    if (!cop_document_next_json(&s, answers[method], &again, NULL) && again) {
        cop_document_print_json(again, 0, &twice);
        FUZZ_CHECK(strcmp(cop_str_text(&text), cop_str_text(&twice)) == 0);
        cop_proto_free(again);
    }
    cop_str_fini(&text);
    cop_str_fini(&twice);
    cop_proto_free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const good_lease *good = make_good();
    fuzz_bytes input = {data, size};
    worker_compute_forget(good->compute);
    for (int i = 0; i < MESSAGES_MOST && input.size; i++)
        if (fuzz_byte(&input) % 2)
            take_answer(&input);
        else
            take_lease(good, &input);
    return 0;
}
