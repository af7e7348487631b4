/* Command line options from a table. One row gives an option's name, type, range, help, and place
 * in the caller's struct, so parser, --help and shell completion cannot disagree. */
#ifndef COP_BASE_OPTIONS_H
#define COP_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* The type of the value at `offset` in the caller's struct. Texts are borrowed from argv. */
typedef enum cop_option_kind {
    COP_OPTION_FLAG,    /* bool; takes no value */
    COP_OPTION_TEXT,    /* const char * */
    COP_OPTION_INTEGER, /* int64_t, from `minimum` to `maximum` */
    COP_OPTION_SECONDS, /* double, 0 to 1e7 */
    COP_OPTION_SIZE,    /* uint64_t bytes, with a unit: 500M, 20G */
    COP_OPTION_REPEAT,  /* const char *[maximum]: may be given more than once */
    COP_OPTION_WORDS    /* const char *[maximum]: takes all words up to the next option */
} cop_option_kind;

typedef struct cop_option {
    const char *name; /* without "--" */
    const char *argument, *help;
    char letter; /* for a short form such as -q; 0: none */
    cop_option_kind kind;
    size_t offset;
    int64_t minimum, maximum;
    const char *values; /* all valid values, separated by blanks; NULL: any */
    /* Offset of a bool that is set if the option was given (0: none), or of the int that counts the
     * values of REPEAT and WORDS. */
    size_t given;
} cop_option;

/* The options of one program or command. */
typedef struct cop_options {
    const char *program; /* for messages: "coppice run" */
    const cop_option *rows;
    size_t count;
    const char *names;            /* the accepted rows, separated by blanks; NULL: all */
    const cop_option *positional; /* kind REPEAT, for words that are no options; NULL: none */
} cop_options;

/* True: the row's name is among the accepted ones. */
bool cop_options_accept(const cop_options *options, const char *name);
/* Parses argc words: --name VALUE, --name=VALUE, -l, and positional words ("-" is one; after "--",
 * all are). Fills only the fields that were given in *values. USAGE: the error names the option and
 * the fault or, if it is unknown, the nearest name. */
cop_err cop_options_parse(const cop_options *options, int argc, char **argv, void *values,
                          cop_error *error);
/* Appends a line of help for each accepted option. */
void cop_options_help(const cop_options *options, cop_str *out);

#endif
