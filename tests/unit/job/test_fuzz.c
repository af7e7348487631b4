/* Runs the fuzz targets of job files, model files and checkpoints on kept inputs, and on inputs
 * that are made of truncated, copied and mixed pieces of valid files, the same in every run. */
#include "unit/job/fixture.h"

#include "common/interchange/import.h"
#include "common/base/bytes.h"
#include "fuzz/replay.h"

#define LLVMFuzzerTestOneInput fuzz_job
#include "fuzz/fuzz_job.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_model
#include "fuzz/fuzz_model.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_checkpoint
#include "fuzz/fuzz_checkpoint.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_json
#include "fuzz/fuzz_json.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput

#ifdef __SANITIZE_ADDRESS__ /* slow; the fuzz stage feeds more inputs to the same targets */
#    define ROUNDS 4000
#else
#    define ROUNDS 30000
#endif

static uint64_t next(uint64_t *s) {
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return *s * 2685821657736338717ull >> 8;
}

/* Makes one change: a byte, a copied piece, or a removed piece. */
static size_t mutate(char *text, size_t size, uint64_t *random) {
    size_t from = next(random) % size, to = next(random) % size, span = 1 + next(random) % 24;
    if (from + span > size) span = size - from;
    if (to + span > size) to = size - span;
    switch (next(random) % 4) {
    case 0:
        text[from] = (char)next(random);
        return size;
    case 1:
        text[from] = "{}[]:,-#'\"\n \t0123456789.e&*!"[next(random) % 28];
        return size;
    case 2:
        memmove(text + to, text + from, span);
        return size;
    default:
        if (span >= size / 2) return size;
        memmove(text + from, text + from + span, size - from - span);
        return size - span;
    }
}

static void mutate_file(const char *path, uint64_t random) {
    char *text;
    size_t size;
    assert_int_equal(cop_file_read(path, 1 << 16, &text, &size, NULL), COP_OK);
    char *work = cop_alloc(size);
    for (int i = 0; i < ROUNDS / 3; i++) {
        size_t n = size;
        memcpy(work, text, size);
        for (uint64_t changes = 1 + next(&random) % 3; changes-- > 0;) n = mutate(work, n, &random);
        fuzz_job((const uint8_t *)work, n);
    }
    cop_free(work), cop_free(text);
}

static void test_mutated_examples_never_crash(void **state) {
    (void)state;
    mutate_file("examples/golden.yaml", 1);
    mutate_file("examples/synthetic.yaml", 2);
    mutate_file("examples/mnist-dropout.yaml", 3);
}

/* Changes bytes of the whole file, or only of its header. In the second case the stored length of
 * the header is corrected, so that the header is parsed. */
static void drive_model(const char *bytes, size_t size, uint64_t random) {
    char *work = cop_alloc(size);
    for (int i = 0; i < ROUNDS / 8; i++) {
        const size_t header = 8 + (size_t)cop_load_u64(bytes);
        size_t n = i % 4 ? header : size;
        memcpy(work, bytes, size);
        for (uint64_t changes = 1 + next(&random) % 3; changes-- > 0;) n = mutate(work, n, &random);
        if (i % 4) { /* only the header was changed: the tensors follow */
            memcpy(work + n, bytes + header, size - header);
            cop_store_u64(work, n - 8);
            n += size - header;
        }
        fuzz_model((const uint8_t *)work, n);
    }
    cop_free(work);
}

static void test_mutated_model_files_never_crash(void **state) {
    (void)state;
    const cop_job *job = fuzz_network();
    float *flat = first_weights(job), *back = new_floats(job);
    cop_buffer *bytes;
    char bare[2048];
    assert_int_equal(cop_job_encode_model(job, flat, 7, &bytes, NULL), COP_OK);
    fuzz_model(bytes->data, bytes->size);
    drive_model(bytes->data, bytes->size, 1);
    cop_buffer_release(bytes);
    /* As another program writes it: without metadata, with 16-bit floats. */
    static const char header[] =
        "{\"1.weight\":{\"dtype\":\"F16\",\"shape\":[2,1,2,2],\"data_offsets\":[0,16]},"
        "\"1.bias\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[16,20]},"
        "\"3.weight\":{\"dtype\":\"BF16\",\"shape\":[10,2],\"data_offsets\":[20,60]},"
        "\"3.bias\":{\"dtype\":\"BF16\",\"shape\":[10],\"data_offsets\":[60,80]}}";
    cop_store_u64(bare, sizeof header - 1);
    memcpy(bare + 8, header, sizeof header - 1);
    for (int i = 0; i < 80; i++) bare[8 + sizeof header - 1 + i] = (char)(i * 37 & 0x3f);
    const size_t size = 8 + sizeof header - 1 + 80;
    cop_safetensors *file;
    assert_int_equal(cop_safetensors_decode(bare, size, "bare", &file, NULL), COP_OK);
    assert_int_equal(cop_import_tensors(job->model, file, "bare", back, NULL), COP_OK);
    cop_safetensors_close(file);
    drive_model(bare, size, 2);
    cop_free(flat), cop_free(back);
}

static void test_mutated_results_never_crash(void **state) {
    (void)state;
    static const char good[] =
        "{\"average\":\"arithmetic\",\"members\":[{\"members\":1,\"error\":0.05,\"error_se\":1.0e-"
        "2},"
        "{\"members\":20,\"error\":0.04}],\"samples\":137,\"models\":[]}\n"
        "{\"average\":\"weight-scaling\",\"members\":[{\"members\":1}],\"digest\":\"a\\\"b\"}\n";
    uint64_t random = 7;
    char work[sizeof good];
    for (int i = 0; i < ROUNDS / 3; i++) {
        size_t n = sizeof good - 1;
        memcpy(work, good, n);
        for (uint64_t changes = next(&random) % 4; changes-- > 0;) n = mutate(work, n, &random);
        fuzz_json((const uint8_t *)work, n);
    }
}

static void test_kept_fuzz_inputs_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("job", fuzz_job) > 0);
    assert_true(fuzz_replay("model", fuzz_model) > 0);
    assert_true(fuzz_replay("json", fuzz_json) > 0);
    assert_true(fuzz_replay("checkpoint", fuzz_checkpoint) > 0);
    assert_int_equal(cop_folder_remove(checkpoint.folder, NULL), COP_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept_fuzz_inputs_pass),
                                       cmocka_unit_test(test_mutated_examples_never_crash),
                                       cmocka_unit_test(test_mutated_results_never_crash),
                                       cmocka_unit_test(test_mutated_model_files_never_crash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
