/* Parses command line options, and prints their help. See options.h. */
#include "common/base/options.h"

#include <stdio.h>
#include <string.h>

#define ROWS_MAX    128      /* rows of one table */
#define SECONDS_MAX 10000000 /* the largest value of a SECONDS option */

bool cop_options_accept(const cop_options *options, const char *name) {
    const size_t length = strlen(name);
    if (!options->names) return true;
    for (const char *p = options->names; (p = strstr(p, name)); p += length) {
        const bool begins = p == options->names || p[-1] == ' ';
        if (begins && (p[length] == ' ' || p[length] == '\0')) return true;
    }
    return false;
}

static cop_err unknown_option(const cop_options *options, const char *text, cop_error *error) {
    const char *names[ROWS_MAX];
    size_t count = 0;
    COP_ASSERT(options->count <= ROWS_MAX);
    for (size_t i = 0; i < options->count; i++)
        if (cop_options_accept(options, options->rows[i].name))
            names[count++] = options->rows[i].name;
    const char *nearest = cop_nearest_name(text + strspn(text, "-"), names, count);
    if (nearest)
        return cop_fail(error, COP_ERR_USAGE, "unknown option %s: did you mean --%s? (%s --help)",
                        text, nearest, options->program);
    return cop_fail(error, COP_ERR_USAGE, "unknown option %s (%s --help lists its options)", text,
                    options->program);
}

/* Finds the row of the option `text`, which is "--name" or "-l" and has `length` bytes. NULL: there
 * is no such row, or it is not accepted. */
static const cop_option *find_row(const cop_options *options, const char *text, size_t length) {
    for (size_t i = 0; i < options->count; i++) {
        const cop_option *r = &options->rows[i];
        bool by_letter = length == 2 && text[0] == '-' && r->letter && text[1] == r->letter;
        bool by_name = length > 2 && strlen(r->name) == length - 2 && strncmp(text, "--", 2) == 0 &&
                       strncmp(text + 2, r->name, length - 2) == 0;
        if ((by_letter || by_name) && cop_options_accept(options, r->name)) return r;
    }
    return NULL;
}

static cop_err bad_value(const cop_option *row, const char *value, const char *expected,
                         cop_error *error) {
    return cop_fail(error, COP_ERR_USAGE, "--%s is \"%s\": expected %s", row->name, value,
                    expected);
}

static cop_err store_integer(const cop_option *row, const char *value, int64_t *out,
                             cop_error *error) {
    char expected[80];
    int64_t number;
    COP_ASSERT(row->minimum < row->maximum);
    if (cop_parse_i64(value, &number) && number >= row->minimum && number <= row->maximum) {
        *out = number;
        return COP_OK;
    }
    snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)row->minimum,
             (long long)row->maximum);
    return bad_value(row, value, expected, error);
}

static cop_err store_seconds(const cop_option *row, const char *value, double *out,
                             cop_error *error) {
    double number;
    if (!cop_parse_f64(value, &number) || number < 0 || number > SECONDS_MAX)
        return bad_value(row, value, "seconds from 0 to 10000000", error);
    *out = number;
    return COP_OK;
}

static cop_err append_text(const cop_option *row, const char *value, const char **texts, int *count,
                           cop_error *error) {
    COP_ASSERT(*count >= 0 && *count <= row->maximum);
    if (*count == row->maximum)
        return row->name[0] ? cop_fail(error, COP_ERR_USAGE, "--%s has more than %d values",
                                       row->name, *count)
                            : cop_fail(error, COP_ERR_USAGE, "too many arguments");
    texts[(*count)++] = value;
    return COP_OK;
}

static cop_err store_value(const cop_option *row, const char *value, void *values,
                           cop_error *error) {
    void *at = (char *)values + row->offset, *given = (char *)values + row->given;
    if (row->kind == COP_OPTION_REPEAT || row->kind == COP_OPTION_WORDS)
        return append_text(row, value, at, given, error);
    if (row->kind == COP_OPTION_FLAG) *(bool *)at = true;
    if (row->kind == COP_OPTION_TEXT) *(const char **)at = value;
    if (row->kind == COP_OPTION_INTEGER) COP_TRY(store_integer(row, value, at, error));
    if (row->kind == COP_OPTION_SECONDS) COP_TRY(store_seconds(row, value, at, error));
    if (row->kind == COP_OPTION_SIZE && !cop_parse_size(value, at))
        return bad_value(row, value, "a size such as 500M or 20G", error);
    if (row->given) *(bool *)given = true;
    return COP_OK;
}

typedef struct word_list {
    char **words;
    int count;
    int next; /* index of the next word to parse */
} word_list;

/* Parses the option at list->next and its values, and moves list->next behind them. */
static cop_err parse_option(const cop_options *options, word_list *list, void *values,
                            cop_error *error) {
    const char *text = list->words[list->next++], *equals = strchr(text, '=');
    const bool joined = equals && text[1] == '-';
    const size_t length = joined ? (size_t)(equals - text) : strlen(text);
    const cop_option *row = find_row(options, text, length);
    const char *value = NULL;
    if (!row) return unknown_option(options, text, error);
    if (row->kind == COP_OPTION_FLAG) {
        if (joined) return cop_fail(error, COP_ERR_USAGE, "--%s takes no value", row->name);
    } else if (joined) {
        value = equals + 1;
    } else {
        if (list->next == list->count)
            return cop_fail(error, COP_ERR_USAGE, "--%s needs a value: --%s %s", row->name,
                            row->name, row->argument);
        value = list->words[list->next++];
    }
    COP_TRY(store_value(row, value, values, error));
    if (row->kind != COP_OPTION_WORDS || joined) return COP_OK;
    while (list->next < list->count && list->words[list->next][0] != '-')
        COP_TRY(store_value(row, list->words[list->next++], values, error));
    return COP_OK;
}

cop_err cop_options_parse(const cop_options *options, int argc, char **argv, void *values,
                          cop_error *error) {
    word_list list = {.words = argv, .count = argc};
    bool options_ended = false;
    COP_ASSERT(!options->positional || options->positional->kind == COP_OPTION_REPEAT);
    while (list.next < list.count) {
        char *word = argv[list.next];
        if (!options_ended && word[0] == '-' && word[1] && strcmp(word, "--") != 0) {
            COP_TRY(parse_option(options, &list, values, error));
            continue;
        }
        list.next++;
        if (!options_ended && strcmp(word, "--") == 0)
            options_ended = true;
        else if (options->positional)
            COP_TRY(store_value(options->positional, word, values, error));
        else
            return cop_fail(error, COP_ERR_USAGE, "unexpected argument \"%s\" (%s --help)", word,
                            options->program);
    }
    return COP_OK;
}

void cop_options_help(const cop_options *options, cop_str *out) {
    for (size_t i = 0; i < options->count; i++) {
        const cop_option *r = &options->rows[i];
        if (!cop_options_accept(options, r->name)) continue;
        char head[64];
        snprintf(head, sizeof head, "%s--%s%s%s",
                 r->letter ? (char[]){'-', r->letter, ',', ' ', 0} : "    ", r->name,
                 r->argument ? " " : "", r->argument ? r->argument : "");
        cop_str_printf(out, "  %-28s %s\n", head, r->help);
    }
}
