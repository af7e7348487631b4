/* Frames: messages of every type are encoded and decoded again, and hostile bytes are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/wire/codec.h"
#include "common/wire/message_proto.h"
#include "fuzz/fuzz_frame.c" // NOLINT(bugprone-suspicious-include)
#include "fuzz/replay.h"
#include "proto/wire.pb-c.h"

static cop_buffer *buffer_of(const void *bytes, size_t size) {
    cop_buffer *b = cop_buffer_create(size);
    assert_non_null(b);
    if (size) memcpy(b->data, bytes, size);
    return b;
}

static cop_buffer *text_buffer(const char *text) {
    return buffer_of(text, strlen(text));
}

static cop_buffer *encode(const cop_message *m) {
    cop_buffer *frame = cop_buffer_create(cop_codec_size(m));
    assert_non_null(frame);
    cop_codec_encode(m, frame->data);
    return frame;
}

/* Encodes and decodes a message; the caller releases the result. */
static cop_message travel(const cop_message *m) {
    cop_message back;
    cop_error error = {0};
    cop_buffer *frame = encode(m);
    if (cop_codec_decode(frame, &back, &error)) fail_msg("%s", error.text);
    cop_buffer_release(frame); /* the parts hold it */
    return back;
}

static cop_err decode_bytes(const void *bytes, size_t size, cop_error *error) {
    cop_message m;
    cop_buffer *frame = buffer_of(bytes, size);
    cop_err e = cop_codec_decode(frame, &m, error);
    if (e) {
        for (int i = 0; i < COP_MESSAGE_PARTS; i++) assert_null(m.part[i]);
        assert_int_equal(frame->references, 1);
    } else {
        cop_message_fini(&m);
    }
    cop_buffer_release(frame);
    return e;
}

/* Header fields at the offsets in docs/reference/protocol.md. */
enum { AT_VERSION = 4, AT_TYPE = 6, AT_PROTO = 8, AT_FLAGS = 12, AT_PARTS = 16, AT_HASH = 48 };

/* Corrects the hash of a changed header, as an attacker would. */
static void seal(cop_buffer *frame) {
    char *b = frame->data;
    size_t head = cop_align_up(64 + (size_t)cop_load_u32(b + AT_PROTO), 64);
    if (head > frame->size) head = frame->size;
    cop_store_u64(b + 56, cop_hash_xxh3(b + head, frame->size - head));
    cop_store_u64(b + AT_HASH, 0);
    cop_store_u64(b + AT_HASH, cop_hash_xxh3(b, head));
}

static cop_message lease_message(void) {
    cop_message m = {.type = COP_MESSAGE_LEASE};
    m.lease = (cop_lease){.kind = COP_LEASE_TRAIN,
                          .lease = 1ull << 60,
                          .job = 7,
                          .step = 12,
                          .version = 11,
                          .deadline_ms = 900,
                          .attempt = 2,
                          .first = 4,
                          .count = 2,
                          .batch = 100};
    m.part[COP_PART_WEIGHTS] = text_buffer("weights");
    m.part[COP_PART_LABELS] = text_buffer("");
    m.part[COP_PART_JOB] = text_buffer("job");
    return m;
}

static void test_hello_round_trip(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_HELLO};
    m.hello = (cop_hello){.major = 1,
                          .minor = 3,
                          .threads = 8,
                          .features = 5,
                          .worker = 9,
                          .session = UINT64_MAX,
                          .is_client = true,
                          .control = true,
                          .build = "b",
                          .token = "secret",
                          .name = "wörker",
                          .isa = "avx512",
                          .arithmetic = "portable-1",
                          .fingerprint = "openblas"};
    for (int i = 0; i < 32; i++) m.hello.self_test[i] = (unsigned char)(i * 7);
    cop_message back = travel(&m);
    assert_memory_equal(&back.hello, &m.hello, sizeof m.hello);
    cop_message_fini(&back);
}

static void test_welcome_and_heartbeats_round_trip(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_WELCOME};
    m.welcome = (cop_welcome){.major = 1,
                              .minor = 2,
                              .heartbeat_ms = 500,
                              .features = 3,
                              .worker = 4,
                              .session = 5,
                              .build = "x",
                              .name = "w-2"};
    cop_message back = travel(&m);
    assert_memory_equal(&back.welcome, &m.welcome, sizeof m.welcome);
    m = (cop_message){.type = COP_MESSAGE_HEARTBEAT};
    m.heartbeat = (cop_heartbeat){.worker = 1, .session = 2, .lease = 3, .draining = true};
    back = travel(&m);
    assert_memory_equal(&back.heartbeat, &m.heartbeat, sizeof m.heartbeat);
    m = (cop_message){.type = COP_MESSAGE_HEARTBEAT_REPLY};
    m.heartbeat_reply = (cop_heartbeat_reply){.drain = true, .unknown = true, .cancel_lease = 8};
    back = travel(&m);
    assert_true(back.heartbeat_reply.drain && back.heartbeat_reply.unknown);
    assert_int_equal(back.heartbeat_reply.cancel_lease, 8);
}

static void test_pull_round_trip_with_and_without_result(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_PULL};
    m.pull = (cop_pull){.worker = 1, .session = 2, .have_job = 3, .have_version = 4};
    cop_message back = travel(&m);
    assert_false(back.pull.result.present);
    assert_int_equal(back.pull.have_version, 4);
    m.pull.goodbye = true;
    m.pull.result = (cop_result){.present = true,
                                 .kind = COP_LEASE_EVALUATE,
                                 .lease = 5,
                                 .job = 6,
                                 .step = 7,
                                 .attempt = 8,
                                 .first = 9,
                                 .count = 10,
                                 .loss = 0x1.23456789abcdep-3,
                                 .correct = 11,
                                 .samples = 12,
                                 .compute_ns = 13,
                                 .failure = "out of memory"};
    back = travel(&m);
    assert_true(back.pull.goodbye && back.pull.result.present);
    assert_int_equal(back.pull.result.kind, COP_LEASE_EVALUATE);
    assert_true(back.pull.result.loss == m.pull.result.loss);
    assert_int_equal(back.pull.result.compute_ns, 13);
    assert_string_equal(back.pull.result.failure, "out of memory");
}

/* The types of weights and gradients. A type that this program does not know is refused. */
static void test_types_of_values_round_trip(void **state) {
    (void)state;
    for (int values = COP_VALUES_F32; values <= COP_VALUES_BF16; values++) {
        cop_message m = {.type = COP_MESSAGE_PULL};
        m.pull = (cop_pull){.worker = 1, .have_values = (cop_values)values};
        m.pull.result =
            (cop_result){.present = true, .kind = COP_LEASE_TRAIN, .values = (cop_values)values};
        cop_message back = travel(&m);
        assert_int_equal(back.pull.have_values, values);
        assert_int_equal(back.pull.result.values, values);
        m = (cop_message){.type = COP_MESSAGE_LEASE};
        m.lease = (cop_lease){.kind = COP_LEASE_TRAIN, .weights_values = (cop_values)values};
        back = travel(&m);
        assert_int_equal(back.lease.weights_values, values);
    }
    Coppice__Wire__Lease lease = COPPICE__WIRE__LEASE__INIT;
    cop_message m = {.type = COP_MESSAGE_LEASE};
    lease.has_kind = lease.has_weights_values = 1;
    lease.kind = COPPICE__WIRE__RESULT__KIND__TRAIN;
    lease.weights_values = COPPICE__WIRE__VALUES__BF16;
    assert_true(cop_message_from_proto(&lease.base, &m));
    lease.weights_values = (Coppice__Wire__Values)3;
    assert_false(cop_message_from_proto(&lease.base, &m));
}

/* Fields that only an ensemble's lease has. */
static void test_lease_of_an_ensemble_round_trips(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_LEASE};
    m.lease.kind = COP_LEASE_ENSEMBLE;
    m.lease.first = 1000;
    m.lease.count = 300;
    m.lease.member = 17;
    m.lease.members = 4;
    m.lease.whole = true;
    cop_message back = travel(&m);
    assert_int_equal(back.lease.kind, COP_LEASE_ENSEMBLE);
    assert_int_equal(back.lease.member, 17);
    assert_int_equal(back.lease.members, 4);
    assert_true(back.lease.whole);
    m.lease.kind = COP_LEASE_EVALUATE;
    back = travel(&m);
    assert_int_equal(back.lease.members, 0);
    assert_false(back.lease.whole);
}

static void test_lease_round_trip_keeps_its_parts(void **state) {
    (void)state;
    cop_message m = lease_message(), back = travel(&m);
    assert_memory_equal(&back.lease, &m.lease, sizeof m.lease);
    assert_null(back.part[COP_PART_SAMPLES]);
    assert_int_equal(back.part[COP_PART_LABELS]->size, 0); /* an empty part is not an absent part */
    assert_memory_equal(back.part[COP_PART_WEIGHTS]->data, "weights", 7);
    assert_memory_equal(back.part[COP_PART_JOB]->data, "job", 3);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (back.part[i]) assert_int_equal((uintptr_t)back.part[i]->data % 64, 0);
    cop_message_fini(&back);
    cop_message_fini(&m);
}

static void test_small_types_round_trip(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_NOTHING};
    m.nothing = (cop_nothing){.retry_ms = 50, .drain = true, .unknown = true};
    cop_message back = travel(&m);
    assert_int_equal(back.nothing.retry_ms, 50);
    assert_true(back.nothing.drain && back.nothing.unknown);
    m = (cop_message){.type = COP_MESSAGE_FAILURE, .failure = {COP_ERR_NOT_FOUND, "no job 3"}};
    back = travel(&m);
    assert_int_equal(back.failure.code, COP_ERR_NOT_FOUND);
    assert_string_equal(back.failure.text, "no job 3");
    m = (cop_message){.type = COP_MESSAGE_CALL, .call = {16, 1, 0, "token"}};
    back = travel(&m);
    assert_int_equal(back.call.method, 16);
    assert_string_equal(back.call.token, "token");
    m = (cop_message){.type = COP_MESSAGE_ANSWER, .answer = {3}};
    m.part[COP_PART_BODY] = text_buffer("packed");
    back = travel(&m);
    assert_int_equal(back.answer.method, 3);
    assert_int_equal(back.part[COP_PART_BODY]->size, 6);
    cop_message_fini(&back);
    cop_message_fini(&m);
}

static void test_every_failure_code_survives_the_round_trip(void **state) {
    (void)state;
    const cop_err codes[] = {
#define X(name, number, text, status) COP_ERR_##name,
        COP_ERR_TABLE(X)
#undef X
    };
    for (size_t i = 0; i <= sizeof codes / sizeof *codes; i++) {
        const bool known = i > 0 && i < sizeof codes / sizeof *codes;
        cop_message m = {.type = COP_MESSAGE_FAILURE, .failure = {(cop_err)i, "why"}};
        cop_message back = travel(&m);
        if (known) assert_int_equal(codes[i], i); /* the codes have no gaps */
        assert_int_equal(back.failure.code, known ? codes[i] : COP_ERR_INTERNAL);
        cop_message_fini(&back);
    }
}

static void test_parts_outlive_the_frame(void **state) {
    (void)state;
    cop_message m = lease_message(), back = travel(&m);
    cop_buffer *weights = cop_buffer_hold(back.part[COP_PART_WEIGHTS]);
    cop_message_fini(&back);
    assert_memory_equal(weights->data, "weights", 7);
    cop_buffer_release(weights);
    cop_message_fini(&m);
}

static void test_message_text_that_is_not_utf8_is_still_sent(void **state) {
    (void)state;
    cop_message m = {.type = COP_MESSAGE_FAILURE, .failure = {COP_ERR_IO, "no file b\xe4r\xff"}};
    cop_message back = travel(&m);
    assert_string_equal(back.failure.text, "no file b?r?");
    m = (cop_message){.type = COP_MESSAGE_PULL};
    m.pull.result = (cop_result){.present = true, .kind = COP_LEASE_TRAIN, .failure = "cut \xc3"};
    back = travel(&m);
    assert_string_equal(back.pull.result.failure, "cut ?");
}

static void test_same_message_gives_same_bytes(void **state) {
    (void)state;
    cop_message m = lease_message();
    cop_buffer *a = encode(&m), *b = encode(&m);
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size);
    cop_buffer_release(a);
    cop_buffer_release(b);
    cop_message_fini(&m);
}

/* The bytes are those in docs/reference/protocol.md. If they change, the protocol changes. */
static void test_frame_equals_the_one_in_the_protocol_page(void **state) {
    (void)state;
    static const unsigned char golden[128] = {
        0x43, 0x4f, 0x50,        0x57, 1,           0,    7,           0,    6,    0,
        0,    0,    0,           0,    0,           0,    [48] = 0x40, 0x74, 0xc1, 0xae,
        0xf6, 0x1e, 0x5a,        0xaf, [56] = 0xc2, 0x94, 0xd3,        0x38, 0x05, 0x80,
        0x06, 0x2d, [64] = 0x08, 0x32, 0x10,        0x00, 0x18,        0x00};
    cop_message m = {.type = COP_MESSAGE_NOTHING, .nothing = {.retry_ms = 50}};
    cop_buffer *frame = encode(&m);
    assert_int_equal(frame->size, sizeof golden);
    assert_memory_equal(frame->data, golden, sizeof golden);
    assert_int_equal(decode_bytes(golden, sizeof golden, NULL), COP_OK);
    cop_buffer_release(frame);
}

static void test_every_flipped_bit_is_refused(void **state) {
    (void)state;
    cop_message m = lease_message();
    cop_buffer *frame = encode(&m);
    char *bytes = frame->data;
    for (size_t bit = 0; bit < frame->size * 8; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        if (!decode_bytes(bytes, frame->size, NULL)) fail_msg("bit %zu", bit);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    cop_buffer_release(frame);
    cop_message_fini(&m);
}

/* Each frame is damaged in one to a few hundred bits, which are adjacent or scattered. */
static void test_a_million_damaged_frames_are_all_refused(void **state) {
    (void)state;
    enum { FRAMES = 1000000 };
    cop_message m = lease_message();
    cop_buffer *frame = encode(&m);
    char *damaged = malloc(frame->size);
    uint64_t random = 42;
    uint32_t accepted = 0;
    assert_non_null(damaged);
    for (uint32_t i = 0; i < FRAMES; i++) {
        memcpy(damaged, frame->data, frame->size);
        uint32_t flips = 1u << i % 9;
        bool burst = i / 9 % 2;
        uint64_t at = 0;
        for (uint32_t f = 0; f < flips; f++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            at = burst && f ? at + 1 : (random >> 20) % (frame->size * 8);
            if (random >> 63 || f == 0) damaged[at / 8 % frame->size] ^= (char)(1 << at % 8);
        }
        if (memcmp(damaged, frame->data, frame->size) == 0) damaged[i % frame->size] ^= 1;
        accepted += decode_bytes(damaged, frame->size, NULL) == COP_OK;
    }
    print_message("%u of %u damaged frames were accepted\n", accepted, FRAMES);
    assert_int_equal(accepted, 0);
    free(damaged);
    cop_buffer_release(frame);
    cop_message_fini(&m);
}

static void test_every_truncation_and_extension_is_refused(void **state) {
    (void)state;
    cop_message m = lease_message();
    cop_buffer *frame = encode(&m);
    for (size_t size = 0; size < frame->size; size++)
        assert_int_equal(decode_bytes(frame->data, size, NULL), COP_ERR_PROTOCOL);
    char longer[1024] = {0};
    memcpy(longer, frame->data, frame->size);
    for (size_t more = 1; more < 200; more++)
        assert_int_equal(decode_bytes(longer, frame->size + more, NULL), COP_ERR_PROTOCOL);
    cop_buffer_release(frame);
    cop_message_fini(&m);
}

/* Changes a header field, corrects the hash, and expects a refusal with this message. */
static void refuse_field(size_t at, int size, uint64_t value, cop_err code, const char *sentence) {
    cop_message m = lease_message();
    cop_buffer *frame = encode(&m);
    cop_error error = {0};
    memcpy((char *)frame->data + at, &value, (size_t)size);
    seal(frame);
    assert_int_equal(decode_bytes(frame->data, frame->size, &error), code);
    assert_string_equal(error.text, sentence);
    cop_buffer_release(frame);
    cop_message_fini(&m);
}

static void test_wrong_lengths_are_refused(void **state) {
    (void)state;
    static const uint64_t lengths[] = {65,         64 << 10,        1ull << 31,    1ull << 32,
                                       UINT64_MAX, UINT64_MAX - 63, UINT64_MAX / 2};
    const char *lies = "the frame's header has inconsistent lengths";
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        refuse_field(AT_PARTS + 8, 8, lengths[i], COP_ERR_PROTOCOL, lies); /* part 1 is absent */
        refuse_field(AT_PARTS + 24, 8, lengths[i], COP_ERR_PROTOCOL, lies);
    }
    refuse_field(AT_PROTO, 4, (64 << 10) + 1, COP_ERR_PROTOCOL, lies);
    refuse_field(AT_PROTO, 4, UINT32_MAX, COP_ERR_PROTOCOL, lies);
    refuse_field(AT_FLAGS, 4, 0x1d, COP_ERR_PROTOCOL, lies);
}

static void test_other_versions_types_and_magics_are_refused(void **state) {
    (void)state;
    refuse_field(0, 4, 0x31505448, COP_ERR_PROTOCOL, "not a Coppice frame");
    refuse_field(AT_VERSION, 2, 2, COP_ERR_VERSION, "the peer speaks protocol 2, this program 1");
    refuse_field(AT_TYPE, 2, 11, COP_ERR_PROTOCOL, "unknown message type 11");
    refuse_field(AT_TYPE, 2, 0, COP_ERR_PROTOCOL, "unknown message type 0");
}

/* A frame with this protobuf header and correct hashes. */
static cop_err decode_proto(cop_message_type type, const void *proto, size_t size,
                            cop_error *error) {
    size_t body = cop_align_up(64 + size, 64);
    cop_buffer *frame = cop_buffer_create(body);
    memset(frame->data, 0, body);
    cop_store_u32(frame->data, 0x57504f43u);
    cop_store_u16((char *)frame->data + AT_VERSION, 1);
    cop_store_u16((char *)frame->data + AT_TYPE, (uint16_t)type);
    cop_store_u32((char *)frame->data + AT_PROTO, (uint32_t)size);
    if (size) memcpy((char *)frame->data + 64, proto, size);
    seal(frame);
    cop_err e = decode_bytes(frame->data, frame->size, error);
    cop_buffer_release(frame);
    return e;
}

static void test_missing_required_fields_are_refused(void **state) {
    (void)state;
    cop_error error = {0};
    assert_int_equal(decode_proto(COP_MESSAGE_LEASE, NULL, 0, &error), COP_ERR_PROTOCOL);
    assert_string_equal(error.text, "a field of LEASE is missing or malformed");
    assert_int_equal(decode_proto(COP_MESSAGE_HELLO,
                                  "\x52\x03"
                                  "abc",
                                  5, &error),
                     COP_ERR_PROTOCOL); /* a self-test digest of 3 bytes */
    assert_int_equal(decode_proto(COP_MESSAGE_PULL, "\x2a\x00", 2, &error), COP_ERR_PROTOCOL);
    assert_int_equal(decode_proto(COP_MESSAGE_NOTHING, NULL, 0, &error), COP_OK);
}

static void test_texts_longer_than_their_field_are_refused(void **state) {
    (void)state;
    char proto[300] = {0x12, (char)0x80, 1}; /* token: 128 bytes; 127 fit */
    cop_error error = {0};
    memset(proto + 3, 'a', 128);
    assert_int_equal(decode_proto(COP_MESSAGE_CALL, proto, 131, &error), COP_ERR_PROTOCOL);
    proto[1] = 127;
    memset(proto + 2, 'a', 127);
    assert_int_equal(decode_proto(COP_MESSAGE_CALL, proto, 129, &error), COP_OK);
}

static void test_long_failure_is_truncated_between_characters(void **state) {
    (void)state;
    Coppice__Wire__Failure f;
    char text[1200] = "", packed[1400];
    for (int i = 0; i < 550; i++) strcat(text, "ä");
    coppice__wire__failure__init(&f);
    f.has_code = 1;
    f.code = 999; /* from a newer program */
    f.text = text;
    size_t size = coppice__wire__failure__pack(&f, (uint8_t *)packed),
           body = cop_align_up(64 + size, 64);
    cop_buffer *frame = cop_buffer_create(body);
    memset(frame->data, 0, body);
    cop_store_u32(frame->data, 0x57504f43u);
    cop_store_u16((char *)frame->data + AT_VERSION, 1);
    cop_store_u16((char *)frame->data + AT_TYPE, COP_MESSAGE_FAILURE);
    cop_store_u32((char *)frame->data + AT_PROTO, (uint32_t)size);
    memcpy((char *)frame->data + 64, packed, size);
    seal(frame);
    cop_message m;
    assert_int_equal(cop_codec_decode(frame, &m, NULL), COP_OK);
    assert_int_equal(m.failure.code, COP_ERR_INTERNAL);
    assert_int_equal(strlen(m.failure.text), 998);
    cop_buffer_release(frame);
}

/* xorshift64*: the same frames in every run */
static uint64_t next(uint64_t *s) {
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return *s * 2685821657736338717ull;
}

static void test_mutated_frames_never_crash(void **state) {
    (void)state;
    uint64_t random = 20141;
    cop_message m = lease_message();
    cop_buffer *frame = encode(&m), *work = cop_buffer_create(frame->size);
    for (int i = 0; i < 100000; i++) {
        char *b = work->data;
        memcpy(b, frame->data, frame->size);
        size_t from = next(&random) % 4 ? 64 : 0, span = next(&random) % 2 ? 128 : frame->size;
        for (uint64_t n = next(&random) % 8; n-- > 0;)
            b[from + next(&random) % (span - from)] = (char)next(&random);
        if (next(&random) % 8) cop_store_u16(b + AT_TYPE, (uint16_t)(next(&random) % 12));
        seal(work);
        LLVMFuzzerTestOneInput(work->data,
                               work->size - (next(&random) % 16 ? 0 : next(&random) % work->size));
    }
    cop_buffer_release(frame);
    cop_buffer_release(work);
    cop_message_fini(&m);
}

static void test_kept_fuzz_inputs_of_frames_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("frame", LLVMFuzzerTestOneInput) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_fuzz_inputs_of_frames_pass),
        cmocka_unit_test(test_hello_round_trip),
        cmocka_unit_test(test_welcome_and_heartbeats_round_trip),
        cmocka_unit_test(test_pull_round_trip_with_and_without_result),
        cmocka_unit_test(test_lease_round_trip_keeps_its_parts),
        cmocka_unit_test(test_types_of_values_round_trip),
        cmocka_unit_test(test_lease_of_an_ensemble_round_trips),
        cmocka_unit_test(test_small_types_round_trip),
        cmocka_unit_test(test_every_failure_code_survives_the_round_trip),
        cmocka_unit_test(test_parts_outlive_the_frame),
        cmocka_unit_test(test_message_text_that_is_not_utf8_is_still_sent),
        cmocka_unit_test(test_same_message_gives_same_bytes),
        cmocka_unit_test(test_frame_equals_the_one_in_the_protocol_page),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_a_million_damaged_frames_are_all_refused),
        cmocka_unit_test(test_every_truncation_and_extension_is_refused),
        cmocka_unit_test(test_wrong_lengths_are_refused),
        cmocka_unit_test(test_other_versions_types_and_magics_are_refused),
        cmocka_unit_test(test_missing_required_fields_are_refused),
        cmocka_unit_test(test_texts_longer_than_their_field_are_refused),
        cmocka_unit_test(test_long_failure_is_truncated_between_characters),
        cmocka_unit_test(test_mutated_frames_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
