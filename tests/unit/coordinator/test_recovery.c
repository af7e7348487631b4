/* Recovery: which writes must be durable, which jobs go on after a restart, and keys of
 * submissions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "coordinator/core/recovery.h"

typedef struct key {
    unsigned char bytes[COORD_KEY_SIZE];
} key;

static key key_of(uint32_t number) {
    key k = {{0}};
    memcpy(k.bytes, &number, sizeof number);
    return k;
}

static recovery_key *claim(recovery_keys *keys, uint32_t number) {
    const key k = key_of(number);
    return recovery_claim(keys, k.bytes);
}

static recovery_key *find(recovery_keys *keys, uint32_t number) {
    const key k = key_of(number);
    return recovery_find(keys, k.bytes);
}

/* On a full disk, metrics fill the queue; writes that decide how a job continues are never refused.
 */
static void test_durable_writes_always_have_room(void **state) {
    (void)state;
    for (int kind = 1; kind <= STORE_BARRIER; kind++) {
        const recovery_need need = recovery_need_of((store_kind)kind);
        const bool full = recovery_has_room((store_kind)kind, 16, 16),
                   twice = recovery_has_room((store_kind)kind, 32, 16);
        assert_true(recovery_has_room((store_kind)kind, 15, 16));
        assert_int_equal(full, need != RECOVERY_MAY_GO);
        assert_int_equal(twice, need == RECOVERY_MUST_SURVIVE);
        assert_int_equal(recovery_is_durable((store_kind)kind, false), need != RECOVERY_MAY_GO);
    }
    static const store_kind must[] = {STORE_SET_STATE,  STORE_SET_FINGERPRINT, STORE_SET_DIGEST,
                                      STORE_REMOVE_JOB, STORE_KEEP_EVALUATION, STORE_BARRIER};
    for (size_t i = 0; i < sizeof must / sizeof *must; i++)
        assert_int_equal(recovery_need_of(must[i]), RECOVERY_MUST_SURVIVE);
}

static void test_acknowledged_writes_are_durable(void **state) {
    (void)state;
    for (int kind = STORE_ADD_JOB; kind < STORE_KINDS; kind++)
        assert_true(recovery_is_durable((store_kind)kind, true));
    assert_true(recovery_is_durable(STORE_SET_STATE, false));
    assert_true(recovery_is_durable(STORE_SET_FINGERPRINT, false));
    assert_false(recovery_is_durable(STORE_ADD_STEP, false));
}

static void test_restart_resumes_unfinished_jobs_only(void **state) {
    (void)state;
    assert_true(recovery_takes_up(COORD_QUEUED) && recovery_takes_up(COORD_RUNNING));
    assert_true(recovery_takes_up(COORD_PAUSED));
    assert_false(recovery_takes_up(COORD_COMPLETED) || recovery_takes_up(COORD_FAILED) ||
                 recovery_takes_up(COORD_CANCELED));
    assert_int_equal(recovery_state(COORD_RUNNING), COORD_QUEUED);
    assert_int_equal(recovery_state(COORD_PAUSED), COORD_PAUSED);
}

static void test_key_names_its_job_once_the_job_is_stored(void **state) {
    (void)state;
    recovery_keys keys = {0};
    assert_null(find(&keys, 1));
    recovery_key *k = claim(&keys, 1);
    assert_true(find(&keys, 1) == k && k->pending);
    recovery_set_job(k, 5);
    assert_true(find(&keys, 1) == k && !k->pending && k->job == 5);
}

static void test_failed_submission_may_be_repeated_with_its_key(void **state) {
    (void)state;
    recovery_keys keys = {0};
    recovery_set_job(claim(&keys, 1), 0);
    assert_null(find(&keys, 1));
    assert_non_null(claim(&keys, 1));
}

static void test_pending_keys_are_never_evicted(void **state) {
    (void)state;
    recovery_keys keys = {0};
    recovery_key *first = claim(&keys, 1000);
    for (uint32_t i = 0; i < 3 * COORD_KEYS; i++) recovery_set_job(claim(&keys, i), i + 1);
    assert_true(find(&keys, 1000) == first);
    assert_non_null(find(&keys, 3 * COORD_KEYS - 1));
    assert_null(find(&keys, 0));
    for (uint32_t i = 1; i < COORD_KEYS; i++) assert_non_null(claim(&keys, 5000 + i));
    assert_null(claim(&keys, 9999)); /* all are pending */
}

static void test_keys_of_stored_jobs_are_restored_and_the_oldest_evicted_first(void **state) {
    (void)state;
    recovery_keys keys = {0};
    const uint32_t jobs = COORD_KEYS - 2;
    for (uint32_t i = jobs; i > 0; i--) { /* newest first */
        const key k = key_of(i);
        recovery_restore(&keys, k.bytes, i);
    }
    recovery_restore_done(&keys);
    for (uint32_t i = 1; i <= jobs; i++) assert_int_equal(find(&keys, i)->job, i);
    for (uint32_t i = 0; i < 2; i++) recovery_set_job(claim(&keys, 1000 + i), 1000 + i);
    assert_non_null(find(&keys, 1)); /* there were two free places */
    recovery_set_job(claim(&keys, 1002), 1002);
    assert_null(find(&keys, 1));
    assert_non_null(find(&keys, 2));
}

static void test_newest_keys_are_kept_if_there_are_too_many(void **state) {
    (void)state;
    recovery_keys keys = {0};
    for (uint32_t i = 2 * COORD_KEYS; i > 0; i--) {
        const key k = key_of(i);
        recovery_restore(&keys, k.bytes, i);
    }
    recovery_restore_done(&keys);
    assert_non_null(find(&keys, 2 * COORD_KEYS));
    assert_non_null(find(&keys, COORD_KEYS + 1));
    assert_null(find(&keys, COORD_KEYS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acknowledged_writes_are_durable),
        cmocka_unit_test(test_durable_writes_always_have_room),
        cmocka_unit_test(test_restart_resumes_unfinished_jobs_only),
        cmocka_unit_test(test_key_names_its_job_once_the_job_is_stored),
        cmocka_unit_test(test_failed_submission_may_be_repeated_with_its_key),
        cmocka_unit_test(test_pending_keys_are_never_evicted),
        cmocka_unit_test(test_keys_of_stored_jobs_are_restored_and_the_oldest_evicted_first),
        cmocka_unit_test(test_newest_keys_are_kept_if_there_are_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
