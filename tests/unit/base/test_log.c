/* Log lines: levels, both formats, one write per line. LABELS: quick threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/log_limit.h"

/* Standard error goes to a file between begin and end, so that no write waits for a reader. */
typedef struct capture {
    int saved, file;
} capture;

static capture begin_capture(void) {
    capture c = {.saved = dup(STDERR_FILENO)};
    char name[] = "/tmp/coppice-log-XXXXXX";
    c.file = mkstemp(name);
    assert_true(c.file >= 0);
    unlink(name);
    assert_int_equal(fcntl(c.file, F_SETFL, O_APPEND), 0);
    dup2(c.file, STDERR_FILENO);
    return c;
}

/* The output since begin_capture, as a string (release it with cop_free). */
static char *end_capture(capture c) {
    dup2(c.saved, STDERR_FILENO);
    close(c.saved);
    size_t size = (size_t)lseek(c.file, 0, SEEK_END);
    char *text = cop_alloc(size + 1);
    assert_non_null(text);
    assert_int_equal(pread(c.file, text, size, 0), size);
    close(c.file);
    return text;
}

static void test_text_log_line_begins_with_the_time(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, false);
    capture c = begin_capture();
    cop_log(COP_LOG_INFO, "coordinator", "job %d started", 3);
    char *text = end_capture(c);
    assert_int_equal(text[4], '-');
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[23], 'Z');
    assert_string_equal(text + 24, " info  coordinator: job 3 started\n");
    cop_free(text);
}

static void test_json_log_line_is_one_object(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, true);
    capture c = begin_capture();
    cop_log(COP_LOG_ERROR, "worker", "bad name \"%s\"", "a\nb");
    char *text = end_capture(c);
    assert_memory_equal(text, "{\"time\":\"", 9);
    assert_memory_equal(text + 9 + 24, "\",\"clock_ns\":", 13);
    char *end;
    uint64_t clock_ns = strtoull(text + 9 + 24 + 13, &end, 10);
    assert_true(clock_ns > 0 && clock_ns <= cop_clock_ns());
    assert_string_equal(end, ",\"level\":\"error\",\"area\":\"worker\","
                             "\"text\":\"bad name \\\"a\\nb\\\"\"}\n");
    cop_free(text);
}

static void test_levels_below_the_configured_one_are_silent(void **state) {
    (void)state;
    for (int level = COP_LOG_DEBUG; level <= COP_LOG_NONE; level++) {
        cop_log_configure((cop_log_level)level, false);
        capture c = begin_capture();
        for (int at = COP_LOG_DEBUG; at <= COP_LOG_NONE; at++) cop_log((cop_log_level)at, "a", "x");
        char *text = end_capture(c);
        int lines = 0;
        for (const char *p = text; *p; p++) lines += *p == '\n';
        assert_int_equal(lines, COP_LOG_NONE - level); /* NONE is not a level for messages */
        cop_free(text);
    }
}

static void test_text_from_a_peer_cannot_start_a_log_line(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, false);
    capture c = begin_capture();
    cop_log(COP_LOG_WARN, "net", "%s", "x\n2026-01-01 error: forged\x1b[2J\r\x7f");
    char *text = end_capture(c);
    assert_string_equal(text + 24, " warn  net: x?2026-01-01 error: forged?[2J??\n");
    cop_free(text);
}

static void test_long_texts_are_cut(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, false);
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    capture c = begin_capture();
    cop_log(COP_LOG_INFO, "a", "%s", big);
    char *text = end_capture(c);
    assert_int_equal(strlen(text), strlen("2026-11-23T17:26:25.123Z info  a: ") + 1999 + 1);
    assert_int_equal(text[strlen(text) - 1], '\n');
    cop_free(text);
}

static void test_text_is_logged_even_without_memory(void **state) {
    (void)state;
    for (int json = 0; json < 2; json++) {
        cop_log_configure(COP_LOG_INFO, json);
        capture c = begin_capture();
        cop_alloc_fail_at(1);
        cop_log(COP_LOG_ERROR, "store", "all is\nlost");
        cop_alloc_fail_at(0);
        char *text = end_capture(c);
        assert_string_equal(text, "error store: all is?lost\n");
        cop_free(text);
    }
}

static void test_environment_sets_the_log_level(void **state) {
    (void)state;
    setenv("COPPICE_LOG", "debug", 1);
    assert_int_equal(cop_log_level_from_environment(COP_LOG_INFO), COP_LOG_DEBUG);
    setenv("COPPICE_LOG", "none", 1);
    assert_int_equal(cop_log_level_from_environment(COP_LOG_INFO), COP_LOG_NONE);
    setenv("COPPICE_LOG", "loud", 1);
    assert_int_equal(cop_log_level_from_environment(COP_LOG_WARN), COP_LOG_WARN);
    unsetenv("COPPICE_LOG");
    assert_int_equal(cop_log_level_from_environment(COP_LOG_ERROR), COP_LOG_ERROR);
}

enum { THREADS = 4, LINES = 500 };

static void *log_lines(void *letter) {
    char text[200];
    memset(text, *(const char *)letter, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < LINES; i++) cop_log(COP_LOG_INFO, "t", "%s", text);
    return NULL;
}

static void test_log_lines_of_threads_do_not_mix(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, false);
    static char letters[THREADS] = {'a', 'b', 'c', 'd'};
    pthread_t threads[THREADS];
    capture c = begin_capture();
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, log_lines, &letters[i]);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    char *text = end_capture(c);
    int lines = 0;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        const char *body = line + strlen("2026-11-23T17:26:25.123Z info  t: ");
        assert_int_equal(strlen(body), 199);
        assert_int_equal(strspn(body, (char[]){*body, '\0'}), 199);
        lines++;
    }
    assert_int_equal(lines, THREADS * LINES);
    cop_free(text);
}

/* ---- lines that peers can cause ---- */

static uint32_t count_lines(const char *text) {
    uint32_t lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

static void test_one_source_cannot_fill_the_log(void **state) {
    (void)state;
    static log_limit limit; /* large */
    log_limit_entry due;
    uint64_t now = 5, passed = 0, reported = 0, suppressed = 0;
    for (int i = 0; i < 3000; i++, now += 20000000) { /* a minute */
        for (uint64_t kind = 1; kind <= 3; kind++) {
            const cop_log_kind k = {.level = COP_LOG_INFO, .area = "a", .kind = kind, .source = 7};
            passed += log_limit_admit(&limit, &k, "worker w joined", now);
        }
        for (; log_limit_take(&limit, now, &due); reported++) {
            suppressed += due.suppressed;
            assert_string_equal(due.text, "worker w joined");
        }
    }
    now += LOG_PERIOD_NS;
    for (; log_limit_take(&limit, now, &due); reported++) suppressed += due.suppressed;
    assert_true(passed >= 3 * LOG_LINES && passed <= 3 * LOG_LINES * 6);
    assert_true(reported <= 3 * 6);
    assert_int_equal(passed + suppressed, 9000);
}

static void test_many_sources_together_cannot_fill_the_log(void **state) {
    (void)state;
    static log_limit limit;
    uint32_t passed = 0;
    for (uint64_t source = 1; source <= 9000; source++) {
        const cop_log_kind k = {.level = COP_LOG_INFO, .area = "a", .kind = 1, .source = source};
        passed += log_limit_admit(&limit, &k, "x", 5);
    }
    assert_int_equal(passed, LOG_LINES_ALL);
    /* Lines of another kind, or of a later period, are not suppressed. */
    const cop_log_kind other = {.level = COP_LOG_INFO, .area = "a", .kind = 2, .source = 1};
    assert_true(log_limit_admit(&limit, &other, "x", 5));
    log_limit_entry due;
    while (log_limit_take(&limit, 5 + LOG_PERIOD_NS, &due)) assert_true(due.suppressed > 0);
    const cop_log_kind later = {.level = COP_LOG_INFO, .area = "a", .kind = 1, .source = 1};
    assert_true(log_limit_admit(&limit, &later, "x", 5 + LOG_PERIOD_NS));
}

/* Even if lines of some kinds and many sources fill the table, all other kinds are still limited.
 */
static void test_many_sources_of_many_kinds_cannot_fill_the_log(void **state) {
    (void)state;
    static log_limit limit;
    for (uint64_t kind = 1; kind <= 8; kind++) {
        uint32_t passed = 0;
        for (uint64_t source = 1; source <= 9000; source++) {
            const cop_log_kind k = {
                .level = COP_LOG_INFO, .area = "a", .kind = kind, .source = source};
            passed += log_limit_admit(&limit, &k, "x", 5);
        }
        assert_int_equal(passed, LOG_LINES_ALL);
    }
}

static void test_peers_are_limited_by_host(void **state) {
    (void)state;
    cop_log_configure(COP_LOG_INFO, false);
    capture c = begin_capture();
    for (int port = 1000; port < 2000; port++) {
        char peer[32];
        snprintf(peer, sizeof peer, "10.0.0.7:%d", port);
        cop_log_peer(COP_LOG_WARN, "net", peer, "%s: bad frame", peer);
    }
    cop_log_peer(COP_LOG_WARN, "net", "10.0.0.8:1", "%s: bad frame", "10.0.0.8:1");
    char *text = end_capture(c);
    assert_true(count_lines(text) >= 2 && count_lines(text) <= 2 * LOG_LINES + 2);
    assert_non_null(strstr(text, "10.0.0.7:1000"));
    cop_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_source_cannot_fill_the_log),
        cmocka_unit_test(test_many_sources_together_cannot_fill_the_log),
        cmocka_unit_test(test_many_sources_of_many_kinds_cannot_fill_the_log),
        cmocka_unit_test(test_peers_are_limited_by_host),
        cmocka_unit_test(test_text_log_line_begins_with_the_time),
        cmocka_unit_test(test_json_log_line_is_one_object),
        cmocka_unit_test(test_levels_below_the_configured_one_are_silent),
        cmocka_unit_test(test_text_from_a_peer_cannot_start_a_log_line),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_text_is_logged_even_without_memory),
        cmocka_unit_test(test_environment_sets_the_log_level),
        cmocka_unit_test(test_log_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
