/* Every kind of error in a job file, with its exact message: file, line, column, what was found,
 * what is expected, the nearest name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/fields.h"

/* Lines 1 to 6; a test replaces one of them. */
static const char *const good[] = {
    "name: j",
    "data: {source: mnist}",
    "model: [{dropout: {p: 0.5}}, {linear: {units: 10}}]",
    "train: {epochs: 1}",
    "optimizer: {sgd: {rate: 0.1}}",
    "loss: cross_entropy",
};

static cop_err parse(const char *text, size_t size, cop_error *error) {
    Coppice__Job *job = NULL;
    cop_err e = cop_document_parse_job(text, size, "job.yaml", &job, error);
    if (!e) cop_proto_free(&job->base);
    return e;
}

static void expect_text(const char *text, const char *sentence) {
    cop_error error = {0};
    cop_err e = parse(text, strlen(text), &error);
    if (!sentence) {
        if (e) fail_msg("%s", error.text);
        return;
    }
    assert_string_equal(error.text, sentence);
    assert_int_equal(e, COP_ERR_INPUT);
}

/* Reads the valid job with line `line` (from 1) replaced; `expected` NULL: it is still valid. */
static void expect(int line, const char *replacement, const char *sentence) {
    char text[4096] = "";
    for (int i = 0; i < 6; i++) {
        strcat(text, i + 1 == line ? replacement : good[i]);
        strcat(text, "\n");
    }
    expect_text(text, sentence);
}

static void test_valid_job_is_accepted(void **state) {
    (void)state;
    expect(0, "", NULL);
}

static void test_unknown_fields_are_refused(void **state) {
    (void)state;
    expect(
        5, "optimiser: {sgd: {rate: 0.1}}",
        "job.yaml:5:1: unknown field \"optimiser\": did you mean \"optimizer\"? (expected one of "
        "name, seed, numerics, priority, limits, data, model, loss, train, optimizer, dropout, "
        "evaluate, checkpoint, audit)");
    expect(
        4, "train: {epochs: 1, batsh: 7}",
        "job.yaml:4:20: train: unknown field \"batsh\": did you mean \"batch\"? (expected one of "
        "epochs, steps, batch, shards, last, precision, wire)");
    expect(
        4, "train: {epochs: 1, zzzzzzzz: 7}",
        "job.yaml:4:20: train: unknown field \"zzzzzzzz\" (expected one of epochs, steps, batch, "
        "shards, last, precision, wire)");
    expect(3, "model: [relu: {slope: 1}]",
           "job.yaml:3:16: model[0].relu: unknown field \"slope\" (no fields are allowed here)");
    expect(4, "train: {epochs: 1, [a]: 7}",
           "job.yaml:4:20: train: unknown field \"?\" (expected one of epochs, steps, batch, "
           "shards, last, precision, wire)");
}

#define SOURCES                                                                                    \
    "mnist, cifar10, cifar100, idx, csv, npy, image-folder, synthetic-digits, or the name of a "   \
    "data set that the coordinator has"

/* Expects `sentence`, followed by the names of all kinds in the schema. */
static void expect_unknown_layer(const char *line, const char *sentence) {
    const ProtobufCMessageDescriptor *layer = &coppice__layer__descriptor;
    char text[2048];
    int at = snprintf(text, sizeof text, "%s (expected one of ", sentence);
    for (unsigned i = 0; i < layer->n_fields; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%s", i ? ", " : "",
                       layer->fields[i].name);
    snprintf(text + at, sizeof text - (size_t)at, ")");
    expect(3, line, text);
}

static void test_unknown_layers_losses_and_optimizers_are_refused(void **state) {
    (void)state;
    expect_unknown_layer("model: [{dropuot: {p: 0.5}}]",
                         "job.yaml:3:10: model[0]: unknown layer \"dropuot\": did you mean "
                         "\"dropout\"?");
    expect_unknown_layer("model: [linear: {units: 3}, rleu]",
                         "job.yaml:3:29: model[1]: unknown layer \"rleu\": did you mean \"relu\"?");
    expect(6, "loss: hinge",
           "job.yaml:6:7: loss: unknown loss \"hinge\" (expected one of cross_entropy, mse, bce)");
    expect(
        5, "optimizer: {sdg: {rate: 1}}",
        "job.yaml:5:13: optimizer: unknown optimizer \"sdg\": did you mean \"sgd\"? (expected one "
        "of sgd, adam, adamw, rmsprop, adagrad)");
    expect(5, "optimizer: {sgd: {rate: 1, schedule: cosin}}",
           "job.yaml:5:38: optimizer.sgd.schedule: unknown schedule \"cosin\": did you mean "
           "\"cosine\"? (expected one of constant, step, inverse, exponential, cosine)");
}

/* Every name that is suggested for a word of another program must exist in job files. */
static void test_suggested_fields_exist(void **state) {
    (void)state;
    const char *meant = NULL;
    const size_t rows = cop_fields_synonyms(&meant, 0);
    assert_in_range(rows, 30, 500);
    for (size_t i = 0; i < rows; i++) {
        bool found = false;
        cop_fields_synonyms(&meant, i);
        for (const cop_field_row *row = cop_fields_all(); row->name && !found; row++)
            found = strcmp(strchr(row->name, '.') + 1, meant) == 0;
        if (!found) fail_msg("no field is named %s", meant);
    }
}

static void test_names_of_later_versions_are_refused(void **state) {
    (void)state;
    expect(4, "train: {epochs: 1, precision: bf16}",
           "job.yaml:4:31: train.precision: bf16 is not supported by this version");
}

static void test_missing_fields_are_refused(void **state) {
    (void)state;
    expect(1, "seed: 3",
           "job.yaml:1:1: name is missing: expected text (name of the job, for "
           "people)");
    expect(2, "data: {validation: 5}",
           "job.yaml:2:7: data.source is missing: expected text (" SOURCES ")");
    expect(2, "data:", "job.yaml:2:6: data.source is missing: expected text (" SOURCES ")");
    expect(3, "model: [linear]",
           "job.yaml:3:9: model[0].linear.units is missing: expected a whole "
           "number from 1 to 1048576 (outputs)");
    expect(3, "model: [{linear: }]",
           "job.yaml:3:18: model[0].linear.units is missing: expected a "
           "whole number from 1 to 1048576 (outputs)");
    expect(5, "optimizer: sgd",
           "job.yaml:5:12: optimizer.sgd.rate is missing: expected a number "
           "above 0 to 1000000 (learning rate)");
    expect(
        5, "optimizer: {sgd: {rate: 1, schedule: {step: {every: 3}}}}",
        "job.yaml:5:45: optimizer.sgd.schedule.step.factor is missing: expected a number above 0 "
        "to 1000000 (factor of each change)");
    expect_text("name: j\n", "job.yaml:1:1: data is missing: expected a map (what to train on)");
}

static void test_values_out_of_range_are_refused(void **state) {
    (void)state;
    expect(3, "model: [{dropout: {p: 1.0}}]",
           "job.yaml:3:23: model[0].dropout.p is 1.0: expected a number from 0 to below 1");
    expect(3, "model: [{dropout: {p: -0.1}}]",
           "job.yaml:3:23: model[0].dropout.p is -0.1: expected a number from 0 to below 1");
    expect(3, "model: [{linear: {units: 0}}]",
           "job.yaml:3:26: model[0].linear.units is 0: expected "
           "a whole number from 1 to 1048576");
    expect(3, "model: [{linear: {units: -1}}]",
           "job.yaml:3:26: model[0].linear.units is -1: "
           "expected a whole number from 1 to 1048576");
    expect(5, "optimizer: {sgd: {rate: 0}}",
           "job.yaml:5:25: optimizer.sgd.rate is 0: expected a number above 0 to 1000000");
    expect(4, "train: {epochs: 1, batch: 65537}",
           "job.yaml:4:27: train.batch is 65537: expected a whole number from 1 to 65536");
    expect(4, "train: {epochs: 1, batch: 4294967297}",
           "job.yaml:4:27: train.batch is 4294967297: expected a whole number from 1 to 65536");
    expect(1, "name: j\nseed: 18446744073709551616",
           "job.yaml:2:7: seed is 18446744073709551616: expected a whole number from 0");
    expect(1, "name: j\naudit: 1.5", "job.yaml:2:8: audit is 1.5: expected a number from 0 to 1");
    expect(1, "name: j\npriority: 1000001",
           "job.yaml:2:11: priority is 1000001: expected a whole number from -1000000 to 1000000");
}

static void test_job_values_of_the_wrong_type_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"abc", "0x1p3", "1.5", "1e3", "nan",
                                      "inf", "1,000", "''",  "+-1", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[64], sentence[200];
        snprintf(line, sizeof line, "train:\n  epochs: 1\n  batch: %s", bad[i]);
        snprintf(sentence, sizeof sentence,
                 "job.yaml:6:10: train.batch is %s: expected a whole number from 1 to 65536",
                 strcmp(bad[i], "''") == 0 ? "\"\"" : bad[i]);
        expect(4, line, sentence);
    }
    expect(4, "train: {epochs: nan}",
           "job.yaml:4:17: train.epochs is nan: expected a number above 0 to 1000000");
    expect(4, "train: {epochs: \"1\"}",
           "job.yaml:4:17: train.epochs is \"1\": expected a number above 0 to 1000000");
    expect(5, "optimizer: {sgd: {rate: 1, nesterov: yes}}",
           "job.yaml:5:38: optimizer.sgd.nesterov is yes: expected true or false");
    expect(4, "train: {epochs: 1, last: KEEP}",
           "job.yaml:4:26: train.last is KEEP: expected keep or drop");
    expect(3, "model: [{linear: {units: 1, init: xavier}}]",
           "job.yaml:3:35: model[0].linear.init is xavier: expected he, glorot or torch");
    expect(1, "name: [a]", "job.yaml:1:7: name is a list: expected text");
    expect(1, "name: {a: b}", "job.yaml:1:7: name is a map: expected text");
}

static void test_null_is_refused_as_a_value(void **state) {
    (void)state;
    expect(1, "name:", "job.yaml:1:6: name is empty: expected text");
    expect(1, "name: null", "job.yaml:1:7: name is empty: expected text");
    expect(4, "train: {epochs: ~}",
           "job.yaml:4:17: train.epochs is empty: expected a number above 0 to 1000000");
    expect(6, "loss:", "job.yaml:6:6: loss is empty: expected a map such as {cross_entropy: ...}");
    expect(3, "model:", "job.yaml:3:7: model is empty: expected a list");
}

static void test_wrong_kinds_of_yaml_nodes_are_refused(void **state) {
    (void)state;
    expect(4, "train: 5", "job.yaml:4:8: train is 5: expected a map");
    expect(4, "train: [5]", "job.yaml:4:8: train is a list: expected a map");
    expect(3, "model: {relu: {}}", "job.yaml:3:8: model is a map: expected a list");
    expect(3, "model: []", "job.yaml:3:8: model has 0 items: expected 1 to 256");
    expect(3, "model: [[relu]]",
           "job.yaml:3:9: model[0] is a list: expected a map such as {linear: ...}");
    expect(3, "model: [{relu: {}, linear: {units: 3}}]",
           "job.yaml:3:9: model[0] has 2 keys: expected exactly one, such as \"linear\"");
    expect(3, "model: [{}]",
           "job.yaml:3:9: model[0] has 0 keys: expected exactly one, such as \"linear\"");
    expect_text("- a\n", "job.yaml:1:1: the job is a list: expected a map");
    expect_text("hello\n", "job.yaml:1:1: the job is hello: expected a map");
}

static void test_duplicate_fields_are_refused(void **state) {
    (void)state;
    expect(6, "train: {epochs: 2}", "job.yaml:6:1: train is given twice");
    expect(4, "train: {epochs: 2, batch: 5, epochs: 3}",
           "job.yaml:4:30: train.epochs is given twice");
}

static void test_unsupported_yaml_features_are_refused(void **state) {
    (void)state;
    expect(1, "name: &a j", "job.yaml:1:7: anchors (&name) are not supported");
    expect(1, "name: *a", "job.yaml:1:7: aliases (*name) are not supported");
    expect(1, "name: !!str j", "job.yaml:1:7: tags (!name) are not supported");
    expect(6, "---\nname: k", "job.yaml:6:1: a second document begins: expected one job");
    expect(1, "name: [[[[[[[[[[[[[[[[[[j]]]]]]]]]]]]]]]]]]", "job.yaml:1:22: nested too deeply");
    expect_text("", "job.yaml is empty: expected a job (see examples/)");
    expect_text("# nothing\n", "job.yaml is empty: expected a job (see examples/)");
}

static void test_invalid_yaml_is_refused(void **state) {
    (void)state;
    expect_text("name: [a\n", "job.yaml:2:1: not YAML: did not find expected ',' or ']'");
    expect_text("name: a\n\tb: c\n",
                "job.yaml:2:1: not YAML: found a tab character that violates indentation");
    expect_text("name: \xff\n", "job.yaml: not YAML: invalid leading UTF-8 octet at byte 6");
    expect_text("name: \"a\\0b\"\ndata: 1\n", "job.yaml:1:7: name is \"a\": expected text");
}

static void test_too_large_job_files_are_refused(void **state) {
    (void)state;
    static char big[COP_JOB_FILE_MAX + 2];
    cop_error error = {0};
    memset(big, ' ', sizeof big);
    assert_int_equal(parse(big, COP_JOB_FILE_MAX + 1, &error), COP_ERR_LIMIT);
    assert_string_equal(error.text,
                        "job.yaml has 1048577 bytes: the limit for a job file is 1048576");
    char name[1200];
    memset(name, 'a', sizeof name);
    memcpy(name, "name: ", 6);
    name[6 + 1024] = '\0';
    expect(1, name, "job.yaml:1:7: name has 1024 bytes: expected fewer than 1024");
    name[6 + 1023] = '\0';
    expect(1, name, NULL);
    size_t at = (size_t)sprintf(big, "model: [relu");
    for (int i = 0; i < 256; i++) at += (size_t)sprintf(big + at, ", relu");
    strcpy(big + at, "]");
    expect(3, big, "job.yaml:3:8: model has 257 items: expected 1 to 256");
}

static void test_missing_job_file_is_reported(void **state) {
    (void)state;
    Coppice__Job *job;
    cop_error error = {0};
    assert_int_equal(cop_document_read_job("no/such.yaml", &job, &error), COP_ERR_NOT_FOUND);
    assert_string_equal(error.text, "cannot open no/such.yaml: No such file or directory");
}

static uint64_t next(uint64_t *s) {
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return *s * 2685821657736338717ull;
}

static void test_mutated_job_files_never_crash(void **state) {
    (void)state;
    static const char pieces[] = "{}[]:,-&*!|>'\"%@`#\n \t~0123456789.eabcpxyz\xc3\xa4\xff";
    uint64_t random = 7, taken = 0;
    char text[1024];
    for (int i = 0; i < 20000; i++) {
        size_t size = 0;
        for (int l = 0; l < 6; l++) size += (size_t)sprintf(text + size, "%s\n", good[l]);
        for (uint64_t n = 1 + next(&random) % 4; n-- > 0;)
            text[next(&random) % size] = pieces[next(&random) % (sizeof pieces - 1)];
        taken += parse(text, size - next(&random) % 8, NULL) == COP_OK;
    }
    assert_in_range(taken, 20, 15000); /* both outcomes occur */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_job_is_accepted),
        cmocka_unit_test(test_unknown_fields_are_refused),
        cmocka_unit_test(test_unknown_layers_losses_and_optimizers_are_refused),
        cmocka_unit_test(test_suggested_fields_exist),
        cmocka_unit_test(test_names_of_later_versions_are_refused),
        cmocka_unit_test(test_missing_fields_are_refused),
        cmocka_unit_test(test_values_out_of_range_are_refused),
        cmocka_unit_test(test_job_values_of_the_wrong_type_are_refused),
        cmocka_unit_test(test_null_is_refused_as_a_value),
        cmocka_unit_test(test_wrong_kinds_of_yaml_nodes_are_refused),
        cmocka_unit_test(test_duplicate_fields_are_refused),
        cmocka_unit_test(test_unsupported_yaml_features_are_refused),
        cmocka_unit_test(test_invalid_yaml_is_refused),
        cmocka_unit_test(test_too_large_job_files_are_refused),
        cmocka_unit_test(test_missing_job_file_is_reported),
        cmocka_unit_test(test_mutated_job_files_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
