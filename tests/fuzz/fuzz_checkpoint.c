/* Fuzz target: random bytes as one of the files of a checkpoint. The first byte chooses the file,
 * and whether the hashes in state.json are corrected, so that the code behind their check is
 * reached. */
#include "common/base/hash.h"
#include "fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STATE, MODEL, OPTIMIZER, LATEST, FILES, SEALED = 0x80 };
static const char *const checkpoint_files[FILES] = {
    "checkpoints/step-00000007/state.json", "checkpoints/step-00000007/model.safetensors",
    "checkpoints/step-00000007/optimizer.safetensors", "checkpoints/latest"};

#define CHECKPOINT_JOB                                                                             \
    "name: fuzz\n"                                                                                 \
    "data: {source: tiny.pack}\n"                                                                  \
    "model: [linear: {units: 2}]\n"                                                                \
    "train: {steps: 100, batch: 4, shards: 1}\n"                                                   \
    "optimizer: {adam: {rate: 0.1}}\n"

/* A folder with a valid checkpoint, the bytes of its files, and buffers to load it into. */
typedef struct good_checkpoint {
    cop_job *job;
    char folder[128], *bytes[FILES];
    size_t size[FILES];
    float *weights, *states[2];
} good_checkpoint;
static good_checkpoint checkpoint;

static void make_checkpoint(good_checkpoint *g) {
    cop_data *data = fuzz_data();
    g->job = fuzz_job_of(CHECKPOINT_JOB, data);
    const size_t floats = (size_t)cop_model_floats(g->job->model);
    float *buffers[3];
    for (int i = 0; i < 3; i++) {
        buffers[i] = cop_alloc_array(floats, sizeof(float));
        FUZZ_CHECK(buffers[i]);
    }
    g->weights = buffers[0], g->states[0] = buffers[1], g->states[1] = buffers[2];
    cop_model_init(g->job->model, 1, g->weights);
    const cop_checkpoint c = {.step = 7,
                              .weights = g->weights,
                              .states = {g->states[0], g->states[1]},
                              .train_samples = 28,
                              .best_error = 0.25,
                              .has_best = true};
    fuzz_folder(g->folder);
    FUZZ_CHECK(!cop_checkpoint_save(g->job, g->folder, &c, NULL));
    for (int i = 0; i < FILES; i++)
        g->bytes[i] = fuzz_read(g->folder, checkpoint_files[i], &g->size[i]);
    cop_data_destroy(data);
}

/* ---- corrected hashes ---- */

/* Overwrites the 16 digits that follow `key` in the text, if there are any. */
static void put_hash(char *text, const char *key, uint64_t hash) {
    char digits[17];
    char *at = strstr(text, key);
    if (!at || strlen(at) < strlen(key) + 16) return;
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash);
    memcpy(at + strlen(key), digits, 16);
}

/* Writes state.json with a correct hash at its end, which is that of everything before it. */
static void write_sealed(const good_checkpoint *g, const char *state, size_t size) {
    static const char seal[] = "  \"state_xxh3\": \"";
    char *text = cop_alloc(size + 64), *at;
    FUZZ_CHECK(text);
    if (size) memcpy(text, state, size);
    if (!(at = strstr(text, seal))) at = text + strlen(text);
    const size_t length = (size_t)(at - text);
    const int more =
        snprintf(at, 64, "%s%016llx\"\n}\n", seal, (unsigned long long)cop_hash_xxh3(text, length));
    fuzz_write(g->folder, checkpoint_files[STATE], text, length + (size_t)more);
    cop_free(text);
}

static void seal(const good_checkpoint *g, int file, const uint8_t *bytes, size_t size) {
    if (file == STATE) {
        write_sealed(g, (const char *)bytes, size);
    } else if (file != LATEST) {
        char *text = cop_strndup(g->bytes[STATE], g->size[STATE]);
        FUZZ_CHECK(text);
        put_hash(text, file == MODEL ? "\"model_xxh3\": \"" : "\"optimizer_xxh3\": \"",
                 cop_hash_xxh3(bytes, size));
        write_sealed(g, text, g->size[STATE]);
        cop_free(text);
    }
}

/* ---- loading ---- */

static void load_checkpoint(good_checkpoint *g) {
    cop_checkpoint c;
    cop_str notes = {0};
    cop_error error = {0};
    if (cop_checkpoint_load(
            g->job, &(cop_checkpoint_source){g->folder, COP_CHECKPOINT_ANY_STEP, &notes},
            &(cop_checkpoint_buffers){g->weights, {g->states[0], g->states[1]}}, &c, &error))
        fuzz_refused(&error);
    else
        FUZZ_CHECK(c.step <= g->job->steps);
    cop_str_fini(&notes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    good_checkpoint *g = &checkpoint;
    fuzz_bytes input = {data, size};
    if (!g->job) make_checkpoint(g);
    const uint8_t choice = fuzz_byte(&input);
    const int file = choice % FILES;
    fuzz_write(g->folder, checkpoint_files[file], input.at, input.size);
    if (choice & SEALED) seal(g, file, input.at, input.size);
    load_checkpoint(g);
    fuzz_write(g->folder, checkpoint_files[file], g->bytes[file], g->size[file]);
    if (choice & SEALED && file != STATE)
        fuzz_write(g->folder, checkpoint_files[STATE], g->bytes[STATE], g->size[STATE]);
    return 0;
}
