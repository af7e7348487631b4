/* The figures of a job, read from a store file. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "coordinator/coordinator.h"

/* Makes a store at `path` with `rows` epochs of job 1. */
static void make_store(const char *path, int rows) {
    char sql[600];
    sqlite3 *db;
    snprintf(sql, sizeof sql,
             "CREATE TABLE epochs(job, step, epoch, train_loss, train_error);"
             "CREATE TABLE evaluations(job, step, part, loss, error, seconds);"
             "INSERT INTO epochs WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
             "WHERE i < %d) SELECT 1, i, i, 0.5, 0.25 FROM n",
             rows);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void test_too_many_figures_are_an_error(void **state) {
    (void)state;
    const int most = 1 << 20;
    for (int rows = most; rows <= most + 1; rows++) {
        char path[] = "/tmp/coppice-history-XXXXXX";
        coord_history history;
        cop_error error = {0};
        const coord_history_range all = {.job = 1};
        close(mkstemp(path));
        make_store(path, rows);
        const cop_err e = coord_history_read(path, &all, &history, &error);
        assert_int_equal(e, rows == most ? COP_OK : COP_ERR_LIMIT);
        assert_int_equal(history.train_count, rows == most ? rows : 0);
        if (e) assert_non_null(strstr(error.text, "too many figures"));
        coord_history_fini(&history);
        unlink(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_too_many_figures_are_an_error)};
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
