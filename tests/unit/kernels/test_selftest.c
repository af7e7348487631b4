/* The self-test of D9, which must give the golden digest on every instruction set, and the choice
 * of kernels by COPPICE_ISA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/kernels/kernel.h"

static void test_every_instruction_set_gives_the_golden_digest(void **state) {
    (void)state;
    int ran = 0;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        unsigned char digest[32];
        cop_error error = {0};
        if (!kernels) continue;
        if (cop_self_test(kernels, digest, &error) != COP_OK) fail_msg("%s", error.text);
        ran++;
    }
    assert_true(ran >= 1);
}

static cop_kernels wrong;

/* A kernel with an error in the last bit of one value. */
static void wrong_scale(const float *x, float factor, float *y, size_t count) {
    cop_kernels_find("baseline")->scale(x, factor, y, count);
    uint32_t u;
    memcpy(&u, &y[count / 2], 4);
    u ^= 1;
    memcpy(&y[count / 2], &u, 4);
}

/* Products that skip zeros, with an error in the last bit of one value if k has segments, or if it
 * has none. */
static bool wrong_sparse(const cop_gemm *g, void *workspace, bool segments) {
    const bool done = cop_kernels_find("baseline")->gemm_sparse(g, workspace);
    uint32_t u;
    memcpy(&u, &g->c[g->n / 2], 4);
    u ^= (g->segments != NULL) == segments;
    memcpy(&g->c[g->n / 2], &u, 4);
    return done;
}

static bool wrong_forward(const cop_gemm *g, void *workspace) {
    return wrong_sparse(g, workspace, false);
}

static bool wrong_gradient(const cop_gemm *g, void *workspace) {
    return wrong_sparse(g, workspace, true);
}

static bool never_sparse(const cop_gemm *g, void *workspace) {
    (void)g, (void)workspace;
    return false;
}

static void check_wrong(void) {
    unsigned char digest[32];
    cop_error error = {0};
    assert_int_equal(cop_self_test(&wrong, digest, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "self-test"));
    assert_non_null(strstr(error.text, "baseline"));
}

static void test_one_wrong_bit_fails_the_self_test(void **state) {
    (void)state;
    bool (*const sparse[])(const cop_gemm *, void *) = {wrong_forward, wrong_gradient,
                                                        never_sparse};
    wrong = *cop_kernels_find("baseline");
    wrong.scale = wrong_scale;
    check_wrong();
    for (int i = 0; i < 3; i++) {
        wrong = *cop_kernels_find("baseline");
        wrong.gemm_sparse = sparse[i];
        check_wrong();
    }
}

static void test_self_test_reports_lack_of_memory(void **state) {
    (void)state;
    for (unsigned k = 1; k <= 2; k++) {
        unsigned char digest[32];
        cop_error error = {0};
        cop_alloc_fail_at(k);
        assert_int_equal(cop_self_test(cop_kernels_find("baseline"), digest, &error),
                         COP_ERR_NO_MEMORY);
    }
    cop_alloc_fail_at(0);
}

static void test_coppice_isa_forces_kernels(void **state) {
    (void)state;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels;
        cop_error error = {0};
        setenv("COPPICE_ISA", *name, 1);
        const cop_err code = cop_kernels_choose(&kernels, &error);
        if (cop_kernels_find(*name)) {
            assert_int_equal(code, COP_OK);
            assert_string_equal(kernels->name, *name);
        } else {
            assert_int_equal(code, COP_ERR_UNSUPPORTED);
        }
    }
    unsetenv("COPPICE_ISA");
}

static void test_default_kernels_are_the_best_available(void **state) {
    (void)state;
    const cop_kernels *kernels, *best = NULL;
    for (const char *const *name = cop_kernels_names(); *name && !best; name++)
        best = cop_kernels_find(*name);
    unsetenv("COPPICE_ISA");
    assert_int_equal(cop_kernels_choose(&kernels, NULL), COP_OK);
    assert_ptr_equal(kernels, best);
    setenv("COPPICE_ISA", "", 1);
    assert_int_equal(cop_kernels_choose(&kernels, NULL), COP_OK);
    assert_ptr_equal(kernels, best);
    unsetenv("COPPICE_ISA");
}

static void test_unknown_isa_is_an_error_that_suggests_the_nearest(void **state) {
    (void)state;
    const cop_kernels *kernels;
    cop_error error = {0};
    setenv("COPPICE_ISA", "avx51", 1);
    assert_int_equal(cop_kernels_choose(&kernels, &error), COP_ERR_UNSUPPORTED);
    assert_int_equal(cop_err_exit_status(error.code), 2);
    assert_non_null(strstr(error.text, "avx51"));
    assert_non_null(strstr(error.text, "did you mean \"avx512\""));
    assert_non_null(strstr(error.text, "baseline"));
    setenv("COPPICE_ISA", "mainframe", 1);
    assert_int_equal(cop_kernels_choose(&kernels, &error), COP_ERR_UNSUPPORTED);
    assert_null(strstr(error.text, "did you mean"));
    unsetenv("COPPICE_ISA");
}

static void test_known_isa_of_another_machine_is_an_error(void **state) {
    (void)state;
#if defined(__x86_64__)
    const char *other = "neon";
#else
    const char *other = "avx2";
#endif
    const cop_kernels *kernels;
    cop_error error = {0};
    setenv("COPPICE_ISA", other, 1);
    assert_int_equal(cop_kernels_choose(&kernels, &error), COP_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "does not support it"));
    assert_null(cop_kernels_find(other));
    unsetenv("COPPICE_ISA");
}

/* Other threads may read the environment while OpenBLAS is loaded, so loading must not change it.
 * This test must run first. */
static void test_loading_openblas_does_not_change_the_environment(void **state) {
    (void)state;
    char *before[1024] = {NULL};
    size_t count = 0;
    for (; environ[count]; count++) {
        assert_true(count < 1023);
        before[count] = environ[count];
    }
    assert_int_equal(cop_numerics_load(COP_NUMERICS_OPENBLAS, NULL), COP_OK);
    for (size_t i = 0; i <= count; i++) assert_ptr_equal(environ[i], before[i]);
}

static void test_fingerprints_include_the_numerics(void **state) {
    (void)state;
    char out[128];
    assert_string_equal(cop_numerics_fingerprint(COP_NUMERICS_PORTABLE, out), "portable-1");
    cop_numerics_fingerprint(COP_NUMERICS_OPENBLAS, out);
    assert_int_equal(strncmp(out, "openblas ", 9), 0);
    assert_true(out[9] >= '0' && out[9] <= '9'); /* a version */
    assert_non_null(strstr(out, " threads 1"));
}

#if defined(__x86_64__)
static void test_compute_thread_init_clears_flush_to_zero(void **state) {
    (void)state;
    volatile float tiny = 0x1p-130f, half = 0.5f;
    __builtin_ia32_ldmxcsr(0x1f80 | 0x8040 | 0x2000); /* FTZ, DAZ, round down */
    assert_true(tiny * half == 0.0f);
    cop_compute_thread_init();
    assert_true(tiny * half == 0x1p-131f);
    volatile float one = 1.0f, small = 0x1p-25f;
    assert_true(one - small == 1.0f); /* to nearest */
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading_openblas_does_not_change_the_environment),
        cmocka_unit_test(test_every_instruction_set_gives_the_golden_digest),
        cmocka_unit_test(test_one_wrong_bit_fails_the_self_test),
        cmocka_unit_test(test_self_test_reports_lack_of_memory),
        cmocka_unit_test(test_coppice_isa_forces_kernels),
        cmocka_unit_test(test_default_kernels_are_the_best_available),
        cmocka_unit_test(test_unknown_isa_is_an_error_that_suggests_the_nearest),
        cmocka_unit_test(test_known_isa_of_another_machine_is_an_error),
        cmocka_unit_test(test_fingerprints_include_the_numerics),
#if defined(__x86_64__)
        cmocka_unit_test(test_compute_thread_init_clears_flush_to_zero),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
