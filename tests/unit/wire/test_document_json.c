/* JSON that was printed from a message is read back into an equal message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "proto/api.pb-c.h"

#define TYPE &coppice__api__ensemble_result__descriptor

static cop_json_stream stream_of(const char *text) {
    return (cop_json_stream){.name = "a.json", .at = text, .end = text + strlen(text)};
}

static void test_printed_json_is_read_back(void **state) {
    (void)state;
    Coppice__Api__EnsembleFigures row = COPPICE__API__ENSEMBLE_FIGURES__INIT, *rows[1] = {&row};
    Coppice__Api__EnsembleResult r = COPPICE__API__ENSEMBLE_RESULT__INIT;
    row.has_members = row.has_error = row.has_nll = 1;
    row.members = 50;
    row.error = 0.1 + 0.2;
    row.nll = 1e-300;
    r.average = (char *)(uintptr_t)"a \"quoted\" {text} \\ \n ü";
    r.has_samples = 1;
    r.samples = 1ull << 53;
    r.members = rows;
    r.n_members = 1;
    for (int indent = 0; indent <= 2; indent += 2) {
        cop_str text = {0};
        cop_error error = {0};
        cop_document_print_json(&r.base, indent, &text);
        cop_str_append(&text, "\n\n  ");
        cop_document_print_json(&r.base, indent, &text);
        cop_json_stream s = stream_of(cop_str_text(&text));
        ProtobufCMessage *back;
        for (int i = 0; i < 2; i++) {
            if (cop_document_next_json(&s, TYPE, &back, &error)) fail_msg("%s", error.text);
            const Coppice__Api__EnsembleResult *b = (const Coppice__Api__EnsembleResult *)back;
            assert_string_equal(b->average, r.average);
            assert_int_equal(b->samples, r.samples);
            assert_int_equal(b->n_models, 0); /* printed as an empty list */
            assert_int_equal(b->n_members, 1);
            assert_int_equal(b->members[0]->members, 50);
            assert_true(b->members[0]->error == row.error && b->members[0]->nll == row.nll);
            assert_false(b->members[0]->has_brier);
            cop_proto_free(back);
        }
        assert_int_equal(cop_document_next_json(&s, TYPE, &back, &error), COP_OK);
        assert_null(back);
        cop_str_fini(&text);
    }
}

static void refuse(const char *text, const char *sentence) {
    cop_json_stream s = stream_of(text);
    ProtobufCMessage *message = NULL;
    cop_error error = {0};
    cop_err e;
    while (!(e = cop_document_next_json(&s, TYPE, &message, &error)) && message)
        cop_proto_free(message);
    assert_int_equal(e, COP_ERR_INPUT);
    assert_null(message);
    if (strncmp(error.text, sentence, strlen(sentence)) != 0)
        fail_msg("\"%s\" does not begin \"%s\"", error.text, sentence);
}

static void test_invalid_json_is_reported_with_its_line(void **state) {
    (void)state;
    refuse("\n\nnot at all", "a.json:3: not JSON: expected an object, {...}");
    refuse("{}\n{\"samples\":1", "a.json:2: not JSON: the object has no end");
    refuse("{\n}\n\n{\"samples\":1,,}", "a.json:4: not JSON: ");
    refuse("{\"sampels\":1}", "a.json:1: unknown field \"sampels\": did you mean \"samples\"?");
    refuse("{\"samples\":\"many\"}", "a.json:1: samples is \"many\": expected a whole number");
    refuse("{\"members\":[{\"error\":null}]}", "a.json:1: members[0].error is empty: expected a ");
    refuse("{\"members\":7}", "a.json:1: members is 7: expected a list");
    refuse("{\"samples\":1,\"samples\":2}", "a.json:1: samples is given twice");
    refuse("{\"samples\":&a 1}", "a.json:1: not JSON: anchors (&name) are not supported");
    refuse("{\"average\":\"\xff\"}", "a.json:1: not JSON: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed_json_is_read_back),
        cmocka_unit_test(test_invalid_json_is_reported_with_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
