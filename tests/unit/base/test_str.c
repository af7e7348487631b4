/* Growing strings, JSON, UTF-8, nearest names, numbers from and to text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <math.h>

#include "common/base/alloc.h"
#include "common/base/str.h"

static void test_nearest_name_is_suggested(void **state) {
    (void)state;
    const char *const names[] = {"optimizer", "dropout", "train", "relu"};
    assert_string_equal(cop_nearest_name("optimiser", names, 4), "optimizer");
    assert_string_equal(cop_nearest_name("rleu", names, 4), "relu");
    assert_string_equal(cop_nearest_name("DropOut", names, 4), "dropout");
    assert_null(cop_nearest_name("banana", names, 4));
}

static void test_json_strings_are_escaped(void **state) {
    (void)state;
    cop_str s = {0};
    cop_str_append_json(&s, "a\"b\\c\n\x01\xc3\xa9\xff");
    assert_string_equal(cop_str_text(&s), "\"a\\\"b\\\\c\\n\\u0001\xc3\xa9\xef\xbf\xbd\"");
    cop_str_fini(&s);
}

static size_t encode(uint32_t code, char out[5]) {
    const size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint32_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(first[length] | code);
    out[length] = '\0';
    return length;
}

/* Unicode's class Cc, and characters that change the direction of text or break a line. */
static bool steers(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
           code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}

static void test_no_code_point_controls_the_terminal(void **state) {
    (void)state;
    for (uint32_t code = 1; code < 0x11000; code++) {
        char text[5], expected[12], shown[5];
        if (code >= 0xd800 && code < 0xe000) continue;
        const size_t length = encode(code, text);
        cop_str s = {0};
        cop_str_append_json(&s, text);
        snprintf(expected, sizeof expected, "\"\\u%04x\"", code);
        if (code == '\n' || code == '\r' || code == '\t')
            snprintf(expected, sizeof expected, "\"\\%c\"", "tn  r"[code - '\t']);
        else if (code == '"' || code == '\\')
            snprintf(expected, sizeof expected, "\"\\%s\"", text);
        else if (!steers(code))
            snprintf(expected, sizeof expected, "\"%s\"", text);
        assert_string_equal(cop_str_text(&s), expected);
        cop_str_fini(&s);
        snprintf(shown, sizeof shown, "%s", text);
        cop_replace_controls(shown);
        assert_int_equal(strlen(shown), length);
        for (size_t i = 0; i < length; i++)
            assert_int_equal(shown[i], steers(code) ? '?' : text[i]);
    }
}

static void test_json_has_only_finite_numbers(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{INFINITY, "null"}, {-INFINITY, "null"}, {NAN, "null"},
                 {0.5, "0.5"},       {-0.0, "-0"},        {1e308, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cop_str s = {0};
        double value;
        cop_str_append_json_real(&s, cases[i].value);
        if (i < 5)
            assert_string_equal(cop_str_text(&s), cases[i].text);
        else
            assert_true(cop_parse_f64(cop_str_text(&s), &value) && value == cases[i].value);
        cop_str_fini(&s);
    }
}

static void test_added_text_stays_within_its_buffer(void **state) {
    (void)state;
    char text[8] = "ab", whole[8];
    memset(whole, 'x', sizeof whole);
    cop_text_append(text, sizeof text, "%s", "cd");
    assert_string_equal(text, "abcd");
    cop_text_append(text, sizeof text, "%s", "a name that someone else has chosen");
    assert_string_equal(text, "abcda n");
    cop_text_append(text, sizeof text, "%s", "more");
    assert_string_equal(text, "abcda n");
    cop_text_append(whole, sizeof whole,
                    "more"); /* the text has no terminator, so nothing is written */
    assert_int_equal(whole[7], 'x');
}

static void test_invalid_utf8_is_refused(void **state) {
    (void)state;
    assert_true(cop_utf8_valid("gr\xc3\xbc\xc3\x9f", 6));
    static const char *const bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82",
                                      "\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cop_utf8_valid(bad[i], strlen(bad[i])));
    assert_false(cop_utf8_valid("a\0b", 3));
}

static void test_numbers_are_parsed_strictly(void **state) {
    (void)state;
    uint64_t u;
    int64_t i;
    double d;
    assert_true(cop_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_true(cop_parse_u64("0x10", &u) && u == 16);
    static const char *const bad[] = {"",    "-1", " 1", "1 ", "18446744073709551616",
                                      "1.5", "0x", "abc"};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) assert_false(cop_parse_u64(bad[n], &u));
    assert_true(cop_parse_i64("-5", &i) && i == -5);
    assert_true(cop_parse_f64("1.0e-4", &d) && d == 1.0e-4);
    assert_false(cop_parse_f64("inf", &d) || cop_parse_f64("nan", &d) ||
                 cop_parse_f64("0x1p3", &d) || cop_parse_f64("1e999", &d) || cop_parse_f64("", &d));
    assert_true(cop_parse_size("16MiB", &u) && u == 16u << 20);
    assert_true(cop_parse_size("2G", &u) && u == 2ull << 30);
    assert_false(cop_parse_size("2X", &u) || cop_parse_size("99999999999G", &u));
}

static void test_strings_grow_and_can_be_taken_over(void **state) {
    (void)state;
    cop_str s = {0};
    assert_string_equal(cop_str_text(&s), "");
    for (int i = 0; i < 1000; i++) cop_str_printf(&s, "%d,", i);
    cop_str_append(&s, "end");
    cop_str_append_bytes(&s, NULL, 0);
    assert_int_equal(s.length, 10 + 2 * 90 + 3 * 900 + 1000 + 3);
    assert_int_equal(strlen(cop_str_text(&s)), s.length);
    assert_memory_equal(cop_str_text(&s), "0,1,2,3,", 8);
    char *text = cop_str_take(&s);
    assert_string_equal(text + strlen(text) - 7, "999,end");
    assert_string_equal(cop_str_text(&s), "");
    cop_free(text);
    text = cop_str_take(&s);
    assert_string_equal(text, "");
    cop_free(text);
}

static void test_a_cleared_string_keeps_its_memory(void **state) {
    (void)state;
    cop_str s = {0};
    cop_str_append(&s, "a long line that needs some memory");
    uint64_t before = cop_alloc_count();
    cop_str_clear(&s);
    assert_string_equal(cop_str_text(&s), "");
    cop_str_append(&s, "again");
    assert_string_equal(cop_str_text(&s), "again");
    assert_int_equal(cop_alloc_count(), before);
    cop_str_fini(&s);
    cop_str_fini(&s);
}

static void test_without_memory_the_string_keeps_its_content(void **state) {
    (void)state;
    cop_str s = {0};
    cop_str_append(&s, "kept");
    char big[200];
    memset(big, 'x', sizeof big);
    cop_alloc_fail_at(1);
    cop_str_append_bytes(&s, big, sizeof big);
    assert_true(s.failed);
    cop_str_append(&s, "ignored");
    cop_str_printf(&s, "%d", 1);
    assert_string_equal(cop_str_text(&s), "kept");
    assert_null(cop_str_take(&s));
    assert_false(s.failed);
    cop_str_append_bytes(&s, big, SIZE_MAX - 10); /* too large: refused, without overflow */
    assert_true(s.failed);
    cop_str_fini(&s);
}

static void test_nearest_name_ignores_distant_and_long_words(void **state) {
    (void)state;
    const char *const names[] = {"momentum", "model"};
    assert_string_equal(cop_nearest_name("momentmu", names, 2), "momentum");
    assert_string_equal(cop_nearest_name("modle", names, 2), "model");
    assert_null(cop_nearest_name("", names, 2));
    assert_null(cop_nearest_name("x", NULL, 0));
    char word[200];
    memset(word, 'm', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    assert_null(cop_nearest_name(word, names, 2));
}

static void test_utf8_is_checked_at_its_boundaries(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        bool valid;
    } rows[] = {{"\x7f", true},
                {"\xc2\x80", true},
                {"\xc1\xbf", false},
                {"\xdf\xbf", true},
                {"\xe0\xa0\x80", true},
                {"\xe0\x9f\xbf", false},
                {"\xed\x9f\xbf", true},
                {"\xee\x80\x80", true},
                {"\xed\xbf\xbf", false},
                {"\xef\xbf\xbf", true},
                {"\xf0\x90\x80\x80", true},
                {"\xf0\x8f\xbf\xbf", false},
                {"\xf4\x8f\xbf\xbf", true},
                {"\xf4\x90\x80\x80", false},
                {"\xc2", false},
                {"\xc2\x41", false},
                {"\xf0\x90\x80", false},
                {"\xff", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (cop_utf8_valid(rows[i].bytes, strlen(rows[i].bytes)) != rows[i].valid)
            fail_msg("row %zu is not %d", i, rows[i].valid);
    assert_true(cop_utf8_valid("", 0));
}

static void test_json_controls_and_plain_text(void **state) {
    (void)state;
    cop_str s = {0};
    cop_str_append_json(&s, "\r\t\x1b\x7f/ \xf0\x9f\x8c\xb3");
    assert_string_equal(cop_str_text(&s), "\"\\r\\t\\u001b\\u007f/ \xf0\x9f\x8c\xb3\"");
    cop_str_clear(&s);
    cop_str_append_json(&s, "");
    assert_string_equal(cop_str_text(&s), "\"\"");
    cop_str_fini(&s);
}

static void test_numbers_are_formatted_for_people(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(cop_format_bytes(0, out), "0 B");
    assert_string_equal(cop_format_bytes(999, out), "999 B");
    assert_string_equal(cop_format_bytes(11.6e6, out), "11.6 MB");
    assert_string_equal(cop_format_bytes(250e9, out), "250 GB");
    assert_string_equal(cop_format_count(42, out), "42");
    assert_string_equal(cop_format_count(1200, out), "1.2 k");
    assert_string_equal(cop_format_count(2913290, out), "2.91 M");
    assert_string_equal(cop_format_seconds(0.012, out), "12 ms");
    assert_string_equal(cop_format_seconds(4.25, out), "4.2 s");
    assert_string_equal(cop_format_seconds(184, out), "3 min 04 s");
    assert_string_equal(cop_format_seconds(7380, out), "2 h 03 min");
}

static void test_invalid_durations_print_as_a_question_mark(void **state) {
    (void)state;
    char out[32];
    const double odd[] = {-1, NAN, INFINITY, -INFINITY, 1e300};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_string_equal(cop_format_seconds(odd[i], out), "?");
}

static void test_signed_numbers_at_their_limits(void **state) {
    (void)state;
    int64_t i;
    assert_true(cop_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
    assert_true(cop_parse_i64("+9223372036854775807", &i) && i == INT64_MAX);
    static const char *const bad[] = {"9223372036854775808", "--1", "", "-", "1.0", " 1", "0x10"};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) assert_false(cop_parse_i64(bad[n], &i));
}

static void test_reals_are_read_exactly_and_completely(void **state) {
    (void)state;
    double d;
    assert_true(cop_parse_f64("0.1", &d) && d == 0.1);
    assert_true(cop_parse_f64("-2.5e3", &d) && d == -2500);
    assert_true(cop_parse_f64("1.7976931348623157e308", &d) && d == 0x1.fffffffffffffp1023);
    static const char *const bad[] = {"1,5", "1.5x", "e5",    ".",       "1e",
                                      " 1",  "1 ",   "1e5e5", "infinity"};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) assert_false(cop_parse_f64(bad[n], &d));
}

static void test_sizes_with_units_are_parsed(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } rows[] = {{"0", 0},      {"64", 64},         {"64k", 65536},     {"64K", 65536},
                {"1kB", 1024}, {"3MiB", 3u << 20}, {"1T", 1ull << 40}, {"15g", 15ull << 30}};
    uint64_t u;
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        assert_true(cop_parse_size(rows[n].text, &u) && u == rows[n].value);
    static const char *const bad[] = {"",    "k",     "-1",        "1.5G", "1 k",
                                      "1kk", "1MiBs", "17000000T", "0x10"};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) assert_false(cop_parse_size(bad[n], &u));
}

static void test_names_may_not_contain_control_characters(void **state) {
    (void)state;
    const char *const good[] = {"desk-7", "B\xc3\xbcro 2", "x\xc2\xa0y"};
    const char *const bad[] = {"",           "a\nb", "\033[2J", "a\x7f",
                               "\xc2\x9b(J", "\xff", "a\tb",    "\xc3"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(cop_name_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cop_name_ok(bad[i], strlen(bad[i])));
    assert_false(cop_name_ok("a\0b", 3));
}

static void test_control_characters_are_replaced(void **state) {
    (void)state;
    char text[] = "B\xc3\xbcro \033[2J\xc2\x9b"
                  "31m\n\xc2\xa0\x7f",
         plain[] = "as it was", end[] = "x\xc2";
    cop_replace_controls(text);
    assert_string_equal(text, "B\xc3\xbcro ?[2J??31m?\xc2\xa0?");
    cop_replace_controls(plain);
    assert_string_equal(plain, "as it was");
    cop_replace_controls(end);
    assert_string_equal(end, "x\xc2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_may_not_contain_control_characters),
        cmocka_unit_test(test_control_characters_are_replaced),
        cmocka_unit_test(test_nearest_name_is_suggested),
        cmocka_unit_test(test_json_strings_are_escaped),
        cmocka_unit_test(test_no_code_point_controls_the_terminal),
        cmocka_unit_test(test_json_has_only_finite_numbers),
        cmocka_unit_test(test_added_text_stays_within_its_buffer),
        cmocka_unit_test(test_invalid_utf8_is_refused),
        cmocka_unit_test(test_numbers_are_parsed_strictly),
        cmocka_unit_test(test_strings_grow_and_can_be_taken_over),
        cmocka_unit_test(test_a_cleared_string_keeps_its_memory),
        cmocka_unit_test(test_without_memory_the_string_keeps_its_content),
        cmocka_unit_test(test_nearest_name_ignores_distant_and_long_words),
        cmocka_unit_test(test_utf8_is_checked_at_its_boundaries),
        cmocka_unit_test(test_json_controls_and_plain_text),
        cmocka_unit_test(test_numbers_are_formatted_for_people),
        cmocka_unit_test(test_invalid_durations_print_as_a_question_mark),
        cmocka_unit_test(test_signed_numbers_at_their_limits),
        cmocka_unit_test(test_reals_are_read_exactly_and_completely),
        cmocka_unit_test(test_sizes_with_units_are_parsed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
