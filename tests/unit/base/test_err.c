/* Errors: names, messages, system errors, broken invariants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/err.h"

static void test_each_error_has_a_name_text_and_exit_status(void **state) {
    (void)state;
    assert_string_equal(cop_err_name(COP_ERR_INPUT), "INPUT");
    assert_string_equal(cop_err_text(COP_ERR_TIMEOUT), "timed out");
    assert_int_equal(cop_err_exit_status(COP_OK), 0);
    assert_int_equal(cop_err_exit_status(COP_ERR_USAGE), 2);
    assert_int_equal(cop_err_exit_status(COP_ERR_DIVERGED), 1);
}

static void test_errors_carry_code_and_message(void **state) {
    (void)state;
    cop_error e;
    assert_int_equal(cop_fail(&e, COP_ERR_INPUT, "p is %g", 1.5), COP_ERR_INPUT);
    cop_error_prefix(&e, "job.yaml:%d", 7);
    assert_string_equal(e.text, "job.yaml:7: p is 1.5");
    assert_int_equal(cop_fail_errno(&e, ENOSPC, "cannot write %s", "x"), COP_ERR_NO_SPACE);
    assert_string_equal(e.text, "cannot write x: No space left on device");
    assert_int_equal(cop_fail(NULL, COP_ERR_IO, "nobody listens"), COP_ERR_IO);
}

static void test_unknown_codes_have_a_text(void **state) {
    (void)state;
    const cop_err unknown = (cop_err)12345;
    assert_string_equal(cop_err_name(unknown), "UNKNOWN");
    assert_string_equal(cop_err_text(unknown), "unknown error");
    assert_int_equal(cop_err_exit_status(unknown), 1);
}

static void test_system_errors_map_to_codes(void **state) {
    (void)state;
    static const struct {
        int number;
        cop_err code;
    } rows[] = {{ENOSPC, COP_ERR_NO_SPACE},  {EDQUOT, COP_ERR_NO_SPACE},
                {ENOENT, COP_ERR_NOT_FOUND}, {EACCES, COP_ERR_DENIED},
                {EPERM, COP_ERR_DENIED},     {EROFS, COP_ERR_DENIED},
                {ENOMEM, COP_ERR_NO_MEMORY}, {EIO, COP_ERR_IO},
                {EISDIR, COP_ERR_EXISTS},    {ENOTDIR, COP_ERR_NOT_FOUND}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cop_error e;
        assert_int_equal(cop_fail_errno(&e, rows[i].number, "x"), rows[i].code);
        assert_int_equal(e.code, rows[i].code);
        assert_int_equal(cop_fail_errno(NULL, rows[i].number, "x"), rows[i].code);
    }
}

static void test_long_messages_are_truncated(void **state) {
    (void)state;
    struct {
        cop_error error;
        unsigned char guard[16];
    } e;
    memset(e.guard, 0x5a, sizeof e.guard);
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    cop_fail_errno(&e.error, ENOSPC, "%s", text);
    assert_int_equal(strlen(e.error.text), sizeof e.error.text - 1);
    assert_int_equal(cop_error_prefix(&e.error, "%s", text), COP_ERR_NO_SPACE);
    assert_int_equal(strlen(e.error.text), sizeof e.error.text - 1);
    for (size_t i = 0; i < sizeof e.guard; i++) assert_int_equal(e.guard[i], 0x5a);
}

static void test_prefixes_stack_from_the_inside_out(void **state) {
    (void)state;
    cop_error e;
    cop_fail(&e, COP_ERR_INPUT, "100%% wrong");
    cop_error_prefix(&e, "model[%d]", 3);
    assert_int_equal(cop_error_prefix(&e, "job.yaml"), COP_ERR_INPUT);
    assert_string_equal(e.text, "job.yaml: model[3]: 100% wrong");
}

static cop_err try_it(cop_err first, int *reached) {
    COP_TRY(first);
    *reached = 1;
    return COP_OK;
}

static void test_try_returns_early_on_errors_only(void **state) {
    (void)state;
    int reached = 0;
    assert_int_equal(try_it(COP_ERR_BUSY, &reached), COP_ERR_BUSY);
    assert_int_equal(reached, 0);
    assert_int_equal(try_it(COP_OK, &reached), COP_OK);
    assert_int_equal(reached, 1);
}

/* Runs a child process that breaks an invariant. Returns its exit status, and in `output` what it
 * printed. */
static int run_broken_invariant(char *output, size_t size) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        int two = 2;
        COP_ASSERT(two + two == 5);
        _exit(0);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], output, size - 1);
    output[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return status;
}

static void test_a_broken_invariant_stops_the_program(void **state) {
    (void)state;
    char output[300];
    int status = run_broken_invariant(output, sizeof output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "test_err.c"));
    assert_non_null(strstr(output, "two + two == 5"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_error_has_a_name_text_and_exit_status),
        cmocka_unit_test(test_errors_carry_code_and_message),
        cmocka_unit_test(test_unknown_codes_have_a_text),
        cmocka_unit_test(test_system_errors_map_to_codes),
        cmocka_unit_test(test_long_messages_are_truncated),
        cmocka_unit_test(test_prefixes_stack_from_the_inside_out),
        cmocka_unit_test(test_try_returns_early_on_errors_only),
        cmocka_unit_test(test_a_broken_invariant_stops_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
