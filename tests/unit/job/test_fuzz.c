/* Drives the fuzz target of job files: pieces of the example jobs, cut, copied and mixed, the same
 * in every run. */
#include "unit/job/fixture.h"

#include "fuzz/fuzz_job.c" // NOLINT(bugprone-suspicious-include)

#define ROUNDS 30000

static uint64_t next(uint64_t *s) {
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return *s * 2685821657736338717ull >> 8;
}

/* One change: a byte, a piece copied elsewhere, a piece cut out. */
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
        LLVMFuzzerTestOneInput((const uint8_t *)work, n);
    }
    cop_free(work), cop_free(text);
}

static void test_mutated_examples_never_crash(void **state) {
    (void)state;
    mutate_file("examples/golden.yaml", 1);
    mutate_file("examples/synthetic.yaml", 2);
    mutate_file("examples/mnist-dropout.yaml", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutated_examples_never_crash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
