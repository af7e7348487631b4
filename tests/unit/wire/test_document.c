/* Valid job files: reading, printing, default values, and the recorded line and column of each
 * field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/fields.h"
#include "common/wire/reflect.h"
#include "proto/api.pb-c.h"

#define SMALL                                                                                      \
    "name: j\ndata: {source: mnist}\nmodel: [relu]\ntrain: {epochs: 1}\n"                          \
    "optimizer: {sgd: {rate: 0.1}}\n"

static const char full[] =
    "name: \"a: name, with ümläuts\"\n"
    "seed: \"18446744073709551615\"\n"
    "numerics: openblas\n"
    "priority: -3\n"
    "limits: {workers: 4, timeout: 3600.5, memory: 1000000}\n"
    "data: {source: idx, train: {images: a.gz, labels: b}, test: {images: c, labels: 'true'},\n"
    "       validation: 100, samples: 5000}\n"
    "model:\n"
    "  - flatten\n"
    "  - dropout: {p: 0.2, scope: shard, variant: classic}\n"
    "  - linear: {units: 64, max_norm: 2.5, bias: false, init: glorot}\n"
    "  - relu:\n"
    "  - linear: {units: 0x0a, init: torch}\n"
    "loss: {cross_entropy: {smoothing: 0.1}}\n"
    "train: {epochs: 2.5, batch: 100, shards: 7, last: drop, precision: f32, wire: f32}\n"
    "optimizer:\n"
    "  sgd:\n"
    "    rate: 1.0e-4\n"
    "    momentum: .5\n"
    "    momentum_final: 0.99\n"
    "    momentum_steps: 500\n"
    "    nesterov: true\n"
    "    weight_decay: 1e-300\n"
    "    l1: 0.1234567890123456789\n"
    "    schedule: {step: {every: 100, factor: 0.5}}\n"
    "    warmup: 10\n"
    "dropout: {scope: shard, variant: classic}\n"
    "evaluate: {every: 2, on: validation}\n"
    "checkpoint: {every: 7, keep: 1}\n";

static Coppice__Job *parse(const char *text) {
    Coppice__Job *job = NULL;
    cop_error error = {0};
    if (cop_document_parse_job(text, strlen(text), "job.yaml", &job, &error))
        fail_msg("%s", error.text);
    return job;
}

static void set(Coppice__Job *job, const char *assignment) {
    cop_error error = {0};
    if (cop_document_set(job, assignment, &error)) fail_msg("%s", error.text);
}

/* Compares two jobs by their packed bytes. Equal messages have equal bytes, because protobuf-c
 * writes fields in the order of their tags. */
static void assert_equal(const Coppice__Job *a, const Coppice__Job *b) {
    cop_buffer *x = cop_proto_pack(&a->base), *y = cop_proto_pack(&b->base);
    assert_int_equal(x->size, y->size);
    assert_memory_equal(x->data, y->data, x->size);
    cop_buffer_release(x);
    cop_buffer_release(y);
}

/* ---- reading ---- */

static void test_reads_every_field(void **state) {
    (void)state;
    Coppice__Job *j = parse(full);
    assert_string_equal(j->name, "a: name, with ümläuts");
    assert_true(j->seed == UINT64_MAX);
    assert_int_equal(j->priority, -3);
    assert_true(j->limits->timeout == 3600.5);
    assert_string_equal(j->data->test->labels, "true");
    assert_int_equal(j->n_model, 5);
    assert_non_null(j->model[0]->flatten);
    assert_true(j->model[1]->dropout->p == 0.2);
    assert_int_equal(j->model[1]->dropout->scope, COPPICE__SCOPE__SHARD);
    assert_true(j->model[2]->linear->has_bias && !j->model[2]->linear->bias);
    assert_non_null(j->model[3]->relu);
    assert_int_equal(j->model[4]->linear->units, 10);
    assert_true(j->train->epochs == 2.5 && !j->train->has_steps);
    assert_true(j->optimizer->sgd->rate == 1.0e-4 && j->optimizer->sgd->momentum == 0.5);
    assert_true(j->optimizer->sgd->l1 == 0.1234567890123456789);
    assert_int_equal(j->optimizer->sgd->schedule->step->every, 100);
    cop_proto_free(&j->base);
}

static void test_bare_name_means_an_empty_map(void **state) {
    (void)state;
    Coppice__Job *a = parse(SMALL "loss: cross_entropy\n");
    Coppice__Job *b = parse("name: j\ndata: {source: mnist}\nmodel:\n  - relu: {}\n"
                            "train: {epochs: 1}\noptimizer: {sgd: {rate: 0.1}}\n"
                            "loss: {cross_entropy: {}}\n");
    Coppice__Job *c = parse("name: j\ndata: {source: mnist}\nmodel:\n- relu:\n"
                            "train: {epochs: 1}\noptimizer: {sgd: {rate: 0.1}}\n"
                            "loss:\n  cross_entropy:\n");
    assert_equal(a, b);
    assert_equal(a, c);
    cop_proto_free(&a->base), cop_proto_free(&b->base), cop_proto_free(&c->base);
}

static void test_job_file_may_be_json(void **state) {
    (void)state;
    Coppice__Job *a = parse(full), *b;
    cop_str json = {0};
    for (int indent = 0; indent <= 2; indent += 2) {
        cop_str_clear(&json);
        cop_document_print_json(&a->base, indent, &json);
        b = parse(cop_str_text(&json));
        assert_equal(a, b);
        cop_proto_free(&b->base);
    }
    cop_str_fini(&json);
    cop_proto_free(&a->base);
}

/* ---- printing ---- */

static void test_yaml_round_trip(void **state) {
    (void)state;
    static const char *const texts[] = {full, SMALL};
    for (int i = 0; i < 4; i++) {
        Coppice__Job *a = parse(texts[i / 2]);
        if (i % 2) assert_int_equal(cop_document_resolve(a, NULL), COP_OK);
        cop_str yaml = {0};
        cop_document_print_yaml(&a->base, &yaml);
        Coppice__Job *b = parse(cop_str_text(&yaml));
        assert_equal(a, b);
        cop_str_fini(&yaml);
        cop_proto_free(&a->base), cop_proto_free(&b->base);
    }
}

static void test_pinned_section_round_trips(void **state) {
    (void)state;
    Coppice__Job *a =
        parse(SMALL "pinned: {data_digest: '00ff', train_samples: 5, input: [1, 28, 28]}\n");
    assert_int_equal(a->pinned->n_input, 3);
    cop_str yaml = {0};
    cop_document_print_yaml(&a->base, &yaml);
    assert_non_null(strstr(cop_str_text(&yaml), "pinned:\n  data_digest: \"00ff\"\n"
                                                "  train_samples: 5\n  input: [1, 28, 28]\n"));
    Coppice__Job *b = parse(cop_str_text(&yaml));
    assert_equal(a, b);
    cop_str_fini(&yaml);
    cop_proto_free(&a->base), cop_proto_free(&b->base);
}

static void test_reals_are_short_and_exact(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},         {20, "20"},
                 {1e-5, "1.0e-05"},    {0.30000000000000004, "0.30000000000000004"},
                 {1e300, "1.0e+300"},  {-2.5, "-2.5"},
                 {5e-324, "5.0e-324"}, {123456789012, "123456789012"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Coppice__Api__EvalResult r;
        cop_str json = {0};
        char expected[80];
        coppice__api__eval_result__init(&r);
        r.has_loss = 1;
        r.loss = cases[i].value;
        cop_document_print_json(&r.base, 0, &json);
        snprintf(expected, sizeof expected, "{\"loss\":%s}", cases[i].text);
        assert_string_equal(cop_str_text(&json), expected);
        cop_str_fini(&json);
    }
}

static void test_json_of_odd_values(void **state) {
    (void)state;
    Coppice__Api__JobStatus s;
    Coppice__Api__OfferDataRequest o;
    Coppice__Api__ListJobsAnswer l;
    cop_str json = {0};
    coppice__api__job_status__init(&s);
    s.has_state = s.has_train_loss = s.has_job = 1;
    s.state = COPPICE__API__STATE__RUNNING;
    s.train_loss = NAN;
    s.job = 1ull << 60;
    s.name = (char *)(uintptr_t)"say \"hi\"\n";
    cop_document_print_json(&s.base, 0, &json);
    assert_string_equal(cop_str_text(&json),
                        "{\"job\":1152921504606846976,\"name\":\"say \\\"hi\\\"\\n\",\"state\":"
                        "\"RUNNING\",\"train_loss\":null}");
    cop_str_clear(&json);
    coppice__api__offer_data_request__init(&o);
    ProtobufCBinaryData chunk = {2, (uint8_t *)(uintptr_t)"\x00\xff"};
    o.n_chunks = 1;
    o.chunks = &chunk;
    cop_document_print_json(&o.base, 0, &json);
    assert_string_equal(cop_str_text(&json), "{\"chunks\":[\"00ff\"]}");
    cop_str_clear(&json);
    coppice__api__list_jobs_answer__init(&l);
    cop_document_print_json(&l.base, 2, &json);
    assert_string_equal(cop_str_text(&json), "{\n  \"jobs\": []\n}");
    cop_str_fini(&json);
}

static void test_seeds_are_strings_in_json_only(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL "seed: 9007199254740993\n");
    cop_str out = {0};
    cop_document_print_json(&j->base, 0, &out);
    assert_non_null(strstr(cop_str_text(&out), "\"seed\":\"9007199254740993\""));
    cop_str_clear(&out);
    cop_document_print_yaml(&j->base, &out);
    assert_non_null(strstr(cop_str_text(&out), "seed: 9007199254740993\n"));
    cop_str_fini(&out);
    cop_proto_free(&j->base);
}

/* ---- defaults ---- */

static void test_resolve_fills_in_defaults(void **state) {
    (void)state;
    Coppice__Job *j = parse("name: j\ndata: {source: mnist}\n"
                            "model: [dropout, {dropout: {scope: sample}}, {linear: {units: 3}}]\n"
                            "train: {epochs: 1}\noptimizer: {sgd: {rate: 1}}\n"
                            "dropout: {scope: shard}\n");
    assert_int_equal(cop_document_resolve(j, NULL), COP_OK);
    assert_int_equal(j->seed, 1);
    assert_int_equal(j->train->batch, 128);
    assert_int_equal(j->train->shards, 8);
    assert_non_null(j->loss->cross_entropy);
    assert_non_null(j->optimizer->sgd->schedule->constant);
    assert_true(j->model[0]->dropout->p == 0.5);
    assert_int_equal(j->model[0]->dropout->scope, COPPICE__SCOPE__SHARD);
    assert_int_equal(j->model[1]->dropout->scope, COPPICE__SCOPE__SAMPLE);
    assert_int_equal(j->model[1]->dropout->variant, COPPICE__VARIANT__INVERTED);
    assert_true(j->model[2]->linear->bias);
    assert_false(j->train->has_steps || j->evaluate->has_on ||
                 j->optimizer->sgd->has_momentum_final);
    Coppice__Job *again = parse(SMALL);
    cop_proto_free(&again->base);
    cop_proto_free(&j->base);
}

static void test_resolving_twice_changes_nothing(void **state) {
    (void)state;
    Coppice__Job *a = parse(SMALL), *b = parse(SMALL);
    cop_document_resolve(a, NULL), cop_document_resolve(b, NULL), cop_document_resolve(b, NULL);
    assert_equal(a, b);
    cop_proto_free(&a->base), cop_proto_free(&b->base);
}

static void test_default_shards_are_at_most_the_batch(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    set(j, "train.batch=3");
    assert_int_equal(cop_document_resolve(j, NULL), COP_OK);
    assert_int_equal(j->train->shards, 3);
    cop_proto_free(&j->base);
}

/* ---- the table ---- */

static void cover(const ProtobufCMessageDescriptor *type, size_t *seen) {
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        const cop_field_row *row = cop_fields_find(type, field);
        if (!row) fail_msg("%s.%s has no row in fields.c", type->short_name, field->name);
        assert_non_null(row->help);
        bool number = field->type == PROTOBUF_C_TYPE_DOUBLE ||
                      field->type == PROTOBUF_C_TYPE_UINT32 ||
                      field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_INT32;
        if (number != cop_field_is_ranged(row)) fail_msg("%s: a number has a range", row->name);
        if (row->required && row->default_text) fail_msg("%s: required, yet a default", row->name);
        seen[row - cop_fields_all()]++;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) cover(field->descriptor, seen);
    }
}

/* The output of `coppice spec` is the same job, even if an older program pinned it. */
static void test_job_without_its_defaults_is_the_same_job(void **state) {
    (void)state;
    static const char *const texts[] = {
        full, SMALL,
        "name: j\ndata: {source: mnist, validation: 10, normalize: unit, augment: {shift: 0}}\n"
        "model: [dropout, {dropout: {scope: sample}}, {linear: {units: 3}}]\n"
        "train: {epochs: 1, batch: 4}\noptimizer: {sgd: {rate: 1}}\n"
        "dropout: {scope: shard}\nevaluate: {on: test}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Coppice__Job *whole = parse(texts[i]), *brief = NULL;
        assert_int_equal(cop_document_resolve(whole, NULL), COP_OK);
        assert_int_equal(cop_document_copy_job(whole, &brief, NULL), COP_OK);
        cop_document_strip_defaults(brief);
        assert_int_equal(cop_document_resolve(brief, NULL), COP_OK);
        assert_equal(whole, brief);
        cop_proto_free(&whole->base), cop_proto_free(&brief->base);
    }
    Coppice__Job *old = parse(SMALL);
    Coppice__Pinned pinned;
    coppice__pinned__init(&pinned);
    old->pinned = &pinned;
    cop_document_strip_defaults(old);
    assert_int_equal(cop_document_resolve(old, NULL), COP_OK);
    assert_int_equal(old->data->split, COPPICE__DATA__SPLIT__LAST);
    cop_proto_free(&old->base);
}

static void test_every_field_has_a_row_and_every_row_a_field(void **state) {
    (void)state;
    size_t seen[512] = {0};
    cover(&coppice__job__descriptor, seen);
    for (const cop_field_row *r = cop_fields_all(); r->name; r++)
        if (!seen[r - cop_fields_all()]) fail_msg("%s is no field", r->name);
}

static void test_names_of_later_versions_are_reserved(void **state) {
    (void)state;
    for (const char *const *name = cop_fields_reserved_names(); *name; name++) {
        char message[64];
        snprintf(message, sizeof message, "%.*s", (int)strcspn(*name, "."), *name);
        assert_true(cop_fields_is_reserved(message, *name + strlen(message) + 1));
        for (const cop_field_row *r = cop_fields_all(); r->name; r++)
            if (strcmp(r->name, *name) == 0) fail_msg("%s is there", *name);
    }
}

static void test_help_of_job_fields(void **state) {
    (void)state;
    assert_string_equal(cop_document_help("train.batch"), "number of samples per step");
    assert_string_equal(cop_document_help("model.linear.units"), "outputs");
    assert_null(cop_document_help("train.batsh"));
    assert_null(cop_document_help("train.batch.x"));
}

static void test_reference_page_is_up_to_date(void **state) {
    (void)state;
    cop_str reference = {0};
    char *text;
    size_t size;
    cop_document_reference(&reference);
    assert_int_equal(cop_file_read("docs/reference/job-file.md", 1 << 20, &text, &size, NULL),
                     COP_OK);
    if (strcmp(text, cop_str_text(&reference)) != 0)
        fail_msg("docs/reference/job-file.md is not what `coppice` writes: "
                 "build/*/tests/wire_test_document "
                 "--reference > docs/reference/job-file.md");
    cop_free(text);
    cop_str_fini(&reference);
}

/* ---- --set ---- */

static void test_set_changes_fields(void **state) {
    (void)state;
    Coppice__Job *j = parse(full);
    set(j, "seed=7");
    set(j, "train.batch=64");
    set(j, "model.2.linear.units=32");
    set(j, "model[1].dropout.p=0.25");
    set(j, "model.3={dropout: {p: 0.75}}");
    set(j, "model.0=relu");
    set(j, "optimizer.sgd.schedule=cosine");
    set(j, "data.source=synthetic-digits");
    set(j, "name=a, b = c");
    assert_int_equal(j->seed, 7);
    assert_int_equal(j->train->batch, 64);
    assert_int_equal(j->model[2]->linear->units, 32);
    assert_true(j->model[1]->dropout->p == 0.25);
    assert_true(j->model[3]->dropout->p == 0.75 && !j->model[3]->relu);
    assert_non_null(j->model[0]->relu);
    assert_true(j->optimizer->sgd->schedule->cosine && !j->optimizer->sgd->schedule->step);
    assert_string_equal(j->name, "a, b = c");
    assert_int_equal(cop_document_check(j, NULL), COP_OK);
    cop_proto_free(&j->base);
}

static void test_set_creates_missing_sections(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    set(j, "checkpoint.every=50");
    set(j, "limits.workers=2");
    set(j, "optimizer.sgd.schedule.inverse.decay=1.0e-3");
    assert_int_equal(j->checkpoint->every, 50);
    assert_true(j->optimizer->sgd->schedule->inverse->decay == 1.0e-3);
    cop_proto_free(&j->base);
}

static void test_set_steps_replaces_epochs(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    set(j, "train.steps=10");
    assert_true(j->train->has_steps && !j->train->has_epochs);
    set(j, "train.epochs=2");
    assert_true(j->train->has_epochs && !j->train->has_steps);
    cop_proto_free(&j->base);
}

static void refuse(const char *assignment, const char *sentence) {
    Coppice__Job *j = parse(SMALL);
    cop_error error = {0};
    assert_int_equal(cop_document_set(j, assignment, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, sentence);
    cop_proto_free(&j->base);
}

static void test_wrong_assignment_is_refused_with_its_reason(void **state) {
    (void)state;
    refuse("train.batch", "--set train.batch: expected FIELD=VALUE, such as train.batch=64");
    refuse("=5", "--set =5: expected FIELD=VALUE, such as train.batch=64");
    refuse("train.batch=", "--set train.batch=: the value is missing");
    refuse("train.batch=x",
           "--set train.batch=x: train.batch is x: expected a whole number from 1 to 65536");
    refuse("train.batch=[1", "--set train.batch=[1: not YAML: did not find expected ',' or ']'");
    refuse("train.batsh=1",
           "--set train.batsh=1: train: unknown field \"batsh\": did you mean \"batch\"? "
           "(expected one of epochs, steps, batch, shards, last, precision, wire)");
    refuse("train.batch.x=1", "--set train.batch.x=1: train.batch has no fields");
    refuse("model.0.linear.units=3",
           "--set model.0.linear.units=3: model[0] is relu: it has no fields of linear");
    refuse("model.1=relu", "--set model.1=relu: model has no item \"1\": expected 0 to 0");
    refuse("model.x.relu=1", "--set model.x.relu=1: model has no item \"x\": expected 0 to 0");
    refuse("data.drop.0=id", "--set data.drop.0=id: data.drop is empty: set the whole list");
    refuse("audit=2", "--set audit=2: audit is 2: expected a number from 0 to 1");
    refuse("train=5", "--set train=5: train is 5: expected a map");
    refuse("name=&a b", "--set name=&a b: anchors (&name) are not supported");
}

static void test_incomplete_set_is_detected_by_the_check(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    cop_error error = {0};
    set(j, "optimizer.sgd.schedule.step.every=5");
    assert_int_equal(cop_document_check_read(j, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "--set optimizer.sgd.schedule.step.every=5: optimizer.sgd."
                                    "schedule.step.factor is missing: expected a number above 0 to "
                                    "1000000 (factor of each change)");
    set(j, "optimizer.sgd.schedule.step.factor=0.5");
    assert_int_equal(cop_document_check_read(j, &error), COP_OK);
    cop_proto_free(&j->base);
}

/* ---- checks of messages from the network ---- */

static void check_fails(Coppice__Job *j, const char *sentence) {
    cop_error error = {0};
    assert_int_equal(cop_document_check(j, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, sentence);
}

static void test_hostile_job_messages_are_refused(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    assert_int_equal(cop_document_check(j, NULL), COP_OK);
    j->optimizer->sgd->rate = NAN;
    check_fails(j, "optimizer.sgd.rate is null: expected a number above 0 to 1000000");
    j->optimizer->sgd->rate = 1;
    j->train->has_batch = 1, j->train->batch = 0;
    check_fails(j, "train.batch is 0: expected a whole number from 1 to 65536");
    j->train->batch = 5;
    Coppice__Layer *layer = j->model[0];
    layer->flatten = (Coppice__Flatten *)cop_reflect_new(&j->base, &coppice__flatten__descriptor);
    check_fails(j, "model[0] has 2 keys: expected exactly one, such as \"linear\"");
    layer->flatten = NULL, layer->relu = NULL;
    check_fails(j, "model[0] has 0 keys: expected exactly one, such as \"linear\"");
    j->n_model = 0;
    check_fails(j, "model is missing: expected a list (the layers, in order)");
    cop_proto_free(&j->base);
}

static void test_fields_of_newer_programs_are_refused(void **state) {
    (void)state;
    Coppice__Job *j = parse(SMALL);
    cop_buffer *packed = cop_proto_pack(&j->base);
    char bytes[512];
    ProtobufCMessage *back = NULL;
    memcpy(bytes, packed->data, packed->size);
    memcpy(bytes + packed->size, "\x78\x01", 2); /* field 15 */
    assert_int_equal(
        cop_proto_unpack(&coppice__job__descriptor, bytes, packed->size + 2, 1 << 16, &back, NULL),
        COP_OK);
    check_fails((Coppice__Job *)back,
                "the job has a field that this version does not know (number 15)");
    cop_proto_free(back);
    cop_buffer_release(packed);
    cop_proto_free(&j->base);
}

/* ---- places of fields ---- */

static void expect_where(const Coppice__Job *j, const char *field, const char *where) {
    char out[200];
    cop_document_where(j, field, out, sizeof out);
    assert_string_equal(out, where);
}

static void test_fields_remember_file_line_and_column(void **state) {
    (void)state;
    Coppice__Job *j = parse(full);
    expect_where(j, "name", "job.yaml:1:7");
    expect_where(j, "data.test.labels", "job.yaml:6:81");
    expect_where(j, "model[2].linear.units", "job.yaml:11:21");
    expect_where(j, "model[2]", "job.yaml:11:5");
    expect_where(j, "train.steps", "job.yaml:15:8"); /* absent: the place of `train` */
    expect_where(j, "nowhere", "job.yaml:1:1");
    set(j, "train.steps=9");
    set(j, "model.2={linear: {units: 5}}");
    expect_where(j, "train.steps", "--set train.steps=9");
    expect_where(j, "model[2].linear.units", "--set model.2={linear: {units: 5}}");
    expect_where(j, "model[2].linear.bias", "--set model.2={linear: {units: 5}}");
    expect_where(j, "train.batch", "job.yaml:15:29");
    cop_error error = {0};
    assert_int_equal(cop_document_fail(j, "seed", &error, "seed %d", 3), COP_ERR_INPUT);
    assert_string_equal(error.text, "job.yaml:2:7: seed 3");
    cop_proto_free(&j->base);
}

static void test_example_job_files_are_valid(void **state) {
    (void)state;
    char **names;
    size_t count;
    assert_int_equal(cop_folder_list("examples", &names, &count, NULL), COP_OK);
    assert_true(count >= 5);
    for (size_t i = 0; i < count; i++) {
        if (!strstr(names[i], ".yaml")) continue;
        cop_error error = {0};
        Coppice__Job *j = NULL;
        char *path = cop_path_join("examples", names[i]);
        if (cop_document_read_job(path, &j, &error)) fail_msg("%s", error.text);
        cop_proto_free(&j->base);
        cop_free(path);
    }
    cop_free(names);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--reference") == 0) {
        cop_str reference = {0};
        cop_document_reference(&reference);
        fputs(cop_str_text(&reference), stdout);
        cop_str_fini(&reference);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_field),
        cmocka_unit_test(test_bare_name_means_an_empty_map),
        cmocka_unit_test(test_job_file_may_be_json),
        cmocka_unit_test(test_yaml_round_trip),
        cmocka_unit_test(test_pinned_section_round_trips),
        cmocka_unit_test(test_reals_are_short_and_exact),
        cmocka_unit_test(test_json_of_odd_values),
        cmocka_unit_test(test_seeds_are_strings_in_json_only),
        cmocka_unit_test(test_resolve_fills_in_defaults),
        cmocka_unit_test(test_resolving_twice_changes_nothing),
        cmocka_unit_test(test_default_shards_are_at_most_the_batch),
        cmocka_unit_test(test_job_without_its_defaults_is_the_same_job),
        cmocka_unit_test(test_every_field_has_a_row_and_every_row_a_field),
        cmocka_unit_test(test_names_of_later_versions_are_reserved),
        cmocka_unit_test(test_help_of_job_fields),
        cmocka_unit_test(test_reference_page_is_up_to_date),
        cmocka_unit_test(test_set_changes_fields),
        cmocka_unit_test(test_set_creates_missing_sections),
        cmocka_unit_test(test_set_steps_replaces_epochs),
        cmocka_unit_test(test_wrong_assignment_is_refused_with_its_reason),
        cmocka_unit_test(test_incomplete_set_is_detected_by_the_check),
        cmocka_unit_test(test_hostile_job_messages_are_refused),
        cmocka_unit_test(test_fields_of_newer_programs_are_refused),
        cmocka_unit_test(test_fields_remember_file_line_and_column),
        cmocka_unit_test(test_example_job_files_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
