/* Unpacking with a memory budget, and the arena of a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "common/wire/message_proto.h"
#include "common/wire/reflect.h"
#include "proto/api.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/wire.pb-c.h"

static cop_err unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t size,
                      size_t budget, cop_error *error) {
    ProtobufCMessage *m = NULL;
    cop_err e = cop_proto_unpack(type, bytes, size, budget, &m, error);
    if (!e) cop_proto_free(m);
    return e;
}

static void test_message_is_packed_and_unpacked(void **state) {
    (void)state;
    Coppice__Job *job = (Coppice__Job *)cop_proto_create(&coppice__job__descriptor, 1 << 16);
    ProtobufCMessage *back = NULL;
    job->name = cop_proto_strdup(&job->base, "name");
    job->has_seed = 1;
    job->seed = UINT64_MAX;
    cop_buffer *packed = cop_proto_pack(&job->base);
    assert_int_equal(cop_proto_unpack(&coppice__job__descriptor, packed->data, packed->size,
                                      1 << 16, &back, NULL),
                     COP_OK);
    assert_string_equal(((Coppice__Job *)back)->name, "name");
    assert_true(((Coppice__Job *)back)->seed == UINT64_MAX);
    cop_buffer_release(packed);
    cop_proto_free(back);
    cop_proto_free(&job->base);
}

static void test_bomb_of_empty_messages_is_refused(void **state) {
    (void)state;
    size_t size = 1 << 20;
    char *bomb = cop_alloc(size);
    cop_error error = {0};
    for (size_t i = 0; i < size; i += 2) bomb[i] = 0x3a; /* Job.model, each of length 0 */
    assert_int_equal(unpack(&coppice__job__descriptor, bomb, size, 4 << 20, &error),
                     COP_ERR_PROTOCOL);
    assert_string_equal(error.text, "malformed or too large: not a coppice.Job");
    cop_free(bomb);
}

static void test_budget_limits_allocated_memory(void **state) {
    (void)state;
    char many[4096];
    for (size_t i = 0; i < sizeof many; i += 2) many[i] = 0x3a, many[i + 1] = 0;
    assert_int_equal(unpack(&coppice__job__descriptor, many, sizeof many, 1 << 20, NULL), COP_OK);
    assert_int_equal(unpack(&coppice__job__descriptor, many, sizeof many, 1 << 14, NULL),
                     COP_ERR_PROTOCOL);
    ProtobufCMessage *m = cop_proto_create(&coppice__job__descriptor, 4096);
    assert_null(cop_proto_alloc(m, 4096));
    assert_null(cop_proto_alloc(m, SIZE_MAX));
    assert_non_null(cop_proto_alloc(m, 64));
    cop_proto_free(m);
}

static void test_nul_in_a_text_is_refused(void **state) {
    (void)state;
    cop_error error = {0};
    assert_int_equal(unpack(&coppice__job__descriptor,
                            "\x0a\x03"
                            "a\0b",
                            5, 1 << 16, &error),
                     COP_ERR_PROTOCOL);
    assert_string_equal(error.text, "field name is not UTF-8 text without NUL");
    /* and next to an unknown field */
    assert_int_equal(unpack(&coppice__job__descriptor,
                            "\x0a\x03"
                            "a\0b\xf8\x7f\x01",
                            8, 1 << 16, NULL),
                     COP_ERR_PROTOCOL);
    assert_int_equal(unpack(&coppice__job__descriptor,
                            "\x0a\x03"
                            "abc",
                            5, 1 << 16, NULL),
                     COP_OK);
}

static void test_text_that_is_not_utf8_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                                      "\xc3"};
    for (size_t i = 0; i < 5; i++) {
        char bytes[16] = {0x0a, (char)strlen(bad[i])};
        memcpy(bytes + 2, bad[i], strlen(bad[i]));
        assert_int_equal(
            unpack(&coppice__job__descriptor, bytes, 2 + strlen(bad[i]), 1 << 16, NULL),
            COP_ERR_PROTOCOL);
    }
}

static void test_unknown_enum_values_are_refused(void **state) {
    (void)state;
    cop_error error = {0};
    assert_int_equal(unpack(&coppice__job__descriptor, "\x18\x09", 2, 1 << 16, &error),
                     COP_ERR_PROTOCOL);
    assert_string_equal(error.text, "field numerics has the unknown value 9");
    /* cut to 32 bits, 2^32 + 1 would be 1 */
    assert_int_equal(
        unpack(&coppice__job__descriptor, "\x18\x81\x80\x80\x80\x10", 6, 1 << 16, NULL),
        COP_ERR_PROTOCOL);
    assert_int_equal(unpack(&coppice__job__descriptor, "\x18\x02", 2, 1 << 16, NULL), COP_OK);
}

/* ---- every enum of every message that a peer can send ---- */

static size_t put_varint(uint8_t *to, uint64_t value) {
    size_t size = 0;
    for (; value >= 0x80; value >>= 7) to[size++] = (uint8_t)(value | 0x80);
    to[size++] = (uint8_t)value;
    return size;
}

/* The path of fields that leads from a message to an enum. */
typedef struct enum_path {
    const cop_proto_field *fields[8];
    int count;
} enum_path;

/* A message of type `root` in which the enum at the end of the path has this value. */
static size_t pack_value(const enum_path *path, uint64_t value, uint8_t *out) {
    uint8_t inner[64];
    size_t size = put_varint(inner, (uint64_t)path->fields[path->count - 1]->id << 3);
    size += put_varint(inner + size, value);
    memcpy(out, inner, size);
    for (int i = path->count - 2; i >= 0; i--) {
        memcpy(inner, out, size);
        size_t head = put_varint(out, (uint64_t)path->fields[i]->id << 3 | 2);
        head += put_varint(out + head, size);
        memcpy(out + head, inner, size);
        size += head;
    }
    return size;
}

static int try_enums(const cop_proto_type *root, const cop_proto_type *type, enum_path *path) {
    static const uint64_t unknown[] = {99, 1ull << 31, (1ull << 32) + 1, UINT64_MAX};
    int tried = 0;
    assert_true(path->count < 8);
    for (unsigned i = 0; i < type->n_fields; i++) {
        const cop_proto_field *field = &type->fields[i];
        path->fields[path->count++] = field;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            tried += try_enums(root, field->descriptor, path);
        for (size_t k = 0; field->type == PROTOBUF_C_TYPE_ENUM && k < 4; k++, tried++) {
            uint8_t bytes[64];
            const size_t size = pack_value(path, unknown[k], bytes);
            if (unpack(root, bytes, size, 1 << 16, NULL) != COP_ERR_PROTOCOL)
                fail_msg("%s takes %llu for %s", root->name, (unsigned long long)unknown[k],
                         field->name);
        }
        path->count--;
    }
    return tried;
}

static void test_every_enum_refuses_unknown_values(void **state) {
    static const cop_proto_type *const requests[] = {
        &coppice__api__submit_request__descriptor,
        &coppice__api__list_jobs_request__descriptor,
        &coppice__api__control_job_request__descriptor,
        &coppice__api__start_evaluation_request__descriptor,
        &coppice__api__job_status__descriptor,
        &coppice__api__watch_evaluation_answer__descriptor,
        &coppice__job__descriptor,
    };
    int tried = 0;
    (void)state;
    for (unsigned type = COP_MESSAGE_HELLO; type <= COP_MESSAGE_ANSWER; type++)
        tried += try_enums(cop_message_descriptor(type), cop_message_descriptor(type),
                           &(enum_path){.count = 0});
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        tried += try_enums(requests[i], requests[i], &(enum_path){.count = 0});
    assert_true(tried > 100);
}

static void test_malformed_bytes_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"\x0a", 1},
               {"\x0a\x7f", 2},
               {"\x10", 1},
               {"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
               {"\x0b", 1},
               {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
               {"\x3a\x02\x0a\x7f", 4},
               {"\x09\x00", 2},
               {"\x00\x00", 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!unpack(&coppice__job__descriptor, bad[i].bytes, bad[i].size, 1 << 16, NULL))
            fail_msg("bytes %zu were taken", i);
}

/* No message type contains itself, even indirectly, so the nesting depth is limited. */
static int depth_of(const ProtobufCMessageDescriptor *type, int depth) {
    int deepest = depth;
    assert_true(depth < 10);
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (type->fields[i].type != PROTOBUF_C_TYPE_MESSAGE) continue;
        int d = depth_of(type->fields[i].descriptor, depth + 1);
        if (d > deepest) deepest = d;
    }
    return deepest;
}

static void test_no_message_type_is_recursive(void **state) {
    (void)state;
    assert_int_equal(depth_of(&coppice__job__descriptor, 0), 4);
    assert_int_equal(depth_of(&coppice__wire__pull__descriptor, 0), 1);
    assert_int_equal(depth_of(&coppice__api__submit_request__descriptor, 0), 5);
    assert_int_equal(depth_of(&coppice__api__submit_answer__descriptor, 0), 5);
}

static void test_attachment_is_kept_with_the_root_message(void **state) {
    (void)state;
    ProtobufCMessage *m = cop_proto_create(&coppice__job__descriptor, 4096);
    int thing;
    assert_null(cop_proto_attachment(m));
    cop_proto_attach(m, &thing);
    assert_ptr_equal(cop_proto_attachment(m), &thing);
    cop_proto_free(m);
}

static void test_failed_allocations_are_reported(void **state) {
    (void)state;
    static const char packed[] = "\x0a\x03"
                                 "abc"
                                 "\x3a\x02\x12\x00";
    for (uint64_t k = 1; k <= 2; k++) {
        cop_alloc_fail_at(k);
        assert_int_not_equal(
            unpack(&coppice__job__descriptor, packed, sizeof packed - 1, 1 << 16, NULL), COP_OK);
        cop_alloc_fail_at(k);
        assert_null(cop_proto_create(&coppice__job__descriptor, 1 << 16));
        cop_alloc_fail_at(0);
    }
}

static void test_reflection_sets_and_clears_fields(void **state) {
    (void)state;
    cop_proto *m = cop_proto_create(&coppice__job__descriptor, 1 << 16);
    const cop_proto_field *seed = cop_reflect_find(m->descriptor, "seed"),
                          *model = cop_reflect_find(m->descriptor, "model"),
                          *train = cop_reflect_find(m->descriptor, "train");
    assert_null(cop_reflect_find(m->descriptor, "sead"));
    assert_null(cop_reflect_find(m->descriptor, NULL));
    assert_false(cop_reflect_is_set(m, seed) || cop_reflect_is_set(m, model) ||
                 cop_reflect_is_set(m, train));
    *(uint64_t *)cop_reflect_put(m, seed) = 5;
    *(cop_proto **)cop_reflect_put(m, train) = cop_reflect_new(m, train->descriptor);
    cop_proto *items[2] = {cop_reflect_new(m, model->descriptor),
                           cop_reflect_new(m, model->descriptor)};
    cop_reflect_put_list(m, model, items, 2);
    assert_int_equal(((Coppice__Job *)m)->seed, 5);
    assert_int_equal(cop_reflect_count(m, model), 2);
    assert_ptr_equal(cop_reflect_message(m, model, 1), items[1]);
    assert_non_null(cop_reflect_message(m, train, 0));
    cop_reflect_clear(m, seed), cop_reflect_clear(m, model), cop_reflect_clear(m, train);
    assert_false(cop_reflect_is_set(m, seed) || cop_reflect_is_set(m, model) ||
                 cop_reflect_is_set(m, train));
    cop_proto_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_is_packed_and_unpacked),
        cmocka_unit_test(test_bomb_of_empty_messages_is_refused),
        cmocka_unit_test(test_budget_limits_allocated_memory),
        cmocka_unit_test(test_nul_in_a_text_is_refused),
        cmocka_unit_test(test_text_that_is_not_utf8_is_refused),
        cmocka_unit_test(test_unknown_enum_values_are_refused),
        cmocka_unit_test(test_every_enum_refuses_unknown_values),
        cmocka_unit_test(test_malformed_bytes_are_refused),
        cmocka_unit_test(test_no_message_type_is_recursive),
        cmocka_unit_test(test_attachment_is_kept_with_the_root_message),
        cmocka_unit_test(test_failed_allocations_are_reported),
        cmocka_unit_test(test_reflection_sets_and_clears_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
