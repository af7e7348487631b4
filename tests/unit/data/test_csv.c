/* CSV files: headers, quotes, line ends, and errors with file and line. */
#include <zlib.h>

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

static void test_first_line_with_a_word_is_the_header(void **state) {
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
    const float values[6] = {1.5F, 2, 3, 4, 5, 6};
    const int32_t labels[3] = {0, 1, 1};
    expect(
        "\xef\xbb\xbf\"a, or \"\"b\"\"\",c,d\r\n1.5, 2 ,0\r\n\r\n \"3\",4,\"1\"\r\n5,6,1\r\n\r\n",
        NULL, values, labels);
    expect("\n\n\"x,y\",\"the \"\"class\"\"\",z\n1.5,0,2\n3,1,4\n5,1,6\n", "the \"class\"", values,
           labels);
}

static void test_errors_name_file_and_line(void **state) {
    (void)state;
    refuse("a,b\n1,0\n2\n", NULL, "a.csv:3: 1 field: expected 2, as in the first line");
    refuse("a,b\n   \n", NULL, "a.csv is an empty data set"); /* the file has no second line with
                                                                 content */
    refuse("a,b\n1,0\n\n2,1,1\n", NULL, "a.csv:4: 3 fields: expected 2, as in the first line");
    refuse("1,0\n2,1\nx,1\n", NULL, "a.csv:3: column 1 is \"x\": expected a number");
    refuse("a,b\n1,0\n,1\n", NULL, "a.csv:3: column \"a\" is \"\": expected a number");
    refuse("a,b\n1,0\n1e99,1\n", NULL,
           "a.csv:3: column \"a\" is \"1e99\": expected a 32-bit number");
    refuse("a,b\n1,0\nnan,1\n", NULL, "a.csv:3: column \"a\" is \"nan\": expected a number");
    refuse("a,b\n1,0\n1,-1\n", NULL, "a.csv:3: column \"b\" is \"-1\": expected a label");
    refuse("a,b\n1,0\n1,65536\n", NULL,
           "a.csv:3: column \"b\" is \"65536\": expected a label, a whole number from 0 to 65535");
    refuse("a,b\n1,0\n1,0\n", NULL, "a.csv: all labels are 0: expected at least two classes");
    refuse("1\n2\n", NULL, "a.csv:1: 1 field: expected 2 to");
    refuse("a,b\n", NULL, "a.csv is an empty data set");
    refuse("\n\n", NULL, "a.csv is an empty data set");
    refuse("width,b\n1,0\n1,1\n", "widht",
           "a.csv:1: no column is named \"widht\": did you mean \"width\"?");
    refuse("1,0\n1,1\n", "b", "a.csv has no header, and data.label is \"b\"");
    refuse("1,0\n1,1\n", "3", "expected the number of a column, 1 to 2");
}

/* The same content gives the same digest, whether a spreadsheet, R or pandas has written it. */
static void test_csv_dialects_give_the_same_data_set(void **state) {
    (void)state;
    static const char *const files[] = {
        "a,b,c\n1.5,-2,0\n3e4,0,2\n.125,6,1\n",
        "a;b;c\n1.5;-2;0\n3e4;0;2\n.125;6;1\n",
        "a;b;c\n1,5;-2;0\n3e4;0;2\n,125;6;1\n",
        "a\tb\tc\n1,5\t-2\t0\n3e4\t0\t2\n,125\t6\t1\n",
        "a,b,c\r1.5,-2,0\r3e4,0,2\r.125,6,1\r",
        "\xef\xbb\xbfsep=;\r\na;b;c\r\n1.5;-2;0\r\n3e4;0;2\r\n.125;6;1",
        "1.5;-2;0\n3e4;0;2\n\n  \n.125;6;1\n",
    };
    const float values[6] = {1.5f, -2, 3e4f, 0, 0.125f, 6};
    const int32_t labels[3] = {0, 2, 1};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect(files[i], NULL, values, labels);
}

static void test_ambiguous_csv_asks_for_an_option(void **state) {
    (void)state;
    refuse("1,x;0\n2,y;1\n", NULL,
           "a.csv: the separator may be a comma or a semicolon: expected only one of them");
    refuse("a;b\n1,5;0\n2.5;1\n", NULL,
           "a.csv:3: column \"a\" is \"2.5\": expected a number with a decimal comma, as in the "
           "lines before");
    refuse("1 0\n2 1\n", NULL, "separated by commas, semicolons or tabs");
    refuse("a,b\n1,\"0\n2,1\n", NULL, "a.csv:2: a quote is not closed");
    refuse("\xff\xfe", NULL, "a.csv is not a CSV file: it is text in UTF-16 (save it as UTF-8)");
    refuse("a,b,a\n1,2,0\n2,1,1\n", "a",
           "a.csv:1: columns 1 and 3 are both named \"a\": expected different names");
}

static void expect_classes(const char *text, const char *label, const char *names,
                           const int32_t *labels, uint32_t rows) {
    const cop_data_input input = input_of(text, label);
    cop_data *data = data_load("csv", &input);
    char joined[200] = "";
    assert_int_equal(data->train.count, rows);
    assert_non_null(data->class_names);
    for (int32_t c = 0; c < data->classes; c++) {
        strcat(joined, c ? "," : "");
        strcat(joined, data->class_names[c]);
    }
    assert_string_equal(joined, names);
    assert_memory_equal(data->train.labels, labels, rows * sizeof *labels);
    cop_data_destroy(data);
}

/* If the first line has one word among numbers, and the second line has a word in the same column,
 * the word is a label and the first line is not a header. */
static void test_labels_may_be_class_names(void **state) {
    (void)state;
    const int32_t labels[4] = {2, 0, 1, 2};
    const char *classes = "Iris,lily,rose";
    expect_classes("a,species\n1,rose\n2,Iris\n3,\"lily\"\n4,rose\n", "species", classes, labels,
                   4);
    expect_classes("species,a\nrose,1\nIris,2\nlily,3\nrose,4\n", "species", classes, labels, 4);
    expect_classes("5.1,3.5,rose\n2,0,Iris\n3,0,lily\n4,0,rose\n", NULL, classes, labels, 4);
    expect_classes("0,1,kind\n2,0,rose\n2,0,Iris\n3,0,lily\n4,0,rose\n", NULL, classes, labels, 4);
    expect_classes("0,1,rose\n2,0,Iris\n3,0,lily\n4,0,rose\n", NULL, classes, labels, 4);
    expect_classes("\"rose\",1,2\nIris,2,0\nlily,3,0\nrose,4,0\n", "1", classes, labels, 4);
    refuse("a,b\n1,rose\n2,\n", NULL,
           "a.csv:3: column \"b\" is \"\": expected the name of a class");
    refuse("a,b\n1,rose\n2,3\n", NULL,
           "a.csv:3: column \"b\" is \"3\": expected the name of a class");
    refuse("a,b\n1,0\n2,x\n", NULL, "a.csv:3: column \"b\" is \"x\": expected a label, a whole");
    refuse("a,b\n1,x\n2,x\n", NULL, "all labels are \"x\": expected at least two classes");
    cop_data_input input = input_of("a,b\n1,x\n2,y\n", NULL);
    input.test.path = file_put_text("b.csv", "a,b\n1,y\n2,z\n");
    data_refuse(
        "csv", &input, COP_ERR_INPUT,
        "b.csv:3: column \"b\" is \"z\": expected a label that occurs in the training part");
    data_survives_failed_allocations(
        "csv", &(cop_data_input){.name = "c", .train.path = input.train.path});
}

static void test_columns_can_be_dropped(void **state) {
    (void)state;
    const char *const by_name[] = {"id", "note"}, *const by_number[] = {"1", "4"},
                      *const label[] = {"c"};
    cop_data_input input = input_of("id,a,c,note\nx1,1.5,0,free text\nx2,2,1,\nx3,3,0,1\n", "c");
    const float values[3] = {1.5F, 2, 3};
    input.drop_count = 2;
    for (int i = 0; i < 2; i++) {
        input.drop = i ? by_number : by_name;
        cop_data *data = data_load("csv", &input);
        assert_int_equal(data->train.dims[0], 1);
        assert_memory_equal(data->train.samples, values, sizeof values);
        assert_int_equal(data->train.labels[1], 1);
        cop_data_destroy(data);
    }
    input.drop = label;
    input.drop_count = 1;
    data_refuse("csv", &input, COP_ERR_INPUT, "data.label names column 3 of ");
    input.label = "d";
    data_refuse("csv", &input, COP_ERR_INPUT, "a.csv:1: no column is named \"d\"");
}

static size_t compress_text(const char *text, char *out, size_t room) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)text, z.avail_in = (uInt)strlen(text);
    z.next_out = (unsigned char *)out, z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static void test_gzip_with_several_members_is_one_file(void **state) {
    (void)state;
    char bytes[512] = {0};
    size_t size = compress_text("a,b\n1,0\n2", bytes, 200);
    size += compress_text(",1\n", bytes + size, 200);
    cop_data_input input = {.name = "csv", .train.path = file_put("a.csv.gz", bytes, size)};
    cop_data *data = data_load("csv", &input);
    assert_int_equal(data->train.count, 2);
    cop_data_destroy(data);
    file_put("a.csv.gz", bytes, size + 40); /* zeros follow the compressed data, as on tapes */
    cop_data_destroy(data_load("csv", &input));
    file_put("a.csv.gz", bytes, size - 3);
    data_refuse("csv", &input, COP_ERR_CORRUPT, "a.csv.gz is truncated: the gzip data end early");
    bytes[size] = 7;
    file_put("a.csv.gz", bytes, size + 1);
    data_refuse("csv", &input, COP_ERR_CORRUPT, "1 bytes follow the end of the gzip data");
}

static void test_zero_byte_in_csv_is_refused(void **state) {
    (void)state;
    const cop_data_input input = {.train.path = file_put("a.csv", "1,0\n2\0,1\n", 9)};
    data_refuse("csv", &input, COP_ERR_CORRUPT, "is not a text file: it contains a zero byte");
}

static void test_both_csv_files_must_have_the_same_columns(void **state) {
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
    data_survives_failed_allocations("csv", &input);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_line_with_a_word_is_the_header),
        cmocka_unit_test(test_quotes_blanks_and_line_ends),
        cmocka_unit_test(test_errors_name_file_and_line),
        cmocka_unit_test(test_csv_dialects_give_the_same_data_set),
        cmocka_unit_test(test_ambiguous_csv_asks_for_an_option),
        cmocka_unit_test(test_labels_may_be_class_names),
        cmocka_unit_test(test_columns_can_be_dropped),
        cmocka_unit_test(test_gzip_with_several_members_is_one_file),
        cmocka_unit_test(test_zero_byte_in_csv_is_refused),
        cmocka_unit_test(test_both_csv_files_must_have_the_same_columns),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
