/* LABELS: quick threads
 * The store. Acknowledged data are there after it is opened again, and after kill -9. Files of
 * newer versions and damaged files are refused. Metrics of a repeated step are replaced. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "coordinator/store/store.h"

typedef struct place {
    char folder[64], path[96];
} place;

static int set_up(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/coppice-store-XXXXXX");
    if (!mkdtemp(p->folder)) return -1;
    snprintf(p->path, sizeof p->path, "%s/store.sqlite", p->folder);
    *state = p;
    return 0;
}

static int tear_down(void **state) {
    place *p = *state;
    cop_folder_remove(p->folder, NULL);
    free(p);
    return 0;
}

static coord_store *open_store(const place *p) {
    coord_store *s = NULL;
    cop_error error = {0};
    if (coord_store_open(p->path, &s, &error)) fail_msg("%s", error.text);
    return s;
}

static cop_buffer *spec_of(const char *text) {
    cop_buffer *b = cop_buffer_create(strlen(text));
    memcpy(b->data, text, strlen(text));
    return b;
}

typedef struct answer {
    atomic_int count, code;
} answer;

static void note(void *context, cop_err result, const char *text) {
    answer *a = context;
    (void)text;
    atomic_store(&a->code, (int)result);
    atomic_fetch_add(&a->count, 1);
}

static void add_job(coord_store *s, uint64_t job, const char *name, answer *a) {
    cop_buffer *spec = spec_of("the specification");
    coord_store_submission j = {.job = job, .name = name, .data_digest = "abc", .spec = spec};
    coord_store_add_job(s, &j, a ? note : NULL, a);
    cop_buffer_release(spec);
}

static void add_step(coord_store *s, uint64_t job, uint64_t step, double loss, double seconds) {
    coord_store_add_step(s, job,
                         &(coord_store_step){.step = step, .loss = loss, .seconds = seconds});
}

static void add_epoch(coord_store *s, uint64_t job, uint64_t step, double epoch, double loss,
                      double error) {
    coord_store_add_epoch(
        s, job,
        &(coord_store_epoch){
            .step = step, .epoch = epoch, .train_loss = loss, .train_error = error});
}

/* Adds an evaluation of the test part, after one second of training. */
static void add_evaluation(coord_store *s, uint64_t job, uint64_t step, double loss, double error) {
    coord_store_add_evaluation(
        s, job,
        &(coord_store_evaluation){
            .step = step, .part = "test", .loss = loss, .error = error, .seconds = 1});
}

static void await(const answer *a, int count) {
    for (int i = 0; i < 10000 && atomic_load(&a->count) < count; i++) cop_clock_sleep_ms(1);
    assert_int_equal(atomic_load(&a->count), count);
}

static int64_t number(const place *p, const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open_v2(p->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return value;
}

static void execute(const place *p, const char *sql) {
    sqlite3 *db;
    assert_int_equal(
        sqlite3_open_v2(p->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* ---- jobs ---- */

static void test_job_survives_a_reopen(void **state) {
    coord_store *s = open_store(*state);
    answer a = {0};
    add_job(s, 7, "mnist", &a);
    await(&a, 1);
    assert_int_equal(a.code, COP_OK);
    coord_store_set_state(s, 7, COORD_RUNNING, "");
    coord_store_set_digest(s, 7, 500, "0123");
    coord_store_set_state(s, 7, COORD_COMPLETED, "well done");
    coord_store_close(s); /* writes all queued rows */
    s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 7, &job, &error), COP_OK);
    assert_string_equal(job.name, "mnist");
    assert_string_equal(job.text, "well done");
    assert_string_equal(job.digest, "0123");
    assert_string_equal(job.data_digest, "abc");
    assert_int_equal(job.state, COORD_COMPLETED);
    assert_int_equal(job.spec->size, strlen("the specification"));
    assert_memory_equal(job.spec->data, "the specification", job.spec->size);
    assert_true(strlen(job.created) > 10 && strlen(job.finished) > 10);
    cop_buffer_release(job.spec);
    coord_store_close(s);
}

static void test_key_and_fingerprint_of_a_job_survive_a_reopen(void **state) {
    static const unsigned char key[COORD_STORE_KEY] = "0123456789abcde";
    coord_store *s = open_store(*state);
    cop_buffer *spec = spec_of("the specification");
    coord_store_submission j = {
        .job = 3, .name = "x", .data_digest = "abc", .spec = spec, .key = key, .owner = "alice"};
    coord_store_add_job(s, &j, NULL, NULL);
    cop_buffer_release(spec);
    add_job(s, 4, "y", NULL);
    coord_store_set_fingerprint(s, 3, 0xfedcba9876543210);
    coord_store_close(s);
    s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 3, &job, &error), COP_OK);
    assert_true(job.has_key && job.fingerprint == 0xfedcba9876543210);
    assert_memory_equal(job.key, key, sizeof key);
    assert_string_equal(job.owner, "alice");
    cop_buffer_release(job.spec);
    assert_int_equal(coord_store_get_job(s, 4, &job, &error), COP_OK);
    assert_string_equal(job.owner, "");
    assert_false(job.has_key || job.fingerprint);
    cop_buffer_release(job.spec);
    coord_store_close(s);
}

/* A store as version 1 has written it, without columns that were added later. */
static void test_store_of_version_1_is_migrated(void **state) {
    coord_store *s = open_store(*state);
    add_job(s, 7, "old", NULL);
    coord_store_close(s);
    execute(*state, "ALTER TABLE jobs DROP COLUMN submission;"
                    "ALTER TABLE jobs DROP COLUMN owner;"
                    "ALTER TABLE jobs DROP COLUMN fingerprint; DROP TABLE data_sets;"
                    "ALTER TABLE meta DROP COLUMN last_evaluation;"
                    "UPDATE meta SET version = 1");
    s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 7, &job, &error), COP_OK);
    assert_string_equal(job.name, "old");
    assert_false(job.has_key || job.fingerprint);
    cop_buffer_release(job.spec);
    coord_store_set_fingerprint(s, 7, 5);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT fingerprint FROM jobs"), 5);
    assert_int_equal(number(*state, "SELECT version FROM meta"), COORD_STORE_VERSION);
}

/* The tables of version 2, with an unfinished job. They are kept here because later code cannot
 * write them. */
static const char *const version_2 =
    "CREATE TABLE meta(version INTEGER NOT NULL, last_job INTEGER NOT NULL DEFAULT 0);"
    "INSERT INTO meta VALUES(2, 41);"
    "CREATE TABLE jobs(job INTEGER PRIMARY KEY, name TEXT NOT NULL, state INTEGER NOT NULL,"
    " text TEXT NOT NULL, spec BLOB NOT NULL, data_digest TEXT NOT NULL,"
    " digest TEXT NOT NULL DEFAULT '', digest_step INTEGER NOT NULL DEFAULT 0,"
    " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL DEFAULT 0,"
    " fingerprint INTEGER NOT NULL DEFAULT 0, submission BLOB);"
    "CREATE TABLE steps(job INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL, seconds REAL,"
    " PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE epochs(job INTEGER NOT NULL, step INTEGER NOT NULL, epoch REAL, train_loss REAL,"
    " train_error REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE evaluations(job INTEGER NOT NULL, step INTEGER NOT NULL, part TEXT, loss REAL,"
    " error REAL, seconds REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL,"
    " time_ms INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX events_of_job ON events(job, id);"
    "INSERT INTO jobs VALUES(41, 'kept', 2, '', x'0102', 'abc', 'def', 500, 17, 0, 9,"
    " x'30313233343536373839616263646566');"
    "INSERT INTO steps VALUES(41, 500, 0.25, 1.5);";

static void test_store_of_version_2_is_migrated(void **state) {
    execute(*state, version_2);
    coord_store *s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 41, &job, &error), COP_OK);
    assert_string_equal(job.name, "kept");
    assert_string_equal(job.digest, "def");
    assert_string_equal(job.owner, "");
    assert_true(job.has_key && job.fingerprint == 9 && job.spec->size == 2);
    assert_memory_equal(job.key, "0123456789abcdef", sizeof job.key);
    cop_buffer_release(job.spec);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT version FROM meta"), COORD_STORE_VERSION);
    assert_int_equal(number(*state, "SELECT last_job FROM meta"), 41);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps WHERE loss = 0.25"), 1);
}

static cop_err count_set(void *context, const coord_dataset *set) {
    *(uint32_t *)context += set->train;
    return COP_OK;
}

/* Version 3 had an owner for each job, but no data sets. */
static void test_store_of_version_3_is_migrated(void **state) {
    execute(*state, version_2);
    execute(*state, "ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';"
                    "UPDATE jobs SET owner = 'alice'; UPDATE meta SET version = 3");
    coord_store *s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    const coord_dataset set = {.name = "x", .digest = "ab", .bytes = 5, .train = 7, .rank = 1};
    coord_dataset sound = set;
    uint32_t sum = 0;
    assert_int_equal(coord_store_get_job(s, 41, &job, &error), COP_OK);
    assert_string_equal(job.owner, "alice");
    cop_buffer_release(job.spec);
    memset(sound.digest, 'a', 64);
    assert_int_equal(coord_store_put_set(s, &sound, &error), COP_OK);
    assert_int_equal(coord_store_put_set(s, &set, &error), COP_OK); /* skipped: invalid digest */
    assert_int_equal(coord_store_each_set(s, count_set, &sum, &error), COP_OK);
    assert_int_equal(sum, 7);
    assert_int_equal(coord_store_remove_set(s, "x", sound.digest, &error), COP_OK);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT version FROM meta"), COORD_STORE_VERSION);
    assert_int_equal(number(*state, "SELECT count(*) FROM data_sets"), 1);
}

typedef struct numbers {
    uint64_t jobs[16];
    uint32_t count;
} numbers;

static cop_err note_number(void *context, const coord_store_job *job) {
    numbers *x = context;
    x->jobs[x->count++] = job->job;
    return COP_OK;
}

static void test_invalid_job_rows_are_skipped(void **state) {
    coord_store *s = open_store(*state);
    numbers x = {.count = 0};
    cop_error error = {0};
    coord_store_job job;
    add_job(s, 7, "sound", NULL);
    coord_store_close(s);
    execute(*state, "INSERT INTO jobs(job, name, state, text, spec, data_digest, created_ms)"
                    " VALUES(-1, 'x', 1, '', x'', '', 0), (0, 'x', 1, '', x'', '', 0),"
                    " (9000000000000000000, 'x', 1, '', x'', '', 0), (3, 'x', 0, '', x'', '', 0),"
                    " (4, 'x', 77, '', x'', '', 0), (5, 'x', -2, '', x'', '', 0);"
                    "INSERT INTO steps VALUES(7, -5, 1, 1); UPDATE meta SET last_job = -9");
    cop_log_configure(COP_LOG_NONE, false);
    s = open_store(*state);
    assert_int_equal(coord_store_each_job(s, 100, note_number, &x, &error), COP_OK);
    assert_int_equal(x.count, 1);
    assert_int_equal(x.jobs[0], 7);
    assert_int_equal(coord_store_get_job(s, 4, &job, &error), COP_ERR_NOT_FOUND);
    assert_int_equal(coord_store_get_job(s, 7, &job, &error), COP_OK);
    assert_int_equal(job.step, 0);
    cop_buffer_release(job.spec);
    assert_int_equal(coord_store_last_job(s), 7);
    assert_true(coord_store_has_job(s, 4) && coord_store_has_job(s, 7));
    assert_false(coord_store_has_job(s, 6));
    coord_store_close(s);
    execute(*state, "UPDATE meta SET last_job = 9000000000000000000");
    s = open_store(*state);
    assert_int_equal(coord_store_last_job(s), 7);
    coord_store_close(s);
    cop_log_configure(COP_LOG_INFO, false);
}

static void test_missing_job_is_not_found(void **state) {
    coord_store *s = open_store(*state);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 3, &job, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "no job 3"));
    assert_int_equal(coord_store_get_job(s, 0, &job, &error), COP_ERR_NOT_FOUND);
    coord_store_close(s);
}

typedef struct seen {
    uint64_t jobs[16];
    uint32_t count;
} seen;

static cop_err see(void *context, const coord_store_job *job) {
    seen *x = context;
    x->jobs[x->count++] = job->job;
    return COP_OK;
}

static cop_err refuse(void *context, const coord_store_job *job) {
    (void)job;
    ++*(int *)context;
    return COP_ERR_LIMIT;
}

static void test_jobs_are_listed_newest_first_within_the_limit(void **state) {
    coord_store *s = open_store(*state);
    for (uint64_t job = 1; job <= 5; job++) add_job(s, job, "x", NULL);
    coord_store_flush(s);
    seen x = {0};
    cop_error error = {0};
    assert_int_equal(coord_store_each_job(s, 3, see, &x, &error), COP_OK);
    assert_int_equal(x.count, 3);
    assert_int_equal(x.jobs[0], 5);
    assert_int_equal(x.jobs[2], 3);
    int calls = 0; /* the visitor can stop the listing */
    assert_int_equal(coord_store_each_job(s, 5, refuse, &calls, &error), COP_ERR_LIMIT);
    assert_int_equal(calls, 1);
    coord_store_close(s);
}

static void test_removed_job_loses_its_rows_and_its_number_is_not_reused(void **state) {
    coord_store *s = open_store(*state);
    answer a = {0};
    add_job(s, 1, "x", NULL);
    add_job(s, 2, "y", NULL);
    for (uint64_t job = 1; job <= 2; job++) {
        add_step(s, job, 1, 0.5, 1);
        add_epoch(s, job, 1, 1, 0.5, 0.1);
        add_evaluation(s, job, 1, 0.5, 0.1);
        coord_store_add_event(s, job, "info", "hello");
    }
    coord_store_remove_job(s, 2, note, &a);
    await(&a, 1);
    assert_int_equal(coord_store_last_job(s), 2);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM jobs"), 1);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps"), 1);
    assert_int_equal(number(*state, "SELECT count(*) FROM epochs"), 1);
    assert_int_equal(number(*state, "SELECT count(*) FROM evaluations"), 1);
    assert_int_equal(number(*state, "SELECT count(*) FROM events"), 1);
    s = open_store(*state);
    assert_int_equal(coord_store_last_job(s), 2);
    coord_store_keep_evaluation(s, 5);
    coord_store_keep_evaluation(s, 4);
    coord_store_flush(s);
    assert_int_equal(coord_store_last_evaluation(s), 5);
    assert_int_equal(coord_store_last_job(s), 2);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM jobs"), 1);
}

/* ---- metrics ---- */

static void test_ten_thousand_metric_rows_are_stored(void **state) {
    coord_store *s = open_store(*state);
    add_job(s, 1, "x", NULL);
    for (uint64_t step = 1; step <= 10000; step++)
        add_step(s, 1, step, 1.0 / (double)step, (double)step * 0.25);
    coord_store_flush(s);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 1, &job, &error), COP_OK);
    assert_int_equal(job.step, 10000);
    assert_true(job.seconds == 2500);
    assert_false(job.has_train_loss || job.has_evaluation);
    cop_buffer_release(job.spec);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps"), 10000);
}

static void test_metrics_computed_again_replace_the_old(void **state) {
    coord_store *s = open_store(*state);
    add_job(s, 1, "x", NULL);
    for (int round = 1; round <= 2; round++) {
        add_step(s, 1, 5, round, 1);
        add_epoch(s, 1, 5, 0.5, round, 0.1);
        add_evaluation(s, 1, 5, round, 0.25 * round);
    }
    coord_store_flush(s);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 1, &job, &error), COP_OK);
    assert_true(job.has_train_loss && job.train_loss == 2);
    assert_true(job.has_evaluation && job.test_error == 0.5 && job.test_loss == 2);
    cop_buffer_release(job.spec);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps"), 1);
}

static void test_evaluation_may_have_no_error_rate(void **state) {
    coord_store *s = open_store(*state);
    add_job(s, 1, "autoencoder", NULL);
    add_epoch(s, 1, 5, 1, 0.5, NAN);
    add_evaluation(s, 1, 5, 0.25, NAN);
    coord_store_flush(s);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 1, &job, &error), COP_OK);
    assert_true(job.has_evaluation && job.test_loss == 0.25 && isnan(job.test_error));
    cop_buffer_release(job.spec);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM evaluations WHERE error IS NULL"), 1);
}

static void test_nan_loss_is_stored_as_null(void **state) {
    coord_store *s = open_store(*state);
    add_step(s, 1, 1, NAN, 1);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps WHERE loss IS NULL"), 1);
}

/* ---- events ---- */

typedef struct events {
    coord_store_event last;
    uint32_t count;
} events;

static cop_err take(void *context, const coord_store_event *event) {
    events *x = context;
    x->last = *event;
    x->count++;
    return COP_OK;
}

static void test_events_are_read_from_a_position(void **state) {
    coord_store *s = open_store(*state);
    char text[32];
    for (int i = 1; i <= 10; i++) {
        snprintf(text, sizeof text, "event %d", i);
        coord_store_add_event(s, 1 + (uint64_t)i % 2, i % 3 ? "info" : "warn", text);
    }
    coord_store_flush(s);
    events x = {0};
    cop_error error = {0};
    assert_int_equal(
        coord_store_each_event(s, &(coord_store_event_range){1, 0, 3}, take, &x, &error), COP_OK);
    assert_int_equal(x.count, 3);
    assert_string_equal(x.last.text, "event 6");
    assert_string_equal(x.last.level, "warn");
    assert_int_equal(
        coord_store_each_event(s, &(coord_store_event_range){1, x.last.id, 100}, take, &x, &error),
        COP_OK);
    assert_int_equal(x.count, 5);
    assert_string_equal(x.last.text, "event 10");
    coord_store_close(s);
}

static void test_text_from_users_is_never_sql(void **state) {
    coord_store *s = open_store(*state);
    const char *nasty = "'); DROP TABLE jobs; -- \"\xc3\xa9";
    add_job(s, 1, nasty, NULL);
    coord_store_set_state(s, 1, COORD_FAILED, nasty);
    coord_store_flush(s);
    coord_store_job job;
    cop_error error = {0};
    assert_int_equal(coord_store_get_job(s, 1, &job, &error), COP_OK);
    assert_string_equal(job.name, nasty);
    assert_string_equal(job.text, nasty);
    cop_buffer_release(job.spec);
    coord_store_close(s);
}

/* ---- foreign or damaged files ---- */

static cop_err open_error(const place *p, cop_error *error) {
    coord_store *s = NULL;
    cop_err e = coord_store_open(p->path, &s, error);
    if (!e) coord_store_close(s);
    return e;
}

static void test_newer_store_is_refused_and_unchanged(void **state) {
    coord_store_close(open_store(*state));
    execute(*state, "UPDATE meta SET version = 99");
    cop_error error = {0};
    assert_int_equal(open_error(*state, &error), COP_ERR_VERSION);
    assert_non_null(strstr(error.text, "newer"));
    assert_non_null(strstr(error.text, "99"));
    assert_int_equal(number(*state, "SELECT version FROM meta"), 99);
}

static void test_foreign_database_is_refused(void **state) {
    const place *p = *state;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    sqlite3_exec(db, "CREATE TABLE cookies(x)", NULL, NULL, NULL);
    sqlite3_close(db);
    cop_error error = {0};
    assert_int_equal(open_error(p, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "not a coppice store"));
}

static void test_file_that_is_not_a_database_is_refused(void **state) {
    const place *p = *state;
    FILE *f = fopen(p->path, "wb");
    if (!f) fail_msg("cannot write %s", p->path);
    for (int i = 0; f && i < 5000; i++) fputc(i * 7 & 255, f);
    if (f) fclose(f);
    cop_error error = {0};
    assert_int_equal(open_error(p, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, p->path));
}

static void test_missing_folder_is_an_error_with_the_path(void **state) {
    place p = *(place *)*state;
    snprintf(p.path, sizeof p.path, "%s/nowhere/store.sqlite", p.folder);
    cop_error error = {0};
    assert_int_not_equal(open_error(&p, &error), COP_OK);
    assert_non_null(strstr(error.text, "nowhere"));
}

/* If any page is damaged, reading gives an error or the rows, but never crashes. */
static void test_damaged_pages_are_errors(void **state) {
    const place *p = *state;
    coord_store *s = open_store(p);
    for (uint64_t job = 1; job <= 200; job++) add_job(s, job, "some job with a name", NULL);
    coord_store_close(s);
    struct stat st;
    assert_int_equal(stat(p->path, &st), 0);
    uint32_t refused = 0;
    for (off_t page = 0; page * 4096 < st.st_size; page++) {
        char old[512], junk[512];
        int file = open(p->path, O_RDWR);
        assert_int_equal(pread(file, old, sizeof old, page * 4096), sizeof old);
        memset(junk, 0xa5, sizeof junk);
        assert_int_equal(pwrite(file, junk, sizeof junk, page * 4096), sizeof junk);
        cop_error error = {0};
        coord_store *damaged = NULL;
        cop_err e = coord_store_open(p->path, &damaged, &error);
        uint64_t count[1] = {0};
        seen x = {0};
        if (!e) {
            e = coord_store_each_job(damaged, 10, see, &x, &error);
            (void)count;
            coord_store_close(damaged);
        }
        refused += e != COP_OK;
        if (e) assert_true(strlen(error.text) > 0);
        assert_int_equal(pwrite(file, old, sizeof old, page * 4096), sizeof old);
        close(file);
    }
    assert_true(refused >= 1);
}

static void test_refused_row_is_reported_and_does_not_block_others(void **state) {
    coord_store *s = open_store(*state);
    answer a = {0};
    cop_log_configure(COP_LOG_NONE, false);
    coord_store_close(s);
    execute(*state, "PRAGMA user_version = 1");
    s = open_store(*state);
    /* A trigger refuses the row, like a constraint. */
    execute(*state, "CREATE TRIGGER full BEFORE INSERT ON jobs WHEN NEW.job = 13 BEGIN "
                    "SELECT RAISE(ABORT, 'full'); END");
    add_job(s, 12, "before", &a);
    add_job(s, 13, "does not fit", &a);
    await(&a, 2);
    assert_int_not_equal(a.code, COP_OK);
    add_job(s, 14, "after", &a);
    await(&a, 3);
    assert_int_equal(a.code, COP_OK);
    coord_store_close(s);
    assert_int_equal(number(*state, "SELECT count(*) FROM jobs"), 2);
    cop_log_configure(COP_LOG_INFO, false);
}

/* Limits the size of each file that this process writes to `bytes`. */
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_metrics_wait_while_the_disk_is_full(void **state) {
    coord_store *s = open_store(*state);
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction before;
    add_job(s, 1, "x", NULL);
    assert_int_equal(coord_store_flush(s), COP_OK);
    cop_log_configure(COP_LOG_NONE, false);
    sigaction(SIGXFSZ, &ignore, &before);
    limit_files(4096);
    for (uint64_t step = 1; step <= 500; step++) add_step(s, 1, step, 1, 1);
    const cop_err full = coord_store_flush(s);
    for (uint64_t step = 501; step <= 600; step++) add_step(s, 1, step, 1, 1);
    limit_files(RLIM_INFINITY);
    const cop_err again = coord_store_flush(s);
    coord_store_close(s);
    sigaction(SIGXFSZ, &before, NULL);
    cop_log_configure(COP_LOG_INFO, false);
    assert_int_equal(full, COP_ERR_IO);
    assert_int_equal(again, COP_OK);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps"), 600);
}

static void note_result(void *context, cop_err result, const char *text) {
    (void)text;
    *(cop_err *)context = result;
}

/* No state may be lost, because an ended job would start again. States must stay in order, because
 * otherwise a cancel could be undone. */
static void test_states_wait_in_order_while_the_disk_is_full(void **state) {
    coord_store *s = open_store(*state);
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction before;
    cop_err confirmed = COP_OK;
    for (uint64_t job = 1; job <= 60; job++) add_job(s, job, "x", NULL);
    assert_int_equal(coord_store_flush(s), COP_OK);
    cop_log_configure(COP_LOG_NONE, false);
    sigaction(SIGXFSZ, &ignore, &before);
    limit_files(4096);
    for (uint64_t job = 1; job <= 60; job++) coord_store_set_state(s, job, COORD_RUNNING, "");
    coord_store_set_fingerprint(s, 60, 77);
    coord_store_confirm_state(s, 60, COORD_CANCELED, note_result, &confirmed);
    const cop_err full = coord_store_flush(s);
    for (uint64_t job = 1; job <= 60; job++) coord_store_set_state(s, job, COORD_COMPLETED, "");
    limit_files(RLIM_INFINITY);
    const cop_err again = coord_store_flush(s);
    coord_store_close(s);
    sigaction(SIGXFSZ, &before, NULL);
    cop_log_configure(COP_LOG_INFO, false);
    assert_int_equal(full, COP_ERR_IO);
    assert_int_equal(confirmed, COP_ERR_IO); /* the waiting caller gets an error */
    assert_int_equal(again, COP_OK);
    assert_int_equal(number(*state, "SELECT count(*) FROM jobs WHERE state = 4"), 60);
    assert_int_equal(number(*state, "SELECT fingerprint FROM jobs WHERE job = 60"), 77);
}

/* A lost pin would let a job continue with another kind of worker. */
static void test_durable_writes_are_stored_without_memory(void **state) {
    coord_store *s = open_store(*state);
    add_job(s, 1, "x", NULL);
    assert_int_equal(coord_store_flush(s), COP_OK);
    cop_log_configure(COP_LOG_NONE, false);
    cop_alloc_fail_from(1);
    for (uint64_t step = 1; step <= 500; step++) add_step(s, 1, step, 1, 1);
    coord_store_set_fingerprint(s, 1, 77);
    coord_store_set_state(s, 1, COORD_PAUSED, "");
    cop_alloc_fail_at(0);
    const cop_err flushed = coord_store_flush(s); /* fails once, because metrics are lost */
    const cop_err again = coord_store_flush(s);
    coord_store_close(s);
    cop_log_configure(COP_LOG_INFO, false);
    assert_int_equal(flushed, COP_ERR_NO_MEMORY);
    assert_int_equal(again, COP_OK);
    assert_int_equal(number(*state, "SELECT fingerprint FROM jobs"), 77);
    assert_int_equal(number(*state, "SELECT state FROM jobs"), COORD_PAUSED);
}

static void test_confirmed_state_is_on_the_disk_when_acknowledged(void **state) {
    coord_store *s = open_store(*state);
    cop_err confirmed = COP_ERR_INTERNAL;
    add_job(s, 1, "x", NULL);
    coord_store_confirm_state(s, 1, COORD_PAUSED, note_result, &confirmed);
    assert_int_equal(coord_store_flush(s), COP_OK);
    assert_int_equal(confirmed, COP_OK);
    assert_int_equal(number(*state, "SELECT state FROM jobs WHERE job = 1"), COORD_PAUSED);
    coord_store_close(s);
}

static void test_row_that_always_fails_does_not_block_others(void **state) {
    coord_store *s = open_store(*state);
    cop_log_configure(COP_LOG_NONE, false);
    execute(*state, "CREATE TRIGGER never BEFORE INSERT ON steps WHEN NEW.step = 7 BEGIN "
                    "SELECT RAISE(ABORT, 'never'); END");
    add_step(s, 1, 7, 1, 1);
    assert_int_not_equal(coord_store_flush(s), COP_OK);
    add_step(s, 1, 8, 1, 1);
    assert_int_equal(coord_store_flush(s), COP_OK);
    coord_store_close(s);
    cop_log_configure(COP_LOG_INFO, false);
    assert_int_equal(number(*state, "SELECT count(*) FROM steps"), 1);
}

/* ---- kill -9 ---- */

static void report_to_parent(void *context, cop_err result, const char *text) {
    (void)text;
    uint64_t job = (uint64_t)(uintptr_t)context;
    if (result == COP_OK && write(3, &job, sizeof job) != sizeof job) _exit(1);
}

/* Writes jobs and metrics forever; writes the number of each acknowledged job to descriptor 3. */
static _Noreturn void write_until_killed(const place *p, int pipe_end) {
    coord_store *s = NULL;
    if (dup2(pipe_end, 3) != 3) _exit(1);
    if (coord_store_open(p->path, &s, NULL)) _exit(1);
    for (uint64_t job = coord_store_last_job(s) + 1;; job++) {
        cop_buffer *spec = spec_of("x");
        coord_store_submission j = {.job = job, .name = "job", .data_digest = "", .spec = spec};
        coord_store_add_job(s, &j, report_to_parent, (void *)(uintptr_t)job);
        cop_buffer_release(spec);
        for (uint64_t step = 1; step <= 20; step++) add_step(s, job, step, 1, 1);
        cop_clock_sleep_ms(1);
    }
}

static void test_acknowledged_jobs_survive_kill_9(void **state) {
    const place *p = *state;
    uint64_t last = 0;
    for (int round = 0; round < 5; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) write_until_killed(p, ends[1]);
        close(ends[1]);
        uint64_t job = 0;
        for (int i = 0; i < 20 + 7 * round; i++)
            assert_int_equal(read(ends[0], &job, sizeof job), sizeof job);
        kill(child, SIGKILL);
        while (read(ends[0], &job, sizeof job) == sizeof job) continue; /* sent before it died */
        close(ends[0]);
        assert_int_equal(waitpid(child, NULL, 0), child);
        assert_true(job > last);
        last = job;
        coord_store *s = open_store(p);
        assert_true(coord_store_last_job(s) >= last);
        coord_store_close(s);
        char sql[80];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM jobs WHERE job <= %llu",
                 (unsigned long long)last);
        assert_int_equal(number(p, sql), (int64_t)last);
        sqlite3 *db;
        assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
        sqlite3_close(db);
        assert_int_equal(number(p, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    }
}

/* The loop thread never waits for the disk: to queue a write is fast even while the writer thread
 * is blocked. */
static void test_writes_do_not_wait_for_the_disk_and_are_limited(void **state) {
    const place *p = *state;
    coord_store *s = open_store(p);
    sqlite3 *db;
    cop_log_configure(COP_LOG_NONE, false);
    add_job(s, 1, "x", NULL);
    coord_store_flush(s);
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    /* Blocks the writer. */
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    uint64_t began = cop_clock_ns();
    for (uint64_t step = 1; step <= 100000; step++) add_step(s, 1, step, 1, 1);
    double seconds = (double)(cop_clock_ns() - began) * 1e-9;
    coord_store_set_state(s, 1, COORD_COMPLETED, "");
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    coord_store_flush(s);
    coord_store_close(s);
    assert_true(seconds < 3);
    int64_t rows = number(p, "SELECT count(*) FROM steps");
    assert_true(rows > 1000 && rows < 100000);                              /* some were dropped */
    assert_int_equal(number(p, "SELECT state FROM jobs"), COORD_COMPLETED); /* never dropped */
    cop_log_configure(COP_LOG_INFO, false);
}

int main(void) {
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_job_survives_a_reopen),
        STORE_TEST(test_key_and_fingerprint_of_a_job_survive_a_reopen),
        STORE_TEST(test_store_of_version_1_is_migrated),
        STORE_TEST(test_store_of_version_2_is_migrated),
        STORE_TEST(test_store_of_version_3_is_migrated),
        STORE_TEST(test_invalid_job_rows_are_skipped),
        STORE_TEST(test_missing_job_is_not_found),
        STORE_TEST(test_jobs_are_listed_newest_first_within_the_limit),
        STORE_TEST(test_removed_job_loses_its_rows_and_its_number_is_not_reused),
        STORE_TEST(test_ten_thousand_metric_rows_are_stored),
        STORE_TEST(test_metrics_computed_again_replace_the_old),
        STORE_TEST(test_evaluation_may_have_no_error_rate),
        STORE_TEST(test_nan_loss_is_stored_as_null),
        STORE_TEST(test_events_are_read_from_a_position),
        STORE_TEST(test_text_from_users_is_never_sql),
        STORE_TEST(test_newer_store_is_refused_and_unchanged),
        STORE_TEST(test_foreign_database_is_refused),
        STORE_TEST(test_file_that_is_not_a_database_is_refused),
        STORE_TEST(test_missing_folder_is_an_error_with_the_path),
        STORE_TEST(test_damaged_pages_are_errors),
        STORE_TEST(test_refused_row_is_reported_and_does_not_block_others),
        STORE_TEST(test_metrics_wait_while_the_disk_is_full),
        STORE_TEST(test_states_wait_in_order_while_the_disk_is_full),
        STORE_TEST(test_durable_writes_are_stored_without_memory),
        STORE_TEST(test_confirmed_state_is_on_the_disk_when_acknowledged),
        STORE_TEST(test_row_that_always_fails_does_not_block_others),
        STORE_TEST(test_acknowledged_jobs_survive_kill_9),
        STORE_TEST(test_writes_do_not_wait_for_the_disk_and_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
