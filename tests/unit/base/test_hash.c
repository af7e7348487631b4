/* XXH3, SHA-256, hexadecimal digits, random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"

static void test_sha256_in_pieces_gives_the_known_answer(void **state) {
    (void)state;
    unsigned char out[32], back[32];
    char hex[65];
    cop_sha256 h;
    cop_sha256_init(&h);
    cop_sha256_update(&h, "a", 1);
    cop_sha256_update(&h, "bc", 2);
    cop_sha256_final(&h, out);
    cop_hex32(out, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(cop_unhex32(hex, back));
    assert_memory_equal(out, back, 32);
    assert_false(cop_unhex32("ba78", back));
}

static void test_xxh3_known_answer_and_pairs(void **state) {
    (void)state;
    assert_true(cop_hash_xxh3("", 0) == 0x2d06800538d394c2ull);
    assert_true(cop_hash_xxh3_pair("hello ", 6, "world", 5) == cop_hash_xxh3("hello world", 11));
}

static void assert_sha256(const void *data, size_t size, const char *expected) {
    unsigned char out[32];
    char hex[65];
    cop_sha256_of(data, size, out);
    cop_hex32(out, hex);
    assert_string_equal(hex, expected);
}

/* From FIPS 180-2, appendix B, and the empty message. */
static void test_sha256_gives_the_standard_vectors(void **state) {
    (void)state;
    assert_sha256("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = cop_alloc_raw(1000000);
    memset(million, 'a', 1000000);
    assert_sha256(million, 1000000,
                  "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    cop_free(million);
}

static void fill(unsigned char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(i * 7);
}

static void test_sha256_does_not_depend_on_the_split(void **state) {
    (void)state;
    unsigned char bytes[300], whole[32], split[32];
    fill(bytes, sizeof bytes);
    cop_sha256_of(bytes, sizeof bytes, whole);
    for (size_t at = 0; at <= sizeof bytes; at++) {
        cop_sha256 h;
        cop_sha256_init(&h);
        cop_sha256_update(&h, bytes, at);
        cop_sha256_update(&h, bytes + at, sizeof bytes - at);
        cop_sha256_final(&h, split);
        assert_memory_equal(whole, split, 32);
    }
}

/* Values from the Python package xxhash, for short, medium and long input (vector code). */
static void test_xxh3_matches_another_implementation(void **state) {
    (void)state;
    unsigned char bytes[5000], ramp[256];
    fill(bytes, sizeof bytes);
    for (int i = 0; i < 256; i++) ramp[i] = (unsigned char)i;
    assert_true(cop_hash_xxh3("abc", 3) == 0x78af5f94892f3950ull);
    assert_true(cop_hash_xxh3(ramp, 256) == 0x9408a4433b952d71ull);
    assert_true(cop_hash_xxh3(bytes, 5000) == 0x6abe8be5abcb2760ull);
}

static void test_xxh3_streams_pairs_and_copies_agree(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 16, 17, 128, 240, 241, 1024, 65536, 65537, 200001};
    unsigned char *from = cop_alloc_raw(200001), *to = cop_alloc_raw(200001);
    fill(from, 200001);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], head = n / 3;
        uint64_t expected = cop_hash_xxh3(from, n);
        cop_xxh3 h;
        cop_xxh3_init(&h);
        cop_xxh3_update(&h, from, head);
        memset(to, 0xee, 200001);
        cop_xxh3_copy(&h, to, from + head, n - head);
        assert_true(cop_xxh3_final(&h) == expected);
        assert_int_equal(memcmp(to, from + head, n - head), 0);
        if (n - head < 200001) assert_int_equal(to[n - head], 0xee);
        assert_true(cop_hash_xxh3_pair(from, head, from + head, n - head) == expected);
        assert_true(cop_hash_xxh3_pair(from, n, NULL, 0) == expected);
    }
    cop_free(from);
    cop_free(to);
}

static void test_hexadecimal_digits_are_checked(void **state) {
    (void)state;
    unsigned char out[32];
    char hex[66] = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
    assert_true(cop_unhex32(hex, out));
    assert_int_equal(out[1], 0x11);
    assert_int_equal(out[16], 0xff);
    hex[64] = '0'; /* one digit too many */
    assert_false(cop_unhex32(hex, out));
    hex[64] = '\0';
    hex[63] = 'g';
    assert_false(cop_unhex32(hex, out));
    hex[63] = '\0';
    assert_false(cop_unhex32(hex, out));
    assert_false(cop_unhex32("", out));
}

static void test_random_bytes_differ_and_fill_all(void **state) {
    (void)state;
    unsigned char a[32] = {0}, b[32] = {0}, any[32] = {0};
    cop_random_bytes(b, sizeof b);
    for (int i = 0; i < 20; i++) {
        cop_random_bytes(a, sizeof a);
        assert_memory_not_equal(a, b, sizeof a);
        for (int k = 0; k < 32; k++) any[k] |= a[k];
    }
    for (int k = 0; k < 32; k++) assert_int_not_equal(any[k], 0);
}

static void test_constant_time_comparison_finds_each_difference(void **state) {
    (void)state;
    assert_true(cop_equal_constant_time("token", "token", 5));
    assert_false(cop_equal_constant_time("token", "tokem", 5));
    assert_false(cop_equal_constant_time("token", "uoken", 5));
    assert_true(cop_equal_constant_time("a", "b", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_in_pieces_gives_the_known_answer),
        cmocka_unit_test(test_xxh3_known_answer_and_pairs),
        cmocka_unit_test(test_sha256_gives_the_standard_vectors),
        cmocka_unit_test(test_sha256_does_not_depend_on_the_split),
        cmocka_unit_test(test_xxh3_matches_another_implementation),
        cmocka_unit_test(test_xxh3_streams_pairs_and_copies_agree),
        cmocka_unit_test(test_hexadecimal_digits_are_checked),
        cmocka_unit_test(test_random_bytes_differ_and_fill_all),
        cmocka_unit_test(test_constant_time_comparison_finds_each_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
