/* CSV files: header or not, quotes, line ends, and every mistake by file and line. */
#include "unit/data/files.h"

static cop_data_input input_of(const char *train, const char *label) {
    return (cop_data_input){
        .name = "csv", .train.path = file_put_text("a.csv", train), .label = label};
}

static void refuse(const char *text, const char *label, const char *message) {
    const cop_data_input input = input_of(text, label);
    data_refuse("csv", &input, COP_ERR_INPUT, message);
}

static void expect(const char *text, const char *label, const float *values,
                   const int32_t *labels) {
    const cop_data_input input = input_of(text, label);
    cop_data *data = data_load("csv", &input);
    assert_int_equal(data->train.type, COP_DATA_F32);
    assert_int_equal(data->train.rank, 1);
    assert_int_equal(data->train.dims[0], 2);
    assert_int_equal(data->train.count, 3);
    assert_int_equal(data->test.count, 0);
    assert_memory_equal(data->train.samples, values, 6 * sizeof *values);
    assert_memory_equal(data->train.labels, labels, 3 * sizeof *labels);
    cop_data_destroy(data);
}

static void test_header_is_a_first_line_with_a_word(void **state) {
    (void)state;
    const float values[6] = {1, -2.5f, 3e4f, 0, 0.125f, 6};
    const int32_t labels[3] = {0, 2, 1};
    expect("a,b,c\n1,-2.5,0\n3e4,-0,2\n.125,6,1\n", NULL, values, labels);
    expect("1,-2.5,0\n3e4,0,2\n.125,6,1", NULL, values, labels);
    expect("a,c,b\n1,0,-2.5\n3e4,2,0\n.125,1,6\n", "c", values, labels);
    expect("0,1,-2.5\n2,3e4,0\n1,.125,6\n", "1", values, labels);
}

static void test_quotes_blanks_and_line_ends(void **state) {
    (void)state;
    const float values[6] = {1, 2, 3, 4, 5, 6};
    const int32_t labels[3] = {0, 1, 1};
    expect("\xef\xbb\xbf\"a, or \"\"b\"\"\",c,d\r\n1, 2 ,0\r\n\r\n \"3\",4,\"1\"\r\n5,6,1\r\n\r\n",
           NULL, values, labels);
    expect("\n\n\"x,y\",\"the \"\"class\"\"\",z\n1,0,2\n3,1,4\n5,1,6\n", "the \"class\"", values,
           labels);
}

static void test_mistakes_are_told_by_file_and_line(void **state) {
    (void)state;
    refuse("a,b\n1,0\n2\n", NULL, "a.csv:3: 1 field: expected 2, as in the first line");
    refuse("a,b\n1,0\n\n2,1,1\n", NULL, "a.csv:4: 3 fields: expected 2, as in the first line");
    refuse("1,0\n2,1\nx,1\n", NULL, "a.csv:3: column 1 is \"x\": expected a number");
    refuse("a,b\n1,0\n,1\n", NULL, "a.csv:3: column \"a\" is \"\": expected a number");
    refuse("a,b\n1,0\n1e99,1\n", NULL, "a.csv:3: column \"a\" is \"1e99\": expected a number");
    refuse("a,b\n1,0\nnan,1\n", NULL, "a.csv:3: column \"a\" is \"nan\": expected a number");
    refuse("a,b\n1,0\n1,-1\n", NULL, "a.csv:3: column \"b\" is \"-1\": expected a label");
    refuse("a,b\n1,0\n1,65536\n", NULL, "a.csv:3: column \"b\" is \"65536\": expected a label");
    refuse("a,b\n1,0\n1,0\n", NULL, "a.csv: all labels are 0: expected at least two classes");
    refuse("1\n2\n", NULL, "a.csv:1: 1 fields: expected 2 to");
    refuse("a,b\n", NULL, "a.csv is an empty data set");
    refuse("\n\n", NULL, "a.csv is an empty data set");
    refuse("width,b\n1,0\n1,1\n", "widht",
           "a.csv:1: no column is named \"widht\": did you mean \"width\"?");
    refuse("1,0\n1,1\n", "b", "a.csv has no header, and data.label is \"b\"");
    refuse("1,0\n1,1\n", "3", "expected the number of a column, 1 to 2");
}

static void test_a_zero_byte_is_no_text(void **state) {
    (void)state;
    const cop_data_input input = {.train.path = file_put("a.csv", "1,0\n2\0,1\n", 9)};
    data_refuse("csv", &input, COP_ERR_CORRUPT, "is not a text file: it holds a zero byte");
}

static void test_both_parts_have_the_same_columns(void **state) {
    (void)state;
    cop_data_input input = {.name = "csv",
                            .train.path = file_put_text("a.csv", "a,b\n1,0\n2,1\n"),
                            .test.path = file_put_text("b.csv", "a,c\n1,0\n")};
    data_refuse("csv", &input, COP_ERR_INPUT, "b.csv:1: column 2 is \"c\": expected \"b\", as in ");
    file_put_text("b.csv", "1,0,0\n");
    data_refuse("csv", &input, COP_ERR_INPUT, "b.csv has 3 columns, but ");
    file_put_text("b.csv", "1,2\n");
    data_refuse("csv", &input, COP_ERR_INPUT, "b.csv: label 0 is 2, but the training labels go");
    file_put_text("b.csv", "1,1\n");
    cop_data *data = data_load("csv", &input);
    assert_int_equal(data->test.count, 1);
    assert_int_equal(data->test.labels[0], 1);
    assert_int_equal(data->classes, 2);
    cop_data_destroy(data);
    data_survives_no_memory("csv", &input);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_is_a_first_line_with_a_word),
        cmocka_unit_test(test_quotes_blanks_and_line_ends),
        cmocka_unit_test(test_mistakes_are_told_by_file_and_line),
        cmocka_unit_test(test_a_zero_byte_is_no_text),
        cmocka_unit_test(test_both_parts_have_the_same_columns),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
