/* Fuzz target: pairs of inputs that are each valid but may contradict each other. The first byte
 * chooses the kind of pair. From the following bytes both sides are made, valid and small. Then
 * code of the coordinator, the worker and the client uses both sides together. It must refuse the
 * pair with a message, or stay within the bounds of its buffers. */
#include "common/interchange/import.h"
#include "common/base/hash.h"
#include "common/job/replay.h"
#include "common/nn/pass.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/store/datasets.h"
#include "fuzz/folder.h"
#include "fuzz/wire.h"
#include "worker/compute.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS, JOB_DATA, LEASE_WORKER, MODEL_SPEC, JOB_CHECKPOINT, STORE_FOLDER };
/* The kind of pair by the first byte. JOB_CHECKPOINT and STORE_FOLDER write more to the disk, and
 * are chosen less often. */
static const uint8_t pair_kinds[16] = {PARTS,          JOB_DATA,     LEASE_WORKER, MODEL_SPEC,
                                       JOB_CHECKPOINT, STORE_FOLDER, PARTS,        PARTS,
                                       PARTS,          JOB_DATA,     JOB_DATA,     JOB_DATA,
                                       LEASE_WORKER,   LEASE_WORKER, MODEL_SPEC,   MODEL_SPEC};

#define PAIR_FILES 5
static const char *const pair_files[PAIR_FILES] = {
    "checkpoints/step-00000002/model.safetensors",
    "checkpoints/step-00000002/optimizer.safetensors", "checkpoints/step-00000002/state.json",
    "checkpoints/latest", "model.safetensors"};

typedef struct pair_world {
    const cop_kernels *kernels;
    worker_compute *compute;
    char folder[2][128]; /* two job folders; [0] is that of job 1 in `state` */
    char state[128];
    coord_store *store;
    coord_datasets *sets;
    bool computes; /* this input's leases are computed, which is slow, as each needs a new pass */
} pair_world;
static pair_world pair;

/* ---- sides ---- */

static uint32_t pick(fuzz_bytes *in, uint32_t least, uint32_t most) {
    return least + fuzz_byte(in) % (most - least + 1);
}

/* Writes the header of a part, except for its number of samples. Returns the size of a sample in
 * bytes. */
static size_t put_header(fuzz_bytes *in, char *p) {
    const uint32_t sides[] = {1, 2, 3, 4, 7, 16, 64, 250};
    const bool f32 = fuzz_byte(in) % 2;
    const uint32_t rank = fuzz_byte(in) % 2 ? 3 : 1;
    size_t stride = f32 ? 4 : 1;
    cop_store_u32(p, f32 ? COP_DATA_F32 : COP_DATA_U8);
    cop_store_u32(p + 4, rank);
    for (uint32_t d = 0; d < rank; d++) {
        const uint32_t side = sides[fuzz_byte(in) % (rank == 3 ? 4 : 8)];
        cop_store_u32(p + 8 + 4 * d, side);
        stride *= side;
    }
    return stride;
}

/* A pack whose two parts are each valid. If `alike`, they have the same type and shape. */
static cop_buffer *make_pack(fuzz_bytes *in, bool alike) {
    char header[128] = "COPDATA1";
    uint32_t count[2];
    size_t stride[2], size = sizeof header;
    const uint32_t classes = pick(in, 2, 4);
    cop_store_u32(header + 8, classes);
    stride[0] = put_header(in, header + 16);
    stride[1] = put_header(in, header + 48);
    if (alike) memcpy(header + 48, header + 16, 32);
    if (alike) stride[1] = stride[0];
    /* Most data sets have the same numbers of samples. Otherwise two sets would nearly always be
     * told apart by these numbers, and other differences would not be tested. */
    const bool usual = fuzz_byte(in) % 4;
    count[0] = usual ? 11 : pick(in, 1, 20);
    count[1] = usual ? 9 : pick(in, 0, 20);
    for (int i = 0; i < 2; i++) cop_store_u32(header + 16 + 32 * i + 20, count[i]);
    for (int i = 0; i < 2; i++)
        size += cop_align_up(stride[i] * count[i], 64) + cop_align_up(4 * count[i], 64);
    cop_buffer *pack = cop_buffer_create(size);
    FUZZ_CHECK(pack);
    char *at = (char *)pack->data + sizeof header;
    memset(pack->data, 0, size);
    memcpy(pack->data, header, sizeof header);
    for (int i = 0; i < 2; i++) {
        if (cop_load_u32(header + 16 + 32 * i) == COP_DATA_U8)
            for (size_t k = 0; k < stride[i] * count[i]; k++) at[k] = (char)(k * 29 + 1);
        at += cop_align_up(stride[i] * count[i], 64);
        for (uint32_t k = 0; k < count[i]; k++) cop_store_u32(at + 4 * k, k % classes);
        at += cop_align_up(4 * count[i], 64);
    }
    return pack;
}

static cop_data *make_data(fuzz_bytes *in, bool alike) {
    cop_buffer *pack = make_pack(in, alike);
    cop_data *data = NULL;
    cop_error error = {0};
    if (cop_data_from_pack(pack, "pair", &data, &error)) {
        fuzz_refused(&error);
        FUZZ_CHECK(!alike && !data);
    }
    cop_buffer_release(pack);
    return data;
}

/* A random job on these data. NULL if the job and the data do not match. */
static cop_job *make_job(fuzz_bytes *in, const cop_data *data) {
    static const char *const layers[] = {"", "dropout: {p: 0.5}, ", "linear: {units: 3}, relu, "};
    static const char *const optimizers[] = {"sgd: {rate: 0.1}", "sgd: {rate: 0.1, momentum: 0.9}",
                                             "adam: {rate: 0.1}"};
    char text[600];
    Coppice__Job *message = NULL;
    cop_job *job = NULL;
    cop_error error = {0};
    const uint8_t validation = fuzz_byte(in);
    const int length =
        snprintf(text, sizeof text,
                 "name: pair\nseed: %u\ndata: {source: pair, validation: %u, normalize: %s}\n"
                 "model: [%slinear: {units: %d}]\ntrain: {steps: %u, batch: %u, shards: %u}\n"
                 "optimizer: {%s}\n",
                 pick(in, 1, 2), validation % 3 ? 0u : validation % 8u,
                 fuzz_byte(in) % 2 ? "unit" : "standard", layers[fuzz_byte(in) % 3], data->classes,
                 pick(in, 1, 5), pick(in, 3, 6), pick(in, 1, 3), optimizers[fuzz_byte(in) % 3]);
    FUZZ_CHECK(!cop_document_parse_job(text, (size_t)length, "job.yaml", &message, NULL));
    if (!cop_job_create(message, data, &job, &error)) return job;
    fuzz_refused(&error);
    cop_proto_free(&message->base);
    return NULL;
}

/* A copy of the job that is pinned to these data, even if it does not match them. Such a job may
 * come from elsewhere, or from an earlier version. */
static cop_job *pin_again(const cop_job *job, const cop_data *data) {
    char digest[65], *own = job->message->pinned->data_digest;
    cop_job *stored = NULL;
    cop_hex32(data->digest, digest);
    job->message->pinned->data_digest = digest;
    cop_buffer *packed = cop_job_pack(job);
    job->message->pinned->data_digest = own;
    FUZZ_CHECK(packed && !cop_job_from_bytes(packed->data, packed->size, &stored, NULL));
    cop_buffer_release(packed);
    return stored;
}

/* ---- a job and data, in use ---- */

static void compute(cop_message *lease) {
    cop_result result;
    cop_buffer *tensor = NULL;
    if (!pair.computes) return;
    worker_compute_run(pair.compute, lease, &result, &tensor);
    FUZZ_CHECK(result.present && (!result.failure[0] || !tensor));
    cop_buffer_release(tensor);
}

/* Checks that samples and labels of the lease have the sizes that the worker expects, and that the
 * data contain so many samples. */
static void check_lease(const coord_resident *r, bool test, const cop_message *lease) {
    const size_t rows = lease->part[COP_PART_LABELS]->size / sizeof(int32_t);
    const cop_data_part *part = test ? &r->data->test : &r->data->train;
    FUZZ_CHECK(lease->part[COP_PART_SAMPLES]->size == rows * r->job->sample_stride);
    FUZZ_CHECK(part->stride == r->job->sample_stride && rows <= part->count);
    for (size_t i = 0; i < rows; i++)
        FUZZ_CHECK(((const int32_t *)lease->part[COP_PART_LABELS]->data)[i] < r->data->classes);
}

/* Makes a lease and has it computed. If `parts`, the lease contains weights and job; otherwise the
 * worker has them from an earlier lease. */
static void lease(coord_resident *r, bool evaluate, uint32_t first, uint32_t count, bool parts) {
    coord_action a = {.type = COORD_ACTION_LEASE, .job = 1, .step = 1};
    cop_message m = {.type = COP_MESSAGE_LEASE};
    a.lease.evaluate = evaluate;
    a.lease.first = first;
    a.lease.count = count;
    FUZZ_CHECK(!coord_resident_fill_lease(r, &a, !parts, !parts, &m));
    check_lease(r, evaluate && r->job->evaluate_on_test, &m);
    m.lease = (cop_lease){.kind = evaluate ? COP_LEASE_EVALUATE : COP_LEASE_TRAIN,
                          .lease = 1,
                          .job = 1,
                          .step = 1,
                          .first = first,
                          .count = count,
                          .batch = r->row_count};
    compute(&m);
    cop_message_fini(&m);
}

/* Makes all leases of a step and of an evaluation. */
static void lease_all(coord_resident *r, bool parts) {
    const uint32_t evaluated =
        r->job->evaluate_on_test ? r->job->test_samples : r->job->validation_samples;
    lease(r, false, 0, r->job->shards, parts);
    for (uint32_t at = 0; at < evaluated; at += COP_EVAL_SLICE)
        lease(r, true, at, evaluated - at < COP_EVAL_SLICE ? evaluated - at : COP_EVAL_SLICE,
              parts);
}

/* Loads a job with its data, as a coordinator does. Owns both from now on. False: it was refused.
 */
static bool prepare(coord_resident *r, cop_job *job, cop_data *data, const char *folder) {
    const coord_start_at at = {.job = job,
                               .data = data,
                               .folder = folder,
                               .resume = folder != NULL,
                               .max_step = UINT64_MAX};
    cop_checkpoint start;
    cop_str notes = {0};
    cop_error error = {0};
    const cop_err e = coord_resident_prepare(r, &at, &start, &notes, &error);
    cop_str_fini(&notes);
    if (!e) return true;
    fuzz_refused(&error);
    return false;
}

/* Uses job and data like a coordinator in training. Owns both from now on. */
static void train(cop_job *job, cop_data *data) {
    coord_resident r = {0};
    if (prepare(&r, job, data, NULL)) lease_all(&r, true);
    coord_resident_fini(&r);
}

/* Uses job and data like a client that evaluates and replays. */
static void look(const cop_job *job, const cop_data *data) {
    cop_error error = {0};
    cop_replay *replay = NULL;
    if (cop_job_check_data(job, data, &error)) {
        fuzz_refused(&error);
    } else if (data->test.count) {
        const cop_samples samples = {.dtype = job->sample_type,
                                     .count = (int)data->test.count,
                                     .features = (int)job->features,
                                     .stride = data->test.stride,
                                     .labels = data->test.labels,
                                     .rows = data->test.samples};
        FUZZ_CHECK(!cop_samples_check(&samples, job->model, NULL));
    }
    if (!pair.computes) return;
    if (cop_replay_create(job, data, pair.kernels, &replay, &error))
        fuzz_refused(&error);
    else if (cop_replay_advance(replay, &error))
        fuzz_refused(&error);
    cop_replay_destroy(replay);
}

static void use_parts(fuzz_bytes *in) {
    cop_data *data = make_data(in, false);
    if (!data) return;
    cop_job *job = make_job(in, data);
    if (job)
        train(job, data);
    else
        cop_data_destroy(data);
}

static void use_job_and_data(fuzz_bytes *in) {
    cop_data *own = make_data(in, true), *other = make_data(in, true);
    cop_job *job = make_job(in, own);
    cop_data_destroy(own);
    if (job) {
        cop_job *stored = fuzz_byte(in) % 2 ? pin_again(job, other) : job;
        if (stored != job) cop_job_release(job);
        look(stored, other);
        train(stored, other);
    } else {
        cop_data_destroy(other);
    }
}

/* A worker that has one job and its weights gets leases of another job with the same number. */
static void use_lease_and_worker(fuzz_bytes *in) {
    cop_data *a = make_data(in, true), *b = make_data(in, true);
    cop_job *first = make_job(in, a), *second = make_job(in, b);
    coord_resident r = {0};
    if (first)
        train(first, a);
    else
        cop_data_destroy(a);
    if (second && prepare(&r, second, b, NULL)) lease_all(&r, false);
    if (second)
        coord_resident_fini(&r);
    else
        cop_data_destroy(b);
}

/* ---- a job and files ---- */

/* Corrects the hashes in state.json, so that they are those of the files as they are now. */
static void seal(const char *folder) {
    static const char *const keys[] = {"\"model_xxh3\": \"", "\"optimizer_xxh3\": \""};
    static const char end[] = "  \"state_xxh3\": \"";
    size_t size, length;
    char *state = fuzz_read(folder, pair_files[2], &size), hash[17];
    for (int i = 0; i < 2; i++) {
        char *bytes = fuzz_read(folder, pair_files[i], &length), *at = strstr(state, keys[i]);
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)cop_hash_xxh3(bytes, length));
        if (at) memcpy(at + strlen(keys[i]), hash, 16);
        cop_free(bytes);
    }
    char *at = strstr(state, end);
    FUZZ_CHECK(at);
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)cop_hash_xxh3(state, (size_t)(at - state)));
    memcpy(at + strlen(end), hash, 16);
    fuzz_write(folder, pair_files[2], state, size);
    cop_free(state);
}

static float *new_flat(const cop_job *job) {
    float *flat = cop_alloc_array((size_t)cop_model_floats(job->model), sizeof *flat);
    FUZZ_CHECK(flat);
    return flat;
}

/* Writes into a job's folder a checkpoint of step 2, and a file of final weights that says `step`.
 */
static void write_folder(const cop_job *job, const char *folder, uint64_t step) {
    float *flat = new_flat(job), *states[2] = {new_flat(job), new_flat(job)};
    char *path = cop_path_join(folder, pair_files[4]);
    cop_model_init(job->model, job->seed, flat);
    const int count = cop_optimizer_states(&job->optimizer);
    const cop_checkpoint c = {
        .step = 2,
        .weights = flat,
        .states = {count > 0 ? states[0] : NULL, count > 1 ? states[1] : NULL}};
    FUZZ_CHECK(!cop_checkpoint_save(job, folder, &c, NULL));
    FUZZ_CHECK(path && !cop_job_save_model(job, flat, step, path, NULL));
    cop_free(path);
    cop_free(flat);
    cop_free(states[0]);
    cop_free(states[1]);
}

/* Copies files from the second folder to the first. Bit i of `which` selects file i, and bit 7 has
 * the hashes corrected afterwards. */
static void mix(uint8_t which) {
    for (int i = 0; i < PAIR_FILES; i++) {
        size_t size;
        if (!(which >> i & 1)) continue;
        char *bytes = fuzz_read(pair.folder[1], pair_files[i], &size);
        fuzz_write(pair.folder[0], pair_files[i], bytes, size);
        cop_free(bytes);
    }
    if (which >> 7) seal(pair.folder[0]);
}

static void use_job_and_checkpoint(fuzz_bytes *in) {
    cop_data *a = make_data(in, true), *b = fuzz_byte(in) % 2 ? make_data(in, true) : NULL;
    cop_job *own = make_job(in, a), *other = make_job(in, b ? b : a);
    if (own && other) {
        coord_resident r = {0};
        write_folder(own, pair.folder[0], pick(in, 1, 7));
        write_folder(other, pair.folder[1], pick(in, 1, 7));
        mix(fuzz_byte(in));
        if (prepare(&r, own, a, pair.folder[0])) FUZZ_CHECK(r.current.step <= own->steps);
        coord_resident_fini(&r);
        own = NULL;
        a = NULL;
    }
    cop_job_release(own);
    cop_job_release(other);
    cop_data_destroy(a);
    cop_data_destroy(b);
}

/* Reads a file with one job's weights as weights of another job. */
static void use_model_and_spec(fuzz_bytes *in) {
    cop_data *a = make_data(in, true), *b = fuzz_byte(in) % 2 ? make_data(in, true) : NULL;
    cop_job *own = make_job(in, a), *other = make_job(in, b ? b : a);
    if (own && other) {
        float *flat = new_flat(other), *opened = NULL;
        char *path = cop_path_join(pair.folder[1], pair_files[4]);
        cop_buffer *bytes;
        uint64_t step;
        cop_error error = {0};
        cop_model_init(other->model, other->seed, flat);
        FUZZ_CHECK(!cop_job_encode_model(other, flat, pick(in, 1, 7), &bytes, NULL));
        fuzz_write(pair.folder[1], pair_files[4], bytes->data, bytes->size);
        cop_free(flat);
        flat = new_flat(own);
        if (cop_job_open_weights(own, path, &opened, &step, &error)) fuzz_refused(&error);
        if (cop_job_load_model(own, path, flat, &step, &error)) fuzz_refused(&error);
        if (cop_import_weights(own->model, path, flat, &error)) fuzz_refused(&error);
        cop_free(opened);
        cop_free(flat);
        cop_buffer_release(bytes);
        cop_free(path);
    }
    cop_job_release(own);
    cop_job_release(other);
    cop_data_destroy(a);
    cop_data_destroy(b);
}

/* ---- the store's row and the state folder ---- */

static void write_pack(const char *digest, const cop_data *data) {
    char name[96];
    snprintf(name, sizeof name, "data/%s.pack", digest);
    fuzz_write(pair.state, name, data->pack->data, data->pack->size);
}

static void remove_pack(const char *digest) {
    char path[256];
    snprintf(path, sizeof path, "%s/data/%s.pack", pair.state, digest);
    FUZZ_CHECK(!cop_file_remove(path, NULL));
}

static void evaluate(coord_engine *engine, bool plain) {
    coord_evaluation e = {.plain = plain, .model_count = 1, .count = 1, .counts = {1}};
    cop_error error = {0};
    e.model[0].job = 1;
    if (coord_evaluation_prepare(engine, &e, &error)) {
        fuzz_refused(&error);
    } else {
        coord_action a = {.type = COORD_ACTION_LEASE, .job = 1, .step = 1};
        const cop_pull pull = {0};
        cop_message m = {.type = COP_MESSAGE_LEASE};
        a.lease.evaluate = true;
        a.lease.ensemble = !plain;
        a.lease.count = e.samples < COP_EVAL_SLICE ? e.samples : COP_EVAL_SLICE;
        a.lease.members = 1;
        m.lease = (cop_lease){.kind = plain ? COP_LEASE_EVALUATE : COP_LEASE_ENSEMBLE,
                              .lease = 1,
                              .job = 1,
                              .step = 1,
                              .count = a.lease.count,
                              .members = 1};
        FUZZ_CHECK(!coord_evaluation_fill_lease(&e, &a, &pull, &m));
        FUZZ_CHECK(m.part[COP_PART_SAMPLES]->size ==
                   a.lease.count * e.model[0].built->sample_stride);
        compute(&m);
        cop_message_fini(&m);
    }
    coord_evaluation_unload(&e);
}

/* The store's row of one job, with files in the job's folder and with data that may be another's.
 */
static void use_store_and_folder(fuzz_bytes *in) {
    cop_data *a = make_data(in, true), *b = make_data(in, true);
    cop_job *own = make_job(in, a), *other = make_job(in, b);
    if (own && other) {
        static coord_engine engine;
        cop_job *row = fuzz_byte(in) % 2 ? pin_again(own, b) : NULL;
        const cop_job *stored = row ? row : own;
        const char *digest = stored->message->pinned->data_digest;
        cop_buffer *spec = cop_job_pack(stored);
        const coord_store_submission s = {.job = 1,
                                          .name = "pair",
                                          .data_digest = digest,
                                          .owner = "me",
                                          .spec = spec,
                                          .created_ms = 1};
        engine =
            (coord_engine){.state_folder = pair.state, .store = pair.store, .datasets = pair.sets};
        coord_store_add_job(pair.store, &s, NULL, NULL);
        coord_store_set_state(pair.store, 1, COORD_COMPLETED, "");
        FUZZ_CHECK(spec && !coord_store_flush(pair.store));
        write_folder(own, pair.folder[0], own->steps);
        write_folder(other, pair.folder[1], other->steps);
        if (row) /* gives the row the digest of the folder's weights, as if folders had been
                    exchanged */
            write_folder(row, pair.folder[0], row->steps);
        mix(fuzz_byte(in));
        write_pack(digest, row ? b : a);
        evaluate(&engine, fuzz_byte(in) % 2);
        remove_pack(digest);
        cop_buffer_release(spec);
        cop_job_release(row);
    }
    cop_job_release(own);
    cop_job_release(other);
    cop_data_destroy(a);
    cop_data_destroy(b);
}

/* ---- entry ---- */

static void make_world(void) {
    static const char *const folders[] = {"jobs", "jobs/1", "data"};
    char *path;
    FUZZ_CHECK(!cop_kernels_choose(&pair.kernels, NULL));
    cop_compute_thread_init();
    FUZZ_CHECK(!worker_compute_create(1, pair.kernels, &pair.compute, NULL));
    fuzz_folder(pair.state);
    fuzz_folder(pair.folder[1]);
    for (int i = 0; i < 3; i++) {
        FUZZ_CHECK((path = cop_path_join(pair.state, folders[i])) &&
                   !cop_folder_create(path, NULL));
        cop_free(path);
    }
    snprintf(pair.folder[0], sizeof pair.folder[0], "%.100s/jobs/1", pair.state);
    FUZZ_CHECK((path = cop_path_join(pair.state, "store.sqlite")) &&
               !coord_store_open(path, &pair.store, NULL));
    cop_free(path);
    FUZZ_CHECK(!coord_datasets_open(
        &(coord_datasets_config){.store = pair.store, .state_folder = pair.state}, &pair.sets,
        NULL));
}

/* Makes all inputs 512 bytes long. Short ones are continued by pseudo-random bytes that follow from
 * the input; long ones are cut. */
static fuzz_bytes stretch(const uint8_t *data, size_t size) {
    static uint8_t bytes[512];
    uint64_t state = cop_hash_xxh3(data, size) | 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        bytes[i] = i < size ? data[i] : (uint8_t)(state * 2685821657736338717ull >> 56);
    }
    return (fuzz_bytes){bytes, sizeof bytes};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes in = stretch(data, size);
    if (!pair.compute) make_world();
    worker_compute_forget(pair.compute);
    const uint8_t kind = pair_kinds[fuzz_byte(&in) % 16];
    pair.computes = fuzz_byte(&in) % 8 == 0 || kind == LEASE_WORKER;
    switch (kind) {
    case PARTS:
        use_parts(&in);
        break;
    case JOB_DATA:
        use_job_and_data(&in);
        break;
    case LEASE_WORKER:
        use_lease_and_worker(&in);
        break;
    case MODEL_SPEC:
        use_model_and_spec(&in);
        break;
    case JOB_CHECKPOINT:
        use_job_and_checkpoint(&in);
        break;
    default:
        use_store_and_folder(&in);
    }
    return 0;
}
