/* Command line options from a table. One row has an option's name, type, range, help, and place in
 * the caller's struct. The parser, --help and shell completion read the same rows, so they cannot
 * disagree. */
#ifndef COP_BASE_OPTIONS_H
#define COP_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* The type of an option, and of its field at `offset` in the caller's struct. Texts point into
 * argv. */
typedef enum cop_option_kind {
    COP_OPTION_FLAG,    /* bool; takes no value */
    COP_OPTION_TEXT,    /* const char * */
    COP_OPTION_INTEGER, /* int64_t, from `minimum` to `maximum` */
    COP_OPTION_SECONDS, /* double, 0 to 1e7 */
    COP_OPTION_SIZE,    /* uint64_t bytes, with a unit: 500M, 20G */
    COP_OPTION_REPEAT,  /* const char *[maximum]; each use of the option appends its value */
    COP_OPTION_WORDS    /* const char *[maximum]; appends all words up to the next option */
} cop_option_kind;

typedef struct cop_option {
    const char *name;     /* the option's name without "--" */
    const char *argument; /* the name of the value in --help, such as "FILE"; NULL for a FLAG */
    const char *help;     /* one line for --help */
    char letter;          /* 'q' if -q is a short form; 0: the option has no short form */
    cop_option_kind kind;
    size_t offset;   /* offset of the option's field in the caller's struct */
    int64_t minimum; /* the smallest INTEGER */
    int64_t maximum; /* the largest INTEGER, or the size of the array of REPEAT and WORDS */
    /* All valid values, separated by blanks, for shell completion; NULL: completion offers none.
     * The parser does not check them. */
    const char *values;
    /* For REPEAT and WORDS: the offset of the int that counts their values. For other kinds: the
     * offset of a bool that is set if the option was given, or 0 for no such bool. */
    size_t given;
} cop_option;

/* The options of one program or command. */
typedef struct cop_options {
    const char *program; /* how messages name the program, such as "coppice run" */
    const cop_option *rows;
    size_t count;      /* number of rows */
    const char *names; /* the accepted rows' names, separated by blanks; NULL: all are accepted */
    /* A row of kind REPEAT, which gets the words that are not options. NULL: such words are errors.
     */
    const cop_option *positional;
} cop_options;

/* True: the option with this name is accepted, because options->names is NULL or contains it. */
bool cop_options_accept(const cop_options *options, const char *name);
/* Parses the argc words of argv, which do not include the program's name, into the caller's struct
 * *values. The words are options (--name VALUE, --name=VALUE, -l, -l VALUE) and positional words.
 * "-" is a positional word, and after the word "--" all words are. Fields of options that were not
 * given keep their values. USAGE: the error names the option and its fault or, if the option is
 * unknown, the nearest name. */
cop_err cop_options_parse(const cop_options *options, int argc, char **argv, void *values,
                          cop_error *error);
/* Appends one line of help for each accepted option. */
void cop_options_help(const cop_options *options, cop_str *out);

#endif
