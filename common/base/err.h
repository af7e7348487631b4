/* Errors: one table defines codes, names and texts.
 *
 * A function that can fail returns a cop_err, which is 0 (COP_OK) on success. If a person may read
 * the error, the function also fills a cop_error with the code and one sentence, which names the
 * fault, its place and the expected value. Bad input and misbehaving peers lead to such errors.
 * COP_ASSERT is for mistakes in our own code; release builds check it, too. */
#ifndef COP_BASE_ERR_H
#define COP_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

/* X(name, number, short text, exit status of a program that ends with it) */
#define COP_ERR_TABLE(X)                                                                           \
    X(OK, 0, "ok", 0)                                                                              \
    X(USAGE, 1, "bad usage", 2)                                                                    \
    X(INPUT, 2, "bad input", 2)                                                                    \
    X(NOT_FOUND, 3, "not found", 2)                                                                \
    X(EXISTS, 4, "already exists", 2)                                                              \
    X(CORRUPT, 5, "damaged data", 2)                                                               \
    X(UNSUPPORTED, 6, "not supported here", 2)                                                     \
    X(IO, 7, "input/output failed", 1)                                                             \
    X(NO_SPACE, 8, "no space left", 1)                                                             \
    X(NO_MEMORY, 9, "out of memory", 1)                                                            \
    X(TIMEOUT, 10, "timed out", 1)                                                                 \
    X(UNREACHABLE, 11, "not reachable", 2)                                                         \
    X(CLOSED, 12, "connection closed", 1)                                                          \
    X(DENIED, 13, "permission denied", 2)                                                          \
    X(PROTOCOL, 14, "protocol violation", 1)                                                       \
    X(VERSION, 15, "incompatible version", 1)                                                      \
    X(LIMIT, 16, "limit exceeded", 2)                                                              \
    X(DIVERGED, 17, "training diverged", 1)                                                        \
    X(CANCELED, 18, "canceled", 1)                                                                 \
    X(BUSY, 19, "busy", 1)                                                                         \
    X(INTERNAL, 20, "internal error", 1)                                                           \
    X(IN_USE, 21, "in use by another", 2)

typedef enum cop_err {
#define X(name, number, text, status) COP_ERR_##name = number,
    COP_ERR_TABLE(X)
#undef X
} cop_err;
#define COP_OK COP_ERR_OK

/* The number of codes. The codes are 0 to COP_ERR_COUNT - 1; a code from a peer must be one of
 * these. */
enum {
    COP_ERR_COUNT = 0
#define X(name, number, text, status) +1
    COP_ERR_TABLE(X)
#undef X
};

/* An error code with its sentence. Initialize it with {0}; there is nothing to free. */
typedef struct cop_error {
    cop_err code;
    char text[1000];
} cop_error;

/* These functions return, for a code:
 *  - its name, such as "INPUT"; "UNKNOWN" for an unknown code;
 *  - its short text, such as "bad input"; "unknown error" for an unknown code;
 *  - the exit status of a program that ends with this error; 1 for an unknown code.
 * The strings are static. */
const char *cop_err_name(cop_err code);
const char *cop_err_text(cop_err code);
int cop_err_exit_status(cop_err code);

/* Fills `error` with the code and a formatted sentence, which has no final dot or newline. If
 * `error` is NULL, nothing is stored. Returns the code, so that a function can end with
 * `return cop_fail(error, COP_ERR_INPUT, "...")`. */
cop_err cop_fail(cop_error *error, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
cop_err cop_vfail(cop_error *error, cop_err code, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* Fills `error` with NO_MEMORY and its short text, and returns NO_MEMORY. It is inline so that
 * static analysers see that it never returns COP_OK. */
static inline cop_err cop_no_memory(cop_error *error) {
    cop_fail(error, COP_ERR_NO_MEMORY, "%s", cop_err_text(COP_ERR_NO_MEMORY));
    return COP_ERR_NO_MEMORY;
}

/* Like cop_fail, for a system call that failed with errno `number`. Appends ": " and the system's
 * text for `number` to the sentence. Derives the code from `number`:
 *  - NO_SPACE from ENOSPC and EDQUOT
 *  - NOT_FOUND from ENOENT and ENOTDIR
 *  - EXISTS from EISDIR
 *  - DENIED from EACCES, EPERM and EROFS
 *  - NO_MEMORY from ENOMEM
 *  - IO from all others */
cop_err cop_fail_errno(cop_error *error, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Inserts a formatted prefix, such as a file name, and ": " before the sentence of `error`. Returns
 * the code of `error`, or INTERNAL if `error` is NULL. */
cop_err cop_error_prefix(cop_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints file, line and condition to standard error, and aborts the program. Called by COP_ASSERT,
 * which is only for mistakes in our own code, never for bad input. */
_Noreturn void cop_panic(const char *file, int line, const char *condition);
#define COP_ASSERT(condition) ((condition) ? (void)0 : cop_panic(__FILE__, __LINE__, #condition))

/* If the expression is an error, returns it from the enclosing function. Only for places where that
 * function has nothing to clean up. */
#define COP_TRY(expression)                                                                        \
    do {                                                                                           \
        cop_err cop_try_ = (expression);                                                           \
        if (cop_try_ != COP_OK) return cop_try_;                                                   \
    } while (0)

#endif
