/* Text output: texts that others have chosen cannot control the terminal. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli.h"
#include "common/base/alloc.h"

static char *printed(const char *name) {
    static char text[40000];
    const int kept = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    if (!file) fail_msg("no temporary file");
    fflush(stdout);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
    cli_print("\033[1m%s\033[0m is here\n%s\n", name, "again");
    fflush(stdout);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    close(kept);
    assert_int_equal(fseek(file, 0, SEEK_SET), 0);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void test_printed_names_cannot_control_the_terminal(void **state) {
    (void)state;
    assert_string_equal(printed("a"), "\033[1ma\033[0m is here\nagain\n");
    assert_string_equal(printed("\033]0;title\a\r\033[2J\x7f"),
                        "\033[1m?]0;title???[2J?\033[0m is here\nagain\n");
    assert_string_equal(printed("\xc2\x9b"
                                "2J\xe2\x80\xae"),
                        "\033[1m??2J???\033[0m is here\nagain\n");
}

static void test_long_text_is_complete_and_short_text_needs_no_memory(void **state) {
    (void)state;
    static char name[20000];
    memset(name, 'n', sizeof name - 1);
    assert_int_equal(strlen(printed(name)), sizeof name - 1 + strlen(printed("")));
    const uint64_t before = cop_alloc_count();
    printed("short");
    assert_int_equal(cop_alloc_count(), before);
}

/* This must hold whatever progress a coordinator reports. */
static void test_progress_stays_between_0_and_100_percent(void **state) {
    (void)state;
    const double reported[] = {NAN, -1, 0.5, 2, INFINITY}, shown[] = {0, 0, 0.5, 1, 1};
    cli_progress progress;
    cli_progress_start(&progress, false);
    for (int i = 0; i < 5; i++) {
        cli_progress_show(&progress, reported[i], "x");
        assert_true(progress.last_fraction >= shown[i] && progress.last_fraction <= shown[i]);
    }
    cli_progress_end(&progress);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed_names_cannot_control_the_terminal),
        cmocka_unit_test(test_long_text_is_complete_and_short_text_needs_no_memory),
        cmocka_unit_test(test_progress_stays_between_0_and_100_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
