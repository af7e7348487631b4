/* Command line options from a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/base/options.h"

#define LIST_MAX 3

typedef struct values {
    const char *url, *hosts[LIST_MAX], *models[LIST_MAX], *words[LIST_MAX];
    int host_count, model_count, word_count;
    int64_t threads;
    double timeout;
    uint64_t quota;
    bool json, has_threads;
} values;

#define AT(field) offsetof(values, field)

static const cop_option rows[] = {
    {"url", "URL", "the address", 0, COP_OPTION_TEXT, AT(url)},
    {"host", "HOST", "a host", 0, COP_OPTION_REPEAT, AT(hosts), 0, LIST_MAX, NULL, AT(host_count)},
    {"models", "M...", "models", 0, COP_OPTION_WORDS, AT(models), 0, LIST_MAX, NULL,
     AT(model_count)},
    {"threads", "N", "threads", 't', COP_OPTION_INTEGER, AT(threads), 1, 64, NULL, AT(has_threads)},
    {"timeout", "S", "seconds", 0, COP_OPTION_SECONDS, AT(timeout)},
    {"quota", "SIZE", "bytes", 0, COP_OPTION_SIZE, AT(quota)},
    {"json", NULL, "print JSON", 'j', COP_OPTION_FLAG, AT(json)},
};
static const cop_option positional = {.name = "",
                                      .kind = COP_OPTION_REPEAT,
                                      .offset = AT(words),
                                      .maximum = LIST_MAX,
                                      .given = AT(word_count)};

static const cop_options all = {.program = "prog",
                                .rows = rows,
                                .count = sizeof rows / sizeof *rows,
                                .positional = &positional};

/* Parses the words of `line`, which blanks separate. It parses a static copy of the line, because
 * the values point into it. */
static cop_err parse(const cop_options *options, const char *line, values *out, cop_error *error) {
    static char text[400];
    char *argv[40];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    *out = (values){0};
    *error = (cop_error){0};
    return cop_options_parse(options, argc, argv, out, error);
}

static void test_each_kind_is_stored(void **state) {
    (void)state;
    values v;
    cop_error error;
    assert_int_equal(parse(&all,
                           "a --url=tcp://h:1 -t 8 --timeout 2.5 --quota 2k -j --host x --host=y "
                           "--models m n --json - -- --url",
                           &v, &error),
                     COP_OK);
    assert_string_equal(v.url, "tcp://h:1");
    assert_int_equal(v.threads, 8);
    assert_true(v.has_threads && v.json && v.timeout == 2.5);
    assert_int_equal(v.quota, 2048);
    assert_int_equal(v.host_count, 2);
    assert_string_equal(v.hosts[1], "y");
    assert_int_equal(v.model_count, 2);
    assert_string_equal(v.models[1], "n");
    assert_int_equal(v.word_count, 3);
    assert_string_equal(v.words[0], "a");
    assert_string_equal(v.words[1], "-");
    assert_string_equal(v.words[2], "--url");
}

static void test_values_not_given_stay(void **state) {
    (void)state;
    values v = {.threads = 5, .url = "default"};
    cop_error error = {0};
    char *argv[] = {(char[]){"--json"}};
    assert_int_equal(cop_options_parse(&all, 1, argv, &v, &error), COP_OK);
    assert_int_equal(v.threads, 5);
    assert_string_equal(v.url, "default");
    assert_false(v.has_threads);
}

static void test_faults_are_named(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"--ulr x", "unknown option --ulr: did you mean --url? (prog --help)"},
        {"--nothing-like-it", "unknown option --nothing-like-it (prog --help lists its options)"},
        {"--url", "--url needs a value: --url URL"},
        {"--json=1", "--json takes no value"},
        {"--threads 0", "--threads is \"0\": expected a whole number from 1 to 64"},
        {"-t many", "--threads is \"many\": expected a whole number from 1 to 64"},
        {"--timeout -1", "--timeout is \"-1\": expected seconds from 0 to 10000000"},
        {"--quota 5x", "--quota is \"5x\": expected a size such as 500M or 20G"},
        {"--host a --host b --host c --host d", "--host has more than 3 values"},
        {"--models a b c d", "--models has more than 3 values"},
        {"a b c d", "too many arguments"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        values v;
        cop_error error;
        assert_int_equal(parse(&all, cases[i][0], &v, &error), COP_ERR_USAGE);
        assert_string_equal(error.text, cases[i][1]);
    }
}

static void test_a_command_accepts_only_its_options(void **state) {
    (void)state;
    cop_options some = all;
    values v;
    cop_error error;
    some.names = "url timeout";
    some.positional = NULL;
    assert_true(cop_options_accept(&some, "timeout"));
    assert_false(cop_options_accept(&some, "time"));
    assert_int_equal(parse(&some, "--url x", &v, &error), COP_OK);
    assert_int_equal(parse(&some, "--json", &v, &error), COP_ERR_USAGE);
    assert_int_equal(parse(&some, "word", &v, &error), COP_ERR_USAGE);
    assert_string_equal(error.text, "unexpected argument \"word\" (prog --help)");
    cop_str help = {0};
    cop_options_help(&some, &help);
    assert_string_equal(cop_str_text(&help), "      --url URL                the address\n"
                                             "      --timeout S              seconds\n");
    cop_str_fini(&help);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_is_stored),
        cmocka_unit_test(test_values_not_given_stay),
        cmocka_unit_test(test_faults_are_named),
        cmocka_unit_test(test_a_command_accepts_only_its_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
