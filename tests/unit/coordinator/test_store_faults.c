/* No crash loses the store. SQLite writes through disk_vfs.h, which simulates a crash after every
 * single change of a file, by kill -9 and by a loss of power. Acknowledged data must be there
 * afterwards. Also, each file call of SQLite and each allocation, including SQLite's own, fails
 * once. Then the store neither crashes nor leaks, it reports a failure with a message, and all
 * acknowledged data are there.
 *
 * WITH: unit/coordinator/disk_vfs.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "coordinator/store/store.h"
#include "unit/coordinator/disk_vfs.h"

#define PART(folder) (access("/dev/shm", W_OK) ? "/tmp/" folder : "/dev/shm/" folder)

static uint64_t dice_count = 4; /* number of random torn writes that are tried at each point; an
                                   argument of the program replaces it */

/* ---- the writes of a coordinator, and when they were acknowledged ---- */

typedef enum fact { JOB_1, STEPS_OF_1, JOB_2, PAUSE_OF_2, REMOVAL_OF_1, JOB_3, FACTS } fact;

/* For each fact, the number of file changes before its acknowledgement. UINT32_MAX: it was refused
 * or not acknowledged. */
typedef struct acknowledged {
    _Atomic uint32_t at[FACTS], removing; /* `removing`: the change at which the removal of job 1
                                             began */
    atomic_int answers;
} acknowledged;
typedef struct pending_answer {
    acknowledged *all;
    fact fact;
} pending_answer;

static void on_done(void *context, cop_err result, const char *text) {
    pending_answer *t = context;
    if (result && !text[0]) abort();
    if (!result) atomic_store(&t->all->at[t->fact], vfs_changes());
    atomic_fetch_add(&t->all->answers, 1);
}

static void await(const acknowledged *t, int count) {
    for (int i = 0; i < 20000 && atomic_load(&t->answers) < count; i++) cop_clock_sleep_ms(1);
    if (atomic_load(&t->answers) != count) fail_msg("no answer %d", count);
}

static void add(coord_store *s, pending_answer *t, uint64_t job) {
    cop_buffer *spec = cop_buffer_create(3000);
    if (!spec) { /* the coordinator would refuse this submission, too */
        on_done(t, COP_ERR_NO_MEMORY, "no memory");
        return;
    }
    memset(spec->data, (int)job, 3000);
    const coord_store_submission j = {.job = job, .name = "x", .data_digest = "abc", .spec = spec};
    coord_store_add_job(s, &j, on_done, t);
    cop_buffer_release(spec);
}

static cop_err run_first(const char *path, acknowledged *t, cop_error *error) {
    coord_store *s = NULL;
    pending_answer each[FACTS];
    for (int i = 0; i < FACTS; i++) each[i] = (pending_answer){t, (fact)i};
    COP_TRY(coord_store_open(path, &s, error));
    add(s, &each[JOB_1], 1);
    await(t, 1);
    for (uint64_t step = 1; step <= 20; step++)
        coord_store_add_step(s, 1, &(coord_store_step){.step = step, .loss = 0.5, .seconds = 0.1});
    if (!coord_store_flush(s)) atomic_store(&t->at[STEPS_OF_1], vfs_changes());
    add(s, &each[JOB_2], 2);
    await(t, 2);
    coord_store_confirm_state(s, 2, COORD_PAUSED, on_done, &each[PAUSE_OF_2]);
    await(t, 3);
    coord_store_add_event(s, 0, "info", "an event");
    coord_store_set_digest(s, 2, 7, "0123");
    coord_store_close(s);
    return COP_OK;
}

static cop_err run_second(const char *path, acknowledged *t, cop_error *error) {
    coord_store *s = NULL;
    pending_answer removal = {t, REMOVAL_OF_1}, third = {t, JOB_3};
    const int before = atomic_load(&t->answers);
    COP_TRY(coord_store_open(path, &s, error));
    atomic_store(&t->removing, vfs_changes());
    coord_store_remove_job(s, 1, on_done, &removal);
    await(t, before + 1);
    add(s, &third, 3);
    await(t, before + 2);
    coord_store_close(s);
    return COP_OK;
}

static void forget(acknowledged *t) {
    for (int i = 0; i < FACTS; i++) atomic_store(&t->at[i], UINT32_MAX);
    atomic_store(&t->removing, UINT32_MAX);
    atomic_store(&t->answers, 0);
}

/* ---- checks ---- */

static int64_t number(const char *path, const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    const int64_t value = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return value;
}

/* Checks that the store opens, is sound, and has everything that was acknowledged within the first
 * `changes` changes. */
static void check(const char *path, const acknowledged *t, uint32_t changes, const char *where) {
    coord_store *s = NULL;
    coord_store_job job;
    cop_error error = {0};
    bool is[FACTS];
    for (int i = 0; i < FACTS; i++) is[i] = atomic_load(&t->at[i]) <= changes;
    const bool removing = changes > atomic_load(&t->removing);
    if (coord_store_open(path, &s, &error)) fail_msg("%s: %s", where, error.text);
    static const fact adds[] = {JOB_1, JOB_2, JOB_3};
    for (int i = 0; i < 3; i++) {
        const cop_err e = coord_store_get_job(s, (uint64_t)i + 1, &job, &error);
        if (e && is[adds[i]] && (i != 0 || !removing))
            fail_msg("%s: job %d is lost: %s", where, i + 1, error.text);
        if (!e && i == 0 && is[REMOVAL_OF_1]) fail_msg("%s: job 1 is there again", where);
        if (!e) assert_true(job.spec->size == 3000 && ((char *)job.spec->data)[2999] == i + 1);
        if (!e && i == 1 && is[PAUSE_OF_2] && job.state != COORD_PAUSED)
            fail_msg("%s: the pause is lost", where);
        if (!e) cop_buffer_release(job.spec);
    }
    if (is[JOB_3] && coord_store_last_job(s) < 3) fail_msg("%s: numbers come again", where);
    coord_store_close(s);
    if (number(path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"))
        fail_msg("%s: the database is damaged", where);
    const int64_t steps = number(path, "SELECT count(*) FROM steps WHERE job = 1");
    if (is[STEPS_OF_1] && steps != 20 && (steps || !removing))
        fail_msg("%s: metrics are lost", where);
}

typedef struct place {
    char folder[64], path[96];
} place;

static void new_place(place *p) {
    snprintf(p->folder, sizeof p->folder, "%s", PART("coppice-store-XXXXXX"));
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof p->path, "%s/store.sqlite", p->folder);
}

static void drop_place(const place *p) {
    cop_folder_remove(p->folder, NULL);
}

/* ---- crashes ---- */

static void crash_at(const acknowledged *t, uint32_t changes, vfs_loss loss, uint64_t dice) {
    static const char *const names[] = {"kill -9", "unsynced writes dropped",
                                        "unsynced writes torn"};
    char where[100];
    place p;
    new_place(&p);
    snprintf(where, sizeof where, "%s after change %u (dice %llu)", names[loss], changes,
             (unsigned long long)dice);
    vfs_crash(p.path, changes, loss, dice);
    check(p.path, t, changes, where);
    drop_place(&p);
}

static void test_every_acknowledged_row_survives_a_crash_at_any_point(void **state) {
    (void)state;
    acknowledged t;
    place p;
    cop_error error = {0};
    new_place(&p);
    forget(&t);
    vfs_record();
    if (run_first(p.path, &t, &error) || run_second(p.path, &t, &error)) fail_msg("%s", error.text);
    vfs_stop();
    for (int i = 0; i < FACTS; i++) assert_true(atomic_load(&t.at[i]) <= vfs_changes());
    drop_place(&p);
    uint64_t crashes = 0;
    for (uint32_t n = 0; n <= vfs_changes(); n++, crashes += 2 + dice_count) {
        crash_at(&t, n, VFS_KILLED, 0);
        crash_at(&t, n, VFS_DROPPED, 0);
        for (uint64_t dice = 0; dice < dice_count; dice++) crash_at(&t, n, VFS_TORN, dice);
    }
    print_message("%u crash points, %llu crashes\n", vfs_changes() + 1,
                  (unsigned long long)crashes);
    assert_true(vfs_changes() > 50);
}

/* ---- failing calls ---- */

/* Makes two runs on the same files. In the first one a call fails, in the second one none. */
static void run_with_a_fault(void (*arm)(uint32_t n), uint32_t n, const char *what) {
    acknowledged t;
    place p;
    cop_error error = {0};
    char where[100];
    new_place(&p);
    forget(&t);
    snprintf(where, sizeof where, "%s %u", what, n);
    arm(n);
    const cop_err e = run_first(p.path, &t, &error);
    arm(0);
    if (e && (error.code != e || !error.text[0])) fail_msg("%s: no sentence", where);
    check(p.path, &t, UINT32_MAX - 1, where);
    forget(&t);
    if (run_second(p.path, &t, &error)) fail_msg("%s: %s", where, error.text);
    assert_true(atomic_load(&t.at[JOB_3]) != UINT32_MAX);
    drop_place(&p);
}

static void arm_io(uint32_t n) {
    vfs_fail(n, SQLITE_IOERR);
}

static void arm_full(uint32_t n) {
    vfs_fail(n, SQLITE_FULL);
}

static void test_store_survives_every_failing_file_call(void **state) {
    (void)state;
    static void (*const arms[])(uint32_t) = {arm_io, arm_full};
    cop_log_configure(COP_LOG_NONE, false);
    for (int a = 0; a < 2; a++) {
        uint32_t n = 0;
        do run_with_a_fault(arms[a], ++n, a ? "no space at call" : "EIO at call");
        while (vfs_failed());
        print_message("%u calls, each failed with %s\n", n - 1, a ? "ENOSPC" : "EIO");
        assert_true(n > 60);
    }
    cop_log_configure(COP_LOG_INFO, false);
}

/* ---- failing allocations ---- */

static sqlite3_mem_methods real_memory;
static _Atomic uint32_t sqlite_count, sqlite_fail;

static bool sqlite_due(void) {
    return atomic_fetch_add(&sqlite_count, 1) + 1 == atomic_load(&sqlite_fail);
}

static void *failing_malloc(int size) {
    return sqlite_due() ? NULL : real_memory.xMalloc(size);
}

static void *failing_realloc(void *block, int size) {
    return sqlite_due() ? NULL : real_memory.xRealloc(block, size);
}

static uint64_t own_before, made; /* made: calls between arming and disarming */

static void arm_sqlite(uint32_t n) {
    if (!n) made = atomic_load(&sqlite_count);
    atomic_store(&sqlite_count, 0);
    atomic_store(&sqlite_fail, n);
}

static void arm_own(uint32_t n) {
    if (!n) made = cop_alloc_count() - own_before;
    own_before = cop_alloc_count();
    cop_alloc_fail_at(n);
}

static void test_store_survives_every_failed_allocation(void **state) {
    (void)state;
    uint32_t own = 0, theirs = 0, stride = dice_count > 4 ? 1 : 7;
    cop_log_configure(COP_LOG_NONE, false);
    do run_with_a_fault(arm_own, ++own, "allocation");
    while (made >= own);
    do run_with_a_fault(arm_sqlite, theirs += stride, "allocation of SQLite");
    while (made >= theirs);
    print_message("%u allocations of SQLite, every %u. failed; %u of our own, each\n", theirs,
                  stride, own);
    assert_true(theirs > 100);
    cop_log_configure(COP_LOG_INFO, false);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_acknowledged_row_survives_a_crash_at_any_point),
        cmocka_unit_test(test_store_survives_every_failing_file_call),
        cmocka_unit_test(test_store_survives_every_failed_allocation),
    };
    if (argc > 1) dice_count = strtoull(argv[1], NULL, 10);
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory);
    sqlite3_mem_methods memory = real_memory;
    memory.xMalloc = failing_malloc;
    memory.xRealloc = failing_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &memory) != SQLITE_OK) return 3;
    vfs_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
