/* Injected file faults. Whichever write, fsync or rename fails, either the old or the new file is
 * there and complete, and no temporary file is left. A process reads COPPICE_FAIL_IO only once, so
 * each case runs in a child, and this process never writes files itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/file.h"

static char folder[64], path[80], other[80];

static void put(const char *where, const char *text) {
    FILE *f = fopen(where, "w");
    assert_non_null(f);
    if (!f) return; /* cannot happen; the check is for the static analyser */
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/coppice-fault-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/f", folder);
    snprintf(other, sizeof other, "%s/g", folder);
    put(path, "old");
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    return cop_folder_remove(folder, NULL) != COP_OK;
}

static void assert_contents(const char *where, const char *expected) {
    char *text;
    size_t size;
    assert_int_equal(cop_file_read(where, 100, &text, &size, NULL), COP_OK);
    assert_string_equal(text, expected);
    cop_free(text);
}

static void assert_names(size_t expected) {
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list(folder, &names, &count, NULL), COP_OK);
    assert_int_equal(count, expected);
    cop_free(names);
}

static cop_err write_two_parts(void) {
    cop_file_part parts[2] = {{"brand ", 6}, {"new", 3}};
    return cop_file_write(path, parts, 2, 0644, NULL);
}

static cop_err create_two_folders(void) {
    char deep[96];
    snprintf(deep, sizeof deep, "%s/a/b", folder);
    return cop_folder_create(deep, NULL);
}

static cop_err remove_new(void) {
    char from[96];
    snprintf(from, sizeof from, "%s/new", folder);
    return cop_folder_remove(from, NULL);
}

static cop_err replace_folder(void) {
    char from[96], to[96];
    snprintf(from, sizeof from, "%s/new", folder);
    snprintf(to, sizeof to, "%s/a", folder);
    return cop_folder_replace(from, to, NULL);
}

static cop_err rename_it(void) {
    return cop_file_rename(path, other, NULL);
}

/* Writes twice in the same process; only one write fails. */
static cop_err write_again(void) {
    cop_err first = write_two_parts();
    return first == COP_ERR_NO_SPACE ? write_two_parts() : COP_ERR_INTERNAL;
}

/* Runs `what` in a child whose k-th operation fails; returns its result. */
static cop_err with_fault(int k, cop_err (*what)(void)) {
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", k);
        setenv("COPPICE_FAIL_IO", number, 1);
        _exit((int)what());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return (cop_err)WEXITSTATUS(status);
}

/* The counted operations are: write, write, fsync, rename, fsync of the folder. */
static void test_old_file_stays_until_the_new_one_is_renamed(void **state) {
    (void)state;
    for (int k = 1; k <= 4; k++) {
        assert_int_equal(with_fault(k, write_two_parts), COP_ERR_NO_SPACE);
        assert_contents(path, "old");
        assert_names(1);
    }
}

static void test_a_folder_that_cannot_be_synced_is_an_error(void **state) {
    (void)state;
    assert_int_equal(with_fault(5, write_two_parts), COP_ERR_NO_SPACE);
    assert_contents(path, "brand new");
    assert_names(1);
}

static void test_fault_after_the_last_operation_has_no_effect(void **state) {
    (void)state;
    assert_int_equal(with_fault(6, write_two_parts), COP_OK);
    assert_contents(path, "brand new");
    assert_names(1);
}

static void test_fault_is_injected_once(void **state) {
    (void)state;
    assert_int_equal(with_fault(3, write_again), COP_OK);
    assert_contents(path, "brand new");
    assert_names(1);
}

/* The counted operations are: fsync of the parent of a, then fsync of a. If the name of a folder is
 * not synced, a power failure may lose the folder with its content. */
static void test_new_folders_are_synced_or_absent(void **state) {
    (void)state;
    char a[96], file[112];
    snprintf(a, sizeof a, "%s/a", folder);
    snprintf(file, sizeof file, "%s/file", a);
    assert_int_equal(with_fault(1, create_two_folders), COP_ERR_NO_SPACE);
    assert_false(cop_folder_exists(a));
    assert_int_equal(with_fault(2, create_two_folders), COP_ERR_NO_SPACE);
    assert_true(cop_folder_exists(a));
    /* An empty folder may be left from a program that was killed before its fsync, so it must be
     * synced again. */
    assert_int_equal(with_fault(1, create_two_folders), COP_ERR_NO_SPACE);
    put(file, "x");
    assert_int_equal(with_fault(1, create_two_folders), COP_ERR_NO_SPACE); /* of b */
    assert_int_equal(with_fault(2, create_two_folders), COP_OK);
}

/* The counted operations are: the exchange, and the fsync of the folder. */
static void test_folder_is_replaced_atomically(void **state) {
    (void)state;
    char old[112], fresh[112], from[96];
    snprintf(from, sizeof from, "%s/new", folder);
    snprintf(old, sizeof old, "%s/a/file", folder);
    snprintf(fresh, sizeof fresh, "%s/file", from);
    for (int k = 1; k <= 3; k++) {
        char *text;
        size_t size;
        assert_int_equal(with_fault(9, create_two_folders), COP_OK);
        put(old, "old");
        assert_int_equal(mkdir(from, 0700), 0);
        put(fresh, "new");
        assert_int_equal(with_fault(k, replace_folder), k < 3 ? COP_ERR_NO_SPACE : COP_OK);
        assert_int_equal(cop_file_read(old, 100, &text, &size, NULL), COP_OK);
        assert_string_equal(text, k == 1 ? "old" : "new");
        assert_int_equal(cop_folder_exists(from), k < 3);
        cop_free(text);
        assert_int_equal(with_fault(9, remove_new), COP_OK);
    }
}

static void test_a_failed_rename_changes_nothing(void **state) {
    (void)state;
    assert_int_equal(with_fault(1, rename_it), COP_ERR_NO_SPACE);
    assert_contents(path, "old");
    assert_int_equal(with_fault(2, rename_it), COP_ERR_NO_SPACE); /* renamed, but not synced */
    assert_contents(other, "old");
    assert_names(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_old_file_stays_until_the_new_one_is_renamed,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_a_folder_that_cannot_be_synced_is_an_error,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_fault_after_the_last_operation_has_no_effect,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_fault_is_injected_once, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_new_folders_are_synced_or_absent, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_folder_is_replaced_atomically, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_a_failed_rename_changes_nothing, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
